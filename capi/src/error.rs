//! `ringfence_error`: an error as a value that C can ask.

use std::borrow::Cow;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int};
use std::ptr;

use ringfence::{Error, ErrorKind};

use crate::border::{c_string, quietly};

/// What went wrong, in classes that a program can act on. The numbers never change; later versions add some.
#[repr(i32)]
pub enum ringfence_kind {
    /// A field of the spec has a value that can never work (type, range, syntax, contradiction).
    InvalidSpec = 1,
    /// An argument of a call can never work (NULL, a bad name, a closed descriptor).
    InvalidArgument = 2,
    /// Something named by the caller does not exist (program, path, container).
    NotFound = 3,
    /// The kernel or a policy of this machine refused it to this caller.
    PermissionDenied = 4,
    /// A container of that name exists.
    AlreadyExists = 5,
    /// This machine (kernel, file system, mounts, controllers) cannot do what was asked.
    Unsupported = 6,
    /// This version of ringfence knows the field but cannot do it yet.
    NotAvailable = 7,
    /// Something ran out: descriptors, processes, memory, ids, disk.
    Exhausted = 8,
    /// The timeout of the call passed.
    TimedOut = 9,
    /// The handle was closed, or the container has ended.
    Closed = 10,
    /// The call was made in a forked child of the program that made the object.
    ForkedChild = 11,
    /// The keeper died while the call was under way.
    KeeperDied = 12,
    /// The container is frozen and the call would have to wait for it.
    Frozen = 13,
    /// A system call failed in a way that has no class of its own: see ringfence_error_errno().
    Os = 14,
    /// A defect of ringfence itself.
    Internal = 15,
}

// The header cannot show the enum of another crate, so the numbers stand here once more.
const _: () = {
    use ringfence_kind as here;
    let pairs = [
        (here::InvalidSpec as i32, ErrorKind::InvalidSpec as i32),
        (here::InvalidArgument as i32, ErrorKind::InvalidArgument as i32),
        (here::NotFound as i32, ErrorKind::NotFound as i32),
        (here::PermissionDenied as i32, ErrorKind::PermissionDenied as i32),
        (here::AlreadyExists as i32, ErrorKind::AlreadyExists as i32),
        (here::Unsupported as i32, ErrorKind::Unsupported as i32),
        (here::NotAvailable as i32, ErrorKind::NotAvailable as i32),
        (here::Exhausted as i32, ErrorKind::Exhausted as i32),
        (here::TimedOut as i32, ErrorKind::TimedOut as i32),
        (here::Closed as i32, ErrorKind::Closed as i32),
        (here::ForkedChild as i32, ErrorKind::ForkedChild as i32),
        (here::KeeperDied as i32, ErrorKind::KeeperDied as i32),
        (here::Frozen as i32, ErrorKind::Frozen as i32),
        (here::Os as i32, ErrorKind::Os as i32),
        (here::Internal as i32, ErrorKind::Internal as i32),
    ];
    let mut i = 0;
    while i < pairs.len() {
        assert!(pairs[i].0 == pairs[i].1);
        i += 1;
    }
};

/// Why a call failed. Plain memory: may be kept after the objects that it is about are freed.
pub struct ringfence_error {
    magic: u64,
    kind: c_int,
    kind_name: Cow<'static, CStr>,
    errno: c_int,
    field: Option<Cow<'static, CStr>>,
    step: Option<Cow<'static, CStr>>,
    path: Option<Cow<'static, CStr>>,
    hint: Option<Cow<'static, CStr>>,
    log_tail: Option<Cow<'static, CStr>>,
    message: Cow<'static, CStr>,
    json: Cow<'static, CStr>,
}

const MAGIC: u64 = u64::from_ne_bytes(*b"rf-error");
const FREED: u64 = u64::from_ne_bytes(*b"rf-freed");

/// The one error that exists without being allocated.
pub(crate) struct Static(UnsafeCell<ringfence_error>);

// SAFETY: nobody ever writes to it: the accessors only read, and `ringfence_error_free` leaves it alone.
unsafe impl Sync for Static {}

impl Static {
    pub(crate) fn get(&'static self) -> *mut ringfence_error {
        self.0.get()
    }
}

pub(crate) static OUT_OF_MEMORY: Static = Static(UnsafeCell::new(ringfence_error {
    magic: MAGIC,
    kind: ErrorKind::Exhausted as c_int,
    kind_name: Cow::Borrowed(c"exhausted"),
    errno: libc::ENOMEM,
    field: None,
    step: None,
    path: None,
    hint: None,
    log_tail: None,
    message: Cow::Borrowed(c"the program is out of memory: Cannot allocate memory (ENOMEM)"),
    json: Cow::Borrowed(
        c"{\"kind\":\"exhausted\",\"errno\":12,\"errno_name\":\"ENOMEM\",\"field\":null,\"step\":null,\"path\":null,\"hint\":null,\"message\":\"the program is out of memory: Cannot allocate memory (ENOMEM)\",\"log_tail\":null}",
    ),
}));

fn owned(text: &str) -> Cow<'static, CStr> {
    Cow::Owned(c_string(text.into()))
}

pub(crate) fn new_error(error: &Error) -> *mut ringfence_error {
    Box::into_raw(Box::new(ringfence_error {
        magic: MAGIC,
        kind: error.kind() as c_int,
        kind_name: owned(error.kind().name()),
        errno: error.errno(),
        field: error.field().map(owned),
        step: error.step().map(owned),
        path: error.path().map(owned),
        hint: error.hint().map(owned),
        log_tail: error.log_tail().map(owned),
        message: owned(&error.to_string()),
        json: owned(&error.to_json()),
    }))
}

fn look<'a>(error: *const ringfence_error) -> Option<&'a ringfence_error> {
    if error.is_null() || !error.is_aligned() {
        return None;
    }
    // SAFETY: not NULL, aligned, and by the header's contract an error of this library; one that was freed is recognised by
    // its first word while its memory is still mapped.
    unsafe { (ptr::addr_of!((*error).magic).read() == MAGIC).then(|| &*error) }
}

fn text(text: Option<&Cow<'static, CStr>>) -> *const c_char {
    text.map_or(ptr::null(), |text| text.as_ptr())
}

/// The class of the error, one of enum ringfence_kind; 0 for NULL. The numbers never change; a later version may
/// return ones that this header does not know.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_kind(error: *const ringfence_error) -> c_int {
    look(error).map_or(0, |e| e.kind)
}

/// The class by name, like "not_found"; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_kind_name(error: *const ringfence_error) -> *const c_char {
    text(look(error).map(|e| &e.kind_name))
}

/// The errno of the system call that failed; 0 when there was none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_errno(error: *const ringfence_error) -> c_int {
    look(error).map_or(0, |e| e.errno)
}

/// The field of the spec that asked for what failed, like "mounts[2].source", or the argument of the call that can never work; NULL when there
/// is none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_field(error: *const ringfence_error) -> *const c_char {
    text(look(error).and_then(|e| e.field.as_ref()))
}

/// The step that failed, a system call or a few words; NULL when there is none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_step(error: *const ringfence_error) -> *const c_char {
    text(look(error).and_then(|e| e.step.as_ref()))
}

/// The path that it failed on; NULL when there is none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_path(error: *const ringfence_error) -> *const c_char {
    text(look(error).and_then(|e| e.path.as_ref()))
}

/// What can be done about it; NULL when there is nothing to say, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_hint(error: *const ringfence_error) -> *const c_char {
    text(look(error).and_then(|e| e.hint.as_ref()))
}

/// Of ringfence_container_wait_for(): the last lines of the container's log (50, or 16 KiB), which are no part of the message. NULL when there
/// are none, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_log_tail(error: *const ringfence_error) -> *const c_char {
    text(look(error).and_then(|e| e.log_tail.as_ref()))
}

/// All of it as one line for people. Never NULL: for NULL it is "no error".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_message(error: *const ringfence_error) -> *const c_char {
    look(error).map_or(c"no error".as_ptr(), |e| e.message.as_ptr())
}

/// All of it as a JSON object with kind, errno, errno_name, field, step, path, hint, message and log_tail; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_json(error: *const ringfence_error) -> *const c_char {
    text(look(error).map(|e| &e.json))
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_error_free(error: *mut ringfence_error) {
    if error == OUT_OF_MEMORY.get() || look(error).is_none() {
        return;
    }
    quietly(|| {
        // SAFETY: a live error made by `new_error`; marked first, so that a second free of it is recognised.
        unsafe {
            ptr::addr_of_mut!((*error).magic).write_volatile(FREED);
            drop(Box::from_raw(error));
        }
    });
}
