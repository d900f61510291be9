//! The border between C and Rust: no panic leaves, memory that runs short is found before it is needed, arguments are checked.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::hint::black_box;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::Duration;

use ringfence::{Error, ErrorKind, Result};

use crate::error::{OUT_OF_MEMORY, new_error, ringfence_error};

/// What a call may need besides its input. Rust ends the process when an allocation fails; so a call that could not even get
/// this much is refused before it begins. Below the size from which malloc asks the kernel for each block.
const HEADROOM: usize = 96 << 10;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the body of an exported function. On failure sets errno and `*err` (if there is a place for it) and returns `failed`.
pub(crate) fn border<T>(err: *mut *mut ringfence_error, failed: T, body: impl FnOnce() -> Result<T>) -> T {
    border_for(0, err, failed, body)
}

/// [`border`] for calls that take `input` bytes from the caller and copy them.
pub(crate) fn border_for<T>(
    input: usize,
    err: *mut *mut ringfence_error,
    failed: T,
    body: impl FnOnce() -> Result<T>,
) -> T {
    // Texts are copied, parsed and validated: up to four copies are alive at a time.
    if !has_memory(input.saturating_mul(4).saturating_add(HEADROOM)) {
        report_out_of_memory(err);
        return failed;
    }
    keep_panics_quiet();
    DEPTH.set(DEPTH.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    match result {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => {
            report(err, &error);
            failed
        }
        Err(payload) => {
            // The payload's own destructor could panic again.
            std::mem::forget(payload);
            report(err, &panic_error());
            failed
        }
    }
}

/// Runs a body that cannot fail and must not panic into C: the free functions.
pub(crate) fn quietly(body: impl FnOnce()) {
    keep_panics_quiet();
    DEPTH.set(DEPTH.get() + 1);
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    if let Err(payload) = result {
        std::mem::forget(payload);
        log::error!("{}", panic_error());
    }
}

fn panic_error() -> Error {
    let what = PANIC.take().unwrap_or_else(|| "panic".to_owned());
    Error::new(ErrorKind::Internal, what).with_hint("this is a defect of ringfence: please report it")
}

/// The default hook prints to stderr, which belongs to the program. Ours keeps the text of panics inside our calls for the
/// error and leaves all others to the hook that was there.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                return previous(info);
            }
            let text = info.payload_as_str().unwrap_or("panic");
            let place = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
            PANIC.set(Some(format!("{text}{place}")));
        }));
    });
}

fn has_memory(bytes: usize) -> bool {
    // SAFETY: malloc and free of one block that nobody looks into. Without black_box the compiler would drop the pair.
    unsafe {
        let block = black_box(libc::malloc(bytes));
        libc::free(block);
        !block.is_null()
    }
}

fn set_errno(errno: c_int) {
    // SAFETY: the address of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = errno };
}

fn report(err: *mut *mut ringfence_error, error: &Error) {
    if !err.is_null() {
        let object = if has_memory(HEADROOM) { new_error(error) } else { OUT_OF_MEMORY.get() };
        // SAFETY: by the header's contract `err` is NULL or points to a place for a pointer.
        unsafe { *err = object };
    }
    set_errno(if error.errno() == 0 { libc::EINVAL } else { error.errno() });
}

fn report_out_of_memory(err: *mut *mut ringfence_error) {
    if !err.is_null() {
        // SAFETY: as in `report`.
        unsafe { *err = OUT_OF_MEMORY.get() };
    }
    set_errno(libc::ENOMEM);
}

/// An argument that can never work: its name is the error's field.
pub(crate) fn invalid(argument: &str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, detail).with_field(argument).with_errno(libc::EINVAL)
}

/// Length of a C string, 0 for NULL: for [`border_for`].
pub(crate) fn length(text: *const c_char) -> usize {
    // SAFETY: by the header's contract a string argument is NULL or ends with a NUL byte.
    if text.is_null() { 0 } else { unsafe { libc::strlen(text) } }
}

/// The bytes of a C string; `what` names the argument in the error.
pub(crate) fn bytes<'a>(text: *const c_char, what: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(invalid(what, "is NULL"));
    }
    // SAFETY: not NULL, and by the header's contract it ends with a NUL byte and stays until the call returns.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A C string that must be UTF-8: keys, names, JSON.
pub(crate) fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes(text, what)?).map_err(|e| invalid(what, format!("is not UTF-8: {e}")))
}

/// A block of bytes; NULL is allowed when it is empty.
pub(crate) fn block<'a>(data: *const c_void, len: usize, what: &str) -> Result<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid(what, format!("is NULL, its length is {len}")));
    }
    if isize::try_from(len).is_err() {
        return Err(invalid(what, format!("cannot have {len} bytes")));
    }
    // SAFETY: not NULL, of a length that can exist, and by the header's contract readable until the call returns.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// Refuses NULL for an output before anything is done.
pub(crate) fn output<T>(place: *mut T, what: &str) -> Result<()> {
    if place.is_null() { Err(invalid(what, "is NULL, and it is the place for the result")) } else { Ok(()) }
}

/// Milliseconds as the header defines them.
pub(crate) fn timeout(ms: c_int) -> Result<Option<Duration>> {
    match ms {
        -1 => Ok(None),
        0.. => Ok(Some(Duration::from_millis(ms as u64))),
        _ => Err(invalid("timeout_ms", format!("{ms} ms: -1 is for ever, 0 only looks"))),
    }
}

/// A string for the caller to keep.
pub(crate) fn give_string(text: impl Into<Vec<u8>>) -> *mut c_char {
    c_string(text.into()).into_raw()
}

/// No text of ours has NUL bytes, but what it quotes might.
pub(crate) fn c_string(text: Vec<u8>) -> CString {
    CString::new(text).unwrap_or_else(|e| {
        let shown: Vec<u8> = e.into_vec().into_iter().map(|b| if b == 0 { b'?' } else { b }).collect();
        CString::new(shown).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use super::*;
    use crate::error::{ringfence_error_free, ringfence_error_kind, ringfence_error_message};

    fn message(err: *mut ringfence_error) -> String {
        // SAFETY: an error of this crate, or NULL; the message ends with a NUL byte.
        unsafe { CStr::from_ptr(ringfence_error_message(err)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_an_error_and_a_second_one_too() {
        for number in 1..=2 {
            let mut err = ptr::null_mut();
            let result = border(&mut err, -1, || -> Result<c_int> { panic!("the {number}. defect") });
            assert_eq!(result, -1);
            // SAFETY: as above.
            assert_eq!(unsafe { ringfence_error_kind(err) }, ErrorKind::Internal as c_int);
            let message = message(err);
            assert!(message.contains(&format!("the {number}. defect at capi/src/border.rs")), "{message}");
            // SAFETY: as above.
            unsafe { ringfence_error_free(err) };
        }
    }

    #[test]
    fn a_panic_in_a_call_from_a_callback_of_a_call_stays_inside() {
        let mut err = ptr::null_mut();
        let outer = border(&mut err, -1, || {
            let inner = border(ptr::null_mut(), -2, || -> Result<c_int> { panic!("inner") });
            Ok(inner)
        });
        assert_eq!((outer, err), (-2, ptr::null_mut()));
    }

    #[test]
    fn timeouts_are_milliseconds() {
        assert_eq!(timeout(-1), Ok(None));
        assert_eq!(timeout(1500), Ok(Some(Duration::from_millis(1500))));
        let error = timeout(-2).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("timeout_ms")));
    }

    #[test]
    fn text_with_nul_is_shown_without() {
        assert_eq!(c_string(b"a\0b".to_vec()).as_c_str(), c"a?b");
    }
}
