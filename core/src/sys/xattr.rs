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

/// Whether the access list of a file (acl(5)) has an entry for this user: then that entry alone decides.
pub(crate) fn acl_names_user(path: &CStr, uid: u32) -> bool {
    const NAME: &CStr = c"system.posix_acl_access";
    const ACL_USER: u16 = 2;
    let mut list = [0u8; 4096];
    // SAFETY: both strings end with NUL, `list` is as long as stated.
    let n = unsafe { libc::getxattr(path.as_ptr(), NAME.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
    let Some((_version, entries)) = list[..n.max(0) as usize].split_at_checked(4) else { return false };
    // struct posix_acl_xattr_entry, little-endian: tag and permissions of two bytes, the id of four.
    entries.chunks_exact(8).any(|entry| {
        u16::from_le_bytes([entry[0], entry[1]]) == ACL_USER
            && u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]) == uid
    })
}
