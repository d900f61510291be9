//! `idmap` of mounts, volumes and root file systems: whose a file is outside and inside, for every map; what cannot be mapped.
//!
//! tests/run: vm=root timeout=600

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process;

use common::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ringfence::{Container, Error, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A directory with a file of each of these owners in it, everybody's to write to.
fn fill(dir: &Path, owners: &[u32]) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).expect("chmod");
    for owner in owners {
        let file = dir.join(format!("of-{owner}"));
        fs::write(&file, "x").expect("write");
        chown(&file, Some(*owner), Some(*owner)).expect("chown");
    }
}

fn ids(path: impl AsRef<Path>) -> (u32, u32) {
    let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{:?}: {e}", path.as_ref()));
    (meta.uid(), meta.gid())
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// Unmounted at the end.
struct Mounted(PathBuf, Option<String>);

impl Mounted {
    fn tmpfs(at: &Path) -> Self {
        Self::new("tmpfs", "none", at).expect("a tmpfs")
    }

    fn new(kind: &str, source: &str, at: &Path) -> nix::Result<Self> {
        let none: Option<&str> = None;
        mount(Some(source), at, Some(kind), MsFlags::empty(), none)?;
        Ok(Self(at.to_owned(), None))
    }

    /// An image on a loop device; `None` where this kernel has no such file system.
    fn image(kind: &str, size: u64, file: &Path, at: &Path) -> Option<Self> {
        fs::File::create(file).expect("an image").set_len(size).expect("its size");
        let run = |program: &str, args: &[&str]| {
            let output = process::Command::new(program).args(args).output().ok().filter(|o| o.status.success())?;
            Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        run(&format!("mkfs.{kind}"), &["-q", &text(file)])?;
        let device = run("losetup", &["-f", "--show", &text(file)])?;
        let mounted = Self(at.to_owned(), Some(device));
        let device = mounted.1.clone().expect("just made");
        mount(Some(device.as_str()), at, Some(kind), MsFlags::empty(), None::<&str>).ok()?;
        Some(mounted)
    }

    /// What is at `from` with the ids that the container's map makes of those of the file system; `None` before Linux 6.15.
    fn mapped(from: &Path, at: &Path, container: &Container) -> Option<Self> {
        let user = fs::File::open(format!("/proc/{}/ns/user", container.pid())).expect("a user namespace");
        let path = CString::new(text(from)).expect("no NUL");
        // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
        let attr = [0x10_0000u64, 0, 0, user.as_raw_fd() as u64];
        // SAFETY: NUL-ended paths and a struct of the size given; a new descriptor is nobody else's.
        unsafe {
            let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), 1 | libc::O_CLOEXEC) as i32;
            assert!(tree >= 0, "open_tree: {}", std::io::Error::last_os_error());
            let tree = OwnedFd::from_raw_fd(tree);
            let empty = libc::AT_EMPTY_PATH;
            let set = libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), empty, attr.as_ptr(), 32);
            assert_eq!(set, 0, "mount_setattr: {}", std::io::Error::last_os_error());
            let to = CString::new(text(at)).expect("no NUL");
            let moved =
                libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, to.as_ptr(), 4);
            assert_eq!(moved, 0, "move_mount: {}", std::io::Error::last_os_error());
        }
        Some(Self(at.to_owned(), None))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
        if let Some(device) = &self.1 {
            let _ = process::Command::new("losetup").args(["-d", device]).status();
        }
    }
}

fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a version");
    let mut numbers = text.split(['.', '-']).map(|n| n.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[track_caller]
fn is(error: &Error, kind: ErrorKind, errno: i32, field: &str, words: &[&str]) {
    assert_eq!((error.kind(), error.errno(), error.field()), (kind, errno, Some(field)), "{error}");
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

const OWNERS: [u32; 4] = [0, 1000, 1001, 70_000];
const STAT: &str = "cd /d; stat -c %u of-0 of-1000 of-1001 of-70000 | tr '\\n' ' '; : >new && stat -c %u:%g new";

/// (file system, its directory): what holds here and on the guest.
fn file_systems(dir: &Path) -> Vec<(&'static str, PathBuf, Option<Mounted>)> {
    let mut all = Vec::new();
    for (kind, size) in [("tmpfs", 0), ("ext4", 16 << 20), ("xfs", 400 << 20), ("btrfs", 128 << 20)] {
        let at = dir.join(kind);
        fs::create_dir(&at).expect("mkdir");
        let mounted = match kind {
            "tmpfs" => Some(Mounted::tmpfs(&at)),
            _ => Mounted::image(kind, size, &dir.join(format!("{kind}.img")), &at),
        };
        match mounted {
            Some(mounted) => all.push((kind, at, Some(mounted))),
            None => println!("this machine makes no {kind}"),
        }
    }
    assert!(all.len() >= 2, "tmpfs and one on a disk");
    all
}

/// Ids of files that are there, inside; of what is made inside, outside; what has no id in the map.
#[test]
fn ids_inside_and_outside() {
    if !is_root() {
        return skip("only root has sources of other owners, and may idmap");
    }
    let dir = public_tmp();
    let explicit = json!({"uid": [[0, 700_000, 2000]], "gid": [[0, 700_000, 2000]]});
    let squash = "0 1000 1";
    // Inside 0 to 9 are 1000 to 1009, inside 1000 and on are 0 to 99.
    let swapped = json!({"uid": [[0, 1000, 10], [1000, 0, 100]], "gid": ["0 1000 10", "1000 0 100"]});
    let sides = json!({"uid": [[0, 1000, 1]], "gid": [[0, 70_000, 1]]});
    for (kind, path, _mounted) in file_systems(dir.path()) {
        let path = &path;
        fill(path, &OWNERS);
        for (idmap, container, user, seen, made) in [
            (json!(null), json!("auto"), "0", "0 1000 1001 65534 0:0", Some((0, 0))),
            (json!("container"), json!("auto"), "7:0", "0 1000 1001 65534 7:0", Some((7, 0))),
            (json!("container"), explicit.clone(), "0", "0 1000 1001 65534 0:0", Some((0, 0))),
            // The host's ids: those of the container's range are nobody's on the disk.
            (json!("host"), explicit.clone(), "5:0", "65534 65534 65534 65534 5:0", Some((700_005, 700_000))),
            (json!("host"), json!("host"), "5:0", "0 1000 1001 70000 5:0", Some((5, 0))),
            (json!("container"), json!("host"), "5:0", "0 1000 1001 70000 5:0", Some((5, 0))),
            (json!(squash), json!("auto"), "0", "65534 0 65534 65534 0:0", Some((1000, 1000))),
            (json!(squash), explicit.clone(), "0", "65534 0 65534 65534 0:0", Some((1000, 1000))),
            (json!(squash), json!("host"), "0", "65534 0 65534 65534 0:0", Some((1000, 1000))),
            // Who is not in it can make nothing.
            (json!(squash), json!("auto"), "1", "65534 0 65534 65534 ", None),
            (swapped.clone(), json!("auto"), "0", "1000 0 1 65534 0:0", Some((1000, 1000))),
            (swapped.clone(), json!("auto"), "1000:1002", "1000 0 1 65534 1000:1002", Some((0, 2))),
            (swapped.clone(), json!("host"), "9:1000", "1000 0 1 65534 9:1000", Some((1009, 0))),
            (sides.clone(), json!("auto"), "0", "65534 0 65534 65534 0:0", Some((1000, 70_000))),
        ] {
            let what = format!("{kind}: {idmap} in {container} as {user}");
            // Nobody may write to a directory whose owner or group the map has not.
            let owner = if idmap == sides { (1000, 70_000) } else { (1000, 1000) };
            chown(path, Some(owner.0), Some(owner.1)).expect("chown");
            let mount = json!({"source": path, "target": "/d", "rw": true, "idmap": idmap});
            let ran = run(json!({"argv": ["sh", "-c", STAT], "user": user, "idmap": container, "mounts": [mount]}));
            assert_eq!(ran.out.trim_end(), seen.trim_end(), "{what}: {}", ran.err);
            match made {
                Some(owner) => {
                    assert_eq!(ids(path.join("new")), owner, "{what}");
                    fs::remove_file(path.join("new")).expect("rm");
                }
                None => {
                    assert!(ran.err.contains("too large"), "EOVERFLOW: {what}: {}", ran.err);
                    assert!(!path.join("new").exists(), "{what}");
                }
            }
        }
        chown(path, Some(0), Some(0)).expect("chown");
        assert_eq!(
            sh(
                "(: >/d/new) 2>/dev/null || echo closed",
                json!({"mounts": [
            {"source": path, "target": "/d", "rw": true, "idmap": squash}]})
            ),
            "closed\n",
            "{kind}"
        );
        // chown to what the map has, and to what it has not; what is nobody's cannot be written to by root inside.
        let script = "cd /d; : >n; chown 3:4 n && stat -c %u:%g n; chown 11 n 2>/dev/null || echo no; (echo y >of-70000) 2>/dev/null || echo closed";
        fs::set_permissions(path.join("of-70000"), fs::Permissions::from_mode(0o644)).expect("chmod");
        let mount = json!({"source": path, "target": "/d", "rw": true, "idmap": swapped});
        assert_eq!(sh(script, json!({"mounts": [mount]})), "3:4\nno\nclosed\n", "{kind}");
        assert_eq!(ids(path.join("n")), (1003, 1004), "{kind}");
    }
}

/// Volumes, files, descriptors, read-only; a root file system and layers with a map of their own; many with one map.
#[test]
fn sources_of_every_kind() {
    if !is_root() {
        return skip("only root may idmap");
    }
    let dir = public_tmp();
    let source = dir.path().join("in");
    fs::create_dir(&source).expect("mkdir");
    fill(&source, &OWNERS);
    let name = format!("mount-idmap-{}", process::id());
    let opened = fs::File::open(&source).expect("open");
    let own = "0 1000 10";
    let mounts = json!([
        {"source": source.join("of-1000"), "target": "/file", "rw": true, "idmap": own},
        {"fd": opened.as_raw_fd(), "target": "/fd", "idmap": own},
        {"type": "volume", "source": name, "target": "/v", "idmap": own},
        {"type": "volume", "target": "/scratch", "idmap": own},
        {"type": "volume", "source": name, "target": "/raw", "idmap": "host"},
        format!("{}:/text:idmap=host", source.display()),
    ]);
    let script = "echo more >>/file; stat -c %u /file /fd/of-1000 /v /scratch /raw /text/of-1000; touch /fd/no 2>/dev/null || echo read-only; \
                  (: >/v/kept) 2>/dev/null || echo closed";
    // A volume is the caller's: root's of the host, whom this map has not.
    assert_eq!(sh(script, json!({"mounts": mounts})), "0\n0\n65534\n65534\n65534\n65534\nread-only\nclosed\n");
    assert_eq!(fs::read_to_string(source.join("of-1000")).expect("read"), "xmore\n");
    let both = json!({"uid": [[0, 0, 1], [5, 1000, 1]], "gid": [[0, 0, 1], [5, 1000, 1]]});
    let volume = json!([{"type": "volume", "source": name, "target": "/v", "idmap": both}]);
    assert_eq!(sh(": >/v/kept; chown 5:5 /v/kept; stat -c %u:%g /v/kept", json!({"mounts": volume})), "5:5\n");
    let place = ringfence::volumes().unwrap().into_iter().find(|volume| volume.name == name).expect("it stays").path;
    assert_eq!(ids(place.join("kept")), (1000, 1000));
    ringfence::remove_volume(&name).unwrap();

    // An image that was unpacked for ids from 100000 on.
    let Some(image) = busybox_image(&dir.path().join("image")) else { return skip("there is no busybox") };
    let shift = |path: &Path| {
        let output = process::Command::new("chown").args(["-R", "100000:100000"]).arg(path).status().expect("chown");
        assert!(output.success());
    };
    shift(&image);
    let shifted = json!("0 100000 65536");
    let argv = json!(["/bin/sh", "-c", "stat -c %u /bin / ; echo x >/made && stat -c %u /made"]);
    let root = |rootfs| run(json!({"argv": argv, "rootfs": rootfs}));
    let ran = root(json!({"path": image, "idmap": shifted}));
    assert_eq!(ran.out, "0\n0\n0\n", "{}", ran.err);
    assert_eq!(ids(image.join("made")), (100_000, 100_000));
    let upper = dir.path().join("upper");
    fs::create_dir(&upper).expect("mkdir");
    shift(&upper);
    let ran = root(json!({"lower": [image], "upper": upper, "idmap": shifted}));
    assert_eq!(ran.out, "0\n0\n0\n", "{}", ran.err);
    assert_eq!(ids(upper.join("upper/made")), (100_000, 100_000));
    // The container has just these ids: nothing is to be mapped.
    let map = json!({"uid": [[0, 100_000, 65_536]], "gid": [[0, 100_000, 65_536]]});
    let ran = run(json!({"argv": argv, "rootfs": {"path": image, "idmap": "host"}, "idmap": map}));
    assert_eq!(ran.out, "0\n0\n0\n", "{}", ran.err);

    // Hundreds with one map take one user namespace; with maps of their own each one.
    let many = |map: &dyn Fn(u32) -> Value| {
        let mount = |i: u32| json!({"source": source, "target": format!("/m/{i}"), "idmap": map(i)});
        let mounts: Vec<_> = (0..100).map(mount).collect();
        sh("stat -c %u /m/0/of-1000 /m/99/of-1000", json!({"mounts": mounts}))
    };
    assert_eq!(many(&|_| json!("0 1000 1")), "0\n0\n");
    assert_eq!(many(&|i| json!(format!("{i} 1000 1"))), "0\n99\n");
}

/// What is mounted below a source: mapped with it, or not.
#[test]
fn what_is_mounted_below() {
    if !is_root() {
        return skip("only root may idmap");
    }
    let dir = public_tmp();
    let source = dir.path().join("in");
    fs::create_dir(&source).expect("mkdir");
    fill(&source, &[1000]);
    let below = source.join("below");
    fs::create_dir(&below).expect("mkdir");
    let below = Mounted::tmpfs(&below);
    fill(&below.0, &[1000]);
    let seen = |extra: Value| {
        let mount = with(json!({"source": source, "target": "/d", "rw": true, "idmap": "0 1000 1"}), extra);
        let script = "stat -c %u /d/of-1000; stat -c %u /d/below/of-1000 2>/dev/null || ls /d/below";
        sh(script, json!({"mounts": [mount]}))
    };
    assert_eq!(seen(json!({})), "0\n0\n");
    assert_eq!(seen(json!({"idmap_recursive": false})), "0\n65534\n");
    assert_eq!(seen(json!({"recursive": false})), "0\n");
    assert_eq!(seen(json!({"idmap": "container", "idmap_recursive": false})), "1000\n65534\n");

    // One that cannot be idmapped: refused as a whole, and named.
    let deep = below.0.join("deep");
    fs::create_dir(&deep).expect("mkdir");
    let proc = Mounted::new("proc", "proc", &deep).expect("a proc");
    for (fields, field) in [(json!({}), "mounts[0]"), (json!({"idmap": "0 1000 1"}), "mounts[0].idmap")] {
        let mount = with(json!({"source": source, "target": "/d"}), fields);
        let error = refused(json!({"argv": ["true"], "mounts": [mount]}));
        let named = text(&deep);
        is(&error, ErrorKind::Unsupported, libc::EINVAL, field, &[&named, "(proc)", "idmap_recursive: false"]);
    }
    let left = json!({"source": source, "target": "/d", "idmap": "0 1000 1", "idmap_recursive": false});
    let script = "stat -c %u /d/of-1000; test -e /d/below/deep/version && echo there";
    assert_eq!(sh(script, json!({"mounts": [left]})), "0\nthere\n");
    let raw = json!({"source": source, "target": "/d", "idmap": "host"});
    assert_eq!(sh(script, json!({"mounts": [raw]})), "65534\nthere\n");
    drop(proc);
    drop(below);
}

/// Sources, and what is mounted below them, that have other ids already.
#[test]
fn a_map_on_a_map() {
    if !is_root() {
        return skip("only root may idmap");
    }
    let dir = public_tmp();
    let [disk, shown] = ["disk", "shown"].map(|name| dir.path().join(name));
    fs::create_dir(&disk).expect("mkdir");
    fs::create_dir(&shown).expect("mkdir");
    fill(&disk, &[0, 5]);
    fs::create_dir(disk.join("below")).expect("mkdir");
    // Its 0 to 9 are shown as 1000 to 1009.
    let map = json!({"uid": [[0, 1000, 10]], "gid": [[0, 1000, 10]]});
    let other = start(json!({"idmap": map}));
    let _mapped = Mounted::mapped(&disk, &shown, &other).expect("mapped");
    assert_eq!([ids(shown.join("of-0")), ids(shown.join("of-5"))], [(1000, 1000), (1005, 1005)]);
    let mount = |fields| with(json!({"source": shown, "target": "/d", "rw": true}), fields);
    let script =
        "cd /d; stat -c %u of-0 of-5 | tr '\\n' ' '; id -u | tr '\\n' ' '; rm -f new; : >new && stat -c %u new";
    let seen = |fields, user: &str| sh(script, json!({"mounts": [mount(fields)], "user": user}));
    if kernel() < (6, 15) {
        let error = refused(json!({"argv": ["true"], "mounts": [mount(json!({}))]}));
        is(
            &error,
            ErrorKind::Unsupported,
            libc::EPERM,
            "mounts[0]",
            &["idmapped already", "Linux 6.15", "idmap: host"],
        );
        let left = mount(json!({"idmap": "host"}));
        assert_eq!(sh("stat -c %u /d/of-0", json!({"mounts": [left]})), "65534\n");
        other.close(TIMEOUT).expect("close");
        return;
    }
    // What the source shows is what the map is about.
    assert_eq!(seen(json!({}), "1000:1000"), "1000 1005 1000 1000\n");
    assert_eq!(ids(disk.join("new")), (0, 0));
    assert_eq!(seen(json!({"idmap": "7 1005 1\n0 1000 1"}), "7:7"), "0 7 7 7\n");
    assert_eq!(ids(disk.join("new")), (5, 5));
    assert_eq!(seen(json!({"owner": "payload"}), "3:3"), "3 1005 3 3\n");
    assert_eq!(ids(disk.join("new")), (0, 0));
    // By a keeper of its own, which makes the user namespaces before it has a container.
    let name = format!("mount-idmap-{}", process::id());
    let detached = json!({"name": name, "detach": true, "mounts": [mount(json!({"idmap": "7 1005 1\n0 1000 1"}))]});
    let container = Container::start(&spec(detached)).expect("start");
    assert_eq!(sh_in(&container, "stat -c %u /d/of-0 /d/of-5 | tr '\\n' ' '"), "0 7 ");
    container.kill().expect("kill");
    container.wait_end(TIMEOUT).expect("its end");
    ringfence::gc().expect("gc");
    // As it is: the host's 1000 are not this container's.
    let as_it_is = json!({"mounts": [mount(json!({"idmap": "host"}))]});
    assert_eq!(sh("stat -c %u /d/of-0", as_it_is.clone()), "65534\n");
    assert_eq!(sh("stat -c %u /d/of-0", with(as_it_is, json!({"idmap": map}))), "0\n");
    // Ids that are shown and that the map has none of.
    let error = refused(json!({"argv": ["true"], "mounts": [mount(json!({"idmap": "0 0 1"}))]}));
    is(&error, ErrorKind::PermissionDenied, libc::EINVAL, "mounts[0].idmap", &["10 from 1000 on", &text(&shown)]);

    // Below a source that is mapped, and mapped below one that is not: each by what it shows.
    let below = Mounted::tmpfs(&shown.join("below"));
    fill(&below.0, &[1000, 5]);
    let all = "stat -c %u /d/of-0 /d/below/of-1000 /d/below/of-5 | tr '\\n' ' '";
    assert_eq!(sh(all, json!({"mounts": [mount(json!({}))]})), "1000 1000 5 ");
    assert_eq!(sh(all, json!({"mounts": [mount(json!({"idmap_recursive": false}))]})), "1000 65534 65534 ");
    let whole = format!("{}:/all:rw", dir.path().display());
    let script = "stat -c %u /all/disk/of-5 /all/shown/of-5 /all/shown/below/of-5 | tr '\\n' ' '; : >/all/shown/new; stat -c %u /all/shown";
    assert_eq!(sh(script, json!({"mounts": [whole], "user": "1000:1000"})), "5 1005 5 1000\n");
    let argv = json!(["/bin/sh", "-c", "stat -c %u /disk/of-5 /shown/of-5 /shown/below/of-5"]);
    if let Some(image) = busybox_image(&dir.path().join("image")) {
        for (name, at) in [("disk", &disk), ("shown", &shown)] {
            fs::create_dir(image.join(name)).expect("mkdir");
            mount_bind(at, &image.join(name));
        }
        let ran = run(json!({"argv": argv, "rootfs": image}));
        assert_eq!(ran.out, "5\n1005\n5\n", "{}", ran.err);
        for name in ["disk", "shown"] {
            umount2(&image.join(name), MntFlags::MNT_DETACH).expect("unmount");
        }
    }
    drop(below);
    other.close(TIMEOUT).expect("close");
}

fn mount_bind(from: &Path, to: &Path) {
    let none: Option<&str> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).expect("bind");
}

/// File systems without support, ids without any, ordinary callers: what is said, and that nothing is left.
#[test]
fn what_cannot_be_is_refused() {
    let dir = public_tmp();
    let path = text(dir.path());
    let mount = |fields| with(json!({"source": path, "target": "/d"}), fields);
    let refused_with =
        |fields: Value, extra: Value| refused(with(json!({"argv": ["true"], "mounts": [mount(fields)]}), extra));
    if !is_root() {
        for idmap in [json!("container"), json!("0 0 1")] {
            let error = refused_with(json!({"idmap": idmap}), json!({}));
            is(
                &error,
                ErrorKind::PermissionDenied,
                libc::EPERM,
                "mounts[0].idmap",
                &["CAP_SYS_ADMIN", "owner: payload"],
            );
            assert_eq!(error.path(), Some(path.as_str()), "{error}");
            let rootfs = json!({"path": path, "idmap": idmap});
            let error = refused(json!({"argv": ["true"], "rootfs": rootfs}));
            is(&error, ErrorKind::PermissionDenied, libc::EPERM, "rootfs.idmap", &["CAP_SYS_ADMIN"]);
        }
        // What ordinary callers have anyway.
        let seen = |idmap: Value| sh("stat -c %u /d", json!({"mounts": [mount(json!({"idmap": idmap}))]}));
        assert_eq!((seen(json!("host")), seen(json!(null))), ("0\n".into(), "0\n".into()));
        return;
    }
    let error = refused_with(json!({"idmap": {"uid": [[0, 0, 1], [65_530, 9, 7]], "gid": [[0, 0, 1]]}}), json!({}));
    is(&error, ErrorKind::PermissionDenied, libc::EINVAL, "mounts[0].idmap.uid[1]", &["id 65536 inside"]);
    let error =
        refused_with(json!({"idmap": {"uid": [[0, 0, 1]], "gid": [[100, 0, 1]]}}), json!({"idmap": "0 700000 100"}));
    is(&error, ErrorKind::PermissionDenied, libc::EINVAL, "mounts[0].idmap.gid[0]", &["id 100 inside"]);
    let pieces = (0..340).map(|i| format!("{} {} 2\n", i * 2, 700_000 + i * 3)).collect::<String>();
    let crossing = (0..340).map(|i| format!("{} {} 2\n", i * 2 + 1, i * 2)).take(339).collect::<String>();
    let error = refused_with(json!({"idmap": crossing}), json!({"idmap": pieces}));
    is(&error, ErrorKind::InvalidSpec, libc::EINVAL, "mounts[0].idmap.uid", &["678 ranges", "340"]);
    let user = format!("/proc/{}/ns/user", process::id());
    let joined = json!({"mounts": [mount(json!({"idmap": "0 0 1"}))], "namespaces": {"user": user}});
    let error = ringfence::plan(&spec(joined)).unwrap_err();
    is(&error, ErrorKind::Unsupported, libc::EINVAL, "mounts[0].idmap", &["joined user namespace"]);

    let overlay = dir.path().join("overlay");
    for name in ["overlay", "l", "u", "w"] {
        fs::create_dir(dir.path().join(name)).expect("mkdir");
    }
    let layers = format!("lowerdir={path}/l,upperdir={path}/u,workdir={path}/w");
    nix::mount::mount(Some("overlay"), &overlay, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
        .expect("overlay");
    let overlay = Mounted(overlay, None);
    for (source, kind) in [("/sys/kernel", "(sysfs)"), (overlay.0.to_str().expect("UTF-8"), "(overlay)")] {
        let mount = |fields| with(json!({"source": source, "target": "/d", "recursive": false}), fields);
        for (fields, field) in [(json!({}), "mounts[0]"), (json!({"idmap": "0 0 1"}), "mounts[0].idmap")] {
            let error = refused(json!({"argv": ["true"], "mounts": [mount(fields)]}));
            let words = [kind, "idmap: host for this mount", "idmap: host of the container", "tmpfs"];
            is(&error, ErrorKind::Unsupported, libc::EINVAL, field, &words);
            assert_eq!(error.path(), Some(source), "{error}");
        }
        sh("ls /d >/dev/null", json!({"mounts": [mount(json!({"idmap": "host"}))]}));
    }
    let error = refused(json!({"argv": ["true"], "rootfs": overlay.0}));
    is(&error, ErrorKind::Unsupported, libc::EINVAL, "rootfs", &["(overlay)", "rootfs with idmap: host"]);
}

/// Containers in a container: its root idmaps what was mounted in it, and nothing of the host's.
#[test]
fn in_a_container() {
    const INSIDE: &str = "RINGFENCE_TEST_MOUNT_IDMAP_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        fill(Path::new("/own"), &[0, 1000]);
        let mount = |source: &str, idmap: Value| json!({"source": source, "target": "/d", "rw": true, "idmap": idmap});
        let seen = |mount: Value, user: &str| {
            let ran = run(
                json!({"argv": ["sh", "-c", "cd /d; stat -c %u of-0 of-1000 | tr '\\n' ' '; : >new"], "mounts": [mount],
                "user": user, "rootfs": {"path": "host", "readonly": true}}),
            );
            let made = ids("/own/new");
            fs::remove_file("/own/new").expect("rm");
            (ran.out.trim().to_owned(), made)
        };
        chown("/own", Some(1000), Some(1000)).expect("chown");
        assert_eq!(seen(mount("/own", json!("0 1000 1")), "0"), ("65534 0".into(), (1000, 1000)));
        chown("/own", Some(0), Some(0)).expect("chown");
        assert_eq!(
            seen(mount("/own", json!({"uid": [[3, 0, 1]], "gid": [[3, 0, 1]]})), "3:3"),
            ("3 65534".into(), (0, 0))
        );
        assert_eq!(seen(mount("/own", json!("container")), "5:5"), ("0 1000".into(), (5, 5)));
        let fields = json!({"source": "/own", "target": "/d", "rw": true, "owner": "payload"});
        assert_eq!(seen(fields, "4:4"), ("4 1000".into(), (0, 0)));
        let rootfs = json!({"path": "host", "readonly": true});
        let error = refused(json!({"argv": ["true"], "rootfs": rootfs, "mounts": [mount("/exe", json!("0 0 1"))]}));
        // It is idmapped for this container already.
        let (kind, why) = match kernel() {
            (0..6, _) | (6, 0..15) => (ErrorKind::Unsupported, "idmapped already"),
            _ => (ErrorKind::PermissionDenied, "another user namespace"),
        };
        is(&error, kind, libc::EPERM, "mounts[0].idmap", &[why, "idmap: host"]);
        println!("all inside was seen");
        return;
    }
    if !is_root() {
        return skip("as root of a container whose ids are its own it is tried as root");
    }
    let program = std::env::current_exe().expect("this program");
    let (dir, name) = (program.parent().expect("a directory"), program.file_name().expect("a name").to_string_lossy());
    let ran = run(json!({
        "argv": [format!("/exe/{name}"), "--exact", "in_a_container", "--nocapture"],
        "env": {INSIDE: "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        "mounts": [format!("{}:/exe", dir.display()), {"type": "tmpfs", "target": "/own"}],
        "nesting": true,
        "capabilities": {"add": ["sys_admin"]},
    }));
    assert!(ran.out.contains("all inside was seen"), "{}{}", ran.out, ran.err);
}
