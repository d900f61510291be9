//! A forked child of the host has copies of its handles, but not its containers.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use once_cell::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};

/// Sockets that a forked child closes at once: a worker must not keep a keeper's socket open, nor be able to use it.
static TO_CLOSE: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

extern "C" fn in_child() {
    // Only close(2) here: other threads of the parent may have held any lock.
    for entry in &TO_CLOSE {
        let fd = entry.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: the descriptor was this library's in the parent, and nobody in the child uses it: every call checks
            // its owner first.
            unsafe { libc::close(fd) };
        }
    }
    crate::state::ids::after_fork_child();
}

/// Registers the child handler, once.
pub(super) fn watch() {
    static REGISTERED: OnceCell<()> = OnceCell::new();
    REGISTERED.get_or_init(|| {
        // SAFETY: the handler is async-signal-safe, and the library is never unloaded (-z nodelete).
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

pub(super) fn close_in_children(fd: i32) {
    for entry in &TO_CLOSE {
        if entry.compare_exchange(-1, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

pub(super) fn forget(fd: i32) {
    for entry in &TO_CLOSE {
        if entry.compare_exchange(fd, -1, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
}

/// Whether a number is one of these sockets.
pub(super) fn is_ours(fd: i32) -> bool {
    TO_CLOSE.iter().any(|entry| entry.load(Ordering::Relaxed) == fd)
}

/// One thread at a time. No mutex: a forked child would find it locked for ever by a thread that it does not have.
pub(super) struct Turn(&'static AtomicU32);

impl Turn {
    /// `turn`: the process of the thread whose turn it is; 0 is none. `None`: another thread's of this process.
    pub fn begin(turn: &'static AtomicU32) -> Option<Self> {
        let (me, now) = (std::process::id(), turn.load(Ordering::Relaxed));
        let free = now != me && turn.compare_exchange(now, me, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| Self(turn))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// The process that a handle belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    pub fn this() -> Self {
        Self(std::process::id())
    }

    pub fn is_this(self) -> bool {
        self == Self::this()
    }

    /// The error of every call in a forked child.
    pub fn check(self) -> Result<()> {
        if self.is_this() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::ForkedChild,
            "this handle belongs to the parent process, which started the container",
        )
        .with_errno(libc::ECHILD)
        .with_hint("start containers of its own in the forked process, or use them in the parent"))
    }
}
