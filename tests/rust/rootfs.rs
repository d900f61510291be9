//! Root file systems: the host's own tree, owned or not, directories and layers as images.
//!
//! tests/run: timeout=600

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::*;
use ringfence::{Command, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A file of the host, removed at the end of the test.
struct HostFile(PathBuf);

impl HostFile {
    fn new(path: String, content: &str, mode: u32) -> Self {
        fs::write(&path, content).unwrap_or_else(|e| panic!("{path}: {e}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        Self(path.into())
    }
    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A name that no other test run has.
fn unique(name: &str) -> String {
    format!("ringfence-test-{}-{name}", std::process::id())
}

// --- the host's tree ---

#[test]
fn what_only_root_may_read_stays_unreadable() {
    let ran = run(json!({"argv": ["cat", "/etc/shadow"]}));
    assert_eq!((ran.status.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("Permission denied"), "{}", ran.err);
    if !is_root() {
        return;
    }
    // Of the caller itself, and of a group that the caller has but the container must not keep.
    let own = HostFile::new(format!("/var/{}", unique("secret")), "secret", 0o600);
    let group = HostFile::new(format!("/var/{}", unique("group-secret")), "secret", 0o640);
    for file in [&own, &group] {
        for user in ["0", "1000", "65534"] {
            let ran = run(json!({"argv": ["cat", file.path()], "user": user}));
            assert_eq!((ran.status.code, ran.out.as_str()), (Some(1), ""), "{} as {user}", file.path());
        }
    }
    // What anybody may read is there.
    let open = HostFile::new(format!("/var/{}", unique("open")), "open", 0o644);
    assert_eq!(sh(&format!("cat {}", open.path()), json!({})), "open");
}

#[test]
fn private_directories_hide_the_hosts() {
    let host = tmp();
    fs::write(host.path().join("file"), "x").expect("a file");
    let _socket = UnixListener::bind(host.path().join("socket")).expect("a socket");
    let script = format!(
        "for d in /home /root /run /tmp /var/tmp; do ls -A $d; touch $d/new || echo no $d; stat -c '%n %a %u' $d; done
         test -e {0} && echo host file; test -e {0}/socket && echo host socket; true",
        host.path().display()
    );
    let out = sh(&script, json!({}));
    assert_eq!(out, "/home 755 0\n/root 700 0\n/run 755 0\n/tmp 1777 0\n/var/tmp 1777 0\n");
    if is_root() {
        let path = format!("/run/{}", unique("socket"));
        let listener = UnixListener::bind(&path).expect("a socket in /run");
        let gone = run(json!({"argv": ["test", "-e", path]}));
        drop(listener);
        fs::remove_file(&path).expect("remove it");
        assert_eq!(gone.status.code, Some(1));
    }
}

const TALK: &str = r#"
import os, socket, sys
for path in sys.argv[1:]:
    try:
        if path.endswith("socket"):
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
        else:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(fd, b"from inside")
        print("reached", path)
    except OSError as error:
        print(error.errno)
"#;

/// Through a read-only bind mount both would be reached.
#[test]
fn sockets_and_fifos_of_the_host_are_not_reached() {
    if !is_root() {
        return skip("only root can make a socket in a directory that is not hidden");
    }
    let (socket, fifo) = (format!("/var/{}", unique("socket")), format!("/var/{}", unique("fifo")));
    let listener = UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("nonblocking");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).expect("its mode");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a FIFO");
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).expect("its mode");
    let reader =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).expect("the FIFO's reading end");
    let ran = run(json!({"argv": ["python3", "-c", TALK, socket, fifo]}));
    let accepted = listener.accept().is_ok();
    let mut text = String::new();
    let _ = (&reader).read_to_string(&mut text);
    for path in [&socket, &fifo] {
        fs::remove_file(path).expect("remove it");
    }
    assert!(!accepted && text.is_empty(), "accepted: {accepted}, read: {text:?}");
    let expected = format!("{}\n{}\n", libc::ECONNREFUSED, libc::ENXIO);
    assert_eq!(ran.out, expected, "{}", ran.err);
}

use std::os::unix::fs::OpenOptionsExt;

#[test]
fn the_top_of_each_directory_is_writable_and_no_more() {
    let name = unique("new");
    let script = format!(
        "for d in /etc /usr /opt; do test -d $d || continue; echo x >$d/{name} && mkdir $d/{name}.d && cat $d/{name}; done
         (echo x >/usr/bin/{name}) 2>/dev/null && echo wrote to /usr/bin
         (echo x >>/etc/passwd) 2>/dev/null && echo wrote to /etc/passwd
         rm -f /bin/true 2>/dev/null; test -x /usr/bin/true || echo removed"
    );
    let ran = run(json!({"argv": ["sh", "-c", script]}));
    let seen: Vec<_> = ran.out.lines().collect();
    assert!(seen.len() >= 2 && seen.iter().all(|line| *line == "x"), "{}{}", ran.out, ran.err);
    for dir in ["/etc", "/usr", "/opt"] {
        assert!(!Path::new(dir).join(&name).exists());
        assert!(!Path::new(dir).join(format!("{name}.d")).exists());
    }
    assert_eq!(run(json!({"argv": ["test", "-e", format!("/etc/{name}")]})).status.code, Some(1));
}

#[test]
fn a_read_only_root_has_writable_private_mounts_only() {
    let script =
        "for d in / /etc /usr /var; do (touch $d/x) 2>/dev/null && echo $d; done; touch /tmp/x /dev/shm/x && echo ok";
    assert_eq!(sh(script, json!({"rootfs": {"path": "host", "readonly": true}})), "ok\n");
}

fn mount_points(mountinfo: &str) -> Vec<&str> {
    mountinfo.lines().map(|line| line.split(' ').nth(4).expect("a mount point")).collect()
}

/// Whoever joins gets the top of what is mounted over "/": a leftover there would be another world.
#[test]
fn one_root_and_nothing_stacked_over_it() {
    for fields in [json!({}), json!({"rootfs": {"path": "host", "readonly": true}}), json!({"net": "host"})] {
        let container = start(fields.clone());
        let script = "cat /proc/self/mountinfo; echo =; stat -L -c %d:%i / /etc /usr /proc /dev /tmp";
        let joined = sh_in(&container, script);
        let (table, joined_files) = joined.split_once("=\n").expect("two parts");
        let points = mount_points(table);
        assert_eq!(points.iter().filter(|p| **p == "/").count(), 1, "{table}");
        let mut stacked: Vec<&str> =
            points.iter().filter(|point| points.iter().filter(|p| p == point).count() > 1).copied().collect();
        stacked.dedup();
        // What an ordinary caller shares of the host's /sys comes with its mounts, and the container's view covers one.
        let covered = !is_root() && fields["net"] == "host" && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        stacked.retain(|point| !(covered && *point == "/sys/fs/cgroup"));
        assert!(stacked.is_empty(), "{fields}: mounted twice at one place: {stacked:?}\n{table}");
        assert!(points.iter().all(|p| p.starts_with('/')), "{table}");
        // Nothing of the hidden directories, and propagation is private.
        for line in table.lines() {
            let optional = line.split(" - ").next().unwrap_or(line);
            assert!(!optional.contains("shared:") && !optional.contains("master:"), "{line}");
        }
        container.close(None).expect("close");

        let main = sh(script, fields);
        let (_, main_files) = main.split_once("=\n").expect("two parts");
        let numbers = |text: &str| text.lines().count();
        assert_eq!(numbers(joined_files), numbers(main_files));
    }
}

#[test]
fn a_process_that_joins_sees_what_the_main_process_sees() {
    let dir = tmp();
    let fields = json!({
        "argv": ["sh", "-c", "echo main >/etc/of-main; echo main >/tmp/of-main; readlink /proc/self/ns/* >/data/main; sleep 60"],
        "mounts": [format!("{}:/data:rw", dir.path().display())],
    });
    let container = start(fields);
    until("the main process writes", || {
        fs::read_to_string(dir.path().join("main")).is_ok_and(|t| t.lines().count() >= 8)
    });
    assert_eq!(
        sh_in(&container, "cat /etc/of-main /tmp/of-main; readlink /proc/self/ns/* >/data/joined"),
        "main\nmain\n"
    );
    let read = |name| fs::read_to_string(dir.path().join(name)).expect("written inside");
    assert_eq!(read("main"), read("joined"));
    assert_eq!(sh_in(&container, "stat -L -c %d:%i / /proc/1/root/. 2>/dev/null | head -n 1 | wc -l"), "1\n");
    container.close(None).expect("close");
}

#[test]
fn the_caller_s_mounts_do_not_change() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let before = mounts();
    sh("mkdir /tmp/a /tmp/b; true", json!({"mounts": [{"type": "tmpfs", "target": "/new/place"}]}));
    assert_eq!(before, mounts());
}

#[test]
fn an_owned_host_tree_can_be_changed_inside() {
    let owned = json!({"rootfs": "host:owned"});
    if !is_root() {
        let error = refused(with(json!({"argv": ["true"]}), owned));
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("rootfs")));
        assert!(error.hint().is_some());
        return;
    }
    let before = fs::read("/etc/passwd").expect("the host's /etc/passwd");
    let name = unique("owned");
    let script = format!(
        "stat -c %u:%g /etc/passwd /usr/bin/env /etc/shadow
         test -r /etc/shadow && echo readable
         echo extra:x:7:7::/:/bin/sh >>/etc/passwd && tail -n 1 /etc/passwd
         touch /usr/bin/{name} && stat -c %u /usr/bin/{name}
         rm /usr/bin/env && chown 5 /etc/group && stat -c %u /etc/group"
    );
    let out = sh(&script, owned);
    assert_eq!(out, "0:0\n0:0\n0:42\nreadable\nextra:x:7:7::/:/bin/sh\n0\n5\n");
    assert_eq!(fs::read("/etc/passwd").expect("still there"), before);
    assert!(Path::new("/usr/bin/env").exists() && !Path::new(&format!("/usr/bin/{name}")).exists());
    assert_eq!(fs::metadata("/etc/group").expect("still there").uid(), 0);
}

#[test]
fn what_cannot_be_shown_is_listed() {
    let container = start(json!({}));
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    assert!(info["left_out"].is_array(), "{info}");
    container.close(None).expect("close");
}

// --- directories ---

/// An image in a directory that goes with it.
macro_rules! image {
    ($dir:ident) => {
        match busybox_image($dir.path()) {
            Some(root) => root,
            None => return skip("no static busybox"),
        }
    };
}

#[test]
fn an_image_without_proc_dev_sys() {
    let dir = tmp();
    let root = image!(dir);
    let out = sh(
        "cat /etc/motd; ls /; test -c /dev/null && test -d /proc/self && ls -d /sys/kernel",
        json!({"rootfs": root}),
    );
    assert_eq!(out.lines().next(), Some("image"));
    for name in ["bin", "dev", "etc", "proc", "sys"] {
        assert!(out.lines().any(|line| line == name), "{out}");
    }
    assert!(out.ends_with("/sys/kernel\n"), "{out}");
}

#[test]
fn an_image_in_use_is_written_in_place_by_its_owner() {
    let dir = tmp();
    let root = image!(dir);
    let out =
        sh("echo new >/etc/new; echo more >>/etc/motd; stat -c %u:%g /etc/motd /etc/new /", json!({"rootfs": root}));
    assert_eq!(out, "0:0\n0:0\n0:0\n");
    assert_eq!(fs::read_to_string(root.join("etc/motd")).expect("read"), "image\nmore\n");
    let new = fs::metadata(root.join("etc/new")).expect("the new file");
    assert_eq!((new.uid(), new.gid()), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
}

#[test]
fn files_of_other_ids_map_both_ways() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let dir = tmp();
    let root = image!(dir);
    std::os::unix::fs::chown(root.join("etc/motd"), Some(1000), Some(1001)).expect("chown");
    let out = sh("stat -c %u:%g /etc/motd; touch /etc/new; chown 33:34 /etc/new", json!({"rootfs": root}));
    assert_eq!(out, "1000:1001\n");
    let new = fs::metadata(root.join("etc/new")).expect("the new file");
    assert_eq!((new.uid(), new.gid()), (33, 34));
}

#[test]
fn a_read_only_image_is_not_changed() {
    let dir = tmp();
    let root = image!(dir);
    for name in ["proc", "sys", "dev"] {
        fs::create_dir(root.join(name)).expect("a directory");
    }
    let out = sh(
        "for f in /x /etc/motd /bin/x; do (echo x >$f) 2>/dev/null && echo wrote $f; done; echo y >/dev/shm/y && cat /dev/shm/y",
        json!({"rootfs": {"path": root, "readonly": true}}),
    );
    assert_eq!(out, "y\n");
    assert!(!root.join("x").exists());
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2026-41579 and their kin: what is mounted there would land elsewhere.
#[test]
fn an_image_in_which_proc_dev_or_sys_are_symlinks_is_refused() {
    for name in ["proc", "dev", "sys"] {
        for target in ["other", "/other", "../../../../other", "/", "."] {
            let dir = tmp();
            let root = image!(dir);
            fs::create_dir(root.join("other")).expect("a directory");
            symlink(target, root.join(name)).expect("a link");
            let error = refused(json!({"argv": ["/bin/true"], "rootfs": root}));
            assert_eq!(error.errno(), libc::ELOOP, "{name} -> {target}: {error}");
            assert!(error.to_string().contains(&format!("/{name}")), "{error}");
            assert_eq!(fs::read_dir(root.join("other")).expect("read").count(), 0, "something was made in {target}");
        }
    }
}

/// The same below the standard directories: bait that a mount would follow.
#[test]
fn standard_places_below_a_symlink_are_refused() {
    let dir = tmp();
    let root = image!(dir);
    fs::create_dir(root.join("other")).expect("a directory");
    symlink("/other", root.join("etc/link")).expect("a link");
    // A link in an ordinary target is followed, inside.
    let out = sh("cat /other/file; cat /etc/link/file", json!({"rootfs": root, "files": {"/etc/link/file": "f\n"}}));
    assert_eq!(out, "f\nf\n");
}

#[test]
fn layers_with_a_private_upper_and_with_a_given_one() {
    let dir = tmp();
    let root = image!(dir);
    let top = dir.path().join("top");
    let upper = dir.path().join("changes");
    for name in ["top/etc", "changes"] {
        fs::create_dir_all(dir.path().join(name)).expect("directories");
    }
    fs::write(top.join("etc/top"), "top\n").expect("a file");
    let layers = json!({"lower": [top, root]});
    let script = "cat /etc/top /etc/motd; echo changed >/etc/motd; rm /etc/top; echo new >/new; stat -c %u /etc/motd";
    let seen = "top\nimage\n0\n";
    assert_eq!(sh(script, json!({"rootfs": layers})), seen);
    assert_eq!(sh(script, json!({"rootfs": layers})), seen, "the upper layer was private");
    let kept = with(layers, json!({"upper": upper}));
    assert_eq!(sh(script, json!({"rootfs": kept})), seen);
    assert_eq!(
        sh("cat /etc/motd /new; test -e /etc/top || echo gone", json!({"rootfs": kept})),
        "changed\nnew\ngone\n"
    );
    assert_eq!(fs::read_to_string(root.join("etc/motd")).expect("read"), "image\n");
    assert_eq!(fs::read_to_string(top.join("etc/top")).expect("read"), "top\n");
    let changed = fs::metadata(upper.join("upper/etc/motd")).expect("kept");
    assert_eq!(changed.uid(), nix::unistd::geteuid().as_raw());
}

#[test]
fn read_only_layers() {
    let dir = tmp();
    let root = image!(dir);
    let rootfs = json!({"lower": [root], "readonly": true});
    assert_eq!(sh("(echo x >/x) 2>/dev/null && echo wrote; echo end", json!({"rootfs": rootfs})), "end\n");
}

#[test]
fn roots_that_cannot_be() {
    let dir = tmp();
    fs::write(dir.path().join("file"), "x").expect("a file");
    let file = dir.path().join("file");
    let missing = dir.path().join("missing");
    let cases = [
        (json!(file), "rootfs", libc::ENOTDIR),
        (json!(missing), "rootfs", libc::ENOENT),
        (json!({"lower": [dir.path(), missing]}), "rootfs.lower[1]", libc::ENOENT),
        (json!({"lower": [dir.path()], "upper": file}), "rootfs.upper", libc::ENOTDIR),
    ];
    for (rootfs, field, errno) in cases {
        let error = refused(json!({"argv": ["/bin/true"], "rootfs": rootfs}));
        assert_eq!((error.field(), error.errno()), (Some(field), errno), "{error}");
        assert!(error.path().is_some(), "{error}");
    }
}

/// A program below a hidden directory names the mount to add; with that mount it runs.
#[test]
fn programs_below_hidden_directories_get_the_hint() {
    let dir = tmp();
    let program = dir.path().join("tool");
    fs::write(&program, "#!/bin/sh\necho tool\n").expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let error = refused(json!({"argv": [program]}));
    assert_eq!((error.field(), error.errno()), (Some("argv[0]"), libc::ENOENT), "{error}");
    assert!(error.hint().is_some_and(|h| h.contains(dir.path().to_str().expect("UTF-8"))), "{error}");
    let ran = run(json!({"argv": [program], "mounts": [dir.path()]}));
    assert_eq!(ran.out, "tool\n");
    let container = start(json!({}));
    let error = container.spawn(&Command::new(&program)).expect_err("hidden");
    assert!(error.hint().is_some_and(|h| h.contains("mounts")), "{error}");
    container.close(None).expect("close");
}
