//! One side of a copy: the host's files, or those that a task of the keeper reaches. Both run the same programs.

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Answer, Channel, HostOnly};
use crate::proto::Record;
use crate::sys::calls::{self, FileOp, Head, ROOM, kind};
use crate::sys::files;
use crate::sys::socket::receive;

/// How long nothing is said before it is asked whether to go on.
const SLICE: Duration = Duration::from_millis(50);

/// Asked between two steps, and while one takes long.
pub(crate) trait Watch {
    /// An error ends the work.
    fn go_on(&self) -> Result<()>;
}

/// An argument of an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    Imm(u64),
    Data(usize),
    Out(usize),
    Result(usize),
    Fd(usize),
}

impl From<i32> for Arg {
    fn from(value: i32) -> Self {
        Self::Imm(value as i64 as u64)
    }
}
impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self::Imm(value.into())
    }
}
impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self::Imm(value)
    }
}

/// A program that is being written.
#[derive(Default)]
pub(crate) struct Program {
    ops: Vec<(FileOp, &'static str)>,
    data: Vec<u8>,
    room: usize,
    pass: Option<usize>,
}

impl Program {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operation; its index.
    pub fn op<const N: usize>(&mut self, (nr, name): (libc::c_long, &'static str), args: [Arg; N]) -> usize {
        let mut op = FileOp { nr: nr as u32, ..FileOp::default() };
        for (i, arg) in args.into_iter().enumerate() {
            (op.kinds[i], op.args[i]) = match arg {
                Arg::Imm(value) => (kind::IMM, value),
                Arg::Data(at) => (kind::DATA, at as u64),
                Arg::Out(at) => (kind::OUT, at as u64),
                Arg::Result(index) => (kind::RESULT, index as u64),
                Arg::Fd(index) => (kind::FD, index as u64),
            };
        }
        self.ops.push((op, name));
        self.ops.len() - 1
    }

    /// The last operation may fail.
    pub fn go_on(&mut self) {
        if let Some((op, _)) = self.ops.last_mut() {
            op.flags |= calls::GO_ON;
        }
    }

    pub fn close(&mut self, fd: Arg) {
        self.op(CLOSE, [fd]);
        if let Some((op, _)) = self.ops.last_mut() {
            op.flags |= calls::ALWAYS;
        }
    }

    /// The descriptor that the last operation made goes back.
    pub fn pass(&mut self) {
        self.pass = Some(self.ops.len() - 1);
    }

    pub fn text(&mut self, text: &[u8]) -> Arg {
        let at = self.data.len();
        self.data.extend_from_slice(text);
        self.data.push(0);
        Arg::Data(at)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Arg {
        while !self.data.len().is_multiple_of(8) {
            self.data.push(0);
        }
        let at = self.data.len();
        self.data.extend_from_slice(bytes);
        Arg::Data(at)
    }

    pub fn words(&mut self, words: &[u64]) -> Arg {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.bytes(&bytes)
    }

    /// Room for what an operation writes.
    pub fn out(&mut self, len: usize) -> Arg {
        let at = self.room;
        self.room += len.next_multiple_of(8);
        Arg::Out(at)
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    fn encode(&self) -> Vec<u8> {
        let head = Head {
            count: self.ops.len() as u32,
            room: self.room as u32,
            pass: self.pass.map_or(-1, |index| index as i32),
            pad: 0,
        };
        let data = size_of::<Head>() + self.ops.len() * size_of::<FileOp>();
        let mut request = Vec::with_capacity(data + self.data.len());
        for word in [head.count, head.room, head.pass as u32, head.pad] {
            request.extend_from_slice(&word.to_ne_bytes());
        }
        for (op, _) in &self.ops {
            request.extend_from_slice(&op.nr.to_ne_bytes());
            request.extend_from_slice(&op.flags.to_ne_bytes());
            request.extend_from_slice(&op.kinds);
            for (i, &arg) in op.args.iter().enumerate() {
                let arg = if op.kinds[i] == kind::DATA { arg + data as u64 } else { arg };
                request.extend_from_slice(&arg.to_ne_bytes());
            }
        }
        request.extend_from_slice(&self.data);
        request
    }
}

/// What came of a program.
pub(crate) struct Outcome {
    answer: Vec<u8>,
    names: Vec<(&'static str, u32)>,
}

impl Outcome {
    pub fn result(&self, index: usize) -> i64 {
        let bytes = self.answer.get(index * 8..index * 8 + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(i64::from(-libc::EPROTO), i64::from_ne_bytes)
    }

    /// The operation that failed: index and errno.
    pub fn failed(&self) -> Option<(usize, i32)> {
        let counts = |index: &usize| self.names[*index].1 & (calls::GO_ON | calls::ALWAYS) == 0;
        (0..self.names.len())
            .filter(counts)
            .find_map(|index| Some((index, i32::try_from(-self.result(index)).ok().filter(|&errno| errno > 0)?)))
    }

    /// An error for the operation that failed.
    pub fn check(&self, path: &[u8]) -> Result<()> {
        match self.failed() {
            None => Ok(()),
            Some((index, errno)) => Err(self.error(index, errno, path)),
        }
    }

    pub fn error(&self, index: usize, errno: i32, path: &[u8]) -> Error {
        failed(self.names[index].0, errno, path)
    }

    pub fn out(&self, at: Arg, len: usize) -> &[u8] {
        let Arg::Out(at) = at else { return &[] };
        let from = self.names.len() * 8 + at;
        self.answer.get(from..from + len).unwrap_or(&[])
    }
}

pub(crate) fn failed(step: &str, errno: i32, path: &[u8]) -> Error {
    Error::os(step, errno).with_field("path").with_path(String::from_utf8_lossy(path))
}

/// A task of the keeper that serves.
pub(crate) struct Session {
    socket: HostOnly,
    channel: Channel,
    /// The task, as soon as it is known.
    task: Option<OwnedFd>,
    /// What it is asked has not been answered.
    busy: Cell<bool>,
    gone: Box<dyn Fn(Option<Record>) -> Error>,
}

impl Session {
    /// `channel` is that of the request that brought the other end of `socket`; `gone` says why nothing comes any more.
    pub fn new(socket: OwnedFd, channel: Channel, gone: Box<dyn Fn(Option<Record>) -> Error>) -> Self {
        Self { socket: socket.into(), channel, task: None, busy: Cell::new(false), gone }
    }

    /// Why it ended: it says so itself, unless it was killed.
    fn lost(&self) -> Error {
        match self.channel.receive(Some(Instant::now() + Duration::from_secs(1)), None) {
            Ok(Answer::Record(record, _)) if record.errno != 0 => (self.gone)(Some(record)),
            _ => (self.gone)(None),
        }
    }

    fn exchange(
        &self,
        request: &[u8],
        fds: &[RawFd],
        len: usize,
        watch: &dyn Watch,
    ) -> Result<(Vec<u8>, Option<OwnedFd>)> {
        if self.busy.replace(true) {
            return Err(Error::new(ErrorKind::Internal, "the task that serves files was left waiting"));
        }
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        let socket = self.socket.as_fd().as_raw_fd();
        loop {
            match sendmsg::<()>(socket, &[IoSlice::new(request)], control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => watch.go_on()?,
                Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => return Err(self.lost()),
                Err(errno) => return Err(Error::os("sendmsg", errno as i32)),
            }
        }
        // One more, so that an answer that is too long is not taken for the right one.
        let mut answer = vec![0; len + 1];
        loop {
            let [ready] = launch::poll([self.socket.as_fd()], Some(Instant::now() + SLICE))?;
            if !ready {
                watch.go_on()?;
                continue;
            }
            let (len, fd) = match receive(self.socket.as_fd(), &mut answer) {
                Ok(received) => received,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => continue,
                    Some(libc::ECONNRESET) => return Err(self.lost()),
                    _ => return Err(Error::io("recvmsg", &error)),
                },
            };
            if len == 0 {
                return Err(self.lost());
            }
            self.busy.set(false);
            answer.truncate(len);
            return Ok((answer, fd));
        }
    }
}

/// The task sees the end of its socket and goes. One that is at work, or held up by a file system of the container's, is ended.
impl Drop for Session {
    fn drop(&mut self) {
        if !self.socket.is_open() {
            return;
        }
        if self.busy.get()
            && let Some(task) = &self.task
        {
            let _ = crate::process::send_signal(task.as_fd(), libc::SIGKILL);
        }
        let _ = nix::sys::socket::shutdown(self.socket.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Both);
        let _ = self.channel.receive(Some(Instant::now() + Duration::from_secs(1)), None);
    }
}

enum Via {
    Here(OwnedFd),
    There(Session),
}

/// The one or the other.
pub(crate) struct Side<'a> {
    via: Via,
    /// Of the container; AT_FDCWD on the host.
    root: RawFd,
    closing: RefCell<Vec<RawFd>>,
    pub watch: &'a dyn Watch,
}

pub(crate) const OPENAT: (libc::c_long, &str) = (libc::SYS_openat, "open");
pub(crate) const OPENAT2: (libc::c_long, &str) = (libc::SYS_openat2, "open");
pub(crate) const CLOSE: (libc::c_long, &str) = (libc::SYS_close, "close");
pub(crate) const STATX: (libc::c_long, &str) = (libc::SYS_statx, "statx");
pub(crate) const GETDENTS: (libc::c_long, &str) = (libc::SYS_getdents64, "getdents64");
pub(crate) const STATFS: (libc::c_long, &str) = (libc::SYS_fstatfs, "statfs");
pub(crate) const READLINK: (libc::c_long, &str) = (libc::SYS_readlinkat, "readlink");
pub(crate) const SYMLINK: (libc::c_long, &str) = (libc::SYS_symlinkat, "symlink");
pub(crate) const MKDIR: (libc::c_long, &str) = (libc::SYS_mkdirat, "mkdir");
pub(crate) const UNLINK: (libc::c_long, &str) = (libc::SYS_unlinkat, "unlink");
pub(crate) const LINK: (libc::c_long, &str) = (libc::SYS_linkat, "link");
pub(crate) const RENAME: (libc::c_long, &str) = (libc::SYS_renameat2, "rename");
pub(crate) const CHOWN: (libc::c_long, &str) = (libc::SYS_fchownat, "chown");
pub(crate) const CHMOD: (libc::c_long, &str) = (libc::SYS_fchmod, "chmod");
pub(crate) const UTIMENS: (libc::c_long, &str) = (libc::SYS_utimensat, "utimensat");
pub(crate) const TRUNCATE: (libc::c_long, &str) = (libc::SYS_ftruncate, "truncate");
pub(crate) const COPY: (libc::c_long, &str) = (calls::COPY as libc::c_long, "copy");
pub(crate) const READ_ALL: (libc::c_long, &str) = (calls::READ_ALL as libc::c_long, "read");
pub(crate) const IS: (libc::c_long, &str) = (calls::IS as libc::c_long, "open");
pub(crate) const REOPEN: (libc::c_long, &str) = (calls::REOPEN as libc::c_long, "open");

const NO_MAGICLINKS: u64 = 2;
const IN_ROOT: u64 = 16;

impl<'a> Side<'a> {
    /// The host's files, with the rights of the calling thread.
    pub fn here(watch: &'a dyn Watch) -> Result<Self> {
        let proc = nix::fcntl::open(
            "/proc",
            nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC,
            nix::sys::stat::Mode::empty(),
        )
        .map_err(|e| Error::os("open", e as i32).with_path("/proc"))?;
        Ok(Self { via: Via::Here(proc), root: libc::AT_FDCWD, closing: RefCell::default(), watch })
    }

    pub fn there(mut session: Session, watch: &'a dyn Watch) -> Result<Self> {
        let mut p = Program::new();
        let pid = p.op((libc::SYS_getpid, "getpid"), []);
        p.op((libc::SYS_pidfd_open, "pidfd_open"), [Arg::Result(pid), 0.into()]);
        p.go_on();
        p.pass();
        let slash = p.text(b"/");
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let root = p.op(OPENAT, [libc::AT_FDCWD.into(), slash, flags.into()]);
        let (answer, task) = session.exchange(&p.encode(), &[], p.ops.len() * 8 + p.room, watch)?;
        session.task = task;
        let names = p.ops.iter().map(|(op, name)| (*name, op.flags)).collect();
        let outcome = Outcome { answer, names };
        outcome.check(b"/")?;
        let root = outcome.result(root) as RawFd;
        Ok(Self { via: Via::There(session), root, closing: RefCell::default(), watch })
    }

    pub fn is_here(&self) -> bool {
        matches!(self.via, Via::Here(_))
    }

    /// Runs a program there.
    pub fn run(&self, program: &Program, fds: &[RawFd]) -> Result<Outcome> {
        let names = program.ops.iter().map(|(op, name)| (*name, op.flags)).collect();
        let request = program.encode();
        let len = program.ops.len() * 8 + program.room;
        if request.len() > ROOM || len > ROOM {
            return Err(Error::new(ErrorKind::InvalidArgument, "a path is too long").with_errno(libc::ENAMETOOLONG));
        }
        let answer = match &self.via {
            Via::Here(proc) => {
                let mut answer = vec![0; len];
                let ran = files::run(&request, fds, &mut answer, proc.as_fd(), &mut []);
                ran.ok_or_else(|| Error::new(ErrorKind::Internal, "a program of file operations is wrong"))?;
                answer
            }
            Via::There(session) => session.exchange(&request, fds, len, self.watch)?.0,
        };
        if answer.len() != len {
            return Err(Error::new(ErrorKind::Internal, "the answer has another length than what was asked for"));
        }
        Ok(Outcome { answer, names })
    }

    /// Descriptors of the other process are closed with the next ones that are, those of this one now.
    fn close(&self, fd: RawFd) {
        let mut closing = self.closing.borrow_mut();
        closing.push(fd);
        if self.is_here() || closing.len() >= 16 {
            let mut p = Program::new();
            closing.drain(..).for_each(|fd| p.close(fd.into()));
            drop(closing);
            let alive = match &self.via {
                Via::Here(_) => true,
                Via::There(session) => !session.busy.get(),
            };
            if alive {
                let _ = self.run(&p, &[]);
            }
        }
    }

    pub fn hold(&self, fd: RawFd) -> Held<'_, 'a> {
        Held { side: self, fd }
    }

    /// A path as whoever names it means it: on the host as this thread's, in a container below its root.
    pub fn resolve(&self, path: &[u8], flags: i32) -> Result<std::result::Result<Held<'_, 'a>, i32>> {
        let mut p = Program::new();
        let text = p.text(path);
        let flags = flags | libc::O_CLOEXEC;
        if self.is_here() {
            p.op(OPENAT, [self.root.into(), text, flags.into(), 0.into()]);
        } else {
            let how = p.words(&[flags as u32 as u64, 0, IN_ROOT | NO_MAGICLINKS]);
            p.op(OPENAT2, [self.root.into(), text, how, 24.into()]);
        }
        let outcome = self.run(&p, &[])?;
        Ok(match outcome.failed() {
            Some((_, errno)) => Err(errno),
            None => Ok(self.hold(outcome.result(0) as RawFd)),
        })
    }

    /// What an open descriptor is for.
    pub fn stat(&self, fd: RawFd, path: &[u8]) -> Result<Stat> {
        let mut p = Program::new();
        let (empty, out) = (p.text(b""), p.out(Stat::LEN));
        p.op(STATX, [fd.into(), empty, libc::AT_EMPTY_PATH.into(), Stat::MASK.into(), out]);
        let outcome = self.run(&p, &[])?;
        outcome.check(path)?;
        Ok(Stat::parse(outcome.out(out, Stat::LEN)))
    }

    /// What a name stands for, itself; the errno when there is none.
    pub fn lstat(&self, dir: RawFd, name: &[u8]) -> Result<std::result::Result<Stat, i32>> {
        let mut p = Program::new();
        let (text, out) = (p.text(name), p.out(Stat::LEN));
        p.op(STATX, [dir.into(), text, libc::AT_SYMLINK_NOFOLLOW.into(), Stat::MASK.into(), out]);
        let outcome = self.run(&p, &[])?;
        Ok(match outcome.failed() {
            Some((_, errno)) => Err(errno),
            None => Ok(Stat::parse(outcome.out(out, Stat::LEN))),
        })
    }

    /// Whether an open directory is of one of the kernel's own file systems, which hold no files but views of something.
    pub fn is_view(&self, fd: RawFd, path: &[u8]) -> Result<bool> {
        // proc, sysfs, cgroup, cgroup2, devpts, mqueue, binfmt_misc, debugfs, tracefs, securityfs, bpf.
        const VIEWS: [u64; 11] = [
            0x9fa0,
            0x6265_6572,
            0x27_e0eb,
            0x6367_7270,
            0x1cd1,
            0x1980_0202,
            0x4249_4e4d,
            0x6462_6720,
            0x7472_6163,
            0x7363_6673,
            0xcafe_4a11,
        ];
        let mut p = Program::new();
        let out = p.out(120);
        p.op(STATFS, [fd.into(), out]);
        let outcome = self.run(&p, &[])?;
        outcome.check(path)?;
        let kind = outcome.out(out, 8).try_into().map_or(0, u64::from_ne_bytes);
        Ok(VIEWS.contains(&kind))
    }

    /// Opens a directory of a directory.
    pub fn open_dir(&self, dir: RawFd, name: &[u8]) -> Result<std::result::Result<Held<'_, 'a>, i32>> {
        let mut p = Program::new();
        let text = p.text(name);
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        p.op(OPENAT, [dir.into(), text, flags.into(), 0.into()]);
        let outcome = self.run(&p, &[])?;
        Ok(match outcome.failed() {
            Some((_, errno)) => Err(errno),
            None => Ok(self.hold(outcome.result(0) as RawFd)),
        })
    }

    /// The next entries of a directory with what they are; none: that was all.
    pub fn list(&self, dir: RawFd, path: &[u8]) -> Result<Vec<(Vec<u8>, Stat)>> {
        const ENTRIES: usize = 16 * 1024;
        loop {
            let mut p = Program::new();
            let out = p.out(ENTRIES);
            p.op(GETDENTS, [dir.into(), out, (ENTRIES as u64).into()]);
            let outcome = self.run(&p, &[])?;
            outcome.check(path)?;
            let len = (outcome.result(0) as usize).min(ENTRIES);
            if len == 0 {
                return Ok(Vec::new());
            }
            let names = names(outcome.out(out, len)).ok_or_else(|| {
                failed("getdents64", libc::EPROTO, path).with_detail("the file system gives names that are none")
            })?;
            let mut found = Vec::with_capacity(names.len());
            for some in names.chunks(64) {
                let mut p = Program::new();
                let mut outs = Vec::with_capacity(some.len());
                for name in some {
                    let (text, out) = (p.text(name), p.out(Stat::LEN));
                    p.op(STATX, [dir.into(), text, libc::AT_SYMLINK_NOFOLLOW.into(), Stat::MASK.into(), out]);
                    p.go_on();
                    outs.push(out);
                }
                let outcome = self.run(&p, &[])?;
                for (index, (name, out)) in some.iter().zip(outs).enumerate() {
                    match -outcome.result(index) {
                        // It was removed meanwhile.
                        errno if errno == i64::from(libc::ENOENT) => {}
                        errno if errno > 0 => return Err(failed("statx", errno as i32, &join(path, name))),
                        _ => found.push((name.clone(), Stat::parse(outcome.out(out, Stat::LEN)))),
                    }
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
}

/// An open descriptor of a side.
pub(crate) struct Held<'s, 'a> {
    side: &'s Side<'a>,
    pub fd: RawFd,
}

impl Held<'_, '_> {
    /// Of the host's side.
    pub fn raw(&self) -> RawFd {
        debug_assert!(self.side.is_here());
        self.fd
    }
}

impl Drop for Held<'_, '_> {
    fn drop(&mut self) {
        self.side.close(self.fd);
    }
}

pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut whole = path.to_vec();
    if !whole.ends_with(b"/") {
        whole.push(b'/');
    }
    whole.extend_from_slice(name);
    whole
}

/// The names of struct linux_dirent64: inode, offset, length of the entry (16 bits), type (8), name.
fn names(mut entries: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    while !entries.is_empty() {
        let len = usize::from(u16::from_ne_bytes([*entries.get(16)?, *entries.get(17)?]));
        let name = entries.get(19..len)?;
        let name = &name[..name.iter().position(|&b| b == 0)?];
        entries = &entries[len..];
        if name == b"." || name == b".." {
            continue;
        }
        // A file system can be a program of the container's own.
        if name.is_empty() || name.contains(&b'/') {
            return None;
        }
        names.push(name.to_vec());
    }
    Some(names)
}

/// What statx(2) says of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub ino: u64,
    pub size: u64,
    pub dev: (u32, u32),
    /// The mount's number, 0 where the kernel does not say (before Linux 5.8).
    pub mount: u64,
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
}

impl Stat {
    pub const LEN: usize = 256;
    /// STATX_BASIC_STATS and STATX_MNT_ID.
    pub const MASK: u32 = 0x17ff;

    fn parse(bytes: &[u8]) -> Self {
        let u32_at = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            nlink: u32_at(16),
            uid: u32_at(20),
            gid: u32_at(24),
            mode: u32_at(28) & 0xffff,
            ino: u64_at(32),
            size: u64_at(40),
            atime: (u64_at(64) as i64, u32_at(72)),
            mtime: (u64_at(112) as i64, u32_at(120)),
            dev: (u32_at(136), u32_at(140)),
            mount: u64_at(144),
        }
    }

    pub fn of(outcome: &Outcome, out: Arg) -> Self {
        Self::parse(outcome.out(out, Self::LEN))
    }

    pub fn format(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    pub fn is_dir(&self) -> bool {
        self.format() == libc::S_IFDIR
    }

    pub fn is_file(&self) -> bool {
        self.format() == libc::S_IFREG
    }

    pub fn is_symlink(&self) -> bool {
        self.format() == libc::S_IFLNK
    }

    /// For utimensat(2).
    pub fn times(&self) -> [u64; 4] {
        [self.atime.0 as u64, self.atime.1.into(), self.mtime.0 as u64, self.mtime.1.into()]
    }

    /// In words, for errors.
    pub fn what(&self) -> &'static str {
        match self.format() {
            libc::S_IFDIR => "a directory",
            libc::S_IFREG => "a file",
            libc::S_IFLNK => "a symbolic link",
            libc::S_IFIFO => "a FIFO",
            libc::S_IFSOCK => "a socket",
            libc::S_IFCHR => "a character device",
            libc::S_IFBLK => "a block device",
            _ => "something unknown",
        }
    }
}

/// A path for a system call.
pub(crate) fn checked<'p>(path: &'p [u8], field: &str) -> Result<&'p [u8]> {
    let why = if path.is_empty() {
        "is empty"
    } else if CString::new(path).is_err() {
        "has a NUL byte"
    } else if path.len() >= libc::PATH_MAX as usize {
        "is longer than a path can be"
    } else {
        return Ok(path);
    };
    Err(Error::new(ErrorKind::InvalidArgument, why).with_field(field))
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    for name in names(bytes).unwrap_or_default() {
        assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0) && name != b".." && name != b".");
    }
    if bytes.len() >= Stat::LEN {
        Stat::parse(bytes).what();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::calls::Place;

    #[test]
    fn names_that_are_none() {
        let entry = |name: &[u8]| {
            let len = (19 + name.len() + 1).next_multiple_of(8);
            let mut bytes = vec![0; len];
            bytes[16..18].copy_from_slice(&(len as u16).to_ne_bytes());
            bytes[19..19 + name.len()].copy_from_slice(name);
            bytes
        };
        let all = [entry(b"."), entry(b".."), entry(b"a\nb"), entry(b"\xff")].concat();
        assert_eq!(names(&all).unwrap(), [b"a\nb".to_vec(), b"\xff".to_vec()]);
        for hostile in [entry(b"a/b"), entry(b""), entry(b"../x"), all[..all.len() - 1].to_vec(), vec![0; 24]] {
            assert_eq!(names(&hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn no_number_but_a_descriptors_goes_back() {
        let mut program = Program::new();
        program.op((libc::SYS_lseek, "lseek"), []);
        program.pass();
        let request = program.encode();
        // SAFETY: the calls here do nothing.
        let given =
            |call| unsafe { Place { call, proc: -1, buffer: &mut [] }.run(&request, &[], &mut [0; 8]).unwrap().1 };
        assert_eq!(given(|_, _| 7), 7);
        assert_eq!(given(|_, _| -9), -1);
        assert_eq!(given(|_, _| 1 << 32 | 3), -1);
        assert_eq!(given(|_, _| 0xf700_0000), -1);
    }

    #[test]
    fn a_copy_is_no_longer_than_what_is_copied() {
        let copied = |call| {
            let mut program = Program::new();
            program.op(COPY, [3.into(), 4.into(), 0.into(), 4096.into()]);
            let mut answer = [0; 8];
            // SAFETY: the calls here do nothing.
            unsafe { Place { call, proc: -1, buffer: &mut [] }.run(&program.encode(), &[], &mut answer) }.unwrap();
            i64::from_ne_bytes(answer)
        };
        let all = copied(|nr, args| match i64::from(nr) {
            libc::SYS_lseek => i64::from(-libc::EINVAL),
            libc::SYS_copy_file_range => args[4] as i64,
            _ => 0,
        });
        assert_eq!(all, 4096);
        let more = copied(|nr, _| match i64::from(nr) {
            libc::SYS_lseek => i64::from(-libc::EINVAL),
            libc::SYS_copy_file_range => i64::MAX,
            _ => 0,
        });
        assert_eq!(more, i64::from(-libc::EIO));
    }
}
