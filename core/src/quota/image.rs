//! A file system of our own, as large as the bound says, in a file on a loop device.
//!
//! Nothing of it has a name: the file is unlinked from birth, the device lets go of it with its last user, the mount is
//! attached nowhere. So all of it is gone with the last descriptor and mount, however the programs end that had them.
//!
//! What is written need not outlive the container: ext4 is made without a journal, and neither ext4 nor btrfs waits until the
//! disk below has really written. The file is sparse, so an image is a bound and no reservation: if the file system that it
//! lies on is full before the image is, writes in it fail with EIO or ENOSPC.

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor, mkdirat, mknodat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{AccessFlags, UnlinkatFlags, access, fchownat, ftruncate, unlink, unlinkat};

use super::{Bounds, Filesystem, Owner, Used, kernel, magic, opened, project, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::plan::env::PATH;
use crate::spec::{Idmap, Spec};
use crate::sys::loopdev::{self, Info, LO_FLAGS_AUTOCLEAR};
use crate::sys::{btrfs, fs};

/// All sizes are whole blocks; the rest of a bound is not given.
const BLOCK: u64 = 4096;

/// Below, btrfs is made with mixed block groups.
const BTRFS_MIXED: u64 = 1 << 30;

/// What btrfs_ioctl_resize demands of the new size.
const BTRFS_RESIZED: u64 = 256 << 20;

/// Far more than any file system is made in.
const MKFS_TIMEOUT: Duration = Duration::from_secs(120);

const CONTROL: &str = "/dev/loop-control";

/// By which a device of ours is known, in its lo_file_name.
const NAME: &str = "ringfence";

/// In the top directory of an ext4 image with a bound of inodes: empty files, one for each inode that the file system has
/// beyond the bound. Nobody sees it who sees the image as the upper directory of an overlay.
const RESERVE: &CStr = c".ringfence-inodes";

/// A mounted image.
#[derive(Debug)]
pub(crate) struct Image {
    /// The mount, attached nowhere. Its top directory is root's, with mode 0755, and empty.
    pub mount: HostOnly,
}

impl Filesystem {
    /// The file system that an open file is on.
    fn of(file: BorrowedFd<'_>) -> Result<Self> {
        let found = fstatfs(file).map_err(|errno| Error::os("fstatfs", errno as i32))?;
        match found.filesystem_type().0 as i64 {
            magic::EXT4 => Ok(Self::Ext4),
            magic::XFS => Ok(Self::Xfs),
            magic::BTRFS => Ok(Self::Btrfs),
            other => Err(unsupported(format!("it is on {}", magic::name(other)), "images have ext4, xfs or btrfs")),
        }
    }

    pub(super) fn c_name(self) -> &'static CStr {
        match self {
            Self::Ext4 => c"ext4",
            Self::Xfs => c"xfs",
            Self::Btrfs => c"btrfs",
        }
    }

    /// The Debian package of its mkfs.
    pub(super) fn package(self) -> &'static str {
        match self {
            Self::Ext4 => "e2fsprogs",
            Self::Xfs => "xfsprogs",
            Self::Btrfs => "btrfs-progs",
        }
    }

    /// The smallest image in bytes, which is what its mkfs makes at the least.
    pub(crate) fn minimum(self) -> u64 {
        match self {
            Self::Ext4 => 1 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 16 << 20,
        }
    }

    fn mkfs(self, bytes: u64, inodes: Option<u64>, quotas: bool) -> Vec<OsString> {
        let (program, options): (_, &[&str]) = match self {
            Self::Ext4 => (
                "mkfs.ext4",
                // A sparse file reads as zeros: no table of inodes has to be written. Nothing is kept back for root.
                &["-q", "-F", "-b4096", "-I256", "-m0", "-O^has_journal", "-Elazy_itable_init=1,nodiscard"],
            ),
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "-K"]),
            // Small ones run out of the part that metadata has, so that not even a full file can be removed: there both
            // kinds share all of it.
            Self::Btrfs if bytes < BTRFS_MIXED => ("mkfs.btrfs", &["-q", "-f", "-K", "-M", "-msingle", "-dsingle"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f", "-K", "-msingle", "-dsingle"]),
        };
        let mut argv: Vec<OsString> = [program].into_iter().chain(options.iter().copied()).map(Into::into).collect();
        if self == Self::Ext4 {
            argv.push(inodes.map_or("-i8192".into(), |n| format!("-N{n}").into()));
            if quotas {
                argv.extend(["-Oquota", "-Equotatype=usrquota:grpquota"].map(Into::into));
            }
        }
        argv
    }

    /// No `discard` for ext4: without a journal every removed file would wait for it (10,000 files: 38 s, else 0.7 s). So what
    /// its file had once it keeps, while xfs and btrfs give it back to the file system below.
    fn options(self, quotas: bool) -> &'static [&'static CStr] {
        match (self, quotas) {
            (Self::Ext4, false) => &[c"nobarrier", c"noinit_itable"],
            (Self::Ext4, true) => &[c"nobarrier", c"noinit_itable", c"usrquota", c"grpquota"],
            (Self::Xfs, false) => &[c"discard"],
            (Self::Xfs, true) => &[c"discard", c"uquota", c"gquota"],
            (Self::Btrfs, _) => &[c"nobarrier", c"nodatasum"],
        }
    }
}

/// Makes and mounts an image whose file is in the directory `place`.
///
/// `bounds.bytes` is the size of all of it, in whole blocks of 4096 bytes: the file system's own structures come out of it.
/// That is some 80 MiB on xfs (the log), some 7 MiB on btrfs, and on ext4 one 256-byte inode for every 8 KiB (or
/// `bounds.inodes`) and little else. `bounds.inodes` is exact, and for ext4 only. `quotas`: users and groups in it can be bounded
/// ([`project::set`]), on ext4 and xfs. `label`: of SELinux, for its files.
///
/// # Errors
/// Unsupported: this machine or this file system cannot, and why. InvalidArgument: too small. Nothing is left behind.
pub(crate) fn make(
    place: &Path,
    filesystem: Filesystem,
    bounds: &Bounds,
    quotas: bool,
    label: Option<&str>,
) -> Result<Image> {
    let name = filesystem.name();
    privileged()?;
    if quotas && filesystem == Filesystem::Btrfs {
        return Err(unsupported("btrfs has no quota of users and groups", "use an ext4 or xfs image"));
    }
    if bounds.inodes.is_some() && filesystem != Filesystem::Ext4 {
        return Err(unsupported(format!("{name} cannot bound the number of inodes exactly"), "use an ext4 image"));
    }
    let bytes = bounds.bytes.unwrap_or(0) / BLOCK * BLOCK;
    if bytes < filesystem.minimum() {
        let least = filesystem.minimum() >> 20;
        return Err(Error::new(ErrorKind::InvalidArgument, format!("an image with {name} has at least {least} MiB"))
            .with_errno(libc::EINVAL)
            .with_hint(if filesystem == Filesystem::Ext4 { "give it more" } else { "ext4 can be smaller" }));
    }
    let file = unnamed_file(place)?;
    let set_length = |length| {
        ftruncate(&file, length as i64)
            .map_err(|errno| Error::os("ftruncate of an image", errno as i32).with_path(place.to_string_lossy()))
    };
    // mkfs fills the file. What comes behind is for growth: nobody can reach the file later.
    fits_file_limit(bytes)?;
    set_length(bytes)?;
    // Its first 11 inodes are its own, and the reserve is a directory; mkfs rounds up.
    let at_least = bounds.inodes.map(|n| n.max(1) + 16);
    make_filesystem(&file, filesystem.mkfs(bytes, at_least, quotas), filesystem.package())?;
    set_length(longest(&file, bytes)?)?;

    let device = Loop::attach(&file, bytes, bounds.inodes)?;
    let mount = mount(filesystem, &device.path, filesystem.options(quotas), label)
        .map(HostOnly::new)
        .map_err(|error| if quotas { lacks_users(filesystem).unwrap_or(error) } else { error })?;
    if quotas {
        project::limits(mount.as_fd(), Owner::User(1))?;
        project::limits(mount.as_fd(), Owner::Group(1))?;
    }
    if filesystem == Filesystem::Ext4 {
        match unlinkat(&mount, c"lost+found", UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::os("unlinkat", errno as i32).with_path("lost+found")),
        }
        if let Some(bound) = bounds.inodes {
            reserve(&mount, || Ok(inodes(&mount)?.1.saturating_sub(bound)))?;
            if inodes(&mount)?.1 != bound {
                return Err(Error::new(ErrorKind::Unsupported, format!("ext4 has no way to have just {bound} inodes"))
                    .with_errno(libc::EOPNOTSUPP));
            }
        }
    }
    Ok(Image { mount })
}

/// What is used of an image; `fs` is any directory on it. Bytes are all that cannot be had any more, the file system's own
/// structures included, so that `bytes` and what is free are `bytes_max` together.
pub(crate) fn used(fs: BorrowedFd<'_>) -> Result<Used> {
    let (device, info) = Loop::under(fs)?;
    let size = device.size()?;
    let found = fstatfs(fs).map_err(|errno| Error::os("fstatfs", errno as i32))?;
    let available = found.blocks_available() as u64 * found.block_size() as u64;
    let free = found.files_free() as u64;
    let bound = inodes_of(&info);
    Ok(Used {
        bytes: size.saturating_sub(available),
        inodes: bound.unwrap_or(found.files() as u64).saturating_sub(free),
        bytes_max: Some(size),
        inodes_max: bound,
    })
}

/// Makes a mounted image larger, in whole blocks of 4096 bytes; `fs` is any directory on it, `label` the one it was made with.
///
/// # Errors
/// PermissionDenied: ext4 takes CAP_SYS_RESOURCE. InvalidArgument: it would become smaller, which no mounted one can, or btrfs
/// would still have less than 256 MiB, which the kernel refuses. Then the image is as large as it was.
pub(crate) fn grow(fs: BorrowedFd<'_>, bytes: u64, label: Option<&str>) -> Result<()> {
    let fs = opened(fs)?;
    let fs = fs.as_fd();
    let (device, before) = Loop::under(fs)?;
    let bytes = bytes / BLOCK * BLOCK;
    let size = device.size()?;
    if bytes < size {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("a mounted image cannot be made smaller: it has {size} bytes"),
        )
        .with_errno(libc::EINVAL));
    }
    if bytes == size {
        return Ok(());
    }
    if Filesystem::of(fs)? == Filesystem::Btrfs && bytes < BTRFS_RESIZED {
        return Err(Error::new(ErrorKind::InvalidArgument, "the kernel resizes btrfs only to 256 MiB and more")
            .with_errno(libc::EINVAL)
            .with_hint("give it more, or use an xfs or ext4 image"));
    }
    let capacity = || fstatfs(fs).map(|found| found.blocks());
    let old_capacity = capacity();
    let old_inodes = inodes(fs)?.0;
    device.set_status(&Info { sizelimit: bytes, ..before })?;
    let grown = device.size().and_then(|now| {
        if now < bytes {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("the file of this image can have {now} bytes at most"),
            )
            .with_errno(libc::EFBIG));
        }
        grow_filesystem(fs, bytes)
    });
    if let Err(error) = grown {
        // A file system that has taken a part of it needs that part.
        if capacity() == old_capacity {
            device.set_status(&before)?;
        }
        return Err(error);
    }
    if inodes_of(&before).is_some() {
        // Its new part has inodes too, which may be used until here. `fs` need not see the top directory.
        let top = mount(Filesystem::Ext4, &device.path, &[], label)?;
        reserve(&top, || Ok(inodes(&top)?.0.saturating_sub(old_inodes)))?;
    }
    Ok(())
}

fn grow_filesystem(fs: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    match Filesystem::of(fs)? {
        Filesystem::Ext4 => fs::ext4_resize(fs, bytes / BLOCK).map_err(|errno| {
            let error = Error::os("ioctl(EXT4_IOC_RESIZE_FS)", errno);
            match errno {
                libc::EPERM => {
                    error.with_hint("to grow ext4 takes CAP_SYS_RESOURCE: give it to this process, or use xfs")
                }
                _ => error,
            }
        }),
        Filesystem::Xfs => fs::xfs_grow(fs, bytes).map_err(|errno| Error::os("ioctl(XFS_IOC_FSGROWFSDATA)", errno)),
        Filesystem::Btrfs => {
            btrfs::resize(fs, &format!("1:{bytes}")).map_err(|errno| Error::os("ioctl(BTRFS_IOC_RESIZE)", errno))
        }
    }
}

/// Whether [`make`] would work, as far as can be told without making one.
pub(super) fn probe(filesystem: Filesystem) -> Result<()> {
    privileged()?;
    let name = filesystem.name();
    if !kernel::has_filesystem(name) {
        return Err(no_filesystem(name));
    }
    match access(CONTROL, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => {}
        Err(Errno::ENOENT) => return Err(no_loop()),
        Err(errno) => return Err(Error::os("access", errno as i32).with_path(CONTROL)),
    }
    let program = filesystem.mkfs(0, None, false).remove(0);
    if !PATH.split(':').any(|dir| access(&Path::new(dir).join(&program), AccessFlags::X_OK).is_ok()) {
        return Err(not_installed(&program.to_string_lossy(), filesystem.package()));
    }
    Ok(())
}

/// What the kernel lacks for quota of users and groups, as far as it tells.
pub(super) fn lacks_users(filesystem: Filesystem) -> Option<Error> {
    let option = match filesystem {
        Filesystem::Ext4 if kernel::has_quota_format() == Some(false) => "CONFIG_QFMT_V2",
        Filesystem::Xfs if kernel::has_xfs_quota() == Some(false) => "CONFIG_XFS_QUOTA",
        _ => return None,
    };
    let name = filesystem.name();
    Some(unsupported(
        format!("this kernel was built without {option}, which quota of users and groups on {name} needs"),
        "use a kernel that has it (Debian's has)",
    ))
}

fn no_loop() -> Error {
    unsupported(
        format!("there is no {CONTROL}"),
        "modprobe loop (CONFIG_BLK_DEV_LOOP), or give this container the host's /dev",
    )
}

fn no_filesystem(name: &str) -> Error {
    unsupported(format!("this kernel has no {name}"), format!("load its module: modprobe {name}"))
}

fn not_installed(program: &str, package: &str) -> Error {
    unsupported(format!("{program} is not installed"), format!("install the package {package} (Debian)"))
}

pub(super) fn privileged() -> Result<()> {
    if super::is_root() {
        return Ok(());
    }
    Err(super::needs_root("to mount an image"))
}

/// A file that no directory has.
fn unnamed_file(place: &Path) -> Result<OwnedFd> {
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let fail = |step: &str, errno: Errno| Error::os(step, errno as i32).with_path(place.to_string_lossy());
    match open(place, flags | OFlag::O_TMPFILE, mode) {
        // EISDIR: a kernel whose file system does not know the flag.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {}
        other => return other.map_err(|errno| fail("open(O_TMPFILE)", errno)),
    }
    let path = place.join(format!(".{NAME}-{}-{:x}", std::process::id(), super::random()));
    let file = open(&path, flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW, mode)
        .map_err(|errno| fail("open", errno))?;
    unlink(&path).map_err(|errno| fail("unlink", errno))?;
    Ok(file)
}

fn file_limit() -> u64 {
    getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Past it the kernel would not only refuse, but kill the host with SIGXFSZ.
fn fits_file_limit(bytes: u64) -> Result<()> {
    if bytes <= file_limit() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Exhausted,
        format!("RLIMIT_FSIZE of this process allows files of {} bytes", file_limit()),
    )
    .with_errno(libc::EFBIG)
    .with_hint("raise it (ulimit -f)"))
}

/// How long the file can be on this file system, at least `bytes`.
fn longest(file: &OwnedFd, bytes: u64) -> Result<u64> {
    let limit = file_limit();
    for shift in (0..62).rev() {
        let length = 1 << shift;
        if length > limit {
            continue;
        }
        if length <= bytes {
            break;
        }
        match ftruncate(file, length as i64) {
            Ok(()) => return Ok(length),
            Err(Errno::EFBIG | Errno::EINVAL) => {}
            Err(errno) => return Err(Error::os("ftruncate of an image", errno as i32)),
        }
    }
    Ok(bytes)
}

/// Runs mkfs in a container, because this process must not have children.
pub(super) fn make_filesystem(file: &OwnedFd, mut argv: Vec<OsString>, package: &str) -> Result<()> {
    const INSIDE: i32 = 3;
    let program = argv[0].to_string_lossy().into_owned();
    argv.push(format!("/proc/self/fd/{INSIDE}").into());
    let mut spec = Spec::new().argv(argv).idmap(Idmap::Host);
    spec.pass_fds.insert(file.as_raw_fd(), INSIDE);
    let output = crate::run(&spec, None, Some(MKFS_TIMEOUT)).map_err(|error| match error.kind() {
        ErrorKind::NotFound if error.field() == Some("argv[0]") => not_installed(&program, package),
        _ => error.with_context(format!("run {program} for an image")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(Error::new(ErrorKind::Os, format!("{program} failed: {}", said.join("; "))))
}

/// Mounts it attached nowhere.
pub(super) fn mount(filesystem: Filesystem, device: &Path, options: &[&CStr], label: Option<&str>) -> Result<OwnedFd> {
    let name = filesystem.name();
    let context = fs::Context::open(filesystem.c_name()).map_err(|errno| match errno {
        libc::ENODEV => no_filesystem(name),
        _ => Error::os("fsopen", errno).with_path(name),
    })?;
    let source = CString::new(device.as_os_str().as_encoded_bytes())
        .map_err(|_| Error::new(ErrorKind::Internal, "a device with NUL in its name"))?;
    context.label(label).map_err(|errno| Error::os("fsconfig", errno).with_field("mount_label"))?;
    let mount = || {
        context.string(c"source", &source)?;
        for option in options {
            context.flag(option)?;
        }
        context.create()?;
        context.mount()
    };
    mount().map_err(|errno| {
        if let Some(error) = crate::launch::refused_label(label, errno) {
            return error;
        }
        let error = Error::os(format!("mount of {name}"), errno).with_path(device.to_string_lossy());
        match context.message() {
            said if said.is_empty() => error,
            said => error.with_detail(said),
        }
    })
}

/// The number of inodes of a file system, and how many of them are free.
fn inodes(mount: impl AsFd) -> Result<(u64, u64)> {
    let found = fstatfs(mount).map_err(|errno| Error::os("fstatfs", errno as i32))?;
    Ok((found.files() as u64, found.files_free() as u64))
}

/// Takes `count` inodes out of reach.
fn reserve(mount: impl AsFd, count: impl FnOnce() -> Result<u64>) -> Result<()> {
    let fail = |step: &str, errno: Errno| Error::os(step, errno as i32).with_path(RESERVE.to_string_lossy());
    match mkdirat(&mount, RESERVE, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(fail("mkdirat", errno)),
    }
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = openat(&mount, RESERVE, flags, Mode::empty()).map_err(|errno| fail("openat", errno))?;
    let count = count()?;
    let generation = super::random();
    // Of nobody, so that nobody's quota has them.
    let nobody = u32::MAX - 1;
    for n in 0..count {
        let name = format!("{generation:x}-{n:x}");
        match mknodat(&dir, &*name, SFlag::S_IFREG, Mode::empty(), 0) {
            Ok(()) => {}
            // What grew has been used already.
            Err(Errno::ENOSPC) => break,
            Err(errno) => return Err(fail("mknodat", errno)),
        }
        fchownat(&dir, &*name, Some(nobody.into()), Some(nobody.into()), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(|errno| fail("fchownat", errno))?;
    }
    Ok(())
}

/// A loop device of ours.
#[derive(Debug)]
pub(super) struct Loop {
    device: HostOnly,
    pub path: PathBuf,
}

impl Loop {
    /// The first `bytes` of the file as a block device, which goes when nobody uses it.
    pub fn attach(file: &OwnedFd, bytes: u64, inodes: Option<u64>) -> Result<Self> {
        let control = open(CONTROL, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| match errno {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => no_loop(),
            _ => Error::os("open", errno as i32).with_path(CONTROL),
        })?;
        let mut info = Info { sizelimit: bytes, flags: LO_FLAGS_AUTOCLEAR, ..Info::NONE };
        let name = inodes.map_or(NAME.to_owned(), |bound| format!("{NAME} inodes={bound}"));
        info.name[..name.len()].copy_from_slice(name.as_bytes());
        // Whoever asks for a free device at the same time is told the same one.
        for attempt in 0..200u64 {
            let number =
                loopdev::free(control.as_fd()).map_err(|errno| Error::os("ioctl(LOOP_CTL_GET_FREE)", errno))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let fail = |step: &str, errno: i32| Error::os(step, errno).with_path(path.to_string_lossy());
            match open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(device) => match loopdev::configure(device.as_fd(), file.as_fd(), &info) {
                    Ok(()) => return Ok(Self { device: device.into(), path }),
                    Err(libc::EBUSY) => {}
                    Err(errno) => return Err(fail("ioctl(LOOP_CONFIGURE)", errno)),
                },
                // Not there yet, or being removed.
                Err(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV) if attempt < 100 => {}
                Err(errno) => return Err(fail("open", errno as i32)),
            }
            sleep(Duration::from_millis(attempt.min(10)));
        }
        Err(Error::new(ErrorKind::Exhausted, "others took every free loop device first").with_errno(libc::EBUSY))
    }

    /// The device below a file system of ours.
    pub fn under(fs: BorrowedFd<'_>) -> Result<(Self, Info)> {
        const LOOP_MAJOR: u64 = 7;
        let not_ours = || {
            Error::new(ErrorKind::InvalidArgument, "it is not on an image that ringfence made").with_errno(libc::EINVAL)
        };
        // btrfs has device numbers of its own.
        let (path, expected) = if Filesystem::of(fs)? == Filesystem::Btrfs {
            let path =
                btrfs::device(opened(fs)?.as_fd(), 1).map_err(|errno| Error::os("ioctl(BTRFS_IOC_DEV_INFO)", errno))?;
            (PathBuf::from(OsString::from_vec(path)), None)
        } else {
            let device = fstat(fs).map_err(|errno| Error::os("fstat", errno as i32))?.st_dev;
            if major(device) != LOOP_MAJOR {
                return Err(not_ours());
            }
            // The number in its name is not the minor's where loop devices have partitions.
            let link = std::fs::read_link(format!("/sys/dev/block/{LOOP_MAJOR}:{}", minor(device)));
            let name = link.ok().and_then(|link| Some(link.file_name()?.to_owned()));
            let name = name.unwrap_or_else(|| format!("loop{}", minor(device)).into());
            (Path::new("/dev").join(name), Some(device))
        };
        let fail = |step: &str, errno: i32| Error::os(step, errno).with_path(path.to_string_lossy());
        // For reading, also to change its size, for which CAP_SYS_ADMIN is enough: each close of a device that was open for
        // writing makes udev look at it again.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let device = open(&path, flags, Mode::empty()).map_err(|errno| fail("open", errno as i32))?;
        let number = fstat(&device).map_err(|errno| fail("fstat", errno as i32))?.st_rdev;
        let info = match loopdev::status(device.as_fd()) {
            Ok(info)
                if major(number) == LOOP_MAJOR
                    && expected.is_none_or(|device| device == number)
                    && info.name.starts_with(NAME.as_bytes()) =>
            {
                info
            }
            Ok(_) | Err(libc::ENOTTY | libc::ENXIO) => return Err(not_ours()),
            Err(errno) => return Err(fail("ioctl(LOOP_GET_STATUS64)", errno)),
        };
        Ok((Self { device: device.into(), path }, info))
    }

    fn size(&self) -> Result<u64> {
        loopdev::size(self.device.as_fd()).map_err(|errno| self.failed("ioctl(BLKGETSIZE64)", errno))
    }

    fn set_status(&self, info: &Info) -> Result<()> {
        // EAGAIN: somebody wrote to the device itself at this moment.
        for _ in 0..100 {
            match loopdev::set_status(self.device.as_fd(), info) {
                Err(libc::EAGAIN) => sleep(Duration::from_millis(5)),
                other => return other.map_err(|errno| self.failed("ioctl(LOOP_SET_STATUS64)", errno)),
            }
        }
        Err(self.failed("ioctl(LOOP_SET_STATUS64)", libc::EAGAIN))
    }

    fn failed(&self, step: &str, errno: i32) -> Error {
        Error::os(step, errno).with_path(self.path.to_string_lossy())
    }
}

/// The bound of inodes that a device's name says.
fn inodes_of(info: &Info) -> Option<u64> {
    let name = info.name.split(|&byte| byte == 0).next()?;
    std::str::from_utf8(name).ok()?.split_once("inodes=")?.1.parse().ok()
}
