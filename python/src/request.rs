//! A request of the Python layer becomes a spec or a command.
//!
//! `{"fields": JSON text, ...}`: values that are text or numbers travel as JSON, under the rules that C and JSON files have;
//! values that may hold any bytes (argv, env, cwd, files) travel as bytes, because JSON cannot hold them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use ringfence::spec::File;
use ringfence::{Command, Spec};

use crate::call::to_python;

fn bytes(value: &Bound<'_, PyAny>) -> PyResult<OsString> {
    Ok(OsString::from_vec(value.cast::<PyBytes>()?.as_bytes().to_vec()))
}

/// What travels as bytes, and where it goes.
struct Raw<'a> {
    argv: &'a mut Vec<OsString>,
    env: &'a mut BTreeMap<OsString, Option<OsString>>,
    cwd: &'a mut Option<PathBuf>,
    pass_fds: &'a mut BTreeMap<i32, i32>,
    files: Option<&'a mut BTreeMap<PathBuf, File>>,
}

fn lay(request: &Bound<'_, PyDict>, raw: Raw<'_>) -> PyResult<()> {
    if let Some(argv) = request.get_item("argv")? {
        *raw.argv = argv.cast::<PyList>()?.iter().map(|word| bytes(&word)).collect::<PyResult<_>>()?;
    }
    if let Some(env) = request.get_item("env")? {
        for (name, value) in env.cast::<PyDict>()? {
            let value = if value.is_none() { None } else { Some(bytes(&value)?) };
            raw.env.insert(bytes(&name)?, value);
        }
    }
    if let Some(cwd) = request.get_item("cwd")? {
        *raw.cwd = Some(PathBuf::from(bytes(&cwd)?));
    }
    if let Some(pass_fds) = request.get_item("pass_fds")? {
        *raw.pass_fds = pass_fds.extract()?;
    }
    if let (Some(given), Some(files)) = (request.get_item("files")?, raw.files) {
        for (path, file) in given.cast::<PyDict>()? {
            let (data, mode): (Bound<'_, PyBytes>, u32) = file.extract()?;
            files.insert(PathBuf::from(bytes(&path)?), File { data: data.as_bytes().to_vec(), mode });
        }
    }
    Ok(())
}

fn fields(request: &Bound<'_, PyDict>) -> PyResult<String> {
    request.get_item("fields")?.map_or_else(|| Ok("{}".to_owned()), |fields| fields.extract())
}

/// The spec of a container.
pub fn spec(request: &Bound<'_, PyDict>) -> PyResult<Spec> {
    let failed = |error: ringfence::Error| to_python(request.py(), &error);
    let mut spec = Spec::from_json(&fields(request)?).map_err(failed)?;
    lay(
        request,
        Raw {
            argv: &mut spec.argv,
            env: &mut spec.env,
            cwd: &mut spec.cwd,
            pass_fds: &mut spec.pass_fds,
            files: Some(&mut spec.files),
        },
    )?;
    if let Some(texts) = request.get_item("set")? {
        for (field, text) in texts.extract::<Vec<(String, Bound<'_, PyBytes>)>>()? {
            spec.set(&field, text.as_bytes()).map_err(failed)?;
        }
    }
    Ok(spec)
}

/// A command for a running container.
pub fn command(request: &Bound<'_, PyDict>) -> PyResult<Command> {
    let mut command = Command::default();
    command.merge_json(&fields(request)?).map_err(|error| to_python(request.py(), &error))?;
    lay(
        request,
        Raw {
            argv: &mut command.argv,
            env: &mut command.env,
            cwd: &mut command.cwd,
            pass_fds: &mut command.pass_fds,
            files: None,
        },
    )?;
    Ok(command)
}
