//! What a container is to be: plain data, validated before anything is touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// Where in a spec something stands, for errors.
mod at;
/// Bytes that are not UTF-8, in JSON.
mod base64;
/// One builder method per field.
mod builder;
/// Capabilities by name and number.
mod caps;
/// How single values are written.
mod codec;
/// Processors and memory nodes.
pub(crate) mod cpuset;
/// Exact decimal numbers with a unit.
mod decimal;
/// Entries of `devices` and `device_rules`.
mod device;
/// The size of the writable layer, and quotas of ids in it.
mod disk;
/// Durations as text.
mod duration;
/// What a reader of events asks for.
pub(crate) mod event_options;
/// The table of fields.
pub(crate) mod fields;
/// Files made from bytes.
mod file;
/// What passes at a device on a network.
mod firewall;
/// How ids inside are ids of the host.
mod idmap;
/// Limits and shares of block devices.
mod io;
/// JSON text in, and the sentences for values of the wrong type.
mod json;
/// Rules of Landlock.
mod landlock;
/// What happens on a link.
pub(crate) mod link_shape;
/// Which part of a log is wanted.
pub(crate) mod log_options;
/// Entries of `mounts`.
mod mount;
/// The syntax of container names.
mod name;
/// Namespaces: kinds and where they come from.
mod namespace;
/// The field `net`.
pub(crate) mod net;
/// Networks of containers.
mod network;
/// The fields of a command by name.
mod of_command;
/// Entries of `ports`.
mod port;
/// What is hidden and what is read-only below /proc and /sys.
mod proc_paths;
/// Limits of single processes.
mod rlimit;
/// Where `/` comes from.
mod rootfs;
/// How single processes are scheduled.
mod scheduler;
/// The JSON schema.
mod schema;
/// The field `seccomp`.
mod seccomp;
/// What uid 0 is, and how capabilities pass.
mod securebits;
/// How fields hold their values.
pub(crate) mod shape;
/// Signals by name and number.
mod signal;
/// Sizes as text.
mod size;
/// The three standard streams and the terminal.
mod stdio;
/// "Did you mean".
mod suggest;
/// Kernel parameters of namespaces.
pub(crate) mod sysctl;
#[cfg(test)]
mod tests;
/// Offsets of the container's clocks.
mod time_offsets;
/// Users and groups as text.
mod user;
/// What can never work.
mod validate;
/// What makes a container ready.
pub(crate) mod wait_for;

pub use crate::security::filter::rules::{
    Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOp, SeccompProfile, SeccompRule, SeccompRules, SeccompWhen,
};
pub use caps::Capabilities;
pub use cpuset::{Cpuset, Partition};
pub use device::{Device, DeviceAccess, DeviceKind, DeviceRule};
pub use disk::{Disk, DiskBackend, Filesystem, IdQuota, QuotaId};
pub use duration::parse as parse_duration;
pub use file::File;
pub use firewall::{Firewall, FirewallAction, FirewallPeer, FirewallPorts, FirewallProtocol, FirewallRule};
pub use idmap::{IdRange, Idmap, MountIdmap};
pub use io::{IoMax, RdmaMax};
pub use landlock::Landlock;
pub use mount::{BindSource, Mount, MountKind, MountOwner};
pub(crate) use name::name_syntax;
pub use namespace::{NamespaceKind, NamespaceSource};
pub use net::{
    AddressPool, Attachment, AttachmentKind, InterfaceAddress, IpvlanMode, MacvlanMode, Net, Route, RoutedPair,
};
pub use network::{NetworkSpec, WayOut};
pub use port::{Port, Protocol};
pub use rlimit::{Resource, Rlimit};
pub use rootfs::{Rootfs, RootfsKind};
pub use scheduler::{IoPriority, Policy, Scheduler};
pub use schema::schema_json;
pub use securebits::Securebits;
pub use signal::{name as signal_name, parse as parse_signal};
pub use size::parse as parse_size;
pub use stdio::{Stdio, Terminal};
pub use time_offsets::TimeOffsets;
pub use user::{IdOrName, MAX_ID, UserSpec};

use codec::{Bool, Bytes, Cores, Count, FilePath, Int, Mode, Signal, Size, Text, Time, User, Variable};
use fields::documented;
use io::IoWeight;
use port::Ports;
use proc_paths::{Masked, Readonly};
use shape::{Descriptors, List, ListOver, Map, Named, One, Opt};

use crate::error::Result;

documented! {
    /// What a container is to be. `Default` is what an empty JSON object means.
    ///
    /// Every field is public plain data and has a builder method of the same name, so that
    /// `Container::start(&Spec::new().hostname("db").memory(256 << 20).cpus(0.5))` works. Nothing is checked while a spec is
    /// put together; [`Spec::validate`] and every start check all of it.
    ///
    /// The same names are the keys of JSON ([`Spec::from_json`]), of [`Spec::set`], of C and of Python. Sizes are bytes, in
    /// text also with K, M, G or T (powers of 1024); times are seconds in JSON, in text also `500ms`, `2s`, `1m`, `1h`.
    /// Paths, arguments and variables are bytes: everything that the kernel takes, which is all but NUL.
    ///
    /// A value that can never work is an error of kind [`InvalidSpec`](crate::ErrorKind::InvalidSpec) that names the field,
    /// like `mounts[2].target`; what only this machine or this user cannot do shows at the start, also with the field.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Spec {
        /// The name, under which `by_name` and `ls` find the container, from other programs too when it is detached.
        ///
        /// Default: none; needed for `detach`. Range: 1 to 64 characters of `A-Z a-z 0-9 _ . -`, the first a letter or digit;
        /// two living containers of one user cannot have the same. Fixed at the start.
        name: Option<String> = None, as Opt<Text>;
        /// The main process: program and arguments. A program without a slash is looked up in the payload's PATH, inside.
        ///
        /// Default: empty, a container without a main process, which lives until it is closed. Fields that only a main process has
        /// (`env`, `env_inherit`, `cwd`, `user`, `groups`, `umask`, `terminal`, `stdin`, `stdout`, `stderr`, `log_max`, `rlimits`,
        /// `nice`, `scheduler`, `io_priority`, `oom_score_adj`, `pass_fds`) are refused then; commands have their own. Only `user` may
        /// stand where mounts have an `owner`. Range: the program is not empty; an argument has at most 131,071 bytes (32 pages with the NUL), all together 6 MiB. Fixed at the start;
        /// further processes are started with [`Container::command`](crate::Container::command). Source: execve(2).
        argv: Vec<OsString> = Vec::new(), as List<Bytes>;
        /// Environment variables that are added to the clean base (PATH, HOME, TERM, LANG=C.UTF-8); `None` removes one.
        ///
        /// Default: empty. Range: names are not empty and have no `=`; a variable has at most 131,071 bytes. Fixed at the
        /// start. Source: environ(7), execve(2).
        env: BTreeMap<OsString, Option<OsString>> = BTreeMap::new(), as Map<OsString, Variable>;
        /// Names of the caller's variables to pass through when they are set; `*` is all of them. `env` wins over them.
        ///
        /// Default: empty: nothing of the caller's environment is seen inside. Read when the container starts. Fixed at the
        /// start. Source: environ(7).
        env_inherit: Vec<OsString> = Vec::new(), as List<Bytes>;
        /// The working directory of the main process.
        ///
        /// Default: `/`. Range: an absolute path, which must exist inside. Fixed at the start. Source: chdir(2).
        cwd: Option<PathBuf> = None, as Opt<FilePath>;
        /// The user of the main process, whose also the files are that are copied in: `uid`, `name`, `uid:gid` or `name:group`; names are those of the container's own
        /// /etc/passwd and /etc/group.
        ///
        /// Default: `0:0`, which is root inside; without a group it is that of the user's line in /etc/passwd, else 0.
        /// Range: ids are decimal digits, 0 to 4294967294, without sign, spaces or leading zeros. Fixed at the start.
        /// Source: credentials(7), passwd(5).
        user: Option<String> = None, as Opt<User>;
        /// Supplementary groups of the main process, by id or by name of the container's own /etc/group.
        ///
        /// Default: none; the caller's groups are never kept. Range: as the group in `user`, at most 65,536. Fixed at the
        /// start. Source: setgroups(2).
        groups: Vec<String> = Vec::new(), as List<User>;
        /// The file mode creation mask of the main process. Text is octal (`022`); a number in JSON is a plain number (18).
        ///
        /// Default: 0o022. Range: 0 to 0o777. Fixed at the start. Source: umask(2).
        umask: Option<u32> = None, as Opt<Mode>;
        /// The host name inside.
        ///
        /// Default: the caller's. Range: labels of letters, digits and inner hyphens, at most 63
        /// bytes each, separated by dots (RFC 1123); at most 64 bytes in all, which is the kernel's bound. Needs a UTS
        /// namespace of its own. Fixed at the start. Source: sethostname(2), uts_namespaces(7).
        hostname: Option<String> = None, as Opt<Text>;
        /// The NIS domain name inside.
        ///
        /// Default: the caller's. Range: as `hostname`. Fixed at the start. Source: setdomainname(2).
        domainname: Option<String> = None, as Opt<Text>;
        /// Addresses of name servers for /etc/resolv.conf inside.
        ///
        /// Default: none: /etc/resolv.conf is what the root file system has. Range: at most 3 IPv4 or IPv6 addresses, because
        /// the C library ignores any more. Fixed at the start. Source: resolv.conf(5).
        dns: Vec<String> = Vec::new(), as List<Text>;
        /// Lines for /etc/hosts inside: name -> address, beside localhost and the container's own name.
        ///
        /// Default: none. Range: names as `hostname` (at most 253 bytes), IPv4 or IPv6 addresses. Fixed at the start.
        /// Source: hosts(5).
        hosts: BTreeMap<String, String> = BTreeMap::new(), as Map<String, Text>;
        /// Where `/` comes from: the host's own tree, a directory, or layers. See [`Rootfs`].
        ///
        /// Default: `host`. In JSON: `"host"`, `"host:owned"`, an absolute path, `{"path": ..., "readonly": true}` or
        /// `{"lower": [...], "upper": ..., "readonly": true}`; a directory and layers may have an `idmap`. Fixed at the start.
        /// Source: the kernel's filesystems/overlayfs.
        rootfs: Rootfs = Rootfs::default(), as One<Rootfs>;
        /// What is mounted below `/`, in this order: `source[:target][:rw]`, or objects. See [`Mount`].
        ///
        /// Default: none beside /proc, /sys, /dev and the private directories of the root file system. Range: absolute paths;
        /// targets without `..`, each once, none above an earlier one, none below /proc but a binfmt_misc at its place and a few
        /// plain files. A start has a descriptor of each until it is over, of this program for root, else of its keeper: RLIMIT_NOFILE is a
        /// bound (the hard one of a keeper), and so are 8,189 of root's, with all that is passed (Exhausted). Fixed at the start.
        /// Source: mount_setattr(2), open_tree(2).
        mounts: Vec<Mount> = Vec::new(), as List<Mount>;
        /// Files that exist inside with these bytes: absolute path -> content. Missing directories are made. See [`File`].
        ///
        /// Default: none. Range: absolute paths without `..`; modes up to 0o7777. Fixed at the start.
        files: BTreeMap<PathBuf, File> = BTreeMap::new(), as Map<PathBuf, File>;
        /// Device nodes of the host that the container's /dev has beside the standard ones: `path[:target][:access]`, or objects.
        /// See [`Device`].
        ///
        /// Default: none. Range: character and block devices of which the caller has the access itself; targets below /dev, each
        /// once, that nothing else is at. Root's containers get nodes of their own with the host's owner, group and mode, in the
        /// container's ids; where the caller may make none (an ordinary user, without CAP_MKNOD), the host's node itself is
        /// bound, and inside only what its mode allows the caller without its further groups. Needs a mount namespace of its
        /// own. Can change while running: see [`Container::add_device`](crate::Container::add_device). Source: mknod(2), the
        /// kernel's admin-guide/devices.
        devices: Vec<Device> = Vec::new(), as List<Device>;
        /// What may be done with devices by their numbers, wherever a node of them is: `[allow|deny] TYPE [MAJOR:MINOR] [ACCESS]`,
        /// or objects as in OCI. See [`DeviceRule`].
        ///
        /// Of the rules that are about a device and an access the last one decides. Before these stand those that every
        /// container has: everything is denied but `m` of all devices, and `rwm` of null, zero, full, random, urandom, tty,
        /// ptmx and pseudoterminals; after them those of `devices`. `a` alone, "all of all", leaves nothing denied.
        ///
        /// Default: none but those that stand before, for containers of root with a mount namespace of their own; no rules at all
        /// for ordinary users, in whose user namespaces nobody can make a node, and no node is a device but those of /dev. Range:
        /// majors to 4095, minors to 1048575, 256 rules. To give any takes CAP_SYS_ADMIN of the machine itself and a control
        /// group: v2, or the devices controller of v1, which has no exceptions from exceptions (Unsupported). What is open
        /// stays open. Can change while running. Source: the kernel's admin-guide/cgroup-v2, "Device controller", and
        /// admin-guide/cgroup-v1/devices.
        device_rules: Vec<DeviceRule> = Vec::new(), as List<DeviceRule>;
        /// The size of /dev/shm.
        ///
        /// Default: 64 MiB. Unit: bytes. Range: 4096 and more (0 would mean unbounded to tmpfs). Excludes CAP_SYS_ADMIN in
        /// `capabilities`, which could change it; a tmpfs of `mounts` promises no size. Can change while running, not below what
        /// is used. Source: shm_overview(7), tmpfs(5).
        shm_size: Option<u64> = None, as Opt<Size>;
        /// Whether pid 1 is ringfence's own init, which reaps orphans, starts the payload and lets a container live without a
        /// main process.
        ///
        /// Default: true. With false the payload is pid 1: it has to reap orphans, the kernel gives it no default actions for
        /// signals, and `argv` is needed. Fixed at the start. Source: pid_namespaces(7).
        init: bool = true, as One<Bool>;
        /// A terminal for the main process: a pseudoterminal of the container's own devpts, controlling a new session.
        ///
        /// Default: none. In JSON `true` is 24 rows of 80 columns. Excludes `stdin`, `stdout` and `stderr`. Can be resized
        /// while running. Source: pty(7).
        terminal: Option<Terminal> = None, as Opt<Terminal>;
        /// Standard input of the main process. See [`Stdio`].
        ///
        /// Default: null for a container's main process, inherit for [`run`](crate::run). Fixed at the start.
        stdin: Option<Stdio> = None, as Opt<Stdio>;
        /// Standard output of the main process. See [`Stdio`].
        ///
        /// Default: log for a container's main process, inherit for [`run`](crate::run). Fixed at the start.
        stdout: Option<Stdio> = None, as Opt<Stdio>;
        /// Standard error of the main process. See [`Stdio`]; `stdout` sends it where standard output goes.
        ///
        /// Default: log for a container's main process, inherit for [`run`](crate::run). Fixed at the start.
        stderr: Option<Stdio> = None, as Opt<Stdio>;
        /// The bound of a `log` stream, of stdout and stderr together, in whole pages of 4096 bytes. The oldest is kept: what is written
        /// past it is lost, and the container is not held up. The program's write(2) fails with EPERM then (one that fits in part
        /// is refused as a whole by some kernels); [`log_is_full`](crate::Container::log_is_full) tells the host.
        ///
        /// The log is a regular file, in memory that only what was written takes. A program that opens it once more, by /dev/stdout
        /// or /proc/self/fd/1, has an offset of its own and writes over the beginning, as with any file: have such programs
        /// write to the descriptor.
        ///
        /// Default: 1 MiB. Unit: bytes. Range: 4096 to 1 TiB. Fixed at the start.
        log_max: Option<u64> = None, as Opt<Size>;
        /// Whether the container outlives the program that started it.
        ///
        /// Default: false: it is gone within a second after its handle is closed or the program ended in any way. Needs `name`.
        /// Where systemd runs the machine (cgroup v2) it gets a scope of its own, so that the end of the unit that started it
        /// is not its end; without one the start fails. Fixed at the start.
        detach: bool = false, as One<Bool>;
        /// Whether programs inside can start containers of their own: with ringfence, or with anything else that uses namespaces and
        /// control groups. See [`nesting`](crate::entering#containers-in-containers).
        ///
        /// Default: false. With it /proc and /sys are whole and writable (nothing is masked or read-only: what protects the
        /// machine's own settings is that nothing inside is root there), and the container's control groups are mounted at
        /// /sys/fs/cgroup and belong to its root, who can divide them but not change the limits of the whole (a caller who can have no
        /// groups gives none). Needs user, mnt, pid, net and cgroup namespaces of its own, without the host's id 0 in `idmap`; on
        /// cgroup v1 it excludes `io_max`, which holds for a single group there. Each level takes one pid and two user namespaces, of which the kernel
        /// nests 32. Under the `default` profile of `seccomp` it may make namespaces and mounts; it excludes `strict`. Fixed at the start. Source: user_namespaces(7), pid_namespaces(7), cgroups(7).
        nesting: bool = false, as One<Bool>;
        /// Namespaces that are not simply new: kind (`mnt pid net ipc uts user cgroup time`) -> `new`, `host`, the path of a
        /// namespace file, `fd:N`, `pid:N`, or `container:NAME`. See [`NamespaceSource`].
        ///
        /// Default: all new. `net` here excludes another `net`; the user namespace is decided by `idmap` unless one is joined;
        /// a namespace that is not new excludes the fields that would change it (`hostname` with a host's `uts`, ...). /proc shows the
        /// pid namespace that is joined, which without its user namespace takes root, and Linux 6.17 where `idmap` is not `host`.
        /// /sys/class/net shows the devices of a network namespace that is joined; for an ordinary caller it shows the host's, read-only,
        /// whatever the network is: what is there is told by netlink (`ip link`, if_nameindex(3)) and by /proc/net/dev.
        /// Fixed at the start. Source: namespaces(7), the kernel's filesystems/proc, pidns.
        namespaces: BTreeMap<NamespaceKind, NamespaceSource> = BTreeMap::new(), as Map<NamespaceKind, NamespaceSource>;
        /// How ids inside are ids of the host. See [`Idmap`].
        ///
        /// Default: `auto`: a user namespace with a disjoint range of ids, or the strongest that this machine and user can
        /// have; what was chosen is readable on the handle. `host` is weaker: root inside is then root on the host, held
        /// back by capabilities alone. With CAP_SYS_PTRACE it can then trace whatever it sees: also who joins the container, which
        /// until it executes its program has the rights of the host. Fixed at the start. Source: user_namespaces(7), ptrace(2).
        idmap: Idmap = Idmap::Auto, as One<Idmap>;
        /// The hard limit of memory of all processes together, page cache and kernel memory included. At the limit the kernel
        /// reclaims, then kills.
        ///
        /// Default: no limit of its own. Unit: bytes. Range: 64 KiB to 2^63-1, in whole pages (the kernel rounds down); below
        /// 64 KiB no program can be executed, because its first stack and page tables are charged to it. Enforced, or the
        /// start fails and names what is missing. Can change while running. Source: the kernel's admin-guide/cgroup-v2.
        memory: Option<u64> = None, as Opt<Size>;
        /// A bound of memory at which the processes are slowed down and made to give memory back; they are not killed for it.
        ///
        /// Default: none. Unit: bytes. Range: one page (4 KiB) to `memory`, in whole pages. Only on cgroup v2; elsewhere the
        /// start fails and says so. Can change while running. Source: the kernel's admin-guide/cgroup-v2, memory.high.
        memory_high: Option<u64> = None, as Opt<Size>;
        /// Memory that is spared when the machine runs short, as long as anything unprotected is left to reclaim.
        ///
        /// Default: none. Unit: bytes. Range: one page to `memory`, in whole pages. It holds within what the groups above the
        /// container's are protected with themselves. Only on cgroup v2; elsewhere the start fails and says so. Can change while running. Source: the kernel's admin-guide/cgroup-v2, memory.low.
        memory_low: Option<u64> = None, as Opt<Size>;
        /// Memory that is guaranteed: it is never reclaimed; rather something is killed elsewhere.
        ///
        /// Default: none. Unit: bytes. Range: one page to `memory` and `memory_low`, in whole pages; holds as `memory_low`
        /// does. Only on cgroup v2; elsewhere the start fails and says so. Can change while running. Source: the kernel's
        /// admin-guide/cgroup-v2, memory.min.
        memory_min: Option<u64> = None, as Opt<Size>;
        /// Whether all processes are killed when one has to be for want of memory, so that none is left without the others.
        ///
        /// Default: false: the kernel chooses one. Only on cgroup v2; elsewhere true is an error. Can change while running.
        /// Source: the kernel's admin-guide/cgroup-v2, memory.oom.group.
        oom_group: bool = false, as One<Bool>;
        /// How much may be swapped out, beside `memory`. 0: nothing.
        ///
        /// Default: no limit on v2, none on v1 where `memory` is set (it then limits the sum). Unit: bytes. Range: 0 to
        /// 2^63-1, in whole pages. On cgroup v1 it needs `memory`, because only their sum can be limited. Enforced, or the
        /// start fails and names what is missing. Can change while running. Source: the kernel's admin-guide/cgroup-v2,
        /// memory.swap.max.
        swap: Option<u64> = None, as Opt<Size>;
        /// The hard limit of processor time per time, of all processes together.
        ///
        /// Default: no limit of its own. Unit: cores (0.5 is half of one core's time). Range: 0.001 to 10000; the kernel's
        /// smallest quota is 1 ms per period of 1 s. Enforced, or the start fails and names what is missing. Can change while running. Source: the kernel's scheduler/sched-bwc.
        cpus: Option<f64> = None, as Opt<Cores>;
        /// Processor time that may be saved up while less than `cpus` is used, and spent above it later.
        ///
        /// Default: 0. Unit: seconds of processor time. Range: 1 microsecond up to what `cpus` allows in one period (0.1 s times
        /// `cpus`; below 0.01 cores 1 s). Needs `cpus`. Can change while running. Source: the kernel's scheduler/sched-bwc,
        /// cpu.max.burst.
        cpu_burst: Option<Duration> = None, as Opt<Time>;
        /// Whether the container runs only when no group beside it wants the processor.
        ///
        /// Default: false. On cgroup v1 only containers with a limit of processors have a group beside it. Excludes `cpu_weight`. Can change while running. Source: the kernel's admin-guide/cgroup-v2,
        /// cpu.idle.
        cpu_idle: bool = false, as One<Bool>;
        /// The share of contended processors, against other groups beside the container's.
        ///
        /// Default: 100, as every group. Unit: a weight. Range: 1 to 10000. On cgroup v1 these are 1024/100 shares each, and a
        /// container without any limit of processors has no group there: its processes share one by one.
        /// Can change while running. Source: the kernel's admin-guide/cgroup-v2, cpu.weight.
        cpu_weight: Option<u64> = None, as Opt<Count>;
        /// The processors on which it may run, and the memory nodes that it gets memory from. See [`Cpuset`].
        ///
        /// Default: all that the group above has. In JSON `"0-3,7"`, or `{"cpus": "0-1", "mems": "0", "partition": "root"}`.
        /// Range: what the group above has; numbers up to 8191. A partition takes the processors away from everybody else and
        /// is for cgroup v2. Can change while running. Source: the kernel's admin-guide/cgroup-v2, cpuset; cpuset(7).
        cpuset: Option<Cpuset> = None, as Opt<Cpuset>;
        /// The most processor time that real-time processes (`scheduler`: fifo, rr) may use in each `cpu_rt_period`, on each
        /// processor.
        ///
        /// Default: no budget of its own. Without one, real-time processes cannot be in a group of the cpu controller of cgroup
        /// v1 (CONFIG_RT_GROUP_SCHED); a container has such a group of its own when another field limits its processors, else it
        /// is in the caller's. Unit: seconds of processor time. Range: 1 microsecond to `cpu_rt_period`, within what the groups above have left; directories that
        /// ringfence made get what is missing there. Only on cgroup v1; elsewhere the start fails and says so. Can change while
        /// running; taking it away from real-time processes is refused (EBUSY). Source: the kernel's scheduler/sched-rt-group.
        cpu_rt_runtime: Option<Duration> = None, as Opt<Time>;
        /// The period of `cpu_rt_runtime`.
        ///
        /// Default: 1 s. Unit: seconds. Range: 1 to 2147483647 microseconds. Needs `cpu_rt_runtime`. Can change while running.
        /// Source: the kernel's scheduler/sched-rt-group.
        cpu_rt_period: Option<Duration> = None, as Opt<Time>;
        /// The hard limit of processes and threads together, ringfence's init included. At the limit fork fails with EAGAIN.
        ///
        /// Default: no limit of its own. Range: 1 to 4194304. Enforced, or the start fails and names what is missing. Can change while running. Source: the kernel's admin-guide/cgroup-v2.
        pids: Option<u64> = None, as Opt<Count>;
        /// How many pseudoterminals may be open at once, in each devpts that is mounted for the container. At the limit opening
        /// one more fails with ENOSPC.
        ///
        /// Default: what the machine has left for all (kernel.pty.max less kernel.pty.reserve, which is kept for the host's own).
        /// Range: 1 to 1048576 (0 would mean no limit to devpts). Needs a mount namespace of its own. Can change while running, not
        /// below what is open. Source: the kernel's filesystems/devpts, max.
        ptys: Option<u64> = None, as Opt<Count>;
        /// The share of contended block devices, against other groups beside the container's.
        ///
        /// Default: 100, as every group. Unit: a weight. Range: 1 to 10000, 1 to 1000 where the device is scheduled by bfq;
        /// text may also be `ioprio:0` to `ioprio:7`, OpenVZ's priorities (20 to 160; 4 is the default there, and 100 here).
        /// Needs a device that shares by weight, scheduled by bfq or with io.cost switched on; without one it is an error that
        /// says so. Can change while running. Source: the kernel's block/bfq-iosched and admin-guide/cgroup-v2, io.weight.
        io_weight: Option<u64> = None, as Opt<IoWeight>;
        /// The most that is read and written in a second: block device -> limits. See [`IoMax`].
        ///
        /// Default: none. A device is a path (of the device, or of anything on a file system of it) or `MAJOR:MINOR`; a
        /// partition's limits are set on its whole disk, which is what the kernel limits. Buffered writes count on cgroup v2
        /// only. Can change while running. Source: the kernel's admin-guide/cgroup-v2, io.max; cgroup-v1/blkio-controller.
        io_max: BTreeMap<String, IoMax> = BTreeMap::new(), as Named<IoMax>;
        /// Which of the main process's requests for a block device go first, where the device's scheduler looks at that (bfq,
        /// mq-deadline). See [`IoPriority`].
        ///
        /// Default: best effort, by the nice value. In JSON `"idle"`, `"best-effort:4"`, `"realtime:0"`. Range: levels 0 (first)
        /// to 7; realtime takes CAP_SYS_NICE or CAP_SYS_ADMIN on the host. Inherited by children. Fixed at the start.
        /// Source: ioprio_set(2).
        io_priority: Option<IoPriority> = None, as Opt<IoPriority>;
        /// The most memory in huge pages: page size -> bytes. Reservations count: mmap fails at the limit.
        ///
        /// Default: no limit of its own. Unit: bytes, in whole huge pages (the kernel rounds down). Keys are sizes that the
        /// machine has (`2M`, `1G`). Can change while running. Source: the kernel's admin-guide/cgroup-v2, hugetlb.
        hugepages: BTreeMap<String, u64> = BTreeMap::new(), as Named<Size>;
        /// The most handles and objects of RDMA devices: device -> limits. See [`RdmaMax`].
        ///
        /// Default: none. Range: 0 to 2147483647. Can change while running. Source: the kernel's admin-guide/cgroup-v2, rdma.
        rdma: BTreeMap<String, RdmaMax> = BTreeMap::new(), as Named<RdmaMax>;
        /// The most of other countable resources (encryption ids of guests, for one): the kernel's name -> count.
        ///
        /// Default: none. Range: names that the machine has (misc.capacity of the root group). Can change while running.
        /// Source: the kernel's admin-guide/cgroup-v2, misc.
        misc: BTreeMap<String, u64> = BTreeMap::new(), as Named<Count>;
        /// The size of the writable layer: of everything that the payload can change below `/` but in `mounts` and /dev/shm. In
        /// JSON a size, or `{"size": "10G", "backend": "image", "filesystem": "xfs", "path": "/var/tmp"}`. See [`Disk`].
        ///
        /// Default: no limit; a private layer is a tmpfs of half the machine's memory. Unit: bytes, in whole blocks (the kernel
        /// rounds). Range: 4096 to 2^63-1. Where the root file system is private (`host`, layers without `upper`) it is the
        /// size of that tmpfs, for every caller; a directory of the host takes root and a file system with quotas; an `image`
        /// takes root. Enforced, or the start fails and names what is missing. Excludes capabilities with which it could be
        /// passed: `sys_admin`, and without a user namespace `sys_resource`. What a full layer gives is ENOSPC or EDQUOT,
        /// see [`resources`](crate::resources). Can change while running; the backend is fixed at the start.
        /// Source: tmpfs(5), quotactl(2), btrfs-quota(5).
        disk: Option<Disk> = None, as Opt<Disk>;
        /// The most inodes of the writable layer: files, directories, links and everything else that has a name.
        ///
        /// Default: no limit of its own. Range: 1 and more; the container's own directories count, some 60 with
        /// `rootfs: host`. Backends as of `disk`; btrfs cannot limit it. Can change while running, but for an image.
        /// Source: tmpfs(5), quotactl(2).
        inodes: Option<u64> = None, as Opt<Count>;
        /// What single users and groups inside may have on the writable layer: `uid:N` or `gid:N` -> size, or
        /// `{"disk": "1G", "inodes": 1000}`. See [`IdQuota`].
        ///
        /// Default: none. Unit: bytes, in whole KiB (rounded down). Range: 1024 and more; ids as they are inside. At the limit
        /// writes fail with EDQUOT. Needs a file system of the container's own that counts by owner: `disk` with backend
        /// `image` and filesystem `ext4` or `xfs`. Can change while running. Source: quotactl(2).
        quota: BTreeMap<QuotaId, IdQuota> = BTreeMap::new(), as Map<QuotaId, IdQuota>;
        /// Limits of each single process: resource -> soft and hard limit. In JSON a number, `[soft, hard]` or `"unlimited"`.
        ///
        /// Default: the caller's. Unit: the resource's own (bytes, seconds, count). Range: soft up to hard; raising a hard
        /// limit needs CAP_SYS_RESOURCE on the host. Fixed at the start: the kernel has limits of processes, not of containers,
        /// and a change of many processes one by one could be neither whole nor taken back. Source: getrlimit(2).
        rlimits: BTreeMap<Resource, Rlimit> = BTreeMap::new(), as Map<Resource, Rlimit>;
        /// The nice value of the main process.
        ///
        /// Default: the caller's. Range: -20 (first) to 19 (last); less than the caller's needs
        /// CAP_SYS_NICE on the host. Fixed at the start. Source: setpriority(2).
        nice: Option<i32> = None, as Opt<Int>;
        /// How the kernel schedules the main process. See [`Scheduler`].
        ///
        /// Default: `other`. In JSON `"other"`, `"batch"`, `"idle"`, `"fifo:10"`, `"rr:10"`, or an object. Range: priorities 1 to
        /// 99. Fifo and rr take CAP_SYS_NICE on the host, or RLIMIT_RTPRIO of at least the priority, and on cgroup v1 perhaps
        /// `cpu_rt_runtime`; deadline takes CAP_SYS_NICE. `nice` counts with other and batch. Inherited by children. Fixed at the
        /// start. Source: sched_setattr(2), sched(7).
        scheduler: Option<Scheduler> = None, as Opt<Scheduler>;
        /// What is added to the badness of the main process and its children when the kernel looks for one to kill.
        ///
        /// Default: the caller's. Range: -1000 (never) to 1000 (first); less than the caller's needs CAP_SYS_RESOURCE on the
        /// host. Fixed at the start. Source: proc_pid_oom_score_adj(5).
        oom_score_adj: Option<i32> = None, as Opt<Int>;
        /// How long the container may run; then all of it is killed, with reason `wall_time`.
        ///
        /// Default: no limit. Unit: seconds, of the monotonic clock (which stands still while the machine is suspended) from the
        /// start on. Range: more than 0, up to 1e9. The keeper sees to it, also when the container is detached or the program
        /// that started it has ended. A frozen container is ended too. Can change while running.
        wall_time: Option<Duration> = None, as Opt<Time>;
        /// How much processor time all processes together may use; then the container is killed, with reason `cpu_time`.
        ///
        /// Default: no limit. Unit: seconds, user and system. Range: more than 0, up to 1e9. The keeper looks when it could be
        /// reached at the earliest, and not more often than every 2 ms, so that it can be passed by about 2 ms times the number
        /// of processors. Needs a control group in a v2 tree (hybrid machines have one). Can change while running.
        /// Source: the kernel's admin-guide/cgroup-v2, cpu.stat.
        cpu_time: Option<Duration> = None, as Opt<Time>;
        /// How long a start may take; then all of it is undone and the call fails with kind
        /// [`TimedOut`](crate::ErrorKind::TimedOut).
        ///
        /// Default: 30 s. Unit: seconds. Range: more than 0, up to 1e9. Fixed at the start.
        start_timeout: Option<Duration> = None, as Opt<Time>;
        /// The signal that asks the main process to end, by number; text and JSON may name it (`SIGINT`, `INT`).
        ///
        /// Default: SIGTERM. Range: 1 to 64. Fixed at the start. Source: signal(7).
        stop_signal: Option<i32> = None, as Opt<Signal>;
        /// How long the main process may take to end after `stop_signal`; then everything is killed.
        ///
        /// Default: 10 s. Unit: seconds. Range: 0 to 1e9. Fixed at the start; `stop` can be given another.
        stop_timeout: Option<Duration> = None, as Opt<Time>;
        /// The network: `loopback` (a namespace with `lo` up and nothing else), `none` (with `lo` down), `host` (the caller's),
        /// `network:NAME` (with a device on a [`Network`](crate::Network) of this program), `bridge:NAME`, `macvlan:PARENT`, `ipvlan:PARENT`, `vlan`, `routed` and
        /// `device:NAME` (with one on the host's), or several of those. See [`Attachment`].
        ///
        /// Default: `loopback`. Range: up to 16 devices. Those on the host's take CAP_NET_ADMIN. Fixed at the start, but for
        /// devices, which [`Container::attach_net`](crate::Container::attach_net) and `detach_net` add and take. Source:
        /// network_namespaces(7), veth(4), rtnetlink(7).
        net: Net = Net::Loopback, as One<Net>;
        /// Ports of the container that are reachable at ports of the host: `[[ADDRESS:]HOST_PORT:]PORT[/udp]`, numbers, objects; or a
        /// map of ports to host ports. See [`Port`].
        ///
        /// Default: none. Range: at most 128; ports from 1 to 65535, host ports too, or 0 for a free one, which
        /// [`Container::port`](crate::Container::port) tells; addresses of this machine, 127.0.0.1 by default. Any kind of network but
        /// the host's own and `none`. It takes no rights, no address translation and no program: a task of the keeper carries the bytes,
        /// at the expense of the container's memory and processors, not of its `pids`. Fixed at the start. Source: tcp(7), udp(7),
        /// splice(2).
        ports: Vec<Port> = Vec::new(), as Ports;
        /// What a root payload may do inside. See [`Capabilities`].
        ///
        /// Default: OCI's customary list. In JSON: a list of names is the exact set; `{"add": [...], "drop": [...]}` changes the
        /// default; `"all"`, `"none"`; `ambient` names those that a payload that is not root has too; `bounding`, `permitted`,
        /// `effective` and `inheritable` say the others, as OCI does. Range: what the kernel has; sets that an exec would change
        /// are refused. Fixed at the start. Source: capabilities(7).
        capabilities: Capabilities = Capabilities::default(), as One<Capabilities>;
        /// What uid 0 means to the kernel, and how capabilities pass: `noroot`, `no_setuid_fixup`, `no_cap_ambient_raise`,
        /// `exec_restrict_file`, `exec_deny_interactive`, each also with `_locked`, and `keep_caps_locked`. See [`Securebits`].
        ///
        /// Default: none. In JSON a list of names; in text names with commas between them. `exec_*` take Linux 6.14. Fixed at the
        /// start. Source: capabilities(7), prctl(2), PR_SET_SECUREBITS.
        securebits: Securebits = Securebits::default(), as One<Securebits>;
        /// What files, TCP ports and processes the main process and all that it starts can reach, whoever they run as. See
        /// [`Landlock`].
        ///
        /// Default: no rules. In JSON an object with `paths`, `bind`, `connect`, `scopes`, `abi`. Range: what the kernel's Landlock
        /// can do, else the start fails and names the version that it takes. Without `no_new_privs` it takes a user namespace, or
        /// CAP_SYS_ADMIN. Further processes have the same rules, but as ones of their own. Fixed at the start. Source: landlock(7).
        landlock: Landlock = Landlock::default(), as One<Landlock>;
        /// The AppArmor profile of the main process, by the name under which it is loaded.
        ///
        /// Default: what AppArmor makes of the caller's own. Range: up to 4,000 bytes; the kernel has to have AppArmor, and the
        /// profile. Taken on by the exec of the program, and read back before. Fixed at the start. Source: apparmor(7),
        /// aa_change_onexec(2).
        apparmor: Option<String> = None, as Opt<Text>;
        /// The SELinux label (context) of the main process: `user:role:type:level`.
        ///
        /// Default: what the policy makes of the caller's own. Range: up to 4,000 bytes; the kernel has to have SELinux, and its
        /// policy the label and the transition to it. Taken on by the exec of the program, and read back before. Files of the
        /// container get no label from it: see `mount_label`. Categories may be in any order where /sys/fs/selinux can be asked.
        /// Fixed at the start. Source: selinux(8), setexeccon(3).
        selinux: Option<String> = None, as Opt<Text>;
        /// The SELinux label of the files of the container's own file systems: `user:role:type:level`, as OCI's `mountLabel`. These
        /// are the writable layer, `/dev` with `/dev/shm`, terminals and nodes of its own, each tmpfs, `files`, and with layers of an
        /// image the whole root.
        ///
        /// Default: what the policy makes of each. Range: as `selinux`. What is the host's keeps its labels: a root directory, volumes
        /// and other binds, nodes that are bound, what `rootfs: host` shows below its top directories; and so does `/dev/mqueue`, whose
        /// file system takes none. In a pod with a shared ipc namespace /dev/shm has the pod's. Excludes the host's or a joined mount
        /// namespace. Fixed at the start. Source: mount(8), option `context`.
        mount_label: Option<String> = None, as Opt<Text>;
        /// Which system calls the payload may make: `default`, `strict`, `none`, or rules. See [`Seccomp`].
        ///
        /// Default: `default`, which is in effect Docker's profile, depends on `capabilities` as that does, and lets through what a
        /// container of containers needs with `nesting`; `none` is weaker. In JSON also `{"profile": "default", "rules":
        /// [{"names": ["mount"], "action": "errno", "errno": "ENOSYS"}]}`, and `linux.seccomp` of OCI's config.json or a profile
        /// of Docker as it is. What is refused fails with EPERM; what neither the profile nor this version knows, with ENOSYS.
        /// Inherited by children, and never taken off. Fixed at the start; an exec'd process has its container's unless its
        /// command has one. Source: seccomp(2), [`isolation`](crate::isolation).
        seccomp: Seccomp = Seccomp::Default, as One<Seccomp>;
        /// Whether set-user-id programs and file capabilities give nothing more than the payload has.
        ///
        /// Default: true; false is weaker. Fixed at the start. Source: prctl(2), PR_SET_NO_NEW_PRIVS.
        no_new_privs: bool = true, as One<Bool>;
        /// Paths that are hidden inside: directories are empty, files read as empty. An empty list hides nothing.
        ///
        /// Default: OCI's list of what leaks from /proc and /sys ([`Spec::MASKED_PATHS`]) and `thermal_throttle` of each processor
        /// that has it, which a list with all of those hides too; nothing with `nesting`. Range: absolute paths without `..`; those that do not exist
        /// are passed over. Fixed at the start.
        masked_paths: Option<Vec<PathBuf>> = None, as ListOver<FilePath, Masked>;
        /// Paths that are read-only inside. An empty list makes nothing read-only.
        ///
        /// Default: OCI's list of what changes the machine below /proc, and nothing with `nesting`. Range: as `masked_paths`. Fixed at the start.
        readonly_paths: Option<Vec<PathBuf>> = None, as ListOver<FilePath, Readonly>;
        /// Kernel parameters of the container's own namespaces: name -> value, as sysctl(8) has them.
        ///
        /// Default: the kernel's for new namespaces. Range: `net.*`; of `kernel.*` and `fs.mqueue.*` those of SysV and POSIX IPC;
        /// `user.max_*`; `kernel.pid_max` (Linux 6.14). The namespace (net, ipc, user, pid) has to be new; what is the whole machine's is refused. Written before
        /// anything of the container runs, and read back. Can change while running: what is taken away gets the value back that it
        /// had before it was set. Source: sysctl(8), network_namespaces(7), ipc_namespaces(7), namespaces(7).
        sysctls: BTreeMap<String, String> = BTreeMap::new(), as Named<sysctl::Value>;
        /// What is added to the container's monotonic and boot-time clocks. See [`TimeOffsets`].
        ///
        /// Default: 0. Unit: nanoseconds here, seconds in JSON. Range: up to about 146 years either way; the clocks inside
        /// cannot be negative. Needs a time namespace of its own. Fixed at the start. Source: time_namespaces(7).
        time_offsets: TimeOffsets = TimeOffsets::default(), as One<TimeOffsets>;
        /// The control group below which the container's group is made, as a path from the hierarchy's root.
        ///
        /// Default: RINGFENCE_CGROUP_PARENT of the environment, else below the caller's own group where the layout allows it,
        /// else `/ringfence`. Range: an absolute path without `..`. Fixed at the start. Source: cgroups(7).
        cgroup_parent: Option<PathBuf> = None, as Opt<FilePath>;
        /// Open descriptors of the caller that the main process gets too: number in the caller -> number inside. In JSON also a
        /// list, which keeps the numbers.
        ///
        /// Default: none; nothing else is inherited. Range: numbers inside are 3 and above, each once. Fixed at the start.
        pass_fds: BTreeMap<RawFd, RawFd> = BTreeMap::new(), as Descriptors;
        /// Free text for the caller's own use: name -> value, readable on the handle. Nothing in ringfence depends on it.
        ///
        /// Default: none. Range: names are not empty. Fixed at the start.
        annotations: BTreeMap<String, String> = BTreeMap::new(), as Map<String, Text>;
    }
}

impl Spec {
    /// The defaults: no main process, the host's tree as root, loopback, no limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// `umask` when it is `None`.
    pub const UMASK: u32 = 0o022;
    /// `shm_size` when it is `None`: 64 MiB.
    pub const SHM_SIZE: u64 = 64 << 20;
    /// `log_max` when it is `None`: 1 MiB.
    pub const LOG_MAX: u64 = 1 << 20;
    /// `cpu_rt_period` when it is `None`.
    pub const CPU_RT_PERIOD: Duration = Duration::from_secs(1);
    /// `start_timeout` when it is `None`.
    pub const START_TIMEOUT: Duration = Duration::from_secs(30);
    /// `stop_signal` when it is `None`.
    pub const STOP_SIGNAL: i32 = libc::SIGTERM;
    /// `stop_timeout` when it is `None`.
    pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

    /// A spec from JSON: the defaults, and what the text says.
    ///
    /// The members of the object are the fields. Null is the default. Text is UTF-8; where the kernel takes any bytes
    /// (paths, arguments, variables), `{"base64": "..."}` stands for those that are not UTF-8, and maps can be lists of
    /// `[key, value]` for keys that are not.
    ///
    /// ```
    /// # fn main() -> ringfence::Result<()> {
    /// let spec = ringfence::Spec::from_json(r#"{"memory": "256M", "cpus": 0.5, "mounts": ["/srv/data:/data:rw"]}"#)?;
    /// assert_eq!(spec, ringfence::Spec::new().memory(256 << 20).cpus(0.5).mount("/srv/data:/data:rw"));
    /// let error = ringfence::Spec::from_json(r#"{"mem_limit": "1G"}"#).unwrap_err();
    /// assert_eq!(error.to_string(), "mem_limit: unknown field; did you mean memory?");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Kind [`InvalidSpec`](crate::ErrorKind::InvalidSpec) with the field for values of the wrong type or syntax, unknown
    /// fields and keys that stand twice; [`NotAvailable`](crate::ErrorKind::NotAvailable) for fields of later versions.
    /// Ranges and contradictions are found by [`Spec::validate`].
    pub fn from_json(text: &str) -> Result<Self> {
        let mut spec = Self::default();
        spec.merge_json(text)?;
        Ok(spec)
    }

    /// Layers JSON over what is there: values and lists replace, maps and `time_offsets` take what is new entry by entry
    /// (null removes one; in `env` it removes the variable from the payload's environment), null puts the default back.
    ///
    /// # Errors
    /// As [`Spec::from_json`]; then nothing is changed.
    pub fn merge_json(&mut self, text: &str) -> Result<()> {
        fields::merge_json(self, text)
    }

    /// What differs from the defaults, as JSON in the order of the vocabulary, which [`Spec::from_json`] reads back to an
    /// equal spec.
    pub fn to_json(&self) -> String {
        fields::to_json(self)
    }

    /// Sets a field by its name from text, as `ringfence_spec_set` does: scalars replace, lists append one element per call,
    /// maps take `K=V`, objects take JSON text, empty text puts the default back. Bytes that are not UTF-8 are taken where
    /// the kernel takes them.
    ///
    /// Lists and maps whose elements cannot begin with a bracket (all but `argv`, `env`, `env_inherit`, `dns`, `hosts` and
    /// `annotations`) also take the JSON of the whole list or map, as [`Spec::merge_json`] does. `masked_paths` and
    /// `readonly_paths` append to the built-in list.
    ///
    /// # Errors
    /// As [`Spec::from_json`]; then nothing is changed.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        fields::set(self, key, value)
    }

    /// The value of a field as text that [`Spec::set`] takes: a scalar as itself, lists, maps and objects as JSON; `None` when
    /// nothing is set.
    ///
    /// # Errors
    /// There is no such field, or not yet.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        fields::get(self, key)
    }

    /// Puts a field back to its default.
    ///
    /// # Errors
    /// There is no such field, or not yet.
    pub fn clear(&mut self, key: &str) -> Result<()> {
        fields::clear(self, key)
    }

    /// The names of all fields, in the order of the vocabulary.
    pub fn keys() -> Vec<&'static str> {
        fields::keys::<Self>()
    }
}
