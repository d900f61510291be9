//! cgroup v1 (Documentation/admin-guide/cgroup-v1), through cgroups-rs.
//!
//! cgroups-rs freezes, by the methods of its controllers that return a `Result`, each on a group that exists. Its builder
//! and `apply` are not used: `apply` drops errors, so that a refused memory limit would be no limit. Limits are written by
//! [`settings`](super::settings), because a change of several has to be taken back when one is refused, and what the kernel
//! rounds or clips without telling is read back. Groups are made, joined and removed, and counters are read, through
//! descriptors of our own.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cgroups_rs::FreezerState;
use cgroups_rs::fs::error::Error as ControllerError;
use cgroups_rs::fs::freezer::FreezerController;
use nix::errno::Errno;

use super::file;
use super::parent::Parent;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};

/// A group in one hierarchy.
pub(super) struct V1Group<'a> {
    pub parent: &'a Parent,
    pub name: &'a str,
}

impl V1Group<'_> {
    fn path(&self) -> PathBuf {
        self.parent.path.join(self.name)
    }

    /// `Ok(false)`: `timeout` passed.
    pub fn set_frozen(&self, frozen: bool, timeout: Duration) -> Result<bool, Errno> {
        let deadline = Instant::now() + timeout;
        let controller = FreezerController::new(self.path(), PathBuf::new(), false);
        let mut pause = Duration::from_micros(100);
        loop {
            // Written again each time: while tasks are being forked the state can stay FREEZING, and the kernel's
            // documentation asks to retry.
            let ask = if frozen { controller.freeze() } else { controller.thaw() };
            ask.map_err(|e| Errno::from_raw(errno_of(&e)))?;
            if self.is_frozen()? == frozen {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    pub fn is_frozen(&self) -> Result<bool, Errno> {
        let controller = FreezerController::new(self.path(), PathBuf::new(), false);
        match controller.state() {
            Ok(state) => Ok(matches!(state, FreezerState::Frozen)),
            Err(e) => Err(Errno::from_raw(errno_of(&e))),
        }
    }

    /// SIGKILL to every process in the group, again until a reading finds none. Without a freezer a group that forks
    /// faster than it is killed is caught only by its pids limit; `deadline` ends the attempt.
    pub fn kill_all(&self, deadline: Instant) -> Result<()> {
        while self.signal_all()? {
            if Instant::now() >= deadline {
                return Err(Error::new(ErrorKind::TimedOut, "processes are still being made or do not end")
                    .with_step("kill the processes of")
                    .with_path(self.path().to_string_lossy()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGKILL to every process that is in the group now. False: none was.
    pub fn signal_all(&self) -> Result<bool> {
        let pids = self.pids()?;
        if pids.is_empty() {
            return Ok(false);
        }
        // A pid may be reused by a process elsewhere before we signal it. A pidfd holds its process, and one that was in
        // the group before and after the pidfd was opened is not elsewhere.
        let held: Vec<_> = pids.iter().filter_map(|&pid| Some((pid, pidfd_open(pid).ok()?))).collect();
        let still = self.pids()?;
        for (pid, fd) in &held {
            if still.contains(pid)
                && let Err(e) = pidfd_send_signal(fd.as_fd(), libc::SIGKILL)
                && e.raw_os_error() != Some(libc::ESRCH)
            {
                return Err(Error::io(format!("kill process {pid} of"), &e).with_path(self.path().to_string_lossy()));
            }
        }
        Ok(true)
    }

    fn pids(&self) -> Result<Vec<i32>> {
        match file::pids(self.parent.dir.as_fd(), OsStr::new(self.name)) {
            Ok(pids) => Ok(pids),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
            Err(e) => Err(Error::os("read cgroup.procs of", e as i32).with_path(self.path().to_string_lossy())),
        }
    }
}

/// cgroups-rs keeps the system's error as the cause of its own.
fn errno_of(error: &ControllerError) -> i32 {
    std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .and_then(std::io::Error::raw_os_error)
        .unwrap_or(libc::EIO)
}

/// Gives a new group the processors and memory nodes of the group above: it starts with none, and refuses every task until it
/// has some. One that has some is left as it is.
pub(super) fn inherit_cpuset(above: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let ours = format!("{name}/{file}");
        if file::read(above, &ours)?.trim().is_empty() {
            let given = file::read(above, file)?;
            if !given.trim().is_empty() {
                file::write(above, &ours, &given)?;
            }
        }
    }
    Ok(())
}
