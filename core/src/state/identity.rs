//! Which process a number means: pids are reused, so a process is its pid, its start time and the boot it ran in.

use std::fs;
use std::os::unix::fs::MetadataExt;

use once_cell::sync::Lazy;
use serde::{Deserialize, Serialize};

/// A process that was seen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: i32,
    /// Clock ticks since boot: field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl Identity {
    /// `None` when there is no such process, or it has ended and waits to be collected.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = Stat::of(pid)?;
        stat.runs().then_some(Self { pid, start_time: stat.start_time })
    }

    /// Whether it still runs.
    pub(crate) fn runs(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// What /proc/PID/stat tells everybody about a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub comm: String,
    pub state: char,
    pub parent: i32,
    pub start_time: u64,
}

impl Stat {
    pub(super) fn of(pid: i32) -> Option<Self> {
        if pid <= 0 {
            return None;
        }
        // The name may be any bytes.
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name is in parentheses and may contain any of them: the last one ends it.
        let (head, tail) = stat.rsplit_once(')')?;
        let (_, comm) = head.split_once('(')?;
        let mut fields = tail.split_ascii_whitespace();
        Some(Self {
            comm: comm.to_owned(),
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            // State and parent were fields 3 and 4.
            start_time: fields.nth(22 - 5)?.parse().ok()?,
        })
    }

    /// Not a zombie and not dead.
    pub(super) fn runs(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The kernel's random name of this boot; empty where /proc does not show it.
pub(super) fn boot_id() -> &'static str {
    static BOOT_ID: Lazy<String> =
        Lazy::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned());
    &BOOT_ID
}

/// Whether another pid namespace has no process any more. Only root of the first one sees that: elsewhere it is false.
pub(super) fn pid_namespace_is_gone(namespace: u64) -> bool {
    /// include/linux/proc_ns.h
    const PROC_PID_INIT_INO: u64 = 0xefff_fffc;
    if pid_namespace() != PROC_PID_INIT_INO || !nix::unistd::geteuid().is_root() {
        return false;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids {
        match fs::metadata(format!("/proc/{pid}/ns/pid")) {
            Ok(found) if found.ino() == namespace => return false,
            // It has ended since, or is about to: without a namespace.
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
            // One that may not be looked at (more capabilities than this caller has) is in no other namespace than the first, if
            // it has one pid only.
            Err(_) if pids_of(pid) == Some(1) => {}
            Err(_) => return false,
        }
    }
    true
}

/// In how many pid namespaces a process has a pid, from this one inwards.
fn pids_of(pid: i32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).map(|pids| pids.split_whitespace().count())
}

/// The inode of this process's pid namespace: in another one the same number means another process. 0 when unknown.
pub(super) fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino())
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(text: &str) {
    if let Some(stat) = Stat::parse(text) {
        stat.runs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_process_runs_and_a_reused_pid_is_another() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        assert!(me.runs());
        assert!(!Identity { start_time: me.start_time + 1, ..me }.runs());
        assert_eq!(Identity::of(0), None);
        assert_eq!(Identity::of(-1), None);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while Stat::of(pid).is_some_and(|s| s.runs()) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(Identity::of(pid), None);
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn any_name_is_parsed(comm in "[^\n]{0,16}", parent in 0..i32::MAX, start in any::<u64>()) {
            let zeros = "0 ".repeat(17);
            let line = format!("7 ({comm}) S {parent} {zeros}{start} 4096 1");
            let stat = Stat::parse(&line).unwrap();
            prop_assert_eq!(stat, Stat { comm, state: 'S', parent, start_time: start });
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = Stat::parse(&text);
        }
    }
}
