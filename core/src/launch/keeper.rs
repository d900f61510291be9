//! One keeper, seen from its host.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use once_cell::sync::OnceCell;

use super::birth;
use super::channel::{Answer, Channel};
use super::fork::{HostOnly, Owner};
use crate::cgroup::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::{self, MAGIC, record, request};
use crate::sys::plain::bytes_of;

/// What an ordinary user's keeper could map in its outer user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outer {
    pub uid: u32,
    pub gid: u32,
    /// Sub-ids: (first id outside, count), as 1.. inside; empty with a single id.
    pub uids: Vec<(u32, u32)>,
    pub gids: Vec<(u32, u32)>,
    /// The keeper's mapper writes the maps itself: the caller has the capabilities for it, in a user namespace of many ids.
    pub writes_maps: bool,
    /// Why not more.
    pub why: Option<String>,
}

impl Outer {
    /// Ids above 0 that both maps have.
    pub fn pool(&self) -> u32 {
        let sum = |ranges: &[(u32, u32)]| ranges.iter().map(|r| r.1).fold(0, u32::saturating_add);
        sum(&self.uids).min(sum(&self.gids))
    }
}

fn send_message(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage] = if raw.is_empty() { &[] } else { &rights };
    loop {
        let iov = [IoSlice::new(bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            sent => return sent.map(drop),
        }
    }
}

fn not_sent(errno: Errno) -> Error {
    let error = Error::os("sendmsg", errno as i32);
    match errno {
        Errno::ETOOMANYREFS => error
            .with_kind(ErrorKind::Exhausted)
            .with_hint("too many descriptors are in flight for this user: RLIMIT_NOFILE"),
        _ => error,
    }
}

/// A socket in which these descriptors wait for whoever gets it: of a request that has more than one message can bring.
fn queued(fds: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
    let (here, there) = Channel::pair()?;
    fds.chunks(proto::MAX_FDS).try_for_each(|some| send_message(here.as_fd(), &[0], some)).map_err(not_sent)?;
    Ok(there)
}

/// What only a detached container's keeper gets.
#[derive(Debug)]
pub(crate) struct Detached {
    pub listen: OwnedFd,
    pub name_lock: HostOnly,
    pub status: OwnedFd,
    pub log: OwnedFd,
    pub log_file: OwnedFd,
    /// Claims of id ranges on an open file of its own.
    pub claims: HostOnly,
}

/// A keeper answers within a millisecond, on a loaded machine within some hundred; one that is stopped, never.
const SHARE_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of sharing a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// Its index in the keeper's table.
    At(usize),
    /// This thread has not the keeper's rights.
    Refused,
    /// The keeper has left or died.
    Left,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    pub owner: Owner,
    socket: HostOnly,
    pub pid: i32,
    /// In ticks since boot: with the pid, who it is.
    pub start_time: u64,
    pub privileged: bool,
    /// An ordinary user's.
    pub outer: Option<Outer>,
    pub starting: AtomicUsize,
    /// The `whereabouts` at which it got the directories in which groups are made by default; 0 is none.
    pub group_parents: AtomicU64,
    /// The scope of systemd that it was put into.
    pub scope: OnceCell<Place>,
    dead: AtomicBool,
    next_key: AtomicU64,
    /// Directories for undo plans: the index is the keeper's.
    shared: Mutex<Vec<Arc<OwnedFd>>>,
    /// Open as long as the keeper may have claims of ours.
    pub(super) claims: Option<crate::state::ids::ClaimsFile>,
    /// The task that stays as its parent, when the host is pid 1 or a subreaper.
    _middle: Mutex<Option<birth::Middle>>,
}

/// When the keeper is to end a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// After its start.
    pub wall: Option<Duration>,
    /// Of all its processes together.
    pub cpu: Option<Duration>,
}

impl Times {
    /// How many processors could work for it at once. Those that are not there now may come.
    fn cpus(self) -> u32 {
        // The C library reads a file of sysfs for it.
        let count = self.cpu.map(|_| nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF));
        match count {
            Some(Ok(Some(count))) => u32::try_from(count).unwrap_or(1),
            _ => 1,
        }
    }
}

impl Keeper {
    pub(super) fn new(socket: OwnedFd, pid: i32, born: birth::Born) -> Self {
        Self {
            owner: Owner::this(),
            socket: socket.into(),
            pid,
            start_time: 0,
            privileged: born.outer.is_none(),
            outer: born.outer,
            starting: AtomicUsize::new(0),
            group_parents: AtomicU64::new(0),
            scope: OnceCell::new(),
            dead: AtomicBool::new(false),
            next_key: AtomicU64::new(1),
            shared: Mutex::new(Vec::new()),
            claims: born.claims,
            _middle: Mutex::new(born.middle),
        }
    }

    /// READY came: who it is.
    pub(super) fn ready(mut self, pid: i32) -> Self {
        self.pid = pid;
        self.start_time = crate::state::start_time(pid).unwrap_or(0);
        self
    }

    /// A connection to the keeper of a detached container.
    pub fn connected(socket: OwnedFd, pid: i32, start_time: u64, privileged: bool) -> Self {
        Self {
            owner: Owner::this(),
            socket: socket.into(),
            pid,
            start_time,
            privileged,
            outer: None,
            starting: AtomicUsize::new(0),
            group_parents: AtomicU64::new(0),
            scope: OnceCell::new(),
            dead: AtomicBool::new(false),
            next_key: AtomicU64::new(2),
            shared: Mutex::new(Vec::new()),
            claims: None,
            _middle: Mutex::new(None),
        }
    }

    /// How the ids of its containers begin, which are also the names of their control groups: `rf-PIDNAMESPACE-PID-`.
    pub fn id_prefix(&self) -> String {
        format!("rf-{}-{}-", crate::state::pid_namespace(), self.pid)
    }

    pub fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// It was put into this scope: the groups of its containers are made there from now on, unless a spec says where.
    pub(super) fn enter(&self, scope: Place) -> Place {
        let scope = self.scope.get_or_init(|| scope);
        self.group_parents.store(0, Ordering::Relaxed);
        scope.clone()
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn mark_dead(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// Sends one request. `Ok(false)`: the keeper has left or died; nothing was taken.
    pub fn send(&self, kind: u32, key: u64, value: i32, timeout_ms: u32, fds: &[BorrowedFd<'_>]) -> Result<bool> {
        self.send_limited(kind, key, 0, value, timeout_ms, Times::default(), fds)
    }

    /// As [`send`](Self::send), with time limits, and the key of the container whose end ends the new one too (0: none).
    #[allow(clippy::too_many_arguments)]
    pub fn send_limited(
        &self,
        kind: u32,
        key: u64,
        pod: u64,
        value: i32,
        timeout_ms: u32,
        times: Times,
        fds: &[BorrowedFd<'_>],
    ) -> Result<bool> {
        let more = if fds.len() > proto::MAX_FDS { Some(queued(&fds[proto::MAX_FDS - 1..])?) } else { None };
        let mut first = fds;
        let mut with_more = Vec::new();
        if let Some(more) = &more {
            with_more.extend_from_slice(&fds[..proto::MAX_FDS - 1]);
            with_more.push(more.as_fd());
            first = &with_more;
        }
        let message = proto::Request {
            magic: MAGIC,
            kind,
            tid: nix::unistd::gettid().as_raw(),
            nfds: first.len() as u32,
            flags: if more.is_some() { proto::MORE } else { 0 },
            timeout_ms,
            key,
            value,
            cpus: times.cpus(),
            wall_ms: times.wall.map_or(0, |wall| u64::try_from(wall.as_millis()).unwrap_or(u64::MAX).max(1)),
            cpu_usec: times.cpu.map_or(0, |cpu| u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX).max(1)),
            pod,
        };
        self.send_bytes(bytes_of(&message), first)
    }

    pub(super) fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<bool> {
        if self.is_dead() {
            return Ok(false);
        }
        match send_message(self.socket.as_fd(), bytes, fds) {
            Ok(()) => Ok(true),
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => {
                self.mark_dead();
                Ok(false)
            }
            Err(errno) => Err(not_sent(errno)),
        }
    }

    /// The index of a directory in the keeper's table; it is sent there the first time, and is there when this returns: the
    /// keeper says whether it took it, because it takes none from a thread with other rights than its own.
    pub fn share(&self, directory: &Arc<OwnedFd>) -> Result<Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(index) = shared.iter().position(|known| Arc::ptr_eq(known, directory)) {
            return Ok(Shared::At(index));
        }
        let index = shared.len();
        if index >= 32 {
            return Err(Error::new(ErrorKind::Exhausted, "too many different cgroup parents in one process")
                .with_field("cgroup_parent"));
        }
        let (answer, there) = Channel::pair()?;
        if !self.send(request::SHARE, index as u64, 0, 0, &[directory.as_fd(), there.as_fd()])? {
            return Ok(Shared::Left);
        }
        drop(there);
        match answer.receive(Some(Instant::now() + SHARE_TIMEOUT), None)? {
            Answer::Record(answer, _) if answer.kind == record::KEPT => {
                shared.push(directory.clone());
                Ok(Shared::At(index))
            }
            Answer::Record(..) => Ok(Shared::Refused),
            // It died, or left before it saw the request.
            Answer::End => {
                self.mark_dead();
                Ok(Shared::Left)
            }
            Answer::Nothing | Answer::Cancelled => {
                Err(Error::new(ErrorKind::TimedOut, "the keeper did not answer in time").with_errno(libc::ETIMEDOUT))
            }
        }
    }

    /// Waits for nobody: another thread may have the table, and wait for the keeper.
    pub fn has_room_for_shares(&self) -> bool {
        match self.shared.try_lock() {
            Ok(shared) => shared.len() < 24,
            Err(TryLockError::Poisoned(e)) => e.into_inner().len() < 24,
            Err(TryLockError::WouldBlock) => true,
        }
    }
}
