//! What a group tells of itself: control files that are read again when the kernel says that they changed, and pressure
//! triggers.
//!
//! Every descriptor stands in one epoll instance, which is only ever polled, by this library and from outside, and never asked
//! what is ready: a look reads everything. Control files (Documentation/admin-guide/cgroup-v2.rst) and v1's eventfds stay
//! ready until they are read, however often they are polled. A pressure trigger (Documentation/accounting/psi.rst) does not:
//! its first poll takes the notice away, and an outer poll of the epoll instance is one. (Measured on 6.18: poll said that the
//! instance is readable, epoll_wait then found nothing.) So the triggers are not in it, but an inotify instance that watches
//! their files, because the kernel marks a file as modified after it has set the notice; then each trigger is polled here.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::uio::pread;

use super::layout::{self, Controller};
use super::{Group, V2_HINT, V2Part, file, has};
use crate::error::{Error, ErrorKind, Result};
use crate::events::{EventKind, EventOptions, Pressure};

/// Something happened `count` times since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub kind: EventKind,
    /// Of pressure: which of the thresholds.
    pub threshold: Option<usize>,
    pub count: u64,
}

/// A line of a control file.
enum Line {
    /// A number that grows.
    Counter { key: &'static str, kind: EventKind, last: u64 },
    /// 0 or 1, and the kind that is told when it becomes `on`.
    State { key: &'static str, kind: EventKind, on: bool, last: bool },
}

/// The value of a key; without a key the file is one number.
fn value(text: &str, key: &str) -> Option<u64> {
    if key.is_empty() { file::number(text) } else { file::keyed(text, key) }
}

impl Line {
    fn new(key: &'static str, kind: EventKind, text: &str) -> Option<Self> {
        let now = value(text, key)?;
        Some(match kind {
            EventKind::Populated | EventKind::Frozen => Self::State { key, kind, on: true, last: now == 1 },
            EventKind::Empty | EventKind::Thawed => Self::State { key, kind, on: false, last: now == 1 },
            _ => Self::Counter { key, kind, last: now },
        })
    }

    fn kind(&self) -> EventKind {
        match self {
            Self::Counter { kind, .. } | Self::State { kind, .. } => *kind,
        }
    }

    fn update(&mut self, text: &str, seen: &mut Vec<Seen>) {
        let (kind, count) = match self {
            Self::Counter { key, kind, last } => {
                let Some(now) = value(text, key) else { return };
                let count = now.saturating_sub(*last);
                *last = now;
                (*kind, count)
            }
            Self::State { key, kind, on, last } => {
                let Some(now) = value(text, key).map(|value| value == 1) else { return };
                let changed = now != *last && now == *on;
                *last = now;
                (*kind, changed.into())
            }
        };
        if count > 0 {
            seen.push(Seen { kind, threshold: None, count });
        }
    }
}

/// A control file.
struct Source {
    name: &'static str,
    /// It is in the epoll instance; a silent one is looked at by the timer.
    notifies: bool,
    /// `None` once the group was removed.
    fd: Option<OwnedFd>,
    lines: Vec<Line>,
}

/// Out-of-memory notices of cgroup v1. The kernel raises the eventfd before it chooses a process and counts the kill after
/// that, without another notice: so the counter is looked at again for a second, at growing distances.
struct OomOfV1 {
    /// `memory.oom_control`; `None` once the group was removed.
    control: Option<OwnedFd>,
    signals: EventFd,
    timer: TimerFd,
    delay: Duration,
    kills: u64,
    /// Which of `oom` and `oom_kill` are wanted.
    kinds: Vec<EventKind>,
}

/// How often silent files are looked at.
const INTERVAL: Duration = Duration::from_millis(200);
const FIRST_DELAY: Duration = Duration::from_millis(1);
const LAST_DELAY: Duration = Duration::from_millis(512);

struct Triggers {
    inotify: Inotify,
    /// The descriptor, and which threshold it is.
    fds: Vec<(OwnedFd, usize)>,
}

/// What is looked at for one reader.
#[derive(Default)]
pub(crate) struct Watch {
    sources: Vec<Source>,
    /// For files that do not notify.
    timer: Option<TimerFd>,
    oom: Option<OomOfV1>,
    triggers: Option<Triggers>,
}

fn gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENODEV | Errno::ENOENT)
}

/// Adds a descriptor to an epoll instance. (Its data is never asked for.)
pub(crate) fn listen(epoll: &Epoll, fd: impl AsFd, events: EpollFlags) -> Result<()> {
    epoll.add(fd, EpollEvent::new(events, 0)).map_err(|e| Error::os("epoll_ctl", e as i32))
}

impl Group {
    /// Opens what tells of the kinds that are asked for, and remembers how it stands.
    ///
    /// # Errors
    /// Unsupported or PermissionDenied with the field, for a kind or threshold that was asked for and cannot be had here.
    pub fn watch(&self, options: &EventOptions, epoll: &Epoll) -> Result<Watch> {
        let mut watch = Watch::default();
        match &options.kinds {
            None => {
                for kind in EventKind::COUNTED {
                    match watch.add(self, kind, epoll) {
                        Err(e) if !matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
                            return Err(e);
                        }
                        _ => {}
                    }
                }
            }
            Some(kinds) => {
                for (i, &kind) in kinds.iter().enumerate() {
                    if EventKind::COUNTED.contains(&kind) && !watch.kinds().contains(&kind) {
                        watch.add(self, kind, epoll).map_err(|e| e.with_field(format!("kinds[{i}]")))?;
                    }
                }
            }
        }
        for (i, pressure) in options.pressure.iter().enumerate() {
            watch.add_trigger(self, i, pressure, epoll)?;
        }
        Ok(watch)
    }

    /// Opens a control file: of the controller where that is, on v1 too; without one of the v2 group.
    pub(super) fn event_file(&self, controller: Option<Controller>, name: &str, access: OFlag) -> Result<OwnedFd> {
        let parts = self.v1();
        let part = controller.and_then(|c| parts.iter().find(|part| has(&part.parent, c.name_on(false))));
        let v1 = part.map(|part| &part.parent);
        let is_local = matches!(name, "pids.events" | "memory.oom_control" | "cgroup.event_control");
        // v1 counts where the process was.
        let in_leaf = part.is_some_and(|part| part.leaf && is_local).then(|| format!("{}/{name}", super::SUB_PAYLOAD));
        let name = in_leaf.as_deref().unwrap_or(name);
        let (opened, path) = match (v1, &self.v2) {
            (Some(parent), _) => (
                file::open_file(&parent.dir, &format!("{}/{name}", self.name), access),
                parent.path.join(&self.name).join(name),
            ),
            // Of the payload alone: what is beside it is no process of the container.
            (None, Some(v2)) if matches!(name, "cgroup.events" | "pids.events") => {
                (file::open_file(v2.inner(), name, access), v2.parent.path.join(v2.inner_path(&self.name)).join(name))
            }
            (None, Some(V2Part { parent, dir, .. })) => {
                (file::open_file(dir, name, access), parent.path.join(&self.name).join(name))
            }
            (None, None) => {
                return Err(
                    Error::new(ErrorKind::Unsupported, "this container is in no cgroup v2 group").with_hint(V2_HINT)
                );
            }
        };
        opened.map_err(|errno| match (errno, controller) {
            (Errno::ENOENT, Some(controller))
                if v1.is_none() && layout::current().is_ok_and(|l| l.home(controller).is_none()) =>
            {
                let (why, remedy) = layout::current()
                    .map(|layout| layout::absence(&layout, controller))
                    .unwrap_or_else(|e| (e.to_string(), V2_HINT));
                Error::new(ErrorKind::Unsupported, why).with_hint(remedy)
            }
            (Errno::ENOENT, _) => Error::new(
                ErrorKind::Unsupported,
                format!("there is no {name} in this container's group"),
            )
            .with_path(path.to_string_lossy())
            .with_hint(
                "the kernel is too old or lacks it, or the controller is not enabled for the group: see doctor()",
            ),
            _ => Error::os("open", errno as i32).with_path(path.to_string_lossy()),
        })
    }

    pub(super) fn is_on_v1(&self, controller: Controller) -> bool {
        self.v1().iter().any(|part| has(&part.parent, controller.name_on(false)))
    }
}

/// A file and the line in it that tell of a kind.
struct Place {
    controller: Option<Controller>,
    name: &'static str,
    key: &'static str,
    notifies: bool,
}

const fn place(controller: Option<Controller>, name: &'static str, key: &'static str) -> Place {
    Place { controller, name, key, notifies: true }
}

const fn silent(controller: Controller, name: &'static str, key: &'static str) -> Place {
    Place { controller: Some(controller), name, key, notifies: false }
}

const fn memory(key: &'static str) -> Place {
    place(Some(Controller::Memory), "memory.events", key)
}

/// The first is needed, the others count where they are there. Without any the controller cannot tell.
fn places(group: &Group, kind: EventKind) -> Vec<Place> {
    let memory_on_v1 = group.is_on_v1(Controller::Memory);
    match kind {
        EventKind::MemoryMax if memory_on_v1 => vec![
            silent(Controller::Memory, "memory.failcnt", ""),
            // Where swap is counted, a hit of the limit of both together is one too.
            silent(Controller::Memory, "memory.memsw.failcnt", ""),
        ],
        EventKind::MemoryLow | EventKind::MemoryHigh | EventKind::SwapMax if memory_on_v1 => vec![],
        EventKind::MemoryLow => vec![memory("low")],
        EventKind::MemoryHigh => vec![memory("high")],
        EventKind::MemoryMax => vec![memory("max")],
        EventKind::Oom => vec![memory("oom")],
        EventKind::OomKill => vec![memory("oom_kill")],
        EventKind::SwapMax => vec![place(Some(Controller::Memory), "memory.swap.events", "max")],
        // Since 6.11 the kernel notifies the v1 file's neighbour of v2 instead (seen on 6.18: the count rises in silence).
        EventKind::PidsMax if group.is_on_v1(Controller::Pids) => vec![silent(Controller::Pids, "pids.events", "max")],
        EventKind::PidsMax => vec![place(Some(Controller::Pids), "pids.events", "max")],
        EventKind::Populated | EventKind::Empty => vec![place(None, "cgroup.events", "populated")],
        EventKind::Frozen | EventKind::Thawed => vec![place(None, "cgroup.events", "frozen")],
        EventKind::Pressure | EventKind::Ended | EventKind::Link | EventKind::Address => vec![],
    }
}

impl Watch {
    /// What is told, thresholds apart.
    pub fn kinds(&self) -> Vec<EventKind> {
        let lines = self.sources.iter().flat_map(|source| source.lines.iter().map(Line::kind));
        let mut kinds: Vec<_> = lines.chain(self.oom.iter().flat_map(|oom| oom.kinds.iter().copied())).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    fn add(&mut self, group: &Group, kind: EventKind, epoll: &Epoll) -> Result<()> {
        if matches!(kind, EventKind::Oom | EventKind::OomKill) && group.is_on_v1(Controller::Memory) {
            return self.add_oom_of_v1(group, kind, epoll);
        }
        let places = places(group, kind);
        if places.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, format!("cgroup v1 does not tell of {}", kind.name()))
                .with_hint(V2_HINT));
        }
        for (i, place) in places.iter().enumerate() {
            match self.add_line(group, kind, place, epoll) {
                Err(e) if i > 0 && e.kind() == ErrorKind::Unsupported => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn add_line(&mut self, group: &Group, kind: EventKind, place: &Place, epoll: &Epoll) -> Result<()> {
        let &Place { controller, name, key, notifies } = place;
        let missing = || {
            Error::new(ErrorKind::Unsupported, format!("this kernel's {name} has no {key:?}"))
                .with_hint("a newer kernel has it")
        };
        if let Some(source) = self.sources.iter_mut().find(|source| source.name == name) {
            let Some(fd) = &source.fd else { return Ok(()) };
            let text = text_of(fd).map_err(|e| Error::os("read", e as i32).with_path(name))?;
            source.lines.push(Line::new(key, kind, &text).ok_or_else(missing)?);
            return Ok(());
        }
        let fd = group.event_file(controller, name, OFlag::O_RDONLY)?;
        // The first read arms the notification.
        let text = text_of(&fd).map_err(|e| Error::os("read", e as i32).with_path(name))?;
        let line = Line::new(key, kind, &text).ok_or_else(missing)?;
        if notifies {
            listen(epoll, &fd, EpollFlags::EPOLLPRI)?;
        } else if self.timer.is_none() {
            let timer = new_timer()?;
            set(&timer, Expiration::Interval(TimeSpec::from_duration(INTERVAL)))?;
            listen(epoll, &timer, EpollFlags::EPOLLIN)?;
            self.timer = Some(timer);
        }
        self.sources.push(Source { name, notifies, fd: Some(fd), lines: vec![line] });
        Ok(())
    }

    /// Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control".
    fn add_oom_of_v1(&mut self, group: &Group, kind: EventKind, epoll: &Epoll) -> Result<()> {
        if let Some(oom) = &mut self.oom {
            oom.kinds.push(kind);
            return Ok(());
        }
        let memory = Some(Controller::Memory);
        let control = group.event_file(memory, "memory.oom_control", OFlag::O_RDONLY)?;
        let register = group.event_file(memory, "cgroup.event_control", OFlag::O_WRONLY)?;
        let text = text_of(&control).map_err(|e| Error::os("read", e as i32).with_path("memory.oom_control"))?;
        let signals = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::os("eventfd", e as i32))?;
        let timer = new_timer()?;
        nix::unistd::write(&register, format!("{} {}", signals.as_raw_fd(), control.as_raw_fd()).as_bytes())
            .map_err(|e| Error::os("register an eventfd for out-of-memory notices", e as i32))?;
        listen(epoll, &signals, EpollFlags::EPOLLIN)?;
        listen(epoll, &timer, EpollFlags::EPOLLIN)?;
        let kills = file::keyed(&text, "oom_kill").unwrap_or(0);
        let delay = FIRST_DELAY;
        self.oom = Some(OomOfV1 { control: Some(control), signals, timer, delay, kills, kinds: vec![kind] });
        Ok(())
    }

    fn add_trigger(&mut self, group: &Group, index: usize, pressure: &Pressure, epoll: &Epoll) -> Result<()> {
        let at = |part: &str| format!("pressure[{index}]{part}");
        pressure.validate().map_err(|(part, why)| Error::spec(at(part), why))?;
        let name = format!("{}.pressure", pressure.resource.name());
        if !kernel_marks_triggers() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "thresholds of pressure can be awaited together with other events since Linux 6.6",
            )
            .with_field(at("")));
        }
        let off = || {
            Error::new(ErrorKind::Unsupported, "this kernel keeps no account of pressure (PSI)")
                .with_field(at(""))
                .with_hint("boot with psi=1; the kernel needs CONFIG_PSI")
        };
        let fd = group.event_file(None, &name, OFlag::O_RDWR | OFlag::O_NONBLOCK).map_err(|e| match e.errno() {
            libc::EOPNOTSUPP => off(),
            _ if e.kind() == ErrorKind::Unsupported && group.v2.is_some() => {
                if std::path::Path::new("/proc/pressure").exists() {
                    e.with_field(at("")).with_hint("write 1 to cgroup.pressure of the group, where it was switched off")
                } else {
                    off()
                }
            }
            _ => e.with_field(at("")),
        })?;
        let micros = |duration: Duration| duration.as_micros();
        let line = format!("{} {} {}", pressure.level.name(), micros(pressure.stall), micros(pressure.window));
        // One write is one command. The length is right without a NUL byte since Linux 5.2.
        nix::unistd::write(&fd, line.as_bytes()).map_err(|e| match e {
            Errno::EOPNOTSUPP => off(),
            // Everything else that the kernel refuses was found by `validate`.
            Errno::EINVAL if !pressure.window.as_micros().is_multiple_of(2_000_000) => Error::new(
                ErrorKind::PermissionDenied,
                format!("a window of {:?} takes CAP_SYS_RESOURCE", pressure.window),
            )
            .with_field(at(".window"))
            .with_errno(libc::EPERM)
            .with_hint("without that capability the kernel takes whole multiples of 2 s, up to 10 s"),
            e => Error::os(format!("write {line:?}"), e as i32).with_field(at("")).with_path(name.clone()),
        })?;
        if self.triggers.is_none() {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
                .map_err(|e| no_inotify(e).with_field(at("")))?;
            listen(epoll, &inotify, EpollFlags::EPOLLIN)?;
            self.triggers = Some(Triggers { inotify, fds: Vec::new() });
        }
        let triggers = self.triggers.as_mut().expect("just made");
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        triggers
            .inotify
            .add_watch(path.as_str(), AddWatchFlags::IN_MODIFY)
            .map_err(|e| no_inotify(e).with_field(at("")))?;
        triggers.fds.push((fd, index));
        Ok(())
    }

    /// Reads everything that has not been closed. What is gone with its group is left out from then on.
    pub fn look(&mut self, epoll: &Epoll, seen: &mut Vec<Seen>) -> Result<()> {
        if let Some(timer) = &self.timer {
            // Until it is read, it is ready.
            let _ = timer.wait();
        }
        for source in &mut self.sources {
            let Some(fd) = &source.fd else { continue };
            match text_of(fd) {
                Ok(text) => source.lines.iter_mut().for_each(|line| line.update(&text, seen)),
                Err(e) if gone(e) => {
                    // A removed group's file is ready for ever. Closing it alone would leave it there while a forked
                    // child has it open.
                    if source.notifies {
                        let _ = epoll.delete(fd);
                    }
                    source.fd = None;
                }
                Err(e) => return Err(Error::os("read", e as i32).with_path(source.name)),
            }
        }
        if let Some(oom) = &mut self.oom {
            oom.look(epoll, seen)?;
        }
        if let Some(triggers) = &mut self.triggers {
            // Read before the triggers are looked at: a notice that comes between marks the file again.
            while triggers.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
            triggers.fds.retain(|(fd, index)| match crossed(fd) {
                Ok(false) => true,
                Ok(true) => {
                    seen.push(Seen { kind: EventKind::Pressure, threshold: Some(*index), count: 1 });
                    true
                }
                Err(()) => false,
            });
        }
        Ok(())
    }

    /// The group is empty and goes now: what is known only by its end.
    pub fn end(&mut self, epoll: &Epoll, seen: &mut Vec<Seen>) {
        if let Some(timer) = self.timer.take() {
            let _ = epoll.delete(timer);
        }
        for source in &mut self.sources {
            if let Some(fd) = source.fd.take().filter(|_| source.notifies) {
                let _ = epoll.delete(fd);
            }
            for line in &mut source.lines {
                if let Line::State { kind: EventKind::Empty, last, .. } = line
                    && std::mem::take(last)
                {
                    seen.push(Seen { kind: EventKind::Empty, threshold: None, count: 1 });
                }
            }
        }
        if let Some(oom) = &mut self.oom {
            oom.close(epoll);
        }
        if let Some(triggers) = self.triggers.take() {
            let _ = epoll.delete(&triggers.inotify);
        }
    }
}

impl OomOfV1 {
    fn look(&mut self, epoll: &Epoll, seen: &mut Vec<Seen>) -> Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        let mut rung = match self.signals.read() {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            Err(e) => return Err(Error::os("read an eventfd", e as i32)),
        };
        let expired = self.timer.wait().is_ok();
        let text = match text_of(control) {
            Ok(text) => Some(text),
            Err(e) if gone(e) => None,
            Err(e) => return Err(Error::os("read", e as i32).with_path("memory.oom_control")),
        };
        if text.is_none() {
            // The removal of the group raises the eventfd too, after its files are gone.
            rung = rung.saturating_sub(1);
        }
        let now = text.as_deref().and_then(|text| file::keyed(text, "oom_kill")).unwrap_or(self.kills);
        let kills = now.saturating_sub(self.kills);
        self.kills = now;
        for (kind, count) in [(EventKind::Oom, rung), (EventKind::OomKill, kills)] {
            if count > 0 && self.kinds.contains(&kind) {
                seen.push(Seen { kind, threshold: None, count });
            }
        }
        if text.is_none() {
            self.close(epoll);
            return Ok(());
        }
        if rung > 0 {
            self.delay = FIRST_DELAY;
        } else if expired {
            self.delay *= 2;
        }
        if (rung > 0 || expired) && self.delay <= LAST_DELAY {
            set(&self.timer, Expiration::OneShot(TimeSpec::from_duration(self.delay)))?;
        }
        Ok(())
    }

    fn close(&mut self, epoll: &Epoll) {
        if self.control.take().is_some() {
            let _ = (epoll.delete(&self.signals), epoll.delete(&self.timer));
        }
    }
}

fn new_timer() -> Result<TimerFd> {
    TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)
        .map_err(|e| Error::os("timerfd_create", e as i32))
}

fn set(timer: &TimerFd, when: Expiration) -> Result<()> {
    timer.set(when, TimerSetTimeFlags::empty()).map_err(|e| Error::os("timerfd_settime", e as i32))
}

/// The notice of a trigger, which is taken away by asking. `Err`: the group was removed.
fn crossed(fd: &OwnedFd) -> Result<bool, ()> {
    let mut list = [PollFd::new(fd.as_fd(), PollFlags::POLLPRI)];
    match poll(&mut list, PollTimeout::ZERO) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(_) => return Ok(false),
    }
    let found = list[0].revents().unwrap_or(PollFlags::empty());
    if found.contains(PollFlags::POLLERR) { Err(()) } else { Ok(found.contains(PollFlags::POLLPRI)) }
}

fn text_of(fd: &OwnedFd) -> Result<String, Errno> {
    let mut buffer = [0u8; file::BUFFER];
    loop {
        match pread(fd, &mut buffer, 0) {
            Ok(n) => return Ok(String::from_utf8_lossy(&buffer[..n]).into_owned()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

fn no_inotify(errno: Errno) -> Error {
    let error = Error::os("inotify", errno as i32);
    match errno {
        Errno::EMFILE | Errno::ENOSPC => error.with_hint(
            "each reader with thresholds of pressure takes an inotify instance: raise fs.inotify.max_user_instances, \
             fs.inotify.max_user_watches or RLIMIT_NOFILE",
        ),
        _ => error,
    }
}

/// Before 6.6 the triggers of groups were kept apart from the notification of their files.
fn kernel_marks_triggers() -> bool {
    let Ok(uname) = nix::sys::utsname::uname() else { return true };
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str, later: &str) {
    for (key, kind) in [
        ("oom_kill", EventKind::OomKill),
        ("populated", EventKind::Empty),
        ("frozen", EventKind::Frozen),
        ("", EventKind::OomKill),
    ] {
        if let Some(mut line) = Line::new(key, kind, text) {
            line.update(later, &mut Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(line: &mut Line, text: &str) -> Vec<(EventKind, u64)> {
        let mut seen = Vec::new();
        line.update(text, &mut seen);
        seen.into_iter().map(|s| (s.kind, s.count)).collect()
    }

    #[test]
    fn counters_are_told_as_differences() {
        let mut line = Line::new("oom_kill", EventKind::OomKill, "oom 1\noom_kill 3\noom_group_kill 0\n").unwrap();
        assert_eq!(seen(&mut line, "oom 1\noom_kill 3\n"), []);
        assert_eq!(seen(&mut line, "oom 1\noom_kill 5\n"), [(EventKind::OomKill, 2)]);
        assert_eq!(seen(&mut line, "oom 1\noom_kill 5\n"), []);
        assert_eq!(seen(&mut line, ""), []);
        assert!(Line::new("oom_kill", EventKind::OomKill, "oom 1\n").is_none());
    }

    #[test]
    fn states_are_told_as_changes() {
        let text = |frozen: u8| format!("populated 1\nfrozen {frozen}\n");
        let mut frozen = Line::new("frozen", EventKind::Frozen, &text(0)).unwrap();
        let mut thawed = Line::new("frozen", EventKind::Thawed, &text(0)).unwrap();
        assert_eq!((seen(&mut frozen, &text(0)), seen(&mut thawed, &text(0))), (vec![], vec![]));
        assert_eq!(seen(&mut frozen, &text(1)), [(EventKind::Frozen, 1)]);
        assert_eq!(seen(&mut thawed, &text(1)), []);
        assert_eq!(seen(&mut thawed, &text(0)), [(EventKind::Thawed, 1)]);
        assert_eq!(seen(&mut frozen, &text(0)), []);
    }
}
