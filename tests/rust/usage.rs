//! Figures of usage against independent readings: control files, /proc, what a device and a network carried.
//!
//! tests/run: timeout=600 vm=root,delegated

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use common::*;
use ringfence::spec::{IoMax, Stdio};
use ringfence::{Beancounter, Command, Container, ErrorKind, EventKind, EventOptions, Process, Reason, Spec, Usage};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// The container's group with a controller, and whether it is on v2; an empty name: the one of the v2 tree.
fn group(container: &Container, v1: &str, v2: &str) -> Option<(PathBuf, bool)> {
    let info: Value = serde_json::from_str(&container.info_json()).unwrap();
    let groups = info["cgroup"]["groups"].as_array()?.clone();
    let has = |group: &Value, name: &str| group["controllers"].as_array().unwrap().iter().any(|c| c == name);
    let path = |group: &Value| PathBuf::from(group["path"].as_str().unwrap());
    if let Some(found) = groups.iter().find(|g| g["version"] == 1 && has(g, v1)) {
        return Some((path(found), false));
    }
    let found = groups.iter().find(|g| g["version"] == 2 && (v2.is_empty() || has(g, v2)))?;
    Some((path(found), true))
}

fn text(path: impl AsRef<std::path::Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

/// `key N` in a control file.
fn line(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().parse().unwrap()
}

/// A process that says "ready" when it is, and then waits for the end of its input.
struct Waiting {
    process: Process,
    input: Option<File>,
}

impl Waiting {
    fn start(container: &Container, perl: &str) -> Self {
        let mut command = Command::new("perl");
        command.args(["-e", &format!("$| = 1; {perl}; print qq(ready\\n); <STDIN>;")]);
        command.stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Inherit);
        let process = container.spawn(&command).unwrap();
        let mut ready = [0; 6];
        File::from(process.take_stdout().unwrap()).read_exact(&mut ready).expect("it is ready");
        let input = process.take_stdin().map(File::from);
        Self { process, input }
    }

    fn end(mut self) {
        drop(self.input.take());
        assert_eq!(self.process.wait(TIMEOUT).unwrap().unwrap().code, Some(0));
    }
}

fn near(a: Option<u64>, b: u64, within: u64) {
    assert!(a.is_some_and(|a| a.abs_diff(b) <= within), "{a:?} and {b} (+-{within})");
}

#[test]
fn memory_by_kind_is_what_the_control_files_say() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "512M"}));
    let hog = Waiting::start(
        &container,
        "$x = 'x' x (40 << 20); open F, '>', '/dev/shm/f'; print F 'y' x (8 << 20); close F",
    );
    let (path, v2) = group(&container, "memory", "memory").expect("a group");
    let (usage, stat) = (container.usage().unwrap(), text(path.join("memory.stat")));
    // The kernel adds up what its processors counted every two seconds, or when it is much.
    const BATCH: u64 = 2 << 20;
    let names = if v2 {
        [
            ("anon", "anon"),
            ("shmem", "shmem"),
            ("file", "file"),
            ("slab", "slab"),
            ("kernel_stack", "kernel_stack"),
            ("pgfault", "pgfault"),
        ]
    } else {
        [
            ("anon", "total_rss"),
            ("shmem", "total_shmem"),
            ("file", "total_cache"),
            ("file_dirty", "total_dirty"),
            ("unevictable", "total_unevictable"),
            ("pgfault", "total_pgfault"),
        ]
    };
    for (ours, theirs) in names {
        near(usage.get(&format!("memory_{ours}")).expect(ours), line(&stat, theirs), BATCH);
    }
    assert!(usage.memory_anon >= Some(40 << 20), "{usage:?}");
    near(usage.memory_shmem, 8 << 20, BATCH);
    let current: u64 =
        text(path.join(if v2 { "memory.current" } else { "memory.usage_in_bytes" })).trim().parse().unwrap();
    near(usage.memory_current, current, BATCH);
    assert!(usage.memory_kernel.is_some_and(|bytes| bytes > 0 && bytes < current), "{usage:?}");
    hog.end();
    let after = container.usage().unwrap();
    assert!(after.memory_anon < Some(20 << 20), "{after:?}");
    assert!(after.memory_peak >= Some(48 << 20), "{after:?}");
    container.close(None).unwrap();
}

/// Reads until nothing changed between two readings of a control file: what `figures` made of it in between is of the same
/// moment.
fn at_rest<T>(file: &std::path::Path, mut figures: impl FnMut() -> T) -> (String, T) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = text(file);
        let seen = figures();
        if text(file) == before {
            return (before, seen);
        }
        assert!(Instant::now() < deadline, "{} changes all the time", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn kinds_of_memory_to_the_byte() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // A file that is in no account yet: whoever maps it has to have it read. Not below TMPDIR, which may be in memory.
    let files = public_tmp();
    let path = files.path().join("file");
    fs::write(&path, vec![7; 8 << 20]).unwrap();
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    // SAFETY: the descriptor is open, and no memory is passed.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    let container = start(json!({"memory": "512M", "mounts": [format!("{}:/data:rw", files.path().display())]}));
    // Maps a file, has what it wrote to another one not written back, and a connection in which something waits to be read.
    const LOAD: &str = "import mmap, os, socket, sys
f = open('/data/file', 'r+b')
m = mmap.mmap(f.fileno(), 0)
total = sum(m[i] for i in range(0, len(m), 4096))
g = open('/data/other', 'wb'); g.write(bytes(1 << 20)); g.flush()
server = socket.create_server(('127.0.0.1', 7000))
client = socket.create_connection(('127.0.0.1', 7000))
there, _ = server.accept()
client.sendall(bytes(64 << 10))
print('ready', flush=True)
sys.stdin.read()";
    let mut command = Command::new("python3");
    command.args(["-c", LOAD]).stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Inherit);
    let process = container.spawn(&command).unwrap();
    let mut ready = [0; 6];
    File::from(process.take_stdout().unwrap()).read_exact(&mut ready).expect("it is ready");
    let (path, v2) = group(&container, "memory", "memory").expect("a group");
    let (stat, usage) = at_rest(&path.join("memory.stat"), || container.usage().unwrap());
    let names: &[(&str, &str)] = if v2 {
        &[
            ("anon", "anon"),
            ("file", "file"),
            ("shmem", "shmem"),
            ("file_mapped", "file_mapped"),
            ("file_dirty", "file_dirty"),
            ("file_writeback", "file_writeback"),
            ("kernel", "kernel"),
            ("kernel_stack", "kernel_stack"),
            ("pagetables", "pagetables"),
            ("percpu", "percpu"),
            ("sock", "sock"),
            ("slab", "slab"),
            ("slab_reclaimable", "slab_reclaimable"),
            ("slab_unreclaimable", "slab_unreclaimable"),
            ("unevictable", "unevictable"),
            ("pgfault", "pgfault"),
            ("pgmajfault", "pgmajfault"),
        ]
    } else {
        &[
            ("anon", "total_rss"),
            ("file", "total_cache"),
            ("shmem", "total_shmem"),
            ("file_mapped", "total_mapped_file"),
            ("file_dirty", "total_dirty"),
            ("file_writeback", "total_writeback"),
            ("unevictable", "total_unevictable"),
            ("pgfault", "total_pgfault"),
            ("pgmajfault", "total_pgmajfault"),
        ]
    };
    let figure = |name: &str| usage.get(&format!("memory_{name}")).expect("a name");
    for (ours, theirs) in names {
        assert_eq!(figure(ours), Some(line(&stat, theirs)), "{ours}");
        println!("{ours}: {:?}", figure(ours));
    }
    assert!(usage.memory_file_mapped >= Some(8 << 20), "{usage:?}");
    assert!(usage.memory_pgmajfault >= Some(1), "{usage:?}");
    if v2 {
        for some in ["pagetables", "kernel_stack", "percpu", "slab_reclaimable", "slab_unreclaimable"] {
            assert!(figure(some) > Some(0), "{some}");
        }
        assert!(usage.memory_sock >= Some(64 << 10), "{usage:?}");
        let events = text(path.join("memory.events"));
        for (ours, theirs) in
            [("high_hits", "high"), ("low_hits", "low"), ("limit_hits", "max"), ("oom_kills", "oom_kill")]
        {
            assert_eq!(figure(ours), Some(line(&events, theirs)), "{ours}");
        }
    } else {
        // What v1 does not count.
        for none in
            ["kernel_stack", "pagetables", "percpu", "slab", "slab_reclaimable", "high_hits", "low_hits", "swap_peak"]
        {
            assert_eq!(figure(none), None, "{none}");
        }
        let tcp = fs::read_to_string(path.join("memory.kmem.tcp.usage_in_bytes")).ok();
        assert_eq!(usage.memory_sock, tcp.map(|text| text.trim().parse().unwrap()));
    }
    drop(process.take_stdin());
    assert_eq!(process.wait(TIMEOUT).unwrap().unwrap().code, Some(0));
    container.close(None).unwrap();
}

#[test]
fn processes_and_processor_time() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"pids": 30, "cpus": 0.2}));
    let before = container.usage().unwrap();
    // Four at once, so that a busy machine too gives them more than the limit.
    sh_in(&container, "for i in 1 2 3 4; do timeout 1.5 sh -c 'while :; do :; done' & done; wait; true");
    let usage = container.usage().unwrap();
    assert!(usage.pids_peak >= Some(before.pids_current.unwrap() + 5), "{usage:?}");
    assert_eq!((usage.pids_max, usage.pids_refused), (Some(30), Some(0)));
    let (path, _) = group(&container, "cpu", "cpu").expect("a group");
    let stat = text(path.join("cpu.stat"));
    assert!(usage.cpu_periods >= Some(5) && usage.cpu_periods <= Some(line(&stat, "nr_periods")), "{usage:?}");
    assert!(usage.cpu_throttled_periods > Some(0) && usage.cpu_throttled_periods <= usage.cpu_periods);
    if let Some((tree, true)) = group(&container, "no controller", "") {
        let used = line(&text(tree.join("cpu.stat")), "usage_usec");
        near(usage.cpu_usage_usec, used, 50_000);
        let sum = usage.cpu_user_usec.unwrap() + usage.cpu_system_usec.unwrap();
        near(usage.cpu_usage_usec, sum, 1000);
    }
    container.close(None).unwrap();
    assert_eq!(container.usage().unwrap_err().kind(), ErrorKind::Closed);
}

/// A loop device over a file of zeros.
struct Loop {
    path: String,
    _file: Tmp,
}

impl Loop {
    fn new() -> Option<Self> {
        let file = tmp();
        let image = file.path().join("image");
        File::create(&image).unwrap().set_len(16 << 20).unwrap();
        // A module on most kernels, which nothing loads before it is needed.
        let _ = process::Command::new("modprobe").arg("loop").stderr(process::Stdio::null()).status();
        let output = process::Command::new("losetup").args(["-f", "--show"]).arg(&image).output().ok()?;
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || path.is_empty() {
            skip(&format!("losetup: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Some(Self { path, _file: file })
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    fn number(&self) -> String {
        text(format!("/sys/block/{}/dev", self.name())).trim().to_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = process::Command::new("losetup").args(["-d", &self.path]).status();
    }
}

#[test]
fn bytes_of_a_device_count_within_a_page() {
    if !is_root() {
        return skip("only root can make a loop device");
    }
    let Some(device) = Loop::new() else { return };
    // v1 counts only devices that have a rate limit.
    let limits = IoMax { rbps: Some(1 << 40), ..IoMax::default() };
    let container = match Container::start(&spec(json!({})).io_max(&*device.path, limits)) {
        Ok(container) => container,
        Err(e) if e.kind() == ErrorKind::Unsupported => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    let number = device.number();
    let figure = |usage: &Usage, name: &str| usage.get(&format!("io.{number}.{name}")).expect("a name").unwrap_or(0);
    // The descriptor is the host's, the requests are the container's.
    let open =
        || fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&device.path).unwrap();
    let run = |arguments: [&str; 4], stdin: &File, stdout: &File| {
        let mut command = Command::new("dd");
        command.args(arguments).stdin(Stdio::Fd(stdin.as_raw_fd())).stdout(Stdio::Fd(stdout.as_raw_fd()));
        assert_eq!(exec_in(&container, &command).status.code, Some(0));
    };
    let (zero, null) =
        (File::open("/dev/zero").unwrap(), fs::OpenOptions::new().write(true).open("/dev/null").unwrap());
    let before = container.usage().unwrap();
    run(["bs=64K", "count=16", "conv=notrunc", "status=none"], &zero, &open());
    run(["bs=128K", "count=24", "iflag=direct", "status=none"], &open(), &null);
    let usage = container.usage().unwrap();
    let grown = |name: &str| Some(figure(&usage, name) - figure(&before, name));
    near(grown("write_bytes"), 1 << 20, 4096);
    near(grown("read_bytes"), 3 << 20, 4096);
    assert!(grown("writes") >= Some(16) && grown("reads") >= Some(24), "{usage:?}");
    // BLKDISCARD of a mebibyte, by who has the descriptor.
    let (mut discard, file) = (Command::new("perl"), open());
    discard.args(["-e", r#"my $range = pack("QQ", 0, 1 << 20); ioctl(STDIN, 0x1277, $range) or die $!"#]);
    discard.stdin(Stdio::Fd(file.as_raw_fd()));
    let ran = exec_in(&container, &discard);
    assert_eq!(ran.status.code, Some(0), "{ran:?}");
    let usage = container.usage().unwrap();
    near(Some(figure(&usage, "discard_bytes") - figure(&before, "discard_bytes")), 1 << 20, 4096);
    assert!(figure(&usage, "discards") > figure(&before, "discards"), "{usage:?}");
    assert_eq!(usage.io.as_ref().unwrap()[&number].name.as_deref(), Some(device.name()));
    // The figures last.
    container.kill().unwrap();
    assert!(container.wait_end(TIMEOUT).unwrap());
    assert_eq!(figure(&container.usage().unwrap(), "read_bytes"), figure(&usage, "read_bytes"));
    container.close(None).unwrap();
}

const SENDS: &str = "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; \
    for (1..100) { send(S, 'x' x 1000, 0, pack_sockaddr_in(9, INADDR_LOOPBACK)) }";

#[test]
fn the_network_inside_counts_what_it_carried() {
    let container = start(json!({}));
    let lo = || container.usage().unwrap().net.expect("counted")["lo"].clone();
    let before = lo();
    Waiting::start(&container, SENDS).end();
    // Nobody answers on that port, and says so: more packets than were sent, so that what both say is compared.
    let after = lo();
    let sent = after.tx_bytes - before.tx_bytes;
    assert!((102_800..250_000).contains(&sent), "{sent}");
    assert!(after.tx_packets - before.tx_packets >= 100);
    let seen = sh_in(&container, "grep lo: /proc/net/dev");
    let columns: Vec<u64> = seen.split(':').nth(1).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
    let after = lo();
    assert_eq!([after.rx_bytes, after.rx_packets, after.rx_errors, after.rx_dropped], columns[..4]);
    assert_eq!([after.tx_bytes, after.tx_packets, after.tx_errors, after.tx_dropped], columns[8..12]);
    assert_eq!(container.usage().unwrap().get("net.lo.tx_bytes"), Some(Some(after.tx_bytes)));
    if can_limit() {
        // A group inside has no network of its own.
        let inside = container.group("inside", &Spec::new()).unwrap();
        assert_eq!(inside.usage().unwrap().net, None);
    } else {
        let usage = container.usage().unwrap();
        assert_eq!(usage, Usage { net: usage.net.clone(), ..Usage::default() });
        assert_eq!(container.beancounters().unwrap_err().kind(), ErrorKind::Unsupported);
    }
    container.kill().unwrap();
    assert!(container.wait_end(TIMEOUT).unwrap());
    assert_eq!(lo(), after, "as it was at the last look");
    container.close(None).unwrap();
    let hosts = start(json!({"net": "host"}));
    match can_limit() {
        true => assert_eq!(hosts.usage().unwrap().net, None, "the devices are the host's"),
        false => assert_eq!(hosts.usage().unwrap_err().kind(), ErrorKind::Unsupported, "nothing is counted"),
    }
    hosts.close(None).unwrap();
}

#[test]
fn a_snapshot_holds_no_network_namespace() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({}));
    container.usage().unwrap();
    let own: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().flatten().collect();
    let targets = own.iter().filter_map(|fd| fs::read_link(fd.path()).ok());
    let held: Vec<_> = targets.filter(|target| target.to_string_lossy().ends_with("/net/dev")).collect();
    assert_eq!(held, Vec::<PathBuf>::new());
    container.close(None).unwrap();
}

#[test]
fn pressure_grows_where_processors_are_short() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"cpus": 0.2}));
    let Some(before) = container.usage().unwrap().pressure else {
        return skip("this kernel keeps no account of pressure (PSI), or there is no v2 tree");
    };
    let total = |usage: &Usage| usage.get("pressure.cpu.some.total_usec").unwrap().expect("counted");
    let file = group(&container, "no controller", "").expect("a group of the v2 tree").0.join("cpu.pressure");
    let seen =
        || -> u64 { text(&file).split("total=").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap() };
    sh_in(&container, "for i in 1 2 3; do timeout 3 sh -c 'while :; do :; done' & done; wait; true");
    let earlier = seen();
    let usage = container.usage().unwrap();
    let later = seen();
    assert!(earlier <= total(&usage) && total(&usage) <= later, "{earlier} {} {later}", total(&usage));
    let grown = total(&usage) - before.cpu.unwrap().some.unwrap().total_usec;
    assert!(grown > 300_000, "{grown} us");
    // Interrupts are told apart by some kernels only, and then as full.
    let irq = file.with_file_name("irq.pressure");
    match irq.exists() {
        false => assert_eq!(usage.pressure.unwrap().irq, None),
        true => {
            let (told, usage) = at_rest(&irq, || container.usage().unwrap());
            let total = told.split("total=").nth(1).unwrap().trim().parse().unwrap();
            assert_eq!(usage.get("pressure.irq.full.total_usec"), Some(Some(total)));
            assert_eq!(usage.get("pressure.irq.some.total_usec"), Some(None));
        }
    }
    let cpu = usage.pressure.unwrap().cpu.unwrap().some.unwrap();
    assert!(cpu.avg10 > 0.0 && cpu.avg10 <= 100.0, "{cpu:?}");
    container.close(None).unwrap();
}

#[test]
fn a_group_inside_has_figures_of_its_own() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M"}));
    let workers = container.group("workers", &Spec::new().memory(128 << 20)).unwrap();
    let mut command = workers.command("perl");
    command.args(["-e", "$x = 'x' x (30 << 20); $x = ''; sleep 0"]).stdin(Stdio::Null);
    assert_eq!(exec_in(&container, &command).status.code, Some(0));
    let (inner, outer) = (workers.usage().unwrap(), container.usage().unwrap());
    assert_eq!(inner.memory_max, Some(128 << 20));
    assert!(inner.memory_peak >= Some(30 << 20) && inner.memory_peak <= outer.memory_peak, "{inner:?}\n{outer:?}");
    assert!(inner.memory_pgfault > Some(0) && inner.memory_pgfault <= outer.memory_pgfault, "{inner:?}\n{outer:?}");
    container.close(None).unwrap();
}

/// A process that was killed although nothing was wrong with its own group is told from one that ran out of memory.
#[test]
fn out_of_memory_is_exact_in_a_group_of_its_own() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M", "swap": 0}));
    let events =
        container.events(&EventOptions { kinds: Some(vec![EventKind::OomKill]), ..EventOptions::default() }).unwrap();
    let small = container.group("small", &Spec::new().memory(32 << 20)).unwrap();
    container.group("calm", &Spec::new().memory(64 << 20)).unwrap();
    let start = |group: Option<&str>, argv: [&str; 2]| {
        let mut command = Command::new(argv[0]);
        command.arg(argv[1]).stdin(Stdio::Null).stdout(Stdio::Null);
        if let Some(group) = group {
            command.set("cgroup", group.as_bytes()).unwrap();
        }
        container.spawn(&command).unwrap()
    };
    let (calm, beside) = (start(Some("calm"), ["sleep", "600"]), start(None, ["sleep", "600"]));
    let hog = start(Some("small"), ["tail", "/dev/zero"]);
    let end = |process: &Process| process.wait(TIMEOUT).unwrap().unwrap();
    let status = end(&hog);
    assert_eq!((status.signal, status.reason), (Some(libc::SIGKILL), Reason::OutOfMemory));
    calm.kill(libc::SIGKILL).unwrap();
    assert_eq!(end(&calm).reason, Reason::Signaled, "its own group had enough");
    beside.kill(libc::SIGKILL).unwrap();
    assert_eq!(end(&beside).reason, Reason::OutOfMemory, "out of memory in its container");
    assert_eq!(small.usage().unwrap().memory_oom_kills, Some(1));
    assert_eq!(container.find_group("calm").unwrap().usage().unwrap().memory_oom_kills, Some(0));
    assert_eq!(container.usage().unwrap().memory_oom_kills, Some(1));
    // On v1 the notices are those of the container's own group.
    if group(&container, "memory", "memory").is_some_and(|(_, v2)| v2) {
        let event = events.next(Some(Duration::from_secs(10))).unwrap().expect("an event");
        assert_eq!((event.kind, event.count), (EventKind::OomKill, 1));
    }
    // The container's own process, by the container's limit.
    assert_eq!(end(&start(None, ["tail", "/dev/zero"])).reason, Reason::OutOfMemory);
    let deadline = Instant::now() + Duration::from_secs(10);
    while events.next(Some(Duration::from_secs(1))).unwrap().is_none_or(|e| e.kind != EventKind::OomKill) {
        assert!(Instant::now() < deadline, "no event");
    }
    assert_eq!(container.usage().unwrap().memory_oom_kills, Some(2));
    container.close(None).unwrap();
}

fn counter(counters: &[Beancounter], name: &str) -> Beancounter {
    counters.iter().find(|c| c.resource == name).unwrap_or_else(|| panic!("no {name}")).clone()
}

#[test]
fn beancounters_are_what_the_kernel_says() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let rlimits = json!({"memlock": ["64K", "128K"], "sigpending": 100});
    let container = start(json!({"argv": ["sleep", "600"], "memory": "256M", "pids": 40, "rlimits": rlimits}));
    // The last that pid 1 does before it rests is to close what it was born with.
    until("pid 1 has let go", || counter(&container.beancounters().unwrap(), "numfile").held < Some(10));
    let before = container.beancounters().unwrap();
    let holder = Waiting::start(
        &container,
        "use Socket; use Fcntl ':flock'; open $f[$_], '<', '/dev/null' for 1..20; \
         socket(T, PF_INET, SOCK_STREAM, 0) and bind(T, pack_sockaddr_in(7000, INADDR_LOOPBACK)) and listen(T, 5) or die; \
         socket(U, PF_INET, SOCK_DGRAM, 0) and bind(U, pack_sockaddr_in(7001, INADDR_LOOPBACK)) or die; \
         socket(V, PF_INET, SOCK_DGRAM, 0); send(V, 'x' x 500, 0, pack_sockaddr_in(7001, INADDR_LOOPBACK)) or die; \
         open L, '>', '/tmp/lock' or die; flock(L, LOCK_EX) or die; \
         open P, '+<', '/dev/ptmx' or die; \
         open M, '>', '/dev/shm/m'; print M 'y' x (4 << 20); close M",
    );
    let after = container.beancounters().unwrap();
    let held = |name: &str| {
        let (before, after) = (counter(&before, name), counter(&after, name));
        let missing = || panic!("{name}: {after:?}");
        after.held.unwrap_or_else(missing) as i64 - before.held.unwrap_or_else(missing) as i64
    };
    assert_eq!(held("numproc"), 1);
    assert_eq!(held("numflock"), 1);
    assert_eq!(held("numpty"), 1);
    assert_eq!(held("numtcpsock"), 1);
    assert_eq!(held("numothersock"), 2);
    assert_eq!(held("numnetif"), 0);
    assert!(held("numfile") >= 20 + 7, "{}", held("numfile"));
    assert!(held("dgramrcvbuf") >= 500, "{}", held("dgramrcvbuf"));
    assert!(held("privvmpages") > 0 && held("physpages") > 1000 && held("kmemsize") > 0);
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64;
    near(counter(&after, "shmpages").held, (4 << 20) / page, 64);
    // The descriptors as this test counts them, where it may.
    let listed = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count);
    if let Ok(files) = listed(holder.process.pid()) {
        let main = container.main().map(|main| main.pid());
        let others = [Some(container.pid()), main].into_iter().flatten().filter_map(|pid| listed(pid).ok());
        assert_eq!(counter(&after, "numfile").held, Some((files + others.sum::<usize>()) as u64));
    }
    let memory = counter(&after, "physpages");
    assert_eq!((memory.limit, memory.unit), (Some((256 << 20) / page), "pages"));
    let usage = container.usage().unwrap();
    near(memory.held, usage.memory_current.unwrap() / page, 256);
    let tasks = counter(&after, "numproc");
    assert_eq!((tasks.limit, tasks.failcnt, tasks.maxheld), (Some(40), Some(0), usage.pids_peak));
    let locked = counter(&after, "lockedpages");
    assert_eq!((locked.barrier, locked.limit), (Some((64 << 10) / page), Some((128 << 10) / page)));
    assert_eq!((counter(&after, "numsiginfo").barrier, counter(&after, "numsiginfo").limit), (Some(100), Some(100)));
    for name in ["avnumproc", "numiptent", "othersockbuf"] {
        let none = counter(&after, name);
        assert_eq!((none.held, none.limit), (None, None));
        assert!(none.source.starts_with("none: "), "{none:?}");
    }
    holder.end();
    sh_in(&container, "true");
    container.kill().unwrap();
    assert!(container.wait_end(TIMEOUT).unwrap());
    let ended = container.beancounters().unwrap();
    for name in ["numproc", "physpages", "numfile", "numflock", "numpty", "numtcpsock", "lockedpages"] {
        assert_eq!(counter(&ended, name).held, Some(0), "{name}");
    }
    assert!(counter(&ended, "physpages").maxheld > Some(1000));
    container.close(None).unwrap();
}

#[test]
fn beancounters_count_failures() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "40M", "swap": 0, "pids": 8}));
    let failures = |name: &str| counter(&container.beancounters().unwrap(), name).failcnt;
    assert_eq!((failures("numproc"), failures("oomguarpages")), (Some(0), Some(0)));
    let forks = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done; wait";
    let ran = exec_in(&container, Command::new("sh").args(["-c", forks]));
    assert_eq!(ran.status.code, Some(2), "{ran:?}");
    let refused = failures("numproc");
    assert!(refused >= Some(1), "{refused:?}");
    let (path, _) = group(&container, "pids", "pids").expect("a group");
    assert_eq!(refused, Some(line(&text(path.join("pids.events")), "max")));
    // Those that were forked may be there still.
    container.update(|spec| spec.pids = None).unwrap();
    let ran = exec_in(&container, Command::new("tail").arg("/dev/zero"));
    assert_eq!(ran.status.reason, Reason::OutOfMemory, "{ran:?}");
    assert!(failures("physpages") >= Some(1), "{:?}", failures("physpages"));
    assert_eq!(failures("oomguarpages"), Some(1));
    // The end changes nothing.
    container.kill().unwrap();
    assert!(container.wait_end(TIMEOUT).unwrap());
    assert_eq!((failures("numproc"), failures("oomguarpages")), (refused, Some(1)));
    container.close(None).unwrap();
}

#[test]
fn guarantees_are_barriers_on_v2() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let asked = json!({"memory": "256M", "memory_high": "128M", "memory_low": "32M", "memory_min": "16M"});
    let container = match Container::start(&spec(asked)) {
        Ok(container) => container,
        Err(e) if e.kind() == ErrorKind::Unsupported => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    let counters = container.beancounters().unwrap();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64;
    for (name, bytes) in [("physpages", 128 << 20), ("vmguarpages", 32 << 20), ("oomguarpages", 16 << 20)] {
        assert_eq!(counter(&counters, name).barrier, Some(bytes / page), "{name}");
    }
    container.close(None).unwrap();
}

#[test]
fn a_full_table_of_descriptors_changes_no_figure() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // In a process of its own, because the limit is for all its threads.
    if std::env::var_os("FEW_DESCRIPTORS").is_none() {
        let mut command = process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_full_table_of_descriptors_changes_no_figure", "--nocapture"]);
        let output = command.env("FEW_DESCRIPTORS", "1").output().unwrap();
        std::io::stdout().write_all(&output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let container = start(json!({"memory": "64M"}));
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 80, hard).unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let files: Vec<File> = (0..).map_while(|_| File::open("/dev/null").ok().filter(|f| f.as_raw_fd() < 60)).collect();
    let before = open();
    let usage = container.usage().unwrap();
    assert_eq!(usage.memory_max, Some(64 << 20));
    assert!(open() <= before + 2, "a quarter of the descriptors stays free: {before}, {}", open());
    drop(files);
    let again = container.usage().unwrap();
    assert_eq!(
        (again.memory_max, again.pids_max, again.memory_oom_kills),
        (usage.memory_max, usage.pids_max, usage.memory_oom_kills)
    );
    container.close(None).unwrap();
}

#[test]
fn a_handle_that_is_kept_after_the_end_keeps_no_file_of_the_group() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "64M", "argv": ["true"]}));
    let id = container.id().to_owned();
    let kept = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        // The lists of tasks, by which processes join, are the group's.
        let figures =
            links.filter(|link| link.to_string_lossy().contains(&format!("{id}/")) && !link.ends_with("tasks"));
        figures.count()
    };
    container.usage().unwrap();
    assert!(container.wait_end(Some(Duration::from_secs(20))).unwrap());
    assert_eq!(kept(), 0);
    let (usage, again) = (container.usage().unwrap(), container.usage().unwrap());
    assert_eq!((usage.memory_max, usage.pids_current), (Some(64 << 20), Some(0)));
    assert_eq!(usage, again);
}
