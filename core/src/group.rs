//! Several containers with an order: each starts when those that it needs are ready, all of them or none; they stop in reverse.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::container::{Container, Pod, WaitFor};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Owner;
use crate::spec::{Spec, name_syntax};

/// How often a start, or a close, asks its caller whether to go on.
const SLICE: Duration = Duration::from_millis(50);

/// What the kernel has to end one that was killed when the time is over.
const SHORT: Duration = Duration::from_secs(1);

/// One container of a [`Group`].
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// What it is to be. Its `name` is that of the container on this machine, if it is to have one, not that in the group.
    pub spec: Spec,
    /// The names of those that must be ready before it starts.
    pub after: Vec<String>,
    /// What makes it ready; `None`: that it was started.
    pub wait_for: Option<WaitFor>,
}

impl Member {
    /// From JSON: the fields of a spec, `after` (a list of names, or one), and `wait_for` as [`WaitFor::from_json`] has it.
    ///
    /// # Errors
    /// InvalidSpec with the field, InvalidArgument for what is in `wait_for`.
    pub fn from_json(json: &str) -> Result<Self> {
        let value = serde_json::from_str(json)
            .map_err(|e| Error::new(ErrorKind::InvalidSpec, format!("not JSON: {e}")).with_errno(libc::EINVAL))?;
        Self::from_value(value)
    }

    /// With `wait_for` from JSON, as [`WaitFor::from_json`] has it.
    ///
    /// # Errors
    /// InvalidArgument with the field (`wait_for.port`).
    pub fn wait_for_json(self, json: &str) -> Result<Self> {
        Ok(Self { wait_for: Some(wait_for_of(json)?), ..self })
    }

    fn from_value(value: Value) -> Result<Self> {
        let Value::Object(mut fields) = value else {
            let error = Error::new(ErrorKind::InvalidSpec, "an object with the fields of a container is expected");
            return Err(error.with_errno(libc::EINVAL));
        };
        let after = match fields.remove("after") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names
                .into_iter()
                .enumerate()
                .map(|(i, name)| match name {
                    Value::String(name) => Ok(name),
                    _ => Err(Error::spec(format!("after[{i}]"), "the name of a member is expected")),
                })
                .collect::<Result<_>>()?,
            Some(_) => return Err(Error::spec("after", "a list of names of members is expected")),
        };
        let wait_for = match fields.remove("wait_for") {
            None | Some(Value::Null) => None,
            Some(conditions) => Some(wait_for_of(&conditions.to_string())?),
        };
        Ok(Self { spec: Spec::from_json(&Value::Object(fields).to_string())?, after, wait_for })
    }
}

/// Containers that are started in the order of what they need, all of them or none, and stopped in reverse.
///
/// A member starts when those in its `after` are ready, as their `wait_for` says; members that do not need each other start at the same time. When one cannot
/// start, those that did are stopped in reverse order and the error names the member. Used from any thread.
///
/// They have networks of their own, unless the group is made [in a pod](Self::in_pod). [`close`](Self::close) ends them; so does the
/// drop of the last clone, for those of which nobody has another handle, and the end of this program.
///
/// ```
/// use ringfence::{Group, Member, Spec, WaitFor};
///
/// # fn main() -> ringfence::Result<()> {
/// let group = Group::new();
/// let db = Spec::new().argv(["sh", "-c", "echo ready; exec sleep 60"]);
/// group.add("db", Member { spec: db, wait_for: Some(WaitFor::default().log("^ready")), ..Member::default() })?;
/// let web = Spec::new().argv(["sleep", "60"]);
/// group.add("web", Member { spec: web, after: vec!["db".into()], ..Member::default() })?;
/// group.start(None)?;
/// assert!(group.container("web")?.is_running());
/// group.close(None)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Group {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    owner: Owner,
    pod: Option<Pod>,
    state: Mutex<State>,
    /// A member is ready, one has failed, or the start was given up.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    members: Vec<(String, Member)>,
    /// Of the start that is under way or done, in the order of `members`.
    places: Vec<Place>,
    /// Of the start that is under way.
    failed: Option<Error>,
    /// By its caller or by a close: then nobody wants to wait for the stops.
    given_up: bool,
    /// Somebody starts members, or ends them.
    busy: bool,
}

/// As long as somebody does.
struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.state().busy = false;
        self.0.changed.notify_all();
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    New,
    Starting,
    Started,
    Closed,
}

#[derive(Clone, Debug)]
enum Place {
    /// For those that it needs.
    Waits,
    Starts,
    /// Started, and what it is to have before it is ready is missing.
    Unready(Container),
    Ready(Container),
}

impl Place {
    fn container(&self) -> Option<&Container> {
        match self {
            Self::Unready(container) | Self::Ready(container) => Some(container),
            Self::Waits | Self::Starts => None,
        }
    }
}

/// Tells the others of the end of a start's thread that panics, or they would wait for ever.
struct Guard<'a> {
    shared: &'a Shared,
    name: &'a str,
    done: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.fail(Error::new(ErrorKind::Internal, "a defect of ringfence").with_context(of(self.name)));
        }
    }
}

fn wait_for_of(json: &str) -> Result<WaitFor> {
    WaitFor::from_json(json).map_err(of_wait_for)
}

/// The fields of conditions, as seen from the member.
fn of_wait_for(error: Error) -> Error {
    let field = error.field().map(|field| field.strip_prefix("conditions").unwrap_or(field).trim_start_matches('.'));
    let field = match field {
        None | Some("") => "wait_for".to_owned(),
        Some(field) => format!("wait_for.{field}"),
    };
    error.with_field(field)
}

fn of(name: &str) -> String {
    format!("group member {name:?}")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first error is the start's.
    fn fail(&self, error: Error) {
        self.state().failed.get_or_insert(error);
        self.changed.notify_all();
    }

    /// Waits until a member that has started is ready, or the start has failed.
    fn make_ready(&self, index: usize, container: Container, member: &Member, deadline: Option<Instant>) -> Result<()> {
        if let Some(wait_for) = &member.wait_for {
            self.state().places[index] = Place::Unready(container.clone());
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut readiness = container.readiness(wait_for, left)?;
            while !readiness.wait(Some(SLICE))? {
                if self.state().failed.is_some() {
                    return Ok(());
                }
                if readiness.is_late() {
                    return Err(readiness.timed_out());
                }
            }
        }
        self.state().places[index] = Place::Ready(container);
        self.changed.notify_all();
        Ok(())
    }

    /// One member: waits for those that it needs, starts it, waits until it is ready.
    fn bring_up(&self, index: usize, name: &str, member: &Member, needs: &[usize], deadline: Option<Instant>) {
        let mut guard = Guard { shared: self, name, done: false };
        let mut state = self.state();
        while state.failed.is_none() && !needs.iter().all(|&i| matches!(state.places[i], Place::Ready(_))) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.failed.is_none() {
            state.places[index] = Place::Starts;
            drop(state);
            let started = match &self.pod {
                Some(pod) => pod.container(&member.spec),
                None => Container::start(&member.spec),
            };
            let ready = started.and_then(|container| self.make_ready(index, container, member, deadline));
            if let Err(error) = ready {
                self.fail(error.with_context(of(name)));
            }
        }
        guard.done = true;
    }
}

/// The places in `members` of what each needs.
fn needs(members: &[(String, Member)]) -> Result<Vec<Vec<usize>>> {
    let places: BTreeMap<&str, usize> = members.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
    let needs = |(name, member): &(String, Member)| {
        let place = |other: &String| {
            places.get(other.as_str()).copied().ok_or_else(|| {
                let known: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                Error::spec("after", format!("the group has no member {other:?}"))
                    .with_context(of(name))
                    .with_hint(format!("it has {}", known.join(", ")))
            })
        };
        member.after.iter().map(place).collect()
    };
    members.iter().map(needs).collect()
}

/// How many must have started one after the other before each. The error shows the circle.
fn levels(members: &[(String, Member)], needs: &[Vec<usize>]) -> Result<Vec<usize>> {
    fn level(
        i: usize,
        members: &[(String, Member)],
        needs: &[Vec<usize>],
        path: &mut Vec<usize>,
        known: &mut [Option<usize>],
    ) -> Result<usize> {
        if let Some(level) = known[i] {
            return Ok(level);
        }
        if let Some(from) = path.iter().position(|&p| p == i) {
            let circle: Vec<&str> = path[from..].iter().chain([&i]).map(|&p| members[p].0.as_str()).collect();
            return Err(Error::spec("after", format!("they wait for each other: {}", circle.join(" after ")))
                .with_context(of(circle[0])));
        }
        path.push(i);
        let mut own = 0;
        for &need in &needs[i] {
            own = own.max(1 + level(need, members, needs, path, known)?);
        }
        path.pop();
        known[i] = Some(own);
        Ok(own)
    }
    let mut known = vec![None; members.len()];
    (0..members.len()).map(|i| level(i, members, needs, &mut Vec::new(), &mut known)).collect()
}

impl Group {
    /// The most members.
    pub const MOST: usize = 256;

    /// Without members yet.
    pub fn new() -> Self {
        Self::made(None)
    }

    /// Its members start in the pod: they reach each other at 127.0.0.1. The pod goes on when the group is closed.
    pub fn in_pod(pod: &Pod) -> Self {
        Self::made(Some(pod.clone()))
    }

    fn made(pod: Option<Pod>) -> Self {
        Self {
            shared: Arc::new(Shared { owner: Owner::this(), pod, state: Mutex::default(), changed: Condvar::new() }),
        }
    }

    /// From JSON: an object with an object for each member, as [`Member::from_json`] has it.
    ///
    /// # Errors
    /// As [`add_json`](Self::add_json).
    pub fn from_json(json: &str) -> Result<Self> {
        let group = Self::new();
        group.merge_json(json)?;
        Ok(group)
    }

    /// Adds the members of a description, as [`from_json`](Self::from_json) has it: all of them or, after an error, none.
    ///
    /// # Errors
    /// As [`add_json`](Self::add_json).
    pub fn merge_json(&self, json: &str) -> Result<()> {
        let wrong = |what: String| Error::new(ErrorKind::InvalidSpec, what).with_errno(libc::EINVAL);
        let value = serde_json::from_str(json).map_err(|e| wrong(format!("not JSON: {e}")))?;
        let Value::Object(described) = value else {
            return Err(wrong("an object with an object for each member is expected".to_owned()));
        };
        let mut members = Vec::new();
        for (name, value) in described {
            let member = Member::from_value(value).map_err(|e| e.with_context(of(&name)))?;
            members.push((name, member));
        }
        self.add_all(members)
    }

    /// Adds a member.
    ///
    /// # Errors
    /// InvalidSpec (`name`) for what is no name: 1 to 64 letters, digits, `_`, `.` and `-`; for specs that can never work, or that are
    /// `detach`, which nobody could stop with the group; AlreadyExists (`name`); Exhausted beyond [`MOST`](Self::MOST); InvalidArgument
    /// when the group has started; Closed. Who is in `after` is looked for at the start.
    pub fn add(&self, name: &str, member: Member) -> Result<()> {
        self.add_all(vec![(name.to_owned(), member)])
    }

    /// As [`add`](Self::add), from JSON.
    pub fn add_json(&self, name: &str, json: &str) -> Result<()> {
        self.add(name, Member::from_json(json).map_err(|e| e.with_context(of(name)))?)
    }

    fn add_all(&self, added: Vec<(String, Member)>) -> Result<()> {
        for (name, member) in &added {
            name_syntax(name).map_err(|what| Error::spec("name", what).with_context("group"))?;
            member.spec.validate().map_err(|e| e.with_context(of(name)))?;
            if let Some(wait_for) = &member.wait_for {
                wait_for.validate().map_err(|e| of_wait_for(e).with_context(of(name)))?;
            }
            if member.spec.detach {
                let error = Error::spec("detach", "a container of a group ends with it").with_context(of(name));
                return Err(error.with_hint("start it by itself"));
            }
        }
        self.shared.owner.check()?;
        let mut state = self.shared.state();
        state.phase.check_new()?;
        let mut members = state.members.clone();
        for (name, member) in added {
            if members.iter().any(|(other, _)| *other == name) {
                let error = Error::new(ErrorKind::AlreadyExists, "the group has a member of that name");
                return Err(error.with_context(of(&name)).with_field("name").with_errno(libc::EEXIST));
            }
            members.push((name, member));
        }
        if members.len() > Self::MOST {
            let error = Error::new(ErrorKind::Exhausted, format!("a group has {} members at most", Self::MOST));
            return Err(error.with_errno(libc::ENOSPC));
        }
        state.members = members;
        Ok(())
    }

    /// The names of its members, in the order in which they were added.
    pub fn names(&self) -> Vec<String> {
        if self.shared.owner.check().is_err() {
            return Vec::new();
        }
        self.shared.state().members.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The names of its members in the order of their starts: those that start at the same time are in one list.
    ///
    /// # Errors
    /// InvalidSpec (`after`) for names that the group does not have, and for a circle, which it shows.
    pub fn order(&self) -> Result<Vec<Vec<String>>> {
        self.shared.owner.check()?;
        let members = self.shared.state().members.clone();
        let levels = levels(&members, &needs(&members)?)?;
        let mut order = vec![Vec::new(); levels.iter().max().map_or(0, |most| most + 1)];
        for ((name, _), level) in members.into_iter().zip(levels) {
            order[level].push(name);
        }
        Ok(order)
    }

    /// Starts all of them; they are ready when this returns. It takes threads, one for each member, which end before that.
    ///
    /// # Errors
    /// The first that a member had, with its name, and the end of its log where it did not become ready ([`Error::log_tail`]); then those that had started were stopped in reverse order, and the group can be
    /// started again. TimedOut when not all are ready in time, with the names of those that are not; Closed when another thread closes
    /// the group meanwhile; as [`order`](Self::order); InvalidArgument when it has started, or has no members.
    pub fn start(&self, timeout: Option<Duration>) -> Result<()> {
        self.start_while(timeout, || true)
    }

    /// As [`start`](Self::start), and asks several times a second, on this thread, whether to go on.
    ///
    /// # Errors
    /// Closed when the answer was no.
    pub fn start_while(&self, timeout: Option<Duration>, mut go_on: impl FnMut() -> bool) -> Result<()> {
        let shared = &*self.shared;
        shared.owner.check()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let members = {
            let mut state = shared.state();
            state.phase.check_new()?;
            if state.members.is_empty() {
                return Err(Error::new(ErrorKind::InvalidArgument, "the group has no members").with_errno(libc::EINVAL));
            }
            state.phase = Phase::Starting;
            state.places = vec![Place::Waits; state.members.len()];
            state.failed = None;
            state.given_up = false;
            state.busy = true;
            state.members.clone()
        };
        let _busy = Busy(shared);
        let ordered = needs(&members).and_then(|needs| levels(&members, &needs).map(|_| needs));
        let result = ordered.and_then(|needs| {
            std::thread::scope(|scope| {
                for (index, ((name, member), needs)) in members.iter().zip(&needs).enumerate() {
                    let builder = std::thread::Builder::new().name("ringfence-group".to_owned());
                    let work = move || shared.bring_up(index, name, member, needs, deadline);
                    if let Err(error) = builder.spawn_scoped(scope, work) {
                        shared.fail(Error::io("clone", &error).with_context(of(name)));
                        break;
                    }
                }
                self.watch(&members, deadline, &mut go_on);
            });
            match shared.state().failed.take() {
                Some(error) => Err(error),
                None => Ok(()),
            }
        });
        let mut state = shared.state();
        let Err(error) = result else {
            if state.phase == Phase::Closed {
                drop(state);
                self.stop_started(Some(Duration::ZERO), None, &mut || true);
                return Err(closed());
            }
            state.phase = Phase::Started;
            drop(state);
            return Ok(());
        };
        let grace = state.given_up.then_some(Duration::ZERO);
        drop(state);
        self.stop_started(grace, None, &mut go_on);
        let mut state = shared.state();
        state.places.clear();
        if state.phase == Phase::Starting {
            state.phase = Phase::New;
        }
        Err(error)
    }

    /// Until all are ready, one has failed, or the start is to be given up.
    fn watch(&self, members: &[(String, Member)], deadline: Option<Instant>, go_on: &mut impl FnMut() -> bool) {
        let shared = &*self.shared;
        let mut state = shared.state();
        while state.failed.is_none() && !state.places.iter().all(|place| matches!(place, Place::Ready(_))) {
            // A member that is not ready in time says more about it.
            let unready = state.places.iter().any(|place| matches!(place, Place::Starts | Place::Unready(_)));
            let patience = if unready { SHORT } else { Duration::ZERO };
            let failed = if state.phase == Phase::Closed {
                state.given_up = true;
                Some(closed())
            } else if deadline.is_some_and(|at| Instant::now() >= at + patience) {
                Some(late(members, &state.places))
            } else {
                drop(state);
                let go_on = go_on();
                state = shared.state();
                state.given_up |= !go_on;
                let error = Error::new(ErrorKind::Closed, "the start of the group was given up");
                (!go_on).then(|| error.with_errno(libc::ECANCELED))
            };
            if failed.is_some() {
                state.failed = state.failed.take().or(failed);
                shared.changed.notify_all();
                return;
            }
            let left = deadline.map_or(SLICE, |at| at.saturating_duration_since(Instant::now()).min(SLICE));
            let left = left.max(Duration::from_millis(1));
            state = shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Those that have started, in the order of the starts, by levels.
    fn started(&self) -> Vec<Vec<Container>> {
        let state = self.shared.state();
        let Ok(levels) = needs(&state.members).and_then(|needs| levels(&state.members, &needs)) else {
            return Vec::new();
        };
        let mut order = vec![Vec::new(); levels.iter().max().map_or(0, |most| most + 1)];
        for (place, level) in state.places.iter().zip(levels) {
            order[level].extend(place.container().cloned());
        }
        order
    }

    /// In reverse order; `grace`: instead of each one's own. When the answer of `go_on` is no, what is left is killed. The first error.
    fn stop_started(
        &self,
        grace: Option<Duration>,
        deadline: Option<Instant>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Option<Error> {
        let mut result = None;
        let mut patient = true;
        for level in self.started().into_iter().rev() {
            let asked: Vec<(&Container, Instant)> = level
                .iter()
                .map(|container| {
                    let spec = container.spec();
                    let _ = container.signal(spec.stop_signal.unwrap_or(Spec::STOP_SIGNAL));
                    let own = grace.or(spec.stop_timeout).unwrap_or(Spec::STOP_TIMEOUT);
                    let until = Instant::now().checked_add(own).or(deadline).unwrap_or_else(Instant::now);
                    (container, deadline.map_or(until, |at| until.min(at)))
                })
                .collect();
            for (container, until) in asked {
                loop {
                    let left = until.saturating_duration_since(Instant::now());
                    // What somebody closed meanwhile has ended.
                    if !patient || left.is_zero() || container.wait_end(Some(left.min(SLICE))).unwrap_or(true) {
                        break;
                    }
                    patient = go_on();
                }
                let patience = deadline.map(|at| at.saturating_duration_since(Instant::now()).max(SHORT));
                if let Err(error) = container.close(patience) {
                    result.get_or_insert(error);
                }
            }
        }
        result
    }

    /// The container of a member, another handle of it: to drop it ends nothing.
    ///
    /// # Errors
    /// NotFound (`name`) for a name that the group does not have; Closed when it has not started.
    pub fn container(&self, name: &str) -> Result<Container> {
        self.shared.owner.check()?;
        let state = self.shared.state();
        let Some(index) = state.members.iter().position(|(member, _)| member == name) else {
            let known: Vec<&str> = state.members.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::new(ErrorKind::NotFound, format!("the group has no member {name:?}"))
                .with_field("name")
                .with_errno(libc::ENOENT)
                .with_hint(format!("it has {}", known.join(", "))));
        };
        match state.places.get(index) {
            Some(Place::Ready(container)) if state.phase == Phase::Started => Ok(container.clone()),
            _ => Err(Error::new(ErrorKind::Closed, "the group has not started").with_context(of(name))),
        }
    }

    /// Whether it was started and not closed.
    pub fn is_started(&self) -> bool {
        self.shared.owner.check().is_ok() && self.shared.state().phase == Phase::Started
    }

    fn running(&self) -> Result<Vec<(String, Container)>> {
        self.shared.owner.check()?;
        let state = self.shared.state();
        match state.phase {
            Phase::Started => {}
            Phase::Closed => return Err(closed()),
            _ => return Err(Error::new(ErrorKind::Closed, "the group has not started")),
        }
        let both = state.members.iter().zip(&state.places);
        Ok(both.filter_map(|((name, _), place)| Some((name.clone(), place.container()?.clone()))).collect())
    }

    /// Waits until all have ended. `Ok(false)`: the time passed first.
    ///
    /// # Errors
    /// Closed.
    pub fn wait_end(&self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        for (_, container) in self.running()? {
            if !container.wait_end(deadline.map(|at| at.saturating_duration_since(Instant::now())))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until one has ended: its name, the first in the order in which they were added when there are several. `None`: the time
    /// passed first.
    ///
    /// # Errors
    /// Closed.
    pub fn wait_any(&self, timeout: Option<Duration>) -> Result<Option<String>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let members = self.running()?;
        loop {
            for (name, container) in &members {
                if container.wait_end(Some(Duration::ZERO))? {
                    return Ok(Some(name.clone()));
                }
            }
            // Descriptors speak before the end; and a close by another thread is seen by a look.
            let slice = deadline.map_or(SLICE * 5, |at| at.saturating_duration_since(Instant::now()).min(SLICE * 5));
            if slice.is_zero() {
                return Ok(None);
            }
            let mut fds: Vec<PollFd<'_>> =
                members.iter().map(|(_, container)| PollFd::new(container.events_fd(), PollFlags::POLLIN)).collect();
            let millis = PollTimeout::try_from(slice + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, millis) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::os("poll", errno as i32)),
            }
        }
    }

    /// SIGKILL to every process of all of them. Does not wait; the group stays to be closed.
    pub fn kill(&self) -> Result<()> {
        for (_, container) in self.running()? {
            match container.kill() {
                Err(error) if error.kind() != ErrorKind::Closed => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Stops them in reverse order: those that nobody else needs get their `stop_signal`, and SIGKILL after their `stop_timeout`; when
    /// they have ended, those that they needed, and so on. Closes them and the group; calls on other threads fail with Closed.
    /// `timeout` bounds the waits for all of it: when it is over, what is left is killed. Closing it again is fine.
    ///
    /// # Errors
    /// As [`Container::close`]: the first; all are closed nevertheless.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        self.close_while(timeout, || true)
    }

    /// As [`close`](Self::close), and asks several times a second, on this thread, whether to go on waiting: if not, what is left is
    /// killed.
    pub fn close_while(&self, timeout: Option<Duration>, mut go_on: impl FnMut() -> bool) -> Result<()> {
        self.shared.owner.check()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let before = {
            let mut state = self.shared.state();
            let before = std::mem::replace(&mut state.phase, Phase::Closed);
            state.busy |= before == Phase::Started;
            before
        };
        self.shared.changed.notify_all();
        if before != Phase::Started {
            // A start that is under way undoes itself, and another close does what this one would.
            return self.wait_idle(deadline, &mut go_on);
        }
        let _busy = Busy(&self.shared);
        self.stop_started(None, deadline, &mut go_on).map_or(Ok(()), Err)
    }
}

impl Group {
    /// Until nobody starts or ends members any more.
    fn wait_idle(&self, deadline: Option<Instant>, go_on: &mut impl FnMut() -> bool) -> Result<()> {
        let shared = &*self.shared;
        let mut state = shared.state();
        while state.busy {
            drop(state);
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late || !go_on() {
                let error = Error::new(ErrorKind::TimedOut, "another thread still ends the group's containers");
                return Err(error.with_errno(libc::ETIMEDOUT));
            }
            state = shared.state();
            if state.busy {
                state = shared.changed.wait_timeout(state, SLICE).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        Ok(())
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl Phase {
    fn check_new(self) -> Result<()> {
        match self {
            Self::New => Ok(()),
            Self::Closed => Err(closed()),
            Self::Starting | Self::Started => {
                Err(Error::new(ErrorKind::InvalidArgument, "the group has started").with_errno(libc::EBUSY))
            }
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the group was closed").with_errno(libc::ESRCH)
}

/// Which are not ready, and why.
fn late(members: &[(String, Member)], places: &[Place]) -> Error {
    let mut told = Vec::new();
    for ((name, member), place) in members.iter().zip(places) {
        match place {
            Place::Waits => told.push(format!("{name:?} waits for {}", member.after.join(", "))),
            Place::Starts => told.push(format!("{name:?} is being started")),
            Place::Unready(_) => told.push(format!("{name:?} has started")),
            Place::Ready(_) => {}
        }
    }
    Error::new(ErrorKind::TimedOut, format!("not all are ready: {}", told.join("; ")))
        .with_context("start group")
        .with_errno(libc::ETIMEDOUT)
}
