//! The quota of projects, users and groups on ext4 and xfs (quotactl_fd(2), Linux 5.14).
//!
//! A project id is a number of each file; new files get that of their directory (FS_XFLAG_PROJINHERIT). Only root of the first
//! user namespace can change it, so that what runs in a container with a user namespace cannot leave its project. On ext4 a
//! process with CAP_SYS_RESOURCE over the first user namespace passes every limit: a container must not have it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::fstatfs;

use super::{Bounds, Owner, Used, kernel, magic, opened, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::state::Exclusive;
use crate::sys::quota::{self as sys, Dqblk, FS_XFLAG_PROJINHERIT, FsXattr};

/// Ours: people and other programs count up from small numbers.
pub(crate) const FIRST: u32 = 0x5246_0000;
const IDS: u32 = 0x1_0000;

/// The kernel counts blocks of 1024 bytes.
const BLOCK: u64 = 1024;

impl Owner {
    fn split(self) -> (u32, u32) {
        match self {
            Self::Project(id) => (sys::PRJQUOTA, id),
            Self::User(id) => (sys::USRQUOTA, id),
            Self::Group(id) => (sys::GRPQUOTA, id),
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Project(_) => ("project", "prjquota"),
            Self::User(_) => ("user", "usrquota"),
            Self::Group(_) => ("group", "grpquota"),
        }
    }
}

/// Whether what is in `dir` can be bounded by a project id.
///
/// # Errors
/// Kind Unsupported, with what is missing of the kernel, of the file system or of its mount options; PermissionDenied.
pub(crate) fn probe(dir: BorrowedFd<'_>) -> Result<()> {
    limits(dir, Owner::Project(FIRST))?;
    if super::is_root() { Ok(()) } else { Err(super::needs_root("to bound a project")) }
}

/// Whether the kernel counts and refuses for this kind of owner on the file system of `dir`.
pub(super) fn limits(dir: BorrowedFd<'_>, owner: Owner) -> Result<()> {
    let (kind, option) = owner.words();
    if !sys::has_quotactl_fd() {
        return Err(unsupported("quotactl_fd is missing", "it needs Linux 5.14"));
    }
    let xfs = is_xfs(dir)?;
    let number = owner.split().0;
    let state = match sys::state(dir) {
        Ok(flags) => flags >> (2 * number),
        Err(libc::ENOSYS | libc::EINVAL) => 0,
        Err(errno) => return Err(Error::os("quotactl_fd(Q_XGETQSTATV)", errno)),
    };
    let (counted, enforced) = (state & 1 != 0, state & 2 != 0);
    match (xfs, counted, enforced) {
        (_, true, true) => Ok(()),
        (false, true, false) => Err(unsupported(
            format!("this ext4 file system counts what a {kind} uses, but is not mounted with {option}"),
            format!("mount -o remount,{option}"),
        )),
        (true, true, false) => Err(unsupported(
            format!("this xfs file system counts what a {kind} uses, but is mounted without enforcement"),
            format!("mount it with the option {option}; it cannot be added by remounting"),
        )),
        (false, ..) if kernel::has_quota_format() == Some(false) => Err(unsupported(
            "this kernel was built without CONFIG_QFMT_V2, which every quota on ext4 needs",
            "use a kernel that has it (Debian's has, in the module quota_v2)",
        )),
        (true, ..) if kernel::has_xfs_quota() == Some(false) => Err(unsupported(
            "this kernel was built without CONFIG_XFS_QUOTA, which every quota on xfs needs",
            "use a kernel that has it (Debian's has)",
        )),
        (false, ..) => Err(unsupported(
            format!("this ext4 file system has no {kind} quota"),
            format!(
                "unmount it, tune2fs -O {}quota -Q {option} DEVICE (for a new one: mkfs.ext4 -O {0}quota), \
                 and mount it with the option {option}",
                if kind == "project" { "project," } else { "" }
            ),
        )),
        (true, ..) => Err(unsupported(
            format!("this xfs file system is mounted without {kind} quota"),
            format!("mount it with the option {option} (as root file system: boot with rootflags={option})"),
        )),
    }
}

/// # Errors
/// It is neither ext4 nor xfs.
fn is_xfs(dir: BorrowedFd<'_>) -> Result<bool> {
    let found = fstatfs(dir).map_err(|errno| Error::os("fstatfs", errno as i32))?;
    match found.filesystem_type().0 as i64 {
        magic::EXT4 => Ok(false),
        magic::XFS => Ok(true),
        other => Err(unsupported(
            format!("it is on {}; quota of projects, users and groups needs ext4 or xfs", magic::name(other)),
            "put it on such a file system, or into an image",
        )),
    }
}

/// The project that new files in `dir` belong to.
pub(crate) fn of(dir: BorrowedFd<'_>) -> Result<Option<u32>> {
    let attr = attributes(opened(dir)?.as_fd())?;
    Ok((attr.xflags & FS_XFLAG_PROJINHERIT != 0 && attr.projid != 0).then_some(attr.projid))
}

/// Takes a project id that has neither files nor limits, and gives it these bounds, by which all others see that it is taken.
///
/// Two callers never get the same, as long as they have the same state directory; others start looking at different places.
pub(crate) fn claim(dir: BorrowedFd<'_>, bounds: &Bounds) -> Result<u32> {
    if *bounds == Bounds::default() {
        return Err(Error::new(ErrorKind::Internal, "a project without a bound cannot be told from a free one"));
    }
    let _lock = Exclusive::take("projects")?;
    let start = super::random() as u32;
    for n in 0..IDS {
        let id = FIRST + start.wrapping_add(n) % IDS;
        if used(dir, Owner::Project(id))? == Used::default() {
            set(dir, Owner::Project(id), bounds)?;
            return Ok(id);
        }
    }
    Err(Error::new(ErrorKind::Exhausted, format!("all {IDS} project ids from {FIRST} on are in use"))
        .with_errno(libc::EAGAIN))
}

/// Refuses a directory in which something is in a project that ringfence did not choose: the project of an administrator
/// has a meaning, and bounds, of its own. Also one that is too deep for [`assign`]. Nothing is changed.
///
/// # Errors
/// AlreadyExists: a foreign project. Unsupported: more than 200 directories deep.
pub(crate) fn survey(dir: BorrowedFd<'_>) -> Result<()> {
    walk(opened(dir)?.as_fd(), &mut |found| {
        let id = match found {
            Found::Directory(file) | Found::File(file) => attributes(file)?.projid,
            // Before Linux 6.17 nobody can tell, nor give it another.
            Found::Other(dir, name) => sys::project_at(dir, name).unwrap_or(0),
        };
        not_foreign(id)
    })
}

fn is_ours(id: u32) -> bool {
    (FIRST..FIRST + IDS).contains(&id)
}

fn not_foreign(id: u32) -> Result<()> {
    if id == 0 || is_ours(id) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("it is in project {id}, a foreign project: somebody else's limit"),
    )
    .with_errno(libc::EEXIST)
    .with_hint("take another directory, or end that project's use of it: chattr -R -p 0 -P DIRECTORY"))
}

/// The project of `dir`, which has it from now on, without bounds: one of ours that it has already, else one that is free. A
/// directory inside another that has a project of ours gets one of its own.
///
/// # Errors
/// AlreadyExists: it has a foreign project, see [`survey`].
pub(crate) fn own(dir: BorrowedFd<'_>) -> Result<u32> {
    not_foreign(attributes(opened(dir)?.as_fd())?.projid)?;
    let above = openat(dir, "..", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os("openat", errno as i32).with_path(".."))?;
    let ours = of(dir)?.filter(|&id| is_ours(id));
    if let Some(id) = ours.filter(|&id| of(above.as_fd()).ok().flatten() != Some(id)) {
        return Ok(id);
    }
    let id = claim(dir, &Bounds { bytes: None, inodes: Some(1) })?;
    // Its inode shows from now on that the id is taken; the bound would outlive a program that is killed here.
    let marked = change(dir, id, true);
    set(dir, Owner::Project(id), &Bounds::default())?;
    marked.map(|()| id)
}

/// Sets the bounds of an owner; `None` lifts one. Bytes are counted in whole KiB: a part of one is not given.
///
/// What is used already may be more: then nothing more can be written.
pub(crate) fn set(dir: BorrowedFd<'_>, owner: Owner, bounds: &Bounds) -> Result<()> {
    let (kind, id) = owner.split();
    if id == 0 && is_xfs(dir)? {
        return Err(unsupported(
            format!("on xfs the bounds of {} 0 would be the defaults of all others", owner.words().0),
            "use ext4, or bound other ids only",
        ));
    }
    if bounds.bytes.is_some_and(|bytes| bytes < BLOCK) || bounds.inodes == Some(0) {
        return Err(Error::new(ErrorKind::InvalidArgument, "a bound is at least 1024 bytes and one inode: 0 is none")
            .with_errno(libc::EINVAL));
    }
    let dqblk = Dqblk {
        bhardlimit: bounds.bytes.map_or(0, |bytes| bytes / BLOCK),
        ihardlimit: bounds.inodes.unwrap_or(0),
        valid: sys::QIF_BLIMITS | sys::QIF_ILIMITS,
        ..Dqblk::default()
    };
    sys::set(dir, kind, id, &dqblk).map_err(|errno| refused(dir, owner, "quotactl_fd(Q_SETQUOTA)", errno))
}

/// What an owner uses, and the bounds that hold.
pub(crate) fn used(dir: BorrowedFd<'_>, owner: Owner) -> Result<Used> {
    let (kind, id) = owner.split();
    let found = match sys::get(dir, kind, id) {
        Ok(found) => found,
        // xfs: it never had anything.
        Err(libc::ENOENT) => return Ok(Used::default()),
        Err(errno) => return Err(refused(dir, owner, "quotactl_fd(Q_GETQUOTA)", errno)),
    };
    let bound = |limit: u64| (limit != 0).then_some(limit);
    Ok(Used {
        bytes: found.space,
        inodes: found.inodes,
        bytes_max: bound(found.bhardlimit).map(|blocks| blocks.saturating_mul(BLOCK)),
        inodes_max: bound(found.ihardlimit),
    })
}

fn refused(dir: BorrowedFd<'_>, owner: Owner, step: &str, errno: i32) -> Error {
    match limits(dir, owner) {
        // ESRCH is what the kernel says of quota that is off, EINVAL of a kind that the file system does not know.
        Err(reason) if matches!(errno, libc::ESRCH | libc::ENOSYS | libc::EINVAL) => reason,
        _ => Error::os(step, errno),
    }
}

/// The system call that sets the bounds of an owner, for whoever does it later: quotactl_fd(dir, command, id, the bytes of its
/// struct if_dqblk).
pub(crate) fn setting(owner: Owner, bounds: &Bounds) -> (u32, u32, [u8; 72]) {
    let (kind, id) = owner.split();
    let mut dqblk = [0; size_of::<Dqblk>()];
    let mut put = |at: usize, bytes: &[u8]| dqblk[at..at + bytes.len()].copy_from_slice(bytes);
    let blocks = bounds.bytes.map_or(0, |bytes| bytes / BLOCK);
    put(std::mem::offset_of!(Dqblk, bhardlimit), &blocks.to_ne_bytes());
    put(std::mem::offset_of!(Dqblk, ihardlimit), &bounds.inodes.unwrap_or(0).to_ne_bytes());
    put(std::mem::offset_of!(Dqblk, valid), &(sys::QIF_BLIMITS | sys::QIF_ILIMITS).to_ne_bytes());
    (sys::set_command(kind), id, dqblk)
}

/// Makes `dir` and all that is in it the project's, now and in future. Symbolic links are not followed, other mounts not
/// entered.
///
/// The result is how many symbolic links, sockets, FIFOs and devices stayed as they were, because their project can only be
/// changed from Linux 6.17 on, and not on every file system: they are not counted until they are made anew. They have an
/// inode each and, but for links of more than some 60 bytes, no other space.
///
/// # Errors
/// Among others EDQUOT: what is there is more than the project may have. Then all has the project again that `dir` had.
/// AlreadyExists and Unsupported as [`survey`] says.
pub(crate) fn assign(dir: BorrowedFd<'_>, id: u32) -> Result<u64> {
    let dir = opened(dir)?;
    let dir = dir.as_fd();
    let before = attributes(dir)?;
    let mut left = 0;
    give(dir, id, true, &mut left).map(|()| left).inspect_err(|_| {
        let _ = give(dir, before.projid, before.xflags & FS_XFLAG_PROJINHERIT != 0, &mut 0);
    })
}

fn give(dir: BorrowedFd<'_>, id: u32, inherit: bool, left: &mut u64) -> Result<()> {
    walk(dir, &mut |found| match found {
        Found::Directory(file) => change(file, id, inherit),
        Found::File(file) => change(file, id, false),
        Found::Other(dir, name) => match sys::set_project_at(dir, name, id) {
            Ok(()) | Err(libc::ENOENT) => Ok(()),
            Err(libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOTTY) => {
                *left += 1;
                Ok(())
            }
            Err(errno) => Err(Error::os("file_setattr", errno)),
        },
    })
}

fn attributes(file: BorrowedFd<'_>) -> Result<FsXattr> {
    sys::get_fsxattr(file).map_err(|errno| Error::os("ioctl(FS_IOC_FSGETXATTR)", errno))
}

fn change(file: BorrowedFd<'_>, id: u32, inherit: bool) -> Result<()> {
    let before = attributes(file)?;
    not_foreign(before.projid)?;
    let flag = if inherit { FS_XFLAG_PROJINHERIT } else { 0 };
    let after = FsXattr { projid: id, xflags: before.xflags & !FS_XFLAG_PROJINHERIT | flag, ..before };
    if after == before {
        return Ok(());
    }
    sys::set_fsxattr(file, &after).map_err(|errno| match errno {
        libc::EDQUOT | libc::ENOSPC => Error::os("ioctl(FS_IOC_FSSETXATTR)", errno)
            .with_detail("what is there already is more than the bounds allow"),
        _ => Error::os("ioctl(FS_IOC_FSSETXATTR)", errno),
    })
}

/// Directories in directories that [`walk`] enters. Whoever has more of them has made a trap, or a loop of hard links on a
/// broken file system; paths of that depth can hardly be named.
const DEPTH: usize = 200;

/// What [`walk`] comes by.
enum Found<'a> {
    Directory(BorrowedFd<'a>),
    File(BorrowedFd<'a>),
    /// A symbolic link, socket, FIFO or device, by its directory and name: to open a device or a FIFO does something.
    Other(BorrowedFd<'a>, &'a CStr),
}

/// A directory that is being walked through.
struct Level {
    name: CString,
    identity: (u64, u64),
    rest: std::vec::IntoIter<CString>,
}

impl Level {
    fn of(dir: BorrowedFd<'_>, name: CString) -> Result<Self> {
        Ok(Self { name, identity: identity(dir)?, rest: names(dir)?.into_iter() })
    }
}

fn identity(file: impl AsFd) -> Result<(u64, u64)> {
    let found = fstat(file).map_err(|errno| Error::os("fstat", errno as i32))?;
    Ok((found.st_dev, found.st_ino))
}

/// Visits `top` and all below it: a directory before what is in it, so that what is made there meanwhile has been given its
/// directory's project already. Symbolic links are not followed, other mounts not entered.
///
/// However deep it is, three descriptors are open at most, and the stack does not grow.
fn walk(top: BorrowedFd<'_>, visit: &mut dyn FnMut(Found<'_>) -> Result<()>) -> Result<()> {
    visit(Found::Directory(top))?;
    let mut levels = vec![Level::of(top, CString::default())?];
    // The last level's directory, below `top`.
    let mut below: Option<OwnedFd> = None;
    while let Some(level) = levels.last_mut() {
        let dir = below.as_ref().map_or(top, AsFd::as_fd);
        let Some(name) = level.rest.next() else {
            levels.pop();
            below = match levels.last() {
                Some(level) if levels.len() > 1 => Some(above(dir, level)?),
                _ => None,
            };
            continue;
        };
        let enter = enter(dir, &name, visit).map_err(|error| at_path(error, &levels, &name))?;
        let Some(entered) = enter else { continue };
        if levels.len() > DEPTH {
            let error = unsupported(
                format!("more than {DEPTH} directories are in each other: deeper ones are not entered"),
                "make it flatter",
            );
            return Err(at_path(error, &levels, &name));
        }
        levels.push(Level::of(entered.as_fd(), name)?);
        below = Some(entered);
    }
    Ok(())
}

/// Visits one entry of `dir`; the descriptor of a directory.
fn enter(dir: BorrowedFd<'_>, name: &CStr, visit: &mut dyn FnMut(Found<'_>) -> Result<()>) -> Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV);
    let fail = |step: &str, errno: Errno| Error::os(step, errno as i32);
    let found = match openat2(dir, name, how) {
        Ok(found) => found,
        // Removed meanwhile, or a mount.
        Err(Errno::ENOENT | Errno::EXDEV) => return Ok(None),
        Err(errno) => return Err(fail("openat2", errno)),
    };
    let mode = fstat(&found).map_err(|errno| fail("fstat", errno))?.st_mode & SFlag::S_IFMT.bits();
    let is_dir = mode == SFlag::S_IFDIR.bits();
    if !is_dir && mode != SFlag::S_IFREG.bits() {
        return visit(Found::Other(dir, name)).map(|()| None);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOATIME | OFlag::O_CLOEXEC;
    let file = open(&*format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())
        .map_err(|errno| fail("open", errno))?;
    if is_dir {
        visit(Found::Directory(file.as_fd()))?;
        return Ok(Some(file));
    }
    visit(Found::File(file.as_fd())).map(|()| None)
}

/// The directory that `dir` was entered from.
fn above(dir: BorrowedFd<'_>, level: &Level) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let above = openat(dir, c"..", flags, Mode::empty()).map_err(|errno| Error::os("openat", errno as i32))?;
    if identity(&above)? != level.identity {
        return Err(Error::new(ErrorKind::Os, "somebody moved a directory while all in it were given their project")
            .with_errno(libc::EAGAIN)
            .with_path(level.name.to_string_lossy()));
    }
    Ok(above)
}

/// The path below the walk's top is added, where there is none.
fn at_path(error: Error, levels: &[Level], name: &CStr) -> Error {
    if error.path().is_some() {
        return error;
    }
    let mut path = String::new();
    for level in &levels[1..] {
        path += &level.name.to_string_lossy();
        path.push('/');
    }
    error.with_path(path + &name.to_string_lossy())
}

fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let fail = |errno: Errno| Error::os("getdents", errno as i32);
    // A descriptor of its own, because reading moves its position.
    let mut entries =
        Dir::openat(dir, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(fail)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry.map_err(fail)?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}
