//! cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), over the group's own directory descriptor.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::file;
use crate::error::Result;

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

/// By itself, as it was asked to be, or by a group above. What the kernel reports alone is not enough: a task that is woken takes
/// the word back until it has stopped again.
pub(super) fn is_frozen(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let asked = file::read(dir, "cgroup.freeze")?.trim() == "1";
    Ok(asked || file::keyed(&file::read(dir, "cgroup.events")?, "frozen") == Some(1))
}
