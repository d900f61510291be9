//! The kernel that does nothing, in the place of the system call instruction.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::{nr, shaped};

/// The descriptor of the plan, and the pid of the host.
pub const PLAN: i32 = 40;
pub const HOST: i32 = 500;
/// Calls of one run.
const MOST: u32 = 4000;
const EINVAL: i64 = -22;

#[derive(Default)]
struct Kernel {
    input: Vec<u8>,
    at: usize,
    plan: Vec<u8>,
    mapped: Vec<(usize, Layout)>,
    calls: u32,
    next_fd: i32,
    now: u64,
    /// Descriptors that an epoll instance watches, with what it says of each.
    watched: Vec<(i32, u64)>,
}

thread_local! {
    static KERNEL: RefCell<Kernel> = RefCell::default();
}

/// How a run ends: the process did.
struct Ended;

fn end() -> ! {
    resume_unwind(Box::new(Ended))
}

/// Runs keeper's code until it returns, exits, or has had all that the kernel says.
pub fn run(input: &[u8], plan: Vec<u8>, what: impl FnOnce()) {
    let kernel = Kernel { input: input.to_vec(), plan, next_fd: 50, now: 1000, ..Kernel::default() };
    KERNEL.set(kernel);
    let done = catch_unwind(AssertUnwindSafe(what));
    let kernel = KERNEL.take();
    for (at, layout) in kernel.mapped {
        // SAFETY: made by `map`, and not unmapped since.
        unsafe { dealloc(at as *mut u8, layout) };
    }
    if let Err(why) = done
        && !why.is::<Ended>()
    {
        resume_unwind(why)
    }
}

impl Kernel {
    fn byte(&mut self) -> u8 {
        let byte = self.input.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    fn number(&mut self, below: usize) -> usize {
        if below <= 256 { usize::from(self.byte()) % below.max(1) } else { usize::from(self.half()) % below }
    }

    fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn is_over(&self) -> bool {
        self.at > self.input.len() + 64
    }

    fn fd(&mut self) -> i64 {
        self.next_fd += 1;
        self.next_fd.into()
    }

    /// An errno, once in a while.
    fn refuses(&mut self) -> Option<i64> {
        const ERRNOS: [i64; 12] = [-1, -2, -4, -11, -12, -13, -16, -22, -38, -111, -32, -40];
        match self.byte() {
            byte @ 240.. => Some(ERRNOS[usize::from(byte - 240) % ERRNOS.len()]),
            _ => None,
        }
    }

    /// Fills memory that the caller says it may write to; with zeroes when the input is at its end.
    fn fill(&mut self, at: usize, len: usize) {
        let from = self.input.get(self.at.min(self.input.len())..).unwrap_or_default();
        let given = from.len().min(len);
        write(at, &from[..given]);
        let rest = vec![0; len - given];
        write(at + given, &rest);
        self.at += len;
    }

    /// Some bytes of so many.
    fn some(&mut self, at: usize, len: usize) -> i64 {
        let n = self.number(len + 1);
        self.fill(at, n);
        n as i64
    }

    fn map(&mut self, len: usize, fd: i32) -> i64 {
        if len == 0 || len > 64 << 20 {
            return EINVAL;
        }
        let layout = Layout::from_size_align(len, 4096).expect("not too large");
        // SAFETY: of more than no bytes.
        let at = unsafe { alloc_zeroed(layout) };
        if at.is_null() {
            return -12;
        }
        if fd >= 0 {
            let plan = self.plan.clone();
            write(at as usize, &plan[..plan.len().min(len)]);
        }
        self.mapped.push((at as usize, layout));
        at as i64
    }

    fn unmap(&mut self, at: usize, len: usize) -> i64 {
        let found = self.mapped.iter().position(|(start, layout)| *start == at && layout.size() == len);
        let (at, layout) = self.mapped.swap_remove(found.expect("it was mapped"));
        // SAFETY: made by `map`.
        unsafe { dealloc(at as *mut u8, layout) };
        0
    }
}

/// Looks at memory that the kernel would read.
fn read(at: usize, len: usize) -> Vec<u8> {
    if len == 0 {
        return Vec::new();
    }
    assert!(at > 4095, "a null pointer for {len} bytes");
    // SAFETY: whether it is the caller's is what AddressSanitizer tells.
    unsafe { std::slice::from_raw_parts(at as *const u8, len) }.to_vec()
}

fn write(at: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    assert!(at > 4095, "a null pointer for {} bytes", bytes.len());
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, bytes.len()) }.copy_from_slice(bytes);
}

fn word(at: usize) -> u64 {
    u64::from_ne_bytes(read(at, 8).try_into().expect("eight"))
}

fn int(at: usize) -> i32 {
    i32::from_ne_bytes(read(at, 4).try_into().expect("four"))
}

fn text(at: usize) -> Vec<u8> {
    assert!(at > 4095, "a null path");
    let mut bytes = Vec::new();
    loop {
        match read(at + bytes.len(), 1)[0] {
            0 => return bytes,
            byte => bytes.push(byte),
        }
    }
}

/// A system call of the keeper's own.
///
/// # Safety
/// None: all that it is given is looked at.
pub unsafe fn syscall6(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    own(nr as u32, [a, b, c, d, e, f]) as isize
}

/// One that a plan names: nothing but an answer.
pub fn call_of_plan(nr: u32, _: &[u64; 6]) -> i64 {
    with(|kernel| match nr {
        nr::EXIT_GROUP => None,
        nr::EXECVE | nr::EXECVEAT => kernel.refuses(),
        _ => Some(match kernel.refuses() {
            Some(errno) => errno,
            None => [0, 1, 4096, kernel.next_fd.into()][kernel.number(4)],
        }),
    })
}

fn with(act: impl FnOnce(&mut Kernel) -> Option<i64>) -> i64 {
    let result = KERNEL.with_borrow_mut(|kernel| {
        kernel.calls += 1;
        if kernel.calls > MOST || kernel.is_over() { None } else { act(kernel) }
    });
    result.unwrap_or_else(|| end())
}

fn own(nr: u32, args: [usize; 6]) -> i64 {
    let [a, b, c, d, e, _] = args;
    with(|kernel| {
        Some(match nr {
            nr::EXIT_GROUP => return None,
            nr::CLOSE | nr::UMASK | nr::SETSID | nr::SHUTDOWN | nr::FCHDIR => 0,
            nr::CLOSE_RANGE => {
                assert!(a <= b, "close_range from {a} to {b}");
                0
            }
            nr::GETPID => 77,
            nr::KILL => {
                let pid = a as i32;
                assert!(pid > 0 || pid == -1 && b as i32 == nr::SIGTERM, "kill {pid}");
                0
            }
            nr::READ => match kernel.refuses() {
                Some(errno) => errno,
                None => kernel.some(b, c),
            },
            nr::PREAD64 => match kernel.refuses() {
                Some(errno) => errno,
                None => kernel.some(b, c),
            },
            nr::WRITE => {
                read(b, c);
                match kernel.refuses() {
                    Some(errno) => errno,
                    None if c == 0 => 0,
                    None => 1 + kernel.number(c) as i64,
                }
            }
            nr::FSTAT => {
                kernel.fill(b, 144);
                let len = kernel.plan.len() as i64;
                write(b + nr::STAT_SIZE, &len.to_ne_bytes());
                0
            }
            nr::MMAP => match kernel.refuses() {
                Some(errno) => errno,
                None => kernel.map(b, e as i32),
            },
            nr::MUNMAP => kernel.unmap(a, b),
            nr::MADVISE => {
                assert!(kernel.mapped.iter().any(|(at, layout)| *at == a && layout.size() == b));
                0
            }
            nr::PPOLL => {
                // Nobody will say anything any more.
                if kernel.at >= kernel.input.len() {
                    return None;
                }
                if c != 0 {
                    read(c, 16);
                }
                let mut ready = 0;
                for entry in (0..b).map(|i| a + i * 8) {
                    let fd = int(entry);
                    let found = if fd < 0 { 0 } else { [0u16, 1, 1, 16][kernel.number(4)] };
                    ready += i64::from(found != 0);
                    write(entry + 6, &found.to_ne_bytes());
                }
                ready
            }
            nr::RECVMSG => receive(kernel, a as i32, b),
            nr::SENDMSG | nr::SENDMMSG => {
                let [iov, iovlen, control, controllen] = [16, 24, 32, 40].map(|at| word(b + at) as usize);
                assert_eq!(iovlen, 1);
                let (at, len) = (word(iov) as usize, word(iov + 8) as usize);
                read(at, len);
                read(control, controllen);
                if nr == nr::SENDMMSG {
                    // struct mmsghdr: how much of it was sent is behind the message.
                    assert_eq!(c, 1);
                    write(b + 56, &(len as u32).to_ne_bytes());
                }
                kernel.refuses().unwrap_or(if nr == nr::SENDMMSG { 1 } else { len as i64 })
            }
            nr::OPENAT | nr::MKDIRAT | nr::FSOPEN | nr::OPEN_TREE | nr::CHDIR | nr::UNLINKAT | nr::UMOUNT2 => {
                let path = if matches!(nr, nr::FSOPEN | nr::CHDIR | nr::UMOUNT2) { a } else { b };
                let path = text(path);
                assert!(path.len() < 4096);
                match kernel.refuses() {
                    Some(errno) => errno,
                    None => kernel.fd(),
                }
            }
            nr::PIVOT_ROOT => {
                (text(a), text(b));
                0
            }
            nr::MOUNT => {
                (text(a), text(b), text(c));
                0
            }
            nr::MOVE_MOUNT => {
                (text(b), text(d));
                0
            }
            nr::FSCONFIG => 0,
            nr::FSMOUNT | nr::DUP3 | nr::ACCEPT4 | nr::SOCKET | nr::EPOLL_CREATE1 | nr::PIDFD_OPEN => {
                match kernel.refuses() {
                    Some(errno) => errno,
                    None if nr == nr::DUP3 => b as i64,
                    None => kernel.fd(),
                }
            }
            nr::SIGNALFD4 => {
                read(b, c);
                kernel.fd()
            }
            nr::GETDENTS64 => match kernel.refuses() {
                Some(errno) => errno,
                None if kernel.number(3) == 0 => kernel.some(b, c),
                None => entries(kernel, b, c),
            },
            nr::READLINKAT => {
                text(b);
                kernel.some(c, d)
            }
            nr::GETCWD => {
                let cwd: &[u8] = if kernel.number(2) == 0 { b"/\0" } else { b"(unreachable)/\0" };
                write(a, cwd);
                cwd.len() as i64
            }
            nr::FGETXATTR => {
                text(b);
                match kernel.refuses() {
                    Some(errno) => errno,
                    None => {
                        let n = kernel.number(d + 1);
                        let name: Vec<u8> = (0..n).map(|_| kernel.byte().max(1)).collect();
                        write(c, &name);
                        n as i64
                    }
                }
            }
            nr::WAIT4 => {
                let pid = match kernel.number(4) {
                    0 => return Some(if c & 1 != 0 { 0 } else { a as i64 }),
                    1 => return Some(-10),
                    _ if a as i32 > 0 => a as i64,
                    _ => 1000 + kernel.number(6) as i64,
                };
                if b != 0 {
                    kernel.fill(b, 4);
                }
                if d != 0 {
                    // Of a struct rusage, which is never that large.
                    let usage: Vec<u8> = (0..18).flat_map(|_| u64::from(kernel.half()).to_ne_bytes()).collect();
                    write(d, &usage);
                }
                pid
            }
            nr::CLONE3 => {
                let fields: Vec<usize> = (0..b / 8).map(|i| word(a + i * 8) as usize).collect();
                if fields[8] != 0 {
                    read(fields[8], fields[9] * 4);
                }
                match kernel.refuses() {
                    Some(errno) => errno,
                    None => {
                        // The child goes on here, or the parent.
                        let pid = if kernel.number(5) == 0 { 0 } else { 1000 + kernel.number(5) as i32 };
                        if fields[0] as u64 & nr::CLONE_PIDFD != 0 && pid != 0 {
                            let fd = kernel.fd() as i32;
                            write(fields[1], &fd.to_ne_bytes());
                        }
                        if fields[0] as u64 & nr::CLONE_PARENT_SETTID != 0 {
                            write(fields[3], &pid.to_ne_bytes());
                        }
                        pid.into()
                    }
                }
            }
            nr::PIPE2 => match kernel.refuses() {
                Some(errno) => errno,
                None => {
                    let ends = [kernel.fd() as i32, kernel.fd() as i32];
                    write(a, &ends.map(i32::to_ne_bytes).concat());
                    0
                }
            },
            nr::CLOCK_GETTIME => {
                kernel.now += kernel.number(4) as u64 * 400;
                let now = [kernel.now / 1000, kernel.now % 1000 * 1_000_000];
                write(b, &now.map(u64::to_ne_bytes).concat());
                0
            }
            nr::FCNTL => {
                const F_GETLK: usize = 5;
                if b == F_GETLK {
                    read(c, 32);
                    let kind = kernel.number(3) as u16;
                    write(c, &kind.to_ne_bytes());
                    0
                } else {
                    kernel.fd()
                }
            }
            nr::EPOLL_CTL => {
                let event = read(d, 12);
                let data = u64::from_ne_bytes(event[4..].try_into().expect("eight"));
                match kernel.refuses() {
                    Some(errno) => errno,
                    None => {
                        kernel.watched.retain(|(fd, _)| *fd != c as i32);
                        kernel.watched.push((c as i32, data));
                        0
                    }
                }
            }
            nr::EPOLL_PWAIT => {
                if kernel.at >= kernel.input.len() {
                    return None;
                }
                let n = kernel.number(4).min(c).min(kernel.watched.len());
                for i in 0..n {
                    let at = kernel.number(kernel.watched.len());
                    // Data and flags; the lifeline last of all.
                    let (mut data, flags) = (kernel.watched[at].1, kernel.half());
                    if data >> 32 == 3 && kernel.number(16) != 0 {
                        data = kernel.watched[0].1;
                    }
                    let event = [&(u32::from(flags) & 0x201d).to_ne_bytes()[..], &data.to_ne_bytes()].concat();
                    write(b + i * 12, &event);
                }
                n as i64
            }
            nr::CONNECT => {
                read(b, c);
                [0, -115, -111][kernel.number(3)]
            }
            nr::SENDTO => {
                read(b, c);
                read(e, args[5]);
                match kernel.refuses() {
                    Some(errno) => errno,
                    None if c == 0 => 0,
                    None => 1 + kernel.number(c) as i64,
                }
            }
            nr::RECVFROM => match kernel.refuses() {
                Some(errno) => errno,
                // MSG_TRUNC to nowhere.
                None if b == 0 => c as i64,
                None => {
                    if e != 0 {
                        let room = int(args[5]) as usize;
                        let len = [16, 28][kernel.number(2)];
                        kernel.fill(e, len.min(room));
                        write(args[5], &(len as u32).to_ne_bytes());
                    }
                    kernel.some(b, c)
                }
            },
            nr::GETSOCKOPT => {
                assert_eq!(int(e), 4);
                let error = [0i32, 0, 111][kernel.number(3)];
                write(d, &error.to_ne_bytes());
                0
            }
            nr::SETSOCKOPT => {
                read(d, e);
                0
            }
            nr::SPLICE => match kernel.number(4) {
                0 => -11,
                1 => kernel.refuses().unwrap_or(0),
                _ => 1 + kernel.number(e) as i64,
            },
            nr::SENDFILE => {
                let offset = word(c);
                let n = kernel.number(d + 1) as u64;
                write(c, &(offset + n).to_ne_bytes());
                n as i64
            }
            nr::LSEEK => kernel.half().into(),
            nr::PRLIMIT64 => {
                if c != 0 {
                    read(c, 16);
                }
                if d != 0 {
                    kernel.fill(d, 16);
                }
                0
            }
            nr::CAPSET => {
                (read(a, 8), read(b, 24));
                kernel.refuses().unwrap_or(0)
            }
            nr::SECCOMP => {
                let len = u16::from_ne_bytes(read(c, 2).try_into().expect("two"));
                read(word(c + 8) as usize, usize::from(len) * 8);
                0
            }
            nr::PRCTL => {
                if a as u64 == nr::PR_SET_NAME {
                    text(b);
                }
                kernel.refuses().unwrap_or(kernel.number(2) as i64)
            }
            nr::RT_SIGPROCMASK => {
                read(b, d);
                0
            }
            nr::RT_SIGACTION => {
                read(b, 32);
                0
            }
            nr::SCHED_SETAFFINITY => {
                read(c, b);
                0
            }
            nr::UNSHARE | nr::KEYCTL => kernel.refuses().unwrap_or(0),
            nr::MOUNT_SETATTR => {
                (text(b), read(d, e));
                kernel.refuses().unwrap_or(0)
            }
            nr::LANDLOCK_ADD_RULE => {
                read(c, 12);
                kernel.refuses().unwrap_or(0)
            }
            nr::FUTEX => {
                // Who waits is woken, and finds that it is so.
                if b == 0 {
                    write(a, &1u32.to_ne_bytes());
                }
                0
            }
            nr::EXECVE | nr::EXECVEAT => {
                let at = usize::from(nr == nr::EXECVEAT);
                text(args[at]);
                for list in [args[at + 1], args[at + 2]] {
                    let mut at = list;
                    while word(at) != 0 {
                        text(word(at) as usize);
                        at += 8;
                    }
                }
                return kernel.refuses();
            }
            other => panic!("a system call that is not here: {other}"),
        })
    })
}

/// Directories as the kernel lists them, and some that have a name that is looked for.
fn entries(kernel: &mut Kernel, at: usize, room: usize) -> i64 {
    let mut bytes = Vec::new();
    for _ in 0..kernel.number(4) {
        let name: Vec<u8> = match kernel.number(4) {
            0 => b"..".to_vec(),
            1 => b"rf-4-77-1".to_vec(),
            _ => (0..kernel.number(255) + 1).map(|_| kernel.byte().max(b'0')).collect(),
        };
        let len = (19 + name.len() + 1).next_multiple_of(8);
        if bytes.len() + len > room {
            break;
        }
        let start = bytes.len();
        bytes.resize(start + len, 0);
        bytes[start + 16..start + 18].copy_from_slice(&(len as u16).to_ne_bytes());
        bytes[start + 18] = [4, 8][kernel.number(2)];
        bytes[start + 19..start + 19 + name.len()].copy_from_slice(&name);
    }
    write(at, &bytes);
    bytes.len() as i64
}

/// recvmsg(2): a message of any bytes, or a request that is one; control messages as the kernel makes them.
fn receive(kernel: &mut Kernel, _: i32, header: usize) -> i64 {
    if let Some(errno) = kernel.refuses() {
        return errno;
    }
    let [iov, iovlen, control, room] = [16, 24, 32, 40].map(|at| word(header + at) as usize);
    assert_eq!(iovlen, 1);
    let (at, len) = (word(iov) as usize, word(iov + 8) as usize);
    let mut count = match kernel.number(8) {
        0 => kernel.number(254),
        some => some,
    };
    let n = match kernel.number(8) {
        // Nobody is there any more.
        0 => return 0,
        1 => {
            let n = kernel.number(len + 1);
            kernel.fill(at, n);
            n
        }
        2 => {
            kernel.fill(at, len);
            len
        }
        how => {
            let (kind, key) = (kernel.byte(), kernel.byte());
            let numbers = std::array::from_fn(|_| u64::from(kernel.half()));
            let mut request = shaped(kind, key, numbers);
            if request.flags & crate::proto::MORE != 0 && how != 3 {
                // Others than these are refused.
                count = crate::proto::MAX_FDS;
            }
            request.nfds = count as u32;
            if how == 3 {
                request.tid = kernel.half().into();
            }
            if len != size_of_val(&request) {
                // HELLO brings its descriptors in order.
                request.kind = crate::request::HELLO;
                request.value = HOST;
                count = crate::birth::fd::HELLO_COUNT;
                request.nfds = count as u32;
                kernel.fill(at, len);
            }
            let bytes = crate::bytes_of(&request);
            write(at, &bytes[..bytes.len().min(len)]);
            len
        }
    };
    let mut bytes: Vec<u8> = Vec::new();
    let mut put = |kind: u32, data: &[u8]| {
        bytes.extend_from_slice(&(16 + data.len() as u64).to_ne_bytes());
        bytes.extend_from_slice(&1u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    };
    let pid = if kernel.number(16) == 15 { i32::from(kernel.half()) } else { HOST };
    let credentials = [pid, 0, 0].map(i32::to_ne_bytes).concat();
    let first = if len > 1000 { crate::birth::fd::CHANNEL } else { 50 };
    let fds: Vec<u8> = (0..count as i32).flat_map(|i| (first + i).to_ne_bytes()).collect();
    if kernel.number(8) == 0 {
        put(1, &fds);
        put(2, &credentials);
    } else {
        put(2, &credentials);
        put(1, &fds);
    }
    let mut flags = if kernel.number(32) == 31 { 0x28 } else { 0i32 };
    if bytes.len() > room {
        bytes.truncate(room / 8 * 8);
        flags |= 8;
    }
    write(control, &bytes);
    write(header + 40, &(bytes.len() as u64).to_ne_bytes());
    write(header + 48, &flags.to_ne_bytes());
    n as i64
}
