//! Files of a container, for every kind of caller: what is read, written, copied and removed, and how fast what is large goes.
//!
//! tests/run: vm=delegated

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use ringfence::{CopyOptions, CopyProgress, ErrorKind, RemoveOptions, Special, WriteOptions, remove_tree};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

#[test]
fn bytes_are_read_and_written() {
    let container = start(json!({"files": {"/etc/ringfence-files": "within"}}));
    assert_eq!(container.read("/etc/ringfence-files", None).unwrap(), b"within");
    let too_long = container.read("/etc/ringfence-files", Some(5)).unwrap_err();
    assert_eq!((too_long.kind(), too_long.errno()), (ErrorKind::Exhausted, libc::EFBIG));
    container.write("/tmp/new", b"one", &WriteOptions { mode: Some(0o600), owner: None }).unwrap();
    container.write("/tmp/new", b"two", &WriteOptions::default()).unwrap();
    assert_eq!(container.read("/tmp/new", None).unwrap(), b"two");
    let file = fs::File::from(container.open_path("/tmp/new", libc::O_RDONLY, 0).unwrap());
    assert_eq!(file.metadata().expect("status").mode() & 0o7777, 0o600);
    for path in ["/dev/zero", "/tmp", "/proc/kmsg"] {
        let error = container.read(path, None).unwrap_err();
        assert_eq!(error.field(), Some("path"), "{error}");
    }
    let stopped = container.read_while("/etc/ringfence-files", None, &mut |_| false);
    assert!(stopped.is_ok() || stopped.unwrap_err().errno() == libc::ECANCELED);
    container.close(TIMEOUT).unwrap();
    assert_eq!(container.read("/tmp/new", None).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn paths_that_lead_up_are_found_while_others_rename() {
    let temp = tempfile::tempdir().expect("a directory");
    let (one, other) = (temp.path().join("one"), temp.path().join("other"));
    fs::write(&one, "").expect("write");
    let container = start(json!({"files": {"/etc/ringfence-files": "within"}}));
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    // One of the two is there, or comes back.
                    let _ = fs::rename(&one, &other);
                    let _ = fs::rename(&other, &one);
                }
            });
        }
        let failed = (0..200).find_map(|_| container.read("/tmp/../etc/ringfence-files", None).err());
        over.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "{failed:?}");
    });
    container.close(TIMEOUT).unwrap();
}

#[test]
fn trees_go_in_and_come_out() {
    let temp = tempfile::tempdir().expect("a directory");
    let (source, back) = (temp.path().join("source"), temp.path().join("back"));
    fs::create_dir_all(source.join("empty")).expect("mkdir");
    fs::write(source.join("file"), "content").expect("write");
    fs::set_permissions(source.join("file"), fs::Permissions::from_mode(0o640)).expect("chmod");
    fs::hard_link(source.join("file"), source.join("second")).expect("link");
    symlink("/etc/passwd", source.join("link")).expect("symlink");
    let container = start(json!({}));
    let mut told = CopyProgress::default();
    let mut tell = |at: &CopyProgress| {
        told = *at;
        true
    };
    let options = CopyOptions { progress: Some(&mut tell), ..CopyOptions::default() };
    let done = container.copy_in(&source, "/tmp/tree", options).unwrap();
    assert_eq!((done, done.entries, done.bytes), (told, 5, 7));
    container.copy_out("/tmp/tree", &back, CopyOptions::default()).unwrap();
    let file = fs::metadata(back.join("file")).expect("a file");
    assert_eq!((file.mode() & 0o7777, file.nlink(), file.len()), (0o640, 2, 7));
    let original = fs::metadata(source.join("file")).expect("a file");
    assert_eq!((file.mtime(), file.mtime_nsec()), (original.mtime(), original.mtime_nsec()));
    assert_eq!(fs::read_link(back.join("link")).expect("a link").to_str(), Some("/etc/passwd"));
    assert!(back.join("empty").is_dir());
    // Bad input changes nothing.
    for (options, kind, field) in [
        (CopyOptions { owner: Some("0:0".into()), ..CopyOptions::default() }, ErrorKind::InvalidArgument, "owner"),
        (CopyOptions { timeout: Some(Duration::ZERO), ..CopyOptions::default() }, ErrorKind::TimedOut, ""),
    ] {
        let error = container.copy_out("/tmp/tree", temp.path().join("new"), options).unwrap_err();
        assert_eq!((error.kind(), error.field().unwrap_or_default()), (kind, field), "{error}");
        assert!(!temp.path().join("new").exists());
    }
    assert_eq!(Special::parse("x").unwrap_err().field(), Some("special"));
    container.close(TIMEOUT).unwrap();
    remove_tree(&back, RemoveOptions::default()).unwrap();
    assert!(!back.exists());
    let gone = remove_tree(&back, RemoveOptions::default()).unwrap_err();
    assert_eq!((gone.kind(), gone.field()), (ErrorKind::NotFound, Some("path")));
}

#[test]
fn a_hole_of_a_gibibyte_is_no_work() {
    let temp = tempfile::tempdir().expect("a directory");
    let path = temp.path().join("sparse");
    let mut file = fs::File::create(&path).expect("a file");
    file.seek(SeekFrom::Start(700 << 20)).expect("seek");
    file.write_all(b"in the middle").expect("write");
    file.set_len(1 << 30).expect("truncate");
    drop(file);
    let container = start(json!({}));
    container.copy_in(&path, "/tmp/sparse", CopyOptions::default()).unwrap();
    let out = temp.path().join("out");
    container.copy_out("/tmp/sparse", &out, CopyOptions::default()).unwrap();
    let copy = fs::metadata(&out).expect("a file");
    assert_eq!(copy.len(), 1 << 30);
    assert!(copy.blocks() <= fs::metadata(&path).expect("a file").blocks() + 64, "{} blocks", copy.blocks());
    container.close(TIMEOUT).unwrap();
}

#[test]
fn volumes_stay_or_go() {
    use ringfence::spec::Mount;
    let name = format!("rust-{}", std::process::id());
    let spec = ringfence::Spec::new()
        .mount(Mount::volume(Some(&name), "/kept"))
        .mount(Mount::volume(None, "/lost"))
        .mount(format!("{name}:/seen:ro").as_str());
    let container = ringfence::Container::start(&spec).unwrap();
    container.write("/kept/file", b"x", &WriteOptions::default()).unwrap();
    container.write("/lost/file", b"x", &WriteOptions::default()).unwrap();
    assert_eq!(container.read("/seen/file", None).unwrap(), b"x");
    assert_eq!(container.write("/seen/file", b"", &WriteOptions::default()).unwrap_err().errno(), libc::EROFS);
    let found = |name: &str| ringfence::volumes().unwrap().into_iter().find(|volume| volume.name == name);
    let volume = found(&name).expect("it is there");
    assert!(volume.in_use);
    let busy = ringfence::remove_volume(&name).unwrap_err();
    assert_eq!((busy.errno(), busy.field()), (libc::EBUSY, Some("name")), "{busy}");
    let others = volume.path.parent().expect("a place").join(".anonymous");
    let of_this = |id: &str| {
        let entries = fs::read_dir(&others).expect("a directory");
        entries.filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().contains(id)).count()
    };
    assert_eq!(of_this(container.id()), 1);
    container.close(TIMEOUT).unwrap();
    assert_eq!(of_this(container.id()), 0);
    assert!(!found(&name).expect("it is there").in_use);
    ringfence::remove_volume(&name).unwrap();
    assert_eq!(found(&name), None);
    let gone = ringfence::remove_volume(&name).unwrap_err();
    assert_eq!((gone.kind(), gone.field()), (ErrorKind::NotFound, Some("name")));
    assert!(gone.to_string().starts_with(&format!("name: no volume is named {name:?}")), "{gone}");
    assert_eq!(ringfence::remove_volume("../x").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

/// A detached container has no host that holds its volumes.
#[test]
fn a_detached_container_keeps_its_volumes() {
    use ringfence::spec::Mount;
    let name = format!("files-{}", std::process::id());
    let spec = ringfence::Spec::new()
        .name(&name)
        .detach(true)
        .mount(Mount::volume(Some(&name), "/kept"))
        .mount(Mount::volume(None, "/lost"));
    drop(ringfence::Container::start(&spec).unwrap());
    ringfence::gc().unwrap();
    let container = ringfence::Container::by_name(&name).unwrap();
    container.write("/lost/file", b"x", &WriteOptions::default()).unwrap();
    assert_eq!(ringfence::remove_volume(&name).unwrap_err().errno(), libc::EBUSY);
    container.kill().unwrap();
    container.wait_end(TIMEOUT).unwrap();
    ringfence::gc().unwrap();
    let path = ringfence::volumes().unwrap().into_iter().find(|volume| volume.name == name).expect("it stays").path;
    let lost = fs::read_dir(path.parent().expect("a place").join(".anonymous")).expect("a directory");
    let id = container.id().to_owned();
    assert!(!lost.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&id)));
    ringfence::remove_volume(&name).unwrap();
}
