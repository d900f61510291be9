//! The builder methods of [`Spec`]: one for each field, of the same name, and one for a single entry of each list or map.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Capabilities, Cpuset, Device, DeviceRule, Disk, File, IdQuota, Idmap, IoMax, IoPriority, Landlock, Mount,
    NamespaceKind, NamespaceSource, Net, Port, QuotaId, RdmaMax, Resource, Rlimit, Rootfs, Scheduler, Seccomp,
    Securebits, Spec, Stdio, Terminal, TimeOffsets,
};

/// Each sets the field of the same name, where its meaning is described; those of lists and maps put the whole list or map in
/// the place of the old one, and have a singular sibling that adds one entry (`mounts`, `mount`). `env` adds one variable,
/// as in [`std::process::Command`].
impl Spec {
    /// Sets [`name`](Spec#structfield.name).
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
    /// Sets [`argv`](Spec#structfield.argv): program and arguments.
    pub fn argv<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, argv: I) -> Self {
        self.argv = argv.into_iter().map(Into::into).collect();
        self
    }
    /// Appends one argument to [`argv`](Spec#structfield.argv).
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.argv.push(arg.into());
        self
    }
    /// Sets one variable of [`env`](Spec#structfield.env).
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), Some(value.into()));
        self
    }
    /// Adds several variables to [`env`](Spec#structfield.env).
    pub fn envs<I, K, V>(mut self, variables: I) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<OsString>,
        V: Into<OsString>,
    {
        self.env.extend(variables.into_iter().map(|(name, value)| (name.into(), Some(value.into()))));
        self
    }
    /// Removes a variable of the clean base or an inherited one: [`env`](Spec#structfield.env).
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), None);
        self
    }
    /// Sets [`env_inherit`](Spec#structfield.env_inherit).
    pub fn env_inherit<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, names: I) -> Self {
        self.env_inherit = names.into_iter().map(Into::into).collect();
        self
    }
    /// Sets [`cwd`](Spec#structfield.cwd).
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.cwd = Some(path.into());
        self
    }
    /// Sets [`user`](Spec#structfield.user).
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
    /// Sets [`groups`](Spec#structfield.groups).
    pub fn groups<I: IntoIterator<Item = S>, S: Into<String>>(mut self, groups: I) -> Self {
        self.groups = groups.into_iter().map(Into::into).collect();
        self
    }
    /// Sets [`umask`](Spec#structfield.umask).
    pub fn umask(mut self, umask: u32) -> Self {
        self.umask = Some(umask);
        self
    }
    /// Sets [`hostname`](Spec#structfield.hostname).
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }
    /// Sets [`domainname`](Spec#structfield.domainname).
    pub fn domainname(mut self, domainname: impl Into<String>) -> Self {
        self.domainname = Some(domainname.into());
        self
    }
    /// Sets [`dns`](Spec#structfield.dns).
    pub fn dns<I: IntoIterator<Item = S>, S: Into<String>>(mut self, addresses: I) -> Self {
        self.dns = addresses.into_iter().map(Into::into).collect();
        self
    }
    /// Sets [`hosts`](Spec#structfield.hosts): pairs of name and address.
    pub fn hosts<I, K, V>(mut self, hosts: I) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        self.hosts = hosts.into_iter().map(|(name, address)| (name.into(), address.into())).collect();
        self
    }
    /// Adds one line to [`hosts`](Spec#structfield.hosts).
    pub fn host(mut self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.hosts.insert(name.into(), address.into());
        self
    }
    /// Sets [`rootfs`](Spec#structfield.rootfs): a [`Rootfs`], or a path as text (`host`, `host:owned` or a directory).
    pub fn rootfs(mut self, rootfs: impl Into<Rootfs>) -> Self {
        self.rootfs = rootfs.into();
        self
    }
    /// Sets [`mounts`](Spec#structfield.mounts).
    pub fn mounts<I: IntoIterator<Item = M>, M: Into<Mount>>(mut self, mounts: I) -> Self {
        self.mounts = mounts.into_iter().map(Into::into).collect();
        self
    }
    /// Adds one entry to [`mounts`](Spec#structfield.mounts): a [`Mount`], or `source[:target][:rw]` as text.
    pub fn mount(mut self, mount: impl Into<Mount>) -> Self {
        self.mounts.push(mount.into());
        self
    }
    /// Sets [`files`](Spec#structfield.files): pairs of path and content.
    pub fn files<I, P, F>(mut self, files: I) -> Self
    where
        I: IntoIterator<Item = (P, F)>,
        P: Into<PathBuf>,
        F: Into<File>,
    {
        self.files = files.into_iter().map(|(path, file)| (path.into(), file.into())).collect();
        self
    }
    /// Adds one entry to [`files`](Spec#structfield.files).
    pub fn file(mut self, path: impl Into<PathBuf>, file: impl Into<File>) -> Self {
        self.files.insert(path.into(), file.into());
        self
    }
    /// Sets [`devices`](Spec#structfield.devices).
    pub fn devices<I: IntoIterator<Item = D>, D: Into<Device>>(mut self, devices: I) -> Self {
        self.devices = devices.into_iter().map(Into::into).collect();
        self
    }
    /// Adds one entry to [`devices`](Spec#structfield.devices): a [`Device`], or `path[:target][:access]` as text.
    pub fn device(mut self, device: impl Into<Device>) -> Self {
        self.devices.push(device.into());
        self
    }

    /// Sets [`device_rules`](Spec#structfield.device_rules).
    pub fn device_rules(mut self, rules: impl IntoIterator<Item = DeviceRule>) -> Self {
        self.device_rules = rules.into_iter().collect();
        self
    }
    /// Sets [`shm_size`](Spec#structfield.shm_size), in bytes.
    pub fn shm_size(mut self, bytes: u64) -> Self {
        self.shm_size = Some(bytes);
        self
    }
    /// Sets [`init`](Spec#structfield.init).
    pub fn init(mut self, init: bool) -> Self {
        self.init = init;
        self
    }
    /// Sets [`terminal`](Spec#structfield.terminal).
    pub fn terminal(mut self, terminal: Terminal) -> Self {
        self.terminal = Some(terminal);
        self
    }
    /// Sets [`stdin`](Spec#structfield.stdin).
    pub fn stdin(mut self, stdio: Stdio) -> Self {
        self.stdin = Some(stdio);
        self
    }
    /// Sets [`stdout`](Spec#structfield.stdout).
    pub fn stdout(mut self, stdio: Stdio) -> Self {
        self.stdout = Some(stdio);
        self
    }
    /// Sets [`stderr`](Spec#structfield.stderr).
    pub fn stderr(mut self, stdio: Stdio) -> Self {
        self.stderr = Some(stdio);
        self
    }
    /// Sets [`log_max`](Spec#structfield.log_max), in bytes.
    pub fn log_max(mut self, bytes: u64) -> Self {
        self.log_max = Some(bytes);
        self
    }
    /// Sets [`detach`](Spec#structfield.detach).
    pub fn detach(mut self, detach: bool) -> Self {
        self.detach = detach;
        self
    }
    /// Sets [`namespaces`](Spec#structfield.namespaces).
    pub fn namespaces<I>(mut self, namespaces: I) -> Self
    where
        I: IntoIterator<Item = (NamespaceKind, NamespaceSource)>,
    {
        self.namespaces = namespaces.into_iter().collect();
        self
    }
    /// Sets one kind of [`namespaces`](Spec#structfield.namespaces).
    pub fn namespace(mut self, kind: NamespaceKind, source: NamespaceSource) -> Self {
        self.namespaces.insert(kind, source);
        self
    }
    /// Sets [`idmap`](Spec#structfield.idmap).
    pub fn idmap(mut self, idmap: Idmap) -> Self {
        self.idmap = idmap;
        self
    }
    /// Sets [`memory`](Spec#structfield.memory), in bytes.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }
    /// Sets [`memory_high`](Spec#structfield.memory_high), in bytes.
    pub fn memory_high(mut self, bytes: u64) -> Self {
        self.memory_high = Some(bytes);
        self
    }
    /// Sets [`memory_low`](Spec#structfield.memory_low), in bytes.
    pub fn memory_low(mut self, bytes: u64) -> Self {
        self.memory_low = Some(bytes);
        self
    }
    /// Sets [`memory_min`](Spec#structfield.memory_min), in bytes.
    pub fn memory_min(mut self, bytes: u64) -> Self {
        self.memory_min = Some(bytes);
        self
    }
    /// Sets [`swap`](Spec#structfield.swap), in bytes.
    pub fn swap(mut self, bytes: u64) -> Self {
        self.swap = Some(bytes);
        self
    }
    /// Sets [`cpu_weight`](Spec#structfield.cpu_weight).
    pub fn cpu_weight(mut self, weight: u64) -> Self {
        self.cpu_weight = Some(weight);
        self
    }
    /// Sets [`nesting`](Spec#structfield.nesting).
    pub fn nesting(mut self, nesting: bool) -> Self {
        self.nesting = nesting;
        self
    }
    /// Sets [`oom_group`](Spec#structfield.oom_group).
    pub fn oom_group(mut self, all: bool) -> Self {
        self.oom_group = all;
        self
    }
    /// Sets [`cpu_burst`](Spec#structfield.cpu_burst).
    pub fn cpu_burst(mut self, saved: Duration) -> Self {
        self.cpu_burst = Some(saved);
        self
    }
    /// Sets [`cpu_idle`](Spec#structfield.cpu_idle).
    pub fn cpu_idle(mut self, idle: bool) -> Self {
        self.cpu_idle = idle;
        self
    }
    /// Sets [`cpuset`](Spec#structfield.cpuset); text is the list of processors.
    pub fn cpuset(mut self, cpuset: impl Into<Cpuset>) -> Self {
        self.cpuset = Some(cpuset.into());
        self
    }
    /// Sets [`cpu_rt_runtime`](Spec#structfield.cpu_rt_runtime).
    pub fn cpu_rt_runtime(mut self, runtime: Duration) -> Self {
        self.cpu_rt_runtime = Some(runtime);
        self
    }
    /// Sets [`cpu_rt_period`](Spec#structfield.cpu_rt_period).
    pub fn cpu_rt_period(mut self, period: Duration) -> Self {
        self.cpu_rt_period = Some(period);
        self
    }
    /// Sets [`io_weight`](Spec#structfield.io_weight).
    pub fn io_weight(mut self, weight: u64) -> Self {
        self.io_weight = Some(weight);
        self
    }
    /// Limits one device: [`io_max`](Spec#structfield.io_max).
    pub fn io_max(mut self, device: impl Into<String>, limits: IoMax) -> Self {
        self.io_max.insert(device.into(), limits);
        self
    }
    /// Sets [`disk`](Spec#structfield.disk): a size in bytes, or a [`Disk`].
    pub fn disk(mut self, disk: impl Into<Disk>) -> Self {
        self.disk = Some(disk.into());
        self
    }
    /// Sets [`inodes`](Spec#structfield.inodes).
    pub fn inodes(mut self, count: u64) -> Self {
        self.inodes = Some(count);
        self
    }
    /// Limits one user or group inside: [`quota`](Spec#structfield.quota), in bytes or as an [`IdQuota`].
    pub fn quota(mut self, id: QuotaId, limits: impl Into<IdQuota>) -> Self {
        self.quota.insert(id, limits.into());
        self
    }
    /// Limits huge pages of one size (`2M`): [`hugepages`](Spec#structfield.hugepages), in bytes.
    pub fn hugepages(mut self, size: impl Into<String>, bytes: u64) -> Self {
        self.hugepages.insert(size.into(), bytes);
        self
    }
    /// Limits one device: [`rdma`](Spec#structfield.rdma).
    pub fn rdma(mut self, device: impl Into<String>, limits: RdmaMax) -> Self {
        self.rdma.insert(device.into(), limits);
        self
    }
    /// Limits one resource: [`misc`](Spec#structfield.misc).
    pub fn misc(mut self, resource: impl Into<String>, count: u64) -> Self {
        self.misc.insert(resource.into(), count);
        self
    }
    /// Sets [`cpus`](Spec#structfield.cpus), in cores.
    pub fn cpus(mut self, cores: f64) -> Self {
        self.cpus = Some(cores);
        self
    }
    /// Sets [`pids`](Spec#structfield.pids).
    pub fn pids(mut self, pids: u64) -> Self {
        self.pids = Some(pids);
        self
    }
    /// Sets [`rlimits`](Spec#structfield.rlimits).
    pub fn rlimits<I: IntoIterator<Item = (Resource, L)>, L: Into<Rlimit>>(mut self, rlimits: I) -> Self {
        self.rlimits = rlimits.into_iter().map(|(resource, limit)| (resource, limit.into())).collect();
        self
    }
    /// Sets one of [`rlimits`](Spec#structfield.rlimits); a plain number is both the soft and the hard limit.
    pub fn rlimit(mut self, resource: Resource, limit: impl Into<Rlimit>) -> Self {
        self.rlimits.insert(resource, limit.into());
        self
    }
    /// Sets [`nice`](Spec#structfield.nice).
    pub fn nice(mut self, nice: i32) -> Self {
        self.nice = Some(nice);
        self
    }
    /// Sets [`scheduler`](Spec#structfield.scheduler): a [`Scheduler`], or a [`Policy`](super::Policy) alone.
    pub fn scheduler(mut self, scheduler: impl Into<Scheduler>) -> Self {
        self.scheduler = Some(scheduler.into());
        self
    }
    /// Sets [`io_priority`](Spec#structfield.io_priority).
    pub fn io_priority(mut self, priority: IoPriority) -> Self {
        self.io_priority = Some(priority);
        self
    }
    /// Sets [`oom_score_adj`](Spec#structfield.oom_score_adj).
    pub fn oom_score_adj(mut self, adjustment: i32) -> Self {
        self.oom_score_adj = Some(adjustment);
        self
    }
    /// Sets [`ptys`](Spec#structfield.ptys).
    pub fn ptys(mut self, ptys: u64) -> Self {
        self.ptys = Some(ptys);
        self
    }
    /// Sets [`sysctls`](Spec#structfield.sysctls): pairs of name and value.
    pub fn sysctls<I, K, V>(mut self, sysctls: I) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        self.sysctls = sysctls.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }
    /// Sets one of [`sysctls`](Spec#structfield.sysctls).
    pub fn sysctl(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.sysctls.insert(name.into(), value.into());
        self
    }
    /// Sets [`wall_time`](Spec#structfield.wall_time).
    pub fn wall_time(mut self, time: Duration) -> Self {
        self.wall_time = Some(time);
        self
    }
    /// Sets [`cpu_time`](Spec#structfield.cpu_time).
    pub fn cpu_time(mut self, time: Duration) -> Self {
        self.cpu_time = Some(time);
        self
    }
    /// Sets [`start_timeout`](Spec#structfield.start_timeout).
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }
    /// Sets [`stop_signal`](Spec#structfield.stop_signal).
    pub fn stop_signal(mut self, signal: i32) -> Self {
        self.stop_signal = Some(signal);
        self
    }
    /// Sets [`stop_timeout`](Spec#structfield.stop_timeout).
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.stop_timeout = Some(timeout);
        self
    }
    /// Sets [`net`](Spec#structfield.net).
    pub fn net(mut self, net: Net) -> Self {
        self.net = net;
        self
    }
    /// Sets [`ports`](Spec#structfield.ports).
    pub fn ports<I: IntoIterator<Item = P>, P: Into<Port>>(mut self, ports: I) -> Self {
        self.ports = ports.into_iter().map(Into::into).collect();
        self
    }
    /// Adds one entry to [`ports`](Spec#structfield.ports): a [`Port`], a number, a pair of it and the host's, or
    /// `[[ADDRESS:]HOST_PORT:]PORT[/udp]` as text.
    pub fn port(mut self, port: impl Into<Port>) -> Self {
        self.ports.push(port.into());
        self
    }
    /// Sets [`capabilities`](Spec#structfield.capabilities).
    pub fn capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }
    /// Sets [`securebits`](Spec#structfield.securebits): bits of [`Securebits`].
    pub fn securebits(mut self, bits: u32) -> Self {
        self.securebits = Securebits(bits);
        self
    }
    /// Sets [`landlock`](Spec#structfield.landlock).
    pub fn landlock(mut self, rules: Landlock) -> Self {
        self.landlock = rules;
        self
    }
    /// Sets [`apparmor`](Spec#structfield.apparmor).
    pub fn apparmor(mut self, profile: impl Into<String>) -> Self {
        self.apparmor = Some(profile.into());
        self
    }
    /// Sets [`selinux`](Spec#structfield.selinux).
    pub fn selinux(mut self, label: impl Into<String>) -> Self {
        self.selinux = Some(label.into());
        self
    }
    /// Sets [`mount_label`](Spec#structfield.mount_label).
    pub fn mount_label(mut self, label: impl Into<String>) -> Self {
        self.mount_label = Some(label.into());
        self
    }
    /// Sets [`seccomp`](Spec#structfield.seccomp).
    pub fn seccomp(mut self, seccomp: impl Into<Seccomp>) -> Self {
        self.seccomp = seccomp.into();
        self
    }
    /// Sets [`no_new_privs`](Spec#structfield.no_new_privs).
    pub fn no_new_privs(mut self, no_new_privs: bool) -> Self {
        self.no_new_privs = no_new_privs;
        self
    }
    /// Sets [`masked_paths`](Spec#structfield.masked_paths).
    pub fn masked_paths<I: IntoIterator<Item = P>, P: Into<PathBuf>>(mut self, paths: I) -> Self {
        self.masked_paths = Some(paths.into_iter().map(Into::into).collect());
        self
    }
    /// Sets [`readonly_paths`](Spec#structfield.readonly_paths).
    pub fn readonly_paths<I: IntoIterator<Item = P>, P: Into<PathBuf>>(mut self, paths: I) -> Self {
        self.readonly_paths = Some(paths.into_iter().map(Into::into).collect());
        self
    }
    /// Sets [`time_offsets`](Spec#structfield.time_offsets).
    pub fn time_offsets(mut self, offsets: TimeOffsets) -> Self {
        self.time_offsets = offsets;
        self
    }
    /// Sets [`cgroup_parent`](Spec#structfield.cgroup_parent).
    pub fn cgroup_parent(mut self, path: impl Into<PathBuf>) -> Self {
        self.cgroup_parent = Some(path.into());
        self
    }
    /// Sets [`pass_fds`](Spec#structfield.pass_fds): pairs of number in the caller and number inside.
    pub fn pass_fds<I: IntoIterator<Item = (RawFd, RawFd)>>(mut self, fds: I) -> Self {
        self.pass_fds = fds.into_iter().collect();
        self
    }
    /// Adds one entry to [`pass_fds`](Spec#structfield.pass_fds).
    pub fn pass_fd(mut self, fd: RawFd, inside: RawFd) -> Self {
        self.pass_fds.insert(fd, inside);
        self
    }
    /// Sets [`annotations`](Spec#structfield.annotations): pairs of name and value.
    pub fn annotations<I, K, V>(mut self, annotations: I) -> Self
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        self.annotations = annotations.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }
    /// Adds one of [`annotations`](Spec#structfield.annotations).
    pub fn annotation(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(name.into(), value.into());
        self
    }
}
