//! Groups whose keeper is gone.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::layout::{self, Hierarchy};
use super::parent::{self, Parent, Place, RINGFENCE};
use super::{REMOVE_TIMEOUT, file, scope, v2};
use crate::cgroup::v1::V1Group;

/// What [`sweep`] did.
#[derive(Debug, Default)]
pub(crate) struct SweepReport {
    /// Containers whose groups were removed.
    pub removed: Vec<String>,
    /// Processes that were still in them, killed.
    pub killed: usize,
    /// What is still there, and why.
    pub remaining: Vec<String>,
}

/// Kills and removes every group `rf-*` whose id `is_stale` says belongs to nobody, in all places where this caller makes
/// groups by default, by RINGFENCE_CGROUP_PARENT, or by a spec of this process. Then removes `ringfence` itself where it is empty.
///
/// The whole tree is not searched: a group in a container's part of it belongs to that container's pid namespace, in which
/// ids mean other processes.
pub(crate) fn sweep(is_stale: &dyn Fn(&str) -> bool) -> SweepReport {
    let mut report = SweepReport::default();
    let Ok(layout) = layout::current() else { return report };
    let mut found: BTreeMap<String, Vec<Parent>> = BTreeMap::new();
    // Judged once: a keeper that ends meanwhile would lose its groups in some hierarchies only.
    let mut judged: BTreeMap<String, bool> = BTreeMap::new();
    for h in &layout.hierarchies {
        for (path, dir) in places(h) {
            let Ok(groups) = file::sub_groups(&dir) else { continue };
            let dir = Arc::new(dir);
            for id in groups.iter().filter_map(|name| name.to_str().ok()) {
                if id.starts_with("rf-") && *judged.entry(id.to_owned()).or_insert_with(|| is_stale(id)) {
                    let parent = Parent::shared(h.v2, h.controllers.clone(), path.clone(), dir.clone());
                    found.entry(id.to_owned()).or_default().push(parent);
                }
            }
        }
    }
    for (id, parents) in found {
        match end(&id, &parents, &mut report.killed) {
            Ok(()) => report.removed.push(id),
            Err(why) => report.remaining.push(why),
        }
    }
    parent::remove_made_directories();
    for h in &layout.hierarchies {
        remove_ringfence(h);
    }
    report
}

/// Every directory of a hierarchy in which this caller may have made groups.
fn places(h: &Hierarchy) -> Vec<(PathBuf, OwnedFd)> {
    let Ok(root) = file::open_mount(&h.mount_point) else { return Vec::new() };
    let mut paths = vec![PathBuf::from(RINGFENCE)];
    for above in h.own.iter().flat_map(|own| own.ancestors()) {
        paths.push(above.join(RINGFENCE));
    }
    paths.extend(h.own.clone());
    paths.extend(parent::named());
    if h.v2 {
        paths.extend(scope::all(h));
    }
    if let Ok(Place::Environment(path)) = Place::choose(None) {
        paths.push(path);
    }
    paths.sort();
    paths.dedup();
    paths.into_iter().filter_map(|path| Some((h.mount_point.join(&path), file::open_dir(&root, &path).ok()?))).collect()
}

fn end(id: &str, parents: &[Parent], killed: &mut usize) -> Result<(), String> {
    let deadline = Instant::now() + REMOVE_TIMEOUT;
    let name = OsStr::new(id);
    let still = parents.iter().map(|p| file::pids(p.dir.as_fd(), name).map_or(0, |pids| pids.len())).max().unwrap_or(0);
    // The v2 group first: `cgroup.kill` needs no second round, and ends frozen processes.
    let mut ordered: Vec<_> = parents.iter().collect();
    ordered.sort_by_key(|p| !p.v2);
    let mut all_killed = false;
    for parent in &ordered {
        let done = parent.v2
            && file::open_dir(&parent.dir, Path::new(id)).is_ok_and(|dir| v2::kill(dir.as_fd()).unwrap_or(false));
        let group = V1Group { parent, name: id };
        if parent.controllers.iter().any(|c| c == "freezer") {
            // A stale group may have been left frozen, and a frozen task of v1 does not die.
            let _ = group.set_frozen(false, REMOVE_TIMEOUT);
        }
        // All processes are in the v2 group as well.
        all_killed |= done;
        if !all_killed {
            group.kill_all(deadline).map_err(|e| e.to_string())?;
        }
    }
    for parent in &ordered {
        file::remove_tree(parent.dir.as_fd(), name, deadline)
            .map_err(|e| format!("{}: {e}", parent.path.join(id).display()))?;
    }
    *killed += still;
    Ok(())
}

/// Another process may have made it and ended; the kernel keeps it while it has groups in it.
fn remove_ringfence(h: &Hierarchy) {
    let Ok(root) = file::open_mount(&h.mount_point) else { return };
    let above = h.own.iter().flat_map(|own| own.ancestors()).chain([Path::new("")]);
    for above in above {
        // One that belongs to another user was made by an administrator, to delegate it.
        if let Ok(dir) = file::open_dir(&root, above)
            && let Ok(ours) = file::open_dir(&dir, Path::new(RINGFENCE))
            && nix::sys::stat::fstat(&ours).is_ok_and(|s| s.st_uid == nix::unistd::geteuid().as_raw())
        {
            let _ = nix::unistd::unlinkat(&dir, RINGFENCE, nix::unistd::UnlinkatFlags::RemoveDir);
        }
    }
}
