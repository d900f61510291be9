//! A reader of a log.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::call::detached;
use crate::{argument, wait};

/// A reader of the log of a container.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct LogReader(pub ringfence::LogReader);

#[pymethods]
impl LogReader {
    #[getter]
    fn fd(&self) -> i32 {
        self.0.fd().as_raw_fd()
    }
    #[getter]
    fn over(&self) -> bool {
        self.0.is_over()
    }
    #[getter]
    fn position(&self) -> u64 {
        self.0.position()
    }
    /// The next line; `None` when the time passed or it is over.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            if let Some(line) = detached(py, || self.0.next(Some(Duration::ZERO)))? {
                return Ok(Some(PyBytes::new(py, &line)));
            }
            // Where the kernel does not notify, the descriptor may be readable again and again with nothing to tell.
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
