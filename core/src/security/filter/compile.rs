//! Makes a program of classic BPF of rules.
//!
//! The program looks at the architecture, then searches the number of the call in a balanced tree of ranges whose calls have the
//! same fate, then compares arguments where rules do. It is written from its end to its beginning, because jumps lead forward
//! only: what is jumped to is there already, and what was written once is not written again.

use std::collections::{BTreeMap, HashMap};

use super::rules::{FOREIGN, Filter, SeccompAction, SeccompArch, SeccompArg, SeccompOp, X32, X32_BIT};
use super::table::{self, COMMON};

/// struct sock_filter: one instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    pub code: u16,
    /// How many instructions are passed over when the comparison holds, and when not.
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl Instruction {
    /// As the kernel reads it.
    pub fn bytes(&self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }
}

/// BPF_MAXINSNS: the kernel takes no longer program.
pub(crate) const MOST: usize = 4096;

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in struct seccomp_data.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCH: u32 = 4;
pub(super) const ARGS: u32 = 16;

/// AUDIT_ARCH_* of linux/audit.h.
pub(crate) fn audit(arch: SeccompArch) -> u32 {
    match arch {
        SeccompArch::X86_64 => 0xc000_003e,
        SeccompArch::I386 => 0x4000_0003,
        SeccompArch::Aarch64 => 0xc000_00b7,
    }
}

/// A filter's program; when it would be too long, how long.
pub(crate) fn compile(filter: &Filter) -> Result<Vec<Instruction>, usize> {
    let mut code = Code::default();
    let mut entry = code.end(FOREIGN);
    for &arch in filter.architectures.iter().rev() {
        let ranges = ranges(filter, arch);
        let tree = code.tree(&ranges, arch != SeccompArch::I386);
        let number = code.load(NUMBER, tree);
        entry = code.jump(JUMP_EQUAL, audit(arch), number, entry);
    }
    code.load(ARCH, entry);
    let mut program = code.reversed;
    program.reverse();
    if program.len() > MOST { Err(program.len()) } else { Ok(program) }
}

type Checks<'a> = Vec<(&'a [SeccompArg], SeccompAction)>;

/// What happens to a call: the first of these whose arguments hold, else the last word.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fate<'a> {
    checks: Checks<'a>,
    last: SeccompAction,
}

/// The numbers from which on another fate holds, in order; the first is 0.
fn ranges(filter: &Filter, arch: SeccompArch) -> Vec<(u32, Fate<'_>)> {
    let mut fates: BTreeMap<u32, (Checks<'_>, Option<SeccompAction>)> = BTreeMap::new();
    for rule in &filter.rules {
        for number in rule.names.iter().filter_map(|name| table::number(name, arch)) {
            let (checks, last) = fates.entry(number).or_default();
            match last {
                Some(_) => {}
                None if rule.args.is_empty() => *last = Some(rule.action),
                None => checks.push((&rule.args, rule.action)),
            }
        }
    }
    let plain = |last| Fate { checks: Vec::new(), last };
    let unknown = filter.unknown.unwrap_or(filter.default);
    let newest = fates.keys().next_back().copied().unwrap_or(0).max(COMMON - 1);
    let mut ranges: Vec<(u32, Fate<'_>)> = Vec::new();
    // Called upwards.
    let mut add = |from, fate| {
        if ranges.last().is_none_or(|(_, before)| *before != fate) {
            ranges.push((from, fate));
        }
    };
    let mut next = 0;
    for number in table::numbers(arch) {
        if number > next {
            add(next, plain(unknown));
        }
        add(
            number,
            match fates.remove(&number) {
                Some((mut checks, last)) => {
                    let last = last.unwrap_or(filter.default);
                    while checks.pop_if(|(_, action)| *action == last).is_some() {}
                    Fate { checks, last }
                }
                None if number > newest => plain(unknown),
                None => plain(filter.default),
            },
        );
        next = number + 1;
    }
    add(next, plain(unknown));
    if arch == SeccompArch::X86_64 {
        add(X32_BIT, plain(X32));
    }
    ranges
}

/// The place of an instruction, counted from the program's end.
type Node = usize;

#[derive(Default)]
struct Code {
    reversed: Vec<Instruction>,
    /// What an instruction that is there does: its own words and where it leads.
    known: HashMap<(u16, u32, Node, Node), Node>,
}

/// How far a conditional jump reaches, less what may come between.
const REACH: usize = 250;

impl Code {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Node {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// An instruction that does the same as one that is there, within reach.
    fn near(&mut self, target: Node) -> Node {
        let distance = self.reversed.len() - target;
        if distance <= REACH {
            return target;
        }
        match self.reversed[target] {
            Instruction { code: RETURN, k, .. } => {
                let copy = self.push(RETURN, 0, 0, k);
                self.known.insert((RETURN, k, 0, 0), copy);
                copy
            }
            _ => {
                if let Some(&bridge) =
                    self.known.get(&(JUMP, 0, target, 0)).filter(|&&b| self.reversed.len() - b <= REACH)
                {
                    return bridge;
                }
                let bridge = self.push(JUMP, 0, 0, (distance - 1) as u32);
                self.known.insert((JUMP, 0, target, 0), bridge);
                bridge
            }
        }
    }

    fn end(&mut self, action: SeccompAction) -> Node {
        let k = action.code();
        if let Some(&node) = self.known.get(&(RETURN, k, 0, 0)) {
            return node;
        }
        let node = self.push(RETURN, 0, 0, k);
        self.known.insert((RETURN, k, 0, 0), node);
        node
    }

    /// An instruction after which `next` comes.
    fn then(&mut self, code: u16, k: u32, next: Node) -> Node {
        if let Some(&node) = self.known.get(&(code, k, next, 0)) {
            return node;
        }
        if next + 1 != self.reversed.len() {
            let distance = self.reversed.len() - next;
            self.push(JUMP, 0, 0, (distance - 1) as u32);
        }
        let node = self.push(code, 0, 0, k);
        self.known.insert((code, k, next, 0), node);
        node
    }

    fn load(&mut self, offset: u32, next: Node) -> Node {
        self.then(LOAD, offset, next)
    }

    fn jump(&mut self, code: u16, k: u32, holds: Node, else_: Node) -> Node {
        if holds == else_ {
            return holds;
        }
        if let Some(&node) = self.known.get(&(code, k, holds, else_)) {
            return node;
        }
        let (jt, jf) = (self.near(holds), self.near(else_));
        let here = self.reversed.len();
        let offset = |target: Node| (here - target - 1) as u8;
        let node = self.push(code, offset(jt), offset(jf), k);
        self.known.insert((code, k, holds, else_), node);
        node
    }

    /// Leads from the number of a call to its fate.
    fn tree(&mut self, ranges: &[(u32, Fate<'_>)], wide: bool) -> Node {
        if let [(_, fate)] = ranges {
            return self.fate(fate, wide);
        }
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let from = high[0].0;
        let high = self.tree(high, wide);
        let low = self.tree(low, wide);
        self.jump(JUMP_GREATER_OR_EQUAL, from, high, low)
    }

    fn fate(&mut self, fate: &Fate<'_>, wide: bool) -> Node {
        let mut otherwise = self.end(fate.last);
        for (args, action) in fate.checks.iter().rev() {
            let mut holds = self.end(*action);
            for arg in args.iter().rev() {
                holds = self.compare(arg, wide, holds, otherwise);
            }
            otherwise = holds;
        }
        otherwise
    }

    /// Compares the two halves of an argument; of 32-bit programs the upper one is zero.
    fn compare(&mut self, arg: &SeccompArg, wide: bool, holds: Node, else_: Node) -> Node {
        let offset = ARGS + 8 * u32::from(arg.index);
        let (upper, lower) = if cfg!(target_endian = "little") { (offset + 4, offset) } else { (offset, offset + 4) };
        let (high, low) = ((arg.value >> 32) as u32, arg.value as u32);
        match arg.op {
            SeccompOp::NotEqual => self.compare(&SeccompArg { op: SeccompOp::Equal, ..*arg }, wide, else_, holds),
            SeccompOp::Less => self.compare(&SeccompArg { op: SeccompOp::GreaterOrEqual, ..*arg }, wide, else_, holds),
            SeccompOp::LessOrEqual => self.compare(&SeccompArg { op: SeccompOp::Greater, ..*arg }, wide, else_, holds),
            SeccompOp::Equal => {
                self.compare(&SeccompArg { op: SeccompOp::MaskedEqual(u64::MAX), ..*arg }, wide, holds, else_)
            }
            SeccompOp::Greater | SeccompOp::GreaterOrEqual => {
                if !wide && high != 0 {
                    return else_;
                }
                let last = if arg.op == SeccompOp::Greater { JUMP_GREATER } else { JUMP_GREATER_OR_EQUAL };
                let test = self.jump(last, low, holds, else_);
                let below = self.load(lower, test);
                if !wide {
                    return below;
                }
                let same = self.jump(JUMP_EQUAL, high, below, else_);
                let above = self.jump(JUMP_GREATER, high, holds, same);
                self.load(upper, above)
            }
            SeccompOp::MaskedEqual(mask) => {
                let (mask_high, mask_low) = ((mask >> 32) as u32, mask as u32);
                if arg.value & !mask != 0 || (!wide && high != 0) {
                    return else_;
                }
                let below = self.masked(lower, mask_low, low, holds, else_);
                if wide { self.masked(upper, mask_high, high, below, else_) } else { below }
            }
        }
    }

    fn masked(&mut self, offset: u32, mask: u32, value: u32, holds: Node, else_: Node) -> Node {
        if mask == 0 {
            return holds;
        }
        let mut test = self.jump(JUMP_EQUAL, value, holds, else_);
        if mask != u32::MAX {
            test = self.then(AND, mask, test);
        }
        self.load(offset, test)
    }
}
