//! The keepers of this process: one, more under load, at most one per processor.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::birth;
use super::fork::Turn;
use super::keeper::{Detached, Keeper};
use crate::error::Result;
use crate::proto::request;

static POOL: Mutex<Vec<Arc<Keeper>>> = Mutex::new(Vec::new());

fn pool() -> std::sync::MutexGuard<'static, Vec<Arc<Keeper>>> {
    POOL.lock().unwrap_or_else(|e| e.into_inner())
}

/// The process in which a keeper is being born.
static BIRTH: AtomicU32 = AtomicU32::new(0);

/// A keeper for a start. `not`: keepers that refused this thread's credentials.
pub(crate) fn acquire(not: &[Arc<Keeper>]) -> Result<Arc<Keeper>> {
    // Asked once: it reads the control group's files.
    static PROCESSORS: OnceCell<usize> = OnceCell::new();
    let processors = *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    // A keeper with other rights would refuse this thread; that shows only after sources were opened with the wrong ones.
    let privileged = birth::is_privileged();
    let uid = nix::unistd::geteuid().as_raw();
    let fits =
        |keeper: &Keeper| keeper.privileged == privileged && keeper.outer.as_ref().is_none_or(|outer| outer.uid == uid);
    let look = || {
        let mut pool = pool();
        pool.retain(|k| !k.is_dead() && k.owner.is_this());
        let usable =
            pool.iter().filter(|k| fits(k) && !not.iter().any(|n| Arc::ptr_eq(n, k)) && k.has_room_for_shares());
        let best = usable.min_by_key(|k| k.starting.load(Ordering::Relaxed)).cloned();
        let enough =
            best.as_ref().is_some_and(|keeper| keeper.starting.load(Ordering::Relaxed) < 2 || pool.len() >= processors);
        (best, enough)
    };
    let (mut best, mut enough) = look();
    // One birth at a time, or many threads that start at once would make as many keepers.
    let birth = loop {
        if enough {
            break None;
        }
        match Turn::begin(&BIRTH) {
            Some(birth) => {
                (best, enough) = look();
                if !enough {
                    break Some(birth);
                }
            }
            None if best.is_some() => break None,
            None => {
                std::thread::sleep(Duration::from_micros(100));
                (best, enough) = look();
            }
        }
    };
    if let (Some(keeper), None) = (&best, &birth) {
        return Ok(keeper.clone());
    }
    match birth::start(None) {
        Ok(keeper) => {
            let keeper = Arc::new(keeper);
            pool().push(keeper.clone());
            Ok(keeper)
        }
        // A second one is a matter of speed only.
        Err(error) => best.ok_or(error),
    }
}

/// Those that run now.
pub(crate) fn keepers() -> Vec<Arc<Keeper>> {
    pool().iter().filter(|k| !k.is_dead() && k.owner.is_this()).cloned().collect()
}

pub(crate) fn start_detached(detached: Detached) -> Result<Arc<Keeper>> {
    Ok(Arc::new(birth::start(Some(detached))?))
}

pub(super) fn end_all() {
    for keeper in std::mem::take(&mut *pool()) {
        if keeper.owner.is_this() {
            let _ = keeper.send(request::LEAVE, 0, 0, 0, &[]);
            keeper.mark_dead();
        }
    }
}
