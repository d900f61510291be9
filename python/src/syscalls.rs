//! System calls of a container that the host answers.

use std::os::fd::{AsRawFd, IntoRawFd};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringfence::InjectedFd;

use crate::call::detached;
use crate::{argument, wait};

/// A reader of the system calls of a container.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct SyscallListener(pub ringfence::SyscallListener);

#[pymethods]
impl SyscallListener {
    #[getter]
    fn fd(&self) -> i32 {
        self.0.fd().as_raw_fd()
    }
    #[getter]
    fn over(&self) -> bool {
        self.0.is_over()
    }
    /// `None` when the time passed or it is over.
    #[pyo3(signature = (timeout=None))]
    fn next(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<Option<SyscallRequest>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            if let Some(request) = detached(py, || self.0.next(Some(Duration::ZERO)))? {
                return Ok(Some(SyscallRequest(request)));
            }
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

/// A system call that waits for an answer.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct SyscallRequest(ringfence::SyscallRequest);

impl SyscallRequest {
    fn inject(&self, py: Python<'_>, fd: i32, number: Option<i32>, cloexec: bool, answer: bool) -> PyResult<i32> {
        if fd < 0 {
            return Err(PyValueError::new_err(format!("{fd} is no descriptor")));
        }
        let how = InjectedFd { number, cloexec };
        detached(py, || self.0.inject(fd, how, answer))
    }
}

#[pymethods]
impl SyscallRequest {
    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }
    #[getter]
    fn pid(&self) -> i32 {
        self.0.pid()
    }
    #[getter]
    fn process(&self) -> i32 {
        self.0.process()
    }
    #[getter]
    fn arch(&self) -> &'static str {
        self.0.arch().name()
    }
    #[getter]
    fn number(&self) -> i32 {
        self.0.number()
    }
    #[getter]
    fn name(&self) -> Option<&'static str> {
        self.0.name()
    }
    #[getter]
    fn args(&self) -> [u64; 6] {
        self.0.args()
    }
    #[getter]
    fn instruction_pointer(&self) -> u64 {
        self.0.instruction_pointer()
    }
    #[getter]
    fn gone(&self) -> bool {
        self.0.is_gone()
    }
    fn is_valid(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, || self.0.is_valid())
    }
    fn answer_continue(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.answer_continue())
    }
    fn answer_errno(&self, py: Python<'_>, #[pyo3(from_py_with = argument::errno)] errno: i32) -> PyResult<()> {
        detached(py, || self.0.answer_errno(errno))
    }
    fn answer_value(&self, py: Python<'_>, #[pyo3(from_py_with = argument::value)] value: i64) -> PyResult<()> {
        detached(py, || self.0.answer_value(value))
    }
    fn answer_fd(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::fd)] fd: i32,
        #[pyo3(from_py_with = argument::number)] number: Option<i32>,
        #[pyo3(from_py_with = argument::cloexec)] cloexec: bool,
    ) -> PyResult<i32> {
        self.inject(py, fd, number, cloexec, true)
    }
    fn add_fd(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::fd)] fd: i32,
        #[pyo3(from_py_with = argument::number)] number: Option<i32>,
        #[pyo3(from_py_with = argument::cloexec)] cloexec: bool,
    ) -> PyResult<i32> {
        self.inject(py, fd, number, cloexec, false)
    }
    fn read_memory<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::address)] address: u64,
        #[pyo3(from_py_with = argument::length)] length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        detached(py, || self.0.read_memory(address, length)).map(|bytes| PyBytes::new(py, &bytes))
    }
    fn read_c_string<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::address)] address: u64,
        #[pyo3(from_py_with = argument::most)] most: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        detached(py, || self.0.read_c_string(address, most)).map(|text| PyBytes::new(py, text.to_bytes()))
    }
    fn write_memory(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::address)] address: u64,
        #[pyo3(from_py_with = argument::data)] data: Vec<u8>,
    ) -> PyResult<()> {
        detached(py, || self.0.write_memory(address, &data))
    }
    /// The caller's.
    fn dup_fd(&self, py: Python<'_>, #[pyo3(from_py_with = argument::number)] number: i32) -> PyResult<i32> {
        detached(py, || self.0.dup_fd(number)).map(IntoRawFd::into_raw_fd)
    }
}
