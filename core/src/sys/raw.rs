//! The system call instruction. Compiled into the library and into the keeper; the only assembly besides the keeper's entry.
//!
//! Nothing here touches `errno` or any other thread-local: tasks that share the host's memory but are no threads of it call
//! these.

use core::arch::asm;

/// A system call; the result is the kernel's: `-errno` on failure.
///
/// # Safety
/// Whatever the system call's arguments demand: pointers must be valid for what the kernel reads and writes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn syscall6(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result;
    // SAFETY: the kernel's calling convention: it clobbers rcx and r11 and nothing else.
    unsafe {
        asm!("syscall", inlateout("rax") nr as isize => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call; the result is the kernel's: `-errno` on failure.
///
/// # Safety
/// Whatever the system call's arguments demand: pointers must be valid for what the kernel reads and writes.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn syscall6(nr: usize, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result;
    // SAFETY: the kernel's calling convention: it clobbers x0 and nothing else.
    unsafe {
        asm!("svc 0", in("x8") nr, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d, in("x4") e,
             in("x5") f, options(nostack));
    }
    result
}
