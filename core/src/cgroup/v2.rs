//! cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), over the group's own directory descriptor.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::file;
use super::limits::{Bandwidth, memory_in_kernel};
use crate::error::{Error, ErrorKind, Result};

/// Writes a control file and reads back that the kernel took the value as it is.
fn set(dir: BorrowedFd<'_>, shown: &Path, field: &'static str, name: &str, value: &str, kept: &str) -> Result<()> {
    let failed = |step: &str, e: Errno| {
        Error::os(step, e as i32).with_field(field).with_path(shown.join(name).to_string_lossy())
    };
    let now = file::write_and_read(dir, name, value).map_err(|e| failed("write", e))?;
    if now.trim() != kept {
        return Err(Error::new(ErrorKind::Unsupported, format!("the kernel made {:?} of {value:?}", now.trim()))
            .with_field(field)
            .with_step("write")
            .with_path(shown.join(name).to_string_lossy()));
    }
    Ok(())
}

pub(super) fn set_memory(dir: BorrowedFd<'_>, shown: &Path, bytes: u64) -> Result<()> {
    let kept = memory_in_kernel(bytes)?.to_string();
    set(dir, shown, "memory", "memory.max", &bytes.to_string(), &kept)
}

pub(super) fn set_cpus(dir: BorrowedFd<'_>, shown: &Path, bandwidth: Bandwidth) -> Result<()> {
    let value = format!("{} {}", bandwidth.quota, bandwidth.period);
    set(dir, shown, "cpus", "cpu.max", &value, &value)
}

pub(super) fn set_pids(dir: BorrowedFd<'_>, shown: &Path, pids: u64) -> Result<()> {
    let value = pids.to_string();
    set(dir, shown, "pids", "pids.max", &value, &value)
}

/// SIGKILL to every process in the group and below, those that are being forked included: Linux 5.14. `Ok(false)`: the
/// kernel has no `cgroup.kill`.
pub(super) fn kill(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    match file::write(dir, "cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Asks for a state and waits until the kernel reports it in `cgroup.events`. `Ok(false)`: `timeout` passed.
pub(super) fn set_frozen(dir: BorrowedFd<'_>, frozen: bool, timeout: Duration) -> Result<bool, Errno> {
    let deadline = Instant::now() + timeout;
    let events = file::open_file(dir, "cgroup.events", OFlag::O_RDONLY)?;
    file::write(dir, "cgroup.freeze", if frozen { "1" } else { "0" })?;
    let mut buffer = [0u8; file::BUFFER];
    loop {
        // The read comes before each poll: it is what arms the next notification.
        let n = nix::sys::uio::pread(&events, &mut buffer, 0)?;
        if file::keyed(&String::from_utf8_lossy(&buffer[..n]), "frozen") == Some(u64::from(frozen)) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

pub(super) fn is_frozen(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(file::keyed(&file::read(dir, "cgroup.events")?, "frozen") == Some(1))
}
