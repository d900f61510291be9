//! Limits against real loads, and against what the kernel counted.
//!
//! tests/run: timeout=600 vm=root,delegated

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use common::*;
use ringfence::spec::{IoMax, Stdio};
use ringfence::{Command, Container, ErrorKind, Reason};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// The container's group in the hierarchy of a controller (its names on v1 and v2), and whether that is v2.
fn group(container: &Container, v1: &str, v2: &str) -> (PathBuf, bool) {
    let info: Value = serde_json::from_str(&container.info_json()).unwrap();
    let groups = info["cgroup"]["groups"].as_array().expect("groups").clone();
    let has = |group: &Value, name: &str| group["controllers"].as_array().unwrap().iter().any(|c| c == name);
    let path = |group: &Value| PathBuf::from(group["path"].as_str().unwrap());
    if let Some(found) = groups.iter().find(|g| g["version"] == 1 && has(g, v1)) {
        return (path(found), false);
    }
    (path(groups.iter().find(|g| g["version"] == 2 && has(g, v2)).expect("a group with the controller")), true)
}

#[test]
fn a_quarter_of_a_processor_is_a_quarter() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"cpus": 0.25}));
    let burner = container
        .spawn(Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::Null).stdout(Stdio::Null))
        .unwrap();
    let cpu = || container.usage().unwrap().cpu_usage_usec.unwrap() as f64;
    std::thread::sleep(Duration::from_millis(500));
    let (before, since) = (cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(4));
    let share = (cpu() - before) / since.elapsed().as_micros() as f64;
    assert!((share - 0.25).abs() <= 0.03, "{share} of a processor");
    assert!(container.usage().unwrap().cpu_throttled_periods >= Some(30));
    drop(burner);
    container.close(None).unwrap();
}

#[test]
fn a_mebibyte_too_much_is_killed() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // What perl itself needs is measured first, so that the rest is the payload's own.
    let fill = |mib: u64, limit: Option<u64>| {
        let mut spec = json!({
            "argv": ["perl", "-e", format!("$x = \"x\" x ({mib} << 20); print length($x) >> 20")], "swap": 0
        });
        spec["memory"] = json!(limit.unwrap_or(512 << 20));
        let container = start(with(spec, json!({"stdout": "pipe", "stderr": "null"})));
        let output = container.main().unwrap().communicate(None, None).unwrap();
        let peak = container.usage().unwrap().memory_peak.unwrap();
        container.close(None).unwrap();
        (output.status.reason, peak)
    };
    let (reason, peak) = fill(64, None);
    assert_eq!(reason, Reason::Exited);
    assert!(peak > 64 << 20, "{peak}");
    assert_eq!(fill(64, Some(peak + (4 << 20))).0, Reason::Exited, "a little more than it needs");
    assert_eq!(fill(64, Some((64 << 20) - (1 << 20))).0, Reason::OutOfMemory, "less than its data alone");
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
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
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

    fn number(&self) -> String {
        let name = self.path.rsplit('/').next().unwrap();
        fs::read_to_string(format!("/sys/block/{name}/dev")).unwrap().trim().to_owned()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = process::Command::new("losetup").args(["-d", &self.path]).status();
    }
}

#[test]
fn reads_of_a_device_are_held_to_their_rate() {
    if !is_root() {
        return skip("only root can make a loop device");
    }
    let Some(device) = Loop::new() else { return };
    const RATE: u64 = 4 << 20;
    let limits = IoMax { rbps: Some(RATE), wiops: Some(500), ..IoMax::default() };
    let container = match Container::start(&spec(json!({})).io_max(&*device.path, limits)) {
        Ok(container) => container,
        Err(e) if e.kind() == ErrorKind::Unsupported => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    let number = device.number();
    let (path, v2) = group(&container, "blkio", "io");
    let file = path.join(if v2 { "io.max" } else { "blkio.throttle.read_bps_device" });
    assert!(fs::read_to_string(&file).unwrap().contains(&*RATE.to_string()), "{}", file.display());
    // The descriptor is the host's, the reads are the container's.
    let read = |mib: u64| {
        let source = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&device.path).unwrap();
        let mut command = Command::new("dd");
        command.args(["bs=256K", &format!("count={}", mib * 4), "of=/dev/null"]);
        command.stdin(Stdio::Fd(source.as_raw_fd())).stdout(Stdio::Null).stderr(Stdio::Pipe);
        let since = Instant::now();
        let output = container.spawn(&command).unwrap().communicate(None, None).unwrap();
        assert_eq!(output.status.code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        since.elapsed().as_secs_f64()
    };
    let rate = (12 << 20) as f64 / read(12);
    assert!((rate / RATE as f64 - 1.0).abs() <= 0.15, "{rate} bytes/s of {RATE}");
    container.update(|spec| spec.io_max.clear()).unwrap();
    let left = fs::read_to_string(&file).unwrap();
    assert!(!left.contains(&number), "{left}");
    let e = container.update(|spec| {
        spec.io_max.insert("/dev/no-such-device".into(), IoMax { rbps: Some(1 << 20), ..IoMax::default() });
    });
    assert_eq!(e.unwrap_err().errno(), libc::ENOENT);
    container.close(None).unwrap();
}

#[test]
fn huge_pages_are_refused_above_the_limit() {
    const POOL: &str = "/proc/sys/vm/nr_hugepages";
    if !is_root() {
        return skip("only root can provide huge pages");
    }
    let before = fs::read_to_string(POOL).unwrap_or_default();
    struct Restore(String);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = fs::write(POOL, &self.0);
        }
    }
    let _restore = Restore(before);
    if fs::write(POOL, "16").is_err() || fs::read_to_string(POOL).unwrap_or_default().trim() != "16" {
        return skip("the machine gives no huge pages");
    }
    // MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB
    let code = "import mmap,sys\ntry: m=mmap.mmap(-1,int(sys.argv[1])<<20,flags=0x40022); m[0]=1; print('got')\nexcept OSError as e: print(e.errno)";
    let container = match Container::start(&spec(json!({"hugepages": {"2M": "8M"}}))) {
        Ok(container) => container,
        Err(e) if e.kind() == ErrorKind::Unsupported => return skip(&e.to_string()),
        Err(e) => panic!("{e}"),
    };
    let map = |mib: u64| exec_in(&container, Command::new("python3").args(["-c", code, &mib.to_string()])).out;
    assert_eq!(map(8), "got\n");
    assert_eq!(map(10), format!("{}\n", libc::ENOMEM));
    container.update(|spec| *spec = spec.clone().hugepages("2M", 16 << 20)).unwrap();
    assert_eq!(map(10), "got\n");
    container.update(|spec| spec.hugepages.clear()).unwrap();
    assert_eq!(map(32), "got\n");
    container.close(None).unwrap();
}

#[test]
fn processors_of_ones_own() {
    if !can_limit() || std::thread::available_parallelism().unwrap().get() < 2 {
        return skip("no control group for this caller, or one processor");
    }
    let spec = spec(json!({"cpuset": {"cpus": "1", "partition": "root"}}));
    let container = match Container::start(&spec) {
        Ok(container) => container,
        Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            assert_eq!(e.field(), Some("cpuset"), "{e}");
            return skip(&e.to_string());
        }
        Err(e) => panic!("{e}"),
    };
    let (path, _) = group(&container, "cpuset", "cpuset");
    assert_eq!(fs::read_to_string(path.join("cpuset.cpus.partition")).unwrap(), "root\n");
    assert_eq!(sh_in(&container, "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t1\n");
    // It is nobody else's.
    let neighbour = start(json!({"pids": 10}));
    assert_eq!(sh_in(&neighbour, "grep Cpus_allowed_list /proc/self/status"), "Cpus_allowed_list:\t0\n");
    container.update(|spec| spec.cpuset = None).unwrap();
    assert_eq!(fs::read_to_string(path.join("cpuset.cpus.partition")).unwrap(), "member\n");
    neighbour.close(None).unwrap();
    container.close(None).unwrap();
}

#[test]
fn usage_is_what_the_control_files_say() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "64M", "pids": 20}));
    sh_in(&container, "head -c 8000000 /dev/zero > /dev/shm/a");
    container.freeze().unwrap();
    let read = |(path, v2): (PathBuf, bool), v1_name: &str, v2_name: &str| -> u64 {
        let text = fs::read_to_string(path.join(if v2 { v2_name } else { v1_name })).unwrap();
        text.trim().parse().unwrap()
    };
    let usage = container.usage().unwrap();
    let memory = read(group(&container, "memory", "memory"), "memory.usage_in_bytes", "memory.current");
    // Both versions count in batches of pages for each processor.
    let slack = 64 * 4096 * std::thread::available_parallelism().unwrap().get() as u64;
    assert!(usage.memory_current.unwrap().abs_diff(memory) <= slack, "{usage:?}, read {memory}");
    let pids = read(group(&container, "pids", "pids"), "pids.current", "pids.current");
    assert_eq!(usage.pids_current, Some(pids));
    container.thaw().unwrap();
    container.close(None).unwrap();
}

#[test]
fn a_group_that_was_removed_behind_our_back_is_a_clear_error() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"pids": 20}));
    let (path, v2) = group(&container, "pids", "pids");
    // Its processes are moved out, to the group of this test, and the group is removed.
    let pids = fs::read_to_string(path.join("cgroup.procs")).unwrap();
    let above = path.parent().unwrap().join("cgroup.procs");
    if v2 || pids.lines().any(|pid| fs::write(&above, pid).is_err()) {
        container.close(None).unwrap();
        return skip("processes cannot be moved out here");
    }
    until("the group is gone", || fs::remove_dir(&path).is_ok() || !path.exists());
    let e = container.update(|spec| spec.pids = Some(30)).unwrap_err();
    assert_eq!(e.field(), Some("pids"), "{e}");
    assert!(matches!(e.errno(), libc::ENOENT | libc::ENODEV), "{e}");
    assert_eq!(container.spec().pids, Some(20));
    container.close(None).unwrap();
}

/// A process that runs for ever.
fn spin(container: &Container, group: Option<&str>, change: impl FnOnce(&mut Command)) -> ringfence::Process {
    let mut command = Command::new("sh");
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::Null).stdout(Stdio::Null);
    command.cgroup = group.map(str::to_owned);
    change(&mut command);
    container.spawn(&command).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()))
}

/// Processor time of a process, in seconds.
fn processor_time(pid: i32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn shares<const N: usize>(pids: [i32; N], time: Duration) -> [f64; N] {
    let (before, since) = (pids.map(processor_time), Instant::now());
    std::thread::sleep(time);
    let elapsed = since.elapsed().as_secs_f64();
    let mut shares = pids.map(processor_time);
    for (share, before) in shares.iter_mut().zip(before) {
        *share = (*share - before) / elapsed;
    }
    shares
}

#[test]
fn who_is_idle_gets_next_to_nothing() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let idle = start(json!({"cpu_idle": true, "cpuset": "0"}));
    // With a weight it has a group beside the other's on v1 too, where else it would be in the caller's.
    let busy = start(json!({"cpuset": "0", "cpu_weight": 100}));
    let (idler, worker) = (spin(&idle, None, |_| {}), spin(&busy, None, |_| {}));
    std::thread::sleep(Duration::from_millis(300));
    let [small, large] = shares([idler.pid(), worker.pid()], Duration::from_secs(3));
    assert!(small < 0.05 * (small + large), "{small} beside {large}");
    drop((idler, worker));
    // Or its processes would have to wait for a processor to end on.
    idle.update(|spec| spec.cpu_idle = false).unwrap();
    idle.close(None).unwrap();
    busy.close(None).unwrap();
}

#[test]
fn what_was_saved_up_is_not_throttled() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    // 30 ms of work now and then: more than the 20 ms of one period, less than those and 20 ms that were saved up.
    const SCRIPT: &str = "use POSIX; for (1..10) { select(undef, undef, undef, 0.3); \
        my $end = (times)[0] + 0.03; 1 while (times)[0] < $end }";
    let throttled = |fields: Value| {
        let spec = json!({"argv": ["perl", "-e", SCRIPT], "cpus": 0.2, "stdout": "null", "stderr": "pipe"});
        let container = start(with(spec, fields));
        let output = container.main().unwrap().communicate(None, TIMEOUT).unwrap();
        assert_eq!(output.status.code, Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let usage = container.usage().unwrap();
        container.close(None).unwrap();
        usage.cpu_throttled_periods.unwrap()
    };
    let (without, with) = (throttled(json!({})), throttled(json!({"cpu_burst": "20ms"})));
    assert!(without >= 6 && with <= without / 2, "{without} periods without, {with} with");
}

/// Budgets of real-time are for v1; who may not have real-time has nothing to show.
fn real_time(fields: Value) -> Option<Container> {
    match Container::start(&spec(with(json!({"cpuset": "0", "cgroup_parent": "/ringfence-real-time"}), fields))) {
        Ok(container) => Some(container),
        Err(e) if e.kind() == ErrorKind::Unsupported && e.field() == Some("cpu_rt_runtime") => {
            skip(&e.to_string());
            None
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn real_time_is_held_to_its_budget() {
    if !is_root() {
        return skip("only root may have real-time processes");
    }
    let Some(container) = real_time(json!({"cpu_rt_runtime": "200ms"})) else { return };
    let fifo = |command: &mut Command| command.set("scheduler", b"fifo:1").unwrap();
    let spinner = spin(&container, None, fifo);
    let [share] = shares([spinner.pid()], Duration::from_secs(4));
    assert!((share - 0.2).abs() <= 0.03, "{share} of a processor");
    container.update(|spec| spec.cpu_rt_runtime = Some(Duration::from_millis(100))).unwrap();
    let [share] = shares([spinner.pid()], Duration::from_secs(4));
    assert!((share - 0.1).abs() <= 0.03, "{share} of a processor after the change");

    let error = container.update(|spec| spec.cpu_rt_runtime = None).unwrap_err();
    assert_eq!((error.field(), error.errno()), (Some("cpu_rt_runtime"), libc::EBUSY), "{error}");
    assert_eq!(container.spec().cpu_rt_runtime, Some(Duration::from_millis(100)));
    // Beside it there is as much as the machine has left, and no more.
    let second = real_time(json!({"cpu_rt_runtime": "700ms"})).unwrap();
    let error = Container::start(&spec(json!({"cpu_rt_runtime": "300ms", "cgroup_parent": "/ringfence-real-time"})))
        .expect_err("more than there is");
    assert_eq!((error.field(), error.errno()), (Some("cpu_rt_runtime"), libc::EINVAL), "{error}");
    second.close(None).unwrap();

    spinner.kill(libc::SIGKILL).unwrap();
    spinner.wait(TIMEOUT).unwrap();
    // A part of it, for a group inside.
    let inside = container.group("inside", &spec(json!({"cpu_rt_runtime": "50ms"}))).unwrap();
    let spinner = spin(&container, Some("inside"), fifo);
    let [share] = shares([spinner.pid()], Duration::from_secs(4));
    assert!((share - 0.05).abs() <= 0.02, "{share} of a processor in the group inside");
    assert!(container.group("more", &spec(json!({"cpu_rt_runtime": "60ms"}))).is_err(), "more than the container has");
    drop((spinner, inside));
    container.close(None).unwrap();
}

#[test]
fn real_time_takes_a_budget_above() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let mut above = PathBuf::from("/sys/fs/cgroup/cpu");
    above.push(std::env::var("RINGFENCE_CGROUP_PARENT").unwrap().trim_start_matches('/'));
    let error = Container::start(&spec(json!({"cpu_rt_runtime": "1ms"}))).err();
    let Some(error) = error else { panic!("{} had a budget", above.display()) };
    assert_eq!(error.field(), Some("cpu_rt_runtime"), "{error}");
    match fs::read_to_string(above.join("cpu.rt_runtime_us")) {
        Ok(budget) => {
            assert_eq!(budget, "0\n");
            assert_eq!(error.errno(), libc::EINVAL, "{error}");
            assert!(error.hint().unwrap().contains("cpu.rt_runtime_us"), "{error}");
        }
        Err(_) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
}
