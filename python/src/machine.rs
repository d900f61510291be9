//! What concerns the machine and not one container: doctor, plan, ls, gc.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::call::detached;
use crate::{argument, request};

/// The table as JSON and as text.
#[pyfunction]
pub fn doctor(py: Python<'_>) -> PyResult<(String, String)> {
    detached(py, || {
        let report = ringfence::doctor();
        Ok((report.to_json(), report.to_string()))
    })
}

/// The plan of a start as JSON and as text.
#[pyfunction]
pub fn plan(py: Python<'_>, request: &Bound<'_, PyDict>) -> PyResult<(String, String)> {
    let spec = request::spec(request)?;
    detached(py, || {
        let plan = ringfence::plan(&spec)?;
        Ok((plan.to_json(), plan.to_string()))
    })
}

/// Validates a request and gives the spec back as JSON.
#[pyfunction]
pub fn check(py: Python<'_>, request: &Bound<'_, PyDict>) -> PyResult<String> {
    let spec = request::spec(request)?;
    detached(py, || {
        spec.validate()?;
        Ok(spec.to_json())
    })
}

/// The JSON schema of a spec.
#[pyfunction]
pub fn schema() -> String {
    ringfence::spec::schema_json()
}

/// The named containers of this user, as tuples in the order of the fields of `ringfence.Entry`.
#[pyfunction]
#[allow(clippy::type_complexity, reason = "a row, unpacked at once in Python")]
pub fn ls(py: Python<'_>) -> PyResult<Vec<(String, String, &'static str, i32, bool, f64, Vec<String>, Option<i32>)>> {
    let entries = detached(py, ringfence::ls)?;
    Ok(entries
        .into_iter()
        .map(|e| (e.name, e.id, e.state, e.pid, e.detached, e.created, e.command, e.exit_code))
        .collect())
}

/// Ends and removes what dead keepers left; processes, cgroups, files, what remains.
#[pyfunction]
pub fn gc(py: Python<'_>) -> PyResult<(usize, usize, usize, Vec<String>)> {
    let report = detached(py, ringfence::gc)?;
    Ok((report.processes, report.cgroups, report.files, report.remaining))
}

/// Forgets a detached container.
#[pyfunction]
pub fn rm(
    py: Python<'_>,
    #[pyo3(from_py_with = argument::name)] name: String,
    #[pyo3(from_py_with = argument::force)] force: bool,
) -> PyResult<()> {
    detached(py, || ringfence::rm(&name, force))
}

/// Ends the keepers of this process that have nothing to keep.
#[pyfunction]
pub fn end_keepers(py: Python<'_>) {
    py.detach(ringfence::end_keepers);
    crate::log::deliver(py);
}
