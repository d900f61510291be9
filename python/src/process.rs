//! A process in a container.

use std::os::fd::{AsRawFd, IntoRawFd};
use std::time::Duration;

use pyo3::prelude::*;

use crate::call::detached;
use crate::{argument, wait};

/// How a process ended.
#[pyclass(frozen, get_all, module = "ringfence._ringfence")]
pub struct ExitStatus {
    code: Option<i32>,
    signal: Option<i32>,
    core_dumped: bool,
    reason: &'static str,
    user_usec: u64,
    system_usec: u64,
    max_rss: u64,
}

impl From<ringfence::ExitStatus> for ExitStatus {
    fn from(status: ringfence::ExitStatus) -> Self {
        Self {
            code: status.code,
            signal: status.signal,
            core_dumped: status.core_dumped,
            reason: status.reason.name(),
            user_usec: status.user_usec,
            system_usec: status.system_usec,
            max_rss: status.max_rss,
        }
    }
}

#[pymethods]
impl ExitStatus {
    fn __repr__(&self) -> String {
        match (self.code, self.signal) {
            (Some(code), _) => format!("ExitStatus(code={code}, reason={:?})", self.reason),
            (_, Some(signal)) => format!("ExitStatus(signal={signal}, reason={:?})", self.reason),
            _ => format!("ExitStatus(reason={:?})", self.reason),
        }
    }
}

/// A process in a container.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Process(pub ringfence::Process);

#[pymethods]
impl Process {
    #[getter]
    fn pid(&self) -> i32 {
        self.0.pid()
    }
    #[getter]
    fn pidfd(&self) -> i32 {
        self.0.pidfd().as_raw_fd()
    }
    #[getter]
    fn status_fd(&self) -> i32 {
        self.0.status_fd().as_raw_fd()
    }
    #[pyo3(signature = (timeout=None))]
    fn wait(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<Option<ExitStatus>> {
        let deadline = wait::deadline(timeout)?;
        while wait::readable(py, self.0.status_fd(), deadline)? {
            // The descriptor speaks before the record is read by whichever thread is first.
            let status = detached(py, || self.0.wait(Some(Duration::from_millis(50))))?;
            if let Some(status) = status {
                return Ok(Some(status.into()));
            }
        }
        Ok(None)
    }
    fn try_wait(&self, py: Python<'_>) -> PyResult<Option<ExitStatus>> {
        Ok(detached(py, || self.0.try_wait())?.map(ExitStatus::from))
    }
    fn kill(&self, py: Python<'_>, #[pyo3(from_py_with = argument::sig)] sig: i32) -> PyResult<()> {
        detached(py, || self.0.kill(sig))
    }
    fn take_stdin(&self) -> Option<i32> {
        self.0.take_stdin().map(IntoRawFd::into_raw_fd)
    }
    fn take_stdout(&self) -> Option<i32> {
        self.0.take_stdout().map(IntoRawFd::into_raw_fd)
    }
    fn take_stderr(&self) -> Option<i32> {
        self.0.take_stderr().map(IntoRawFd::into_raw_fd)
    }
    /// The host's end of its terminal, borrowed.
    #[getter]
    fn terminal(&self) -> Option<i32> {
        self.0.terminal().map(|fd| fd.as_raw_fd())
    }
    fn resize(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::rows)] rows: u16,
        #[pyo3(from_py_with = argument::cols)] cols: u16,
    ) -> PyResult<()> {
        detached(py, || self.0.resize(rows, cols))
    }
}
