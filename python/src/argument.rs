//! Arguments whose errors say which one it was: of what a value of the wrong type lacks, the interpreter tells, not for which.

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::call::to_python;

/// The same exception, or the next built-in one that a sentence makes, with the name in front.
fn named(py: Python<'_>, name: &str, error: &PyErr) -> PyErr {
    let text = format!("{name}: {}", error.value(py));
    if error.is_instance_of::<PyTypeError>(py) {
        return PyTypeError::new_err(text);
    }
    // One of a class that takes more than a sentence (UnicodeEncodeError) is a ValueError.
    let same = error.get_type(py).call1((text.clone(),));
    same.map_or_else(|_| PyValueError::new_err(text), PyErr::from_value)
}

/// The value of the argument with this name.
fn extract<'py, T: FromPyObjectOwned<'py>>(name: &str, given: &Bound<'py, PyAny>) -> PyResult<T> {
    given.extract::<T>().map_err(|error| named(given.py(), name, &Into::into(error)))
}

macro_rules! arguments {
    ($($name:ident)*) => {$(
        pub fn $name<'py, T: FromPyObjectOwned<'py>>(given: &Bound<'py, PyAny>) -> PyResult<T> {
            extract(stringify!($name), given)
        }
    )*};
}

arguments! {
    address backlog cloexec cols data device family fd flags force inside interface kind kinds length limit mode most name number
    owner path pid pid_inside pidfd port proto rows source special target value
}

/// Of a socket: `type`, which is no name in Rust.
pub fn socket_type(given: &Bound<'_, PyAny>) -> PyResult<i32> {
    extract("type", given)
}

/// A signal, by number or name.
pub fn sig(given: &Bound<'_, PyAny>) -> PyResult<i32> {
    match given.cast::<PyString>() {
        // With the field that numbers have which are none.
        Ok(text) => ringfence::spec::parse_signal(text.to_str()?).map_err(|why| wrong(given.py(), "signal", why)),
        Err(_) => extract("sig", given),
    }
}

/// An errno, by number or name.
pub fn errno(given: &Bound<'_, PyAny>) -> PyResult<i32> {
    match given.cast::<PyString>() {
        Ok(text) => ringfence::parse_errno(text.to_str()?).map_err(|why| wrong(given.py(), "errno", why)),
        Err(_) => extract("errno", given),
    }
}

fn wrong(py: Python<'_>, name: &str, why: String) -> PyErr {
    let error = ringfence::Error::new(ringfence::ErrorKind::InvalidArgument, why);
    to_python(py, &error.with_field(name).with_errno(libc::EINVAL))
}

/// Seconds: a number, text as the vocabulary has it (`500ms`, `2s`, `1m`), or a timedelta. `None` is for ever.
pub fn timeout(given: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    seconds("timeout", given)
}

/// The same, of any argument.
#[pyfunction]
pub fn seconds(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
    if given.is_none() {
        return Ok(None);
    }
    if let Ok(text) = given.cast::<PyString>() {
        let time = ringfence::spec::parse_duration(text.to_str()?).map_err(|why| wrong(given.py(), name, why))?;
        return Ok(Some(time.as_secs_f64()));
    }
    if let Ok(number) = given.extract::<f64>() {
        return Ok(Some(number));
    }
    if given.hasattr("total_seconds")? {
        return given.call_method0("total_seconds")?.extract().map(Some);
    }
    let kind = given.get_type().name()?;
    Err(PyTypeError::new_err(format!("{name}: expected seconds, or text like \"500ms\", \"2s\", \"1m\", not {kind}")))
}
