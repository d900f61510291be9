//! Where records of one container or process arrive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::proto::{MAGIC, Record};

/// What came.
#[derive(Debug)]
pub(crate) enum Answer {
    Record(Record, Option<OwnedFd>),
    /// The other end is gone: nothing will come.
    End,
    /// The time passed, or nothing was there.
    Nothing,
    /// The cancelling descriptor became readable.
    Cancelled,
}

/// The host's end of a channel (a socket) or of a status pipe.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    socket: bool,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// poll(2) until a deadline; interrupted polls go on. What is ready, in the order given.
pub(crate) fn poll<const N: usize>(fds: [BorrowedFd<'_>; N], deadline: Option<Instant>) -> Result<[bool; N]> {
    let mut list = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    loop {
        let timeout = match deadline {
            None => -1,
            // Rounded up, or the last millisecond would be spent spinning.
            Some(at) => i32::try_from(at.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000))
                .unwrap_or(i32::MAX),
        };
        // SAFETY: `list` is valid for N entries.
        let n = unsafe { libc::poll(list.as_mut_ptr(), N as libc::nfds_t, timeout) };
        if n >= 0 {
            return Ok(list.map(|entry| entry.revents != 0));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(Error::io("poll", &error));
        }
    }
}

pub(crate) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    // A timeout beyond the clock's range is for ever.
    timeout.and_then(|t| Instant::now().checked_add(t))
}

/// What `take` finds: at once, or when the descriptor is readable. `take` says `None` for nothing yet, and `Some(None)` when it is over.
/// `None`: that, or the time passed.
pub(crate) fn next<T>(
    fd: BorrowedFd<'_>,
    timeout: Option<Duration>,
    mut take: impl FnMut() -> Result<Option<Option<T>>>,
) -> Result<Option<T>> {
    let deadline = deadline(timeout);
    loop {
        if let Some(answer) = take()? {
            return Ok(answer);
        }
        let [ready] = poll([fd], deadline)?;
        if !ready {
            return Ok(None);
        }
        // Ready may be what another thread has read by now, or what is nothing to tell: then time goes on.
        if deadline.is_some_and(|at| Instant::now() >= at) {
            return Ok(take()?.flatten());
        }
    }
}

impl Channel {
    /// (host's end, keeper's end)
    pub fn pair() -> Result<(Self, OwnedFd)> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| Error::os("socketpair", e as i32))?;
        Ok((Self { fd: here, socket: true }, there))
    }

    /// Only the socket: for the control connection.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// (read end, write end)
    pub fn pipe() -> Result<(Self, OwnedFd)> {
        let (here, there) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Error::os("pipe2", e as i32))?;
        Ok((Self { fd: here, socket: false }, there))
    }

    /// The next record. `cancel`: a descriptor whose readability ends the wait.
    pub fn receive(&self, deadline: Option<Instant>, cancel: Option<BorrowedFd<'_>>) -> Result<Answer> {
        let fd = self.fd.as_fd();
        let [ready, cancelled] = match cancel {
            Some(cancel) => poll([fd, cancel], deadline)?,
            None => {
                let [ready] = poll([fd], deadline)?;
                [ready, false]
            }
        };
        if cancelled && !ready {
            return Ok(Answer::Cancelled);
        }
        if !ready {
            return Ok(Answer::Nothing);
        }
        self.take()
    }

    /// The errno for a process that asked for something. One that was killed meanwhile needs none.
    pub fn answer(&self, errno: i32) {
        let bytes = errno.to_ne_bytes();
        // SAFETY: four bytes are read.
        unsafe {
            libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT)
        };
    }

    /// What is there now.
    pub fn take(&self) -> Result<Answer> {
        let mut record = Record::default();
        let size = size_of::<Record>();
        let mut passed = None;
        let n = if self.socket {
            let mut iov = libc::iovec { iov_base: (&raw mut record).cast(), iov_len: size };
            let mut control = [0u64; 4];
            // SAFETY: all zeroes is a valid msghdr.
            let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
            msg.msg_iov = &raw mut iov;
            msg.msg_iovlen = 1;
            msg.msg_control = control.as_mut_ptr().cast();
            msg.msg_controllen = size_of_val(&control) as _;
            let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
            // SAFETY: the message points to live, writable buffers of the sizes given.
            let n = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut msg, flags) };
            // cmsghdr: length, then level and type; one descriptor makes it 20 bytes long.
            if n > 0 && msg.msg_controllen as usize >= 20 && control[0] == 20 {
                // SAFETY: SCM_RIGHTS gave this process a new descriptor, which nobody else owns.
                passed = Some(unsafe { OwnedFd::from_raw_fd(control[2] as u32 as i32) });
            }
            n
        } else {
            let mut list = [libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
            // SAFETY: one entry. A pipe is left blocking, because its other end shares the flag: so look first.
            if unsafe { libc::poll(list.as_mut_ptr(), 1, 0) } <= 0 {
                return Ok(Answer::Nothing);
            }
            // SAFETY: the buffer has `size` bytes; records are written whole (below PIPE_BUF).
            unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut record).cast(), size) }
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EAGAIN) | Some(libc::EINTR) => Ok(Answer::Nothing),
                Some(libc::ECONNRESET) => Ok(Answer::End),
                _ => Err(Error::io("receive status", &error)),
            };
        }
        if n == 0 {
            return Ok(Answer::End);
        }
        if n as usize != size || record.magic != MAGIC {
            return Err(Error::new(ErrorKind::Internal, "the keeper sent something that is no record"));
        }
        Ok(Answer::Record(record, passed))
    }
}
