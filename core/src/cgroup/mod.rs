//! Control groups: layout (v2, v1, hybrid, delegated), limits, usage.
//!
//! A container has one group of its id in each hierarchy that it needs: where memory, cpu and pids are (for limits and
//! counters), and in the v2 tree wherever there is one, because `CLONE_INTO_CGROUP`, `cgroup.kill`, `cgroup.freeze` and
//! the CPU time in `cpu.stat` work there without any controller. So on a hybrid machine neither cpuacct nor freezer is used.
//! A limit is enforced or the start fails; counters are taken where they can be had.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{UnlinkatFlags, unlinkat};
use once_cell::sync::OnceCell;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use layout::{Controller, Hierarchy, Layout};
use parent::Parent;
use settings::Setting;
use usage::{Failure, Reader};
use v1::V1Group;

/// Which devices may be used.
mod device_rules;
/// What limits name: block devices, huge pages.
mod devices;
/// What a group tells of itself.
pub(crate) mod events;
/// Control files and directories.
mod file;
/// Which hierarchies there are, and where the caller is in them.
pub(crate) mod layout;
/// Limits as the kernel takes them.
mod limits;
/// The directories in which groups are made.
mod parent;
/// Budgets of real-time on v1.
mod real_time;
/// What this machine and this caller can do, for the doctor.
mod report;
/// Scopes of systemd.
pub(crate) mod scope;
/// What limits write, and where.
mod settings;
/// Groups inside a container's group.
mod sub;
/// Groups whose keeper is gone.
mod sweep;
#[cfg(test)]
mod tests;
/// Changes of a group that is in use.
mod update;
/// What a group uses and used.
pub(crate) mod usage;
/// cgroup v1, through cgroups-rs.
mod v1;
/// cgroup v2.
mod v2;

pub(crate) use device_rules::{DeviceRules, Numbers, way as device_rules_way};
pub(crate) use events::{Seen, Watch, listen};
pub(crate) use layout::{is_pure_v2, tree_options};
pub(crate) use limits::Limits;
pub(crate) use parent::Place;
pub(crate) use report::layout_report;
pub(crate) use sub::{PAYLOAD as SUB_PAYLOAD, RELAY as SUB_RELAY};
pub(crate) use sweep::sweep;
pub(crate) use usage::Controls;
pub use usage::{HugePageUsage, IoUsage, NetUsage, PressureUsage, QuotaUsage, Stall, Stalls, Usage};

/// Follows this process when somebody has moved it since the layout was read, so that the limits of the group in which it is
/// now hold for its containers too. The result is another number after each move.
pub(crate) fn whereabouts() -> u64 {
    follow();
    MOVES.load(Ordering::Relaxed)
}

static MOVES: AtomicU64 = AtomicU64::new(1);

fn follow() -> bool {
    let moved = layout::refresh_if_moved();
    if moved {
        parent::forget();
        MOVES.fetch_add(1, Ordering::Relaxed);
    }
    moved
}

/// On cgroup v1 a rate of a device is one group's own: the groups in it have none.
pub(crate) fn rates_are_for_one_group() -> bool {
    layout::current().is_ok_and(|layout| layout.home(Controller::Io).is_some_and(|h| !h.v2))
}

/// How long a freeze may take. A task stops within microseconds; one in an uninterruptible sleep does not stop at all.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a killed group may take to become empty.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What only v2 can do.
const V2_HINT: &str = "it takes cgroup v2: boot with systemd.unified_cgroup_hierarchy=1, or without v1 mounts";

/// The control groups of one container: the same name in several hierarchies.
///
/// Dropping it closes descriptors and changes nothing else: the groups are removed by [`Group::remove`], or by whoever got
/// [`Group::parents`] and [`Group::name`]. Its methods may be called from any thread.
pub(crate) struct Group {
    name: String,
    v2: Option<V2Part>,
    v1: Mutex<Arc<Vec<V1Part>>>,
    /// Of the v1 hierarchies in which there is no group: one is made when a limit there is asked for later.
    spare: Vec<Arc<Parent>>,
    parents: Vec<Arc<OwnedFd>>,
    /// As far as this process knows them; `None` for a group that was found by its description.
    limits: Mutex<Option<Limits>>,
    reader: Mutex<Reader>,
    /// On v2, once there are groups inside: where the container's first processes are.
    payload: OnceCell<OwnedFd>,
    /// Held for reading while a process joins: it has to be in all groups that there are when it has joined.
    joining: RwLock<()>,
}

/// Who may divide a group: ids of this process's user namespace. The limits of the group itself stay its maker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heir {
    pub uid: u32,
    pub gid: u32,
}

/// What a group is made for beside its limits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Purpose<'a> {
    /// There is a group wherever one can be had, and the heir can divide it.
    pub heir: Option<Heir>,
    /// What serves ports is to be beside the payload: on v2 each gets a group inside. Limits of memory, processors and I/O hold
    /// for both; the number of tasks, freezes and whether it is empty are the payload's alone. (On v1 what serves ports joins
    /// only the hierarchies whose limits are for it.)
    pub ports: bool,
    pub devices: Option<&'a DeviceRules>,
}

/// The group in the v2 tree.
struct V2Part {
    parent: Arc<Parent>,
    dir: OwnedFd,
    /// The group [`sub::PAYLOAD`] inside, where [`sub::RELAY`] is beside it.
    inner: Option<OwnedFd>,
}

impl V2Part {
    fn new(parent: Arc<Parent>, dir: OwnedFd) -> Self {
        Self { parent, dir, inner: None }
    }

    /// Of a group that was found by its description.
    fn open(parent: Arc<Parent>, dir: OwnedFd) -> nix::Result<Self> {
        let inner = match file::exists(&dir, sub::RELAY).then(|| file::open_dir(&dir, Path::new(sub::PAYLOAD))) {
            // Of an earlier version of this library, which had only the one beside the processes.
            None | Some(Err(Errno::ENOENT)) => None,
            Some(opened) => Some(opened?),
        };
        Ok(Self { inner, parent, dir })
    }

    /// The group of the payload and of the groups in it.
    fn inner(&self) -> &OwnedFd {
        self.inner.as_ref().unwrap_or(&self.dir)
    }

    /// The path of that, from a group `name`.
    fn inner_path(&self, name: &str) -> PathBuf {
        let path = Path::new(name);
        if self.inner.is_some() { path.join(sub::PAYLOAD) } else { path.to_owned() }
    }
}

/// The group in one v1 hierarchy.
pub(crate) struct V1Part {
    parent: Arc<Parent>,
    /// Its processes are in a group inside.
    leaf: bool,
    tasks: OwnedFd,
}

impl V1Part {
    /// `tasks` of the group, open for writing: a process that writes `0` to it has joined. It must do that as the user who made
    /// the group (or as root), because the kernel compares the writer with the opener.
    pub fn tasks(&self) -> BorrowedFd<'_> {
        self.tasks.as_fd()
    }
}

impl Group {
    /// Makes the groups of container `id`, with its limits set.
    ///
    /// They stand below `place`: a path inside each hierarchy (missing directories are made), a scope of systemd, or where the
    /// layout and the caller's rights allow it (see [`parent`](mod@parent)). `Ok(None)`: the caller can make none, and needs
    /// none because it asked for no limit. With a limit, or with a place that the spec names, that is an error which names
    /// the field and the remedy.
    ///
    /// The limit of tasks does not count what is moved in, only what is forked there.
    pub fn create_in(place: &Place, id: &str, limits: &Limits, purpose: Purpose<'_>) -> Result<Option<Self>> {
        let settings = limits.settings()?;
        if id.is_empty() || id.contains(['/', '\0', '\n']) || id.starts_with('.') {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{id:?} cannot be the name of a control group"),
            ));
        }
        let rules = purpose.devices.is_some_and(|rules| rules.field().is_some());
        let optional = *limits == Limits::default() && !matches!(place, Place::Spec(_)) && !rules;
        if optional && refusal_is_known(place) {
            return Ok(None);
        }
        let made = parent::made_so_far();
        let mut attempts = 0;
        loop {
            let result = Self::attempt(&*layout::current()?, place, id, limits, &settings, purpose);
            attempts += 1;
            match result {
                Ok(Some(group)) => return Ok(Some(group)),
                // Someone else's cleaning up removed an empty parent that we had open: make it again.
                Err(e) if matches!(e.errno(), libc::ENOENT | libc::ENODEV) && attempts < 8 => parent::forget(),
                // This process may have been moved since the layout was read, perhaps because an error said so.
                Ok(None) | Err(_) if attempts == 1 && follow() => {}
                Ok(None) => {
                    *refusal() = Some((place.clone(), Instant::now()));
                    return Ok(None);
                }
                Err(e) => {
                    parent::remove_made_since(made);
                    return Err(e);
                }
            }
        }
    }

    /// The directories in which `create` would make a group, opened and made as far as they are missing. The keeper knows them
    /// before the first group is there, so that none is left when the host is killed right after it made one.
    pub fn open_parents(place: &Place, limits: &Limits, devices: bool) -> Result<Vec<Arc<OwnedFd>>> {
        let layout = layout::current()?;
        let mut found: Vec<Arc<OwnedFd>> = Vec::new();
        let mut add = |h: &layout::Hierarchy, controllers| {
            // What cannot be opened is explained by `create`.
            if let Ok(parent) = parent::find(h, place, controllers)
                && !found.iter().any(|known| Arc::ptr_eq(known, &parent.dir))
            {
                found.push(parent.dir.clone());
            }
        };
        if let Some(h) = layout.v2() {
            let asked = limits.settings()?;
            let given = |c: Controller| c.counts(true) || asked.iter().any(|s| s.controller == c);
            add(h, Controller::LIMITING.into_iter().any(|c| h.has(c) && given(c)));
        }
        for controller in Controller::LIMITING.into_iter().chain([Controller::Cpuacct, Controller::Freezer]) {
            if let Some(h) = layout.home(controller).filter(|h| !h.v2) {
                add(h, false);
            }
        }
        if devices && let Some(parent) = device_rules::v1_parent(&layout, place) {
            found.push(parent.dir.clone());
        }
        Ok(found)
    }

    fn attempt(
        layout: &Layout,
        place: &Place,
        id: &str,
        limits: &Limits,
        settings: &[Setting],
        Purpose { heir, ports, devices }: Purpose<'_>,
    ) -> Result<Option<Self>> {
        let mut making = Making { id, v2: None, v1: Vec::new(), done: false };
        let mut first_refusal = None;
        let wanted = Controller::LIMITING.map(|controller| {
            let asked = settings.iter().find(|setting| setting.controller == controller);
            (controller, asked.map(|setting| setting.field))
        });
        for setting in settings {
            match (layout.home(setting.controller), &setting.v1) {
                (None, _) => {
                    let (why, remedy) = layout::absence(layout, setting.controller);
                    return Err(Error::new(ErrorKind::Unsupported, why).with_field(setting.field).with_hint(remedy));
                }
                (Some(h), _) if h.v2 && setting.only_v1.is_some() => return Err(v2_cannot(setting)),
                (Some(h), Err(why)) if !h.v2 => {
                    return Err(v1_cannot(setting.field, why).with_path(h.mount_point.to_string_lossy()));
                }
                _ => {}
            }
        }

        // A place that is none is the fault of who named it, whatever limit wanted it.
        let blame = |e: Error, field: &'static str| match e.kind() {
            ErrorKind::PermissionDenied | ErrorKind::Unsupported => e.with_field(field),
            _ => place.blame(e.with_field(field)),
        };
        if let Some(h) = layout.v2() {
            let here =
                wanted.iter().filter(|(c, field)| h.has(*c) && (field.is_some() || heir.is_some() || c.counts(true)));
            match making.v2(h, place, here) {
                Ok(()) => {}
                Err((e, Some(field))) => return Err(blame(e, field)),
                Err((e, None)) => refused(&mut first_refusal, e).map_err(|e| place.blame(e))?,
            }
        }
        for (controller, field) in wanted {
            let Some(h) = layout.home(controller).filter(|h| !h.v2) else { continue };
            if field.is_none() && heir.is_none() && !controller.counts(false) {
                continue;
            }
            match (making.v1(h, place), field) {
                (Ok(()), _) => {}
                (Err(e), Some(field)) => return Err(blame(e, field)),
                (Err(e), None) => refused(&mut first_refusal, e).map_err(|e| place.blame(e))?,
            }
        }
        if making.v2.is_none() {
            for h in [Controller::Cpuacct, Controller::Freezer].iter().filter_map(|&c| layout.home(c)) {
                if let Err(e) = making.v1(h, place) {
                    refused(&mut first_refusal, e).map_err(|e| place.blame(e))?;
                }
            }
        }
        if let Some(v2) = &making.v2 {
            limits.set_apart(&v2.parent);
        }
        if ports {
            making.divide(settings)?;
        }
        if let Some(rules) = devices {
            making.device_rules(layout, place, rules)?;
        }
        for part in making.v1.iter().filter(|part| has(&part.parent, Controller::Cpu.name())) {
            limits.lend_real_time(&part.parent, id)?;
        }
        making.limit(settings)?;
        if let Some(heir) = heir {
            making.bequeath(heir).map_err(|e| e.with_field("nesting"))?;
        }
        let mut spare: Vec<Arc<Parent>> = Vec::new();
        for h in wanted.iter().filter_map(|(controller, _)| layout.home(*controller)).filter(|h| !h.v2) {
            if let Ok(parent) = parent::find(h, place, false)
                && !making.v1.iter().map(|part| &part.parent).chain(&spare).any(|known| Arc::ptr_eq(known, &parent))
            {
                spare.push(parent);
            }
        }
        if devices.is_some() && !making.v1.iter().any(|part| has(&part.parent, Controller::Devices.name())) {
            spare.extend(device_rules::v1_parent(layout, place));
        }
        match (making.finish(limits, spare), place, first_refusal) {
            (Some(group), ..) => Ok(Some(group)),
            (None, Place::Spec(_), Some(e)) => Err(e.with_field("cgroup_parent")),
            (None, Place::Spec(path), None) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("no control group file system is mounted here, so /{} cannot be in one", path.display()),
            )
            .with_field("cgroup_parent")),
            (None, ..) => Ok(None),
        }
    }

    /// The groups of a container that another process started, from what [`Group::describe`] said there.
    pub fn reopen(description: &Value) -> Result<Self> {
        let bad = || Error::new(ErrorKind::Internal, "a record's description of control groups cannot be read");
        let name = description["name"].as_str().ok_or_else(bad)?.to_owned();
        let mut v2 = None;
        let mut v1 = Vec::new();
        let mut spare = Vec::new();
        for group in description["groups"].as_array().ok_or_else(bad)? {
            let path = PathBuf::from(group["path"].as_str().ok_or_else(bad)?);
            let (parent, dir) = reopen_one(group, &path, &name)?;
            if parent.v2 {
                v2 = Some(V2Part::open(Arc::new(parent), dir).map_err(|e| gone(e, &path))?);
            } else {
                v1.push(V1Part::open(Arc::new(parent), &name)?);
            }
        }
        for group in description["spare"].as_array().into_iter().flatten() {
            // A group that was made since, or perhaps will be.
            let path = PathBuf::from(group["path"].as_str().ok_or_else(bad)?);
            match reopen_one(group, &path, &name) {
                Ok((parent, _)) => v1.push(V1Part::open(Arc::new(parent), &name)?),
                Err(_) => spare.extend(reopen_parent(group, &path).ok().map(Arc::new)),
            }
        }
        let group = Self::assemble(name, v2, v1, spare, None);
        group.find_payload();
        Ok(group)
    }

    fn assemble(
        name: String,
        v2: Option<V2Part>,
        v1: Vec<V1Part>,
        spare: Vec<Arc<Parent>>,
        limits: Option<Limits>,
    ) -> Self {
        let on_v1 = v1.iter().map(|part| &part.parent);
        let all = v2.iter().map(|v2| &v2.parent).chain(on_v1).chain(&spare);
        let parents = all.map(|parent| parent.dir.clone()).collect();
        let reader = Mutex::new(Reader::new(&v1, v2.as_ref()));
        let (v1, limits) = (Mutex::new(Arc::new(v1)), Mutex::new(limits));
        Self { name, v2, v1, spare, parents, limits, reader, payload: OnceCell::new(), joining: RwLock::new(()) }
    }

    /// The group in the v2 tree.
    pub fn v2_dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|v2| v2.dir.as_fd())
    }

    /// Of a group that has an heir: the group inside that is its.
    pub fn open_inside(&self) -> Result<OwnedFd> {
        let dir = self.v2.as_ref().ok_or_else(no_leaf)?.inner();
        file::open_dir(dir, Path::new(sub::PAYLOAD)).map_err(|e| failed_at("open", e, Path::new(sub::PAYLOAD)))
    }

    /// And `cgroup.procs` of the leaf in that.
    pub fn open_leaf(&self) -> Result<OwnedFd> {
        let dir = self.payload.get().ok_or_else(no_leaf)?;
        file::open_file(dir, "cgroup.procs", OFlag::O_WRONLY).map_err(|e| failed_at("open", e, Path::new(sub::LEAF)))
    }

    /// The hierarchies in which an heir has groups: v2 or not, the name of the directory where it is mounted, and its
    /// controllers.
    pub fn inherited(&self) -> Vec<(bool, String, Vec<String>)> {
        let v2 = self.v2.iter().map(|_| (true, "unified".to_owned(), Vec::new()));
        let parts = self.v1();
        let v1 = parts.iter().filter(|part| part.leaf).map(|part| {
            let controllers = &part.parent.controllers;
            (false, controllers.join(",").replace("name=", ""), controllers.clone())
        });
        v2.chain(v1).collect()
    }

    /// The groups on v1, as they are now: an update may add one.
    pub fn v1(&self) -> Arc<Vec<V1Part>> {
        lock(&self.v1).clone()
    }

    /// To be held from when the groups to join are looked up until the process has joined them.
    pub fn joining(&self) -> RwLockReadGuard<'_, ()> {
        self.joining.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directories in each of which the directory [`Group::name`] is to be removed at the end, if it is there: those of later
    /// groups are among them. Groups with the same parent have the same `Arc`.
    pub fn parents(&self) -> &[Arc<OwnedFd>] {
        &self.parents
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether [`Group::kill`] reaches every process: with `cgroup.kill`, or as root.
    pub fn can_kill(&self) -> bool {
        let v2 = self.v2_dir().is_some_and(|dir| file::exists(dir, "cgroup.kill"));
        v2 || (!self.parents.is_empty() && nix::unistd::geteuid().is_root())
    }

    /// SIGKILL to every process in the group. Does not wait for their end on v2 (Linux 5.14 on); elsewhere it takes rounds of
    /// reading and killing, until none is left. A frozen group can be killed.
    pub fn kill(&self) -> Result<()> {
        if let Some(V2Part { parent, dir, .. }) = &self.v2
            && v2::kill(dir.as_fd()).or_else(gone_is_dead).map_err(|e| self.failed("kill", e, parent))?
        {
            return Ok(());
        }
        let v1 = self.v1();
        let mut on_v1 = v1.iter().map(|part| &part.parent);
        let Some(parent) =
            on_v1.clone().find(|p| has(p, "freezer")).or(on_v1.next()).or(self.v2.as_ref().map(|v2| &v2.parent))
        else {
            return Ok(());
        };
        let group = V1Group { parent, name: &self.name };
        if !has(parent, "freezer") {
            return group.kill_all(Instant::now() + REMOVE_TIMEOUT);
        }
        // Frozen tasks do not fork, so one round finds all; they take the signal when thawed.
        let frozen = group.set_frozen(true, Duration::from_millis(200)).or_else(gone_is_dead);
        frozen.map_err(|e| self.failed("freeze", e, parent))?;
        let first = group.signal_all();
        group.set_frozen(false, FREEZE_TIMEOUT).or_else(gone_is_dead).map_err(|e| self.failed("thaw", e, parent))?;
        first?;
        group.kill_all(Instant::now() + REMOVE_TIMEOUT)
    }

    /// Stops every process until [`Group::thaw`]; returns when all have stopped. If one does not within 5 s (it waits for a
    /// device or a dead file server), all run again and the result is TimedOut.
    pub fn freeze(&self) -> Result<()> {
        self.set_frozen(true)
    }

    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        let verb = if frozen { "freeze" } else { "thaw" };
        let v1 = self.v1();
        let (parent, result) = match (&self.v2, freezer(&v1)) {
            (Some(v2), _) => (&v2.parent, v2::set_frozen(v2.inner().as_fd(), frozen, FREEZE_TIMEOUT)),
            (None, Some(parent)) => (parent, V1Group { parent, name: &self.name }.set_frozen(frozen, FREEZE_TIMEOUT)),
            (None, None) => return Err(self.cannot_freeze()),
        };
        match result {
            Ok(true) => Ok(()),
            Ok(false) => {
                if frozen {
                    self.set_frozen(false)?;
                }
                Err(Error::new(ErrorKind::TimedOut, "a process does not stop: it waits for a device or a file server")
                    .with_step(verb)
                    .with_path(parent.path.join(&self.name).to_string_lossy()))
            }
            Err(e) => Err(self.failed(verb, e, parent)),
        }
    }

    pub fn is_frozen(&self) -> Result<bool> {
        let v1 = self.v1();
        match (&self.v2, freezer(&v1)) {
            (Some(v2), _) => {
                v2::is_frozen(v2.inner().as_fd()).map_err(|e| self.failed("read the state of", e, &v2.parent))
            }
            (None, Some(parent)) => V1Group { parent, name: &self.name }
                .is_frozen()
                .map_err(|e| self.failed("read the state of", e, parent)),
            (None, None) => Ok(false),
        }
    }

    /// Whether a process is where a freeze reaches it.
    pub fn holds(&self, pid: i32) -> bool {
        let v2 = self.v2.is_some();
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        text.lines().any(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            let here = if v2 { controllers.is_empty() } else { controllers.split(',').any(|c| c == "freezer") };
            here && path.split('/').any(|name| name == self.name)
        })
    }

    /// Whether somebody removed the group, or one of those of v1.
    pub fn is_gone(&self) -> bool {
        self.v2_dir().is_some_and(|dir| !file::exists(dir, "cgroup.procs"))
            || self.v1().iter().any(|part| !file::exists(&part.parent.dir, &self.name))
    }

    fn cannot_freeze(&self) -> Error {
        Error::new(ErrorKind::Unsupported, "this container is in no group that can be frozen")
            .with_step("freeze")
            .with_hint("a cgroup v2 tree or the v1 freezer is needed, writable or delegated to this user")
    }

    /// All counters. After the group was removed: the last ones that were read (see [`Group::final_usage`]); if none were,
    /// Closed.
    pub fn usage(&self) -> Result<Usage> {
        let mut reader = lock(&self.reader);
        reader.usage(&self.name).map_err(unread)
    }

    /// To be called once, when all processes have ended and the group is about to be removed: [`Group::usage`] gives these
    /// figures from then on.
    pub fn final_usage(&self) -> Result<Usage> {
        let mut reader = lock(&self.reader);
        match &*lock(&self.limits) {
            Some(limits) => reader.final_usage(&self.name, limits),
            // Somebody else's: the limits have to be read.
            None => reader.usage(&self.name),
        }
        .map_err(unread)
    }

    /// Instead of [`Group::final_usage`], when nobody can ask any more.
    pub fn let_go(&self) {
        lock(&self.reader).let_go();
    }

    /// Processes of the group that were killed for want of memory: one read. `None`: not counted here.
    pub fn oom_kills(&self) -> Option<u64> {
        lock(&self.reader).oom_kills(&self.name)
    }

    /// Removes the groups, and what the payload made in them. Waits up to 2 s for killed processes to be gone.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut result = Ok(());
        let v1 = self.v1();
        for parent in self.v2.iter().map(|v2| &v2.parent).chain(v1.iter().map(|part| &part.parent)) {
            if let Err(e) = file::remove_tree(parent.dir.as_fd(), OsStr::new(&self.name), deadline) {
                result = result.and(Err(self.failed("remove", e, parent)));
            }
        }
        result
    }

    /// What was made, as JSON: `{"layout": "hybrid", "name": ID, "groups": [{"version": 1, "controllers": ["memory"],
    /// "path": "/sys/fs/cgroup/memory/ringfence/ID"}, ...], "spare": [...]}`; spare are those that only a later limit makes.
    pub fn describe(&self) -> Value {
        let group = |version: u8, parent: &Parent, controllers: &[String]| {
            let path = parent.path.join(&self.name);
            json!({ "version": version, "controllers": controllers, "path": path.to_string_lossy() })
        };
        let v2 = self.v2.iter().map(|V2Part { parent, dir, .. }| {
            let given = file::read(dir, "cgroup.controllers").unwrap_or_default();
            group(2, parent, &given.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        });
        let parts = self.v1();
        let v1 = parts.iter().map(|part| group(1, &part.parent, &part.parent.controllers));
        let groups: Vec<Value> = v2.chain(v1).collect();
        let made = |parent: &&Arc<Parent>| parts.iter().any(|part| Arc::ptr_eq(&part.parent, parent));
        let spare = self.spare.iter().filter(|parent| !made(parent));
        let spare: Vec<Value> = spare.map(|parent| group(1, parent, &parent.controllers)).collect();
        let layout = layout::current().map(|layout| layout.kind().name()).unwrap_or("none");
        json!({ "layout": layout, "name": self.name, "groups": groups, "spare": spare })
    }

    fn failed(&self, step: &str, errno: Errno, parent: &Parent) -> Error {
        let error = failed_at(step, errno, &parent.path.join(&self.name));
        if errno == Errno::ENOENT { error.with_detail("somebody removed the control group") } else { error }
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("description", &self.describe()).finish()
    }
}

fn no_leaf() -> Error {
    Error::new(ErrorKind::Internal, "this group has none inside for the container's own groups")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn freezer(v1: &[V1Part]) -> Option<&Arc<Parent>> {
    v1.iter().map(|part| &part.parent).find(|parent| has(parent, "freezer"))
}

/// The parent of a group of a description.
fn reopen_parent(group: &Value, path: &Path) -> Result<Parent> {
    let bad = || Error::new(ErrorKind::Internal, "a record's description of control groups cannot be read");
    let above = path.parent().ok_or_else(bad)?;
    let controllers: Vec<String> = serde_json::from_value(group["controllers"].clone()).map_err(|_| bad())?;
    let dir = file::open_mount(above).map_err(|e| gone(e, above))?;
    Ok(Parent::shared(group["version"] == 2, controllers, above.to_owned(), Arc::new(dir)))
}

fn reopen_one(group: &Value, path: &Path, name: &str) -> Result<(Parent, OwnedFd)> {
    let parent = reopen_parent(group, path)?;
    let dir = file::open_dir(&parent.dir, Path::new(name)).map_err(|e| gone(e, path))?;
    Ok((parent, dir))
}

fn v1_cannot(field: &'static str, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, why.to_owned()).with_field(field).with_hint(V2_HINT)
}

fn v2_cannot(setting: &Setting) -> Error {
    Error::new(ErrorKind::Unsupported, setting.only_v1.unwrap_or_default())
        .with_field(setting.field)
        .with_hint("leave it out; fifo and rr need no budget there")
}

fn gone(e: Errno, path: &Path) -> Error {
    Error::os("open the control group", e as i32).with_path(path.to_string_lossy())
}

impl V1Part {
    /// A group that is there.
    fn open(parent: Arc<Parent>, name: &str) -> Result<Self> {
        let leaf = file::exists(&parent.dir, &format!("{name}/{}", sub::PAYLOAD));
        Self::open_tasks(parent, name, leaf)
    }

    fn open_tasks(parent: Arc<Parent>, name: &str, leaf: bool) -> Result<Self> {
        let path = if leaf { format!("{name}/{}/tasks", sub::PAYLOAD) } else { format!("{name}/tasks") };
        let tasks = file::open_file(&parent.dir, &path, OFlag::O_WRONLY)
            .map_err(|e| failed_at("open", e, &parent.path.join(path)))?;
        Ok(Self { parent, leaf, tasks })
    }

    /// Makes a group inside, in which its processes are from then on.
    fn add_leaf(&mut self, name: &str) -> Result<()> {
        let path = self.parent.path.join(name);
        let failed = |step: &str, e: Errno| failed_at(step, e, &path.join(sub::PAYLOAD));
        let dir = file::open_dir(&self.parent.dir, Path::new(name)).map_err(|e| failed_at("open", e, &path))?;
        file::make_dir(&dir, OsStr::new(sub::PAYLOAD)).map_err(|e| failed("make the control group", e))?;
        if has(&self.parent, "cpuset") {
            v1::inherit_cpuset(dir.as_fd(), sub::PAYLOAD).map_err(|e| failed("give processors to", e))?;
        }
        *self = Self::open_tasks(self.parent.clone(), name, true)?;
        Ok(())
    }

    /// Makes the group.
    fn make(parent: Arc<Parent>, name: &str) -> Result<Self> {
        file::make_dir(&parent.dir, OsStr::new(name))
            .map_err(|e| failed_at("make the control group", e, &parent.path.join(name)))?;
        let undo = |e: Error| {
            let _ = unlinkat(&parent.dir, name, UnlinkatFlags::RemoveDir);
            e
        };
        if has(&parent, "cpuset") {
            v1::inherit_cpuset(parent.dir.as_fd(), name)
                .map_err(|e| self::failed_at("give processors to", e, &parent.path.join(name)))
                .map_err(undo)?;
        }
        Self::open_tasks(parent.clone(), name, false).map_err(undo)
    }
}

/// What the kernel said of a group or a file in it, and what that means.
fn failed_at(step: &str, errno: Errno, path: &Path) -> Error {
    let error = Error::os(step, errno as i32).with_path(path.to_string_lossy());
    match errno {
        Errno::EROFS => error
            .with_kind(ErrorKind::PermissionDenied)
            .with_hint("its hierarchy is mounted read-only: in a container ask for a writable one"),
        Errno::EAGAIN => error.with_hint(
            "a group above may have no more groups in it: see cgroup.max.descendants and cgroup.max.depth there",
        ),
        Errno::ENODEV => error.with_detail("somebody removed the control group"),
        _ => error,
    }
}

fn has(parent: &Parent, controller: &str) -> bool {
    parent.controllers.iter().any(|c| c == controller)
}

fn unread(failure: Failure) -> Error {
    match failure {
        Failure::Gone => Error::new(ErrorKind::Closed, "the container's control group is gone").with_step("usage"),
        Failure::Os(e, name) => Error::os("read", e as i32).with_path(name),
    }
}

/// In a group that no longer exists nothing is left to be done.
fn gone_is_dead(e: Errno) -> Result<bool, Errno> {
    match e {
        Errno::ENODEV | Errno::ENOENT => Ok(true),
        e => Err(e),
    }
}

/// Where nothing could be made a moment ago, and needed not be.
static REFUSAL: Mutex<Option<(Place, Instant)>> = Mutex::new(None);

fn refusal() -> MutexGuard<'static, Option<(Place, Instant)>> {
    REFUSAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For a second the answer of an ordinary caller without delegation stays: to find it takes 0.3 ms, a fifth of a start.
/// A start with a limit always looks.
fn refusal_is_known(place: &Place) -> bool {
    refusal().as_ref().is_some_and(|(known, when)| known == place && when.elapsed() < Duration::from_secs(1))
}

/// Keeps why a group that is not needed could not be made, if that is for want of rights or of a controller. Anything else
/// (a name that is taken, no descriptors left) is a failure.
fn refused(first: &mut Option<Error>, e: Error) -> Result<()> {
    match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::Unsupported => {
            first.get_or_insert(e);
            Ok(())
        }
        _ => Err(e),
    }
}

/// Groups under construction: what was made is removed again unless all succeeds.
struct Making<'a> {
    id: &'a str,
    v2: Option<V2Part>,
    v1: Vec<V1Part>,
    done: bool,
}

impl Making<'_> {
    /// The group in the v2 tree, with those of the controllers that are needed for a field, and of the others what can be had.
    /// The error comes with the field that cannot be served.
    fn v2<'c>(
        &mut self,
        h: &Hierarchy,
        place: &Place,
        controllers: impl Iterator<Item = &'c (Controller, Option<&'static str>)> + Clone,
    ) -> Result<(), (Error, Option<&'static str>)> {
        let needed = controllers.clone().find_map(|(_, field)| *field);
        let parent = match parent::find(h, place, controllers.clone().next().is_some()) {
            Ok(parent) => parent,
            Err(e) if needed.is_some() => return Err((e, needed)),
            // Without controllers more places will do, the caller's own group for one.
            Err(_) => parent::find(h, place, false).map_err(|e| (e, None))?,
        };
        for &(controller, field) in controllers {
            match parent.enable(controller) {
                Ok(()) => {}
                Err(e) if field.is_some() => return Err((e, field)),
                Err(_) => {}
            }
        }
        let failed = |step: &str, e: Errno| (failed_at(step, e, &parent.path.join(self.id)), needed);
        file::make_dir(&parent.dir, OsStr::new(self.id)).map_err(|e| failed("make the control group", e))?;
        match file::open_dir(&parent.dir, Path::new(self.id)) {
            Ok(dir) => self.v2 = Some(V2Part::new(parent, dir)),
            Err(e) => {
                let _ = unlinkat(&parent.dir, self.id, UnlinkatFlags::RemoveDir);
                return Err(failed("open the control group", e));
            }
        }
        Ok(())
    }

    /// The group in a v1 hierarchy; nothing to do when it is there already (controllers that are mounted together).
    fn v1(&mut self, h: &Hierarchy, place: &Place) -> Result<()> {
        let parent = parent::find(h, place, false)?;
        if !self.v1.iter().any(|part| Arc::ptr_eq(&part.parent, &parent)) {
            self.v1.push(V1Part::make(parent, self.id)?);
        }
        Ok(())
    }

    /// Makes the groups of the payload and of what serves ports. The payload's has what it is counted by, and what protects the
    /// groups in it: the kernel gives them of a protection no more than the group above has.
    fn divide(&mut self, settings: &[Setting]) -> Result<()> {
        let Some(V2Part { parent, dir, inner }) = &mut self.v2 else { return Ok(()) };
        let path = parent.path.join(self.id);
        for name in [sub::RELAY, sub::PAYLOAD] {
            file::make_dir(&*dir, OsStr::new(name))
                .map_err(|e| failed_at("make the control group", e, &path.join(name)))?;
        }
        let given = file::read(&*dir, "cgroup.controllers").map_err(|e| failed_at("read", e, &path))?;
        let for_payload = settings.iter().filter(|s| s.is_for_payload()).map(|s| s.controller);
        let mut passed: Vec<&str> = for_payload.chain([Controller::Pids]).map(Controller::name).collect();
        passed.retain(|name| given.split_whitespace().any(|given| given == *name));
        sub::pass(dir, &path, &passed)?;
        let opened = file::open_dir(&*dir, Path::new(sub::PAYLOAD));
        *inner = Some(opened.map_err(|e| failed_at("open", e, &path.join(sub::PAYLOAD)))?);
        Ok(())
    }

    /// Lets the heir make groups, and move its processes between them: gives it the directories and the files that do that, which
    /// on v2 are those of the kernel's admin-guide/cgroup-v2, "Delegation".
    ///
    /// That is a group inside the container's, so that the limits of the whole are out of its reach even where it has the same id
    /// as the one who set them. On v2 its processes are in a leaf of that, because a group with processes cannot give controllers
    /// on. The freezer of v1 is not given: what froze itself there could not be killed.
    fn bequeath(&mut self, heir: Heir) -> Result<()> {
        const V1: [&str; 2] = ["tasks", "cgroup.procs"];
        const V2: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
        // Each is memory of the kernel and a number of which it has 65,535 for all: an empty one is no process that would count.
        const BOUNDS: [(&str, &str); 2] = [("cgroup.max.descendants", "4096"), ("cgroup.max.depth", "64")];
        let give = |parent: &Parent, name: &str, files: &[&str]| {
            for file in [""].iter().chain(files) {
                let path = if file.is_empty() { name.to_owned() } else { format!("{name}/{file}") };
                file::give(&parent.dir, &path, heir.uid, heir.gid)
                    .map_err(|e| failed_at("chown", e, &parent.path.join(&path)))?;
            }
            Ok(())
        };
        for part in self.v1.iter_mut().filter(|part| !has(&part.parent, "freezer")) {
            part.add_leaf(self.id)?;
            give(&part.parent, &format!("{}/{}", self.id, sub::PAYLOAD), &V1)?;
        }
        let Some(v2) = &self.v2 else { return Ok(()) };
        let (parent, dir, name) = (&v2.parent, v2.inner(), v2.inner_path(self.id));
        let path = parent.path.join(self.id);
        let given = file::read(&v2.dir, "cgroup.controllers").map_err(|e| failed_at("read", e, &path))?;
        let given = given.split_whitespace().collect::<Vec<_>>();
        sub::pass(&v2.dir, &path, &given)?;
        let path = parent.path.join(&name);
        sub::pass(dir, &path, &given)?;
        for (file, bound) in BOUNDS {
            file::write(dir, file, bound).map_err(|e| failed_at("write", e, &path.join(file)))?;
        }
        for inside in [sub::PAYLOAD, sub::LEAF] {
            file::make_dir(dir, OsStr::new(inside))
                .map_err(|e| failed_at("make the control group", e, &path.join(inside)))?;
            give(parent, &name.join(inside).to_string_lossy(), &V2)?;
        }
        Ok(())
    }

    /// Sets the limits, before any process is in the groups.
    fn limit(&self, settings: &[Setting]) -> Result<()> {
        settings::set_all(settings, &self.v1, self.v2.as_ref(), self.id)
    }

    fn finish(mut self, limits: &Limits, spare: Vec<Arc<Parent>>) -> Option<Group> {
        self.done = true;
        if self.v2.is_none() && self.v1.is_empty() {
            return None;
        }
        let (v2, v1) = (self.v2.take(), std::mem::take(&mut self.v1));
        let group = Group::assemble(self.id.to_owned(), v2, v1, spare, Some(limits.clone()));
        group.find_payload();
        Some(group)
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for parent in self.v2.iter().map(|v2| &v2.parent).chain(self.v1.iter().map(|part| &part.parent)) {
            // Nobody was ever in it, so there is nothing to wait for.
            let _ = file::remove_tree(parent.dir.as_fd(), OsStr::new(self.id), Instant::now() + REMOVE_TIMEOUT);
        }
    }
}
