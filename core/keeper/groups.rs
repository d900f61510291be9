//! Removal of control groups: a container's, those that were made in it, and the directories that were made for them.

use core::ffi::CStr;

use crate::nr;
use crate::proto::MADE;
use crate::sys;

/// Calls `found` with the name of each directory in `dir`, until it says false.
pub fn each_directory(dir: i32, mut found: impl FnMut(i32, &CStr) -> bool) {
    const DIRECTORY: u8 = 4;
    let open = sys::open(dir, c".", nr::O_RDONLY) as i32;
    if open < 0 {
        return;
    }
    let mut entries = [0u64; 128];
    'all: loop {
        let filled = sys::getdents(open, &mut entries);
        if filled <= 0 {
            break;
        }
        let Some(bytes) = sys::bytes_of_all(&entries).get(..filled as usize) else { break };
        let mut at = 0;
        // struct linux_dirent64: inode and offset, 8 bytes each, length of the record, type, name with a NUL.
        while at + 19 < bytes.len() {
            let length = u16::from_ne_bytes([bytes[at + 16], bytes[at + 17]]) as usize;
            if length < 20 || at + length > bytes.len() {
                break;
            }
            let name = sys::text(&bytes[at + 19..at + length]);
            if bytes[at + 18] == DIRECTORY && name != c"." && name != c".." {
                if !found(open, name) {
                    break 'all;
                }
            }
            at += length;
        }
    }
    sys::close(open);
}

/// Removes a group and the groups in it; -EBUSY while a process is in one of them.
///
/// A container that divides its own groups can make them as deep as it likes: the way down is walked with one descriptor, not
/// with a stack, and up again by "..".
pub fn remove(dir: i32, name: &CStr) -> i64 {
    let r = sys::rmdir(dir, name);
    // Of a read-only mount the kernel says so before it looks whether there is anything to remove.
    let read_only = r == -i64::from(nr::EROFS);
    if !read_only && r != -i64::from(nr::EBUSY) {
        return r;
    }
    let group = sys::open(dir, name, nr::O_RDONLY);
    if group < 0 {
        return if group == -i64::from(nr::ENOENT) { group } else { r };
    }
    if read_only {
        sys::close(group as i32);
        return r;
    }
    let below = remove_below(group as i32);
    if below < 0 { below } else { sys::rmdir(dir, name) }
}

/// Removes all groups in one, whose descriptor is closed; 0, or the error of one that cannot be removed.
fn remove_below(mut group: i32) -> i64 {
    let busy = -i64::from(nr::EBUSY);
    let mut depth = 0u64;
    let result = loop {
        // Up to the first that has groups inside: those first, the others when it is gone.
        let mut inside = Name::default();
        let mut failed = 0;
        each_directory(group, |group, name| {
            let r = sys::rmdir(group, name);
            if r == busy {
                inside.set(name);
            } else if r < 0 && r != -i64::from(nr::ENOENT) {
                failed = r;
            }
            r != busy
        });
        if failed < 0 && inside.0[0] == 0 {
            break failed;
        }
        if inside.0[0] == 0 {
            if depth == 0 {
                break 0;
            }
            depth -= 1;
            let above = sys::open(group, c"..", nr::O_RDONLY);
            if above < 0 {
                break above;
            }
            sys::close(group);
            group = above as i32;
            continue;
        }
        let next = sys::open(group, sys::text(&inside.0), nr::O_RDONLY);
        if next < 0 {
            // Gone meanwhile.
            if next == -i64::from(nr::ENOENT) {
                continue;
            }
            break next;
        }
        let mut empty = true;
        each_directory(next as i32, |_, _| {
            empty = false;
            false
        });
        if empty {
            // Not for the groups in it: there are processes.
            sys::close(next as i32);
            break busy;
        }
        sys::close(group);
        group = next as i32;
        depth += 1;
    };
    sys::close(group);
    result
}

/// The name of a directory with its NUL.
struct Name([u8; 256]);

impl Default for Name {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Name {
    fn set(&mut self, name: &CStr) {
        let name = name.to_bytes_with_nul();
        if let Some(to) = self.0.get_mut(..name.len()) {
            to.copy_from_slice(name);
        }
    }
}

/// The directories in which groups are made are not left behind either: those that the library made are marked with their
/// name. The kernel keeps one in which somebody has groups; a host that finds its directory removed makes it anew.
pub fn remove_made(mut dir: i32) {
    loop {
        let mut name = [0u8; 256];
        let marked = MADE.iter().any(|mark| sys::getxattr(dir, mark, &mut name[..255]) > 0);
        if !marked || name.contains(&b'/') {
            return;
        }
        let above = sys::open(dir, c"..", nr::O_RDONLY);
        if above < 0 {
            return;
        }
        // Somebody may have removed it already, and not the one above.
        let removed = sys::rmdir(above as i32, sys::text(&name));
        if removed < 0 && removed != -i64::from(nr::ENOENT) {
            return;
        }
        dir = above as i32;
    }
}
