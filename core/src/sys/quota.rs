//! Disk quota: limits of projects, users and groups, and the project ids of files.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::task::call;

/// include/uapi/linux/quota.h. Numbers of `quotactl` commands hold what is limited in their low byte.
pub(crate) const USRQUOTA: u32 = 0;
pub(crate) const GRPQUOTA: u32 = 1;
pub(crate) const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x80_0007;
const Q_SETQUOTA: u32 = 0x80_0008;
const Q_XGETQSTATV: u32 = (b'X' as u32) << 8 | 8;

/// Bits of `Dqblk::valid`.
pub(crate) const QIF_BLIMITS: u32 = 1;
pub(crate) const QIF_ILIMITS: u32 = 4;

/// struct if_dqblk. Block limits are in units of 1024 bytes, 0 is none; `space` is in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dqblk {
    pub bhardlimit: u64,
    pub bsoftlimit: u64,
    pub space: u64,
    pub ihardlimit: u64,
    pub isoftlimit: u64,
    pub inodes: u64,
    pub btime: u64,
    pub itime: u64,
    pub valid: u32,
    pub pad: u32,
}

/// The first argument of quotactl_fd(2) that sets limits.
pub(crate) const fn set_command(kind: u32) -> u32 {
    command(Q_SETQUOTA, kind)
}

const fn command(number: u32, kind: u32) -> u32 {
    number << 8 | kind
}

/// The same number on every architecture.
pub(crate) const SYS_QUOTACTL_FD: libc::c_long = 443;

/// quotactl_fd(2), Linux 5.14: of the file system that `fd` is on.
///
/// # Safety
/// `address` is what the command expects: valid for all that it reads and writes.
unsafe fn quotactl_fd(fd: BorrowedFd<'_>, command: u32, id: u32, address: usize) -> Result<(), i32> {
    let args = [fd.as_raw_fd() as usize, command as usize, id as usize, address];
    // SAFETY: the caller's promise.
    unsafe { call(SYS_QUOTACTL_FD, args) }.map(drop)
}

/// Whether the kernel has quotactl_fd at all.
pub(crate) fn has_quotactl_fd() -> bool {
    // SAFETY: no descriptor has the number -1: refused before the address is looked at.
    let refused = unsafe { call(SYS_QUOTACTL_FD, [usize::MAX, command(Q_GETQUOTA, PRJQUOTA) as usize, 0, 0]) };
    refused != Err(libc::ENOSYS)
}

/// Limits and usage of an id.
pub(crate) fn get(fd: BorrowedFd<'_>, kind: u32, id: u32) -> Result<Dqblk, i32> {
    let mut dqblk = Dqblk::default();
    // SAFETY: the kernel writes one struct if_dqblk.
    unsafe { quotactl_fd(fd, command(Q_GETQUOTA, kind), id, &raw mut dqblk as usize) }?;
    Ok(dqblk)
}

/// Sets what `dqblk.valid` names.
pub(crate) fn set(fd: BorrowedFd<'_>, kind: u32, id: u32, dqblk: &Dqblk) -> Result<(), i32> {
    // SAFETY: the kernel reads one struct if_dqblk.
    unsafe { quotactl_fd(fd, set_command(kind), id, std::ptr::from_ref(dqblk) as usize) }
}

/// What is counted and what is enforced: two bits for each of users, groups and projects (FS_QUOTA_UDQ_ACCT and so on).
/// ENOSYS: nothing is, or the file system has no quota at all.
pub(crate) fn state(fd: BorrowedFd<'_>) -> Result<u16, i32> {
    /// struct fs_quota_statv: version, pad, flags, and 160 bytes in all.
    #[repr(C)]
    struct StatV {
        version: i8,
        pad1: u8,
        flags: u16,
        rest: [u64; 19],
    }
    let mut state = StatV { version: 1, pad1: 0, flags: 0, rest: [0; 19] };
    // SAFETY: the kernel reads the version, then writes one struct of that version, which has the size of this one.
    unsafe { quotactl_fd(fd, command(Q_XGETQSTATV, USRQUOTA), 0, &raw mut state as usize) }?;
    Ok(state.flags)
}

/// New files in the directory get its project id.
pub(crate) const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// struct fsxattr.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FsXattr {
    pub xflags: u32,
    pub extsize: u32,
    pub nextents: u32,
    pub projid: u32,
    pub cowextsize: u32,
    pub pad: [u8; 8],
}

/// FS_IOC_FSGETXATTR of a regular file or directory.
pub(crate) fn get_fsxattr(fd: BorrowedFd<'_>) -> Result<FsXattr, i32> {
    const FS_IOC_FSGETXATTR: usize = 0x801c_581f;
    let mut attr = FsXattr::default();
    // SAFETY: the kernel writes one struct fsxattr; other files answer ENOTTY.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, FS_IOC_FSGETXATTR, &raw mut attr as usize]) }?;
    Ok(attr)
}

/// FS_IOC_FSSETXATTR.
pub(crate) fn set_fsxattr(fd: BorrowedFd<'_>, attr: &FsXattr) -> Result<(), i32> {
    const FS_IOC_FSSETXATTR: usize = 0x401c_5820;
    let attr = std::ptr::from_ref(attr) as usize;
    // SAFETY: the kernel reads one struct fsxattr.
    unsafe { call(libc::SYS_ioctl, [fd.as_raw_fd() as usize, FS_IOC_FSSETXATTR, attr]) }.map(drop)
}

/// struct file_attr.
#[repr(C)]
#[derive(Default)]
struct FileAttr {
    xflags: u64,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
}

/// file_getattr(2) or file_setattr(2), Linux 6.17, of a file that cannot be opened (a symbolic link, socket, FIFO or device).
fn file_attr(number: libc::c_long, dir: BorrowedFd<'_>, name: &CStr, attr: &mut FileAttr) -> Result<(), i32> {
    let [dir, name, size] = [dir.as_raw_fd() as usize, name.as_ptr() as usize, size_of::<FileAttr>()];
    let flags = libc::AT_SYMLINK_NOFOLLOW as usize;
    // SAFETY: a C string, and a struct of the size given, which the kernel writes or reads.
    unsafe { call(number, [dir, name, std::ptr::from_mut(attr) as usize, size, flags]) }.map(drop)
}

const SYS_FILE_GETATTR: libc::c_long = 468;
const SYS_FILE_SETATTR: libc::c_long = 469;

/// The project id of a file that cannot be opened.
pub(crate) fn project_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<u32, i32> {
    let mut attr = FileAttr::default();
    file_attr(SYS_FILE_GETATTR, dir, name, &mut attr)?;
    Ok(attr.projid)
}

/// Sets it.
pub(crate) fn set_project_at(dir: BorrowedFd<'_>, name: &CStr, id: u32) -> Result<(), i32> {
    let mut attr = FileAttr::default();
    file_attr(SYS_FILE_GETATTR, dir, name, &mut attr)?;
    attr.projid = id;
    file_attr(SYS_FILE_SETATTR, dir, name, &mut attr)
}

/// The call that [`lift`](crate::quota::project::lift) describes, for tests.
#[cfg(test)]
pub(crate) fn raw(fd: BorrowedFd<'_>, command: u32, id: u32, dqblk: &[u8; size_of::<Dqblk>()]) -> Result<(), i32> {
    // SAFETY: the kernel reads one struct if_dqblk.
    unsafe { quotactl_fd(fd, command, id, dqblk.as_ptr() as usize) }
}
