//! What happens to a container: an iterator, and a descriptor that is readable when there is something to read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::time::{ClockId, clock_gettime};
use once_cell::sync::OnceCell;
use serde_json::json;

use crate::cgroup::{Seen, Watch, listen};
use crate::container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch;
use crate::net;
use crate::process;

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal $name:literal,)*) => {
        /// What can happen. The numbers are those of C and never change; later versions add some.
        ///
        /// Which file of the kernel tells of each is said with it; see `Documentation/admin-guide/cgroup-v2.rst`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(i32)]
        pub enum EventKind {
            $($(#[$doc])* $variant = $number,)*
        }

        impl EventKind {
            /// All of them.
            pub const ALL: [Self; [$($number),*].len()] = [$(Self::$variant),*];

            /// The name that C, Python and JSON use: `oom_kill`, `pids_max`, ...
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

event_kinds! {
    /// The limit of memory was reached and nothing could be reclaimed (memory.events `oom`; on cgroup v1 the notice of
    /// memory.oom_control, which an out-of-memory situation of a group above gives too).
    Oom = 1 "oom",
    /// A process was killed for want of memory (memory.events `oom_kill`; on v1 that line of memory.oom_control).
    OomKill = 2 "oom_kill",
    /// Use went above `memory_high` and was slowed down (memory.events `high`). Only on v2.
    MemoryHigh = 3 "memory_high",
    /// Use was about to go above `memory` (memory.events `max`; on v1 memory.failcnt and memory.memsw.failcnt, which do not
    /// notify and are looked at five times a second).
    MemoryMax = 4 "memory_max",
    /// Memory below `memory_low` was reclaimed nevertheless (memory.events `low`). Only on v2.
    MemoryLow = 5 "memory_low",
    /// Something could not be swapped out because of `swap` (memory.swap.events `max`). Only on v2.
    SwapMax = 6 "swap_max",
    /// A fork or a new thread was refused because of `pids` (pids.events `max`; on v1 it does not notify on newer kernels, and is
    /// looked at five times a second).
    PidsMax = 7 "pids_max",
    /// Tasks waited longer for a resource than a threshold allows; see [`Pressure`].
    Pressure = 8 "pressure",
    /// A process is in the group, which was empty (cgroup.events `populated`). Needs a v2 tree, as a hybrid machine has.
    Populated = 9 "populated",
    /// No process is left (the same line).
    Empty = 10 "empty",
    /// All processes were stopped (cgroup.events `frozen`; Linux 5.2). Needs a v2 tree.
    Frozen = 11 "frozen",
    /// They run again.
    Thawed = 12 "thawed",
    /// The container has ended and everything was undone; of one that another program started: its pid 1 has ended. Always
    /// told, once, and the last.
    Ended = 13 "ended",
    /// A device of the container's network came, went, or is another than it was: its name, up or down, its carrier, its largest packet
    /// (RTM_NEWLINK, RTM_DELLINK of rtnetlink(7)). [`Container::addresses`](crate::Container::addresses) and /sys/class/net inside say how it is. Only
    /// when asked for by name.
    Link = 14 "link",
    /// An address of a device of the container's network came, went, or can be used now (RTM_NEWADDR, RTM_DELADDR). Only when asked for
    /// by name.
    Address = 15 "address",
}

impl EventKind {
    /// Those that a control file tells of.
    pub(crate) const COUNTED: [Self; 11] = [
        Self::Oom,
        Self::OomKill,
        Self::MemoryHigh,
        Self::MemoryMax,
        Self::MemoryLow,
        Self::SwapMax,
        Self::PidsMax,
        Self::Populated,
        Self::Empty,
        Self::Frozen,
        Self::Thawed,
    ];

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What tasks can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PressureResource {
    /// Memory: reclaim, swapping in, reading back what was dropped.
    Memory,
    /// A processor, the limit of `cpus` included.
    Cpu,
    /// Block devices.
    Io,
}

impl PressureResource {
    /// `memory`, `cpu`, `io`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Io => "io",
        }
    }

    /// The resource of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Memory, Self::Cpu, Self::Io].into_iter().find(|resource| resource.name() == name)
    }
}

/// How many of the tasks have to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PressureLevel {
    /// At least one.
    #[default]
    Some,
    /// All that are not idle.
    Full,
}

impl PressureLevel {
    /// `some`, `full`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Some => "some",
            Self::Full => "full",
        }
    }

    /// The level of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Some, Self::Full].into_iter().find(|level| level.name() == name)
    }
}

/// A threshold: tasks of the container wait for `resource` for `stall` within `window` or longer.
///
/// The kernel (Documentation/accounting/psi.rst) tells at most once in each window. It looks ten times in a window for callers
/// with CAP_SYS_RESOURCE, and every 2 s for others; so what is crossed just before the container's end may not be told. Needs
/// a cgroup v2 tree (as a hybrid machine has), PSI, and Linux 6.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// What is waited for.
    pub resource: PressureResource,
    /// Some or all of the tasks. Default: some.
    pub level: PressureLevel,
    /// How long, in whole microseconds; at most the window.
    pub stall: Duration,
    /// Within which time: 500 ms to 10 s with CAP_SYS_RESOURCE, else 2, 4, 6, 8 or 10 s. Default: 2 s.
    pub window: Duration,
}

impl Pressure {
    /// The default window, which every caller may have.
    pub const WINDOW: Duration = Duration::from_secs(2);

    /// A threshold with the defaults.
    pub fn new(resource: PressureResource, stall: Duration) -> Self {
        Self { resource, level: PressureLevel::Some, stall, window: Self::WINDOW }
    }

    /// What the kernel would refuse for every caller: which part, and why.
    pub(crate) fn validate(&self) -> std::result::Result<(), (&'static str, String)> {
        for (part, duration) in [(".window", self.window), (".stall", self.stall)] {
            if !duration.subsec_nanos().is_multiple_of(1000) {
                return Err((part, format!("{duration:?} is no whole number of microseconds")));
            }
        }
        if !(Duration::from_millis(500)..=Duration::from_secs(10)).contains(&self.window) {
            return Err((".window", format!("{:?} is not within 500 ms to 10 s, which the kernel takes", self.window)));
        }
        if self.stall.is_zero() {
            return Err((".stall", "0 would be no threshold".into()));
        }
        if self.stall > self.window {
            return Err((".stall", format!("{:?} is longer than the window of {:?}", self.stall, self.window)));
        }
        Ok(())
    }
}

/// What a reader wants to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventOptions {
    /// These kinds. Each that cannot be had here is an error. `None`, the default: all that can be had but those of the network
    /// ([`Events::kinds`] says which these are). [`EventKind::Ended`] is always told, and pressure when there is a threshold.
    pub kinds: Option<Vec<EventKind>>,
    /// Thresholds of pressure. Default: none.
    pub pressure: Vec<Pressure>,
}

impl EventOptions {
    /// From JSON: `{"kinds": ["oom_kill", "pids_max"], "pressure": [{"resource": "memory", "level": "some",
    /// "stall": "150ms", "window": "2s"}]}`. Durations are seconds or text; what is left out has its default.
    ///
    /// # Errors
    /// InvalidSpec, with the field.
    pub fn from_json(text: &str) -> Result<Self> {
        crate::spec::event_options::event_options(text)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (i, pressure) in self.pressure.iter().enumerate() {
            pressure.validate().map_err(|(part, why)| Error::spec(format!("pressure[{i}]{part}"), why))?;
        }
        match self.kinds.iter().flatten().position(|&kind| kind == EventKind::Pressure) {
            Some(i) if self.pressure.is_empty() => {
                Err(Error::spec(format!("kinds[{i}]"), "pressure is told by thresholds: give them as pressure"))
            }
            _ => Ok(()),
        }
    }
}

/// Something that happened, once or several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// How often since the last event of this kind (and threshold) that this reader got, or since it was made.
    pub count: u64,
    /// How often since the reader was made.
    pub total: u64,
    /// Of pressure: the index of the threshold in [`EventOptions::pressure`], and the threshold.
    pub threshold: Option<(usize, Pressure)>,
    /// When the first of them was seen: nanoseconds of CLOCK_REALTIME. The kernel does not say when they happened; a reader
    /// that waits sees them at once (the kernel notifies at most every 10 ms of the same file), a slow one when it looks.
    pub time_ns: u64,
    /// The same moment by CLOCK_MONOTONIC.
    pub monotonic_ns: u64,
}

impl Event {
    /// One JSON object: `kind`, `count`, `total`, `time_ns`, `monotonic_ns`, and of pressure `resource`, `level`,
    /// `threshold` (its index), which are null for other kinds.
    pub fn to_json(&self) -> String {
        json!({
            "kind": self.kind.name(),
            "count": self.count,
            "total": self.total,
            "resource": self.threshold.map(|(_, pressure)| pressure.resource.name()),
            "level": self.threshold.map(|(_, pressure)| pressure.level.name()),
            "threshold": self.threshold.map(|(index, _)| index),
            "time_ns": self.time_ns,
            "monotonic_ns": self.monotonic_ns,
        })
        .to_string()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// `Ended` waits behind what else is pending.
    Ended,
    /// `Ended` was given out.
    Over,
}

struct State {
    watch: Watch,
    net: Option<net::watch::Watch>,
    /// In the order in which they were first seen, one for each kind and threshold.
    pending: Vec<Event>,
    /// What was given out and what is pending.
    totals: Vec<((EventKind, Option<usize>), u64)>,
    phase: Phase,
    /// The pidfd of a detached container is still in the epoll instance.
    pidfd_listed: bool,
    /// `ready` is raised.
    raised: bool,
    /// What a look on behalf of somebody else failed with.
    failed: Option<Error>,
}

/// What a reader and its container share.
pub(crate) struct Shared {
    container: Arc<container::Inner>,
    options: EventOptions,
    kinds: OnceCell<Vec<EventKind>>,
    epoll: Epoll,
    /// Readable while something is pending.
    ready: EventFd,
    cancel: OwnedFd,
    cancelled: AtomicBool,
    state: Mutex<State>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Reads what the kernel has counted, for a reader that may come later. `last`: the groups go after this.
    pub fn look(&self, last: bool) {
        let mut state = self.state();
        if let Err(error) = state.look(self) {
            state.failed = Some(error);
        }
        if last {
            state.end_watch(self);
        }
        state.signal(&self.ready);
    }

    /// `Some(None)`: it is over. `None`: nothing yet.
    fn take(&self) -> Result<Option<Option<Event>>> {
        self.container.owner().check()?;
        if self.cancelled.load(Ordering::Relaxed) && self.state().phase != Phase::Over {
            return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
        }
        // Before the state is locked: whoever sees the last process go has every reader look first.
        let pid_one_ended = !self.container.runs();
        let ended = self.container.events_are_over(pid_one_ended)?;
        let mut state = self.state();
        if state.phase == Phase::Running {
            state.look(self)?;
            if pid_one_ended && std::mem::take(&mut state.pidfd_listed) {
                let _ = self.epoll.delete(self.container.pidfd());
            }
            if ended {
                state.end_watch(self);
                state.push(self, Seen { kind: EventKind::Ended, threshold: None, count: 1 });
                state.phase = Phase::Ended;
            }
        }
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let answer = if state.pending.is_empty() {
            (state.phase == Phase::Over).then_some(None)
        } else {
            let event = state.pending.remove(0);
            if event.kind == EventKind::Ended {
                state.phase = Phase::Over;
            }
            Some(Some(event))
        };
        state.signal(&self.ready);
        drop(state);
        if answer.is_none() && self.container.is_let_go() {
            return Err(Error::new(ErrorKind::Closed, "the container's handle was closed").with_errno(libc::EBADF));
        }
        Ok(answer)
    }
}

impl State {
    fn look(&mut self, shared: &Shared) -> Result<()> {
        let mut seen = Vec::new();
        let result = self.watch.look(&shared.epoll, &mut seen);
        if let Some(net) = &self.net {
            net.look(&mut seen);
        }
        seen.into_iter().for_each(|seen| self.push(shared, seen));
        result
    }

    fn end_watch(&mut self, shared: &Shared) {
        let mut seen = Vec::new();
        self.watch.end(&shared.epoll, &mut seen);
        if let Some(net) = self.net.take() {
            net.look(&mut seen);
            let _ = shared.epoll.delete(net.fd());
        }
        seen.into_iter().for_each(|seen| self.push(shared, seen));
    }

    fn push(&mut self, shared: &Shared, seen: Seen) {
        let key = (seen.kind, seen.threshold);
        let total = match self.totals.iter_mut().find(|(known, _)| *known == key) {
            Some((_, total)) => {
                *total += seen.count;
                *total
            }
            None => {
                self.totals.push((key, seen.count));
                seen.count
            }
        };
        let threshold = seen.threshold.map(|index| (index, shared.options.pressure[index]));
        match self.pending.iter_mut().find(|e| e.kind == seen.kind && e.threshold == threshold) {
            Some(event) => {
                event.count += seen.count;
                event.total = total;
            }
            None => self.pending.push(Event {
                kind: seen.kind,
                count: seen.count,
                total,
                threshold,
                time_ns: now(ClockId::CLOCK_REALTIME),
                monotonic_ns: now(ClockId::CLOCK_MONOTONIC),
            }),
        }
    }

    /// The descriptor is readable while something is pending, and for ever when it is over.
    fn signal(&mut self, ready: &EventFd) {
        let wanted = !self.pending.is_empty() || self.phase == Phase::Over || self.failed.is_some();
        if wanted != self.raised {
            self.raised = wanted;
            let _ = if wanted { ready.write(1).map(drop) } else { ready.read().map(drop) };
        }
    }
}

fn now(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// The events of a container: made by [`Container::events`](crate::Container::events), read one after the other.
///
/// What happened before it was made is not told. A container may have any number of these at once, each with counts of its
/// own; each may be used by any number of threads, and each event is given to one of them. It needs no thread.
///
/// **What is guaranteed.** Events of one kind (and threshold) that come before the reader does are one event with their count;
/// none is lost. `Populated` and `Empty`, `Frozen` and `Thawed` are states, which the kernel does not count: when somebody else
/// freezes and thaws the container between two looks, nobody tells of it; what this library's own calls do is always told.
///
/// When an attached container ends, the keeper holds its groups until the last counts were read for every reader: they are told,
/// then [`EventKind::Ended`], then nothing more. Of a detached container, and after [`end_keepers`](crate::end_keepers), nobody
/// holds the groups: what was counted after the last look of this reader may be missing, `Ended` never. (A reader that waits
/// looks within moments; so does one whose descriptor is polled and which is then read.)
///
/// When the container's handle is closed, an attached container ends, and so do its events. Of a detached one, which goes on,
/// the next call and those that wait fail with Closed.
///
/// In a forked child of this program every call fails with [`ErrorKind::ForkedChild`].
///
/// ```
/// use ringfence::{Container, EventKind, EventOptions, Spec};
/// # fn main() -> ringfence::Result<()> {
/// let spec = Spec { memory: Some(48 << 20), ..Spec::default() };
/// let container = Container::start(&spec)?;
/// let events = container.events(&EventOptions::default())?;
/// let hog = container.command("python3").args(["-c", "x = bytearray(200 << 20)"]).spawn()?;
/// for event in &events {
///     let event = event?;
///     println!("{} {}", event.kind.name(), event.count);
///     if event.kind == EventKind::OomKill {
///         break;
///     }
/// }
/// # hog.wait(None)?;
/// container.close(None)
/// # }
/// ```
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = self.kinds();
        f.debug_struct("Events")
            .field("container", &self.shared.container)
            .field("kinds", &kinds)
            .finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn new(
        container: &Arc<container::Inner>,
        options: &EventOptions,
        net: Option<net::watch::Watch>,
    ) -> Result<Self> {
        options.validate()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| Error::os("epoll_create1", e as i32))?;
        let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::os("eventfd", e as i32))?;
        let cancel = process::event()?;
        let listed = container.end_descriptors();
        for fd in [ready.as_fd(), cancel.as_fd()].into_iter().chain(listed.always).chain(listed.until_pid_one_ended) {
            listen(&epoll, fd, EpollFlags::EPOLLIN)?;
        }
        if let Some(net) = &net {
            listen(&epoll, net.fd(), EpollFlags::EPOLLIN)?;
        }
        let of_net = net.as_ref().map(|net| net.kinds().to_vec()).unwrap_or_default();
        let pidfd_listed = listed.until_pid_one_ended.is_some();
        let shared = Arc::new(Shared {
            container: container.clone(),
            options: options.clone(),
            kinds: OnceCell::new(),
            epoll,
            ready,
            cancel,
            cancelled: AtomicBool::new(false),
            state: Mutex::new(State {
                watch: Watch::default(),
                net,
                pending: Vec::new(),
                totals: Vec::new(),
                phase: Phase::Running,
                pidfd_listed,
                raised: false,
                failed: None,
            }),
        });
        // Known before its files are opened, and locked meanwhile: should the container end just then, whoever sees that
        // waits with the last look until there is something to look at.
        let mut state = shared.state();
        container.add_reader(&shared);
        let opened = match (container.watch_group(), &options.kinds) {
            (Some(group), _) => group.watch(options, &shared.epoll),
            (None, None) if options.pressure.is_empty() => Ok(Watch::default()),
            (None, _) => no_group(options),
        };
        let opened = opened.map(|watch| state.watch = watch);
        let mut kinds = state.watch.kinds();
        drop(state);
        match opened {
            Ok(()) => {}
            // It went while its files were opened, or before: its end is all that there is to tell.
            Err(_) if container.events_are_over(!container.runs())? => {}
            Err(error) => return Err(error.with_context("events")),
        }
        if !options.pressure.is_empty() {
            kinds.push(EventKind::Pressure);
        }
        kinds.extend(of_net);
        kinds.push(EventKind::Ended);
        kinds.sort();
        shared.kinds.get_or_init(|| kinds);
        Ok(Self { shared })
    }

    /// Which kinds are told here, in the order of their numbers.
    pub fn kinds(&self) -> &[EventKind] {
        self.shared.kinds.get().map_or(&[], Vec::as_slice)
    }

    /// The next event. Waits for one as long as `timeout` (`None`: for ever; zero only looks). `Ok(None)`: the time passed, or
    /// [it is over](Self::is_over), which [`EventKind::Ended`] has told.
    ///
    /// # Errors
    /// Closed, when [`cancel`](Self::cancel) was called, or the handle of a detached container was closed.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Event>> {
        launch::next(self.fd(), timeout, || self.shared.take())
    }

    /// Whether [`EventKind::Ended`] was given out: nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.shared.state().phase == Phase::Over
    }

    /// Readable (POLLIN) when there is something to read, and when it is over; borrowed from this object, for poll, epoll and
    /// the like, never to be read. A call of [`next`](Self::next) may then still find nothing.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.epoll.0.as_fd()
    }

    /// Makes every call of [`next`](Self::next), under way on any thread or begun later, fail with Closed, unless it is over.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
        process::raise(&self.shared.cancel);
    }

    /// Each event, as it comes; ends after [`EventKind::Ended`], or after an error.
    pub fn iter(&self) -> EventIter<'_> {
        EventIter { events: self, failed: false }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Result<Event>;
    type IntoIter = EventIter<'a>;

    fn into_iter(self) -> EventIter<'a> {
        self.iter()
    }
}

/// Made by [`Events::iter`].
#[derive(Debug)]
pub struct EventIter<'a> {
    events: &'a Events,
    failed: bool,
}

impl Iterator for EventIter<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        if self.failed {
            return None;
        }
        let next = self.events.next(None).transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}

/// Nothing of what was asked for by name can be had.
fn no_group(options: &EventOptions) -> Result<Watch> {
    let counted = options.kinds.iter().flatten().position(|kind| EventKind::COUNTED.contains(kind));
    match counted {
        Some(i) => Err(container::no_group().with_field(format!("kinds[{i}]"))),
        None if options.pressure.is_empty() => Ok(Watch::default()),
        None => Err(container::no_group().with_field("pressure[0]")),
    }
}

/// Readers of one container.
#[derive(Default)]
pub(crate) struct Readers(Mutex<Vec<Weak<Shared>>>);

impl Readers {
    fn list(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn add(&self, reader: &Arc<Shared>) {
        let mut list = self.list();
        list.retain(|reader| reader.strong_count() > 0);
        list.push(Arc::downgrade(reader));
    }

    pub fn is_empty(&self) -> bool {
        self.list().iter().all(|reader| reader.strong_count() == 0)
    }

    /// Has each of them look; see [`Shared::look`].
    pub fn look(&self, last: bool) {
        // Not under the lock: the last reference to a reader may go here, and its drop is nobody's business.
        let readers: Vec<_> = self.list().iter().filter_map(Weak::upgrade).collect();
        readers.iter().for_each(|reader| reader.look(last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_and_numbers() {
        for (i, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i + 1);
            assert_eq!(EventKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(EventKind::from_name("Oom"), None);
        let rest: Vec<_> = EventKind::ALL.into_iter().filter(|kind| !EventKind::COUNTED.contains(kind)).collect();
        assert_eq!(rest, [EventKind::Pressure, EventKind::Ended, EventKind::Link, EventKind::Address]);
    }
}
