//! Programs that were compiled already: a start looks its filter up by content.

use std::sync::{Arc, Mutex, PoisonError};

use super::compile::{self, Instruction, MOST};
use super::profile;
use super::rules::{Asked, Context, Filter, Seccomp};
use crate::error::{Error, Result};

/// A program, and how it is installed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub instructions: Vec<Instruction>,
    /// SECCOMP_FILTER_FLAG_*.
    pub flags: u64,
    /// The filter that asks the host, which is installed before this one.
    pub listener: Option<Listener>,
}

/// A filter with a listener. It does nothing but ask, so that the process that installed it can hand the listener over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    pub instructions: Vec<Instruction>,
    pub flags: u64,
    /// The number of the system call that hands it over, about which nobody is asked: sendmsg(2) or sendmmsg(2).
    pub sends_by: u32,
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
    let asking = filter.notifies();
    let (first, second) = if asking { filter.split() } else { (filter.clone(), filter) };
    let instructions = compiled(&second)?;
    let flags = match seccomp {
        Seccomp::Rules(rules) => {
            [(rules.log, libc::SECCOMP_FILTER_FLAG_LOG), (rules.spec_allow, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW)]
                .into_iter()
                .filter(|(set, _)| *set)
                .fold(0, |flags, (_, flag)| flags | flag)
        }
        _ => 0,
    };
    let listener = asking.then(|| listener(&first, flags, context.kernel)).transpose()?;
    let program = Arc::new(Program { instructions, flags, listener });
    if programs.len() == KEPT {
        programs.remove(0);
    }
    programs.push((Key { seccomp: seccomp.clone(), nesting, context }, program.clone()));
    Ok(Some(program))
}

fn compiled(filter: &Filter) -> Result<Vec<Instruction>> {
    compile::compile(filter).map_err(|length| {
        let detail = format!("makes a filter of {length} instructions, and the kernel takes {MOST}");
        Error::spec("seccomp", detail).with_hint("rules of many calls with many arguments make it long")
    })
}

/// The filter that asks. After it is installed the process still has to hand the listener over, install the other filter, and
/// execute the program. The last two the thread that waits for the start answers itself, which has to know that they come.
fn listener(filter: &Filter, flags: u64, kernel: (u32, u32)) -> Result<Listener> {
    for name in ["execve", "seccomp"] {
        if filter.asked(name) == Asked::Sometimes {
            let error =
                Error::spec("seccomp", format!("asks about {name} with some arguments only, and the start needs it"));
            return Err(error.with_hint("ask about it whatever its arguments are, or not at all"));
        }
    }
    let free = [("sendmsg", libc::SYS_sendmsg), ("sendmmsg", libc::SYS_sendmmsg)];
    let Some((_, sends_by)) = free.into_iter().find(|(name, _)| filter.asked(name) == Asked::Never) else {
        let error =
            Error::spec("seccomp", "asks about sendmsg and sendmmsg, and the listener is handed over by one of them");
        return Err(error.with_hint("give one of them a rule of its own"));
    };
    // Once the host has read of a call, only a signal that kills the thread ends its wait: otherwise the call would be begun anew
    // after each signal, and what the host has done for it be done again.
    let killable = if kernel >= (5, 19) { libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 };
    Ok(Listener {
        instructions: compiled(filter)?,
        // Nothing of this filter is logged.
        flags: flags & libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | killable,
        sends_by: sends_by as u32,
    })
}
