//! Extended attributes of open files.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// fgetxattr(2), for values of at most 64 bytes.
pub(crate) fn get(file: impl AsFd, name: &CStr) -> io::Result<Vec<u8>> {
    let mut value = [0u8; 64];
    // SAFETY: `name` ends with NUL, `value` is as long as stated, the descriptor is borrowed for the call.
    let n = unsafe { libc::fgetxattr(file.as_fd().as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value[..n as usize].to_vec())
}

/// fsetxattr(2).
pub(crate) fn set(file: impl AsFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: `name` ends with NUL, `value` is as long as stated, the descriptor is borrowed for the call.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
