//! Namespaces that exist.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::PathBuf;

use pyo3::prelude::*;
use ringfence::spec::{NamespaceKind, NamespaceSource};

use crate::argument;
use crate::call::detached;

/// A namespace, held by a descriptor.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Namespace(pub ringfence::Namespace);

#[pymethods]
impl Namespace {
    #[staticmethod]
    #[pyo3(signature = (source, kind=None))]
    fn find(
        py: Python<'_>,
        #[pyo3(from_py_with = argument::source)] source: OsString,
        #[pyo3(from_py_with = argument::kind)] kind: Option<String>,
    ) -> PyResult<Self> {
        detached(py, || {
            let kind = kind.as_deref().map(NamespaceKind::parse).transpose()?;
            ringfence::Namespace::find(&NamespaceSource::parse(&source)?, kind)
        })
        .map(Self)
    }
    #[staticmethod]
    fn of_pid(
        py: Python<'_>,
        #[pyo3(from_py_with = argument::pid)] pid: i32,
        #[pyo3(from_py_with = argument::kind)] kind: String,
    ) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::of_pid(pid, NamespaceKind::parse(&kind)?)).map(Self)
    }
    #[staticmethod]
    fn of_pidfd(
        py: Python<'_>,
        #[pyo3(from_py_with = argument::pidfd)] pidfd: i32,
        #[pyo3(from_py_with = argument::kind)] kind: String,
    ) -> PyResult<Self> {
        // A number, which may be closed: `find` makes sure.
        detached(py, || ringfence::Namespace::find(&NamespaceSource::Fd(pidfd), Some(NamespaceKind::parse(&kind)?)))
            .map(Self)
    }
    #[staticmethod]
    fn of_path(py: Python<'_>, #[pyo3(from_py_with = argument::path)] path: PathBuf) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::of_path(path)).map(Self)
    }
    #[staticmethod]
    fn of_fd(py: Python<'_>, #[pyo3(from_py_with = argument::fd)] fd: i32) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::of_fd(fd)).map(Self)
    }
    #[staticmethod]
    fn own(py: Python<'_>, #[pyo3(from_py_with = argument::kind)] kind: String) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::own(NamespaceKind::parse(&kind)?)).map(Self)
    }
    fn pin(&self, py: Python<'_>, #[pyo3(from_py_with = argument::path)] path: PathBuf) -> PyResult<()> {
        detached(py, || self.0.pin(&path))
    }
    #[staticmethod]
    fn unpin(py: Python<'_>, #[pyo3(from_py_with = argument::path)] path: PathBuf) -> PyResult<()> {
        detached(py, || ringfence::Namespace::unpin(&path))
    }
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind().name()
    }
    #[getter]
    fn inode(&self) -> u64 {
        self.0.inode()
    }
    #[getter]
    fn device(&self) -> u64 {
        self.0.device()
    }
    #[getter]
    fn id(&self) -> Option<u64> {
        self.0.id()
    }
    #[getter]
    fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
    /// Another descriptor, the caller's.
    fn open(&self, py: Python<'_>) -> PyResult<i32> {
        detached(py, || self.0.try_clone_fd()).map(IntoRawFd::into_raw_fd)
    }
    fn owner_uid(&self, py: Python<'_>) -> PyResult<u32> {
        detached(py, || self.0.owner_uid())
    }
    fn owner(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        Ok(detached(py, || self.0.owner())?.map(Self))
    }
    fn parent(&self, py: Python<'_>) -> PyResult<Option<Self>> {
        Ok(detached(py, || self.0.parent())?.map(Self))
    }
    fn members(&self, py: Python<'_>) -> PyResult<Vec<i32>> {
        detached(py, || self.0.members())
    }
    fn pid_in(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pid)] pid: i32) -> PyResult<i32> {
        detached(py, || self.0.pid_in(pid))
    }
    fn pid_from(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pid)] pid: i32) -> PyResult<i32> {
        detached(py, || self.0.pid_from(pid))
    }
}

/// All namespaces of the machine, as JSON.
#[pyfunction]
pub fn namespaces(py: Python<'_>) -> PyResult<String> {
    detached(py, || ringfence::namespaces().map(|entries| ringfence::NamespaceEntry::to_json(&entries)))
}
