//! Namespace descriptors: ioctl_nsfs(2), and include/uapi/linux/nsfs.h for what is newer than that page.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::spec::NamespaceKind;

const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;
const NS_GET_MNTNS_ID: u32 = 0x8008_b705;
const NS_GET_PID_FROM_PIDNS: u32 = 0x8004_b706;
const NS_GET_PID_IN_PIDNS: u32 = 0x8004_b708;
const NS_GET_ID: u32 = 0x8008_b70d;

/// An ioctl whose argument is a number, or that takes none.
fn number(fd: BorrowedFd<'_>, request: u32, argument: usize) -> io::Result<i32> {
    // SAFETY: no pointers; files that are no namespaces answer ENOTTY, as these do to what the kernel does not know.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The kind of a namespace descriptor as its CLONE_NEW* flag (Linux 4.11); `None`: it is not one.
pub(crate) fn namespace_type(fd: BorrowedFd<'_>) -> Option<u64> {
    number(fd, NS_GET_NSTYPE, 0).ok().filter(|flag| *flag > 0).map(|flag| flag as u32 as u64)
}

fn related(fd: BorrowedFd<'_>, request: u32) -> io::Result<OwnedFd> {
    let new = number(fd, request, 0)?;
    // SAFETY: these two requests answer with a new descriptor (close-on-exec), which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// The user namespace that owns it (Linux 4.9). EPERM: it is above the caller's, or there is none.
pub(crate) fn owner(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(fd, NS_GET_USERNS)
}

/// The parent of a user or pid namespace (Linux 4.9). EPERM: it is above the caller's, or there is none.
pub(crate) fn parent(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(fd, NS_GET_PARENT)
}

/// Who made a user namespace (Linux 4.11).
pub(crate) fn owner_uid(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: the kernel writes one uid.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(uid) }
}

/// The kernel's number of a namespace, never given twice: of every kind from Linux 6.18 on, of mount namespaces since 6.11.
pub(crate) fn id(fd: BorrowedFd<'_>) -> Option<u64> {
    [NS_GET_ID, NS_GET_MNTNS_ID].into_iter().find_map(|request| {
        let mut id = 0u64;
        // SAFETY: the kernel writes one u64, or answers ENOTTY or EINVAL.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut id) };
        (result >= 0).then_some(id)
    })
}

/// The number that a task of the caller's pid namespace has in that one. ENOTTY: the kernel is older than 6.11.
pub(crate) fn pid_in(fd: BorrowedFd<'_>, pid: i32) -> io::Result<i32> {
    number(fd, NS_GET_PID_IN_PIDNS, pid as usize)
}

/// The number that a task of that pid namespace has in the caller's. ENOTTY: the kernel is older than 6.11.
pub(crate) fn pid_from(fd: BorrowedFd<'_>, pid: i32) -> io::Result<i32> {
    number(fd, NS_GET_PID_FROM_PIDNS, pid as usize)
}

/// The namespace of the process behind a pidfd (Linux 6.11). ENOTTY or EINVAL: the kernel is older, or this is no pidfd; ESRCH:
/// the process has ended.
pub(crate) fn of_pidfd(pidfd: BorrowedFd<'_>, kind: NamespaceKind) -> io::Result<OwnedFd> {
    // include/uapi/linux/pidfd.h
    related(
        pidfd,
        match kind {
            NamespaceKind::Cgroup => 0xff01,
            NamespaceKind::Ipc => 0xff02,
            NamespaceKind::Mnt => 0xff03,
            NamespaceKind::Net => 0xff04,
            NamespaceKind::Pid => 0xff05,
            NamespaceKind::Time => 0xff07,
            NamespaceKind::User => 0xff09,
            NamespaceKind::Uts => 0xff0a,
        },
    )
}

/// Opens a path below a directory as its root with O_PATH, without asking any file system: what is not in the kernel's cache of
/// names (mount points always are), or belongs to a file system that wants to be asked (a dead server's), is EAGAIN.
pub(crate) fn open_cached(root: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_IN_ROOT: u64 = 0x10;
    const RESOLVE_CACHED: u64 = 0x20;
    let how = [(libc::O_PATH | libc::O_CLOEXEC) as u64, 0, RESOLVE_NO_MAGICLINKS | RESOLVE_IN_ROOT | RESOLVE_CACHED];
    // SAFETY: a C string, and three words: the struct open_how of Linux 5.6. The result is a new descriptor.
    unsafe {
        let size = size_of_val(&how);
        let fd = libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), how.as_ptr(), size);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}
