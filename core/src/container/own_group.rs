//! The control group of a container that is being started.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::role::Role;
use super::start::Attempt;
use crate::cgroup::{DeviceRules, Group, Limits, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Keeper};
use crate::plan::facts::{Facts, GroupMount};
use crate::spec::Spec;

/// The index of a directory in the keeper's table, or what becomes of the attempt without one.
pub(super) fn share(keeper: &Arc<Keeper>, directory: &Arc<OwnedFd>) -> Result<std::result::Result<usize, Attempt>> {
    Ok(match keeper.share(directory)? {
        launch::Shared::At(index) => Ok(index),
        launch::Shared::Refused => Err(Attempt::Refused(keeper.clone())),
        launch::Shared::Left => Err(Attempt::KeeperLeft),
    })
}

/// Makes the group of a container that is in no pod's.
pub(super) fn own_group(
    spec: &Spec,
    role: Role<'_>,
    keeper: &Arc<Keeper>,
    id: &str,
    (limits, purpose): (&Limits, Purpose<'_>),
) -> Result<std::result::Result<Option<Group>, Attempt>> {
    let whereabouts = crate::cgroup::whereabouts();
    let rules = purpose.devices.and_then(DeviceRules::field);
    let rules = rules.map(|field| if field == "device_rules" { "device_rules" } else { "devices" });
    let needed = matches!(role, Role::Holder { pids: true }).then_some("share").or(rules);
    let Some(place) = launch::place(keeper, spec, limits, needed)? else { return Ok(Err(Attempt::KeeperLeft)) };
    if spec.cgroup_parent.is_some() || keeper.group_parents.load(Ordering::Relaxed) != whereabouts {
        let parents = Group::open_parents(&place, limits, purpose.devices.is_some())?;
        for parent in &parents {
            if let Err(not_taken) = share(keeper, parent)? {
                return Ok(Err(not_taken));
            }
        }
        if spec.cgroup_parent.is_none() && !parents.is_empty() {
            keeper.group_parents.store(whereabouts, Ordering::Relaxed);
        }
    }
    Group::create_in(&place, id, limits, purpose).map(Ok)
}

/// Makes the group of a container that is in that of its pod.
pub(super) fn member_group(
    above: &Group,
    keeper: &Arc<Keeper>,
    id: &str,
    limits: &Limits,
) -> Result<std::result::Result<Option<Group>, Attempt>> {
    for parent in above.parents() {
        if let Err(not_taken) = share(keeper, parent)? {
            return Ok(Err(not_taken));
        }
    }
    above.member(id, limits).map(|group| Ok(Some(group)))
}

/// What a plan has to know of the group: how it is entered, what of it is mounted inside (`inherits`), what is removed at the end.
pub(super) fn describe_group(
    facts: &mut Facts,
    keeper: &Arc<Keeper>,
    group: &Group,
    pod_group: Option<&Group>,
    (inherits, own_pids): (bool, bool),
) -> Result<std::result::Result<(), Attempt>> {
    facts.group_dir = group.v2_dir().is_some();
    facts.group_tasks = group.v1().len();
    if inherits {
        facts.group_leaf = facts.group_dir;
        let mount = |(v2, name, controllers)| GroupMount { v2, name, controllers };
        facts.group_mounts = group.inherited().into_iter().map(mount).collect();
    }
    // A member's are in those of its pod, whose parents the keeper knows.
    let (above, names) = match pod_group {
        Some(above) => (above, above.member_paths(group.name())),
        None => (group, vec![group.name().to_owned(); group.parents().len()]),
    };
    for (parent, name) in above.parents().iter().zip(names) {
        match share(keeper, parent)? {
            Ok(index) => facts.undo_groups.push((index, name)),
            Err(not_taken) => return Ok(Err(not_taken)),
        }
    }
    if !own_pids && facts.group_dir {
        // The v2 parent is the first.
        facts.kill_group = facts.undo_groups.first().cloned();
    }
    Ok(Ok(()))
}

/// Removes the groups of a start that fails before the keeper knows of them, or after it undid the rest.
pub(super) struct Making {
    pub(super) group: Option<Group>,
    pub(super) done: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(group) = &self.group
            && !self.done
        {
            let _ = group.remove();
        }
    }
}

/// What processor time is read from.
pub(super) fn time_counter(group: Option<&Group>) -> Result<OwnedFd> {
    let none = || {
        Error::new(
            ErrorKind::Unsupported,
            "processor time is counted for a control group in a v2 tree, and there is none",
        )
        .with_field("cpu_time")
        .with_hint("doctor() says why there is none, and how to get one delegated; rlimits.cpu limits each process")
    };
    let dir = group.and_then(Group::v2_dir).ok_or_else(none)?;
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    nix::fcntl::openat(dir, "cpu.stat", flags, nix::sys::stat::Mode::empty())
        .map_err(|e| Error::os("open", e as i32).with_field("cpu_time").with_path("cpu.stat"))
}

/// A container that divides its groups would be out of reach of a limit that does not hold in them.
pub(super) fn check_nested_rates(spec: &Spec) -> Result<()> {
    if !spec.nesting || spec.io_max.is_empty() || !crate::cgroup::rates_are_for_one_group() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "cgroup v1 limits the rates of a device for one group, not for the groups in it, which `nesting` lets the container make",
    )
    .with_field("io_max")
    .with_hint("leave out nesting or io_max, or use cgroup v2"))
}
