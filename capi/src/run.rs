//! `ringfence_run` and `ringfence_output`: one command in a container of its own, and what it wrote.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use ringfence::{Output, Result};

use crate::border::{block, border, border_for, output, quietly, timeout};
use crate::error::ringfence_error;
use crate::object::{Object, borrow, give, release};
use crate::process::{Status, reason_of};
use crate::spec::{ringfence_spec, with_spec};

/// What a finished command wrote and how it ended.
pub struct ringfence_output {
    _opaque: [u8; 0],
}

pub(crate) struct Body {
    /// Each with a NUL byte behind, for callers that print it as a string.
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Status,
}

impl Object for ringfence_output {
    type Body = Body;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-outpt");
    const NAME: &'static str = "output";
}

pub(crate) fn give_output(output: Output) -> *mut ringfence_output {
    let Output { status, mut stdout, mut stderr, .. } = output;
    stdout.push(0);
    stderr.push(0);
    give(Body { stdout, stderr, status: Status::from(status) })
}

/// Starts a container for the command in the spec's "argv", feeds it `input` (`input_len` bytes; NULL: none), collects what it
/// writes to stdout and stderr, waits for its end and closes the container. Streams that the spec sets are as it says; the
/// others are pipes, stdin only when there is input, else null.
///
/// When `timeout_ms` pass first, the container is killed and the call fails with RINGFENCE_KIND_TIMED_OUT. A command
/// that ran and failed is not an error: ask ringfence_output_exit_code(). `*result` is for ringfence_output_free(). Safe on any
/// thread; blocks only this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_run(
    spec: *const ringfence_spec,
    input: *const c_void,
    input_len: usize,
    timeout_ms: c_int,
    result: *mut *mut ringfence_output,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(input_len, err, -1, || {
        output(result, "result")?;
        let bytes = input_bytes(input, input_len)?;
        let timeout = timeout(timeout_ms)?;
        let done = with_spec(spec, |spec| ringfence::run(spec, bytes, timeout))?;
        // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
        unsafe { *result = give_output(done) };
        Ok(0)
    })
}

/// NULL means no input; anything else, also of length 0, is a pipe that ends after these bytes.
pub(crate) fn input_bytes<'a>(input: *const c_void, len: usize) -> Result<Option<&'a [u8]>> {
    let bytes = block(input, len, "input")?;
    Ok(if input.is_null() { None } else { Some(bytes) })
}

fn look<'a>(output: *const ringfence_output) -> Option<&'a Body> {
    borrow(output).ok()
}

fn pointer(bytes: Option<&Vec<u8>>) -> *const c_char {
    bytes.map_or(ptr::null(), |bytes| bytes.as_ptr().cast())
}

/// What was written to stdout: ringfence_output_stdout_len() bytes, and a NUL byte behind them. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_stdout(output: *const ringfence_output) -> *const c_char {
    pointer(look(output).map(|o| &o.stdout))
}

/// The number of bytes of stdout; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_stdout_len(output: *const ringfence_output) -> usize {
    look(output).map_or(0, |o| o.stdout.len() - 1)
}

/// What was written to stderr: ringfence_output_stderr_len() bytes, and a NUL byte behind them. NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_stderr(output: *const ringfence_output) -> *const c_char {
    pointer(look(output).map(|o| &o.stderr))
}

/// The number of bytes of stderr; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_stderr_len(output: *const ringfence_output) -> usize {
    look(output).map_or(0, |o| o.stderr.len() - 1)
}

/// The exit code, 0 to 255; -1 when a signal ended it, when its status was lost, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_exit_code(output: *const ringfence_output) -> c_int {
    look(output).map_or(-1, |o| o.status.code)
}

/// The number of the signal that ended it; 0 when it exited by itself, -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_signal(output: *const ringfence_output) -> c_int {
    look(output).map_or(-1, |o| o.status.signal)
}

/// 1 when the kernel wrote a core dump of it, else 0; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_core(output: *const ringfence_output) -> c_int {
    look(output).map_or(-1, |o| o.status.core)
}

/// Why it ended, one of enum ringfence_reason; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_reason(output: *const ringfence_output) -> c_int {
    look(output).map_or(0, |o| o.status.reason)
}

/// The name of a reason, like "exited" or "out_of_memory"; NULL for numbers that are not in enum ringfence_reason. Lives as
/// long as the program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_reason_name(reason: c_int) -> *const c_char {
    border(ptr::null_mut(), ptr::null(), || Ok(reason_of(reason).map_or(ptr::null(), CStr::as_ptr)))
}

/// Frees an output. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_output_free(output: *mut ringfence_output) {
    quietly(|| drop(release(output)));
}
