//! Disk quota: what bounds the bytes and the inodes of a container's writable layer, and of users and groups in it.
//!
//! Three mechanisms, each on file systems that are mounted already or in an image of our own: project ids of ext4 and xfs
//! ([`project`], which sets the quota of users and groups too), qgroups of btrfs subvolumes ([`btrfs`]), and a file system of
//! its own size in a file ([`image`]). None is emulated, and none is used where the kernel would only count and not refuse.
//!
//! A write past a bound fails with EDQUOT (ext4, btrfs, users and groups on xfs) or ENOSPC (projects on xfs, images).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

pub(crate) use self::report::report;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::Filesystem;
use crate::sys::rights::{self, CAP_SYS_ADMIN};

/// The qgroup of a subvolume on btrfs.
pub(crate) mod btrfs;
/// File systems of our own in files.
pub(crate) mod image;
/// What the kernel was built with.
mod kernel;
/// File systems by their numbers.
mod magic;
/// The quota of projects, users and groups on ext4 and xfs.
pub(crate) mod project;
/// What there is on this machine.
mod report;
#[cfg(test)]
mod tests;

/// What is asked for; `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes on the disk.
    pub bytes: Option<u64>,
    /// Files, directories, links and all else that has an inode.
    pub inodes: Option<u64>,
}

/// What is used, and the bounds that the kernel enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub bytes: u64,
    pub inodes: u64,
    pub bytes_max: Option<u64>,
    pub inodes_max: Option<u64>,
}

/// Whose quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Project(u32),
    User(u32),
    Group(u32),
}

fn unsupported(detail: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, detail).with_errno(libc::EOPNOTSUPP).with_hint(hint)
}

/// Whether this thread may do what only root of the machine may.
fn is_root() -> bool {
    rights::in_initial_user_namespace() && rights::capabilities() & 1 << CAP_SYS_ADMIN != 0
}

fn needs_root(what: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("{what} takes CAP_SYS_ADMIN over the first user namespace"))
        .with_errno(libc::EPERM)
        .with_hint("run as root of the machine")
}

/// The directory, open for ioctls too: a mount's descriptor is O_PATH.
fn opened(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os("openat", errno as i32).with_path("."))
}

/// For what two callers should not choose alike.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
