//! Files of a container, read, written and copied from outside.

use std::cell::RefCell;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch;
use crate::launch::facts::{self, UserFiles};
use crate::plan::reach;
use crate::proto::request;
use crate::spec::UserSpec;
use crate::tree::copy::{Copy, basename, parent};
use crate::tree::side::{
    Arg, CHMOD, CHOWN, OPENAT, Program, READ_ALL, RENAME, REOPEN, Session, Side, Stat, TRUNCATE, UNLINK, Watch,
    checked, failed,
};
use crate::tree::{CopyOptions, CopyProgress, Work};

/// How to write a file: [`Container::write`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Permissions, at most 0o7777. Default: those of the file that it replaces, else 0o644.
    pub mode: Option<u32>,
    /// As [`CopyOptions::owner`]. Default: the owner of the file that it replaces, else as there.
    pub owner: Option<String>,
}

impl Container {
    /// How many bytes [`read`](Self::read) takes unless it is told otherwise: 64 MiB.
    pub const READ_LIMIT: u64 = 64 << 20;

    /// How long [`read`](Self::read) and [`write`](Self::write) take at most, a minute: a file system of the container's own may never
    /// answer.
    pub const FILE_TIMEOUT: Duration = Duration::from_secs(60);

    /// The content of a file as the container sees it, read with the rights of its root; links lead nowhere but below its root.
    ///
    /// It neither waits nor grows without bounds: what is no regular file (a FIFO, a device, a directory) is not opened, and a file
    /// with more than `limit` bytes (`None`: [`READ_LIMIT`](Self::READ_LIMIT)) is an error. What is read is the container's word.
    ///
    /// For everybody, with a frozen container too.
    ///
    /// # Errors
    /// Those of open(2) and read(2) with field `path`; InvalidArgument for what is no file; Exhausted with EFBIG for a file above the
    /// limit; TimedOut after [`FILE_TIMEOUT`](Self::FILE_TIMEOUT); Closed.
    pub fn read(&self, path: impl AsRef<Path>, limit: Option<u64>) -> Result<Vec<u8>> {
        self.read_while(path, limit, &mut |_| true)
    }

    /// As [`read`](Self::read); `go_on` is asked at least every 50 ms, and `false` ends it (Closed with ECANCELED): a file system of the
    /// container's own may let it wait.
    ///
    /// # Errors
    /// As there.
    pub fn read_while(
        &self,
        path: impl AsRef<Path>,
        limit: Option<u64>,
        go_on: &mut dyn FnMut(&CopyProgress) -> bool,
    ) -> Result<Vec<u8>> {
        self.content_of(path.as_ref(), limit, &Work::new(Some(Self::FILE_TIMEOUT), Some(go_on)))
    }

    fn content_of(&self, path: &Path, limit: Option<u64>, work: &Work<'_>) -> Result<Vec<u8>> {
        let path = checked(path.as_os_str().as_bytes(), "path")?;
        let limit = limit.unwrap_or(Self::READ_LIMIT).min(i64::MAX as u64 - 1);
        let too_long = || {
            Error::new(ErrorKind::Exhausted, format!("has more than {limit} bytes"))
                .with_field("limit")
                .with_path(String::from_utf8_lossy(path))
                .with_errno(libc::EFBIG)
                .with_hint("a larger limit takes more")
        };
        let there = self.files(work)?;
        let file = there.resolve(path, libc::O_PATH)?.map_err(|errno| failed("open", errno, path))?;
        let stat = there.stat(file.fd, path)?;
        refuse_special(&stat, path)?;
        if stat.size > limit {
            return Err(too_long());
        }
        let mut content = memory()?;
        let mut p = Program::new();
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let open = p.op(REOPEN, [file.fd.into(), flags.into()]);
        let read = p.op(READ_ALL, [Arg::Result(open), Arg::Fd(0), limit.into()]);
        p.close(Arg::Result(open));
        let outcome = there.run(&p, &[content.as_raw_fd()])?;
        outcome.check(path)?;
        let length = outcome.result(read) as u64;
        if length > limit {
            return Err(too_long());
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize).map_err(|_| {
            Error::new(ErrorKind::Exhausted, "there is no memory for it").with_field("limit").with_errno(libc::ENOMEM)
        })?;
        let taken = content.seek(SeekFrom::Start(0)).and_then(|_| content.take(length).read_to_end(&mut bytes));
        taken.map_err(|e| Error::io("read", &e))?;
        Ok(bytes)
    }

    /// Gives a file of the container this content, and makes it if there is none (not its directories).
    ///
    /// Nobody inside sees half of it: a new file takes the place of the old one, with its mode and owner; other hard links keep the old
    /// content. Not so for a file that is reached through a symbolic link, or that is a mount: that one is emptied and written.
    /// With the rights of the container's root, and links lead nowhere but below its root. What is no regular file is not opened.
    ///
    /// # Errors
    /// Those of open(2), write(2) and rename(2) with field `path`; InvalidArgument for what is no file, a mode above 0o7777, an owner that is
    /// none; TimedOut after [`FILE_TIMEOUT`](Self::FILE_TIMEOUT); Closed.
    pub fn write(&self, path: impl AsRef<Path>, data: &[u8], options: &WriteOptions) -> Result<()> {
        self.write_while(path, data, options, &mut |_| true)
    }

    /// As [`write`](Self::write); `go_on` as for [`read_while`](Self::read_while).
    ///
    /// # Errors
    /// As there.
    pub fn write_while(
        &self,
        path: impl AsRef<Path>,
        data: &[u8],
        options: &WriteOptions,
        go_on: &mut dyn FnMut(&CopyProgress) -> bool,
    ) -> Result<()> {
        let path = checked(path.as_ref().as_os_str().as_bytes(), "path")?;
        if let Some(mode) = options.mode.filter(|&mode| mode > 0o7777) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("{mode:#o} is above 0o7777")).with_field("mode"));
        }
        let work = Work::new(Some(Self::FILE_TIMEOUT), Some(go_on));
        let owner = options.owner.as_deref().map(|owner| self.owner_inside(Some(owner), &work)).transpose()?;
        let there = self.files(&work)?;
        let Some(name) = basename(path).filter(|_| !path.ends_with(b"/")) else {
            return Err(failed("open", libc::EISDIR, path));
        };
        let above = there.resolve(parent(path), libc::O_PATH | libc::O_DIRECTORY)?;
        let dir = above.map_err(|errno| failed("open", errno, path))?;
        let before = match there.lstat(dir.fd, name)? {
            Ok(stat) if stat.is_symlink() => None,
            Ok(stat) => {
                refuse_special(&stat, path)?;
                Some(Some(stat))
            }
            Err(libc::ENOENT) => Some(None),
            Err(errno) => return Err(failed("statx", errno, path)),
        };
        let mode = |before: Option<&Stat>| options.mode.unwrap_or(before.map_or(0o644, |stat| stat.mode & 0o7777));
        if let Some(before) = before {
            let owner = match (owner, before) {
                (Some(owner), _) => owner,
                (None, Some(stat)) => (stat.uid, stat.gid),
                (None, None) => self.owner_inside(None, &work)?,
            };
            if there.replace((dir.fd, name), data, owner, mode(before.as_ref()), path)? {
                return Ok(());
            }
        }
        // Through the link, or into the mount.
        let file = there.resolve(path, libc::O_PATH)?.map_err(|errno| failed("open", errno, path))?;
        let stat = there.stat(file.fd, path)?;
        refuse_special(&stat, path)?;
        let mut p = Program::new();
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let open = p.op(REOPEN, [file.fd.into(), flags.into()]);
        p.op(TRUNCATE, [Arg::Result(open), 0u64.into()]);
        there
            .content(&mut p, open, data, |p| {
                if let Some((uid, gid)) = owner {
                    let empty = p.text(b"");
                    p.op(CHOWN, [Arg::Result(open), empty, uid.into(), gid.into(), libc::AT_EMPTY_PATH.into()]);
                }
                p.op(CHMOD, [Arg::Result(open), mode(Some(&stat)).into()]);
                p.close(Arg::Result(open));
            })?
            .check(path)
    }

    /// Copies a file or a tree of the host into the container.
    ///
    /// As `cp -a` names it: if `target` is a directory there, the copy is in it, under the last name of `source`; else `target` is what the
    /// copy is called, and what is above it has to exist. A `source` that ends in `/.` (or is `/`) stands for what is in it; a target that
    /// is there then keeps its own permissions and times. A tree is merged with a directory that is there; files and links take the place of what has their name, but not of a directory, nor
    /// a directory of something else.
    ///
    /// Permissions and times (in nanoseconds) come along, the set-uid and set-gid bits do not; extended attributes neither. Holes stay holes,
    /// several names of one file stay one file. Symbolic links are copied as such: only `source` itself may be one, or lead through some. The
    /// copy belongs to `owner`. What is below `target` is never reached through a link.
    ///
    /// Read with the rights of this thread, written with those of the container's root. What changes meanwhile is copied as it is at
    /// some moment; what is copied when an error comes stays. Memory of a tmpfs that is written counts as the caller's.
    ///
    /// # Errors
    /// Those of the system calls with field `source`, `target` or `path` and the path; InvalidArgument, Unsupported (a device, socket or
    /// FIFO), Exhausted (a tree more than 200 directories deep), TimedOut, Closed (also: cancelled).
    pub fn copy_in(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: CopyOptions<'_>,
    ) -> Result<CopyProgress> {
        self.copy((source.as_ref(), target.as_ref()), options, true)
    }

    /// Copies a file or a tree of the container to the host; names and contents as [`copy_in`](Self::copy_in) has them.
    ///
    /// What is made belongs to the caller. The container is not trusted: what it has in its tree, and whatever it changes there
    /// meanwhile, nothing outside of `target` is read or written, no link is followed but on the way to `source` below the container's
    /// root, and nothing but regular files is opened.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in), and InvalidArgument for an `owner`.
    pub fn copy_out(
        &self,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        options: CopyOptions<'_>,
    ) -> Result<CopyProgress> {
        if options.owner.is_some() {
            return Err(
                Error::new(ErrorKind::InvalidArgument, "what is copied out belongs to the caller").with_field("owner")
            );
        }
        self.copy((source.as_ref(), target.as_ref()), options, false)
    }

    fn copy(&self, (source, target): (&Path, &Path), options: CopyOptions<'_>, inwards: bool) -> Result<CopyProgress> {
        let (source, target) = (source.as_os_str().as_bytes(), target.as_os_str().as_bytes());
        checked(source, "source")?;
        checked(target, "target")?;
        let work = Work::new(options.timeout, options.progress);
        work.go_on()?;
        let owner = inwards.then(|| self.owner_inside(options.owner.as_deref(), &work)).transpose()?;
        let here = Side::here(&work)?;
        let there = self.files(&work)?;
        let (from, to) = if inwards { (&here, &there) } else { (&there, &here) };
        Copy::new(from, to, &work, owner, options.special).run(source, target)?;
        let _ = work.go_on();
        Ok(work.progress())
    }

    /// The ids of an owner inside, or of the user of the spec.
    fn owner_inside(&self, owner: Option<&str>, work: &Work<'_>) -> Result<(u32, u32)> {
        let inner = self.open()?;
        let Some(user) = owner.or(inner.spec.user.as_deref()) else { return Ok(inner.default_ids) };
        if owner.is_some() {
            UserSpec::parse(user).map_err(|why| Error::new(ErrorKind::InvalidArgument, why).with_field("owner"))?;
        }
        let databases = Databases { container: self, work, failed: RefCell::default() };
        let resolved = facts::resolve_user(Some(user), &[], inner.default_ids, &databases);
        // What could not be read is the cause, not what is missing then.
        if let Some(error) = databases.failed.into_inner() {
            return Err(error);
        }
        let (credentials, _) = resolved.map_err(|e| e.with_field("owner"))?;
        Ok((credentials.uid, credentials.gid))
    }

    /// A task in the container, outside of its control groups: it works while they are frozen.
    fn files<'a>(&self, watch: &'a dyn Watch) -> Result<Side<'a>> {
        let inner = self.open()?;
        let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| Error::os("socketpair", e as i32))?;
        let (compiled, needs) = reach::files(Some(&inner.outside_of_groups()), inner.may_setgroups);
        let given: [Option<OwnedFd>; 3] = [Some(there), None, None];
        let (_, channel) = inner.request(request::CALL, None, (&compiled, &needs), &given, None)?;
        drop(given);
        let of = inner.clone();
        let why = move |failed: Option<crate::proto::Record>| match failed {
            Some(failed) => {
                // One that is being killed fails in many ways, a moment before its end shows.
                let _ = launch::poll([of.pidfd()], Some(Instant::now() + Duration::from_millis(100)));
                of.explain(&failed, &compiled)
            }
            None => of.keeper_is_gone(),
        };
        Side::there(Session::new(here, channel, Box::new(why)), watch)
    }
}

/// /etc/passwd and /etc/group of a container that may be frozen.
struct Databases<'a, 'w> {
    container: &'a Container,
    work: &'a Work<'w>,
    failed: RefCell<Option<Error>>,
}

impl Databases<'_, '_> {
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        if self.failed.borrow().is_some() {
            return None;
        }
        match self.container.content_of(path.as_ref(), Some(16 << 20), self.work) {
            Ok(bytes) => Some(bytes),
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::ENOTDIR) => None,
            Err(error) => {
                self.failed.replace(Some(error));
                None
            }
        }
    }
}

impl UserFiles for Databases<'_, '_> {
    fn passwd(&self) -> Option<Vec<u8>> {
        self.read("/etc/passwd")
    }
    fn group(&self) -> Option<Vec<u8>> {
        self.read("/etc/group")
    }
}

impl Side<'_> {
    /// Writes content to what an operation opens, then does the rest.
    fn content(
        &self,
        p: &mut Program,
        open: usize,
        data: &[u8],
        rest: impl FnOnce(&mut Program),
    ) -> Result<crate::tree::side::Outcome> {
        let mut content = memory()?;
        let filled = content.write_all(data).and_then(|()| content.seek(SeekFrom::Start(0)));
        filled.map_err(|e| Error::io("write", &e))?;
        p.op(READ_ALL, [Arg::Fd(0), Arg::Result(open), (i64::MAX as u64 - 1).into()]);
        rest(p);
        self.run(p, &[content.as_raw_fd()])
    }

    /// A new file in the place of the old one. False: that one is a mount.
    fn replace(
        &self,
        (dir, name): (RawFd, &[u8]),
        data: &[u8],
        (uid, gid): (u32, u32),
        mode: u32,
        path: &[u8],
    ) -> Result<bool> {
        for _ in 0..16 {
            let temporary = format!(".ringfence-{:016x}", crate::quota::random());
            let mut p = Program::new();
            let text = p.text(temporary.as_bytes());
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
            let open = p.op(OPENAT, [dir.into(), text, flags.into(), 0o600.into()]);
            let mut rename = 0;
            let outcome = self.content(&mut p, open, data, |p| {
                let empty = p.text(b"");
                p.op(CHOWN, [Arg::Result(open), empty, uid.into(), gid.into(), libc::AT_EMPTY_PATH.into()]);
                p.op(CHMOD, [Arg::Result(open), mode.into()]);
                let name = p.text(name);
                rename = p.op(RENAME, [dir.into(), text, dir.into(), name, 0.into()]);
                p.close(Arg::Result(open));
            })?;
            let Some((index, errno)) = outcome.failed() else { return Ok(true) };
            if index == open && errno == libc::EEXIST {
                continue;
            }
            if index != open {
                let mut p = Program::new();
                let text = p.text(temporary.as_bytes());
                p.op(UNLINK, [dir.into(), text, 0.into()]);
                self.run(&p, &[])?;
            }
            if index == rename && errno == libc::EBUSY {
                return Ok(false);
            }
            return Err(outcome.error(index, errno, path));
        }
        Err(failed("open", libc::EEXIST, path))
    }
}

fn refuse_special(stat: &Stat, path: &[u8]) -> Result<()> {
    if stat.is_file() {
        return Ok(());
    }
    let errno = if stat.is_dir() { libc::EISDIR } else { libc::EINVAL };
    Err(Error::new(ErrorKind::InvalidArgument, format!("is {}, not a file", stat.what()))
        .with_field("path")
        .with_path(String::from_utf8_lossy(path))
        .with_errno(errno))
}

fn memory() -> Result<std::fs::File> {
    let fd = memfd_create(c"ringfence-file", MFdFlags::MFD_CLOEXEC).map_err(|e| Error::os("memfd_create", e as i32))?;
    Ok(fd.into())
}
