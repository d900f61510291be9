//! The keeper: a host process's helper. It makes containers from plans, is their pid 1, joins processes to them, reaps, undoes.
//!
//! Static, without std, heap or threads; it holds nothing of its host's memory, so its forks cost next to nothing and its
//! children may run code of their own before they execute anything. See `proto.rs` for what is said to it.
//!
//! * `birth.rs`  from exec to READY: lets go of what was inherited, makes the outer user namespace or the tiny root
//! * `serve.rs`  the loop: requests, statuses, undo plans, the host's end
//! * `role.rs`   what the children do: stage, pid 1, joiner
//! * `confine.rs` what those give up that go on for long
//! * `relay.rs`  what carries connections to a container's published ports
//! * `interp.rs` the interpreter of plans
//! * `files.rs` what one child does for as long as it is asked to: system calls on files; `calls.rs` what it is asked
//! * `sys.rs`, `nr.rs` the system calls

#![no_std]
#![no_main]

mod birth;
mod calls;
mod confine;
mod files;
mod groups;
mod interp;
mod nr;
mod own_maps;
mod proto;
#[path = "../src/sys/raw.rs"]
mod raw;
mod relay;
mod role;
mod serve;
mod sys;

use core::arch::global_asm;

#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call keeper_main", "ud2");
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, #0", "mov x0, sp", "bl keeper_main", "brk #1");

/// # Safety
/// `stack` is where the kernel put this process's arguments: their number is at its top.
#[unsafe(no_mangle)]
unsafe extern "C" fn keeper_main(stack: *const usize) -> ! {
    // SAFETY: the caller's promise, which is `_start`.
    let inside = unsafe { *stack } > 1;
    let keeper = birth::born(inside);
    serve::serve(keeper)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    sys::exit(70)
}

// The compiler calls these for copies and comparisons; no C library is linked. Plain loops would be turned back into calls of
// themselves: where the processor has an instruction for it, that; elsewhere volatile accesses.

/// # Safety
/// As C's memcpy.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise: both are valid for n bytes and do not overlap; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") n => _, inout("rdi") to => _, inout("rsi") from => _,
                         options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise: both are valid for n bytes and do not overlap.
    unsafe {
        for i in 0..n {
            to.add(i).write_volatile(from.add(i).read());
        }
    }
    to
}

/// # Safety
/// As C's memmove.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise: both are valid for n bytes; the direction keeps what is still to be read.
    unsafe {
        if (to as usize) <= (from as usize) {
            for i in 0..n {
                to.add(i).write_volatile(from.add(i).read());
            }
        } else {
            for i in (0..n).rev() {
                to.add(i).write_volatile(from.add(i).read());
            }
        }
    }
    to
}

/// # Safety
/// As C's memset.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, n: usize) -> *mut u8 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise: valid for n bytes; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") n => _, inout("rdi") to => _, in("al") byte as u8,
                         options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise: valid for n bytes.
    unsafe {
        for i in 0..n {
            to.add(i).write_volatile(byte as u8);
        }
    }
    to
}

/// # Safety
/// As C's memcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's promise: both are valid for n bytes.
    unsafe {
        for i in 0..n {
            let (x, y) = (a.add(i).read_volatile(), b.add(i).read_volatile());
            if x != y {
                return i32::from(x) - i32::from(y);
            }
        }
    }
    0
}

/// # Safety
/// As memcmp.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(a, b, n) }
}
