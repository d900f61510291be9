//! Against the real kernel, on loop devices. What this machine or this user cannot do is probed, and printed as `SKIP: why`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::image::{self, Image, Loop};
use super::*;

const MIB: u64 = 1 << 20;

/// `None`, and a line that says why, where this caller cannot mount anything.
fn privileged() -> Option<()> {
    image::privileged().map_err(|error| println!("SKIP: {error}")).ok()
}

/// A mounted file system on a loop device: all of it is gone when this is dropped.
struct Mounted(OwnedFd);

impl Mounted {
    /// Of 128 MiB or the least that it can have, made with these options; `None` where the kernel cannot.
    fn new(filesystem: Filesystem, mkfs: &[&str], options: &[&std::ffi::CStr]) -> Option<Self> {
        privileged()?;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let bytes = (128 * MIB).max(filesystem.minimum());
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        let program = format!("mkfs.{}", filesystem.name());
        let made = Command::new(&program).args(mkfs).arg(&path).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let file = open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        let device = Loop::attach(&file, bytes, None).unwrap();
        match image::mount(filesystem, &device.path, options, None) {
            Ok(mount) => Some(Self(mount)),
            Err(error) => {
                assert!(lacks_quota(filesystem), "{error}");
                println!("SKIP: {error}: a kernel without quota of this file system");
                None
            }
        }
    }

    fn with_projects(filesystem: Filesystem) -> Option<Self> {
        match filesystem {
            Filesystem::Ext4 => {
                let kinds = "-Equotatype=usrquota:grpquota:prjquota";
                Self::new(filesystem, &["-q", "-F", "-b4096", "-Oquota,project", kinds], &[c"prjquota"])
            }
            _ => Self::new(filesystem, &["-q"], &[c"prjquota"]),
        }
    }

    fn path(&self) -> PathBuf {
        path_of(&self.0)
    }

    fn dir(&self, name: &str) -> OwnedFd {
        let path = self.path().join(name);
        fs::create_dir(&path).unwrap();
        open_dir(&path)
    }
}

fn lacks_quota(filesystem: Filesystem) -> bool {
    let has = match filesystem {
        Filesystem::Ext4 => kernel::has_quota_format(),
        Filesystem::Xfs => kernel::has_xfs_quota(),
        Filesystem::Btrfs => Some(true),
    };
    has == Some(false)
}

fn open_dir(path: &Path) -> OwnedFd {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
}

fn path_of(fd: impl AsFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_fd().as_raw_fd()).into()
}

/// A shell in a directory, as this user without CAP_SYS_RESOURCE, by which root would pass the limits of ext4.
fn shell(dir: &Path, uid: u32, script: &str) -> (bool, String) {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--clear-groups"]);
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]).args(["sh", "-c", script]);
    let output = command.current_dir(dir).env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Writes until it is refused: how many bytes the file has then, and what was said.
fn fill(dir: &Path, uid: u32, most: u64) -> (u64, String) {
    let (done, said) = shell(dir, uid, &format!("head -c {most} /dev/zero >full"));
    assert!(!done, "{most} bytes were written");
    (fs::metadata(dir.join("full")).unwrap().len(), said)
}

/// The same for a whole file system: all but the end is allocated only, which takes no time.
fn fill_up(dir: &Path) -> (u64, String) {
    let found = nix::sys::statfs::statfs(dir).unwrap();
    let available = found.blocks_available() as u64 * found.block_size() as u64;
    let (done, said) = shell(dir, 0, &format!("fallocate -l {} full", available - 4 * MIB));
    assert!(done, "{said}");
    let (done, said) = shell(dir, 0, &format!("head -c {} /dev/zero >>full", 64 * MIB));
    assert!(!done, "it has no end");
    (fs::metadata(dir.join("full")).unwrap().len(), said)
}

fn bytes(bytes: u64) -> Bounds {
    Bounds { bytes: Some(bytes), inodes: None }
}

fn make(place: &Path, filesystem: Filesystem, bounds: &Bounds) -> Image {
    let start = Instant::now();
    let image = image::make(place, filesystem, bounds, false, None).unwrap();
    println!("{} image of {} MiB: {:?}", filesystem.name(), bounds.bytes.unwrap() / MIB, start.elapsed());
    image
}

/// Whether a device has let go of its file, which the kernel does a moment after the last user.
fn is_let_go(device: &Path, inode: u64) -> bool {
    // It cannot let go while it is open. Its next user may be another test.
    let has_file = || {
        let file = open(device, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        crate::sys::loopdev::status(file.as_fd()).is_ok_and(|info| info.inode == inode)
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while has_file() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    !has_file()
}

fn an_image_ends_at_its_size(filesystem: Filesystem) {
    let Some(()) = privileged() else { return };
    let place = tempfile::tempdir().unwrap();
    let size = (48 * MIB).max(filesystem.minimum());
    // A part of a block is not given.
    let image = make(place.path(), filesystem, &bytes(size + 100));
    let path = path_of(&image.mount);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "an empty top directory");
    let top = fs::metadata(&path).unwrap();
    assert_eq!((top.mode() & 0o7777, top.uid()), (0o755, 0));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "the file has no name");

    let empty = image::used(image.mount.as_fd()).unwrap();
    assert_eq!((empty.bytes_max, empty.inodes_max), (Some(size), None));
    let (written, said) = fill_up(&path);
    assert!(said.contains("No space left"), "{said}");
    let full = image::used(image.mount.as_fd()).unwrap();
    println!("{}: {} bytes of its own, {written} of a file, {full:?}", filesystem.name(), empty.bytes);
    assert!(empty.bytes + written <= size + MIB / 2, "{empty:?} {written}");
    // btrfs keeps some for itself.
    assert!(full.bytes <= size && full.bytes >= size - size / 25, "{full:?}");
    fs::remove_file(path.join("full")).unwrap();
    fs::write(path.join("again"), b"x").unwrap();

    let (Loop { path: device, .. }, info) = Loop::under(image.mount.as_fd()).unwrap();
    drop(image);
    assert!(is_let_go(&device, info.inode));
}

#[test]
fn an_ext4_image_ends_at_its_size() {
    an_image_ends_at_its_size(Filesystem::Ext4);
}

#[test]
fn an_xfs_image_ends_at_its_size() {
    an_image_ends_at_its_size(Filesystem::Xfs);
}

#[test]
fn a_btrfs_image_ends_at_its_size() {
    an_image_ends_at_its_size(Filesystem::Btrfs);
}

fn an_image_grows(filesystem: Filesystem) {
    let Some(()) = privileged() else { return };
    let place = tempfile::tempdir().unwrap();
    let size = (128 * MIB).max(filesystem.minimum());
    let image = make(place.path(), filesystem, &bytes(size));
    let path = path_of(&image.mount);
    let (before, _) = fill_up(&path);
    // By a directory in it as well as by the mount.
    fs::remove_file(path.join("full")).unwrap();
    fs::create_dir(path.join("upper")).unwrap();
    let upper = open_dir(&path.join("upper"));

    let error = image::grow(upper.as_fd(), size - 4096, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    if filesystem == Filesystem::Btrfs {
        let error = image::grow(upper.as_fd(), size + MIB, None).unwrap_err();
        assert!(error.to_string().contains("256 MiB"), "{error}");
        assert_eq!(image::used(upper.as_fd()).unwrap().bytes_max, Some(size));
    }
    let start = Instant::now();
    match image::grow(upper.as_fd(), 2 * size, None) {
        Ok(()) => {}
        Err(error) if filesystem == Filesystem::Ext4 && error.errno() == libc::EPERM => {
            assert!(error.to_string().contains("CAP_SYS_RESOURCE"), "{error}");
            assert_eq!(image::used(upper.as_fd()).unwrap().bytes_max, Some(size), "the device has its size back");
            println!("SKIP: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    }
    println!("{} grown in {:?}", filesystem.name(), start.elapsed());
    assert_eq!(image::used(upper.as_fd()).unwrap().bytes_max, Some(2 * size));
    let (after, said) = fill_up(&path);
    assert!(said.contains("No space left"), "{said}");
    assert!(after > before + size - size / 16 && after < 2 * size, "{before} then {after}");
    let (Loop { path: device, .. }, info) = Loop::under(upper.as_fd()).unwrap();
    drop((image, upper));
    assert!(is_let_go(&device, info.inode));
}

#[test]
fn an_ext4_image_grows() {
    an_image_grows(Filesystem::Ext4);
}

#[test]
fn an_xfs_image_grows() {
    an_image_grows(Filesystem::Xfs);
}

#[test]
fn a_btrfs_image_grows() {
    an_image_grows(Filesystem::Btrfs);
}

/// Makes files until it is refused.
fn files(dir: &Path, prefix: &str) -> u64 {
    for n in 0..100_000 {
        match fs::File::create_new(dir.join(format!("{prefix}{n}"))) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT)) => return n,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("100,000 files were made");
}

#[test]
fn an_image_has_just_so_many_inodes() {
    let Some(()) = privileged() else { return };
    let place = tempfile::tempdir().unwrap();
    // Several groups, of which each has more inodes than its part.
    let image = make(place.path(), Filesystem::Ext4, &Bounds { bytes: Some(300 * MIB), inodes: Some(101) });
    let path = path_of(&image.mount);
    fs::create_dir(path.join("upper")).unwrap();
    let used = image::used(image.mount.as_fd()).unwrap();
    assert_eq!((used.inodes, used.inodes_max), (1, Some(101)));
    assert_eq!(files(&path.join("upper"), "a"), 100);
    assert_eq!(image::used(image.mount.as_fd()).unwrap().inodes, 101);
    let upper = open_dir(&path.join("upper"));
    match image::grow(upper.as_fd(), 600 * MIB, None) {
        Ok(()) => assert_eq!(files(&path.join("upper"), "b"), 0),
        Err(error) => assert_eq!(error.errno(), libc::EPERM, "{error}"),
    }
    fs::remove_file(path.join("upper/a7")).unwrap();
    assert_eq!(files(&path.join("upper"), "c"), 1);
}

#[test]
fn images_that_cannot_be() {
    let place = tempfile::tempdir().unwrap();
    let make =
        |filesystem, bounds: Bounds, quotas| image::make(place.path(), filesystem, &bounds, quotas, None).unwrap_err();
    let Some(()) = privileged() else {
        let error = make(Filesystem::Ext4, bytes(64 * MIB), false);
        assert_eq!((error.kind(), error.errno()), (ErrorKind::PermissionDenied, libc::EPERM));
        return;
    };
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs] {
        for bounds in [Bounds::default(), bytes(filesystem.minimum() - 1)] {
            let error = make(filesystem, bounds, false);
            let least = format!("at least {} MiB", filesystem.minimum() / MIB);
            assert!(error.kind() == ErrorKind::InvalidArgument && error.to_string().contains(&least), "{error}");
        }
    }
    for filesystem in [Filesystem::Xfs, Filesystem::Btrfs] {
        let error = make(filesystem, Bounds { bytes: Some(400 * MIB), inodes: Some(100) }, false);
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("inodes"), "{error}");
    }
    let error = make(Filesystem::Btrfs, bytes(200 * MIB), true);
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // More inodes than blocks.
    let error = make(Filesystem::Ext4, Bounds { bytes: Some(16 * MIB), inodes: Some(1 << 30) }, false);
    assert!(error.to_string().contains("mkfs.ext4"), "{error}");
    let nowhere = place.path().join("nowhere");
    let error = image::make(&nowhere, Filesystem::Ext4, &bytes(64 * MIB), false, None).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, nowhere.to_str()));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    let error = image::make_filesystem(&open_dir(place.path()), vec!["mkfs.nothing".into()], "nothing").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("mkfs.nothing is not installed") && error.hint().is_some(), "{error}");

    // Not ours.
    let error = image::grow(open_dir(place.path()).as_fd(), 1 << 40, None).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported), "{error}");
}

#[test]
fn images_at_once_get_devices_of_their_own() {
    let Some(()) = privileged() else { return };
    let place = tempfile::tempdir().unwrap();
    let images: Vec<Image> = std::thread::scope(|scope| {
        let one = || image::make(place.path(), Filesystem::Ext4, &bytes(4 * MIB), false, None).unwrap();
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let devices: BTreeSet<PathBuf> =
        images.iter().map(|image| Loop::under(image.mount.as_fd()).unwrap().0.path.clone()).collect();
    assert_eq!(devices.len(), images.len());
}

fn users_in_an_image(filesystem: Filesystem) {
    let Some(()) = privileged() else { return };
    let place = tempfile::tempdir().unwrap();
    let size = (64 * MIB).max(filesystem.minimum());
    let image = match image::make(place.path(), filesystem, &bytes(size), true, None) {
        Ok(image) => image,
        Err(error) => {
            assert!(lacks_quota(filesystem), "{error}");
            let option = if filesystem == Filesystem::Ext4 { "CONFIG_QFMT_V2" } else { "CONFIG_XFS_QUOTA" };
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(option), "{error}");
            println!("SKIP: {error}");
            return;
        }
    };
    let fd = image.mount.as_fd();
    let path = path_of(&image.mount);
    for uid in [1234, 1235] {
        let dir = path.join(uid.to_string());
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(uid), Some(uid)).unwrap();
    }
    let before = project::used(fd, Owner::User(1234)).unwrap();
    project::set(fd, Owner::User(1234), &Bounds { bytes: Some(2 * MIB), inodes: Some(5) }).unwrap();
    project::set(fd, Owner::Group(1235), &bytes(MIB)).unwrap();
    let (written, said) = fill(&path.join("1234"), 1234, 4 * MIB);
    assert!(said.contains("Disk quota exceeded"), "{said}");
    let used = project::used(fd, Owner::User(1234)).unwrap();
    assert_eq!((used.bytes_max, used.inodes_max, used.inodes), (Some(2 * MIB), Some(5), 2));
    assert_eq!(used.bytes, 2 * MIB, "{used:?}, {before:?} before, {written} written");
    let (_, said) = fill(&path.join("1235"), 1235, 4 * MIB);
    assert!(said.contains("Disk quota exceeded"), "{said}");
    assert_eq!(project::used(fd, Owner::Group(1235)).unwrap().bytes, MIB);
    // Others are not held up.
    let (done, said) = shell(&path.join("1235"), 1235, "rm full; touch a b c d e f g");
    assert!(done, "{said}");
    let (done, said) = shell(&path.join("1234"), 1234, "touch a b c; touch d");
    assert!(!done && said.contains("Disk quota exceeded"), "{said}");

    project::set(fd, Owner::User(1234), &Bounds::default()).unwrap();
    let (done, said) = shell(&path.join("1234"), 1234, "head -c 4M /dev/zero >full && touch d");
    assert!(done, "{said}");
    if filesystem == Filesystem::Xfs {
        let error = project::set(fd, Owner::User(0), &bytes(MIB)).unwrap_err();
        assert!(error.to_string().contains("defaults"), "{error}");
    } else {
        project::set(fd, Owner::User(0), &bytes(MIB)).unwrap();
    }
}

#[test]
fn users_in_an_ext4_image() {
    users_in_an_image(Filesystem::Ext4);
}

#[test]
fn users_in_an_xfs_image() {
    users_in_an_image(Filesystem::Xfs);
}

fn a_project_ends_at_its_bound(filesystem: Filesystem) {
    let Some(mounted) = Mounted::with_projects(filesystem) else { return };
    let (dir, other) = (mounted.dir("upper"), mounted.dir("other"));
    project::probe(dir.as_fd()).unwrap();
    assert_eq!(project::of(dir.as_fd()).unwrap(), None);

    let id = project::claim(dir.as_fd(), &Bounds { bytes: Some(4 * MIB), inodes: Some(20) }).unwrap();
    assert_eq!(project::assign(dir.as_fd(), id).unwrap(), 0);
    assert_eq!(project::of(dir.as_fd()).unwrap(), Some(id));
    let owner = Owner::Project(id);
    let (written, said) = fill(&path_of(&dir), 0, 8 * MIB);
    let expected = if filesystem == Filesystem::Ext4 { "Disk quota exceeded" } else { "No space left" };
    assert!(said.contains(expected), "{said}");
    let used = project::used(dir.as_fd(), owner).unwrap();
    println!("{}: {written} bytes of a file, {used:?}", filesystem.name());
    assert_eq!((used.bytes, used.bytes_max), (4 * MIB, Some(4 * MIB)));
    assert_eq!((used.inodes, used.inodes_max), (2, Some(20)));
    // The directory and 19 more. (Where all bytes are used, xfs does not give an inode either.)
    fs::remove_file(path_of(&dir).join("full")).unwrap();
    let (done, said) =
        shell(&path_of(&dir), 0, "for i in $(seq 19); do touch $i || exit 1; done; touch 20 && exit 1; exit 0");
    assert!(done && said.contains("touch: cannot touch '20'"), "{said}");
    let (done, said) = shell(&path_of(&other), 0, "head -c 8M /dev/zero >full");
    assert!(done, "beside it nothing is bounded: {said}");

    // More while it runs, then the end as an undo plan brings it.
    project::set(dir.as_fd(), owner, &Bounds { bytes: Some(6 * MIB), inodes: None }).unwrap();
    assert!(shell(&path_of(&dir), 0, "touch 20 21 22").0);
    assert!(fill(&path_of(&dir), 0, 8 * MIB).0 > 5 * MIB);
    let (command, lifted, dqblk) = project::setting(owner, &Bounds::default());
    assert_eq!(lifted, id);
    crate::sys::quota::raw(dir.as_fd(), command, lifted, &dqblk).unwrap();
    let used = project::used(dir.as_fd(), owner).unwrap();
    assert!(used.bytes > 5 * MIB && used.bytes_max.is_none() && used.inodes_max.is_none(), "{used:?}");
}

#[test]
fn an_ext4_project_ends_at_its_bound() {
    a_project_ends_at_its_bound(Filesystem::Ext4);
}

#[test]
fn an_xfs_project_ends_at_its_bound() {
    a_project_ends_at_its_bound(Filesystem::Xfs);
}

fn what_is_there_joins_a_project(filesystem: Filesystem) {
    let Some(mounted) = Mounted::with_projects(filesystem) else { return };
    let dir = mounted.dir("upper");
    let outside = mounted.path().join("outside");
    fs::write(&outside, [1; 100_000]).unwrap();
    let path = path_of(&dir);
    fs::create_dir_all(path.join("a/b/c")).unwrap();
    fs::write(path.join("a/b/c/file"), [1; 100_000]).unwrap();
    symlink("../outside", path.join("a/link")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(path.join("a/socket")).unwrap();
    assert!(fs::metadata(path.join("a/socket")).unwrap().file_type().is_socket());
    // One that nobody writes to: opening it for reading would wait.
    nix::unistd::mkfifo(&path.join("a/fifo"), Mode::S_IRWXU).unwrap();

    let id = project::claim(dir.as_fd(), &bytes(MIB)).unwrap();
    let left = project::assign(dir.as_fd(), id).unwrap();
    assert!(left <= 3, "{left}");
    // upper, a, b, c, file.
    let used = project::used(dir.as_fd(), Owner::Project(id)).unwrap();
    assert_eq!(used.inodes + left, 5 + 3, "{used:?}");
    assert!(used.bytes >= 100_000, "{used:?}");
    let project_of = |path: &Path| {
        let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        crate::sys::quota::get_fsxattr(file.as_fd()).unwrap().projid
    };
    assert_eq!(project_of(&path.join("a/b/c/file")), id);
    assert_eq!(project_of(&outside), 0, "symbolic links are not followed");
    fs::File::create(path.join("a/b/new")).unwrap().write_all(b"x").unwrap();
    assert_eq!(project_of(&path.join("a/b/new")), id);
    drop(socket);

    // More than it may have: nothing is changed. (CAP_SYS_RESOURCE passes the limit of ext4.)
    let next = project::claim(dir.as_fd(), &bytes(8192)).unwrap();
    match project::assign(dir.as_fd(), next) {
        Err(error) => {
            assert!(matches!(error.errno(), libc::EDQUOT | libc::ENOSPC), "{error}");
            assert_eq!(project_of(&path.join("a/b/c/file")), id);
            assert_eq!(project::of(dir.as_fd()).unwrap(), Some(id));
        }
        Ok(_) => assert_eq!(project_of(&path.join("a/b/c/file")), next),
    }
}

#[test]
fn what_is_there_joins_an_ext4_project() {
    what_is_there_joins_a_project(Filesystem::Ext4);
}

#[test]
fn what_is_there_joins_an_xfs_project() {
    what_is_there_joins_a_project(Filesystem::Xfs);
}

#[test]
fn special_files_join_a_project_where_the_kernel_lets_them() {
    // Project ids are there without quota too.
    let Some(mounted) = Mounted::new(Filesystem::Xfs, &["-q"], &[]) else { return };
    let dir = mounted.dir("upper");
    symlink("nowhere", path_of(&dir).join("link")).unwrap();
    nix::unistd::mkfifo(&path_of(&dir).join("fifo"), Mode::S_IRWXU).unwrap();
    let left = project::assign(dir.as_fd(), 7).unwrap();
    // Linux 6.17.
    let can = crate::sys::quota::set_project_at(dir.as_fd(), c"link", 7).is_ok();
    assert_eq!(left, if can { 0 } else { 2 });
}

/// xfs has project ids also where the kernel has no quota of it.
fn with_ids_of_projects() -> Option<Mounted> {
    privileged()?;
    Mounted::new(Filesystem::Xfs, &["-q"], &[])
}

fn id_of(path: &Path) -> u32 {
    let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    crate::sys::quota::get_fsxattr(file.as_fd()).unwrap().projid
}

fn set_id(path: &Path, projid: u32) {
    let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let before = crate::sys::quota::get_fsxattr(file.as_fd()).unwrap();
    let after = crate::sys::quota::FsXattr { projid, ..before };
    crate::sys::quota::set_fsxattr(file.as_fd(), &after).unwrap();
}

#[test]
fn a_project_of_somebody_else_is_left_alone() {
    let Some(mounted) = with_ids_of_projects() else { return };
    let dir = mounted.dir("layer");
    let path = mounted.path().join("layer");
    fs::create_dir_all(path.join("a/b")).unwrap();
    fs::write(path.join("a/b/theirs"), "x").unwrap();
    fs::write(path.join("a/other"), "x").unwrap();
    project::survey(dir.as_fd()).unwrap();
    let refused = |error: Error, at: Option<&str>| {
        assert_eq!((error.kind(), error.path()), (ErrorKind::AlreadyExists, at), "{error}");
        assert!(error.to_string().contains("foreign project"), "{error}");
    };
    // Deep inside, and what is around it stays as it was.
    set_id(&path.join("a/b/theirs"), 77);
    refused(project::survey(dir.as_fd()).unwrap_err(), Some("a/b/theirs"));
    refused(project::assign(dir.as_fd(), project::FIRST).unwrap_err(), Some("a/b/theirs"));
    assert_eq!(id_of(&path.join("a/b/theirs")), 77);
    for at in ["", "a", "a/b", "a/other"] {
        assert_eq!(id_of(&path.join(at)), 0, "{at}");
    }
    // The directory itself, whether or not new files inherit it.
    set_id(&path.join("a/b/theirs"), 0);
    set_id(&path, 77);
    refused(project::survey(dir.as_fd()).unwrap_err(), None);
    refused(project::own(dir.as_fd()).unwrap_err(), None);
    assert_eq!(id_of(&path), 77);
    // One that a container had before is ours to give away.
    set_id(&path, project::FIRST + 5);
    project::survey(dir.as_fd()).unwrap();
    project::assign(dir.as_fd(), project::FIRST + 6).unwrap();
    for at in ["", "a", "a/b", "a/b/theirs", "a/other"] {
        assert_eq!(id_of(&path.join(at)), project::FIRST + 6, "{at}");
    }
}

/// A directory in each directory, `depth` times; the innermost.
fn nested(top: OwnedFd, depth: usize) -> OwnedFd {
    (0..depth).fold(top, |dir, _| {
        nix::sys::stat::mkdirat(&dir, "d", Mode::S_IRWXU).unwrap();
        openat(&dir, "d", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap()
    })
}

#[test]
fn a_tree_joins_a_project_however_deep_until_that_is_a_trap() {
    let Some(mounted) = with_ids_of_projects() else { return };
    let ids = |dir: &OwnedFd| crate::sys::quota::get_fsxattr(dir.as_fd()).unwrap().projid;
    let dir = mounted.dir("layer");
    let outside = mounted.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, mounted.path().join("layer/link")).unwrap();
    let innermost = nested(dir.try_clone().unwrap(), 200);
    project::survey(dir.as_fd()).unwrap();
    project::assign(dir.as_fd(), project::FIRST).unwrap();
    assert_eq!(ids(&innermost), project::FIRST);
    assert_eq!(id_of(&outside), 0, "a symbolic link is not followed");

    let deeper = nested(innermost.try_clone().unwrap(), 400);
    for error in
        [project::survey(dir.as_fd()).unwrap_err(), project::assign(dir.as_fd(), 5 + project::FIRST).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains("more than 200 directories"), "{error}");
    }
    assert_eq!(ids(&innermost), project::FIRST, "all has its project again");
    assert_eq!(ids(&deeper), project::FIRST, "as it was made");
}

#[test]
fn projects_are_claimed_once() {
    let Some(mounted) = Mounted::with_projects(Filesystem::Ext4) else { return };
    let ids: Vec<u32> = std::thread::scope(|scope| {
        let many = || (0..10).map(|_| project::claim(mounted.0.as_fd(), &bytes(MIB)).unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(many)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 40, "{ids:?}");
}

#[test]
fn what_is_missing_for_a_project_is_named() {
    let Some(()) = privileged() else { return };
    let error = |path: &Path| project::probe(open_dir(path).as_fd()).unwrap_err();
    let shm = error(Path::new("/dev/shm"));
    assert!(shm.kind() == ErrorKind::Unsupported && shm.to_string().contains("tmpfs"), "{shm}");
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let mkfs: &[&str] = if filesystem == Filesystem::Ext4 { &["-q", "-F"] } else { &["-q"] };
        let Some(mounted) = Mounted::new(filesystem, mkfs, &[]) else { continue };
        let error = error(&mounted.path());
        let expected = match (filesystem, lacks_quota(filesystem)) {
            (Filesystem::Ext4, true) => "CONFIG_QFMT_V2",
            (Filesystem::Ext4, false) => "tune2fs -O project,quota -Q prjquota",
            (_, true) => "CONFIG_XFS_QUOTA",
            (_, false) => "rootflags=prjquota",
        };
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(expected), "{error}");
    }
    let kinds = "-Equotatype=usrquota:grpquota:prjquota";
    if !lacks_quota(Filesystem::Ext4)
        && let Some(mounted) = Mounted::new(Filesystem::Ext4, &["-q", "-F", "-Oquota,project", kinds], &[])
    {
        let error = error(&mounted.path());
        assert!(error.to_string().contains("remount,prjquota"), "{error}");
    }
}

#[test]
fn a_subvolume_ends_at_its_bound() {
    let Some(mounted) = Mounted::new(Filesystem::Btrfs, &["-q"], &[]) else { return };
    let path = mounted.path();
    let btrfs = |args: &[&str]| {
        let output = Command::new("btrfs").args(args).current_dir(&path).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    };
    btrfs(&["subvolume", "create", "upper"]);
    let dir = open_dir(&path.join("upper"));
    let error = btrfs::probe(dir.as_fd()).unwrap_err();
    assert!(error.to_string().contains("btrfs quota enable"), "{error}");
    btrfs(&["quota", "enable", "."]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = btrfs::probe(dir.as_fd()) {
        assert!(error.to_string().contains("rescan") && Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let plain = mounted.dir("plain");
    let error = btrfs::probe(plain.as_fd()).unwrap_err();
    assert!(error.to_string().contains("btrfs subvolume create"), "{error}");

    let most = 8 * MIB;
    let error = btrfs::set(dir.as_fd(), &Bounds { bytes: Some(most), inodes: Some(10) }).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("inodes"), "{error}");
    btrfs::set(dir.as_fd(), &bytes(most)).unwrap();
    let (written, said) = fill(&path.join("upper"), 0, 2 * most);
    assert!(said.contains("Disk quota exceeded"), "{said}");
    let used = btrfs::used(dir.as_fd()).unwrap();
    println!("btrfs: {written} bytes of a file, {used:?}");
    assert_eq!(used.bytes_max, Some(most));
    assert!(used.bytes <= most && used.bytes >= most - 128 * 1024, "{used:?}");

    let (request, argument) = btrfs::setting(dir.as_fd(), None).unwrap();
    crate::sys::btrfs::raw(dir.as_fd(), request, &argument).unwrap();
    assert_eq!(btrfs::used(dir.as_fd()).unwrap().bytes_max, None);
    let (done, said) = shell(&path.join("upper"), 0, "head -c 16M /dev/zero >more");
    assert!(done, "{said}");
}

#[test]
fn the_report_is_what_can_be_had() {
    let backends = report();
    for backend in &backends {
        match &backend.found {
            Ok(found) => println!("{}: {found}", backend.name),
            Err(error) => println!("{}: no: {error}", backend.name),
        }
    }
    let names: Vec<&str> = backends.iter().map(|backend| &*backend.name).collect();
    let expected =
        ["project", "qgroup", "image.ext4", "image.ext4.users", "image.xfs", "image.xfs.users", "image.btrfs"];
    assert_eq!(names, expected);
    let place = tempfile::tempdir().unwrap();
    for (name, filesystem, users) in [
        ("image.ext4", Filesystem::Ext4, false),
        ("image.ext4.users", Filesystem::Ext4, true),
        ("image.btrfs", Filesystem::Btrfs, false),
    ] {
        let row = backends.iter().find(|backend| backend.name == name).unwrap();
        let made = image::make(place.path(), filesystem, &bytes(64 * MIB), users, None);
        match (&row.found, made) {
            (Ok(_), Ok(_)) => {}
            (Err(said), Err(error)) => assert_eq!(said.to_string(), error.to_string()),
            (said, made) => panic!("{name}: {said:?}, but {made:?}"),
        }
    }
}
