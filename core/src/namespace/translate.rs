//! Process ids by the lines NSpid of /proc/PID/status, for kernels before 6.11: the numbers of a process from the pid namespace
//! of the mounted proc inwards to its own.

use std::fs;

use super::{Namespace, no_process};
use crate::error::{Error, ErrorKind, Result};
use crate::spec::NamespaceKind;

pub(super) fn no_number(pid: i32) -> Error {
    let what = format!("no process has the number {pid} in the one and a number in the other pid namespace");
    Error::new(ErrorKind::NotFound, what).with_field("pid").with_errno(libc::ESRCH)
}

fn numbers(pid: i32) -> Option<Vec<i32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|word| word.parse().ok()).collect()
}

/// How many levels a pid namespace is above that of a process. `None`: the process is outside of it.
fn levels_above(namespace: &Namespace, pid: i32) -> Result<Option<usize>> {
    let mut at = Some(Namespace::of_pid(pid, NamespaceKind::Pid)?);
    for level in 0.. {
        let Some(here) = at else { break };
        if here == *namespace {
            return Ok(Some(level));
        }
        at = match here.parent() {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => None,
            other => other?,
        };
    }
    Ok(None)
}

/// The namespaces that the caller's is in have no numbers in its own /proc.
fn refuse_above(namespace: &Namespace) -> Result<()> {
    let own = Namespace::own(NamespaceKind::Pid)?;
    let below = |child: &Namespace| -> Result<bool> {
        let mut at = child.parent().ok().flatten();
        while let Some(here) = at {
            if here == own {
                return Ok(true);
            }
            at = here.parent().ok().flatten();
        }
        Ok(false)
    };
    if *namespace == own || below(namespace)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, "the pid namespace is not the caller's own and not below it")
        .with_field("pid")
        .with_errno(libc::ENOTTY)
        .with_hint("Linux 6.11 translates between any two"))
}

pub(super) fn pid_in(namespace: &Namespace, pid: i32) -> Result<i32> {
    refuse_above(namespace)?;
    let numbers = numbers(pid).ok_or_else(|| no_process(pid))?;
    let level = levels_above(namespace, pid)?;
    level.and_then(|level| numbers.iter().rev().nth(level)).copied().ok_or_else(|| no_number(pid))
}

pub(super) fn pid_from(namespace: &Namespace, pid: i32) -> Result<i32> {
    refuse_above(namespace)?;
    let mut denied = None;
    for candidate in super::list::processes()? {
        if !numbers(candidate).is_some_and(|numbers| numbers.contains(&pid)) {
            continue;
        }
        match pid_in(namespace, candidate) {
            Ok(number) if number == pid => return Ok(candidate),
            // Only the one that is meant has to be traceable; which that is nobody can tell then.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => denied = Some(e),
            _ => {}
        }
    }
    Err(denied.unwrap_or_else(|| no_number(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process in a new pid namespace (and the user namespace that an ordinary user needs for it).
    struct Nested(std::process::Child, i32);

    impl Nested {
        fn start() -> Option<Self> {
            use std::io::{BufRead, BufReader};
            let script = "echo ready; exec sleep 600";
            let mut child = std::process::Command::new("unshare")
                .args(["-Ur", "--pid", "--fork", "--kill-child", "sh", "-c", script])
                .stdout(std::process::Stdio::piped())
                .spawn()
                .ok()?;
            let mut line = String::new();
            BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
            let pid = child.id();
            let inner = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok();
            let inner = inner.and_then(|text| text.trim().parse().ok());
            let nested = Self(child, inner.unwrap_or(0));
            (line == "ready\n" && inner.is_some()).then_some(nested)
        }
    }

    impl Drop for Nested {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn both_ways_by_proc_as_the_kernel_does() {
        let Some(nested) = Nested::start() else {
            println!("SKIP: this caller can make no pid namespace with unshare(1)");
            return;
        };
        let namespace = Namespace::of_pid(nested.1, NamespaceKind::Pid).unwrap();
        assert_eq!(pid_in(&namespace, nested.1).unwrap(), 1);
        assert_eq!(pid_from(&namespace, 1).unwrap(), nested.1);
        assert_eq!((namespace.pid_in(nested.1).unwrap(), namespace.pid_from(1).unwrap()), (1, nested.1));
        let own = Namespace::own(NamespaceKind::Pid).unwrap();
        assert_eq!(pid_in(&own, nested.1).unwrap(), nested.1);
        assert_eq!(pid_from(&own, nested.1).unwrap(), nested.1);
        let me = std::process::id() as i32;
        for error in [pid_in(&namespace, me).unwrap_err(), namespace.pid_in(me).unwrap_err()] {
            assert_eq!((error.kind(), error.field(), error.errno()), (ErrorKind::NotFound, Some("pid"), libc::ESRCH));
        }
        assert_eq!(pid_from(&namespace, 4_000_000).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
