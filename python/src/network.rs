//! Networks of containers.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringfence::spec::{Firewall, NetworkSpec};
use ringfence::{Direction, Shape};

use crate::call::detached;
use crate::container::{Container, duration};
use crate::{argument, request};

/// A network.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Network(pub ringfence::Network);

fn all(containers: &[PyRef<'_, Container>]) -> Vec<ringfence::Container> {
    containers.iter().map(|container| container.0.clone()).collect()
}

#[pymethods]
impl Network {
    /// Makes one. `options` is JSON.
    #[staticmethod]
    fn start(py: Python<'_>, options: &str) -> PyResult<Self> {
        detached(py, || ringfence::Network::start(&NetworkSpec::from_json(options)?)).map(Self)
    }
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }
    #[getter]
    fn running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.is_running())
    }
    fn container(&self, py: Python<'_>, request: &Bound<'_, PyDict>) -> PyResult<Container> {
        let spec = request::spec(request)?;
        detached(py, || self.0.container(&spec)).map(Container)
    }
    fn info(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.info_json())
    }
    fn partition(
        &self,
        py: Python<'_>,
        one: Vec<PyRef<'_, Container>>,
        other: Vec<PyRef<'_, Container>>,
    ) -> PyResult<()> {
        let (one, other) = (all(&one), all(&other));
        detached(py, || self.0.partition(&one.iter().collect::<Vec<_>>(), &other.iter().collect::<Vec<_>>()))
    }
    fn heal(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.heal())
    }
    fn set_link(&self, py: Python<'_>, container: PyRef<'_, Container>, up: bool) -> PyResult<()> {
        let container = container.0.clone();
        detached(py, || self.0.set_link(&container, up))
    }
    /// `shape` is JSON.
    fn shape(&self, py: Python<'_>, container: PyRef<'_, Container>, shape: &str, direction: &str) -> PyResult<()> {
        let container = container.0.clone();
        detached(py, || self.0.shape(&container, &Shape::from_json(shape)?, Direction::parse(direction)?))
    }
    /// `firewall` is JSON.
    fn set_firewall(&self, py: Python<'_>, container: PyRef<'_, Container>, firewall: &str) -> PyResult<()> {
        let container = container.0.clone();
        detached(py, || self.0.set_firewall(&container, &Firewall::from_json(firewall)?))
    }
    fn firewall(&self, py: Python<'_>, container: PyRef<'_, Container>) -> PyResult<String> {
        let container = container.0.clone();
        detached(py, || self.0.firewall_json(&container))
    }
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.kill())
    }
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>) -> PyResult<()> {
        let timeout = duration(timeout)?;
        detached(py, || self.0.close(timeout))
    }
}
