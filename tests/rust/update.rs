//! Limits that change while containers run.
//!
//! tests/run: timeout=600 vm=root,delegated

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, process};

use common::*;
use ringfence::{Command, Container, ErrorKind, Reason};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

#[test]
fn many_threads_change_many_containers() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    const CONTAINERS: usize = 50;
    const THREADS: usize = 16;
    const CALLS: u64 = 2_000;
    let all: Vec<Container> = (0..CONTAINERS).map(|_| start(json!({"memory": "64M", "pids": 32}))).collect();
    let last: Vec<AtomicU64> = (0..CONTAINERS).map(|_| AtomicU64::new(0)).collect();
    let next = AtomicU64::new(0);
    // The calls of one container take turns, so what the last one wrote is what has to be found.
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= CALLS {
                        return;
                    }
                    let i = n as usize % CONTAINERS;
                    all[i]
                        .update(|spec| {
                            last[i].store(n, Ordering::Relaxed);
                            spec.memory = Some((64 << 20) + (n << 12));
                            spec.pids = Some(100 + n);
                            spec.cpus = n.is_multiple_of(3).then_some(0.5 + n as f64 / 4000.0);
                        })
                        .unwrap_or_else(|e| panic!("{e}"));
                }
            });
        }
    });
    for (container, last) in all.iter().zip(&last) {
        let (usage, n) = (container.usage().unwrap(), last.load(Ordering::Relaxed));
        assert_eq!((usage.memory_max, usage.pids_max), (Some((64 << 20) + (n << 12)), Some(100 + n)));
        assert_eq!(container.spec().pids, Some(100 + n));
        // The control files themselves say so.
        let read = |controller: &str, v1: &str, v2: &str| {
            let (path, on_v2) = group_of(container, controller, controller);
            fs::read_to_string(path.join(if on_v2 { v2 } else { v1 })).unwrap().trim().to_owned()
        };
        assert_eq!(read("memory", "memory.limit_in_bytes", "memory.max"), ((64 << 20) + (n << 12)).to_string());
        assert_eq!(read("pids", "pids.max", "pids.max"), (100 + n).to_string());
        let quota = read("cpu", "cpu.cfs_quota_us", "cpu.max");
        let cpus = n.is_multiple_of(3).then(|| format!("{:.0}", (0.5 + n as f64 / 4000.0) * 100_000.0));
        let quota = quota.split(' ').next().unwrap().replace("-1", "max");
        assert_eq!(quota, cpus.unwrap_or_else(|| "max".to_owned()), "{n}");
    }
    for container in all {
        container.close(None).unwrap();
    }
}

#[test]
fn what_has_ended_cannot_change() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["true"], "memory": "64M"}));
    container.wait_end(None).unwrap();
    let e = container.update(|spec| spec.memory = Some(32 << 20)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Closed, "{e}");
    let closed = start(json!({"memory": "64M"}));
    closed.close(None).unwrap();
    assert_eq!(closed.update(|spec| spec.memory = None).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_running_payload_gets_the_new_limit() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M", "swap": 0}));
    sh_in(&container, "head -c 60000000 /dev/urandom > /dev/shm/a");
    let used = container.usage().unwrap().memory_current.unwrap();
    assert!(used >= 60_000_000);
    // tmpfs cannot be reclaimed without swap.
    let e = container.update(|spec| spec.memory = Some(32 << 20)).unwrap_err();
    assert_eq!((e.field(), e.errno()), (Some("memory"), libc::EBUSY), "{e}");
    assert_eq!(container.usage().unwrap().memory_max, Some(256 << 20));
    sh_in(&container, "rm /dev/shm/a");
    container.update(|spec| spec.memory = Some(32 << 20)).unwrap();
    let ran = exec_in(&container, Command::new("tail").arg("/dev/zero"));
    assert_eq!(ran.status.reason, ringfence::Reason::OutOfMemory);
    container.close(None).unwrap();
}

#[test]
fn memory_is_reclaimed_on_request() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"memory": "256M"}));
    match container.reclaim(1 << 20) {
        Err(e) if e.kind() == ErrorKind::Unsupported => {
            assert!(e.hint().is_some(), "{e}");
            container.close(None).unwrap();
            return skip(&e.to_string());
        }
        result => drop(result.unwrap()),
    }
    // Page cache of a file on the container's own mount, if that is not a tmpfs: else there is nothing to take back.
    assert!(!container.reclaim(1 << 40).unwrap());
    container.close(None).unwrap();
}

/// What there is to see of a field: one text while it is set, another one while it is not.
type Seen = Box<dyn Fn(&Container) -> String>;

/// A field that changes while a container runs.
struct Field {
    name: &'static str,
    /// What it needs beside it.
    with: Value,
    value: Value,
    seen: Seen,
    /// With the value.
    wanted: String,
}

fn field(
    name: &'static str,
    with: Value,
    value: Value,
    seen: impl Fn(&Container) -> String + 'static,
    wanted: impl ToString,
) -> Field {
    Field { name, with, value, seen: Box::new(seen), wanted: wanted.to_string() }
}

/// Whether the controller is on v1, where it has another name, for this caller.
fn on_v1(controller: &str) -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap();
    groups.lines().any(|line| line.split(':').nth(1).is_some_and(|all| all.split(',').any(|one| one == controller)))
}

/// A control file. What the kernel begins with where the container has no group of that controller yet.
fn file([v1, v2]: [&'static str; 2], initial: &'static str) -> impl Fn(&Container) -> String {
    let controller = |file: &'static str| file.split('.').next().unwrap();
    move |container| {
        let info: Value = serde_json::from_str(&container.info_json()).unwrap();
        let groups = info["cgroup"]["groups"].as_array().cloned().unwrap_or_default();
        let text = groups.iter().find_map(|group| {
            let name = if group["version"] == 1 { v1 } else { v2 };
            let has = group["controllers"].as_array()?.iter().any(|c| c == controller(name));
            let path = std::path::Path::new(group["path"].as_str()?).join(name);
            // A controller alone: there is no such file in that version.
            (has && !name.ends_with('.'))
                .then(|| fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        });
        text.map_or(initial.to_owned(), |text| text.trim().to_owned())
    }
}

fn inside(script: &'static str) -> impl Fn(&Container) -> String {
    move |container| sh_in(container, script).trim().to_owned()
}

fn figure(name: &'static str) -> impl Fn(&Container) -> String {
    move |container| format!("{:?}", container.usage().unwrap().get(name).expect(name))
}

fn fields() -> Vec<Field> {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as u64;
    let none = || json!({});
    let either = |controller, v1: &'static str, v2: &'static str| if on_v1(controller) { v1 } else { v2 };
    // Only root can make an image, of which alone users can have a part; it counts by owner when it was made for that.
    let image = || {
        let disk = if is_root() { json!({"size": "32M", "backend": "image"}) } else { json!("32M") };
        json!({"disk": disk, "quota": {"uid:1": "2M"}})
    };
    // The group of the run has no budget of real-time.
    let real_time = || if is_root() { json!({"cgroup_parent": "/ringfence-real-time"}) } else { json!({}) };
    let swap = (8 << 20) + if on_v1("memory") { (64 << 20) + page } else { 0 };
    let mebibyte = |n: u64| format!("Some({})", n << 20);
    let rates = |container: &Container| {
        let limits = file(["blkio.throttle.read_bps_device", "io.max"], "")(container);
        if limits.contains("8388608") { "8388608".to_owned() } else { limits }
    };
    let ptys = r#"perl -e 'for (1..9) { open($f[$_], "+<", "/dev/ptmx") or print($_), exit }'"#;
    let weight = ["blkio.bfq.weight", "io.bfq.weight"];
    // Without a limit these two depend on the machine's memory, of which a page may come or go: so in MiB and hundreds.
    let (size, inodes) = ("echo $(($(stat -f -c '%b * %S' /srv) >> 20))", "echo $(($(stat -f -c %c /srv) / 100))");
    vec![
        field("memory", none(), json!("96M"), figure("memory_max"), mebibyte(96)),
        field("memory_high", none(), json!("32M"), file(["memory.", "memory.high"], "max"), 32 << 20),
        field("memory_low", none(), json!("16M"), file(["memory.", "memory.low"], "0"), 16 << 20),
        field("memory_min", none(), json!("16M"), file(["memory.", "memory.min"], "0"), 16 << 20),
        field("oom_group", none(), json!(true), file(["memory.", "memory.oom.group"], "0"), 1),
        field(
            "swap",
            json!({"memory": "64M"}),
            json!("8M"),
            file(["memory.memsw.limit_in_bytes", "memory.swap.max"], ""),
            swap,
        ),
        field(
            "cpus",
            none(),
            json!(0.5),
            file(["cpu.cfs_quota_us", "cpu.max"], either("cpu", "-1", "max 100000")),
            either("cpu", "50000", "50000 100000"),
        ),
        field(
            "cpu_burst",
            json!({"cpus": 0.5}),
            json!("10ms"),
            file(["cpu.cfs_burst_us", "cpu.max.burst"], ""),
            10_000,
        ),
        field("cpu_idle", none(), json!(true), file(["cpu.idle"; 2], "0"), 1),
        field(
            "cpu_weight",
            none(),
            json!(300),
            file(["cpu.shares", "cpu.weight"], either("cpu", "1024", "100")),
            either("cpu", "3072", "300"),
        ),
        field("cpu_rt_runtime", real_time(), json!("10ms"), file(["cpu.rt_runtime_us", "cpu."], "0"), 10_000),
        field(
            "cpu_rt_period",
            with(real_time(), json!({"cpu_rt_runtime": "10ms"})),
            json!("500ms"),
            file(["cpu.rt_period_us", "cpu."], ""),
            500_000,
        ),
        field("cpuset", none(), json!("0"), inside("grep Cpus_allowed_list /proc/1/status"), "Cpus_allowed_list:\t0"),
        field("pids", none(), json!(99), figure("pids_max"), "Some(99)"),
        field("io_weight", none(), json!(300), file(weight, "100"), either("blkio", "300", "default 300")),
        field("io_max", none(), json!({"/": {"rbps": "8M"}}), rates, 8 << 20),
        field("hugepages", none(), json!({"2M": "4M"}), figure("hugepages.2M.max"), mebibyte(4)),
        field("rdma", none(), json!({"none0": {"hca_handle": 1}}), file(["rdma.max"; 2], ""), ""),
        field("misc", none(), json!({"none": 1}), file(["misc.max"; 2], ""), ""),
        field("devices", none(), json!(["/dev/full:/dev/f"]), inside("test -c /dev/f; echo $?"), 0),
        field("device_rules", none(), json!(["deny c 1:5 r"]), inside("(: </dev/zero) 2>/dev/null; echo $?"), 2),
        field("disk", none(), json!("16M"), inside(size), 16),
        field("inodes", none(), json!(900), inside(inodes), 9),
        field("quota", image(), json!({"uid:1000": "1M"}), figure("quota.uid:1000.disk_max"), mebibyte(1)),
        field("ptys", none(), json!(3), inside(ptys), 4),
        field("sysctls", none(), json!({"kernel.msgmax": "1234"}), inside("cat /proc/sys/kernel/msgmax"), 1234),
        field("shm_size", none(), json!("1M"), inside("stat -f -c %b /dev/shm"), (1 << 20) / page),
        field(
            "annotations",
            none(),
            json!({"a": "b"}),
            |c| format!("{:?}", c.spec().annotations.get("a")),
            r#"Some("b")"#,
        ),
    ]
}

/// A loop device that bfq schedules, so that there is one to share by weight; the kernel may have no bfq.
struct SharedByWeight {
    device: String,
    _file: Tmp,
}

impl SharedByWeight {
    fn new() -> Option<Self> {
        if !is_root() {
            return None;
        }
        let file = tmp();
        let image = file.path().join("image");
        fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
        for module in ["loop", "bfq"] {
            let _ = process::Command::new("modprobe").arg(module).stderr(process::Stdio::null()).status();
        }
        let output = process::Command::new("losetup").args(["-f", "--show"]).arg(&image).output().unwrap();
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if device.is_empty() {
            return None;
        }
        let made = Self { device, _file: file };
        let _ = fs::write(made.scheduler(), "bfq");
        Some(made)
    }

    fn scheduler(&self) -> String {
        format!("/sys/block/{}/queue/scheduler", self.device.rsplit('/').next().unwrap())
    }
}

impl Drop for SharedByWeight {
    fn drop(&mut self) {
        // The next user of the number gets it as it was.
        let _ = fs::write(self.scheduler(), "none");
        let _ = process::Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// These show by ending the container: see the tests of their own.
const ENDING: [&str; 2] = ["wall_time", "cpu_time"];

/// What not every machine has, or not every caller may have.
const NOT_EVERYWHERE: [&str; 13] = [
    "memory_high",
    "memory_low",
    "memory_min",
    "oom_group",
    "cpu_rt_runtime",
    "cpu_rt_period",
    "io_weight",
    "io_max",
    "hugepages",
    "rdma",
    "misc",
    "device_rules",
    "quota",
];

#[test]
fn every_field_changes_while_it_runs() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let _shared = SharedByWeight::new();
    let all = fields();
    // A refusal says what can change.
    let container = start(json!({}));
    let error = container.update(|spec| spec.hostname = Some("other".into())).unwrap_err();
    container.close(None).unwrap();
    let hint = error.hint().unwrap();
    let mut listed: Vec<&str> = hint.split_once("running: ").expect(hint).1.split(", ").collect();
    let mut shown: Vec<&str> = all.iter().map(|field| field.name).chain(ENDING).collect();
    listed.sort();
    shown.sort();
    assert_eq!(shown, listed, "each of these has to be in the table of this test");
    for field in all {
        let Field { name, with: beside, value, .. } = &field;
        let change = json!({(*name): value});
        // What cannot be had at the start cannot be had later.
        let refused = Container::start(&spec(with(beside.clone(), change.clone()))).map(|c| c.close(None)).err();
        let memory = name.starts_with("memory_") || *name == "oom_group";
        if let Some(error) = &refused {
            assert!(NOT_EVERYWHERE.contains(name) && (!memory || on_v1("memory")), "{error}\n{}", error.to_json());
        }
        // Where the start is refused for what is beside it, there is no container to change.
        let container = match Container::start(&spec(beside.clone())) {
            Ok(container) => container,
            Err(error) => {
                let refused = refused.unwrap_or_else(|| panic!("{name}: {error}"));
                assert_eq!(error.field(), refused.field(), "{name}");
                println!("{name}: {error}");
                continue;
            }
        };
        let (before, spec_before) = ((field.seen)(&container), container.spec());
        let done = container.update_json(&change.to_string());
        if let Some(refused) = refused {
            let error = done.expect_err(name);
            println!("{name}: {error}");
            assert_eq!(error.kind(), refused.kind(), "{error}, {refused}");
            assert!(error.field().is_some_and(|field| field.starts_with(name)), "{name}: {error}");
        } else {
            done.unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()));
            let seen = (field.seen)(&container);
            println!("{name}: {before:?}, then {seen:?}");
            assert_eq!(seen, field.wanted, "{name}");
            assert_ne!(seen, before, "{name}");
            assert!(container.spec() != spec_before, "{name}");
            // Entries of a map one by one, where there are others.
            let nothing = match (&beside[*name], value) {
                (Value::Object(_), Value::Object(map)) => map.keys().map(|key| (key.clone(), Value::Null)).collect(),
                _ => Value::Null,
            };
            let change = json!({(*name): nothing});
            container.update_json(&change.to_string()).unwrap_or_else(|e| panic!("{e}\n{}", e.to_json()));
        }
        assert_eq!((field.seen)(&container), before, "{name}");
        assert_eq!(container.spec(), spec_before, "{name}");
        container.close(None).unwrap();
    }
}

#[test]
fn times_that_are_taken_away_do_not_end_it() {
    if !can_limit() {
        return skip("no control group for this caller");
    }
    let container = start(json!({"argv": ["sh", "-c", "while :; do :; done"]}));
    let cpu = || container.usage().unwrap().cpu_usage_usec.unwrap();
    let since = Instant::now();
    let (wall, used) = (Duration::from_secs(4), Duration::from_micros(cpu()) + Duration::from_secs(2));
    container.update(|spec| (spec.wall_time, spec.cpu_time) = (Some(wall), Some(used))).unwrap();
    container.update(|spec| (spec.wall_time, spec.cpu_time) = (None, None)).unwrap();
    until("it has used more", || Duration::from_micros(cpu()) > used + Duration::from_secs(1));
    std::thread::sleep((wall + Duration::from_secs(1)).saturating_sub(since.elapsed()));
    assert!(container.is_running());
    container.update(|spec| spec.cpu_time = Some(used)).unwrap();
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!(status.reason, Reason::CpuTime);
    container.close(None).unwrap();

    let container = start(json!({"argv": ["sleep", "60"]}));
    container.update(|spec| spec.wall_time = Some(Duration::from_millis(1))).unwrap();
    let status = container.main().unwrap().wait(TIMEOUT).unwrap().unwrap();
    assert_eq!(status.reason, Reason::WallTime);
    container.close(None).unwrap();
}
