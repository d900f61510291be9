//! What can never work: every check of a spec that needs no machine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::at::At;
use super::{
    BindSource, Capabilities, File, IdOrName, IdRange, Idmap, IoPriority, Landlock, Mount, MountIdmap, MountKind,
    NamespaceKind, NamespaceSource, Net, Resource, Rlimit, RootfsKind, Scheduler, Seccomp, Securebits, Spec, Stdio,
    Terminal, TimeOffsets, UserSpec, net, signal, sysctl,
};
use crate::command::Command;
use crate::error::{Error, Result};

/// The longest argument or variable: MAX_ARG_STRLEN of the kernel is 32 pages, with the NUL. Pages are 4 KiB on x86-64;
/// where they are larger, more fits, and execve has the last word.
const MAX_STRING: usize = 32 * 4096 - 1;
/// All arguments and variables together: three quarters of the 8 MiB that the kernel takes as the standard stack (4.13).
const MAX_STRINGS: usize = 6 << 20;
/// The longest host name: __NEW_UTS_LEN of the kernel.
const MAX_HOSTNAME: usize = 64;
/// The longest name of a host in the DNS.
const MAX_DNS_NAME: usize = 253;
/// PATH_MAX of the kernel, with the NUL.
const MAX_PATH: usize = 4095;
/// The most lines of an id map (user_namespaces(7), Linux 4.15).
const MAX_ID_RANGES: usize = 340;
/// The most layers of an overlay: OVL_MAX_STACK of the kernel.
const MAX_LAYERS: usize = 500;
/// The smallest size of a tmpfs or a log; to tmpfs 0 means unbounded.
const MIN_SIZE: u64 = 4096;
const MIN_MEMORY: u64 = 64 << 10;
/// PID_MAX_LIMIT of the kernel.
const MAX_PIDS: u64 = 4 << 20;
/// NR_UNIX98_PTY_MAX of the kernel.
const MAX_PTYS: u64 = 1 << 20;
/// Half of KTIME_SEC_MAX, beyond which the kernel refuses a clock (time_namespaces(7)).
/// What one relay serves.
const MAX_PORTS: usize = 128;
const MAX_OFFSET_SECONDS: i64 = i64::MAX / 1_000_000_000 / 2;
const MAX_TIMEOUT: Duration = Duration::from_secs(1_000_000_000);

/// Files of /proc that lxcfs and others replace; a mount on any other could redirect what is written to a process's attributes
/// (CVE-2019-16884, CVE-2025-52881).
const PROC_FILES: [&[u8]; 9] = [
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/net/dev",
];

/// What the container's /dev has anyway.
const DEV_ENTRIES: [&[u8]; 15] = [
    b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx", b"pts", b"shm", b"mqueue", b"fd", b"stdin",
    b"stdout", b"stderr", b"core",
];

/// Far more than anybody needs; each is a few instructions at every open of a device.
const MOST_DEVICE_RULES: usize = 256;

/// `8:0`
fn is_number_pair(text: &str) -> bool {
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u32>().is_ok();
    text.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
}

/// A name that the kernel reads up to the next space.
fn word(at: &At, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '=') {
        return Err(at.error("is not a name"));
    }
    Ok(())
}

impl Spec {
    /// Checks everything that needs no machine: types, ranges, syntax, contradictions. Every start does it first.
    ///
    /// # Errors
    /// The first impossible value: kind [`InvalidSpec`](crate::ErrorKind::InvalidSpec), with the field.
    pub fn validate(&self) -> Result<()> {
        Payload::of_spec(self).validate()?;
        if let Some(name) = &self.name {
            check_name(&At::Field("name"), name)?;
        }
        for (field, value) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if let Some(value) = value {
                host_name(&At::Field(field), value, MAX_HOSTNAME)?;
            }
        }
        self.validate_name_service()?;
        self.validate_rootfs()?;
        validate_mounts(&self.mounts)?;
        validate_files(&self.files, &self.mounts)?;
        self.validate_nodes()?;
        self.validate_limits()?;
        self.validate_namespaces()?;
        validate_idmap(&self.idmap)?;
        self.validate_lists()?;
        self.validate_sysctls()?;
        self.validate_contradictions()
    }

    fn validate_name_service(&self) -> Result<()> {
        let dns = At::Field("dns");
        for (i, address) in self.dns.iter().enumerate() {
            name_server(&dns.index(i), address)?;
        }
        if self.dns.len() > 3 {
            return Err(dns
                .error(format!("{} name servers; the C library takes 3 and ignores the others", self.dns.len()))
                .with_hint("give at most 3"));
        }
        if let Net::Attached(list) = &self.net {
            net::validate(list, name_of_host)?;
        }
        let hosts = At::Field("hosts");
        for (name, address) in &self.hosts {
            host_name(&hosts.key(name), name, MAX_DNS_NAME)?;
            if address.parse::<IpAddr>().is_err() {
                return Err(hosts.key(name).error(format!("{address:?} is not an IPv4 or IPv6 address")));
            }
        }
        Ok(())
    }

    fn validate_rootfs(&self) -> Result<()> {
        let at = At::Field("rootfs");
        if let Some(idmap) = &self.rootfs.idmap {
            let at = at.key("idmap");
            if matches!(self.rootfs.kind, RootfsKind::Host | RootfsKind::HostOwned) {
                let error = at.error("only a directory or layers have one");
                return Err(error.with_hint("\"host:owned\" is the host's tree with the container's map"));
            }
            own_idmap(&at, idmap)?;
        }
        match &self.rootfs.kind {
            RootfsKind::Host | RootfsKind::HostOwned => Ok(()),
            RootfsKind::Directory(path) => {
                absolute(&at, path)?;
                if normal(path.as_os_str().as_bytes()) == b"/" {
                    return Err(at
                        .error("\"/\" would be the host's own tree in place, writable")
                        .with_hint("\"host\" is a private view of it"));
                }
                Ok(())
            }
            RootfsKind::Layers { lower, upper } => {
                let lower_at = at.key("lower");
                if lower.is_empty() {
                    return Err(lower_at.error("has no layer; at least one is needed"));
                }
                if lower.len() > MAX_LAYERS {
                    return Err(lower_at.error(format!("{} layers; overlayfs takes {MAX_LAYERS}", lower.len())));
                }
                for (i, path) in lower.iter().enumerate() {
                    absolute(&lower_at.index(i), path)?;
                }
                match upper {
                    Some(path) => absolute(&at.key("upper"), path),
                    None => Ok(()),
                }
            }
        }
    }

    fn validate_ports(&self) -> Result<()> {
        let list = At::Field("ports");
        if self.ports.len() > MAX_PORTS {
            return Err(list.error(format!("{} of them: at most {MAX_PORTS}", self.ports.len())));
        }
        for (i, port) in self.ports.iter().enumerate() {
            port.check_parsed(&list.index(i))?;
            if let Some(other) = self.ports[..i].iter().position(|earlier| port.collides(earlier)) {
                let (address, protocol) = (port.address(), port.protocol.name());
                return Err(list
                    .index(i)
                    .error(format!("{address} ({protocol}) is the host's side of ports[{other}] already")));
            }
        }
        if !self.ports.is_empty()
            && (self.net == Net::Host || self.namespaces.get(&NamespaceKind::Net) == Some(&NamespaceSource::Host))
        {
            return Err(list
                .error("the container's network is the host's: its ports are the host's already")
                .with_hint("leave out ports, or give it a network of its own"));
        }
        Ok(())
    }

    /// `devices`: what is there already, and what would be covered.
    fn validate_nodes(&self) -> Result<()> {
        if self.devices.is_empty() {
            return Ok(());
        }
        let list = At::Field("devices");
        let mounted: Vec<_> = self.mounts.iter().map(|m| normal(m.target.as_os_str().as_bytes())).collect();
        let is_below = |path: &[u8], above: &[u8]| path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"));
        let mut earlier: Vec<Vec<u8>> = Vec::new();
        for (i, device) in self.devices.iter().enumerate() {
            let at = list.index(i);
            device.check_parsed(&at)?;
            absolute(&at.key("path"), &device.path)?;
            let target_at = at.key("target");
            let target = inside(&target_at, &device.target)?;
            let shown = &device.target;
            let Some(name) = target.strip_prefix(b"/dev/") else {
                return Err(target_at
                    .error(format!("{shown:?} is not below /dev"))
                    .with_hint("path:target puts a node at another path inside"));
            };
            let first = name.split(|&b| b == b'/').next().unwrap_or_default();
            if DEV_ENTRIES.contains(&first) {
                let entry = OsStr::from_bytes(first);
                return Err(target_at.error(format!("{shown:?}: the container has a {entry:?} of its own there")));
            }
            for (other, path) in earlier.iter().enumerate() {
                if target == *path {
                    return Err(target_at.error(format!("{shown:?} is the target of devices[{other}] already")));
                }
                if is_below(&target, path) || is_below(path, &target) {
                    return Err(
                        target_at.error(format!("{shown:?} and that of devices[{other}] are one below the other"))
                    );
                }
            }
            if let Some(other) = mounted.iter().position(|path| target == *path || is_below(&target, path)) {
                return Err(target_at.error(format!("{shown:?} would be covered by mounts[{other}]")));
            }
            if self.files.keys().any(|path| normal(path.as_os_str().as_bytes()) == target) {
                return Err(target_at.error(format!("{shown:?} is one of files")));
            }
            earlier.push(target);
        }
        Ok(())
    }

    fn validate_device_rules(&self) -> Result<()> {
        let list = At::Field("device_rules");
        let count = self.device_rules.len();
        if count > MOST_DEVICE_RULES {
            return Err(list.error(format!("{count} rules are more than {MOST_DEVICE_RULES}")));
        }
        self.device_rules.iter().enumerate().try_for_each(|(i, rule)| rule.check(&list.index(i)))
    }

    fn validate_devices(&self) -> Result<()> {
        let io_max = At::Field("io_max");
        for (device, limits) in &self.io_max {
            let at = io_max.key(device);
            if device.is_empty() || device.contains('\0') || !(device.starts_with('/') || is_number_pair(device)) {
                return Err(at.error("is neither an absolute path nor MAJOR:MINOR"));
            }
            limits.validate(&at)?;
        }
        let hugepages = At::Field("hugepages");
        for (size, &bytes) in &self.hugepages {
            let at = hugepages.key(size);
            let page = super::parse_size(size).map_err(|why| at.error(why))?;
            if !page.is_power_of_two() {
                return Err(at.error("is not the size of a page").with_hint("2M and 1G on x86-64"));
            }
            if bytes > i64::MAX as u64 {
                return Err(at.error(format!("{bytes} bytes are more than the kernel can count")));
            }
        }
        let rdma = At::Field("rdma");
        for (device, limits) in &self.rdma {
            word(&rdma.key(device), device)?;
            limits.validate(&rdma.key(device))?;
        }
        let misc = At::Field("misc");
        for (resource, &count) in &self.misc {
            word(&misc.key(resource), resource)?;
            if count > i64::MAX as u64 {
                return Err(misc.key(resource).error(format!("{count} is more than Linux can count")));
            }
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<()> {
        if let Some(bytes) = self.memory {
            let at = At::Field("memory");
            if bytes < MIN_MEMORY {
                return Err(at.error(format!(
                    "{bytes} bytes are less than 64K: the first stack and page tables of a program need more"
                )));
            }
            if bytes > i64::MAX as u64 {
                return Err(at
                    .error(format!("{bytes} bytes are more than the kernel can count"))
                    .with_hint("leave it out for no limit"));
            }
        }
        for (field, bytes) in
            [("memory_high", self.memory_high), ("memory_low", self.memory_low), ("memory_min", self.memory_min)]
        {
            let Some(bytes) = bytes else { continue };
            range(field, bytes, MIN_SIZE, i64::MAX as u64)?;
            if self.memory.is_some_and(|memory| bytes > memory) {
                return Err(At::Field(field).error(format!("{bytes} bytes are more than memory, the hard limit")));
            }
        }
        if let (Some(min), Some(low)) = (self.memory_min, self.memory_low)
            && min > low
        {
            return Err(
                At::Field("memory_min").error(format!("{min} bytes are more than memory_low, their outer bound"))
            );
        }
        if let Some(swap) = self.swap {
            range("swap", swap, 0, i64::MAX as u64)?;
        }
        for (field, time) in [("wall_time", self.wall_time), ("cpu_time", self.cpu_time)] {
            if let Some(time) = time {
                if time.is_zero() {
                    return Err(At::Field(field)
                        .error("0 leaves no time to run")
                        .with_hint("leave it out for no limit"));
                }
                range(field, time.as_secs_f64(), 0.0, MAX_TIMEOUT.as_secs_f64())?;
            }
        }
        for (field, weight) in [("cpu_weight", self.cpu_weight), ("io_weight", self.io_weight)] {
            if let Some(weight) = weight {
                range(field, weight, 1, 10_000)?;
            }
        }
        if self.cpu_idle && self.cpu_weight.is_some() {
            return Err(At::Field("cpu_idle").error("an idle group has no weight: leave out cpu_weight"));
        }
        if let Some(burst) = self.cpu_burst {
            let at = At::Field("cpu_burst");
            if self.cpus.is_none() {
                return Err(at.error("takes cpus: what is saved up is a part of that limit"));
            }
            if burst.as_micros() == 0 {
                return Err(at.error("is less than a microsecond").with_hint("leave it out for no burst"));
            }
        }
        self.validate_real_time()?;
        if let Some(cpuset) = &self.cpuset {
            cpuset.validate()?;
        }
        self.validate_ports()?;
        self.validate_devices()?;
        self.validate_device_rules()?;
        self.validate_disk()?;
        if let Some(cpus) = self.cpus {
            let at = At::Field("cpus");
            if !cpus.is_finite() {
                return Err(at.error(format!("{cpus} is not a number of cores")));
            }
            if cpus <= 0.0 {
                return Err(at.error(format!("{cpus} is not more than 0")).with_hint("leave it out for no limit"));
            }
            if cpus < 0.001 {
                return Err(
                    at.error(format!("{cpus} is less than 0.001: the kernel's smallest quota is 1 ms per second"))
                );
            }
            if cpus > 10_000.0 {
                return Err(at.error(format!("{cpus} is more than 10000 cores")));
            }
        }
        if let Some(pids) = self.pids {
            range("pids", pids, 1, MAX_PIDS)?;
        }
        if let Some(ptys) = self.ptys {
            // devpts takes 0 for no limit at all.
            range("ptys", ptys, 1, MAX_PTYS)?;
        }
        if let Some(size) = self.shm_size {
            range("shm_size", size, MIN_SIZE, i64::MAX as u64)?;
        }
        if let Some(size) = self.log_max {
            range("log_max", size, MIN_SIZE, 1 << 40)?;
        }
        if let Some(signal) = self.stop_signal {
            range("stop_signal", signal, 1, signal::MAX)?;
        }
        if let Some(timeout) = self.stop_timeout {
            range("stop_timeout", timeout.as_secs_f64(), 0.0, MAX_TIMEOUT.as_secs_f64())?;
        }
        let TimeOffsets { monotonic, boottime } = self.time_offsets;
        for (clock, offset) in [("monotonic", monotonic), ("boottime", boottime)] {
            if TimeOffsets::seconds_and_nanoseconds(offset).0.abs() > MAX_OFFSET_SECONDS {
                return Err(At::Field("time_offsets").key(clock).error(format!(
                    "{offset} ns are more than the {MAX_OFFSET_SECONDS} s either way that the kernel takes"
                )));
            }
        }
        Ok(())
    }

    fn validate_real_time(&self) -> Result<()> {
        let at = At::Field("cpu_rt_period");
        let period = match (self.cpu_rt_period, self.cpu_rt_runtime) {
            (Some(_), None) => return Err(at.error("takes cpu_rt_runtime: how much of each period")),
            (Some(period), _) if period.as_micros() > i32::MAX as u128 => {
                return Err(at.error("is more than 2147483647 microseconds, the kernel's longest"));
            }
            (Some(period), _) if period.as_micros() == 0 => return Err(at.error("is less than a microsecond")),
            (period, _) => period.unwrap_or(Self::CPU_RT_PERIOD),
        };
        let Some(runtime) = self.cpu_rt_runtime else { return Ok(()) };
        let at = At::Field("cpu_rt_runtime");
        if runtime.as_micros() == 0 {
            return Err(at.error("is less than a microsecond").with_hint("leave it out for no budget"));
        }
        if runtime > period {
            return Err(at.error(format!("{runtime:?} is more than cpu_rt_period, {period:?}")));
        }
        Ok(())
    }

    fn validate_sysctls(&self) -> Result<()> {
        let field = At::Field("sysctls");
        let mut paths = BTreeMap::new();
        for (name, value) in &self.sysctls {
            let at = field.key(name);
            let kind = sysctl::namespace(&at, name)?;
            sysctl::validate_value(&at, value)?;
            if let Some(other) = paths.insert(sysctl::path(name), name) {
                return Err(at.error(format!("is {other:?} in another form")));
            }
            let source = self.namespaces.get(&kind);
            let own = match kind {
                NamespaceKind::Net => self.net != Net::Host,
                NamespaceKind::User => self.idmap != Idmap::Host,
                _ => true,
            };
            if !own || source.is_some_and(|source| *source != NamespaceSource::New) {
                return Err(at
                    .error(format!("it would change a namespace ({}) that is not the container's own", kind.name()))
                    .with_hint("leave it out, or give the container a namespace of its own"));
            }
        }
        Ok(())
    }

    fn validate_namespaces(&self) -> Result<()> {
        for (kind, source) in &self.namespaces {
            let parent = At::Field("namespaces");
            let at = parent.key(kind.name());
            match source {
                NamespaceSource::New | NamespaceSource::Host => {}
                NamespaceSource::Path(path) => absolute(&at, path)?,
                NamespaceSource::Fd(fd) => descriptor(&at, *fd)?,
                NamespaceSource::Pid(pid) if *pid < 1 => return Err(at.error(format!("{pid} is not a process id"))),
                NamespaceSource::Pid(_) => {}
                NamespaceSource::Container(name) => check_name(&at.key("container"), name)?,
            }
        }
        Ok(())
    }

    fn validate_lists(&self) -> Result<()> {
        for (field, paths) in [("masked_paths", &self.masked_paths), ("readonly_paths", &self.readonly_paths)] {
            for (i, path) in paths.iter().flatten().enumerate() {
                inside(&At::Field(field).index(i), path)?;
            }
        }
        if let Some(path) = &self.cgroup_parent {
            inside(&At::Field("cgroup_parent"), path)?;
        }
        let at = At::Field("annotations");
        for (name, value) in &self.annotations {
            if name.is_empty() {
                return Err(at.key(name).error("a name is empty"));
            }
            no_nul(&at.key(name), name.as_ref())?;
            no_nul(&at.key(name), value.as_ref())?;
        }
        Ok(())
    }

    /// For callers that start a container and only wait for it, as [`run`](crate::run) does.
    ///
    /// # Errors
    /// InvalidSpec when a rule of `seccomp` has the action `notify`: nobody would answer. What is wrong with such a spec for
    /// everybody is said first.
    pub fn check_unanswered(&self) -> Result<()> {
        if !self.seccomp.notifies() {
            return Ok(());
        }
        self.validate()?;
        Err(Error::spec("seccomp", "asks the host about calls, and nobody could answer them while this waits")
            .with_hint("start a Container, and answer them with its syscall_listener"))
    }

    /// Fields that are each fine, but not together.
    fn validate_contradictions(&self) -> Result<()> {
        if self.detach && self.name.is_none() {
            return Err(Error::spec("detach", "a detached container needs a name, by which it is found again")
                .with_hint("set name"));
        }
        if self.detach {
            net::detached(self.net.attachments())?;
        }
        if self.detach && self.seccomp.notifies() {
            return Err(Error::spec(
                "detach",
                "calls with the action \"notify\" are answered by this program, which it outlives",
            )
            .with_hint("leave out detach, or give those calls another action"));
        }
        if !self.init && self.argv.is_empty() {
            return Err(
                Error::spec("init", "without init the payload is pid 1, and there is no argv").with_hint("set argv")
            );
        }
        let source = |kind| self.namespaces.get(&kind);
        let field = |kind: NamespaceKind| At::Field("namespaces").key(kind.name()).to_string();
        match (source(NamespaceKind::Net), &self.net) {
            (None, _) | (_, Net::Loopback) => {}
            (Some(NamespaceSource::New), Net::None | Net::Attached(_)) | (Some(NamespaceSource::Host), Net::Host) => {}
            (Some(_), _) => {
                return Err(Error::spec("net", "contradicts namespaces.net").with_hint("set only one of the two"));
            }
        }
        match (source(NamespaceKind::User), &self.idmap) {
            (None, _) | (Some(NamespaceSource::Host), Idmap::Host) => {}
            (Some(NamespaceSource::Host), _) => {
                return Err(Error::spec(field(NamespaceKind::User), "idmap decides the user namespace")
                    .with_hint("set idmap to \"host\" to have none"));
            }
            (Some(NamespaceSource::New), Idmap::Host) => {
                return Err(Error::spec("idmap", "contradicts namespaces.user").with_hint("set only one of the two"));
            }
            (Some(NamespaceSource::New), _) | (Some(_), Idmap::Auto) => {}
            (Some(_), _) => {
                return Err(Error::spec(
                    "idmap",
                    "a user namespace that is joined has its map already (namespaces.user)",
                )
                .with_hint("leave idmap out"));
            }
        }
        let foreign =
            |kind| matches!(source(kind), Some(source) if !matches!(source, NamespaceSource::New)).then(|| field(kind));
        let defaults = Spec::default();
        for (kind, what, fields) in [
            (
                NamespaceKind::Uts,
                "it would rename a UTS namespace that is not the container's own",
                &[("hostname", self.hostname.is_some()), ("domainname", self.domainname.is_some())][..],
            ),
            (
                NamespaceKind::Time,
                "offsets can be set in a new time namespace only",
                &[("time_offsets", self.time_offsets != defaults.time_offsets)],
            ),
            (
                NamespaceKind::Mnt,
                "it would change a mount namespace that is not the container's own",
                &[
                    ("rootfs", self.rootfs != defaults.rootfs),
                    ("mounts", !self.mounts.is_empty()),
                    ("files", !self.files.is_empty()),
                    ("devices", !self.devices.is_empty()),
                    ("shm_size", self.shm_size.is_some()),
                    ("disk", self.disk.is_some()),
                    ("inodes", self.inodes.is_some()),
                    ("quota", !self.quota.is_empty()),
                    ("ptys", self.ptys.is_some()),
                    ("dns", !self.dns.is_empty()),
                    ("hosts", !self.hosts.is_empty()),
                    ("masked_paths", self.masked_paths.is_some()),
                    ("readonly_paths", self.readonly_paths.is_some()),
                ],
            ),
        ] {
            if let (Some(namespace), Some((field, _))) = (foreign(kind), fields.iter().find(|(_, set)| *set)) {
                return Err(Error::spec(*field, what).with_hint(format!("leave out {field} or {namespace}")));
            }
        }
        self.validate_nesting()?;
        let own =
            self.idmap != Idmap::Host && !matches!(source(NamespaceKind::User), Some(s) if *s != NamespaceSource::New);
        let formats = self.mounts.iter().position(|mount| matches!(mount.kind, MountKind::BinfmtMisc { .. }));
        if let Some(i) = formats.filter(|_| !own) {
            return Err(Error::spec(
                format!("mounts[{i}].type"),
                "without a user namespace of its own, a container's binfmt_misc is that of others",
            )
            .with_hint("leave idmap and namespaces.user at their defaults"));
        }
        self.validate_disk_contradictions()?;
        self.validate_passed_limits()
    }

    /// Inside, the kernel makes new instances of /proc and /sys only where whole ones are seen, and of namespaces that are the
    /// container's own.
    fn validate_nesting(&self) -> Result<()> {
        if !self.nesting {
            return Ok(());
        }
        let refuse = |why: String, field: &str| {
            Err(Error::spec("nesting", why).with_hint(format!("leave out nesting or {field}")))
        };
        if self.seccomp.is_strict() {
            return refuse("the seccomp profile \"strict\" lets nobody make namespaces".into(), "seccomp");
        }
        if self.idmap == Idmap::Host {
            return refuse(
                "needs a user namespace: without one root inside would have a writable /proc of the machine".into(),
                "idmap",
            );
        }
        if self.cpu_rt_runtime.is_some() {
            return refuse(
                "divides the groups of the cpu controller, and a budget of real-time is not divided".into(),
                "cpu_rt_runtime",
            );
        }
        if self.net == Net::Host {
            return refuse("needs a network namespace of its own, to which its /sys belongs".into(), "net");
        }
        let kinds =
            [NamespaceKind::User, NamespaceKind::Mnt, NamespaceKind::Pid, NamespaceKind::Net, NamespaceKind::Cgroup];
        for kind in kinds {
            if self.namespaces.get(&kind).is_some_and(|source| *source != NamespaceSource::New) {
                let name = kind.name();
                return refuse(format!("needs a new {name} namespace"), &format!("namespaces.{name}"));
            }
        }
        for (field, paths) in [("masked_paths", &self.masked_paths), ("readonly_paths", &self.readonly_paths)] {
            let covers = |path: &&PathBuf| ["/proc", "/sys"].iter().any(|whole| path.starts_with(whole));
            if let Some(path) = paths.iter().flatten().find(covers) {
                return refuse(format!("needs a whole /proc and /sys, and {field} has {}", path.display()), field);
            }
        }
        Ok(())
    }
}

impl Command {
    /// The checks of [`Spec::validate`] for what a command has; every start of a process does them first.
    ///
    /// # Errors
    /// The first impossible value, with the field.
    pub fn validate(&self) -> Result<()> {
        if self.argv.is_empty() {
            return Err(Error::spec("argv", "is empty; a program is needed"));
        }
        if let Some(tid) = self.set_tid {
            // 1 is init's; the kernel has the last word on what is below its pid_max.
            range("set_tid", tid, 2, MAX_PIDS as i32 - 1)?;
        }
        Payload::of_command(self).validate()
    }
}

/// What a spec and a command have in common.
struct Payload<'a> {
    argv: &'a [OsString],
    env: &'a BTreeMap<OsString, Option<OsString>>,
    env_inherit: &'a [OsString],
    cwd: Option<&'a Path>,
    user: Option<&'a str>,
    groups: &'a [String],
    umask: Option<u32>,
    terminal: Option<Terminal>,
    streams: [(&'static str, Option<&'a Stdio>); 3],
    rlimits: &'a BTreeMap<Resource, Rlimit>,
    nice: Option<i32>,
    scheduler: Option<Scheduler>,
    io_priority: Option<IoPriority>,
    oom_score_adj: Option<i32>,
    capabilities: Option<&'a Capabilities>,
    securebits: Option<Securebits>,
    landlock: Option<&'a Landlock>,
    labels: [(&'static str, Option<&'a str>); 2],
    seccomp: Option<&'a Seccomp>,
    pass_fds: &'a BTreeMap<RawFd, RawFd>,
    start_timeout: Option<Duration>,
}

macro_rules! payload {
    ($from:expr, $capabilities:expr, $securebits:expr, $landlock:expr, $seccomp:expr) => {
        Payload {
            argv: &$from.argv,
            env: &$from.env,
            env_inherit: &$from.env_inherit,
            cwd: $from.cwd.as_deref(),
            user: $from.user.as_deref(),
            groups: &$from.groups,
            umask: $from.umask,
            terminal: $from.terminal,
            streams: [
                ("stdin", $from.stdin.as_ref()),
                ("stdout", $from.stdout.as_ref()),
                ("stderr", $from.stderr.as_ref()),
            ],
            rlimits: &$from.rlimits,
            nice: $from.nice,
            scheduler: $from.scheduler,
            io_priority: $from.io_priority,
            oom_score_adj: $from.oom_score_adj,
            capabilities: $capabilities,
            securebits: $securebits,
            landlock: $landlock,
            labels: [("apparmor", $from.apparmor.as_deref()), ("selinux", $from.selinux.as_deref())],
            seccomp: $seccomp,
            pass_fds: &$from.pass_fds,
            start_timeout: $from.start_timeout,
        }
    };
}

impl<'a> Payload<'a> {
    fn of_spec(spec: &'a Spec) -> Self {
        let (capabilities, securebits) = (Some(&spec.capabilities), Some(spec.securebits));
        payload!(spec, capabilities, securebits, Some(&spec.landlock), Some(&spec.seccomp))
    }

    fn of_command(command: &'a Command) -> Self {
        let (capabilities, landlock) = (command.capabilities.as_ref(), command.landlock.as_ref());
        payload!(command, capabilities, command.securebits, landlock, command.seccomp.as_ref())
    }

    fn validate(&self) -> Result<()> {
        self.validate_argv()?;
        self.validate_env()?;
        if let Some(path) = self.cwd {
            absolute(&At::Field("cwd"), path)?;
        }
        self.validate_ids()?;
        self.validate_streams()?;
        if let Some(umask) = self.umask
            && umask > 0o777
        {
            return Err(Error::spec("umask", format!("0o{umask:o} is more than 0o777")));
        }
        for (resource, limit) in self.rlimits {
            if limit.soft > limit.hard {
                let at = At::Field("rlimits");
                return Err(at
                    .key(resource.name())
                    .error(format!("the soft limit {} is above the hard limit {}", limit.soft, limit.hard)));
            }
        }
        if let Some(nice) = self.nice {
            range("nice", nice, -20, 19)?;
        }
        if let Some(scheduler) = &self.scheduler {
            scheduler.validate()?;
        }
        if let Some(priority) = self.io_priority {
            priority.validate()?;
        }
        if let Some(adjustment) = self.oom_score_adj {
            range("oom_score_adj", adjustment, -1000, 1000)?;
        }
        if let Some(timeout) = self.start_timeout {
            if timeout.is_zero() {
                return Err(Error::spec("start_timeout", "0 leaves no time to start"));
            }
            range("start_timeout", timeout.as_secs_f64(), 0.0, MAX_TIMEOUT.as_secs_f64())?;
        }
        if let Some(capabilities) = self.capabilities {
            capabilities.validate()?;
        }
        if let Some(securebits) = self.securebits {
            securebits.validate()?;
        }
        if let Some(rules) = self.landlock {
            rules.validate()?;
        }
        if let Some(seccomp) = self.seccomp {
            seccomp.validate()?;
        }
        self.labels
            .into_iter()
            .try_for_each(|(field, label)| label.map_or(Ok(()), |label| security_label(field, label)))
    }

    fn validate_argv(&self) -> Result<()> {
        let at = At::Field("argv");
        if self.argv.first().is_some_and(|program| program.is_empty()) {
            return Err(at.index(0).error("is empty; it names the program"));
        }
        for (i, argument) in self.argv.iter().enumerate() {
            no_nul(&at.index(i), argument)?;
            string(&at.index(i), argument.len())?;
        }
        let total: usize = self.argv.iter().map(|argument| argument.len() + 1 + size_of::<usize>()).sum();
        if total > MAX_STRINGS {
            return Err(at.error(format!("{total} bytes with their pointers; the kernel takes {MAX_STRINGS} in all")));
        }
        Ok(())
    }

    fn validate_env(&self) -> Result<()> {
        let at = At::Field("env");
        for (name, value) in self.env {
            let shown = name.to_string_lossy();
            let at = at.key(&shown);
            variable_name(&at, name)?;
            let value = value.as_deref().unwrap_or_default();
            no_nul(&at, value)?;
            string(&at, name.len() + 1 + value.len())?;
        }
        let at = At::Field("env_inherit");
        for (i, name) in self.env_inherit.iter().enumerate() {
            variable_name(&at.index(i), name)?;
        }
        Ok(())
    }

    fn validate_ids(&self) -> Result<()> {
        if let Some(user) = self.user {
            UserSpec::parse(user).map_err(|why| Error::spec("user", why))?;
        }
        let at = At::Field("groups");
        for (i, group) in self.groups.iter().enumerate() {
            IdOrName::parse(group).map_err(|why| at.index(i).error(why))?;
        }
        // NGROUPS_MAX of the kernel.
        if self.groups.len() > 65_536 {
            return Err(at.error(format!("{} groups; a process can have 65536", self.groups.len())));
        }
        Ok(())
    }

    fn validate_streams(&self) -> Result<()> {
        for (field, stream) in &self.streams {
            let Some(stream) = stream else { continue };
            let at = At::Field(field);
            match stream {
                _ if self.terminal.is_some() => {
                    return Err(at
                        .error("with a terminal, the terminal is stdin, stdout and stderr")
                        .with_hint(format!("leave out {field} or terminal")));
                }
                Stdio::Log if *field == "stdin" => return Err(at.error("a log is for output")),
                Stdio::Stdout if *field != "stderr" => return Err(at.error("\"stdout\" is for stderr only")),
                Stdio::File(path) => absolute(&at, path)?,
                Stdio::Fd(fd) => descriptor(&at, *fd)?,
                Stdio::Null | Stdio::Inherit | Stdio::Pipe | Stdio::Log | Stdio::Stdout => {}
            }
        }
        if let Some(Terminal { rows, cols }) = self.terminal {
            for (side, length) in [("rows", rows), ("cols", cols)] {
                if length == 0 {
                    return Err(At::Field("terminal").key(side).error("is 0; a terminal has at least 1"));
                }
            }
        }
        let at = At::Field("pass_fds");
        let mut taken = BTreeMap::new();
        for (&fd, &number) in self.pass_fds {
            let key = fd.to_string();
            let at = at.key(&key);
            descriptor(&at, fd)?;
            if number < 3 {
                return Err(
                    at.error(format!("{number} inside: 0, 1 and 2 are stdin, stdout and stderr, set by their fields"))
                );
            }
            // NR_OPEN's default in the kernel; a higher RLIMIT_NOFILE needs fs.nr_open to be raised first.
            if number >= 1 << 20 {
                return Err(at.error(format!("{number} inside is above 1048575, the highest number of a descriptor")));
            }
            if let Some(other) = taken.insert(number, fd) {
                return Err(at.error(format!("{number} inside is taken by {other} already")));
            }
        }
        Ok(())
    }
}

/// The kernel takes a page at most, in one write, with a word before it.
const MAX_LABEL: usize = 4000;

/// The name of a profile or a label: what the kernel is told in one line.
fn security_label(field: &str, label: &str) -> Result<()> {
    let at = At::Field(field);
    if label.is_empty() {
        return Err(at.error("is empty"));
    }
    if label.len() > MAX_LABEL {
        return Err(at.error(format!("has {} bytes; at most {MAX_LABEL}", label.len())));
    }
    if label.bytes().any(|b| b.is_ascii_control()) || label.trim() != label {
        return Err(at.error(format!("{label:?} has a control character in it, or a space at its end")));
    }
    Ok(())
}

fn validate_mounts(mounts: &[Mount]) -> Result<()> {
    let list = At::Field("mounts");
    let mut earlier: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = list.index(i);
        if mount.target.as_os_str().is_empty() {
            return Err(match &mount.kind {
                MountKind::Bind { source: BindSource::Path(text), .. } => match Mount::parse(text.as_os_str()) {
                    Err(why) => at.error(format!("{text:?} is not source[:target][:rw]: {why}")),
                    Ok(_) => at.key("target").error("is empty"),
                },
                _ => at.key("target").error("is empty"),
            });
        }
        match &mount.kind {
            MountKind::Bind { source: BindSource::Path(path), .. } => absolute(&at.key("source"), path)?,
            MountKind::Bind { source: BindSource::Fd(fd), .. } => descriptor(&at.key("fd"), *fd)?,
            MountKind::Tmpfs { size, mode } => {
                if let Some(size) = size
                    && *size < MIN_SIZE
                {
                    return Err(at.key("size").error(format!("{size} bytes are less than {MIN_SIZE}")));
                }
                if let Some(mode) = mode {
                    file_mode(&at.key("mode"), *mode)?;
                }
            }
            MountKind::Volume { name } => {
                if let Some(name) = name {
                    crate::volume::check_name(name)
                        .map_err(|why| at.key("source").error(format!("{name:?}: {why}")))?;
                }
            }
            MountKind::Proc | MountKind::Sysfs | MountKind::Mqueue | MountKind::Devpts | MountKind::Cgroup => {}
            MountKind::BinfmtMisc { register } => {
                for (i, line) in register.iter().enumerate() {
                    binary_format(&at.key("register").index(i), line.as_bytes())?;
                }
            }
        }
        if mount.owner.is_some() && !matches!(mount.kind, MountKind::Bind { .. } | MountKind::Volume { .. }) {
            return Err(at.key("owner").error("only a bind or a volume has one"));
        }
        mount_idmap(&at, mount)?;
        let target_at = at.key("target");
        let target = inside(&target_at, &mount.target)?;
        if target == b"/" {
            return Err(target_at.error("\"/\" is what rootfs says"));
        }
        let in_proc = target == b"/proc" || target.starts_with(b"/proc/");
        let fits = match mount.kind {
            MountKind::Proc => target == b"/proc",
            MountKind::BinfmtMisc { .. } => target == Mount::BINFMT_MISC.as_bytes(),
            _ => PROC_FILES.contains(&&target[..]),
        };
        if in_proc && !fits {
            return Err(target_at.error(format!(
                "{:?}: a mount in /proc could redirect what is written to attributes of processes",
                mount.target
            )));
        }
        if let Some(other) = earlier.get(&target) {
            return Err(target_at.error(format!("{:?} is the target of mounts[{other}] already", mount.target)));
        }
        let mut below = target.clone();
        below.push(b'/');
        if let Some((path, other)) = earlier.range(below.clone()..).next()
            && path.starts_with(&below)
        {
            return Err(target_at
                .error(format!("{:?} would cover mounts[{other}] at {:?}", mount.target, OsStr::from_bytes(path)))
                .with_hint("put the one above first"));
        }
        earlier.insert(target, i);
    }
    Ok(())
}

/// `:name:type:offset:magic:mask:interpreter:flags`, with any character in the place of the colon: as far as it can be told
/// without the kernel.
fn binary_format(at: &At, line: &[u8]) -> Result<()> {
    // MAX_REGISTER_LENGTH of the kernel.
    const LONGEST: usize = 1920;
    no_nul(at, OsStr::from_bytes(line))?;
    let wrong = |why: &str| Err(at.error(format!("{:?}: {why}", OsStr::from_bytes(line))));
    if line.len() > LONGEST {
        return wrong("the kernel takes 1920 bytes");
    }
    let Some((&delimiter, rest)) = line.split_first() else { return wrong("is empty") };
    let fields: Vec<&[u8]> = rest.split(|&b| b == delimiter).collect();
    let [name, kind, _, _, _, interpreter, _] = fields[..] else {
        return wrong("a line is :name:type:offset:magic:mask:interpreter:flags");
    };
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name == b"register"
        || name == b"status"
        || name.contains(&b'/')
    {
        return wrong("the first field is no name that can be registered");
    }
    if kind != b"M" && kind != b"E" {
        return wrong("the type is M (magic) or E (extension)");
    }
    if !interpreter.starts_with(b"/") {
        return wrong("the interpreter is no absolute path");
    }
    Ok(())
}

fn validate_files(files: &BTreeMap<PathBuf, File>, mounts: &[Mount]) -> Result<()> {
    let map = At::Field("files");
    let targets: BTreeSet<Vec<u8>> = if files.is_empty() {
        BTreeSet::new()
    } else {
        mounts.iter().map(|mount| normal(mount.target.as_os_str().as_bytes())).collect()
    };
    let mut earlier = BTreeSet::new();
    for (path, file) in files {
        let shown = path.to_string_lossy();
        let at = map.key(&shown);
        let target = inside(&at, path)?;
        file_mode(&at.key("mode"), file.mode)?;
        let bytes = path.as_os_str().as_bytes();
        if target == b"/" || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            return Err(at.error("names a directory; a file is made here"));
        }
        if [&b"/proc/"[..], b"/sys/"].iter().any(|tree| target.starts_with(tree)) {
            return Err(at.error("no file can be made in /proc or /sys"));
        }
        if targets.contains(&target) {
            return Err(at.error("is also the target of a mount"));
        }
        earlier.insert(target);
    }
    for file in &earlier {
        let mut below = file.clone();
        below.push(b'/');
        if let Some(other) = earlier.range(below.clone()..).next()
            && other.starts_with(&below)
        {
            let shown = String::from_utf8_lossy(file);
            return Err(map.key(&shown).error(format!("is a file, and {:?} is below it", OsStr::from_bytes(other))));
        }
    }
    Ok(())
}

fn validate_idmap(idmap: &Idmap) -> Result<()> {
    let Idmap::Explicit { uid, gid } = idmap else { return Ok(()) };
    validate_sides(&At::Field("idmap"), uid, gid)
}

fn validate_sides(at: &At, uid: &[IdRange], gid: &[IdRange]) -> Result<()> {
    validate_ranges(&at.key("uid"), uid)?;
    validate_ranges(&at.key("gid"), gid)
}

fn mount_idmap(at: &At, mount: &Mount) -> Result<()> {
    let recursive = matches!(mount.kind, MountKind::Bind { recursive: true, .. });
    if !mount.idmap_recursive && !recursive {
        return Err(at.key("idmap_recursive").error("only a recursive bind has what is mounted below it"));
    }
    let Some(idmap) = &mount.idmap else { return Ok(()) };
    let at = at.key("idmap");
    if !matches!(mount.kind, MountKind::Bind { .. } | MountKind::Volume { .. }) {
        return Err(at.error("only a bind or a volume has one"));
    }
    if mount.owner.is_some() {
        return Err(at.error("excludes owner, which is a map already"));
    }
    own_idmap(&at, idmap)
}

fn own_idmap(at: &At, idmap: &MountIdmap) -> Result<()> {
    match idmap {
        MountIdmap::Explicit { uid, gid } => validate_sides(at, uid, gid),
        MountIdmap::Container | MountIdmap::Host => Ok(()),
    }
}

fn validate_ranges(at: &At, ranges: &[IdRange]) -> Result<()> {
    if ranges.is_empty() {
        return Err(at.error("has no range; at least one is needed"));
    }
    if ranges.len() > MAX_ID_RANGES {
        return Err(at.error(format!("{} ranges; the kernel takes {MAX_ID_RANGES}", ranges.len())));
    }
    for (i, range) in ranges.iter().enumerate() {
        let IdRange { inside, outside, count } = *range;
        if count == 0 {
            return Err(at.index(i).error("its count is 0"));
        }
        for (side, first) in [("inside", inside), ("outside", outside)] {
            if u64::from(first) + u64::from(count) > u64::from(u32::MAX) {
                return Err(at
                    .index(i)
                    .error(format!("{count} ids from {first} {side} go past {}", super::user::MAX_ID)));
            }
        }
    }
    for (side, first) in [("inside", (|range| range.inside) as fn(&IdRange) -> u32), ("outside", |range| range.outside)]
    {
        let mut sorted: Vec<usize> = (0..ranges.len()).collect();
        sorted.sort_by_key(|&i| first(&ranges[i]));
        for pair in sorted.windows(2) {
            let (a, b) = (&ranges[pair[0]], &ranges[pair[1]]);
            if first(a) + a.count > first(b) {
                let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
                return Err(at.index(high).error(format!("overlaps [{low}] {side}, from id {}", first(b))));
            }
        }
    }
    Ok(())
}

/// The strict syntax of names, which also become names of files and control groups.
fn check_name(at: &At, name: &str) -> Result<()> {
    super::name_syntax(name).map_err(|why| at.error(why))
}

/// A name by which a container is found.
pub(super) fn name_of_host(at: &At, name: &str) -> Result<()> {
    host_name(at, name, MAX_DNS_NAME)
}

/// RFC 1123, section 2.1, with the caller's bound.
fn host_name(at: &At, name: &str, max: usize) -> Result<()> {
    if name.is_empty() {
        return Err(at.error("is empty"));
    }
    no_nul(at, name.as_ref())?;
    if name.len() > max {
        return Err(at.error(format!("{} bytes are more than {max}", name.len())));
    }
    for label in name.split('.') {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if label.is_empty() || label.len() > 63 {
            return Err(at.error(format!("{name:?} has a label of {} bytes; 1 to 63 are possible", label.len())));
        }
        if !label.bytes().all(inner) || label.starts_with('-') || label.ends_with('-') {
            return Err(at.error(format!(
                "{name:?} is not a host name: labels are letters, digits and inner hyphens (RFC 1123)"
            )));
        }
    }
    Ok(())
}

/// An address as resolv.conf(5) takes it: with the scope of a link-local one behind `%`.
fn name_server(at: &At, text: &str) -> Result<()> {
    let good = match text.split_once('%') {
        Some((address, scope)) => {
            address.parse::<Ipv6Addr>().is_ok()
                && !scope.is_empty()
                && scope.bytes().all(|b| b.is_ascii_graphic() && b != b'%' && b != b'/')
        }
        None => text.parse::<IpAddr>().is_ok(),
    };
    if good { Ok(()) } else { Err(at.error(format!("{text:?} is not an IPv4 or IPv6 address"))) }
}

fn range<T: PartialOrd + std::fmt::Display>(field: &str, value: T, min: T, max: T) -> Result<()> {
    if value < min || value > max {
        return Err(Error::spec(field, format!("{value} is not in {min} to {max}")));
    }
    Ok(())
}

fn descriptor(at: &At, fd: RawFd) -> Result<()> {
    if fd < 0 {
        return Err(at.error(format!("{fd} is not a file descriptor")));
    }
    Ok(())
}

fn file_mode(at: &At, mode: u32) -> Result<()> {
    if mode > 0o7777 {
        return Err(at.error(format!("0o{mode:o} is more than 0o7777")));
    }
    Ok(())
}

fn no_nul(at: &At, value: &OsStr) -> Result<()> {
    match value.as_bytes().iter().position(|&b| b == 0) {
        Some(position) => Err(at.error(format!("has a NUL byte at {position}"))),
        None => Ok(()),
    }
}

fn string(at: &At, length: usize) -> Result<()> {
    if length > MAX_STRING && cfg!(target_arch = "x86_64") {
        return Err(at
            .error(format!("{length} bytes; the kernel takes {MAX_STRING} in one string (MAX_ARG_STRLEN)"))
            .with_hint("pass it in a file or on stdin"));
    }
    Ok(())
}

fn variable_name(at: &At, name: &OsStr) -> Result<()> {
    if name.is_empty() {
        return Err(at.error("a name is empty"));
    }
    if name.as_bytes().contains(&b'=') {
        return Err(at.error("a name cannot have a \"=\""));
    }
    no_nul(at, name)
}

pub(super) fn absolute(at: &At, path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(at.error("is an empty path"));
    }
    no_nul(at, path.as_os_str())?;
    if bytes[0] != b'/' {
        return Err(at
            .error(format!("{path:?} is not an absolute path"))
            .with_hint("any thread can change the working directory; give a path from /"));
    }
    if bytes.len() > MAX_PATH {
        return Err(at.error(format!("a path of {} bytes; the kernel takes {MAX_PATH}", bytes.len())));
    }
    Ok(())
}

/// A path inside the container (or below a control group): absolute, and `..` nowhere. Returns its normal form.
fn inside(at: &At, path: &Path) -> Result<Vec<u8>> {
    absolute(at, path)?;
    let bytes = path.as_os_str().as_bytes();
    if bytes.split(|&b| b == b'/').any(|part| part == b"..") {
        return Err(at.error(format!("{path:?} has \"..\" in it")));
    }
    Ok(normal(bytes))
}

/// Without `.` and double or trailing slashes.
pub(super) fn normal(path: &[u8]) -> Vec<u8> {
    let mut normal = Vec::with_capacity(path.len());
    for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        normal.push(b'/');
        normal.extend_from_slice(part);
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::{Device, Policy};
    use super::*;
    use crate::error::ErrorKind;

    fn error(spec: Spec) -> Error {
        match spec.validate() {
            Err(error) => error,
            Ok(()) => panic!("accepted: {spec:?}"),
        }
    }

    /// The field and the sentence of the error.
    fn refused(spec: Spec, field: &str, words: &str) {
        let error = error(spec);
        assert_eq!(error.kind(), ErrorKind::InvalidSpec);
        assert_eq!(error.errno(), libc::EINVAL);
        assert_eq!(error.field(), Some(field), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }

    fn spec() -> Spec {
        Spec::new()
    }

    #[test]
    fn a_spec_that_uses_everything_is_fine() {
        let all = spec()
            .name("db-1.test_2")
            .argv(["sh", "-c", "", "exit"])
            .env("A", "=b=")
            .env_remove("HOME")
            .env_inherit(["*", "LC_ALL"])
            .cwd("/a/../b")
            .user("www-data:0")
            .groups(["adm", "4"])
            .umask(0o777)
            .hostname("a-b.c3")
            .domainname("x")
            .dns(["127.0.0.1", "::1", "fe80::1%eth0"])
            .host("db", "10.0.0.1")
            .rootfs("/srv/image")
            .mounts(["/srv/data:/data:rw", "/srv/more:/data/more", "/etc/hosts"])
            .mount(Mount::tmpfs("/scratch"))
            .mount(Mount { kind: MountKind::Proc, ..Mount::tmpfs("/proc") })
            .mount("/var/lib/lxcfs/meminfo:/proc/meminfo")
            .file("/etc/app.conf", "x")
            .shm_size(4096)
            .stdout(Stdio::Log)
            .stderr(Stdio::Stdout)
            .stdin(Stdio::Fd(7))
            .detach(true)
            .namespace(NamespaceKind::Net, NamespaceSource::Path("/run/netns/blue".into()))
            .idmap(Idmap::Explicit {
                uid: vec![
                    IdRange { inside: 0, outside: 1000, count: 1 },
                    IdRange { inside: 1, outside: 100_000, count: 65_535 },
                ],
                gid: vec![IdRange { inside: 0, outside: 0, count: u32::MAX }],
            })
            .memory(64 << 10)
            .cpus(0.001)
            .pids(1)
            .rlimit(Resource::Nofile, 1024)
            .rlimit(Resource::Core, Rlimit { soft: 0, hard: Rlimit::UNLIMITED })
            .nice(-20)
            .scheduler(Policy::RoundRobin { priority: 99 })
            .io_priority(IoPriority::BestEffort(7))
            .cpu_rt_runtime(Duration::from_secs(1))
            .ptys(1 << 20)
            .sysctl("kernel.shmmax", "1")
            .sysctl("user/max_user_namespaces", "0")
            .oom_score_adj(-1000)
            .start_timeout(Duration::from_millis(1))
            .stop_signal(64)
            .stop_timeout(Duration::ZERO)
            .time_offsets(TimeOffsets { monotonic: i64::MAX / 2, boottime: -1 })
            .masked_paths(["/proc/kcore"])
            .readonly_paths(Vec::<PathBuf>::new())
            .cgroup_parent("/a/b")
            .pass_fds([(3, 3), (9, 4)])
            .annotation("owner", "");
        all.validate().unwrap();
        spec().validate().unwrap();
    }

    #[test]
    fn names() {
        for name in ["", "-a", ".a", "_a", "a/b", "../x", "a b", "a\0", "é", &"a".repeat(65)] {
            refused(spec().name(name), "name", "is not a name");
        }
        for name in ["", "a_b", "-a", "a-", "a..b", ".a", "a.", "a b", "ü", &"a".repeat(64), "a\0b"] {
            assert_eq!(error(spec().hostname(name)).field(), Some("hostname"), "{name:?}");
        }
        refused(spec().hostname(format!("{}.{}", "a".repeat(40), "b".repeat(24))), "hostname", "65 bytes");
        refused(spec().host("a_b", "1.2.3.4"), "hosts.a_b", "host name");
        refused(spec().host("db", "1.2.3"), "hosts.db", "address");
        refused(spec().dns(["1.1.1.1", "x"]), "dns[1]", "address");
        refused(spec().dns(["127.0.0.1%lo"]), "dns[0]", "address");
        refused(spec().dns(["1.1.1.1"; 4]), "dns", "ignores");
    }

    #[test]
    fn arguments_and_variables() {
        refused(spec().argv([""]), "argv[0]", "is empty");
        refused(spec().argv(["a", "b\0c"]), "argv[1]", "NUL byte at 1");
        refused(spec().argv(["a".to_owned(), "x".repeat(1 << 20)]), "argv[1]", "1048576 bytes");
        refused(spec().argv(vec!["x".repeat(100_000); 63]), "argv", "in all");
        spec().argv(vec!["x".repeat(100_000); 11]).validate().unwrap();
        refused(spec().env("", "x"), "env[\"\"]", "empty");
        refused(spec().env("A=B", "x"), "env[\"A=B\"]", "\"=\"");
        refused(spec().env_remove("A\0"), "env[\"A\\0\"]", "NUL");
        refused(spec().env("A", "\0"), "env.A", "NUL");
        refused(spec().env("A", "x".repeat(131_072)), "env.A", "MAX_ARG_STRLEN");
        refused(spec().env_inherit(["A", "B=C"]), "env_inherit[1]", "\"=\"");
        let raw = OsString::from_vec(vec![b'=', 0xff]);
        assert!(error(spec().env(raw, "x")).field().unwrap().starts_with("env["));
    }

    #[test]
    fn users() {
        for user in ["", "1:", "+1", "0x1", "1\0", "4294967295", "a:b:c"] {
            refused(spec().user(user), "user", "");
        }
        refused(spec().groups(["adm", "01"]), "groups[1]", "leading zero");
        refused(spec().groups(["adm:x"]), "groups[0]", "not a name");
    }

    #[test]
    fn ranges() {
        refused(spec().memory(0), "memory", "less than 64K");
        refused(spec().memory(u64::MAX), "memory", "leave it out");
        for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-4, 10_001.0] {
            refused(spec().cpus(cpus), "cpus", "");
        }
        refused(spec().pids(0), "pids", "0 is not in 1 to 4194304");
        refused(spec().pids(u64::MAX), "pids", "");
        refused(spec().shm_size(0), "shm_size", "");
        refused(spec().log_max(0), "log_max", "");
        refused(spec().nice(20), "nice", "20 is not in -20 to 19");
        refused(spec().oom_score_adj(1001), "oom_score_adj", "");
        refused(spec().umask(0o1000), "umask", "0o1000");
        for priority in [0, 100] {
            refused(spec().scheduler(Policy::Fifo { priority }), "scheduler.priority", "1 to 99");
        }
        let deadline = |times: [u64; 3]| {
            let [runtime, deadline, period] = times.map(Duration::from_micros);
            spec().scheduler(Policy::Deadline { runtime, deadline, period })
        };
        refused(deadline([1, 2, 3]), "scheduler.runtime", "1024 ns");
        refused(deadline([3, 2, 3]), "scheduler.deadline", "before runtime");
        refused(deadline([2, 3, 2]), "scheduler.period", "shorter than deadline");
        let clamps = |min, max| Scheduler { uclamp_min: min, uclamp_max: max, ..Policy::Other.into() };
        refused(spec().scheduler(clamps(None, Some(1025))), "scheduler.uclamp_max", "0 to 1024");
        refused(spec().scheduler(clamps(Some(2), Some(1))), "scheduler.uclamp_min", "more than uclamp_max");
        refused(spec().io_priority(IoPriority::Realtime(8)), "io_priority", "0 to 7");
        refused(spec().ptys(1 << 21), "ptys", "");
        refused(spec().ptys(0), "ptys", "");
        refused(spec().cpu_rt_runtime(Duration::from_nanos(999)), "cpu_rt_runtime", "less than a microsecond");
        refused(spec().cpu_rt_runtime(Duration::from_secs(2)), "cpu_rt_runtime", "more than cpu_rt_period");
        refused(spec().cpu_rt_period(Duration::from_secs(2)), "cpu_rt_period", "takes cpu_rt_runtime");
        let period = |period| spec().cpu_rt_runtime(Duration::from_millis(1)).cpu_rt_period(period);
        refused(period(Duration::from_secs(2148)), "cpu_rt_period", "longest");
        for signal in [-1, 0, 65] {
            refused(spec().stop_signal(signal), "stop_signal", "1 to 64");
        }
        refused(spec().start_timeout(Duration::ZERO), "start_timeout", "no time");
        refused(spec().stop_timeout(Duration::MAX), "stop_timeout", "");
        refused(spec().time_offsets(TimeOffsets { monotonic: 0, boottime: i64::MAX }), "time_offsets.boottime", "");
        refused(spec().time_offsets(TimeOffsets { monotonic: i64::MIN, boottime: 0 }), "time_offsets.monotonic", "");
        refused(spec().rlimit(Resource::Core, Rlimit { soft: 2, hard: 1 }), "rlimits.core", "above the hard limit");
        refused(spec().terminal(Terminal { rows: 0, cols: 80 }), "terminal.rows", "is 0");
        let caps =
            |bounding, ambient| spec().capabilities(Capabilities { bounding, ambient, ..Capabilities::default() });
        refused(caps(1 << 41, 0), "capabilities", "41");
        refused(caps(1, 3), "capabilities.ambient", "dac_override is not in the bounding set");
        let sets = |permitted, effective, inheritable| {
            spec().capabilities(Capabilities { bounding: 7, ambient: 1, permitted, effective, inheritable })
        };
        assert!(sets(Some(3), Some(1), Some(5)).validate().is_ok());
        refused(sets(Some(9), None, None), "capabilities.permitted", "fowner is not in the bounding set");
        refused(sets(Some(2), None, None), "capabilities.permitted", "chown is ambient");
        refused(sets(None, None, Some(4)), "capabilities.inheritable", "chown is ambient");
        refused(sets(Some(3), Some(7), None), "capabilities.effective", "dac_read_search is not in the permitted set");
        refused(spec().securebits(Securebits::KEEP_CAPS), "securebits", "cleared by the exec");
        refused(spec().securebits(1 << 12), "securebits", "0x1000");
    }

    #[test]
    fn rules_and_labels() {
        let rules = |path: &str, access| Landlock { paths: [(path.into(), access)].into(), ..Landlock::default() };
        refused(spec().landlock(rules("usr", 1)), "landlock.paths.usr", "not an absolute path");
        refused(spec().landlock(rules("/usr", 0)), "landlock.paths[\"/usr\"]", "not a set of rights");
        refused(spec().landlock(rules("/usr", 1 << 16)), "landlock.paths[\"/usr\"]", "not a set of rights");
        let of = |abi| Landlock { abi: Some(abi), ..rules("/usr", Landlock::WRITE) };
        assert!(spec().landlock(of(1)).validate().is_ok());
        refused(spec().landlock(of(0)), "landlock.abi", "begin with 1");
        let refer = Landlock { abi: Some(1), ..rules("/usr", 1 << 13 | Landlock::READ) };
        refused(spec().landlock(refer), "landlock.paths[\"/usr\"]", "refer is newer than abi 1");
        let tcp = Landlock { bind: Some(vec![80]), abi: Some(3), ..Landlock::default() };
        refused(spec().landlock(tcp), "landlock.bind", "version 4");
        let scopes = Landlock { scopes: 3, abi: Some(5), ..Landlock::default() };
        refused(spec().landlock(scopes), "landlock.scopes", "version 6");
        refused(spec().landlock(Landlock { scopes: 4, ..Landlock::default() }), "landlock.scopes", "0x4");
        let connect = Landlock { connect: Some(vec![80, 0]), ..Landlock::default() };
        refused(spec().landlock(connect), "landlock.connect[1]", "no port");
        let many = Landlock { bind: Some(vec![1; 1025]), ..Landlock::default() };
        refused(spec().landlock(many), "landlock.bind", "at most 1024");
        assert_eq!(rules("/usr", 1).needs(), (5, "paths"));
        assert_eq!(Landlock { abi: Some(2), ..rules("/usr", 1) }.needs(), (2, "paths"));
        assert_eq!(Landlock { connect: Some(Vec::new()), ..Landlock::default() }.needs(), (4, "connect"));
        for field in ["apparmor", "selinux"] {
            for (text, why) in
                [(" a", "a space at its end"), ("a\nb", "control character"), ("a\0", "control character")]
            {
                let mut labelled = spec();
                labelled.set(field, text.as_bytes()).unwrap();
                refused(labelled, field, why);
            }
            let mut long = spec();
            long.set(field, &[b'a'; 4001]).unwrap();
            refused(long, field, "at most 4000");
        }
        refused(spec().apparmor(""), "apparmor", "is empty");
    }

    #[test]
    fn sysctls() {
        let field = |name: &str| format!("sysctls[{name:?}]");
        for (name, words) in [
            ("kernel.hostname", "set hostname"),
            ("kernel/domainname", "set domainname"),
            ("kernel.threads-max", "pids"),
            ("kernel.core_pattern", "whole machine's"),
            ("vm.swappiness", "memory"),
            ("fs.file-max", "nofile"),
            ("fs.mqueue.msg_maximum", "fs.mqueue.msg_max"),
            ("user.max_things", "user.max_user_namespaces"),
            ("net.../../kernel.core_pattern", "not the name"),
            ("net/../kernel/core_pattern", "not the name"),
        ] {
            refused(spec().sysctl(name, "1"), &field(name), words);
        }
        assert!(spec().sysctl("kernel.pid_max", "400").validate().is_ok());
        let joined = spec().sysctl("kernel.pid_max", "400").namespace(NamespaceKind::Pid, NamespaceSource::Host);
        refused(joined, &field("kernel.pid_max"), "not the container's own");
        refused(spec().sysctl("net", "1"), "sysctls.net", "not the name");
        for (value, words) in [("", "empty"), (" ", "empty"), ("1\n2", "one line"), ("1\0", "one line")] {
            refused(spec().sysctl("kernel.shmmax", value), &field("kernel.shmmax"), words);
        }
        refused(spec().sysctl("kernel.shmmax", "1".repeat(256)), &field("kernel.shmmax"), "at most 255");
        refused(
            spec().sysctl("kernel.shmmax", "1").sysctl("kernel/shmmax", "1"),
            &field("kernel/shmmax"),
            "another form",
        );
        let joined = NamespaceSource::Host;
        let ipc = spec().sysctl("kernel.shmmax", "1").namespace(NamespaceKind::Ipc, joined.clone());
        refused(ipc, &field("kernel.shmmax"), "not the container's own");
        refused(spec().sysctl("net.core.somaxconn", "1").net(Net::Host), &field("net.core.somaxconn"), "(net)");
        let user = spec().sysctl("user.max_user_namespaces", "1").idmap(Idmap::Host);
        refused(user, &field("user.max_user_namespaces"), "(user)");
        assert_eq!(sysctl::path("net.ipv4.conf.eth0/5.forwarding"), "net/ipv4/conf/eth0.5/forwarding");
        assert_eq!(sysctl::path("net/ipv4/conf/eth0.5/forwarding"), "net/ipv4/conf/eth0.5/forwarding");
        spec().sysctl("net.ipv4.conf.all.forwarding", "1").validate().unwrap();
    }

    #[test]
    fn paths() {
        refused(spec().cwd("a"), "cwd", "absolute");
        refused(spec().cwd(""), "cwd", "empty");
        refused(spec().cwd("/\0"), "cwd", "NUL");
        refused(spec().cwd(format!("/{}", "a".repeat(4095))), "cwd", "4096 bytes");
        refused(spec().rootfs("image"), "rootfs", "absolute");
        refused(spec().rootfs("//./"), "rootfs", "\"host\" is a private view");
        let layers = |lower: Vec<PathBuf>| RootfsKind::Layers { lower, upper: Some("up".into()) };
        refused(spec().rootfs(layers(vec![])), "rootfs.lower", "no layer");
        refused(spec().rootfs(layers(vec!["/a".into(), "b".into()])), "rootfs.lower[1]", "absolute");
        refused(spec().rootfs(layers(vec!["/a".into()])), "rootfs.upper", "absolute");
        refused(spec().rootfs(layers(vec!["/a".into(); 501])), "rootfs.lower", "501 layers");
        refused(spec().masked_paths(["/a", "/../b"]), "masked_paths[1]", "\"..\"");
        refused(spec().readonly_paths(["a"]), "readonly_paths[0]", "absolute");
        refused(spec().cgroup_parent("/a/../../b"), "cgroup_parent", "\"..\"");
        refused(spec().annotation("", "x"), "annotations[\"\"]", "empty");
    }

    #[test]
    fn mounts() {
        refused(spec().mount("/a:/b:rw:x"), "mounts[0]", "more than source, target and words");
        refused(spec().mount("./data:/b"), "mounts[0]", "absolute");
        refused(spec().mount("/a:/b:rx"), "mounts[0]", "more than");
        refused(spec().mount("/a:RW"), "mounts[0]", "absolute");
        refused(spec().mount(""), "mounts[0]", "absolute");
        refused(spec().mounts(["/a", "/b:/c/../d"]), "mounts[1].target", "\"..\"");
        refused(spec().mount("/a:/"), "mounts[0].target", "rootfs");
        refused(spec().mount("/a:/b\0"), "mounts[0].target", "NUL");
        refused(spec().mounts(["/a:/x/", "/b:/x/."]), "mounts[1].target", "mounts[0] already");
        refused(spec().mounts(["/a:/x/y", "/c:/xy", "/b:/x"]), "mounts[2].target", "would cover mounts[0] at \"/x/y\"");
        refused(spec().mount("/a:/proc/self/attr"), "mounts[0].target", "/proc");
        refused(spec().mount("/proc"), "mounts[0].target", "/proc");
        refused(spec().mount(Mount::tmpfs("/proc/self")), "mounts[0].target", "/proc");
        refused(spec().mount(Mount::tmpfs("")), "mounts[0].target", "is empty");
        refused(
            spec().mount(Mount { kind: MountKind::Tmpfs { size: Some(0), mode: None }, ..Mount::tmpfs("/x") }),
            "mounts[0].size",
            "0 bytes",
        );
        refused(
            spec().mount(Mount { kind: MountKind::Tmpfs { size: None, mode: Some(0o10000) }, ..Mount::tmpfs("/x") }),
            "mounts[0].mode",
            "0o10000",
        );
        let fd = MountKind::Bind { source: BindSource::Fd(-1), recursive: true };
        refused(spec().mount(Mount { kind: fd, ..Mount::bind("", "/x") }), "mounts[0].fd", "-1");
        let owned = |mount: Mount| spec().mount(mount.owner(super::super::MountOwner::Payload));
        refused(owned(Mount::tmpfs("/x")), "mounts[0].owner", "a bind or a volume");
        owned(Mount::volume(None, "/x")).validate().unwrap();
        refused(spec().mount("/a:/b:rw,ro"), "mounts[0]", "only once");
        refused(spec().mount("/a:/b:owner=payload,owner=payload"), "mounts[0]", "only once");
        refused(spec().mount("/a:/b:owner=root"), "mounts[0]", "more than");
        let many: Vec<String> = (0..10_000).map(|i| format!("/srv:/x/{i}")).collect();
        spec().mounts(many).validate().unwrap();
    }

    #[test]
    fn devices() {
        refused(spec().device("fuse"), "devices[0]", "absolute");
        refused(spec().device("/dev/fuse:/dev/x:rwx"), "devices[0]", "letters r, w and m");
        refused(spec().device("/dev/fuse:rr"), "devices[0]", "at most once");
        spec().device("/dev/fuse:r").validate().unwrap();
        refused(spec().device(Device::new("")), "devices[0]", "absolute");
        refused(spec().device(Device::new("/dev/a\0")), "devices[0].path", "NUL");
        refused(spec().device("/srv/node"), "devices[0].target", "\"/srv/node\" is not below /dev");
        refused(spec().device("/dev/fuse:/dev"), "devices[0].target", "is not below /dev");
        refused(spec().device("/dev/fuse:/dev/../fuse"), "devices[0].target", "\"..\"");
        refused(spec().device("/dev/fuse:/dev//null"), "devices[0].target", "has a \"null\" of its own");
        refused(spec().device("/dev/fuse:/dev/pts/0"), "devices[0].target", "has a \"pts\" of its own");
        refused(spec().devices(["/dev/a:/dev/x", "/dev/b:/dev/./x"]), "devices[1].target", "devices[0] already");
        refused(spec().devices(["/dev/a:/dev/x/y", "/dev/x"]), "devices[1].target", "below the other");
        refused(spec().devices(["/dev/x", "/dev/a:/dev/x/y"]), "devices[1].target", "below the other");
        refused(spec().device("/dev/fuse").mount("/srv:/dev"), "devices[0].target", "covered by mounts[0]");
        refused(spec().device("/dev/fuse").mount("/srv:/dev/fuse"), "devices[0].target", "covered by mounts[0]");
        refused(spec().device("/dev/fuse").file("/dev/fuse", ""), "devices[0].target", "one of files");
        let foreign = spec().device("/dev/fuse").namespace(NamespaceKind::Mnt, NamespaceSource::Host);
        refused(foreign, "devices", "not the container's own");
        spec().devices(["/dev/snd/timer", "/dev/snd/seq", "/dev/null:/dev/null2"]).validate().unwrap();
    }

    #[test]
    fn binary_formats() {
        let mount = |line: &str| spec().mount(Mount::binfmt_misc([":ok:M::abc::/bin/cat:F", line]));
        mount(",x,E,,ext,,/bin/sh,").validate().unwrap();
        let field = "mounts[0].register[1]";
        refused(mount(""), field, "is empty");
        refused(mount(":x:M::abc:/bin/cat:"), field, "a line is :name:type");
        refused(mount("::M::abc::/bin/cat:"), field, "no name");
        refused(mount(":a/b:M::abc::/bin/cat:"), field, "no name");
        refused(mount(":status:M::abc::/bin/cat:"), field, "no name");
        refused(mount(":x:X::abc::/bin/cat:"), field, "M (magic)");
        refused(mount(":x:M::abc::cat:"), field, "no absolute path");
        refused(mount(&format!(":x:M::{}::/bin/cat:", "a".repeat(1920))), field, "1920 bytes");
        let elsewhere = |target: &str| Mount { target: target.into(), ..Mount::binfmt_misc([""; 0]) };
        spec().mount(elsewhere("/srv/formats")).validate().unwrap();
        refused(spec().mount(elsewhere("/proc/sys")), "mounts[0].target", "/proc");
        refused(spec().mount(Mount::tmpfs(Mount::BINFMT_MISC)), "mounts[0].target", "/proc");
        refused(spec().mount(elsewhere("/a")).idmap(Idmap::Host), "mounts[0].type", "user namespace of its own");
        let joined = NamespaceSource::Container("db".into());
        refused(spec().mount(elsewhere("/a")).namespace(NamespaceKind::User, joined), "mounts[0].type", "of others");
    }

    #[test]
    fn files() {
        refused(spec().file("a", ""), "files.a", "absolute");
        refused(spec().file("/a/../b", ""), "files[\"/a/../b\"]", "\"..\"");
        refused(spec().file("/a/", ""), "files[\"/a/\"]", "directory");
        refused(spec().file("/a", File::new("").mode(0o10000)), "files[\"/a\"].mode", "0o10000");
        refused(spec().file("/a/.", ""), "files[\"/a/.\"]", "directory");
        refused(spec().file("/a", "").file("/a-", "").file("/a/b", ""), "files[\"/a\"]", "below it");
        refused(spec().file("/proc/x", ""), "files[\"/proc/x\"]", "/proc");
        refused(spec().file("/a", "").mount("/b:/a/"), "files[\"/a\"]", "mount");
    }

    #[test]
    fn id_maps() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        let map = |uid: Vec<IdRange>| spec().idmap(Idmap::Explicit { uid, gid: vec![range(0, 0, 1)] });
        let own = |uid: Vec<IdRange>| MountIdmap::Explicit { uid, gid: vec![range(0, 0, 1)] };
        let of_mount = |uid: Vec<IdRange>| spec().mount(Mount::bind("/a", "/b").idmap(own(uid)));
        for (ranges, field, has) in [
            (vec![], "", "no range"),
            (vec![range(0, 0, 0)], "[0]", "count is 0"),
            (vec![range(1, 0, u32::MAX)], "[0]", "inside"),
            (vec![range(0, u32::MAX, 1)], "[0]", "outside"),
            (vec![range(0, 100, 10), range(9, 200, 1)], "[1]", "overlaps [0] inside, from id 9"),
            (vec![range(5, 100, 10), range(0, 109, 2)], "[1]", "overlaps [0] outside, from id 109"),
            ((0..341).map(|i| range(i, i, 1)).collect(), "", "340"),
        ] {
            refused(of_mount(ranges.clone()), &format!("mounts[0].idmap.uid{field}"), has);
            let mut image = spec().rootfs("/srv/image");
            image.rootfs.idmap = Some(own(ranges));
            refused(image, &format!("rootfs.idmap.uid{field}"), has);
        }
        let empty = MountIdmap::Explicit { uid: vec![range(0, 0, 1)], gid: vec![] };
        refused(spec().mount(Mount::volume(None, "/b").idmap(empty)), "mounts[0].idmap.gid", "no range");
        let host = || Some(MountIdmap::Host);
        refused(
            spec().mount(Mount { idmap: host(), ..Mount::tmpfs("/b") }),
            "mounts[0].idmap",
            "only a bind or a volume",
        );
        refused(spec().mount("/a:/b:owner=payload,idmap=host"), "mounts[0].idmap", "excludes owner");
        refused(spec().mount("/a:/b:idmap=host,idmap=host"), "mounts[0]", "only once");
        refused(spec().mount("/a:/b:idmap=auto"), "mounts[0]", "idmap=container");
        let top = |mount: Mount| spec().mount(Mount { idmap_recursive: false, ..mount });
        refused(top(Mount::volume(None, "/b")), "mounts[0].idmap_recursive", "recursive bind");
        let mut owned = spec().rootfs("host:owned");
        owned.rootfs.idmap = host();
        refused(owned, "rootfs.idmap", "directory or layers");
        refused(map(vec![]), "idmap.uid", "no range");
        refused(map(vec![range(0, 0, 0)]), "idmap.uid[0]", "count is 0");
        refused(map(vec![range(1, 0, u32::MAX)]), "idmap.uid[0]", "inside");
        refused(map(vec![range(0, u32::MAX, 1)]), "idmap.uid[0]", "outside");
        refused(map(vec![range(0, 100, 10), range(9, 200, 1)]), "idmap.uid[1]", "overlaps [0] inside, from id 9");
        refused(map(vec![range(5, 100, 10), range(0, 109, 2)]), "idmap.uid[1]", "overlaps [0] outside, from id 109");
        let lines = |count| (0..count).map(|i| range(2 * i, 2 * i, 1)).collect();
        map(lines(340)).validate().unwrap();
        refused(map(lines(341)), "idmap.uid", "340");
        refused(spec().idmap(Idmap::Explicit { uid: lines(1), gid: vec![] }), "idmap.gid", "no range");
    }

    #[test]
    fn contradictions() {
        use NamespaceKind::{Mnt, Net as NetKind, Pid, Time, User, Uts};
        use NamespaceSource::{Container, Fd, Host, New, Path};
        refused(spec().detach(true), "detach", "name");
        refused(spec().init(false), "init", "argv");
        refused(spec().terminal(Terminal::default()).stdout(Stdio::Null), "stdout", "terminal");
        refused(spec().stdin(Stdio::Log), "stdin", "output");
        refused(spec().stdout(Stdio::Stdout), "stdout", "stderr only");
        refused(spec().stderr(Stdio::File("x".into())), "stderr", "absolute");
        refused(spec().stdin(Stdio::Fd(-1)), "stdin", "-1");
        refused(spec().pass_fd(5, 2), "pass_fds[\"5\"]", "2 inside");
        refused(spec().pass_fd(-1, 3), "pass_fds[\"-1\"]", "-1");
        refused(spec().pass_fds([(5, 4), (6, 4)]), "pass_fds[\"6\"]", "taken by 5");
        refused(spec().pass_fd(5, 1 << 20), "pass_fds[\"5\"]", "highest");
        refused(spec().net(Net::Host).namespace(NetKind, New), "net", "namespaces.net");
        refused(spec().net(Net::None).namespace(NetKind, Path("/x".into())), "net", "namespaces.net");
        spec().net(Net::None).namespace(NetKind, New).validate().unwrap();
        refused(spec().namespace(User, Host), "namespaces.user", "idmap");
        refused(spec().namespace(User, New).idmap(Idmap::Host), "idmap", "contradicts");
        refused(spec().namespace(User, Fd(9)).idmap(Idmap::KeepId), "idmap", "has its map already");
        spec().namespace(User, Fd(9)).validate().unwrap();
        refused(spec().namespace(Uts, Host).hostname("x"), "hostname", "leave out hostname or namespaces.uts");
        refused(
            spec().namespace(Time, Host).time_offsets(TimeOffsets { monotonic: 1, boottime: 0 }),
            "time_offsets",
            "new time namespace",
        );
        refused(spec().namespace(Mnt, Container("db".into())).mount("/a"), "mounts", "not the container's own");
        refused(spec().namespace(Pid, NamespaceSource::Pid(0)), "namespaces.pid", "0 is not a process");
        refused(spec().namespace(Pid, Container("a/b".into())), "namespaces.pid.container", "name");
        refused(spec().namespace(Pid, Path("x".into())), "namespaces.pid", "absolute");
        refused(spec().namespace(Pid, Fd(-3)), "namespaces.pid", "-3");
    }

    #[test]
    fn commands_are_checked_the_same_way() {
        let mut command = Command::new("sh");
        command.validate().unwrap();
        command.nice = Some(99);
        assert_eq!(command.validate().unwrap_err().field(), Some("nice"));
        command.nice = None;
        for tid in [-1, 0, 1, 4 << 20, i32::MAX] {
            let error = command.set_tid(tid).validate().unwrap_err();
            assert_eq!(error.to_string(), format!("set_tid: {tid} is not in 2 to 4194303"));
        }
        command.set_tid(2).validate().unwrap();
        command.argv.clear();
        assert_eq!(command.validate().unwrap_err().field(), Some("argv"));
    }
}
