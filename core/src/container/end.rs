//! The end of a container: waits for it, what brings it about, and what is let go of then.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Container, Handle, Inner, SHORT, lock, process_runs};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, Answer};
use crate::plan::container::namespace_source;
use crate::process::{self, ExitStatus};
use crate::proto::section::LIFT;
use crate::proto::{Record, record, request};
use crate::spec::{NamespaceKind, NamespaceSource, Spec};
use crate::state::names::{self, Life};

#[derive(Debug, Default)]
pub(super) struct End {
    /// The time limit that ended it: a number of `proto::limit`.
    limit: u32,
    /// No process is left.
    empty: bool,
    pub(super) ended: Option<Record>,
    keeper_died: bool,
}

impl Inner {
    /// True when it has ended and all was undone.
    pub fn wait_end(&self, timeout: Option<Duration>, cancel: Option<BorrowedFd<'_>>) -> Result<bool> {
        let mut deadline = launch::deadline(timeout);
        let Some(channel) = &self.channel else { return self.wait_recorded_end(deadline, cancel) };
        // The wait is for the processes. The groups go in microseconds once nobody is left, if the keeper is not busy.
        let mut patient = false;
        loop {
            {
                let mut end = lock(&self.end);
                if end.ended.is_some() || end.keeper_died {
                    return Ok(true);
                }
                // Taken under the lock, so that nobody waits for a record that another thread has read.
                match channel.take()? {
                    Answer::Record(record, _) if record.kind == record::EMPTY => {
                        end.empty = true;
                        end.limit = record.limit;
                        // Who took EMPTY has the last look, and releases after it. Without the lock, because a look can take as
                        // long as a slow disk does, and others only want to know whether it runs.
                        drop(end);
                        // The last look; then the keeper may remove the groups.
                        self.readers.look(true);
                        match &self.group {
                            Some(group) if self.closed.load(Ordering::Relaxed) => group.let_go(),
                            // Without figures, `usage` says so.
                            Some(group) => drop(group.final_usage()),
                            None => {}
                        }
                        self.close_layer();
                        self.give_devices_back();
                        self.keeper.send(request::RELEASE, self.key, 0, 0, &[])?;
                        continue;
                    }
                    Answer::Record(record, _) if record.kind == record::ENDED => {
                        // Under the lock: who sees the end may take the name again. (After EMPTY the layer is closed already.)
                        self.close_layer();
                        self.release();
                        end.limit = end.limit.max(record.limit);
                        end.ended = Some(record);
                        drop(end);
                        self.give_devices_back();
                        lock(&self.volumes).end();
                        self.wait_keeper_gone();
                        return Ok(true);
                    }
                    Answer::End => {
                        end.keeper_died = true;
                        drop(end);
                        self.end_without_keeper();
                        self.leave_networks();
                        self.close_layer();
                        self.give_devices_back();
                        return Ok(true);
                    }
                    Answer::Record(..) => continue,
                    _ => {}
                }
            }
            if !patient && lock(&self.end).empty {
                patient = true;
                deadline = deadline.map(|at| at.max(Instant::now() + SHORT));
            }
            match cancel {
                Some(cancel) => {
                    let [ready, cancelled] = launch::poll([channel.as_fd(), cancel], deadline)?;
                    if !ready && cancelled {
                        return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
                    }
                    if !ready {
                        return Ok(false);
                    }
                }
                None => {
                    let [ready] = launch::poll([channel.as_fd()], deadline)?;
                    if !ready {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Of a container that another process started: its pidfd, then the record that its keeper leaves.
    pub(super) fn wait_recorded_end(&self, deadline: Option<Instant>, cancel: Option<BorrowedFd<'_>>) -> Result<bool> {
        let pidfd = self.pidfd.as_fd();
        let [ended, cancelled] = launch::poll([pidfd, cancel.unwrap_or(pidfd)], deadline)?;
        if !ended && cancelled {
            return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
        }
        if !ended {
            return Ok(false);
        }
        let name = self.spec.name.as_deref().unwrap_or_default();
        let patience = Instant::now() + SHORT;
        while names::lookup(name).is_ok_and(|r| r.data["id"] == self.id.as_str() && r.life == Life::Running) {
            if Instant::now() > patience || deadline.is_some_and(|at| Instant::now() > at) {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.wait_keeper_gone();
        Ok(true)
    }

    /// A detached container's keeper holds its name until it is gone itself, a moment after its last word; `gc` takes the
    /// name for alive until then.
    fn wait_keeper_gone(&self) {
        let patience = Instant::now() + Duration::from_millis(500);
        while self.spec.detach
            && crate::state::start_time(self.keeper.pid) == Some(self.keeper.start_time)
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The keeper's end is the end of all that it made, by the death signal of pid 1. The kernel takes that from a program whose
    /// exec gives it another label, or the rights of its file's owner or capabilities; and without a pid namespace others stay.
    fn end_without_keeper(&self) {
        if namespace_source(&self.spec, NamespaceKind::Pid) != NamespaceSource::New
            && let Some(group) = &self.group
        {
            let _ = group.kill();
        }
        if process::send_signal(self.pidfd.as_fd(), libc::SIGKILL).is_ok() {
            let _ = launch::poll([self.pidfd.as_fd()], Some(Instant::now() + SHORT));
        }
    }

    fn release(&self) {
        self.leave_networks();
        lock(&self.claims).clear();
        *lock(&self.name) = None;
    }

    pub(super) fn leave_networks(&self) {
        // Its devices want locks of their own.
        let kept = std::mem::take(&mut *lock(&self.kept));
        drop(kept);
    }

    pub fn keeper_died(&self) -> bool {
        lock(&self.end).keeper_died
    }

    /// The time limit that ended it. Waits for the end, which is near, when it has one.
    pub fn ended_by_time(&self) -> Option<process::Reason> {
        let now = lock(&self.spec_now);
        if now.wall_time.is_none() && now.cpu_time.is_none() {
            return None;
        }
        drop(now);
        // Its last process may be just going; a container that lives on was not ended.
        let _ = self.wait_end(Some(Duration::from_millis(200)), None);
        process::Reason::of_limit(lock(&self.end).limit)
    }

    /// What the keeper of a detached container wrote about its main process.
    pub fn recorded_main_status(&self) -> ExitStatus {
        let name = self.spec.name.as_deref().unwrap_or_default();
        match names::lookup(name) {
            Ok(record) if record.data["id"] == self.id.as_str() => match record.life {
                Life::Ended(_) if process::Reason::of_limit(record.limit).is_some() => ExitStatus {
                    reason: process::Reason::of_limit(record.limit).expect("just seen"),
                    ..ExitStatus::from_wait(libc::SIGKILL)
                },
                Life::Ended(Some(status)) => ExitStatus::from_wait(status),
                Life::Ended(None) => {
                    ExitStatus { reason: process::Reason::ContainerEnded, ..ExitStatus::from_wait(libc::SIGKILL) }
                }
                _ => ExitStatus { reason: process::Reason::Lost, ..ExitStatus::from_wait(libc::SIGKILL) },
            },
            _ => ExitStatus { reason: process::Reason::Lost, ..ExitStatus::from_wait(libc::SIGKILL) },
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.wait_end(Some(Duration::ZERO), None).unwrap_or(true)
    }

    fn kill(&self) -> Result<()> {
        self.killed.store(true, Ordering::Relaxed);
        if namespace_source(&self.spec, NamespaceKind::Pid) != NamespaceSource::New
            && let Some(group) = &self.group
        {
            group.kill()?;
        }
        match process::send_signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            // The host gave up its privileges: the keeper has them still. ENOSYS: a filter that is older than the call.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                self.keeper.send(request::KILL, self.key, libc::SIGKILL, 0, &[])?;
                Ok(())
            }
            Err(e) => Err(Error::io("pidfd_send_signal", &e)),
        }
    }

    pub(super) fn keeper_is_gone(&self) -> Error {
        let error =
            Error::new(ErrorKind::KeeperDied, "the keeper of this container was killed, and the container with it")
                .with_errno(libc::EPIPE)
                .with_hint("gc() ends and removes what is left of it");
        if lock(&self.end).ended.is_some() || !process_runs(&self.pidfd) {
            return error.with_kind(ErrorKind::Closed).with_detail("the container has ended");
        }
        error
    }
}

/// Attached containers whose handles were dropped: their ids are not free before they have ended.
static LINGERING: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());

pub(super) fn sweep_lingering() {
    let Ok(mut lingering) = LINGERING.try_lock() else { return };
    // What they let go of may be the last of another container, which may come to linger too: not under the lock.
    let mut all = std::mem::take(&mut *lingering);
    drop(lingering);
    all.retain(|inner| inner.owner.is_this() && !inner.has_ended());
    lock(&LINGERING).append(&mut all);
}

impl Drop for Handle {
    fn drop(&mut self) {
        let inner = &self.inner;
        if !inner.owner.is_this() || inner.spec.detach || inner.channel.is_none() {
            return;
        }
        inner.closed.store(true, Ordering::Relaxed);
        if !inner.has_ended() {
            let _ = inner.kill();
            // In most cases it is gone now; otherwise the next start or close looks after it.
            if !inner.wait_end(Some(Duration::from_millis(100)), None).unwrap_or(true) {
                lock(&LINGERING).push(inner.clone());
            }
        }
        if inner.keeper_died() {
            let _ = crate::state::collect_dead();
        }
    }
}

impl Container {
    /// SIGKILL to every process, atomically: the end of pid 1 is the end of its pid namespace. Does not wait.
    pub fn kill(&self) -> Result<()> {
        self.open()?.kill()
    }

    /// `stop_signal`, then SIGKILL after `timeout` (default: the spec's `stop_timeout`, 10 seconds); waits for the end. The
    /// status is the main process's.
    pub fn stop(&self, timeout: Option<Duration>) -> Result<Option<ExitStatus>> {
        let inner = self.open()?;
        let timeout = timeout.or(inner.spec.stop_timeout).unwrap_or(Spec::STOP_TIMEOUT);
        self.signal(inner.spec.stop_signal.unwrap_or(Spec::STOP_SIGNAL))?;
        if !inner.wait_end(Some(timeout), None)? {
            inner.kill()?;
            inner.wait_end(Some(SHORT), None)?;
        }
        self.handle.main.as_ref().map_or(Ok(None), |main| main.wait(Some(SHORT)))
    }

    /// Waits for the container's end, when everything was undone. `Ok(false)`: the time passed first.
    pub fn wait_end(&self, timeout: Option<Duration>) -> Result<bool> {
        let inner = self.open()?;
        inner.wait_end(timeout, Some(inner.cancel.as_fd()))
    }

    /// Kills what runs, waits until all is undone; later calls on any clone fail with Closed, and so do waits that are under
    /// way on other threads. A detached container is left running: `stop` or `kill` ends it.
    ///
    /// # Errors
    /// TimedOut when the kernel holds a process (uninterruptible sleep): `gc()` finishes later.
    pub fn close(&self, timeout: Option<Duration>) -> Result<()> {
        let inner = self.inner();
        inner.owner.check()?;
        if inner.closed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        process::raise(&inner.cancel);
        inner.syscalls.close();
        if inner.spec.detach {
            return Ok(());
        }
        sweep_lingering();
        if !inner.has_ended() {
            inner.kill()?;
            if inner.readers.is_empty() && !lock(&inner.end).empty {
                // Nobody will ask for a last look, and nobody has one now: one message and one turn less.
                inner.keeper.send(request::RELEASE, inner.key, 0, 0, &[])?;
            }
        }
        if !inner.wait_end(Some(timeout.unwrap_or(Duration::from_secs(30))), None)? {
            lock(&LINGERING).push(inner.clone());
            let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", inner.pid)).unwrap_or_default();
            return Err(Error::new(ErrorKind::TimedOut, "the kernel does not let go of a process of the container")
                .with_context(format!("close container {}", inner.id))
                .with_path(wchan)
                .with_errno(libc::ETIMEDOUT)
                .with_hint("it is removed as soon as the kernel lets it go, or by gc()"));
        }
        // Where the first attempt failed.
        inner.give_devices_back();
        log::info!("closed {}", inner.id);
        if inner.keeper_died() {
            log::warn!("the keeper of {} died", inner.id);
            crate::state::collect_dead()?;
            inner.release();
        }
        let end = lock(&inner.end).ended;
        match end {
            Some(record) if record.errno != 0 && record.section == LIFT as u32 => Err(Error::os("lift", record.errno)
                .with_context(format!("close container {}", inner.id))
                .with_field("disk")
                .with_hint("the next container that limits this directory sets its own")),
            Some(record) if record.errno != 0 => {
                crate::state::give_up_groups(&inner.id);
                Err(Error::os("rmdir", record.errno)
                    .with_context(format!("close container {}", inner.id))
                    .with_field("cgroup")
                    .with_hint("gc() tries again"))
            }
            _ => Ok(()),
        }
    }
}
