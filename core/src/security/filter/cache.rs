//! Programs that were compiled already: a start looks its filter up by content.

use std::sync::{Arc, Mutex, PoisonError};

use super::compile::{self, Instruction, MOST};
use super::profile;
use super::rules::{Context, Seccomp};
use crate::error::{Error, Result};

/// Everything that a program depends on.
#[derive(PartialEq, Eq)]
struct Key {
    seccomp: Seccomp,
    nesting: bool,
    context: Context,
}

/// How many are kept; of those the one that was looked up last stands last.
const KEPT: usize = 64;

static PROGRAMS: Mutex<Vec<(Key, Arc<[Instruction]>)>> = Mutex::new(Vec::new());

/// The program for a process; `None` where it may make all calls.
///
/// # Errors
/// The rules make a program that the kernel would not take.
pub(crate) fn program(seccomp: &Seccomp, nesting: bool, context: Context) -> Result<Option<Arc<[Instruction]>>> {
    // A panic between two operations on the list leaves it whole.
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |(key, _): &(Key, _)| key.nesting == nesting && key.context == context && key.seccomp == *seccomp;
    if let Some(at) = programs.iter().position(same) {
        let last = programs.len() - 1;
        programs[at..].rotate_left(1);
        return Ok(Some(programs[last].1.clone()));
    }
    let Some(filter) = profile::filter(seccomp, nesting, &context) else { return Ok(None) };
    let program: Arc<[Instruction]> = compile::compile(&filter)
        .map_err(|length| {
            let detail = format!("makes a filter of {length} instructions, and the kernel takes {MOST}");
            Error::spec("seccomp", detail).with_hint("rules of many calls with many arguments make it long")
        })?
        .into();
    if programs.len() == KEPT {
        programs.remove(0);
    }
    programs.push((Key { seccomp: seccomp.clone(), nesting, context }, program.clone()));
    Ok(Some(program))
}
