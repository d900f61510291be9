//! A reader of the events of a container.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::call::detached;
use crate::{argument, wait};

/// A reader of the events of a container.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Events(pub ringfence::Events);

#[pymethods]
impl Events {
    #[getter]
    fn fd(&self) -> i32 {
        self.0.fd().as_raw_fd()
    }
    #[getter]
    fn kinds(&self) -> Vec<&'static str> {
        self.0.kinds().iter().map(|kind| kind.name()).collect()
    }
    #[getter]
    fn over(&self) -> bool {
        self.0.is_over()
    }
    /// The fields of `ringfence.Event`, in its order; `None` when the time passed or it is over.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            if let Some(event) = detached(py, || self.0.next(Some(Duration::ZERO)))? {
                return tuple(py, &event).map(Some);
            }
            // The descriptor may be readable again and again with nothing to tell (on v1 by a timer), so that the wait alone
            // would never come to look at signals.
            py.check_signals()?;
            let late = deadline.is_some_and(|end| Instant::now() >= end);
            if late || self.0.is_over() || !wait::readable(py, self.0.fd(), deadline)? {
                return Ok(None);
            }
        }
    }
    fn cancel(&self) {
        self.0.cancel();
    }
}

fn tuple<'py>(py: Python<'py>, event: &ringfence::Event) -> PyResult<Bound<'py, PyTuple>> {
    let resource = event.threshold.map(|(_, pressure)| pressure.resource.name());
    let level = event.threshold.map(|(_, pressure)| pressure.level.name());
    let threshold = event.threshold.map(|(index, _)| index);
    let fields =
        (event.kind.name(), event.count, event.total, event.time_ns, event.monotonic_ns, resource, level, threshold);
    fields.into_pyobject(py)
}
