//! A process in a container: its pidfd, its streams, its end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{Answer, Channel, Owner};
use crate::proto::{Record, record};
use crate::sys::pidfd::pidfd_send_signal;
use crate::sys::stream;

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(i32)]
pub enum Reason {
    /// It called exit; `code` says with what.
    Exited = 1,
    /// A signal killed it; `signal` says which.
    Signaled = 2,
    /// The kernel killed it because memory ran out. Of a process in a [group](crate::Container::group) inside the container
    /// this is what the group counted, so that it is exact when the process is alone there. Of others it means that SIGKILL
    /// ended it, and that memory ran out in its container while it ran.
    OutOfMemory = 3,
    /// It was killed together with its container.
    ContainerEnded = 4,
    /// Nobody knows its status: the keeper was killed.
    Lost = 5,
    /// The container's `wall_time` was over.
    WallTime = 6,
    /// The container's `cpu_time` was used up.
    CpuTime = 7,
}

impl Reason {
    /// `exited`, `signaled`, `out_of_memory`, `container_ended`, `lost`, `wall_time`, `cpu_time`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signaled => "signaled",
            Self::OutOfMemory => "out_of_memory",
            Self::ContainerEnded => "container_ended",
            Self::Lost => "lost",
            Self::WallTime => "wall_time",
            Self::CpuTime => "cpu_time",
        }
    }

    /// From the number in a record of the keeper.
    pub(crate) fn of_limit(limit: u32) -> Option<Self> {
        match limit {
            crate::proto::limit::WALL_TIME => Some(Self::WallTime),
            crate::proto::limit::CPU_TIME => Some(Self::CpuTime),
            _ => None,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code, when it exited.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether the kernel wrote a core dump.
    pub core_dumped: bool,
    /// Why.
    pub reason: Reason,
    /// CPU time of the process and its waited-for children, microseconds; 0 when nobody could tell.
    pub user_usec: u64,
    /// CPU time in the kernel, microseconds.
    pub system_usec: u64,
    /// Largest resident set, bytes.
    pub max_rss: u64,
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }

    pub(crate) fn from_wait(status: i32) -> Self {
        let signal = status & 0x7f;
        Self {
            code: (signal == 0).then_some(status >> 8 & 0xff),
            signal: (signal != 0).then_some(signal),
            core_dumped: status & 0x80 != 0,
            reason: if signal == 0 { Reason::Exited } else { Reason::Signaled },
            user_usec: 0,
            system_usec: 0,
            max_rss: 0,
        }
    }

    fn killed(reason: Reason) -> Self {
        Self { reason, ..Self::from_wait(libc::SIGKILL) }
    }
}

impl From<&Record> for ExitStatus {
    fn from(record: &Record) -> Self {
        Self {
            user_usec: record.user_usec,
            system_usec: record.system_usec,
            max_rss: record.max_rss * 1024,
            ..Self::from_wait(record.status)
        }
    }
}

/// What a finished command wrote and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to a piped stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to a piped stderr.
    pub stderr: Vec<u8>,
}

/// Where the status comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A pipe from pid 1, or the socket of a joined process.
    Channel(Channel),
    /// A detached container's main process: the status file, once the container has ended.
    Container,
}

/// By what it is seen that memory ran out.
#[derive(Debug, Default)]
pub(crate) struct OomCount {
    /// Processes that had been killed for that when this one started.
    pub before: Option<u64>,
    /// The group in which they are counted; `None`: the whole container.
    pub sub: Option<Arc<container::Sub>>,
}

/// The host's ends of the streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub terminal: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Reading {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Of the input given to the first `communicate`.
    written: usize,
    input: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    owner: Owner,
    pid: i32,
    pidfd: OwnedFd,
    source: Source,
    container: Arc<container::Inner>,
    status: Mutex<Option<ExitStatus>>,
    oom: OomCount,
    cancel: OwnedFd,
    streams: Mutex<Streams>,
    terminal: Option<OwnedFd>,
    reading: Mutex<Reading>,
}

/// A process in a container. Cheap to clone (all clones are the same process), usable from any thread at once. In a forked
/// child of this program every call fails with [`ErrorKind::ForkedChild`].
///
/// A process handle outlives its container's handle; it keeps the container's records, not the container.
#[derive(Clone, Debug)]
pub struct Process {
    inner: Arc<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// A descriptor that becomes readable when it is written to.
pub(crate) fn event() -> Result<OwnedFd> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
    event.map(OwnedFd::from).map_err(|e| Error::os("eventfd", e as i32))
}

pub(crate) fn raise(event: &OwnedFd) {
    // A full counter is readable as well.
    let _ = nix::unistd::write(event, &1u64.to_ne_bytes());
}

/// ESRCH when it has ended.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        // A container that had ended when it was found by its name: an event stands for its pidfd.
        Err(e) if e.raw_os_error() == Some(libc::EBADF) => {
            let errno = if (0..=64).contains(&signal) { libc::ESRCH } else { libc::EINVAL };
            Err(io::Error::from_raw_os_error(errno))
        }
        other => other,
    }
}

/// The pid behind a pidfd, as this process's /proc shows it; 0 when it has been reaped already.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> i32 {
    pid_behind(pidfd).unwrap_or(0)
}

/// [`pid_of`] of what may be another kind of descriptor (`None`); -1 when the process has been reaped already, 0 when it has no
/// number here.
pub(crate) fn pid_behind(pidfd: BorrowedFd<'_>) -> Option<i32> {
    use std::io::Read;
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let mut text = [0u8; 512];
    let n = std::fs::File::open(path).and_then(|mut file| file.read(&mut text)).unwrap_or(0);
    let text = std::str::from_utf8(&text[..n]).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

impl Process {
    pub(crate) fn new(
        container: Arc<container::Inner>,
        pid: i32,
        pidfd: OwnedFd,
        source: Source,
        mut streams: Streams,
        oom: OomCount,
    ) -> Result<Self> {
        let terminal = streams.terminal.take();
        let inner = Inner {
            owner: Owner::this(),
            pid,
            pidfd,
            source,
            container,
            status: Mutex::new(None),
            oom,
            cancel: event()?,
            streams: Mutex::new(streams),
            terminal,
            reading: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its pid in the pid namespace of this program.
    pub fn pid(&self) -> i32 {
        self.inner.pid
    }

    /// A pidfd of it (see pidfd_open(2)); readable when it has ended. Borrowed from this handle.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.inner.pidfd.as_fd()
    }

    /// Readable (POLLIN or POLLHUP) when the process has ended and its status can be had without waiting.
    pub fn status_fd(&self) -> BorrowedFd<'_> {
        match &self.inner.source {
            Source::Channel(channel) => channel.as_fd(),
            Source::Container => self.inner.pidfd.as_fd(),
        }
    }

    /// Waits for its end. `None` waits for ever; `Ok(None)` means that the time passed first. Any number of threads may wait.
    ///
    /// # Errors
    /// Closed, when [`cancel_waits`](Self::cancel_waits) was called or the container's handle was closed while it waited.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        self.wait_until(crate::launch::deadline(timeout))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        let inner = &*self.inner;
        inner.owner.check()?;
        loop {
            if let Some(status) = *lock(&inner.status) {
                return Ok(Some(status));
            }
            let Source::Channel(channel) = &inner.source else {
                let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                if !inner.container.wait_end(left, Some(inner.cancel.as_fd()))? {
                    return Ok(None);
                }
                let status = inner.container.recorded_main_status();
                *lock(&inner.status) = Some(status);
                continue;
            };
            let [ready, cancelled] = crate::launch::poll([channel.as_fd(), inner.cancel.as_fd()], deadline)?;
            if !ready {
                if cancelled {
                    return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
                }
                return Ok(None);
            }
            // One thread reads the record; the others find the status or the end of the file behind it.
            let mut known = lock(&inner.status);
            if known.is_none() {
                match channel.take()? {
                    Answer::Record(record, _) if record.kind == record::EXITED => {
                        *known = Some(self.explained(ExitStatus::from(&record)));
                    }
                    Answer::End => {
                        drop(known);
                        let status = self.without_record()?;
                        lock(&inner.status).get_or_insert(status);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Nobody lived to write it: the container was killed, or its keeper.
    fn without_record(&self) -> Result<ExitStatus> {
        let ended = self.inner.container.wait_end(Some(Duration::from_secs(5)), None)?;
        let lost = !ended || self.inner.container.keeper_died();
        let status = ExitStatus::killed(if lost { Reason::Lost } else { Reason::ContainerEnded });
        Ok(if lost { status } else { self.explained(status) })
    }

    fn explained(&self, status: ExitStatus) -> ExitStatus {
        let container = &self.inner.container;
        if status.signal == Some(libc::SIGKILL) {
            if let Some(reason) = container.ended_by_time() {
                return ExitStatus { reason, ..status };
            }
            let oom = &self.inner.oom;
            if let (Some(before), Some(now)) = (oom.before, container.oom_kills(oom.sub.as_deref()))
                && now > before
            {
                return ExitStatus { reason: Reason::OutOfMemory, ..status };
            }
            if container.was_killed() {
                return ExitStatus { reason: Reason::ContainerEnded, ..status };
            }
        }
        status
    }

    /// Its status if it has ended: `wait` with a timeout of zero.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.wait(Some(Duration::ZERO))
    }

    /// Makes every wait of this process, under way on any thread or begun later, return an error of kind Closed, unless the
    /// status is known already.
    pub fn cancel_waits(&self) {
        raise(&self.inner.cancel);
    }

    /// Sends a signal to the process, by its pidfd: never to another that got its number. `Ok` when it has ended already.
    ///
    /// # Errors
    /// InvalidArgument for a number that is no signal (0..=64).
    pub fn kill(&self, signal: i32) -> Result<()> {
        self.inner.owner.check()?;
        if !(0..=64).contains(&signal) {
            return Err(Error::new(ErrorKind::InvalidArgument, format!("{signal} is no signal"))
                .with_field("signal")
                .with_errno(libc::EINVAL));
        }
        match send_signal(self.pidfd(), signal) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            Err(e) => Err(Error::io("pidfd_send_signal", &e)),
            Ok(()) => Ok(()),
        }
    }

    /// The host's end of a stream that was asked for as `pipe`; given out once.
    pub fn take_stdin(&self) -> Option<OwnedFd> {
        lock(&self.inner.streams).stdin.take()
    }

    /// As [`take_stdin`](Self::take_stdin).
    pub fn take_stdout(&self) -> Option<OwnedFd> {
        lock(&self.inner.streams).stdout.take()
    }

    /// As [`take_stdin`](Self::take_stdin).
    pub fn take_stderr(&self) -> Option<OwnedFd> {
        lock(&self.inner.streams).stderr.take()
    }

    /// The same ends, borrowed: -1 when there is none or it was taken.
    pub fn stdin_fd(&self) -> i32 {
        lock(&self.inner.streams).stdin.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// As [`stdin_fd`](Self::stdin_fd).
    pub fn stdout_fd(&self) -> i32 {
        lock(&self.inner.streams).stdout.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// As [`stdin_fd`](Self::stdin_fd).
    pub fn stderr_fd(&self) -> i32 {
        lock(&self.inner.streams).stderr.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// The host's end of the pty, when it was started with a terminal.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.inner.terminal.as_ref().map(|fd| fd.as_fd())
    }

    /// Sets the terminal's size; the foreground processes get SIGWINCH.
    pub fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        self.inner.owner.check()?;
        let terminal = self.terminal().ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the process has no terminal").with_errno(libc::ENOTTY)
        })?;
        let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        stream::set_window_size(terminal.as_fd(), &size).map_err(|e| Error::io("TIOCSWINSZ", &e))
    }

    /// Writes `input` to a piped stdin and closes it, reads piped streams to their end, waits.
    ///
    /// On a timeout the error has kind TimedOut and nothing is killed; what was read is kept for the next call (then `input`
    /// is ignored: the first call's is continued).
    pub fn communicate(&self, input: Option<&[u8]>, timeout: Option<Duration>) -> Result<Output> {
        self.inner.owner.check()?;
        let deadline = crate::launch::deadline(timeout);
        let mut reading = lock(&self.inner.reading);
        let (stdin, stdout, stderr) = {
            let streams = lock(&self.inner.streams);
            let copy = |fd: &Option<OwnedFd>| {
                fd.as_ref().map(|fd| fd.try_clone().map_err(|e| Error::io("dup", &e))).transpose()
            };
            (copy(&streams.stdin)?, copy(&streams.stdout)?, copy(&streams.stderr)?)
        };
        if reading.input.is_none() {
            reading.input = Some(input.unwrap_or_default().to_vec());
        }
        let timed_out =
            || Error::new(ErrorKind::TimedOut, "the process did not finish in time").with_errno(libc::ETIMEDOUT);
        let mut pump = Pump { stdin, stdout, stderr };
        if pump.stdin.is_some() && reading.written >= reading.input.as_ref().map_or(0, Vec::len) {
            pump.stdin = None;
            drop(self.take_stdin());
        }
        while pump.is_open() {
            if !pump.turn(&mut reading, deadline)? {
                return Err(timed_out());
            }
            if pump.stdin.is_none() {
                drop(self.take_stdin());
            }
        }
        drop(self.take_stdout());
        drop(self.take_stderr());
        let status = self.wait_until(deadline)?.ok_or_else(timed_out)?;
        Ok(Output { status, stdout: std::mem::take(&mut reading.stdout), stderr: std::mem::take(&mut reading.stderr) })
    }
}

/// The streams that are still open.
struct Pump {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Pump {
    fn is_open(&self) -> bool {
        self.stdin.is_some() || self.stdout.is_some() || self.stderr.is_some()
    }

    /// One round; false when the time has passed.
    fn turn(&mut self, reading: &mut Reading, deadline: Option<Instant>) -> Result<bool> {
        let entry = |fd: &Option<OwnedFd>, events| libc::pollfd {
            fd: fd.as_ref().map_or(-1, |fd| fd.as_raw_fd()),
            events,
            revents: 0,
        };
        let mut list =
            [entry(&self.stdin, libc::POLLOUT), entry(&self.stdout, libc::POLLIN), entry(&self.stderr, libc::POLLIN)];
        let timeout = deadline.map_or(-1, |at| {
            i32::try_from(at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        });
        match stream::poll(&mut list, timeout) {
            Ok(0) => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => return Ok(true),
            Err(error) => return Err(Error::io("poll", &error)),
            Ok(_) => {}
        }
        if list[0].revents != 0 && self.write(reading)? {
            self.stdin = None;
        }
        if list[1].revents != 0 && read_some(&self.stdout, &mut reading.stdout)? {
            self.stdout = None;
        }
        if list[2].revents != 0 && read_some(&self.stderr, &mut reading.stderr)? {
            self.stderr = None;
        }
        Ok(true)
    }

    /// True when nothing is left to write, or nobody reads.
    fn write(&mut self, reading: &mut Reading) -> Result<bool> {
        let Some(fd) = &self.stdin else { return Ok(true) };
        let input = reading.input.as_deref().unwrap_or_default();
        // A pipe that polls writable takes PIPE_BUF bytes without blocking.
        let rest = &input[reading.written.min(input.len())..];
        let part = &rest[..rest.len().min(libc::PIPE_BUF)];
        if part.is_empty() {
            return Ok(true);
        }
        match stream::write_quietly(fd.as_fd(), part) {
            Ok(n) => {
                reading.written += n;
                Ok(reading.written >= input.len())
            }
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => Ok(false),
            Err(e) => Err(Error::io("write stdin", &e)),
        }
    }
}

/// True at the end.
fn read_some(fd: &Option<OwnedFd>, into: &mut Vec<u8>) -> Result<bool> {
    let Some(fd) = fd else { return Ok(true) };
    let at = into.len();
    into.resize(at + 64 * 1024, 0);
    let read = nix::unistd::read(fd, &mut into[at..]);
    into.truncate(at + read.unwrap_or(0));
    match read {
        Ok(n) => Ok(n == 0),
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(false),
        Err(errno) => Err(Error::os("read stream", errno as i32)),
    }
}
