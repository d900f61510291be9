//! Limits and weights of block devices, against what the kernel counted.
//!
//! tests/run: timeout=600 vm=root threads=1

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Output};
use std::time::{Duration, Instant};

use common::*;
use ringfence::spec::{IoMax, Stdio};
use ringfence::{Command, Container, ErrorKind, Process, Spec};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const SIZE: u64 = 64 << 20;

fn call(program: &str, arguments: &[&str]) -> Output {
    process::Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// A loop device over a file of zeros.
struct Loop {
    path: String,
    _file: Tmp,
}

impl Loop {
    /// `None`, and a message, where there can be none.
    fn new() -> Option<Self> {
        Self::at("-f")
    }

    /// `number`: `-f`, or a device that may have to be made.
    fn at(number: &str) -> Option<Self> {
        if !is_root() {
            skip("only root can make a loop device");
            return None;
        }
        let file = tmp();
        let image = file.path().join("image");
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        // A module on most kernels, which nothing loads before it is needed.
        let _ = process::Command::new("modprobe").arg("loop").stderr(process::Stdio::null()).status();
        let output = call("losetup", &["-P", "--show", number, image.to_str().unwrap()]);
        let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || path.is_empty() {
            skip(&format!("losetup: {}", String::from_utf8_lossy(&output.stderr)));
            return None;
        }
        Some(Self { path, _file: file })
    }

    fn number(&self) -> String {
        number_of(&self.path)
    }

    /// Past the page cache. The descriptor is the host's, what is done with it the container's.
    fn open(&self) -> File {
        open_direct(&self.path)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The next user of the number gets it as it was.
        let _ = fs::write(sys(&self.path, "queue/scheduler"), "none");
        let _ = process::Command::new("losetup").args(["-d", &self.path]).status();
    }
}

fn open_direct(path: &str) -> File {
    fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).unwrap()
}

/// `None`, and a message, where limits of devices cannot be had.
fn start_with(spec: &Spec) -> Option<Container> {
    match Container::start(spec) {
        Ok(container) => Some(container),
        Err(e) if e.kind() == ErrorKind::Unsupported && e.field() == Some("io_max") => {
            skip(&e.to_string());
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Where drivers are told of devices to make.
const CONFIG: &str = "/sys/kernel/config";

/// A device that takes its time and keeps nothing, so that it, and no processor, is what everybody waits for.
struct Slow {
    path: String,
    config: PathBuf,
    mounted: bool,
}

impl Slow {
    /// `depth` requests at once, each of which takes `time`. `None` where the kernel has no such devices (null_blk), or this is not
    /// the virtual machine, whose devices are nobody else's.
    fn new(time: Duration, depth: u32) -> Option<Self> {
        if !is_root() || !in_the_guest() {
            return None;
        }
        // Alone it would bring a device of its own.
        let _ = process::Command::new("modprobe")
            .args(["null_blk", "nr_devices=0"])
            .stderr(process::Stdio::null())
            .status();
        let root = Path::new(CONFIG).join("nullb");
        let mounted = !root.exists() && call("mount", &["-t", "configfs", "none", CONFIG]).status.success();
        let blocks = || -> Vec<_> { fs::read_dir("/sys/block").unwrap().flatten().map(|e| e.file_name()).collect() };
        let (before, config) = (blocks(), root.join(format!("slow-{}-{depth}", process::id())));
        fs::create_dir(&config).ok()?;
        let (time, depth) = (time.as_nanos().to_string(), depth.to_string());
        // Of request queues with a timer; MiB.
        let settings = [("queue_mode", "2"), ("irqmode", "2"), ("submit_queues", "1"), ("size", "64")];
        for (key, value) in settings.into_iter().chain([("completion_nsec", &*time), ("hw_queue_depth", &*depth)]) {
            fs::write(config.join(key), value).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        fs::write(config.join("power"), "1").unwrap();
        let name = blocks().into_iter().find(|name| !before.contains(name)).expect("a new device");
        let path = format!("/dev/{}", name.to_str().unwrap());
        until("its node is there", || fs::metadata(&path).is_ok());
        Some(Self { path, config, mounted })
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = fs::write(self.config.join("power"), "0");
        let _ = fs::remove_dir(&self.config);
        if self.mounted {
            call("umount", &[CONFIG]);
        }
    }
}

/// A file of a device in /sys/block.
fn sys(device: &str, file: &str) -> PathBuf {
    PathBuf::from("/sys/block").join(device.rsplit('/').next().unwrap()).join(file)
}

fn number_of(device: &str) -> String {
    fs::read_to_string(sys(device, "dev")).unwrap().trim().to_owned()
}

fn rbps(rate: u64) -> IoMax {
    IoMax { rbps: Some(rate), ..IoMax::default() }
}

/// The lines of the container's limits for reading.
fn limits(container: &Container) -> String {
    let (path, v2) = group_of(container, "blkio", "io");
    fs::read_to_string(path.join(if v2 { "io.max" } else { "blkio.throttle.read_bps_device" })).unwrap()
}

/// Copies blocks in the container: how many seconds it took, by its own clock.
fn copy(container: &Container, from: Option<RawFd>, to: Option<RawFd>, block: u64, count: u64) -> f64 {
    let mut command = Command::new("dd");
    command.args([format!("bs={block}"), format!("count={count}")]).stderr(Stdio::Pipe);
    command.env("LC_ALL", "C").stdin(from.map_or(Stdio::Null, Stdio::Fd)).stdout(to.map_or(Stdio::Null, Stdio::Fd));
    if from.is_none() {
        command.arg("if=/dev/zero");
    }
    let output = container.spawn(&command).unwrap().communicate(None, TIMEOUT).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code, Some(0), "{said}");
    let seconds = said.rsplit("copied, ").next().and_then(|rest| rest.split(' ').next());
    seconds.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{said}"))
}

/// Where an emulated processor may not come as far as a limit allows; and where devices and modules are nobody else's.
fn in_the_guest() -> bool {
    std::env::var("RINGFENCE_TEST_TIER").as_deref() == Ok("vm")
}

/// Readers or writers without an end: two to the power of `forks`, in blocks of so many bytes.
fn load(container: &Container, device: &File, way: &str, block: u64, forks: u32) -> Process {
    const LOAD: &str = "import os, mmap, sys
way, block = sys.argv[1], int(sys.argv[2])
m = mmap.mmap(-1, block)
for i in range(int(sys.argv[3])): os.fork()
while True:
    for at in range(0, 32 << 20, block):
        os.preadv(0, [m], at) if way == 'read' else os.pwritev(0, [m], at)";
    let mut command = container.command("python3");
    command.args(["-c", LOAD, way, &block.to_string(), &forks.to_string()]);
    command.stdin(Stdio::Fd(device.as_raw_fd())).stdout(Stdio::Null).stderr(Stdio::Null);
    command.spawn().unwrap()
}

/// What the container did on a device, as the kernel counts it: bytes read and written, requests for reading and writing.
fn done(container: &Container, device: &str) -> [u64; 4] {
    let (path, v2) = group_of(container, "blkio", "io");
    let read = |file: &str| fs::read_to_string(path.join(file)).unwrap();
    let find = |text: &str, key: &str| -> u64 {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
        let found = lines.find_map(|line| match v2 {
            true => line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')),
            false => line.strip_prefix(key)?.strip_prefix(' '),
        });
        found.map_or(0, |count| count.parse().unwrap())
    };
    if v2 {
        let stat = read("io.stat");
        return ["rbytes", "wbytes", "rios", "wios"].map(|key| find(&stat, key));
    }
    let (bytes, requests) = (read("blkio.throttle.io_service_bytes"), read("blkio.throttle.io_serviced"));
    [find(&bytes, "Read"), find(&bytes, "Write"), find(&requests, "Read"), find(&requests, "Write")]
}

#[test]
fn four_rates_of_a_device() {
    let Some(device) = Loop::new() else { return };
    // So little that readers and writers on an emulated processor come up against it too.
    const BYTES: u64 = 2 << 20;
    const OPERATIONS: u64 = 50;
    let bytes = IoMax { rbps: Some(BYTES), wbps: Some(BYTES), ..IoMax::default() };
    let operations = IoMax { riops: Some(OPERATIONS), wiops: Some(OPERATIONS), ..IoMax::default() };
    let Some(container) = start_with(&spec(json!({})).io_max(&*device.path, bytes)) else { return };
    assert!(limits(&container).contains(&format!("{BYTES}")));
    let file = device.open();
    // Large blocks come up against the bytes, small ones against the operations; reading and writing at the same time.
    for (block, rate, first) in [(64 << 10, BYTES, 0), (4 << 10, OPERATIONS, 2)] {
        if first == 2 {
            container.update(|spec| *spec = spec.clone().io_max(&*device.path, operations)).unwrap();
        }
        let loads = ["read", "write"].map(|way| load(&container, &file, way, block, 1));
        let counted = || (done(&container, &device.number()), Instant::now());
        // What was saved up before there was a load is spent then.
        let start = counted().0;
        until("both do something", || (first..first + 2).all(|i| counted().0[i] >= start[i] + rate / 2));
        let (before, since) = counted();
        std::thread::sleep(Duration::from_secs(6));
        let (after, end) = counted();
        for (i, way) in [(first, "read"), (first + 1, "written")] {
            let seen = (after[i] - before[i]) as f64 / (end - since).as_secs_f64();
            println!("{way} in blocks of {block}: {seen:.1} of {rate} in a second");
            assert!((seen / rate as f64 - 1.0).abs() <= 0.15, "{way} in blocks of {block}: {seen} of {rate}");
        }
        // Everybody but the shell itself and pid 1.
        sh_in(&container, "kill -KILL -1");
        for load in loads {
            assert_eq!(load.wait(TIMEOUT).unwrap().unwrap().signal, Some(libc::SIGKILL));
        }
    }
    container.update(|spec| spec.io_max.clear()).unwrap();
    assert!(!limits(&container).contains(&device.number()), "{}", limits(&container));
    let e = container.update(|spec| *spec = spec.clone().io_max("/dev/no-such-device", rbps(1 << 20)));
    assert_eq!(e.unwrap_err().errno(), libc::ENOENT);
    container.close(None).unwrap();
}

#[test]
fn a_partition_is_limited_as_its_device() {
    let Some(device) = Loop::new() else { return };
    let output = call("addpart", &[&device.path, "1", "2048", "65536"]);
    if !output.status.success() {
        return skip(&format!("addpart: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let partition = format!("{}p1", device.path);
    until("its node is there", || fs::metadata(&partition).is_ok());
    let Some(container) = start_with(&spec(json!({"pids": 20})).io_max(&*partition, rbps(4 << 20))) else { return };
    let before = limits(&container);
    assert!(before.contains(&device.number()), "{before}");
    let source = open_direct(&partition);
    let seconds = copy(&container, Some(source.as_raw_fd()), None, 256 << 10, 32);
    assert!(seconds >= 1.7 && (seconds <= 2.3 || in_the_guest()), "{seconds} s for two seconds' worth");
    // Its device, by path or by number, is the same one.
    for other in [device.path.clone(), device.number()] {
        let e = container.update(|spec| {
            spec.pids = Some(30);
            *spec = spec.clone().io_max(&*other, rbps(1 << 20));
        });
        let e = e.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidSpec, "{e}");
        assert!(e.field().is_some_and(|field| field.starts_with("io_max[")), "{e}");
        assert!(e.to_string().contains("under another name"), "{e}");
        assert_eq!((limits(&container), container.usage().unwrap().pids_max), (before.clone(), Some(20)));
    }
    container.close(None).unwrap();
    drop(source);
    call("delpart", &[&device.path, "1"]);
}

#[test]
fn a_device_that_goes_away() {
    // A number of its own, so that it can be removed for good.
    let number = 512 + process::id() % 4096;
    let Some(device) = Loop::at(&format!("/dev/loop{number}")) else { return };
    let name = device.path.clone();
    let Some(container) = start_with(&spec(json!({"pids": 20})).io_max(&*name, rbps(4 << 20))) else { return };
    drop(device);
    let control = File::open("/dev/loop-control").unwrap();
    const LOOP_CTL_REMOVE: libc::Ioctl = 0x4C81;
    until("the device is removed", || {
        // SAFETY: the request takes a number and no memory.
        let done = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_REMOVE, number as libc::c_ulong) };
        done >= 0 && fs::metadata(&name).is_err()
    });
    // It stands in the way of no other change, and cannot be asked for again.
    container.update(|spec| spec.pids = Some(30)).unwrap();
    assert_eq!(container.usage().unwrap().pids_max, Some(30));
    let e = container.update(|spec| *spec = spec.clone().pids(40).io_max(&*name, rbps(1 << 20))).unwrap_err();
    assert_eq!((e.field(), e.kind()), (Some(&*format!("io_max[{name:?}]")), ErrorKind::NotFound), "{e}");
    assert_eq!(container.usage().unwrap().pids_max, Some(30));
    container.update(|spec| spec.io_max.clear()).unwrap();
    assert!(container.spec().io_max.is_empty());
    let e = Container::start(&Spec::new().io_max(&*name, rbps(1 << 20))).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    container.close(None).unwrap();
}

/// Two containers with weights 100 and 300 that read a device as fast as they can: three times as much for the second.
/// `file` has the weight, without the controller's name; each container has two to the power of `forks` readers.
fn three_times_as_much(device: &str, file: &str, forks: u32, within: f64) {
    let number = number_of(device);
    let containers = [100, 300].map(|weight| (weight, start(json!({"io_weight": weight}))));
    let source = open_direct(device);
    for (weight, container) in &containers {
        let (path, v2) = group_of(container, "blkio", "io");
        let text = fs::read_to_string(path.join(format!("{}.{file}", if v2 { "io" } else { "blkio" }))).unwrap();
        assert_eq!(text.trim().trim_start_matches("default "), weight.to_string(), "{file}");
        load(container, &source, "read", 64 << 10, forks);
    }
    let read = || [0, 1].map(|i: usize| done(&containers[i].1, &number)[0]);
    until("both read", || read().iter().all(|&bytes| bytes >= 2 << 20));
    std::thread::sleep(Duration::from_secs(1));
    let before = read();
    // Long beside the slices of time in which bfq lets one after the other have the device.
    std::thread::sleep(Duration::from_secs(15));
    let after = read();
    let ratio = (after[1] - before[1]) as f64 / (after[0] - before[0]) as f64;
    println!("{file}: {before:?} to {after:?}, {ratio:.3} times as much");
    assert!((ratio / 3.0 - 1.0).abs() <= within, "{ratio} times as much");
    for (_, container) in containers {
        container.close(None).unwrap();
    }
}

fn shared_by_weight() -> bool {
    let qos = fs::read_to_string("/sys/fs/cgroup/io.cost.qos").unwrap_or_default();
    let schedulers = fs::read_dir("/sys/block").unwrap().flatten();
    let bfq = |name: PathBuf| fs::read_to_string(name).unwrap_or_default().contains("[bfq]");
    qos.contains("enable=1") || schedulers.into_iter().any(|block| bfq(block.path().join("queue/scheduler")))
}

#[test]
fn weights_of_a_device() {
    let Some(device) = Loop::new() else { return };
    if start_with(&Spec::new().io_max(&*device.path, rbps(1 << 20))).map(|c| c.close(None).unwrap()).is_none() {
        return;
    }
    if !shared_by_weight() {
        let e = Container::start(&Spec::new().io_weight(300)).unwrap_err();
        assert_eq!((e.field(), e.kind()), (Some("io_weight"), ErrorKind::Unsupported), "{e}");
        assert!(e.hint().is_some_and(|hint| hint.contains("bfq")), "{e}");
    }
    let mut shown = 0;
    let _ = process::Command::new("modprobe").arg("bfq").stderr(process::Stdio::null()).status();
    // One request at a time, so that there is always a choice of who is next.
    let slow = Slow::new(Duration::from_millis(4), 1);
    let path = slow.as_ref().map_or(&device.path, |slow| &slow.path);
    if fs::write(sys(path, "queue/scheduler"), "bfq").is_ok() {
        // What it promises depends on not favouring those that look interactive, and on seeing all requests: without room for
        // them in its queue (twice those of the device are its default, here 2) they wait outside, in the order of their arrival.
        // Short slices make many of them.
        let settings = [("iosched/strict_guarantees", "1"), ("iosched/low_latency", "0")];
        let of_slow = [("iosched/timeout_sync", "40"), ("nr_requests", "128")].into_iter().filter(|_| slow.is_some());
        for (key, value) in settings.into_iter().chain(of_slow) {
            fs::write(sys(path, "queue").join(key), value).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        // A loop device in memory is as fast as its readers: with several of them it is idle in between, and the ratio is theirs.
        let (forks, within) = if slow.is_some() { (2, 0.1) } else { (0, 0.25) };
        three_times_as_much(path, "bfq.weight", forks, within);
        let e = Container::start(&Spec::new().io_weight(1001)).unwrap_err();
        assert_eq!(e.field(), Some("io_weight"), "bfq has weights up to 1000: {e}");
        fs::write(sys(path, "queue/scheduler"), "none").unwrap();
        shown += 1;
    }
    drop(slow);
    let slow = Slow::new(Duration::from_micros(100), 64);
    let path = slow.as_ref().map_or(&device.path, |slow| &slow.path);
    let number = number_of(path);
    let cost = |file: &str, text: &str| {
        let file = fs::OpenOptions::new().write(true).open(format!("/sys/fs/cgroup/io.cost.{file}"));
        file.and_then(|mut file| file.write_all(format!("{number} {text}").as_bytes()))
    };
    if cost("qos", "enable=1 ctrl=user rpct=0 rlat=0 wpct=0 wlat=0 min=100 max=100").is_ok() {
        // A device that is slow enough, as it is told, for both to wait for it all the time.
        let iops = "rseqiops=50 rrandiops=50 wseqiops=50 wrandiops=50";
        cost("model", &format!("ctrl=user model=linear rbps=800000000 wbps=800000000 {iops}")).unwrap();
        three_times_as_much(path, "weight", 2, 0.1);
        cost("qos", "enable=0").unwrap();
        shown += 1;
    }
    if shown == 0 {
        skip("neither bfq nor iocost in this kernel");
    }
}
