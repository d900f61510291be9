//! The contract with the host process: each test is a host of its own (this program, started once more), because what is
//! tested is what happens to a whole process.
//!
//! tests/run: harness=none timeout=900 vm=root

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command as HostCommand, Stdio as HostStdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringfence::spec::Stdio;
use ringfence::{Command, Container, ErrorKind, Reason, Spec};

#[path = "contract/confined.rs"]
mod confined;
#[path = "contract/credentials.rs"]
mod credentials;
#[path = "contract/detached.rs"]
mod detached;
#[path = "contract/ends.rs"]
mod ends;
#[path = "contract/input.rs"]
mod input;
#[path = "contract/inside.rs"]
mod inside;

/// Name, seconds it may take, body.
type Test = (&'static str, u64, fn());

const TESTS: &[Test] = &[
    ("a busy host notices nothing", 300, busy_host),
    ("nothing of the process is changed", 30, nothing_changed),
    ("descriptors are close-on-exec and all closed at the end", 30, descriptors),
    ("nothing is written to stdout and stderr", 30, silence),
    ("statuses arrive while SIGCHLD is ignored", 30, sigchld_ignored),
    ("a subreaper gets no child", 30, subreaper),
    ("pid 1 of a pid namespace gets no child", 60, pid_one),
    ("mounts that can be no layer are left out", 30, odd_mounts),
    ("home directories behind links are hidden too", 30, linked_home),
    ("root of a user namespace is an ordinary caller", 60, root_of_a_namespace),
    ("root of a user namespace lends its ids", 30, root_of_many_ids),
    ("workers forked before the first container start their own", 60, forked_before),
    ("workers forked after it get ECHILD and disturb nothing", 60, forked_after),
    ("parallel starts do not keep each other's pipes open", 120, parallel_pipes),
    ("directories made for control groups are not left", 30, no_empty_groups),
    ("dropping the handle ends the container", 30, dropped),
    ("a host that exits leaves nothing", 30, host_exits),
    ("a host that executes another program leaves nothing", 30, host_executes),
    ("a killed host leaves nothing, its forked workers alive", 30, host_killed_with_workers),
    ("a host killed at any moment leaves nothing", 600, host_killed_at_random),
    ("a killed keeper is reported in time, and gc ends what was left", 300, keeper_killed),
    ("pid 1 ends with its keeper, whoever it is", 60, pid_one_without_keeper),
    ("a failed start on a thread that ends takes nothing with it", 60, failed_on_a_thread),
    ("gc knows pid namespaces apart", 60, other_pid_namespaces),
    ("waits time out and can be cancelled", 30, waits),
    ("every newer system call may be missing", 300, missing_system_calls),
];

fn tests() -> impl Iterator<Item = &'static Test> {
    [TESTS, inside::TESTS, credentials::TESTS, ends::TESTS, detached::TESTS, confined::TESTS, input::TESTS]
        .into_iter()
        .flatten()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--one") => {
            let test = tests().find(|t| t.0 == arguments[1]).expect("a test of this name");
            test.2();
        }
        Some("--victim") => victim(&arguments[1..]),
        filter => run_all(filter.unwrap_or("")),
    }
}

/// Runs each test as a process with a time limit, and speaks TAP.
fn run_all(filter: &str) {
    let (mut number, mut failed) = (0, false);
    for (name, seconds, _) in tests().filter(|t| t.0.contains(filter)) {
        number += 1;
        let started = Instant::now();
        let mut child = HostCommand::new(myself())
            .args(["--one", name])
            .stdin(HostStdio::null())
            .stdout(HostStdio::piped())
            .stderr(HostStdio::piped())
            .process_group(0)
            .spawn()
            .expect("start a test");
        let readers = [collect(child.stdout.take().expect("piped")), collect(child.stderr.take().expect("piped"))];
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for a test") {
                break Some(status);
            }
            if started.elapsed() > Duration::from_secs(*seconds) {
                // SAFETY: kills the test's process group, which this function made.
                unsafe { libc::killpg(child.id() as i32, libc::SIGKILL) };
                let _ = child.wait();
                break None;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        // A leftover process may hold the pipes open: what was read in a second is enough.
        std::thread::sleep(Duration::from_millis(10));
        let text: Vec<String> =
            readers.iter().map(|r| String::from_utf8_lossy(&r.lock().unwrap()).into_owned()).collect();
        let skip = text[0].lines().find_map(|l| l.strip_prefix("SKIP: ")).map(str::to_owned);
        for line in text.iter().flat_map(|t| t.lines()) {
            println!("# {line}");
        }
        match (status, skip) {
            (Some(status), Some(reason)) if status.success() => println!("ok {number} - {name} # SKIP {reason}"),
            (Some(status), None) if status.success() => println!("ok {number} - {name}"),
            (status, _) => {
                failed = true;
                let how = status.map_or_else(|| format!("did not end within {seconds} s"), |s| s.to_string());
                println!("# {how}\nnot ok {number} - {name}");
            }
        }
    }
    println!("1..{number}");
    std::process::exit(i32::from(failed));
}

fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let into = Arc::new(Mutex::new(Vec::new()));
    let copy = into.clone();
    std::thread::spawn(move || {
        let mut block = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut block) {
            copy.lock().unwrap().extend_from_slice(&block[..n]);
        }
    });
    into
}

fn myself() -> PathBuf {
    std::env::current_exe().expect("own path")
}

fn skip(reason: &str) {
    println!("SKIP: {reason}");
}

// --- what the tests look at -------------------------------------------------------------------------------------------------

/// A container of this program's own payload, with limits where this caller can have them.
fn spec<const N: usize>(argv: [&str; N]) -> Spec {
    let mut spec = Spec { argv: argv.iter().map(Into::into).collect(), ..Spec::default() };
    // What has no main process has no streams.
    if N > 0 {
        (spec.stdin, spec.stdout, spec.stderr) = (Some(Stdio::Null), Some(Stdio::Null), Some(Stdio::Null));
    }
    if std::env::var_os("RINGFENCE_CGROUP_PARENT").is_some() {
        (spec.memory, spec.pids) = (Some(256 << 20), Some(64));
    }
    spec
}

fn start<const N: usize>(argv: [&str; N]) -> Container {
    Container::start(&spec(argv)).unwrap_or_else(|e| panic!("{e}"))
}

/// A container whose script has said `ready`: what it sets up before that is set up.
fn start_ready(spec: &Spec) -> Container {
    let container =
        Container::start(&Spec { stdout: Some(Stdio::Log), ..spec.clone() }).unwrap_or_else(|e| panic!("{e}"));
    let asked = Instant::now();
    while !container.log(0).expect("log").starts_with(b"ready\n") {
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", container.log(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    container
}

/// Processes, control groups and mounts of this test run, to be compared before and after.
#[derive(Clone, Default)]
struct Seen {
    processes: BTreeSet<i32>,
    groups: BTreeSet<PathBuf>,
    mounts: BTreeSet<String>,
}

impl Seen {
    fn now() -> Self {
        let mut seen = Self::default();
        for top in group_tops() {
            walk(&top, &mut seen);
        }
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if comm(pid).starts_with("ringfence") && group_tops().is_empty() {
                seen.processes.insert(pid);
            }
        }
        // One that ended is left only if a keeper has not collected it; how soon the machine's pid 1 does is not ours to say.
        seen.processes
            .retain(|&pid| runs(pid) || parent_of(pid).is_some_and(|parent| comm(parent).starts_with("ringfence")));
        seen.mounts =
            std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").lines().map(Into::into).collect();
        seen
    }

    /// What is there now and was not there then.
    fn more(&self) -> Vec<String> {
        let now = Self::now();
        let processes = now.processes.difference(&self.processes).map(|p| described(*p));
        let groups = now.groups.difference(&self.groups).map(|g| format!("control group {}", g.display()));
        let mounts = now.mounts.difference(&self.mounts).map(|m| format!("mount {m}"));
        processes.chain(groups).chain(mounts).collect()
    }

    /// Waits until nothing is there that was not there then.
    #[track_caller]
    fn back_within(&self, time: Duration) {
        let started = Instant::now();
        loop {
            let more = self.more();
            if more.is_empty() {
                return;
            }
            assert!(started.elapsed() < time, "left after {time:?}: {more:#?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// For a failure's message: who it is, whose child, and where in the kernel it is.
fn described(pid: i32) -> String {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stat = read("stat");
    let state: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').take(2).collect();
    format!(
        "process {pid} {}, state and parent {state:?}, in {} ({})",
        comm(pid),
        read("wchan"),
        read("syscall").trim()
    )
}

/// The directory above this process's own group, in each hierarchy in which a test run has one: the run's containers and
/// keepers are below. Empty when this program was started by hand.
fn group_tops() -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("/proc/self/cgroup");
    let mut tops = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let Some(parent) = Path::new(path).parent().filter(|p| p.starts_with("/ringfence-test/")) else { continue };
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        for point in [format!("/sys/fs/cgroup/{name}"), "/sys/fs/cgroup/unified".into(), "/sys/fs/cgroup".into()] {
            let top = Path::new(&point).join(parent.strip_prefix("/").expect("absolute"));
            if top.is_dir() {
                tops.push(top);
                break;
            }
        }
    }
    tops
}

fn walk(group: &Path, seen: &mut Seen) {
    let pids = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    seen.processes.extend(pids.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p != 0 && runs(*p)));
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            seen.groups.insert(entry.path());
            walk(&entry.path(), seen);
        }
    }
}

fn comm(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn descriptors_open() -> BTreeSet<i32> {
    std::fs::read_dir("/proc/self/fd")
        .expect("/proc/self/fd")
        .flatten()
        .filter_map(|e| e.file_name().to_str().and_then(|n| n.parse().ok()))
        .filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok_and(|l| !l.starts_with("/proc")))
        .collect()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("/proc/self/task").count()
}

/// No child: a wait for any says ECHILD.
#[track_caller]
fn assert_childless() {
    assert_no_child(0);
}

/// `options` may add `__WALL`: then not even a task without an exit signal, which an ordinary wait does not see.
#[track_caller]
fn assert_no_child(options: i32) {
    // SAFETY: waits for nothing that this test has, with valid arguments.
    let result = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | options) };
    let error = std::io::Error::last_os_error();
    assert!(result == -1 && error.raw_os_error() == Some(libc::ECHILD), "wait found a child: {result} ({error})");
}

// --- the host notices nothing -----------------------------------------------------------------------------------------------

/// Signals received for which process, as the handler saw them.
static SIGNALS: AtomicUsize = AtomicUsize::new(0);
static SENDERS: [AtomicI32; 65536] = [const { AtomicI32::new(0) }; 65536];

extern "C" fn on_sigchld(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let index = SIGNALS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel hands a SA_SIGINFO handler a valid siginfo.
    SENDERS[index % SENDERS.len()].store(unsafe { (*info).si_pid() }, Ordering::Relaxed);
}

fn handle_sigchld() {
    // SAFETY: installs a handler that only touches atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_sigchld as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()), 0);
    }
}

/// How often something is done that goes wrong by chance: on an emulated processor a fifth of it.
fn rounds(many: u64) -> u64 {
    if emulated() { many / 5 } else { many }
}

/// The virtual machine's processor is software: there the counts are smaller.
fn emulated() -> bool {
    std::env::var("RINGFENCE_TEST_TIER").is_ok_and(|tier| tier == "vm")
}

/// 2 GiB of touched heap, 64 threads, a SIGCHLD handler, a thread that reaps whatever child it finds, the host's own children:
/// and 1,000 containers from 32 threads.
fn busy_host() {
    // Under emulation a container takes some 50 times as long.
    let containers: usize = if emulated() { 100 } else { 1000 };
    const STARTERS: usize = 32;
    let memory = if emulated() { 256 << 20 } else { 2usize << 30 };
    let mut heap = vec![0u8; memory];
    heap.chunks_mut(4096).for_each(|page| page[0] = 1);
    handle_sigchld();
    let before = Seen::now();
    let stop = Arc::new(AtomicBool::new(false));
    let idle: Vec<_> = (0..64)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
            })
        })
        .collect();
    let own = Arc::new(Mutex::new(BTreeSet::new()));
    let reaped = Arc::new(Mutex::new(BTreeSet::new()));
    // One container first: what the library keeps for good (sockets to its keeper) is counted by no later comparison.
    drop(start(["true"]));
    let (fds, tasks) = (descriptors_open(), threads());
    // Of the host's own: the reaper may see none between two of them.
    let last = Arc::new(AtomicBool::new(false));
    let reaper = {
        let (last, reaped) = (last.clone(), reaped.clone());
        std::thread::spawn(move || {
            loop {
                // SAFETY: reaps any child; that is the point.
                match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
                    pid @ 1.. => {
                        reaped.lock().unwrap().insert(pid);
                    }
                    -1 if last.load(Ordering::Relaxed) => break,
                    _ => std::thread::sleep(Duration::from_micros(200)),
                }
            }
        })
    };
    #[expect(clippy::zombie_processes, reason = "the reaper collects them")]
    let beside = {
        let (stop, own) = (stop.clone(), own.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let child = HostCommand::new("true").spawn().expect("a child of the host's own");
                own.lock().unwrap().insert(child.id() as i32);
                std::thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..STARTERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= containers {
                        break;
                    }
                    let code = (number % 200).to_string();
                    let container = start(["sh", "-c", &format!("exit {code}")]);
                    let main = container.main().expect("a main process");
                    let status = main.wait(Some(Duration::from_secs(60))).expect("wait").expect("ended in time");
                    assert_eq!(status.code, Some((number % 200) as i32), "{status:?}");
                    container.close(Some(Duration::from_secs(30))).expect("close");
                }
            });
        }
    });
    stop.store(true, Ordering::Relaxed);
    beside.join().unwrap();
    last.store(true, Ordering::Relaxed);
    reaper.join().unwrap();
    let (own, reaped) = (own.lock().unwrap(), reaped.lock().unwrap());
    let stolen: Vec<_> = reaped.difference(&own).collect();
    assert!(stolen.is_empty(), "the host reaped children that are not its own: {stolen:?}");
    let strangers: Vec<_> = SENDERS[..SIGNALS.load(Ordering::Relaxed).min(SENDERS.len())]
        .iter()
        .map(|s| s.load(Ordering::Relaxed))
        .filter(|pid| !own.contains(pid))
        .collect();
    assert!(strangers.is_empty(), "SIGCHLD from processes that are not the host's children: {strangers:?}");
    assert_eq!(own.len(), reaped.len(), "children of the host's own that it could not reap");
    idle.into_iter().for_each(|thread| thread.join().unwrap());
    let deadline = Instant::now() + Duration::from_secs(10);
    // The 64 idle threads, the reaper and its companion are gone; ringfence has none of its own.
    while threads() > tasks - 64 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(threads() <= tasks - 64, "{} threads more than before", threads() + 64 - tasks);
    ringfence::end_keepers();
    let more = || {
        let name = |fd: &i32| format!("{fd} {:?}", std::fs::read_link(format!("/proc/self/fd/{fd}")));
        descriptors_open().difference(&fds).map(name).collect::<Vec<_>>()
    };
    // A keeper more, for each further CPU, has its channel and its pidfd; it goes when it has nothing to do.
    while more().len() > 8 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(more().len() <= 8, "descriptors more than after the first container: {:#?}", more());
    before.back_within(Duration::from_secs(10));
    std::hint::black_box(&heap);
}

/// Everything of the process that a program can look at, except what changes by itself.
fn look_at_self() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let wanted =
        ["Umask", "Uid", "Gid", "Groups", "SigQ", "SigBlk", "SigIgn", "SigCgt", "Cap", "NoNewPrivs", "Seccomp"];
    let mut facts: Vec<String> = status
        .lines()
        .filter(|l| wanted.iter().any(|w| l.starts_with(w)) && !l.starts_with("SigQ"))
        .map(Into::into)
        .collect();
    facts.push(format!("cwd {:?}", std::env::current_dir()));
    facts.push(format!("root {:?}", std::fs::read_link("/proc/self/root")));
    facts.push(std::fs::read_to_string("/proc/self/limits").expect("limits"));
    facts.push(std::fs::read_to_string("/proc/self/cgroup").expect("cgroup"));
    facts.push(std::fs::read_to_string("/proc/self/oom_score_adj").expect("oom_score_adj"));
    facts.push(format!("{:?}", std::env::vars_os().collect::<Vec<_>>()));
    for entry in std::fs::read_dir("/proc/self/ns").expect("ns").flatten() {
        facts.push(format!("{:?}", std::fs::read_link(entry.path())));
    }
    for fd in 0..3 {
        facts.push(format!("{:?}", std::fs::read_link(format!("/proc/self/fd/{fd}"))));
        // SAFETY: reads flags of a descriptor.
        facts.push(format!("flags {} {}", unsafe { libc::fcntl(fd, libc::F_GETFD) }, unsafe {
            libc::fcntl(fd, libc::F_GETFL)
        }));
    }
    // SAFETY: all of these only read attributes of the process.
    unsafe {
        facts.push(format!("dumpable {}", libc::prctl(libc::PR_GET_DUMPABLE)));
        facts.push(format!("session {} group {}", libc::getsid(0), libc::getpgid(0)));
        facts.push(format!("nice {}", libc::getpriority(libc::PRIO_PROCESS, 0)));
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        facts.push(format!("cpus {}", libc::CPU_COUNT(&set)));
        let mut reaper = 0;
        libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &mut reaper);
        facts.push(format!("subreaper {reaper}"));
    }
    facts
}

fn nothing_changed() {
    let before = look_at_self();
    let container = start(["sleep", "100"]);
    let during = look_at_self();
    assert_no_child(libc::__WALL);
    container.command("true").output().expect("a command");
    container.close(Some(Duration::from_secs(5))).expect("close");
    let after = look_at_self();
    assert_eq!(before, during, "while a container runs");
    assert_eq!(before, after, "after its end");
    assert_eq!(threads(), 1, "threads");
}

fn descriptors() {
    let before = descriptors_open();
    let container = start(["sleep", "100"]);
    let mut command = container.command("cat");
    let process = command.stdin(Stdio::Pipe).stdout(Stdio::Pipe).spawn().expect("a command");
    for fd in descriptors_open().difference(&before) {
        // SAFETY: reads flags of a descriptor.
        let flags = unsafe { libc::fcntl(*fd, libc::F_GETFD) };
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        assert!(flags & libc::FD_CLOEXEC != 0, "descriptor {fd} ({link:?}) would be inherited");
    }
    process.kill(libc::SIGKILL).expect("kill");
    process.wait(None).expect("wait");
    container.close(Some(Duration::from_secs(5))).expect("close");
    drop((process, container));
    let open = descriptors_open().len();
    for _ in 0..rounds(50) {
        let container = start(["true"]);
        container.main().expect("main").wait(None).expect("wait");
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while descriptors_open().len() > open && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        descriptors_open().len() <= open,
        "descriptors are lost with each container: {} > {open}",
        descriptors_open().len()
    );
}

fn silence() {
    let output = HostCommand::new(myself()).args(["--victim", "ordinary"]).output().expect("a host");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
}

/// Where a path of the control groups exists.
fn in_hierarchies(path: &str) -> Vec<PathBuf> {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(&root).expect("/sys/fs/cgroup").flatten().map(|entry| entry.path());
    hierarchies.chain([root]).map(|top| top.join(&path[1..])).filter(|path| path.exists()).collect()
}

#[track_caller]
fn gone_within_a_second(path: &str) {
    let started = Instant::now();
    while !in_hierarchies(path).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(1), "left: {:?}", in_hierarchies(path));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn no_empty_groups() {
    let base = std::env::var("RINGFENCE_CGROUP_PARENT").unwrap_or_else(|_| "/ringfence-test".into());
    let top = format!("{base}/made-{}", std::process::id());
    for place in [top.clone(), format!("{top}/below/it")] {
        let mut command = HostCommand::new(myself());
        command.args(["--victim", "groups", &top]).env("RINGFENCE_CGROUP_PARENT", &place);
        let output = command.output().expect("a host");
        assert!(output.status.success(), "{output:?}");
        gone_within_a_second(&top);
    }
}

fn makes_groups(top: &str) {
    for _ in 0..2 {
        let spec = Spec { argv: vec!["true".into()], ..Spec::default() };
        let container = Container::start(&spec).expect("start");
        let info: serde_json::Value = serde_json::from_str(&container.info_json()).expect("JSON");
        assert_eq!(info["cgroup"].is_null(), in_hierarchies(top).is_empty(), "{info}");
        container.close(Some(Duration::from_secs(5))).expect("close");
        // The next start finds that its directories are gone.
        ringfence::end_keepers();
        gone_within_a_second(top);
    }
}

fn sigchld_ignored() {
    // SAFETY: a disposition of this test's own process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let container = start(["sh", "-c", "exit 23"]);
    let status = container.main().expect("main").wait(Some(Duration::from_secs(10))).expect("wait").expect("ended");
    assert_eq!((status.code, status.reason), (Some(23), Reason::Exited));
    let output = container_of_nothing().command("sh").args(["-c", "exit 9"]).output().expect("a command");
    assert_eq!(output.status.code, Some(9));
    assert_childless();
}

fn container_of_nothing() -> Container {
    start([])
}

fn subreaper() {
    // SAFETY: an attribute of this test's own process.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    handle_sigchld();
    for _ in 0..rounds(20) {
        let container = start(["sh", "-c", "(sleep 0.01 &) ; exit 3"]);
        let status = container.main().expect("main").wait(Some(Duration::from_secs(10))).expect("wait").expect("ended");
        assert_eq!(status.code, Some(3));
        assert_childless();
    }
    ringfence::end_keepers();
    std::thread::sleep(Duration::from_millis(100));
    assert_childless();
    assert_eq!(SIGNALS.load(Ordering::Relaxed), 0, "SIGCHLD");
}

fn pid_one() {
    let mut command = HostCommand::new("unshare");
    let state = tempfile::Builder::new().prefix("ringfence-state-").tempdir().expect("a directory");
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        // There, this user has its own id only, and no capabilities.
        command.args(["--user", "--map-current-user"]);
        command.env("RINGFENCE_STATE_DIR", state.path());
    }
    let output = command.args(["--pid", "--fork", "--mount-proc"]).arg(myself()).args(["--victim", "pid-one"]).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("unshare: ") => {
            skip(&format!("no pid namespace here: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        other => panic!("{other:?}"),
    }
}

/// As on distributions whose root is an image: /home and /root are links into /var.
fn linked_home() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("another root file system takes root");
    }
    const ROOT: &str = r#"
        set -e
        mount -t tmpfs test /mnt
        mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work test /mnt/root
        cd /mnt/root
        # It may lie in a file system of its own.
        touch program
        mount --bind "$1" program
        shift
        rm -rf home
        mkdir -p var/home/somebody
        ln -s var/home home
        for dir in proc sys dev; do mount --rbind /$dir $dir; done
        mkdir old
        pivot_root . old
        umount -l /old
        exec /program "$@"
    "#;
    let mut command = HostCommand::new("unshare");
    command.args(["--mount", "sh", "-c", ROOT, "sh"]).arg(myself()).args(["--victim", "linked-home"]);
    let output = command.output().expect("unshare");
    assert!(output.status.success(), "{output:?}");
}

fn has_linked_home() {
    let mut spec = spec(["sh", "-c", "ls -A /home /var/home; touch /home/new; ls -A /var/home; readlink /home"]);
    spec.stdout = Some(Stdio::Pipe);
    let container = Container::start(&spec).unwrap_or_else(|e| panic!("{e}"));
    let output = container.main().expect("main").communicate(None, Some(Duration::from_secs(10))).expect("output");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/home:\n\n/var/home:\nnew\nvar/home\n");
}

/// In a rootless container, say: all capabilities, but only over its own namespaces.
fn root_of_a_namespace() {
    let pid: [&str; 3] = ["--mount", "--pid", "--fork"];
    let with_proc = [&pid[..], &["--mount-proc"]].concat();
    for (namespaces, expected) in
        [(&with_proc[..], "single"), (&["--mount"], "single"), (&[], "single"), (&pid, "another /proc")]
    {
        let mut command = HostCommand::new("unshare");
        command.args(["--user", "--map-root-user"]).args(namespaces).arg(myself());
        match command.args(["--victim", "namespace-root", expected]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("unshare: ") => {
                skip(&format!("no user namespace here: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
            other => panic!("{namespaces:?}: {other:?}"),
        }
    }
}

fn root_of_many_ids() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root can give a namespace many ids");
    }
    const FIRST: u32 = 1_900_000_000;
    // Not below this run's own directory, which is closed to others.
    let state = tempfile::Builder::new().prefix("ringfence-state-").tempdir_in("/tmp").expect("a directory");
    std::os::unix::fs::chown(state.path(), Some(FIRST), Some(FIRST)).expect("chown");
    let become_root = "echo; read go; exec setpriv --reuid 0 --regid 0 --clear-groups \"$@\"";
    let mut child = HostCommand::new("unshare")
        .args(["--user", "--keep-caps", "sh", "-c", become_root, "sh"])
        .arg(myself())
        .args(["--victim", "namespace-root", "auto"])
        .env("RINGFENCE_STATE_DIR", state.path())
        // Control groups are not given to it.
        .env_remove("RINGFENCE_CGROUP_PARENT")
        .stdin(HostStdio::piped())
        .stdout(HostStdio::piped())
        .spawn()
        .expect("unshare");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("it is in its namespace");
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{map}", child.id()), format!("0 {FIRST} 200000\n")).expect("a map");
    }
    child.stdin.as_mut().expect("piped").write_all(b"\n").expect("go");
    assert!(child.wait().expect("wait").success());
}

fn is_namespace_root(mode: &str) {
    // SAFETY: geteuid has no preconditions.
    assert_eq!(unsafe { libc::geteuid() }, 0);
    let mut spec = spec(["sh", "-c", "id -u; cat /proc/self/uid_map; touch /tmp/x; test -r /etc/hostname"]);
    spec.stdout = Some(Stdio::Pipe);
    if mode == "another /proc" {
        let error = Container::start(&spec).expect_err("a start without a /proc");
        assert!(error.hint().is_some_and(|hint| hint.contains("--mount-proc")), "{error}");
        return;
    }
    let container = Container::start(&spec).expect("start");
    let info: serde_json::Value = serde_json::from_str(&container.info_json()).expect("JSON");
    let output = container.main().expect("main").communicate(None, Some(Duration::from_secs(10))).expect("output");
    assert!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("0"));
    let ids: u32 =
        lines.map(|line| line.split_whitespace().nth(2).expect("a count").parse::<u32>().expect("a count")).sum();
    assert_eq!(info["idmap"]["mode"], mode, "{info}");
    assert!(if mode == "single" { ids == 1 } else { ids >= 65_536 }, "{text}");
    container.close(Some(Duration::from_secs(5))).expect("close");
}

/// Every machine that boots by EFI has such a mount: /boot/efi, closed to all but root, and FAT.
fn odd_mounts() {
    const MOUNTS: &str = r#"
        set -e
        mount -t tmpfs -o mode=0755 test /srv
        cd /srv
        mkdir open closed twice thrice below
        mount -t tmpfs -o mode=0755 test open
        echo seen > open/file
        mount -t tmpfs -o mode=0700 test closed
        mkdir closed/inner
        mount -t tmpfs -o mode=0755 test closed/inner
        mount -t overlay -o lowerdir=/srv/open:/srv/below test twice
        mount -t overlay -o lowerdir=/srv/twice:/srv/below test thrice
        exec $DROP "$@"
    "#;
    let mut command = HostCommand::new("unshare");
    command.arg("--mount");
    let state = tempfile::Builder::new().prefix("ringfence-state-").tempdir().expect("a directory");
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        // With capabilities to mount, and without them for the host.
        command.args(["--user", "--map-current-user", "--keep-caps"]);
        command.env("DROP", "setpriv --ambient-caps=-all --inh-caps=-all");
        command.env("RINGFENCE_STATE_DIR", state.path());
    }
    command.args(["sh", "-c", MOUNTS, "sh"]).arg(myself());
    match command.args(["--victim", "odd-mounts", if root { "root" } else { "user" }]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("unshare: ") => {
            skip(&format!("no mount namespace here: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        other => panic!("{other:?}"),
    }
}

fn shows_odd_mounts(root: bool) {
    let script = "cat /srv/open/file; ls -d /srv/closed/inner; ls /srv/twice; ls /srv/thrice";
    let mut spec = spec(["sh", "-c", script]);
    spec.stdout = Some(Stdio::Pipe);
    let container = Container::start(&spec).expect("start");
    let info: serde_json::Value = serde_json::from_str(&container.info_json()).expect("JSON");
    let output = container.main().expect("main").communicate(None, Some(Duration::from_secs(10))).expect("output");
    let mut seen = vec!["seen", "file"];
    let mut left_out = vec!["/srv/thrice"];
    if root {
        // Nobody's directory inside, and what is mounted below it.
        left_out = vec!["/srv/closed", "/srv/thrice", "/srv/closed/inner"];
    } else {
        seen.insert(1, "/srv/closed/inner");
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().collect::<Vec<_>>(), seen);
    let told: Vec<_> = info["left_out"].as_array().expect("a list").iter().filter_map(|p| p.as_str()).collect();
    assert_eq!(told.iter().filter(|p| p.starts_with("/srv")).collect::<Vec<_>>(), left_out.iter().collect::<Vec<_>>());
}

// --- forked workers ---------------------------------------------------------------------------------------------------------

/// Runs a body in a forked child, as multiprocessing does; its panics are failures here.
fn in_worker(body: impl FnOnce()) -> i32 {
    // SAFETY: the child runs the body and leaves by _exit; this process has one thread at the time.
    match unsafe { libc::fork() } {
        0 => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: ends the child without the parent's exit handlers.
            unsafe { libc::_exit(i32::from(result.is_err())) }
        }
        pid => {
            assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
            pid
        }
    }
}

#[track_caller]
fn join_worker(pid: i32) {
    let mut status = 0;
    // SAFETY: waits for a child of this test.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert_eq!(status, 0, "the worker failed");
}

fn forked_before() {
    let workers: Vec<i32> = (0..4)
        .map(|n| {
            in_worker(move || {
                let container = start(["sh", "-c", &format!("exit {n}")]);
                let status = container.main().expect("main").wait(Some(Duration::from_secs(20))).expect("wait");
                assert_eq!(status.expect("ended").code, Some(n));
                container.close(Some(Duration::from_secs(5))).expect("close");
            })
        })
        .collect();
    let container = start(["true"]);
    container.main().expect("main").wait(None).expect("wait");
    workers.into_iter().for_each(join_worker);
    assert_childless();
}

fn forked_after() {
    let container = start(["sleep", "100"]);
    let pid = container.pid();
    let copy = container.clone();
    let worker = in_worker(move || {
        let error = copy.command("true").output().expect_err("a call in a forked child");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::ForkedChild, libc::ECHILD), "{error}");
        let error = copy.close(Some(Duration::from_secs(1))).expect_err("close in a forked child");
        assert_eq!(error.kind(), ErrorKind::ForkedChild, "{error}");
        drop(copy);
        // A container of the worker's own is another matter.
        let own = start(["true"]);
        own.main().expect("main").wait(Some(Duration::from_secs(20))).expect("wait").expect("ended");
    });
    join_worker(worker);
    assert!(container.is_running(), "the worker's end took the container along");
    assert_eq!(container.pid(), pid);
    assert!(container.command("true").output().expect("a command after the fork").status.success());
    container.close(Some(Duration::from_secs(5))).expect("close");
    assert_childless();
}

// --- pipes ------------------------------------------------------------------------------------------------------------------

fn parallel_pipes() {
    std::thread::scope(|scope| {
        for thread in 0..rounds(32) {
            scope.spawn(move || {
                for round in 0..4 {
                    let text = format!("thread {thread} round {round}");
                    let mut spec = spec(["cat"]);
                    (spec.stdin, spec.stdout) = (Some(Stdio::Pipe), Some(Stdio::Pipe));
                    let container = Container::start(&spec).expect("start");
                    let main = container.main().expect("main");
                    let mut stdin = std::fs::File::from(main.take_stdin().expect("stdin"));
                    let mut stdout = std::fs::File::from(main.take_stdout().expect("stdout"));
                    stdin.write_all(text.as_bytes()).expect("write");
                    drop(stdin);
                    // If another container or the keeper held a copy of the pipe's other end, cat would never see its end.
                    let status = main.wait(Some(Duration::from_secs(30))).expect("wait");
                    assert!(status.expect("a pipe end is held elsewhere").success());
                    let mut seen = String::new();
                    stdout.read_to_string(&mut seen).expect("read");
                    assert_eq!(seen, text);
                }
            });
        }
    });
}

// --- the end of the host ----------------------------------------------------------------------------------------------------

fn dropped() {
    let before = Seen::now();
    let container = start(["sleep", "100"]);
    let copy = container.clone();
    drop(container);
    assert!(copy.is_running(), "a clone keeps it");
    let pid = copy.pid();
    drop(copy);
    let started = Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() {
        assert!(started.elapsed() < Duration::from_secs(1), "still there a second after the last handle was dropped");
        std::thread::sleep(Duration::from_millis(2));
    }
    ringfence::end_keepers();
    before.back_within(Duration::from_secs(7));
}

fn victim_command(what: &[&str]) -> HostCommand {
    let mut command = HostCommand::new(myself());
    command.arg("--victim").args(what).stdin(HostStdio::null()).stdout(HostStdio::piped());
    command
}

/// Starts a victim and waits for the line that says it is ready.
fn victim_ready(what: &[&str]) -> std::process::Child {
    let mut child = victim_command(what).spawn().expect("a host");
    let mut byte = [0];
    child.stdout.as_mut().expect("piped").read_exact(&mut byte).expect("the host gets ready");
    child
}

fn host_exits() {
    let before = Seen::now();
    let mut child = victim_ready(&["run", "exit"]);
    child.wait().expect("wait");
    before.back_within(Duration::from_secs(1));
}

fn host_executes() {
    let before = Seen::now();
    let mut child = victim_ready(&["run", "exec"]);
    let mut known = before.clone();
    known.processes.insert(child.id() as i32);
    known.back_within(Duration::from_millis(1500));
    assert!(child.try_wait().expect("wait").is_none(), "the program that was executed lives");
    child.kill().expect("kill");
    child.wait().expect("wait");
    before.back_within(Duration::from_secs(1));
}

fn host_killed_with_workers() {
    let before = Seen::now();
    let mut child = victim_ready(&["run", "workers"]);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().expect("piped")), &mut line)
        .expect("pids");
    let workers: Vec<i32> = line.split_whitespace().map(|w| w.parse().expect("a pid")).collect();
    child.kill().expect("kill");
    child.wait().expect("wait");
    let mut known = before.clone();
    known.processes.extend(&workers);
    known.back_within(Duration::from_secs(1));
    for pid in workers {
        // SAFETY: ends a worker of the victim that this test started.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "the worker lived to the end");
    }
    before.back_within(Duration::from_secs(1));
}

fn host_killed_at_random() {
    let times = rounds(200);
    let before = Seen::now();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ std::process::id() as u64;
    for _ in 0..times {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Half of them within the first start, which begins with the keeper's own.
        let pause = Duration::from_micros(if random & 1 == 0 { random >> 8 & 0xfff } else { random >> 8 & 0xffff });
        let mut child = victim_ready(&["loop"]);
        std::thread::sleep(pause);
        assert!(child.try_wait().expect("wait").is_none(), "the host ended by itself");
        child.kill().expect("kill");
        child.wait().expect("wait");
        before.back_within(Duration::from_secs(1));
    }
}

/// Hosts that are treated badly, or are looked at from outside.
fn victim(arguments: &[String]) {
    let ready = || {
        let mut out = std::io::stdout();
        out.write_all(b".").and_then(|()| out.flush()).expect("tell that this host is ready");
    };
    match arguments[0].as_str() {
        "ordinary" => {
            let container = start(["sleep", "100"]);
            container.command("true").output().expect("a command");
            container.close(Some(Duration::from_secs(5))).expect("close");
        }
        "pid-one" => {
            assert_eq!(std::process::id(), 1);
            handle_sigchld();
            for _ in 0..10 {
                let container = start(["sh", "-c", "(sleep 0.01 &) ; exit 5"]);
                let status = container.main().expect("main").wait(Some(Duration::from_secs(10))).expect("wait");
                assert_eq!(status.expect("ended").code, Some(5));
                assert_childless();
            }
            assert_eq!(SIGNALS.load(Ordering::Relaxed), 0, "SIGCHLD");
        }
        "namespace-root" => is_namespace_root(&arguments[1]),
        "groups" => makes_groups(&arguments[1]),
        "collects" => assert_eq!(ringfence::gc().expect("gc").cgroups, 0),
        "collected" => {
            let _container = start(["sleep", "100"]);
            ready();
            std::thread::sleep(Duration::from_secs(60));
        }
        "linked-home" => has_linked_home(),
        "odd-mounts" => shows_odd_mounts(arguments[1] == "root"),
        "run" => {
            let containers: Vec<_> = (0..3).map(|_| start(["sleep", "100"])).collect();
            match arguments[1].as_str() {
                "exit" => {
                    ready();
                    // SAFETY: ends without destructors, as many programs do.
                    unsafe { libc::_exit(0) }
                }
                "exec" => {
                    ready();
                    panic!("{}", HostCommand::new("sleep").arg("60").stdout(HostStdio::null()).exec());
                }
                "workers" => {
                    let forever = || loop {
                        std::thread::sleep(Duration::from_secs(1));
                    };
                    let workers: Vec<i32> = (0..2).map(|_| in_worker(forever)).collect();
                    ready();
                    println!("{} {}", workers[0], workers[1]);
                    forever();
                }
                other => panic!("{other}"),
            }
            drop(containers);
        }
        "loop" => {
            ready();
            let mut kept = std::collections::VecDeque::new();
            loop {
                let mut spec = spec(["sleep", "100"]);
                spec.files.insert("/etc/ringfence-test".into(), ringfence::spec::File { data: vec![1], mode: 0o644 });
                kept.push_back(Container::start(&spec).expect("start"));
                if kept.len() > 3 {
                    kept.pop_front();
                }
            }
        }
        "several" => {
            for _ in 0..10 {
                let container = start(["sleep", "100"]);
                container.command("true").output().expect("a command");
                container.close(Some(Duration::from_secs(5))).expect("close");
            }
        }
        "detach" => detached::host(&arguments[1], arguments.get(2).map(String::as_str)),
        "without" => without(&arguments[1]),
        other => panic!("{other}"),
    }
}

// --- the end of the keeper --------------------------------------------------------------------------------------------------

/// The keepers of this host: processes of the library that are in this process's own control group or have its uid, and are no
/// container's pid 1.
fn keepers(before: &Seen, containers: &[Container]) -> Vec<i32> {
    let inits: BTreeSet<i32> = containers.iter().map(Container::pid).collect();
    containers
        .iter()
        .filter_map(|c| parent_of(c.pid()))
        .filter(|pid| comm(*pid).starts_with("ringfence") && !inits.contains(pid) && !before.processes.contains(pid))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Whether it runs; one that waits to be collected by its parent does not.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !stat.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|l| l.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn keeper_killed() {
    let before = Seen::now();
    for round in 0..rounds(20) {
        let container = start(["sleep", "100"]);
        let main = container.main().expect("main");
        let found = keepers(&before, std::slice::from_ref(&container));
        assert!(!found.is_empty(), "no keeper found");
        let stop = Arc::new(AtomicBool::new(false));
        let starter = {
            let (stop, container) = (stop.clone(), container.clone());
            std::thread::spawn(move || {
                // Calls that are under way when it dies end within their bounds, with an error or a result.
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let _ = container.spawn(&Command::new("true")).map(|p| p.wait(Some(Duration::from_secs(2))));
                    let _ = Container::start(&spec(["true"])).map(|c| c.close(Some(Duration::from_secs(2))));
                    assert!(started.elapsed() < Duration::from_secs(20), "a call hung: {:?}", started.elapsed());
                }
            })
        };
        std::thread::sleep(Duration::from_micros(round * 777));
        for pid in &found {
            // SAFETY: ends a keeper that this host started.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        let started = Instant::now();
        let status = main.wait(Some(Duration::from_secs(5))).expect("wait after the keeper's death");
        assert!(started.elapsed() < Duration::from_secs(5) && status.is_some(), "the wait did not return: {status:?}");
        stop.store(true, Ordering::Relaxed);
        starter.join().expect("calls in bounded time");
        let _ = container.close(Some(Duration::from_secs(2)));
        // What is killed takes a moment to go: gc says so, and the next one finds it gone.
        let asked = Instant::now();
        loop {
            let report = ringfence::gc().expect("gc");
            if report.remaining.is_empty() {
                break;
            }
            assert!(asked.elapsed() < Duration::from_secs(5), "{report:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    ringfence::end_keepers();
    before.back_within(Duration::from_secs(10));
}

/// Nobody asks, waits or collects: the kernel does it.
fn pid_one_without_keeper() {
    for init in [true, false] {
        for user in [None, Some("1000:1000".to_owned())] {
            let container = match Container::start(&Spec { init, user: user.clone(), ..spec(["sleep", "100"]) }) {
                // Without subordinate ids there is no other user.
                Err(error) if user.is_some() && !nix::unistd::geteuid().is_root() => {
                    assert_eq!(error.field(), Some("user"), "{error}");
                    continue;
                }
                started => started.unwrap_or_else(|e| panic!("{e}")),
            };
            let keeper = parent_of(container.pid()).expect("a keeper");
            // SAFETY: ends a keeper that this host started.
            assert_eq!(unsafe { libc::kill(keeper, libc::SIGKILL) }, 0);
            let killed = Instant::now();
            while runs(container.pid()) {
                assert!(killed.elapsed() < Duration::from_secs(10), "pid 1 lives on: init {init}, user {user:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = container.close(Some(Duration::from_secs(5)));
            ringfence::gc().expect("gc");
        }
    }
}

/// The keeper looks at what it is sent only when the thread that sent it has ended: then it does not believe it.
fn failed_on_a_thread() {
    let Some(parent) = std::env::var_os("RINGFENCE_CGROUP_PARENT") else {
        return skip("no control group for this caller");
    };
    let before = Seen::now();
    let first = start(["sleep", "100"]);
    let keeper = keepers(&before, std::slice::from_ref(&first))[0];
    // SAFETY: signals go to a keeper that this host started.
    let signal = |signal| assert_eq!(unsafe { libc::kill(keeper, signal) }, 0);
    let other = spec(["sleep", "100"]).cgroup_parent(Path::new(&parent).join("other"));
    signal(libc::SIGSTOP);
    let refused = other.clone().cpuset("8000");
    let failing = std::thread::spawn(move || Container::start(&refused).map(drop).expect_err("refused"));
    let stopped = Instant::now();
    while !failing.is_finished() && stopped.elapsed() < Duration::from_millis(300) {
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(libc::SIGCONT);
    assert_eq!(failing.join().expect("no panic").field(), Some("cpuset"));
    let second = Container::start(&other).unwrap_or_else(|e| panic!("{e}"));
    second.close(None).unwrap_or_else(|e| panic!("{e}"));
    first.close(None).expect("close");
    ringfence::end_keepers();
    before.back_within(Duration::from_secs(10));
}

/// This test's own program as pid 1 of another pid namespace, with the same control groups.
fn elsewhere(role: &str) -> HostCommand {
    let mut command = HostCommand::new("unshare");
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        command.args(["--user", "--map-current-user"]);
    }
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(myself()).args(["--victim", role]);
    command
}

fn other_pid_namespaces() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root's control groups are the same in another user namespace");
    }
    let before = Seen::now();
    let container = start(["sleep", "100"]);
    let output = elsewhere("collects").output().expect("unshare");
    assert!(output.status.success(), "{output:?}");
    assert!(container.is_running(), "killed by a gc that cannot see its keeper");

    // A whole namespace ends: its keeper cannot clean up. Whoever sees all namespaces knows that it is gone.
    let mut child = elsewhere("collected").stdout(HostStdio::piped()).spawn().expect("unshare");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("it has a container");
    let there = Seen::now();
    let report = ringfence::gc().expect("gc");
    let gone = there.groups.difference(&Seen::now().groups).cloned().collect::<Vec<_>>();
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(report.cgroups == 0, "it lives: {report:?} {gone:?} {:?}", container.id());
    let asked = Instant::now();
    while ringfence::gc().expect("gc").cgroups == 0 {
        assert!(asked.elapsed() < Duration::from_secs(5), "gc found nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    container.close(Some(Duration::from_secs(5))).expect("close");
    ringfence::end_keepers();
    before.back_within(Duration::from_secs(10));
}

fn waits() {
    let container = start(["sleep", "100"]);
    let main = container.main().expect("main");
    assert!(main.try_wait().expect("try_wait").is_none());
    let started = Instant::now();
    assert!(main.wait(Some(Duration::from_millis(100))).expect("wait").is_none());
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(100) && took < Duration::from_secs(2), "{took:?}");
    let waiter = {
        let main = main.clone();
        std::thread::spawn(move || main.wait(None))
    };
    std::thread::sleep(Duration::from_millis(50));
    main.cancel_waits();
    let error = waiter.join().unwrap().expect_err("a cancelled wait");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    let waiter = {
        let container = container.clone();
        std::thread::spawn(move || container.wait_end(None))
    };
    std::thread::sleep(Duration::from_millis(50));
    container.close(Some(Duration::from_secs(5))).expect("close");
    let started = Instant::now();
    let _ = waiter.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "a wait outlived close");
    let error = container.command("true").output().expect_err("a call after close");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

// --- older kernels ----------------------------------------------------------------------------------------------------------

/// System calls that are younger than Linux 5.0 (x86-64 numbers are those of every newer architecture), by name.
const NEWER: &[(&str, libc::c_long)] = &[
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("clone3", libc::SYS_clone3),
    ("close_range", libc::SYS_close_range),
    ("openat2", libc::SYS_openat2),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("memfd_create", libc::SYS_memfd_create),
];

fn missing_system_calls() {
    let mut wrong = Vec::new();
    for (name, _) in NEWER {
        let output = HostCommand::new(myself()).args(["--victim", "without", name]).output().expect("a host");
        println!("{name}: {}", String::from_utf8_lossy(&output.stdout).trim());
        if !output.status.success() {
            wrong.push(format!("{name}: {} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A host for whom one system call does not exist: a container starts all the same, or the error names the call.
fn without(name: &str) {
    let number = NEWER.iter().find(|n| n.0 == name).expect("a system call").1;
    let filter = [
        libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number as u32 },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
        libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: geteuid has no preconditions; the filter lives through the call. A caller with CAP_SYS_ADMIN needs no
    // no_new_privs, which would make newuidmap useless; for an ordinary one the kernel insists.
    unsafe {
        if libc::geteuid() != 0 {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        }
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
    let started = Instant::now();
    let life = Container::start(&spec(["sh", "-c", "exit 4"])).and_then(|container| {
        let status = container.main().expect("main").wait(Some(Duration::from_secs(10)))?;
        assert_eq!(status.expect("ended").code, Some(4));
        container.close(Some(Duration::from_secs(5)))
    });
    match life {
        Ok(()) => println!("works"),
        Err(error) => {
            assert!(started.elapsed() < Duration::from_secs(15), "an error after {:?}", started.elapsed());
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(name), "the error does not name {name}: {error}");
            println!("{error}");
        }
    }
}
