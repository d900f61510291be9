//! Namespaces: kinds and where they come from.

use std::os::fd::RawFd;
use std::path::PathBuf;

/// The kinds of namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKind {
    /// Mounts: mount_namespaces(7).
    Mnt,
    /// Process ids: pid_namespaces(7).
    Pid,
    /// Network devices, addresses, ports: network_namespaces(7).
    Net,
    /// System V IPC and POSIX message queues: ipc_namespaces(7).
    Ipc,
    /// Host and domain name: uts_namespaces(7).
    Uts,
    /// Users, groups, capabilities: user_namespaces(7).
    User,
    /// The root of the visible control groups: cgroup_namespaces(7).
    Cgroup,
    /// Offsets of the monotonic and boot-time clocks: time_namespaces(7).
    Time,
}

impl NamespaceKind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] =
        [Self::Mnt, Self::Pid, Self::Net, Self::Ipc, Self::Uts, Self::User, Self::Cgroup, Self::Time];

    /// The name, which is that of the file in /proc/PID/ns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Pid => "pid",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Where a namespace comes from. As text: `new`, `host`, an absolute path, `fd:N`, `pid:N`, `container:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceSource {
    /// Made for the container.
    New,
    /// The caller's own.
    Host,
    /// A namespace file, like /run/netns/blue or /proc/PID/ns/net.
    Path(PathBuf),
    /// A namespace descriptor or a pidfd.
    Fd(RawFd),
    /// The namespace of a process, seen from the caller's pid namespace.
    Pid(i32),
    /// The namespace of another container, by name.
    Container(String),
}

/// The network of a container.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Net {
    /// A network namespace with `lo` up and nothing else.
    #[default]
    Loopback,
    /// A network namespace with `lo` down.
    None,
    /// The caller's network: its ports, its abstract sockets.
    Host,
}
