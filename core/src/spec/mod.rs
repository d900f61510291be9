//! What a container is to be: plain data, validated before anything is touched.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

/// What a container is to be. `Default` is what an empty JSON object means.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: Option<String>,
    pub argv: Vec<OsString>,
    /// `None` removes a variable of the clean base.
    pub env: BTreeMap<OsString, Option<OsString>>,
    /// Names of the caller's variables to pass through; `*` is all.
    pub env_inherit: Vec<OsString>,
    pub cwd: Option<PathBuf>,
    /// `uid`, `name`, `uid:gid`, `name:group`; `None` is 0:0.
    pub user: Option<String>,
    /// Supplementary groups, by id or name.
    pub groups: Vec<String>,
    pub umask: Option<u32>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// Name servers for /etc/resolv.conf.
    pub dns: Vec<String>,
    /// Extra /etc/hosts lines: name -> address.
    pub hosts: BTreeMap<String, String>,
    pub rootfs: Rootfs,
    pub mounts: Vec<Mount>,
    pub files: BTreeMap<PathBuf, File>,
    /// Bytes of /dev/shm; `None` is the default of 64 MiB.
    pub shm_size: Option<u64>,
    pub init: bool,
    pub terminal: Option<Terminal>,
    pub stdin: Option<Stdio>,
    pub stdout: Option<Stdio>,
    pub stderr: Option<Stdio>,
    /// Bytes; the bound of a `log` stream.
    pub log_max: Option<u64>,
    pub detach: bool,
    pub namespaces: BTreeMap<NamespaceKind, NamespaceSource>,
    pub idmap: Idmap,
    /// Bytes.
    pub memory: Option<u64>,
    /// Cores (hard limit).
    pub cpus: Option<f64>,
    pub pids: Option<u64>,
    pub rlimits: BTreeMap<Resource, Rlimit>,
    pub nice: Option<i32>,
    pub oom_score_adj: Option<i32>,
    pub start_timeout: Option<Duration>,
    /// Signal number; default SIGTERM.
    pub stop_signal: Option<i32>,
    pub stop_timeout: Option<Duration>,
    pub net: Net,
    pub capabilities: Capabilities,
    pub no_new_privs: bool,
    /// `None` is OCI's default list.
    pub masked_paths: Option<Vec<PathBuf>>,
    pub readonly_paths: Option<Vec<PathBuf>>,
    pub time_offsets: TimeOffsets,
    pub cgroup_parent: Option<PathBuf>,
    /// Numbers of inheritable descriptors: host descriptor -> number inside (3 and above).
    pub pass_fds: BTreeMap<RawFd, RawFd>,
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

/// Where `/` comes from.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rootfs {
    pub kind: RootfsKind,
    pub readonly: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum RootfsKind {
    /// The host's own tree, read-only below, a private overlay on top.
    #[default]
    Host,
    /// The same, owned by the container's root (idmapped).
    HostOwned,
    /// A directory used in place (read-write unless `readonly`).
    Directory(PathBuf),
    /// Lower directories (the topmost first) with an upper directory, or a private one in memory.
    Layers { lower: Vec<PathBuf>, upper: Option<PathBuf> },
}

/// One entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    pub target: PathBuf,
    /// Default: true for binds, false for the rest.
    pub readonly: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    Bind { source: BindSource, recursive: bool },
    Tmpfs { size: Option<u64>, mode: Option<u32> },
    Proc,
    Sysfs,
    Mqueue,
    Devpts,
    Cgroup,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindSource {
    Path(PathBuf),
    /// An open descriptor of the caller (directory or file, O_PATH is enough).
    Fd(RawFd),
}

/// One entry of `files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    /// Default 0644.
    pub mode: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stdio {
    Null,
    Inherit,
    Pipe,
    Log,
    /// Opened by the caller's authority on the host: created and truncated for output, read for input.
    File(PathBuf),
    Fd(RawFd),
    /// stderr only: the same as stdout.
    Stdout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKind {
    Mnt,
    Pid,
    Net,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceSource {
    New,
    Host,
    Path(PathBuf),
    /// A namespace descriptor or a pidfd.
    Fd(RawFd),
    Pid(i32),
    /// The namespace of another container, by name.
    Container(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Idmap {
    #[default]
    Auto,
    Host,
    KeepId,
    Explicit {
        uid: Vec<IdRange>,
        gid: Vec<IdRange>,
    },
}

/// `count` ids from `inside` are `outside` and following on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// The resources of getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// `u64::MAX` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Net {
    #[default]
    Loopback,
    None,
    Host,
}

/// Bits of capability numbers (bit 21 is CAP_SYS_ADMIN).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding, permitted and effective set of a root payload.
    pub bounding: u64,
    pub ambient: u64,
}

impl Capabilities {
    /// OCI's customary default: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot
    /// mknod audit_write setfcap net_raw.
    pub const DEFAULT: u64 = 0xa804_25fb;
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { bounding: Self::DEFAULT, ambient: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeOffsets {
    /// Nanoseconds added to CLOCK_MONOTONIC.
    pub monotonic: i64,
    /// Nanoseconds added to CLOCK_BOOTTIME.
    pub boottime: i64,
}

impl Spec {
    pub fn new() -> Self {
        Self::default()
    }
}
