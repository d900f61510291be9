//! Freezing, thawing and killing all processes at once, while they fork.
//!
//! tests/run: timeout=300 vm=root

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::*;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use ringfence::spec::Stdio;
use ringfence::{Command, Container, ErrorKind, Process, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// Forks as fast as it can; each process but the first is gone after one to three forks, whether they succeed or not, and
/// writes a byte before each.
const HERD: &str = r#"$SIG{CHLD} = "IGNORE"; my $n = -1;
while ($n--) { syswrite STDOUT, "x"; my $p = fork; $n = 1 + $$ % 3 if defined $p && !$p }"#;

/// What the processes of a herd did so far: the length of a file to which all append.
struct Count(File);

impl Count {
    fn new() -> Self {
        let file = tempfile::tempfile().expect("a file");
        fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).expect("F_SETFL");
        Self(file)
    }

    fn start(&self, mut command: Command) -> Process {
        command.args(["-e", HERD]).stdin(Stdio::Null).stdout(Stdio::Fd(self.0.as_raw_fd())).stderr(Stdio::Null);
        command.spawn().unwrap_or_else(|e| panic!("{e}"))
    }

    fn now(&self) -> u64 {
        self.0.metadata().expect("fstat").len()
    }

    fn grows(&self, by: u64) {
        let before = self.now();
        until("the processes run", || self.now() >= before + by);
    }
}

/// The ids, in the host, of all processes of a container.
fn members(container: &Container) -> Vec<String> {
    let (path, _) = group_of(container, "pids", "pids");
    let mut found: Vec<String> = Vec::new();
    let mut directories = vec![path];
    while let Some(directory) = directories.pop() {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().map(str::to_owned));
        let inside = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    found.sort();
    found
}

/// 100 times: frozen for real, and all of it running again.
fn rounds(count: &Count, freeze: impl Fn(), thaw: impl Fn(), members: impl Fn() -> Vec<String>) {
    for round in 0..times(100) {
        count.grows(10);
        freeze();
        let (written, running) = (count.now(), members());
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!(count.now(), written, "round {round}: who is frozen writes nothing");
        assert_eq!(members(), running, "round {round}: who is frozen neither forks nor ends");
        thaw();
    }
    count.grows(10);
}

#[test]
fn a_container_that_forks() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"pids": 24}));
    let count = Count::new();
    let first = count.start(container.command("perl"));
    rounds(&count, || container.freeze().unwrap(), || container.thaw().unwrap(), || members(&container));
    let usage = container.usage().unwrap();
    assert!(usage.pids_refused >= Some(1) && usage.pids_peak.is_none_or(|peak| peak == 24), "{usage:?}");
    let (group, _) = group_of(&container, "pids", "pids");
    // Frozen or not, killed is killed.
    container.freeze().unwrap();
    container.kill().unwrap();
    assert_eq!(first.wait(TIMEOUT).unwrap().unwrap().signal, Some(libc::SIGKILL));
    assert!(container.wait_end(TIMEOUT).unwrap());
    let written = count.now();
    assert!(!group.exists(), "a group that is gone has no processes");
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(count.now(), written);
    container.close(None).unwrap();
}

#[test]
fn a_group_that_forks() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({}));
    let herd = container.group("herd", &Spec::new().pids(16)).unwrap();
    let beside = container.group("beside", &Spec::new().pids(16)).unwrap();
    let (count, other) = (Count::new(), Count::new());
    count.start(herd.command("perl"));
    other.start(beside.command("perl"));
    // Of the container's processes, those of the other group come and go.
    rounds(&count, || herd.freeze().unwrap(), || herd.thaw().unwrap(), Vec::new);
    for _ in 0..times(20) {
        herd.kill().unwrap();
        let written = count.now();
        // The dead are counted until they are reaped.
        until("none is left", || herd.usage().unwrap().pids_current == Some(0));
        assert_eq!(count.now(), written, "killed while it forks");
        other.grows(1);
        count.start(herd.command("perl"));
        count.grows(10);
    }
    herd.kill().unwrap();
    herd.remove().unwrap();
    container.close(None).unwrap();
}

#[test]
fn one_that_has_ended() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["true"], "pids": 9}));
    assert!(container.wait_end(Some(Duration::from_secs(20))).unwrap());
    for refused in [container.freeze(), container.thaw()] {
        let e = refused.unwrap_err();
        assert_eq!((e.kind(), e.errno()), (ErrorKind::Closed, libc::ESRCH), "{e}");
    }
    container.close(None).unwrap();
}
