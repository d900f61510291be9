//! A D-Bus connection that lives on the calling thread.
//!
//! zbus is the client that cgroups-rs brings. Its own transport leaves a thread in the process for ever, which a library
//! inside somebody else's program must not (and cgroups-rs speaks to the system bus only): so the transport is this one, and
//! whoever waits drives it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::connection::{Builder, Connection};

/// The longest sleep: a waiting thread may be woken by another one of the host that uses zbus too.
const STEP: Duration = Duration::from_millis(10);

/// A bus, spoken to until a deadline.
pub(super) struct Bus {
    connection: Connection,
    wire: Wire,
    deadline: Instant,
    /// Whether there was an answer to a call. (The last one may be cut short by the deadline.)
    pub answered: Cell<bool>,
}

impl Bus {
    pub fn connect(path: &Path, deadline: Instant) -> zbus::Result<Self> {
        let wire = Wire(Arc::new(Inner { socket: open(path, deadline)?, waiting: Mutex::default() }));
        let builder = Builder::socket(wire.clone()).internal_executor(false);
        let connection = drive(&wire, deadline, builder.build())?;
        Ok(Self { connection, wire, deadline, answered: Cell::new(false) })
    }

    /// A method of systemd's manager.
    pub fn call<B>(&self, method: &str, body: &B) -> zbus::Result<zbus::Message>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        const MANAGER: &str = "org.freedesktop.systemd1";
        let call = self.connection.call_method(
            Some(MANAGER),
            "/org/freedesktop/systemd1",
            Some("org.freedesktop.systemd1.Manager"),
            method,
            body,
        );
        let executor = self.connection.executor().clone();
        let result = drive(&self.wire, self.deadline, async {
            let mut call = pin!(call);
            // What reads the replies is a task of the connection.
            let mut tasks = pin!(async {
                loop {
                    executor.tick().await
                }
            });
            std::future::poll_fn(|context| match call.as_mut().poll(context) {
                Poll::Pending => tasks.as_mut().poll(context),
                ready => ready,
            })
            .await
        });
        if matches!(result, Ok(_) | Err(zbus::Error::MethodError(..))) {
            self.answered.set(true);
        }
        result
    }
}

fn open(path: &Path, deadline: Instant) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => return Ok(fd),
            Err(Errno::EINTR) => {}
            // Its queue is full: nobody accepts at the moment.
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Err(Errno::EAGAIN) => return Err(late()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

/// Both directions of the socket.
#[derive(Clone, Debug)]
struct Wire(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    /// Who is to be woken when it can be read, and when it can be written.
    waiting: Mutex<[Option<Waker>; 2]>,
}

impl Wire {
    /// Tries, and waits for `direction` (0 reads, 1 writes) as long as it would block.
    async fn attempt<T>(
        &self,
        direction: usize,
        mut act: impl FnMut(BorrowedFd<'_>) -> nix::Result<T>,
    ) -> io::Result<T> {
        std::future::poll_fn(|context| {
            loop {
                match act(self.0.socket.as_fd()) {
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => {
                        self.waiting()[direction] = Some(context.waker().clone());
                        return Poll::Pending;
                    }
                    result => return Poll::Ready(result.map_err(io::Error::from)),
                }
            }
        })
        .await
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, [Option<Waker>; 2]> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the socket is ready for somebody who waits, and wakes them.
    fn wait(&self, until: Instant) {
        const EVENTS: [PollFlags; 2] = [PollFlags::POLLIN, PollFlags::POLLOUT];
        let wanted = {
            let waiting = self.waiting();
            (0..2).filter(|&i| waiting[i].is_some()).fold(PollFlags::empty(), |flags, i| flags | EVENTS[i])
        };
        let mut fds = [PollFd::new(self.0.socket.as_fd(), wanted)];
        let pause = until.saturating_duration_since(Instant::now()).min(STEP);
        let pause = PollTimeout::try_from(pause.as_millis().max(1)).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, pause).is_ok_and(|ready| ready > 0) {
            self.waiting().iter_mut().filter_map(Option::take).for_each(Waker::wake);
        }
    }
}

impl Socket for Wire {
    type ReadHalf = Self;
    type WriteHalf = Self;

    fn split(self) -> Split<Self, Self> {
        Split::new(self.clone(), self)
    }
}

#[async_trait::async_trait]
impl ReadHalf for Wire {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let read = self.attempt(0, |fd| recv(fd.as_raw_fd(), buffer, MsgFlags::empty())).await?;
        Ok((read, Vec::new()))
    }
}

#[async_trait::async_trait]
impl WriteHalf for Wire {
    async fn sendmsg(&mut self, buffer: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.attempt(1, |fd| send(fd.as_raw_fd(), buffer, MsgFlags::MSG_NOSIGNAL)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        Ok(nix::sys::socket::shutdown(self.0.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both)?)
    }
}

/// Runs a future of the connection on this thread.
fn drive<T>(wire: &Wire, deadline: Instant, future: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(false)));
    let waker = Waker::from(woken.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        if Instant::now() >= deadline {
            return Err(late().into());
        }
        if !woken.0.swap(false, Ordering::AcqRel) {
            wire.wait(deadline);
        }
    }
}
