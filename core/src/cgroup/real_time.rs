//! Budgets of real-time on cgroup v1 (CONFIG_RT_GROUP_SCHED).
//!
//! A new group has none, so that no process in it can have a real-time policy, and the groups in a group share what that one
//! has. So the directories that were made for containers need what the containers in them need.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::limits::Bandwidth;
use super::parent::Parent;
use super::{failed_at, file};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::MADE;
use crate::sys::xattr;

pub(super) const RUNTIME: &str = "cpu.rt_runtime_us";
const PERIOD: &str = "cpu.rt_period_us";

/// The kernel's scale of shares, by which it compares: 2^20 is all of a processor.
fn share(budget: Bandwidth) -> u64 {
    ((u128::from(budget.quota) << 20) / u128::from(budget.period.max(1))).try_into().unwrap_or(u64::MAX)
}

/// How long the kernel may take to let go of a removed group (some 30 ms on 6.18).
const RELEASE: Duration = Duration::from_millis(300);

/// The budget of a group that was just removed is free only once the kernel has let go of it; until then it is EINVAL.
pub(super) fn patiently<T>(mut write: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    let until = Instant::now() + RELEASE;
    loop {
        match write() {
            Err(Errno::EINVAL) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            result => return result,
        }
    }
}

/// Sees to it that the group `name` in `parent` can have this budget, as far as the groups above are ringfence's own: they get
/// what is missing. What the others lack shows when the group itself is given its budget.
pub(super) fn lend(parent: &Parent, name: &str, budget: Bandwidth) -> Result<()> {
    let failed = |e, path: &Path| failed_at("read the real-time budget of", e, path).with_field("cpu_rt_runtime");
    if !file::exists(&parent.dir, RUNTIME) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this kernel has no budgets of real-time (CONFIG_RT_GROUP_SCHED)",
        )
        .with_field("cpu_rt_runtime")
        .with_hint("real-time processes need none then: leave it out"));
    }
    let mut raised: Vec<(OwnedFd, PathBuf, Bandwidth)> = Vec::new();
    let (mut dir, mut path) = (copy(&parent.dir).map_err(|e| failed(e, &parent.path))?, parent.path.clone());
    let mut child: CString = CString::new(name).unwrap_or_default();
    let mut wanted = share(budget);
    while is_made(&dir, &path) {
        let own = read(&dir, "").map_err(|e| failed(e, &path))?;
        let mut all = wanted;
        for other in file::sub_groups(&dir).map_err(|e| failed(e, &path))? {
            if other != child {
                // One that goes meanwhile takes nothing.
                let other = Path::new(OsStr::from_bytes(other.to_bytes())).to_string_lossy().into_owned();
                all = all.saturating_add(read(&dir, &format!("{other}/")).map_or(0, share));
            }
        }
        if share(own) >= all {
            break;
        }
        let quota = (u128::from(all) * u128::from(own.period)).div_ceil(1 << 20);
        let above = file::open_dir(&dir, Path::new("..")).map_err(|e| failed(e, &path))?;
        child = CString::new(path.file_name().unwrap_or_default().as_bytes()).unwrap_or_default();
        let now = Bandwidth { quota: u64::try_from(quota).unwrap_or(u64::MAX).min(own.period), period: own.period };
        wanted = share(now);
        raised.push((dir, path.clone(), now));
        dir = above;
        path.pop();
    }
    for (dir, path, budget) in raised.iter().rev() {
        patiently(|| file::write(dir, RUNTIME, &budget.quota.to_string())).map_err(|e| {
            let error =
                failed_at(&format!("write {} to", budget.quota), e, &path.join(RUNTIME)).with_field("cpu_rt_runtime");
            if e == Errno::EINVAL {
                error.with_hint("the groups above have no more left: see cpu.rt_runtime_us in them")
            } else {
                error
            }
        })?;
    }
    Ok(())
}

fn copy(dir: &OwnedFd) -> nix::Result<OwnedFd> {
    dir.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)
}

fn read(dir: &OwnedFd, prefix: &str) -> nix::Result<Bandwidth> {
    let number = |name: &str| -> nix::Result<i64> {
        file::read(dir, &format!("{prefix}{name}"))?.trim().parse().map_err(|_| Errno::EINVAL)
    };
    // -1 is no bound.
    let (quota, period) = (number(RUNTIME)?, number(PERIOD)?);
    let period = u64::try_from(period).unwrap_or(1);
    Ok(Bandwidth { quota: u64::try_from(quota).unwrap_or(period), period })
}

/// Whether this is a directory that ringfence made for containers.
fn is_made(dir: &OwnedFd, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    MADE.iter().any(|mark| xattr::get(dir, mark).is_ok_and(|value| value == name))
}
