//! Calls into the core: without the interpreter's lock, errors become Python's, log records are handed over afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Runs `work` with the interpreter's lock released. A panic becomes an error of kind `internal`: PyO3's own exception for
/// it is no `Exception`, so that a caller's clean-up would not see it.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> ringfence::Result<T> + Send) -> PyResult<T> {
    let result = py.detach(|| {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let what =
                panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(ringfence::Error::new(ringfence::ErrorKind::Internal, what.unwrap_or("a defect of ringfence")))
        })
    });
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
            error.log_tail(),
        ))
    });
    match made {
        Ok(value) => PyErr::from_value(value),
        Err(failure) => failure,
    }
}
