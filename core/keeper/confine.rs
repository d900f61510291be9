//! What tasks of the keeper give up before they go on for long.

use crate::nr;
use crate::sys::{self, Filter};

/// Gives up all capabilities but these, for good, and lets nobody look in.
pub fn keep_capabilities(mask: u32) -> i64 {
    sys::be_undumpable();
    let r = sys::capset(&[mask, mask, 0, 0, 0, 0]);
    sys::no_new_privileges();
    r
}

/// A filter that kills this process at any other system call. A kernel without seccomp leaves it with what it has.
pub fn allow_only(allowed: &[u32]) {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    const MOST: usize = 32;
    let mut program = [Filter { code: RETURN, jt: 0, jf: 0, k: KILL_PROCESS }; MOST + 6];
    let n = allowed.len().min(MOST);
    // Offsets 4 and 0 of struct seccomp_data: architecture and number (which has the x32 bit set for x32 calls).
    program[0] = Filter { code: LOAD, jt: 0, jf: 0, k: 4 };
    program[1] = Filter { code: EQUAL, jt: 1, jf: 0, k: nr::SECCOMP_ARCH };
    program[3] = Filter { code: LOAD, jt: 0, jf: 0, k: 0 };
    for (i, &number) in allowed[..n].iter().enumerate() {
        program[4 + i] = Filter { code: EQUAL, jt: (n - i) as u8, jf: 0, k: number };
    }
    program[5 + n] = Filter { code: RETURN, jt: 0, jf: 0, k: ALLOW };
    sys::set_filter(&program[..n + 6]);
}
