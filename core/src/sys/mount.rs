//! What a mount is, and mounts with other ids.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const OPEN_TREE_CLONE: i32 = 1;
const RECURSIVE: i32 = 0x8000;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// The same number on every architecture; libc does not have them everywhere.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)
}

/// The number of the mount that a path leads to: the one of mountinfo (Linux 5.8), or, `unique`, the one that is used once (6.8).
pub(crate) fn mount_id(path: &CStr, unique: bool) -> Result<u64, i32> {
    const STATX_MNT_ID: u32 = 0x1000;
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let wanted = if unique { STATX_MNT_ID_UNIQUE } else { STATX_MNT_ID };
    // struct statx: the mask of what is there first, the number of the mount at 144.
    let mut statx = [0u64; 32];
    // SAFETY: a NUL-ended path; the kernel writes one struct statx, of 256 bytes.
    let done = unsafe {
        let buffer = statx.as_mut_ptr();
        libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), libc::AT_NO_AUTOMOUNT, wanted, buffer)
    };
    if done < 0 {
        return Err(errno());
    }
    if statx[0] as u32 & wanted == 0 { Err(libc::ENOSYS) } else { Ok(statx[18]) }
}

/// (first id of the file system, first id that is seen by this process, count)
pub(crate) type Ranges = Vec<(u32, u32, u32)>;

/// The maps of uids and gids that the mount at a path is mounted with. ENOSYS where the kernel does not say (before Linux 6.15).
pub(crate) fn maps(path: &CStr) -> Result<(Ranges, Ranges), i32> {
    const MAPS: u64 = 0x2000 | 0x4000;
    // struct statmount is 512 bytes; texts follow it.
    const TEXTS: usize = 512;
    // struct mnt_id_req: size, 0, number, what, namespace (0: this one).
    let request = [24, mount_id(path, true)?, MAPS];
    // Twice 340 ranges of three numbers.
    let mut buffer = vec![0u64; 4096];
    // SAFETY: a struct mnt_id_req of the size that it says, and room of the size given.
    let done = unsafe {
        let size = buffer.len() * 8;
        libc::syscall(SYS_STATMOUNT, request.as_ptr(), buffer.as_mut_ptr(), size, 0)
    };
    if done < 0 {
        return Err(errno());
    }
    let bytes: Vec<u8> = buffer.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let number = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| bytes[at + i])) as usize;
    // The mask of what was written.
    if buffer[1] & MAPS != MAPS {
        return Err(libc::ENOSYS);
    }
    let ranges = |count: usize, at: usize| -> Option<Ranges> {
        let texts = bytes.get(TEXTS + number(at)..)?.split(|&byte| byte == 0).take(number(count));
        texts.map(|text| range(std::str::from_utf8(text).ok()?)).collect()
    };
    ranges(152, 156).zip(ranges(160, 164)).ok_or(libc::EINVAL)
}

fn range(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??, numbers.next()??))
}

/// Gives a detached mount the ids of a user namespace. `replace`: it may have others already; then it is a copy that is left in its place
/// (Linux 6.15).
pub(crate) fn idmap(
    tree: BorrowedFd<'_>,
    user: BorrowedFd<'_>,
    recursive: bool,
    replace: bool,
) -> Result<Option<OwnedFd>, i32> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attr = [MOUNT_ATTR_IDMAP, 0, 0, user.as_raw_fd() as u64];
    let size = std::mem::size_of_val(&attr);
    let flags = libc::AT_EMPTY_PATH | if recursive { RECURSIVE } else { 0 };
    let call = if replace { SYS_OPEN_TREE_ATTR } else { libc::SYS_mount_setattr };
    let flags = if replace { flags | OPEN_TREE_CLONE | libc::O_CLOEXEC } else { flags };
    // SAFETY: an empty NUL-ended path and a struct mount_attr of the size given; both outlive the call.
    let done = unsafe { libc::syscall(call, tree.as_raw_fd(), c"".as_ptr(), flags, attr.as_ptr(), size) };
    match done {
        0.. if replace => {
            // SAFETY: just made, nobody else's.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(done as i32) }))
        }
        0.. => Ok(None),
        _ => Err(errno()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_statmount() {
        assert_eq!(range("0 100000 65536"), Some((0, 100_000, 65_536)));
        for wrong in ["", "0 1", "0 x 1", "-1 0 1"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_number_of_a_mount_is_that_of_mountinfo() {
        let id = mount_id(c"/proc", false).expect("Linux 5.8");
        let text = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc")).expect("/proc is mounted");
        assert_eq!(line.split(' ').next(), Some(id.to_string().as_str()));
        assert_eq!(mount_id(c"/no/such", false), Err(libc::ENOENT));
    }
}
