//! What a plan is made from besides the spec: what the machine offers and the caller has. Plain data, gathered elsewhere.

use std::ffi::CStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::idmap::MountIds;
use crate::security::filter::Program;
use crate::spec::{NamespaceKind, Resource, Rlimit};

/// A descriptor that the request must bring; the launcher opens them in this order, and the plan's slots follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The directory of the v2 control group in which its processes are.
    GroupDir,
    /// Where the container divides its groups itself: the directory of the one that is the root for it.
    GroupTop,
    /// `cgroup.procs` of the leaf in that in which its processes begin.
    GroupLeaf,
    /// The i-th v1 `tasks` file.
    GroupTasks(usize),
    /// A detached clone of the mounts at a path of the host (privileged callers).
    Tree { path: PathBuf, recursive: bool, field: Arc<str> },
    /// The same from a descriptor of the caller.
    TreeOfFd { fd: i32, recursive: bool, field: Arc<str> },
    /// The mount of the image that is the writable layer, or the host's directory that is.
    Disk,
    /// A mount with a node for each of these, named by its index, and its `mount_label`.
    Nodes(Vec<DeviceFact>, Option<String>),
    /// A namespace to join.
    Namespace { kind: NamespaceKind, field: Arc<str> },
    /// A clone of the pod's /dev/shm.
    SharedMemory,
    /// The payload's end of stream 0, 1 or 2.
    Stream(usize),
    /// A descriptor of the caller that is passed on.
    Pass(i32),
    /// The host's socket of the i-th port.
    Listener(usize),
}

impl Need {
    /// The field of the spec that asks for it.
    pub fn field(&self) -> String {
        match self {
            Self::GroupDir | Self::GroupTop | Self::GroupLeaf | Self::GroupTasks(_) => "cgroup".into(),
            Self::Tree { field, .. } | Self::TreeOfFd { field, .. } | Self::Namespace { field, .. } => (**field).into(),
            Self::Disk => "disk".into(),
            Self::Nodes(..) => "devices".into(),
            Self::SharedMemory => "shm_size".into(),
            Self::Stream(i) => ["stdin", "stdout", "stderr"].get(*i).copied().unwrap_or("stdin").into(),
            Self::Pass(fd) => format!("pass_fds[{fd}]"),
            Self::Listener(i) => format!("ports[{i}]"),
        }
    }
}

/// Where nodes of macvtaps are made while the container starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TapsFact {
    /// A descriptor of the caller: a directory on a mount of its own.
    pub directory: i32,
    /// The names and the numbers of the devices inside.
    pub devices: Vec<(String, u32)>,
}

/// A device node of the host that the container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceFact {
    /// S_IFCHR or S_IFBLK.
    pub kind: u32,
    pub number: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// One entry of the host's tree that `rootfs: host` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostEntry {
    /// A directory that becomes the lower layer of an overlay.
    Overlay(PathBuf),
    /// The same for what is mounted there: without it where the kernel or its permissions do not let it be a layer.
    Mount(PathBuf),
    /// A directory that cannot be a layer, because it is one on the top of as many as the kernel stacks. It is mounted as it is,
    /// read-only as it is already.
    Bind(PathBuf),
    /// A directory that is only there to hold others.
    Dir(PathBuf),
    Symlink(PathBuf, PathBuf),
}

/// The id maps of a new user namespace, as the kernel wants them, in the keeper's ids.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct IdMaps {
    pub uid: String,
    pub gid: String,
    pub deny_setgroups: bool,
    /// Mounts of the host's files are idmapped with it.
    pub idmapped_mounts: bool,
}

impl IdMaps {
    /// The id outside that this one is inside.
    pub fn outside(map: &str, id: u32) -> Option<u32> {
        ranges(map)
            .find(|&(inside, _, count)| (inside..inside + count).contains(&id.into()))
            .map(|(inside, outside, _)| (outside + (u64::from(id) - inside)) as u32)
    }

    /// Whether this id outside has one inside.
    pub fn has_outside(map: &str, id: u64) -> bool {
        ranges(map).any(|(_, outside, count)| (outside..outside + count).contains(&id))
    }

    /// Is this uid mapped?
    pub fn has_uid(&self, uid: u32) -> bool {
        covers(&self.uid, uid)
    }

    /// Is this gid mapped? devpts wants the tty group where there is one.
    pub fn has_gid(&self, gid: u32) -> bool {
        covers(&self.gid, gid)
    }
}

fn covers(map: &str, id: u32) -> bool {
    IdMaps::outside(map, id).is_some()
}

/// First id inside, first id outside, count.
pub(crate) fn ranges(map: &str) -> impl Iterator<Item = (u64, u64, u64)> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    })
}

/// What the state directory has of an attached container that has a name: paths below `names/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UndoName {
    /// Locked by the host as long as it lives.
    pub lock: String,
    /// There as long as the directory is this container's.
    pub owner: String,
    /// Removed with it, in this order.
    pub files: Vec<String>,
    pub directory: String,
}

/// Credentials of a process, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What a payload inherits from the asking thread unless its spec says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Inherited {
    pub rlimits: Vec<(Resource, Rlimit)>,
    pub affinity: Vec<u8>,
    pub nice: i32,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Facts {
    /// The keeper has the host's CAP_SYS_ADMIN: sources come as descriptors, mounts may be idmapped.
    pub privileged: bool,
    /// `None`: the container shares the keeper's user namespace, or joins one that is not its pod's.
    pub idmaps: Option<IdMaps>,
    /// Namespaces that the container joins and that its own user namespace owns: those of its pod. Its root has all rights in them.
    pub shared: Vec<NamespaceKind>,
    /// /dev/shm comes with the request: that of the pod.
    pub shared_shm: bool,
    /// It only holds namespaces: its root file system is empty but for a /dev/shm.
    pub holder: bool,
    /// It only holds the network namespace of a switch: the library gets sockets in it.
    pub switch: bool,
    /// The kernel has IPv6.
    pub ipv6: bool,
    /// What /etc/resolv.conf is, if there is such a file and the spec says nothing.
    pub name_servers: Option<String>,
    /// The file of the host that is /etc/hosts.
    pub hosts: Option<PathBuf>,
    /// /etc/hosts is made here and sent to the library.
    pub sends_hosts: bool,
    /// The user namespace, new or joined, allows setgroups(2).
    pub may_setgroups: bool,
    /// The ids that set everything up: root's, or the only ones that are mapped.
    pub root: (u32, u32),
    pub group_dir: bool,
    pub group_tasks: usize,
    /// Its processes are in a leaf of its v2 group.
    pub group_leaf: bool,
    /// With `nesting`: the hierarchies in which it has groups.
    pub group_mounts: Vec<GroupMount>,
    /// Messages to rtnetlink(7) at the end, and a descriptor that the keeper has until they were sent.
    pub undo_net: Option<(i32, Vec<u8>)>,
    /// Directory names of the undo plan: (index of the shared directory, name).
    pub undo_groups: Vec<(usize, String)>,
    /// Shared directory of the v2 tree, for cgroup.kill at the end.
    pub kill_group: Option<(usize, String)>,
    /// The name of an attached container: (index of the shared directory, what to remove in it).
    pub undo_name: Option<(usize, UndoName)>,
    pub pure_v2: bool,
    /// Options of the v2 tree, for who mounts it where they are the whole tree's.
    pub group_options: Vec<String>,
    pub disk: DiskFact,
    /// With `DiskFact::Project` and `DiskFact::Btrfs`.
    pub quota_calls: Option<QuotaCalls>,
    /// The request's channel gets a descriptor of the writable layer.
    pub watch_disk: bool,
    /// `rootfs: host`.
    pub host: Vec<HostEntry>,
    /// How many overlays there are already, one on the other, where the root file system's layers come from.
    pub stacked: u32,
    /// Directories of the host that are hidden, and the mode of the private one that is there instead.
    pub hidden: Vec<(PathBuf, u32)>,
    /// Names of the host's top-level directories (their top is writable inside).
    pub host_top: Vec<String>,
    /// Whether each `mounts` entry's source is a directory.
    pub mount_is_dir: Vec<bool>,
    /// For unprivileged binds of descriptors: their paths.
    pub mount_paths: Vec<Option<PathBuf>>,
    /// With which ids each `mounts` entry is shown.
    pub mount_ids: Vec<MountIds>,
    /// The same for the directory that is the root file system, or its layers: the lower ones, then the upper.
    pub root_ids: Vec<MountIds>,
    /// What each entry of `devices` is.
    pub devices: Vec<DeviceFact>,
    /// The caller may make nodes: the container gets its own.
    pub own_nodes: bool,
    /// With macvtaps.
    pub taps: Option<TapsFact>,
    /// Paths to mask or make read-only that exist in a fresh proc and sysfs, and whether they are directories; others are
    /// looked up inside.
    pub known_paths: Vec<(PathBuf, Option<bool>)>,
    /// It gets a session keyring of its own.
    pub keyring: bool,
    /// What is masked beside the customary paths: directories of this machine's processors.
    pub throttles: Vec<PathBuf>,
    pub credentials: Credentials,
    pub env: Vec<Vec<u8>>,
    pub inherited: Inherited,
    /// The filter of its system calls.
    pub filter: Option<Arc<Program>>,
    /// The program's label of SELinux, as the kernel writes it.
    pub selinux: Option<String>,
    /// Which streams come as descriptors; stderr may be stdout's.
    pub streams: [StreamFact; 3],
}

/// A hierarchy of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupMount {
    pub v2: bool,
    /// The directory for it.
    pub name: String,
    /// On v1: by which it is found.
    pub controllers: Vec<String>,
}

/// What limits the writable layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum DiskFact {
    /// Size and inodes of the private tmpfs, which are those of the spec.
    #[default]
    Tmpfs,
    /// An image in the place of the tmpfs.
    Image,
    /// The quota of this project.
    Project(u32),
    /// The quota group of a subvolume of btrfs.
    Btrfs,
}

/// One system call that limits a directory of the host: its number, what stands between the descriptor and the structure, and
/// the bytes of the structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QuotaCall {
    /// Of an owner: command and id, and a struct if_dqblk.
    QuotactlFd { command: u32, id: u32, dqblk: [u8; 72] },
    /// Of a subvolume: the request, and a struct btrfs_ioctl_qgroup_limit_args.
    Ioctl { request: u32, limit: [u8; 48] },
}

/// What limits a directory of the host for the time of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuotaCalls {
    pub set: QuotaCall,
    pub lift: QuotaCall,
    /// An extended attribute that the directory has meanwhile: what `lift` goes back to, for whoever comes after a keeper that was
    /// killed.
    pub mark: Option<(&'static CStr, String)>,
    /// The directory, for errors.
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum StreamFact {
    #[default]
    Null,
    Given,
    SameAsStdout,
}
