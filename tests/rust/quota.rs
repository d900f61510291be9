//! Limits of the writable layer on real file systems, against what the kernel itself counted.
//!
//! tests/run: timeout=900 vm=root

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use common::*;
use ringfence::spec::{Disk, DiskBackend, Filesystem, Stdio};
use ringfence::{Command, Container, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const MIB: u64 = 1 << 20;

/// Writes until it is refused, without buffers that hide how far it came; prints the bytes and the errno.
const FILL: &str = r#"
use Fcntl;
sysopen(F, $ARGV[0], O_WRONLY | O_CREAT | O_TRUNC) or die "$!";
my ($n, $step, $at) = (0, 1 << 20, 0);
while (1) {
    my $wrote = syswrite(F, "x" x $step);
    if (!defined $wrote) { $at = $! + 0; last if $step == 1; $step = $step > 1 ? int($step / 16) : 1; $step ||= 1; next }
    $n += $wrote;
}
print "$n $at\n";
"#;

/// Bytes that could be written to a new file, and the errno that ended it.
fn fill(container: &Container, path: &str, user: Option<&str>) -> (u64, i32) {
    let mut command = Command::new("perl");
    command.args(["-e", FILL, path]);
    if let Some(user) = user {
        command.user(user);
    }
    command.stdin(Stdio::Null).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
    // Hundreds of megabytes on an emulated disk.
    let output = container.spawn(&command).unwrap().communicate(None, Some(Duration::from_secs(300))).unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.status.code, Some(0), "{}", ran.err);
    let (bytes, errno) = ran.out.trim().split_once(' ').expect("two numbers");
    (bytes.parse().unwrap(), errno.parse().unwrap())
}

/// Empty files that could be made.
fn files(container: &Container) -> u64 {
    let script = r#"$n = 0; while (open(F, ">", "/srv/f$n")) { close F; $n++ } print $n"#;
    let ran = exec_in(container, Command::new("perl").args(["-e", script]));
    ran.out.trim().parse().unwrap_or_else(|_| panic!("{}", ran.err))
}

fn image(size: u64, filesystem: &str) -> Value {
    json!({"disk": {"size": size, "backend": "image", "filesystem": filesystem}})
}

/// Starts, or says why this machine cannot.
fn try_start(fields: Value) -> Option<Container> {
    match Container::start(&spec(fields)) {
        Ok(container) => Some(container),
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            skip(&error.to_string());
            None
        }
        Err(error) => panic!("{error}\n{}", error.to_json()),
    }
}

/// The loop device of a container's image.
fn device_of(container: &Container) -> String {
    let text = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid())).unwrap();
    let line = text.lines().find(|line| line.split(' ').nth(4) == Some("/dev")).expect("/dev");
    let source = line.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap();
    source.trim_start_matches("/dev/").to_owned()
}

fn is_attached(device: &str) -> bool {
    Path::new(&format!("/sys/block/{device}/loop")).exists()
}

#[test]
fn images_stop_at_their_size_and_leave_nothing() {
    if !is_root() {
        return skip("an image takes root");
    }
    for (filesystem, size) in [("ext4", 32 * MIB), ("btrfs", 128 * MIB), ("xfs", 320 * MIB)] {
        let Some(container) = try_start(image(size, filesystem)) else { continue };
        let device = device_of(&container);
        let size_of_device: u64 =
            fs::read_to_string(format!("/sys/block/{device}/size")).unwrap().trim().parse::<u64>().unwrap() * 512;
        assert_eq!(size_of_device, size, "{filesystem}");
        let empty = container.usage().unwrap();
        assert_eq!(empty.disk_max, Some(size), "{filesystem}");
        let (written, errno) = fill(&container, "/srv/a", None);
        assert_eq!(errno, libc::ENOSPC, "{filesystem}");
        // What the file system needs itself is in the size: no more than it holds can be written.
        let free = size - empty.disk_used.unwrap();
        assert!(written <= size, "{filesystem}: {written} of {size}");
        assert!(written as f64 >= free as f64 * 0.9, "{filesystem}: {written} of {free}");
        let full = container.usage().unwrap();
        assert!(full.disk_used.unwrap() >= written, "{filesystem}: {full:?}");
        // Everything private is in it.
        assert_ne!(sh_in(&container, "head -c 9000000 /dev/zero > /tmp/b 2>/dev/null; echo $?"), "0\n", "{filesystem}");
        // Ids are right inside, and nobody can grow it from there.
        assert_eq!(sh_in(&container, "stat -c %u:%g /srv/a"), "0:0\n");
        assert_eq!(sh_in(&container, "mount -o remount,rw /dev 2>/dev/null || echo refused"), "refused\n");
        container.close(None).unwrap();
        assert_eq!(container_last(&container), None);
        until("the loop device is free", || !is_attached(&device));
    }
}

/// After close there are no calls; before it, the last figures stay.
fn container_last(container: &Container) -> Option<u64> {
    container.usage().ok().and_then(|usage| usage.disk_used)
}

#[test]
fn the_last_figures_stay_and_the_image_goes() {
    if !is_root() {
        return skip("an image takes root");
    }
    let fields =
        with(image(32 * MIB, "ext4"), json!({"argv": ["sh", "-c", "head -c 5000000 /dev/zero > /srv/a; sleep 0.2"]}));
    let Some(container) = try_start(fields) else { return };
    let device = device_of(&container);
    assert!(container.wait_end(TIMEOUT).unwrap());
    let usage = container.usage().unwrap();
    assert!(usage.disk_used.unwrap() >= 5_000_000, "{usage:?}");
    assert_eq!(usage.disk_max, Some(32 * MIB));
    // The handle is open still.
    until("the loop device is free", || !is_attached(&device));
    container.close(None).unwrap();
}

#[test]
fn inodes_of_an_image() {
    if !is_root() {
        return skip("an image takes root");
    }
    let Some(container) = try_start(with(image(32 * MIB, "ext4"), json!({"inodes": 500}))) else { return };
    let before = container.usage().unwrap();
    assert_eq!(before.inodes_max, Some(500));
    let made = files(&container);
    assert_eq!(made, 500 - before.inodes_used.unwrap(), "{before:?}");
    assert_eq!(container.usage().unwrap().inodes_used, Some(500));
    let error = container.update(|spec| spec.inodes = Some(600)).unwrap_err();
    assert_eq!(error.field(), Some("inodes"));
    container.close(None).unwrap();
    let error = refused(with(image(128 * MIB, "btrfs"), json!({"argv": ["true"], "inodes": 500})));
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("inodes")));
}

#[test]
fn images_grow_while_they_run_and_do_not_shrink() {
    if !is_root() {
        return skip("an image takes root");
    }
    let can_grow_ext4 = {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        u64::from_str_radix(&status_line(&status, "CapEff"), 16).unwrap() & 1 << 24 != 0
    };
    for (filesystem, size) in [("ext4", 32 * MIB), ("btrfs", 320 * MIB), ("xfs", 320 * MIB)] {
        let Some(container) = try_start(image(size, filesystem)) else { continue };
        let (first, _) = fill(&container, "/srv/a", None);
        let grown = container.update(|spec| spec.disk = Some((size + 32 * MIB).into()));
        if filesystem == "ext4" && !can_grow_ext4 {
            let error = grown.unwrap_err();
            assert!(error.hint().unwrap_or_default().contains("CAP_SYS_RESOURCE"), "{error}");
            assert_eq!(error.field(), Some("disk"));
            assert_eq!(container.usage().unwrap().disk_max, Some(size));
            assert_eq!(container.spec().disk.unwrap().size, size);
        } else {
            grown.unwrap_or_else(|e| panic!("{filesystem}: {e}"));
            assert_eq!(container.usage().unwrap().disk_max, Some(size + 32 * MIB), "{filesystem}");
            let (more, errno) = fill(&container, "/srv/b", None);
            assert_eq!(errno, libc::ENOSPC);
            assert!((24 * MIB..=33 * MIB).contains(&more), "{filesystem}: {first} then {more}");
        }
        let error = container.update(|spec| spec.disk = Some((16 * MIB).into())).unwrap_err();
        assert_eq!((error.field(), error.errno()), (Some("disk"), libc::EBUSY), "{error}");
        let error = container.update(|spec| spec.disk = None).unwrap_err();
        assert_eq!(error.field(), Some("disk"), "{error}");
        container.close(None).unwrap();
    }
}

#[test]
fn an_image_goes_when_the_host_is_killed() {
    if !is_root() {
        return skip("an image takes root");
    }
    let Some(mut host) = Host::start(with(image(32 * MIB, "ext4"), json!({}))) else { return };
    let device = host.read_device.clone();
    assert!(is_attached(&device));
    host.child.kill().unwrap();
    host.child.wait().unwrap();
    until("the loop device is free", || !is_attached(&device));
}

/// This program once more, as a host that starts a container and then waits to be killed.
struct Host {
    child: process::Child,
    read_device: String,
    keeper: i32,
}

impl Host {
    const NAME: &str = "RINGFENCE_QUOTA_HOST";

    fn start(fields: Value) -> Option<Self> {
        let mut child = process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "host_of_another_test", "--nocapture"])
            .env(Self::NAME, fields.to_string())
            .stdout(process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.by_ref().map_while(Result::ok).find(|line| line.contains("started ") || line.contains("SKIP"));
        let said = said.expect("a word of the host");
        match said.split_once("started ") {
            Some((_, words)) => {
                let (device, keeper) = words.trim().split_once(' ').expect("a device and a pid");
                Some(Self { child, read_device: device.to_owned(), keeper: keeper.parse().unwrap() })
            }
            None => {
                println!("{said}");
                child.wait().unwrap();
                None
            }
        }
    }
}

#[test]
fn host_of_another_test() {
    let Ok(fields) = std::env::var(Host::NAME) else { return };
    let Some(container) = try_start(serde_json::from_str(&fields).unwrap()) else { return };
    let info: Value = serde_json::from_str(&container.info_json()).unwrap();
    println!("started {} {}", device_of(&container), info["keeper_pid"]);
    std::thread::sleep(Duration::from_secs(60));
    container.close(None).unwrap();
}

/// A file system on a loop device, mounted where only this test is.
struct Mounted {
    device: String,
    dir: PathBuf,
    _tmp: Tmp,
}

impl Mounted {
    /// `None` when the kernel does not mount it so.
    fn new(filesystem: &str, size: u64, mkfs: &[&str], options: &str) -> Result<Self, String> {
        let tmp = public_tmp();
        let file = tmp.path().join("image");
        File::create(&file).unwrap().set_len(size).unwrap();
        let run = |program: &str, args: &[&str]| {
            let output = process::Command::new(program).args(args).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(text) } else { Err(format!("{program}: {why}")) }
        };
        let path = file.to_str().unwrap();
        run(&format!("mkfs.{filesystem}"), &[mkfs, &[path]].concat()).unwrap();
        let _ = process::Command::new("modprobe").arg("loop").stderr(process::Stdio::null()).status();
        let device = run("losetup", &["-f", "--show", path]).unwrap();
        let dir = tmp.path().join("mounted");
        fs::create_dir(&dir).unwrap();
        let mounted = Self { device, dir, _tmp: tmp };
        run("mount", &["-t", filesystem, "-o", options, &mounted.device, mounted.dir.to_str().unwrap()])?;
        Ok(mounted)
    }

    fn make(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).unwrap();
        dir
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = process::Command::new("umount").arg(&self.dir).stderr(process::Stdio::null()).status();
        let _ = process::Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// Layers with an upper directory of the host.
fn upper(lower: &Path, upper: &Path, fields: Value) -> Value {
    with(json!({"rootfs": {"lower": [lower], "upper": upper}}), fields)
}

/// A root file system to run things in: the host's, as a lower layer.
fn lower() -> PathBuf {
    PathBuf::from("/")
}

#[test]
fn a_subvolume_of_btrfs_stops_at_its_limit() {
    a_subvolume_stops_at_its_limit(false);
}

#[test]
fn a_subvolume_with_simple_quotas_stops_at_its_limit() {
    a_subvolume_stops_at_its_limit(true);
}

/// Simple quotas, Linux 6.7: `btrfs quota enable --simple`, for which the programs may be too old.
fn enable_simple_quotas(dir: &Path) -> nix::Result<()> {
    #[repr(C)]
    struct Control {
        command: u64,
        status: u64,
    }
    const BTRFS_IOC_QUOTA_CTL: libc::Ioctl = 0xC010_9428_u32 as libc::Ioctl;
    const ENABLE_SIMPLE: u64 = 4;
    let (dir, mut control) = (File::open(dir).unwrap(), Control { command: ENABLE_SIMPLE, status: 0 });
    // SAFETY: the request takes a pointer to this struct, which outlives the call.
    nix::errno::Errno::result(unsafe { libc::ioctl(dir.as_raw_fd(), BTRFS_IOC_QUOTA_CTL, &raw mut control) }).map(drop)
}

fn a_subvolume_stops_at_its_limit(simple: bool) {
    if !is_root() {
        return skip("quotas take root");
    }
    let mounted = Mounted::new("btrfs", 256 * MIB, &["-q"], "defaults").unwrap();
    let run = |args: &[&str]| {
        let output = process::Command::new("btrfs").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let dir = mounted.dir.join("layer");
    run(&["subvolume", "create", dir.to_str().unwrap()]);
    let fields = upper(&lower(), &dir, json!({"disk": 20 * MIB}));

    let error = refused(with(fields.clone(), json!({"argv": ["true"]})));
    assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("disk")), "{error}");
    assert!(error.hint().unwrap().contains("btrfs quota enable"), "{error}");

    if !simple {
        run(&["quota", "enable", mounted.dir.to_str().unwrap()]);
        run(&["quota", "rescan", "-w", mounted.dir.to_str().unwrap()]);
    } else if let Err(e) = enable_simple_quotas(&mounted.dir) {
        return skip(&format!("this kernel has no simple quotas: {e}"));
    } else {
        let mut all = fs::read_dir("/sys/fs/btrfs").unwrap().flatten();
        assert!(
            all.any(|one| fs::read_to_string(one.path().join("qgroups/mode")).is_ok_and(|mode| mode == "squota\n"))
        );
    }
    let max = || {
        run(&["subvolume", "sync", mounted.dir.to_str().unwrap()]);
        let text = run(&["qgroup", "show", "-r", "--raw", "--sync", mounted.dir.to_str().unwrap()]);
        let line = text.lines().find(|line| line.contains("layer")).unwrap_or_default().to_owned();
        line.split_whitespace().nth(3).unwrap_or_default().to_owned()
    };
    let in_place = refused(json!({"argv": ["true"], "rootfs": dir, "disk": 20 * MIB}));
    assert_eq!((in_place.kind(), in_place.field()), (ErrorKind::Unsupported, Some("disk")), "{in_place}");

    let container = start(fields.clone());
    assert_eq!(max(), (20 * MIB).to_string());
    let (written, errno) = fill(&container, "/srv/a", None);
    assert_eq!(errno, libc::EDQUOT);
    assert!((19 * MIB..=20 * MIB).contains(&written), "{written}");
    let usage = container.usage().unwrap();
    assert_eq!(usage.disk_max, Some(20 * MIB));
    assert!(usage.disk_used.unwrap() >= written && usage.disk_used.unwrap() <= 20 * MIB, "{usage:?}");

    let second = Container::start(&spec(fields.clone())).unwrap_err();
    assert_eq!((second.kind(), second.field()), (ErrorKind::AlreadyExists, Some("disk")), "{second}");

    container.update(|spec| spec.disk = Some((30 * MIB).into())).unwrap();
    assert_eq!(max(), (30 * MIB).to_string());
    let (more, errno) = fill(&container, "/srv/b", None);
    assert_eq!(errno, libc::EDQUOT);
    assert!((9 * MIB..=10 * MIB + MIB / 2).contains(&more), "{more}");
    let error = container.update(|spec| spec.disk = Some((10 * MIB).into())).unwrap_err();
    assert_eq!((error.field(), error.errno()), (Some("disk"), libc::EBUSY), "{error}");
    container.close(None).unwrap();
    assert_eq!(max(), "none", "lifted");

    let error = refused(with(fields.clone(), json!({"argv": ["true"]})));
    assert_eq!((error.field(), error.errno()), (Some("disk"), libc::EDQUOT), "{error}");
    fs::remove_file(dir.join("upper/srv/b")).unwrap();

    // Also when nobody is left to lift it but the keeper.
    let bigger = with(fields, json!({"disk": 64 * MIB}));
    let Some(mut host) = Host::start(bigger.clone()) else { panic!("it starts") };
    assert_eq!(max(), (64 * MIB).to_string());
    host.child.kill().unwrap();
    host.child.wait().unwrap();
    until("the limit is lifted", || max() == "none");

    // What its administrator had limited before is limited so again.
    run(&["qgroup", "limit", &(100 * MIB).to_string(), dir.to_str().unwrap()]);
    let container = start(bigger.clone());
    assert_eq!(max(), (64 * MIB).to_string());
    container.update(|spec| spec.disk = Some((70 * MIB).into())).unwrap();
    assert_eq!(max(), (70 * MIB).to_string());
    container.close(None).unwrap();
    assert_eq!(max(), (100 * MIB).to_string(), "the administrator's");
    // Also after a keeper that was killed could restore nothing.
    let Some(mut host) = Host::start(bigger.clone()) else { panic!("it starts") };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(host.keeper), nix::sys::signal::Signal::SIGKILL).unwrap();
    host.child.kill().unwrap();
    host.child.wait().unwrap();
    ringfence::gc().unwrap();
    assert_eq!(max(), (64 * MIB).to_string(), "nobody was left to lift it");
    start(bigger).close(None).unwrap();
    assert_eq!(max(), (100 * MIB).to_string(), "the administrator's");
    fs::read_dir(&dir).unwrap();
}

/// The limits that the kernel has for a project, in KiB and inodes, as repquota or xfs_quota would show them.
fn project_limits(mounted: &Mounted, filesystem: &str, id: u64) -> (u64, u64) {
    let dir = mounted.dir.to_str().unwrap();
    if filesystem == "xfs" {
        let report = |kind: &str| {
            let args = ["-x", "-c", &format!("quota -p {kind} -N -v {id}"), dir];
            let output = process::Command::new("xfs_quota").args(args).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split_whitespace().nth(3).map_or(0, |n| n.parse().unwrap())
        };
        return (report("-b"), report("-i"));
    }
    let output = process::Command::new("repquota").args(["-P", "-n", "-v", dir]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with(&format!("#{id} "))).unwrap_or_default().to_owned();
    let numbers: Vec<u64> = line.split_whitespace().skip(2).filter_map(|n| n.parse().ok()).collect();
    if numbers.len() < 6 { (0, 0) } else { (numbers[2], numbers[5]) }
}

fn projects(filesystem: &str, full: i32) {
    if !is_root() {
        return skip("quotas take root");
    }
    let mkfs: &[&str] = match filesystem {
        "ext4" => &["-q", "-F", "-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"],
        _ => &["-q"],
    };
    let size = if filesystem == "xfs" { 320 * MIB } else { 128 * MIB };
    let mounted = match Mounted::new(filesystem, size, mkfs, "prjquota") {
        Ok(mounted) => mounted,
        Err(why) => {
            // Without the option, the reason is an error of ours.
            let plain = Mounted::new(filesystem, size, &["-q"], "defaults").unwrap();
            let error = refused(json!({"argv": ["true"], "rootfs": plain.make("root"), "disk": "8M"}));
            assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("disk")), "{error}");
            let option = if filesystem == "xfs" { "CONFIG_XFS_QUOTA" } else { "CONFIG_QFMT_V2" };
            assert!(error.to_string().contains(option), "{error}");
            return skip(&why);
        }
    };
    let dir = mounted.make("layer");
    fs::create_dir_all(dir.join("upper/kept")).unwrap();
    fs::write(dir.join("upper/kept/before"), vec![b'x'; 100_000]).unwrap();
    let fields = upper(&lower(), &dir, json!({"disk": 10 * MIB, "inodes": 200}));
    let container = start(fields.clone());
    let info: Value = serde_json::from_str(&container.info_json()).unwrap();
    assert_eq!(info["disk"]["backend"], "project");
    let id = info["disk"]["project"].as_u64().unwrap();
    assert_eq!(project_limits(&mounted, filesystem, id), (10 * 1024, 200));

    let before = container.usage().unwrap();
    assert!(before.disk_used.unwrap() >= 100_000, "what was there counts: {before:?}");
    assert_eq!((before.disk_max, before.inodes_max), (Some(10 * MIB), Some(200)));
    let (written, errno) = fill(&container, "/srv/a", None);
    assert_eq!(errno, full);
    let left = 10 * MIB - before.disk_used.unwrap();
    assert!(written <= left && written + 128 * 1024 >= left, "{written} of {left}");
    assert!(container.usage().unwrap().disk_used.unwrap() <= 10 * MIB);
    let blocks = fs::metadata(dir.join("upper/srv/a")).unwrap().blocks() * 512;
    assert!(blocks >= written);

    sh_in(&container, "rm /srv/a");
    let made = files(&container);
    assert!(made <= 200 - before.inodes_used.unwrap(), "{made} {before:?}");
    assert_eq!(container.usage().unwrap().inodes_used, Some(200));

    // Nobody inside can change the project of a file.
    let escape =
        "touch /srv/f0; chattr -p 5 /srv/f0 2>&1; chattr -p 0 /srv/f0 2>&1; chattr -P / 2>&1; lsattr -p /srv/f0";
    let ran = exec_in(&container, Command::new("sh").args(["-c", escape]));
    assert!(!ran.out.lines().any(|line| line.trim_start().starts_with("5 ")), "{}", ran.out);

    container.update(|spec| spec.inodes = Some(400)).unwrap();
    container.update(|spec| spec.disk = Some((20 * MIB).into())).unwrap();
    assert_eq!(project_limits(&mounted, filesystem, id), (20 * 1024, 400));
    let (more, errno) = fill(&container, "/srv/b", None);
    assert_eq!(errno, full);
    assert!(more > 18 * MIB && more <= 20 * MIB, "{more}");
    let error = container.update(|spec| spec.disk = Some((10 * MIB).into())).unwrap_err();
    assert_eq!((error.field(), error.errno()), (Some("disk"), libc::EBUSY), "{error}");
    assert_eq!(project_limits(&mounted, filesystem, id), (20 * 1024, 400));
    let second = Container::start(&spec(fields.clone())).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::AlreadyExists, "{second}");
    container.close(None).unwrap();
    assert_eq!(project_limits(&mounted, filesystem, id), (0, 0), "lifted");

    // In place, with the same id again; and lifted when the host is killed.
    let root = mounted.make("root");
    process::Command::new("cp").args(["-a", "/bin", "/lib", "/lib64", "/usr/bin/env"]).arg(&root).status().unwrap();
    let error = refused(json!({"argv": ["true"], "rootfs": root, "disk": "4M", "idmap": "host"}));
    assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("disk")), "{error}");
    let mut last = None;
    for _ in 0..2 {
        let Some(mut host) = Host::start(upper(&lower(), &dir, json!({"disk": 40 * MIB}))) else { panic!("it starts") };
        let now = project_limits(&mounted, filesystem, id);
        assert_eq!(now, (40 * 1024, 0), "the directory keeps its project");
        host.child.kill().unwrap();
        host.child.wait().unwrap();
        until("the limit is lifted", || project_limits(&mounted, filesystem, id) == (0, 0));
        last = Some(now);
    }
    assert!(last.is_some());
}

#[test]
fn a_project_of_ext4_stops_at_its_limit() {
    projects("ext4", libc::EDQUOT);
}

#[test]
fn a_project_of_xfs_stops_at_its_limit() {
    projects("xfs", libc::ENOSPC);
}

#[test]
fn users_and_groups_of_an_image_have_their_own_limits() {
    if !is_root() {
        return skip("an image takes root");
    }
    for (filesystem, size) in [("ext4", 64 * MIB), ("xfs", 320 * MIB)] {
        let quota = json!({"uid:1000": {"disk": "2M", "inodes": 20}, "gid:77": "1M"});
        let fields = with(image(size, filesystem), json!({"quota": quota}));
        let container = match Container::start(&spec(fields)) {
            Ok(container) => container,
            Err(error) => {
                let option = if filesystem == "xfs" { "CONFIG_XFS_QUOTA" } else { "CONFIG_QFMT_V2" };
                assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("quota")), "{error}");
                assert!(error.to_string().contains(option), "{error}");
                skip(&error.to_string());
                continue;
            }
        };
        // The ids are those inside, whatever the container's are outside.
        let (written, errno) = fill(&container, "/tmp/a", Some("1000:1000"));
        assert_eq!((errno, written), (libc::EDQUOT, 2 * MIB), "{filesystem}");
        let (others, _) = fill(&container, "/tmp/b", Some("1001:1001"));
        assert!(others > 20 * MIB, "{filesystem}: {others}");
        sh_in(&container, "rm /tmp/b");
        let (grouped, errno) = fill(&container, "/tmp/c", Some("1002:77"));
        assert_eq!((errno, grouped), (libc::EDQUOT, MIB), "{filesystem}");
        let usage = container.usage().unwrap();
        assert_eq!(usage.get("quota.uid:1000.disk_used"), Some(Some(2 * MIB)), "{usage:?}");
        assert_eq!(usage.get("quota.uid:1000.disk_max"), Some(Some(2 * MIB)));
        assert_eq!(usage.get("quota.uid:1000.inodes_max"), Some(Some(20)));
        assert_eq!(usage.get("quota.gid:77.disk_used"), Some(Some(MIB)));

        container.update_json(r#"{"quota": {"uid:1000": "4M", "gid:77": null}}"#).unwrap();
        let (written, errno) = fill(&container, "/tmp/a", Some("1000:1000"));
        assert_eq!((errno, written), (libc::EDQUOT, 4 * MIB), "{filesystem}");
        let error = container.update_json(r#"{"quota": {"uid:9": "1M", "uid:1000": "1M"}}"#).unwrap_err();
        assert_eq!((error.field(), error.errno()), (Some("quota[\"uid:1000\"].disk"), libc::EBUSY), "{error}");
        assert_eq!(container.usage().unwrap().get("quota.uid:1000.disk_max"), Some(Some(4 * MIB)));
        container.close(None).unwrap();
    }
}

#[test]
fn by_name_and_from_another_program() {
    if !is_root() {
        return skip("an image takes root");
    }
    let name = format!("disk-{}", process::id());
    let fields = with(image(320 * MIB, "xfs"), json!({"name": name, "detach": true}));
    let Some(container) = try_start(fields) else { return };
    let device = device_of(&container);
    container.close(None).unwrap();
    let found = Container::by_name(&name).unwrap();
    let first = found.usage().map(|usage| usage.disk_max);
    let grown = found.update(|spec| spec.disk = Some((400 * MIB).into()));
    let second = found.usage().map(|usage| usage.disk_max);
    let again = Container::by_name(&name).unwrap().spec().disk.map(|disk| (disk.size, disk.backend));
    // Whatever was seen, it must not go on.
    found.kill().unwrap();
    assert!(found.wait_end(TIMEOUT).unwrap());
    assert_eq!((first, grown, second), (Ok(Some(320 * MIB)), Ok(()), Ok(Some(400 * MIB))));
    assert_eq!(again, Some((400 * MIB, DiskBackend::Image)));
    // This program has its last figures.
    assert_eq!(found.usage().unwrap().disk_max, Some(400 * MIB));
    until("the loop device is free", || !is_attached(&device));
    found.close(None).unwrap();
    ringfence::gc().unwrap();
}

/// Who was given CAP_SYS_ADMIN may have mounted anything: no quota is set then, wherever it would be.
#[test]
fn what_is_mounted_over_dev_later_is_not_limited() {
    let name = format!("over-{}", process::id());
    for detach in [false, true] {
        let container = start(json!({"name": name, "detach": detach}));
        let mut mount = Command::new("sh");
        // Later commands open what they have as standard input.
        let script = "touch /tmp/n && mount --bind /dev/null /tmp/n && mount -t tmpfs -o size=64M none /dev && touch /dev/null \
                      && mount --bind /tmp/n /dev/null";
        mount.args(["-c", script]);
        mount.capabilities = Some(spec(json!({"capabilities": {"add": ["sys_admin"]}})).capabilities);
        mount.stdin(Stdio::Null).stdout(Stdio::Null);
        let ran = exec_in(&container, &mount);
        assert_eq!(ran.status.code, Some(0), "{}", ran.err);
        let size = || sh_in(&container, "stat -f -c '%b %S' /dev");
        let before = size();
        let refused = |container: &Container| {
            let error = container.update(|spec| spec.disk = Some((4 * MIB).into())).unwrap_err();
            assert_eq!((error.field(), error.errno()), (Some("disk"), libc::EINVAL), "{error}");
            assert!(error.to_string().contains("CAP_SYS_ADMIN"), "{error}");
            assert!(container.spec().disk.is_none());
        };
        refused(&container);
        if detach {
            let again = Container::by_name(&name).unwrap();
            refused(&again);
        }
        assert_eq!(size(), before);
        sh_in(&container, "true");
        container.kill().unwrap();
        assert!(container.wait_end(TIMEOUT).unwrap());
        container.close(None).unwrap();
        ringfence::gc().unwrap();
    }
}

/// Nothing but the limited directory takes what is written, as far as the library mounts it.
#[test]
fn dev_beside_a_limited_directory_is_limited() {
    if !is_root() {
        return skip("quotas take root");
    }
    let mounted = Mounted::new("btrfs", 256 * MIB, &["-q"], "defaults").unwrap();
    let btrfs = |args: &[&str]| {
        let output = process::Command::new("btrfs").args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let dir = mounted.dir.join("layer");
    btrfs(&["subvolume", "create", dir.to_str().unwrap()]);
    btrfs(&["quota", "enable", mounted.dir.to_str().unwrap()]);
    btrfs(&["quota", "rescan", "-w", mounted.dir.to_str().unwrap()]);
    let fields = upper(&lower(), &dir, json!({"disk": 20 * MIB, "shm_size": "1M"}));
    let file = "x".repeat(3_000_000);
    let container = start(with(fields, json!({"files": {"/srv/given": file}})));
    let (written, errno) = fill(&container, "/dev/a", None);
    assert_eq!(errno, libc::ENOSPC);
    assert!((63 * MIB..=64 * MIB).contains(&written), "{written}");
    for (path, most) in [("/run/a", 20 * MIB), ("/tmp/a", 20 * MIB), ("/dev/shm/a", MIB)] {
        let (written, errno) = fill(&container, path, None);
        assert!(errno != 0 && written <= most, "{path}: {written}");
        sh_in(&container, &format!("rm {path}"));
    }
    container.close(None).unwrap();
}

/// Closing a device that was open for writing makes udev look at what is on it.
#[test]
fn a_look_does_not_open_the_device_for_writing() {
    if !is_root() {
        return skip("an image takes root");
    }
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    for (filesystem, size) in [("ext4", 32 * MIB), ("btrfs", 320 * MIB)] {
        let Some(container) = try_start(image(size, filesystem)) else { continue };
        let device = device_of(&container);
        let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        watch.add_watch(&*format!("/dev/{device}"), AddWatchFlags::IN_CLOSE).unwrap();
        container.usage().unwrap();
        let events: Vec<_> = watch.read_events().unwrap().into_iter().map(|event| event.mask).collect();
        assert!(!events.is_empty(), "{filesystem}: it looked");
        assert!(!events.contains(&AddWatchFlags::IN_CLOSE_WRITE), "{filesystem}: {events:?}");
        container.close(None).unwrap();
    }
}

const FORKS: &str = "RINGFENCE_QUOTA_FORKS";

#[test]
fn a_forked_child_holds_no_layer() {
    if !is_root() {
        return skip("an image takes root");
    }
    let ran = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "forks_for_another_test", "--nocapture"])
        .env(FORKS, "1")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&ran.stdout);
    match out.lines().find(|line| line.contains("SKIP")) {
        Some(line) => println!("{line}"),
        None => assert!(ran.status.success() && out.contains("both are gone"), "{out}{ran:?}"),
    }
}

/// A forked child that waits until this is dropped.
struct Waiting(libc::pid_t);

impl Waiting {
    fn fork() -> Self {
        // SAFETY: the child only waits to be killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            loop {
                // SAFETY: no preconditions.
                unsafe { libc::pause() };
            }
        }
        assert!(child > 0);
        Self(child)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // SAFETY: a child of this process that nobody has waited for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

#[test]
fn forks_for_another_test() {
    if std::env::var_os(FORKS).is_none() {
        return;
    }
    let name = format!("forks-{}", process::id());
    let Some(container) = try_start(with(image(32 * MIB, "ext4"), json!({"name": name}))) else { return };
    container.usage().unwrap();
    let device = device_of(&container);
    let child = Waiting::fork();
    container.close(TIMEOUT).unwrap();
    until("the loop device is free", || !is_attached(&device));
    // Its name can be had again, although the child lives.
    start(json!({"name": name})).close(TIMEOUT).unwrap();
    // SAFETY: no pointers; signal 0 only asks.
    assert_eq!(unsafe { libc::kill(child.0, 0) }, 0, "it has waited all the time");
    drop(child);
    println!("both are gone");
}

#[test]
fn a_frozen_container_is_counted_and_changed() {
    if !can_limit() {
        return skip("without a control group there is no freezer");
    }
    let container = start(json!({"disk": 8 * MIB, "pids": 3}));
    container.freeze().unwrap();
    container.update(|spec| spec.disk = Some((16 * MIB).into())).unwrap();
    assert_eq!(container.usage().unwrap().disk_max, Some(16 * MIB));
    container.thaw().unwrap();
    let (written, errno) = fill(&container, "/tmp/a", None);
    assert_eq!(errno, libc::ENOSPC);
    assert!(written > 15 * MIB && written <= 16 * MIB, "{written}");
    container.close(None).unwrap();
}

#[test]
fn a_tmpfs_agrees_with_what_the_container_sees() {
    let container = start(json!({"disk": 8 * MIB + 100, "inodes": 3000}));
    let seen = sh_in(&container, "stat -f -c '%b %S %c' /dev");
    let numbers: Vec<u64> = seen.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let usage = container.usage().unwrap();
    assert_eq!(numbers[0] * numbers[1], 8 * MIB, "never more than was asked for");
    assert_eq!((usage.disk_max, usage.inodes_max), (Some(8 * MIB), Some(3000)));
    assert_eq!(numbers[2], 3000);
    let (written, errno) = fill(&container, "/tmp/a", None);
    assert_eq!(errno, libc::ENOSPC);
    assert!(written <= 8 * MIB, "{written}");
    assert!(container.usage().unwrap().disk_used.unwrap() >= written);
    assert!(container.wait_end(Some(Duration::ZERO)).is_ok_and(|ended| !ended));
    container.close(None).unwrap();
}

#[test]
fn what_the_fields_refuse() {
    let disk = Disk { backend: DiskBackend::Image, ..Disk::from(MIB) };
    let builder = ringfence::Spec::new().disk(Disk { filesystem: Some(Filesystem::Xfs), ..disk });
    assert_eq!(builder.to_json(), r#"{"disk":{"backend":"image","filesystem":"xfs","size":1048576}}"#);
    for (fields, field) in [
        (json!({"disk": 100}), "disk"),
        (json!({"inodes": 0}), "inodes"),
        (json!({"disk": {"size": "8M", "filesystem": "xfs"}}), "disk.filesystem"),
        (json!({"disk": {"size": "8M", "path": "/var/tmp"}}), "disk.path"),
        (json!({"disk": {"size": "8M", "backend": "image", "path": "var"}}), "disk.path"),
        (json!({"disk": {"backend": "image"}}), "disk.size"),
        (json!({"quota": {"uid:5": "1M"}}), "quota"),
        (json!({"disk": {"size": "64M", "backend": "image"}, "quota": {"uid:5": {}}}), "quota[\"uid:5\"]"),
        (json!({"disk": {"size": "64M", "backend": "image"}, "quota": {"5": "1M"}}), "quota[\"5\"]"),
        (json!({"disk": "8M", "namespaces": {"mnt": "host"}}), "disk"),
        (json!({"disk": "8M", "mounts": [{"type": "tmpfs", "target": "/dev"}]}), "mounts[0]"),
    ] {
        let error = refused(with(json!({"argv": ["true"]}), fields.clone()));
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some(field)), "{fields}: {error}");
    }
    if !is_root() {
        let error = refused(with(image(32 * MIB, "ext4"), json!({"argv": ["true"]})));
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("disk.backend")), "{error}");
    }
}
