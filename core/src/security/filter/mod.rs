//! Filters of system calls: seccomp(2).
//!
//! [`rules`] is what a filter is to do, [`profile`] has those that come with the library, [`compile`] makes a program of
//! classic BPF of one. All are pure functions; the plan installs the program as its last step before the exec.

/// Programs that were compiled already.
mod cache;
/// A program of rules.
mod compile;
/// Runs programs, for tests.
#[cfg(test)]
mod interpret;
/// libseccomp's filters beside ours.
#[cfg(test)]
mod oracle;
/// The profiles `default` and `strict`.
mod profile;
/// The profile beside published ones.
#[cfg(test)]
mod published;
/// What a filter is to do.
pub(crate) mod rules;
/// The kernel's table.
mod syscalls;
/// System calls by name and number.
mod table;
#[cfg(test)]
mod tests;

pub(crate) use cache::{Program, program};
pub(crate) use table::{kernel, known_call, known_calls};
