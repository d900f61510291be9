//! Namespaces that exist.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::PathBuf;

use pyo3::prelude::*;
use ringfence::spec::{NamespaceKind, NamespaceSource};

use crate::call::detached;

/// A namespace, held by a descriptor.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Namespace(pub ringfence::Namespace);

#[pymethods]
impl Namespace {
    #[staticmethod]
    #[pyo3(signature = (source, kind=None))]
    fn find(py: Python<'_>, source: OsString, kind: Option<&str>) -> PyResult<Self> {
        detached(py, || {
            let kind = kind.map(NamespaceKind::parse).transpose()?;
            ringfence::Namespace::find(&NamespaceSource::parse(&source)?, kind)
        })
        .map(Self)
    }
    #[staticmethod]
    fn of_pid(py: Python<'_>, pid: i32, kind: &str) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::of_pid(pid, NamespaceKind::parse(kind)?)).map(Self)
    }
    #[staticmethod]
    fn of_pidfd(py: Python<'_>, pidfd: i32, kind: &str) -> PyResult<Self> {
        // A number, which may be closed: `find` makes sure.
        detached(py, || ringfence::Namespace::find(&NamespaceSource::Fd(pidfd), Some(NamespaceKind::parse(kind)?)))
            .map(Self)
    }
    #[staticmethod]
    fn of_path(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::of_path(path)).map(Self)
    }
    #[staticmethod]
    fn of_fd(py: Python<'_>, fd: i32) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::of_fd(fd)).map(Self)
    }
    #[staticmethod]
    fn own(py: Python<'_>, kind: &str) -> PyResult<Self> {
        detached(py, || ringfence::Namespace::own(NamespaceKind::parse(kind)?)).map(Self)
    }
    fn pin(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        detached(py, || self.0.pin(&path))
    }
    #[staticmethod]
    fn unpin(py: Python<'_>, path: PathBuf) -> PyResult<()> {
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
    fn pid_in(&self, py: Python<'_>, pid: i32) -> PyResult<i32> {
        detached(py, || self.0.pid_in(pid))
    }
    fn pid_from(&self, py: Python<'_>, pid: i32) -> PyResult<i32> {
        detached(py, || self.0.pid_from(pid))
    }
}

/// All namespaces of the machine, as JSON.
#[pyfunction]
pub fn namespaces(py: Python<'_>) -> PyResult<String> {
    detached(py, || ringfence::namespaces().map(|entries| ringfence::NamespaceEntry::to_json(&entries)))
}
