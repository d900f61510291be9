//! Descriptors that forked children of the host must not keep: a lock lives as long as any copy of its open file
//! description, and a forked worker may outlive the host by hours.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// Plain numbers in static memory, because a forked child may neither allocate nor lock before it closes them. More than
/// this many at once (one per process and one per named container) still work; a fork then copies them.
static OPEN: [AtomicI32; 1024] = [const { AtomicI32::new(-1) }; 1024];

/// An owned descriptor that [`after_fork_child`] closes.
#[derive(Debug)]
pub(super) struct PrivateFd {
    fd: ManuallyDrop<OwnedFd>,
    /// Which process may close it.
    owner: u32,
}

impl PrivateFd {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let number = fd.as_raw_fd();
        for slot in &OPEN {
            if slot.compare_exchange(-1, number, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        Self { fd: ManuallyDrop::new(fd), owner: std::process::id() }
    }

    /// False in a forked child: there the number is closed, or already means something else.
    pub(super) fn is_ours(&self) -> bool {
        self.owner == std::process::id()
    }
}

impl AsFd for PrivateFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let number = self.fd.as_raw_fd();
        for slot in &OPEN {
            if slot.compare_exchange(number, -1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                break;
            }
        }
        // Not by OwnedFd: taking it out of ManuallyDrop needs unsafe, closing its number does not.
        let _ = nix::unistd::close(number);
    }
}

/// In a forked child of the host: closes its copies. Async-signal-safe.
pub(super) fn after_fork_child() {
    for slot in &OPEN {
        let number = slot.swap(-1, Ordering::AcqRel);
        if number >= 0 {
            let _ = nix::unistd::close(number);
        }
    }
}
