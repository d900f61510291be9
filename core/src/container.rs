//! The handle of a container.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::command::Command;
use crate::error::Result;
use crate::process::{ExitStatus, Output, Process};
use crate::spec::{NamespaceKind, Spec};

/// A running container. Clones are handles of the same container; when the last clone goes, an attached container is
/// killed (bounded, without waiting). Every method may be called from any thread, concurrently.
#[derive(Clone, Debug)]
pub struct Container {}

impl Container {
    /// Starts a container; its main process, when `argv` is not empty, has been executed when this returns.
    pub fn start(spec: &Spec) -> Result<Self> {
        let _ = spec;
        unimplemented!()
    }
    /// Finds a named container: one of this process, or a detached one of this user.
    pub fn by_name(name: &str) -> Result<Self> {
        let _ = name;
        unimplemented!()
    }
    pub fn name(&self) -> Option<&str> {
        unimplemented!()
    }
    /// Unique on this machine while the container exists; also the name of its control groups.
    pub fn id(&self) -> &str {
        unimplemented!()
    }
    /// The pid of pid 1, seen from this program's pid namespace.
    pub fn pid(&self) -> i32 {
        unimplemented!()
    }
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// The main process, when the spec had an argv.
    pub fn main(&self) -> Option<Process> {
        unimplemented!()
    }
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let _ = program.as_ref();
        unimplemented!()
    }
    /// Starts one more process inside.
    pub fn spawn(&self, command: &Command) -> Result<Process> {
        let _ = command;
        unimplemented!()
    }
    /// Signals the main process, or pid 1 when there is none.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let _ = signal;
        unimplemented!()
    }
    /// SIGKILL to every process, atomically. Does not wait.
    pub fn kill(&self) -> Result<()> {
        unimplemented!()
    }
    /// `stop_signal`, then SIGKILL after `timeout` (default: the spec's `stop_timeout`); waits for the end.
    pub fn stop(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        let _ = timeout;
        unimplemented!()
    }
    /// Waits for the container's end (everything undone). `Ok(false)`: the time passed first.
    pub fn wait_end(&self, timeout: Option<Duration>) -> Result<bool> {
        let _ = timeout;
        unimplemented!()
    }
    /// Kills what runs, waits until all is undone; later calls on any clone return Closed.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        let _ = timeout;
        unimplemented!()
    }
    pub fn is_running(&self) -> bool {
        unimplemented!()
    }
    /// Becomes readable (POLLIN or POLLHUP) when the container has ended and everything was undone.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    pub fn usage(&self) -> Result<crate::cgroup::Usage> {
        unimplemented!()
    }
    pub fn freeze(&self) -> Result<()> {
        unimplemented!()
    }
    pub fn thaw(&self) -> Result<()> {
        unimplemented!()
    }
    /// A descriptor of one of its namespaces (CLOEXEC, the caller's).
    pub fn ns_fd(&self, kind: NamespaceKind) -> Result<OwnedFd> {
        let _ = kind;
        unimplemented!()
    }
    /// What was chosen for the container: idmap (mode, ranges, why not more), cgroup layout and paths, rootfs, namespaces.
    pub fn info_json(&self) -> String {
        unimplemented!()
    }
    /// A copy of the bounded log of the main process (streams `log`), from byte `from`.
    pub fn log(&self, from: u64) -> Result<Vec<u8>> {
        let _ = from;
        unimplemented!()
    }
    /// The log's file (CLOEXEC, the caller's).
    pub fn log_fd(&self) -> Result<OwnedFd> {
        unimplemented!()
    }
    pub fn spec(&self) -> &Spec {
        unimplemented!()
    }
}

/// Starts a container for one command, collects its piped output, waits, closes. `timeout`: the container is killed and
/// the error has kind TimedOut.
pub fn run(spec: &Spec, input: Option<&[u8]>, timeout: Option<Duration>) -> Result<Output> {
    let _ = (spec, input, timeout);
    unimplemented!()
}
