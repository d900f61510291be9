//! Sockets and files of a container for the host, without being inside.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrLike, SockaddrStorage, UnixAddr, getsockopt, sockopt};

use super::Container;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::builder::Compiled;
use crate::plan::facts::Need;
use crate::plan::reach::{self, Then};
use crate::proto::{record, request};
use crate::sys::socket::address_bytes;

/// As long as the keeper can be told, more than a month.
const FOREVER: Duration = Duration::from_millis(u32::MAX as u64 - 1);

/// Where a stream socket listens or connects, as text: `127.0.0.1:80`, `[::1]:80`, `localhost:80`; `/run/x.sock`; `@abstract`.
#[derive(Debug)]
enum Address {
    Ip(SockaddrStorage),
    Unix(UnixAddr),
}

impl Address {
    fn parse(text: &str) -> Result<Self> {
        let wrong = |why: String| Error::new(ErrorKind::InvalidArgument, why).with_field("address");
        let unix = |made: nix::Result<UnixAddr>| {
            made.map(Self::Unix).map_err(|e| wrong(format!("{text:?} is no address of a socket: {}", e.desc())))
        };
        if text.starts_with('/') {
            return unix(UnixAddr::new(Path::new(text)));
        }
        if let Some(name) = text.strip_prefix('@') {
            return unix(UnixAddr::new_abstract(OsStr::new(name).as_bytes()));
        }
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        let address: SocketAddr = numeric.parse().map_err(|_| {
            wrong(format!("{text:?} is no address"))
                .with_hint("addresses are like 127.0.0.1:80, [::1]:80, localhost:80, /run/name.sock, @abstract; no names are looked up")
        })?;
        Ok(Self::Ip(address.into()))
    }

    fn domain(&self) -> i32 {
        match self {
            Self::Ip(address) => address.family().map_or(libc::AF_INET, |family| family as i32),
            Self::Unix(_) => libc::AF_UNIX,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Ip(address) => address_bytes(address),
            Self::Unix(address) => address_bytes(address),
        }
    }
}

impl Container {
    /// A socket in the container's network: socket(2), made with the rights of its root. So an ordinary user has packet and raw
    /// sockets, netlink (`AF_NETLINK`) for its devices, any port. Wherever it is used, it belongs to that network.
    ///
    /// Close-on-exec; blocking unless `kind` has `SOCK_NONBLOCK`. It counts as the caller's memory, not as the container's.
    ///
    /// For everybody, with a frozen container too: a task of the keeper joins, makes it and sends it.
    ///
    /// # Errors
    /// Those of socket(2), with field `domain`; Closed.
    pub fn socket(&self, domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
        let inner = self.open()?;
        let joining = inner.outside_of_groups();
        let made = reach::socket(&joining, inner.may_setgroups, (domain, kind, protocol), &Then::Nothing, "socket");
        self.fetch(made, None, "domain")
    }

    /// A stream socket that listens in the container: `127.0.0.1:80`, `[::]:80`, `localhost:80`, port 0 for any; a path inside, or `@name`
    /// (abstract) for AF_UNIX. Addresses are numeric. `SO_REUSEADDR` is set; `backlog` as in listen(2).
    ///
    /// The file of a path belongs to the container's root (mode 0755: root inside may connect) and stays when the socket is closed.
    ///
    /// # Errors
    /// InvalidArgument for what is no address; EADDRINUSE, EADDRNOTAVAIL and others of bind(2) with field `address`; Closed.
    pub fn listen(&self, address: &str, backlog: u32) -> Result<OwnedFd> {
        let to = Address::parse(address)?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        let inner = self.open()?;
        let then = Then::Listen { address: to.bytes(), backlog };
        let kind = (to.domain(), libc::SOCK_STREAM, 0);
        let made = reach::socket(&inner.outside_of_groups(), inner.may_setgroups, kind, &then, address);
        self.fetch(made, None, "address")
    }

    /// A stream socket that is connected to a server in the container, or to whatever its network reaches. Addresses as for
    /// [`listen`](Self::listen). Waits up to `timeout` (`None`: as long as the kernel tries).
    ///
    /// # Errors
    /// InvalidArgument for what is no address; ECONNREFUSED, ENOENT and others of connect(2) with field `address`; TimedOut; Closed.
    pub fn connect(&self, address: &str, timeout: Option<Duration>) -> Result<OwnedFd> {
        let to = Address::parse(address)?;
        let Address::Ip(ip) = to else {
            let inner = self.open()?;
            let then = Then::Connect { address: to.bytes() };
            let kind = (libc::AF_UNIX, libc::SOCK_STREAM, 0);
            let made = reach::socket(&inner.outside_of_groups(), inner.may_setgroups, kind, &then, address);
            return self.fetch(made, Some(timeout.unwrap_or(FOREVER)), "address");
        };
        // The socket is the container's, wherever it is connected; so this thread waits, and can stop.
        let socket = self.socket(to.domain(), libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
        let failed = |errno: Errno| Error::os("connect", errno as i32).with_field("address").with_path(address);
        match nix::sys::socket::connect(socket.as_raw_fd(), &ip) {
            Ok(()) => {}
            Err(Errno::EINPROGRESS | Errno::EINTR) => {
                connected(socket.as_fd(), timeout)?.map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
        set_blocking(socket.as_fd())?;
        Ok(socket)
    }

    /// Opens a path as the container sees it: openat2(2) with the rights of its root, below its root, whatever links and mounts
    /// it has there (links of /proc that lead elsewhere, as /proc/PID/root, are ELOOP). `flags` are those of open(2), `mode` (before the umask
    /// 022) is that of a file that `O_CREAT` makes, which belongs to the container's root.
    ///
    /// Close-on-exec. It never waits for the other end of a FIFO: without one `O_WRONLY` is ENXIO. With `O_PATH` the descriptor serves to watch
    /// (inotify(7) takes /proc/self/fd/N) or to look. What is read is the container's word: do not trust it.
    ///
    /// # Errors
    /// Those of openat2(2), with field `path`; InvalidArgument for a path that is empty or has a NUL; Closed.
    pub fn open_path(&self, path: impl AsRef<Path>, flags: i32, mode: u32) -> Result<OwnedFd> {
        let path = path.as_ref().as_os_str().as_bytes();
        if path.is_empty() || path.contains(&0) {
            let why = if path.is_empty() { "is empty" } else { "has a NUL byte" };
            return Err(Error::new(ErrorKind::InvalidArgument, why).with_field("path"));
        }
        let inner = self.open()?;
        let waits = flags & (libc::O_NONBLOCK | libc::O_PATH) == 0;
        let asked = if flags & libc::O_PATH == 0 { flags | libc::O_NONBLOCK | libc::O_NOCTTY } else { flags };
        let made = reach::open(&inner.outside_of_groups(), path, asked, mode & 0o7777, inner.may_setgroups);
        let file = self.fetch(made, None, "path")?;
        if waits {
            set_blocking(file.as_fd())?;
        }
        Ok(file)
    }

    /// Whether a path exists inside.
    pub(super) fn find_path(&self, path: &Path, timeout: Option<Duration>) -> Result<()> {
        let inner = self.open()?;
        let path = path.as_os_str().as_bytes();
        let made =
            reach::open(&inner.outside_of_groups(), path, libc::O_PATH | libc::O_CLOEXEC, 0, inner.may_setgroups);
        // A file system inside may not answer; a look at the last moment is one as well.
        let timeout = timeout.map(|timeout| timeout.clamp(Duration::from_millis(100), FOREVER));
        self.fetch(made, timeout, "path").map(drop)
    }

    /// The descriptor that a task of the keeper makes inside.
    fn fetch(
        &self,
        (compiled, needs): (Compiled, Vec<Need>),
        timeout: Option<Duration>,
        field: &str,
    ) -> Result<OwnedFd> {
        let none = [None, None, None];
        let asked = self.open()?.ask(request::CALL, timeout, (&compiled, &needs), &none, None, record::ENDED);
        let (_, answered) = asked.map_err(|e| match e.kind() {
            // Its text is of a start.
            ErrorKind::TimedOut => timed_out().with_field(field),
            _ => e,
        })?;
        let first = answered.fds.into_iter().next().map(|(_, fd)| fd);
        first.ok_or_else(|| Error::new(ErrorKind::Internal, "no descriptor came back"))
    }
}

fn timed_out() -> Error {
    Error::new(ErrorKind::TimedOut, "nobody answered in time").with_errno(libc::ETIMEDOUT)
}

/// Waits for a connection; the inner error is the socket's.
fn connected(socket: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<Result<(), Errno>> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let wait = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up: a millisecond early would be a turn more.
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], wait) {
            Ok(0) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Err(timed_out().with_field("address"));
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => {
                let error = getsockopt(&socket, sockopt::SocketError).map_err(|e| Error::os("getsockopt", e as i32))?;
                return Ok(if error == 0 { Ok(()) } else { Err(Errno::from_raw(error)) });
            }
            Err(errno) => return Err(Error::os("poll", errno as i32)),
        }
    }
}

fn set_blocking(fd: BorrowedFd<'_>) -> Result<()> {
    let failed = |errno: Errno| Error::os("fcntl", errno as i32);
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).map_err(failed)?);
    fcntl(fd, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok(())
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(text: &str) {
    if let Ok(address) = Address::parse(text) {
        assert!((2..=128).contains(&address.bytes().len()));
        address.domain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, domain) in [
            ("127.0.0.1:80", libc::AF_INET),
            ("localhost:8080", libc::AF_INET),
            ("[::1]:80", libc::AF_INET6),
            ("/run/x.sock", libc::AF_UNIX),
            ("@name", libc::AF_UNIX),
        ] {
            assert_eq!(Address::parse(text).unwrap().domain(), domain, "{text}");
        }
        assert_eq!(&Address::parse("127.0.0.1:80").unwrap().bytes()[2..8], &[0, 80, 127, 0, 0, 1]);
        assert_eq!(&Address::parse("@ab").unwrap().bytes()[2..], b"\0ab");
        let long = format!("/{}", "x".repeat(120));
        for text in ["", "80", "example.org:80", "127.0.0.1", "127.0.0.1:70000", "relative.sock", long.as_str()] {
            let error = Address::parse(text).unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("address")), "{text}");
        }
    }
}
