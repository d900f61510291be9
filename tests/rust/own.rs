//! Devices, FUSE file systems and binary formats of a container, as the host sees them. What is inside is in tests/cases.
//!
//! tests/run: timeout=120

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use common::*;
use ringfence::ErrorKind;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A node of /dev/fuse that the caller may open.
fn fuse() -> String {
    std::env::var("RINGFENCE_TEST_FUSE").unwrap_or_else(|_| "/dev/fuse".to_owned())
}

fn cases() -> PathBuf {
    std::env::var_os("RINGFENCE_CASES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/cases"), PathBuf::from)
}

#[test]
fn the_host_does_not_see_a_fuse_file_system() {
    let mounts = || fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let source = tmp();
    fs::write(source.path().join("hello"), "from the host").expect("a file");
    let before = mounts();
    let container = start(json!({
        "devices": [format!("{}:/dev/fuse", fuse())], "capabilities": {"add": ["sys_admin"]},
        "mounts": [
            {"source": cases().join("fuse.pl"), "target": "/srv/fuse.pl"},
            {"source": source.path(), "target": "/data", "rw": true},
        ],
    }));
    assert_eq!(sh_in(&container, "perl /srv/fuse.pl /data && cat /data/hello"), "mounted\nserved from inside\n");
    assert_eq!(fs::read_to_string(source.path().join("hello")).expect("the host's"), "from the host");
    assert_eq!(mounts(), before);
    let init = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid()));
    assert!(init.is_err() || init.is_ok_and(|text| text.contains(" - fuse hello ")), "it is in the container's");
    container.close(None).expect("closed while it is mounted");
}

#[test]
fn formats_of_a_container_are_not_the_hosts() {
    let dir = tmp();
    let program = dir.path().join("program");
    fs::write(&program, "RFX1\n").expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let known = || fs::read_dir("/proc/sys/fs/binfmt_misc").map(|found| found.count()).unwrap_or(0);
    let before = known();
    let container = start(json!({
        "mounts": [
            {"type": "binfmt_misc", "register": [":ringfence-test:M::RFX1::/bin/cat:"]},
            {"source": &program, "target": "/srv/program"},
        ],
    }));
    assert_eq!(sh_in(&container, "/srv/program"), "RFX1\n");
    let refused = std::process::Command::new(&program).spawn().expect_err("the host has no such format");
    assert_eq!(refused.raw_os_error(), Some(libc::ENOEXEC));
    assert_eq!(known(), before);
    container.close(None).expect("closed");
}

/// The kernel opens an interpreter with flag F as whoever registers it, whose /proc/self/fd leads to the host's files.
#[test]
fn an_interpreter_is_looked_up_in_the_container_only() {
    let dir = tmp();
    let link = dir.path().join("interpreter");
    for target in ["/proc/self/exe", "/proc/self/fd/3", "/proc/1/root/bin/sh"] {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).expect("a link");
        let error = refused(json!({
            "argv": ["true"],
            "mounts": [
                {"type": "binfmt_misc", "register": [":q:M::RFX2::/data/interpreter:OCF"]},
                {"source": dir.path(), "target": "/data"},
            ],
        }));
        assert_eq!(error.field(), Some("mounts[0].register[0]"), "{target}: {error}");
        assert_eq!(error.errno(), libc::ELOOP, "{target}: {error}");
    }
    let fields = json!({"mounts": [{"type": "binfmt_misc", "register": [":q:M::RFX2::/bin/cat:F"]}]});
    assert_eq!(sh("printf RFX2 >/tmp/x && chmod +x /tmp/x && /tmp/x", fields), "RFX2");
}

#[test]
fn nodes_by_links_are_what_they_lead_to() {
    let dir = tmp();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/dev/full", &link).expect("a link");
    let devices = json!({"devices": [{"path": link, "target": "/dev/linked"}]});
    assert_eq!(sh("stat -c %F:%t:%T /dev/linked", devices), "character special file:1:7\n");
}

#[test]
fn what_root_inside_does_to_its_node_stays_inside() {
    if !is_root() {
        return skip("an ordinary user's containers have the host's nodes, which root inside does not own");
    }
    let before = fs::metadata("/dev/full").expect("the host's");
    let seen =
        sh("chmod 0 /dev/f; chown 7:8 /dev/f; stat -c %u:%g:%a /dev/f", json!({"devices": ["/dev/full:/dev/f"]}));
    assert_eq!(seen, "7:8:0\n");
    let after = fs::metadata("/dev/full").expect("the host's");
    assert_eq!((before.mode(), before.uid(), before.ctime()), (after.mode(), after.uid(), after.ctime()));
    // Owners that are not mapped are root; and without a user namespace they are the host's.
    let idmap = json!({"uid": [[5, 300_000, 1], [0, 300_001, 1]], "gid": [[0, 300_000, 1]]});
    let fields = |idmap| json!({"devices": ["/dev/full:/dev/f"], "idmap": idmap});
    assert_eq!(sh("stat -c %u:%g:%a /dev/f", fields(idmap)), "0:0:666\n");
    assert_eq!(sh("stat -c %u:%g:%a /dev/f", fields(json!("host"))), "0:0:666\n");
}

/// Where the host could open no device, its container gets none.
#[test]
fn a_file_system_without_devices_gives_none() {
    if !is_root() {
        return skip("only root can make a node there");
    }
    let dir = tmp();
    let flags = nix::mount::MsFlags::MS_NODEV;
    nix::mount::mount(Some("tmpfs"), dir.path(), Some("tmpfs"), flags, Some("size=64k")).expect("mount a tmpfs");
    let node = dir.path().join("node");
    let error = make_node(&node)
        .map(|()| refused(json!({"argv": ["true"], "devices": [format!("{}:/dev/x", node.display())]})));
    nix::mount::umount2(dir.path(), nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    let error = error.expect("a node");
    assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("devices[0]")), "{error}");
    assert!(error.to_string().contains("nodev"), "{error}");
}

fn make_node(path: &Path) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 3))?;
    assert!(fs::metadata(path)?.file_type().is_char_device());
    Ok(())
}
