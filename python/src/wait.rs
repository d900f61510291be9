//! Waiting for a descriptor: without the interpreter's lock, and Ctrl-C ends it.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
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
        let mut list = [PollFd::new(fd, PollFlags::POLLIN)];
        match py.detach(|| ppoll(&mut list, Some(TimeSpec::from_duration(slice)), None)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(PyOSError::new_err((errno as i32, errno.desc()))),
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
