//! A subvolume's qgroup on btrfs: a bound of the bytes that it refers to.
//!
//! Who can call ioctls on the file system itself can make a subvolume in the subvolume, which is counted for itself: what runs
//! in a container must see it through an overlay only, which passes no such ioctl on.

use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;

use super::{Bounds, Used, magic, opened, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{btrfs as sys, xattr};

/// The inode of a subvolume's root.
const ROOT: u64 = 256;

/// include/uapi/linux/btrfs_tree.h
const QUOTA_TREE: u64 = 8;
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;
const STATUS_RESCAN: u64 = 2;
const STATUS_INCONSISTENT: u64 = 4;
const LIMIT_MAX_RFER: u64 = 1;

/// Whether `dir` is the root of a subvolume that can be bounded. Quota is never switched on here: it is the whole file
/// system's, and costs all who write to it.
///
/// # Errors
/// Kind Unsupported, with what is missing and the command that gives it.
pub(crate) fn probe(dir: BorrowedFd<'_>) -> Result<()> {
    let found = fstatfs(dir).map_err(|errno| Error::os("fstatfs", errno as i32))?;
    if found.filesystem_type().0 as i64 != magic::BTRFS {
        return Err(unsupported("it is not on btrfs", "put it on such a file system, or into an image"));
    }
    if fstat(dir).map_err(|errno| Error::os("fstat", errno as i32))?.st_ino != ROOT {
        return Err(unsupported(
            "it is a directory of btrfs, but not the root of a subvolume, which alone can have a bound",
            "make it with btrfs subvolume create",
        ));
    }
    counts(dir)
}

/// Whether quota is on and exact on the btrfs file system of `dir`.
pub(super) fn counts(dir: BorrowedFd<'_>) -> Result<()> {
    if !super::is_root() {
        return Err(super::needs_root("to bound a subvolume"));
    }
    let status = match item(opened(dir)?.as_fd(), (0, QGROUP_STATUS, 0)) {
        Ok(Some(status)) => number(&status, 2),
        Err(error) if error.errno() != libc::ENOENT => return Err(error),
        Ok(None) | Err(_) => {
            return Err(unsupported(
                "quota is off on this btrfs file system",
                "btrfs quota enable --simple PATH (Linux 6.7; before, without --simple)",
            ));
        }
    };
    if status & STATUS_RESCAN != 0 {
        return Err(unsupported(
            "btrfs still counts what this file system holds, and enforces nothing exactly meanwhile",
            "btrfs quota rescan -w PATH waits until it is done",
        ));
    }
    if status & STATUS_INCONSISTENT != 0 {
        return Err(unsupported(
            "btrfs has lost count of what the subvolumes of this file system use",
            "btrfs quota rescan -w PATH counts anew",
        ));
    }
    Ok(())
}

/// Sets the bound of the subvolume whose root `dir` is; `None` lifts it.
pub(crate) fn set(dir: BorrowedFd<'_>, bounds: &Bounds) -> Result<()> {
    if bounds.inodes.is_some() {
        return Err(unsupported(
            "btrfs cannot bound the number of inodes",
            "use a project on ext4 or xfs, or an ext4 image",
        ));
    }
    let dir = opened(dir)?;
    let limit = limit(subvolume(dir.as_fd())?, bounds.bytes);
    sys::limit(dir.as_fd(), &limit).map_err(|errno| Error::os("ioctl(BTRFS_IOC_QGROUP_LIMIT)", errno))
}

/// What the subvolume refers to and has reserved, as far as the kernel has counted it: for what was written just now, after
/// the next commit (30 s at most) where /sys is not mounted.
pub(crate) fn used(dir: BorrowedFd<'_>) -> Result<Used> {
    let dir = opened(dir)?;
    let dir = dir.as_fd();
    let id = subvolume(dir)?;
    let Some(info) = item(dir, (0, QGROUP_INFO, id))? else {
        return Err(
            Error::new(ErrorKind::NotFound, format!("the subvolume {id} has no qgroup")).with_errno(libc::ENOENT)
        );
    };
    let bound = bound(dir, id)?;
    let bytes = counted_now(dir, id).unwrap_or_else(|| number(&info, 1));
    Ok(Used { bytes, inodes: 0, bytes_max: bound, inodes_max: None })
}

fn bound(dir: BorrowedFd<'_>, id: u64) -> Result<Option<u64>> {
    let limit = item(dir, (0, QGROUP_LIMIT, id))?;
    Ok(limit.filter(|limit| number(limit, 0) & LIMIT_MAX_RFER != 0).map(|limit| number(&limit, 1)))
}

/// An extended attribute of a subvolume that a container limits: the bound that it had before, which it gets again. Who finds
/// it there while nobody has the directory's lock comes after a keeper that was killed.
pub(crate) const FORMER: &CStr = c"trusted.ringfence.qgroup";

/// The value of [`FORMER`] for a bound.
pub(crate) fn former_text(bound: Option<u64>) -> String {
    bound.map_or("none".to_owned(), |bytes| bytes.to_string())
}

/// The bound that the subvolume whose root `dir` is has while no container limits it: its administrator's.
pub(crate) fn former(dir: BorrowedFd<'_>) -> Result<Option<u64>> {
    let dir = opened(dir)?;
    let dir = dir.as_fd();
    let noted = xattr::get(dir, FORMER).ok().and_then(|value| String::from_utf8(value).ok());
    match noted.as_deref() {
        Some("none") => return Ok(None),
        Some(text) => {
            if let Ok(bytes) = text.parse() {
                return Ok(Some(bytes));
            }
        }
        None => {}
    }
    bound(dir, subvolume(dir)?)
}

/// What the limit is compared with, from /sys/fs/btrfs (Linux 5.9).
fn counted_now(dir: BorrowedFd<'_>, id: u64) -> Option<u64> {
    let (uuid, _) = sys::info(dir).ok()?;
    let mut name = String::new();
    for (i, byte) in uuid.iter().enumerate() {
        name += if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
        name += &format!("{byte:02x}");
    }
    let read = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/btrfs/{name}/qgroups/0_{id}/{file}")).ok()?.trim().parse().ok()
    };
    ["referenced", "rsv_data", "rsv_meta_pertrans", "rsv_meta_prealloc"].into_iter().map(read).sum()
}

/// The ioctl on `dir` that sets its bound, for whoever does it later: request and argument.
pub(crate) fn setting(dir: BorrowedFd<'_>, bytes: Option<u64>) -> Result<(u32, [u8; 48])> {
    let limit = limit(subvolume(opened(dir)?.as_fd())?, bytes);
    let mut bytes = [0; 48];
    for (i, value) in limit.into_iter().enumerate() {
        bytes[8 * i..8 * i + 8].copy_from_slice(&value.to_ne_bytes());
    }
    Ok((sys::IOC_QGROUP_LIMIT, bytes))
}

fn limit(subvolume: u64, bytes: Option<u64>) -> sys::QgroupLimit {
    [subvolume, LIMIT_MAX_RFER, bytes.unwrap_or(u64::MAX), 0, 0, 0]
}

fn subvolume(dir: BorrowedFd<'_>) -> Result<u64> {
    sys::subvolume(dir).map_err(|errno| Error::os("ioctl(BTRFS_IOC_INO_LOOKUP)", errno))
}

fn item(dir: BorrowedFd<'_>, key: (u64, u32, u64)) -> Result<Option<Vec<u8>>> {
    sys::item(dir, QUOTA_TREE, key).map_err(|errno| Error::os("ioctl(BTRFS_IOC_TREE_SEARCH)", errno))
}

/// The n-th 64-bit number of an item.
fn number(item: &[u8], n: usize) -> u64 {
    item.get(8 * n..8 * n + 8).map_or(0, |bytes| u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
}
