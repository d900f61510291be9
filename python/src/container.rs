//! The handle of a container.

use std::os::fd::{AsRawFd, IntoRawFd};
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use ringfence::spec::NamespaceKind;
use send_wrapper::SendWrapper;

use crate::call::{detached, to_python};
use crate::events::Events;
use crate::group::ControlGroup;
use crate::logs::LogReader;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::ready::Readiness;
use crate::syscalls::SyscallListener;
use crate::{argument, files, request, wait};

/// A thread inside a container, until it is given back.
#[pyclass(unsendable, module = "ringfence._ringfence")]
pub struct Lent(Option<ringfence::Lent>);

#[pymethods]
impl Lent {
    fn give_back(&mut self, py: Python<'_>) {
        // `detach` asks for what can be sent to tell apart what belongs to the interpreter; it runs this on this thread.
        let lent = SendWrapper::new(self.0.take());
        // Without the interpreter's lock: a thread that cannot be given back ends in this.
        py.detach(move || drop(lent.take()));
    }
}

/// Forgotten, it leaves as if given back: with the interpreter's lock, a thread that ends in this would end all of them.
impl Drop for Lent {
    fn drop(&mut self) {
        if self.0.is_some() {
            Python::attach(|py| self.give_back(py));
        }
    }
}

/// The handle of a container.
#[pyclass(frozen, module = "ringfence._ringfence")]
pub struct Container(pub ringfence::Container);

pub fn duration(timeout: Option<f64>) -> PyResult<Option<Duration>> {
    match timeout {
        None => Ok(None),
        Some(seconds) if seconds.is_nan() => Err(PyValueError::new_err("timeout is not a number")),
        Some(seconds) => Duration::try_from_secs_f64(seconds.max(0.0))
            .map(Some)
            .map_err(|_| PyOverflowError::new_err("timeout is too large")),
    }
}

#[pymethods]
impl Container {
    /// Starts one. `request` is what `ringfence/_request.py` makes of keyword arguments.
    #[staticmethod]
    fn start(py: Python<'_>, request: &Bound<'_, PyDict>) -> PyResult<Self> {
        let spec = request::spec(request)?;
        let unanswered = request.contains("unanswered")?;
        detached(py, || {
            if unanswered {
                spec.check_unanswered()?;
            }
            ringfence::Container::start(&spec)
        })
        .map(Self)
    }
    #[staticmethod]
    fn by_name(py: Python<'_>, #[pyo3(from_py_with = argument::name)] name: String) -> PyResult<Self> {
        detached(py, || ringfence::Container::by_name(&name)).map(Self)
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
    fn detached(&self) -> bool {
        self.0.spec().detach
    }
    #[getter]
    fn running(&self, py: Python<'_>) -> bool {
        py.detach(|| self.0.is_running())
    }
    #[getter]
    fn stop_signal(&self) -> i32 {
        self.0.spec().stop_signal.unwrap_or(libc::SIGTERM)
    }
    /// Seconds, when the spec names them.
    #[getter]
    fn stop_timeout(&self) -> Option<f64> {
        self.0.spec().stop_timeout.map(|timeout| timeout.as_secs_f64())
    }
    fn main(&self) -> Option<Process> {
        self.0.main().map(Process)
    }
    fn spawn(&self, py: Python<'_>, request: &Bound<'_, PyDict>) -> PyResult<Process> {
        let command = request::command(request)?;
        detached(py, || self.0.spawn(&command)).map(Process)
    }
    fn signal(&self, py: Python<'_>, #[pyo3(from_py_with = argument::sig)] sig: i32) -> PyResult<()> {
        detached(py, || self.0.signal(sig))
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
    fn beancounters(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.0.beancounters().map(|counters| ringfence::Beancounter::to_json(&counters)))
    }
    /// `options` is JSON.
    fn events(&self, py: Python<'_>, options: &str) -> PyResult<Events> {
        detached(py, || self.0.events(&ringfence::EventOptions::from_json(options)?)).map(Events)
    }
    fn syscall_listener(&self, py: Python<'_>) -> PyResult<SyscallListener> {
        detached(py, || self.0.syscall_listener()).map(SyscallListener)
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
    fn reclaim(&self, py: Python<'_>, size: &str) -> PyResult<bool> {
        let bytes = ringfence::spec::parse_size(size)
            .map_err(|why| ringfence::Error::new(ringfence::ErrorKind::InvalidArgument, why).with_field("bytes"))
            .map_err(|error| to_python(py, &error))?;
        detached(py, || self.0.reclaim(bytes))
    }
    /// Makes a group inside; `limits` is JSON.
    fn group(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::name)] name: String,
        limits: &str,
    ) -> PyResult<ControlGroup> {
        detached(py, || self.0.group(&name, &ringfence::Spec::from_json(limits)?)).map(ControlGroup)
    }
    fn find_group(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::name)] name: String,
    ) -> PyResult<ControlGroup> {
        detached(py, || self.0.find_group(&name)).map(ControlGroup)
    }
    /// A descriptor of one of its namespaces, the caller's.
    fn ns_fd(&self, py: Python<'_>, #[pyo3(from_py_with = argument::kind)] kind: String) -> PyResult<i32> {
        detached(py, || self.0.ns_fd(NamespaceKind::parse(&kind)?)).map(IntoRawFd::into_raw_fd)
    }
    fn namespace(&self, py: Python<'_>, #[pyo3(from_py_with = argument::kind)] kind: String) -> PyResult<Namespace> {
        detached(py, || self.0.namespace(NamespaceKind::parse(&kind)?)).map(Namespace)
    }
    /// Joins the calling thread for good.
    fn join(&self, py: Python<'_>, #[pyo3(from_py_with = argument::kinds)] kinds: Vec<String>) -> PyResult<()> {
        detached(py, || self.0.join(&NamespaceKind::from_names(kinds.iter().map(String::as_str))?))
    }
    /// Lends the calling thread.
    fn lend(&self, py: Python<'_>, #[pyo3(from_py_with = argument::kinds)] kinds: Vec<String>) -> PyResult<Lent> {
        let lent = NamespaceKind::from_names(kinds.iter().map(String::as_str)).and_then(|kinds| self.0.lend(&kinds));
        lent.map(|lent| Lent(Some(lent))).map_err(|error| to_python(py, &error))
    }
    fn socket(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::family)] family: i32,
        #[pyo3(from_py_with = argument::socket_type)] kind: i32,
        #[pyo3(from_py_with = argument::proto)] proto: i32,
    ) -> PyResult<i32> {
        // As the argument is called here, and in Python's own module.
        let named = |e: ringfence::Error| if e.field() == Some("domain") { e.with_field("family") } else { e };
        detached(py, || self.0.socket(family, kind, proto).map_err(named)).map(IntoRawFd::into_raw_fd)
    }
    fn listen(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::address)] address: String,
        #[pyo3(from_py_with = argument::backlog)] backlog: u32,
    ) -> PyResult<i32> {
        detached(py, || self.0.listen(&address, backlog)).map(IntoRawFd::into_raw_fd)
    }
    #[pyo3(signature = (address, timeout=None))]
    fn connect(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::address)] address: String,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<i32> {
        let timeout = duration(timeout)?;
        detached(py, || self.0.connect(&address, timeout)).map(IntoRawFd::into_raw_fd)
    }
    fn open_path(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::path)] path: std::path::PathBuf,
        #[pyo3(from_py_with = argument::flags)] flags: i32,
        #[pyo3(from_py_with = argument::mode)] mode: u32,
    ) -> PyResult<i32> {
        detached(py, || self.0.open_path(&path, flags, mode)).map(IntoRawFd::into_raw_fd)
    }
    fn port(&self, py: Python<'_>, #[pyo3(from_py_with = argument::port)] port: i64) -> PyResult<u16> {
        detached(py, || {
            let number = u16::try_from(port).ok().filter(|&port| port > 0).ok_or_else(|| {
                ringfence::Error::new(ringfence::ErrorKind::InvalidArgument, format!("{port} is not 1 to 65535"))
                    .with_field("port")
            })?;
            self.0.port(number)
        })
    }
    fn ports(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.0.ports_json())
    }
    fn addresses(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.0.addresses_json())
    }
    #[pyo3(signature = (path, limit=None))]
    fn read<'py>(
        &self,
        py: Python<'py>,
        #[pyo3(from_py_with = argument::path)] path: std::path::PathBuf,
        #[pyo3(from_py_with = argument::limit)] limit: Option<u64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        files::read(py, &self.0, path, limit)
    }
    #[pyo3(signature = (path, data, mode=None, owner=None))]
    fn write(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::path)] path: std::path::PathBuf,
        data: &[u8],
        #[pyo3(from_py_with = argument::mode)] mode: Option<u32>,
        #[pyo3(from_py_with = argument::owner)] owner: Option<String>,
    ) -> PyResult<()> {
        files::write(py, &self.0, path, data, mode, owner)
    }
    #[pyo3(signature = (into, source, target, owner, special, timeout, progress))]
    #[allow(clippy::too_many_arguments)]
    fn copy(
        &self,
        py: Python<'_>,
        into: bool,
        #[pyo3(from_py_with = argument::source)] source: std::path::PathBuf,
        #[pyo3(from_py_with = argument::target)] target: std::path::PathBuf,
        #[pyo3(from_py_with = argument::owner)] owner: Option<String>,
        #[pyo3(from_py_with = argument::special)] special: String,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<(u64, u64, u64)> {
        let timeout = duration(timeout)?;
        let options = files::Options { owner, special: &special, timeout, progress: progress.as_ref() };
        files::copy(py, &self.0, into, source, target, options)
    }
    fn processes(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.0.processes().map(|found| ringfence::ProcessEntry::to_json(&found)))
    }
    fn pidfd_of(&self, py: Python<'_>, #[pyo3(from_py_with = argument::pid_inside)] pid_inside: i32) -> PyResult<i32> {
        detached(py, || self.0.pidfd_of(pid_inside)).map(IntoRawFd::into_raw_fd)
    }
    #[pyo3(signature = (device, inside=None))]
    fn attach_device(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::device)] device: String,
        #[pyo3(from_py_with = argument::inside)] inside: Option<String>,
    ) -> PyResult<()> {
        detached(py, || self.0.attach_device(&device, inside.as_deref()))
    }
    fn attach_net(&self, py: Python<'_>, net: &str) -> PyResult<String> {
        detached(py, || self.0.attach_net_json(net))
    }
    fn detach_net(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::interface)] interface: String,
    ) -> PyResult<()> {
        detached(py, || self.0.detach_net(&interface))
    }
    fn detach_device(&self, py: Python<'_>, #[pyo3(from_py_with = argument::inside)] inside: String) -> PyResult<()> {
        detached(py, || self.0.detach_device(&inside))
    }
    fn add_device(&self, py: Python<'_>, #[pyo3(from_py_with = argument::device)] device: String) -> PyResult<()> {
        detached(py, || self.0.add_device_json(&device))
    }
    fn remove_device(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = argument::target)] target: std::path::PathBuf,
    ) -> PyResult<()> {
        detached(py, || self.0.remove_device(target))
    }
    fn info(&self, py: Python<'_>) -> String {
        py.detach(|| self.0.info_json())
    }
    #[pyo3(signature = (start=0))]
    fn log<'py>(&self, py: Python<'py>, start: u64) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = detached(py, || self.0.log(start))?;
        Ok(PyBytes::new(py, &bytes))
    }
    /// `conditions` is JSON.
    #[pyo3(signature = (conditions, timeout=None))]
    fn readiness(
        &self,
        py: Python<'_>,
        conditions: &str,
        #[pyo3(from_py_with = argument::timeout)] timeout: Option<f64>,
    ) -> PyResult<Readiness> {
        let timeout = duration(timeout)?;
        detached(py, || self.0.readiness(&ringfence::WaitFor::from_json(conditions)?, timeout)).map(Readiness::new)
    }
    /// `options` is JSON.
    fn logs(&self, py: Python<'_>, options: &str) -> PyResult<LogReader> {
        detached(py, || self.0.logs(&ringfence::LogOptions::from_json(options)?)).map(LogReader)
    }
    fn log_position(&self, py: Python<'_>) -> PyResult<u64> {
        detached(py, || self.0.log_position())
    }
    fn log_is_full(&self, py: Python<'_>) -> PyResult<bool> {
        detached(py, || self.0.log_is_full())
    }
    /// The log's file, the caller's.
    fn log_fd(&self, py: Python<'_>) -> PyResult<i32> {
        detached(py, || self.0.log_fd()).map(IntoRawFd::into_raw_fd)
    }
}
