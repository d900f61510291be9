//! Calls into the core: without the interpreter's lock, errors become Python's, log records are handed over afterwards.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Runs `work` with the interpreter's lock released.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> ringfence::Result<T> + Send) -> PyResult<T> {
    let result = py.detach(work);
    crate::log::deliver(py);
    result.map_err(|error| to_python(py, &error))
}

/// The exception for an error of the core; its class is chosen in `ringfence/_errors.py`.
pub fn to_python(py: Python<'_>, error: &ringfence::Error) -> PyErr {
    static FROM_CORE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = FROM_CORE.import(py, "ringfence._errors", "from_core").and_then(|from_core| {
        from_core.call1((
            error.to_string(),
            error.kind().name(),
            error.errno(),
            error.field(),
            error.step(),
            error.path(),
            error.hint(),
        ))
    });
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(failure) => failure,
    }
}
