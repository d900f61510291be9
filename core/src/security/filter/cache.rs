//! Programs that were compiled already: a start looks its filter up by content.

use std::sync::{Arc, Mutex, PoisonError};

use super::compile::{self, Instruction, MOST};
use super::profile;
use super::rules::{Context, Seccomp};
use crate::error::{Error, Result};

/// A program, and how it is installed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub instructions: Vec<Instruction>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u64,
}

/// Everything that a program depends on.
#[derive(PartialEq, Eq)]
struct Key {
    seccomp: Seccomp,
    nesting: bool,
    context: Context,
}

/// How many are kept; of those the one that was looked up last stands last.
const KEPT: usize = 64;

static PROGRAMS: Mutex<Vec<(Key, Arc<Program>)>> = Mutex::new(Vec::new());

/// The program for a process; `None` where it may make all calls.
///
/// # Errors
/// The rules make a program that the kernel would not take, or under which nothing can be executed.
pub(crate) fn program(seccomp: &Seccomp, nesting: bool, context: Context) -> Result<Option<Arc<Program>>> {
    // A panic between two operations on the list leaves it whole.
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |(key, _): &(Key, _)| key.nesting == nesting && key.context == context && key.seccomp == *seccomp;
    if let Some(at) = programs.iter().position(same) {
        let last = programs.len() - 1;
        programs[at..].rotate_left(1);
        return Ok(Some(programs[last].1.clone()));
    }
    let Some(filter) = profile::filter(seccomp, nesting, &context) else { return Ok(None) };
    if !filter.may_execute() {
        let error = Error::spec("seccomp", "does not allow execve, with which the program is started");
        return Err(error.with_hint("give it a rule of its own"));
    }
    let instructions = compile::compile(&filter).map_err(|length| {
        let detail = format!("makes a filter of {length} instructions, and the kernel takes {MOST}");
        Error::spec("seccomp", detail).with_hint("rules of many calls with many arguments make it long")
    })?;
    let flags = match seccomp {
        Seccomp::Rules(rules) => {
            [(rules.log, libc::SECCOMP_FILTER_FLAG_LOG), (rules.spec_allow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW)]
                .into_iter()
                .filter(|(set, _)| *set)
                .fold(0, |flags, (_, flag)| flags | flag)
        }
        _ => 0,
    };
    let program = Arc::new(Program { instructions, flags });
    if programs.len() == KEPT {
        programs.remove(0);
    }
    programs.push((Key { seccomp: seccomp.clone(), nesting, context }, program.clone()));
    Ok(Some(program))
}
