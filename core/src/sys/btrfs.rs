//! ioctls of btrfs (include/uapi/linux/btrfs.h): subvolumes, items of its trees, qgroups, devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::task::call;

/// The block of most of its ioctls.
const BLOCK: usize = 4096;

/// BTRFS_IOC_QGROUP_LIMIT; its argument is a [`QgroupLimit`].
pub(crate) const IOC_QGROUP_LIMIT: u32 = 0x8030_942b;

/// struct btrfs_ioctl_qgroup_limit_args: the qgroup, which limits are set (1: referenced bytes), then the limits; all ones
/// lift one.
pub(crate) type QgroupLimit = [u64; 6];

/// # Safety
/// `argument` is what the request expects: valid for all that it reads and writes.
unsafe fn ioctl(fd: BorrowedFd<'_>, request: u32, argument: usize) -> Result<usize, i32> {
    // SAFETY: the caller's promise.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, request as usize, argument]) }
}

fn number(block: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|i| block[at + i]))
}

/// The id of the subvolume that an open file is in (BTRFS_IOC_INO_LOOKUP of its first inode).
pub(crate) fn subvolume(fd: BorrowedFd<'_>) -> Result<u64, i32> {
    const IOC_INO_LOOKUP: u32 = 0xd000_9412;
    const FIRST_FREE_OBJECTID: u64 = 256;
    let mut block = [0u8; BLOCK];
    block[8..16].copy_from_slice(&FIRST_FREE_OBJECTID.to_ne_bytes());
    // SAFETY: struct btrfs_ioctl_ino_lookup_args is one block, which the kernel reads and writes.
    unsafe { ioctl(fd, IOC_INO_LOOKUP, &raw mut block as usize) }?;
    Ok(number(&block, 0))
}

/// One item of a tree (BTRFS_IOC_TREE_SEARCH), in the byte order of the disk. ENOENT: there is no such tree.
pub(crate) fn item(
    fd: BorrowedFd<'_>,
    tree: u64,
    (object, kind, offset): (u64, u32, u64),
) -> Result<Option<Vec<u8>>, i32> {
    const IOC_TREE_SEARCH: u32 = 0xd000_9411;
    /// struct btrfs_ioctl_search_key, and struct btrfs_ioctl_search_header.
    const KEY: usize = 104;
    const HEADER: usize = 32;
    let mut block = [0u8; BLOCK];
    for (i, value) in [tree, object, object, offset, offset, 0, u64::MAX].into_iter().enumerate() {
        block[8 * i..8 * i + 8].copy_from_slice(&value.to_ne_bytes());
    }
    for (i, value) in [kind, kind, 1].into_iter().enumerate() {
        block[56 + 4 * i..60 + 4 * i].copy_from_slice(&value.to_ne_bytes());
    }
    // SAFETY: struct btrfs_ioctl_search_args is one block, which the kernel reads and writes.
    unsafe { ioctl(fd, IOC_TREE_SEARCH, &raw mut block as usize) }?;
    // The low half of the two: how many were found.
    if number(&block, 64) as u32 == 0 {
        return Ok(None);
    }
    let length = (number(&block, KEY + 24) >> 32) as usize;
    Ok(block.get(KEY + HEADER..KEY + HEADER + length).map(<[u8]>::to_vec))
}

/// Sets or lifts limits of a qgroup.
pub(crate) fn limit(fd: BorrowedFd<'_>, limit: &QgroupLimit) -> Result<(), i32> {
    // SAFETY: the kernel reads one struct btrfs_ioctl_qgroup_limit_args.
    unsafe { ioctl(fd, IOC_QGROUP_LIMIT, std::ptr::from_ref(limit) as usize) }.map(drop)
}

/// The id of the file system, which names its directory in /sys/fs/btrfs, and the number of its devices.
pub(crate) fn info(fd: BorrowedFd<'_>) -> Result<([u8; 16], u64), i32> {
    const IOC_FS_INFO: u32 = 0x8400_941f;
    let mut info = [0u8; 1024];
    // SAFETY: struct btrfs_ioctl_fs_info_args has 1024 bytes, which the kernel writes.
    unsafe { ioctl(fd, IOC_FS_INFO, &raw mut info as usize) }?;
    Ok((std::array::from_fn(|i| info[16 + i]), number(&info, 8)))
}

/// The path of a device, as it was when the file system was mounted.
pub(crate) fn device(fd: BorrowedFd<'_>, id: u64) -> Result<Vec<u8>, i32> {
    const IOC_DEV_INFO: u32 = 0xd000_941e;
    const PATH: usize = BLOCK - 1024;
    let mut block = [0u8; BLOCK];
    block[..8].copy_from_slice(&id.to_ne_bytes());
    // SAFETY: struct btrfs_ioctl_dev_info_args is one block, which the kernel reads and writes.
    unsafe { ioctl(fd, IOC_DEV_INFO, &raw mut block as usize) }?;
    Ok(block[PATH..].split(|&byte| byte == 0).next().unwrap_or_default().to_vec())
}

/// BTRFS_IOC_RESIZE: `DEVICE:BYTES`.
pub(crate) fn resize(fd: BorrowedFd<'_>, what: &str) -> Result<(), i32> {
    const IOC_RESIZE: u32 = 0x5000_9403;
    let mut block = [0u8; BLOCK];
    // The last byte stays 0.
    let length = what.len().min(BLOCK - 9);
    block[8..8 + length].copy_from_slice(&what.as_bytes()[..length]);
    // SAFETY: struct btrfs_ioctl_vol_args is one block, which the kernel reads.
    unsafe { ioctl(fd, IOC_RESIZE, &raw mut block as usize) }.map(drop)
}

/// The call that [`lift`](crate::quota::btrfs::lift) describes, for tests.
#[cfg(test)]
pub(crate) fn raw(fd: BorrowedFd<'_>, request: u32, argument: &[u8; size_of::<QgroupLimit>()]) -> Result<(), i32> {
    // SAFETY: the only request that it is called with reads so many bytes.
    unsafe { ioctl(fd, request, argument.as_ptr() as usize) }.map(drop)
}
