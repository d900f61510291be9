//! Containers that share namespaces.

use std::os::fd::AsRawFd;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringfence::spec::NamespaceKind;

use crate::call::detached;
use crate::container::{Container, duration};
use crate::events::Events;
use crate::namespace::Namespace;
use crate::{argument, request, wait};

/// A pod.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Pod(pub ringfence::Pod);

#[pymethods]
impl Pod {
    /// Starts one. `request` is what `ringfence/_request.py` makes of keyword arguments.
    #[staticmethod]
    fn start(py: Python<'_>, request: &Bound<'_, PyDict>, share: &str) -> PyResult<Self> {
        let spec = request::spec(request)?;
        detached(py, || ringfence::Pod::start(&spec, &ringfence::Pod::parse_share(share)?)).map(Self)
    }
    fn container(&self, py: Python<'_>, request: &Bound<'_, PyDict>) -> PyResult<Container> {
        let spec = request::spec(request)?;
        detached(py, || self.0.container(&spec)).map(Container)
    }
    fn find_container(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::name)] name: String,
    ) -> PyResult<Container> {
        detached(py, || self.0.find_container(&name)).map(Container)
    }
    fn containers(&self, py: Python<'_>) -> Vec<Container> {
        py.detach(|| self.0.containers()).into_iter().map(Container).collect()
    }
    #[getter]
    fn name(&self) -> Option<&str> {
        self.0.name()
    }
    #[getter]
    fn id(&self) -> &str {
        self.0.id()
    }
    #[getter]
    fn share(&self) -> Vec<&'static str> {
        self.0.share().iter().map(|kind| kind.name()).collect()
    }
    #[getter]
    fn pid(&self) -> i32 {
        self.0.pid()
    }
    #[getter]
    fn pidfd(&self) -> i32 {
        self.0.pidfd().as_raw_fd()
    }
    #[getter]
    fn events_fd(&self) -> i32 {
        self.0.events_fd().as_raw_fd()
    }
    #[getter]
    fn running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.is_running())
    }
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.kill())
    }
    /// Waits until it has ended and everything is undone.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>) -> PyResult<bool> {
        wait::ended(py, self.0.events_fd(), timeout, |slice| self.0.wait_end(Some(slice)))
    }
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>) -> PyResult<()> {
        let timeout = duration(timeout)?;
        detached(py, || self.0.close(timeout))
    }
    fn usage(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.0.usage().map(|usage| usage.to_json()))
    }
    /// `options` is JSON.
    fn events(&self, py: Python<'_>, options: &str) -> PyResult<Events> {
        detached(py, || self.0.events(&ringfence::EventOptions::from_json(options)?)).map(Events)
    }
    fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.freeze())
    }
    fn thaw(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.thaw())
    }
    fn update(&self, py: Python<'_>, json: &str) -> PyResult<()> {
        detached(py, || self.0.update_json(json))
    }
    fn spec(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.spec().to_json())
    }
    fn namespace(&self, py: Python<'_>, #[pyo3(from_py_with = argument::kind)] kind: String) -> PyResult<Namespace> {
        detached(py, || self.0.namespace(NamespaceKind::parse(&kind)?)).map(Namespace)
    }
    fn info(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.info_json())
    }
}
