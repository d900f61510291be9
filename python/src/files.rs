//! Reading, writing and copying files of a container.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use ringfence::{CopyOptions, CopyProgress, RemoveOptions, Special, WriteOptions};

use crate::argument;
use crate::call::{detached, to_python};
use crate::container::duration;

/// What a call that takes long asks from time to time: whether a signal has come, and what the caller's function says.
struct Asked<'p> {
    progress: Option<&'p Py<PyAny>>,
    failed: Option<PyErr>,
}

impl Asked<'_> {
    fn go_on(&mut self, at: &CopyProgress) -> bool {
        let told = Python::attach(|py| {
            py.check_signals()?;
            match self.progress {
                Some(progress) => progress.call1(py, (at.entries, at.bytes, at.skipped)).map(drop),
                None => Ok(()),
            }
        });
        self.failed = told.err();
        self.failed.is_none()
    }
}

/// Runs `work`, which is to ask; an exception that came of that is the call's.
fn asking<T: Send>(
    py: Python<'_>,
    progress: Option<&Py<PyAny>>,
    work: impl FnOnce(&mut dyn FnMut(&CopyProgress) -> bool) -> ringfence::Result<T> + Send,
) -> PyResult<T> {
    let mut asked = Asked { progress, failed: None };
    let done = detached(py, || work(&mut |at| asked.go_on(at)));
    match asked.failed {
        Some(failed) => Err(failed),
        None => done,
    }
}

pub fn read<'py>(
    py: Python<'py>,
    container: &ringfence::Container,
    path: PathBuf,
    limit: Option<u64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = asking(py, None, |go_on| container.read_while(&path, limit, go_on))?;
    Ok(PyBytes::new(py, &bytes))
}

pub fn write(
    py: Python<'_>,
    container: &ringfence::Container,
    path: PathBuf,
    data: &[u8],
    mode: Option<u32>,
    owner: Option<String>,
) -> PyResult<()> {
    let options = WriteOptions { mode, owner };
    asking(py, None, |go_on| container.write_while(&path, data, &options, go_on))
}

/// How to copy.
pub struct Options<'p> {
    pub owner: Option<String>,
    pub special: &'p str,
    pub timeout: Option<Duration>,
    pub progress: Option<&'p Py<PyAny>>,
}

/// (entries, bytes, skipped)
pub fn copy(
    py: Python<'_>,
    container: &ringfence::Container,
    into: bool,
    source: PathBuf,
    target: PathBuf,
    options: Options<'_>,
) -> PyResult<(u64, u64, u64)> {
    let special = Special::parse(options.special).map_err(|error| to_python(py, &error))?;
    let (owner, timeout) = (options.owner, options.timeout);
    let done = asking(py, options.progress, |go_on| {
        let options = CopyOptions { owner, special, timeout, progress: Some(go_on) };
        if into { container.copy_in(source, target, options) } else { container.copy_out(source, target, options) }
    })?;
    Ok((done.entries, done.bytes, done.skipped))
}

/// Removes a tree of the host.
#[pyfunction]
#[pyo3(signature = (path, timeout=None))]
pub fn remove_tree(
    py: Python<'_>,
    #[pyo3(from_py_with = argument::path)] path: PathBuf,
    #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
) -> PyResult<()> {
    let timeout = duration(timeout)?;
    asking(py, None, |go_on| ringfence::remove_tree(&path, RemoveOptions { timeout, progress: Some(go_on) }))
}

/// The named volumes, as JSON.
#[pyfunction]
pub fn volumes(py: Python<'_>) -> PyResult<String> {
    detached(py, || ringfence::volumes().map(|volumes| ringfence::Volume::to_json(&volumes)))
}

#[pyfunction]
pub fn remove_volume(py: Python<'_>, #[pyo3(from_py_with = argument::name)] name: String) -> PyResult<()> {
    detached(py, || ringfence::remove_volume(&name))
}
