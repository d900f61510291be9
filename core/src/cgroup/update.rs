//! Changes of a group that is in use.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::layout::{self, Controller};
use super::limits::{Limits, memory_in_kernel};
use super::parent::Parent;
use super::settings::{self, Place, Setting, Step};
use super::usage::Reader;
use super::{Group, V1Part, V2Part, failed_at, file, freezer, has, lock, sub};
use crate::error::{Error, ErrorKind, Result};

/// How long processes that fork may keep a new group from having all of them.
const GATHER_TIMEOUT: Duration = Duration::from_secs(2);

impl Group {
    /// Goes from the limits `old` to `new`: all of it, or nothing and an error that names the field.
    ///
    /// One change at a time: the caller serialises them.
    pub fn update(&self, old: &Limits, new: &Limits) -> Result<()> {
        let (before, after) = (old.settings_after(old)?, new.settings_after(old)?);
        let changed: Vec<&Setting> = after.iter().filter(|setting| !before.contains(setting)).collect();
        let gone: Vec<&Setting> = before.iter().filter(|s| !after.iter().any(|a| a.field == s.field)).collect();
        for setting in &changed {
            self.provide(setting)?;
        }
        if let Some(v2) = &self.v2 {
            new.set_apart(&v2.parent);
        }
        let v1 = self.v1();
        for part in v1.iter().filter(|part| has(&part.parent, Controller::Cpu.name())) {
            new.lend_real_time(&part.parent, &self.name)?;
        }
        let place = |setting: &Setting| Place::of(setting, &v1, self.v2.as_ref(), &self.name);
        let (mut changed_at, mut gone_at) = (Vec::new(), Vec::new());
        for setting in changed {
            changed_at.push((setting, place(setting).ok_or_else(|| nowhere(setting))?));
        }
        for setting in gone {
            gone_at.extend(place(setting).map(|place| (setting, place)));
        }

        let mut steps: Vec<Step<'_>> = Vec::new();
        for (setting, place) in &gone_at {
            // The other way round than they were set: a partition ends before it loses its processors.
            steps.extend(place.writes(setting).iter().rev().flat_map(|w| place.steps(setting.field, &w.taken_away())));
        }
        for (setting, place) in &changed_at {
            // Lines of devices that are not named any more, and files that a limit of another form had.
            let now = place.writes(setting);
            let former = before.iter().find(|b| b.field == setting.field).map_or(&[][..], |b| place.writes(b));
            let left = former.iter().filter(|f| !now.iter().any(|n| n.file == f.file && n.line == f.line));
            steps.extend(left.flat_map(|write| place.steps(setting.field, &write.taken_away())));
            steps.extend(now.iter().flat_map(|write| place.steps(setting.field, write)));
        }
        if let Some(bytes) = new.memory.filter(|_| new.memory != old.memory) {
            self.make_room(bytes)?;
        }
        settings::apply(&steps, true)?;
        lock(&self.reader).look_again();
        *lock(&self.limits) = Some(new.clone());
        Ok(())
    }

    /// Sees to it that there is a group with the controller.
    pub(super) fn provide(&self, setting: &Setting) -> Result<()> {
        let controller = setting.controller;
        let field = |e: Error| e.with_field(setting.field);
        let on_v1 = controller.name_on(false);
        if setting.only_v1.is_some() && layout::current()?.home(controller).is_some_and(|h| h.v2) {
            return Err(super::v2_cannot(setting));
        }
        if self.v1().iter().any(|part| has(&part.parent, on_v1)) {
            return setting.v1.as_ref().map(drop).map_err(|why| super::v1_cannot(setting.field, why));
        }
        if let Some(spare) = self.spare.iter().find(|parent| has(parent, on_v1)) {
            setting.v1.as_ref().map_err(|why| super::v1_cannot(setting.field, why))?;
            return self.join_late(spare).map_err(field);
        }
        let Some(V2Part { parent, dir, inner }) = &self.v2 else { return Err(nowhere(setting)) };
        let given = file::read(dir, "cgroup.controllers").map_err(|e| field(self.failed("read", e, parent)))?;
        if !given.split_whitespace().any(|name| name == controller.name()) {
            if !layout::current()?.home(controller).is_some_and(|h| h.v2) {
                return Err(nowhere(setting));
            }
            parent.enable(controller).map_err(field)?;
        }
        if inner.is_some() && setting.is_for_payload() {
            sub::pass(dir, &parent.path.join(&self.name), &[controller.name()]).map_err(field)?;
        }
        Ok(())
    }

    /// Makes a group in one more hierarchy and moves every process into it.
    ///
    /// Inside, the hierarchy's path in /proc/self/cgroup is not `/` then, because the cgroup namespace is older.
    pub(super) fn join_late(&self, parent: &Arc<Parent>) -> Result<()> {
        let _nobody_joins = self.joining.write().unwrap_or_else(PoisonError::into_inner);
        let part = V1Part::make(parent.clone(), &self.name)?;
        let path = parent.path.join(&self.name);
        match self.gather(&part) {
            Ok(()) => {
                let old = self.v1();
                let reopened = |part: &V1Part| V1Part::open(part.parent.clone(), &self.name);
                let mut all = old.iter().map(reopened).collect::<Result<Vec<_>>>()?;
                all.push(part);
                *lock(&self.reader) = Reader::new(&all, self.v2.as_ref());
                *lock(&self.v1) = Arc::new(all);
                Ok(())
            }
            Err(e) => {
                self.scatter(&part);
                let _ = nix::unistd::unlinkat(&parent.dir, &*self.name, nix::unistd::UnlinkatFlags::RemoveDir);
                let error = failed_at("move the processes into", e, &path);
                Err(match e {
                    Errno::EACCES | Errno::EPERM => error.with_hint(
                        "on cgroup v1 only root may move another user's processes: give the limit at the start",
                    ),
                    Errno::EINVAL if has(parent, Controller::Cpu.name()) => error.with_hint(
                        "a real-time process cannot come into a group without a budget: give cpu_rt_runtime at the start",
                    ),
                    _ => error,
                })
            }
        }
    }

    /// Every process of the container, by the groups that it has already: without what serves ports, which is in some of v1.
    pub fn members(&self) -> Result<Vec<i32>, Errno> {
        let v1 = self.v1();
        match (&self.v2, freezer(&v1).or(v1.first().map(|part| &part.parent))) {
            (Some(V2Part { dir, inner: Some(_), .. }), _) => file::pids(dir.as_fd(), OsStr::new(sub::PAYLOAD)),
            (Some(V2Part { parent, .. }), _) | (None, Some(parent)) => {
                file::pids(parent.dir.as_fd(), OsStr::new(&self.name))
            }
            (None, None) => Ok(Vec::new()),
        }
    }

    fn gather(&self, part: &V1Part) -> Result<(), Errno> {
        let procs = format!("{}/cgroup.procs", self.name);
        let deadline = Instant::now() + GATHER_TIMEOUT;
        loop {
            // A child is born where its parent is at that moment, so that a round that finds nobody outside was the last.
            let inside: BTreeSet<i32> =
                file::pids(part.parent.dir.as_fd(), OsStr::new(&self.name))?.into_iter().collect();
            let outside: Vec<i32> = self.members()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match file::write(&part.parent.dir, &procs, &pid.to_string()) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => return Err(e),
                }
            }
            if Instant::now() >= deadline {
                return Err(Errno::EBUSY);
            }
        }
    }

    /// Back to the group above, so that the new one can be removed.
    fn scatter(&self, part: &V1Part) {
        for pid in file::pids(part.parent.dir.as_fd(), OsStr::new(&self.name)).unwrap_or_default() {
            let _ = file::write(&part.parent.dir, "cgroup.procs", &pid.to_string());
        }
    }

    /// On v2 a limit below what is used kills. What can be reclaimed is, and the rest is an error before anything is changed.
    /// (v1 refuses such a limit itself.)
    fn make_room(&self, bytes: u64) -> Result<()> {
        let Some(V2Part { parent, dir, .. }) =
            self.v2.as_ref().filter(|_| !self.v1().iter().any(|p| has(&p.parent, "memory")))
        else {
            return Ok(());
        };
        let used = || file::read(dir, "memory.current").ok().and_then(|text| file::number(&text)).unwrap_or(0);
        let kept = memory_in_kernel("memory", bytes)?;
        for _ in 0..5 {
            let over = used().saturating_sub(kept);
            if over == 0 {
                return Ok(());
            }
            // EAGAIN: less was reclaimed than asked. ENOENT: before Linux 5.19.
            let _ = file::write(dir, "memory.reclaim", &over.to_string());
        }
        let used = used();
        if used <= kept {
            return Ok(());
        }
        Err(Error::os("reclaim memory of", libc::EBUSY)
            .with_field("memory")
            .with_path(parent.path.join(&self.name).to_string_lossy())
            .with_detail(format!("{used} bytes are used and cannot be reclaimed"))
            .with_hint("a lower limit would kill processes; end some first, or use memory_high"))
    }

    /// Asks the kernel to take back up to `bytes` of memory: page cache, and what can be swapped out. `Ok(false)`: it found less.
    pub fn reclaim(&self, bytes: u64) -> Result<bool> {
        let on_v1 = self.v1().iter().any(|part| has(&part.parent, "memory"));
        let Some(V2Part { parent, dir, .. }) = self.v2.as_ref().filter(|_| !on_v1) else {
            return Err(Error::new(ErrorKind::Unsupported, "cgroup v1 cannot reclaim a given amount of memory")
                .with_step("reclaim")
                .with_hint(super::V2_HINT));
        };
        match file::write(dir, "memory.reclaim", &bytes.to_string()) {
            Ok(()) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(Errno::ENOENT) => Err(Error::new(
                ErrorKind::Unsupported,
                "the memory controller is not enabled for this container, or the kernel is older than 5.19",
            )
            .with_step("reclaim")),
            Err(e) => Err(failed_at("reclaim memory of", e, &parent.path.join(&self.name))),
        }
    }
}

pub(super) fn nowhere(setting: &Setting) -> Error {
    let controller: Controller = setting.controller;
    let (why, remedy) = match layout::current() {
        Ok(layout) if layout.home(controller).is_none() => layout::absence(&layout, controller),
        _ => (
            format!("this container is in no group that could have the {} controller", controller.name()),
            "doctor() says why there is none",
        ),
    };
    Error::new(ErrorKind::Unsupported, why).with_field(setting.field).with_hint(remedy)
}
