//! Process descriptors: a pid that cannot come to mean another process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;

/// pidfd_open(2), Linux 5.3.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is a new descriptor, close-on-exec by definition, that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as i32)) }
    }
}

/// pidfd_send_signal(2), Linux 5.1.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo means what kill(2) would send.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// setns(2) into several namespaces of a process at once: all of them or, with an error, none. Linux 5.8. (nix's function takes
/// descriptors of namespaces.)
pub(crate) fn join(pidfd: BorrowedFd<'_>, flags: CloneFlags) -> Result<(), Errno> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::setns(pidfd.as_raw_fd(), flags.bits()) }).map(drop)
}
