//! Byte locks of open file descriptions (F_OFD_SETLK, Linux 3.15): they die with the last copy of the descriptor, whoever
//! holds it and however it ends, and unlike POSIX record locks they are not lost when some library closes the same file.
//! They conflict between open file descriptions only, also within one process; never within one description.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

fn lock(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

/// Takes `len` bytes from `start`. `false`: another description holds some of them.
pub(super) fn acquire(fd: impl AsFd, start: i64, len: i64) -> nix::Result<bool> {
    match fcntl(fd, FcntlArg::F_OFD_SETLK(&lock(libc::F_WRLCK, start, len))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno),
    }
}

pub(super) fn release(fd: impl AsFd, start: i64, len: i64) {
    // Cannot fail for want of anything but memory (splitting a lock); then the bytes stay taken until the file is closed.
    let _ = fcntl(fd, FcntlArg::F_OFD_SETLK(&lock(libc::F_UNLCK, start, len)));
}

/// Some part (start, length) of `len` bytes from `start` that another description holds; which one is up to the kernel.
pub(super) fn conflict(fd: impl AsFd, start: i64, len: i64) -> nix::Result<Option<(i64, i64)>> {
    let mut found = lock(libc::F_WRLCK, start, len);
    fcntl(fd, FcntlArg::F_OFD_GETLK(&mut found))?;
    if i32::from(found.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let end = if found.l_len == 0 { i64::MAX } else { found.l_start + found.l_len };
    let (from, to) = (found.l_start.max(start), end.min(start + len));
    Ok(Some((from, to - from)))
}
