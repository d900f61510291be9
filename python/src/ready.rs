//! Waiting until a container is ready, in steps.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::call::detached;

/// A signal is seen at the end of a step at the latest.
const STEP: Duration = Duration::from_millis(100);

/// A wait until a container is ready.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Readiness(Mutex<Option<ringfence::Readiness>>);

impl Readiness {
    pub fn new(readiness: ringfence::Readiness) -> Self {
        Self(Mutex::new(Some(readiness)))
    }
}

#[pymethods]
impl Readiness {
    /// One step of it. True: it is ready, False: not yet; the timeout is an error.
    fn step(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, || {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(readiness) = held.as_mut() else {
                return Err(ringfence::Error::new(ringfence::ErrorKind::Closed, "the wait was cancelled"));
            };
            match readiness.wait(Some(STEP))? {
                false if readiness.is_late() => Err(readiness.timed_out()),
                ready => Ok(ready),
            }
        })
    }
    /// To the end.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        while !self.step(py)? {
            py.check_signals()?;
        }
        Ok(())
    }
    /// Ends a command that is under way.
    fn cancel(&self, py: Python<'_>) {
        py.detach(|| *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None);
    }
}
