//! Changes of a running container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde_json::{Value, json};

use super::nodes::{self, Nodes};
use super::own_group::{check_nested_rates, time_counter};
use super::parameters::{self, Before};
use super::{Container, Inner, lock};
use crate::cgroup::{Group, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Times;
use crate::proto::request;
use crate::spec::{Capabilities, Spec, fields};
use crate::state::names;

/// The fields that can change while a container runs.
pub(super) const LIVE: [&str; 30] = [
    "memory",
    "memory_high",
    "memory_low",
    "memory_min",
    "oom_group",
    "swap",
    "cpus",
    "cpu_burst",
    "cpu_idle",
    "cpu_weight",
    "cpu_rt_runtime",
    "cpu_rt_period",
    "cpuset",
    "pids",
    "io_weight",
    "io_max",
    "hugepages",
    "rdma",
    "misc",
    "devices",
    "device_rules",
    "disk",
    "inodes",
    "quota",
    "ptys",
    "sysctls",
    "shm_size",
    "wall_time",
    "cpu_time",
    "annotations",
];

/// Those that are no limits of a control group.
pub(super) const OF_THE_CONTAINER: [&str; 10] =
    ["devices", "disk", "inodes", "quota", "ptys", "sysctls", "shm_size", "wall_time", "cpu_time", "annotations"];

/// How the parts of an update that are done are taken back, in the order in which they were done.
#[derive(Default)]
pub(super) struct Undo<'a>(Vec<(&'static str, Step<'a>)>);

type Step<'a> = Box<dyn FnOnce() -> Result<()> + 'a>;

impl<'a> Undo<'a> {
    pub fn note(&mut self, part: &'static str, back: impl FnOnce() -> Result<()> + 'a) {
        self.0.push((part, Box::new(back)));
    }

    /// The last first. The error is why; it tells too what could not be taken back.
    pub fn run(self, error: Error) -> Error {
        let mut left = Vec::new();
        for (part, back) in self.0.into_iter().rev() {
            match back() {
                Err(why) if why.kind() != ErrorKind::Closed => {
                    left.push(format!("{part} could not be put back: {why}"))
                }
                _ => {}
            }
        }
        if left.is_empty() {
            return error;
        }
        let hint = error.hint().map(str::to_owned).into_iter().chain(left).collect::<Vec<_>>().join("; ");
        error.with_hint(hint)
    }
}

/// An update that is done, and not recorded yet.
struct Changed<'a> {
    spec: Spec,
    before: Before,
    nodes: Nodes,
    undo: Undo<'a>,
}

/// Capabilities that commands were given, or were to be given (some did not start): a limit that one of them passes cannot be kept
/// any more.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// Those of `Spec::LIMIT_PASSING`.
    capabilities: u64,
    /// What an update that is under way makes of the spec.
    to_come: Option<Spec>,
}

/// The key of a detached container's record that has their names.
const LENT: &str = "lent";

impl Granted {
    pub fn recorded(data: &Value) -> Self {
        let names = data[LENT].as_array().into_iter().flatten().filter_map(Value::as_str);
        let numbers = names.filter_map(Capabilities::number);
        Self { capabilities: numbers.fold(0, |set, number| set | 1 << number), to_come: None }
    }

    /// What the record says was lent by any program.
    fn learn(&mut self, data: &Value) {
        self.capabilities |= Self::recorded(data).capabilities;
    }

    /// Refuses limits that do not hold any more; commands are refused what would pass them from now on.
    fn allow(&mut self, new: &Spec) -> Result<()> {
        if let Some((field, why)) = new.passes_limits(self.capabilities) {
            return Err(Error::spec(field, format!("a command inside was given what passes it: {why}"))
                .with_hint("give the limit at the start, or before the command"));
        }
        self.to_come = Some(new.clone());
        Ok(())
    }
}

impl Inner {
    /// Before a command gets capabilities of its own: refuses those that pass a limit, and remembers those that could pass one
    /// that comes later.
    pub(super) fn grant(&self, capabilities: &Capabilities) -> Result<()> {
        if let Some(pod) = &self.pod {
            pod.holder.grant(capabilities)?;
        }
        let passing = capabilities.all() & Spec::LIMIT_PASSING;
        let refuse = |spec: &Spec| match spec.passes_limits(passing) {
            Some((field, why)) => {
                Err(Error::spec("capabilities", why).with_hint(format!("the container, or its pod, has {field}")))
            }
            None => Ok(()),
        };
        {
            let mut granted = lock(&self.granted);
            refuse(&lock(&self.spec_now))?;
            granted.to_come.iter().try_for_each(refuse)?;
            if passing & !granted.capabilities == 0 {
                return Ok(());
            }
            if !self.spec.detach {
                granted.capabilities |= passing;
                return Ok(());
            }
        }
        // Another program may have set a limit, and has to hear of this. Whoever updates takes its turn before `granted`.
        let name = self.spec.name.as_deref().unwrap_or_default();
        let record = |data: &mut Value| {
            refuse(&Spec::from_json(&data["spec"].to_string())?)?;
            let mut granted = lock(&self.granted);
            granted.learn(data);
            data[LENT] = Capabilities::names(granted.capabilities | passing).collect();
            Ok(())
        };
        names::change_record(name, &self.id, record, |(), error| error)?;
        // Only now: what is known here is not recorded again.
        lock(&self.granted).capabilities |= passing;
        Ok(())
    }

    fn set_times(&self, times: Times, stat: &[BorrowedFd<'_>]) -> Result<()> {
        match self.keeper.send_limited(request::TIMES, self.key, 0, 0, 0, times, stat)? {
            true => Ok(()),
            false => Err(self.keeper_is_gone()),
        }
    }
}

/// What `change` makes of a copy.
pub(super) fn layer(now: &Spec, change: impl FnOnce(&mut Spec) -> Result<()>) -> Result<Spec> {
    let mut new = now.clone();
    change(&mut new)?;
    Ok(new)
}

impl Container {
    /// Changes limits while it runs: `change` gets the spec as it is now, and what it makes of it holds from then on. `None`, or an
    /// empty map, takes a limit away.
    ///
    /// All of it or nothing: when one limit is refused, or a detached container's record cannot be written, the others get back
    /// what they were; the error tells what could not be put back (an image that has grown stays so large). May be called from
    /// any thread; concurrent calls take turns, so `change` itself must not update the container. Until it is done, `spec` gives
    /// the former spec, and nothing else waits for it. Detached containers can be changed by every program of their user.
    ///
    /// Frozen containers can be changed too. A parameter that is taken out of `sysctls` gets the value back that it had before the
    /// spec, or an update, first set it.
    ///
    /// ```no_run
    /// # fn main() -> ringfence::Result<()> {
    /// let c = ringfence::Container::start(&ringfence::Spec::new().memory(256 << 20).cpus(0.5))?;
    /// c.update(|spec| {
    ///     spec.memory = Some(512 << 20);
    ///     spec.cpus = None;
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// InvalidSpec with the field for values that can never work and for fields that are fixed at the start, for `disk`, `inodes`,
    /// `quota` or `shm_size` when a command was given a capability that passes such a limit, and for a parameter of which is not
    /// known what it was; Unsupported for what this machine cannot do; EBUSY with field `memory`, `disk`, `inodes`, `shm_size` or
    /// `ptys` when more is used than the new limit (and cannot be reclaimed); Closed when the container has ended.
    pub fn update(&self, change: impl FnOnce(&mut Spec)) -> Result<()> {
        self.change(|spec| {
            change(spec);
            Ok(())
        })
    }

    /// As [`update`](Self::update), with JSON that is layered over the spec as [`Spec::merge_json`] does; null takes a limit away.
    pub fn update_json(&self, json: &str) -> Result<()> {
        self.change(|spec| spec.merge_json(json))
    }

    /// The spec as it is now: what it was started with, and what updates made of it.
    pub fn spec(&self) -> Spec {
        lock(&self.inner().spec_now).clone()
    }

    /// Asks the kernel to take back up to `bytes` of memory: page cache, and what can be swapped out. `Ok(false)`: it found less.
    ///
    /// # Errors
    /// Unsupported on cgroup v1, and before Linux 5.19. Source: the kernel's admin-guide/cgroup-v2, memory.reclaim.
    pub fn reclaim(&self, bytes: u64) -> Result<bool> {
        self.control_group()?.reclaim(bytes)
    }

    /// The container's group; the error when there is none names a limit of `limits`.
    pub(super) fn group_of(&self, limits: &Spec) -> Result<&Group> {
        let limit = |field: &&str| LIVE.contains(field) && !OF_THE_CONTAINER.contains(field);
        let field = fields::differences(&Spec::default(), limits).into_iter().find(limit);
        self.control_group().map_err(|e| e.with_field(field.unwrap_or("cgroup")))
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Spec) -> Result<()>) -> Result<()> {
        let inner = self.open()?;
        let context = |e: Error| match inner.spec.name.as_deref() {
            Some(name) => e.with_context(format!("update container {name:?}")),
            None => e.with_context("update container"),
        };
        // Whoever reads the spec meanwhile gets the former one.
        let _one_at_a_time = lock(&inner.updating);
        let now = self.spec();
        let changed = match inner.spec.name.as_deref().filter(|_| inner.spec.detach) {
            // Other programs may have changed it since.
            Some(name) => names::change_record(
                name,
                &inner.id,
                |data| {
                    let recorded = Spec::from_json(&data["spec"].to_string())?;
                    let recorded = Spec { name: now.name.clone(), detach: true, ..recorded };
                    lock(&inner.granted).learn(data);
                    let kept = (parameters::recorded(data), Nodes::recorded(data));
                    let changed = self.changed(inner, &recorded, kept, change)?;
                    data["spec"] = serde_json::from_str(&changed.spec.to_json()).unwrap_or(Value::Null);
                    data[parameters::BEFORE] = json!(changed.before);
                    data[nodes::NODES] = changed.nodes.describe();
                    if let Some(group) = &inner.group {
                        data["cgroup"] = group.describe();
                    }
                    Ok(changed)
                },
                |changed, error| changed.undo.run(error),
            ),
            None => {
                let kept = (lock(&inner.before).clone(), lock(&inner.nodes).clone());
                self.changed(inner, &now, kept, change)
            }
        };
        let done = changed.map(|Changed { spec, before, nodes, .. }| {
            *lock(&inner.spec_now) = spec;
            *lock(&inner.before) = before;
            *lock(&inner.nodes) = nodes;
        });
        lock(&inner.granted).to_come = None;
        done.map_err(context)
    }

    fn changed<'a>(
        &'a self,
        inner: &'a Inner,
        now: &Spec,
        (before, nodes): (Before, Nodes),
        change: impl FnOnce(&mut Spec) -> Result<()>,
    ) -> Result<Changed<'a>> {
        let mut new = layer(now, change)?;
        inner.keep_backend(now, &mut new)?;
        new.validate_running()?;
        check_nested_rates(&new)?;
        if now.shm_size != new.shm_size && inner.pod.as_ref().is_some_and(|pod| pod.shares_memory(now)) {
            return Err(Error::spec("shm_size", "is the pod's").with_hint("update the pod"));
        }
        if let Some(fixed) = fields::differences(now, &new).into_iter().find(|field| !LIVE.contains(field)) {
            return Err(Error::spec(fixed, "is fixed at the start")
                .with_hint(format!("what can change while running: {}", LIVE.join(", "))));
        }
        let ended = || Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH);
        if inner.has_ended() {
            return Err(ended());
        }
        lock(&inner.granted).allow(&new)?;
        let mut changed = Changed { spec: new, before, nodes, undo: Undo::default() };
        match self.apply(inner, now, &mut changed) {
            Ok(()) => Ok(changed),
            // Parts of it may have gone while they were being changed.
            Err(_) if inner.has_ended() => Err(ended()),
            Err(error) => Err(changed.undo.run(error)),
        }
    }

    /// One part after the other; the size of an image, which cannot be taken back, late.
    fn apply<'a>(&'a self, inner: &'a Inner, now: &Spec, changed: &mut Changed<'a>) -> Result<()> {
        let Changed { spec: new, before, nodes, undo } = changed;
        let stat = self.time_counter(new)?;
        let (old_limits, limits) = (Limits::of(now), Limits::of(new));
        if old_limits != limits {
            let group = self.group_of(new)?;
            if let Some(above) = inner.pod.as_ref().and_then(|pod| pod.holder.group.as_ref()) {
                above.provide_for(group, &limits)?;
            }
            group.update(&old_limits, &limits)?;
            let (now, new) = (now.clone(), new.clone());
            undo.note("limits of the control group", move || {
                // What this was made from held a moment ago.
                self.group_of(&now).or_else(|_| self.group_of(&new))?.update(&limits, &old_limits)
            });
        }
        inner.change_devices(now, new, nodes, undo)?;
        inner.change_parameters(now, new, before, undo)?;
        if now.disk != new.disk || now.inodes != new.inodes || now.quota != new.quota {
            inner.change_disk(now, new)?;
            let (now, new) = (now.clone(), new.clone());
            undo.note("disk", move || inner.take_disk_back(&now, &new));
        }
        let times = |spec: &Spec| Times { wall: spec.wall_time, cpu: spec.cpu_time };
        let former = times(now);
        if times(new) != former {
            let stat: Vec<_> = stat.iter().map(AsFd::as_fd).collect();
            inner.set_times(times(new), &stat)?;
            // The keeper has kept the counter of processor time.
            undo.note("wall_time and cpu_time", move || inner.set_times(former, &[]));
        }
        Ok(())
    }

    /// What the keeper reads the processor time from, when that is limited.
    fn time_counter(&self, spec: &Spec) -> Result<Option<OwnedFd>> {
        match spec.cpu_time {
            None => Ok(None),
            Some(_) => time_counter(self.inner().group.as_ref()).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LIVE;

    /// `annotations` limit nothing.
    #[test]
    fn every_limit_has_a_row_in_the_page_on_resources() {
        let page = include_str!("../resources.md");
        let mut rows = page.lines().take_while(|line| !line.starts_with("# "));
        let rows: Vec<Vec<&str>> = rows.by_ref().map(|line| line.split('|').map(str::trim).collect()).collect();
        for field in LIVE.iter().filter(|field| **field != "annotations") {
            let name = format!("`{field}`");
            let row = rows.iter().find(|row| row.get(1) == Some(&&*name));
            let row = row.unwrap_or_else(|| panic!("{field} has no row"));
            assert!(row.len() == 8 && row[2..7].iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
    }
}
