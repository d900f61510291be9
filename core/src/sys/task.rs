//! A short-lived task that shares the host's memory: what a thread cannot do without consequences for its process (new
//! namespaces, a private descriptor table) is done there, without fork's copy of the page tables, without SIGCHLD, and
//! without a child that the host's `wait` could see.

use std::ffi::c_void;

use super::raw;
use crate::error::{Error, ErrorKind, Result};

/// Enough for probes: what runs there calls the kernel and little else.
const STACK: usize = 64 * 1024;

/// The kernel's signal set: 64 signals, without libc's exception for its own two.
type SigSet = u64;

struct Job<'a, T> {
    run: fn(&mut T) -> i32,
    arg: &'a mut T,
    /// Set by the task: its result arrives even if somebody else's `wait` with `__WALL` collects it.
    result: Option<i32>,
}

/// # Safety
/// `job` is a `Job<T>` that nobody else looks at while this runs.
unsafe extern "C" fn enter<T>(job: *mut c_void) {
    // SAFETY: the caller's promise.
    let job = unsafe { &mut *job.cast::<Job<'_, T>>() };
    job.result = Some((job.run)(job.arg));
}

/// Ends this thread alone, without unwinding: what it holds stays held, and whoever joins it waits for ever, as with any thread that
/// hangs.
pub(crate) fn end_thread(status: i32) {
    // SAFETY: the kernel has no place any more at which it says that this thread has ended: nobody takes its stack for unused, to which
    // others may have references. No other pointers.
    unsafe {
        libc::syscall(libc::SYS_set_tid_address, 0usize);
        libc::syscall(libc::SYS_exit, status);
    }
}

/// A system call without errno; unused arguments are 0.
///
/// # Safety
/// Whatever the system call's arguments demand.
#[inline(always)]
pub(crate) unsafe fn call<const N: usize>(nr: libc::c_long, args: [usize; N]) -> Result<usize, i32> {
    let arg = |i: usize| if i < N { args[i] } else { 0 };
    // SAFETY: the caller's promise.
    check(unsafe { raw::syscall6(nr as usize, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) })
}

/// Any system call with the arguments given; the result is the kernel's.
///
/// # Safety
/// Whatever the system call's arguments demand.
pub(crate) unsafe fn any_call(nr: u32, args: &[u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args.map(|arg| arg as usize);
    // SAFETY: the caller's promise.
    unsafe { raw::syscall6(nr as usize, a, b, c, d, e, f) as i64 }
}

/// flock(2).
pub(crate) fn flock(fd: &impl std::os::fd::AsRawFd, how: i32) -> Result<(), i32> {
    // SAFETY: no pointers.
    unsafe { call(libc::SYS_flock, [fd.as_raw_fd() as usize, how as usize]) }.map(drop)
}

fn check(result: isize) -> Result<usize, i32> {
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result as usize) }
}

/// Runs `f(arg)` in a new task of its own: clone(CLONE_VM | CLONE_VFORK | flags) without an exit signal, all signals blocked,
/// on a stack of its own. The calling thread sleeps until the task ends, then has `f`'s result.
///
/// The error is clone's own, by `errno()`.
///
/// # Safety
/// `f` runs with the calling thread's memory and thread pointer, so it may call the kernel through [`call`] only: no errno, no
/// allocation, no lock, no libc, no panic; and it gets by with the stack. It must not change its user or group ids nor join a user
/// namespace: the kernel would clear the dumpable flag of the memory that it shares with the host.
pub(crate) unsafe fn in_task<T>(flags: u64, f: fn(&mut T) -> i32, arg: &mut T) -> Result<i32> {
    let stack = Stack::new()?;
    let mut job = Job { run: f, arg, result: None };

    let all: SigSet = !0;
    let mut before: SigSet = 0;
    set_mask(&all, Some(&mut before));
    let flags = flags | (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    // SAFETY: the stack is mapped, ours alone and as long as the task lives; `enter` gets the job that it expects, which
    // outlives the task because CLONE_VFORK keeps this thread here. What runs there is as the caller has promised.
    let cloned = check(unsafe { clone_and_call(flags as usize, stack.top(), enter::<T>, (&raw mut job).cast()) });
    if let Ok(pid) = cloned {
        // ECHILD means that the host waits for clones too (__WALL): then it has been collected, and its result is here.
        // SAFETY: wait4 with a null status and a null rusage writes nothing.
        while unsafe { call(libc::SYS_wait4, [pid, 0, libc::__WALL as usize, 0]) } == Err(libc::EINTR) {}
    }
    set_mask(&before, None);

    match cloned {
        Err(errno) => Err(Error::os("clone", errno)),
        // Written by another task at a place the compiler cannot follow through the assembly.
        // SAFETY: the task is gone, `job` is ours again.
        Ok(_) => unsafe { (&raw const job.result).read_volatile() }.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "a probing task was killed before it had a result").with_errno(libc::EINTR)
        }),
    }
}

/// rt_sigprocmask(SIG_SETMASK) of the calling thread. libc's function leaves its own two signals unblocked.
fn set_mask(new: &SigSet, old: Option<&mut SigSet>) {
    let old = old.map_or(0, |set| std::ptr::from_mut(set) as usize);
    // SAFETY: both sets are 8 bytes, as said in the last argument; `old` may be null.
    unsafe {
        let how = libc::SIG_SETMASK as usize;
        let _ = call(libc::SYS_rt_sigprocmask, [how, std::ptr::from_ref(new) as usize, old, size_of::<SigSet>()]);
    }
}

/// From a task that shares its memory: one more that does, which is waited for until it executes or ends (CLONE_VFORK). Without
/// an exit signal; nobody's parent collects it but with `__WALL`.
///
/// # Safety
/// As for `f` in [`in_task`]; `stack` is the top of a stack that nobody else uses until this returns.
pub(crate) unsafe fn clone_vfork<T>(stack: usize, f: fn(&T), arg: &T) -> Result<usize, i32> {
    let job = SharedJob { run: f, arg };
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as usize;
    // SAFETY: the job outlives what looks at it, which ends or executes before this goes on; the caller's promise.
    check(unsafe { clone_and_call(flags, stack, enter_shared::<T>, (&raw const job).cast_mut().cast()) })
}

struct SharedJob<'a, T> {
    run: fn(&T),
    arg: &'a T,
}

/// # Safety
/// `job` is a `SharedJob<T>` that stays while this runs.
unsafe extern "C" fn enter_shared<T>(job: *mut c_void) {
    // SAFETY: the caller's promise.
    let job = unsafe { &*job.cast::<SharedJob<'_, T>>() };
    (job.run)(job.arg);
}

/// A task that stays: [`in_task`] without waiting for its end.
#[derive(Debug)]
pub(crate) struct Task<T: Sync> {
    pid: usize,
    stack: Option<Stack>,
    /// Freed by whoever sees the task's end.
    job: *mut StayingJob<T>,
}

// SAFETY: the task looks at its argument, which is `Sync`, through shared references only, as everybody does who has this; whoever has it
// last, on whichever thread, drops it.
unsafe impl<T: Send + Sync> Send for Task<T> {}

struct StayingJob<T> {
    run: fn(&T),
    arg: T,
}

/// # Safety
/// `job` is a `StayingJob<T>` that stays while this runs.
unsafe extern "C" fn enter_staying<T>(job: *mut c_void) {
    // SAFETY: the caller's promise.
    let job = unsafe { &*job.cast::<StayingJob<T>>() };
    (job.run)(&job.arg);
}

impl<T: Sync> Task<T> {
    /// # Safety
    /// `f` may do what it may do in [`in_task`].
    pub unsafe fn start(f: fn(&T), arg: T) -> Result<Self> {
        let stack = Stack::new()?;
        let job = Box::into_raw(Box::new(StayingJob { run: f, arg }));
        let all: SigSet = !0;
        let mut before: SigSet = 0;
        set_mask(&all, Some(&mut before));
        let flags = libc::CLONE_VM as usize;
        // SAFETY: the stack and the job live until `has_ended` has seen the task's end, or for ever; the caller's promise.
        let cloned = check(unsafe { clone_and_call(flags, stack.top(), enter_staying::<T>, job.cast()) });
        set_mask(&before, None);
        match cloned {
            Ok(pid) => Ok(Self { pid, stack: Some(stack), job }),
            Err(errno) => {
                // SAFETY: no task has it.
                drop(unsafe { Box::from_raw(job) });
                Err(Error::os("clone", errno))
            }
        }
    }

    /// Whether it has ended (and was collected).
    pub fn has_ended(&mut self) -> bool {
        if self.stack.is_none() {
            return true;
        }
        let flags = libc::__WALL | libc::WNOHANG;
        // SAFETY: wait4 with a null status and a null rusage writes nothing.
        let waited = unsafe { call(libc::SYS_wait4, [self.pid, 0, flags as usize, 0]) };
        // ECHILD: somebody else collected it with __WALL.
        if matches!(waited, Ok(0)) || waited == Err(libc::EINTR) {
            return false;
        }
        self.stack = None;
        // SAFETY: the only user has ended.
        drop(unsafe { Box::from_raw(self.job) });
        true
    }
}

impl<T: Sync> Drop for Task<T> {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It still runs on it: the mapping stays.
            std::mem::forget(self.stack.take());
        }
    }
}

/// A stack with a guard page below it.
#[derive(Debug)]
pub(crate) struct Stack(*mut c_void);

impl Stack {
    // The largest page size of the supported machines, so that the guard is one page at least.
    const GUARD: usize = 64 * 1024;

    pub fn new() -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Self::GUARD + STACK, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::io("mmap", &std::io::Error::last_os_error()));
        }
        let stack = Self(base);
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the upper part of the mapping just made.
        if unsafe { libc::mprotect(base.byte_add(Self::GUARD), STACK, rw) } < 0 {
            return Err(Error::io("mprotect", &std::io::Error::last_os_error()));
        }
        Ok(stack)
    }

    pub fn top(&self) -> usize {
        self.0 as usize + Self::GUARD + STACK
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; no task runs on it any more.
        unsafe { libc::munmap(self.0, Self::GUARD + STACK) };
    }
}

/// clone; in the new task `f(arg)`, then exit. Returns clone's result in the caller only.
///
/// # Safety
/// `stack` is the 16-byte aligned top of a stack for `f`, which may be called with `arg` there; `flags` has CLONE_VM and no
/// CLONE_THREAD, and CLONE_VFORK unless `f` never touches what the caller goes on to use.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_and_call(flags: usize, stack: usize, f: unsafe extern "C" fn(*mut c_void), arg: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: all registers but rax and the stack pointer are the same in the new task; it never leaves this block.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags,
            in("rsi") stack,
            in("rdx") 0usize,
            in("r10") 0usize,
            in("r8") 0usize,
            in("r12") f,
            in("r13") arg,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// clone; in the new task `f(arg)`, then exit. Returns clone's result in the caller only.
///
/// # Safety
/// `stack` is the 16-byte aligned top of a stack for `f`, which may be called with `arg` there; `flags` has CLONE_VM and no
/// CLONE_THREAD, and CLONE_VFORK unless `f` never touches what the caller goes on to use.
#[cfg(target_arch = "aarch64")]
unsafe fn clone_and_call(flags: usize, stack: usize, f: unsafe extern "C" fn(*mut c_void), arg: *mut c_void) -> isize {
    let result: isize;
    // SAFETY: all registers but x0 and the stack pointer are the same in the new task; it never leaves this block.
    unsafe {
        core::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x22",
            "blr x21",
            "mov x0, xzr",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const libc::SYS_exit_group,
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as isize => result,
            in("x1") stack,
            in("x2") 0usize,
            in("x3") 0usize,
            in("x4") 0usize,
            in("x21") f,
            in("x22") arg,
            lateout("lr") _,
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add_one(value: &mut i32) -> i32 {
        *value += 1;
        *value
    }

    fn pid(_: &mut ()) -> i32 {
        // SAFETY: no pointers.
        unsafe { call(libc::SYS_getpid, []).unwrap_or(0) as i32 }
    }

    fn blocked(set: &mut SigSet) -> i32 {
        // SAFETY: a signal set of 8 bytes is written.
        unsafe { call(libc::SYS_rt_sigprocmask, [0, 0, std::ptr::from_mut(set) as usize, 8]).map_or(-1, |_| 0) }
    }

    fn run<T>(flags: u64, f: fn(&mut T) -> i32, arg: &mut T) -> Result<i32> {
        // SAFETY: the three functions above call the kernel, or nobody.
        unsafe { in_task(flags, f, arg) }
    }

    #[test]
    fn a_task_shares_memory_and_is_a_process_of_its_own() {
        let mut value = 41;
        assert_eq!(run(0, add_one, &mut value).unwrap(), 42);
        assert_eq!(value, 42);
        let child = run(0, pid, &mut ()).unwrap();
        assert!(child > 0 && child != std::process::id() as i32);
        // Collected: it is not even a zombie.
        assert!(!std::path::Path::new(&format!("/proc/{child}/status")).exists());
    }

    #[test]
    fn every_signal_is_blocked_inside_and_the_mask_is_restored() {
        let mask = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find(|l| l.starts_with("SigBlk")).unwrap().to_owned()
        };
        let before = mask();
        let mut inside: SigSet = 0;
        assert_eq!(run(0, blocked, &mut inside).unwrap(), 0);
        // SIGKILL and SIGSTOP cannot be.
        assert_eq!(inside | 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1), !0);
        assert_eq!(mask(), before);
    }

    #[test]
    fn a_refused_clone_has_its_errno() {
        // CLONE_FS with CLONE_NEWNS contradict each other.
        let error = run((libc::CLONE_NEWNS | libc::CLONE_FS) as u64, pid, &mut ()).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
    }

    #[test]
    fn many_threads_at_once() {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let mut value = 1;
                        assert_eq!(run(0, add_one, &mut value).unwrap(), 2);
                    }
                });
            }
        });
    }
}
