//! System calls about which the host is asked: the action `notify` of filters, seccomp_unotify(2).

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde_json::json;

use crate::cgroup::listen;
use crate::container;
use crate::error::{Error, ErrorKind, Result};
use crate::launch::{self, HostOnly, Listening};
use crate::process;
use crate::security::filter::{self, audit, rules::SeccompArch};
use crate::sys::pidfd::pidfd_open;
use crate::sys::unotify::{self, Found, Received, Response};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// One filter of a process that the host started, and of all that this one started.
#[derive(Debug)]
struct Filter {
    /// A copy in a worker of the host would keep calls waiting after the host's end.
    listener: HostOnly,
    /// The pid of the process that the filter was made for.
    process: i32,
    token: u64,
}

impl Filter {
    /// In a forked child the number may be anybody's.
    fn listener(&self) -> Result<BorrowedFd<'_>> {
        if self.listener.is_open() {
            return Ok(self.listener.as_fd());
        }
        Err(Error::new(ErrorKind::ForkedChild, "the listener belongs to the parent process").with_errno(libc::ECHILD))
    }
}

#[derive(Debug, Default)]
struct List {
    /// Made with the first filter or the first listener.
    epoll: Option<Arc<Epoll>>,
    filters: Vec<Arc<Filter>>,
    /// Read while a start was under way.
    early: VecDeque<(Arc<Filter>, Received)>,
    /// Readable while there is one of those.
    ready: Option<EventFd>,
    next_token: u64,
    closed: bool,
}

/// The token of `List::ready`.
const EARLY: u64 = 0;

impl List {
    fn epoll(&mut self) -> Result<Arc<Epoll>> {
        if let Some(epoll) = &self.epoll {
            return Ok(epoll.clone());
        }
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| Error::os("epoll_create1", e as i32))?;
        let ready = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| Error::os("eventfd", e as i32))?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, EARLY);
        epoll.add(&ready, event).map_err(|e| Error::os("epoll_ctl", e as i32))?;
        self.ready = Some(ready);
        let epoll = Arc::new(epoll);
        self.epoll = Some(epoll.clone());
        Ok(epoll)
    }

    /// `ready` says whether something was read early.
    fn signal(&self) {
        let Some(ready) = &self.ready else { return };
        let _ = if self.early.is_empty() { ready.read().map(drop) } else { ready.write(1).map(drop) };
    }

    fn forget(&mut self, token: u64) {
        let Some(at) = self.filters.iter().position(|filter| filter.token == token) else { return };
        let filter = self.filters.swap_remove(at);
        if let Some(epoll) = &self.epoll {
            // Requests that were handed out keep the descriptor open.
            let _ = epoll.delete(filter.listener.as_fd());
        }
    }
}

/// The filters of a container that have a listener.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<List>);

impl Filters {
    /// Of a process that was just started.
    pub fn add(&self, listening: Listening, process: i32) -> Result<()> {
        let mut list = lock(&self.0);
        if list.closed {
            return Ok(());
        }
        let epoll = list.epoll()?;
        list.next_token += 1;
        let token = list.next_token;
        let filter = Arc::new(Filter { listener: listening.fd.into(), process, token });
        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll.add(filter.listener.as_fd(), event).map_err(|e| Error::os("epoll_ctl", e as i32))?;
        if let Some(received) = listening.early {
            list.early.push_back((filter.clone(), received));
            list.signal();
        }
        list.filters.push(filter);
        Ok(())
    }

    fn epoll(&self) -> Result<Arc<Epoll>> {
        lock(&self.0).epoll()
    }

    /// Nobody is asked any more: what waits gets ENOSYS from the kernel.
    pub fn close(&self) {
        let closed = {
            let mut list = lock(&self.0);
            let next_token = list.next_token;
            std::mem::replace(&mut *list, List { closed: true, next_token, ..List::default() })
        };
        if let Some(epoll) = &closed.epoll {
            for filter in &closed.filters {
                let _ = epoll.delete(filter.listener.as_fd());
            }
        }
    }

    /// Without a wait.
    fn next(&self) -> Result<Option<SyscallRequest>> {
        // Held all the time: two threads that saw the same request would both receive, and one of them wait.
        let mut list = lock(&self.0);
        if let Some((filter, received)) = list.early.pop_front() {
            list.signal();
            return Ok(Some(SyscallRequest::new(filter, received)));
        }
        let Some(epoll) = list.epoll.clone() else { return Ok(None) };
        let mut events = [EpollEvent::empty(); 16];
        let count = match epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(errno) => return Err(Error::os("epoll_wait", errno as i32)),
        };
        for event in &events[..count] {
            let token = event.data();
            let Some(filter) = list.filters.iter().find(|filter| filter.token == token).cloned() else { continue };
            match unotify::take(filter.listener()?).map_err(|e| Error::io("SECCOMP_IOCTL_NOTIF_RECV", &e))? {
                Found::Received(received) => return Ok(Some(SyscallRequest::new(filter, received))),
                Found::Nothing => {}
                Found::Over => list.forget(token),
            }
        }
        Ok(None)
    }
}

/// The calls of a container about which the host is asked, because a rule of a filter has the action `notify`: made by
/// [`Container::syscall_listener`](crate::Container::syscall_listener), read one after the other, each to be answered.
///
/// There is one for the whole container: it has the calls of the main process and of every process that is started in the
/// container, which each have a filter of their own, and of all that these start. Any number may be made and used by any number of threads;
/// each request is given to one of them. Between the start and the making of the first one, and while nobody reads, calls wait.
///
/// The thread in the container waits until its call is answered; a signal ends the wait only before the request was read, or by killing the
/// thread (Linux 5.19; before that every signal does, and the call is made anew). Who was
/// killed or left is [no longer valid](SyscallRequest::is_valid), and cannot be answered. A request that is dropped without an answer is
/// answered with ENOSYS, which says that there is no such call. So is what waits, by the kernel, when the container's handle is closed or this
/// program ends in whatever way.
///
/// **This is no security boundary for calls that go on.** What an argument points to can be changed by another thread of the program between
/// the look at it and the kernel's own. Decide by memory only about calls that the host makes itself and answers with a value, an errno
/// or a descriptor; [`answer_continue`](SyscallRequest::answer_continue) is for calls that the program may make whatever their
/// arguments are. See seccomp_unotify(2) and the chapter on [confinement](crate::confinement).
///
/// In a forked child of this program every call fails with [`ErrorKind::ForkedChild`], and the parent's requests are left alone.
///
/// ```
/// use ringfence::{Container, Spec};
/// # fn main() -> ringfence::Result<()> {
/// let spec = Spec::from_json(r#"{
///     "argv": ["sh", "-c", "mkdir /no/such/place && echo made"], "stdout": "pipe",
///     "seccomp": {"profile": "default", "rules": [{"names": ["mkdir", "mkdirat"], "action": "notify"}]}
/// }"#)?;
/// let container = Container::start(&spec)?;
/// container.syscall_listener()?.serve(|request| {
///     println!("{} {}", request.pid(), request.name().unwrap_or("?"));
///     request.answer_value(0)
/// })?;
/// # let output = container.main().unwrap().communicate(None, None)?;
/// # assert_eq!(output.stdout, b"made\n");
/// container.close(None)
/// # }
/// ```
#[derive(Clone)]
pub struct SyscallListener {
    shared: Arc<Shared>,
}

struct Shared {
    container: Arc<container::Inner>,
    /// Its container's, what else can happen, and `ready`.
    epoll: Epoll,
    cancel: OwnedFd,
    cancelled: AtomicBool,
    /// Readable when it is over.
    ready: OwnedFd,
    over: AtomicBool,
    /// The pidfd of a detached container is still in the epoll instance.
    pidfd_listed: AtomicBool,
}

impl std::fmt::Debug for SyscallListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyscallListener").field("container", &self.shared.container).finish_non_exhaustive()
    }
}

impl Shared {
    /// `Some(None)`: it is over. `None`: nothing yet.
    fn take(&self) -> Result<Option<Option<SyscallRequest>>> {
        self.container.owner().check()?;
        if self.over.load(Ordering::Relaxed) {
            return Ok(Some(None));
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the wait was cancelled").with_errno(libc::ECANCELED));
        }
        if let Some(request) = self.container.syscalls().next()? {
            return Ok(Some(Some(request)));
        }
        let pid_one_ended = !self.container.runs();
        if self.container.events_are_over(pid_one_ended)? {
            self.over.store(true, Ordering::Relaxed);
            process::raise(&self.ready);
            return Ok(Some(None));
        }
        if pid_one_ended && self.pidfd_listed.swap(false, Ordering::Relaxed) {
            let _ = self.epoll.delete(self.container.pidfd());
        }
        if self.container.is_let_go() {
            return Err(Error::new(ErrorKind::Closed, "the container's handle was closed").with_errno(libc::EBADF));
        }
        Ok(None)
    }
}

impl SyscallListener {
    pub(crate) fn new(container: &Arc<container::Inner>) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| Error::os("epoll_create1", e as i32))?;
        let (cancel, ready) = (process::event()?, process::event()?);
        let listed = container.end_descriptors();
        let filters = container.syscalls().epoll()?;
        let own = [filters.0.as_fd(), cancel.as_fd(), ready.as_fd()];
        for fd in own.into_iter().chain(listed.always).chain(listed.until_pid_one_ended) {
            listen(&epoll, fd, EpollFlags::EPOLLIN)?;
        }
        let pidfd_listed = AtomicBool::new(listed.until_pid_one_ended.is_some());
        let (cancelled, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let container = container.clone();
        Ok(Self { shared: Arc::new(Shared { container, epoll, cancel, cancelled, ready, over, pidfd_listed }) })
    }

    /// The next call about which the host is asked. Waits for one as long as `timeout` (`None`: for ever; zero only looks). `Ok(None)`:
    /// the time passed, or [it is over](Self::is_over).
    ///
    /// # Errors
    /// Closed, when [`cancel`](Self::cancel) was called, or the handle of a detached container was closed.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<SyscallRequest>> {
        launch::next(self.fd(), timeout, || self.shared.take())
    }

    /// Hands every call to `answer`, one after the other, until the container has ended or [`cancel`](Self::cancel) was called. What it
    /// does not answer is answered with ENOSYS. When it fails, the call has ENOSYS too, and this ends with its error; later calls wait
    /// until somebody reads again. It does not end when the thread that waited was killed meanwhile ([`is_gone`](SyscallRequest::is_gone)), which can happen at any time.
    ///
    /// Calls that take long are better read with [`next`](Self::next) and answered by other threads: a request is a value that may be sent.
    ///
    /// # Errors
    /// That of `answer`.
    pub fn serve(&self, mut answer: impl FnMut(&SyscallRequest) -> Result<()>) -> Result<()> {
        loop {
            let request = match self.next(None) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(_) if self.shared.cancelled.load(Ordering::Relaxed) => return Ok(()),
                Err(error) => return Err(error),
            };
            if let Err(error) = answer(&request)
                && !request.is_gone()
            {
                return Err(error);
            }
        }
    }

    /// Whether the container has ended: nothing comes any more.
    pub fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed)
    }

    /// Readable (POLLIN) when there is something to read, and when it is over; borrowed from this object, for poll, epoll and
    /// the like, never to be read. A call of [`next`](Self::next) may then still find nothing.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.shared.epoll.0.as_fd()
    }

    /// Makes every call of [`next`](Self::next), under way on any thread or begun later, fail with Closed, and
    /// [`serve`](Self::serve) return, unless it is over. Other listeners of the container go on.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::Relaxed);
        process::raise(&self.shared.cancel);
    }
}

impl AsFd for SyscallListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

const WAITING: u8 = 0;
const ANSWERED: u8 = 1;
const GONE: u8 = 2;

/// How a descriptor is given to a process in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InjectedFd {
    /// Its number there; what has that number is replaced, as dup2(2) does. `None`: the lowest that is free.
    pub number: Option<i32>,
    /// Whether an exec closes it.
    pub cloexec: bool,
}

/// A system call that waits for the host's answer. It is answered once; unanswered it is answered with ENOSYS when this is dropped.
///
/// Everything that is said of the thread is of the moment at which the call was read: the thread can be killed at any time, and its pid
/// be given to another. What is read of it counts only when the request [is valid](Self::is_valid) *afterwards*, which
/// [`read_memory`](Self::read_memory) and the like see to themselves.
#[derive(Debug)]
pub struct SyscallRequest {
    filter: Arc<Filter>,
    received: Received,
    arch: SeccompArch,
    state: AtomicU8,
}

/// The errno of a call that nobody answers.
const UNANSWERED: i32 = libc::ENOSYS;

/// The longest read or write of memory.
const LONGEST: usize = 64 << 20;

impl SyscallRequest {
    fn new(filter: Arc<Filter>, received: Received) -> Self {
        // The filter lets no other run.
        let known = SeccompArch::ALL.into_iter().find(|&arch| audit(arch) == received.arch);
        Self { filter, received, arch: known.unwrap_or(SeccompArch::NATIVE), state: AtomicU8::new(WAITING) }
    }

    /// The kernel's number of this request, which no other of the same filter has.
    pub fn id(&self) -> u64 {
        self.received.id
    }

    /// The pid of the thread that waits, in the pid namespace of this program.
    pub fn pid(&self) -> i32 {
        self.received.pid
    }

    /// The pid of the process of the container whose filter it is: the main process, or one that the host started
    /// ([`Process::pid`](crate::Process::pid)), which made the call or started who did.
    pub fn process(&self) -> i32 {
        self.filter.process
    }

    /// The instruction set of the caller, whose numbers and whose width of addresses count.
    pub fn arch(&self) -> SeccompArch {
        self.arch
    }

    /// The number of the system call.
    pub fn number(&self) -> i32 {
        self.received.number
    }

    /// Its name; `None` for a number that is newer than this library.
    pub fn name(&self) -> Option<&'static str> {
        filter::name(u32::try_from(self.received.number).ok()?, self.arch)
    }

    /// The six registers of arguments, of which a call uses some. Addresses are the caller's: [`read_memory`](Self::read_memory).
    pub fn args(&self) -> [u64; 6] {
        self.received.args
    }

    /// The address of the call.
    pub fn instruction_pointer(&self) -> u64 {
        self.received.instruction_pointer
    }

    /// Whether the thread still waits for an answer.
    pub fn is_valid(&self) -> Result<bool> {
        let listener = self.filter.listener()?;
        if self.state.load(Ordering::Relaxed) != WAITING {
            return Ok(false);
        }
        let valid =
            unotify::is_valid(listener, self.id()).map_err(|e| Error::io("SECCOMP_IOCTL_NOTIF_ID_VALID", &e))?;
        if !valid {
            self.state.store(GONE, Ordering::Relaxed);
        }
        Ok(valid)
    }

    /// Whether something was found out to have come too late: the thread was killed, or left by a signal.
    pub fn is_gone(&self) -> bool {
        self.state.load(Ordering::Relaxed) == GONE
    }

    /// Has the kernel do the call, as if there were no filter.
    ///
    /// **Not for deciding what a program may do**: between the look at its memory and the kernel's own, another thread can put
    /// something else there, and the arguments of a thread that is traced can be changed too.
    ///
    /// # Errors
    /// NotFound when the thread does not wait any more; InvalidArgument when it was answered.
    pub fn answer_continue(&self) -> Result<()> {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        self.answer(Response { flags, ..Response::default() })
    }

    /// Has the call fail, with this errno: 1 to 4095.
    ///
    /// # Errors
    /// As [`answer_continue`](Self::answer_continue); InvalidArgument for a number that is no errno.
    pub fn answer_errno(&self, errno: i32) -> Result<()> {
        if !(1..=4095).contains(&errno) {
            return Err(invalid("errno", format!("{errno} is no errno: 1 to 4095")));
        }
        self.answer(Response { errno, ..Response::default() })
    }

    /// Has the call succeed with this result. (From -4095 to -1 the C library takes it for an errno.)
    ///
    /// # Errors
    /// As [`answer_continue`](Self::answer_continue).
    pub fn answer_value(&self, value: i64) -> Result<()> {
        self.answer(Response { value, ..Response::default() })
    }

    /// Gives the caller's process a copy of a descriptor of the host, and its number to the call as the result, both at once
    /// (Linux 5.14): a call of openat or socket, say, that the host has made. The number.
    ///
    /// # Errors
    /// As [`answer_continue`](Self::answer_continue), and then nothing is given; Exhausted when the process may have no more
    /// descriptors (EMFILE): the call still waits, as after every other error.
    pub fn answer_fd(&self, fd: impl AsFd, how: InjectedFd) -> Result<i32> {
        self.inject(fd.as_fd().as_raw_fd(), how, true)
    }

    /// As [`answer_fd`](Self::answer_fd), but the call waits on: for calls that make several.
    ///
    /// # Errors
    /// The same.
    pub fn add_fd(&self, fd: impl AsFd, how: InjectedFd) -> Result<i32> {
        self.inject(fd.as_fd().as_raw_fd(), how, false)
    }

    /// [`answer_fd`](Self::answer_fd) or [`add_fd`](Self::add_fd) by number, for other languages.
    #[doc(hidden)]
    pub fn inject(&self, fd: RawFd, how: InjectedFd, answer: bool) -> Result<i32> {
        let number = how
            .number
            .map(|number| u32::try_from(number).map_err(|_| invalid("number", format!("{number} is no descriptor"))));
        let number = number.transpose()?;
        let listener = self.waiting()?;
        match unotify::add_fd(listener, self.id(), fd, number, how.cloexec, answer) {
            Ok(given) => {
                if answer {
                    self.state.store(ANSWERED, Ordering::Relaxed);
                }
                Ok(given)
            }
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::EBADF) if how.number.is_none() => {
                    invalid("fd", "the descriptor is not open").with_errno(libc::EBADF)
                }
                _ => self.failed("SECCOMP_IOCTL_NOTIF_ADDFD", &error),
            }),
        }
    }

    /// The listener, of a request that was not answered.
    fn waiting(&self) -> Result<BorrowedFd<'_>> {
        let listener = self.filter.listener()?;
        match self.state.load(Ordering::Relaxed) {
            WAITING => Ok(listener),
            ANSWERED => Err(answered()),
            _ => Err(gone()),
        }
    }

    fn answer(&self, response: Response) -> Result<()> {
        let listener = self.waiting()?;
        // Of two threads one does it.
        let taken = self.state.compare_exchange(WAITING, ANSWERED, Ordering::Relaxed, Ordering::Relaxed);
        taken.map_err(|state| if state == GONE { gone() } else { answered() })?;
        unotify::send(listener, self.id(), response).map_err(|error| {
            if error.raw_os_error() != Some(libc::EINPROGRESS) {
                self.state.store(WAITING, Ordering::Relaxed);
            }
            self.failed("SECCOMP_IOCTL_NOTIF_SEND", &error)
        })
    }

    fn failed(&self, step: &str, error: &std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(libc::ENOENT) => {
                self.state.store(GONE, Ordering::Relaxed);
                gone()
            }
            Some(libc::EINPROGRESS) => answered(),
            _ => Error::io(step, error),
        }
    }

    /// Fails when the thread does not wait any more.
    fn still_waits(&self) -> Result<()> {
        self.waiting()?;
        if self.is_valid()? { Ok(()) } else { Err(gone()) }
    }

    /// Its memory: of the process whose thread waits, and of no other, whatever becomes of the pid.
    fn memory(&self, write: bool) -> Result<File> {
        self.waiting()?;
        let path = format!("/proc/{}/mem", self.pid());
        let opened = File::options().read(!write).write(write).open(&path);
        // Before a byte is looked at or written: the descriptor is the memory's, which the pid's next owner does not have.
        self.still_waits()?;
        opened.map_err(|e| {
            let error = Error::io("open", &e).with_path(path);
            match e.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => error.with_hint(
                    "it takes what tracing it does (ptrace(2), kernel.yama.ptrace_scope): CAP_SYS_PTRACE over its user namespace",
                ),
                _ => error,
            }
        })
    }

    /// Reads `length` bytes of the caller's memory, at most 64 MiB, and says whether the thread waited all the time: otherwise it is an error. What
    /// was read can be something else by the time the kernel looks: see [`answer_continue`](Self::answer_continue).
    ///
    /// # Errors
    /// EFAULT for addresses of which one is not readable; NotFound when the thread does not wait any more; PermissionDenied
    /// where this program may not read it (as for ptrace(2)).
    pub fn read_memory(&self, address: u64, length: usize) -> Result<Vec<u8>> {
        if length > LONGEST {
            return Err(invalid("length", format!("{length} bytes are more than {LONGEST}")));
        }
        let memory = self.memory(false)?;
        let mut bytes = Vec::new();
        // A length that a program names is not to cost more than what is there.
        while bytes.len() < length {
            let at = bytes.len();
            bytes.resize(length.min(at + (1 << 20)), 0);
            let place = address.checked_add(at as u64).ok_or_else(bad_address)?;
            if !fill(&memory, place, &mut bytes[at..])? {
                self.still_waits()?;
                return Err(bad_address());
            }
        }
        self.still_waits()?;
        Ok(bytes)
    }

    /// Reads text up to its NUL, as long as `most` bytes with it: a path is up to 4096 long.
    ///
    /// # Errors
    /// As [`read_memory`](Self::read_memory); ENAMETOOLONG for one that is longer.
    pub fn read_c_string(&self, address: u64, most: usize) -> Result<CString> {
        const PAGE: u64 = 4096;
        let most = most.min(LONGEST);
        let memory = self.memory(false)?;
        let mut bytes = Vec::new();
        while bytes.len() < most {
            let place = address.checked_add(bytes.len() as u64).ok_or_else(bad_address)?;
            // What comes after the text may not be readable: page by page.
            let part = usize::try_from(PAGE - place % PAGE).unwrap_or(1).min(most - bytes.len());
            let at = bytes.len();
            bytes.resize(at + part, 0);
            if !fill(&memory, place, &mut bytes[at..])? {
                self.still_waits()?;
                return Err(bad_address());
            }
            if let Some(end) = bytes[at..].iter().position(|&byte| byte == 0) {
                bytes.truncate(at + end);
                self.still_waits()?;
                return CString::new(bytes).map_err(|_| bad_address());
            }
        }
        self.still_waits()?;
        Err(Error::os("read text", libc::ENAMETOOLONG).with_detail(format!("has no end within {most} bytes")))
    }

    /// Writes to the caller's memory: what a call that the host makes in its place returns by an address. Never to another process's. Pages that
    /// the program itself may not write to are written to, as a debugger does.
    ///
    /// # Errors
    /// As [`read_memory`](Self::read_memory). EFAULT may come after a part was written.
    pub fn write_memory(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if bytes.len() > LONGEST {
            return Err(invalid("data", format!("{} bytes are more than {LONGEST}", bytes.len())));
        }
        let memory = self.memory(true)?;
        match memory.write_all_at(bytes, address) {
            Ok(()) => self.still_waits(),
            Err(error) => {
                self.still_waits()?;
                match error.raw_os_error() {
                    // EINVAL: beyond what a file offset can be.
                    Some(libc::EIO | libc::EFAULT | libc::EINVAL) | None => Err(bad_address()),
                    _ => Err(Error::io("write memory", &error)),
                }
            }
        }
    }

    /// A copy of a descriptor of the caller's process (CLOEXEC, the caller's): of a socket, say, that the host is to connect
    /// (pidfd_getfd(2)).
    ///
    /// # Errors
    /// EBADF (InvalidArgument) where it has none of that number; otherwise as [`read_memory`](Self::read_memory).
    pub fn dup_fd(&self, number: RawFd) -> Result<OwnedFd> {
        self.waiting()?;
        let pidfd = self.process_fd();
        // Before anything is taken: the descriptor is the process's, which the pid's next owner is not.
        self.still_waits()?;
        let copied = pidfd.and_then(|pidfd| unotify::getfd(pidfd.as_fd(), number));
        self.still_waits()?;
        copied.map_err(|error| {
            let shown = Error::io("pidfd_getfd", &error).with_path(format!("fd {number} of pid {}", self.pid()));
            if error.raw_os_error() == Some(libc::EBADF) { shown.with_kind(ErrorKind::InvalidArgument) } else { shown }
        })
    }

    /// A pidfd of its process.
    fn process_fd(&self) -> std::io::Result<OwnedFd> {
        match pidfd_open(self.pid()) {
            // A thread that is not the first one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
                let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
                pidfd_open(leader.unwrap_or(self.pid()))
            }
            other => other,
        }
    }

    /// One JSON object: `id`, `pid`, `process`, `arch`, `number`, `name` (null for a number that is not known), `args`,
    /// `instruction_pointer`.
    pub fn to_json(&self) -> String {
        json!({
            "id": self.id(),
            "pid": self.pid(),
            "process": self.process(),
            "arch": self.arch.name(),
            "number": self.number(),
            "name": self.name(),
            "args": self.args(),
            "instruction_pointer": self.instruction_pointer(),
        })
        .to_string()
    }
}

impl Drop for SyscallRequest {
    fn drop(&mut self) {
        // In a forked child it is the parent's.
        if self.filter.listener.is_open() && *self.state.get_mut() == WAITING {
            let _ = self.answer(Response { errno: UNANSWERED, ..Response::default() });
        }
    }
}

/// Reads all of it; false when a part cannot be read.
fn fill(memory: &File, address: u64, into: &mut [u8]) -> Result<bool> {
    match memory.read_exact_at(into, address) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            // None: the process has no memory any more. EINVAL: beyond what a file offset can be.
            Some(libc::EIO | libc::EFAULT | libc::EINVAL) | None => Ok(false),
            _ => Err(Error::io("read memory", &error)),
        },
    }
}

fn invalid(argument: &str, detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, detail).with_field(argument).with_errno(libc::EINVAL)
}

fn bad_address() -> Error {
    Error::os("memory", libc::EFAULT)
}

fn answered() -> Error {
    Error::new(ErrorKind::InvalidArgument, "the call was answered already").with_errno(libc::EALREADY)
}

fn gone() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "nobody waits for an answer any more: the thread was killed, or a signal ended its call",
    )
    .with_errno(libc::ENOENT)
}
