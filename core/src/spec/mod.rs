//! What a container is to be: plain data, validated before anything is touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// Where in a spec something stands, for errors.
mod at;
/// One builder method per field.
mod builder;
/// Capabilities by name and number.
mod caps;
/// Exact decimal numbers with a unit.
mod decimal;
/// Durations as text.
mod duration;
/// Files made from bytes.
mod file;
/// How ids inside are ids of the host.
mod idmap;
/// Entries of `mounts`.
mod mount;
/// The syntax of container names.
mod name;
/// Namespaces: kinds and where they come from.
mod namespace;
/// Limits of single processes.
mod rlimit;
/// Where `/` comes from.
mod rootfs;
/// Signals by name and number.
mod signal;
/// Sizes as text.
mod size;
/// The three standard streams and the terminal.
mod stdio;
/// Offsets of the container's clocks.
mod time_offsets;
/// Users and groups as text.
mod user;
/// What can never work.
mod validate;

pub use caps::Capabilities;
pub use duration::parse as parse_duration;
pub use file::File;
pub use idmap::{IdRange, Idmap};
pub use mount::{BindSource, Mount, MountKind};
pub(crate) use name::name_syntax;
pub use namespace::{NamespaceKind, NamespaceSource, Net};
pub use rlimit::{Resource, Rlimit};
pub use rootfs::{Rootfs, RootfsKind};
pub use signal::{name as signal_name, parse as parse_signal};
pub use size::parse as parse_size;
pub use stdio::{Stdio, Terminal};
pub use time_offsets::TimeOffsets;
pub use user::{IdOrName, MAX_ID, UserSpec};

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
    pub name: Option<String>,
    /// The main process: program and arguments. A program without a slash is looked up in the payload's PATH, inside.
    ///
    /// Default: empty, a container without a main process, which lives until it is closed. Range: the program is not
    /// empty; an argument has at most 131,071 bytes (32 pages with the NUL), all together 6 MiB. Fixed at the start;
    /// further processes are started with [`Container::command`](crate::Container::command). Source: execve(2).
    pub argv: Vec<OsString>,
    /// Environment variables that are added to the clean base (PATH, HOME, TERM, LANG=C.UTF-8); `None` removes one.
    ///
    /// Default: empty. Range: names are not empty and have no `=`; a variable has at most 131,071 bytes. Fixed at the
    /// start. Source: environ(7), execve(2).
    pub env: BTreeMap<OsString, Option<OsString>>,
    /// Names of the caller's variables to pass through when they are set; `*` is all of them. `env` wins over them.
    ///
    /// Default: empty: nothing of the caller's environment is seen inside. Read when the container starts. Fixed at the
    /// start. Source: environ(7).
    pub env_inherit: Vec<OsString>,
    /// The working directory of the main process, and of further ones that name none.
    ///
    /// Default: `/`. Range: an absolute path, which must exist inside. Fixed at the start. Source: chdir(2).
    pub cwd: Option<PathBuf>,
    /// The user of the main process: `uid`, `name`, `uid:gid` or `name:group`; names are those of the container's own
    /// /etc/passwd and /etc/group.
    ///
    /// Default: `0:0`, which is root inside; without a group, a name has its own from /etc/passwd and a number has 0.
    /// Range: ids are decimal digits, 0 to 4294967294, without sign, spaces or leading zeros. Fixed at the start.
    /// Source: credentials(7), passwd(5).
    pub user: Option<String>,
    /// Supplementary groups of the main process, by id or by name of the container's own /etc/group.
    ///
    /// Default: none; the caller's groups are never kept. Range: as the group in `user`, at most 65,536. Fixed at the
    /// start. Source: setgroups(2).
    pub groups: Vec<String>,
    /// The file mode creation mask of the main process. Text is octal (`022`); a number in JSON is a plain number (18).
    ///
    /// Default: 0o022. Range: 0 to 0o777. Fixed at the start. Source: umask(2).
    pub umask: Option<u32>,
    /// The host name inside.
    ///
    /// Default: `name` if there is one, else `ringfence`. Range: labels of letters, digits and inner hyphens, at most 63
    /// bytes each, separated by dots (RFC 1123); at most 64 bytes in all, which is the kernel's bound. Needs a UTS
    /// namespace of its own. Fixed at the start. Source: sethostname(2), uts_namespaces(7).
    pub hostname: Option<String>,
    /// The NIS domain name inside.
    ///
    /// Default: the kernel's `(none)`. Range: as `hostname`. Fixed at the start. Source: setdomainname(2).
    pub domainname: Option<String>,
    /// Addresses of name servers for /etc/resolv.conf inside.
    ///
    /// Default: none: /etc/resolv.conf is what the root file system has. Range: at most 3 IPv4 or IPv6 addresses, because
    /// the C library ignores any more. Fixed at the start. Source: resolv.conf(5).
    pub dns: Vec<String>,
    /// Lines for /etc/hosts inside: name -> address, beside localhost and the container's own name.
    ///
    /// Default: none. Range: names as `hostname` (at most 253 bytes), IPv4 or IPv6 addresses. Fixed at the start.
    /// Source: hosts(5).
    pub hosts: BTreeMap<String, String>,
    /// Where `/` comes from: the host's own tree, a directory, or layers. See [`Rootfs`].
    ///
    /// Default: `host`. In JSON: `"host"`, `"host:owned"`, an absolute path, `{"path": ..., "readonly": true}` or
    /// `{"lower": [...], "upper": ..., "readonly": true}`. Fixed at the start.
    /// Source: the kernel's filesystems/overlayfs.
    pub rootfs: Rootfs,
    /// What is mounted below `/`, in this order: `source[:target][:rw]`, or objects. See [`Mount`].
    ///
    /// Default: none beside /proc, /sys, /dev and the private directories of the root file system. Range: absolute paths;
    /// targets without `..`, each once, none above an earlier one, none below /proc. Fixed at the start.
    /// Source: mount_setattr(2), open_tree(2).
    pub mounts: Vec<Mount>,
    /// Files that exist inside with these bytes: absolute path -> content. Missing directories are made. See [`File`].
    ///
    /// Default: none. Range: absolute paths without `..`; modes up to 0o7777. Fixed at the start.
    pub files: BTreeMap<PathBuf, File>,
    /// The size of /dev/shm.
    ///
    /// Default: 64 MiB. Unit: bytes. Range: 4096 and more (0 would mean unbounded to tmpfs). Fixed at the start.
    /// Source: shm_overview(7), tmpfs(5).
    pub shm_size: Option<u64>,
    /// Whether pid 1 is ringfence's own init, which reaps orphans, starts the payload and lets a container live without a
    /// main process.
    ///
    /// Default: true. With false the payload is pid 1: it has to reap orphans, the kernel gives it no default actions for
    /// signals, and `argv` is needed. Fixed at the start. Source: pid_namespaces(7).
    pub init: bool,
    /// A terminal for the main process: a pseudoterminal of the container's own devpts, controlling a new session.
    ///
    /// Default: none. In JSON `true` is 24 rows of 80 columns. Excludes `stdin`, `stdout` and `stderr`. Can be resized
    /// while running. Source: pty(7).
    pub terminal: Option<Terminal>,
    /// Standard input of the main process. See [`Stdio`].
    ///
    /// Default: null for a container's main process, inherit for [`run`](crate::run). Fixed at the start.
    pub stdin: Option<Stdio>,
    /// Standard output of the main process. See [`Stdio`].
    ///
    /// Default: log for a container's main process, inherit for [`run`](crate::run). Fixed at the start.
    pub stdout: Option<Stdio>,
    /// Standard error of the main process. See [`Stdio`]; `stdout` sends it where standard output goes.
    ///
    /// Default: log for a container's main process, inherit for [`run`](crate::run). Fixed at the start.
    pub stderr: Option<Stdio>,
    /// The bound of a `log` stream: what is written past it is lost, the container is not held up.
    ///
    /// Default: 1 MiB. Unit: bytes. Range: 4096 to 1 TiB. Fixed at the start.
    pub log_max: Option<u64>,
    /// Whether the container outlives the program that started it.
    ///
    /// Default: false: it is gone within a second after its handle is closed or the program ended in any way. Needs `name`.
    /// Fixed at the start.
    pub detach: bool,
    /// Namespaces that are not simply new: kind (`mnt pid net ipc uts user cgroup time`) -> `new`, `host`, the path of a
    /// namespace file, `fd:N`, `pid:N`, or `container:NAME`. See [`NamespaceSource`].
    ///
    /// Default: all new. `net` here excludes another `net`; the user namespace is decided by `idmap` unless one is joined;
    /// a namespace that is not new excludes the fields that would change it (`hostname` with a host's `uts`, ...). Fixed
    /// at the start. Source: namespaces(7).
    pub namespaces: BTreeMap<NamespaceKind, NamespaceSource>,
    /// How ids inside are ids of the host. See [`Idmap`].
    ///
    /// Default: `auto`: a user namespace with a disjoint range of ids, or the strongest that this machine and user can
    /// have; what was chosen is readable on the handle. `host` is weaker: root inside is then root on the host, held
    /// back by capabilities alone. Fixed at the start. Source: user_namespaces(7).
    pub idmap: Idmap,
    /// The hard limit of memory of all processes together, page cache and kernel memory included. At the limit the kernel
    /// reclaims, then kills.
    ///
    /// Default: no limit of its own. Unit: bytes. Range: 64 KiB to 2^63-1, in whole pages (the kernel rounds down); below
    /// 64 KiB no program can be executed, because its first stack and page tables are charged to it. Enforced, or the
    /// start fails and names what is missing. Fixed at the start. Source: the kernel's admin-guide/cgroup-v2.
    pub memory: Option<u64>,
    /// The hard limit of processor time per time, of all processes together.
    ///
    /// Default: no limit of its own. Unit: cores (0.5 is half of one core's time). Range: 0.001 to 10000; the kernel's
    /// smallest quota is 1 ms per period of 1 s. Enforced, or the start fails and names what is missing. Fixed at the
    /// start. Source: the kernel's scheduler/sched-bwc.
    pub cpus: Option<f64>,
    /// The hard limit of processes and threads together, ringfence's init included. At the limit fork fails with EAGAIN.
    ///
    /// Default: no limit of its own. Range: 1 to 4194304. Enforced, or the start fails and names what is missing. Fixed
    /// at the start. Source: the kernel's admin-guide/cgroup-v2.
    pub pids: Option<u64>,
    /// Limits of each single process: resource -> soft and hard limit. In JSON a number, `[soft, hard]` or `"unlimited"`.
    ///
    /// Default: the caller's. Unit: the resource's own (bytes, seconds, count). Range: soft up to hard; raising a hard
    /// limit needs CAP_SYS_RESOURCE on the host. Fixed at the start. Source: getrlimit(2).
    pub rlimits: BTreeMap<Resource, Rlimit>,
    /// The nice value of the main process.
    ///
    /// Default: 0 or the caller's, whichever is nicer. Range: -20 (first) to 19 (last); less than the caller's needs
    /// CAP_SYS_NICE on the host. Fixed at the start. Source: setpriority(2).
    pub nice: Option<i32>,
    /// What is added to the badness of the main process and its children when the kernel looks for one to kill.
    ///
    /// Default: the caller's. Range: -1000 (never) to 1000 (first); less than the caller's needs CAP_SYS_RESOURCE on the
    /// host. Fixed at the start. Source: proc_pid_oom_score_adj(5).
    pub oom_score_adj: Option<i32>,
    /// How long a start may take; then all of it is undone and the call fails with kind
    /// [`TimedOut`](crate::ErrorKind::TimedOut).
    ///
    /// Default: 30 s. Unit: seconds. Range: more than 0, up to 1e9. Fixed at the start.
    pub start_timeout: Option<Duration>,
    /// The signal that asks the main process to end, by number; text and JSON may name it (`SIGINT`, `INT`).
    ///
    /// Default: SIGTERM. Range: 1 to 64. Fixed at the start. Source: signal(7).
    pub stop_signal: Option<i32>,
    /// How long the main process may take to end after `stop_signal`; then everything is killed.
    ///
    /// Default: 10 s. Unit: seconds. Range: 0 to 1e9. Fixed at the start; `stop` can be given another.
    pub stop_timeout: Option<Duration>,
    /// The network: `loopback` (a namespace with `lo` up and nothing else), `none` (with `lo` down), `host` (the caller's).
    ///
    /// Default: `loopback`. Fixed at the start. Source: network_namespaces(7).
    pub net: Net,
    /// What a root payload may do inside. See [`Capabilities`].
    ///
    /// Default: OCI's customary list. In JSON: a list of names is the exact set; `{"add": [...], "drop": [...]}` changes the
    /// default; `"all"`, `"none"`; `ambient` names those that a payload that is not root has too. Fixed at the start.
    /// Source: capabilities(7).
    pub capabilities: Capabilities,
    /// Whether set-user-id programs and file capabilities give nothing more than the payload has.
    ///
    /// Default: true; false is weaker. Fixed at the start. Source: prctl(2), PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// Paths that are hidden inside: directories are empty, files read as empty. An empty list hides nothing.
    ///
    /// Default: OCI's list of what leaks from /proc and /sys. Range: absolute paths without `..`; those that do not exist
    /// are passed over. Fixed at the start.
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths that are read-only inside. An empty list makes nothing read-only.
    ///
    /// Default: OCI's list of what changes the machine below /proc. Range: as `masked_paths`. Fixed at the start.
    pub readonly_paths: Option<Vec<PathBuf>>,
    /// What is added to the container's monotonic and boot-time clocks. See [`TimeOffsets`].
    ///
    /// Default: 0. Unit: nanoseconds here, seconds in JSON. Range: up to about 146 years either way; the clocks inside
    /// cannot be negative. Needs a time namespace of its own. Fixed at the start. Source: time_namespaces(7).
    pub time_offsets: TimeOffsets,
    /// The control group below which the container's group is made, as a path from the hierarchy's root.
    ///
    /// Default: RINGFENCE_CGROUP_PARENT of the environment, else below the caller's own group where the layout allows it,
    /// else `/ringfence`. Range: an absolute path without `..`. Fixed at the start. Source: cgroups(7).
    pub cgroup_parent: Option<PathBuf>,
    /// Open descriptors of the caller that the main process gets too: number in the caller -> number inside. In JSON also a
    /// list, which keeps the numbers.
    ///
    /// Default: none; nothing else is inherited. Range: numbers inside are 3 and above, each once. Fixed at the start.
    pub pass_fds: BTreeMap<RawFd, RawFd>,
    /// Free text for the caller's own use: name -> value, readable on the handle. Nothing in ringfence depends on it.
    ///
    /// Default: none. Range: names are not empty. Fixed at the start.
    pub annotations: BTreeMap<String, String>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: None,
            argv: Vec::new(),
            env: BTreeMap::new(),
            env_inherit: Vec::new(),
            cwd: None,
            user: None,
            groups: Vec::new(),
            umask: None,
            hostname: None,
            domainname: None,
            dns: Vec::new(),
            hosts: BTreeMap::new(),
            rootfs: Rootfs::default(),
            mounts: Vec::new(),
            files: BTreeMap::new(),
            shm_size: None,
            init: true,
            terminal: None,
            stdin: None,
            stdout: None,
            stderr: None,
            log_max: None,
            detach: false,
            namespaces: BTreeMap::new(),
            idmap: Idmap::Auto,
            memory: None,
            cpus: None,
            pids: None,
            rlimits: BTreeMap::new(),
            nice: None,
            oom_score_adj: None,
            start_timeout: None,
            stop_signal: None,
            stop_timeout: None,
            net: Net::Loopback,
            capabilities: Capabilities::default(),
            no_new_privs: true,
            masked_paths: None,
            readonly_paths: None,
            time_offsets: TimeOffsets::default(),
            cgroup_parent: None,
            pass_fds: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

impl Spec {
    /// The defaults: no main process, the host's tree as root, loopback, no limits.
    pub fn new() -> Self {
        Self::default()
    }
}
