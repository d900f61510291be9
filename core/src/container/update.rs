//! Changes of a running container.

use std::os::fd::{AsFd, OwnedFd};

use serde_json::Value;

use super::{Container, Inner, lock};
use crate::cgroup::{Group, Limits};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::Times;
use crate::proto::request;
use crate::spec::Spec;
use crate::spec::fields;
use crate::state::names;

/// The fields that can change while a container runs.
pub(super) const LIVE: [&str; 25] = [
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
    "disk",
    "inodes",
    "quota",
    "wall_time",
    "cpu_time",
    "annotations",
];

/// Those that are no limits of a control group.
pub(super) const OF_THE_CONTAINER: [&str; 6] = ["disk", "inodes", "quota", "wall_time", "cpu_time", "annotations"];

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
    /// All of it or nothing: when one limit is refused, the others get back what they were. May be called from any thread;
    /// concurrent calls take turns, and `change` itself must not ask the container for its spec. Detached containers can be changed by every program of their user.
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
    /// InvalidSpec with the field for values that can never work and for fields that are fixed at the start; Unsupported for
    /// what this machine cannot do; EBUSY with field `memory`, `disk` or `inodes` when more is used than the new limit (and cannot be
    /// reclaimed); Closed when the container has ended.
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

    fn change(&self, change: impl FnOnce(&mut Spec) -> Result<()>) -> Result<()> {
        let inner = self.open()?;
        let context = |e: Error| match inner.spec.name.as_deref() {
            Some(name) => e.with_context(format!("update container {name:?}")),
            None => e.with_context("update container"),
        };
        let mut now = lock(&inner.spec_now);
        let changed = match inner.spec.name.as_deref().filter(|_| inner.spec.detach) {
            // Other programs may have changed it since.
            Some(name) => names::change_record(name, &inner.id, |data| {
                let text = data["spec"].to_string();
                let recorded = Spec::from_json(&text)?;
                let recorded = Spec { name: now.name.clone(), detach: true, ..recorded };
                let new = self.changed(inner, &recorded, change)?;
                data["spec"] = serde_json::from_str(&new.to_json()).unwrap_or(Value::Null);
                if let Some(group) = &inner.group {
                    data["cgroup"] = group.describe();
                }
                Ok(new)
            }),
            None => self.changed(inner, &now, change),
        };
        *now = changed.map_err(context)?;
        Ok(())
    }

    fn changed(&self, inner: &Inner, now: &Spec, change: impl FnOnce(&mut Spec) -> Result<()>) -> Result<Spec> {
        let mut new = layer(now, change)?;
        inner.keep_backend(now, &mut new)?;
        new.validate()?;
        if let Some(fixed) = fields::differences(now, &new).into_iter().find(|field| !LIVE.contains(field)) {
            return Err(Error::spec(fixed, "is fixed at the start")
                .with_hint(format!("what can change while running: {}", LIVE.join(", "))));
        }
        let ended = || Error::new(ErrorKind::Closed, "the container has ended").with_errno(libc::ESRCH);
        if inner.has_ended() {
            return Err(ended());
        }
        let stat = self.time_counter(&new)?;
        let (before, after) = (Limits::of(now), Limits::of(&new));
        if before != after {
            self.group_of(&new)?.update(&before, &after).map_err(|e| match e.errno() {
                // The group went while it was being changed.
                libc::ENODEV | libc::ENOENT if inner.has_ended() => ended(),
                _ => e,
            })?;
        }
        if let Err(error) = inner.change_disk(now, &new) {
            if before != after {
                // What this was made from held a moment ago.
                let _ = self.group_of(now).or_else(|_| self.group_of(&new))?.update(&after, &before);
            }
            return Err(if inner.has_ended() { ended() } else { error });
        }
        let times = Times { wall: new.wall_time, cpu: new.cpu_time };
        if times != (Times { wall: now.wall_time, cpu: now.cpu_time }) {
            let stat: Vec<_> = stat.iter().map(AsFd::as_fd).collect();
            if !inner.keeper.send_limited(request::TIMES, inner.key, 0, 0, times, &stat)? {
                return Err(inner.keeper_is_gone());
            }
        }
        Ok(new)
    }

    /// What the keeper reads the processor time from, when that is limited.
    fn time_counter(&self, spec: &Spec) -> Result<Option<OwnedFd>> {
        match spec.cpu_time {
            None => Ok(None),
            Some(_) => super::time_counter(self.inner().group.as_ref()).map(Some),
        }
    }
}
