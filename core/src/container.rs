//! The handle of a container.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use once_cell::sync::{Lazy, OnceCell};
use serde_json::{Value, json};

use crate::cgroup::{DeviceRules, Group, Limits, Purpose, Usage, V1Part};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EventKind, EventOptions, Events, Readers, Shared};
use crate::launch::facts::{self, IdChoice, UserFiles};
use crate::launch::{self, Answer, Channel, Keeper, Outcome, Owner, Request, Times};
use crate::namespace::Namespace;
use crate::net;
use crate::plan::attribute::Attribute;
use crate::plan::confine::Confinement;
use crate::plan::container::{DISK, HOSTS, NETLINK, clone_flag, namespace_source};
use crate::plan::exec::Joining;
use crate::plan::facts::{DiskFact, GroupMount, StreamFact, TapsFact};
use crate::plan::process::{ProcessPlan, TERMINAL};
use crate::process::{self, ExitStatus, OomCount, Output, Process, Source, Streams};
use crate::proto::section::LIFT;
use crate::proto::{Record, record, request};
use crate::spec::{BindSource, Landlock, MountKind, NamespaceKind, NamespaceSource, Port, Spec, Stdio};
use crate::state::ids::IdClaim;
use crate::state::names::{self, Life, NameClaim};
use crate::sys::nsfs::{self, namespace_type};
use crate::sys::pidfd::pidfd_open;
use crate::syscalls::{Filters, SyscallListener};
use crate::volume;

/// OpenVZ's table of resources.
mod beancounters;
/// Network devices that move.
mod device;
/// The writable layer: figures and changes.
mod disk;
/// Threads of the host inside.
mod enter;
/// Files and trees of files, from outside.
mod files;
/// Groups of processes inside.
mod groups;
/// The log of the main process.
mod logs;
/// Figures of network devices.
mod net_usage;
/// Device nodes, and rules about devices.
mod nodes;
/// Pseudoterminals, /dev/shm and kernel parameters.
mod parameters;
/// Containers that share namespaces.
mod pod;
/// Ports at the host.
mod ports;
/// The processes of a container.
mod processes;
/// Sockets and files inside, for the host.
mod reach;
/// Waiting until it is ready.
mod ready;
/// Changes of a running container.
mod update;

pub use beancounters::Beancounter;
pub(crate) use device::{Moved, in_namespace, new_index};
pub(crate) use disk::prospect as prospect_disk;
pub use enter::Lent;
pub use files::WriteOptions;
pub use groups::ControlGroup;
pub(crate) use groups::Sub;
use logs::new_log;
pub use logs::{LogIter, LogOptions, LogReader};
pub use pod::Pod;
pub use processes::ProcessEntry;
pub use ready::{HttpCheck, PortCheck, Readiness, WaitFor};

/// How long an implicit end (a drop, a failed start) may take.
const SHORT: Duration = Duration::from_secs(5);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

#[derive(Debug, Default)]
struct End {
    /// The time limit that ended it: a number of `proto::limit`.
    limit: u32,
    /// No process is left.
    empty: bool,
    ended: Option<Record>,
    keeper_died: bool,
}

/// What handles and processes of a container share. It does not keep the container running.
pub(crate) struct Inner {
    owner: Owner,
    id: String,
    /// As it was started.
    spec: Spec,
    /// As it is after updates.
    spec_now: Mutex<Spec>,
    /// Held during an update: one at a time.
    updating: Mutex<()>,
    granted: Mutex<update::Granted>,
    /// Of an attached container; the record of a detached one has them.
    before: Mutex<parameters::Before>,
    /// Likewise.
    nodes: Mutex<nodes::Nodes>,
    /// It has the namespaces of a pod.
    holder: bool,
    keeper: Arc<Keeper>,
    key: u64,
    pid: i32,
    pidfd: OwnedFd,
    /// `None` for a container that another process started.
    channel: Option<Channel>,
    end: Mutex<End>,
    closed: AtomicBool,
    killed: AtomicBool,
    cancel: OwnedFd,
    group: Option<Group>,
    subs: groups::Subs,
    layer: disk::Layer,
    net: Mutex<net_usage::NetReader>,
    devices: Mutex<Vec<device::Moved>>,
    /// What it has of networks, until it has ended.
    kept: Mutex<net::Kept>,
    ports: Vec<Port>,
    readers: Readers,
    syscalls: Filters,
    claims: Mutex<Vec<IdClaim>>,
    name: Mutex<Option<NameClaim>>,
    volumes: Mutex<volume::Used>,
    log: logs::Log,
    /// Whose namespaces it has, and in whose group it is.
    pod: Option<Membership>,
    /// What `info_json` tells: made when somebody asks.
    info: OnceCell<Value>,
    chosen: Chosen,
    namespaces: u64,
    may_setgroups: bool,
    default_ids: (u32, u32),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = &self.spec.name;
        f.debug_struct("Inner")
            .field("id", &self.id)
            .field("name", name)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl Inner {
    /// True when it has ended and all was undone.
    pub fn wait_end(&self, timeout: Option<Duration>, cancel: Option<BorrowedFd<'_>>) -> Result<bool> {
        let mut deadline = launch::deadline(timeout);
        let Some(channel) = &self.channel else { return self.wait_recorded_end(deadline, cancel) };
        // The wait is for the processes. The groups go in microseconds once nobody is left, if the keeper is not busy.
        let mut patient = false;
        loop {
            {
                let mut end = lock(&self.end);
                if end.ended.is_some() || end.keeper_died {
                    return Ok(true);
                }
                // Taken under the lock, so that nobody waits for a record that another thread has read.
                match channel.take()? {
                    Answer::Record(record, _) if record.kind == record::EMPTY => {
                        end.empty = true;
                        end.limit = record.limit;
                        // Who took EMPTY has the last look, and releases after it. Without the lock, because a look can take as
                        // long as a slow disk does, and others only want to know whether it runs.
                        drop(end);
                        // The last look; then the keeper may remove the groups.
                        self.readers.look(true);
                        if let Some(group) = &self.group
                            && !self.closed.load(Ordering::Relaxed)
                        {
                            // Without figures, `usage` says so.
                            let _ = group.final_usage();
                        }
                        self.close_layer();
                        self.give_devices_back();
                        self.keeper.send(request::RELEASE, self.key, 0, 0, &[])?;
                        continue;
                    }
                    Answer::Record(record, _) if record.kind == record::ENDED => {
                        // Under the lock: who sees the end may take the name again. (After EMPTY the layer is closed already.)
                        self.close_layer();
                        self.release();
                        end.limit = end.limit.max(record.limit);
                        end.ended = Some(record);
                        drop(end);
                        self.give_devices_back();
                        lock(&self.volumes).end();
                        self.wait_keeper_gone();
                        return Ok(true);
                    }
                    Answer::End => {
                        end.keeper_died = true;
                        drop(end);
                        self.leave_networks();
                        self.close_layer();
                        self.give_devices_back();
                        return Ok(true);
                    }
                    Answer::Record(..) => continue,
                    _ => {}
                }
            }
            if !patient && lock(&self.end).empty {
                patient = true;
                deadline = deadline.map(|at| at.max(Instant::now() + SHORT));
            }
            match cancel {
                Some(cancel) => {
                    let [ready, cancelled] = launch::poll([channel.as_fd(), cancel], deadline)?;
                    if !ready && cancelled {
                        return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
                    }
                    if !ready {
                        return Ok(false);
                    }
                }
                None => {
                    let [ready] = launch::poll([channel.as_fd()], deadline)?;
                    if !ready {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Of a container that another process started: its pidfd, then the record that its keeper leaves.
    fn wait_recorded_end(&self, deadline: Option<Instant>, cancel: Option<BorrowedFd<'_>>) -> Result<bool> {
        let pidfd = self.pidfd.as_fd();
        let [ended, cancelled] = launch::poll([pidfd, cancel.unwrap_or(pidfd)], deadline)?;
        if !ended && cancelled {
            return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
        }
        if !ended {
            return Ok(false);
        }
        let name = self.spec.name.as_deref().unwrap_or_default();
        let patience = Instant::now() + SHORT;
        while names::lookup(name).is_ok_and(|r| r.data["id"] == self.id.as_str() && r.life == Life::Running) {
            if Instant::now() > patience || deadline.is_some_and(|at| Instant::now() > at) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.wait_keeper_gone();
        Ok(true)
    }

    /// A detached container's keeper holds its name until it is gone itself, a moment after its last word; `gc` takes the
    /// name for alive until then.
    fn wait_keeper_gone(&self) {
        let patience = Instant::now() + Duration::from_millis(500);
        while self.spec.detach
            && crate::state::start_time(self.keeper.pid) == Some(self.keeper.start_time)
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn release(&self) {
        self.leave_networks();
        lock(&self.claims).clear();
        *lock(&self.name) = None;
    }

    fn leave_networks(&self) {
        // Its devices want locks of their own.
        let kept = std::mem::take(&mut *lock(&self.kept));
        drop(kept);
    }

    pub fn keeper_died(&self) -> bool {
        lock(&self.end).keeper_died
    }

    /// The time limit that ended it. Waits for the end, which is near, when it has one.
    pub fn ended_by_time(&self) -> Option<process::Reason> {
        let now = lock(&self.spec_now);
        if now.wall_time.is_none() && now.cpu_time.is_none() {
            return None;
        }
        drop(now);
        // Its last process may be just going; a container that lives on was not ended.
        let _ = self.wait_end(Some(Duration::from_millis(200)), None);
        process::Reason::of_limit(lock(&self.end).limit)
    }

    pub fn was_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// In one of its groups inside, else in all of it: on v2 with the groups inside, on v1 they are added.
    pub fn oom_kills(&self, sub: Option<&groups::Sub>) -> Option<u64> {
        match sub {
            Some(sub) => sub.group.oom_kills(),
            None => Some(self.group.as_ref()?.oom_kills()? + self.oom_kills_inside()),
        }
    }

    /// What the keeper of a detached container wrote about its main process.
    pub fn recorded_main_status(&self) -> ExitStatus {
        let name = self.spec.name.as_deref().unwrap_or_default();
        match names::lookup(name) {
            Ok(record) if record.data["id"] == self.id.as_str() => match record.life {
                Life::Ended(_) if process::Reason::of_limit(record.limit).is_some() => ExitStatus {
                    reason: process::Reason::of_limit(record.limit).expect("just seen"),
                    ..ExitStatus::from_wait(libc::SIGKILL)
                },
                Life::Ended(Some(status)) => ExitStatus::from_wait(status),
                Life::Ended(None) => {
                    ExitStatus { reason: process::Reason::ContainerEnded, ..ExitStatus::from_wait(libc::SIGKILL) }
                }
                _ => ExitStatus { reason: process::Reason::Lost, ..ExitStatus::from_wait(libc::SIGKILL) },
            },
            _ => ExitStatus { reason: process::Reason::Lost, ..ExitStatus::from_wait(libc::SIGKILL) },
        }
    }

    fn has_ended(&self) -> bool {
        self.wait_end(Some(Duration::ZERO), None).unwrap_or(true)
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether pid 1 runs.
    pub fn runs(&self) -> bool {
        process_runs(&self.pidfd)
    }

    pub fn syscalls(&self) -> &Filters {
        &self.syscalls
    }

    pub fn watch_group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    pub fn add_reader(&self, reader: &Arc<Shared>) {
        self.readers.add(reader);
    }

    /// What becomes readable when it ends: the channel of one that this process started, else the pidfd. Nobody holds a detached
    /// container's groups, so its readers hear of the end of pid 1 as well; and that its handle was closed, although it goes on.
    pub fn end_descriptors(&self) -> EndDescriptors<'_> {
        let end = self.channel.as_ref().map_or(self.pidfd.as_fd(), |channel| channel.as_fd());
        let closed = self.spec.detach.then(|| self.cancel.as_fd());
        EndDescriptors {
            always: [Some(end), closed].into_iter().flatten().collect(),
            until_pid_one_ended: (self.spec.detach && self.channel.is_some()).then(|| self.pidfd.as_fd()),
        }
    }

    /// Whether nothing can happen any more.
    pub fn events_are_over(&self, pid_one_ended: bool) -> Result<bool> {
        match &self.channel {
            Some(_) => self.wait_end(Some(Duration::ZERO), None),
            None => Ok(pid_one_ended),
        }
    }

    /// The handle of a container that goes on was closed.
    pub fn is_let_go(&self) -> bool {
        self.spec.detach && self.closed.load(Ordering::Relaxed)
    }

    fn kill(&self) -> Result<()> {
        self.killed.store(true, Ordering::Relaxed);
        if namespace_source(&self.spec, NamespaceKind::Pid) != NamespaceSource::New
            && let Some(group) = &self.group
        {
            group.kill()?;
        }
        match process::send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            // The host gave up its privileges: the keeper has them still. ENOSYS: a filter that is older than the call.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                self.keeper.send(request::KILL, self.key, libc::SIGKILL, 0, &[])?;
                Ok(())
            }
            Err(e) => Err(Error::io("pidfd_send_signal", &e)),
        }
    }

    fn info(&self) -> &Value {
        let describe = || self.chosen.describe(&self.spec, &self.id, self.pid, &self.keeper, self.group.as_ref());
        self.info.get_or_init(describe)
    }

    fn joining(&self) -> Joining {
        Joining {
            namespaces: self.namespaces,
            group_dir: self.group.as_ref().is_some_and(|g| g.v2_dir().is_some()),
            group_tasks: self.group.as_ref().map_or(0, |g| g.v1().len()),
            root: facts::root_ids(self.may_setgroups, self.default_ids),
        }
    }

    fn keeper_is_gone(&self) -> Error {
        let error =
            Error::new(ErrorKind::KeeperDied, "the keeper of this container was killed, and the container with it")
                .with_errno(libc::EPIPE)
                .with_hint("gc() ends and removes what is left of it");
        if lock(&self.end).ended.is_some() || !process_runs(&self.pidfd) {
            return error.with_kind(ErrorKind::Closed).with_detail("the container has ended");
        }
        error
    }
}

pub(crate) struct EndDescriptors<'a> {
    pub always: Vec<BorrowedFd<'a>>,
    pub until_pid_one_ended: Option<BorrowedFd<'a>>,
}

pub(crate) fn no_group() -> Error {
    Error::new(ErrorKind::Unsupported, "this container has no control group")
        .with_field("cgroup")
        .with_hint("doctor() says why, and how to get one delegated")
}

fn process_runs(pidfd: &OwnedFd) -> bool {
    launch::poll([pidfd.as_fd()], Some(Instant::now())).is_ok_and(|[ended]| !ended)
}

/// Attached containers whose handles were dropped: their ids are not free before they have ended.
static LINGERING: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());

fn sweep_lingering() {
    let Ok(mut lingering) = LINGERING.try_lock() else { return };
    // What they let go of may be the last of another container, which may come to linger too: not under the lock.
    let mut all = std::mem::take(&mut *lingering);
    drop(lingering);
    all.retain(|inner| inner.owner.is_this() && !inner.has_ended());
    lock(&LINGERING).append(&mut all);
}

static NAMED: Lazy<Mutex<HashMap<String, Weak<Handle>>>> = Lazy::new(Mutex::default);

#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
    main: Option<Process>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inner = &self.inner;
        if !inner.owner.is_this() || inner.spec.detach || inner.channel.is_none() {
            return;
        }
        inner.closed.store(true, Ordering::Relaxed);
        if !inner.has_ended() {
            let _ = inner.kill();
            // In most cases it is gone now; otherwise the next start or close looks after it.
            if !inner.wait_end(Some(Duration::from_millis(100)), None).unwrap_or(true) {
                lock(&LINGERING).push(inner.clone());
            }
        }
        if inner.keeper_died() {
            let _ = crate::state::collect_dead();
        }
    }
}

/// A running container. Clones are handles of the same container; when the last clone goes, an attached container is
/// killed (bounded, without waiting for more than a moment). Every method may be called from any thread, concurrently. In a
/// forked child of this program every call fails with [`ErrorKind::ForkedChild`], and drops only release memory.
///
/// A container whose spec has an `argv` ends when that main process ends; one without lives until it is closed.
#[derive(Clone, Debug)]
pub struct Container {
    handle: Arc<Handle>,
}

/// A process's pidfd, and numbered descriptors that the plan sent.
struct Answered {
    pidfd: Option<OwnedFd>,
    listening: Option<launch::Listening>,
    fds: Vec<(u32, OwnedFd)>,
}

/// The ends of the three streams that the payload gets, and the host's.
struct Opened {
    given: [Option<OwnedFd>; 3],
    facts: [StreamFact; 3],
    host: Streams,
}

fn open_streams(asked: [Option<&Stdio>; 3], defaults: [Stdio; 3], log: Option<&OwnedFd>) -> Result<Opened> {
    const FIELDS: [&str; 3] = ["stdin", "stdout", "stderr"];
    let mut out = Opened { given: [None, None, None], facts: [StreamFact::Null; 3], host: Streams::default() };
    for (i, default) in defaults.iter().enumerate() {
        let field = FIELDS[i];
        let fd = match asked[i].unwrap_or(default) {
            Stdio::Null => continue,
            // A host without such a stream (closed) has nothing to inherit.
            Stdio::Inherit => match launch::duplicate(i as i32, field) {
                Ok(fd) => fd,
                Err(e) if e.errno() == libc::EBADF => continue,
                Err(e) => return Err(e),
            },
            Stdio::Fd(fd) => launch::duplicate(*fd, field)?,
            Stdio::File(path) => launch::open_stream_file(path, i == 0, field)?,
            Stdio::Log => match log {
                Some(log) if i != 0 => log.try_clone().map_err(|e| Error::io("dup", &e).with_field(field))?,
                _ => {
                    return Err(Error::spec(
                        field,
                        "only stdout and stderr of a container's own main process can be logged",
                    ));
                }
            },
            Stdio::Stdout => {
                if i != 2 {
                    return Err(Error::spec(field, "only stderr can be joined with stdout"));
                }
                out.facts[i] =
                    if out.facts[1] == StreamFact::Null { StreamFact::Null } else { StreamFact::SameAsStdout };
                continue;
            }
            Stdio::Pipe => {
                let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
                    .map_err(|e| Error::os("pipe2", e as i32).with_field(field))?;
                match i {
                    0 => {
                        out.host.stdin = Some(write);
                        read
                    }
                    1 => {
                        out.host.stdout = Some(read);
                        write
                    }
                    _ => {
                        out.host.stderr = Some(read);
                        write
                    }
                }
            }
        };
        out.given[i] = Some(fd);
        out.facts[i] = StreamFact::Given;
    }
    Ok(out)
}

/// What a member of a pod shares, and with whom.
#[derive(Clone, Debug)]
struct Membership {
    holder: Arc<Inner>,
    kinds: Vec<NamespaceKind>,
}

/// What a container is to a pod.
#[derive(Clone, Copy)]
enum Role<'a> {
    Alone,
    /// It has the namespaces and no process but pid 1. With pids, those who share them are ended by their groups, in its own.
    Holder {
        pids: bool,
    },
    Member(&'a Membership),
    /// It has a network namespace that nobody else is in, of which the library gets sockets.
    Switch(&'a Mutex<Switch>),
    /// A program of the host's that has to do with a switch: it is born where that was, with no ids but those.
    Beside(&'a Container),
    /// It only has something undone at its end: see [`Container::start_undo`].
    Undo(&'a [u8], BorrowedFd<'a>),
}

/// What the library gets of a container that holds the network namespace of a switch.
#[derive(Debug, Default)]
struct Switch {
    sockets: Vec<(u32, OwnedFd)>,
    /// A file beside its record.
    hosts: Option<(PathBuf, OwnedFd)>,
}

/// Sockets of family AF_NETLINK in the network namespace of a switch, and /etc/hosts of those on it.
pub(crate) struct SwitchParts {
    pub route: OwnedFd,
    pub firewall: OwnedFd,
    pub hosts: (PathBuf, std::fs::File),
}

const NOBODY: &[Attribute] = &[];

/// This thread, while a container starts.
struct Attending<'a> {
    asks: &'a [Attribute],
    joining: &'a mut net::Joining,
    /// What is to be done when it is on its networks; an errno.
    settled: &'a mut dyn FnMut() -> i32,
    plan: &'a launch::PlanFile,
}

impl launch::Attend for Attending<'_> {
    fn take(&mut self, number: u32, fd: OwnedFd) -> Option<OwnedFd> {
        const ROUTE: u32 = NETLINK + libc::NETLINK_ROUTE as u32;
        match number {
            ROUTE if !self.joining.is_empty() => self.joining.connect(fd),
            HOSTS => self.joining.take_hosts(fd),
            _ => return Some(fd),
        }
        None
    }

    fn ask(&mut self, index: usize, process: BorrowedFd<'_>) -> i32 {
        match self.asks.get(index) {
            Some(Attribute::Network) => match self.joining.settle() {
                0 => (self.settled)(),
                errno => errno,
            },
            Some(attribute) => attribute.set(process),
            None => libc::EINVAL,
        }
    }

    fn plan(&self) -> Option<&launch::PlanFile> {
        Some(self.plan)
    }
}

impl<'a> Role<'a> {
    fn member(self) -> Option<&'a Membership> {
        match self {
            Self::Member(membership) => Some(membership),
            _ => None,
        }
    }
}

/// Opens the namespaces that a spec joins.
fn open_namespaces(spec: &Spec, privileged: bool, pod: Option<&Membership>) -> Result<Vec<(NamespaceKind, OwnedFd)>> {
    let mut out = Vec::new();
    for kind in NamespaceKind::ALL {
        let field = format!("namespaces.{}", kind.name());
        let open = |path: &std::path::Path| {
            std::fs::File::open(path)
                .map(OwnedFd::from)
                .map_err(|e| Error::io("open", &e).with_field(field.clone()).with_path(path.to_string_lossy()))
        };
        let source = namespace_source(spec, kind);
        if let Some(Membership { holder, kinds }) = pod
            && (kind == NamespaceKind::User || kinds.contains(&kind))
        {
            if source != NamespaceSource::Host {
                let copy = holder.pidfd().try_clone_to_owned();
                out.push((kind, copy.map_err(|e| Error::io("dup", &e).with_field(field))?));
            }
            continue;
        }
        let by_path = matches!(source, NamespaceSource::Path(_));
        let fd = match source {
            NamespaceSource::Host if kind == NamespaceKind::Mnt && privileged => {
                open("/proc/thread-self/ns/mnt".as_ref())?
            }
            NamespaceSource::New | NamespaceSource::Host => continue,
            NamespaceSource::Path(path) => open(&path)?,
            NamespaceSource::Pid(pid) => open(format!("/proc/{pid}/ns/{}", kind.name()).as_ref())?,
            NamespaceSource::Fd(fd) => launch::duplicate(fd, &field)?,
            NamespaceSource::Container(name) => {
                let other = Container::by_name(&name).map_err(|e| e.with_field(field.clone()))?;
                let copy = other.pidfd().try_clone_to_owned();
                copy.map_err(|e| Error::io("dup", &e).with_field(field.clone()))?
            }
        };
        // setns would say EINVAL. A descriptor that is no namespace may be a pidfd.
        let right = match namespace_type(fd.as_fd()) {
            Some(flag) => flag == clone_flag(kind),
            None => !by_path,
        };
        if !right {
            return Err(Error::spec(field, format!("this is not a namespace of kind {}", kind.name())));
        }
        out.push((kind, fd));
    }
    Ok(out)
}

/// The containers of this process whose namespaces a spec joins, by name.
fn joined_containers(spec: &Spec) -> impl Iterator<Item = (NamespaceKind, Arc<Handle>)> {
    NamespaceKind::ALL.into_iter().filter_map(|kind| match namespace_source(spec, kind) {
        NamespaceSource::Container(name) => Some((kind, lock(&NAMED).get(&name).and_then(Weak::upgrade)?)),
        _ => None,
    })
}

/// Each keeper of an ordinary user has an outer user namespace of its own: what was born in one cannot be joined by what
/// is born in another.
fn keeper_of_joined(spec: &Spec) -> Option<Arc<Keeper>> {
    let named = joined_containers(spec).map(|(_, handle)| handle.inner.keeper.clone());
    let usable = |keeper: &Arc<Keeper>| keeper.outer.is_some() && keeper.owner.is_this() && !keeper.is_dead();
    if let Some(keeper) = named.into_iter().find(usable) {
        return Some(keeper);
    }
    let keepers: Vec<_> = launch::keepers().into_iter().filter(usable).collect();
    if keepers.len() < 2 {
        return None;
    }
    let inode = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let outer: Vec<_> =
        keepers.iter().map(|k| inode(std::fs::File::open(format!("/proc/{}/ns/user", k.pid)).ok()?.as_fd())).collect();
    for kind in NamespaceKind::ALL {
        let opened = match namespace_source(spec, kind) {
            NamespaceSource::Path(path) => std::fs::File::open(path).ok().map(OwnedFd::from),
            NamespaceSource::Pid(pid) => {
                std::fs::File::open(format!("/proc/{pid}/ns/{}", kind.name())).ok().map(Into::into)
            }
            NamespaceSource::Fd(fd) => launch::duplicate(fd, "").ok(),
            _ => None,
        };
        // Its owner, then that one's parents: a container's user namespace is a child of the keeper's.
        let mut above = if kind == NamespaceKind::User { nsfs::parent } else { nsfs::owner };
        let mut at = opened;
        while let Some(fd) = at {
            let Ok(next) = above(fd.as_fd()) else { break };
            let found = inode(next.as_fd());
            if let Some(index) = outer.iter().position(|o| o.is_some() && *o == found) {
                return Some(keepers[index].clone());
            }
            above = nsfs::parent;
            at = Some(next);
        }
    }
    None
}

/// An ordinary user's container with a single id forbids setgroups(2) to whoever joins it.
fn joined_user_allows_setgroups(spec: &Spec) -> bool {
    match namespace_source(spec, NamespaceKind::User) {
        NamespaceSource::Pid(pid) => {
            std::fs::read_to_string(format!("/proc/{pid}/setgroups")).map_or(true, |text| text.trim() != "deny")
        }
        NamespaceSource::Container(_) => joined_containers(spec)
            .find(|(kind, _)| *kind == NamespaceKind::User)
            .is_none_or(|(_, handle)| handle.inner.may_setgroups),
        _ => true,
    }
}

/// Before anything is opened: the number of a closed descriptor would come to mean one of the library's own.
fn check_descriptors(spec: &Spec) -> Result<()> {
    let streams = [("stdin", &spec.stdin), ("stdout", &spec.stdout), ("stderr", &spec.stderr)];
    for (field, stream) in streams {
        if let Some(Stdio::Fd(fd)) = stream {
            launch::check_open(*fd, field)?;
        }
    }
    for fd in spec.pass_fds.keys() {
        launch::check_open(*fd, &format!("pass_fds.{fd}"))?;
    }
    for (i, mount) in spec.mounts.iter().enumerate() {
        if let MountKind::Bind { source: BindSource::Fd(fd), .. } = &mount.kind {
            launch::check_open(*fd, &format!("mounts[{i}].fd"))?;
        }
    }
    for (kind, source) in &spec.namespaces {
        if let NamespaceSource::Fd(fd) = source {
            launch::check_open(*fd, &format!("namespaces.{}", kind.name()))?;
        }
    }
    Ok(())
}

/// What processor time is read from.
fn time_counter(group: Option<&Group>) -> Result<OwnedFd> {
    let none = || {
        Error::new(
            ErrorKind::Unsupported,
            "processor time is counted for a control group in a v2 tree, and there is none",
        )
        .with_field("cpu_time")
        .with_hint("doctor() says why there is none, and how to get one delegated; rlimits.cpu limits each process")
    };
    let dir = group.and_then(Group::v2_dir).ok_or_else(none)?;
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, "cpu.stat", flags, nix::sys::stat::Mode::empty())
        .map_err(|e| Error::os("open", e as i32).with_field("cpu_time").with_path("cpu.stat"))
}

fn other_credentials(started: &str) -> Error {
    let what = format!("this thread's credentials are not those that started {started}");
    Error::new(ErrorKind::PermissionDenied, what)
        .with_errno(libc::EPERM)
        .with_hint("ids, groups, capabilities and namespaces have to be the same")
}

/// A container that divides its groups would be out of reach of a limit that does not hold in them.
fn check_nested_rates(spec: &Spec) -> Result<()> {
    if !spec.nesting || spec.io_max.is_empty() || !crate::cgroup::rates_are_for_one_group() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "cgroup v1 limits the rates of a device for one group, not for the groups in it, which `nesting` lets the container make",
    )
    .with_field("io_max")
    .with_hint("leave out nesting or io_max, or use cgroup v2"))
}

fn keeper_killed() -> Error {
    Error::new(ErrorKind::KeeperDied, "the keeper was killed during the start").with_errno(libc::EPIPE)
}

fn context(spec: &Spec) -> String {
    match &spec.name {
        Some(name) => format!("start container {name:?}"),
        None => "start container".to_owned(),
    }
}

/// Everything that a start has made so far.
struct Prepared {
    keeper: Arc<Keeper>,
    ids: IdChoice,
    name: Option<NameClaim>,
    log: Option<OwnedFd>,
}

/// What one attempt with one keeper came to.
enum Attempt {
    Done(Container),
    Refused(Arc<Keeper>),
    KeeperLeft,
}

/// The index of a directory in the keeper's table, or what becomes of the attempt without one.
fn share(keeper: &Arc<Keeper>, directory: &Arc<OwnedFd>) -> Result<std::result::Result<usize, Attempt>> {
    Ok(match keeper.share(directory)? {
        launch::Shared::At(index) => Ok(index),
        launch::Shared::Refused => Err(Attempt::Refused(keeper.clone())),
        launch::Shared::Left => Err(Attempt::KeeperLeft),
    })
}

impl Container {
    /// Starts a container; its main process, when `argv` is not empty, has been executed when this returns.
    ///
    /// # Errors
    /// They name the field of the spec, the step, the path and the errno; nothing is left behind.
    pub fn start(spec: &Spec) -> Result<Self> {
        Self::start_as(spec, Role::Alone)
    }

    /// A container with nothing in it but its pid 1, with whose end the keeper sends these messages to rtnetlink(7), also when
    /// this program was killed: for what can go before the container that has it. It keeps `claim` open until that is done.
    pub(crate) fn start_undo(messages: &[u8], claim: BorrowedFd<'_>) -> Result<Self> {
        let spec = Spec { net: crate::spec::Net::Host, idmap: crate::spec::Idmap::Host, ..Spec::default() };
        Self::start_as(&spec, Role::Undo(messages, claim))
    }

    /// Starts what holds the network namespace of a switch.
    pub(crate) fn start_switch(spec: &Spec) -> Result<(Self, SwitchParts)> {
        let switch = Mutex::default();
        let container = Self::start_as(spec, Role::Switch(&switch))?;
        let mut switch = lock(&switch);
        let sockets = std::mem::take(&mut switch.sockets).into_iter().map(|(_, socket)| socket);
        let sockets: std::result::Result<[OwnedFd; 2], _> = sockets.collect::<Vec<_>>().try_into();
        match (sockets, switch.hosts.take()) {
            (Ok([route, firewall]), Some((path, file))) => {
                Ok((container, SwitchParts { route, firewall, hosts: (path, file.into()) }))
            }
            _ => Err(Error::new(ErrorKind::Internal, "the keeper sent no sockets of a switch")),
        }
    }

    /// Starts a program that works for a switch from outside of it.
    pub(crate) fn start_beside(switch: &Self, spec: &Spec) -> Result<Self> {
        Self::start_as(spec, Role::Beside(switch))
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner().closed.load(Ordering::Relaxed)
    }

    pub(crate) fn keeper(&self) -> &Arc<Keeper> {
        &self.inner().keeper
    }

    /// Whose network it has.
    fn of_network(&self) -> &Arc<Inner> {
        let inner = self.inner();
        let pod = inner.pod.as_ref().filter(|pod| pod.kinds.contains(&NamespaceKind::Net));
        pod.map_or(inner, |pod| &pod.holder)
    }

    /// By which its networks know it.
    pub(crate) fn network_id(&self) -> &str {
        &self.of_network().id
    }

    /// Whether a program in its network may come to change its devices.
    pub(crate) fn may_have_net_admin(&self) -> bool {
        const CAP_NET_ADMIN: u64 = 1 << 12;
        // Of the others of a pod nothing is known here.
        self.inner().pod.is_some() || self.inner().spec.capabilities.all() & CAP_NET_ADMIN != 0
    }

    pub(crate) fn network_addresses(&self) -> Result<Vec<net::Address>> {
        self.open()?;
        Ok(lock(&self.of_network().kept).devices.iter().filter_map(net::Attached::address).collect())
    }

    fn start_as(spec: &Spec, role: Role<'_>) -> Result<Self> {
        spec.validate().and_then(|()| check_descriptors(spec)).map_err(|e| e.with_context(context(spec)))?;
        sweep_lingering();
        let mut refused = Vec::new();
        let mut left = 0;
        loop {
            match Self::attempt(spec, role, &refused).map_err(|e| e.with_context(context(spec)))? {
                Attempt::Done(container) => {
                    let name = container.name().map(|name| format!(" {name:?}")).unwrap_or_default();
                    log::info!("started {}{name}, pid {}", container.id(), container.pid());
                    return Ok(container);
                }
                Attempt::Refused(_) if role.member().is_some() => {
                    return Err(other_credentials("the pod").with_context(context(spec)));
                }
                Attempt::Refused(keeper) => refused.push(keeper),
                Attempt::KeeperLeft if let Some(pod) = role.member() => {
                    return Err(pod.holder.keeper_is_gone().with_context(context(spec)));
                }
                // It went after its idle time, just now.
                Attempt::KeeperLeft => left += 1,
            }
            if refused.len() > 8 || left > 8 {
                return Err(
                    Error::new(ErrorKind::KeeperDied, "no keeper takes the request").with_context(context(spec))
                );
            }
        }
    }

    fn attempt(spec: &Spec, role: Role<'_>, refused: &[Arc<Keeper>]) -> Result<Attempt> {
        let logs = !spec.argv.is_empty() && logs::is_wanted(spec);
        let log = if logs { Some(new_log(spec.log_max.unwrap_or(Spec::LOG_MAX))?) } else { None };
        let name = match &spec.name {
            Some(name) => Some(names::claim_name(name, spec.detach)?),
            None => None,
        };
        let prepared = if spec.detach {
            Self::prepare_detached(spec, name, log)?
        } else if let Some(Membership { holder, .. }) = role.member() {
            let Chosen { mode, maps, why, .. } = &holder.chosen;
            let (mode, maps, why) = (*mode, maps.clone(), why.clone());
            let ids = IdChoice { maps, claims: Vec::new(), detached_claims: None, mode, why };
            Prepared { keeper: holder.keeper.clone(), ids, name, log }
        } else {
            let of_networks = match role {
                Role::Switch(_) => net::keeper_of_others(),
                Role::Beside(switch) => Some(switch.keeper().clone()),
                _ => net::keeper_of_networks(spec),
            };
            let keeper = match of_networks.or_else(|| keeper_of_joined(spec)) {
                Some(keeper) if refused.is_empty() => keeper,
                _ => launch::acquire(refused)?,
            };
            let ids = match role {
                // Nobody's code runs in it, or the host's own.
                Role::Switch(_) | Role::Beside(_) => {
                    IdChoice { maps: None, claims: Vec::new(), detached_claims: None, mode: "host", why: None }
                }
                _ => facts::choose_ids(spec, keeper.outer.as_ref())?,
            };
            Prepared { keeper, ids, name, log }
        };
        let keeper = prepared.keeper.clone();
        keeper.starting.fetch_add(1, Ordering::Relaxed);
        let result = Self::launch(spec, role, prepared);
        keeper.starting.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// A detached container has a keeper of its own, which gets the socket, the name and the claims at its birth.
    fn prepare_detached(spec: &Spec, name: Option<NameClaim>, log: Option<OwnedFd>) -> Result<Prepared> {
        let name = name.ok_or_else(|| Error::spec("detach", "a detached container needs a name"))?;
        let null = || {
            std::fs::File::open("/dev/null")
                .map(OwnedFd::from)
                .map_err(|e| Error::io("open", &e).with_path("/dev/null"))
        };
        // Ids are chosen with the rights that the keeper will have: this thread's.
        let probe = launch::prospect()?;
        let mut ids = facts::choose_ids(spec, probe.as_ref())?;
        let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| Error::io("dup", &e));
        let detached = launch::Detached {
            listen: name.listen()?,
            name_lock: copy(name.lock_fd())?.into(),
            status: name.open_status()?,
            log: match &log {
                Some(log) => copy(log.as_fd())?,
                None => null()?,
            },
            log_file: name.open_log()?,
            claims: match ids.detached_claims.take() {
                Some(fd) => fd.into(),
                None => null()?.into(),
            },
        };
        let keeper = launch::start_detached(detached)?;
        Ok(Prepared { keeper, ids, name: Some(name), log })
    }

    /// Makes the group of a container that is in no pod's.
    fn own_group(
        spec: &Spec,
        role: Role<'_>,
        keeper: &Arc<Keeper>,
        id: &str,
        (limits, purpose): (&Limits, Purpose<'_>),
    ) -> Result<std::result::Result<Option<Group>, Attempt>> {
        let whereabouts = crate::cgroup::whereabouts();
        let rules = purpose.devices.and_then(DeviceRules::field);
        let rules = rules.map(|field| if field == "device_rules" { "device_rules" } else { "devices" });
        let needed = matches!(role, Role::Holder { pids: true }).then_some("share").or(rules);
        let Some(place) = launch::place(keeper, spec, limits, needed)? else { return Ok(Err(Attempt::KeeperLeft)) };
        if spec.cgroup_parent.is_some() || keeper.group_parents.load(Ordering::Relaxed) != whereabouts {
            let parents = Group::open_parents(&place, limits, purpose.devices.is_some())?;
            for parent in &parents {
                if let Err(not_taken) = share(keeper, parent)? {
                    return Ok(Err(not_taken));
                }
            }
            if spec.cgroup_parent.is_none() && !parents.is_empty() {
                keeper.group_parents.store(whereabouts, Ordering::Relaxed);
            }
        }
        Group::create_in(&place, id, limits, purpose).map(Ok)
    }

    fn launch(spec: &Spec, role: Role<'_>, prepared: Prepared) -> Result<Attempt> {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let Prepared { keeper, ids, name, log } = prepared;
        let id = format!("{}{}-{}", keeper.id_prefix(), keeper.start_time, COUNTER.fetch_add(1, Ordering::Relaxed));
        let own_pids = namespace_source(spec, NamespaceKind::Pid) == NamespaceSource::New;
        let pod = role.member();
        let namespaces = open_namespaces(spec, keeper.privileged, pod)?;
        let mut listening = ports::Listening::open(spec)?;
        let mut joining = match pod.filter(|pod| pod.kinds.contains(&NamespaceKind::Net)) {
            Some(pod) => net::Joining::in_pod(spec, &lock(&pod.holder.kept).devices),
            None => net::Joining::begin(spec, &keeper)?,
        };
        joining.publish(listening.take_led_on())?;
        let default_ids =
            pod.map_or_else(|| facts::default_ids(spec, keeper.outer.as_ref()), |pod| pod.holder.default_ids);
        let seen = match role {
            // Nothing of the host's tree is looked at for it.
            Role::Holder { .. } | Role::Switch(_) | Role::Undo(..) => {
                &Spec { namespaces: [(NamespaceKind::Mnt, NamespaceSource::Host)].into(), ..spec.clone() }
            }
            _ => spec,
        };
        let (mut facts, mut left_out) = facts::gather(seen, keeper.outer.as_ref(), ids.maps.clone(), default_ids)?;
        facts.holder = matches!(role, Role::Holder { .. } | Role::Switch(_) | Role::Undo(..));
        facts.switch = matches!(role, Role::Switch(_));
        let outer_ids = matches!(role, Role::Switch(_) | Role::Beside(_));
        facts.may_setgroups &= !outer_ids || keeper.outer.as_ref().is_none_or(|outer| outer.pool() > 0);
        facts.ipv6 = net::has_ipv6();
        facts.name_servers = joining.leads_out().then(|| net::name_servers(spec)).flatten();
        if let Role::Undo(messages, claim) = role {
            facts.undo_net = Some((claim.as_raw_fd(), messages.to_vec()));
        }
        facts.hosts = joining.hosts().map(Into::into);
        facts.sends_hosts = joining.sends_hosts();
        let mut taps_made = Arc::default();
        if let Some((field, devices)) = joining.taps() {
            let has_dev = !facts.holder && namespace_source(spec, NamespaceKind::Mnt) == NamespaceSource::New;
            let taps = launch::taps(has_dev, &facts).map_err(|e| e.with_field(field))?;
            facts.taps = Some(TapsFact { directory: taps.directory.as_fd().as_raw_fd(), devices });
            joining.take_taps(&taps);
            taps_made = taps.numbers;
        }
        let (volumes, of_volumes) = volume::make(seen, &id)?;
        let volumes = volume::Starting::new(volumes);
        for (mount, path) in of_volumes {
            if let Some(of_mount) = facts.mount_paths.get_mut(mount) {
                *of_mount = Some(path);
            }
        }
        let mut shared_memory = None;
        if let Some(pod) = pod {
            facts.shared = pod.owned();
            facts.shared_shm = pod.shares_memory(spec);
            if facts.shared_shm {
                shared_memory = Some(pod.holder.clone_shared_memory(spec.start_timeout)?);
            }
        }
        let streams = if spec.argv.is_empty() {
            Opened { given: [None, None, None], facts: [StreamFact::Null; 3], host: Streams::default() }
        } else {
            let asked = [spec.stdin.as_ref(), spec.stdout.as_ref(), spec.stderr.as_ref()];
            let out = if spec.terminal.is_some() { Stdio::Null } else { Stdio::Log };
            open_streams(asked, [Stdio::Null, out.clone(), out], log.as_ref())?
        };
        facts.streams = streams.facts;
        let disk = disk::prepare(spec, keeper.privileged)?;
        facts.may_setgroups &= joined_user_allows_setgroups(spec);

        let limits = Limits::of(spec);
        check_nested_rates(spec)?;
        let heir = if spec.nesting { facts::heir(&facts, keeper.outer.as_ref())? } else { None };
        let pod_group = pod.and_then(|pod| pod.holder.group.as_ref());
        // Of a pod it is not known yet.
        let ports = listening.has_others() || matches!(role, Role::Holder { .. });
        let mut nodes = nodes::Nodes { given: facts.devices.clone(), taps: Vec::new() };
        let standard = nodes::has_own_dev(spec);
        let rules = match role {
            Role::Alone | Role::Member(_) => nodes::rules(spec, &nodes, standard)?,
            Role::Holder { .. } => nodes::rules_of_pod(spec)?,
            // The library's own.
            Role::Switch(_) | Role::Beside(_) | Role::Undo(..) => None,
        };
        let group = match pod_group {
            Some(above) => {
                for parent in above.parents() {
                    if let Err(not_taken) = share(&keeper, parent)? {
                        return Ok(not_taken);
                    }
                }
                Some(above.member(&id, &limits)?)
            }
            None => {
                let purpose = Purpose { heir, ports, devices: rules.as_ref() };
                match Self::own_group(spec, role, &keeper, &id, (&limits, purpose))? {
                    Ok(group) => group,
                    Err(not_made) => return Ok(not_made),
                }
            }
        };
        let mut making = Making { group, done: false };
        if let (Some(_), Some(group), Some(rules)) = (pod_group, &making.group, &rules) {
            group.set_device_rules(None, rules)?;
        }
        if !own_pids && !making.group.as_ref().is_some_and(Group::can_kill) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "without a pid namespace of its own only a control group can end it",
            )
            .with_field("namespaces.pid")
            .with_hint("see doctor() for why there is none"));
        }
        if spec.cpu_time.is_some() {
            time_counter(making.group.as_ref())?;
        }
        if let Some(group) = &making.group {
            facts.group_dir = group.v2_dir().is_some();
            facts.group_tasks = group.v1().len();
            if heir.is_some() {
                facts.group_leaf = facts.group_dir;
                let mount = |(v2, name, controllers)| GroupMount { v2, name, controllers };
                facts.group_mounts = group.inherited().into_iter().map(mount).collect();
            }
            // A member's are in those of its pod, whose parents the keeper knows.
            let (above, names) = match pod_group {
                Some(above) => (above, above.member_paths(group.name())),
                None => (group, vec![group.name().to_owned(); group.parents().len()]),
            };
            for (parent, name) in above.parents().iter().zip(names) {
                let index = match share(&keeper, parent)? {
                    Ok(index) => index,
                    Err(not_taken) => return Ok(not_taken),
                };
                facts.undo_groups.push((index, name));
            }
            if !own_pids && facts.group_dir {
                // The v2 parent is the first.
                facts.kill_group = facts.undo_groups.first().cloned();
            }
        }
        if let Some(name) = name.as_ref().filter(|_| !spec.detach) {
            if let Role::Switch(switch) = role {
                lock(switch).hosts = Some(name.open_hosts()?);
            }
            let (names, undo) = name.undo(&id)?;
            let index = match share(&keeper, &names)? {
                Ok(index) => index,
                Err(not_taken) => return Ok(not_taken),
            };
            facts.undo_name = Some((index, undo));
        }
        facts.pure_v2 = crate::cgroup::is_pure_v2();
        facts.disk = disk.kind.unwrap_or_default();
        facts.quota_calls = disk.calls.clone();
        // An image and a directory of the host are at hand.
        facts.watch_disk = disk.kind == Some(DiskFact::Tmpfs);
        let (compiled, needs) = crate::plan::container::compile(spec, &facts);

        let user_namespace = match pod {
            Some(pod) if compiled.idmapped.iter().any(|one| one.by_caller && one.maps.is_none()) => {
                let found = Namespace::of_pidfd(pod.holder.pidfd(), NamespaceKind::User);
                Some(found.map_err(|e| e.with_field("idmap"))?)
            }
            _ => None,
        };
        let users = match launch::namespaces_of_mounts(&keeper, &compiled)? {
            Ok(users) => users,
            Err(launch::Shared::Refused) => return Ok(Attempt::Refused(keeper)),
            Err(_) => return Ok(Attempt::KeeperLeft),
        };
        let (channel, there) = Channel::pair()?;
        let (status, status_there) = if spec.detach {
            let file = name.as_ref().expect("a detached container has a name").open_status()?;
            (Source::Container, file)
        } else {
            let (here, there) = Channel::pipe()?;
            (Source::Channel(here), there)
        };
        let key = keeper.next_key();
        let oom = OomCount { before: making.group.as_ref().and_then(Group::oom_kills), sub: None };
        let timeout = spec.start_timeout.unwrap_or(Spec::START_TIMEOUT);
        let v1 = making.group.as_ref().map(Group::v1).unwrap_or_default();
        let sent = Request {
            group: making.group.as_ref(),
            tasks: &v1.iter().map(V1Part::tasks).collect::<Vec<_>>(),
            streams: [0, 1, 2].map(|i| streams.given[i].as_ref().map(|fd: &OwnedFd| fd.as_fd())),
            times: Times { wall: spec.wall_time, cpu: spec.cpu_time },
            disk: disk.fd.as_ref().map(AsFd::as_fd),
            namespaces: &namespaces,
            pod: pod.map(|pod| launch::OfPod {
                key: pod.holder.key,
                shared_memory: shared_memory.as_ref().map(AsFd::as_fd),
                user_namespace: user_namespace.as_ref().map(AsFd::as_fd),
            }),
            users: &users,
            listeners: &[],
        }
        .send(
            &keeper,
            request::START,
            key,
            Some(timeout),
            there.as_fd(),
            Some(status_there.as_fd()),
            &compiled,
            &needs,
        )?;
        let Some(plan) = sent else { return Ok(Attempt::KeeperLeft) };
        // The other ends: an end of file has to mean that nobody inside has them any more.
        drop((there, status_there, streams.given));

        // The numbers of macvtaps are known when they are there.
        let mut settled = || {
            nodes.taps = lock(&taps_made).clone();
            let (Some(group), Some(before), false) = (&making.group, &rules, nodes.taps.is_empty()) else { return 0 };
            let changed = nodes::rules(spec, &nodes, standard);
            let set = changed.and_then(|rules| group.set_device_rules(Some(before), rules.as_ref().unwrap_or(before)));
            set.map_or_else(|e| e.errno().max(1), |()| 0)
        };
        let attending = Attending { asks: &compiled.asks, joining: &mut joining, settled: &mut settled, plan: &plan };
        let outcome = launch::wait_started(&channel, Some(timeout), record::STARTED, attending)?;
        let (pidfd, created, listening_filter, mut fds) = match outcome {
            Outcome::Started { pidfd, created, listening, fds, left_out: more } => {
                let paths = more.iter().filter_map(|&(section, op)| compiled.tag(section, op)?.path.as_ref());
                left_out.extend(paths.map(Into::into));
                (pidfd, created, listening, fds)
            }
            Outcome::Refused => return Ok(Attempt::Refused(keeper)),
            Outcome::KeeperDied => {
                keeper.mark_dead();
                let _ = crate::state::collect_dead();
                return Err(keeper_killed());
            }
            Outcome::Ended(_) => return Err(Error::new(ErrorKind::Internal, "an end without a start")),
            Outcome::Failed(failed) => {
                // The keeper undoes it: the groups are gone when it says so.
                let _ = launch::wait_started(&channel, Some(SHORT), record::ENDED, NOBODY);
                return Err(joining.failure().unwrap_or_else(|| explain(&failed, &compiled, spec, &keeper)));
            }
        };
        let created =
            created.ok_or_else(|| Error::new(ErrorKind::Internal, "the keeper gave no pidfd of the container"))?;
        making.done = true;
        let before = plan.found(&compiled);
        drop(plan);
        let pid = process::pid_of(created.as_fd());
        let group = making.group.take();
        if listening.has_others()
            && let Err(error) = listening.serve(&keeper, key, (group.as_ref(), pod_group), timeout)
        {
            // One that has ended in the meantime needs none, and fails in many ways; EPERM: it is without memory already.
            let patience =
                if matches!(error.errno(), libc::ESRCH | libc::EPERM) { SHORT } else { Duration::from_millis(100) };
            let ended = launch::poll([created.as_fd()], launch::deadline(Some(patience)))?[0];
            if !ended {
                // Nobody wants a last look at it.
                let _ = process::send_signal(created.as_fd(), libc::SIGKILL);
                let _ = keeper.send(request::RELEASE, key, 0, 0, &[]);
                let _ = launch::wait_started(&channel, Some(SHORT), record::ENDED, NOBODY);
                return Err(if error.field().is_some() { error } else { error.with_field("ports") });
            }
        }
        let ports = listening.done();
        let own = NamespaceKind::ALL
            .into_iter()
            .filter(|&kind| {
                // A privileged keeper is in a mount namespace of its own, so even the host's is joined.
                namespace_source(spec, kind) != NamespaceSource::Host || kind == NamespaceKind::Mnt && keeper.privileged
            })
            .fold(0, |flags, kind| flags | clone_flag(kind));
        let may_setgroups = facts.may_setgroups;
        if let Role::Switch(switch) = role {
            let (of_switch, others) = fds.into_iter().partition(|(number, _)| *number >= NETLINK);
            fds = others;
            lock(switch).sockets = of_switch;
        }
        let sent_disk = fds.iter().position(|(number, _)| *number == DISK).map(|i| fds.swap_remove(i).1);
        let at_home = sent_disk.as_ref().map(AsFd::as_fd).or(disk.fd.as_ref().map(AsFd::as_fd));
        let home = at_home.and_then(|fd| disk::Home::of(fd).ok());
        let (mode, maps, why) = (ids.mode, ids.maps.clone(), ids.why.clone());
        let pod_id = pod.map(|pod| pod.holder.id.clone());
        let chosen = Chosen { mode, maps, why, left_out, disk: disk.kind, home, pod: pod_id };
        if let Some(name) = &name {
            let mut record = chosen.describe(spec, &id, pid, &keeper, group.as_ref());
            record["keeper"] = json!(keeper.pid);
            record["privileged"] = json!(keeper.privileged);
            record["ports"] = ports::describe(&ports);
            record["namespaces_flags"] = json!(own);
            record["may_setgroups"] = json!(may_setgroups);
            record["default_ids"] = json!(default_ids);
            record[parameters::BEFORE] = json!(before);
            record[nodes::NODES] = nodes.describe();
            record["spec"] = serde_json::from_str(&spec.to_json()).unwrap_or(Value::Null);
            record["command"] = spec.argv.iter().map(|a| a.to_string_lossy()).collect();
            name.write_record(record)?;
        }
        let mut end = End::default();
        let name = match name {
            Some(name) if spec.detach => {
                // Until it is told so, its keeper ends it together with this process.
                keeper.send(request::KEEP, key, 0, 0, &[])?;
                end.ended = match launch::wait_started(&channel, Some(SHORT), record::KEPT, NOBODY) {
                    Ok(Outcome::Started { .. }) => None,
                    // It was over before that: its last word is in the state directory.
                    Ok(Outcome::Ended(record)) => Some(record),
                    failed => {
                        // It may be kept after all, and then nobody would find it.
                        let _ = process::send_signal(created.as_fd(), libc::SIGKILL);
                        return Err(failed.err().unwrap_or_else(keeper_killed));
                    }
                };
                name.keep();
                None
            }
            other => other,
        };
        // Others need it only when they are to be limited, and then find it by what was noted of it.
        let watched = !spec.detach && spec.limits_disk();
        let disk_fd = sent_disk.or_else(|| disk.for_figures()).filter(|_| watched);
        let mut kept = joining.done(&id);
        let moved = std::mem::take(&mut kept.moved);
        let inner = Arc::new(Inner {
            owner: Owner::this(),
            kept: Mutex::new(kept),
            id,
            spec: spec.clone(),
            spec_now: Mutex::new(spec.clone()),
            updating: Mutex::default(),
            granted: Mutex::default(),
            before: Mutex::new(before),
            nodes: Mutex::new(nodes),
            holder: matches!(role, Role::Holder { .. }),
            keeper,
            key,
            pid,
            pidfd: created,
            channel: Some(channel),
            end: Mutex::new(end),
            closed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            cancel: process::event()?,
            group,
            subs: Mutex::default(),
            layer: disk::Layer::new(disk.kind, home, disk_fd),
            net: Mutex::default(),
            devices: Mutex::new(moved),
            ports,
            readers: Readers::default(),
            syscalls: Filters::default(),
            claims: Mutex::new(ids.claims),
            name: Mutex::new(name),
            volumes: Mutex::new(volumes.done()),
            log: logs::Log::new(log),
            pod: pod.cloned(),
            info: OnceCell::new(),
            chosen,
            namespaces: own,
            may_setgroups,
            default_ids,
        });
        let main = match pidfd {
            Some(pidfd) if !spec.argv.is_empty() => {
                let pid = process::pid_of(pidfd.as_fd());
                let mut host = streams.host;
                host.terminal = fds.into_iter().find(|(number, _)| *number == TERMINAL).map(|(_, fd)| fd);
                if let Some(listening) = listening_filter {
                    inner.syscalls.add(listening, pid)?;
                }
                Some(Process::new(inner.clone(), pid, pidfd, status, host, oom)?)
            }
            _ => None,
        };
        let handle = Arc::new(Handle { inner, main });
        if let Some(name) = &spec.name {
            lock(&NAMED).insert(name.clone(), Arc::downgrade(&handle));
        }
        Ok(Attempt::Done(Self { handle }))
    }

    /// Finds a named container: one of this process, or a detached one of this user.
    ///
    /// # Errors
    /// NotFound; PermissionDenied for an attached container of another process.
    pub fn by_name(name: &str) -> Result<Self> {
        let known = lock(&NAMED).get(name).and_then(Weak::upgrade);
        if let Some(handle) = known
            && handle.inner.owner.is_this()
            && !handle.inner.closed.load(Ordering::Relaxed)
            && !handle.inner.has_ended()
        {
            return Ok(Self { handle });
        }
        let mut found = names::lookup(name)?;
        if !found.detached {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("container {name:?} is attached to another process"),
            )
            .with_field("name")
            .with_errno(libc::EPERM)
            .with_hint("only detached containers can be taken up by other processes"));
        }
        let mut socket = None;
        if found.life == Life::Running && found.init.is_some() {
            match found.connect() {
                Ok(connected) => socket = Some(connected),
                // It may have ended just now: then its record says so.
                Err(error) => {
                    found = names::lookup(name)?;
                    if found.life == Life::Running && found.init.is_some_and(|init| init.runs()) {
                        return Err(error);
                    }
                }
            }
        }
        let data = &found.data;
        let spec = Spec::from_json(&data["spec"].to_string()).unwrap_or_default();
        let spec = Spec { name: Some(name.to_owned()), detach: true, ..spec };
        let (pid, keeper_pid, start_time) = match (&found.init, &found.keeper) {
            (Some(init), Some(keeper)) => (init.pid, keeper.pid, keeper.start_time),
            _ => (0, 0, 0),
        };
        // Looked at again behind the pidfd: until then the number may have come to mean another process.
        let pidfd = pidfd_open(pid).ok().filter(|_| socket.is_some() && found.init.is_some_and(|init| init.runs()));
        let running = pidfd.is_some();
        // An ended container has no process: a readable event stands for its pidfd.
        let pidfd = match pidfd {
            Some(pidfd) => pidfd,
            None => {
                let ended = process::event()?;
                process::raise(&ended);
                ended
            }
        };
        let socket = match socket {
            Some(socket) if running => socket,
            _ => process::event()?,
        };
        let privileged = data["privileged"].as_bool().unwrap_or(false);
        let keeper = Arc::new(Keeper::connected(socket, keeper_pid, start_time, privileged));
        if !running {
            keeper.mark_dead();
        }
        let group = if running { Group::reopen(&data["cgroup"]).ok() } else { None };
        let has_main = !spec.argv.is_empty() || data["command"].as_array().is_some_and(|c| !c.is_empty());
        let kept = if !running && has_main && logs::is_wanted(&spec) { Some(found.open_log()?) } else { None };
        let ids = &data["default_ids"];
        let inner = Arc::new(Inner {
            owner: Owner::this(),
            id: data["id"].as_str().unwrap_or_default().to_owned(),
            spec_now: Mutex::new(spec.clone()),
            updating: Mutex::default(),
            granted: Mutex::new(update::Granted::recorded(data)),
            before: Mutex::default(),
            nodes: Mutex::new(nodes::Nodes::recorded(data)),
            holder: false,
            spec,
            keeper,
            key: 1,
            pid: if running { pid } else { 0 },
            pidfd: pidfd.try_clone().map_err(|e| Error::io("dup", &e))?,
            channel: None,
            end: Mutex::default(),
            closed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            cancel: process::event()?,
            group,
            subs: Mutex::default(),
            ports: ports::recorded(&data["ports"]),
            layer: disk::Layer::new(disk::recorded(&data["disk"]), disk::Home::recorded(&data["disk"]), None),
            net: Mutex::default(),
            devices: Mutex::default(),
            kept: Mutex::default(),
            readers: Readers::default(),
            syscalls: Filters::default(),
            claims: Mutex::default(),
            name: Mutex::default(),
            volumes: Mutex::default(),
            log: logs::Log::new(kept),
            pod: None,
            info: OnceCell::with_value(data.clone()),
            chosen: Chosen::default(),
            namespaces: data["namespaces_flags"].as_u64().unwrap_or(0),
            may_setgroups: data["may_setgroups"].as_bool().unwrap_or(false),
            default_ids: (ids[0].as_u64().unwrap_or(0) as u32, ids[1].as_u64().unwrap_or(0) as u32),
        });
        let main = if has_main {
            // Its pid is not recorded; the container ends with it, so pid 1's pidfd says the same.
            Some(Process::new(
                inner.clone(),
                inner.pid,
                pidfd,
                Source::Container,
                Streams::default(),
                OomCount::default(),
            )?)
        } else {
            None
        };
        Ok(Self { handle: Arc::new(Handle { inner, main }) })
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.handle.inner
    }

    fn open(&self) -> Result<&Arc<Inner>> {
        let inner = self.inner();
        inner.owner.check()?;
        if inner.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the container's handle was closed").with_errno(libc::EBADF));
        }
        Ok(inner)
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.inner().spec.name.as_deref()
    }

    /// Unique on this machine while the container exists; also the name of its control groups.
    pub fn id(&self) -> &str {
        &self.inner().id
    }

    /// The pid of pid 1, seen from this program's pid namespace.
    pub fn pid(&self) -> i32 {
        self.inner().pid
    }

    /// A pidfd of pid 1, borrowed from this handle.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.inner().pidfd.as_fd()
    }

    /// The main process, when the spec had an argv.
    pub fn main(&self) -> Option<Process> {
        self.handle.main.clone()
    }

    /// A command for this container: add arguments, then `spawn` or `output`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command { container: Some(self.clone()), ..Command::new(program) }
    }

    /// Starts one more process inside; it has been executed when this returns. Any number may be started at once.
    ///
    /// # Errors
    /// Closed when the container has ended; Frozen when it is frozen and stays so for the command's `start_timeout` (none:
    /// at once); otherwise as [`start`](Self::start).
    pub fn spawn(&self, command: &Command) -> Result<Process> {
        let inner = self.open()?;
        let shown = command.argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        let process = inner.spawn(command).map_err(|e| e.with_context(format!("exec {shown:?}")))?;
        log::debug!("executed {shown:?} in {}, pid {}", inner.id, process.pid());
        Ok(process)
    }

    /// Signals the main process, or pid 1 when there is none (which then acts on SIGTERM, SIGINT, SIGHUP and SIGQUIT as a
    /// normal process would).
    pub fn signal(&self, signal: i32) -> Result<()> {
        let inner = self.open()?;
        match &self.handle.main {
            Some(main) if inner.channel.is_some() => main.kill(signal),
            // pid 1 hands it on.
            _ => match process::send_signal(inner.pidfd.as_fd(), signal) {
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                    Err(Error::new(ErrorKind::InvalidArgument, format!("{signal} is no signal"))
                        .with_errno(libc::EINVAL))
                }
                Err(e) => Err(Error::io("pidfd_send_signal", &e)),
                Ok(()) => Ok(()),
            },
        }
    }

    /// SIGKILL to every process, atomically: the end of pid 1 is the end of its pid namespace. Does not wait.
    pub fn kill(&self) -> Result<()> {
        self.open()?.kill()
    }

    /// `stop_signal`, then SIGKILL after `timeout` (default: the spec's `stop_timeout`, 10 seconds); waits for the end. The
    /// status is the main process's.
    pub fn stop(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        let inner = self.open()?;
        let timeout = timeout.or(inner.spec.stop_timeout).unwrap_or(Spec::STOP_TIMEOUT);
        self.signal(inner.spec.stop_signal.unwrap_or(Spec::STOP_SIGNAL))?;
        if !inner.wait_end(Some(timeout), None)? {
            inner.kill()?;
            inner.wait_end(Some(SHORT), None)?;
        }
        self.handle.main.as_ref().map_or(Ok(None), |main| main.wait(Some(SHORT)))
    }

    /// Waits for the container's end, when everything was undone. `Ok(false)`: the time passed first.
    pub fn wait_end(&self, timeout: Option<Duration>) -> Result<bool> {
        let inner = self.open()?;
        inner.wait_end(timeout, Some(inner.cancel.as_fd()))
    }

    /// Kills what runs, waits until all is undone; later calls on any clone fail with Closed, and so do waits that are under
    /// way on other threads. A detached container is left running: `stop` or `kill` ends it.
    ///
    /// # Errors
    /// TimedOut when the kernel holds a process (uninterruptible sleep): `gc()` finishes later.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        let inner = self.inner();
        inner.owner.check()?;
        if inner.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        process::raise(&inner.cancel);
        inner.syscalls.close();
        if inner.spec.detach {
            return Ok(());
        }
        sweep_lingering();
        if !inner.has_ended() {
            inner.kill()?;
            if inner.readers.is_empty() && !lock(&inner.end).empty {
                // Nobody will ask for a last look, and nobody has one now: one message and one turn less.
                inner.keeper.send(request::RELEASE, inner.key, 0, 0, &[])?;
            }
        }
        if !inner.wait_end(Some(timeout.unwrap_or(Duration::from_secs(30))), None)? {
            lock(&LINGERING).push(inner.clone());
            let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", inner.pid)).unwrap_or_default();
            return Err(Error::new(ErrorKind::TimedOut, "the kernel does not let go of a process of the container")
                .with_context(format!("close container {}", inner.id))
                .with_path(wchan)
                .with_errno(libc::ETIMEDOUT)
                .with_hint("it is removed as soon as the kernel lets it go, or by gc()"));
        }
        // Where the first attempt failed.
        inner.give_devices_back();
        log::info!("closed {}", inner.id);
        if inner.keeper_died() {
            log::warn!("the keeper of {} died", inner.id);
            crate::state::collect_dead()?;
            inner.release();
        }
        let end = lock(&inner.end).ended;
        match end {
            Some(record) if record.errno != 0 && record.section == LIFT as u32 => Err(Error::os("lift", record.errno)
                .with_context(format!("close container {}", inner.id))
                .with_field("disk")
                .with_hint("the next container that limits this directory sets its own")),
            Some(record) if record.errno != 0 => {
                crate::state::give_up_groups(&inner.id);
                Err(Error::os("rmdir", record.errno)
                    .with_context(format!("close container {}", inner.id))
                    .with_field("cgroup")
                    .with_hint("gc() tries again"))
            }
            _ => Ok(()),
        }
    }

    /// Whether pid 1 still runs.
    pub fn is_running(&self) -> bool {
        self.open().is_ok_and(|inner| process_runs(&inner.pidfd))
    }

    /// Readable (POLLIN or POLLHUP) when the container has ended and everything was undone. Borrowed from this handle.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        let inner = self.inner();
        inner.channel.as_ref().map_or(inner.pidfd.as_fd(), |channel| channel.as_fd())
    }

    /// What it uses and used: one look at every counter, about one and a half times as dear as plain reads of the same files
    /// (46 us on a hybrid machine of two processors). The first opens the files, which takes some 200 us more.
    ///
    /// # Errors
    /// Unsupported when it has no control group (an ordinary caller without delegation) and the host's network. With a network of its own
    /// there is `net` without a group too; what a group counts is `None` then.
    pub fn usage(&self) -> Result<Usage> {
        let inner = self.open()?;
        let net = inner.net_usage();
        let mut usage = match &inner.group {
            Some(group) => group.usage()?,
            // The writable layer and network devices are counted without one.
            None if net.is_some() || inner.layer.kind.is_some() && lock(&inner.spec_now).limits_disk() => {
                Usage::default()
            }
            None => return Err(no_group()),
        };
        let inside = inner.oom_kills_inside();
        usage.memory_oom_kills = usage.memory_oom_kills.map(|kills| kills + inside);
        inner.count_disk(&mut usage)?;
        usage.net = net;
        Ok(usage)
    }

    /// A reader of what happens to it from now on: out of memory, limits hit, pressure, freezes, its end. Any number may be made,
    /// on any thread; see [`Events`] for what is guaranteed.
    ///
    /// # Errors
    /// InvalidSpec for options that can never work; Unsupported or PermissionDenied, with the field of the options, for a kind
    /// that was asked for by name, or a threshold, that cannot be had on this machine or by this caller; Closed.
    pub fn events(&self, options: &EventOptions) -> Result<Events> {
        let inner = self.open()?;
        let wanted = options.kinds.as_deref().unwrap_or_default();
        let of_net = |kind: &EventKind| matches!(kind, EventKind::Link | EventKind::Address);
        let net = match wanted.iter().position(of_net) {
            None => None,
            Some(_) if !inner.runs() => None,
            Some(i) => {
                let kinds = wanted.iter().copied().filter(of_net).collect();
                let socket = match namespace_source(&self.of_network().spec, NamespaceKind::Net) {
                    NamespaceSource::Host => {
                        Err(Error::new(ErrorKind::InvalidArgument, "the container has no network namespace of its own")
                            .with_errno(libc::EINVAL))
                    }
                    _ => self.netlink(),
                };
                let watch = socket.and_then(|socket| net::watch::Watch::new(socket, kinds));
                Some(watch.map_err(|e| e.with_field(format!("kinds[{i}]")))?)
            }
        };
        Events::new(inner, options, net)
    }

    /// The system calls about which this program is asked, because a rule of `seccomp` has the action `notify`: see [`SyscallListener`]. Any
    /// number may be made; each request is given to one of them. Calls that are made before there is one wait for it.
    ///
    /// # Errors
    /// Closed.
    pub fn syscall_listener(&self) -> Result<SyscallListener> {
        SyscallListener::new(self.open()?)
    }

    fn control_group(&self) -> Result<&Group> {
        self.open()?.group.as_ref().ok_or_else(no_group)
    }

    /// Stops every process of the container until [`thaw`](Self::thaw); returns when all have stopped.
    ///
    /// # Errors
    /// Unsupported without a control group that can be frozen; TimedOut when a process does not stop within 5 s, and then all
    /// run again; ESRCH when somebody moved the processes out of the container's group.
    pub fn freeze(&self) -> Result<()> {
        let group = self.control_group()?;
        group.freeze()?;
        let inner = self.inner();
        if !group.holds(inner.pid) && self.is_running() {
            group.thaw()?;
            return Err(Error::new(ErrorKind::Os, "somebody moved the processes out of the container's control group")
                .with_errno(libc::ESRCH)
                .with_step("freeze")
                .with_hint("move them back: info_json() has the path"));
        }
        inner.readers.look(false);
        Ok(())
    }

    /// Undoes [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        self.control_group()?.thaw()?;
        self.inner().readers.look(false);
        Ok(())
    }

    /// A descriptor of one of its namespaces (CLOEXEC, the caller's).
    pub fn ns_fd(&self, kind: NamespaceKind) -> Result<OwnedFd> {
        let inner = self.open()?;
        let path = format!("/proc/{}/ns/{}", inner.pid, kind.name());
        let file = std::fs::File::open(&path);
        // The number is pid 1's only as long as its pidfd says that it runs.
        if !process_runs(&inner.pidfd) {
            return Err(Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH));
        }
        match file {
            Ok(file) => Ok(file.into()),
            Err(e) => Err(Error::io("open", &e)
                .with_path(path)
                .with_hint("reading another process's namespaces needs the right to trace it")),
        }
    }

    /// One of its namespaces, which lives on as long as the value.
    ///
    /// # Errors
    /// Closed when it has ended; PermissionDenied when the caller may not trace its processes.
    pub fn namespace(&self, kind: NamespaceKind) -> Result<Namespace> {
        Namespace::of_fd(self.ns_fd(kind)?.as_raw_fd())
    }

    /// What was chosen for the container, as JSON: id, pid, idmap (mode, maps in the keeper's ids, why not more), control
    /// groups, what limits the writable layer, namespaces, what of the host's tree was left out.
    pub fn info_json(&self) -> String {
        let inner = self.inner();
        let mut info = inner.info().clone();
        // An update may have given it more controllers since somebody asked first.
        if let Some(group) = inner.group.as_ref().filter(|_| inner.runs()) {
            info["cgroup"] = group.describe();
        }
        info["ports"] = ports::describe(&inner.ports);
        info.to_string()
    }
}

impl Inner {
    fn spawn(self: &Arc<Self>, command: &Command) -> Result<Process> {
        command.validate()?;
        if command.set_tid.is_some() && namespace_source(&self.spec, NamespaceKind::Pid) != NamespaceSource::New {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the container has no pid namespace of its own, whose numbers are its",
            )
            .with_field("set_tid")
            .with_hint("leave namespaces.pid of the container at its default"));
        }
        if self.keeper.is_dead() {
            return Err(self.keeper_is_gone());
        }
        self.wait_thawed(command.start_timeout)?;
        let sub = command.cgroup.as_deref().map(|name| self.sub(name)).transpose()?;
        let files = InsideFiles(self);
        let (credentials, home) =
            facts::resolve_user(command.user.as_deref(), &command.groups, self.default_ids, &files)?;
        let capabilities = command.capabilities.as_ref().unwrap_or(&self.spec.capabilities);
        let no_new_privs = command.no_new_privs.unwrap_or(self.spec.no_new_privs);
        let confinement = Confinement::of_command(command, &self.spec);
        launch::confinement::check(&confinement, capabilities, no_new_privs, Some(credentials.uid))?;
        let mut caller = || std::env::vars_os().collect();
        let env = crate::plan::env::environment(
            &home,
            command.terminal.is_some(),
            &command.env_inherit,
            &mut caller,
            &command.env,
        );
        let asked = [command.stdin.as_ref(), command.stdout.as_ref(), command.stderr.as_ref()];
        let streams = open_streams(asked, [Stdio::Inherit, Stdio::Inherit, Stdio::Inherit], None)?;
        let inherited = facts::inherited();
        let seccomp = command.seccomp.as_ref().unwrap_or(&self.spec.seccomp);
        let filter = facts::filter(seccomp, capabilities, self.spec.nesting)?;
        let _joining = self.group.as_ref().map(Group::joining);
        let (compiled, needs) = crate::plan::exec::process(
            &self.joining(),
            &ProcessPlan {
                argv: &command.argv,
                env: &env,
                cwd: command.cwd.as_deref(),
                umask: command.umask,
                terminal: command.terminal,
                streams: streams.facts,
                pass_fds: &command.pass_fds,
                rlimits: &command.rlimits,
                inherited: &inherited,
                nice: command.nice,
                scheduler: command.scheduler,
                io_priority: command.io_priority,
                oom_score_adj: command.oom_score_adj,
                capabilities,
                no_new_privs,
                confinement,
                filter: filter.as_deref(),
                credentials: &credentials,
                may_setgroups: self.may_setgroups,
                joined: Some(facts::root_ids(self.may_setgroups, self.default_ids)),
                keyring: launch::confinement::may_take_keyring(),
                is_pid_one: false,
            },
            command.set_tid,
        );
        let counted = sub.clone().filter(|sub| sub.group.oom_kills().is_some());
        let oom = OomCount { before: self.oom_kills(counted.as_deref()), sub: counted };
        if let Some(capabilities) = &command.capabilities {
            self.grant(capabilities)?;
        }
        let (channel, Answered { pidfd, listening, fds }) = {
            let given = &streams.given;
            self.ask(request::EXEC, command.start_timeout, (&compiled, &needs), given, sub.as_deref(), record::STARTED)
                .map_err(|e| {
                    let program = command.argv.first().map(std::path::Path::new);
                    let alone = command.argv.len() == 1;
                    with_rules_hint(with_program_hint(e, program, alone, &self.spec), confinement.landlock)
                })?
        };
        let pidfd = pidfd.ok_or_else(|| Error::new(ErrorKind::Internal, "the keeper gave no pidfd"))?;
        let pid = process::pid_of(pidfd.as_fd());
        let mut host = streams.host;
        host.terminal = fds.into_iter().find(|(number, _)| *number == TERMINAL).map(|(_, fd)| fd);
        if let Some(listening) = listening {
            self.syscalls.add(listening, pid)?;
        }
        Process::new(self.clone(), pid, pidfd, Source::Channel(channel), host, oom)
    }

    /// Itself, or with its pod.
    fn is_frozen(&self) -> bool {
        let frozen = |inner: &Self| inner.group.as_ref().is_some_and(|group| group.is_frozen().unwrap_or(false));
        frozen(self) || self.pod.as_ref().is_some_and(|pod| frozen(&pod.holder))
    }

    fn wait_thawed(&self, timeout: Option<Duration>) -> Result<()> {
        let deadline = Instant::now() + timeout.unwrap_or(Duration::ZERO);
        while self.is_frozen() {
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::Frozen, "the container is frozen")
                    .with_errno(libc::EBUSY)
                    .with_hint("thaw it first, or give a start_timeout within which somebody else does"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// A request that joins, up to the record that says that it worked.
    #[allow(clippy::type_complexity)]
    fn ask(
        &self,
        kind: u32,
        timeout: Option<Duration>,
        (compiled, needs): (&crate::plan::builder::Compiled, &[crate::plan::facts::Need]),
        given: &[Option<OwnedFd>; 3],
        sub: Option<&groups::Sub>,
        until: u32,
    ) -> Result<(Channel, Answered)> {
        let (plan, channel) = self.request(kind, timeout, (compiled, needs), given, sub)?;
        let answered = self.answer(&channel, &plan, timeout, until, compiled);
        Ok((channel, answered.map_err(|e| self.explain_group(e, sub))?))
    }

    /// Files of a control group that is not there any more fail with errnos of their own.
    fn explain_group(&self, error: Error, sub: Option<&groups::Sub>) -> Error {
        let group = sub.map(|sub| &sub.group).or(self.group.as_ref());
        let missing = matches!(error.errno(), libc::ENOENT | libc::ENODEV) && error.kind() != ErrorKind::Closed;
        if !missing || !group.is_some_and(Group::is_gone) {
            return error;
        }
        Error::new(ErrorKind::NotFound, "somebody removed the control group")
            .with_errno(error.errno())
            .with_field("cgroup")
            .with_hint("nothing can be started in it any more: close the container")
    }

    /// A request that joins, sent.
    fn request(
        &self,
        kind: u32,
        timeout: Option<Duration>,
        (compiled, needs): (&crate::plan::builder::Compiled, &[crate::plan::facts::Need]),
        given: &[Option<OwnedFd>; 3],
        sub: Option<&groups::Sub>,
    ) -> Result<(launch::PlanFile, Channel)> {
        let (channel, there) = Channel::pair()?;
        let timeout = timeout.unwrap_or(Spec::START_TIMEOUT);
        let v1 = self.group.as_ref().map(Group::v1).unwrap_or_default();
        let own = sub.map(|sub| sub.group.v1()).unwrap_or_default();
        let sent = Request {
            group: sub.map(|sub| &sub.group).or(self.group.as_ref()),
            tasks: &Group::tasks_with(&v1, &own),
            streams: [0, 1, 2].map(|i| given[i].as_ref().map(|fd: &OwnedFd| fd.as_fd())),
            times: Times::default(),
            disk: None,
            namespaces: &[],
            pod: None,
            users: &[],
            listeners: &[],
        }
        .send(&self.keeper, kind, self.key, Some(timeout), there.as_fd(), None, compiled, needs)?;
        sent.map(|plan| (plan, channel)).ok_or_else(|| self.keeper_is_gone())
    }

    /// Waits for the record that says that the request worked.
    fn answer(
        &self,
        channel: &Channel,
        plan: &launch::PlanFile,
        timeout: Option<Duration>,
        until: u32,
        compiled: &crate::plan::builder::Compiled,
    ) -> Result<Answered> {
        let timeout = timeout.unwrap_or(Spec::START_TIMEOUT);
        let attending = launch::Joiner { asks: &compiled.asks, plan };
        match launch::wait_started(channel, Some(timeout), until, attending)? {
            Outcome::Started { pidfd, fds, listening, .. } => Ok(Answered { pidfd, listening, fds }),
            Outcome::Failed(failed) => Err(self.explain(&failed, compiled)),
            Outcome::Refused => Err(other_credentials("the container")),
            Outcome::KeeperDied | Outcome::Ended(_) => Err(self.keeper_is_gone()),
        }
    }

    fn explain(&self, failed: &Record, compiled: &crate::plan::builder::Compiled) -> Error {
        let error = launch::explain_failure(failed, compiled);
        // A container that ends while it is joined fails in many places.
        let ended = !process_runs(&self.pidfd);
        if ended { error.with_kind(ErrorKind::Closed).with_detail("the container has ended") } else { error }
    }

    /// A file as the container sees it.
    fn open_inside(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open_joined(&self.joining(), path, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    fn open_joined(&self, joining: &Joining, path: &[u8], flags: i32) -> Result<OwnedFd> {
        let (compiled, needs) = crate::plan::reach::open(joining, path, flags, 0, self.may_setgroups);
        let (_, answered) =
            self.ask(request::CALL, None, (&compiled, &needs), &[None, None, None], None, record::ENDED)?;
        let fds = answered.fds;
        fds.into_iter()
            .next()
            .map(|(_, fd)| fd)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no descriptor came back"))
    }
}

/// /etc/passwd and /etc/group of a running container.
struct InsideFiles<'a>(&'a Inner);

impl InsideFiles<'_> {
    fn read(&self, path: &[u8]) -> Option<Vec<u8>> {
        let file = std::fs::File::from(self.0.open_inside(path).ok()?);
        let mut bytes = Vec::new();
        file.metadata().ok().filter(|m| m.is_file())?;
        file.take(16 << 20).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }
}

impl UserFiles for InsideFiles<'_> {
    fn passwd(&self) -> Option<Vec<u8>> {
        self.read(b"/etc/passwd")
    }
    fn group(&self) -> Option<Vec<u8>> {
        self.read(b"/etc/group")
    }
}

/// Removes the groups of a start that fails before the keeper knows of them, or after it undid the rest.
struct Making {
    group: Option<Group>,
    done: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(group) = &self.group
            && !self.done
        {
            let _ = group.remove();
        }
    }
}

fn explain(failed: &Record, compiled: &crate::plan::builder::Compiled, spec: &Spec, _keeper: &Keeper) -> Error {
    let error = launch::explain_failure(failed, compiled);
    if error.errno() == libc::ENOENT && error.field() == Some("namespaces") {
        // cgroup2's mount option nsdelegate: the kernel finds no group there for who is born.
        return error
            .with_kind(ErrorKind::Unsupported)
            .with_field("cgroup_parent")
            .with_detail("the control group is outside of this program's cgroup namespace, or somebody removed it")
            .with_hint("mount the tree anew in that namespace (mount -t cgroup2 none /sys/fs/cgroup)");
    }
    if spec.limits_disk() && matches!(error.errno(), libc::ENOSPC | libc::EDQUOT) {
        let field = if spec.disk.is_some() && spec.inodes.is_none() { "disk" } else { "inodes" };
        return error.with_field(field).with_hint(
            "what a container has of its own counts: some 60 inodes and a few blocks, and its files; give more",
        );
    }
    let program = spec.argv.first().map(std::path::Path::new);
    with_rules_hint(with_program_hint(error, program, spec.argv.len() == 1, spec), &spec.landlock)
}

/// A program that the host has, but below a directory that containers do not see, or one that is a whole command line, `alone` in argv.
fn with_program_hint(error: Error, program: Option<&std::path::Path>, alone: bool, spec: &Spec) -> Error {
    if error.field() != Some("argv[0]") && error.field() != Some("cwd") || error.errno() != libc::ENOENT {
        return error;
    }
    let path = match error.field() {
        Some("cwd") => spec.cwd.as_deref(),
        _ => program,
    };
    match path.filter(|p| p.is_absolute()).and_then(|p| facts::hidden_hint(&spec.rootfs, p)) {
        Some(hint) => error.with_hint(hint),
        // No shell takes a command line apart.
        None if error.field() == Some("argv[0]")
            && alone
            && path.is_some_and(|p| p.as_os_str().as_encoded_bytes().contains(&b' ')) =>
        {
            error.with_hint("argv[0] is the program alone: each of its arguments is an element of its own")
        }
        None => error,
    }
}

/// The program is a file that rules may not let it execute.
fn with_rules_hint(error: Error, rules: &Landlock) -> Error {
    if error.field() != Some("argv[0]") || error.errno() != libc::EACCES || rules.paths.is_empty() {
        return error;
    }
    error.with_hint("landlock.paths has to allow to execute it and to read it, and what interprets it")
}

/// What was chosen at the start.
#[derive(Debug, Default)]
struct Chosen {
    mode: &'static str,
    maps: Option<crate::plan::facts::IdMaps>,
    why: Option<String>,
    left_out: Vec<std::path::PathBuf>,
    disk: Option<DiskFact>,
    home: Option<disk::Home>,
    /// The id of the pod.
    pod: Option<String>,
}

impl Chosen {
    fn describe(&self, spec: &Spec, id: &str, pid: i32, keeper: &Keeper, group: Option<&Group>) -> Value {
        let lines = |text: &str| -> Vec<Vec<u64>> {
            text.lines().map(|l| l.split_whitespace().filter_map(|n| n.parse().ok()).collect()).collect()
        };
        let maps = self.maps.as_ref();
        let namespaces: serde_json::Map<String, Value> = NamespaceKind::ALL
            .into_iter()
            .map(|kind| {
                let source = match namespace_source(spec, kind) {
                    NamespaceSource::New => "new",
                    NamespaceSource::Host => "host",
                    _ => "joined",
                };
                (kind.name().to_owned(), source.into())
            })
            .collect();
        json!({
            "id": id,
            "name": spec.name,
            "pid": pid,
            "keeper_pid": keeper.pid,
            "privileged": keeper.privileged,
            "detached": spec.detach,
            "idmap": {
                "mode": self.mode,
                "uid": maps.map(|m| lines(&m.uid)),
                "gid": maps.map(|m| lines(&m.gid)),
                "why": self.why,
                "idmapped_mounts": maps.is_some_and(|m| m.idmapped_mounts),
            },
            "namespaces": namespaces,
            "pod": self.pod,
            "cgroup": group.map_or(Value::Null, Group::describe),
            "device_rules": group.and_then(Group::device_rules_by),
            "disk": disk::describe(self.disk, self.home),
            "left_out": self.left_out.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>(),
        })
    }
}

/// Starts a container for one command (the spec's `argv`), collects its piped output, waits, closes.
///
/// Streams that the spec does not set are pipes here (stdin: only with `input`, else null). On a timeout the container is
/// killed and the error has kind TimedOut.
pub fn run(spec: &Spec, input: Option<&[u8]>, timeout: Option<Duration>) -> Result<Output> {
    if spec.argv.is_empty() {
        return Err(Error::spec("argv", "run needs a program"));
    }
    spec.check_unanswered()?;
    let mut spec = spec.clone();
    if spec.terminal.is_none() {
        spec.stdout.get_or_insert(Stdio::Pipe);
        spec.stderr.get_or_insert(Stdio::Pipe);
        if input.is_some() {
            spec.stdin.get_or_insert(Stdio::Pipe);
        }
    }
    let container = Container::start(&spec)?;
    let main =
        container.main().ok_or_else(|| Error::new(ErrorKind::Internal, "a container without its main process"))?;
    let output = main.communicate(input, timeout);
    let closed = container.close(None);
    let output = output?;
    closed?;
    Ok(output)
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    ready::fuzz(text);
    net_usage::fuzz(text);
    processes::fuzz(text);
    beancounters::fuzz(text);
    reach::fuzz(text);
    let _ = Pod::parse_share(text);
    let _ = LogOptions::from_json(text);
    let _ = EventOptions::from_json(text);
}
