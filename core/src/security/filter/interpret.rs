//! Runs programs as the kernel does, for tests.

use std::collections::BTreeSet;

use super::compile::{
    AND, ARCH, ARGS, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, MOST, NUMBER, RETURN,
    audit,
};
use super::rules::{FOREIGN, Filter, SeccompArch, SeccompRule, X32, X32_BIT};
use super::table::{self, COMMON};

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

/// What the kernel checks of a program before it takes it (seccomp_check_filter, bpf_check_classic).
pub(super) fn assert_sound(program: &[Instruction]) {
    assert!(!program.is_empty() && program.len() <= MOST);
    for (at, i) in program.iter().enumerate() {
        let reach = match i.code {
            0x05 => i.k as usize,
            0x15 | 0x25 | 0x35 => i.jt.max(i.jf).into(),
            0x20 => {
                assert!(i.k < 64 && i.k.is_multiple_of(4));
                0
            }
            0x54 | RETURN => 0,
            other => panic!("instruction {other:#x}"),
        };
        assert!(at + reach + 1 < program.len() || i.code == RETURN, "at {at} of {}", program.len());
    }
}

/// The rules read one by one, without any of the compiler's ways.
pub(super) struct Naive<'a> {
    filter: &'a Filter,
    architectures: Vec<NaiveArch<'a>>,
}

struct NaiveArch<'a> {
    arch: SeccompArch,
    known: BTreeSet<u32>,
    rules: Vec<(Vec<u32>, &'a SeccompRule)>,
}

impl<'a> Naive<'a> {
    pub fn new(filter: &'a Filter) -> Self {
        let numbers = |rule: &SeccompRule, arch| rule.names.iter().filter_map(|n| table::number(n, arch)).collect();
        let of_arch = |&arch: &SeccompArch| NaiveArch {
            arch,
            known: table::numbers(arch).into_iter().collect(),
            rules: filter.rules.iter().map(|rule| (numbers(rule, arch), rule)).collect(),
        };
        Self { filter, architectures: filter.architectures.iter().map(of_arch).collect() }
    }

    pub fn run(&self, call: &Call) -> u32 {
        let Some(of) = self.architectures.iter().find(|of| audit(of.arch) == call.arch) else {
            return FOREIGN.code();
        };
        if of.arch == SeccompArch::X86_64 && call.number >= X32_BIT {
            return X32.code();
        }
        let of_call = of.rules.iter().filter(|(numbers, _)| numbers.contains(&call.number)).map(|(_, rule)| rule);
        let holds =
            |rule: &&&SeccompRule| rule.args.iter().all(|a| a.op.holds(call.args[usize::from(a.index)], a.value));
        if let Some(rule) = of_call.clone().find(holds) {
            return rule.action.code();
        }
        let newest = of.rules.iter().flat_map(|(numbers, _)| numbers).max().map_or(0, |&newest| newest).max(COMMON - 1);
        let known = of.known.contains(&call.number) && (of_call.count() > 0 || call.number <= newest);
        if known { self.filter.default } else { self.filter.unknown.unwrap_or(self.filter.default) }.code()
    }
}
