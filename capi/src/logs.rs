//! `ringfence_logs`: what a main process wrote, line by line.

use std::ffi::{c_char, c_int};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

use ringfence::{LogOptions, LogReader};

use crate::border::{border, output, quietly, text, timeout};
use crate::container::{container_of, ringfence_container};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release, running};

/// A reader of the log of a container. Reading (ringfence_logs_next() and ringfence_logs_line()) is for one thread at a time, because there
/// is one current line; _cancel, _fd and _free may be called by any thread meanwhile. Any number of readers may be made for one
/// container. It outlives the handle of its container.
pub struct ringfence_logs {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    reader: LogReader,
    /// With a NUL behind it; empty when there is none.
    current: Mutex<Vec<u8>>,
}

impl Body {
    fn current(&self) -> MutexGuard<'_, Vec<u8>> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Object for ringfence_logs {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-logs.");
    const NAME: &'static str = "reader of a log";
    const ARGUMENT: &'static str = "logs";
}

/// The log of a container (what its main process wrote to streams of kind `log`), line by line. `options` is JSON, or NULL for the
/// defaults:
///
///   {"tail": 50, "since": 0, "follow": true}
///
/// "tail": only the last lines, that many of those from "since" on. "since": from this byte on; ringfence_container_log_position() and
/// ringfence_logs_position() give such places (the kernel keeps no time of a line). "follow": wait for what is still to be written,
/// until the container has ended; without it the log is over where it ends now. Works for attached and detached containers, while
/// they run and afterwards. `*result` is for ringfence_logs_free().
///
/// This prints a log as it is written:
///
///   while ((r = ringfence_logs_next(logs, -1, &err)) == 1) {
///       const void *line = ringfence_logs_line(logs, &length);
///       fwrite(line, 1, length, stdout);
///   }
///
/// Fails with RINGFENCE_KIND_NOT_FOUND when no stream of the main process is a log, with RINGFENCE_KIND_INVALID_ARGUMENT for options that
/// can never work; ringfence_error_field() says which.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_logs(
    container: *const ringfence_container,
    options: *const c_char,
    result: *mut *mut ringfence_logs,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(result, "result")?;
        let options = match options.is_null() {
            true => LogOptions::default(),
            false => LogOptions::from_json(text(options, "options")?)?,
        };
        let reader = container_of(container, |container| container.logs(&options))?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give(Body { reader, current: Mutex::default() }) };
        Ok(0)
    })
}

/// Where its log ends now: how many bytes were written to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_log_position(
    container: *const ringfence_container,
    position: *mut u64,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        output(position, "position")?;
        let now = container_of(container, |container| container.log_position())?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a uint64_t.
        unsafe { *position = now };
        Ok(0)
    })
}

/// 1 when its log is full, or so nearly that a write of the program may have been refused (EPERM): fewer than 8 KiB of "log_max" are left, or
/// of a log below 32 KiB a quarter; else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_container_log_is_full(
    container: *const ringfence_container,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || container_of(container, |container| container.log_is_full()).map(c_int::from))
}

/// Frees the reader. NULL is fine. A call of ringfence_logs_next() that is under way on another thread fails with
/// RINGFENCE_KIND_CLOSED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_free(logs: *mut ringfence_logs) {
    quietly(|| {
        let Some(released) = release(logs) else { return };
        if released.in_its_own_process && Arc::strong_count(&released.body) > 1 {
            released.body.reader.cancel();
        }
    });
}

/// A descriptor, borrowed, that is readable (POLLIN) when there may be a line, and when it is over. Only poll it, never read it;
/// ringfence_logs_next() with timeout 0 may then still find nothing. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_fd(logs: *const ringfence_logs) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(logs)?.reader.fd().as_raw_fd()))
}

/// Waits for the next line. 1: there is one, see ringfence_logs_line(); 0: the time passed, or it is over (ringfence_logs_is_over()); -1: an
/// error. Fails with RINGFENCE_KIND_CLOSED when it was cancelled, or when the handle of a detached container that goes on was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_next(
    logs: *const ringfence_logs,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let body = running(logs)?;
        let Some(mut line) = body.reader.next(timeout(timeout_ms)?)? else { return Ok(0) };
        line.push(0);
        *body.current() = line;
        Ok(1)
    })
}

/// The line that ringfence_logs_next() found, with its newline (the last of a log may have none; one of more than 1 MiB comes in
/// pieces), and with a NUL behind it, which `*length` does not count: there may be others in the line. `length` may be NULL. Lives until
/// the next call of ringfence_logs_next() that finds a line. NULL before the first line, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_line(logs: *const ringfence_logs, length: *mut usize) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || {
        let current = borrow(logs)?.current();
        if current.is_empty() {
            return Ok(ptr::null());
        }
        if !length.is_null() {
            // SAFETY: not NULL, and by the header's contract a place for a size_t.
            unsafe { *length = current.len() - 1 };
        }
        Ok(current.as_ptr().cast())
    })
}

/// 1 when all was handed out and nothing comes any more, else 0; -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_is_over(logs: *const ringfence_logs) -> c_int {
    border(ptr::null_mut(), -1, || Ok(running(logs)?.reader.is_over().into()))
}

/// Behind the last byte that was handed out: "since" for another reader that goes on there. 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_position(logs: *const ringfence_logs) -> u64 {
    border(ptr::null_mut(), 0, || Ok(borrow(logs)?.reader.position()))
}

/// Makes every call of ringfence_logs_next(), under way on any thread or begun later, fail with RINGFENCE_KIND_CLOSED, unless it is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_logs_cancel(logs: *const ringfence_logs, err: *mut *mut ringfence_error) -> c_int {
    border(err, -1, || {
        running(logs)?.reader.cancel();
        Ok(0)
    })
}
