//! The handle of a container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use serde_json::Value;

use crate::cgroup::{Group, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EventKind, EventOptions, Events, Readers, Shared};
use crate::launch::{self, Channel, Keeper, Owner};
use crate::namespace::Namespace;
use crate::net;
use crate::plan::container::namespace_source;
use crate::process::{self, Output, Process};
use crate::spec::{NamespaceKind, NamespaceSource, Port, Spec, Stdio};
use crate::state::ids::IdClaim;
use crate::state::names::NameClaim;
use crate::syscalls::{Filters, SyscallListener};
use crate::volume;

/// OpenVZ's table of resources.
mod beancounters;
/// What was chosen at the start.
mod chosen;
/// Network devices that move.
mod device;
/// The writable layer: figures and changes.
mod disk;
/// The end: waits for it, and what brings it about.
mod end;
/// Threads of the host inside.
mod enter;
/// More processes.
mod exec;
/// Files and trees of files, from outside.
mod files;
/// Groups of processes inside.
mod groups;
/// Namespaces that it joins.
mod joined;
/// The log of the main process.
mod logs;
/// Containers by their names.
mod named;
/// Figures of network devices.
mod net_usage;
/// Device nodes, and rules about devices.
mod nodes;
/// The control group of one that is being started.
mod own_group;
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
/// What it is to a pod and to a switch.
mod role;
/// Which limit was in the way of a process that could not be started.
mod short;
/// The start.
mod start;
/// The streams of a program.
mod streams;
/// Changes of a running container.
mod update;

pub use beancounters::Beancounter;
use chosen::Chosen;
pub(crate) use device::{Moved, in_namespace, new_index};
pub(crate) use disk::prospect as prospect_disk;
use end::End;
pub use enter::Lent;
pub use files::WriteOptions;
pub use groups::ControlGroup;
pub(crate) use groups::Sub;
pub use logs::{LogIter, LogOptions, LogReader};
pub(crate) use nodes::may_rule as may_rule_devices;
pub use pod::Pod;
pub use processes::ProcessEntry;
pub use ready::{HttpCheck, PortCheck, Readiness, WaitFor};
use role::Membership;

/// How long an implicit end (a drop, a failed start) may take.
const SHORT: Duration = Duration::from_secs(5);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
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
}

pub(crate) struct EndDescriptors<'a> {
    pub always: Vec<BorrowedFd<'a>>,
    pub until_pid_one_ended: Option<BorrowedFd<'a>>,
}

fn ended() -> Error {
    Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH)
}

pub(crate) fn no_group() -> Error {
    Error::new(ErrorKind::Unsupported, "this container has no control group")
        .with_field("cgroup")
        .with_hint("doctor() says why, and how to get one delegated")
}

fn process_runs(pidfd: &OwnedFd) -> bool {
    launch::poll([pidfd.as_fd()], Some(Instant::now())).is_ok_and(|[ended]| !ended)
}

#[derive(Debug)]
struct Handle {
    inner: Arc<Inner>,
    main: Option<Process>,
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

impl Container {
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
                        .with_field("signal")
                        .with_errno(libc::EINVAL))
                }
                Err(e) => Err(Error::io("pidfd_send_signal", &e)),
                Ok(()) => Ok(()),
            },
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
    /// run again; ESRCH when somebody moved the processes out of the container's group; Closed after its end.
    pub fn freeze(&self) -> Result<()> {
        let group = self.control_group()?;
        group.freeze().map_err(|e| self.or_ended(e))?;
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
        self.control_group()?.thaw().map_err(|e| self.or_ended(e))?;
        self.inner().readers.look(false);
        Ok(())
    }

    /// The group goes with the container: that is no fault of the group's.
    fn or_ended(&self, error: Error) -> Error {
        if self.is_running() { error } else { ended() }
    }

    /// A descriptor of one of its namespaces (CLOEXEC, the caller's).
    pub fn ns_fd(&self, kind: NamespaceKind) -> Result<OwnedFd> {
        let inner = self.open()?;
        let path = format!("/proc/{}/ns/{}", inner.pid, kind.name());
        let file = std::fs::File::open(&path);
        // The number is pid 1's only as long as its pidfd says that it runs.
        if !process_runs(&inner.pidfd) {
            return Err(ended());
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
