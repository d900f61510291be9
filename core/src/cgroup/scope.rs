//! Groups in a scope of systemd: where the caller has no place of its own in systemd's tree.
//!
//! One scope serves all keepers of a host: then the weights of its containers count against each other, systemd is asked
//! once and not at each start, and a container's processes are born where they belong, because the kernel wants to see
//! write access to the nearest common ancestor of the keeper's group and theirs. The keepers are moved into it, never the
//! host; they sit in a leaf, because a group with processes gives no controllers to the groups in it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::file;
use super::layout::{self, Controller, Hierarchy, Kind, Layout};
use super::parent::{self, Place};
use crate::error::{Error, Result};
use crate::systemd;

/// The group of the keepers in their scope.
pub(crate) const LEAF: &str = "keeper";
/// How the names of scopes begin.
pub(super) const PREFIX: &str = "ringfence-";

/// The tree that systemd keeps, if it keeps one: cgroup v2 alone.
fn tree(layout: &Layout) -> Option<&Hierarchy> {
    layout.v2().filter(|h| layout.kind() == Kind::V2 && !h.read_only && systemd::is_running())
}

/// Whether groups with controllers need a scope: this caller can make none by default, or only (as root) outside of all units,
/// in the root of the tree, which is systemd's. The caller has just called `whereabouts`.
pub(crate) fn is_needed() -> bool {
    let needed = || -> Option<bool> {
        let layout = layout::current().ok()?;
        Some(parent::lacks_default(tree(&layout)?))
    };
    needed() == Some(true)
}

/// The unit that this process runs in: its end is the end of every process in it. `None` where there is no systemd.
pub(crate) fn own_unit() -> Option<String> {
    super::whereabouts();
    let layout = layout::current().ok()?;
    systemd::unit_of(tree(&layout)?.own.as_deref()?).map(str::to_owned)
}

/// The slice for a scope of this process's.
pub(crate) fn own_slice(manager: systemd::Manager) -> Option<String> {
    let layout = layout::current().ok()?;
    systemd::slice_of(layout.v2()?.own.as_deref()?, manager).map(str::to_owned)
}

/// Puts the only process of a new scope into its leaf. The result is the scope as a place for groups.
pub(crate) fn settle(group: &Path, pid: i32) -> Result<Place> {
    let layout = layout::current()?;
    let gone = |e: Errno, path: &Path| Error::os("open the scope", e as i32).with_path(path.to_string_lossy());
    let h = layout.v2().ok_or_else(|| gone(Errno::ENOENT, group))?;
    let path = group.strip_prefix(&h.root).map_err(|_| gone(Errno::ENOENT, group))?;
    let shown = h.mount_point.join(path);
    let scope = open(h, path).map_err(|e| gone(e, &shown))?;
    let failed = |step: &str, e: Errno| {
        Error::os(step, e as i32)
            .with_path(shown.join(LEAF).to_string_lossy())
            .with_hint("systemd did not delegate the scope to this user")
    };
    match file::make_dir(&scope, OsStr::new(LEAF)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(failed("make a control group in the scope", e)),
    }
    file::write(&scope, &format!("{LEAF}/cgroup.procs"), &pid.to_string())
        .map_err(|e| failed("move the keeper to its leaf", e))?;
    Ok(Place::Scope(path.to_owned()))
}

/// Whether a keeper in a scope could make processes in the groups of a place: its user must be allowed to fill the nearest group
/// above both.
pub(crate) fn can_reach(place: &Place, scope: &Place) -> bool {
    let (Some(there), Place::Scope(here)) = (place.explicit(), scope) else { return true };
    let common: PathBuf = there.iter().zip(here).take_while(|(a, b)| a == b).map(|(name, _)| name).collect();
    layout::current().is_ok_and(|layout| {
        layout.v2().is_none_or(|h| open(h, &common).is_ok_and(|dir| file::writable(&dir, "cgroup.procs").is_ok()))
    })
}

/// Whether groups in a scope would have the controller: the manager has to have it.
pub(super) fn would_have(h: &Hierarchy, manager: systemd::Manager, controller: Controller) -> Result<()> {
    let path = h.mount_point.join(manager.group());
    let dir = open(h, &manager.group()).map_err(|e| Error::os("open", e as i32).with_path(path.to_string_lossy()))?;
    parent::must_enable(&dir, &path, controller).map(drop)
}

fn open(h: &Hierarchy, path: &Path) -> nix::Result<OwnedFd> {
    file::open_dir(file::open_mount(&h.mount_point)?, path)
}

/// The scopes below this caller's manager, for what was left in them: one whose keeper was killed lives as long as its
/// processes.
pub(super) fn all(h: &Hierarchy) -> Vec<PathBuf> {
    if !systemd::is_running() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut slices = vec![systemd::Manager::of_caller().group()];
    while let Some(slice) = slices.pop() {
        let names = open(h, &slice).and_then(file::sub_groups).unwrap_or_default();
        for name in names.iter().filter_map(|name| name.to_str().ok()) {
            if name.ends_with(".slice") {
                slices.push(slice.join(name));
            } else if name.starts_with(PREFIX) && name.ends_with(".scope") {
                found.push(slice.join(name));
            }
        }
    }
    found
}
