//! Limits against real loads, and against what the kernel counted.
//!
//! tests/run: timeout=600 vm=root threads=1

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::*;
use ringfence::spec::Stdio;
use ringfence::{Command, Container, ErrorKind, Process, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// Burns a processor until it is killed.
fn burn(container: &Container, command: &mut Command) -> Process {
    command.args(["-c", "while :; do :; done"]).stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    container.spawn(command).unwrap()
}

/// Periods of the limit so far, and those in which it held the group back.
fn periods(path: &Path) -> (u64, u64) {
    let text = fs::read_to_string(path.join("cpu.stat")).unwrap();
    let figure = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok()).unwrap();
    (figure("nr_periods"), figure("nr_throttled"))
}

#[test]
fn a_quarter_of_a_processor_is_a_quarter() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"cpus": 0.25}));
    let (path, _) = group_of(&container, "cpu", "cpu");
    burn(&container, &mut Command::new("sh"));
    let cpu = || container.usage().unwrap().cpu_usage_usec.unwrap() as f64;
    let (before, since, periods_before) = (cpu(), Instant::now(), periods(&path));
    std::thread::sleep(Duration::from_secs(4));
    let share = (cpu() - before) / since.elapsed().as_micros() as f64;
    let after = periods(&path);
    let (all, held) = (after.0 - periods_before.0, after.1 - periods_before.1);
    assert!(share <= 0.28, "{share} of a processor");
    // A period in which it was not held back is one in which a busy machine gave it less than a quarter.
    assert!(share >= 0.22 || held * 20 < all * 19, "{share} of a processor, held back in {held} of {all} periods");
    container.close(None).unwrap();
}

#[test]
fn the_smaller_share_of_two_levels_holds_and_changes_at_once() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"cpus": 0.5}));
    let group = container.group("a", &Spec::new().cpus(0.4)).unwrap();
    let (path, v2) = group_of(&container, "cpu", "cpu");
    let inside = path.join("a");
    burn(&container, &mut group.command("sh"));
    burn(&container, &mut Command::new("sh"));
    let cpu = |usage: ringfence::Usage| usage.cpu_usage_usec.unwrap() as f64;
    // Both limits hold: that of the group within that of the container.
    until("both run", || cpu(group.usage().unwrap()) > 50_000.0);
    let figures = || (cpu(container.usage().unwrap()), cpu(group.usage().unwrap()), periods(&path).0);
    let before = figures();
    std::thread::sleep(Duration::from_secs(1));
    let after = figures();
    // A period of a tenth of a second more may have begun, and each processor may have some of the time in hand.
    let most = |cpus: f64| cpus * 100_000.0 * (after.2 - before.2 + 1) as f64 + 20_000.0;
    let (whole, part) = (after.0 - before.0, after.1 - before.1);
    assert!(whole <= most(0.5) && part <= most(0.4), "{whole} and {part} us in {} periods", after.2 - before.2);
    // Within a second of the kernel's own clock: ten periods of a tenth. Later only where a busy machine gave it no more processor than
    // it may have now, and what it had in hand: then there was nothing to hold back.
    let (before, had) = (periods(&inside), cpu(group.usage().unwrap()));
    group.update(|limits| limits.cpus = Some(0.01)).unwrap();
    until("it is held back", || periods(&inside).1 > before.1);
    let (after, used) = (periods(&inside), cpu(group.usage().unwrap()) - had);
    let passed = after.0 - before.0;
    assert!(passed <= 10 || used <= 1_000.0 * (passed + 1) as f64 + 20_000.0, "{before:?} to {after:?}, {used} us");
    // More inside than outside: v2 lets the smaller one hold, v1 refuses.
    match group.update(|limits| limits.cpus = Some(2.0)) {
        Ok(()) => assert!(v2),
        Err(e) => assert!(!v2 && e.field() == Some("cpus") && e.errno() == libc::EINVAL, "{e}"),
    }
    container.close(None).unwrap();
}

#[test]
fn running_threads_move_to_the_processors_that_are_left() {
    if !can_limit() || std::thread::available_parallelism().unwrap().get() < 2 {
        return skip("no control group for this caller, or one processor");
    }
    let container = start(json!({"cpuset": "0-1"}));
    let mut command = container.command("python3");
    const CODE: &str = "import hashlib, threading
def work():
    while True: hashlib.sha256(bytes(1 << 16))
for i in range(3): threading.Thread(target=work).start()
work()";
    command.args(["-c", CODE]).stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null);
    let process = command.spawn().unwrap();
    // The processor on which each thread ran last: field 39 of its stat, the 37th after the name.
    let on = || -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", process.pid())).unwrap().flatten();
        let stat = |path: PathBuf| fs::read_to_string(path).unwrap();
        threads
            .map(|t| stat(t.path().join("stat")).rsplit(") ").next().unwrap().split(' ').nth(36).unwrap().into())
            .collect()
    };
    until("four threads run", || on().len() == 4);
    for processor in ["1", "0", "1"] {
        container.update(|spec| spec.cpuset = Some(processor.into())).unwrap();
        until("all have moved", || on().iter().all(|n| n == processor));
        assert!(on().iter().all(|n| n == processor), "they stay: {:?}", on());
    }
    container.close(None).unwrap();
}

#[test]
fn processor_time_and_tasks_are_those_of_proc() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"pids": 50}));
    let mut command = container.command("python3");
    command.args(["-c", "import threading, time\nfor i in range(5): threading.Thread(target=time.sleep, args=(60,)).start()\nwhile True: pass"]);
    command.stdin(Stdio::Null).stdout(Stdio::Null).stderr(Stdio::Null).spawn().unwrap();
    until("it has worked", || container.usage().unwrap().cpu_usage_usec > Some(1_000_000));
    container.freeze().unwrap();
    let usage = container.usage().unwrap();
    let (path, _) = group_of(&container, "pids", "pids");
    let (mut tasks, mut ticks) = (0, 0u64);
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap().lines() {
        tasks += fs::read_dir(format!("/proc/{pid}/task")).unwrap().count() as u64;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(4).map(|n| n.parse().unwrap()).collect();
        ticks += fields.iter().sum::<u64>();
    }
    assert_eq!(usage.pids_current, Some(tasks));
    // proc counts in hundredths of a second for each task. What is not in it are helpers of the start that have ended.
    let (used, seen) = (usage.cpu_usage_usec.unwrap(), ticks * 10_000);
    assert!(used + tasks * 20_000 >= seen, "{used} us used, {seen} us in proc");
    assert!(used <= seen + tasks * 20_000 + 200_000, "{used} us used, {seen} us in proc");
    let sum = usage.cpu_user_usec.unwrap() + usage.cpu_system_usec.unwrap();
    assert!(sum.abs_diff(used) <= used / 50, "{usage:?}");
    container.thaw().unwrap();
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
    let (path, _) = group_of(&container, "cpuset", "cpuset");
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
    let memory = read(group_of(&container, "memory", "memory"), "memory.usage_in_bytes", "memory.current");
    // Both versions count in batches of pages for each processor.
    let slack = 64 * 4096 * std::thread::available_parallelism().unwrap().get() as u64;
    assert!(usage.memory_current.unwrap().abs_diff(memory) <= slack, "{usage:?}, read {memory}");
    let pids = read(group_of(&container, "pids", "pids"), "pids.current", "pids.current");
    assert_eq!(usage.pids_current, Some(pids));
    container.thaw().unwrap();
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
    const SCRIPT: &str = "use POSIX; $| = 1; print qq(ready\n); <STDIN>; \
        for (1..10) { select(undef, undef, undef, 0.3); \
        my $end = POSIX::clock() + 30000; 1 while POSIX::clock() < $end }";
    let throttled = |burst: Option<Duration>| {
        // The interpreter's own start is not held up.
        let container = start(json!({"cpus": 4.0}));
        let mut command = Command::new("perl");
        command.args(["-e", SCRIPT]).stdin(Stdio::Pipe).stdout(Stdio::Pipe);
        let process = container.spawn(&command).unwrap();
        let mut ready = [0; 6];
        fs::File::from(process.take_stdout().unwrap()).read_exact(&mut ready).expect("it is ready");
        container.update(|spec| (spec.cpus, spec.cpu_burst) = (Some(0.2), burst)).unwrap();
        let periods = || container.usage().unwrap().cpu_throttled_periods.unwrap();
        let before = periods();
        drop(process.take_stdin());
        assert_eq!(process.wait(TIMEOUT).unwrap().unwrap().code, Some(0));
        let after = periods();
        let usage = container.usage().unwrap();
        let (path, v2) = group_of(&container, "cpu", "cpu");
        let stat = fs::read_to_string(path.join("cpu.stat")).unwrap();
        let counted = |key: &str| -> Option<u64> {
            stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
        };
        let spent =
            if v2 { counted("burst_usec") } else { counted("burst_time").map(|nanoseconds| nanoseconds / 1000) };
        assert_eq!((usage.cpu_bursts, usage.cpu_burst_usec), (counted("nr_bursts"), spent), "{stat}");
        // What a new limit finds of the old one's period is counted as a burst too, so that without one there may be some.
        if burst.is_some() {
            assert!(usage.cpu_bursts > Some(0) && usage.cpu_burst_usec > Some(0), "{stat}");
        }
        container.close(None).unwrap();
        after - before
    };
    let (without, with) = (throttled(None), throttled(Some(Duration::from_millis(20))));
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
fn a_budget_of_real_time_is_free_again_at_once() {
    if !is_root() {
        return skip("only root may have real-time processes");
    }
    for _ in 0..10 {
        let Some(container) = real_time(json!({"cpu_rt_runtime": "10ms"})) else { return };
        container.close(None).unwrap();
    }
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
