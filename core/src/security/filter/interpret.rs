//! Runs programs as the kernel does, for tests.

use super::compile::{
    AND, ARCH, ARGS, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, NUMBER, RETURN, audit,
};
use super::rules::SeccompArch;

/// A system call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub number: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    pub fn new(number: u32, arch: SeccompArch, args: [u64; 6]) -> Self {
        Self { number, arch: audit(arch), args }
    }

    /// A word of struct seccomp_data.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            NUMBER => self.number,
            ARCH => self.arch,
            ARGS..64 if offset.is_multiple_of(4) => {
                let arg = self.args[((offset - ARGS) / 8) as usize].to_ne_bytes();
                let half = (offset % 8) as usize;
                u32::from_ne_bytes([arg[half], arg[half + 1], arg[half + 2], arg[half + 3]])
            }
            _ => panic!("the kernel refuses a load at {offset}"),
        }
    }
}

/// What a program returns.
pub(super) fn run(program: &[Instruction], call: &Call) -> u32 {
    // BPF_ALU | BPF_AND | BPF_X and the like are not in our programs, but may be in those of others.
    let (mut a, mut at) = (0u32, 0usize);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            LOAD => a = call.word(k),
            AND => a &= k,
            JUMP => at += k as usize,
            JUMP_EQUAL => branch(a == k),
            JUMP_GREATER => branch(a > k),
            JUMP_GREATER_OR_EQUAL => branch(a >= k),
            RETURN => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}
