//! Thin wrappers: a negative result is `-errno`. No wrapper keeps state, allocates or touches thread-local storage.

use crate::nr;
use crate::raw;

/// Any system call.
pub fn call(number: u32, args: &[u64; 6]) -> i64 {
    // SAFETY: a plan can only address its own buffer, which its checks saw to (`Plan::map`), and nothing of the keeper's state; what
    // the keeper itself names are buffers of its own that outlive the call, are as long as it says, and are `mut` where the kernel
    // writes. It is single-threaded: nobody looks at them meanwhile.
    unsafe {
        raw::syscall6(
            number as usize,
            args[0] as usize,
            args[1] as usize,
            args[2] as usize,
            args[3] as usize,
            args[4] as usize,
            args[5] as usize,
        ) as i64
    }
}

/// One that a plan or a program names, with whatever addresses it says: fuzzers (tests/fuzz) hold the keeper to its own alone.
pub fn call_of_plan(number: u32, args: &[u64; 6]) -> i64 {
    #[cfg(fuzzing)]
    return raw::call_of_plan(number, args);
    #[cfg(not(fuzzing))]
    call(number, args)
}

macro_rules! sc {
    ($nr:expr $(, $a:expr)* $(,)?) => {{
        let given = [$($a as u64),*];
        let mut args = [0u64; 6];
        args[..given.len()].copy_from_slice(&given);
        $crate::sys::call($nr, &args)
    }};
}
pub(crate) use sc;

pub fn close(fd: i32) {
    sc!(nr::CLOSE, fd);
}

pub fn close_range(first: u32, last: u32) {
    // A filter that is older than the call (Linux 5.9): one by one, up to the kernel's default bound of descriptors.
    if first <= last && sc!(nr::CLOSE_RANGE, first, last, 0) < 0 {
        for fd in first..=last.min((1 << 20) - 1) {
            close(fd as i32);
        }
    }
}

pub fn exit(code: i32) -> ! {
    sc!(nr::EXIT_GROUP, code);
    // A payload's filter that lets it do little else than execute its program, of which there was none.
    // SAFETY: an instruction that is none ends the process, pid 1 too.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        core::arch::asm!("ud2", options(noreturn));
        #[cfg(target_arch = "aarch64")]
        core::arch::asm!("udf #0", options(noreturn));
    }
}

pub fn kill(pid: i32, signal: i32) -> i64 {
    sc!(nr::KILL, pid, signal)
}

pub fn prctl(option: u64, value: u64) -> i64 {
    sc!(nr::PRCTL, option, value, 0, 0, 0)
}

/// `usage_usec` of a `cpu.stat`, which is its first line; 0 when it cannot be read.
pub fn cpu_usec(stat: i32) -> u64 {
    let mut text = [0u8; 64];
    let n = sc!(nr::PREAD64, stat, text.as_mut_ptr(), text.len(), 0);
    let text = &text[..n.max(0) as usize];
    let digits = text.strip_prefix(b"usage_usec ").unwrap_or_default();
    let number = digits.iter().take_while(|b| b.is_ascii_digit());
    number.fold(0, |number: u64, &digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// Milliseconds of the monotonic clock.
pub fn now_ms() -> u64 {
    let mut ts = [0i64; 2];
    sc!(nr::CLOCK_GETTIME, 1, ts.as_mut_ptr());
    ts[0] as u64 * 1000 + ts[1] as u64 / 1_000_000
}

/// Writes all of a buffer; the errno on failure.
pub fn write_all(fd: i32, mut data: *const u8, mut len: usize) -> i64 {
    while len > 0 {
        let n = sc!(nr::WRITE, fd, data, len);
        if n == -nr::EINTR as i64 {
            continue;
        }
        if n < 0 {
            return n;
        }
        // SAFETY: the kernel wrote n <= len bytes from data, so the sum stays within the caller's buffer.
        data = unsafe { data.add(n as usize) };
        len -= n as usize;
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
    let pointer = if timeout_ms < 0 { core::ptr::null_mut() } else { ts.as_mut_ptr() };
    sc!(nr::PPOLL, fds.as_mut_ptr(), fds.len(), pointer, 0, 0)
}

#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// clone3(2) without CLONE_VM: 0 in the child.
pub fn clone3(args: &CloneArgs) -> i64 {
    sc!(nr::CLONE3, args as *const CloneArgs, core::mem::size_of::<CloneArgs>())
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

const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;
const MSG_TRUNC: i32 = 0x20;
const MSG_CTRUNC: i32 = 8;

/// Sends one message with at most one descriptor; never blocks (a full channel belongs to a host that does not read).
pub fn send(fd: i32, data: *const u8, len: usize, pass: i32) -> i64 {
    send_by(nr::SENDMSG, fd, data, len, pass)
}

/// [`send`] by this system call: sendmsg(2), else sendmmsg(2).
pub fn send_by(call: u32, fd: i32, data: *const u8, len: usize, pass: i32) -> i64 {
    /// struct mmsghdr.
    #[repr(C)]
    struct One {
        msg: MsgHdr,
        sent: u32,
    }
    let iov = IoVec { base: data, len };
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
        let n = if call == nr::SENDMSG {
            sc!(nr::SENDMSG, fd, &one.msg as *const MsgHdr, FLAGS)
        } else {
            sc!(nr::SENDMMSG, fd, &mut one as *mut One, 1, FLAGS)
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
pub fn receive(fd: i32, data: *mut u8, len: usize, fds: &mut [i32; 256]) -> Result<Received, i64> {
    let iov = IoVec { base: data, len };
    let mut control = [0u64; 160];
    let mut msg = MsgHdr::of(&iov);
    msg.control = control.as_mut_ptr().cast();
    msg.control_len = core::mem::size_of_val(&control);
    let n = sc!(nr::RECVMSG, fd, &mut msg as *mut MsgHdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if n < 0 {
        return Err(n);
    }
    let mut out = Received { len: n as usize, pid: 0, nfds: 0 };
    let end = msg.control_len / 8;
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
    let mask = [if all { u64::MAX } else { 0 }];
    sc!(nr::RT_SIGPROCMASK, 2, mask.as_ptr(), 0, 8);
}

/// Every disposition to SIG_DFL: an ignored SIGCHLD would survive exec and lose statuses.
pub fn default_signals() {
    let action = [0u64; 4];
    for signal in 1..=64 {
        if signal != nr::SIGKILL && signal != nr::SIGSTOP {
            sc!(nr::RT_SIGACTION, signal, action.as_ptr(), 0, 8);
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
