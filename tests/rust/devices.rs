//! Limits and weights of block devices, against what the kernel counted.
//!
//! tests/run: timeout=600 vm=root threads=1

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{self, Output};
use std::time::Duration;

use common::*;
use ringfence::spec::{IoMax, Stdio};
use ringfence::{Command, Container, ErrorKind, Spec};

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

    fn sys(&self, file: &str) -> PathBuf {
        PathBuf::from("/sys/block").join(self.path.rsplit('/').next().unwrap()).join(file)
    }

    fn number(&self) -> String {
        fs::read_to_string(self.sys("dev")).unwrap().trim().to_owned()
    }

    /// Past the page cache. The descriptor is the host's, what is done with it the container's.
    fn open(&self) -> File {
        open_direct(&self.path)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The next user of the number gets it as it was.
        let _ = fs::write(self.sys("queue/scheduler"), "none");
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

/// An emulated processor on a busy machine may not come as far as a limit allows.
fn slow() -> bool {
    std::env::var("RINGFENCE_TEST_TIER").as_deref() == Ok("vm")
}

#[test]
fn four_rates_of_a_device() {
    let Some(device) = Loop::new() else { return };
    // So little that a slow reader comes up against it too.
    const BYTES: u64 = 2 << 20;
    const OPERATIONS: u64 = 100;
    let most = IoMax { rbps: Some(BYTES), wbps: Some(BYTES), riops: Some(OPERATIONS), wiops: Some(OPERATIONS) };
    let Some(container) = start_with(&spec(json!({})).io_max(&*device.path, most)) else { return };
    assert!(limits(&container).contains(&format!("{BYTES}")));
    let (source, target) = (device.open(), device.open());
    // Large blocks come up against the bytes, small ones against the operations; reading and writing at the same time.
    for (block, rate) in [(64 << 10, BYTES as f64), (4 << 10, OPERATIONS as f64 * 4096.0)] {
        let count = (rate * 3.0) as u64 / block;
        let (read, written) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| copy(&container, Some(source.as_raw_fd()), None, block, count));
            let writer = scope.spawn(|| copy(&container, None, Some(target.as_raw_fd()), block, count));
            (reader.join().unwrap(), writer.join().unwrap())
        });
        for (way, seconds) in [("read", read), ("written", written)] {
            let seen = (block * count) as f64 / seconds;
            println!("{way} in blocks of {block}: {seen:.0} bytes/s of {rate}");
            assert!(seen <= 1.15 * rate, "{way} in blocks of {block}: {seen} bytes/s of {rate}");
            assert!(seen >= 0.85 * rate || slow(), "{way} in blocks of {block}: {seen} bytes/s of {rate}");
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
    assert!(seconds >= 1.7 && (seconds <= 2.3 || slow()), "{seconds} s for two seconds' worth");
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

/// Bytes of the device that the container has read, as the kernel counts them.
fn bytes_read(container: &Container, device: &str) -> u64 {
    let (path, v2) = group_of(container, "blkio", "io");
    let text = fs::read_to_string(path.join(if v2 { "io.stat" } else { "blkio.throttle.io_service_bytes" })).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
    let found = match v2 {
        true => lines.next().and_then(|rest| rest.split(' ').find_map(|word| word.strip_prefix("rbytes="))),
        false => lines.find_map(|rest| rest.strip_prefix("Read ")),
    };
    found.map_or(0, |count| count.parse().unwrap())
}

/// Two containers with weights 100 and 300 that read a device as fast as they can: three times as much for the second.
/// `file` has the weight, without the controller's name; each container has two to the power of `forks` readers.
fn three_times_as_much(device: &Loop, file: &str, forks: u32, within: f64) {
    const READ: &str = "import os, mmap, sys
for i in range(int(sys.argv[1])): os.fork()
m = mmap.mmap(-1, 65536)
while True:
    for at in range(0, 64 << 20, 65536): os.preadv(0, [m], at)";
    let number = device.number();
    let containers = [100, 300].map(|weight| (weight, start(json!({"io_weight": weight}))));
    let source = device.open();
    for (weight, container) in &containers {
        let (path, v2) = group_of(container, "blkio", "io");
        let text = fs::read_to_string(path.join(format!("{}.{file}", if v2 { "io" } else { "blkio" }))).unwrap();
        assert_eq!(text.trim().trim_start_matches("default "), weight.to_string(), "{file}");
        let mut command = container.command("python3");
        command
            .args(["-c", READ, &forks.to_string()])
            .stdin(Stdio::Fd(source.as_raw_fd()))
            .stdout(Stdio::Null)
            .stderr(Stdio::Null);
        command.spawn().unwrap();
    }
    let read = || [0, 1].map(|i: usize| bytes_read(&containers[i].1, &number));
    until("both read", || read().iter().all(|&bytes| bytes >= 1 << 20));
    let before = read();
    std::thread::sleep(Duration::from_secs(4));
    let after = read();
    let ratio = (after[1] - before[1]) as f64 / (after[0] - before[0]) as f64;
    println!("{file}: {before:?} to {after:?}, {ratio:.2} times as much");
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
    if fs::write(device.sys("queue/scheduler"), "bfq").is_ok() {
        // What it promises to those that have one request under way depends on waiting for their next one, and on not favouring
        // those that look interactive.
        for (key, value) in [("strict_guarantees", "1"), ("low_latency", "0")] {
            fs::write(device.sys("queue/iosched").join(key), value).unwrap();
        }
        // An emulated processor is slower than the device, so that bfq seldom has something to choose from (seen: 1.4 to 2.8 times
        // as much): there the weight in the kernel's file is what is shown, and iocost shares.
        let (forks, within) = if slow() { (3, f64::INFINITY) } else { (0, 0.25) };
        three_times_as_much(&device, "bfq.weight", forks, within);
        let e = Container::start(&Spec::new().io_weight(1001)).unwrap_err();
        assert_eq!(e.field(), Some("io_weight"), "bfq has weights up to 1000: {e}");
        fs::write(device.sys("queue/scheduler"), "none").unwrap();
        shown += 1;
    }
    let number = device.number();
    let cost = |file: &str, text: &str| {
        let file = fs::OpenOptions::new().write(true).open(format!("/sys/fs/cgroup/io.cost.{file}"));
        file.and_then(|mut file| file.write_all(format!("{number} {text}").as_bytes()))
    };
    if cost("qos", "enable=1 ctrl=user rpct=0 rlat=0 wpct=0 wlat=0 min=100 max=100").is_ok() {
        // A device that is slow enough for both to wait for it all the time.
        let model =
            "ctrl=user model=linear rbps=8000000 rseqiops=100 rrandiops=100 wbps=8000000 wseqiops=100 wrandiops=100";
        cost("model", model).unwrap();
        three_times_as_much(&device, "weight", 2, 0.25);
        cost("qos", "enable=0").unwrap();
        shown += 1;
    }
    if shown == 0 {
        skip("neither bfq nor iocost in this kernel");
    }
}
