//! cgroup v1 (Documentation/admin-guide/cgroup-v1), through cgroups-rs.
//!
//! cgroups-rs is used by its controllers' methods that return a `Result`, each on a group that exists. Its builder and
//! `apply` are not: `apply` drops errors, so that a refused memory limit would be no limit. Values are checked before
//! ([`Limits`](super::Limits)); what the kernel rounds or clips without telling, the memory limits, is read back after,
//! through our own descriptor of the directory.
//!
//! It opens files by path, each time anew, which costs a tenth more than one descriptor for writing and reading back would
//! (10 us and 9 us for `pids.max`; the groups of a container with three limits take 300 us in the same run, 145 us of them
//! in four mkdir). Groups are made, joined and removed, and counters are read, through descriptors of our own.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cgroups_rs::FreezerState;
use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::error::Error as ControllerError;
use cgroups_rs::fs::freezer::FreezerController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;
use nix::errno::Errno;

use super::file;
use super::layout::Hierarchy;
use super::limits::{Bandwidth, DEFAULT_PERIOD, memory_in_kernel, page_size};
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

    fn failed(&self, field: &'static str, file: &str, value: &dyn std::fmt::Display, e: &ControllerError) -> Error {
        Error::os(format!("write {value} to"), errno_of(e))
            .with_field(field)
            .with_path(self.path().join(file).to_string_lossy())
    }

    /// That the file holds what was asked for, seen through the directory that was opened and not through a path.
    fn check(&self, field: &'static str, file: &str, kept: &str) -> Result<()> {
        let shown = || self.path().join(file).to_string_lossy().into_owned();
        let now = file::read_short(&self.parent.dir, &format!("{}/{file}", self.name))
            .map_err(|e| Error::os("read back", e as i32).with_field(field).with_path(shown()))?;
        if now.trim() == kept {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, format!("the kernel kept {:?} instead of {kept:?}", now.trim()))
            .with_field(field)
            .with_step("write")
            .with_path(shown()))
    }

    pub fn set_memory(&self, bytes: u64) -> Result<()> {
        let kept = memory_in_kernel(bytes)?;
        let controller = MemController::new(self.path(), PathBuf::new(), false);
        let limit = "memory.limit_in_bytes";
        controller.set_limit(kept as i64).map_err(|e| self.failed("memory", limit, &kept, &e))?;
        self.check("memory", limit, &kept.to_string())?;
        // Without swap accounting (CONFIG_SWAP, swapaccount=0) the file does not exist. The order matters: the kernel
        // refuses a sum below the limit of memory alone. One page more than that limit, because the kernel charges the sum
        // first: were both equal, `memory.failcnt` would never count a hit (seen on 6.18, which does not count them in
        // `memory.memsw.failcnt` either).
        let sum = "memory.memsw.limit_in_bytes";
        if *self.parent.swap_accounting.get_or_init(|| file::exists(&self.parent.dir, sum)) {
            let kept = kept + page_size();
            controller.set_memswap_limit(kept as i64).map_err(|e| self.failed("memory", sum, &kept, &e))?;
            self.check("memory", sum, &kept.to_string())?;
        }
        Ok(())
    }

    pub fn set_cpus(&self, bandwidth: Bandwidth) -> Result<()> {
        let controller = CpuController::new(self.path(), PathBuf::new(), false);
        let explain = |e: Error| match e.errno() {
            // v1 refuses a child's share above its parent's instead of letting the smaller one hold.
            libc::EINVAL => e.with_hint(format!(
                "the groups above allow less: see cpu.cfs_quota_us in {} and the groups above it",
                self.parent.path.display()
            )),
            _ => e,
        };
        // Whole microseconds within the kernel's bounds are kept as they are or refused, so these are not read back.
        if bandwidth.period != DEFAULT_PERIOD {
            controller
                .set_cfs_period(bandwidth.period)
                .map_err(|e| explain(self.failed("cpus", "cpu.cfs_period_us", &bandwidth.period, &e)))?;
        }
        controller
            .set_cfs_quota(bandwidth.quota as i64)
            .map_err(|e| explain(self.failed("cpus", "cpu.cfs_quota_us", &bandwidth.quota, &e)))
    }

    pub fn set_pids(&self, pids: u64) -> Result<()> {
        let controller = PidController::new(self.path(), PathBuf::new(), false);
        // Kept as it is or refused, like the share of CPU time.
        controller.set_pid_max(MaxValue::Value(pids as i64)).map_err(|e| self.failed("pids", "pids.max", &pids, &e))
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

/// Whether a hierarchy can hold new groups without more than making them: a group in a hierarchy with cpuset starts with
/// no cpus and no memory nodes, and refuses every task until it has some.
pub(super) fn usable(h: &Hierarchy) -> Result<()> {
    if !h.controllers.iter().any(|c| c == "cpuset") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("{} is mounted together with cpuset, which needs settings of its own", h.label()),
    )
    .with_hint("mount cpuset as a hierarchy of its own, or use cgroup v2"))
}
