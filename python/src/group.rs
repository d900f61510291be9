//! Groups of processes inside a container.

use pyo3::prelude::*;

use crate::call::detached;

/// A group of processes inside a container.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct ControlGroup(pub ringfence::ControlGroup);

#[pymethods]
impl ControlGroup {
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }
    fn limits(&self) -> String {
        self.0.limits().to_json()
    }
    fn update(&self, py: Python<'_>, json: &str) -> PyResult<()> {
        detached(py, || self.0.update_json(json))
    }
    fn usage(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.0.usage().map(|usage| usage.to_json()))
    }
    fn freeze(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.freeze())
    }
    fn thaw(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.thaw())
    }
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.kill())
    }
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.remove())
    }
}
