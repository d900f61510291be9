//! PREPARE, SETUP and UNDO of a container, in the order in which it happens.

use std::path::Path;
use std::sync::Arc;

use super::attribute::Attribute;
use super::builder::{Arg, Builder, build, call};
use super::facts::{Facts, Need, QuotaCall};
use super::process::{ProcessPlan, need};
use super::sysctl;
use crate::proto::{plan_flag, section, slot};
use crate::spec::{NamespaceKind as Ns, NamespaceSource, Net, Spec};

/// /dev.
mod devices;
/// What is mounted in the root.
mod inside;
/// Paths that are hidden or cannot be written to.
mod mask;
/// How mounts are made and attached.
mod mount;
/// The root file system.
mod root;
/// What is undone at the end.
mod undo;

pub(crate) use devices::{TTY, devpts_options, shm_size};
use inside::Formats;
use mount::Attach;
pub(crate) use mount::{MOST_OVERLAYS, MOUNT_LABEL_REFUSED, overlays};

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
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_IN_ROOT: u64 = 16;

/// Hidden by `rootfs: host` because they are covered by file systems of the container's own.
pub(crate) const COVERED: [&str; 3] = ["proc", "sys", "dev"];

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
                confinement: super::confine::Confinement {
                    selinux: self.facts.selinux.as_deref(),
                    ..super::confine::Confinement::of_spec(self.spec)
                },
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
            super::confine::keyring(&mut self.b, self.facts.selinux.as_deref());
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
        self.b.op(call::LIFELINE, [Arg::Slot(slot::LIFELINE as u16)]);
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

    // --- the root ---
}
