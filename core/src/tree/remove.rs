//! Removes a tree of the host, with what a container left in it for other ids of the caller.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::copy::{basename, parent};
use super::side::{Arg, Program, RENAME, Session, Side, Stat, UNLINK, Watch, checked, failed, join};
use super::{CopyProgress, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Channel, Keeper, Request};
use crate::plan::reach;
use crate::proto::{record, request};
use crate::spec::Spec;

/// As deep as descriptors are held; what is deeper is first brought up.
const DEPTH: usize = 100;
/// How often a directory in which others make new files is tried again.
const TRIES: usize = 16;

/// How to remove: [`remove_tree`].
#[derive(Default)]
pub struct RemoveOptions<'a> {
    /// After which it is given up. Default: never.
    pub timeout: Option<Duration>,
    /// Called at least every 50 ms while something is waited for, with how many entries are gone; `false` ends it (Closed with ECANCELED).
    pub progress: Option<&'a mut (dyn FnMut(&CopyProgress) -> bool + 'a)>,
}

/// Removes a file, a symbolic link or a whole tree of the host: also the files that a container of an ordinary user left there, which
/// belong to subordinate ids of that user and which it cannot remove itself. A task in the keeper's user namespace may.
///
/// No link is followed below the last directory that `path` names, and no mount is crossed: one that is met is an error with EBUSY. Others
/// may change the tree meanwhile: nothing outside of it is touched. What was removed when an error comes is gone.
///
/// # Errors
/// InvalidArgument for an empty path, `/`, and one that ends in `.` or `..`; NotFound; those of unlink(2) with field `path`; TimedOut; Closed
/// when it was cancelled.
pub fn remove_tree(path: impl AsRef<Path>, options: RemoveOptions<'_>) -> Result<()> {
    let path = checked(path.as_ref().as_os_str().as_bytes(), "path")?;
    let Some(name) = basename(path) else {
        return Err(Error::new(ErrorKind::InvalidArgument, "a path that ends in no name is not removed")
            .with_field("path")
            .with_path(String::from_utf8_lossy(path)));
    };
    let work = Work::new(options.timeout, options.progress);
    work.go_on()?;
    let here = Side::here(&work)?;
    let above = parent(path);
    let dir = here.resolve(above, libc::O_PATH | libc::O_DIRECTORY)?;
    let dir = dir.map_err(|errno| failed("open", errno, above))?;
    let stat = here.lstat(dir.fd, name)?.map_err(|errno| failed("statx", errno, path))?;
    if path.ends_with(b"/") && !stat.is_dir() {
        return Err(failed("open", libc::ENOTDIR, path));
    }
    let refused = match (Remove { side: &here, work: &work }).top(dir.fd, name, path) {
        Err(error) if matches!(error.errno(), libc::EACCES | libc::EPERM) && !nix::unistd::geteuid().is_root() => error,
        done => return done,
    };
    // What is not the caller's, or closed to it: for the keeper's user namespace both are its own.
    let Ok(there) = outer(&work) else { return Err(refused) };
    let mut p = Program::new();
    const DUPFD: i32 = libc::F_DUPFD_CLOEXEC;
    p.op((libc::SYS_fcntl, "dup"), [Arg::Fd(0), DUPFD.into(), 3.into()]);
    let outcome = there.run(&p, &[dir.raw()])?;
    outcome.check(path)?;
    let dir = there.hold(outcome.result(0) as RawFd);
    (Remove { side: &there, work: &work }).top(dir.fd, name, path)
}

/// A task with what the keeper of this user may.
fn outer<'a>(watch: &'a dyn Watch) -> Result<Side<'a>> {
    let mut refusing: Vec<Arc<Keeper>> = Vec::new();
    loop {
        let keeper = launch::acquire(&refusing)?;
        let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| Error::os("socketpair", e as i32))?;
        let (channel, answers) = Channel::pair()?;
        let (compiled, needs) = reach::files(None, false);
        let sent = Request { streams: [Some(there.as_fd()), None, None], ..Request::default() }.send(
            &keeper,
            request::CALL,
            0,
            Some(Spec::START_TIMEOUT),
            answers.as_fd(),
            None,
            &compiled,
            &needs,
        )?;
        drop::<(OwnedFd, OwnedFd)>((there, answers));
        let gone = move |failed: Option<crate::proto::Record>| match failed {
            Some(failed) if failed.kind == record::REFUSED => {
                Error::new(ErrorKind::KeeperDied, "the keeper has other rights").with_errno(libc::EPERM)
            }
            Some(failed) => launch::explain_failure(&failed, &compiled),
            None => Error::new(ErrorKind::KeeperDied, "the keeper was killed").with_errno(libc::EPIPE),
        };
        let made = match sent {
            Some(_) => Side::there(Session::new(here, channel, Box::new(gone)), watch),
            None => Err(gone(None)),
        };
        match made {
            Err(error) if error.kind() == ErrorKind::KeeperDied && refusing.len() < 3 => refusing.push(keeper),
            made => return made,
        }
    }
}

struct Remove<'r, 'a, 'w> {
    side: &'r Side<'a>,
    work: &'r Work<'w>,
}

impl Remove<'_, '_, '_> {
    fn top(&self, dir: RawFd, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = match self.side.lstat(dir, name)? {
            Ok(stat) => stat,
            Err(libc::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed("statx", errno, path)),
        };
        let above = self.side.stat(dir, path)?;
        self.entry((dir, name), path, &above, &stat, None, 0)
    }

    fn unlink(&self, dir: RawFd, name: &[u8], flags: i32) -> Result<Option<i32>> {
        let mut p = Program::new();
        let text = p.text(name);
        p.op(UNLINK, [dir.into(), text, flags.into()]);
        Ok(self.side.run(&p, &[])?.failed().map(|(_, errno)| errno))
    }

    /// `top`: the directory to which what is too deep is brought.
    fn entry(
        &self,
        (dir, name): (RawFd, &[u8]),
        path: &[u8],
        above: &Stat,
        stat: &Stat,
        top: Option<RawFd>,
        depth: usize,
    ) -> Result<()> {
        self.work.go_on_at(path)?;
        if !stat.is_dir() {
            return match self.unlink(dir, name, 0)? {
                None => {
                    self.work.made(0);
                    Ok(())
                }
                // Gone, or a directory by now, which the next look at this one finds.
                Some(libc::ENOENT | libc::EISDIR) => Ok(()),
                Some(errno) => Err(failed("unlink", errno, path)),
            };
        }
        if let Some(top) = top.filter(|_| depth >= DEPTH) {
            let mut p = Program::new();
            let new = format!(".ringfence-{:016x}", crate::quota::random());
            let (old, new) = (p.text(name), p.text(new.as_bytes()));
            p.op(RENAME, [dir.into(), old, top.into(), new, 1.into()]);
            return match self.side.run(&p, &[])?.failed() {
                None => {
                    self.work.made(0);
                    Ok(())
                }
                Some((_, libc::ENOENT)) => Ok(()),
                Some((_, errno)) => Err(failed("rename", errno, path)),
            };
        }
        if stat.mount != above.mount {
            return Err(failed("remove", libc::EBUSY, path).with_detail("something is mounted there"));
        }
        let mut tries = 0;
        loop {
            let before = self.work.progress().entries;
            {
                let opened = match self.side.open_dir(dir, name)? {
                    Ok(opened) => opened,
                    // Gone, or something else by now.
                    Err(libc::ENOENT) => return Ok(()),
                    Err(libc::ENOTDIR | libc::ELOOP) => match self.unlink(dir, name, 0)? {
                        None | Some(libc::ENOENT | libc::EISDIR) => return Ok(()),
                        Some(errno) => return Err(failed("unlink", errno, path)),
                    },
                    Err(errno) => return Err(failed("open", errno, path)),
                };
                let now = self.side.stat(opened.fd, path)?;
                if now.mount != above.mount {
                    return Err(failed("remove", libc::EBUSY, path).with_detail("something is mounted there"));
                }
                loop {
                    let found = self.side.list(opened.fd, path)?;
                    if found.is_empty() {
                        break;
                    }
                    for (name, stat) in found {
                        let top = top.unwrap_or(opened.fd);
                        self.entry((opened.fd, &name), &join(path, &name), &now, &stat, Some(top), depth + 1)?;
                    }
                }
            }
            match self.unlink(dir, name, libc::AT_REMOVEDIR)? {
                None => {
                    self.work.made(0);
                    return Ok(());
                }
                Some(libc::ENOENT | libc::ENOTDIR) => return Ok(()),
                // What was too deep is there now, or what somebody else makes.
                Some(libc::ENOTEMPTY | libc::EEXIST) if tries < TRIES => {
                    tries = if self.work.progress().entries > before { 0 } else { tries + 1 };
                    self.work.go_on_at(path)?;
                }
                Some(errno) => return Err(failed("rmdir", errno, path)),
            }
        }
    }
}
