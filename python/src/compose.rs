//! Several containers with an order.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringfence::Member;

use crate::call::detached;
use crate::container::{Container, duration};
use crate::pod::Pod;
use crate::{argument, request, wait};

/// One look while waiting; a signal is seen after it.
const SLICE: Duration = Duration::from_millis(250);

/// A group.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Group(ringfence::Group);

/// Runs a call that asks whether to go on: not when a signal handler raises, and that is raised then.
fn interruptible(
    py: Python<'_>,
    call: impl FnOnce(&mut dyn FnMut() -> bool) -> ringfence::Result<()> + Send,
) -> PyResult<()> {
    let mut raised = None;
    let result = detached(py, || {
        call(&mut || {
            Python::attach(|py| match py.check_signals() {
                Ok(()) => true,
                Err(error) => {
                    raised = Some(error);
                    false
                }
            })
        })
    });
    raised.map_or(result, Err)
}

impl Group {
    /// Until `look` finds something.
    fn until<T: Send>(
        &self,
        py: Python<'_>,
        timeout: Option<f64>,
        look: impl Fn(&ringfence::Group, Duration) -> ringfence::Result<Option<T>> + Sync,
    ) -> PyResult<Option<T>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            let slice = deadline.map_or(SLICE, |end| SLICE.min(end.saturating_duration_since(Instant::now())));
            if let Some(found) = detached(py, || look(&self.0, slice))? {
                return Ok(Some(found));
            }
            py.check_signals()?;
            if deadline.is_some_and(|end| Instant::now() >= end) {
                return Ok(None);
            }
        }
    }
}

#[pymethods]
impl Group {
    #[new]
    #[pyo3(signature = (pod=None))]
    fn new(pod: Option<&Pod>) -> Self {
        Self(pod.map_or_else(ringfence::Group::new, |pod| ringfence::Group::in_pod(&pod.0)))
    }
    /// `request` is what `ringfence/_request.py` makes of keyword arguments.
    #[pyo3(signature = (name, request, after, wait_for=None))]
    fn add(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::name)] name: String,
        request: &Bound<'_, PyDict>,
        after: Vec<String>,
        wait_for: Option<&str>,
    ) -> PyResult<()> {
        let spec = request::spec(request)?;
        detached(py, || {
            let member = Member { spec, after, wait_for: None };
            let member = match wait_for {
                Some(conditions) => member.wait_for_json(conditions)?,
                None => member,
            };
            self.0.add(&name, member)
        })
    }
    #[getter]
    fn names(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| self.0.names())
    }
    fn order(&self, py: Python<'_>) -> PyResult<Vec<Vec<String>>> {
        detached(py, || self.0.order())
    }
    #[pyo3(signature = (timeout=None))]
    fn start(&self, py: Python<'_>, #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>) -> PyResult<()> {
        let timeout = duration(timeout)?;
        interruptible(py, |go_on| self.0.start_while(timeout, go_on))
    }
    fn container(&self, py: Python<'_>, #[pyo3(from_py_with = argument::name)] name: String) -> PyResult<Container> {
        detached(py, || self.0.container(&name)).map(Container)
    }
    #[getter]
    fn started(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.is_started())
    }
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>) -> PyResult<bool> {
        let look = |group: &ringfence::Group, slice| Ok(group.wait_end(Some(slice))?.then_some(()));
        Ok(self.until(py, timeout, look)?.is_some())
    }
    #[pyo3(signature = (timeout=None))]
    fn wait_any(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<Option<String>> {
        self.until(py, timeout, |group, slice| group.wait_any(Some(slice)))
    }
    fn kill(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.0.kill())
    }
    #[pyo3(signature = (timeout=None))]
    fn close(&self, py: Python<'_>, #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>) -> PyResult<()> {
        let timeout = duration(timeout)?;
        interruptible(py, |go_on| self.0.close_while(timeout, go_on))
    }
}
