//! A process in a container: its pidfd, its streams, its end.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::error::Result;

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(i32)]
pub enum Reason {
    /// It called exit; `code` says with what.
    Exited = 1,
    /// A signal killed it; `signal` says which.
    Signaled = 2,
    /// The kernel killed a process of the container because its memory ran out.
    OutOfMemory = 3,
    /// It was killed together with its container.
    ContainerEnded = 4,
    /// Nobody knows its status: the keeper was killed.
    Lost = 5,
}

impl Reason {
    /// `exited`, `signaled`, `out_of_memory`, `container_ended`, `lost`.
    pub fn name(self) -> &'static str {
        unimplemented!()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code, when it exited.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    pub core_dumped: bool,
    pub reason: Reason,
    /// CPU time of the process and its waited-for children, microseconds.
    pub user_usec: u64,
    pub system_usec: u64,
    /// Largest resident set, bytes.
    pub max_rss: u64,
}

impl ExitStatus {
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// What a finished command wrote and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A process in a container. Cheap to clone (all clones are the same process), usable from any thread at once.
#[derive(Clone, Debug)]
pub struct Process {}

impl Process {
    /// Its pid in the pid namespace of this program.
    pub fn pid(&self) -> i32 {
        unimplemented!()
    }
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// Becomes readable when the process has ended.
    pub fn status_fd(&self) -> BorrowedFd<'_> {
        unimplemented!()
    }
    /// Waits; `None` waits for ever; `Ok(None)` means that the time passed first. Any number of threads may wait.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        let _ = timeout;
        unimplemented!()
    }
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        unimplemented!()
    }
    /// Makes every wait of this process that is under way on any thread return an error of kind Closed.
    pub fn cancel_waits(&self) {
        unimplemented!()
    }
    /// Sends a signal to the process by its pidfd. `Ok` when it has ended already.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let _ = signal;
        unimplemented!()
    }
    /// The host's end of a `pipe` stream; given out once.
    pub fn take_stdin(&self) -> Option<OwnedFd> {
        unimplemented!()
    }
    pub fn take_stdout(&self) -> Option<OwnedFd> {
        unimplemented!()
    }
    pub fn take_stderr(&self) -> Option<OwnedFd> {
        unimplemented!()
    }
    /// The same ends, borrowed: -1 when there is none or it was taken.
    pub fn stdin_fd(&self) -> i32 {
        unimplemented!()
    }
    pub fn stdout_fd(&self) -> i32 {
        unimplemented!()
    }
    pub fn stderr_fd(&self) -> i32 {
        unimplemented!()
    }
    /// The pty's host end, when it was started with a terminal.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        unimplemented!()
    }
    pub fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        let _ = (rows, cols);
        unimplemented!()
    }
    /// Reads the piped streams to their end (or until the timeout) and waits. `input` is written to a piped stdin.
    /// On a timeout the error has kind TimedOut and nothing is killed; what was read is kept for the next call.
    pub fn communicate(&self, input: Option<&[u8]>, timeout: Option<Duration>) -> Result<Output> {
        let _ = (input, timeout);
        unimplemented!()
    }
}
