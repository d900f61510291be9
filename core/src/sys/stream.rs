//! Reading, writing and waiting without consequences for the rest of the process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// poll(2), in milliseconds; negative descriptors are passed over.
pub(crate) fn poll(list: &mut [libc::pollfd], timeout: i32) -> io::Result<usize> {
    // SAFETY: so many entries.
    let ready = unsafe { libc::poll(list.as_mut_ptr(), list.len() as libc::nfds_t, timeout) };
    if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(ready as usize) }
}

/// TIOCSWINSZ: the size of a terminal.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> io::Result<()> {
    // SAFETY: the kernel reads one winsize.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, std::ptr::from_ref(size)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// write(2) without SIGPIPE, which is the host's: blocked for this thread, and taken back if it came.
pub(crate) fn write_quietly(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the sets are initialised by sigemptyset; all pointers are to locals.
    unsafe {
        let mut pipe: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        libc::sigpending(&raw mut pending);
        let was_pending = libc::sigismember(&raw const pending, libc::SIGPIPE) == 1;
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before);
        let n = libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
        let error = io::Error::last_os_error();
        if n < 0 && error.raw_os_error() == Some(libc::EPIPE) && !was_pending {
            let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            libc::sigtimedwait(&raw const pipe, std::ptr::null_mut(), &raw const zero);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if n < 0 { Err(error) } else { Ok(n as usize) }
    }
}
