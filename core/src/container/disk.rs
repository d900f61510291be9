//! The writable layer of a container: what is prepared for its limits, what it holds, and changes of how much it may hold.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use serde_json::{Value, json};

use super::{Inner, lock};
use crate::cgroup::{QuotaUsage, Usage};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::plan::container::tmpfs_limits;
use crate::plan::exec::Joining;
use crate::plan::facts::{DiskFact, QuotaCall, QuotaCalls};
use crate::quota::{Bounds, Owner, Used, btrfs, image, project};
use crate::spec::{Disk, DiskBackend, Filesystem, IdQuota, NamespaceKind, NamespaceSource, QuotaId, RootfsKind, Spec};
use crate::sys::rights::{self, CAP_SYS_RESOURCE};

/// What a start needs for the limits of the writable layer.
#[derive(Default)]
pub(super) struct Prepared {
    /// `None`: a directory of the host that is not limited.
    pub kind: Option<DiskFact>,
    pub calls: Option<QuotaCalls>,
    /// The image's mount, or the host's directory; locked as long as somebody limits it.
    pub fd: Option<HostOnly>,
}

impl Prepared {
    /// A descriptor for figures, which shares neither lock nor position with the one that the keeper gets.
    pub fn for_figures(&self) -> Option<OwnedFd> {
        directory(self.fd.as_ref()?.as_fd()).ok()
    }
}

/// A directory that is open already, for reading.
fn directory(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    openat(fd, ".", flags, Mode::empty()).map_err(|errno| Error::os("open", errno as i32))
}

fn bounds(spec: &Spec) -> Bounds {
    Bounds { bytes: spec.disk.as_ref().map(|disk| disk.size), inodes: spec.inodes }
}

fn owner(id: QuotaId) -> Owner {
    match id {
        QuotaId::User(id) => Owner::User(id),
        QuotaId::Group(id) => Owner::Group(id),
    }
}

fn id_bounds(limits: IdQuota) -> Bounds {
    Bounds { bytes: limits.disk, inodes: limits.inodes }
}

/// The field that asks for a limit of the layer as a whole.
fn field(spec: &Spec) -> &'static str {
    match &spec.disk {
        Some(disk) if disk.backend != DiskBackend::Auto => "disk.backend",
        None if spec.inodes.is_some() => "inodes",
        _ => "disk",
    }
}

fn unsupported(detail: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, detail).with_errno(libc::EOPNOTSUPP).with_hint(hint)
}

/// Chooses the backend, and makes what it needs.
pub(super) fn prepare(spec: &Spec, privileged: bool) -> Result<Prepared> {
    let own_root = matches!(spec.namespaces.get(&NamespaceKind::Mnt), None | Some(NamespaceSource::New));
    if !own_root || !spec.limits_disk() && !spec.has_private_layer() {
        return Ok(Prepared::default());
    }
    let backend = spec.disk_backend();
    if backend == DiskBackend::Tmpfs {
        return Ok(Prepared { kind: Some(DiskFact::Tmpfs), ..Prepared::default() });
    }
    if !privileged {
        return Err(Error::new(ErrorKind::PermissionDenied, format!("{} takes root of the machine", what(backend)))
            .with_field(field(spec))
            .with_errno(libc::EPERM)
            .with_hint("an ordinary user's limit is the size of a private layer in memory: rootfs host, or layers without upper"));
    }
    if let (DiskBackend::Image, Some(disk)) = (backend, &spec.disk) {
        return prepare_image(spec, disk);
    }
    prepare_directory(spec, backend).map_err(|error| {
        let error = if error.field().is_none() { error.with_field(field(spec)) } else { error };
        if error.kind() != ErrorKind::Unsupported {
            return error;
        }
        let hint = error.hint().map_or(String::new(), |hint| format!("{hint}; or "));
        error.with_hint(format!(
            "{hint}let it be private: rootfs layers without upper, which a tmpfs or an image limits"
        ))
    })
}

fn what(backend: DiskBackend) -> &'static str {
    match backend {
        DiskBackend::Image => "an image",
        _ => "to limit a directory of the host",
    }
}

fn prepare_image(spec: &Spec, disk: &Disk) -> Result<Prepared> {
    let filesystem = disk.filesystem.unwrap_or(Disk::FILESYSTEM);
    let place = disk.path.as_deref().unwrap_or(Path::new(Disk::PATH));
    let quotas = !spec.quota.is_empty();
    // Overlays are written with the rights of who set the container up.
    if quotas && filesystem == Filesystem::Ext4 && !spec.has_user_namespace() && passes_ext4_limits() {
        return Err(unsupported(
            "ext4 holds nobody with CAP_SYS_RESOURCE to a limit, and without a user namespace the container's overlay has it",
            "leave idmap out, or use filesystem xfs",
        )
        .with_field("quota"));
    }
    let image =
        image::make(place, filesystem, &bounds(spec), quotas, spec.mount_label.as_deref()).map_err(|error| {
            if error.field().is_some() {
                return error;
            }
            let about_quota = quotas && error.kind() == ErrorKind::Unsupported;
            let name = match error.path().map(Path::new) {
                Some(path) if path.starts_with(place) => "disk.path",
                _ if about_quota => "quota",
                _ if error.kind() == ErrorKind::Unsupported => "disk.filesystem",
                _ => "disk",
            };
            error.with_field(name)
        })?;
    for (&id, &limits) in &spec.quota {
        set_owner(image.mount.as_fd(), id, limits)?;
    }
    Ok(Prepared { kind: Some(DiskFact::Image), calls: None, fd: Some(image.mount) })
}

fn set_owner(fs: BorrowedFd<'_>, id: QuotaId, limits: IdQuota) -> Result<()> {
    project::set(fs, owner(id), &id_bounds(limits)).map_err(|error| error.with_field(format!("quota[\"{id}\"]")))
}

fn passes_ext4_limits() -> bool {
    rights::capabilities() & 1 << CAP_SYS_RESOURCE != 0
}

/// The host's directory that gets what is written, and the field that names it.
fn host_directory(spec: &Spec) -> Option<(&Path, &'static str)> {
    match &spec.rootfs.kind {
        RootfsKind::Directory(path) => Some((path, "rootfs")),
        RootfsKind::Layers { upper: Some(path), .. } => Some((path, "rootfs.upper")),
        _ => None,
    }
}

fn open_directory(spec: &Spec) -> Result<File> {
    let (path, field) = host_directory(spec)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a private layer is no directory of the host"))?;
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    opened.map_err(|e| Error::io("open", &e).with_field(field).with_path(path.to_string_lossy()))
}

/// The host's directory, what can limit it, and how it is called.
fn choose(spec: &Spec, asked: DiskBackend) -> Result<(File, DiskBackend, PathBuf)> {
    let dir = open_directory(spec)?;
    let path = host_directory(spec).map(|(path, _)| path.to_owned()).unwrap_or_default();
    let on_btrfs = fstatfs(&dir).is_ok_and(|found| found.filesystem_type() == BTRFS_SUPER_MAGIC);
    let backend = match asked {
        DiskBackend::Auto if on_btrfs => DiskBackend::Btrfs,
        DiskBackend::Auto => DiskBackend::Project,
        given => given,
    };
    let probe = || {
        if backend == DiskBackend::Project {
            project::probe(dir.as_fd())?;
            if !spec.has_user_namespace() {
                return Err(unsupported(
                    "root of the host can give files to another project, and without a user namespace the container's root is \
                     that",
                    "leave idmap out",
                ));
            }
            return Ok(());
        }
        btrfs::probe(dir.as_fd())?;
        if spec.inodes.is_some() {
            let why = "btrfs makes inodes as it needs them and cannot limit them";
            return Err(unsupported(why, "leave inodes out").with_field("inodes"));
        }
        if matches!(spec.rootfs.kind, RootfsKind::Directory(_)) {
            return Err(unsupported(
                "whoever writes to a subvolume itself can make another in it, which its limit does not count",
                "give rootfs layers with the subvolume as upper: overlays hide that",
            ));
        }
        Ok(())
    };
    probe().map_err(|error| located(error, &path))?;
    Ok((dir, backend, path))
}

fn located(error: Error, path: &Path) -> Error {
    if error.path().is_none() { error.with_path(path.to_string_lossy()) } else { error }
}

fn project_calls(id: u32, bounds: &Bounds, path: PathBuf) -> QuotaCalls {
    let call = |bounds: &Bounds| {
        let (command, id, dqblk) = project::setting(Owner::Project(id), bounds);
        QuotaCall::QuotactlFd { command, id, dqblk }
    };
    QuotaCalls { set: call(bounds), lift: call(&Bounds::default()), mark: None, path }
}

fn btrfs_calls(dir: BorrowedFd<'_>, bytes: Option<u64>, path: PathBuf) -> Result<QuotaCalls> {
    let call = |bytes| {
        let (request, limit) = btrfs::setting(dir, bytes).map_err(|error| located(error, &path))?;
        Ok::<_, Error>(QuotaCall::Ioctl { request, limit })
    };
    // An administrator's limit comes back at the end.
    let former = btrfs::former(dir).map_err(|error| located(error, &path))?;
    let mark = Some((btrfs::FORMER, btrfs::former_text(former)));
    Ok(QuotaCalls { set: call(bytes)?, lift: call(former)?, mark, path })
}

fn prepare_directory(spec: &Spec, asked: DiskBackend) -> Result<Prepared> {
    let (dir, backend, path) = choose(spec, asked)?;
    let bounds = bounds(spec);
    take(&dir, &path)?;
    let dir = HostOnly::new(dir.into());
    let (kind, calls) = if backend == DiskBackend::Btrfs {
        over(btrfs::used(dir.as_fd()).map_err(|error| located(error, &path))?, &bounds, &path)?;
        (DiskFact::Btrfs, btrfs_calls(dir.as_fd(), bounds.bytes, path)?)
    } else {
        let claim = || {
            project::survey(dir.as_fd())?;
            let id = project::own(dir.as_fd())?;
            let left = project::assign(dir.as_fd(), id)?;
            if left > 0 {
                let path = path.display();
                log::info!("{path}: {left} links, sockets and devices are in no project before Linux 6.17");
            }
            Ok((id, project::used(dir.as_fd(), Owner::Project(id))?))
        };
        let (id, used) = claim().map_err(|error| located(error, &path))?;
        over(used, &bounds, &path)?;
        (DiskFact::Project(id), project_calls(id, &bounds, path))
    };
    Ok(Prepared { kind: Some(kind), calls: Some(calls), fd: Some(dir) })
}

/// What [`prepare`] would come to, with nothing made and nothing changed. The project of a directory that has none is shown as
/// the first.
pub(crate) fn prospect(spec: &Spec) -> Result<(DiskFact, Option<QuotaCalls>)> {
    let backend = spec.disk_backend();
    match backend {
        DiskBackend::Tmpfs => return Ok((DiskFact::Tmpfs, None)),
        DiskBackend::Image => return Ok((DiskFact::Image, None)),
        _ if !spec.limits_disk() => return Ok((DiskFact::Tmpfs, None)),
        _ => {}
    }
    let name = |error: Error| if error.field().is_none() { error.with_field(field(spec)) } else { error };
    let (dir, backend, path) = choose(spec, backend).map_err(name)?;
    if backend == DiskBackend::Btrfs {
        return Ok((DiskFact::Btrfs, Some(btrfs_calls(dir.as_fd(), bounds(spec).bytes, path).map_err(name)?)));
    }
    let id = project::of(dir.as_fd()).map_err(name)?.unwrap_or(project::FIRST);
    Ok((DiskFact::Project(id), Some(project_calls(id, &bounds(spec), path))))
}

/// One container at a time limits a directory, or the first that ends would free the others. The lock goes with the keeper.
fn take(dir: &File, path: &Path) -> Result<()> {
    /// A child of this program that has yet to exec still has what its parent has just closed.
    const A_CHILD_S: Duration = Duration::from_millis(500);
    let deadline = Instant::now() + A_CHILD_S;
    let mut result = dir.try_lock();
    while matches!(result, Err(TryLockError::WouldBlock)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        result = dir.try_lock();
    }
    match result {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Error::os("flock", libc::EWOULDBLOCK)
            .with_path(path.to_string_lossy())
            .with_kind(ErrorKind::AlreadyExists)
            .with_detail("another container limits this directory")
            .with_hint("give each container an upper directory of its own")),
        Err(TryLockError::Error(error)) => Err(Error::io("flock", &error).with_path(path.to_string_lossy())),
    }
}

/// What is there already may be more than may be there.
fn over(used: Used, bounds: &Bounds, path: &Path) -> Result<()> {
    let refuse = |field: &str, used: u64, unit: &str| {
        Err(Error::os("limit", libc::EDQUOT)
            .with_field(field)
            .with_path(path.to_string_lossy())
            .with_detail(format!("{used} {unit} are there already")))
    };
    match (bounds.bytes, bounds.inodes) {
        (Some(bytes), _) if used.bytes > bytes => refuse("disk", used.bytes, "bytes"),
        (_, Some(inodes)) if used.inodes > inodes => refuse("inodes", used.inodes, "inodes"),
        _ => Ok(()),
    }
}

/// Which file system the layer is on, and which directory it is: noted at the start. Quotas are only ever set there, whatever is
/// mounted over it, or named as it, later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Home {
    device: u64,
    inode: u64,
}

impl Home {
    /// Of the layer's directory, or of its /dev.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Self> {
        let found = fstat(fd).map_err(|errno| Error::os("fstat", errno as i32))?;
        Ok(Self { device: found.st_dev, inode: found.st_ino })
    }

    /// What [`describe`] wrote.
    pub fn recorded(data: &Value) -> Option<Self> {
        Some(Self { device: data["device"].as_u64()?, inode: data["inode"].as_u64()? })
    }

    /// A private layer is looked at through /dev, which is one of its directories.
    fn has(self, kind: DiskFact, found: Self) -> bool {
        let private = matches!(kind, DiskFact::Tmpfs | DiskFact::Image);
        self.device == found.device && (private || self.inode == found.inode)
    }
}

/// What limits the writable layer of one container.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// `None`: nothing that could be limited, because the root file system is a directory of the host that was not from the start.
    pub kind: Option<DiskFact>,
    home: Option<Home>,
    /// Of an attached container, for figures and for a last look; closed at its end, because it holds the file system. Nobody
    /// looks at the disk with this locked: a disk that is slow would hold up whoever waits for the end.
    fd: Mutex<Option<Arc<HostOnly>>>,
    last: Mutex<Option<Figures>>,
}

/// What is used of the layer, and by whom.
#[derive(Clone, Debug, Default)]
struct Figures {
    all: Used,
    owners: Vec<(QuotaId, Used)>,
}

impl Layer {
    pub fn new(kind: Option<DiskFact>, home: Option<Home>, fd: Option<OwnedFd>) -> Self {
        let fd = fd.map(|fd| Arc::new(HostOnly::new(fd)));
        Self { kind, home, fd: Mutex::new(fd), last: Mutex::default() }
    }

    /// Looks once more, and lets go of the file system.
    pub fn close(&self, spec: &Spec) {
        let fd = lock(&self.fd).take();
        if let (Some(fd), Some(kind)) = (fd, self.kind)
            && let Ok(figures) = figures(kind, (*fd).as_fd(), spec)
        {
            *lock(&self.last) = Some(figures);
        }
    }
}

fn figures(kind: DiskFact, fd: BorrowedFd<'_>, spec: &Spec) -> Result<Figures> {
    let all = match kind {
        DiskFact::Tmpfs => tmpfs_used(fd)?,
        DiskFact::Image => image::used(fd)?,
        DiskFact::Project(id) => project::used(fd, Owner::Project(id))?,
        DiskFact::Btrfs => btrfs::used(fd)?,
    };
    let of_owner = |&id: &QuotaId| project::used(fd, owner(id)).map(|used| (id, used));
    Ok(Figures { all, owners: spec.quota.keys().map(of_owner).collect::<Result<_>>()? })
}

fn of_owner(used: Used) -> QuotaUsage {
    let Used { bytes, inodes, bytes_max, inodes_max } = used;
    QuotaUsage { disk_used: bytes, disk_max: bytes_max, inodes_used: inodes, inodes_max }
}

/// A tmpfs is as large as it may be.
pub(super) fn tmpfs_used(fd: BorrowedFd<'_>) -> Result<Used> {
    let found = fstatfs(fd).map_err(|errno| Error::os("fstatfs", errno as i32))?;
    let block = found.block_size() as u64;
    Ok(Used {
        bytes: (found.blocks() - found.blocks_free()) * block,
        inodes: found.files() - found.files_free(),
        bytes_max: Some(found.blocks() * block),
        inodes_max: Some(found.files()),
    })
}

/// What a tmpfs has that nobody gave a size: half of the machine's memory, and as many inodes as pages of it.
fn unlimited(option: &str) -> String {
    match option {
        "size" => "50%".to_owned(),
        _ => {
            let pages = nix::unistd::sysconf(nix::unistd::SysconfVar::_PHYS_PAGES).ok().flatten().unwrap_or(1 << 20);
            (pages / 2).to_string()
        }
    }
}

fn backend(kind: DiskFact) -> DiskBackend {
    match kind {
        DiskFact::Tmpfs => DiskBackend::Tmpfs,
        DiskFact::Image => DiskBackend::Image,
        DiskFact::Project(_) => DiskBackend::Project,
        DiskFact::Btrfs => DiskBackend::Btrfs,
    }
}

/// For whoever reads what was chosen, and for other programs that take up a detached container.
pub(super) fn describe(kind: Option<DiskFact>, home: Option<Home>) -> Value {
    let Some(kind) = kind else { return Value::Null };
    let mut out = json!({"backend": backend(kind).name()});
    if let DiskFact::Project(id) = kind {
        out["project"] = json!(id);
    }
    if let Some(Home { device, inode }) = home {
        out["device"] = json!(device);
        out["inode"] = json!(inode);
    }
    out
}

/// What [`describe`] wrote.
pub(super) fn recorded(data: &Value) -> Option<DiskFact> {
    Some(match DiskBackend::from_name(data["backend"].as_str()?)? {
        DiskBackend::Tmpfs => DiskFact::Tmpfs,
        DiskBackend::Image => DiskFact::Image,
        DiskBackend::Btrfs => DiskFact::Btrfs,
        DiskBackend::Project => DiskFact::Project(data["project"].as_u64()?.try_into().ok()?),
        DiskBackend::Auto => return None,
    })
}

/// Refuses a limit below what is used.
fn fits(used: Used, bounds: &Bounds, [bytes_field, inodes_field]: [&str; 2]) -> Result<()> {
    let refuse = |field: &str, used: u64, unit: &str| {
        Err(Error::os("change the limit", libc::EBUSY)
            .with_field(field)
            .with_detail(format!("{used} {unit} are used"))
            .with_hint("remove something first, or give more"))
    };
    match (bounds.bytes, bounds.inodes) {
        (Some(bytes), _) if bytes < used.bytes => refuse(bytes_field, used.bytes, "bytes"),
        (_, Some(inodes)) if inodes < used.inodes => refuse(inodes_field, used.inodes, "inodes"),
        _ => Ok(()),
    }
}

impl Inner {
    /// The layer, or something on its file system.
    ///
    /// # Errors
    /// NotFound with ESTALE: it is another file system, or another directory, than at the start.
    fn open_layer(&self, kind: DiskFact) -> Result<OwnedFd> {
        let found = self.open_layer_s_place(kind)?;
        let now = Home::of(found.as_fd())?;
        if self.layer.home.is_some_and(|home| home.has(kind, now)) {
            return Ok(found);
        }
        let what = match kind {
            DiskFact::Tmpfs | DiskFact::Image => "something else is mounted at the container's /dev now",
            DiskFact::Project(_) | DiskFact::Btrfs => "the directory is another one now",
        };
        Err(Error::new(ErrorKind::NotFound, what)
            .with_errno(libc::ESTALE)
            .with_hint("only what was limited from the start is changed; a process with CAP_SYS_ADMIN can hide it"))
    }

    fn open_layer_s_place(&self, kind: DiskFact) -> Result<OwnedFd> {
        match kind {
            // As the container has it at /dev, which only a process with CAP_SYS_ADMIN can mount over.
            DiskFact::Tmpfs | DiskFact::Image => {
                self.open_joined(&self.outside_of_groups(), b"/dev", libc::O_RDONLY | libc::O_DIRECTORY)
            }
            DiskFact::Project(id) => {
                let fd = open_directory(&self.spec)?;
                if project::of(fd.as_fd())? != Some(id) {
                    return Err(Error::new(ErrorKind::NotFound, "the directory is not the container's any more")
                        .with_errno(libc::ENOENT));
                }
                Ok(fd.into())
            }
            DiskFact::Btrfs => open_directory(&self.spec).map(OwnedFd::from),
        }
    }

    /// A task that joins for a moment on the library's own behalf: not in the container's groups, where it could be frozen, or be
    /// one too many.
    pub(super) fn outside_of_groups(&self) -> Joining {
        Joining { group_dir: false, group_tasks: 0, ..self.joining() }
    }

    fn with_layer<T>(&self, kind: DiskFact, act: impl FnOnce(BorrowedFd<'_>) -> Result<T>) -> Result<T> {
        let held = lock(&self.layer.fd).clone();
        match held {
            Some(fd) => act((*fd).as_fd()),
            None => act(HostOnly::new(self.open_layer(kind)?).as_fd()),
        }
    }

    /// The last look.
    pub(super) fn close_layer(&self) {
        if lock(&self.layer.fd).is_some() {
            let spec = self.spec_now.try_lock().map_or_else(|_| self.spec.clone(), |spec| spec.clone());
            self.layer.close(&spec);
        }
    }

    /// Adds the figures of the writable layer, when it is limited.
    pub(super) fn count_disk(&self, usage: &mut Usage) -> Result<()> {
        let spec = lock(&self.spec_now).clone();
        let Some(kind) = self.layer.kind.filter(|_| spec.limits_disk()) else { return Ok(()) };
        if !self.has_ended() && self.runs() {
            match self.with_layer(kind, |fd| figures(kind, fd, &spec)) {
                Ok(figures) => *lock(&self.layer.last) = Some(figures),
                Err(_) if !self.runs() => {}
                Err(error) => return Err(error.with_field("disk")),
            }
        }
        if let Some(Figures { all, owners }) = &*lock(&self.layer.last) {
            usage.disk_used = Some(all.bytes);
            usage.disk_max = all.bytes_max.filter(|_| spec.disk.is_some());
            // btrfs does not count them.
            usage.inodes_used = Some(all.inodes).filter(|_| kind != DiskFact::Btrfs);
            usage.inodes_max = all.inodes_max.filter(|_| spec.inodes.is_some());
            if !spec.quota.is_empty() {
                usage.quota = Some(owners.iter().map(|(id, used)| (id.to_string(), of_owner(*used))).collect());
            }
        }
        Ok(())
    }

    /// What an update leaves out is as it was: a size alone changes the size. What is fixed at the start cannot be another.
    pub(super) fn keep_backend(&self, now: &Spec, new: &mut Spec) -> Result<()> {
        let Some(disk) = &mut new.disk else { return Ok(()) };
        let fixed = |key: &str| Error::spec(format!("disk.{key}"), "is fixed at the start");
        let old = now.disk.clone().unwrap_or_else(|| disk.size.into());
        let Some(chosen) = self.layer.kind.map(backend) else { return Ok(()) };
        if ![old.backend, chosen, DiskBackend::Auto].contains(&disk.backend) {
            return Err(fixed("backend").with_hint(format!("it is {}", chosen.name())));
        }
        if disk.filesystem.is_some() && disk.filesystem != old.filesystem {
            return Err(fixed("filesystem"));
        }
        if disk.path.is_some() && disk.path != old.path {
            return Err(fixed("path"));
        }
        (disk.backend, disk.filesystem, disk.path) = (old.backend, old.filesystem, old.path);
        Ok(())
    }

    /// All of the change or nothing.
    pub(super) fn change_disk(&self, now: &Spec, new: &Spec) -> Result<()> {
        if now.disk == new.disk && now.inodes == new.inodes && now.quota == new.quota {
            return Ok(());
        }
        let name = match () {
            () if now.disk != new.disk => "disk",
            () if now.inodes != new.inodes => "inodes",
            () => "quota",
        };
        let Some(kind) = self.layer.kind else {
            return Err(unsupported(
                "a directory of the host can be limited from the start of the container on only",
                "give disk at the start; then it can change",
            )
            .with_field(name));
        };
        let named = |error: Error| if error.field().is_none() { error.with_field(name) } else { error };
        let whole = ["disk", "inodes"];
        match kind {
            DiskFact::Tmpfs => self.resize_tmpfs(now, new).map_err(|e| self.explain_resize(e, new, name)),
            DiskFact::Image => self.with_layer(kind, |fs| change_image(fs, now, new)).map_err(named),
            DiskFact::Project(id) => self
                .with_layer(kind, |dir| {
                    fits(project::used(dir, Owner::Project(id))?, &bounds(new), whole)?;
                    project::set(dir, Owner::Project(id), &bounds(new))
                })
                .map_err(named),
            DiskFact::Btrfs => self
                .with_layer(kind, |dir| {
                    fits(btrfs::used(dir)?, &bounds(new), whole)?;
                    btrfs::set(dir, &bounds(new))
                })
                .map_err(named),
        }
    }

    /// Undoes [`change_disk`](Self::change_disk), but for the size of an image.
    pub(super) fn take_disk_back(&self, now: &Spec, new: &Spec) -> Result<()> {
        let grew = self.layer.kind == Some(DiskFact::Image) && now.disk != new.disk;
        let disk = if grew { new.disk.clone() } else { now.disk.clone() };
        self.change_disk(new, &Spec { disk, ..now.clone() })?;
        if grew {
            Err(Error::os("change the limit", libc::EBUSY).with_detail("an image cannot be made smaller"))
        } else {
            Ok(())
        }
    }

    fn resize_tmpfs(&self, now: &Spec, new: &Spec) -> Result<()> {
        let mut options = tmpfs_limits(new);
        for (option, _) in tmpfs_limits(now) {
            if !options.iter().any(|(known, _)| *known == option) {
                options.push((option, unlimited(option)));
            }
        }
        // By the descriptor: what is at /dev by now may be whatever a process with CAP_SYS_ADMIN has mounted there.
        self.with_layer(DiskFact::Tmpfs, |dev| self.reconfigure("disk", dev, &options))
    }

    /// The kernel's EINVAL is for a size, or a number of inodes, that is less than what is used.
    fn explain_resize(&self, error: Error, new: &Spec, name: &str) -> Error {
        if error.errno() == libc::EINVAL
            && self.runs()
            && let Ok(used) = self.with_layer(DiskFact::Tmpfs, tmpfs_used)
            && let Err(in_use) = fits(used, &bounds(new), ["disk", "inodes"])
        {
            return in_use;
        }
        error.with_field(name)
    }
}

/// Quotas first, which can be put back; then the size, which only grows.
fn change_image(fs: BorrowedFd<'_>, now: &Spec, new: &Spec) -> Result<()> {
    if now.inodes != new.inodes {
        return Err(Error::spec("inodes", "is fixed at the start for an image"));
    }
    let (Some(old), Some(disk)) = (&now.disk, &new.disk) else {
        return Err(Error::spec("disk", "an image has a size: it can grow, and not be without"));
    };
    if disk.size < old.size {
        return Err(Error::os("change the limit", libc::EBUSY)
            .with_field("disk")
            .with_detail(format!("an image cannot be made smaller; it has {} bytes", old.size)));
    }
    let changed: Vec<QuotaId> = now.quota.keys().chain(new.quota.keys()).copied().collect();
    let changed = changed.into_iter().filter(|id| now.quota.get(id) != new.quota.get(id));
    let limits = |spec: &Spec, id| spec.quota.get(&id).copied().unwrap_or_default();
    let mut done = Vec::new();
    let change = || -> Result<()> {
        for id in changed {
            let name = format!("quota[\"{id}\"]");
            let used = project::used(fs, owner(id)).map_err(|error| error.with_field(&*name))?;
            fits(used, &id_bounds(limits(new, id)), [&format!("{name}.disk"), &format!("{name}.inodes")])?;
            done.push(id);
            set_owner(fs, id, limits(new, id))?;
        }
        if disk.size > old.size { image::grow(fs, disk.size, new.mount_label.as_deref()) } else { Ok(()) }
    };
    change().inspect_err(|_| {
        for &id in &done {
            let _ = set_owner(fs, id, limits(now, id));
        }
    })
}
