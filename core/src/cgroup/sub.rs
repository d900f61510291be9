//! Groups inside a container's group.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::layout::Controller;
use super::limits::Limits;
use super::parent::Parent;
use super::settings::{self, Setting};
use super::v1::V1Group;
use super::{Group, V1Part, V2Part, failed_at, file, has};
use crate::error::{Error, ErrorKind, Result};

/// On v2 a group with processes cannot give controllers to the groups in it: then those of the container are in this one. Beside
/// [`RELAY`] it has all that is not that, and the groups of the container in it.
pub(crate) const PAYLOAD: &str = "payload";
/// What serves ports is in this one.
pub(crate) const RELAY: &str = "relay";
/// Where the container has groups of its own, those are below [`PAYLOAD`], and its first processes in this one.
pub(super) const LEAF: &str = "payload/payload";
/// How long processes that fork may keep a group from becoming empty.
const VACATE_TIMEOUT: Duration = Duration::from_secs(2);

impl Group {
    /// Makes a group in this one, with limits of its own: they hold within those of the container, and its weight counts
    /// against the groups beside it.
    pub fn sub(&self, name: &str, limits: &Limits) -> Result<Group> {
        let asked = |parent: &Parent, settings: &[Setting]| {
            let on_v1 = |c: Controller| has(parent, c.name_on(false));
            settings.iter().any(|s| on_v1(s.controller))
                || Controller::LIMITING.iter().any(|&c| c.counts(false) && on_v1(c))
        };
        self.inside(name, limits, asked)
    }

    /// As [`sub`](Self::sub), in every hierarchy that this one is in: for a container of this pod.
    pub fn member(&self, id: &str, limits: &Limits) -> Result<Group> {
        self.inside(id, limits, |_, _| true)
    }

    fn inside(&self, name: &str, limits: &Limits, asked: impl Fn(&Parent, &[Setting]) -> bool) -> Result<Group> {
        let settings = limits.settings()?;
        for setting in &settings {
            self.provide(setting)?;
        }
        let _nobody_joins = self.joining.write().unwrap_or_else(PoisonError::into_inner);
        let mut made = Made { name, v2: None, v1: Vec::new(), done: false };
        if let Some(v2) = &self.v2 {
            let given = file::read(&v2.dir, "cgroup.controllers").map_err(|e| self.failed("read", e, &v2.parent))?;
            let passed: Vec<&str> = Controller::LIMITING
                .into_iter()
                .filter(|c| c.counts(true) || settings.iter().any(|s| s.controller == *c))
                .map(Controller::name)
                .filter(|name| given.split_whitespace().any(|given| given == *name))
                .collect();
            self.pass_on(v2, &passed)?;
            let (dir, path) = (v2.inner(), v2.parent.path.join(v2.inner_path(&self.name)));
            let above = dir.try_clone().map_err(|e| Error::io("dup", &e))?;
            let inner = Arc::new(Parent::shared(
                true,
                given.split_whitespace().map(str::to_owned).collect(),
                path,
                Arc::new(above),
            ));
            file::make_dir(dir, OsStr::new(name)).map_err(|e| taken(e, &inner.path.join(name)))?;
            let opened =
                file::open_dir(dir, Path::new(name)).map_err(|e| failed_at("open", e, &inner.path.join(name)))?;
            made.v2 = Some(V2Part::new(inner, opened));
        }
        for part in self.v1().iter().filter(|part| asked(&part.parent, &settings)) {
            let path = part.parent.path.join(&self.name);
            let dir =
                file::open_dir(&part.parent.dir, Path::new(&self.name)).map_err(|e| failed_at("open", e, &path))?;
            let inner = Parent::shared(false, part.parent.controllers.clone(), path, Arc::new(dir));
            made.v1.push(V1Part::make(Arc::new(inner), name)?);
        }
        for part in made.v1.iter().filter(|part| has(&part.parent, Controller::Cpu.name())) {
            limits.lend_real_time(&part.parent, name)?;
        }
        settings::set_all(&settings, &made.v1, made.v2.as_ref(), name)?;
        made.done = true;
        let (v2, v1) = (made.v2.take(), std::mem::take(&mut made.v1));
        Ok(Group::assemble(name.to_owned(), v2, v1, Vec::new(), Some(limits.clone())))
    }

    /// The group of what serves the container's ports, in those whose limits are for it too: memory and processors. Of a
    /// container in a pod it is on v2 the pod's: that of the container is where tasks are counted and frozen.
    pub fn relay(&self, pod: Option<&Group>) -> Result<Group> {
        let mut made = Made { name: RELAY, v2: None, v1: Vec::new(), done: false };
        let above = pod.unwrap_or(self);
        let mut v2 = None;
        if let Some(V2Part { parent, dir, .. }) = &above.v2 {
            let path = parent.path.join(&above.name);
            let opened = file::open_dir(dir, Path::new(RELAY)).map_err(|e| failed_at("open", e, &path.join(RELAY)))?;
            let dir = dir.try_clone().map_err(|e| Error::io("dup", &e))?;
            v2 = Some(V2Part::new(Arc::new(Parent::shared(true, Vec::new(), path, Arc::new(dir))), opened));
        }
        let charged = |part: &&V1Part| has(&part.parent, "memory") || has(&part.parent, "cpu");
        for part in self.v1().iter().filter(charged) {
            let path = part.parent.path.join(&self.name);
            let dir =
                file::open_dir(&part.parent.dir, Path::new(&self.name)).map_err(|e| failed_at("open", e, &path))?;
            let inner = Parent::shared(false, part.parent.controllers.clone(), path, Arc::new(dir));
            made.v1.push(V1Part::make(Arc::new(inner), RELAY)?);
        }
        made.done = true;
        let v1 = std::mem::take(&mut made.v1);
        Ok(Group::assemble(RELAY.to_owned(), v2, v1, Vec::new(), None))
    }

    /// A group that was made by [`Group::sub`], perhaps by another program. `None`: there is none of that name.
    pub fn open_sub(&self, name: &str) -> Option<Group> {
        let mut v2 = None;
        if let Some(of) = &self.v2 {
            let (dir, path) = (of.inner(), of.parent.path.join(of.inner_path(&self.name)));
            let opened = file::open_dir(dir, Path::new(name)).ok()?;
            let given = file::read(dir, "cgroup.controllers").unwrap_or_default();
            let controllers = given.split_whitespace().map(str::to_owned).collect();
            let above = Arc::new(dir.try_clone().ok()?);
            v2 = Some(V2Part::new(Arc::new(Parent::shared(true, controllers, path, above)), opened));
        }
        let mut v1 = Vec::new();
        for part in self.v1().iter() {
            let Ok(dir) = file::open_dir(&part.parent.dir, Path::new(&self.name)) else { continue };
            let path = part.parent.path.join(&self.name);
            let inner = Parent::shared(false, part.parent.controllers.clone(), path, Arc::new(dir));
            v1.extend(V1Part::open(Arc::new(inner), name).ok());
        }
        (v2.is_some() || !v1.is_empty()).then(|| Group::assemble(name.to_owned(), v2, v1, Vec::new(), None))
    }

    /// Where the group of a container of this pod is, in each of [`Group::parents`].
    pub fn member_paths(&self, id: &str) -> Vec<String> {
        let v2 = self.v2.as_ref().map(|v2| v2.inner_path(&self.name).to_string_lossy().into_owned());
        let above = v2.into_iter().chain(std::iter::repeat(self.name.clone()));
        above.take(self.parents.len()).map(|above| format!("{above}/{id}")).collect()
    }

    /// Whether its counts of memory events have those of the groups inside in them: they do on v2.
    pub fn counts_what_is_inside(&self) -> bool {
        !self.v1().iter().any(|part| has(&part.parent, Controller::Memory.name()))
    }

    /// SIGKILL to every process of a group that is used further.
    ///
    /// Not by `cgroup.kill`: once that was written, a process that is cloned into the group (`CLONE_INTO_CGROUP`) is killed at
    /// its birth from then on (seen on 6.18: the kernel compares the group's count of kills with that of its parent's).
    pub fn kill_members(&self) -> Result<()> {
        let v1 = self.v1();
        let Some(parent) = self.v2.as_ref().map(|v2| &v2.parent).or(v1.first().map(|part| &part.parent)) else {
            return Ok(());
        };
        let group = V1Group { parent, name: &self.name };
        // Frozen tasks do not fork, so one round finds all of them.
        let frozen = self.freeze().is_ok();
        let first = group.signal_all();
        if frozen {
            self.thaw()?;
        }
        first?;
        group.kill_all(Instant::now() + super::REMOVE_TIMEOUT)
    }

    /// Where a process of the container is born on v2.
    pub fn join_dir(&self) -> Option<BorrowedFd<'_>> {
        self.payload.get().or_else(|| self.v2.as_ref().map(V2Part::inner)).map(AsFd::as_fd)
    }

    /// Sees to it that `sub`, a group in this one, can have these limits.
    pub fn provide_for(&self, sub: &Group, limits: &Limits) -> Result<()> {
        for setting in limits.settings()? {
            self.provide(&setting)?;
            let on_v1 = setting.controller.name_on(false);
            let v1 = self.v1();
            let Some(part) = v1.iter().find(|part| has(&part.parent, on_v1)) else {
                if let Some(v2) = &self.v2 {
                    let _nobody_joins = self.joining.write().unwrap_or_else(PoisonError::into_inner);
                    self.pass_on(v2, &[setting.controller.name()])?;
                }
                continue;
            };
            if !sub.v1().iter().any(|part| has(&part.parent, on_v1)) {
                let path = part.parent.path.join(&self.name);
                let dir = file::open_dir(&part.parent.dir, Path::new(&self.name))
                    .map_err(|e| failed_at("open", e, &path).with_field(setting.field))?;
                let inner = Parent::shared(false, part.parent.controllers.clone(), path, Arc::new(dir));
                // The container's joins wait as well: a process joins all groups of its sub-group, or the older ones of all.
                let _nobody_joins = self.joining.write().unwrap_or_else(PoisonError::into_inner);
                sub.join_late(&Arc::new(inner)).map_err(|e| e.with_field(setting.field))?;
            }
        }
        Ok(())
    }

    /// Lets the groups in this one have these controllers.
    fn pass_on(&self, v2: &V2Part, controllers: &[&str]) -> Result<()> {
        let path = |name: PathBuf| v2.parent.path.join(name);
        if v2.inner.is_some() {
            pass(&v2.dir, &path(self.name.clone().into()), controllers)?;
        }
        let (dir, path) = (v2.inner(), path(v2.inner_path(&self.name)));
        if not_passed(dir, &path, controllers)?.is_empty() {
            return Ok(());
        }
        self.vacate(dir).map_err(|e| failed_at("move the processes of", e, &path))?;
        pass(dir, &path, controllers)
    }

    /// Moves the container's processes from its group into one inside.
    fn vacate(&self, dir: &OwnedFd) -> nix::Result<()> {
        match file::make_dir(dir, OsStr::new(PAYLOAD)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        let payload = file::open_dir(dir, Path::new(PAYLOAD))?;
        let deadline = Instant::now() + VACATE_TIMEOUT;
        loop {
            let here = file::read(dir, "cgroup.procs")?;
            let mut left = false;
            for pid in here.lines() {
                left = true;
                match file::write(&payload, "cgroup.procs", pid) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => return Err(e),
                }
            }
            if !left {
                let _ = self.payload.set(payload);
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(Errno::EBUSY);
            }
        }
    }

    /// For a group that was found by its description: whether its processes have moved.
    pub(super) fn find_payload(&self) {
        if let Some(dir) = self.v2.as_ref().map(V2Part::inner)
            && let Ok(payload) =
                file::open_dir(dir, Path::new(LEAF)).or_else(|_| file::open_dir(dir, Path::new(PAYLOAD)))
        {
            let _ = self.payload.set(payload);
        }
    }

    /// `tasks` of the groups that a process of this sub-group joins on v1: its own, and the container's where it has none.
    pub fn tasks_with<'a>(container: &'a [V1Part], own: &'a [V1Part]) -> Vec<BorrowedFd<'a>> {
        let same = |part: &V1Part, other: &V1Part| part.parent.controllers == other.parent.controllers;
        container.iter().map(|part| own.iter().find(|o| same(o, part)).unwrap_or(part).tasks()).collect()
    }
}

/// Those that the groups in this one do not have.
fn not_passed<'a>(dir: &OwnedFd, path: &Path, controllers: &[&'a str]) -> Result<Vec<&'a str>> {
    let passed = file::read(dir, "cgroup.subtree_control").map_err(|e| failed_at("read", e, path))?;
    Ok(controllers.iter().copied().filter(|c| !passed.split_whitespace().any(|name| name == *c)).collect())
}

/// On v2: lets the groups in one that has no processes have these controllers.
pub(super) fn pass(dir: &OwnedFd, path: &Path, controllers: &[&str]) -> Result<()> {
    for controller in not_passed(dir, path, controllers)? {
        file::write(dir, "cgroup.subtree_control", &format!("+{controller}"))
            .map_err(|e| failed_at(&format!("enable {controller} in"), e, path))?;
    }
    Ok(())
}

fn taken(e: Errno, path: &Path) -> Error {
    let error = failed_at("make the control group", e, path);
    if e == Errno::EEXIST { error.with_kind(ErrorKind::AlreadyExists) } else { error }
}

/// What was made is removed again unless all succeeds.
struct Made<'a> {
    name: &'a str,
    v2: Option<V2Part>,
    v1: Vec<V1Part>,
    done: bool,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for parent in self.v2.iter().map(|v2| &v2.parent).chain(self.v1.iter().map(|part| &part.parent)) {
            // Nobody was ever in it.
            let _ = nix::unistd::unlinkat(&parent.dir, self.name, nix::unistd::UnlinkatFlags::RemoveDir);
        }
    }
}
