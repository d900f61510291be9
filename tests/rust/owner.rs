//! `owner: payload` of `mounts`: whose a file is outside and inside, for every kind of payload and source.
//!
//! tests/run: vm=root

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::Path;

use common::*;
use ringfence::ErrorKind;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

fn ids(path: impl AsRef<Path>) -> (u32, u32) {
    let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{:?}: {e}", path.as_ref()));
    (meta.uid(), meta.gid())
}

/// A directory that belongs to `owner`, with what belongs to it, to the host's root, to uid 1000 and to uid 77 in it.
fn source(below: &str, owner: (u32, u32)) -> (tempfile::TempDir, String) {
    let dir = tempfile::Builder::new().prefix("owner-").tempdir_in(below).expect("a temporary directory");
    let path = dir.path().join("in");
    fs::create_dir(&path).expect("mkdir");
    symlink("nowhere", path.join("link")).expect("symlink");
    for (name, id) in [("own", owner), ("of-0", (0, 0)), ("of-1000", (1000, 1000)), ("of-77", (77, 77))] {
        fs::write(path.join(name), name).expect("write");
        chown(path.join(name), Some(id.0), Some(id.1)).expect("chown");
    }
    std::os::unix::fs::lchown(path.join("link"), Some(owner.0), Some(owner.1)).expect("lchown");
    chown(&path, Some(owner.0), Some(owner.1)).expect("chown");
    let text = path.to_str().expect("UTF-8").to_owned();
    (dir, text)
}

fn by(user: &str, script: &str) -> ringfence::Command {
    let mut command = ringfence::Command::new("/bin/sh");
    command.args(["-c", script]).user(user);
    command
}

const STAT: &str = "cd /d; stat -c %u:%g own link of-0 of-1000 of-77 | tr '\\n' ' '";

#[test]
fn what_the_payload_writes_is_the_owners() {
    if !is_root() {
        return skip("only root has sources of other owners");
    }
    let explicit = json!({"uid": [[0, 700_000, 2000]], "gid": [[0, 700_000, 2000]]});
    for (below, owner, user, idmap, seen) in [
        // The payload's, the host's root's, uid 1000's, uid 77's.
        ("/var/tmp", (4242, 4243), "0", json!("auto"), "0:0 0:0 65534:65534 1000:1000 77:77"),
        ("/dev/shm", (4242, 4243), "1000:1000", json!("auto"), "1000:1000 1000:1000 0:0 4242:4243 77:77"),
        ("/var/tmp", (0, 0), "1000:1000", json!("auto"), "1000:1000 1000:1000 1000:1000 0:0 77:77"),
        ("/var/tmp", (70_000, 70_000), "1000:77", json!("auto"), "1000:77 1000:77 0:0 65534:1000 77:65534"),
        ("/dev/shm", (1000, 0), "1000:1000", json!("auto"), "1000:1000 1000:1000 0:1000 1000:0 77:77"),
        ("/var/tmp", (4242, 4243), "1000:1000", json!("host"), "1000:1000 1000:1000 0:0 4242:4243 77:77"),
        ("/dev/shm", (4242, 4243), "0", json!("host"), "0:0 0:0 65534:65534 1000:1000 77:77"),
        ("/var/tmp", (4242, 4243), "1000:1000", explicit, "1000:1000 1000:1000 0:0 65534:65534 77:77"),
    ] {
        let (_dir, path) = source(below, owner);
        let what = format!("{below} {owner:?} {user} {idmap}");
        let bind = |target: &str, extra| with(json!({"source": path, "target": target, "owner": "payload"}), extra);
        let mounts = json!([bind("/d", json!({"rw": true})), bind("/ro", json!({}))]);
        let script = format!(
            "{STAT}; : >new; mkdir dir; echo more >>own; ln -s x soft; chmod 600 of-77 2>/dev/null && echo chmod; \
             stat -c %u:%g new dir soft | uniq; touch /ro/not 2>/dev/null && echo wrote; true"
        );
        let out = sh(&script, json!({"user": user, "idmap": idmap, "mounts": mounts}));
        let (id, of_77) = (seen.split(' ').next().expect("a word"), if user == "0" { "chmod\n" } else { "" });
        assert_eq!(out, format!("{seen} {of_77}{id}\n"), "{what}");
        for made in ["new", "dir", "soft", "own"] {
            assert_eq!(ids(Path::new(&path).join(made)), owner, "{what}: {made}");
        }
    }
}

/// Who else is inside: the container's root, whose number the owner has outside, and a user with the owner's number.
#[test]
fn others_change_places_but_never_become_the_hosts_root() {
    if !is_root() {
        return skip("only root has sources of other owners");
    }
    let (_dir, path) = source("/var/tmp", (0, 0));
    let container = start(json!({"user": "1000:1000", "mounts": [format!("{path}:/d:rw,owner=payload")]}));
    assert_eq!(exec_in(&container, &by("0", ": >/d/roots")).status.code, Some(0));
    assert_eq!(ids(Path::new(&path).join("roots")), (1000, 1000));
    // What the host's calls make inside belongs to the user of the spec.
    container.write("/d/written", b"x", &ringfence::WriteOptions::default()).unwrap();
    let (_other, tree) = source("/var/tmp", (5, 5));
    container.copy_in(&tree, "/d/tree", ringfence::CopyOptions::default()).unwrap();
    for made in ["written", "tree", "tree/of-77"] {
        assert_eq!(ids(Path::new(&path).join(made)), (0, 0), "{made}");
    }
    container.close(TIMEOUT).unwrap();

    let (_dir, path) = source("/var/tmp", (1000, 1000));
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let container = start(json!({"mounts": [format!("{path}:/d:rw,owner=payload")]}));
    let ran = exec_in(&container, &by("1000", ": >/d/new"));
    assert!(ran.status.code != Some(0) && ran.err.contains("too large"), "{:?}: {}", ran.status, ran.err);
    assert!(!Path::new(&path).join("new").exists());
    container.close(TIMEOUT).unwrap();
}

/// A descriptor, a file, what is mounted below, a volume with a name, a detached container.
#[test]
fn sources_of_every_kind() {
    if !is_root() {
        return skip("only root has sources of other owners");
    }
    let (_dir, path) = source("/var/tmp", (4242, 4243));
    let below = format!("{path}/below");
    fs::create_dir(&below).expect("mkdir");
    let file = fs::File::open(&path).expect("open");
    let name = format!("owner-{}", std::process::id());
    let none: Option<&str> = None;
    nix::mount::mount(none, below.as_str(), Some("tmpfs"), nix::mount::MsFlags::empty(), none).expect("mount a tmpfs");
    let tried = std::panic::catch_unwind(|| {
        chown(&below, Some(4242), Some(4243)).expect("chown");
        let mounts = json!([
            {"source": path, "target": "/d", "rw": true, "owner": "payload"},
            {"fd": file.as_raw_fd(), "target": "/fd", "rw": true, "recursive": false, "owner": "payload"},
            {"source": format!("{path}/own"), "target": "/file", "rw": true, "owner": "payload"},
            {"type": "volume", "source": name, "target": "/v", "owner": "payload"},
        ]);
        let script = ": >/d/below/deep; : >/fd/by-fd; : >/v/kept; echo x >>/file; stat -c %u:%g /d/below /fd/below /v/kept /file";
        let out = sh(script, json!({"user": "1000:1000", "mounts": mounts, "name": name}));
        // Below the descriptor is the directory that the tmpfs is mounted on: the caller's.
        assert_eq!(out, "1000:1000\n0:0\n1000:1000\n1000:1000\n");
        assert_eq!([ids(format!("{below}/deep")), ids(format!("{path}/by-fd"))], [(4242, 4243); 2]);
        let volume = ringfence::volumes().unwrap().into_iter().find(|volume| volume.name == name).expect("it stays");
        assert_eq!(ids(volume.path.join("kept")), (0, 0));
        let spec = spec(json!({"name": name, "detach": true, "user": "1000:1000",
            "mounts": [format!("{path}:/d:rw,owner=payload")]}));
        let container = ringfence::Container::start(&spec).unwrap();
        assert_eq!(exec_in(&container, &by("1000:1000", ": >/d/detached; stat -c %u:%g /d")).out, "1000:1000\n");
        container.kill().unwrap();
        container.wait_end(TIMEOUT).unwrap();
        ringfence::gc().unwrap();
        assert_eq!(ids(format!("{path}/detached")), (4242, 4243));
    });
    nix::mount::umount2(below.as_str(), nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    if let Err(panic) = tried {
        std::panic::resume_unwind(panic);
    }
    ringfence::remove_volume(&name).unwrap();
}

/// An ordinary caller's payload is the owner already, or nobody can make it that.
#[test]
fn an_ordinary_callers_payload() {
    if is_root() {
        return skip("root has another way");
    }
    let dir = tmp();
    let path = dir.path().to_str().expect("UTF-8").to_owned();
    let own = ids(&path);
    let mounts = json!([{"source": path, "target": "/d", "rw": true, "owner": "payload"}]);
    sh(": >/d/root", json!({"mounts": mounts}));
    sh(": >/d/kept", json!({"mounts": mounts, "idmap": "keep-id"}));
    for made in ["root", "kept"] {
        assert_eq!(ids(dir.path().join(made)), own, "{made}");
    }
    // In a container with more ids only.
    let many = start(json!({}));
    let map = sh_in(&many, "wc -l </proc/self/uid_map");
    many.close(TIMEOUT).unwrap();
    let wrong = refused(json!({"argv": ["true"], "mounts": mounts, "user": "1"}));
    let (field, hint) = if map.trim() == "1" { ("user", "single id") } else { ("mounts[0].owner", "keep-id") };
    assert_eq!((wrong.kind(), wrong.field()), (ErrorKind::PermissionDenied, Some(field)), "{wrong}");
    assert!(wrong.hint().is_some_and(|text| text.contains(hint)), "{wrong}");
    // Of a container without a main process, too.
    let wrong = ringfence::Container::start(&spec(json!({"mounts": ["/usr:/d:owner=payload"]}))).unwrap_err();
    assert_eq!((wrong.field(), wrong.errno()), (Some("mounts[0].owner"), libc::EPERM), "{wrong}");
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tmp();
    let path = dir.path().to_str().expect("UTF-8").to_owned();
    let mount = format!("{path}:/d:owner=payload");
    let user = format!("/proc/{}/ns/user", std::process::id());
    let joined = ringfence::plan(&spec(json!({"mounts": [mount], "namespaces": {"user": user}}))).unwrap_err();
    assert_eq!((joined.kind(), joined.field()), (ErrorKind::Unsupported, Some("mounts[0].owner")), "{joined}");
    let shown = ringfence::plan(&spec(json!({"argv": ["true"], "mounts": [mount]}))).unwrap().to_string();
    assert!(!shown.contains("MOUNT_ATTR_IDMAP"), "{shown}");
    if is_root() {
        let other = spec(json!({"argv": ["true"], "user": "7", "mounts": [mount]}));
        let shown = ringfence::plan(&other).unwrap().to_string();
        assert!(shown.contains("mounts[0].owner: mount_setattr MOUNT_ATTR_IDMAP, uid_map: 0 524295 1"), "{shown}");
        let unknown = refused(json!({"user": "nobody-of-this-name", "argv": ["true"], "mounts": [mount]}));
        assert_eq!(unknown.field(), Some("user"), "{unknown}");
    }
    assert_eq!(
        spec(json!({"mounts": [mount]})).to_json(),
        spec(json!({"mounts": [
        {"source": path, "target": "/d", "owner": "payload"}]}))
        .to_json()
    );
}
