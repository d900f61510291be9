//! Namespace descriptors.

use std::os::fd::{AsRawFd, BorrowedFd};

/// The kind of a namespace descriptor as its CLONE_NEW* flag (ioctl_nsfs(2), Linux 4.11); `None`: it is not one.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> Option<u64> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: no pointers; other kinds of files answer ENOTTY.
    let flag = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    (flag > 0).then_some(flag as u32 as u64)
}
