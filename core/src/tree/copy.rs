//! Copies a file or a tree from one side to the other.
//!
//! Below what the caller named, everything is reached by one name in an open directory, and no symbolic link is followed, on either
//! side: not the container's on the way out, and not one that an earlier copy left at the target. What changes meanwhile is looked at
//! again; what keeps changing is an error.

use std::collections::{HashMap, HashSet};
use std::os::fd::RawFd;

use super::side::{
    Arg, CHMOD, CHOWN, COPY, Held, IS, LINK, MKDIR, OPENAT, OPENAT2, Outcome, Program, READ_ALL, READLINK, REOPEN,
    STATX, SYMLINK, Side, Stat, UNLINK, UTIMENS, checked, failed, join,
};
use super::{Special, Work};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::calls::PORTION;

/// Directories in directories: each has a descriptor open on both sides.
pub(crate) const MAX_DEPTH: usize = 200;
/// How often an entry that is another one when it is opened is looked at again.
const TRIES: usize = 16;
/// What a file that says to be empty may have in it: those of /proc.
const UNSIZED_LIMIT: u64 = 64 << 20;
const LINK_TARGET: usize = 4096;

/// What became of an entry.
enum Done {
    Yes,
    /// It is something else by now, or gone.
    Changed,
}

pub(crate) struct Copy<'c, 'a, 'w> {
    from: &'c Side<'a>,
    to: &'c Side<'a>,
    work: &'c Work<'w>,
    /// The owner of what is made.
    owner: Option<(u32, u32)>,
    special: Special,
    /// Files with several names that were copied: where, from the directory that they were copied to.
    linked: HashMap<((u32, u32), u64), Vec<u8>>,
    top: RawFd,
    /// Mounts of the source that have files.
    mounts: HashSet<u64>,
    /// The first directory of the copy.
    made: Option<((u32, u32), u64)>,
}

impl<'c, 'a, 'w> Copy<'c, 'a, 'w> {
    pub fn new(
        from: &'c Side<'a>,
        to: &'c Side<'a>,
        work: &'c Work<'w>,
        owner: Option<(u32, u32)>,
        special: Special,
    ) -> Self {
        Self { from, to, work, owner, special, linked: HashMap::new(), top: -1, mounts: HashSet::new(), made: None }
    }

    /// `source` may lead through links. `target`: into it, if it is a directory, else it is what the copy is called.
    pub fn run(mut self, source: &[u8], target: &[u8]) -> Result<()> {
        let (source, target) = (checked(source, "source")?, checked(target, "target")?);
        let from = (self.from.resolve(source, libc::O_PATH)?)
            .map_err(|errno| failed("open", errno, source).with_field("source"))?;
        let stat = self.from.stat(from.fd, source)?;
        if !stat.is_dir() && !stat.is_file() {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("is {}", stat.what()))
                .with_field("source")
                .with_path(String::from_utf8_lossy(source))
                .with_errno(libc::EINVAL)
                .with_hint("files and directories are copied"));
        }
        // What the caller names is copied, whatever it is.
        self.mounts.insert(stat.mount);
        let named = basename(source);
        let wrong = |errno: i32, why: &str| {
            let error = Error::os("copy", errno).with_field("target").with_path(String::from_utf8_lossy(target));
            if why.is_empty() { error } else { error.with_detail(why) }
        };
        let flags = libc::O_PATH;
        let there = match self.to.resolve(target, flags)? {
            Ok(there) => {
                let stat = self.to.stat(there.fd, target)?;
                Some((there, stat))
            }
            Err(libc::ENOENT) => None,
            Err(errno) => return Err(wrong(errno, "")),
        };
        let (dir, name) = match (there, named) {
            (Some((there, at)), Some(named)) if at.is_dir() => (there, named),
            // All that is in the source, into a directory that is there.
            (Some((there, at)), None) if at.is_dir() => {
                self.top = there.fd;
                let opened = self.reopen_dir(from.fd, source)?;
                return self.entries(&opened, there.fd, &mut Vec::new(), source, target, 0);
            }
            (Some(_), _) if stat.is_dir() => return Err(wrong(libc::ENOTDIR, "the source is a directory")),
            (None, _) if target.ends_with(b"/") && !stat.is_dir() => return Err(wrong(libc::ENOENT, "")),
            _ => {
                let name = basename(target).ok_or_else(|| wrong(libc::ENOENT, ""))?;
                let above = parent(target);
                let dir = self.to.resolve(above, libc::O_PATH | libc::O_DIRECTORY)?;
                (dir.map_err(|errno| failed("open", errno, above).with_field("target"))?, name)
            }
        };
        self.top = dir.fd;
        let mut place = name.to_vec();
        if stat.is_dir() {
            let opened = self.reopen_dir(from.fd, source)?;
            self.directory(opened, (dir.fd, name), &mut place, source, target, &stat, 0)
        } else {
            match self.file(Source::Open(from.fd), (dir.fd, name), source, target, &stat)? {
                Done::Yes => Ok(()),
                Done::Changed => Err(changed(source)),
            }
        }
    }

    fn reopen_dir(&self, fd: RawFd, path: &[u8]) -> Result<Held<'c, 'a>> {
        let mut p = Program::new();
        p.op(REOPEN, [fd.into(), (libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC).into()]);
        let outcome = self.from.run(&p, &[])?;
        outcome.check(path)?;
        Ok(self.from.hold(outcome.result(0) as RawFd))
    }

    /// What is in `from`, to what is in `to`. `place`: where that is below the top.
    fn entries(
        &mut self,
        from: &Held<'_, 'a>,
        to: RawFd,
        place: &mut Vec<u8>,
        source: &[u8],
        target: &[u8],
        depth: usize,
    ) -> Result<()> {
        loop {
            let found = self.from.list(from.fd, source)?;
            if found.is_empty() {
                return Ok(());
            }
            for (name, stat) in found {
                let len = place.len();
                if len > 0 {
                    place.push(b'/');
                }
                place.extend_from_slice(&name);
                self.entry(from.fd, to, &name, place, &join(source, &name), &join(target, &name), stat, depth)?;
                place.truncate(len);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn entry(
        &mut self,
        from: RawFd,
        to: RawFd,
        name: &[u8],
        place: &mut Vec<u8>,
        source: &[u8],
        target: &[u8],
        mut stat: Stat,
        depth: usize,
    ) -> Result<()> {
        for _ in 0..TRIES {
            self.work.go_on_at(source)?;
            let done = match stat.format() {
                libc::S_IFDIR if depth + 1 >= MAX_DEPTH => {
                    return Err(Error::new(ErrorKind::Exhausted, format!("is more than {MAX_DEPTH} directories deep"))
                        .with_field("source")
                        .with_errno(libc::ELOOP)
                        .with_path(String::from_utf8_lossy(source)));
                }
                libc::S_IFDIR => match self.from.open_dir(from, name)? {
                    Ok(opened) => {
                        self.directory(opened, (to, name), place, source, target, &stat, depth + 1)?;
                        Done::Yes
                    }
                    Err(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Done::Changed,
                    Err(errno) => return Err(failed("open", errno, source)),
                },
                libc::S_IFREG if stat.nlink > 1 => {
                    let key = (stat.dev, stat.ino);
                    let first = self.linked.get(&key).cloned();
                    match first {
                        Some(first) if self.link(&first, (to, name), target)? => Done::Yes,
                        _ => {
                            let done = self.file(Source::Named(from, name), (to, name), source, target, &stat)?;
                            if matches!(done, Done::Yes) {
                                self.linked.insert(key, place.clone());
                            }
                            done
                        }
                    }
                }
                libc::S_IFREG => self.file(Source::Named(from, name), (to, name), source, target, &stat)?,
                libc::S_IFLNK => self.symlink((from, name), (to, name), source, target, &stat)?,
                _ if self.special == Special::Skip => {
                    self.work.skipped();
                    Done::Yes
                }
                _ => {
                    return Err(Error::new(ErrorKind::Unsupported, format!("is {}", stat.what()))
                        .with_field("source")
                        .with_path(String::from_utf8_lossy(source))
                        .with_hint("special: \"skip\" leaves out what is no file, directory or symbolic link"));
                }
            };
            match done {
                Done::Yes => return Ok(()),
                Done::Changed => match self.from.lstat(from, name)? {
                    Ok(now) => stat = now,
                    // As if it had gone before.
                    Err(libc::ENOENT) => return Ok(()),
                    Err(errno) => return Err(failed("statx", errno, source)),
                },
            }
        }
        Err(changed(source))
    }

    #[allow(clippy::too_many_arguments)]
    fn directory(
        &mut self,
        from: Held<'_, 'a>,
        (dir, name): (RawFd, &[u8]),
        place: &mut Vec<u8>,
        source: &[u8],
        target: &[u8],
        stat: &Stat,
        depth: usize,
    ) -> Result<()> {
        let mut p = Program::new();
        let text = p.text(name);
        p.op(MKDIR, [dir.into(), text, 0o700.into()]);
        p.go_on();
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        p.op(OPENAT, [dir.into(), text, flags.into(), 0.into()]);
        let outcome = self.to.run(&p, &[])?;
        let made = outcome.result(0);
        if made < 0 && made != -i64::from(libc::EEXIST) {
            return Err(outcome.error(0, -made as i32, target).with_field("target"));
        }
        match outcome.failed() {
            Some((_, libc::ENOTDIR | libc::ELOOP)) => {
                return Err(failed("mkdir", libc::EEXIST, target)
                    .with_field("target")
                    .with_detail("there is something else than a directory"));
            }
            Some((index, errno)) => return Err(outcome.error(index, errno, target).with_field("target")),
            None => {}
        }
        let to = self.to.hold(outcome.result(1) as RawFd);
        let key = (stat.dev, stat.ino);
        if self.made.is_none() {
            let made = self.to.stat(to.fd, target)?;
            self.made = Some((made.dev, made.ino));
        }
        if self.made == Some(key) {
            return Err(itself(target));
        }
        if self.mounts.contains(&stat.mount) || !self.from.is_view(from.fd, source)? {
            self.mounts.insert(stat.mount);
            self.entries(&from, to.fd, place, source, target, depth)?;
        }
        // Last: until now it had to be writable, and its times changed with each entry.
        let mut p = Program::new();
        self.dress(&mut p, to.fd.into(), stat);
        self.to.run(&p, &[])?.check(target).map_err(|e| e.with_field("target"))?;
        self.work.made(0);
        Ok(())
    }

    /// Owner, mode and times of an open file or directory of the target. Nobody's file becomes set-uid by being copied.
    fn dress(&self, p: &mut Program, fd: Arg, stat: &Stat) {
        if let Some((uid, gid)) = self.owner {
            let empty = p.text(b"");
            p.op(CHOWN, [fd, empty, uid.into(), gid.into(), libc::AT_EMPTY_PATH.into()]);
        }
        let sticky = if stat.is_dir() { libc::S_ISVTX } else { 0 };
        p.op(CHMOD, [fd, (stat.mode & (0o777 | sticky)).into()]);
        let times = p.words(&stat.times());
        p.op(UTIMENS, [fd, 0.into(), times, 0.into()]);
    }

    /// Removes what has the name, unless it is a directory.
    fn clear(&self, (dir, name): (RawFd, &[u8]), target: &[u8]) -> Result<()> {
        let mut p = Program::new();
        let text = p.text(name);
        p.op(UNLINK, [dir.into(), text, 0.into()]);
        let outcome = self.to.run(&p, &[])?;
        match outcome.failed() {
            None | Some((_, libc::ENOENT)) => Ok(()),
            Some((_, libc::EISDIR)) => Err(failed("copy", libc::EISDIR, target)
                .with_field("target")
                .with_detail("there is a directory, and the source is none")),
            Some((index, errno)) => Err(outcome.error(index, errno, target).with_field("target")),
        }
    }

    /// Runs what makes a name, once more when something with that name was in the way. What failed otherwise comes back.
    fn make(&self, p: &Program, fds: &[RawFd], at: (RawFd, &[u8]), target: &[u8], source: &Stat) -> Result<Outcome> {
        for _ in 0..TRIES {
            let outcome = self.to.run(p, fds)?;
            match outcome.failed() {
                Some((0, libc::EEXIST)) => {
                    // A mount of the host's own directory, seen from both sides.
                    if let Ok(there) = self.to.lstat(at.0, at.1)?
                        && (there.dev, there.ino) == (source.dev, source.ino)
                    {
                        return Err(itself(target));
                    }
                    self.clear(at, target)?;
                }
                _ => return Ok(outcome),
            }
        }
        Err(failed("copy", libc::EEXIST, target).with_field("target"))
    }

    fn file(
        &self,
        source: Source<'_>,
        at: (RawFd, &[u8]),
        source_path: &[u8],
        target: &[u8],
        stat: &Stat,
    ) -> Result<Done> {
        let (mut create, (dir, name)) = (Program::new(), at);
        let text = create.text(name);
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        create.op(OPENAT, [dir.into(), text, flags.into(), 0o600.into()]);
        let done = if self.to.is_here() {
            let made = self.make(&create, &[], at, target, stat)?;
            made.check(target).map_err(|e| e.with_field("target"))?;
            let to = self.to.hold(made.result(0) as RawFd);
            let mut p = Program::new();
            let opened = open(&mut p, &source);
            let file = Arg::Result(opened.by);
            let copied = p.len();
            if stat.size == 0 {
                p.op(READ_ALL, [file, Arg::Fd(0), UNSIZED_LIMIT.into()]);
            } else {
                p.op(COPY, [file, Arg::Fd(0), 0u64.into(), stat.size.into()]);
            }
            let more = stat.size > PORTION;
            if !more {
                p.close(file);
            }
            let outcome = self.from.run(&p, &[to.raw()])?;
            match outcome.failed() {
                Some((index, errno)) if index < copied && is_change(errno) => Done::Changed,
                Some((index, errno)) => {
                    self.clear(at, target)?;
                    return Err(outcome.error(index, errno, source_path));
                }
                None => {
                    self.limit(outcome.result(copied), stat, source_path).inspect_err(|_| {
                        let _ = self.clear(at, target);
                    })?;
                    let now = Stat::of(&outcome, opened.stat);
                    if more {
                        let file = self.from.hold(outcome.result(opened.by) as RawFd);
                        let rest = |offset: u64| {
                            let mut p = Program::new();
                            p.op(COPY, [file.fd.into(), Arg::Fd(0), offset.into(), stat.size.into()]);
                            let outcome = self.from.run(&p, &[to.raw()])?;
                            outcome.check(source_path)?;
                            Ok(outcome.result(0) as u64)
                        };
                        self.portions(outcome.result(copied) as u64, stat.size, source_path, rest).inspect_err(
                            |_| {
                                let _ = self.clear(at, target);
                            },
                        )?;
                    }
                    let mut p = Program::new();
                    self.dress(&mut p, to.fd.into(), &now);
                    self.to.run(&p, &[])?.check(target).map_err(|e| e.with_field("target"))?;
                    Done::Yes
                }
            }
        } else {
            self.file_in(&source, create, at, source_path, target)?
        };
        match done {
            Done::Yes => self.work.made(stat.size),
            Done::Changed if self.to.is_here() => self.clear(at, target)?,
            Done::Changed => {}
        }
        Ok(done)
    }

    /// The rest of a large file: `copy` goes on at an offset, and says how far it came.
    fn portions(&self, mut at: u64, end: u64, path: &[u8], copy: impl Fn(u64) -> Result<u64>) -> Result<()> {
        let mut told = 0;
        while at < end {
            self.work.copying(at - told);
            told = at;
            self.work.go_on_at(path)?;
            let reached = copy(at)?;
            if reached <= at {
                return Err(changed(path));
            }
            at = reached;
        }
        self.work.copied_before(told);
        Ok(())
    }

    fn limit(&self, copied: i64, stat: &Stat, path: &[u8]) -> Result<()> {
        if stat.size == 0 && copied as u64 > UNSIZED_LIMIT {
            let why = format!("a file without a size has more than {UNSIZED_LIMIT} bytes in it");
            return Err(Error::new(ErrorKind::Exhausted, why)
                .with_field("source")
                .with_path(String::from_utf8_lossy(path))
                .with_errno(libc::EFBIG));
        }
        Ok(())
    }

    /// The host's file into the container.
    fn file_in(
        &self,
        source: &Source<'_>,
        mut p: Program,
        at: (RawFd, &[u8]),
        source_path: &[u8],
        target: &[u8],
    ) -> Result<Done> {
        let mut o = Program::new();
        let to_open = open(&mut o, source);
        let opened = self.from.run(&o, &[])?;
        match opened.failed() {
            Some((_, errno)) if is_change(errno) => return Ok(Done::Changed),
            Some((index, errno)) => return Err(opened.error(index, errno, source_path)),
            None => {}
        }
        let file = self.from.hold(opened.result(to_open.by) as RawFd);
        let now = Stat::of(&opened, to_open.stat);
        let more = now.size > PORTION;
        let copied = p.len();
        if now.size == 0 {
            p.op(READ_ALL, [Arg::Fd(0), Arg::Result(0), UNSIZED_LIMIT.into()]);
        } else {
            p.op(COPY, [Arg::Fd(0), Arg::Result(0), 0u64.into(), now.size.into()]);
        }
        if !more {
            self.dress(&mut p, Arg::Result(0), &now);
            p.close(Arg::Result(0));
        }
        let outcome = self.make(&p, &[file.raw()], at, target, &now)?;
        let undo = |e: Error| {
            let _ = self.clear(at, target);
            e
        };
        match outcome.failed() {
            Some((0, errno)) => return Err(outcome.error(0, errno, target).with_field("target")),
            Some((index, errno)) => return Err(undo(outcome.error(index, errno, target).with_field("target"))),
            None => self.limit(outcome.result(copied), &now, source_path).map_err(undo)?,
        }
        if more {
            let to = self.to.hold(outcome.result(0) as RawFd);
            let rest = |offset: u64| {
                let mut p = Program::new();
                p.op(COPY, [Arg::Fd(0), to.fd.into(), offset.into(), now.size.into()]);
                let outcome = self.to.run(&p, &[file.raw()])?;
                outcome.check(target).map_err(|e| e.with_field("target"))?;
                Ok(outcome.result(0) as u64)
            };
            self.portions(outcome.result(copied) as u64, now.size, source_path, rest).map_err(undo)?;
            let mut p = Program::new();
            self.dress(&mut p, to.fd.into(), &now);
            self.to.run(&p, &[])?.check(target).map_err(|e| e.with_field("target"))?;
        }
        Ok(Done::Yes)
    }

    fn symlink(
        &self,
        (from, name): (RawFd, &[u8]),
        at: (RawFd, &[u8]),
        source: &[u8],
        target: &[u8],
        stat: &Stat,
    ) -> Result<Done> {
        let mut p = Program::new();
        let (text, out) = (p.text(name), p.out(LINK_TARGET));
        p.op(READLINK, [from.into(), text, out, (LINK_TARGET as u64).into()]);
        let outcome = self.from.run(&p, &[])?;
        match outcome.failed() {
            Some((_, libc::EINVAL | libc::ENOENT)) => return Ok(Done::Changed),
            Some((index, errno)) => return Err(outcome.error(index, errno, source)),
            None => {}
        }
        let leads = outcome.out(out, (outcome.result(0) as usize).min(LINK_TARGET));
        if leads.is_empty() || leads.contains(&0) || leads.len() == LINK_TARGET {
            return Err(failed("readlink", libc::EPROTO, source).with_detail("the link leads to what is no path"));
        }
        let mut p = Program::new();
        let (leads, text, (dir, _)) = (p.text(leads), p.text(at.1), at);
        p.op(SYMLINK, [leads, dir.into(), text]);
        if let Some((uid, gid)) = self.owner {
            p.op(CHOWN, [dir.into(), text, uid.into(), gid.into(), libc::AT_SYMLINK_NOFOLLOW.into()]);
        }
        let times = p.words(&stat.times());
        p.op(UTIMENS, [dir.into(), text, times, libc::AT_SYMLINK_NOFOLLOW.into()]);
        self.make(&p, &[], at, target, stat)?.check(target).map_err(|e| e.with_field("target"))?;
        self.work.made(0);
        Ok(Done::Yes)
    }

    /// One more name for what was copied before; false when that cannot be had: then it is copied once more.
    fn link(&self, first: &[u8], at: (RawFd, &[u8]), target: &[u8]) -> Result<bool> {
        const RESOLVE_NO_SYMLINKS: u64 = 4;
        const RESOLVE_BENEATH: u64 = 8;
        let mut p = Program::new();
        let dirs = match first.iter().rposition(|&b| b == b'/') {
            Some(slash) => &first[..slash],
            None => b".",
        };
        let last = &first[first.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1)..];
        if dirs.len() >= libc::PATH_MAX as usize {
            return Ok(false);
        }
        let (above, old, new) = (p.text(dirs), p.text(last), p.text(at.1));
        let how = p.words(&[
            (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64,
            0,
            RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
        ]);
        p.op(UNLINK, [at.0.into(), new, 0.into()]);
        p.go_on();
        let above = p.op(OPENAT2, [self.top.into(), above, how, 24.into()]);
        p.op(LINK, [Arg::Result(above), old, at.0.into(), new, 0.into()]);
        p.close(Arg::Result(above));
        let outcome = self.to.run(&p, &[])?;
        if outcome.result(0) == -i64::from(libc::EISDIR) {
            self.clear(at, target)?;
        }
        let done = outcome.failed().is_none();
        if done {
            self.work.made(0);
        }
        Ok(done)
    }
}

/// Where a file of the source is.
enum Source<'n> {
    Named(RawFd, &'n [u8]),
    /// An O_PATH descriptor.
    Open(RawFd),
}

/// A file that a program opens: by which operation, and where it writes what it is by then.
struct Opened {
    by: usize,
    stat: Arg,
}

/// Opens a file to read it, if it is one: nothing else is opened.
fn open(p: &mut Program, source: &Source<'_>) -> Opened {
    const READ: i32 = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let path = match source {
        Source::Open(fd) => (*fd).into(),
        Source::Named(dir, name) => {
            let text = p.text(name);
            let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            Arg::Result(p.op(OPENAT, [(*dir).into(), text, flags.into(), 0.into()]))
        }
    };
    p.op(IS, [path, libc::S_IFREG.into()]);
    let by = p.op(REOPEN, [path, READ.into()]);
    if matches!(source, Source::Named(..)) {
        p.close(path);
    }
    let (empty, stat) = (p.text(b""), p.out(Stat::LEN));
    p.op(STATX, [Arg::Result(by), empty, libc::AT_EMPTY_PATH.into(), Stat::MASK.into(), stat]);
    Opened { by, stat }
}

/// Errnos of an entry that is something else by now.
fn is_change(errno: i32) -> bool {
    matches!(errno, libc::ENOENT | libc::ESTALE | libc::ELOOP)
}

fn changed(path: &[u8]) -> Error {
    failed("copy", libc::ESTALE, path).with_detail("it changed while it was copied")
}

fn itself(path: &[u8]) -> Error {
    failed("copy", libc::EINVAL, path)
        .with_field("target")
        .with_detail("source and target are the same, or one in the other")
}

/// The name that a path ends in; none for one that ends in a dot or is the root.
pub(crate) fn basename(path: &[u8]) -> Option<&[u8]> {
    let end = path.iter().rposition(|&b| b != b'/')? + 1;
    let start = path[..end].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let name = &path[start..end];
    (name != b"." && name != b"..").then_some(name)
}

/// What stands before that name.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    match path[..end].iter().rposition(|&b| b == b'/') {
        Some(slash) => &path[..=slash],
        None => b".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_paths() {
        for (path, name, above) in [
            ("a", Some("a"), "."),
            ("/a", Some("a"), "/"),
            ("a/b", Some("b"), "a/"),
            ("a/b//", Some("b"), "a/"),
            ("/", None, "."),
            (".", None, "."),
            ("a/.", None, "a/"),
            ("a/..", None, "a/"),
            ("/.hidden", Some(".hidden"), "/"),
        ] {
            let found = (basename(path.as_bytes()), parent(path.as_bytes()));
            assert_eq!(found, (name.map(str::as_bytes), above.as_bytes()), "{path:?}");
        }
    }
}
