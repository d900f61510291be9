//! System calls by name and number.

use super::rules::SeccompArch;
use super::syscalls::{LINUX, NO, SYSCALLS};

/// Since this number calls have the same one on every architecture, and newer ones have higher ones (Linux 5.1 on).
pub(super) const COMMON: u32 = 424;

fn column(arch: SeccompArch) -> usize {
    match arch {
        SeccompArch::X86_64 => 0,
        SeccompArch::I386 => 1,
        SeccompArch::Aarch64 => 2,
    }
}

/// The kernel whose calls are known, `MAJOR.MINOR`.
pub(crate) fn kernel() -> String {
    format!("{}.{}", LINUX.0, LINUX.1)
}

/// The number of a call, where the architecture has it.
pub(crate) fn number(name: &str, arch: SeccompArch) -> Option<u32> {
    let at = SYSCALLS.binary_search_by(|(known, _)| (*known).cmp(name)).ok()?;
    let number = SYSCALLS[at].1[column(arch)];
    (number != NO).then_some(number.into())
}

/// The name of a call, where the architecture has one of that number.
pub(crate) fn name(number: u32, arch: SeccompArch) -> Option<&'static str> {
    let column = column(arch);
    let has = |numbers: &[u16; 3]| numbers[column] != NO && u32::from(numbers[column]) == number;
    SYSCALLS.iter().find(|(_, numbers)| has(numbers)).map(|(name, _)| *name)
}

/// Whether any architecture has it.
pub(crate) fn known_call(name: &str) -> bool {
    SYSCALLS.binary_search_by(|(known, _)| (*known).cmp(name)).is_ok()
}

/// All names.
pub(crate) fn known_calls() -> impl Iterator<Item = &'static str> {
    SYSCALLS.iter().map(|(name, _)| *name)
}

/// The numbers that an architecture has, in order.
pub(super) fn numbers(arch: SeccompArch) -> Vec<u32> {
    let column = column(arch);
    let mut numbers: Vec<u32> =
        SYSCALLS.iter().map(|(_, all)| all[column]).filter(|&n| n != NO).map(u32::from).collect();
    numbers.sort_unstable();
    numbers
}
