//! `ringfence_process`: a process in a container.

use std::ffi::{CStr, c_int, c_void};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::ptr;

use ringfence::{Error, ErrorKind, ExitStatus, Process, Result};

use crate::border::{border, border_for, invalid, output, quietly, timeout};
use crate::error::ringfence_error;
use crate::object::{Object, give, release, running};
use crate::run::{give_output, input_bytes, ringfence_output};

/// A process in a container. May be used by any number of threads at once and outlives the handle of its container.
pub struct ringfence_process {
    _opaque: [u8; 0],
}

impl Object for ringfence_process {
    type Body = Process;
    const MAGIC: u64 = u64::from_ne_bytes(*b"rf-proc.");
    const NAME: &'static str = "process";
}

/// Why a process ended. The numbers never change; later versions add some.
#[repr(i32)]
pub enum ringfence_reason {
    /// It called exit.
    Exited = 1,
    /// A signal killed it.
    Signaled = 2,
    /// The kernel killed it because the memory of its container ran out.
    OutOfMemory = 3,
    /// It was killed together with its container.
    ContainerEnded = 4,
    /// Nobody knows its status: the keeper was killed.
    Lost = 5,
    /// The container's "wall_time" was over.
    WallTime = 6,
    /// The container's "cpu_time" was used up.
    CpuTime = 7,
}

/// An exit status as C sees it.
pub(crate) struct Status {
    pub code: c_int,
    pub signal: c_int,
    pub core: c_int,
    pub reason: c_int,
}

impl From<ExitStatus> for Status {
    fn from(status: ExitStatus) -> Self {
        Self {
            code: status.code.unwrap_or(-1),
            signal: status.signal.unwrap_or(0),
            core: status.core_dumped.into(),
            reason: status.reason as c_int,
        }
    }
}

/// The name of a reason that came as a number.
pub(crate) fn reason_of(number: c_int) -> Option<&'static CStr> {
    match number {
        n if n == ringfence_reason::Exited as c_int => Some(c"exited"),
        n if n == ringfence_reason::Signaled as c_int => Some(c"signaled"),
        n if n == ringfence_reason::OutOfMemory as c_int => Some(c"out_of_memory"),
        n if n == ringfence_reason::ContainerEnded as c_int => Some(c"container_ended"),
        n if n == ringfence_reason::Lost as c_int => Some(c"lost"),
        n if n == ringfence_reason::WallTime as c_int => Some(c"wall_time"),
        n if n == ringfence_reason::CpuTime as c_int => Some(c"cpu_time"),
        _ => None,
    }
}

pub(crate) fn give_process(process: Process) -> *mut ringfence_process {
    give(process)
}

fn status(process: *const ringfence_process) -> Result<Option<Status>> {
    Ok(running(process)?.try_wait()?.map(Status::from))
}

/// A getter without an `err`.
fn get(failed: c_int, body: impl FnOnce() -> Result<c_int>) -> c_int {
    border(ptr::null_mut(), failed, body)
}

/// Frees the handle. NULL is fine. The process lives on; its `pipe` streams are closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_free(process: *mut ringfence_process) {
    quietly(|| drop(release(process)));
}

/// Its pid in the pid namespace of this program; -1 for NULL and in a forked child. Prefer the pidfd: a pid may be given to
/// another process after the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_pid(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(running(process)?.pid()))
}

/// Its pidfd, borrowed; readable (poll) when the process has ended. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_pidfd(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(running(process)?.pidfd().as_raw_fd()))
}

/// A descriptor, borrowed, that becomes readable when the status can be read: then ringfence_process_wait() with timeout 0
/// returns 1. Only poll it, never read it. -1 for NULL and in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_status_fd(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(running(process)?.status_fd().as_raw_fd()))
}

/// Waits for its end: 1 ended, 0 timed out, -1 error. Any number of threads may wait, also after the end. Does not involve the
/// program's own wait() or SIGCHLD.
///
/// Fails with RINGFENCE_KIND_CLOSED when it was cancelled (ringfence_process_cancel_waits()) or its container's handle closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_wait(
    process: *const ringfence_process,
    timeout_ms: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let process = running(process)?;
        Ok(process.wait(timeout(timeout_ms)?)?.is_some().into())
    })
}

/// Makes every wait for this process, under way on any thread or begun later, fail with RINGFENCE_KIND_CLOSED, unless its status
/// is known already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_cancel_waits(
    process: *const ringfence_process,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(process)?.cancel_waits();
        Ok(0)
    })
}

/// The exit code, 0 to 255; -1 when a signal ended it (ringfence_process_signal()), while it runs, and for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_exit_code(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(status(process)?.map_or(-1, |s| s.code)))
}

/// The number of the signal that ended it; 0 when it exited by itself and while it runs; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_signal(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(status(process)?.map_or(0, |s| s.signal)))
}

/// 1 when the kernel wrote a core dump of it, else 0; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_core(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(status(process)?.map_or(0, |s| s.core)))
}

/// Why it ended, one of enum ringfence_reason (ringfence_reason_name()); 0 while it runs; -1 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_reason(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(status(process)?.map_or(0, |s| s.reason)))
}

/// Sends a signal to the process through its pidfd, so that no other process can be hit. 0 also when it has ended already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_kill(
    process: *const ringfence_process,
    signal: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        running(process)?.kill(signal)?;
        Ok(0)
    })
}

/// The program's end of its stdin, if that is a `pipe`, borrowed; else -1. To end the input, close what
/// ringfence_process_stdin_take() returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_stdin_fd(process: *const ringfence_process) -> c_int {
    get(-1, || stream(running(process)?.stdin_fd(), "stdin"))
}

/// The program's end of its stdout, if that is a `pipe`, borrowed; else -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_stdout_fd(process: *const ringfence_process) -> c_int {
    get(-1, || stream(running(process)?.stdout_fd(), "stdout"))
}

/// The program's end of its stderr, if that is a `pipe`, borrowed; else -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_stderr_fd(process: *const ringfence_process) -> c_int {
    get(-1, || stream(running(process)?.stderr_fd(), "stderr"))
}

/// ringfence_process_stdin_fd(), but the descriptor becomes the caller's (CLOEXEC, blocking), once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_stdin_take(
    process: *const ringfence_process,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || taken(running(process)?.take_stdin(), "stdin"))
}

/// ringfence_process_stdout_fd(), but the descriptor becomes the caller's (CLOEXEC, blocking), once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_stdout_take(
    process: *const ringfence_process,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || taken(running(process)?.take_stdout(), "stdout"))
}

/// ringfence_process_stderr_fd(), but the descriptor becomes the caller's (CLOEXEC, blocking), once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_stderr_take(
    process: *const ringfence_process,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || taken(running(process)?.take_stderr(), "stderr"))
}

fn stream(fd: c_int, name: &str) -> Result<c_int> {
    if fd < 0 { Err(no_stream(name)) } else { Ok(fd) }
}

fn taken(fd: Option<OwnedFd>, name: &str) -> Result<c_int> {
    fd.map(IntoRawFd::into_raw_fd).ok_or_else(|| no_stream(name))
}

fn no_stream(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("the process has no open pipe for {name}"))
        .with_errno(libc::EBADF)
        .with_hint(format!("start it with {name} set to \"pipe\"; each can be taken once"))
}

/// The program's end of its terminal, borrowed: read, write and poll it; -1 when it was started without one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_terminal_fd(process: *const ringfence_process) -> c_int {
    get(-1, || Ok(running(process)?.terminal().map_or(-1, |fd| fd.as_raw_fd())))
}

/// Sets the size of its terminal, 1 to 65535 each; the process gets SIGWINCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_resize(
    process: *const ringfence_process,
    rows: c_int,
    cols: c_int,
    err: *mut *mut ringfence_error,
) -> c_int {
    border(err, -1, || {
        let process = running(process)?;
        let side = |n: c_int, what: &str| match u16::try_from(n) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(invalid(what, format!("{n}: a terminal has 1 to 65535"))),
        };
        process.resize(side(rows, "rows")?, side(cols, "cols")?)?;
        Ok(0)
    })
}

/// Writes `input` (`input_len` bytes; NULL: nothing) to its stdin and ends it, reads stdout and stderr to their ends, where
/// these are `pipe`s, and waits: 1 and `*result` (ringfence_output_free()) when it has ended; 0 when the time passed first:
/// nothing is killed, what was read so far is kept for the next call, which must not give the input again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_process_communicate(
    process: *const ringfence_process,
    input: *const c_void,
    input_len: usize,
    timeout_ms: c_int,
    result: *mut *mut ringfence_output,
    err: *mut *mut ringfence_error,
) -> c_int {
    border_for(input_len, err, -1, || {
        output(result, "result")?;
        let process = running(process)?;
        let input = input_bytes(input, input_len)?;
        let timeout = timeout(timeout_ms)?;
        match process.communicate(input, timeout) {
            Ok(done) => {
                // SAFETY: checked not to be NULL, and by the header's contract a place for a pointer.
                unsafe { *result = give_output(done) };
                Ok(1)
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Ok(0),
            Err(error) => Err(error),
        }
    })
}

#[cfg(test)]
mod tests {
    use ringfence::Reason;

    use super::*;

    #[test]
    fn reasons_have_the_names_of_the_core() {
        let early = [Reason::Exited, Reason::Signaled, Reason::OutOfMemory, Reason::ContainerEnded, Reason::Lost];
        for reason in early.into_iter().chain([Reason::WallTime, Reason::CpuTime]) {
            assert_eq!(reason_of(reason as c_int).map(|name| name.to_str().unwrap()), Some(reason.name()));
        }
        assert_eq!(reason_of(0), None);
    }
}
