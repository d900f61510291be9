//! PREPARE, SETUP and UNDO of a container, in the order in which it happens.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::attribute::Attribute;
use super::builder::{Arg, Builder, Idmapped, build, call};
use super::facts::{DeviceFact, DiskFact, Facts, GroupMount, HostEntry, Need, QuotaCall, TapsFact, UndoName};
use super::idmap::{Below, Ids, MountIds};
use super::process::{ProcessPlan, need};
use super::sysctl;
use crate::proto::{plan_flag, section, slot};
use crate::spec::{BindSource, MountKind, NamespaceKind as Ns, NamespaceSource, Net, RootfsKind, Spec};

const CLOEXEC: i32 = libc::O_CLOEXEC;
const PATH_DIR: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
const EMPTY: i32 = libc::AT_EMPTY_PATH;
const RECURSIVE: i32 = 0x8000;
const TREE_CLONE: i32 = 1 | libc::O_CLOEXEC;
/// MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
const MOVE_BOTH: i32 = 0x44;
const MOVE_FROM: i32 = 4;
pub(crate) const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
const NOEXEC: u64 = 8;
/// A device node of the host's that is bound: a device can be written to on a read-only mount, while the node's mode, owner and
/// times, which root would change for the host too where its ids are the host's, cannot.
const NODE_OF_HOST: u64 = RDONLY | NOSUID;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_IN_ROOT: u64 = 16;

/// Hidden by `rootfs: host` because they are covered by file systems of the container's own.
pub(crate) const COVERED: [&str; 3] = ["proc", "sys", "dev"];

pub(crate) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What a namespace kind's source is when the spec says nothing.
pub(crate) fn namespace_source(spec: &Spec, kind: Ns) -> NamespaceSource {
    if let Some(source) = spec.namespaces.get(&kind) {
        return source.clone();
    }
    match kind {
        Ns::Net if spec.net == Net::Host => NamespaceSource::Host,
        // A time namespace without offsets changes nothing but the cost of clock_gettime.
        Ns::Time if spec.time_offsets == Default::default() => NamespaceSource::Host,
        Ns::User if spec.idmap == crate::spec::Idmap::Host => NamespaceSource::Host,
        _ => NamespaceSource::New,
    }
}

pub(crate) fn clone_flag(kind: Ns) -> u64 {
    (match kind {
        Ns::Mnt => libc::CLONE_NEWNS,
        Ns::Pid => libc::CLONE_NEWPID,
        Ns::Net => libc::CLONE_NEWNET,
        Ns::Ipc => libc::CLONE_NEWIPC,
        Ns::Uts => libc::CLONE_NEWUTS,
        Ns::User => libc::CLONE_NEWUSER,
        Ns::Cgroup => libc::CLONE_NEWCGROUP,
        Ns::Time => 0x80,
    }) as u32 as u64
}

/// The number of the descriptor of the writable layer, beside the terminal's.
pub(crate) const DISK: u32 = 2;
/// Its /etc/hosts.
pub(crate) const HOSTS: u32 = 3;
/// A socket of family AF_NETLINK in its network namespace; the protocol is added.
pub(crate) const NETLINK: u32 = 16;

const PAGE: u64 = 4096;

/// The size of the private tmpfs, in which /dev is, where a directory of the host is the writable layer: in bytes, without what
/// `files` has. Nodes and links take nothing of it; it is for programs that put a file there.
const BESIDE: u64 = 64 << 20;

/// The size of the private tmpfs and the number of its inodes, as options of tmpfs. Sizes are rounded down to what it counts in,
/// so that it never holds more.
pub(crate) fn tmpfs_limits(spec: &Spec) -> Vec<(&'static str, String)> {
    let size = spec.disk.as_ref().map(|disk| ("size", (disk.size & !(PAGE - 1)).to_string()));
    let inodes = spec.inodes.map(|count| ("nr_inodes", count.to_string()));
    size.into_iter().chain(inodes).collect()
}

/// The group of terminals, where the container has it.
pub(crate) const TTY: u32 = 5;

/// The options of a devpts of the container: its own at /dev/pts, or one of `mounts`. A change of one of them has to give all,
/// because what it leaves out gets the kernel's default.
pub(crate) fn devpts_options(spec: &Spec, has_tty: bool, own: bool) -> Vec<(&'static str, String)> {
    let mut options = vec![("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned())];
    if own && has_tty {
        options.push(("gid", TTY.to_string()));
    }
    options.extend(spec.ptys.map(|ptys| ("max", ptys.to_string())));
    options
}

/// The size of /dev/shm.
pub(crate) fn shm_size(spec: &Spec) -> u64 {
    spec.shm_size.unwrap_or(Spec::SHM_SIZE)
}

/// The interpreter of a line of binfmt.d(5) that the kernel opens when the line is written (flag F).
fn opened_at_once(line: &[u8]) -> Option<&[u8]> {
    let (&separator, rest) = line.split_first()?;
    let mut fields = rest.split(|&byte| byte == separator).skip(5);
    let (interpreter, flags) = (fields.next()?, fields.next()?);
    flags.contains(&b'F').then_some(interpreter)
}

/// What overlays of ringfence are called in /proc/self/mountinfo, with the depth of the stack that they are the top of.
const OVERLAY: &str = "ringfence-";

fn overlay_source(depth: u32) -> String {
    format!("{OVERLAY}{depth}")
}

/// How many overlays there are, one on the other, in a mount of this type and source. Of one by somebody else only the top one
/// can be seen.
pub(crate) fn overlays(kind: &[u8], source: &[u8]) -> u32 {
    let depth = std::str::from_utf8(source).ok().and_then(|source| source.strip_prefix(OVERLAY)?.parse::<u32>().ok());
    if kind == b"overlay" { depth.unwrap_or(1).min(MOST_OVERLAYS) } else { 0 }
}

/// How many overlays the kernel stacks (FILESYSTEM_MAX_STACK_DEPTH).
pub(crate) const MOST_OVERLAYS: u32 = 2;

/// Something that will be mounted once the new root is in place.
struct Attach {
    field: Arc<str>,
    tree: u16,
    target: PathBuf,
    directory: bool,
    /// A place of the standard layout: a symlink there is an attack, not a layout (CVE-2019-19921 and its kin).
    standard: bool,
    /// A mount of the host's: there is no tree when it was left out, and no place when what it is mounted on was.
    optional: bool,
}

/// A binfmt_misc, and what is to be registered in it.
struct Formats<'a> {
    field: Arc<str>,
    tree: u16,
    register: &'a [std::ffi::OsString],
    readonly: bool,
}

/// What keeps a file system from being a layer of an overlay: it may not be entered (0700, as /boot/efi often is), the kernel
/// cannot use it (FAT and others that ignore case, autofs, an overlay on an overlay), its server is gone.
const NO_LAYER: [i32; 4] = [libc::EACCES, libc::EINVAL, libc::ENOTCONN, libc::ESTALE];

pub(crate) struct ContainerPlan<'a> {
    pub spec: &'a Spec,
    pub facts: &'a Facts,
    b: Builder,
    needs: Vec<Need>,
    attach: Vec<Attach>,
    /// What is mounted over masked and read-only paths.
    on_top: Vec<Attach>,
    formats: Vec<Formats<'a>>,
    /// Mounts at the stage, the new root included.
    staged: usize,
    /// Overlays of single directories of the host, which are the root file system together with the root mount.
    root_parts: Vec<u16>,
    /// A proc of the pid namespace that is joined, made before the container has a user namespace that may not.
    joined_proc: Option<u16>,
    /// The same of a network namespace: a sysfs that shows its devices.
    joined_sys: Option<u16>,
}

/// Where programs read which name servers there are: resolv.conf(5).
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The lines that every /etc/hosts has.
pub(crate) const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// /etc/hosts of a container with this spec, where it is not a network's; `None` when it is the root file system's own.
pub(crate) fn hosts_text(spec: &Spec, own_mounts: bool) -> Option<String> {
    let networks = !spec.net.attachments().is_empty();
    if spec.hosts.is_empty() && !networks && (spec.hostname.is_none() || !own_mounts) {
        return None;
    }
    let mut text = LOCALHOST.to_owned();
    // On a network it has an address that others know by its name.
    if let Some(name) = spec.hostname.as_ref().filter(|_| !networks) {
        text.push_str(&format!("127.0.1.1\t{name}\n"));
    }
    for (name, address) in &spec.hosts {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    Some(text)
}

/// The plan of a start, and the descriptors that its request has to bring.
pub(crate) fn compile(spec: &Spec, facts: &Facts) -> (super::builder::Compiled, Vec<Need>) {
    build(|b| ContainerPlan::new(spec, facts, b).write())
}

impl<'a> ContainerPlan<'a> {
    fn new(spec: &'a Spec, facts: &'a Facts, b: Builder) -> Self {
        Self {
            spec,
            facts,
            b,
            needs: Vec::new(),
            attach: Vec::new(),
            on_top: Vec::new(),
            formats: Vec::new(),
            staged: 0,
            root_parts: Vec::new(),
            joined_proc: None,
            joined_sys: None,
        }
    }

    fn need(&mut self, what: Need) -> u16 {
        need(&mut self.needs, what)
    }

    fn is_new(&self, kind: Ns) -> bool {
        namespace_source(self.spec, kind) == NamespaceSource::New
    }

    /// Made for it, or for its pod: the container's root has all rights in it.
    fn is_own(&self, kind: Ns) -> bool {
        self.is_new(kind) || self.facts.shared.contains(&kind)
    }

    fn joins(&self, kind: Ns) -> bool {
        !matches!(namespace_source(self.spec, kind), NamespaceSource::New | NamespaceSource::Host)
    }

    fn write(mut self) -> (Builder, Vec<Need>) {
        let payload = !self.spec.argv.is_empty();
        if payload {
            self.b.flags |= plan_flag::PAYLOAD;
        }
        if self.spec.init {
            self.b.flags |= plan_flag::RESIDENT;
        } else {
            self.b.flags |= plan_flag::STAGE;
        }
        if let Some(maps) = self.facts.idmaps.as_ref().filter(|_| self.is_new(Ns::User)) {
            self.b.uid_map = maps.uid.clone().into_bytes();
            self.b.gid_map = maps.gid.clone().into_bytes();
            if maps.deny_setgroups {
                self.b.flags |= plan_flag::DENY_SETGROUPS;
            }
        }
        if self.facts.group_dir {
            // The root of its cgroup namespace is where it was born; where groups are made inside, it goes on in a leaf.
            let slot = self.need(if self.facts.group_leaf { Need::GroupTop } else { Need::GroupDir });
            self.b.cgroup_slot = Some(slot);
        }
        self.prepare();
        self.setup();
        if payload {
            ProcessPlan {
                argv: &self.spec.argv,
                env: &self.facts.env,
                cwd: self.spec.cwd.as_deref(),
                umask: self.spec.umask,
                terminal: self.spec.terminal,
                streams: self.facts.streams,
                pass_fds: &self.spec.pass_fds,
                rlimits: &self.spec.rlimits,
                inherited: &self.facts.inherited,
                nice: self.spec.nice,
                scheduler: self.spec.scheduler,
                io_priority: self.spec.io_priority,
                oom_score_adj: self.spec.oom_score_adj,
                capabilities: &self.spec.capabilities,
                no_new_privs: self.spec.no_new_privs,
                confinement: super::confine::Confinement::of_spec(self.spec),
                filter: self.facts.filter.as_deref(),
                credentials: &self.facts.credentials,
                may_setgroups: self.facts.may_setgroups,
                joined: None,
                keyring: false,
                is_pid_one: !self.spec.init,
            }
            .write(&mut self.b, &mut self.needs);
        }
        self.undo_net();
        self.undo();
        (self.b, self.needs)
    }

    fn prepare(&mut self) {
        self.b.section(section::PREPARE);
        self.b.field("cgroup");
        let zero = self.b.text("0");
        for i in 0..self.facts.group_tasks {
            let tasks = self.need(Need::GroupTasks(i));
            self.b.op(call::WRITE, [Arg::Slot(tasks), zero, 1.into()]);
        }
        let mut staged = self.limit_directory();
        // Joined with the keeper's rights, which hold in every namespace of its own user namespace and below; the user
        // namespace last, because it changes what the others would be checked against.
        let kinds = [Ns::Net, Ns::Uts, Ns::Ipc, Ns::Cgroup, Ns::Pid, Ns::Time, Ns::Mnt, Ns::User];
        for kind in kinds {
            match namespace_source(self.spec, kind) {
                NamespaceSource::New => {
                    // A new cgroup namespace shows the group of its maker as its root: pid 1 makes it, after it has moved.
                    if !matches!(kind, Ns::Cgroup | Ns::Time) {
                        self.b.clone_flags |= clone_flag(kind);
                    }
                }
                // A privileged keeper is not in the host's mount namespace itself.
                NamespaceSource::Host if kind != Ns::Mnt || !self.facts.privileged => {}
                _ => {
                    staged = true;
                    let field: Arc<str> = format!("namespaces.{}", kind.name()).into();
                    self.b.field(field.clone());
                    let fd = self.need(Need::Namespace { kind, field });
                    self.b.op(call::SETNS, [Arg::Slot(fd), clone_flag(kind).into()]);
                    if kind == Ns::Pid && !self.is_own(Ns::Pid) && self.is_new(Ns::User) && self.is_new(Ns::Mnt) {
                        self.joined_proc = Some(self.proc_of(fd));
                    }
                    let foreign = self.facts.privileged && self.joins(kind) && !self.is_own(kind);
                    if kind == Ns::Net && foreign && self.is_new(Ns::User) && self.is_new(Ns::Mnt) {
                        self.joined_sys = Some(self.new_fs("sysfs", &[], NOSUID | NODEV | NOEXEC));
                    }
                }
            }
        }
        if self.is_new(Ns::Time) {
            staged = true;
            self.b.field("time_offsets");
            self.b.op(call::UNSHARE, [clone_flag(Ns::Time).into()]).path("time");
            let offset = |nanoseconds: i64| {
                let (s, n) = crate::spec::TimeOffsets::seconds_and_nanoseconds(nanoseconds);
                format!("{s} {n}")
            };
            let offsets = self.spec.time_offsets;
            let text = format!("monotonic {}\nboottime {}\n", offset(offsets.monotonic), offset(offsets.boottime));
            let path = self.b.text("self/timens_offsets");
            let flags = libc::O_WRONLY | CLOEXEC;
            let proc = Arg::Slot(slot::PROC as u16);
            let file = self.b.op(call::OPENAT, [proc, path, flags.into()]).path("/proc/self/timens_offsets").keep();
            let data = self.b.text(&text);
            self.b
                .op(call::WRITE_ALL, [Arg::Slot(file), data, (text.len() as u64).into()])
                .path("/proc/self/timens_offsets")
                .hint("the clock may not become negative or pass the kernel's limit");
            // An open descriptor of one's own time namespace forbids nothing, but a task may only be moved once.
            self.b.op(call::CLOSE, [Arg::Slot(file)]);
        }
        if staged {
            self.b.flags |= plan_flag::STAGE;
        }
    }

    /// The quota of a directory of the host: set before the container exists, by a task that has the host's rights still, and
    /// lifted after its end. True when there is one.
    fn limit_directory(&mut self) -> bool {
        let Some(calls) = self.facts.quota_calls.clone() else { return false };
        self.b.field("disk");
        let dir = self.need(Need::Disk);
        let shown = calls.path.to_string_lossy();
        if let Some((name, value)) = &calls.mark {
            let (name, data) = (self.b.text(name.to_bytes()), self.b.bytes(value.as_bytes()));
            let args = [Arg::Slot(dir), name, data, (value.len() as u64).into(), 0.into()];
            self.b.op(call::FSETXATTR, args).path(&*shown);
        }
        self.quota_call(dir, &calls.set, &calls.path);
        self.b.kept_slot = Some(dir);
        self.b.section(section::LIFT);
        let kept = slot::KEPT as u16;
        self.quota_call(kept, &calls.lift, &calls.path);
        if let Some((name, _)) = &calls.mark {
            let name = self.b.text(name.to_bytes());
            self.b.op(call::FREMOVEXATTR, [Arg::Slot(kept), name]).path(&*shown).ok(&[libc::ENODATA]);
        }
        self.b.section(section::PREPARE);
        true
    }

    fn quota_call(&mut self, dir: u16, call: &QuotaCall, path: &Path) {
        let path = path.to_string_lossy().into_owned();
        match call {
            QuotaCall::QuotactlFd { command, id, dqblk } => {
                let data = self.b.bytes(dqblk);
                let args = [Arg::Slot(dir), (*command).into(), (*id).into(), data];
                self.b.op(call::QUOTACTL_FD, args).path(path);
            }
            QuotaCall::Ioctl { request, limit } => {
                let data = self.b.bytes(limit);
                self.b.op(call::IOCTL, [Arg::Slot(dir), (*request).into(), data]).path(path);
            }
        }
    }

    fn setup(&mut self) {
        self.b.section(section::SETUP);
        if self.facts.keyring {
            super::confine::keyring(&mut self.b);
        }
        self.b.field("idmap");
        if self.facts.may_setgroups {
            self.b.op(call::SETGROUPS, [0.into(), 0.into()]);
        }
        let (uid, gid) = self.facts.root;
        let hint = "root of the container has to be mapped";
        self.b.op(call::SETRESGID, [gid.into(), gid.into(), gid.into()]).hint(hint);
        self.b.op(call::SETRESUID, [uid.into(), uid.into(), uid.into()]).hint(hint);
        const PR_SET_DUMPABLE: i32 = 4;
        const PR_SET_CHILD_SUBREAPER: i32 = 36;
        self.b.op(call::PRCTL, [PR_SET_DUMPABLE.into(), 0.into(), 0.into(), 0.into(), 0.into()]);
        // A change of ids clears the death signal.
        self.b.op(call::LIFELINE, []);
        self.b.op(call::SETSID, []).ok(&[libc::EPERM]);
        self.b.op(call::UMASK, [0.into()]);
        if !self.is_new(Ns::Pid) {
            self.b.op(call::PRCTL, [PR_SET_CHILD_SUBREAPER.into(), 1.into(), 0.into(), 0.into(), 0.into()]);
        }
        if self.is_new(Ns::Cgroup) {
            self.b.field("namespaces.cgroup");
            self.b.op(call::UNSHARE, [clone_flag(Ns::Cgroup).into()]).path("cgroup");
            if self.facts.group_leaf {
                self.b.field("nesting");
                let leaf = self.need(Need::GroupLeaf);
                let zero = self.b.text("0");
                self.b.op(call::WRITE, [Arg::Slot(leaf), zero, 1.into()]).path("cgroup.procs");
            }
        }
        if let Some(name) = self.spec.hostname.clone() {
            self.b.field("hostname");
            let data = self.b.text(&name);
            self.b.op(call::SETHOSTNAME, [data, (name.len() as u64).into()]);
        }
        if let Some(name) = self.spec.domainname.clone() {
            self.b.field("domainname");
            let data = self.b.text(&name);
            self.b.op(call::SETDOMAINNAME, [data, (name.len() as u64).into()]);
        }
        if self.is_new(Ns::Net) && matches!(self.spec.net, Net::Loopback | Net::Attached(_)) {
            self.b.field("net");
            let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
            let socket = self.b.op(call::SOCKET, [libc::AF_INET.into(), kind.into(), 0.into()]).keep();
            // struct ifreq: the name in 16 bytes, then the flags.
            let mut request = [0u8; 40];
            request[..2].copy_from_slice(b"lo");
            request[16] = (libc::IFF_UP | libc::IFF_RUNNING) as u8;
            let request = self.b.bytes(&request);
            self.b.op(call::IOCTL, [Arg::Slot(socket), libc::SIOCSIFFLAGS.into(), request]).path("lo");
            self.b.op(call::CLOSE, [Arg::Slot(socket)]);
        }
        self.sysctls();
        // From here on devices may come, of which parameters that were set before count.
        if self.is_new(Ns::Net) && (self.facts.switch || !self.spec.net.attachments().is_empty()) {
            self.b.field("net");
            let protocols = [libc::NETLINK_ROUTE, libc::NETLINK_NETFILTER];
            for &protocol in &protocols[..if self.facts.switch { 2 } else { 1 }] {
                let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
                let args = [libc::AF_NETLINK.into(), kind.into(), protocol.into()];
                let socket = self.b.op(call::SOCKET, args).path("AF_NETLINK").keep();
                self.b.op(call::SEND_FD, [Arg::Slot(socket), (NETLINK + protocol as u32).into()]);
                self.b.op(call::CLOSE, [Arg::Slot(socket)]);
            }
        }
        if self.is_new(Ns::Mnt) && self.facts.holder {
            self.empty_root();
        } else if self.is_new(Ns::Mnt) {
            self.root();
        }
        if self.is_new(Ns::Net) && !self.spec.net.attachments().is_empty() {
            self.b.field("net");
            self.b.ask(Attribute::Network, "attach to networks");
        }
    }

    /// Written with the rights of the namespaces' root, and before anything of the container could read them.
    fn sysctls(&mut self) {
        // Others on its networks are no routers, whatever they announce.
        const NO_ROUTER: (&str, &str) = ("net.ipv6.conf.default.accept_ra", "0");
        let given = &self.spec.sysctls;
        let silent = self.facts.ipv6 && self.is_new(Ns::Net) && !self.spec.net.attachments().is_empty();
        let own = (silent && !given.contains_key(NO_ROUTER.0)).then_some(NO_ROUTER);
        let all = given.iter().map(|(name, value)| (name.as_str(), value.as_str(), format!("sysctls[{name:?}]")));
        let all: Vec<_> = all.chain(own.map(|(name, value)| (name, value, "net".to_owned()))).collect();
        if all.is_empty() {
            return;
        }
        self.b.field("sysctls");
        let fresh = self.is_new(Ns::Mnt) && self.is_new(Ns::Pid);
        let proc = if fresh { self.new_fs("proc", &[], NOSUID | NODEV | NOEXEC) } else { slot::PROC as u16 };
        for (name, value, field) in all {
            self.b.field(field);
            let parameter = sysctl::open(&mut self.b, proc, &crate::spec::sysctl::path(name));
            parameter.set(&mut self.b, value);
            parameter.close(&mut self.b);
        }
        if fresh {
            self.b.op(call::CLOSE, [Arg::Slot(proc)]);
        }
    }

    // --- pieces ---

    /// A new file system instance, not attached anywhere.
    fn new_fs(&mut self, kind: &'static str, options: &[(&str, String)], attributes: u64) -> u16 {
        let name = self.b.text(kind);
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        for (key, value) in options {
            let (key, value) = (self.b.text(key), self.b.text(value));
            self.b.op(call::FSCONFIG, [Arg::Slot(context), 1.into(), key, value, 0.into()]).path(kind);
        }
        self.finish_fs(context, kind, attributes)
    }

    fn finish_fs(&mut self, context: u16, kind: &'static str, attributes: u64) -> u16 {
        const CMD_CREATE: i32 = 6;
        let zero = || Arg::Imm(0);
        self.b.op(call::FSCONFIG, [Arg::Slot(context), CMD_CREATE.into(), zero(), zero(), zero()]).path(kind);
        let mount = self.b.op(call::FSMOUNT, [Arg::Slot(context), 1.into(), attributes.into()]).path(kind).keep();
        self.b.op(call::CLOSE, [Arg::Slot(context)]);
        mount
    }

    /// An overlay. Layers are given as directories to change to: "." needs no path that could be misread or swapped, and
    /// works where the kernel takes no descriptors for layers (before 6.13).
    fn overlay(&mut self, lowers: &[u16], upper: Option<(u16, u16)>, attributes: u64) -> u16 {
        const SET_FLAG: i32 = 0;
        const SET_STRING: i32 = 1;
        let kind = "overlay";
        let (name, dot) = (self.b.text(kind), self.b.text("."));
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        if self.spec.nesting {
            // By this name programs inside know how many overlays are stacked already.
            let (key, source) = (self.b.text("source"), self.b.text(overlay_source(self.facts.stacked + 1)));
            self.b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key, source, 0.into()]).path(kind);
        }
        let layer = |b: &mut Builder, key: &str, dir: u16| {
            let key_text = b.text(key);
            b.op(call::FCHDIR, [Arg::Slot(dir)]).path(key);
            b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key_text, dot, 0.into()])
                .path(format!("overlay {key}"));
        };
        for &lower in lowers {
            layer(&mut self.b, "lowerdir+", lower);
        }
        if let Some((upper, work)) = upper {
            layer(&mut self.b, "upperdir", upper);
            layer(&mut self.b, "workdir", work);
        }
        if self.is_own(Ns::User) {
            let flag = self.b.text("userxattr");
            self.b.op(call::FSCONFIG, [Arg::Slot(context), SET_FLAG.into(), flag, 0.into(), 0.into()]).path(kind);
        }
        self.finish_fs(context, kind, attributes)
    }

    /// Where mounts can be attached until the new root is there, one over the other: a directory below the old root, so that
    /// they go with it. Nothing else of the plan may need what it covers.
    fn stage_dir(&self) -> &'static str {
        if self.facts.privileged {
            "/mnt"
        } else if self.is_own(Ns::Pid) {
            "/proc"
        } else if self.is_own(Ns::Net) {
            "/sys"
        } else {
            "/"
        }
    }

    fn stage(&mut self, mount: u16) {
        self.staged += 1;
        let dir = self.stage_dir();
        let (empty, path) = (self.b.text(""), self.b.text(dir));
        let args = [Arg::Slot(mount), empty, libc::AT_FDCWD.into(), path, MOVE_FROM.into()];
        self.b.op(call::MOVE_MOUNT, args).path(dir);
    }

    /// A detached clone of the host's mounts at `path`.
    fn tree(&mut self, path: &Path, recursive: bool, ids: &Ids) -> u16 {
        self.tree_of(path, recursive, ids, recursive)
    }

    /// The same, where what is mounted below may have other ids: `mapped` says whether it does not.
    fn tree_of(&mut self, path: &Path, recursive: bool, ids: &Ids, mapped: bool) -> u16 {
        let field = self.b.field.clone();
        // A caller that has the file system in its user namespace makes the clone, because its keeper could not idmap it.
        if self.facts.privileged || matches!(ids, Ids::Own(_)) {
            let slot = self.need(Need::Tree { path: path.to_owned(), recursive, field });
            self.note_ids(slot, recursive && mapped, ids, path);
            return slot;
        }
        let text = self.b.text(path.as_os_str().as_bytes());
        let shown = path.to_string_lossy().into_owned();
        let flags = libc::O_PATH | CLOEXEC;
        let file = self.b.op(call::OPENAT, [libc::AT_FDCWD.into(), text, flags.into()]).path(&*shown).keep();
        let clone = self.clone_of(file, recursive, &shown);
        self.b.op(call::CLOSE, [Arg::Slot(file)]);
        clone
    }

    fn clone_of(&mut self, file: u16, recursive: bool, shown: &str) -> u16 {
        let empty = self.b.text("");
        let flags = TREE_CLONE | EMPTY | if recursive { RECURSIVE } else { 0 };
        self.b
            .op(call::OPEN_TREE, [Arg::Slot(file), empty, flags.into()])
            .path(shown)
            .hint("a mount with locked mounts below it can only be cloned recursively")
            .keep()
    }

    /// Has a descriptor of the request idmapped; the field is the one that the next operations are for.
    fn note_ids(&mut self, slot: u16, recursive: bool, ids: &Ids, path: &Path) {
        let (maps, by_caller) = match ids {
            Ids::Host => return,
            // The user namespace of a pod is there already, and the stage, which is in it by then, may not.
            Ids::Container if self.facts.idmaps.as_ref().is_some_and(|m| m.idmapped_mounts) => {
                (None, !self.is_new(Ns::User))
            }
            Ids::Container => return,
            Ids::Own(maps) => (Some(maps.clone()), maps.replaces || !self.facts.privileged),
        };
        let (field, path) = (self.b.field.clone(), path.to_owned());
        self.b.idmapped.push(Idmapped { slot, recursive, maps, by_caller, field, path });
    }

    /// With which ids a mount is shown, for which errors name what of the spec says so.
    fn in_field_of<T>(&mut self, ids: &MountIds, tree: impl FnOnce(&mut Self) -> T) -> T {
        let Some(field) = ids.field.clone() else { return tree(self) };
        let before = std::mem::replace(&mut self.b.field, field);
        let made = tree(self);
        self.b.field = before;
        made
    }

    /// What is mounted below a source and has other ids than it.
    fn below(&mut self, ids: &MountIds, attributes: u64, target: &Path) {
        for Below { path, rest, directory, ids: own } in &ids.below {
            let tree = self.in_field_of(ids, |plan| plan.tree(path, false, own));
            self.set_attributes(tree, attributes, false);
            self.later(tree, target.join(rest), *directory, false);
        }
    }

    fn set_attributes(&mut self, mount: u16, attributes: u64, recursive: bool) {
        let (empty, attr) = (self.b.text(""), self.b.words(&[attributes, 0, 0, 0]));
        let flags = EMPTY | if recursive { RECURSIVE } else { 0 };
        self.b.op(call::MOUNT_SETATTR, [Arg::Slot(mount), empty, flags.into(), attr, 32.into()]);
    }

    fn mkdir(&mut self, at: Arg, path: &str, mode: u32) {
        let text = self.b.text(path);
        self.b.op(call::MKDIRAT, [at, text, mode.into()]).ok(&[libc::EEXIST]).path(path);
    }

    fn open_dir(&mut self, at: Arg, path: &str) -> u16 {
        let text = self.b.text(path);
        self.b.op(call::OPENAT, [at, text, PATH_DIR.into()]).path(path).keep()
    }

    fn clone_dir(&mut self, at: u16, path: &str) -> u16 {
        let text = self.b.text(path);
        self.b.op(call::OPEN_TREE, [Arg::Slot(at), text, TREE_CLONE.into()]).path(path).keep()
    }

    fn later(&mut self, tree: u16, target: impl Into<PathBuf>, directory: bool, standard: bool) {
        let field = self.b.field.clone();
        self.attach.push(Attach { field, tree, target: target.into(), directory, standard, optional: false });
    }

    // --- the root ---

    fn root(&mut self) {
        self.b.field("rootfs");
        let (old, slash) = self.old_root();
        // One tmpfs for all that is private and in memory: upper layers, /tmp, /dev, contents of `files`.
        let scratch = self.scratch();
        self.stage(scratch);

        let root = self.root_mount(scratch);
        self.devices(scratch);
        self.file_systems(scratch);
        self.user_mounts();
        self.files(scratch);
        let masks = self.mask_sources(scratch);

        self.b.field("rootfs");
        self.change_root(root, (old, slash));

        for attach in std::mem::take(&mut self.attach) {
            self.b.field(attach.field.clone());
            if attach.optional {
                self.attach_where_there(&attach);
            } else {
                self.attach(&attach);
            }
        }
        self.mask(masks);
        for attach in std::mem::take(&mut self.on_top) {
            self.b.field(attach.field.clone());
            self.attach(&attach);
        }
        for formats in std::mem::take(&mut self.formats) {
            self.register(formats);
        }
        if self.spec.rootfs.readonly {
            self.b.field("rootfs.readonly");
            // Only now, because mount points were made in them; what else is mounted below stays as it is.
            for part in [vec![root], std::mem::take(&mut self.root_parts)].concat() {
                // A mount that was left out has none.
                self.b.op(call::SKIP_IF_NEGATIVE, [Arg::Slot(part), 1.into()]);
                self.set_attributes(part, RDONLY, false);
            }
        }
        self.b.op(call::CHDIR, [slash]).path("/");
    }

    /// The directory that `/` is until then, and its path.
    fn old_root(&mut self) -> (u16, Arg) {
        let slash = self.b.text("/");
        let old = self.b.op(call::OPENAT, [libc::AT_FDCWD.into(), slash, PATH_DIR.into()]).path("/").keep();
        if !self.facts.privileged || !self.is_new(Ns::User) {
            // The copy of the host's mounts must not send anything back. (A privileged keeper's three are private.)
            let none = self.b.text("");
            let flags: u64 = libc::MS_REC | libc::MS_PRIVATE;
            self.b.op(call::MOUNT, [none, slash, none, flags.into(), 0.into()]).path("/");
        }
        (old, slash)
    }

    fn change_root(&mut self, root: u16, (old, slash): (u16, Arg)) {
        self.stage(root);
        let dot = self.b.text(".");
        self.b.op(call::FCHDIR, [Arg::Slot(root)]).path("/");
        self.b.op(call::PIVOT_ROOT, [dot, dot]).path("/");
        self.b.op(call::FCHDIR, [Arg::Slot(old)]).path("/");
        // The old root goes with all below it. What was staged on the root itself is on top of it, and "." is looked up to
        // the top: then one by one, because what is left would be on top of the new root for whoever joins. (Each umount
        // waits for an RCU grace period.)
        let umounts = if self.stage_dir() == "/" { self.staged } else { 1 };
        for _ in 0..umounts {
            self.b.op(call::UMOUNT2, [dot, libc::MNT_DETACH.into()]).path("/");
        }
        self.b.op(call::CLOSE, [Arg::Slot(old)]);
        self.b.op(call::CHDIR, [slash]).path("/");
    }

    /// Of a container that only holds namespaces: nothing but the /dev/shm of those who share them.
    fn empty_root(&mut self) {
        self.b.field("rootfs");
        let (old, slash) = self.old_root();
        let options = [("mode", "0555".to_owned()), ("nr_inodes", "8".to_owned())];
        let root = self.new_fs("tmpfs", &options, NOSUID | NODEV | NOEXEC);
        self.mkdir(Arg::Slot(root), "dev", 0o555);
        self.mkdir(Arg::Slot(root), "dev/shm", 0o555);
        self.b.field("shm_size");
        let shm = self.shared_memory();
        self.later(shm, "/dev/shm", true, true);
        self.b.field("rootfs");
        self.change_root(root, (old, slash));
        for attach in std::mem::take(&mut self.attach) {
            self.attach(&attach);
        }
        self.b.field("rootfs");
        self.set_attributes(root, RDONLY | NOSUID | NODEV | NOEXEC, false);
    }

    fn shared_memory(&mut self) -> u16 {
        let size = shm_size(self.spec).to_string();
        self.new_fs("tmpfs", &[("mode", "1777".into()), ("size", size)], NOSUID | NODEV | NOEXEC)
    }

    /// What all private layers are in: a tmpfs, of the size that was asked for, or the container's image.
    fn scratch(&mut self) -> u16 {
        let mut options = vec![("mode", "0755".to_owned())];
        match self.facts.disk {
            DiskFact::Image => {
                self.b.field("disk");
                let image = self.need(Need::Disk);
                self.note_ids(image, false, &Ids::Container, Path::new(""));
                self.set_attributes(image, NOSUID | NODEV, false);
                return image;
            }
            DiskFact::Tmpfs => options.extend(tmpfs_limits(self.spec)),
            // What is not in the limited directory may not be a way to store without a limit. `files` are in it too.
            DiskFact::Project(_) | DiskFact::Btrfs => {
                let pages = |file: &crate::spec::File| (file.data.len() as u64).next_multiple_of(PAGE);
                let files: u64 = self.spec.files.values().map(pages).sum();
                options.push(("size", (BESIDE + files).to_string()));
                options.push(("nr_inodes", (BESIDE / PAGE + self.spec.files.len() as u64).to_string()));
            }
        }
        if options.len() > 1 {
            self.b.field(if self.spec.disk.is_some() { "disk" } else { "inodes" });
        }
        let scratch = self.new_fs("tmpfs", &options, NOSUID | NODEV);
        self.b.field("rootfs");
        scratch
    }

    /// With which ids a layer of the root file system is shown.
    fn root_ids(&self, layer: usize) -> MountIds {
        self.facts.root_ids.get(layer).cloned().unwrap_or_default()
    }

    fn root_mount(&mut self, scratch: u16) -> u16 {
        match self.spec.rootfs.kind.clone() {
            RootfsKind::Host | RootfsKind::HostOwned => self.host_root(scratch),
            RootfsKind::Directory(path) => {
                let ids = self.root_ids(0);
                let whole = ids.below.is_empty();
                let root = self.in_field_of(&ids, |plan| plan.tree(&path, whole, &ids.ids));
                // Nodes of an image, and those that root makes where its ids are the host's, are the host's devices.
                let attributes = NODEV | (NOSUID * u64::from(self.is_own(Ns::User)));
                self.set_attributes(root, attributes, whole);
                self.below(&ids, attributes, Path::new("/"));
                root
            }
            RootfsKind::Layers { lower, upper } => {
                let mut lowers = Vec::new();
                for (i, path) in lower.iter().enumerate() {
                    self.b.field(format!("rootfs.lower[{i}]"));
                    let ids = self.root_ids(i);
                    let tree = self.in_field_of(&ids, |plan| plan.tree(path, false, &ids.ids));
                    self.stage(tree);
                    lowers.push(tree);
                }
                let base = match upper {
                    Some(path) => {
                        self.b.field("rootfs.upper");
                        let ids = self.root_ids(lower.len());
                        let tree = self.in_field_of(&ids, |plan| plan.tree(&path, false, &ids.ids));
                        self.stage(tree);
                        tree
                    }
                    None => scratch,
                };
                self.mkdir(Arg::Slot(base), "upper", 0o755);
                self.mkdir(Arg::Slot(base), "work", 0o755);
                let upper = self.open_dir(Arg::Slot(base), "upper");
                let work = self.open_dir(Arg::Slot(base), "work");
                self.overlay(&lowers, Some((upper, work)), NODEV)
            }
        }
    }

    /// `rootfs: host`: the host's directories as lower layers. A privileged keeper overlays its clone of `/` as a whole and
    /// each mount below it; an ordinary one gets each directory that has no mounts below it, because the kernel refuses
    /// layers with locked mounts.
    fn host_root(&mut self, scratch: u16) -> u16 {
        let at = Arg::Slot(scratch);
        let owned = self.spec.rootfs.kind == RootfsKind::HostOwned;
        let mut root = None;
        for (i, entry) in self.facts.host.clone().into_iter().enumerate() {
            let (path, optional) = match entry {
                HostEntry::Overlay(path) => (path, false),
                HostEntry::Mount(path) => (path, true),
                HostEntry::Bind(path) => {
                    let mount = self.tree(&path, false, &Ids::Host);
                    self.set_attributes(mount, RDONLY | NOSUID | NODEV, false);
                    self.later(mount, path, true, false);
                    continue;
                }
                HostEntry::Dir(_) | HostEntry::Symlink(..) => continue,
            };
            let lower = if self.facts.privileged {
                let tree = self.tree(&path, false, if owned { &Ids::Container } else { &Ids::Host });
                self.stage(tree);
                tree
            } else {
                let text = self.b.text(path.as_os_str().as_bytes());
                let shown = path.to_string_lossy();
                self.b.op(call::OPENAT, [libc::AT_FDCWD.into(), text, PATH_DIR.into()]).path(shown).keep()
            };
            let (up, work) = (format!("u{i}"), format!("w{i}"));
            self.mkdir(at, &up, 0o755);
            self.mkdir(at, &work, 0o755);
            let (up, work) = (self.open_dir(at, &up), self.open_dir(at, &work));
            if path == Path::new("/") {
                // A directory in the upper layer lends the merged one its owner: its top is writable inside.
                for name in self.facts.host_top.clone() {
                    self.mkdir(Arg::Slot(up), &name, 0o755);
                }
                root = Some(self.overlay(&[lower], Some((up, work)), NODEV));
            } else {
                let first = self.b.len();
                let mount = self.overlay(&[lower], Some((up, work)), NODEV);
                if optional {
                    self.b.may_be_left_out(first, NO_LAYER, &path.to_string_lossy());
                }
                self.root_parts.push(mount);
                self.later(mount, path, true, false);
                self.attach.last_mut().expect("just pushed").optional = optional;
            }
        }
        let root = root.unwrap_or_else(|| {
            self.mkdir(at, "root", 0o755);
            let dir = self.open_dir(at, "root");
            for entry in self.facts.host.clone() {
                match entry {
                    HostEntry::Dir(path) | HostEntry::Mount(path) | HostEntry::Bind(path) => {
                        let path = path.to_string_lossy();
                        self.mkdir(Arg::Slot(dir), path.trim_start_matches('/'), 0o755);
                    }
                    HostEntry::Symlink(path, target) => {
                        let path = path.to_string_lossy().into_owned();
                        let target = self.b.text(target.as_os_str().as_bytes());
                        let link = self.b.text(path.trim_start_matches('/'));
                        self.b.op(call::SYMLINKAT, [target, Arg::Slot(dir), link]).path(path);
                    }
                    HostEntry::Overlay(_) => {}
                }
            }
            self.clone_dir(scratch, "root")
        });
        for (i, (path, mode)) in self.facts.hidden.iter().enumerate() {
            let name = format!("h{i}");
            self.mkdir(at, &name, *mode);
            let dir = self.clone_dir(scratch, &name);
            self.later(dir, path.clone(), true, true);
        }
        root
    }

    fn devices(&mut self, scratch: u16) {
        self.b.field("/dev");
        let at = Arg::Slot(scratch);
        self.mkdir(at, "dev", 0o755);
        let names = ["dev/pts", "dev/shm", "dev/mqueue"];
        names.iter().for_each(|name| self.mkdir(at, name, 0o755));
        let mode = libc::S_IFREG | 0o666;
        for (name, _, _) in DEVICES {
            let file = format!("dev/{name}");
            let text = self.b.text(&file);
            self.b.op(call::MKNODAT, [at, text, mode.into(), 0.into()]).path(format!("/{file}"));
        }
        let links = [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
        ];
        for (name, target) in links {
            let (target, link) = (self.b.text(target), self.b.text(format!("dev/{name}")));
            self.b.op(call::SYMLINKAT, [target, at, link]).path(format!("/dev/{name}"));
        }
        let dev = self.clone_dir(scratch, "dev");
        self.set_attributes(dev, NOSUID | NOEXEC, false);
        if self.facts.watch_disk {
            self.b.op(call::SEND_FD, [Arg::Slot(dev), DISK.into()]);
        }
        self.later(dev, "/dev", true, true);
        // mknod of devices is not for user namespaces: the host's nodes, bound, after a look at what they are.
        for (name, major, minor) in DEVICES {
            let path = format!("/dev/{name}");
            let tree = self.tree(Path::new(&path), false, &Ids::Host);
            let device = libc::makedev(major, minor);
            self.b.op(call::VERIFY, [Arg::Slot(tree), libc::S_IFCHR.into(), device.into()]).path(&*path);
            self.set_attributes(tree, NODE_OF_HOST, false);
            self.later(tree, path, false, true);
        }
        self.given_devices();
        if let Some(taps) = &self.facts.taps {
            self.taps(at, taps);
        }
        self.b.field("/dev/pts");
        // A joined user namespace may not have the group.
        let unknown = !self.is_own(Ns::User) && namespace_source(self.spec, Ns::User) != NamespaceSource::Host;
        let has_tty = self.facts.idmaps.as_ref().map_or(!unknown, |maps| maps.has_gid(TTY));
        let pts = self.new_fs("devpts", &devpts_options(self.spec, has_tty, true), NOSUID | NOEXEC);
        self.later(pts, "/dev/pts", true, true);
        self.b.field("shm_size");
        let shm = if self.facts.shared_shm { self.need(Need::SharedMemory) } else { self.shared_memory() };
        self.later(shm, "/dev/shm", true, true);
        if self.is_own(Ns::Ipc) {
            self.b.field("/dev/mqueue");
            let mqueue = self.new_fs("mqueue", &[], NOSUID | NODEV | NOEXEC);
            self.later(mqueue, "/dev/mqueue", true, true);
        }
    }

    /// `devices`: nodes of the container's own, from a mount that the caller has made, or the host's, bound.
    fn given_devices(&mut self) {
        if self.spec.devices.is_empty() {
            return;
        }
        let nodes = self.facts.own_nodes.then(|| {
            self.b.field("devices");
            let root = self.facts.root;
            let maps = self.facts.idmaps.as_ref();
            let mapped = |fact: &DeviceFact| DeviceFact {
                uid: if maps.is_none_or(|maps| maps.has_uid(fact.uid)) { fact.uid } else { root.0 },
                gid: if maps.is_none_or(|maps| maps.has_gid(fact.gid)) { fact.gid } else { root.1 },
                ..*fact
            };
            let nodes = self.facts.devices.iter().map(mapped).collect();
            let slot = self.need(Need::Nodes(nodes));
            self.note_ids(slot, false, &Ids::Container, Path::new(""));
            self.stage(slot);
            slot
        });
        for (i, device) in self.spec.devices.iter().enumerate() {
            self.b.field(format!("devices[{i}]"));
            let shown = device.path.to_string_lossy().into_owned();
            let (tree, attributes) = match nodes {
                Some(nodes) => {
                    let name = self.b.text(i.to_string());
                    (self.b.op(call::OPEN_TREE, [Arg::Slot(nodes), name, TREE_CLONE.into()]).path(shown).keep(), NOSUID)
                }
                None => {
                    let DeviceFact { kind, number, .. } = self.facts.devices[i];
                    let tree = self.tree(&device.path, false, &Ids::Host);
                    self.b.op(call::VERIFY, [Arg::Slot(tree), kind.into(), number.into()]).path(shown);
                    (tree, NODE_OF_HOST)
                }
            };
            self.set_attributes(tree, attributes | NOEXEC, false);
            self.later(tree, device.target.clone(), false, true);
        }
    }

    /// Nodes of macvtaps come with the devices, by names that are known before their numbers are. The host makes them on the mount that is
    /// there: a clone to be idmapped would take Linux 6.15, so their ids are the host's.
    fn taps(&mut self, scratch: Arg, taps: &TapsFact) {
        self.b.field("net");
        self.mkdir(scratch, "dev/taps", 0o755);
        for (name, number) in &taps.devices {
            let (target, link) = (self.b.text(format!("taps/{name}")), self.b.text(format!("dev/tap{number}")));
            self.b.op(call::SYMLINKAT, [target, scratch, link]).path(format!("/dev/tap{number}"));
        }
        let directory = self.need(Need::Pass(taps.directory));
        self.later(directory, "/dev/taps", true, true);
    }

    fn has_mount_at(&self, target: &str) -> bool {
        self.spec.mounts.iter().any(|m| m.target == Path::new(target))
    }

    /// The container's own groups, to be divided inside.
    fn own_groups(&mut self, scratch: u16) {
        const PLACE: &str = "/sys/fs/cgroup";
        if self.has_mount_at(PLACE) {
            return;
        }
        self.b.field(PLACE);
        let attributes = NOSUID | NODEV | NOEXEC;
        match self.facts.group_mounts.clone().as_slice() {
            [] => {}
            [GroupMount { v2: true, .. }] if self.facts.pure_v2 => {
                let group = self.new_fs("cgroup2", &[], attributes);
                self.later(group, PLACE, true, true);
            }
            hierarchies => {
                self.mkdir(Arg::Slot(scratch), "groups", 0o755);
                for hierarchy in hierarchies {
                    self.mkdir(Arg::Slot(scratch), &format!("groups/{}", hierarchy.name), 0o755);
                }
                let place = self.clone_dir(scratch, "groups");
                self.set_attributes(place, RDONLY | attributes, false);
                self.later(place, PLACE, true, true);
                for hierarchy in hierarchies {
                    let mount = match hierarchy.v2 {
                        true => self.new_fs("cgroup2", &[], attributes),
                        false => self.v1_hierarchy(&hierarchy.controllers, attributes),
                    };
                    self.later(mount, format!("{PLACE}/{}", hierarchy.name), true, true);
                }
            }
        }
    }

    /// A hierarchy is known by its controllers: flags, and the name of one without any.
    fn v1_hierarchy(&mut self, controllers: &[String], attributes: u64) -> u16 {
        const SET_FLAG: i32 = 0;
        const SET_STRING: i32 = 1;
        let kind = "cgroup";
        let name = self.b.text(kind);
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        for controller in controllers {
            let (how, key, value) = match controller.strip_prefix("name=") {
                Some(name) => (SET_STRING, self.b.text("name"), self.b.text(name)),
                None => (SET_FLAG, self.b.text(controller), 0.into()),
            };
            self.b.op(call::FSCONFIG, [Arg::Slot(context), how.into(), key, value, 0.into()]).path(&**controller);
        }
        self.finish_fs(context, kind, attributes)
    }

    fn file_systems(&mut self, scratch: u16) {
        if !self.has_mount_at("/proc") {
            self.b.field("/proc");
            let proc = self.proc();
            self.later(proc, "/proc", true, true);
        }
        if !self.has_mount_at("/sys") {
            self.b.field("/sys");
            let sys = self.sysfs(!self.spec.nesting);
            self.later(sys, "/sys", true, true);
            if self.spec.nesting {
                self.own_groups(scratch);
            } else if self.facts.pure_v2 && self.is_new(Ns::Cgroup) && !self.has_mount_at("/sys/fs/cgroup") {
                self.b.field("/sys/fs/cgroup");
                let group = self.new_fs("cgroup2", &[], RDONLY | NOSUID | NODEV | NOEXEC);
                self.later(group, "/sys/fs/cgroup", true, true);
            }
        }
    }

    /// A proc of somebody else's pid namespace, which root of a user namespace of its own may not make.
    fn proc_of(&mut self, namespace: u16) -> u16 {
        const SET_FD: i32 = 5;
        let kind = "proc";
        let hint = "the /proc of a pid namespace that is joined takes root and Linux 6.17; else join its user namespace too, or share both \
                    in a pod";
        let (name, key) = (self.b.text(kind), self.b.text("pidns"));
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).hint(hint).keep();
        let args = [Arg::Slot(context), SET_FD.into(), key, 0.into(), Arg::Slot(namespace)];
        self.b.op(call::FSCONFIG, args).path("proc pidns").hint(hint);
        self.finish_fs(context, kind, NOSUID | NODEV | NOEXEC)
    }

    fn proc(&mut self) -> u16 {
        if let Some(proc) = self.joined_proc {
            return proc;
        }
        // The host's /proc would show the host's processes, and not those that it is among.
        if self.is_own(Ns::Pid) || self.joins(Ns::Pid) {
            return self.new_fs("proc", &[], NOSUID | NODEV | NOEXEC);
        }
        let tree = self.tree(Path::new("/proc"), true, &Ids::Host);
        self.set_attributes(tree, NOSUID | NODEV | NOEXEC, true);
        tree
    }

    fn sysfs(&mut self, readonly: bool) -> u16 {
        let attributes = NOSUID | NODEV | NOEXEC | if readonly { RDONLY } else { 0 };
        if let Some(sys) = self.joined_sys.take() {
            self.set_attributes(sys, attributes | RDONLY, false);
            return sys;
        }
        let may = self.facts.privileged && namespace_source(self.spec, Ns::User) == NamespaceSource::Host;
        if self.is_own(Ns::Net) || (may && self.joins(Ns::Net)) {
            return self.new_fs("sysfs", &[], attributes);
        }
        // Only the network namespace's owner may mount it: the host's, without what is mounted on it (control groups, tracing).
        // An ordinary caller's copies of mounts are locked together and come as a whole.
        let whole = !self.facts.privileged;
        let tree = self.tree(Path::new("/sys"), whole, &Ids::Host);
        self.set_attributes(tree, attributes | RDONLY, whole);
        tree
    }

    fn user_mounts(&mut self) {
        for (i, mount) in self.spec.mounts.iter().enumerate() {
            self.b.field(format!("mounts[{i}]"));
            let readonly = if mount.readonly { RDONLY } else { 0 };
            let common = NOSUID | NODEV;
            let (mut directory, mut below) = (true, None);
            let tree = match &mount.kind {
                MountKind::Bind { source, recursive } => {
                    directory = self.facts.mount_is_dir[i];
                    let ids = self.facts.mount_ids.get(i).cloned().unwrap_or_default();
                    let recursive = *recursive && ids.below.is_empty();
                    let tree = self.in_field_of(&ids, |plan| {
                        let path = match (source, &plan.facts.mount_paths[i]) {
                            (BindSource::Fd(fd), path) if plan.facts.privileged || matches!(ids.ids, Ids::Own(_)) => {
                                let field = plan.b.field.clone();
                                let slot = plan.need(Need::TreeOfFd { fd: *fd, recursive, field });
                                let path = path.clone().unwrap_or_default();
                                plan.note_ids(slot, recursive && mount.idmap_recursive, &ids.ids, &path);
                                return slot;
                            }
                            (BindSource::Path(path), None) | (_, Some(path)) => path,
                            (BindSource::Fd(_), None) => unreachable!("facts have a path for it"),
                        };
                        plan.tree_of(path, recursive, &ids.ids, mount.idmap_recursive)
                    });
                    self.set_attributes(tree, readonly | common, recursive);
                    below = Some((ids, readonly | common));
                    tree
                }
                MountKind::Volume { .. } => {
                    let path = self.facts.mount_paths[i].clone().expect("facts have a path for it");
                    let ids = self.facts.mount_ids.get(i).cloned().unwrap_or_default();
                    let tree = self.in_field_of(&ids, |plan| plan.tree(&path, false, &ids.ids));
                    self.set_attributes(tree, readonly | common, false);
                    tree
                }
                MountKind::Tmpfs { size, mode } => {
                    let mut options = vec![("mode", format!("{:o}", mode.unwrap_or(0o1777)))];
                    if let Some(size) = size {
                        options.push(("size", size.to_string()));
                    }
                    self.new_fs("tmpfs", &options, readonly | common)
                }
                MountKind::Proc => self.proc(),
                MountKind::Sysfs => self.sysfs(mount.readonly),
                MountKind::Mqueue => self.new_fs("mqueue", &[], readonly | common | NOEXEC),
                MountKind::Devpts => self.new_fs("devpts", &devpts_options(self.spec, false, false), NOSUID | NOEXEC),
                MountKind::Cgroup => self.new_fs("cgroup2", &[], readonly | common | NOEXEC),
                MountKind::BinfmtMisc { register } => {
                    let tree = self.binfmt_misc();
                    let field = self.b.field.clone();
                    self.formats.push(Formats { field, tree, register, readonly: mount.readonly });
                    tree
                }
            };
            self.later(tree, mount.target.clone(), directory, false);
            if mount.target.starts_with("/proc/sys") {
                // What makes that read-only would be on top, and cover it.
                self.on_top.extend(self.attach.pop());
            }
            if let Some((ids, attributes)) = below {
                self.below(&ids, attributes, &mount.target);
            }
        }
    }

    /// The instance of the container's user namespace, which its processes' programs are looked up in from now on.
    fn binfmt_misc(&mut self) -> u16 {
        let kind = "binfmt_misc";
        let name = self.b.text(kind);
        let context = self
            .b
            .op(call::FSOPEN, [name, 1.into()])
            .path(kind)
            .hint("the kernel has none: it takes CONFIG_BINFMT_MISC, as a module one that can be loaded (modprobe binfmt_misc)")
            .keep();
        const CMD_CREATE: i32 = 6;
        let zero = || Arg::Imm(0);
        self.b
            .op(call::FSCONFIG, [Arg::Slot(context), CMD_CREATE.into(), zero(), zero(), zero()])
            .path(kind)
            .hint("one of a container's own takes Linux 6.7 or newer");
        let attributes = NOSUID | NODEV | NOEXEC;
        let mount = self.b.op(call::FSMOUNT, [Arg::Slot(context), 1.into(), attributes.into()]).path(kind).keep();
        self.b.op(call::CLOSE, [Arg::Slot(context)]);
        mount
    }

    /// Only now, because the interpreters are looked up in the container: at once, for those with flag F.
    fn register(&mut self, formats: Formats<'_>) {
        for (i, line) in formats.register.iter().enumerate() {
            self.b.field(format!("{}.register[{i}]", formats.field));
            let shown = line.to_string_lossy().into_owned();
            if let Some(interpreter) = opened_at_once(line.as_bytes()) {
                // The kernel opens it as this task, whose /proc/self/fd leads to the host's files.
                let how = self.how(libc::O_PATH | CLOEXEC, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
                let path = self.b.text(interpreter);
                let file = self.b.op(call::OPENAT2, [libc::AT_FDCWD.into(), path, how, 24.into()]).path(&*shown).keep();
                self.b.op(call::VERIFY, [Arg::Slot(file), libc::S_IFREG.into(), 0.into()]).path(&*shown);
                self.b.op(call::CLOSE, [Arg::Slot(file)]);
            }
            let (name, data) = (self.b.text("register"), self.b.bytes(line.as_bytes()));
            let flags = libc::O_WRONLY | CLOEXEC;
            let file = self.b.op(call::OPENAT, [Arg::Slot(formats.tree), name, flags.into()]).path("register").keep();
            self.b
                .op(call::WRITE, [Arg::Slot(file), data, (line.len() as u64).into()])
                .path(shown)
                .hint("a line is :name:type:offset:magic:mask:interpreter:flags, each name once; see binfmt.d(5)");
            self.b.op(call::CLOSE, [Arg::Slot(file)]);
        }
        if formats.readonly {
            self.b.field(formats.field);
            self.set_attributes(formats.tree, RDONLY, false);
        }
    }

    /// Contents of `files`, /etc/hosts and /etc/resolv.conf: bound over their targets from memory, so that an image in use
    /// by others is not changed.
    fn files(&mut self, scratch: u16) {
        let mut files: Vec<(String, PathBuf, Vec<u8>, u32)> = Vec::new();
        if !self.spec.dns.is_empty() {
            let text: String = self.spec.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
            files.push(("dns".into(), RESOLV_CONF.into(), text.into_bytes(), 0o644));
        } else if let Some(text) = &self.facts.name_servers {
            files.push(("net".into(), RESOLV_CONF.into(), text.clone().into_bytes(), 0o644));
        }
        let is_own = |path: &str| self.spec.files.contains_key(Path::new(path));
        if let Some(path) = self.facts.hosts.clone().filter(|_| !is_own("/etc/hosts")) {
            self.b.field("net");
            let tree = self.tree(&path, false, &Ids::Host);
            self.set_attributes(tree, RDONLY, false);
            self.later(tree, "/etc/hosts", false, false);
        } else if let Some(text) = hosts_text(self.spec, self.is_new(Ns::Mnt)) {
            files.push(("hosts".into(), "/etc/hosts".into(), text.into_bytes(), 0o644));
        }
        files.retain(|(_, target, _, _)| !self.spec.files.contains_key(target));
        for (path, file) in &self.spec.files {
            files.push((format!("files[{:?}]", path.to_string_lossy()), path.clone(), file.data.clone(), file.mode));
        }
        for (i, (field, target, data, mode)) in files.into_iter().enumerate() {
            let field_is_net = field == "net";
            self.b.field(field);
            let name = format!("f{i}");
            let text = self.b.text(&name);
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | CLOEXEC;
            let args = [Arg::Slot(scratch), text, flags.into(), mode.into()];
            let shown = target.to_string_lossy().into_owned();
            let file = self.b.op(call::OPENAT, args).path(&*shown).keep();
            let bytes = self.b.bytes(&data);
            self.b.op(call::WRITE_ALL, [Arg::Slot(file), bytes, (data.len() as u64).into()]).path(&*shown);
            if self.facts.sends_hosts && target == Path::new("/etc/hosts") {
                self.b.op(call::SEND_FD, [Arg::Slot(file), HOSTS.into()]);
            }
            self.b.op(call::CLOSE, [Arg::Slot(file)]);
            let tree = self.clone_dir(scratch, &name);
            let optional = field_is_net && target == Path::new(RESOLV_CONF);
            self.later(tree, target, false, false);
            if let Some(attach) = self.attach.last_mut().filter(|_| optional) {
                attach.optional = true;
            }
        }
    }

    /// Detached clones to put over masked directories and files: both, where only the kernel can tell what the path is.
    fn mask_sources(&mut self, scratch: u16) -> Vec<(PathBuf, Option<u16>, Option<u16>)> {
        let known = self.facts.known_paths.clone();
        let customary = || Spec::MASKED_PATHS.iter().map(PathBuf::from);
        let masked: Vec<PathBuf> = match &self.spec.masked_paths {
            // The customary list, and more.
            Some(paths) if customary().all(|path| paths.contains(&path)) => {
                paths.iter().chain(&self.facts.throttles).cloned().collect()
            }
            Some(paths) => paths.clone(),
            None if self.spec.nesting => Vec::new(),
            None => customary().chain(self.facts.throttles.iter().cloned()).collect(),
        };
        self.b.field("masked_paths");
        let mut made = false;
        let mut out = Vec::new();
        for path in masked {
            let directory = match known.iter().find(|(p, _)| *p == path) {
                Some((_, None)) => continue,
                Some((_, directory)) => *directory,
                None => None,
            };
            let over_directory = (directory != Some(false)).then(|| {
                if !std::mem::replace(&mut made, true) {
                    self.mkdir(Arg::Slot(scratch), "empty", 0o555);
                }
                let tree = self.clone_dir(scratch, "empty");
                self.set_attributes(tree, RDONLY | NOSUID | NODEV | NOEXEC, false);
                tree
            });
            let over_file = (directory != Some(true)).then(|| {
                let tree = self.tree(Path::new("/dev/null"), false, &Ids::Host);
                self.set_attributes(tree, NODE_OF_HOST, false);
                tree
            });
            out.push((path, over_directory, over_file));
        }
        out
    }

    fn how(&mut self, flags: i32, resolve: u64) -> Arg {
        self.b.words(&[flags as u64, 0, resolve])
    }

    fn mask(&mut self, masks: Vec<(PathBuf, Option<u16>, Option<u16>)>) {
        let empty = self.b.text("");
        let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
        let how = self.how(libc::O_PATH | CLOEXEC, resolve);
        let how_dir = self.how(PATH_DIR, resolve);
        self.b.field("masked_paths");
        for (path, over_directory, over_file) in masks {
            let shown = path.to_string_lossy().into_owned();
            let text = self.b.text(path.as_os_str().as_bytes());
            let mut masked_directory = None;
            for (tree, how) in [(over_directory, how_dir), (over_file, how)] {
                let Some(tree) = tree else { continue };
                let at = self.b.len();
                let target = self
                    .b
                    .op(call::OPENAT2, [libc::AT_FDCWD.into(), text, how, 24.into()])
                    .ok(&[libc::ENOENT, libc::ENOTDIR])
                    .path(&*shown)
                    .keep();
                let args = [Arg::Slot(tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
                self.b.op(call::MOVE_MOUNT, args).path(&*shown);
                self.b.skip_from(at, false);
                match masked_directory {
                    None => masked_directory = Some(at + 1),
                    // What was masked as a directory is no file.
                    Some(directory) => self.b.skip_from(directory, true),
                }
            }
        }
        self.b.field("readonly_paths");
        let readonly: Vec<PathBuf> = match &self.spec.readonly_paths {
            Some(paths) => paths.clone(),
            None if self.spec.nesting => Vec::new(),
            None => Spec::READONLY_PATHS.iter().map(PathBuf::from).collect(),
        };
        let attr = self.b.words(&[RDONLY | NOSUID | NODEV | NOEXEC, 0, 0, 0]);
        for path in readonly {
            if self.facts.known_paths.iter().any(|(p, d)| *p == path && d.is_none()) {
                continue;
            }
            let shown = path.to_string_lossy().into_owned();
            let text = self.b.text(path.as_os_str().as_bytes());
            let at = self.b.len();
            let target = self
                .b
                .op(call::OPENAT2, [libc::AT_FDCWD.into(), text, how, 24.into()])
                .ok(&[libc::ENOENT, libc::ENOTDIR])
                .path(&*shown)
                .keep();
            let tree = self.clone_of(target, true, &shown);
            let flags = EMPTY | RECURSIVE;
            let args = [Arg::Slot(tree), empty, flags.into(), attr, 32.into()];
            self.b.op(call::MOUNT_SETATTR, args).path(&*shown);
            let args = [Arg::Slot(tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
            self.b.op(call::MOVE_MOUNT, args).path(shown);
            self.b.skip_from(at, false);
        }
    }

    /// Finds or makes the target below the new root, by descriptors, and mounts there.
    fn attach(&mut self, attach: &Attach) {
        let path = attach.target.as_os_str().as_bytes();
        let shown = attach.target.to_string_lossy().into_owned();
        let resolve = RESOLVE_IN_ROOT | if attach.standard { RESOLVE_NO_SYMLINKS } else { RESOLVE_NO_MAGICLINKS };
        let how = self.how(libc::O_PATH | CLOEXEC, resolve);
        let how_dir = self.how(PATH_DIR, resolve);
        let text = self.b.text(path);
        let at = libc::AT_FDCWD;
        let hint = "a symlink stands where a directory of the container has to be";
        let make_hint =
            "a place that is not there yet has to be below a directory that the container's root may write to";
        let first = self.b.len();
        let step = self.b.op(call::OPENAT2, [at.into(), text, how, 24.into()]).ok(&[libc::ENOENT]).path(&*shown);
        let target = if attach.standard { step.hint(hint) } else { step }.keep();
        // Only when it is not there: every part of the way, then the last one.
        let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|p| !p.is_empty()).collect();
        let mut parent = self.b.text("/");
        let mut parent_path = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let dir = self.b.op(call::OPENAT2, [at.into(), parent, how_dir, 24.into()]).path(&*shown).keep();
            let name = self.b.text(part);
            if i + 1 < parts.len() || attach.directory {
                self.b
                    .op(call::MKDIRAT, [Arg::Slot(dir), name, 0o755.into()])
                    .ok(&[libc::EEXIST])
                    .path(&*shown)
                    .hint(make_hint);
            } else {
                let mode = libc::S_IFREG | 0o644;
                self.b
                    .op(call::MKNODAT, [Arg::Slot(dir), name, mode.into(), 0.into()])
                    .ok(&[libc::EEXIST])
                    .path(&*shown)
                    .hint(make_hint);
            }
            self.b.op(call::CLOSE, [Arg::Slot(dir)]);
            parent_path.push(b'/');
            parent_path.extend_from_slice(part);
            parent = self.b.text(&parent_path);
        }
        let step = self.b.op(call::OPENAT2, [at.into(), text, how, 24.into()]).path(&*shown);
        step.keep_in(target);
        self.b.skip_from(first, true);
        let empty = self.b.text("");
        let args = [Arg::Slot(attach.tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
        self.b
            .op(call::MOVE_MOUNT, args)
            .path(shown)
            .hint("a file can only be mounted on a file, a directory on a directory");
        self.b.op(call::CLOSE, [Arg::Slot(target)]);
    }

    /// A mount of the host's, where its place is shown: it is not where the mount above it was left out.
    fn attach_where_there(&mut self, attach: &Attach) {
        const OPERATIONS: u64 = 4;
        let shown = attach.target.to_string_lossy().into_owned();
        let text = self.b.text(attach.target.as_os_str().as_bytes());
        let how = self.how(PATH_DIR, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
        let empty = self.b.text("");
        self.b.op(call::SKIP_IF_NEGATIVE, [Arg::Slot(attach.tree), OPERATIONS.into()]);
        let first = self.b.len();
        let target = self.b.op(call::OPENAT2, [libc::AT_FDCWD.into(), text, how, 24.into()]).path(&*shown).keep();
        let args = [Arg::Slot(attach.tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
        self.b.op(call::MOVE_MOUNT, args).path(&*shown);
        self.b.op(call::CLOSE, [Arg::Slot(target)]);
        self.b.may_be_left_out(first, [libc::EACCES, libc::ENOENT, libc::ENOTDIR, libc::ELOOP], &shown);
        debug_assert_eq!(self.b.len() - first, OPERATIONS as usize);
    }

    fn undo(&mut self) {
        self.b.section(section::END);
        self.kill_group();
        self.b.section(section::UNDO);
        self.kill_group();
        self.b.field("cgroup");
        let shared = |index: usize| Arg::Slot((slot::SHARED + index) as u16);
        for (index, name) in &self.facts.undo_groups {
            let text = self.b.text(name);
            self.b.op(call::REMOVE_GROUP, [shared(*index), text]).ok(&[libc::ENOENT]).path(name.clone());
        }
        if let Some((index, name)) = self.facts.undo_name.clone() {
            self.undo_name(shared(index), &name);
        }
    }

    /// Sent by who lifts what would outlive the container, since the keeper has the descriptor as long. What is gone already is no
    /// error, and nobody reads the answers.
    fn undo_net(&mut self) {
        let Some((claim, messages)) = self.facts.undo_net.clone() else { return };
        const ANY: &[i32] = &[crate::proto::ANY as i32];
        self.b.field("net");
        self.b.kept_slot = Some(self.need(Need::Pass(claim)));
        self.b.section(section::LIFT);
        let length = messages.len() as u64;
        let messages = self.b.bytes(&messages);
        let first = self.b.len();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let args = [libc::AF_NETLINK.into(), kind.into(), libc::NETLINK_ROUTE.into()];
        let socket = self.b.op(call::SOCKET, args).ok(ANY).path("AF_NETLINK").keep();
        self.b.op(call::WRITE, [Arg::Slot(socket), messages, length.into()]).ok(ANY).path("AF_NETLINK");
        self.b.op(call::CLOSE, [Arg::Slot(socket)]);
        self.b.skip_from(first, false);
    }

    fn kill_group(&mut self) {
        let Some((index, name)) = self.facts.kill_group.clone() else { return };
        self.b.field("cgroup");
        let path = self.b.text(format!("{name}/cgroup.kill"));
        let one = self.b.text("1");
        let flags = libc::O_WRONLY | CLOEXEC;
        let at = self.b.len();
        let gone = [libc::ENOENT, libc::ENODEV, libc::EOPNOTSUPP];
        let shared = Arg::Slot((slot::SHARED + index) as u16);
        let file = self.b.op(call::OPENAT, [shared, path, flags.into()]).ok(&gone).keep();
        self.b.op(call::WRITE, [Arg::Slot(file), one, 1.into()]).ok(&gone);
        self.b.op(call::CLOSE, [Arg::Slot(file)]);
        self.b.skip_from(at, false);
    }

    /// The host removes its container's name itself, and holds the lock until then: only when it was killed, or executed
    /// something else, the keeper gets the lock. What fails is left to gc.
    fn undo_name(&mut self, names: Arg, name: &UndoName) {
        const ANY: &[i32] = &[crate::proto::ANY as i32];
        self.b.field("name");
        let first = self.b.len();
        let path = self.b.text(&name.lock);
        let flags = libc::O_RDWR | CLOEXEC | libc::O_NOFOLLOW;
        let lock = self.b.op(call::OPENAT, [names, path, flags.into()]).ok(ANY).path(&*name.lock).keep();
        // struct flock: type and whence 16 bits each, start, length, pid. The first byte, as for everybody who takes the name.
        let whole = self.b.words(&[libc::F_WRLCK as u64, 0, 1, 0]);
        let taken = self.b.len();
        self.b.op(call::FCNTL, [Arg::Slot(lock), libc::F_OFD_SETLK.into(), whole]).ok(ANY).path(&*name.lock);
        let other = self.b.len();
        let files = [&name.owner].into_iter().chain(&name.files).map(|file| (file, 0));
        for (file, flags) in files.chain([(&name.directory, libc::AT_REMOVEDIR)]) {
            let path = self.b.text(file);
            self.b.op(call::UNLINKAT, [names, path, flags.into()]).ok(ANY).path(&**file);
        }
        self.b.skip_from(taken, false);
        self.b.skip_from(other, false);
        self.b.op(call::CLOSE, [Arg::Slot(lock)]);
        self.b.skip_from(first, false);
    }
}
