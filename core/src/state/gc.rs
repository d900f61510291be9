//! Garbage: what is left when a keeper was killed. A keeper that lives leaves nothing, and whoever runs is not touched.
//!
//! Three traces lead to it: the records of named containers, control groups that carry their keeper's identity in their
//! name, and processes that are pid 1 of a container without a keeper above them.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::GcReport;
use super::dir::Place;
use super::identity::{self, Identity, Stat};
use super::names::{self, Life, Names};
use crate::cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::pidfd::{pidfd_open, pidfd_send_signal};

/// What a killed process may take to disappear before it is reported as remaining.
const PATIENCE: Duration = Duration::from_secs(1);

/// The name of the keeper's processes, and of the sealed file that they execute.
const COMM: &str = "ringfence";
const EXE: &str = "/memfd:ringfence (deleted)";

/// `ended_too`: also the records of detached containers that have ended.
pub(super) fn collect(place: &Place, ended_too: bool) -> Result<GcReport> {
    let mut report = collect_names(place, ended_too)?;
    let groups = cgroup::sweep(&is_stale);
    report.cgroups += groups.removed.len();
    report.processes += groups.killed;
    report.remaining.extend(groups.remaining);

    for init in orphans() {
        end(init, |process| orphan(process.pid) == Some(process), &mut report);
    }
    // Who may not ask has made none.
    let _ = crate::net::sweep_routed();
    Ok(report)
}

pub(super) fn collect_names(place: &Place, ended_too: bool) -> Result<GcReport> {
    let mut report = GcReport::default();
    let Some(names) = Names::find(place)? else { return Ok(report) };
    for name in names.list()? {
        collect_name(&names, &name, ended_too, &mut report);
    }
    Ok(report)
}

/// The record of one detached container that has ended, and what a killed keeper left of it.
pub(super) fn forget(place: &Place, name: &str) -> Result<()> {
    let record = names::find(place, name)?;
    let names = Names::open(place)?;
    if !record.detached {
        return Err(Error::new(ErrorKind::PermissionDenied, "it is attached to a program, and ends with that")
            .with_field("name")
            .with_errno(libc::EPERM));
    }
    let mut report = GcReport::default();
    collect_name(&names, name, true, &mut report);
    match names.lookup(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Somebody took the name meanwhile.
        Ok(now) if now.data["id"] != record.data["id"] => Ok(()),
        _ => Err(Error::new(
            ErrorKind::TimedOut,
            report.remaining.pop().unwrap_or_else(|| "it has not ended".to_owned()),
        )
        .with_errno(libc::ETIMEDOUT)
        .with_hint("gc() removes it later")),
    }
}

fn collect_name(names: &Names, name: &str, ended_too: bool, report: &mut GcReport) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut gone = true;
        let removed = names.remove_if_dead(name, |record| {
            let Some(record) = record else { return true };
            if let Some(init) = record.init
                && record.keeper.is_none()
            {
                // Its keeper cannot end it any more.
                gone = end(init, |process| process.runs(), report);
            }
            let readable = record.detached && matches!(record.life, Life::Ended(_));
            gone && (ended_too || !readable)
        });
        match removed {
            Ok(true) => report.files += 1,
            // A killed keeper closes its connections before it lets go of the name's lock. (That of an attached container
            // is its host's as well, until the handle is closed.)
            // And the keeper of one that has ended does so a moment after its last word.
            Ok(false)
                if gone
                    && names.read(name).is_ok_and(|r| {
                        r.detached && (r.life == Life::Lost || ended_too && matches!(r.life, Life::Ended(_)))
                    }) =>
            {
                if Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                report.remaining.push(format!("name {name}: its keeper is gone, its lock is held"));
            }
            Ok(false) => {}
            Err(error) => report.remaining.push(error.to_string()),
        }
        return;
    }
}

/// Ids of containers of this process that have ended and whose groups their keeper could not remove.
static GIVEN_UP: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Leaves the groups of an ended container of this process to [`gc`](super::gc).
pub(crate) fn give_up_groups(id: &str) {
    GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
}

/// Whether a group `rf-PIDNAMESPACE-PID-STARTTIME-N` belongs to a keeper that is gone, or was given up by this process.
fn is_stale(id: &str) -> bool {
    if GIVEN_UP.lock().unwrap_or_else(PoisonError::into_inner).contains(id) {
        return true;
    }
    let parts: Vec<u64> =
        id.strip_prefix("rf-").unwrap_or_default().split('-').map_while(|part| part.parse().ok()).collect();
    let &[namespace, pid, start_time, n] = &parts[..] else { return false };
    let Ok(pid) = i32::try_from(pid) else { return false };
    let canonical = format!("rf-{namespace}-{pid}-{start_time}-{n}") == id;
    if !canonical || namespace == 0 || pid <= 0 {
        return false;
    }
    if namespace == identity::pid_namespace() {
        !Identity { pid, start_time }.runs()
    } else {
        identity::pid_namespace_is_gone(namespace)
    }
}

fn orphans() -> Vec<Identity> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(orphan).collect()
}

/// The process, if it is pid 1 of a container whose keeper is gone.
fn orphan(pid: i32) -> Option<Identity> {
    let stat = Stat::of(pid)?;
    // Parent 0 is outside of this pid namespace: nothing to judge from here.
    if stat.comm != COMM || !stat.runs() || stat.parent == 0 {
        return None;
    }
    let status = Status::of(pid)?;
    // In namespaces of the same depth only the keepers themselves run.
    let inner = status.depth > Status::of(std::process::id() as i32)?.depth && status.innermost == 1;
    let keeper_above = Stat::of(stat.parent)
        .is_some_and(|parent| parent.comm == COMM && parent.runs() && is_ours(stat.parent).unwrap_or(true));
    if !inner || keeper_above {
        return None;
    }
    // pid 1 is not dumpable: without CAP_SYS_PTRACE its file is hidden. What is not hidden from everybody says the same:
    // a program of that name by somebody else would be dumpable, or have more than CAP_KILL, or no filter.
    let ours = is_ours(pid).unwrap_or_else(|| status.confined());
    ours.then_some(Identity { pid, start_time: stat.start_time })
}

/// Whether the process executes the sealed keeper; `None` when that is hidden from this caller.
fn is_ours(pid: i32) -> Option<bool> {
    match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => Some(exe.as_os_str() == EXE),
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => None,
        Err(_) => Some(false),
    }
}

/// What /proc/PID/status tells everybody.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    /// In how many pid namespaces it is visible from here on inwards, and its pid in the innermost.
    depth: usize,
    innermost: i32,
    permitted: u64,
    filtered: bool,
    no_new_privs: bool,
}

impl Status {
    fn of(pid: i32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/status")).ok()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let pids: Vec<i32> = field("NSpid")?.split_ascii_whitespace().map_while(|p| p.parse().ok()).collect();
        Some(Self {
            depth: pids.len(),
            innermost: *pids.last()?,
            permitted: u64::from_str_radix(field("CapPrm")?, 16).ok()?,
            filtered: field("Seccomp") == Some("2"),
            no_new_privs: field("NoNewPrivs") == Some("1"),
        })
    }

    /// As the keeper's init role confines itself.
    fn confined(&self) -> bool {
        const CAP_KILL: u64 = 1 << 5;
        self.permitted & !CAP_KILL == 0 && self.filtered && self.no_new_privs
    }
}

/// Kills a process (pid 1 of a namespace: and all others in it) that is `still` what it was. Whether it is gone.
fn end(process: Identity, still: impl Fn(Identity) -> bool, report: &mut GcReport) -> bool {
    let fail = |why: String, report: &mut GcReport| {
        report.remaining.push(format!("process {}: {why}", process.pid));
        false
    };
    let pidfd = match pidfd_open(process.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return true,
        Err(error) => return fail(format!("pidfd_open: {error}"), report),
    };
    // The descriptor cannot come to mean another process, and what it means is looked at only now.
    if !still(process) {
        return true;
    }
    match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return true,
        Err(error) => return fail(format!("pidfd_send_signal: {error}"), report),
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() as u16;
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(left)) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => {
                let place = fs::read_to_string(format!("/proc/{}/wchan", process.pid)).unwrap_or_default();
                let place = if place.len() > 1 { format!(", it sleeps in {place}") } else { String::new() };
                return fail(format!("killed, but not gone{place}"), report);
            }
            Ok(_) => {
                report.processes += 1;
                return true;
            }
        }
    }
}

#[cfg(any(fuzzing, test))]
pub(super) fn fuzz(text: &str) {
    if let Some(status) = Status::parse(text) {
        status.confined();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::process::{Child, Command, Stdio};

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A shell that executes from a file of the given name in memory, as pid 1 of a new pid namespace, and calls itself
    /// `comm`. Its pid, and the parent that is not a keeper.
    fn pid_one(file: &str, comm: &str) -> Option<(i32, Child)> {
        let memfd = nix::sys::memfd::memfd_create(file, nix::sys::memfd::MFdFlags::empty()).unwrap();
        let mut memfd = fs::File::from(memfd);
        memfd.write_all(&fs::read("/bin/sh").unwrap()).unwrap();
        let program = format!("/proc/self/fd/{}", memfd.as_raw_fd());
        let script = format!("printf {comm} >/proc/self/comm; read x");
        let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["-U"] };
        let mut parent = Command::new("unshare")
            .args(user)
            .args(["-pf", &program, "-c", &script])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", parent.id());
        let mut pid = None;
        until("pid 1 has its name", || {
            pid = fs::read_to_string(&children).ok().and_then(|c| c.trim().parse::<i32>().ok());
            parent.try_wait().unwrap().is_some() || pid.and_then(Stat::of).is_some_and(|s| s.comm == comm)
        });
        if parent.try_wait().unwrap().is_some() {
            println!("SKIP: this caller cannot make a pid namespace");
            return None;
        }
        Some((pid.unwrap(), parent))
    }

    #[test]
    fn pid_one_without_a_keeper_is_found_and_ended() {
        let Some((pid, mut parent)) = pid_one("ringfence", "ringfence") else { return };
        assert_eq!(orphan(pid), Identity::of(pid));
        let mut report = GcReport::default();
        assert!(end(Identity::of(pid).unwrap(), |p| orphan(p.pid) == Some(p), &mut report));
        assert_eq!((report.processes, report.remaining), (1, vec![]));
        assert!(parent.wait().unwrap().code() != Some(0));
    }

    #[test]
    fn the_name_alone_makes_no_process_ours() {
        for (file, comm) in [("other", "ringfence"), ("ringfence", "other")] {
            let Some((pid, mut parent)) = pid_one(file, comm) else { return };
            assert_eq!(orphan(pid), None, "{file} {comm}");
            drop(parent.stdin.take());
            parent.wait().unwrap();
        }
        assert_eq!(orphan(std::process::id() as i32), None);
        assert_eq!(orphan(1), None);
    }

    #[test]
    fn a_process_that_changed_its_meaning_is_not_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut report = GcReport::default();
        let wrong = Identity { start_time: 1, ..Identity::of(child.id() as i32).unwrap() };
        assert!(end(wrong, |p| p.runs(), &mut report));
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(report, GcReport::default());
    }

    #[test]
    fn groups_of_this_process_are_not_stale() {
        let me = Identity::of(std::process::id() as i32).unwrap();
        let here = identity::pid_namespace();
        assert!(!is_stale(&format!("rf-{here}-{}-{}-7", me.pid, me.start_time)));
        assert!(is_stale(&format!("rf-{here}-{}-{}-7", me.pid, me.start_time + 1)));
        for foreign in ["", "rf-", "rf-1", "-1-2", "-0-1-1", "--1-1-1", "-a-b-c", "-1-2-3-4", "-01-2-3", "-+1-2-3"] {
            let id = if foreign.starts_with('-') { format!("rf-{here}{foreign}") } else { foreign.into() };
            assert!(!is_stale(&id), "{id}");
        }
        assert!(!is_stale("rf-0-1-2-3"));
    }

    #[test]
    fn a_confined_init_is_recognised_without_its_file() {
        let text = "Name:\tringfence\nNSpid:\t812\t1\nCapPrm:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let status = Status::parse(text).unwrap();
        assert_eq!((status.depth, status.innermost, status.confined()), (2, 1, true));
        for (was, is) in [("Seccomp:\t2", "Seccomp:\t0"), ("Privs:\t1", "Privs:\t0"), ("00020", "00021")] {
            assert!(!Status::parse(&text.replace(was, is)).unwrap().confined(), "{is}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(.|\n){0,200}") {
            Status::parse(&text);
            is_stale(&text);
        }
    }
}
