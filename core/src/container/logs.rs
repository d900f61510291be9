//! The log of a main process: a memory file without a thread or a pipe, and readers of it, line by line.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Whence;
use once_cell::sync::OnceCell;

use super::exec::other_credentials;
use super::{Container, Inner, SHORT};
use crate::cgroup::listen;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Answer, Channel};
use crate::process;
use crate::proto::{record, request};
use crate::spec::Spec;
use crate::state::names;

/// What is read at once.
const BLOCK: usize = 64 << 10;
/// With less room a log counts as full: the buffers of most programs have this size.
const NEARLY: u64 = 8 << 10;
/// A longer line is handed out in pieces.
const LONGEST: usize = 1 << 20;
/// Without inotify: how long after a look that found nothing the next one is, from and up to.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// The file of a log, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Log(OnceCell<OwnedFd>);

impl Log {
    pub fn new(file: Option<OwnedFd>) -> Self {
        Self(file.map_or_else(OnceCell::new, OnceCell::with_value))
    }
}

/// A log: a memory file that cannot grow. What does not fit is refused to the writer (EPERM); what was written is as long as the
/// shared offset says.
///
/// The file is opened a second time: since Linux 6.14 nobody is notified of what is written to a memory file by the description
/// that memfd_create(2) gives.
pub(super) fn new_log(max: u64) -> Result<OwnedFd> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    const PAGE: u64 = 4096;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd =
        memfd_create(c"ringfence-log", flags).map_err(|e| Error::os("memfd_create", e as i32).with_field("log_max"))?;
    // In whole pages, which is what it takes.
    let size = max.next_multiple_of(PAGE);
    nix::unistd::ftruncate(&fd, size as i64).map_err(|e| Error::os("ftruncate", e as i32).with_field("log_max"))?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| Error::os("seal", e as i32).with_field("log_max"))?;
    // Where there is no /proc, readers have a clock.
    Ok(nix::fcntl::open(&*own_path(fd.as_fd()), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap_or(fd))
}

fn own_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn is_live(log: BorrowedFd<'_>) -> bool {
    // Files of any tmpfs have seals: F_SEAL_SEAL alone.
    fcntl(log, FcntlArg::F_GET_SEALS).is_ok_and(|seals| seals & libc::F_SEAL_GROW != 0)
}

/// (what was written, what fits): a live log's shared offset, a kept one's size. The offset is the program's to move.
pub(super) fn log_length(log: BorrowedFd<'_>) -> (u64, Option<u64>) {
    let size = nix::sys::stat::fstat(log).map_or(0, |stat| stat.st_size.max(0) as u64);
    if !is_live(log) {
        return (size, None);
    }
    let offset = nix::unistd::lseek(log, 0, Whence::SeekCur).unwrap_or(0);
    ((offset.max(0) as u64).min(size), Some(size))
}

fn no_log() -> Error {
    Error::new(ErrorKind::NotFound, "no stream of this container's main process is a log").with_field("stdout")
}

impl Inner {
    pub(super) fn log_file(&self) -> Result<&OwnedFd> {
        self.log.0.get_or_try_init(|| match &self.channel {
            Some(_) => Err(no_log()),
            None => self.find_log(),
        })
    }

    /// Of a container that another program started: its keeper has the file, and keeps what is in it at the end.
    fn find_log(&self) -> Result<OwnedFd> {
        let (answers, there) = Channel::pair()?;
        if self.keeper.send(request::LOG, self.key, 0, 0, &[there.as_fd()])? {
            drop(there);
            match answers.receive(Some(Instant::now() + SHORT), None)? {
                Answer::Record(answer, Some(file)) if answer.kind == record::FD => {
                    // One without a log has /dev/null there.
                    return if is_live(file.as_fd()) { Ok(file) } else { Err(no_log()) };
                }
                Answer::Record(answer, _) if answer.kind == record::REFUSED => {
                    return Err(other_credentials("the container"));
                }
                Answer::Record(..) | Answer::End => {}
                Answer::Nothing | Answer::Cancelled => {
                    return Err(Error::new(ErrorKind::TimedOut, "the keeper did not answer in time")
                        .with_errno(libc::ETIMEDOUT));
                }
            }
        }
        // It is gone, or as good as: its last word came after the log.
        self.wait_recorded_end(Some(Instant::now() + SHORT), None)?;
        let name = self.spec.name.as_deref().unwrap_or_default();
        let found = names::lookup(name)?;
        if found.data["id"] != self.id.as_str() {
            return Err(self.keeper_is_gone());
        }
        found.open_log()
    }
}

/// Whether a stream of the main process is a log.
pub(super) fn is_wanted(spec: &Spec) -> bool {
    use crate::spec::Stdio;
    let asked = |stdio: &Option<Stdio>| matches!(stdio, None | Some(Stdio::Log));
    spec.terminal.is_none() && (asked(&spec.stdout) || asked(&spec.stderr))
}

impl Container {
    /// What the main process wrote to streams that are a `log`, from byte `from` on.
    pub fn log(&self, from: u64) -> Result<Vec<u8>> {
        self.log_part(from, usize::MAX)
    }

    /// As [`log`](Self::log), at most `most` bytes.
    pub fn log_part(&self, from: u64, most: usize) -> Result<Vec<u8>> {
        let file = self.open()?.log_file()?;
        let (length, _) = log_length(file.as_fd());
        let left = usize::try_from(length.saturating_sub(from)).unwrap_or(usize::MAX);
        read_part(file, from, left.min(most))
    }

    /// Where the log ends now: how many bytes were written. The place for [`LogOptions::since`] to go on from here.
    ///
    /// The kernel keeps no time of a line, so places in a log are bytes.
    ///
    /// # Errors
    /// NotFound when no stream of the main process is a `log`; Closed.
    pub fn log_position(&self) -> Result<u64> {
        Ok(log_length(self.open()?.log_file()?.as_fd()).0)
    }

    /// Whether the log is full, or so nearly that something may have been refused: fewer than 8 KiB are left, or of a log below 32 KiB a
    /// quarter. What does not fit is refused with EPERM: the whole write on some kernels (6.12), what is too much of it on others (6.18). What was
    /// written before stays.
    ///
    /// # Errors
    /// As [`log_position`](Self::log_position).
    pub fn log_is_full(&self) -> Result<bool> {
        let inner = self.open()?;
        let (length, size) = log_length(inner.log_file()?.as_fd());
        let max = size.unwrap_or_else(|| inner.spec.log_max.unwrap_or(Spec::LOG_MAX));
        Ok(max.saturating_sub(length) < NEARLY.min(max / 4))
    }

    /// The log's file (CLOEXEC, the caller's). It is as long as `log_max`; what is written so far is as long as its offset,
    /// which is shared: use pread(2). Of a detached container that has ended it is the file that was kept, as long as what is in it.
    ///
    /// # Errors
    /// As [`log_position`](Self::log_position).
    pub fn log_fd(&self) -> Result<OwnedFd> {
        self.open()?.log_file()?.try_clone().map_err(|e| Error::io("dup", &e))
    }

    /// The log line by line: what there is, or with [`follow`](LogOptions::follow) also what will be written, to the end of the container.
    /// Works for attached and detached containers, while they run and afterwards. Any number of readers may be made.
    ///
    /// # Errors
    /// NotFound when no stream of the main process is a `log`; InvalidArgument with field `since` for a place behind `log_max`; Closed.
    pub fn logs(&self, options: &LogOptions) -> Result<LogReader> {
        LogReader::new(self.open()?, options)
    }
}

pub(super) fn read_part(file: &OwnedFd, from: u64, size: usize) -> Result<Vec<u8>> {
    let file = File::from(file.try_clone().map_err(|e| Error::io("dup", &e))?);
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(size)
        .map_err(|_| Error::new(ErrorKind::Exhausted, format!("no memory for {size} bytes of a log")))?;
    bytes.resize(size, 0);
    let mut done = 0;
    while done < size {
        match file.read_at(&mut bytes[done..], from + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("read log", &e)),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Which part of a log is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last lines, that many of those from `since` on; an incomplete one counts. Default: all.
    pub tail: Option<u64>,
    /// From this byte on: a [`Container::log_position`] or [`LogReader::position`]. Default: 0, the beginning.
    pub since: u64,
    /// Wait for what is still to be written, until the container has ended. Default: false, it is over at the place where the log
    /// ends now.
    pub follow: bool,
}

impl LogOptions {
    /// `{"tail": 50, "since": 0, "follow": true}`; all are optional.
    ///
    /// # Errors
    /// InvalidArgument with the member's name as field.
    pub fn from_json(text: &str) -> Result<Self> {
        crate::spec::log_options::log_options(text)
    }
}

/// Where the N-th last line before `end` begins, not before `since`.
pub(super) fn tail_start(file: &OwnedFd, since: u64, end: u64, lines: u64) -> Result<u64> {
    if lines == 0 {
        return Ok(end.max(since));
    }
    let mut found = 0;
    let mut to = end;
    while to > since {
        let from = since.max(to.saturating_sub(BLOCK as u64));
        let bytes = read_part(file, from, (to - from) as usize)?;
        for (i, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = from + i as u64 + 1;
            // The end of the last line begins none.
            if next == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(next);
            }
        }
        to = from;
    }
    Ok(since.min(end))
}

#[derive(Debug)]
struct State {
    /// Of the first byte of `read`.
    position: u64,
    /// What was read and not handed out.
    read: Vec<u8>,
    /// So many of those have no end of a line.
    scanned: usize,
    over: bool,
    pidfd_listed: bool,
    back_off: Duration,
}

impl State {
    /// The next whole line; with `rest`, whatever there is.
    fn cut(&mut self, rest: bool) -> Option<Vec<u8>> {
        let line = self.read[self.scanned..].iter().position(|byte| *byte == b'\n').map(|i| self.scanned + i + 1);
        let length = match line {
            Some(length) => length.min(LONGEST),
            None if self.read.len() >= LONGEST => LONGEST,
            None if rest && !self.read.is_empty() => self.read.len(),
            None => {
                self.scanned = self.read.len();
                return None;
            }
        };
        let line = self.read.drain(..length).collect();
        self.position += length as u64;
        self.scanned = 0;
        Some(line)
    }
}

struct Reading {
    container: Arc<Inner>,
    file: OwnedFd,
    /// Without `follow`: where it is over.
    until: Option<u64>,
    epoll: Epoll,
    /// Readable until a look found nothing.
    fresh: EventFd,
    changes: Option<Inotify>,
    /// In its place.
    clock: Option<TimerFd>,
    cancel: OwnedFd,
    cancelled: AtomicBool,
    state: Mutex<State>,
}

/// The lines of a log: made by [`Container::logs`](crate::Container::logs).
///
/// A line is what ends with a newline, which it has; the last may have none, and one of more than 1 MiB comes in pieces. Lines are bytes:
/// what a program wrote need not be UTF-8. What several processes write at once is in the order in which the kernel wrote it.
///
/// With [`follow`](LogOptions::follow) it waits for what is written until the container has ended and all was handed out. It learns of it by
/// inotify(7), so that nobody polls and a line is there within microseconds; where inotify has no instance left for this user, it looks
/// again 5 to 100 ms after it found nothing. It outlives the container's handle: when an attached container is closed, the rest is
/// handed out. When the handle of a detached one is closed, which goes on, calls that would have to wait fail with Closed.
///
/// A clone is the same reader. It may be used by any thread, by several at once too: each line is given to one of them. It needs
/// no thread. In a forked child of this program every call fails with [`ErrorKind::ForkedChild`].
///
/// ```
/// use ringfence::{Container, LogOptions, Spec};
/// # fn main() -> ringfence::Result<()> {
/// let argv = ["sh", "-c", "echo one; echo two; printf three"].map(Into::into);
/// let container = Container::start(&Spec { argv: argv.into(), ..Spec::default() })?;
/// for line in &container.logs(&LogOptions { follow: true, ..LogOptions::default() })? {
///     print!("{}", String::from_utf8_lossy(&line?));
/// }
/// container.close(None)
/// # }
/// ```
#[derive(Clone)]
pub struct LogReader {
    reading: Arc<Reading>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("container", &self.reading.container)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

fn failed(step: &str) -> impl Fn(nix::errno::Errno) -> Error {
    move |errno| Error::os(step, errno as i32)
}

/// Notices of what is written to it, where this user can have one more instance.
fn watch(file: BorrowedFd<'_>) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(&*own_path(file), AddWatchFlags::IN_MODIFY)?;
    Ok(inotify)
}

impl Reading {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// `Some(None)`: it is over. `None`: nothing yet.
    fn take(&self) -> Result<Option<Option<Vec<u8>>>> {
        self.container.owner.check()?;
        if self.cancelled.load(Ordering::Relaxed) && !self.state().over {
            return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
        }
        // Before the length is looked at: who has ended writes no more. Before the lock, because it may take its time.
        let pid_one_ended = !self.container.runs();
        let ended = self.until.is_some() || self.container.events_are_over(pid_one_ended)?;
        let mut state = self.state();
        if state.over {
            return Ok(Some(None));
        }
        if pid_one_ended && std::mem::take(&mut state.pidfd_listed) {
            let _ = self.epoll.delete(self.container.pidfd());
        }
        let mut drained = false;
        loop {
            if let Some(line) = state.cut(false) {
                state.back_off = BACK_OFF[0];
                return Ok(Some(Some(line)));
            }
            let have = state.position + state.read.len() as u64;
            let end = self.until.unwrap_or_else(|| log_length(self.file.as_fd()).0);
            if have < end {
                let more = read_part(&self.file, have, (end - have).min(BLOCK as u64) as usize)?;
                if !more.is_empty() {
                    state.read.extend_from_slice(&more);
                    continue;
                }
            }
            if ended {
                let rest = state.cut(true);
                if rest.is_none() {
                    state.over = true;
                    // For ever readable from now on.
                    let _ = self.fresh.write(1);
                }
                return Ok(Some(rest));
            }
            if drained {
                break;
            }
            // What is written between this and the second look makes the descriptor readable again.
            self.drain(&mut state)?;
            drained = true;
        }
        drop(state);
        if self.container.is_let_go() {
            return Err(Error::new(ErrorKind::Closed, "the container's handle was closed").with_errno(libc::EBADF));
        }
        Ok(None)
    }

    fn drain(&self, state: &mut State) -> Result<()> {
        let _ = self.fresh.read();
        if let Some(changes) = &self.changes {
            while changes.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        if let Some(clock) = &self.clock {
            let wait = Expiration::OneShot(TimeSpec::nanoseconds(state.back_off.as_nanos() as i64));
            clock.set(wait, TimerSetTimeFlags::empty()).map_err(failed("timerfd_settime"))?;
            state.back_off = (state.back_off * 2).min(BACK_OFF[1]);
        }
        Ok(())
    }
}

impl LogReader {
    fn new(container: &Arc<Inner>, options: &LogOptions) -> Result<Self> {
        let file = container.log_file()?.try_clone().map_err(|e| Error::io("dup", &e))?;
        let (length, size) = log_length(file.as_fd());
        let max = size.unwrap_or_else(|| length.max(container.spec.log_max.unwrap_or(Spec::LOG_MAX)));
        if options.since > max {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{} is behind the end of a log of at most {max} bytes", options.since),
            )
            .with_field("since")
            .with_errno(libc::EINVAL)
            .with_hint("positions are bytes, as log_position() gives them"));
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed("epoll_create1"))?;
        let fresh = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(failed("eventfd"))?;
        let cancel = process::event()?;
        listen(&epoll, &fresh, EpollFlags::EPOLLIN)?;
        listen(&epoll, &cancel, EpollFlags::EPOLLIN)?;
        let (mut changes, mut clock) = (None, None);
        let mut pidfd_listed = false;
        if options.follow {
            let ends = container.end_descriptors();
            pidfd_listed = ends.until_pid_one_ended.is_some();
            for fd in ends.always.into_iter().chain(ends.until_pid_one_ended) {
                listen(&epoll, fd, EpollFlags::EPOLLIN)?;
            }
            // A file that was kept does not change.
            match watch(file.as_fd()) {
                _ if size.is_none() => {}
                Ok(inotify) => {
                    listen(&epoll, inotify.as_fd(), EpollFlags::EPOLLIN)?;
                    changes = Some(inotify);
                }
                Err(_) => {
                    let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
                    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(failed("timerfd_create"))?;
                    listen(&epoll, timer.as_fd(), EpollFlags::EPOLLIN)?;
                    clock = Some(timer);
                }
            }
        }
        let start = match options.tail {
            None => options.since,
            Some(lines) => tail_start(&file, options.since, length, lines)?,
        };
        let reading = Reading {
            container: container.clone(),
            file,
            until: (!options.follow).then_some(length),
            epoll,
            fresh,
            changes,
            clock,
            cancel,
            cancelled: AtomicBool::new(false),
            state: Mutex::new(State {
                position: start,
                read: Vec::new(),
                scanned: 0,
                over: false,
                pidfd_listed,
                back_off: BACK_OFF[0],
            }),
        };
        Ok(Self { reading: Arc::new(reading) })
    }

    /// The next line. Waits for one as long as `timeout` (`None`: for ever; zero only looks). `Ok(None)`: the time passed, or
    /// [it is over](Self::is_over).
    ///
    /// # Errors
    /// Closed, when [`cancel`](Self::cancel) was called, or the handle of a detached container that goes on was closed.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Vec<u8>>> {
        let deadline = launch::deadline(timeout);
        loop {
            if let Some(answer) = self.reading.take()? {
                return Ok(answer);
            }
            let [ready] = launch::poll([self.fd()], deadline)?;
            if !ready {
                return Ok(None);
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(self.reading.take()?.flatten());
            }
        }
    }

    /// Whether all was handed out and nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.reading.state().over
    }

    /// Behind the last byte that was handed out; for [`LogOptions::since`] of another reader that goes on there.
    pub fn position(&self) -> u64 {
        self.reading.state().position
    }

    /// Readable (POLLIN) when there may be a line, and when it is over; borrowed from this object, for poll, epoll and the like,
    /// never to be read. A call of [`next`](Self::next) may then still find nothing.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.reading.epoll.0.as_fd()
    }

    /// Makes every call of [`next`](Self::next), under way on any thread or begun later, fail with Closed, unless it is over.
    pub fn cancel(&self) {
        self.reading.cancelled.store(true, Ordering::Relaxed);
        process::raise(&self.reading.cancel);
    }

    /// The incomplete line behind what was handed out, as far as it was read.
    pub(super) fn partial(&self) -> Vec<u8> {
        self.reading.state().read.clone()
    }

    /// Each line, as it comes; ends when it is over, or after an error.
    pub fn iter(&self) -> LogIter<'_> {
        LogIter { reader: self, failed: false }
    }
}

impl AsFd for LogReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl<'a> IntoIterator for &'a LogReader {
    type Item = Result<Vec<u8>>;
    type IntoIter = LogIter<'a>;

    fn into_iter(self) -> LogIter<'a> {
        self.iter()
    }
}

/// Made by [`LogReader::iter`].
#[derive(Debug)]
pub struct LogIter<'a> {
    reader: &'a LogReader,
    failed: bool,
}

impl Iterator for LogIter<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        if self.failed {
            return None;
        }
        let next = self.reader.next(None).transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_fills_to_its_last_byte_and_tells_who_watches() {
        let mut file = File::from(new_log(5000).unwrap());
        let changes = watch(file.as_fd()).unwrap();
        file.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(changes.read_events().map(|events| events.len()), Ok(1));
        assert_eq!(log_length(file.as_fd()), (8, Some(8192)));
        file.write_all(&[b'x'; 8184]).unwrap();
        assert_eq!(file.write(b"y").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(log_length(file.as_fd()), (8192, Some(8192)));
    }

    #[test]
    fn the_program_cannot_make_it_longer_than_it_is() {
        use std::io::Seek;
        let mut file = File::from(new_log(4096).unwrap());
        file.seek(io::SeekFrom::Start(1 << 60)).unwrap();
        assert_eq!(log_length(file.as_fd()), (4096, Some(4096)));
    }

    #[test]
    fn tails() {
        let mut file = File::from(new_log(1 << 20).unwrap());
        let long = "x".repeat(BLOCK);
        let text = format!("one\n\n{long}\ntwo\nthree");
        file.write_all(text.as_bytes()).unwrap();
        let file = OwnedFd::from(file);
        let end = text.len() as u64;
        let at = |rest: &str| end - rest.len() as u64;
        for (lines, start) in [(0, end), (1, at("three")), (2, at("two\nthree")), (4, 4), (5, 0), (6, 0), (u64::MAX, 0)]
        {
            assert_eq!(tail_start(&file, 0, end, lines), Ok(start), "{lines}");
        }
        assert_eq!(tail_start(&file, 0, end, 3), Ok(5));
        let complete = at("three");
        assert_eq!(tail_start(&file, 0, complete, 1), Ok(at("two\nthree")));
        assert_eq!(tail_start(&file, 2, 4, 7), Ok(2));
        assert_eq!(tail_start(&file, 9, 4, 7), Ok(4));
    }
}
