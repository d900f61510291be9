//! Thin wrappers: a negative result is `-errno`. No wrapper keeps state, allocates or touches thread-local storage.

use core::cell::Cell;
use core::ffi::CStr;
use core::sync::atomic::AtomicU32;

use crate::nr;
use crate::proto::{Header, IdmapEntry, Op, OwnMapEntry, Record, RelayEntry, Request};
use crate::raw;

/// Any system call.
///
/// # Safety
/// As for [`raw::syscall6`]: what the kernel reads there can be read, and what it writes may be written by it.
unsafe fn call(number: u32, args: &[u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args.map(|arg| arg as usize);
    // SAFETY: the caller's promise.
    unsafe { raw::syscall6(number as usize, a, b, c, d, e, f) as i64 }
}

/// How often a path with `..` in it is looked up below a root: whenever anything on the machine is renamed or mounted meanwhile, openat2(2)
/// cannot say whether it led out, and leaves it to the caller to ask again.
#[cfg(not(fuzzing))]
const TRIES: u32 = 128;

/// One that a plan or a program names, with whatever addresses it says: fuzzers (tests/fuzz) hold the keeper to its own alone.
///
/// # Safety
/// Whoever made the plan or the program answers for it: `Plan::map`, `files::serve`.
pub unsafe fn call_of_plan(number: u32, args: &[u64; 6]) -> i64 {
    #[cfg(fuzzing)]
    return raw::call_of_plan(number, args);
    #[cfg(not(fuzzing))]
    for _ in 0..TRIES {
        // SAFETY: the caller's promise.
        let result = unsafe { call(number, args) };
        if number != nr::OPENAT2 || result != -i64::from(nr::EAGAIN) {
            return result;
        }
    }
    #[cfg(not(fuzzing))]
    return -i64::from(nr::EAGAIN);
}

/// Structs that are sent, received and read as they lie in memory.
///
/// # Safety
/// Of integers, without bytes between them: any bytes are one.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($name:ty),*) => {$(
        // SAFETY: `repr(C)`, of integers in an order that leaves nothing between them (the library's tests look at their sizes).
        unsafe impl Plain for $name {}
    )*};
}
plain!(u8, u32, i64, u64, Header, IdmapEntry, Op, OwnMapEntry, Record, RelayEntry, Request);

pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: all bytes of a `Plain` are initialised, and they live as long as the value.
    unsafe { core::slice::from_raw_parts((value as *const T).cast(), core::mem::size_of::<T>()) }
}

pub fn bytes_of_all(words: &[u64]) -> &[u8] {
    // SAFETY: as many bytes, which live as long.
    unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), core::mem::size_of_val(words)) }
}

pub fn bytes_of_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: as above, and whatever is written, it is a `T`.
    unsafe { core::slice::from_raw_parts_mut((value as *mut T).cast(), core::mem::size_of::<T>()) }
}

/// The text up to the first NUL; where there is none, none.
pub fn text(bytes: &[u8]) -> &CStr {
    CStr::from_bytes_until_nul(bytes).unwrap_or(c"")
}

fn words<const N: usize>(given: [u64; N]) -> [u64; 6] {
    let mut args = [0u64; 6];
    args[..N].copy_from_slice(&given);
    args
}

fn place<T>(value: Option<&mut T>) -> *mut T {
    value.map_or(core::ptr::null_mut(), |value| value)
}

/// Functions that are one system call: their arguments, and what the kernel gets for them.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) = $nr:ident($($word:expr),*);)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name($($arg: $type),*) -> i64 {
            // SAFETY: each address in the list below is that of an argument, which lives through the call. It is a text that ends
            // with NUL, a struct of the size that the kernel knows, or as long as the number behind it says, and `mut` where the
            // kernel writes. Nobody else looks at it meanwhile: the keeper has no threads.
            unsafe { call(nr::$nr, &words([$($word as u64),*])) }
        }
    )*};
}

calls! {
    read(fd: i32, into: &mut [u8]) = READ(fd, into.as_mut_ptr(), into.len());
    pread(fd: i32, into: &mut [u8]) = PREAD64(fd, into.as_mut_ptr(), into.len(), 0);
    write(fd: i32, data: &[u8]) = WRITE(fd, data.as_ptr(), data.len());
    open(dir: i32, path: &CStr, flags: u64) = OPENAT(dir, path.as_ptr(), flags | nr::O_CLOEXEC, 0);
    lseek(fd: i32, offset: i64, whence: i32) = LSEEK(fd, offset, whence);
    sendfile(to: i32, from: i32, offset: &mut i64, len: u64) = SENDFILE(to, from, offset as *mut i64, len);
    fstat(fd: i32, stat: &mut [u8; 256]) = FSTAT(fd, stat.as_mut_ptr());
    getdents(fd: i32, into: &mut [u64]) = GETDENTS64(fd, into.as_mut_ptr(), core::mem::size_of_val(into));
    readlink(dir: i32, path: &CStr, into: &mut [u8]) = READLINKAT(dir, path.as_ptr(), into.as_mut_ptr(), into.len());
    getcwd(into: &mut [u8]) = GETCWD(into.as_mut_ptr(), into.len());
    getxattr(fd: i32, name: &CStr, into: &mut [u8]) = FGETXATTR(fd, name.as_ptr(), into.as_mut_ptr(), into.len());
    rmdir(dir: i32, name: &CStr) = UNLINKAT(dir, name.as_ptr(), AT_REMOVEDIR);
    mkdir(dir: i32, name: &CStr, mode: u32) = MKDIRAT(dir, name.as_ptr(), mode);
    chdir(path: &CStr) = CHDIR(path.as_ptr());
    fchdir(fd: i32) = FCHDIR(fd);
    umask(mask: u32) = UMASK(mask);
    dup3(from: i32, to: i32, flags: u64) = DUP3(from, to, flags);
    /// The lowest free number that is not below `least`.
    dup_above(fd: i32, least: i32) = FCNTL(fd, F_DUPFD_CLOEXEC, least);
    set_fd_flags(fd: i32, flags: u32) = FCNTL(fd, F_SETFD, flags);
    /// `lock` is a struct flock.
    get_lock(fd: i32, lock: &mut [u64; 4]) = FCNTL(fd, F_GETLK, lock.as_mut_ptr());
    pipe(ends: &mut [i32; 2], flags: u64) = PIPE2(ends.as_mut_ptr(), flags);
    splice(from: i32, to: i32, len: usize, flags: u32) = SPLICE(from, 0, to, 0, len, flags);

    mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64)
        = MOUNT(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, 0);
    umount(target: &CStr, flags: u64) = UMOUNT2(target.as_ptr(), flags);
    pivot_root(new: &CStr, old: &CStr) = PIVOT_ROOT(new.as_ptr(), old.as_ptr());
    fsopen(kind: &CStr) = FSOPEN(kind.as_ptr(), 1);
    fsconfig_create(context: i32) = FSCONFIG(context, 6, 0, 0, 0);
    fsmount(context: i32, attributes: u64) = FSMOUNT(context, 1, attributes);
    open_tree(dir: i32, path: &CStr, flags: u64) = OPEN_TREE(dir, path.as_ptr(), flags);
    /// Of a mount's descriptor.
    move_mount(mount: i32, dir: i32, path: &CStr) = MOVE_MOUNT(mount, c"".as_ptr(), dir, path.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH);
    /// Of a mount's descriptor. struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    mount_setattr(mount: i32, flags: u64, attr: &[u64; 4])
        = MOUNT_SETATTR(mount, c"".as_ptr(), nr::AT_EMPTY_PATH | flags, attr.as_ptr(), 32);

    getpid() = GETPID();
    setsid() = SETSID();
    unshare(flags: u64) = UNSHARE(flags);
    kill(pid: i32, signal: i32) = KILL(pid, signal);
    pidfd_open(pid: i32) = PIDFD_OPEN(pid, 0);
    /// `usage` is a struct rusage.
    wait4(pid: i32, status: &mut i32, options: u32, usage: Option<&mut [i64; 18]>)
        = WAIT4(pid, status as *mut i32, options, place(usage));
    /// SIGSET: a mask of 64 signals.
    signalfd(mask: &u64, flags: u64) = SIGNALFD4(-1i32, mask as *const u64, 8, flags);
    sigprocmask(mask: &u64) = RT_SIGPROCMASK(2, mask as *const u64, 0, 8);
    /// `action` is a struct sigaction.
    sigaction(signal: i32, action: &[u64; 4]) = RT_SIGACTION(signal, action.as_ptr(), 0, 8);
    /// Soft and hard limit.
    get_limit(resource: u32, limit: &mut [u64; 2]) = PRLIMIT64(0, resource, 0, limit.as_mut_ptr());
    set_limit(resource: u32, limit: &[u64; 2]) = PRLIMIT64(0, resource, limit.as_ptr(), 0);
    set_affinity(cpus: &[u64]) = SCHED_SETAFFINITY(0, core::mem::size_of_val(cpus), cpus.as_ptr());
    clock(clock: i32, time: &mut [i64; 2]) = CLOCK_GETTIME(clock, time.as_mut_ptr());
    /// Of this thread: effective, permitted, inheritable, twice. (The kernel writes into a header whose version it does not know.)
    capset(data: &[u32; 6]) = CAPSET([0x2008_0522u32, 0].as_mut_ptr(), data.as_ptr());
    join_new_session_keyring() = KEYCTL(1, 0);
    revoke_session_keyring() = KEYCTL(3, -3i32);
    /// struct landlock_path_beneath_attr.
    landlock_path(ruleset: i32, attr: &[u8; 12]) = LANDLOCK_ADD_RULE(ruleset, 1, attr.as_ptr(), 0);

    /// Of prctl(2): the signal when the parent ends.
    die_with_parent() = PRCTL(nr::PR_SET_PDEATHSIG, nr::SIGKILL, 0, 0, 0);
    be_undumpable() = PRCTL(nr::PR_SET_DUMPABLE, 0, 0, 0, 0);
    no_new_privileges() = PRCTL(nr::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    set_name(name: &CStr) = PRCTL(nr::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
    default_timer_slack() = PRCTL(nr::PR_SET_TIMERSLACK, 0, 0, 0, 0);
    drop_bound(capability: u64) = PRCTL(nr::PR_CAPBSET_DROP, capability, 0, 0, 0);
    read_bound(capability: u64) = PRCTL(nr::PR_CAPBSET_READ, capability, 0, 0, 0);
    raise_ambient(capability: u64) = PRCTL(nr::PR_CAP_AMBIENT, nr::PR_CAP_AMBIENT_RAISE, capability, 0, 0);

    futex_wait(word: &AtomicU32, value: u32) = FUTEX(word.as_ptr(), 0, value, 0, 0, 0);
    futex_wake(word: &AtomicU32) = FUTEX(word.as_ptr(), 1, 1, 0, 0, 0);

    socket(family: u16, kind: i32) = SOCKET(family, kind, 0);
    accept(listener: i32, flags: u64) = ACCEPT4(listener, 0, 0, flags);
    connect(fd: i32, address: &[u8]) = CONNECT(fd, address.as_ptr(), address.len());
    shutdown(fd: i32, how: i32) = SHUTDOWN(fd, how);
    set_option(fd: i32, level: i32, name: i32, value: &[i32])
        = SETSOCKOPT(fd, level, name, value.as_ptr(), core::mem::size_of_val(value));
    recv(fd: i32, into: &mut [u8], flags: i32) = RECVFROM(fd, into.as_mut_ptr(), into.len(), flags, 0, 0);
    /// Takes bytes off a queue of TCP: with MSG_TRUNC none is written anywhere (tcp(7)).
    discard(fd: i32, len: i64) = RECVFROM(fd, 0, len, MSG_TRUNC as u64 | MSG_DONTWAIT, 0, 0);
    send_to(fd: i32, data: &[u8], flags: i32, address: &[u8])
        = SENDTO(fd, data.as_ptr(), data.len(), flags, if address.is_empty() { core::ptr::null() } else { address.as_ptr() }, address.len());
    epoll_create() = EPOLL_CREATE1(nr::O_CLOEXEC);
    epoll_ctl(epoll: i32, what: i32, fd: i32, event: &Event) = EPOLL_CTL(epoll, what, fd, event as *const Event);
    epoll_wait(epoll: i32, into: &mut [Event], timeout_ms: i64)
        = EPOLL_PWAIT(epoll, into.as_mut_ptr(), into.len(), timeout_ms, 0, 8);
}

const AT_REMOVEDIR: u32 = 0x200;
const F_SETFD: i32 = 2;
const F_GETLK: i32 = 5;
const F_DUPFD_CLOEXEC: i32 = 1030;
const MOVE_MOUNT_F_EMPTY_PATH: u64 = 4;

/// struct epoll_event, which is packed on x86-64 alone.
#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
#[derive(Clone, Copy)]
pub struct Event {
    pub events: u32,
    pub data: u64,
}

/// A datagram, and the address that it came from: its first bytes, and how long it is.
pub fn recv_from(fd: i32, into: &mut [u8], flags: i32, address: &mut [u8; 28], len: &mut u32) -> i64 {
    *len = address.len() as u32;
    let args = [into.as_mut_ptr() as u64, into.len() as u64, flags as u64, address.as_mut_ptr() as u64];
    // SAFETY: the buffer is as long as is said, and the kernel writes as much of the address as `len` says before.
    unsafe { call(nr::RECVFROM, &[fd as u64, args[0], args[1], args[2], args[3], len as *mut u32 as u64]) }
}

/// SO_ERROR of a socket.
pub fn socket_error(fd: i32) -> i32 {
    const SO_ERROR: u64 = 4;
    let (mut error, mut len) = (0i32, 4u32);
    let args = [fd as u64, SOL_SOCKET as u64, SO_ERROR, &raw mut error as u64, &raw mut len as u64, 0];
    // SAFETY: the kernel writes an int, as long as is said, and its length.
    unsafe { call(nr::GETSOCKOPT, &args) };
    error
}

/// Memory of nobody else's, all zeroes, which counts only as far as it is touched; its address or an error.
pub fn map(len: usize, reserved: bool) -> i64 {
    // PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, MAP_NORESERVE
    let flags = if reserved { 0x22 } else { 0x4022 };
    // SAFETY: a new mapping where the kernel has room.
    unsafe { call(nr::MMAP, &[0, len as u64, 3, flags, -1i32 as u64, 0]) }
}

/// A file, shared; the address or an error.
pub fn map_file(fd: i32, len: usize) -> i64 {
    // PROT_READ | PROT_WRITE, MAP_SHARED
    // SAFETY: a new mapping where the kernel has room.
    unsafe { call(nr::MMAP, &[0, len as u64, 3, 1, fd as u64, 0]) }
}

/// # Safety
/// A whole mapping of [`map`] or [`map_file`] that nobody uses after this.
pub unsafe fn unmap(at: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { call(nr::MUNMAP, &[at as u64, len as u64, 0, 0, 0, 0]) };
}

/// # Safety
/// A whole mapping, and `advice` takes nothing from it that somebody still looks for in this process.
pub unsafe fn advise(at: *mut u8, len: usize, advice: u64) {
    // SAFETY: the caller's promise.
    unsafe { call(nr::MADVISE, &[at as u64, len as u64, advice, 0, 0, 0]) };
}

/// execve(2), or execveat(2) of the file that `by` is for.
///
/// # Safety
/// `argv` and `envp` are lists of texts that end with NUL; a null pointer ends each.
pub unsafe fn exec(by: Option<i32>, path: *const u8, argv: &[*const u8], envp: &[*const u8; 1]) -> i64 {
    let (path, argv, envp) = (path as u64, argv.as_ptr() as u64, envp.as_ptr() as u64);
    // SAFETY: the caller's promise.
    unsafe {
        match by {
            None => call(nr::EXECVE, &[path, argv, envp, 0, 0, 0]),
            Some(fd) => call(nr::EXECVEAT, &[fd as u64, path, argv, envp, nr::AT_EMPTY_PATH, 0]),
        }
    }
}

/// An instruction of classic BPF: struct sock_filter.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Filter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// SECCOMP_SET_MODE_FILTER.
pub fn set_filter(filter: &[Filter]) -> i64 {
    /// struct sock_fprog.
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const Filter,
    }
    let program = Program { len: filter.len() as u16, filter: filter.as_ptr() };
    // SAFETY: the kernel reads the struct, and as many instructions as it says.
    unsafe { call(nr::SECCOMP, &[1, 0, &raw const program as u64, 0, 0, 0]) }
}

pub fn close_range(first: u32, last: u32) {
    // A filter that is older than the call (Linux 5.9): one by one, up to the kernel's default bound of descriptors.
    if first <= last && close_all(first, last, 0) < 0 {
        for fd in first..=last.min((1 << 20) - 1) {
            close(fd as i32);
        }
    }
}

pub fn close(fd: i32) {
    // SAFETY: no pointers.
    unsafe { call(nr::CLOSE, &[fd as u64, 0, 0, 0, 0, 0]) };
}

/// close_range(2) itself.
pub fn close_all(first: u32, last: u32, flags: u64) -> i64 {
    // SAFETY: no pointers.
    unsafe { call(nr::CLOSE_RANGE, &[first.into(), last.into(), flags, 0, 0, 0]) }
}

pub fn exit(code: i32) -> ! {
    // SAFETY: no pointers. Nothing of this process is looked at any more.
    unsafe { call(nr::EXIT_GROUP, &[code as u64, 0, 0, 0, 0, 0]) };
    // A payload's filter that lets it do little else than execute its program, of which there was none.
    // SAFETY: an instruction that is none ends the process, pid 1 too.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("ud2", options(noreturn));
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("udf #0", options(noreturn));
    }
}

/// `usage_usec` of a `cpu.stat`, which is its first line; 0 when it cannot be read.
pub fn cpu_usec(stat: i32) -> u64 {
    let mut text = [0u8; 64];
    let n = pread(stat, &mut text);
    let text = &text[..n.max(0) as usize];
    let digits = text.strip_prefix(b"usage_usec ").unwrap_or_default();
    let number = digits.iter().take_while(|b| b.is_ascii_digit());
    number.fold(0, |number: u64, &digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// Milliseconds of the monotonic clock.
pub fn now_ms() -> u64 {
    let mut ts = [0i64; 2];
    clock(1, &mut ts);
    ts[0] as u64 * 1000 + ts[1] as u64 / 1_000_000
}

/// Writes all of a buffer; the errno on failure.
pub fn write_all(fd: i32, mut data: &[u8]) -> i64 {
    while !data.is_empty() {
        let n = write(fd, data);
        if n == -nr::EINTR as i64 {
            continue;
        }
        if n < 0 {
            return n;
        }
        data = data.get(n as usize..).unwrap_or_default();
    }
    0
}

#[repr(C)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

/// `timeout_ms` below 0 waits for ever.
pub fn poll(fds: &mut [PollFd], timeout_ms: i64) -> i64 {
    // The system call, unlike the C library's function, writes what is left of the time.
    let mut ts = [timeout_ms / 1000, timeout_ms % 1000 * 1_000_000];
    let time = if timeout_ms < 0 { 0 } else { ts.as_mut_ptr() as u64 };
    // SAFETY: as many entries as are said, and a struct timespec or none; both are written to.
    unsafe { call(nr::PPOLL, &[fds.as_mut_ptr() as u64, fds.len() as u64, time, 0, 0, 0]) }
}

/// What a new process is to be.
#[derive(Default)]
pub struct CloneArgs<'a> {
    pub flags: u64,
    /// With CLONE_PIDFD.
    pub pidfd: Option<&'a mut i32>,
    /// With CLONE_PARENT_SETTID.
    pub parent_tid: Option<&'a Cell<i32>>,
    pub exit_signal: i32,
    /// Its pid in its own pid namespace; 0 is any.
    pub set_tid: i32,
    /// With CLONE_INTO_CGROUP.
    pub cgroup: i32,
}

/// clone3(2): 0 in the child, which has a copy of all memory.
pub fn clone3(args: CloneArgs<'_>) -> i64 {
    const CLONE_VM: u64 = 0x100;
    let tid = args.set_tid;
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, its size, tls, set_tid, its size, cgroup.
    let given = [
        args.flags & !CLONE_VM,
        place(args.pidfd) as u64,
        0,
        args.parent_tid.map_or(0, |tid| tid.as_ptr() as u64),
        args.exit_signal as u64,
        0,
        0,
        0,
        if tid != 0 { &raw const tid as u64 } else { 0 },
        u64::from(tid != 0),
        args.cgroup as u64,
    ];
    // SAFETY: a struct of the size given, whose addresses are of ints that may be written, or that of `tid`. The child goes on with
    // this stack in memory of its own.
    unsafe { call(nr::CLONE3, &[given.as_ptr() as u64, core::mem::size_of_val(&given) as u64, 0, 0, 0, 0]) }
}

#[repr(C)]
struct IoVec {
    base: *const u8,
    len: usize,
}

#[repr(C)]
struct MsgHdr {
    name: u64,
    name_len: u32,
    pad: u32,
    iov: *const IoVec,
    iov_len: usize,
    control: *mut u8,
    control_len: usize,
    flags: i32,
    pad2: i32,
}

impl MsgHdr {
    /// One buffer, which has to outlive this, no address, no control message yet.
    fn of(iov: *const IoVec) -> MsgHdr {
        MsgHdr {
            name: 0,
            name_len: 0,
            pad: 0,
            iov,
            iov_len: 1,
            control: core::ptr::null_mut(),
            control_len: 0,
            flags: 0,
            pad2: 0,
        }
    }
}

pub const SOL_SOCKET: i32 = 1;
pub const SO_PASSCRED: i32 = 16;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;
const MSG_TRUNC: i32 = 0x20;
const MSG_CTRUNC: i32 = 8;

/// Sends one message with at most one descriptor; never blocks (a full channel belongs to a host that does not read).
pub fn send(fd: i32, data: &[u8], pass: i32) -> i64 {
    send_by(nr::SENDMSG, fd, data, pass)
}

/// [`send`] by this system call: sendmsg(2), else sendmmsg(2).
pub fn send_by(by: u32, fd: i32, data: &[u8], pass: i32) -> i64 {
    /// struct mmsghdr.
    #[repr(C)]
    struct One {
        msg: MsgHdr,
        sent: u32,
    }
    let iov = IoVec { base: data.as_ptr(), len: data.len() };
    let mut control = [0u64; 3];
    let mut msg = MsgHdr::of(&iov);
    if pass >= 0 {
        // cmsghdr { len: 20, level, type } and one int, as CMSG_LEN(4) lays it out.
        control[0] = 20;
        control[1] = SOL_SOCKET as u64 | ((SCM_RIGHTS as u64) << 32);
        control[2] = pass as u32 as u64;
        msg.control = control.as_mut_ptr().cast();
        msg.control_len = 24;
    }
    let mut one = One { msg, sent: 0 };
    loop {
        const FLAGS: u64 = MSG_NOSIGNAL | MSG_DONTWAIT;
        // SAFETY: one message, which is the first field of `one`, with one buffer and control data as long as it says; they live.
        let n = unsafe {
            let (fd, at) = (fd as u64, &raw mut one as u64);
            if by == nr::SENDMSG {
                call(nr::SENDMSG, &[fd, at, FLAGS, 0, 0, 0])
            } else {
                call(nr::SENDMMSG, &[fd, at, 1, FLAGS, 0, 0])
            }
        };
        if n != -nr::EINTR as i64 {
            return n;
        }
    }
}

pub struct Received {
    pub len: usize,
    /// From SCM_CREDENTIALS; 0 when there were none.
    pub pid: i32,
    pub nfds: usize,
}

/// Receives one message; descriptors go to `fds`. Errors: -errno; a truncated message is -EINVAL with its descriptors closed.
pub fn receive(fd: i32, data: &mut [u8], fds: &mut [i32; 256]) -> Result<Received, i64> {
    let iov = IoVec { base: data.as_mut_ptr(), len: data.len() };
    let mut control = [0u64; 160];
    let mut msg = MsgHdr::of(&iov);
    msg.control = control.as_mut_ptr().cast();
    msg.control_len = core::mem::size_of_val(&control);
    let args = [fd as u64, &raw mut msg as u64, MSG_DONTWAIT | MSG_CMSG_CLOEXEC, 0, 0, 0];
    // SAFETY: a message with one buffer that may be written to, and room for control data as long as it says; they live.
    let n = unsafe { call(nr::RECVMSG, &args) };
    if n < 0 {
        return Err(n);
    }
    let mut out = Received { len: n as usize, pid: 0, nfds: 0 };
    let end = (msg.control_len / 8).min(control.len());
    let mut at = 0;
    while at + 2 <= end {
        let cmsg_len = control[at] as usize;
        if cmsg_len < 16 || at * 8 + cmsg_len > msg.control_len {
            break;
        }
        let level = control[at + 1] as u32 as i32;
        let kind = (control[at + 1] >> 32) as u32 as i32;
        let ints = (cmsg_len - 16) / 4;
        for i in 0..ints {
            let word = control[at + 2 + i / 2];
            let value = if i % 2 == 0 { word as u32 } else { (word >> 32) as u32 } as i32;
            if level == SOL_SOCKET && kind == SCM_RIGHTS && out.nfds < fds.len() {
                fds[out.nfds] = value;
                out.nfds += 1;
            } else if level == SOL_SOCKET && kind == SCM_CREDENTIALS && i == 0 {
                out.pid = value;
            }
        }
        at += cmsg_len.div_ceil(8);
    }
    if msg.flags & (MSG_TRUNC | MSG_CTRUNC) != 0 {
        for &fd in &fds[..out.nfds] {
            close(fd);
        }
        return Err(-nr::EINVAL as i64);
    }
    Ok(out)
}

/// Blocks (or unblocks) all signals: a mask of ones (or zeros).
pub fn block_signals(all: bool) {
    sigprocmask(&if all { u64::MAX } else { 0 });
}

/// Every disposition to SIG_DFL: an ignored SIGCHLD would survive exec and lose statuses.
pub fn default_signals() {
    let action = [0u64; 4];
    for signal in 1..=64 {
        if signal != nr::SIGKILL && signal != nr::SIGSTOP {
            sigaction(signal, &action);
        }
    }
}

/// Writes a number; how many digits it has. `out` has room for 20.
pub fn decimal(out: &mut [u8], mut value: u64) -> usize {
    let mut digits = [0u8; 20];
    let mut n = 0;
    loop {
        digits[n] = b'0' + (value % 10) as u8;
        value /= 10;
        n += 1;
        if value == 0 {
            break;
        }
    }
    for (to, from) in out.iter_mut().zip(digits[..n].iter().rev()) {
        *to = *from;
    }
    n
}

/// A number as decimal digits at the front of `out`; the rest of the path follows. Returns the length without the NUL.
pub fn proc_path(out: &mut [u8; 64], pid: i32, rest: &[u8]) -> usize {
    let mut at = decimal(out, pid as u64);
    for &byte in rest {
        out[at] = byte;
        at += 1;
    }
    out[at] = 0;
    at
}
