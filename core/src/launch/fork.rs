//! A forked child of the host has copies of its handles, but not its containers.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use once_cell::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};

/// A descriptor that a forked child of the host must not keep: a keeper's socket, a lock, a layer. A lock lives as long as any
/// copy of its open file description, a file system stays as long as somebody has something on it open, and a forked worker
/// may outlive the host by hours. So the child closes its copy before fork(2) returns there.
///
/// (A fork at the very moment at which another thread has just got such a descriptor copies it; so does a bare clone(2), which
/// calls no handler.)
#[derive(Debug)]
pub(crate) struct HostOnly {
    fd: ManuallyDrop<OwnedFd>,
    entry: &'static AtomicU64,
    token: u64,
    owner: Owner,
}

/// Entries of descriptors that are open: see [`token`]. Blocks are never given back, because a handler may be reading them.
struct Block {
    entries: [AtomicU64; 128],
    next: AtomicPtr<Block>,
}

impl Block {
    const fn new() -> Self {
        Self { entries: [const { AtomicU64::new(FREE) }; 128], next: AtomicPtr::new(null_mut()) }
    }
}

static FIRST: Block = Block::new();

const FREE: u64 = 0;

/// A descriptor's number below a number that no other has: when an entry was freed by a fork and taken again, maybe with the
/// same descriptor, it is not the old owner's.
fn token(fd: i32) -> u64 {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed) | 1 << 31;
    u64::from(count) << 32 | u64::from(fd as u32)
}

fn blocks() -> impl Iterator<Item = &'static Block> {
    std::iter::successors(Some(&FIRST), |block| {
        // SAFETY: null, or a block that is complete (the store is a release) and stays for ever.
        unsafe { block.next.load(Ordering::Acquire).as_ref() }
    })
}

/// An entry that has the token now.
fn enter(token: u64) -> &'static AtomicU64 {
    loop {
        let mut last = &FIRST;
        for block in blocks() {
            for entry in &block.entries {
                if entry.load(Ordering::Relaxed) == FREE
                    && entry.compare_exchange(FREE, token, Ordering::AcqRel, Ordering::Relaxed).is_ok()
                {
                    return entry;
                }
            }
            last = block;
        }
        let new = Box::into_raw(Box::new(Block::new()));
        if last.next.compare_exchange(null_mut(), new, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            // SAFETY: another thread was faster; nobody has seen this one.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

extern "C" fn in_child() {
    // Only atomics and close(2) here: other threads of the parent may have held any lock.
    for block in blocks() {
        for entry in &block.entries {
            let token = entry.swap(FREE, Ordering::AcqRel);
            if token != FREE {
                // SAFETY: the descriptor was this library's in the parent, and nobody in the child uses it: every call checks
                // its owner first.
                unsafe { libc::close(token as u32 as i32) };
            }
        }
    }
}

/// Registers the child handler, once.
fn watch() {
    static REGISTERED: OnceCell<()> = OnceCell::new();
    REGISTERED.get_or_init(|| {
        // SAFETY: the handler is async-signal-safe, and the library is never unloaded (-z nodelete).
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

impl HostOnly {
    pub fn new(fd: OwnedFd) -> Self {
        watch();
        let token = token(fd.as_raw_fd());
        Self { fd: ManuallyDrop::new(fd), entry: enter(token), token, owner: Owner::this() }
    }

    /// False in a forked child, also in one for which no handler was called: there the number is closed, or means something
    /// else, or is a copy of what is the parent's.
    pub fn is_open(&self) -> bool {
        self.owner.is_this() && self.entry.load(Ordering::Relaxed) == self.token
    }
}

impl From<OwnedFd> for HostOnly {
    fn from(fd: OwnedFd) -> Self {
        Self::new(fd)
    }
}

impl AsFd for HostOnly {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for HostOnly {
    fn drop(&mut self) {
        // First the entry: once it is closed, the number can be anybody's.
        if self.entry.compare_exchange(self.token, FREE, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: not used after this.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// Whether a number is one of these descriptors.
pub(super) fn is_ours(fd: i32) -> bool {
    let has = |entry: &AtomicU64| {
        let token = entry.load(Ordering::Relaxed);
        token != FREE && token as u32 == fd as u32
    };
    blocks().any(|block| block.entries.iter().any(has))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    fn open() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("/dev/null").into()
    }

    fn is_open(fd: i32) -> bool {
        // SAFETY: no pointers; a number that is no descriptor gives EBADF.
        unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
    }

    /// More than one block of them, and of those some gone again.
    #[test]
    fn a_forked_child_has_none_of_them() {
        let mut held: Vec<_> = (0..300).map(|_| HostOnly::new(open())).collect();
        held.retain(|fd| fd.as_fd().as_raw_fd() % 3 != 0);
        let plain = open();
        // SAFETY: the child calls what is async-signal-safe only, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let right = held.iter().all(|fd| !fd.is_open() && !is_open(fd.as_fd().as_raw_fd()));
            // What the child opens gets a number of those, and is not closed with the parent's handle.
            // SAFETY: a path that ends with NUL; the descriptor is new.
            let own = unsafe { OwnedFd::from_raw_fd(libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY)) };
            let (token, entry) = (token(own.as_raw_fd()), held[0].entry);
            let own = HostOnly { token, fd: ManuallyDrop::new(own), entry, owner: Owner::this() };
            own.entry.store(own.token, Ordering::Relaxed);
            let number = own.as_fd().as_raw_fd();
            // SAFETY: the old handles are not used again in the child.
            held.iter_mut().for_each(|fd| unsafe { std::ptr::drop_in_place(fd) });
            let right = right && is_open(plain.as_raw_fd()) && own.is_open() && is_open(number);
            // SAFETY: ends the child without anything of the parent's.
            unsafe { libc::_exit(if right { 0 } else { 1 }) };
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: the kernel writes one int.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status}");
        assert!(held.iter().all(|fd| fd.is_open() && is_open(fd.as_fd().as_raw_fd())));
        assert!(is_ours(held[0].as_fd().as_raw_fd()) && !is_ours(plain.as_raw_fd()));
    }
}
