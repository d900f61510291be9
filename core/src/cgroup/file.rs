//! Control files and directories, relative to directory descriptors.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::uio::pread;
use nix::unistd::{AccessFlags, UnlinkatFlags, faccessat, read as read_fd, unlinkat, write as write_fd};

/// Longer than any control file that is read here, `cgroup.procs` excepted (see [`read`]).
pub(super) const BUFFER: usize = 4096;

pub(super) fn open_dir(at: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    openat(at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// A hierarchy's mount point; on v1 distributions like to have symbolic links there (`cpu` to `cpu,cpuacct`), but
/// mountinfo names the real place.
pub(super) fn open_mount(path: &Path) -> nix::Result<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

pub(super) fn make_dir(at: impl AsFd, name: &OsStr) -> nix::Result<()> {
    mkdirat(at, name, Mode::from_bits_truncate(0o755))
}

pub(super) fn open_file(at: impl AsFd, path: &str, access: OFlag) -> nix::Result<OwnedFd> {
    openat(at, path, access | OFlag::O_CLOEXEC | OFlag::O_NOCTTY, Mode::empty())
}

/// Whether the effective user may write it; `false` also when it does not exist.
pub(super) fn writable(at: impl AsFd, path: &str) -> nix::Result<()> {
    faccessat(at, path, AccessFlags::W_OK, AtFlags::AT_EACCESS)
}

pub(super) fn exists(at: impl AsFd, path: &str) -> bool {
    faccessat(at, path, AccessFlags::F_OK, AtFlags::empty()).is_ok()
}

/// The whole file: the kernel gives a list of pids in pages.
pub(super) fn read(at: impl AsFd, path: &str) -> nix::Result<String> {
    let fd = open_file(at, path, OFlag::O_RDONLY)?;
    let mut text = Vec::new();
    let mut buffer = [0u8; BUFFER];
    loop {
        match read_fd(&fd, &mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&text).into_owned()),
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Writes a value and gives back what the kernel made of it.
pub(super) fn write_and_read(at: impl AsFd, path: &str, value: &str) -> nix::Result<String> {
    let fd = open_file(at, path, OFlag::O_RDWR)?;
    write_all(&fd, value)?;
    let mut buffer = [0u8; 128];
    let n = pread(&fd, &mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// One write, because each write is one command to the kernel.
pub(super) fn write(at: impl AsFd, path: &str, value: &str) -> nix::Result<()> {
    write_all(&open_file(at, path, OFlag::O_WRONLY)?, value)
}

fn write_all(fd: &OwnedFd, value: &str) -> nix::Result<()> {
    loop {
        match write_fd(fd, value.as_bytes()) {
            Ok(_) => return Ok(()),
            // Lowering a memory limit reclaims, and a signal interrupts that.
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// The names of the groups in a group.
pub(super) fn sub_groups(dir: impl AsFd) -> nix::Result<Vec<CString>> {
    // A descriptor of its own, because reading moves its position.
    let mut dir = nix::dir::Dir::from_fd(open_dir(dir, Path::new("."))?)?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        let directory = matches!(entry.file_type(), Some(nix::dir::Type::Directory));
        if directory && !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes a group and what the payload made below it. A group whose last process has just been killed is busy until that
/// process is gone, so EBUSY is retried until `deadline`.
pub(super) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr, deadline: Instant) -> nix::Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
            Err(e) => return Err(e),
        }
        match open_dir(parent, Path::new(name)).and_then(|dir| remove_below(dir, deadline)) {
            // There were groups inside, and now there are none.
            Ok(true) if Instant::now() < deadline => continue,
            Ok(_) | Err(Errno::EBUSY) => {}
            Err(Errno::ENOENT | Errno::ENODEV) if Instant::now() < deadline => continue,
            Err(e) => return Err(e),
        }
        if Instant::now() >= deadline {
            return Err(Errno::EBUSY);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Removes the groups in one, however deep they are: with one descriptor, and back by "..". True: there were some.
fn remove_below(mut dir: OwnedFd, deadline: Instant) -> nix::Result<bool> {
    let (mut depth, mut any) = (0u64, false);
    loop {
        let mut busy = None;
        for child in sub_groups(&dir)? {
            any = true;
            match unlinkat(&dir, child.as_c_str(), UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // First those in it; the others when it is gone.
                Err(Errno::EBUSY | Errno::ENOTEMPTY) => {
                    busy = Some(child);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        if Instant::now() >= deadline {
            return Err(Errno::EBUSY);
        }
        match busy {
            Some(child) => {
                let below = open_dir(&dir, Path::new(OsStr::from_bytes(child.to_bytes())))?;
                if sub_groups(&below)?.is_empty() {
                    return Err(Errno::EBUSY);
                }
                dir = below;
                depth += 1;
            }
            None if depth == 0 => return Ok(any),
            None => {
                dir = open_dir(&dir, Path::new(".."))?;
                depth -= 1;
            }
        }
    }
}

/// Makes it another user's.
pub(super) fn give(at: impl AsFd, path: &str, uid: u32, gid: u32) -> nix::Result<()> {
    use nix::unistd::{Gid, Uid, fchownat};
    fchownat(at, path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// Every pid in a group and the groups below it, however deep they are: with one descriptor, and back by "..".
pub(super) fn pids(parent: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Vec<i32>> {
    let gone = |e: Errno| matches!(e, Errno::ENOENT | Errno::ENODEV);
    let mut dir = open_dir(parent, Path::new(name))?;
    let mut pids = members(&dir)?;
    let mut left = vec![sub_groups(&dir)?];
    while let Some(groups) = left.last_mut() {
        match groups.pop() {
            Some(child) => {
                let below = match open_dir(&dir, Path::new(OsStr::from_bytes(child.to_bytes()))) {
                    Err(e) if gone(e) => continue,
                    below => below?,
                };
                match members(&below).and_then(|found| Ok((found, sub_groups(&below)?))) {
                    Err(e) if gone(e) => {}
                    found => {
                        let (found, groups) = found?;
                        pids.extend(found);
                        left.push(groups);
                        dir = below;
                    }
                }
            }
            None => {
                left.pop();
                if !left.is_empty() {
                    dir = open_dir(&dir, Path::new(".."))?;
                }
            }
        }
    }
    Ok(pids)
}

fn members(dir: &OwnedFd) -> nix::Result<Vec<i32>> {
    match read(dir, "cgroup.procs") {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        // A group of threads: the processes are those of the group above.
        Err(Errno::EOPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// The value of a line `key value`.
pub(super) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A number, `None` for `max` and for what is no number.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}
