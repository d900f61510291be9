//! Groups of processes inside a container, with limits of their own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::update::{LIVE, OF_THE_CONTAINER, Undo, layer};
use super::{Container, Inner, ended, lock};
use crate::cgroup::{Group, Limits, SUB_PAYLOAD, SUB_RELAY, Usage};
use crate::command::Command;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::{Spec, fields, name_syntax};
use crate::state::names;

/// What handles of one group share.
#[derive(Debug)]
pub(crate) struct Sub {
    pub group: Group,
    /// Its limits, as a spec that has nothing else.
    pub(super) limits: Mutex<Spec>,
    /// Held during an update: one at a time.
    updating: Mutex<()>,
}

impl Sub {
    fn new(group: Group, limits: Spec) -> Arc<Self> {
        Arc::new(Self { group, limits: Mutex::new(limits), updating: Mutex::default() })
    }
}

pub(super) type Subs = Mutex<BTreeMap<String, Arc<Sub>>>;

/// Some processes of a container, in a control group inside the container's: the second of two levels. Its limits hold within
/// those of the container, its weights count against the container's other groups.
///
/// Processes are started in it with [`command`](Self::command), or with a command's `cgroup` field. It is removed by
/// [`remove`](Self::remove) or with the container. Every method may be called from any thread. On cgroup v2 the container's
/// other processes move into a group `payload` beside it when the first one is made, because the kernel gives controllers to
/// the groups inside only when no process is beside them. (With published ports both are in another `payload`, beside `relay`.)
#[derive(Clone, Debug)]
pub struct ControlGroup {
    container: Container,
    name: String,
    sub: Arc<Sub>,
}

impl Container {
    /// Makes a group inside, with the limits of `limits`, of which only the fields that can change while running may be set.
    ///
    /// # Errors
    /// AlreadyExists; InvalidSpec for other fields and for names that are none (1 to 64 letters, digits, `_`, `.` and `-`, not
    /// `payload` or `relay`); Unsupported for what this machine cannot do, and when the container has no control group.
    pub fn group(&self, name: &str, limits: &Spec) -> Result<ControlGroup> {
        let inner = self.open()?;
        let context = |e: Error| e.with_context(format!("make group {name:?}"));
        let sub = make(inner, self, name, limits).map_err(context)?;
        Ok(ControlGroup { container: self.clone(), name: name.to_owned(), sub })
    }

    /// The group of that name, which [`group`](Self::group) made, here or (in a detached container) in another program.
    ///
    /// # Errors
    /// NotFound.
    pub fn find_group(&self, name: &str) -> Result<ControlGroup> {
        let sub = self.open()?.sub(name)?;
        Ok(ControlGroup { container: self.clone(), name: name.to_owned(), sub })
    }
}

fn make(inner: &Inner, container: &Container, name: &str, limits: &Spec) -> Result<Arc<Sub>> {
    let wrong = |why: String| Error::new(ErrorKind::InvalidArgument, why).with_field("name");
    name_syntax(name).map_err(wrong)?;
    if [SUB_PAYLOAD, SUB_RELAY].contains(&name) || name.starts_with("cgroup.") {
        return Err(wrong(format!("{name:?} is taken")));
    }
    check(limits)?;
    if inner.has_ended() {
        return Err(ended());
    }
    let mut subs = lock(&inner.subs);
    let group = container.group_of(limits)?.sub(name, &Limits::of(limits)).map_err(|e| match e.field() {
        None if e.kind() != ErrorKind::AlreadyExists => e.with_field("cgroup"),
        _ => e,
    })?;
    let sub = Sub::new(group, limits.clone());
    if let Err(error) = record(inner, name, Some(limits)) {
        let _ = sub.group.remove();
        return Err(error);
    }
    subs.insert(name.to_owned(), sub.clone());
    Ok(sub)
}

/// Only limits, and such as can work.
fn check(limits: &Spec) -> Result<()> {
    let set = fields::differences(&Spec::default(), limits);
    if let Some(other) = set
        .into_iter()
        .find(|field| !LIVE.contains(field) || OF_THE_CONTAINER.contains(field) || *field == "device_rules")
    {
        return Err(Error::spec(other, "belongs to the container, not to a group in it"));
    }
    limits.validate()
}

/// For other programs that take up a detached container.
fn record(inner: &Inner, name: &str, limits: Option<&Spec>) -> Result<()> {
    let Some(container) = inner.spec.name.as_deref().filter(|_| inner.spec.detach) else { return Ok(()) };
    let change = |data: &mut Value| {
        if !data["groups"].is_object() {
            data["groups"] = Value::Object(serde_json::Map::new());
        }
        let groups = data["groups"].as_object_mut().expect("just made");
        match limits {
            Some(limits) => {
                groups.insert(name.to_owned(), serde_json::from_str(&limits.to_json()).unwrap_or(Value::Null))
            }
            None => groups.remove(name),
        };
        Ok(())
    };
    names::change_record(container, &inner.id, change, |(), error| error)
}

fn recorded(inner: &Inner, name: &str) -> Option<Spec> {
    let container = inner.spec.name.as_deref().filter(|_| inner.spec.detach)?;
    let found = names::lookup(container).ok().filter(|found| found.data["id"] == inner.id.as_str())?;
    let limits = found.data["groups"].get(name)?;
    Spec::from_json(&limits.to_string()).ok()
}

impl Inner {
    /// What the groups inside count for themselves alone: on v1 the container's group does not count it.
    pub(super) fn oom_kills_inside(&self) -> u64 {
        match &self.group {
            Some(group) if !group.counts_what_is_inside() => {
                lock(&self.subs).values().filter_map(|sub| sub.group.oom_kills()).sum()
            }
            _ => 0,
        }
    }

    pub(super) fn sub(&self, name: &str) -> Result<Arc<Sub>> {
        let mut subs = lock(&self.subs);
        if let Some(sub) = subs.get(name) {
            return Ok(sub.clone());
        }
        let opened = || {
            name_syntax(name).ok()?;
            let limits = recorded(self, name)?;
            let group = self.group.as_ref()?.open_sub(name)?;
            Some(Sub::new(group, limits))
        };
        let sub = opened().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no group {name:?} in this container"))
                .with_field("cgroup")
                .with_errno(libc::ENOENT)
        })?;
        subs.insert(name.to_owned(), sub.clone());
        Ok(sub)
    }
}

impl ControlGroup {
    /// Its name in the container.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs in it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        Command { cgroup: Some(self.name.clone()), ..self.container.command(program) }
    }

    /// Its limits as they are now; other fields are at their defaults.
    pub fn limits(&self) -> Spec {
        lock(&self.sub.limits).clone()
    }

    /// Changes its limits, as [`Container::update`] does for the container's: all of it or nothing.
    pub fn update(&self, change: impl FnOnce(&mut Spec)) -> Result<()> {
        self.change(|limits| {
            change(limits);
            Ok(())
        })
    }

    /// As [`update`](Self::update), with JSON; null takes a limit away.
    pub fn update_json(&self, json: &str) -> Result<()> {
        self.change(|limits| limits.merge_json(json))
    }

    fn change(&self, change: impl FnOnce(&mut Spec) -> Result<()>) -> Result<()> {
        let inner = self.container.open()?;
        let context = |e: Error| e.with_context(format!("update group {:?}", self.name));
        let _one_at_a_time = lock(&self.sub.updating);
        // Other programs may have changed it since.
        let before = recorded(inner, &self.name).unwrap_or_else(|| self.limits());
        let new = layer(&before, change).map_err(context)?;
        check(&new).map_err(context)?;
        if inner.has_ended() {
            return Err(context(ended()));
        }
        // A controller has to be the container's before it can be the group's.
        let container = self.container.group_of(&new).map_err(context)?;
        container.provide_for(&self.sub.group, &Limits::of(&new)).map_err(context)?;
        let (old_limits, limits) = (Limits::of(&before), Limits::of(&new));
        self.sub.group.update(&old_limits, &limits).map_err(context)?;
        let mut undo = Undo::default();
        undo.note("limits of the group", || self.sub.group.update(&limits, &old_limits));
        record(inner, &self.name, Some(&new)).map_err(|error| context(undo.run(error)))?;
        *lock(&self.sub.limits) = new;
        Ok(())
    }

    /// What its processes use and used.
    pub fn usage(&self) -> Result<Usage> {
        self.container.open()?;
        self.sub.group.usage()
    }

    /// Stops every process in it until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        self.container.open()?;
        self.sub.group.freeze()
    }

    /// Undoes [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<()> {
        self.container.open()?;
        self.sub.group.thaw()
    }

    /// SIGKILL to every process in it, also while they fork; it can be used further. Waits up to 2 s for their end.
    pub fn kill(&self) -> Result<()> {
        self.container.open()?;
        self.sub.group.kill_members()
    }

    /// Removes it. The processes in it have to be gone (see [`kill`](Self::kill)); it waits up to 2 s for those that are just
    /// being killed.
    ///
    /// # Errors
    /// EBUSY while processes are in it; NotFound when it was removed before.
    pub fn remove(&self) -> Result<()> {
        let inner = self.container.open()?;
        let mut subs = lock(&inner.subs);
        if !subs.get(&self.name).is_some_and(|sub| Arc::ptr_eq(sub, &self.sub)) {
            return Err(
                Error::new(ErrorKind::NotFound, format!("group {:?} was removed", self.name)).with_errno(libc::ENOENT)
            );
        }
        self.sub.group.remove()?;
        subs.remove(&self.name);
        record(inner, &self.name, None)
    }
}
