//! Against the real kernel. What this machine or this user cannot do is probed, and printed as `SKIP: why`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::ErrorKind;

const MIB: u64 = 1 << 20;

impl Group {
    /// In the group that a spec or the environment names, else where the rules say.
    fn create(parent: Option<&Path>, id: &str, limits: &Limits) -> Result<Option<Self>> {
        Self::create_in(&Place::choose(parent)?, id, limits, Purpose::default())
    }
}

/// A parent directory of its own for each test, below what RINGFENCE_CGROUP_PARENT says.
struct Fixture {
    parent: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var_os("RINGFENCE_CGROUP_PARENT").unwrap_or_else(|| "/ringfence-test".into());
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { parent: Path::new(&base).join(format!("cgroup-{}-{n}", std::process::id())) }
    }

    /// `None`, and a line that says why, where this caller can make no such group.
    fn probe(&self, limits: &Limits) -> Option<Group> {
        match Group::create(Some(&self.parent), "rf-probe", limits) {
            Ok(Some(group)) => Some(group),
            Ok(None) => panic!("a parent in the spec is never ignored"),
            Err(e) => {
                // root in the first namespaces has no excuse but a missing controller.
                assert!(!nix::unistd::geteuid().is_root() || e.kind() == ErrorKind::Unsupported, "{e}");
                println!("SKIP: {e}");
                None
            }
        }
    }

    /// The directories of this parent that exist.
    fn dirs(&self) -> Vec<PathBuf> {
        let relative = self.parent.strip_prefix("/").unwrap();
        let layout = layout::current().unwrap();
        layout.hierarchies.iter().map(|h| h.mount_point.join(relative)).filter(|dir| dir.exists()).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Also those of tests that run beside this one, as far as they are empty: creation has to live with that.
        parent::remove_made_directories();
        if !std::thread::panicking() {
            let left: Vec<_> =
                self.dirs().iter().flat_map(fs::read_dir).flatten().flatten().map(|e| e.path()).collect();
            let left: Vec<_> = left.into_iter().filter(|path| path.is_dir()).collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

/// Removes the group also when the test fails.
struct Cleanup<'a>(&'a Group);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let _ = self.0.thaw();
        let _ = self.0.kill();
        if let Err(e) = self.0.remove()
            && !std::thread::panicking()
        {
            panic!("{e}");
        }
    }
}

/// A shell that first joins every group, as a container's first process does.
fn inside(group: &Group, script: &str) -> Command {
    let mut join = String::new();
    for entry in group.describe()["groups"].as_array().unwrap() {
        let file = if entry["version"] == 2 { "cgroup.procs" } else { "tasks" };
        join += &format!("echo 0 > {}/{file} || exit 99; ", entry["path"].as_str().unwrap());
    }
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{join}{script}")]).stdin(Stdio::null());
    command
}

fn run_inside(group: &Group, script: &str) -> Output {
    let output = inside(group, script).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    assert_ne!(output.status.code(), Some(99), "joining failed: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Starts it and returns when it has joined.
fn spawn_inside(group: &Group, script: &str) -> Child {
    let mut child = inside(group, &format!("echo joined; {script}")).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "joined\n");
    child
}

fn within(limit: Duration, mut f: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if f() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    f()
}

fn memory_is_enforced(group: &Group) {
    assert_eq!(group.usage().unwrap().memory_max, Some(32 * MIB));
    assert_eq!(group.oom_kills(), Some(0));
    // tail keeps the last line, and this one does not end.
    let output = run_inside(group, "ulimit -v 4000000; tail /dev/zero; echo status $?");
    assert!(String::from_utf8_lossy(&output.stdout).contains("status 137"), "{output:?}");
    let usage = group.usage().unwrap();
    assert!(group.oom_kills() >= Some(1) && usage.memory_oom_kills >= Some(1), "{usage:?}");
    assert!(usage.memory_limit_hits >= Some(1), "{usage:?}");
    let peak = usage.memory_peak.unwrap();
    assert!(peak > 16 * MIB && peak <= 32 * MIB, "{usage:?}");
}

#[test]
fn memory() {
    let fixture = Fixture::new();
    // Not a whole number of pages: the kernel rounds down, and that is no error.
    let Some(group) = fixture.probe(&Limits { memory: Some(32 * MIB + 5), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    memory_is_enforced(&group);
}

fn pids_are_enforced(group: &Group) {
    let output = run_inside(group, "i=0; while [ $i -lt 20 ]; do sleep 30 >/dev/null 2>&1 & i=$((i+1)); done");
    assert!(!output.status.success(), "20 processes were started: {output:?}");
    let usage = group.usage().unwrap();
    assert_eq!(usage.pids_max, Some(5), "{usage:?}");
    assert!(usage.pids_refused >= Some(1), "{usage:?}");
    assert!(usage.pids_current.is_some_and(|n| n > 0 && n <= 5), "{usage:?}");
    assert!(usage.pids_peak.is_none_or(|n| n == 5), "{usage:?}");
}

#[test]
fn pids() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { pids: Some(5), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    pids_are_enforced(&group);
}

#[test]
fn cpus() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { cpus: Some(0.1), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    let mut child = spawn_inside(&group, "while :; do :; done");
    let started = Instant::now();
    let throttled = |usage: &Usage| usage.cpu_throttled_periods >= Some(8) && usage.cpu_throttled_usec > Some(100_000);
    let held_back = within(Duration::from_secs(20), || throttled(&group.usage().unwrap()));
    let usage = group.usage().unwrap();
    let passed = u64::try_from(started.elapsed().as_micros()).unwrap();
    group.kill().unwrap();
    child.wait().unwrap();
    assert!(held_back, "{usage:?}");
    let used = usage.cpu_usage_usec.unwrap();
    assert!(used > 20_000 && used < passed / 4 + 50_000, "{used} of {passed}: {usage:?}");
    assert!(usage.cpu_user_usec.unwrap() + usage.cpu_system_usec.unwrap() <= used + 20_000, "{usage:?}");
}

fn freezes_and_kills(group: &Group) {
    let mut child = spawn_inside(group, "while :; do :; done");
    let cpu = || group.usage().unwrap().cpu_usage_usec.unwrap();
    assert!(within(Duration::from_secs(5), || cpu() > 10_000));
    assert!(!group.is_frozen().unwrap());
    group.freeze().unwrap();
    group.freeze().unwrap();
    assert!(group.is_frozen().unwrap());
    let stopped = cpu();
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(cpu(), stopped);
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    assert!(within(Duration::from_secs(5), || cpu() > stopped));
    // A frozen group dies too.
    group.freeze().unwrap();
    group.kill().unwrap();
    assert!(
        within(Duration::from_secs(5), || child.try_wait().unwrap().is_some()),
        "killed while frozen, and still there"
    );
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn freeze_thaw_kill() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    freezes_and_kills(&group);
}

#[test]
fn kill_ends_what_forks_on_and_on() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { pids: Some(40), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    let mut child = spawn_inside(&group, "while :; do (exec true) & done 2>/dev/null");
    std::thread::sleep(Duration::from_millis(50));
    group.kill().unwrap();
    child.wait().unwrap();
    assert!(within(Duration::from_secs(3), || group.usage().unwrap().pids_current == Some(0)));
}

/// The layout of a machine without a v2 tree, on the v1 hierarchies of this one.
fn only_v1() -> Option<Layout> {
    let mut layout = (*layout::current().unwrap()).clone();
    layout.hierarchies.retain(|h| !h.v2);
    if layout.home(Controller::Freezer).is_some() && layout.home(Controller::Pids).is_some() {
        return Some(layout);
    }
    println!("SKIP: no v1 freezer and pids hierarchies here ({})", layout.kind().name());
    None
}

fn attempt(layout: &Layout, fixture: &Fixture, limits: &Limits) -> Result<Option<Group>> {
    Group::attempt(
        layout,
        &Place::choose(Some(&fixture.parent)).unwrap(),
        "rf-attempt",
        limits,
        &limits.settings()?,
        Purpose::default(),
    )
}

#[test]
fn v1_without_a_v2_tree() {
    let fixture = Fixture::new();
    let Some(layout) = only_v1() else { return };
    if !nix::unistd::geteuid().is_root() && fixture.probe(&Limits::default()).map(|g| g.remove().unwrap()).is_none() {
        return;
    }
    let limits = Limits { memory: Some(32 * MIB), pids: Some(5), cpus: Some(0.5), ..Limits::default() };
    let group = attempt(&layout, &fixture, &limits).unwrap().unwrap();
    let _cleanup = Cleanup(&group);
    assert!(group.v2_dir().is_none());
    assert_eq!(group.v1().len(), group.parents().len() - group.spare.len());
    memory_is_enforced(&group);
    pids_are_enforced(&group);
    group.kill().unwrap();
    assert!(within(Duration::from_secs(3), || group.usage().unwrap().pids_current == Some(0)));
    freezes_and_kills(&group);
}

#[test]
fn v1_freezes_and_kills_what_forks() {
    let fixture = Fixture::new();
    let Some(layout) = only_v1() else { return };
    if !nix::unistd::geteuid().is_root() && fixture.probe(&Limits::default()).map(|g| g.remove().unwrap()).is_none() {
        return;
    }
    let group = attempt(&layout, &fixture, &Limits { pids: Some(24), ..Limits::default() }).unwrap().unwrap();
    let _cleanup = Cleanup(&group);
    // A byte for each fork; each process but the first is gone after one to three of them.
    let count = tempfile::NamedTempFile::new().unwrap();
    let herd = r#"$SIG{CHLD} = "IGNORE"; my $n = -1;
        while ($n--) { syswrite STDOUT, "x"; my $p = fork; $n = 1 + $$ % 3 if defined $p && !$p }"#;
    let mut child = spawn_inside(&group, &format!("exec perl -e '{herd}' >> {}", count.path().display()));
    let written = || count.as_file().metadata().unwrap().len();
    let grows = |before: u64| assert!(within(Duration::from_secs(20), || written() >= before + 10));
    for round in 0..100 {
        grows(written());
        group.freeze().unwrap();
        let count = || group.usage().unwrap().pids_current;
        // What those who have ended were counted as is given back a little later.
        let mut before = count();
        let steady = || {
            std::thread::sleep(Duration::from_millis(1));
            std::mem::replace(&mut before, count()) == before
        };
        assert!(within(Duration::from_secs(3), steady));
        let length = written();
        std::thread::sleep(Duration::from_millis(3));
        assert_eq!((written(), count()), (length, before), "round {round}");
        group.thaw().unwrap();
    }
    group.kill().unwrap();
    let length = written();
    child.wait().unwrap();
    assert!(within(Duration::from_secs(3), || group.usage().unwrap().pids_current == Some(0)));
    assert_eq!(written(), length);
}

#[test]
fn swap_does_not_widen_the_limit_on_v1() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { memory: Some(8 * MIB), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    let v1 = group.v1();
    let Some(parent) = v1.iter().map(|part| &part.parent).find(|p| has(p, "memory")) else {
        println!("SKIP: memory is not on v1 here");
        return;
    };
    let file = parent.path.join(group.name()).join("memory.memsw.limit_in_bytes");
    if file.exists() {
        assert_eq!(fs::read_to_string(file).unwrap().trim(), (8 * MIB + limits::page_size()).to_string());
    } else {
        println!("SKIP: no swap accounting in this kernel");
    }
}

#[test]
fn a_share_above_the_parents_is_refused() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { cpus: Some(0.25), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    let v1 = group.v1();
    let Some(cpu) = v1.iter().map(|part| &part.parent).find(|p| has(p, "cpu")).map(|p| &p.path) else {
        println!("SKIP: cpu is not on v1 here (v2 lets the smaller share hold)");
        return;
    };
    if fs::write(cpu.join("cpu.cfs_quota_us"), "50000").is_err() {
        println!("SKIP: the parent's share cannot be set by this user");
        return;
    }
    let e =
        Group::create(Some(&fixture.parent), "rf-more", &Limits { cpus: Some(2.0), ..Limits::default() }).unwrap_err();
    assert_eq!((e.field(), e.errno()), (Some("cpus"), libc::EINVAL), "{e}");
    assert!(e.hint().unwrap().contains("groups above allow less"), "{e}");
}

#[test]
fn a_missing_controller_is_named() {
    let fixture = Fixture::new();
    let mut layout = (*layout::current().unwrap()).clone();
    for h in &mut layout.hierarchies {
        h.controllers.retain(|c| c != "memory");
    }
    let e = attempt(&layout, &fixture, &Limits { memory: Some(MIB), ..Limits::default() }).unwrap_err();
    assert_eq!((e.field(), e.kind()), (Some("memory"), ErrorKind::Unsupported), "{e}");
    assert!(e.to_string().contains("memory controller") && e.hint().is_some(), "{e}");
    let none = Layout { hierarchies: Vec::new() };
    let e = attempt(&none, &fixture, &Limits { pids: Some(3), ..Limits::default() }).unwrap_err();
    assert_eq!(e.field(), Some("pids"), "{e}");
    // A parent that was asked for by the spec cannot be ignored, an impossible default can.
    assert_eq!(attempt(&none, &fixture, &Limits::default()).unwrap_err().field(), Some("cgroup_parent"));
    assert!(
        Group::attempt(&none, &Place::Default, "rf-none", &Limits::default(), &[], Purpose::default())
            .unwrap()
            .is_none()
    );
}

#[test]
fn an_error_leaves_nothing() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    let e = Group::create(Some(&fixture.parent), "rf-probe", &Limits::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists, "{e}");
    // The one that was there is still there.
    assert!(group.usage().unwrap().cpu_usage_usec.is_some());
    for bad in ["", "a/b", "..", "a\nb"] {
        assert!(Group::create(Some(&fixture.parent), bad, &Limits::default()).is_err());
    }
}

#[test]
fn usage_outlives_the_group() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    run_inside(&group, ": $(seq 1 20000)");
    let last = group.usage().unwrap();
    assert!(last.cpu_usage_usec > Some(0));
    group.remove().unwrap();
    group.remove().unwrap();
    assert_eq!(group.usage().unwrap(), last);
    group.kill().unwrap();

    let Some(group) = fixture.probe(&Limits { pids: Some(9), ..Limits::default() }) else { return };
    run_inside(&group, "sleep 0.01; true");
    let last = group.final_usage().unwrap();
    assert_eq!((last.pids_current, last.pids_max, last.pids_refused), (Some(0), Some(9), Some(0)));
    assert!(last.cpu_usage_usec > Some(0));
    let now = group.usage().unwrap();
    assert_eq!((now.pids_max, now.pids_peak, now.memory_max), (last.pids_max, last.pids_peak, last.memory_max));
    group.remove().unwrap();
    assert_eq!(group.usage().unwrap().pids_max, Some(9));
    assert_eq!(group.final_usage().unwrap().pids_max, Some(9));

    let Some(group) = fixture.probe(&Limits::default()) else { return };
    group.remove().unwrap();
    assert_eq!(group.final_usage().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(group.usage().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(group.oom_kills(), None);
}

#[test]
fn removal_takes_what_the_payload_made() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let mut child = spawn_inside(&group, "sleep 60");
    for entry in group.describe()["groups"].as_array().unwrap() {
        fs::create_dir_all(Path::new(entry["path"].as_str().unwrap()).join("a/b")).unwrap();
    }
    // Busy until the process is gone, and no longer.
    let waited = std::thread::scope(|scope| {
        let removal = scope.spawn(|| group.remove());
        std::thread::sleep(Duration::from_millis(30));
        group.kill().unwrap();
        child.wait().unwrap();
        removal.join().unwrap()
    });
    waited.unwrap();
}

#[test]
fn reopened_by_its_description() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { pids: Some(7), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    let again = Group::reopen(&group.describe()).unwrap();
    assert_eq!(again.name(), group.name());
    assert_eq!(again.v1().len(), group.v1().len());
    assert_eq!(again.v2_dir().is_some(), group.v2_dir().is_some());
    assert_eq!(again.usage().unwrap().pids_max, Some(7));
    let mut child = spawn_inside(&again, "sleep 60");
    again.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(Group::reopen(&serde_json::json!({})).is_err());
}

#[test]
fn many_threads_while_parents_vanish() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    group.remove().unwrap();
    std::thread::scope(|scope| {
        for t in 0..8 {
            let parent = &fixture.parent;
            scope.spawn(move || {
                for i in 0..20 {
                    let limits = Limits { pids: Some(10), ..Limits::default() };
                    let group = Group::create(Some(parent), &format!("rf-{t}-{i}"), &limits).unwrap().unwrap();
                    group.remove().unwrap();
                    if t == 0 {
                        parent::remove_made_directories();
                    }
                }
            });
        }
    });
}

#[test]
fn groups_share_their_parents() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    let other = Group::create(Some(&fixture.parent), "rf-other", &Limits::default()).unwrap().unwrap();
    let _cleanup_other = Cleanup(&other);
    assert!(other.parents().iter().zip(group.parents()).all(|(a, b)| Arc::ptr_eq(a, b)));
    let later = |dir: &Arc<OwnedFd>| group.spare.iter().any(|parent| Arc::ptr_eq(&parent.dir, dir));
    for dir in group.parents() {
        assert_eq!(file::exists(dir, group.name()), !later(dir));
        let flags = nix::fcntl::fcntl(dir.as_fd(), nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }
}

#[test]
fn internal_processes_are_explained_on_v2() {
    let fixture = Fixture::new();
    let layout = layout::current().unwrap();
    let Some(h) = layout.v2().filter(|h| h.has(Controller::Memory)) else {
        println!("SKIP: the memory controller is not on v2 here");
        return;
    };
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    // A process in `busy`, and a group asked for below it.
    let busy = fixture.parent.join("busy");
    let dir = h.mount_point.join(busy.strip_prefix("/").unwrap());
    fs::create_dir(&dir).unwrap();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(dir.join("cgroup.procs"), child.id().to_string()).unwrap();
    let result = Group::create(Some(&busy), "rf-below", &Limits { memory: Some(MIB), ..Limits::default() });
    // Without a limit it works, and counts what needs no controller.
    let without = Group::create(Some(&busy), "rf-below", &Limits::default()).unwrap().unwrap();
    without.remove().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    file::remove_tree(group.parents()[0].as_fd(), OsStr::new("busy"), Instant::now() + REMOVE_TIMEOUT).unwrap();
    let e = result.unwrap_err();
    assert_eq!((e.field(), e.errno()), (Some("memory"), libc::EBUSY), "{e}");
    assert!(e.to_string().contains("processes sit in") && e.hint().unwrap().contains("leaf"), "{e}");
}

/// What is run in a process of its own, with its own environment, user and control group: see [`in_child`].
#[test]
fn child_case() {
    let Some(case) = std::env::var_os("RINGFENCE_TEST_CASE") else { return };
    // The parent says when this process is where it should be.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    match case.to_str().unwrap() {
        "sweep" => sweep_removes_stale_groups(),
        "delegated" => delegated_user(),
        "default-of-root" => default_place_of_root(),
        "delegated-to-root" => delegated_service_of_root(),
        "not-delegated" => user_without_delegation(),
        other => panic!("{other}"),
    }
    println!("case done");
}

/// Runs a case of [`child_case`]; `prepare` gets its pid before it starts.
fn in_child(case: &str, parent: Option<&Path>, uid: Option<u32>, prepare: impl FnOnce(u32)) -> String {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", "cgroup::tests::child_case", "--nocapture", "--test-threads=1"])
        .env("RINGFENCE_TEST_CASE", case)
        .env_remove("RINGFENCE_CGROUP_PARENT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(parent) = parent {
        command.env("RINGFENCE_CGROUP_PARENT", parent);
    }
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut child = command.spawn().unwrap();
    prepare(child.id());
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && stdout.contains("case done"),
        "{stdout}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

#[test]
fn sweep_by_id() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    in_child("sweep", Some(&fixture.parent), None, |_| {});
}

fn sweep_removes_stale_groups() {
    let group = |id: &str| Group::create(None, id, &Limits { pids: Some(9), ..Limits::default() }).unwrap().unwrap();
    let (stale, living) = (group("rf-stale-1"), group("rf-living-1"));
    let mut child = spawn_inside(&stale, "exec sleep 60");
    let mut seen = BTreeSet::new();
    let seen_cell = std::cell::RefCell::new(&mut seen);
    let report = sweep(&|id| {
        seen_cell.borrow_mut().insert(id.to_owned());
        id == "rf-stale-1"
    });
    assert_eq!((report.removed.as_slice(), report.killed), (&["rf-stale-1".to_owned()][..], 1), "{report:?}");
    assert!(report.remaining.is_empty(), "{report:?}");
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(seen.contains("rf-living-1"));
    assert_eq!(stale.usage().unwrap_err().kind(), ErrorKind::Closed);
    living.usage().unwrap();
    living.remove().unwrap();
}

const NOBODY: u32 = 65534;

#[test]
fn delegated_to_an_ordinary_user() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: only root can delegate");
        return;
    }
    let fixture = Fixture::new();
    let limits = Limits { memory: Some(32 * MIB), pids: Some(5), cpus: Some(0.5), ..Limits::default() };
    let Some(group) = fixture.probe(&limits) else { return };
    let _cleanup = Cleanup(&group);
    // v1: the directory. v2: also the files that make and fill groups, and the user inside, in a leaf.
    let mut leaf = None;
    for dir in fixture.dirs() {
        std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        if dir.join("cgroup.subtree_control").exists() {
            for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
                std::os::unix::fs::chown(dir.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
            }
            fs::create_dir(dir.join("leaf")).unwrap();
            leaf = Some(dir.join("leaf"));
        }
    }
    in_child("delegated", Some(&fixture.parent), Some(NOBODY), |pid| {
        if let Some(leaf) = &leaf {
            fs::write(leaf.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    });
    // Where all controllers are on v2, the place is found without being told.
    if layout::current().unwrap().kind() == layout::Kind::V2 {
        in_child("delegated", None, Some(NOBODY), |pid| {
            fs::write(leaf.as_ref().unwrap().join("cgroup.procs"), pid.to_string()).unwrap();
        });
        let ringfence = leaf.as_ref().unwrap().with_file_name(parent::RINGFENCE);
        assert!(!ringfence.exists() || fs::remove_dir(ringfence).is_ok());
    }
    if let Some(leaf) = leaf {
        assert!(within(Duration::from_secs(2), || fs::remove_dir(&leaf).is_ok()));
    }
}

fn delegated_user() {
    assert!(!nix::unistd::geteuid().is_root());
    let limits = Limits { memory: Some(32 * MIB), pids: Some(5), cpus: Some(0.5), ..Limits::default() };
    let group = Group::create(None, "rf-user", &limits).unwrap().unwrap();
    let _cleanup = Cleanup(&group);
    memory_is_enforced(&group);
    pids_are_enforced(&group);
    if group.can_kill() {
        group.kill().unwrap();
        assert!(within(Duration::from_secs(3), || group.usage().unwrap().pids_current == Some(0)));
        freezes_and_kills(&group);
    }
    let rows = layout_report().controllers;
    assert!(rows.iter().all(|row| row.usable), "{rows:?}");
}

#[test]
fn without_delegation_the_remedy_is_named() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP: only root can become an ordinary user");
        return;
    }
    in_child("not-delegated", None, Some(NOBODY), |_| {});
    in_child("not-delegated", Some(Path::new("/ringfence-test-of-root")), Some(NOBODY), |_| {});
}

fn user_without_delegation() {
    assert!(Group::create(None, "rf-none", &Limits::default()).unwrap().is_none());
    for (field, limits) in [
        ("memory", Limits { memory: Some(32 * MIB), ..Limits::default() }),
        ("cpus", Limits { cpus: Some(0.5), ..Limits::default() }),
        ("pids", Limits { pids: Some(5), ..Limits::default() }),
    ] {
        let e = Group::create(None, "rf-none", &limits).unwrap_err();
        assert_eq!((e.field(), e.kind()), (Some(field), ErrorKind::PermissionDenied), "{e}");
        let hint = e.hint().unwrap();
        assert!(hint.contains("chown") || hint.contains("Delegate=yes"), "{e}");
    }
    let e = Group::create(Some(Path::new("/ringfence-test-of-root")), "rf-none", &Limits::default()).unwrap_err();
    assert_eq!(e.field(), Some("cgroup_parent"), "{e}");
    let rows = layout_report().controllers;
    assert!(rows.iter().all(|row| !row.usable && row.remedy.is_some()), "{rows:?}");
}

#[test]
fn the_report_tells_what_create_does() {
    let fixture = Fixture::new();
    let place = Place::choose(Some(&fixture.parent)).unwrap();
    let layout = layout::current().unwrap();
    for controller in [Controller::Memory, Controller::Cpu, Controller::Pids] {
        let limits = match controller {
            Controller::Memory => Limits { memory: Some(MIB), ..Limits::default() },
            Controller::Cpu => Limits { cpus: Some(0.5), ..Limits::default() },
            _ => Limits { pids: Some(5), ..Limits::default() },
        };
        let Some(h) = layout.home(controller) else { continue };
        let before = fixture.dirs();
        let predicted = parent::probe(h, &place, Some(controller));
        // Tests beside this one may have removed some of these, empty as they are.
        assert!(fixture.dirs().iter().all(|dir| before.contains(dir)), "a report makes nothing");
        match Group::create(Some(&fixture.parent), "rf-report", &limits) {
            Ok(group) => {
                group.unwrap().remove().unwrap();
                assert!(predicted.is_ok(), "{predicted:?}");
            }
            Err(e) => assert!(predicted.is_err(), "{e}"),
        }
    }
    let report = layout_report();
    assert_eq!(report.layout, layout.kind().name());
    assert_eq!(
        report.controllers.iter().map(|row| row.name).collect::<Vec<_>>(),
        ["memory", "cpus", "pids", "kill", "freeze"]
    );
}

/// root on a machine with all controllers on v2; elsewhere the caller's own groups would be used, which are the machine's.
fn root_on_pure_v2() -> bool {
    let v2 = layout::current().unwrap().kind() == layout::Kind::V2;
    if !v2 || !nix::unistd::geteuid().is_root() {
        println!("SKIP: only for root where all controllers are on v2");
        return false;
    }
    true
}

#[test]
fn on_v2_root_uses_a_directory_at_the_top() {
    if root_on_pure_v2() {
        in_child("default-of-root", None, None, |_| {});
    }
}

fn group_path(group: &Group) -> String {
    group.describe()["groups"][0]["path"].as_str().unwrap().to_owned()
}

fn default_place_of_root() {
    let mount = layout::current().unwrap().v2().unwrap().mount_point.clone();
    let existed = mount.join(parent::RINGFENCE).exists();
    let group =
        Group::create(None, "rf-default", &Limits { memory: Some(32 * MIB), ..Limits::default() }).unwrap().unwrap();
    let path = group_path(&group);
    group.remove().unwrap();
    assert_eq!(Path::new(&path), mount.join(parent::RINGFENCE).join("rf-default"));
    parent::remove_made_directories();
    assert_eq!(mount.join(parent::RINGFENCE).exists(), existed);
}

#[test]
fn a_delegated_service_of_root_stays_in_its_part() {
    if !root_on_pure_v2() {
        return;
    }
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    // As systemd marks a service with Delegate=yes.
    let service = &fixture.dirs()[0];
    let dir = file::open_mount(service).unwrap();
    crate::sys::xattr::set(&dir, c"user.delegate", b"1").unwrap();
    let leaf = service.join("leaf");
    fs::create_dir(&leaf).unwrap();
    let output = in_child("delegated-to-root", None, None, |pid| {
        fs::write(leaf.join("cgroup.procs"), pid.to_string()).unwrap();
    });
    assert!(within(Duration::from_secs(2), || fs::remove_dir(&leaf).is_ok()));
    let expected = service.join(parent::RINGFENCE).join("rf-service");
    assert!(output.contains(&format!("path {}\n", expected.display())), "{output}");
}

fn delegated_service_of_root() {
    let group = Group::create(None, "rf-service", &Limits { pids: Some(9), ..Limits::default() }).unwrap().unwrap();
    println!("path {}", group_path(&group));
    group.remove().unwrap();
    parent::remove_made_directories();
}

#[test]
fn the_sweep_looks_where_specs_said() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits::default()) else { return };
    let _cleanup = Cleanup(&group);
    let lost = format!("rf-{}-lost-in-a-spec", std::process::id());
    drop(Group::create(Some(&fixture.parent), &lost, &Limits::default()).unwrap().unwrap());
    let there = || fixture.dirs().iter().any(|dir| dir.join(&lost).exists());
    assert!(there());
    let report = sweep(&|id| id == lost);
    assert!(!there() && report.removed == [lost.clone()], "{report:?}");
}

/// The text of a group's control file, wherever its controller is.
fn control(group: &Group, controller: Controller, v1: &str, v2: &str) -> String {
    let parts = group.v1();
    let on_v1 = parts.iter().find(|part| has(&part.parent, controller.name_on(false)));
    let path = match on_v1 {
        Some(part) => part.parent.path.join(group.name()).join(v1),
        None => group.v2.as_ref().unwrap().parent.path.join(group.name()).join(v2),
    };
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn quota(group: &Group) -> String {
    control(group, Controller::Cpu, "cpu.cfs_quota_us", "cpu.max").split(' ').next().unwrap().to_owned()
}

#[test]
fn limits_change_while_it_runs_and_go_away() {
    let fixture = Fixture::new();
    let old = Limits { memory: Some(64 * MIB), pids: Some(20), cpus: Some(0.5), ..Limits::default() };
    let Some(group) = fixture.probe(&old) else { return };
    let _cleanup = Cleanup(&group);
    let mut child = spawn_inside(&group, "exec sleep 60");
    let more = Limits { memory: Some(128 * MIB), cpus: Some(0.005), cpu_weight: Some(50), ..old.clone() };
    group.update(&old, &more).unwrap();
    let usage = group.usage().unwrap();
    assert_eq!((usage.memory_max, usage.pids_max), (Some(128 * MIB), Some(20)));
    assert_eq!(quota(&group), "5000");
    let less = Limits { memory: Some(32 * MIB), cpus: Some(1.5), ..Limits::default() };
    group.update(&more, &less).unwrap();
    let usage = group.usage().unwrap();
    assert_eq!((usage.memory_max, usage.pids_max), (Some(32 * MIB), None));
    assert_eq!(quota(&group), "150000");
    assert!(["100", "1024"].contains(&&*control(&group, Controller::Cpu, "cpu.shares", "cpu.weight")));
    group.update(&less, &Limits::default()).unwrap();
    assert_eq!(group.usage().unwrap().memory_max, None);
    assert!(["max", "-1"].contains(&&*quota(&group)));
    group.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_refused_change_changes_nothing() {
    let fixture = Fixture::new();
    let old = Limits { memory: Some(64 * MIB), pids: Some(20), cpus: Some(0.5), ..Limits::default() };
    let Some(group) = fixture.probe(&old) else { return };
    let _cleanup = Cleanup(&group);
    // More than a period's worth of burst is refused by the kernel, after the others were written.
    let burst = Some(Duration::from_secs(500));
    let new = Limits { memory: Some(32 * MIB), pids: None, cpus: Some(1.0), cpu_burst: burst, ..Limits::default() };
    let e = group.update(&old, &new).unwrap_err();
    assert_eq!((e.field(), e.errno()), (Some("cpu_burst"), libc::EINVAL), "{e}");
    let usage = group.usage().unwrap();
    assert_eq!((usage.memory_max, usage.pids_max), (Some(64 * MIB), Some(20)));
    assert_eq!(quota(&group), "50000");
}

#[test]
fn a_limit_that_comes_later_reaches_every_process() {
    let fixture = Fixture::new();
    let Some(group) = fixture.probe(&Limits { pids: Some(200), ..Limits::default() }) else { return };
    let _cleanup = Cleanup(&group);
    // It forks while its processes are being moved.
    let script = "while :; do for i in 1 2 3 4 5 6 7 8; do sleep 0.02 & done; wait; done";
    let mut child = spawn_inside(&group, script);
    let old = Limits { pids: Some(200), ..Limits::default() };
    let new = Limits { cpus: Some(0.8), ..old.clone() };
    match group.update(&old, &new) {
        Err(e) if !nix::unistd::geteuid().is_root() => println!("SKIP: {e}"),
        result => {
            result.unwrap();
            assert_eq!(quota(&group), "80000");
            for _ in 0..20 {
                let groups = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
                let cpu = groups.lines().find(|line| line.split(':').nth(1) == Some("cpu") || line.starts_with("0:"));
                assert!(cpu.unwrap().ends_with(group.name()), "{groups}");
                std::thread::sleep(Duration::from_millis(5));
            }
            // Also found by its description, as another program does.
            let again = Group::reopen(&group.describe()).unwrap();
            assert_eq!(again.v1().len(), group.v1().len());
            again.update(&new, &Limits { cpus: Some(0.4), ..old }).unwrap();
            assert_eq!(quota(&group), "40000");
        }
    }
    group.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_limit_below_what_is_used_is_refused() {
    let fixture = Fixture::new();
    let old = Limits { memory: Some(256 * MIB), swap: Some(0), ..Limits::default() };
    let Some(group) = fixture.probe(&old) else { return };
    let _cleanup = Cleanup(&group);
    let mut child = spawn_inside(&group, "exec perl -e '$x = \"x\" x (64 << 20); $| = 1; print \"full\\n\"; sleep 60'");
    assert!(within(Duration::from_secs(20), || group.usage().unwrap().memory_current > Some(64 * MIB)));
    let e = group.update(&old, &Limits { memory: Some(16 * MIB), ..old.clone() }).unwrap_err();
    assert_eq!((e.field(), e.errno()), (Some("memory"), libc::EBUSY), "{e}");
    assert_eq!(group.usage().unwrap().memory_max, Some(256 * MIB));
    assert_eq!(group.oom_kills(), Some(0));
    group.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn processors_are_those_that_were_asked() {
    let fixture = Fixture::new();
    let one = |cpus: &str| Limits { cpuset: Some(cpus.into()), ..Limits::default() };
    let Some(group) = fixture.probe(&one("0")) else { return };
    let _cleanup = Cleanup(&group);
    let allowed = || {
        let output = run_inside(&group, "grep Cpus_allowed_list /proc/self/status");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert!(allowed().ends_with("\t0"), "{:?}", allowed());
    if std::thread::available_parallelism().unwrap().get() > 1 {
        group.update(&one("0"), &one("1")).unwrap();
        assert!(allowed().ends_with("\t1"), "{:?}", allowed());
        group.update(&one("1"), &Limits::default()).unwrap();
        assert!(!allowed().ends_with("\t1"), "{:?}", allowed());
    }
    let mut child = spawn_inside(&group, "exec sleep 60");
    let e = group.update(&Limits::default(), &one("0,8000")).unwrap_err();
    assert_eq!(e.field(), Some("cpuset"), "{e}");
    // Also with a process in it, which has to have some.
    group.update(&Limits::default(), &one("0")).unwrap();
    group.update(&one("0"), &Limits::default()).unwrap();
    group.kill().unwrap();
    child.wait().unwrap();
    let e = Group::create(Some(&fixture.parent), "rf-far", &one("8000")).unwrap_err();
    assert_eq!(e.field(), Some("cpuset"), "{e}");
}
