//! Filters of system calls: seccomp(2).
//!
//! [`rules`] is what a filter is to do, [`profile`] has those that come with the library, [`compile`] makes a program of
//! classic BPF of one. All are pure functions; the plan installs the program as its last step before the exec.

/// Programs that were compiled already.
mod cache;
/// A program of rules.
mod compile;
/// Runs programs, for tests and fuzzers.
#[cfg(any(fuzzing, test))]
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

/// Programs of rules answer as the rules do.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(seccomp: &rules::Seccomp, input: &mut crate::fuzz::Input<'_>) {
    use rules::{Context, SeccompArch};
    let native = if input.bool() { SeccompArch::X86_64 } else { SeccompArch::Aarch64 };
    let context = Context {
        native,
        capabilities: input.word().into(),
        kernel: (6, u32::from(input.byte())),
        ports: input.bool(),
    };
    let Some(filter) = profile::filter(seccomp, input.bool(), &context) else { return };
    let Ok(program) = compile::compile(&filter) else { return };
    interpret::assert_sound(&program);
    let naive = interpret::Naive::new(&filter);
    for _ in 0..8 {
        let arch = SeccompArch::ALL[usize::from(input.byte() % 3)];
        let number = if input.byte() < 250 { u32::from(input.half() % 512) } else { input.word() };
        // Numbers near those of rules, and any.
        let args = std::array::from_fn(|_| {
            if input.bool() { u64::from(input.byte()) } else { u64::from(input.word()) << 32 | u64::from(input.word()) }
        });
        let call = interpret::Call::new(number, arch, args);
        assert_eq!(interpret::run(&program, &call), naive.run(&call), "{call:?} {filter:?}");
    }
}

pub(crate) use cache::{Program, program};
pub(crate) use compile::{Instruction, audit};
pub(crate) use table::{kernel, known_call, known_calls, name};
