//! Limits of block devices, against what the kernel counted.
//!
//! tests/run: timeout=600 vm=root threads=1

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
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

/// Where an emulated processor may not come as far as a limit allows.
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
        std::thread::sleep(Duration::from_secs(3));
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
