//! Names: a directory `names/NAME` for each named container, with
//!
//! - `lock`, whose first byte is locked by the host that starts the container and by its keeper: free when both are gone;
//! - `record.json`: what the container is and which processes it consists of;
//! - `owner-ID` of an attached container: whose the directory is, for its keeper, which removes the directory when the host is
//!   killed (see [`NameClaim::undo`]);
//! - `socket`, `status`, `log` of a detached container: its keeper listens, writes its last word, and keeps the streams.
//!
//! The lock decides who may change the directory. Whether a container runs is asked of the lock and of the processes in the
//! record (pid, start time, boot), so that neither a reused pid nor a lost lock makes a wrong answer.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dir::{Place, StateDir};
use super::identity::{self, Identity};
use super::locks;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::plan::facts::UndoName;
use crate::spec::name_syntax;

const LOCK: &str = "lock";
const RECORD: &str = "record.json";
const SOCKET: &str = "socket";
const STATUS: &str = "status";
const LOG: &str = "log";
const HOSTS: &str = "hosts";
/// The next record, until it is whole.
const NEW_RECORD: &str = "record.new";

/// A record holds the arguments, which are at most a few MiB; more is not a record.
const RECORD_MAX: u64 = 64 << 20;

/// Somebody who collects garbage holds a lock for less than this.
const PATIENCE: Duration = Duration::from_millis(100);

/// `names/` of the state directory.
#[derive(Debug)]
pub(super) struct Names {
    path: PathBuf,
    fd: OwnedFd,
}

/// A name that is ours. Dropped, it is removed; see [`NameClaim::keep`].
#[derive(Debug)]
pub(crate) struct NameClaim {
    names: Names,
    name: String,
    dir: OwnedFd,
    lock: HostOnly,
    detached: bool,
    created: f64,
    kept: bool,
}

/// What is known about a named container.
#[derive(Debug)]
pub(crate) struct Record {
    pub name: String,
    pub detached: bool,
    /// Seconds since the epoch.
    pub created: f64,
    pub life: Life,
    /// The time limit that ended it: a number of `proto::limit`.
    pub limit: u32,
    /// pid 1 of the container and the keeper, if they still run.
    pub init: Option<Identity>,
    pub keeper: Option<Identity>,
    /// What [`NameClaim::write_record`] was given; null while the container is being started.
    pub data: Value,
    path: PathBuf,
    dir: OwnedFd,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// With the wait status of the main process, if it had one and the keeper could tell.
    Ended(Option<i32>),
    /// The keeper died before it could say what became of the container.
    Lost,
}

#[derive(Debug, Serialize, Deserialize)]
struct OnDisk {
    name: String,
    detached: bool,
    created: f64,
    boot_id: String,
    pid_namespace: u64,
    host: Option<Identity>,
    keeper: Option<Identity>,
    init: Option<Identity>,
    data: Value,
}

impl OnDisk {
    fn read(dir: &OwnedFd, path: &Path) -> Result<Self> {
        let path = path.join(RECORD);
        let mut text = Vec::new();
        let file = open_file(dir, RECORD, OFlag::O_RDONLY).map_err(|e| os("open", e, &path))?;
        File::from(file).take(RECORD_MAX).read_to_end(&mut text).map_err(|e| Error::io("read", &e))?;
        serde_json::from_slice(&text).map_err(|e| {
            Error::new(ErrorKind::Internal, format!("not a record: {e}")).with_path(path.to_string_lossy())
        })
    }

    /// Readers see the old record or the new one.
    fn write(&self, dir: &OwnedFd, path: &Path) -> Result<()> {
        let path = path.join(RECORD);
        let text = serde_json::to_vec(self).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))?;
        let file = open_file(dir, NEW_RECORD, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)
            .map_err(|e| os("open", e, &path))?;
        File::from(file).write_all(&text).map_err(|e| Error::io("write", &e).with_path(path.to_string_lossy()))?;
        renameat(dir, NEW_RECORD, dir, RECORD).map_err(|e| os("rename", e, &path))
    }
}

/// Changes what others can read about the detached container `id`; programs that do so take turns. When the record cannot be
/// written, `take_back` gets what `change` came to while it is this program's turn still.
pub(crate) fn change_record<T>(
    name: &str,
    id: &str,
    change: impl FnOnce(&mut Value) -> Result<T>,
    take_back: impl FnOnce(T, Error) -> Error,
) -> Result<T> {
    let closed = || Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH);
    let names = Names::find(&Place::now())?.ok_or_else(closed)?;
    let path = names.path.join(name);
    let dir = match open_dir(&names.fd, name) {
        Err(Errno::ENOENT) => return Err(closed()),
        other => other.map_err(|e| os("open", e, &path))?,
    };
    let turn = dir.try_clone().map_err(|e| Error::io("dup", &e))?;
    let _turn = Flock::lock(turn, FlockArg::LockExclusive).map_err(|(_, e)| os("lock", e, &path))?;
    let mut disk = OnDisk::read(&dir, &path)?;
    if disk.data["id"] != id {
        return Err(closed());
    }
    let result = change(&mut disk.data)?;
    match disk.write(&dir, &path) {
        Ok(()) => Ok(result),
        Err(error) => Err(take_back(result, error)),
    }
}

/// Makes `name` this container's own, for this user. An ended container of that name is forgotten.
pub(crate) fn claim_name(name: &str, detached: bool) -> Result<NameClaim> {
    Names::open(&Place::now())?.claim(name, detached)
}

/// The container of that name, running or not.
pub(crate) fn lookup(name: &str) -> Result<Record> {
    find(&Place::now(), name)
}

/// The same, at this place, which is not made for it.
pub(super) fn find(place: &Place, name: &str) -> Result<Record> {
    Names::checked(name)?;
    match Names::find(place)? {
        Some(names) => names.lookup(name),
        None => Err(unknown(name, &place.look()?.join("names"))),
    }
}

fn unknown(name: &str, names: &Path) -> Error {
    Error::new(ErrorKind::NotFound, format!("no container is named {name:?}"))
        .with_errno(libc::ENOENT)
        .with_hint(format!("the containers of this user are in {}", names.display()))
}

fn os(step: &str, errno: Errno, path: &Path) -> Error {
    Error::os(step, errno as i32).with_path(path.to_string_lossy())
}

fn open_dir(at: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = openat(at, name, flags, Mode::empty())?;
    // The parent is closed to others, so this can only be what root or a careless copy left there.
    if fstat(&fd)?.st_uid != nix::unistd::geteuid().as_raw() { Err(Errno::EPERM) } else { Ok(fd) }
}

fn make_dir(at: impl AsFd, name: &str) -> nix::Result<()> {
    match mkdirat(at, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn open_file(at: impl AsFd, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
    openat(at, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o600))
}

fn entries(dir: &OwnedFd) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    // The descriptor's own link: it is this directory wherever it has been moved.
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The address of a socket in a directory: by descriptor, because sun_path has 108 bytes and state directories may be long.
fn address(dir: BorrowedFd<'_>) -> nix::Result<UnixAddr> {
    UnixAddr::new(Path::new(&format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd())))
}

fn unix_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

impl Names {
    pub(super) fn open(place: &Place) -> Result<Self> {
        let StateDir { path, fd } = place.open()?;
        let path = path.join("names");
        make_dir(&fd, "names").map_err(|e| os("mkdir", e, &path))?;
        let fd = open_dir(&fd, "names").map_err(|e| os("open", e, &path))?;
        Ok(Self { path, fd })
    }

    /// `None`: there are none, and never were. Nothing is made.
    pub(super) fn find(place: &Place) -> Result<Option<Self>> {
        let (path, Some(StateDir { fd, .. })) = place.find()? else { return Ok(None) };
        let path = path.join("names");
        match open_dir(&fd, "names") {
            Ok(fd) => Ok(Some(Self { path, fd })),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(os("open", e, &path)),
        }
    }

    fn checked(name: &str) -> Result<()> {
        name_syntax(name).map_err(|why| Error::spec("name", why))
    }

    /// All names of this user, in order; what is not a name is not ours.
    pub(super) fn list(&self) -> Result<Vec<String>> {
        let mut all = entries(&self.fd).map_err(|e| Error::io("read", &e).with_path(self.path.to_string_lossy()))?;
        all.retain(|name| Self::checked(name).is_ok());
        Ok(all)
    }

    pub(super) fn claim(self, name: &str, detached: bool) -> Result<NameClaim> {
        Self::checked(name)?;
        let path = self.path.join(name);
        let since = std::time::Instant::now();
        let (dir, lock) = loop {
            match self.try_lock(name, true).map_err(|e| os("claim the name", e, &path))? {
                Attempt::Ours(dir, lock) => match self.read_as(name, true) {
                    // A keeper that was not given the lock.
                    Ok(record) if record.life == Life::Running => return Err(record.exists()),
                    _ => break (dir, lock),
                },
                Attempt::Held => match self.read(name) {
                    Ok(record) if record.life == Life::Running => return Err(record.exists()),
                    Ok(record) if since.elapsed() >= PATIENCE => return Err(record.exists()),
                    Err(error) if since.elapsed() >= PATIENCE => {
                        return Err(error
                            .with_kind(ErrorKind::AlreadyExists)
                            .with_field("name")
                            .with_detail(format!("another process is starting or removing {name:?}")));
                    }
                    // Being started, being removed, or looked at by `gc`.
                    _ => std::thread::sleep(Duration::from_millis(2)),
                },
                Attempt::Gone => {}
            }
        };
        // Somebody may be changing the record of the container that has just ended.
        let turn = dir.try_clone().map_err(|e| Error::io("dup", &e))?;
        let _turn = Flock::lock(turn, FlockArg::LockExclusive).map_err(|(_, e)| os("lock", e, &path))?;
        remove_all_but_lock(&dir).map_err(|e| os("remove the former container's record", e, &path))?;
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let claim = NameClaim { names: self, name: name.to_owned(), dir, lock, detached, created, kept: false };
        claim.write(None, None, Value::Null)?;
        Ok(claim)
    }

    /// Locks a name's directory; makes it first if `create`.
    fn try_lock(&self, name: &str, create: bool) -> nix::Result<Attempt> {
        if create {
            make_dir(&self.fd, name)?;
        }
        let dir = match open_dir(&self.fd, name) {
            Err(Errno::ENOENT) => return Ok(Attempt::Gone),
            other => other?,
        };
        let lock = match open_file(&dir, LOCK, OFlag::O_RDWR | OFlag::O_CREAT) {
            Err(Errno::ENOENT) => return Ok(Attempt::Gone),
            other => HostOnly::new(other?),
        };
        if !locks::acquire(&lock, 0, 1)? {
            return Ok(Attempt::Held);
        }
        // Between open and lock its former owner may have removed it: then this lock guards nothing.
        let (ours, path) = (fstat(&lock)?, PathBuf::from(name).join(LOCK));
        match fstatat(&self.fd, &path, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino) => Ok(Attempt::Ours(dir, lock)),
            Ok(_) | Err(Errno::ENOENT) => Ok(Attempt::Gone),
            Err(errno) => Err(errno),
        }
    }

    /// The record of a name, and what became of the container.
    pub(super) fn read(&self, name: &str) -> Result<Record> {
        self.read_as(name, false)
    }

    /// `owner`: the caller has the lock, so that nobody else does.
    fn read_as(&self, name: &str, owner: bool) -> Result<Record> {
        let path = self.path.join(name);
        let dir = open_dir(&self.fd, name).map_err(|e| os("open", e, &path))?;
        let disk = OnDisk::read(&dir, &path)?;

        let comparable = disk.boot_id == identity::boot_id() && disk.pid_namespace == identity::pid_namespace();
        let running = |process: Option<Identity>| process.filter(|p| comparable && p.runs());
        let held = || {
            let lock = open_file(&dir, LOCK, OFlag::O_RDWR);
            !owner && lock.and_then(|lock| locks::conflict(&lock, 0, 1)).is_ok_and(|conflict| conflict.is_some())
        };
        let (keeper, init) = (running(disk.keeper), running(disk.init));
        let status = read_status(&dir);
        let life = match status.main {
            main if status.ended => Life::Ended(main),
            // Another boot or another pid namespace: only the lock can tell.
            _ if !comparable && held() => Life::Running,
            _ if keeper.is_some() && init.is_some() => Life::Running,
            // Its last word is still to come.
            _ if keeper.is_some() && disk.detached => Life::Running,
            // An attached container whose handle is not closed yet.
            _ if keeper.is_some() && disk.init.is_some() => Life::Ended(None),
            // Being started. (A lock alone says less: any child that the host is just forking has a copy.)
            _ if disk.data.is_null() && held() => Life::Running,
            // The keeper was killed, but pid 1 had told.
            Some(main) => Life::Ended(Some(main)),
            None => Life::Lost,
        };
        Ok(Record {
            name: name.to_owned(),
            detached: disk.detached,
            created: disk.created,
            life,
            limit: status.limit,
            init,
            keeper,
            data: disk.data,
            path,
            dir,
        })
    }

    pub(super) fn lookup(&self, name: &str) -> Result<Record> {
        Self::checked(name)?;
        match self.read(name) {
            Ok(record) if !record.is_abandoned() => Ok(record),
            Err(error) if error.errno() != libc::ENOENT => Err(error),
            _ => Err(unknown(name, &self.path)),
        }
    }

    /// Removes a name that belongs to nobody. `Ok(false)`: it does belong to somebody, or it is already gone.
    pub(super) fn remove_if_dead(&self, name: &str, dead: impl FnOnce(Option<&Record>) -> bool) -> Result<bool> {
        let fail = |errno| os("remove", errno, &self.path.join(name));
        let Attempt::Ours(dir, lock) = self.try_lock(name, false).map_err(fail)? else { return Ok(false) };
        let record = self.read_as(name, true).ok();
        if record.as_ref().is_some_and(|r| r.life == Life::Running) || !dead(record.as_ref()) {
            return Ok(false);
        }
        self.remove(name, &dir).map_err(fail)?;
        drop(lock);
        Ok(true)
    }

    /// For whoever has the lock.
    fn remove(&self, name: &str, dir: &OwnedFd) -> nix::Result<()> {
        remove_all_but_lock(dir)?;
        unlinkat(dir, LOCK, UnlinkatFlags::NoRemoveDir)?;
        match unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir) {
            // From here on it can be claimed again, in the same directory.
            Ok(()) | Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

enum Attempt {
    Ours(OwnedFd, HostOnly),
    Held,
    /// It was removed meanwhile.
    Gone,
}

fn remove_all_but_lock(dir: &OwnedFd) -> nix::Result<()> {
    let entries = entries(dir).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    for entry in entries.iter().filter(|entry| *entry != LOCK) {
        match unlinkat(dir, entry.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl NameClaim {
    /// Its directory.
    pub(crate) fn path(&self) -> PathBuf {
        self.names.path.join(&self.name)
    }

    /// The keeper is to hold a copy until its container has ended.
    pub(crate) fn lock_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// What others can read about the container from now on. Of `data`, `keeper` and `pid` (numbers) say which processes are
    /// its keeper and its pid 1; `id` (text) and `command` (list of texts) are shown by `ls`; the rest is the caller's own.
    pub(crate) fn write_record(&self, data: Value) -> Result<()> {
        let process = |key| data[key].as_i64().and_then(|pid| Identity::of(i32::try_from(pid).ok()?));
        self.write(process("keeper"), process("pid"), data.clone())
    }

    fn write(&self, keeper: Option<Identity>, init: Option<Identity>, data: Value) -> Result<()> {
        let record = OnDisk {
            name: self.name.clone(),
            detached: self.detached,
            created: self.created,
            boot_id: identity::boot_id().to_owned(),
            pid_namespace: identity::pid_namespace(),
            host: Identity::of(std::process::id() as i32),
            keeper,
            init,
            data,
        };
        record.write(&self.dir, &self.path())
    }

    /// What the keeper needs to remove the directory should this process be killed: `names/`, the same descriptor for every
    /// claim as long as somebody has it, and what is to be locked and removed in it.
    ///
    /// Its lock is free then, so that somebody else may have taken the name: the owner's file tells.
    pub(crate) fn undo(&self, id: &str) -> Result<(Arc<OwnedFd>, UndoName)> {
        static SHARED: Mutex<Weak<OwnedFd>> = Mutex::new(Weak::new());
        let owner = format!("owner-{id}");
        self.open_new(&owner, OFlag::O_WRONLY)?;
        let fail = |e| os("open", e, &self.names.path);
        let mut shared = SHARED.lock().unwrap_or_else(|e| e.into_inner());
        let same = |other: &Arc<OwnedFd>| {
            let (a, b) = (fstat(other)?, fstat(&self.names.fd)?);
            Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
        };
        let names = match shared.upgrade() {
            Some(known) if same(&known).map_err(fail)? => known,
            _ => {
                let copy = self.names.fd.try_clone().map_err(|e| Error::io("dup", &e))?;
                let names = Arc::new(copy);
                *shared = Arc::downgrade(&names);
                names
            }
        };
        let inside = |file: &str| format!("{}/{file}", self.name);
        let hosts = fstatat(&self.dir, HOSTS, AtFlags::empty()).is_ok();
        let files = [NEW_RECORD, RECORD].into_iter().chain(hosts.then_some(HOSTS)).chain([LOCK]);
        let files: Vec<_> = files.collect();
        let undo = UndoName {
            lock: inside(LOCK),
            owner: inside(&owner),
            files: files.iter().map(|file| inside(file)).collect(),
            directory: self.name.clone(),
        };
        Ok((names, undo))
    }

    fn open_new(&self, name: &str, flags: OFlag) -> Result<OwnedFd> {
        open_file(&self.dir, name, flags | OFlag::O_CREAT | OFlag::O_TRUNC)
            .map_err(|e| os("open", e, &self.path().join(name)))
    }

    /// Where the keeper of a detached container writes its last record.
    pub(crate) fn open_status(&self) -> Result<OwnedFd> {
        self.open_new(STATUS, OFlag::O_WRONLY | OFlag::O_APPEND)
    }

    /// Where the streams of a detached container are kept.
    pub(crate) fn open_log(&self) -> Result<OwnedFd> {
        self.open_new(LOG, OFlag::O_RDWR)
    }

    /// /etc/hosts of those on a network, for everybody to read.
    pub(crate) fn open_hosts(&self) -> Result<(PathBuf, OwnedFd)> {
        let file = self.open_new(HOSTS, OFlag::O_RDWR)?;
        let path = self.path().join(HOSTS);
        nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(0o644)).map_err(|e| os("chmod", e, &path))?;
        Ok((path, file))
    }

    /// A listening SOCK_SEQPACKET socket at `socket`, for the keeper of a detached container.
    pub(crate) fn listen(&self) -> Result<OwnedFd> {
        let bound = || {
            let socket = unix_socket()?;
            bind(socket.as_raw_fd(), &address(self.dir.as_fd())?)?;
            listen(&socket, Backlog::new(64)?)?;
            Ok(socket)
        };
        bound().map_err(|e| os("bind", e, &self.path().join(SOCKET)))
    }

    /// The container is detached and runs: its directory stays when this goes, and its keeper alone holds the lock.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        // In a forked child the lock is closed, and the name is the parent's.
        if !self.kept && self.lock.is_open() {
            // What cannot be removed now is found by the next claim of this name, or by gc.
            let _ = self.names.remove(&self.name, &self.dir);
        }
    }
}

impl Record {
    /// An attached container that died with its host and keeper, and has no process left.
    pub(super) fn is_abandoned(&self) -> bool {
        !self.detached && self.init.is_none() && self.keeper.is_none() && self.life != Life::Running
    }

    /// A connection to the keeper of a detached container.
    pub(crate) fn connect(&self) -> Result<OwnedFd> {
        let connected = || {
            let socket = unix_socket()?;
            connect(socket.as_raw_fd(), &address(self.dir.as_fd())?)?;
            Ok(socket)
        };
        connected().map_err(|e| os("connect", e, &self.path.join(SOCKET)))
    }

    /// The log of a detached container, for reading.
    pub(crate) fn open_log(&self) -> Result<OwnedFd> {
        open_file(&self.dir, LOG, OFlag::O_RDONLY).map_err(|e| os("open", e, &self.path.join(LOG)))
    }

    fn exists(&self) -> Error {
        let who = match (self.life, self.init) {
            (Life::Running, Some(init)) => format!("runs, its pid 1 is process {}", init.pid),
            (Life::Running, None) => "is being started".to_owned(),
            _ => "has ended, but a process still holds its handle".to_owned(),
        };
        Error::new(ErrorKind::AlreadyExists, format!("a container named {:?} {who}", self.name))
            .with_field("name")
            .with_errno(libc::EEXIST)
            .with_hint("close it first, or take another name")
    }
}

/// What the status file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    /// Of the main process.
    main: Option<i32>,
    /// The keeper's last word was written.
    ended: bool,
    limit: u32,
}

fn read_status(dir: &OwnedFd) -> Status {
    let mut bytes = Vec::new();
    if let Ok(file) = open_file(dir, STATUS, OFlag::O_RDONLY) {
        let _ = File::from(file).take(4096).read_to_end(&mut bytes);
    }
    parse_status(&bytes)
}

/// Records of the keeper's protocol: EXITED of the main process, when there was one and pid 1 could tell, then ENDED.
fn parse_status(bytes: &[u8]) -> Status {
    use crate::proto::{MAGIC, Record, record};
    let mut found = Status::default();
    for chunk in bytes.chunks_exact(size_of::<Record>()) {
        let word = |at: usize| chunk[at..at + 4].try_into().map(i32::from_ne_bytes).unwrap_or(0);
        let status = word(std::mem::offset_of!(Record, status));
        let told = word(std::mem::offset_of!(Record, pid)) > 0;
        let kind = word(std::mem::offset_of!(Record, kind)) as u32;
        match kind {
            _ if word(std::mem::offset_of!(Record, magic)) as u32 != MAGIC => break,
            record::EXITED => found.main = Some(status),
            record::ENDED => {
                found.main = found.main.or(told.then_some(status));
                found.ended = true;
                found.limit = word(std::mem::offset_of!(Record, limit)) as u32;
                break;
            }
            _ => break,
        }
    }
    found
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(bytes: &[u8]) {
    parse_status(bytes);
    if let Ok(record) = serde_json::from_slice::<OnDisk>(bytes) {
        let text = serde_json::to_vec(&record).expect("what was read can be written");
        serde_json::from_slice::<OnDisk>(&text).expect("and read again");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Process;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn names(&self) -> Names {
            Names::open(&Place::at(&self.0.path().join("state"))).unwrap()
        }

        fn claim(&self, name: &str, detached: bool) -> Result<NameClaim> {
            self.names().claim(name, detached)
        }

        /// What a crashed host leaves: the lock is gone, the files are there.
        fn crash(&self, claim: NameClaim) {
            let lock = Watch::of(&claim);
            claim.keep();
            lock.wait_until_free();
        }
    }

    /// The lock of a name as others see it.
    struct Watch(File);

    impl Watch {
        fn of(claim: &NameClaim) -> Self {
            Self(File::open(format!("/proc/self/fd/{}", claim.lock_fd().as_raw_fd())).unwrap())
        }

        /// The children of other tests have copies until they exec.
        fn wait_until_free(self) {
            let deadline = Instant::now() + Duration::from_secs(5);
            while locks::conflict(&self.0, 0, 1).unwrap().is_some() && Instant::now() < deadline {
                std::thread::yield_now();
            }
        }
    }

    fn process() -> Process {
        Process::new()
    }

    fn end(process: Process) {
        drop(process);
    }

    fn ended(pid: i32, status: i32) -> Vec<u8> {
        bytes(crate::proto::record::ENDED, pid, status)
    }

    fn bytes(kind: u32, pid: i32, status: i32) -> Vec<u8> {
        let record = crate::proto::Record { magic: crate::proto::MAGIC, kind, pid, status, ..Default::default() };
        let words = [record.magic, record.kind, record.section, record.op];
        let signed = [record.errno, record.status, record.pid, 0];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.extend(signed.iter().flat_map(|w| w.to_ne_bytes()));
        bytes.resize(size_of::<crate::proto::Record>(), 0);
        bytes
    }

    #[test]
    fn a_name_is_unique_while_its_container_lives() {
        let machine = Machine::new();
        let claim = machine.claim("db", false).unwrap();
        let error = machine.claim("db", false).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::AlreadyExists, Some("name")));
        assert!(error.to_string().contains("is being started"), "{error}");
        let (keeper, init) = (process(), process());
        claim.write_record(json!({"keeper": keeper.id(), "pid": init.id(), "id": "rf-1", "command": ["a"]})).unwrap();
        let error = machine.claim("db", true).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", init.id())), "{error}");
        let record = machine.names().lookup("db").unwrap();
        assert_eq!((record.life, record.data["id"].as_str()), (Life::Running, Some("rf-1")));
        assert_eq!(record.init.unwrap().pid, init.id() as i32);

        // Its main process ends; the handle is still open.
        end(init);
        assert_eq!(machine.names().lookup("db").unwrap().life, Life::Ended(None));
        assert!(machine.claim("db", false).unwrap_err().to_string().contains("has ended"));
        drop(claim);
        assert_eq!(machine.names().lookup("db").unwrap_err().kind(), ErrorKind::NotFound);
        assert!(machine.names().list().unwrap().is_empty());
        machine.claim("db", false).unwrap();
        end(keeper);
    }

    #[test]
    fn a_dead_owners_name_is_free_whatever_its_pid_means_now() {
        let machine = Machine::new();
        let (keeper, init) = (process(), process());
        let claim = machine.claim("db", true).unwrap();
        claim.write_record(json!({"keeper": keeper.id(), "pid": init.id()})).unwrap();
        let path = claim.path().join(RECORD);
        machine.crash(claim);
        // The lock is free, but the processes run: a keeper that holds no copy.
        assert_eq!(machine.claim("db", false).unwrap_err().kind(), ErrorKind::AlreadyExists);

        // The same pids, other processes.
        let text = std::fs::read_to_string(&path).unwrap();
        let mut disk: OnDisk = serde_json::from_str(&text).unwrap();
        disk.keeper.as_mut().unwrap().start_time += 1;
        std::fs::write(&path, serde_json::to_vec(&disk).unwrap()).unwrap();
        let record = machine.names().lookup("db").unwrap();
        assert_eq!((record.life, record.keeper), (Life::Lost, None));
        drop(machine.claim("db", false).unwrap());

        // The same pids and start times of another boot.
        let claim = machine.claim("db", true).unwrap();
        disk.keeper.as_mut().unwrap().start_time -= 1;
        disk.boot_id = "another".into();
        std::fs::write(&path, serde_json::to_vec(&disk).unwrap()).unwrap();
        machine.crash(claim);
        assert_eq!(machine.names().lookup("db").unwrap().life, Life::Lost);
        machine.claim("db", false).unwrap();
        end(keeper);
        end(init);
    }

    #[test]
    fn a_host_that_died_while_starting_leaves_a_free_name() {
        let machine = Machine::new();
        let claim = machine.claim("db", false).unwrap();
        machine.crash(claim);
        assert_eq!(machine.names().read("db").unwrap().life, Life::Lost);
        assert_eq!(machine.names().lookup("db").unwrap_err().kind(), ErrorKind::NotFound);
        let claim = machine.claim("db", false).unwrap();
        // A keeper's copy of the lock.
        let copy = claim.lock_fd().try_clone_to_owned().unwrap();
        let lock = Watch::of(&claim);
        claim.keep();
        assert_eq!(machine.claim("db", false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        drop(copy);
        lock.wait_until_free();
        machine.claim("db", false).unwrap();
    }

    #[test]
    fn an_ended_detached_container_stays_readable_until_its_name_is_used_again() {
        let machine = Machine::new();
        let (keeper, init) = (process(), process());
        let claim = machine.claim("job", true).unwrap();
        claim.write_record(json!({"keeper": keeper.id(), "pid": init.id(), "id": "rf-2"})).unwrap();
        let mut status = File::from(claim.open_status().unwrap());
        let mut log = File::from(claim.open_log().unwrap());
        claim.keep();
        log.write_all(b"hello").unwrap();
        let pid = init.id() as i32;
        end(init);
        status.write_all(&bytes(crate::proto::record::EXITED, pid, 3 << 8)).unwrap();
        // Its keeper is still undoing it.
        assert_eq!(machine.names().lookup("job").unwrap().life, Life::Running);
        status.write_all(&ended(0, 0)).unwrap();
        assert_eq!(machine.names().lookup("job").unwrap().life, Life::Ended(Some(3 << 8)));
        end(keeper);
        let record = machine.names().lookup("job").unwrap();
        assert_eq!((record.life, record.data["id"].as_str()), (Life::Ended(Some(3 << 8)), Some("rf-2")));
        let mut text = String::new();
        File::from(record.open_log().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let claim = machine.claim("job", true).unwrap();
        assert_eq!(machine.names().lookup("job").unwrap().data, Value::Null);
        drop(claim);
        assert!(machine.names().list().unwrap().is_empty());
    }

    #[test]
    fn a_status_is_known_even_if_the_keeper_was_killed_after_it() {
        let machine = Machine::new();
        let claim = machine.claim("job", true).unwrap();
        let keeper = process();
        claim.write_record(json!({"keeper": keeper.id(), "pid": keeper.id()})).unwrap();
        let mut status = File::from(claim.open_status().unwrap());
        claim.keep();
        end(keeper);
        assert_eq!(machine.names().lookup("job").unwrap().life, Life::Lost);
        status.write_all(&bytes(crate::proto::record::EXITED, 7, 9)).unwrap();
        assert_eq!(machine.names().lookup("job").unwrap().life, Life::Ended(Some(9)));
    }

    #[test]
    fn the_socket_works_below_a_long_path() {
        let base = tempfile::tempdir().unwrap();
        let long = base.path().join("d".repeat(200));
        let names = || Names::open(&Place::at(&long)).unwrap();
        let claim = names().claim("db", true).unwrap();
        let listening = claim.listen().unwrap();
        let record = names().lookup("db").unwrap();
        let client = record.connect().unwrap();
        let server = nix::sys::socket::accept(listening.as_raw_fd()).unwrap();
        nix::unistd::write(&client, b"x").unwrap();
        let mut byte = [0];
        let server = adopt(server);
        assert_eq!(nix::unistd::read(&server, &mut byte).unwrap(), 1);
    }

    fn adopt(fd: i32) -> OwnedFd {
        use std::os::fd::FromRawFd;
        // SAFETY: accept(2) just made it, and gave it to nobody else.
        unsafe { OwnedFd::from_raw_fd(fd) }
    }

    #[test]
    fn bad_names_touch_nothing() {
        let machine = Machine::new();
        for name in ["", ".", "..", "a/b", "/etc", ".hidden", "a b", "-x", "a\0b", &"x".repeat(65)] {
            let error = machine.claim(name, false).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("name")), "{name:?}");
            assert!(machine.names().lookup(name).is_err());
        }
        assert!(machine.names().list().unwrap().is_empty());
    }

    #[test]
    fn links_and_rubbish_in_the_directory() {
        let machine = Machine::new();
        let names = machine.names();
        std::os::unix::fs::symlink("/etc", names.path.join("link")).unwrap();
        assert_eq!(machine.claim("link", false).unwrap_err().path(), Some(&*names.path.join("link").to_string_lossy()));
        std::fs::create_dir(names.path.join("rubbish")).unwrap();
        std::fs::write(names.path.join("rubbish").join(RECORD), b"{not json").unwrap();
        assert_eq!(names.lookup("rubbish").unwrap_err().kind(), ErrorKind::Internal);
        machine.claim("rubbish", false).unwrap();
        assert!(!names.path.join("rubbish").exists());
    }

    #[test]
    fn one_of_many_wins_every_time() {
        let machine = Machine::new();
        let owners = AtomicU32::new(0);
        let until_won = || loop {
            match machine.claim("one", false) {
                Ok(claim) => {
                    assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0);
                    std::thread::yield_now();
                    owners.fetch_sub(1, Ordering::SeqCst);
                    return drop(claim);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10).for_each(|_| until_won()));
            }
        });
        assert!(machine.names().list().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn a_torn_status_is_no_status(cut in 0usize..64, pid in 0..5i32, status in any::<i32>()) {
            let bytes = ended(pid, status);
            prop_assert_eq!(parse_status(&bytes[..cut]), Status::default());
            prop_assert_eq!(parse_status(&bytes), Status { main: (pid > 0).then_some(status), ended: true, limit: 0 });
        }

        #[test]
        fn any_bytes_are_a_status_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_status(&bytes);
        }
    }
}
