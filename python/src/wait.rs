//! Waiting for a descriptor: without the interpreter's lock, and Ctrl-C ends it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::call::detached;

/// A signal normally ends the `poll` of the main thread (EINTR). One that arrives just before the `poll`, or that the
/// kernel gives to another thread, is seen at the end of the slice.
const SLICE: Duration = Duration::from_millis(250);

/// `timeout` in seconds; `None` is for ever, negative is zero, as in `subprocess`.
pub fn deadline(timeout: Option<f64>) -> PyResult<Option<Instant>> {
    let Some(seconds) = timeout else { return Ok(None) };
    if seconds.is_nan() {
        return Err(PyValueError::new_err("timeout is not a number"));
    }
    // What is beyond the clock's range is for ever.
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).ok().and_then(|d| Instant::now().checked_add(d)))
}

/// True when `fd` became readable (or its other end closed), false when the deadline passed first.
pub fn readable(py: Python<'_>, fd: BorrowedFd<'_>, deadline: Option<Instant>) -> PyResult<bool> {
    loop {
        let slice = match deadline {
            Some(end) => end.saturating_duration_since(Instant::now()).min(SLICE),
            None => SLICE,
        };
        let wanted =
            libc::timespec { tv_sec: slice.as_secs() as libc::time_t, tv_nsec: slice.subsec_nanos() as libc::c_long };
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let (count, errno) = py.detach(|| {
            // SAFETY: one pollfd and one timespec, both live on this stack for the whole call; no signal mask is given.
            let count = unsafe { libc::ppoll(&mut poll, 1, &wanted, std::ptr::null()) };
            (count, std::io::Error::last_os_error())
        });
        if count > 0 {
            return Ok(true);
        }
        if count < 0 && errno.raw_os_error() != Some(libc::EINTR) {
            return Err(PyOSError::new_err((errno.raw_os_error(), errno.to_string())));
        }
        py.check_signals()?;
        if deadline.is_some_and(|end| Instant::now() >= end) {
            return Ok(false);
        }
    }
}

/// Waits for the end of a container or a pod, whose descriptor also speaks before that, and of a detached container a moment before
/// its record is written. False when the time passed first.
pub fn ended(
    py: Python<'_>,
    fd: BorrowedFd<'_>,
    timeout: Option<f64>,
    wait_end: impl Fn(Duration) -> ringfence::Result<bool> + Sync,
) -> PyResult<bool> {
    let deadline = deadline(timeout)?;
    loop {
        let slice = if readable(py, fd, deadline)? { Duration::from_millis(20) } else { Duration::ZERO };
        let slice = deadline.map_or(slice, |end| slice.min(end.saturating_duration_since(Instant::now())));
        if detached(py, || wait_end(slice))? {
            return Ok(true);
        }
        py.check_signals()?;
        if deadline.is_some_and(|end| Instant::now() >= end) {
            return Ok(false);
        }
    }
}

/// `readable` for a descriptor number.
#[pyfunction]
#[pyo3(signature = (fd, timeout=None))]
pub fn wait_readable(py: Python<'_>, fd: i32, timeout: Option<f64>) -> PyResult<bool> {
    if fd < 0 {
        return Err(PyValueError::new_err("fd is negative"));
    }
    // SAFETY: only polled; a number that is not open makes poll answer POLLNVAL, which is no memory error.
    readable(py, unsafe { BorrowedFd::borrow_raw(fd) }, deadline(timeout)?)
}
