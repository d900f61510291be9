//! Opaque objects. C holds a pointer to a small box: a magic word that names the type, the process that made it, and a
//! counted reference to the body. Each call takes a reference of its own first, so that freeing the object on another thread
//! cannot pull the body away from under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringfence::{Error, ErrorKind, Result};

use crate::border::invalid;

/// A type that C knows by name only.
pub(crate) trait Object {
    type Body: Send + Sync;
    /// Eight bytes that no allocator writes by chance.
    const MAGIC: u64;
    /// What the error calls it.
    const NAME: &'static str;
    /// The argument that it is.
    const ARGUMENT: &'static str = Self::NAME;
}

#[repr(C)]
struct Handle<B> {
    magic: AtomicU64,
    /// A forked child has the memory of its parent but none of its containers.
    made_by: libc::pid_t,
    body: Arc<B>,
}

const FREED: u64 = u64::from_ne_bytes(*b"rf-freed");

fn this_process() -> libc::pid_t {
    // SAFETY: getpid takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

/// Gives C an object.
pub(crate) fn give<O: Object>(body: O::Body) -> *mut O {
    let handle = Handle { magic: AtomicU64::new(O::MAGIC), made_by: this_process(), body: Arc::new(body) };
    Box::into_raw(Box::new(handle)).cast()
}

fn live<'a, O: Object>(object: *const O) -> Result<&'a Handle<O::Body>> {
    if object.is_null() {
        return Err(invalid(O::ARGUMENT, format!("the {} is NULL", O::NAME)));
    }
    let handle: *const Handle<O::Body> = object.cast();
    if !handle.is_aligned() {
        return Err(invalid(O::ARGUMENT, format!("this pointer is not a {}", O::NAME)));
    }
    // SAFETY: not NULL, aligned, and by the contract of the header a pointer that this library gave out. A freed or foreign
    // one is looked at through one atomic word only, as long as it is still mapped.
    match unsafe { (*handle).magic.load(Ordering::Acquire) } {
        // SAFETY: the word names the type, so this is a box made by `give`, which only `release` takes back.
        magic if magic == O::MAGIC => Ok(unsafe { &*handle }),
        FREED => Err(invalid(O::ARGUMENT, format!("the {} was freed", O::NAME))),
        _ => Err(invalid(O::ARGUMENT, format!("this pointer is not a {}, or the {} was freed", O::NAME, O::NAME))),
    }
}

/// The body of an object that is plain memory.
pub(crate) fn body<O: Object>(object: *const O) -> Result<Arc<O::Body>> {
    Ok(live(object)?.body.clone())
}

/// A pointer to the body, for results that live as long as the object.
pub(crate) fn borrow<'a, O: Object>(object: *const O) -> Result<&'a O::Body> {
    live(object).map(|handle| &*handle.body)
}

/// The body of an object that stands for something running: refused in a forked child.
pub(crate) fn running<O: Object>(object: *const O) -> Result<Arc<O::Body>> {
    let handle = live(object)?;
    if handle.made_by != this_process() {
        return Err(Error::new(ErrorKind::ForkedChild, format!("the {} belongs to the parent process", O::NAME))
            .with_errno(libc::ECHILD));
    }
    Ok(handle.body.clone())
}

/// What became of an object that was given back.
pub(crate) struct Released<B> {
    pub body: Arc<B>,
    pub in_its_own_process: bool,
}

/// Takes an object back; `None` for NULL and for what is not (or no longer) an object of this type.
pub(crate) fn release<O: Object>(object: *mut O) -> Option<Released<O::Body>> {
    let handle = live(object).ok()?;
    // Of two threads that free the same object only one gets it.
    handle.magic.compare_exchange(O::MAGIC, FREED, Ordering::AcqRel, Ordering::Acquire).ok()?;
    let in_its_own_process = handle.made_by == this_process();
    // SAFETY: the exchange above succeeded, so this is a live box made by `give`, and it is taken back exactly once.
    let handle = unsafe { Box::from_raw(object.cast::<Handle<O::Body>>()) };
    Some(Released { body: handle.body, in_its_own_process })
}
