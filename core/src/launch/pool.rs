//! The keepers of this process: one, more under load, at most one per processor.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use once_cell::sync::OnceCell;

use super::birth;
use super::keeper::{Detached, Keeper};
use crate::error::Result;
use crate::proto::request;

static POOL: Mutex<Vec<Arc<Keeper>>> = Mutex::new(Vec::new());

fn pool() -> std::sync::MutexGuard<'static, Vec<Arc<Keeper>>> {
    POOL.lock().unwrap_or_else(|e| e.into_inner())
}

/// A keeper for a start. `not`: keepers that refused this thread's credentials.
pub(crate) fn acquire(not: &[Arc<Keeper>]) -> Result<Arc<Keeper>> {
    // Asked once: it reads the control group's files.
    static PROCESSORS: OnceCell<usize> = OnceCell::new();
    let processors = *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let (best, count) = {
        let mut pool = pool();
        pool.retain(|k| !k.is_dead() && k.owner.is_this());
        let usable = pool.iter().filter(|k| !not.iter().any(|n| Arc::ptr_eq(n, k)) && k.has_room_for_shares());
        let best = usable.min_by_key(|k| k.starting.load(Ordering::Relaxed)).cloned();
        (best, pool.len())
    };
    if let Some(keeper) = &best
        && (keeper.starting.load(Ordering::Relaxed) < 2 || count >= processors)
    {
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
