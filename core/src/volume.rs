//! Volumes: directories that are made for containers. A named one stays until it is removed, one without a name goes with its container.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Error, ErrorKind, Result};
use crate::launch::HostOnly;
use crate::spec::{MountKind, Spec};
use crate::state;
use crate::tree::{RemoveOptions, remove_tree};

/// How long another may look at a volume.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where those without a name are: no name begins with a dot.
const ANONYMOUS: &str = ".anonymous";

/// A named volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What it is called in `mounts`.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Whether a container of this user has it now.
    pub in_use: bool,
}

impl Volume {
    /// As JSON: a list of objects with name, path and in_use.
    pub fn to_json(volumes: &[Self]) -> String {
        let one = |volume: &Self| {
            serde_json::json!({
                "name": volume.name,
                "path": volume.path.to_string_lossy(),
                "in_use": volume.in_use,
            })
        };
        serde_json::Value::from(volumes.iter().map(one).collect::<Vec<_>>()).to_string()
    }
}

/// The directory that has the volumes of this user, whether it is there or not: `RINGFENCE_VOLUMES`, for root /var/lib/ringfence/volumes,
/// else ringfence/volumes in `XDG_DATA_HOME` or ~/.local/share.
fn place() -> Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    if let Some(given) = std::env::var_os("RINGFENCE_VOLUMES").filter(|given: &OsString| !given.is_empty()) {
        let given = PathBuf::from(given);
        if !given.is_absolute() {
            return Err(Error::new(ErrorKind::InvalidArgument, "RINGFENCE_VOLUMES is no absolute path")
                .with_path(given.to_string_lossy()));
        }
        return Ok(given);
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/ringfence/volumes".into());
    }
    let data = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("ringfence/volumes")).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "there is no place for volumes")
            .with_hint("set RINGFENCE_VOLUMES, XDG_DATA_HOME or HOME")
    })
}

/// Letters, digits, `_`, `-` and `.`, the first a letter or digit.
pub(crate) fn check_name(name: &str) -> std::result::Result<(), &'static str> {
    let known = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
    if name.is_empty() || name.len() > 128 {
        Err("a name has 1 to 128 bytes")
    } else if !name.as_bytes()[0].is_ascii_alphanumeric() || !name.bytes().all(|b| known(&b)) {
        Err("a name has letters, digits, \"_\", \"-\" and \".\", and begins with a letter or digit")
    } else {
        Ok(())
    }
}

/// Where a volume of a spec is or will be.
pub(crate) fn path(name: Option<&str>) -> Result<PathBuf> {
    Ok(place()?.join(name.unwrap_or(ANONYMOUS)))
}

/// What a container has of volumes, as long as it lives.
#[derive(Debug, Default)]
pub(crate) struct Used {
    locks: Vec<HostOnly>,
    anonymous: Vec<PathBuf>,
}

/// Makes the volumes of a spec that are not there: where each is, by the index of its mount.
pub(crate) fn make(spec: &Spec, id: &str) -> Result<(Used, Vec<(usize, PathBuf)>)> {
    let (mut used, mut paths) = (Used::default(), Vec::new());
    for (i, mount) in spec.mounts.iter().enumerate() {
        let MountKind::Volume { name } = &mount.kind else { continue };
        let made = (|| {
            let place = place()?;
            make_place(&place)?;
            let path = match name {
                Some(name) => place.join(name),
                None => {
                    make_directory(&place.join(ANONYMOUS), 0o700)?;
                    let path = place.join(ANONYMOUS).join(format!("{id}-{i}"));
                    used.anonymous.push(path.clone());
                    path
                }
            };
            used.locks.push(take(&path)?.into());
            paths.push((i, path));
            Ok(())
        })();
        made.map_err(|e: Error| e.with_field(format!("mounts[{i}]"))).inspect_err(|_| remove_all(&used.anonymous))?;
    }
    Ok((used, paths))
}

impl Used {
    /// The container has ended: what had no name goes. What cannot be removed now, `gc` removes.
    pub fn end(&mut self) {
        self.locks.clear();
        remove_all(&std::mem::take(&mut self.anonymous));
    }
}

/// As long as the start is under way: without a container nothing of it stays.
pub(crate) struct Starting(Option<Used>);

impl Starting {
    pub fn new(used: Used) -> Self {
        Self(Some(used))
    }

    pub fn done(mut self) -> Used {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(used) = &mut self.0 {
            used.end();
        }
    }
}

/// What takes longer `gc` removes: whoever waits for the end does not wait for millions of files.
fn remove_all(paths: &[PathBuf]) {
    for path in paths {
        let _ = remove_tree(path, RemoveOptions { timeout: Some(Duration::from_secs(2)), ..RemoveOptions::default() });
    }
}

/// Makes the directory of a volume, if it is not there, and takes it. Who looks for what can be removed has the lock for a moment.
fn take(path: &Path) -> Result<OwnedFd> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        make_directory(path, 0o755)?;
        match lock(path, libc::LOCK_SH) {
            Ok(Some(fd)) if is_at(&fd, path) => return Ok(fd),
            // Removed between the two steps.
            Ok(Some(_)) => {}
            Err(error) if error.errno() == libc::ENOENT => {}
            Ok(None) if Instant::now() >= deadline => return Err(busy(path)),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error),
        }
    }
}

fn is_at(fd: &OwnedFd, path: &Path) -> bool {
    let there = fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()));
    nix::sys::stat::fstat(fd).is_ok_and(|stat| there.is_ok_and(|there| there == (stat.st_dev, stat.st_ino)))
}

fn make_place(place: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(place);
    let failed = |e: &std::io::Error| Error::io("mkdir", e).with_path(place.to_string_lossy());
    made.map_err(|e| failed(&e))?;
    let meta = fs::metadata(place).map_err(|e| failed(&e))?;
    // What is set-uid in a volume is so for the caller's ids: nobody else may get there.
    if meta.uid() != nix::unistd::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(Error::new(ErrorKind::PermissionDenied, "it is not this user's alone")
            .with_path(place.to_string_lossy())
            .with_hint("chmod 700 it")
            .with_errno(libc::EPERM));
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io("mkdir", &e).with_path(path.to_string_lossy())),
    }
}

/// flock(2) on a directory; `None`: another has it.
fn lock(path: &Path, how: i32) -> Result<Option<OwnedFd>> {
    let failed = |step: &str, errno: Errno| Error::os(step, errno as i32).with_path(path.to_string_lossy());
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty()).map_err(|errno| failed("open", errno))?;
    match crate::sys::task::flock(&fd, how | libc::LOCK_NB) {
        Ok(()) => Ok(Some(fd)),
        Err(libc::EWOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed("flock", Errno::from_raw(errno))),
    }
}

fn busy(path: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, "the volume is in use")
        .with_field("name")
        .with_path(path.to_string_lossy())
        .with_errno(libc::EBUSY)
}

/// Volumes, and ids, of the named containers that run: a detached one has no host that holds a lock.
fn of_running() -> Result<Vec<(String, Vec<String>)>> {
    let mut found = Vec::new();
    for entry in state::ls()?.into_iter().filter(|entry| entry.state == "running") {
        let Ok(record) = state::names::lookup(&entry.name) else { continue };
        let mounts = record.data["spec"]["mounts"].as_array().cloned().unwrap_or_default();
        let names = mounts.iter().filter(|mount| mount["type"] == "volume");
        let names = names.filter_map(|mount| mount["source"].as_str().map(str::to_owned)).collect();
        found.push((record.data["id"].as_str().unwrap_or_default().to_owned(), names));
    }
    Ok(found)
}

fn entries(path: &Path) -> Result<Vec<String>> {
    let failed = |e: &std::io::Error| Error::io("readdir", e).with_path(path.to_string_lossy());
    let list = match fs::read_dir(path) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(&e)),
    };
    let mut names = Vec::new();
    for entry in list {
        let entry = entry.map_err(|e| failed(&e))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The named volumes of this user, by name.
///
/// # Errors
/// Those of the directory that has them.
pub fn volumes() -> Result<Vec<Volume>> {
    let place = place()?;
    let running = of_running()?;
    let named = |name: &String| running.iter().any(|(_, names)| names.contains(name));
    let mut found = Vec::new();
    for name in entries(&place)?.into_iter().filter(|name| check_name(name).is_ok()) {
        let path = place.join(&name);
        let in_use = named(&name) || lock(&path, libc::LOCK_EX).is_ok_and(|free| free.is_none());
        found.push(Volume { name, path, in_use });
    }
    Ok(found)
}

/// Removes a named volume of this user with all that is in it, whoever in a container it belongs to.
///
/// # Errors
/// InvalidArgument for what is no name, NotFound, AlreadyExists with EBUSY while a container has it (all with field `name`); those of
/// [`remove_tree`].
pub fn remove_volume(name: &str) -> Result<()> {
    check_name(name).map_err(|why| Error::new(ErrorKind::InvalidArgument, why).with_field("name"))?;
    let place = place()?;
    let path = place.join(name);
    // Held until it is gone: nobody takes it meanwhile.
    let _free = lock(&path, libc::LOCK_EX)
        .map_err(|error| match error.errno() {
            libc::ENOENT => Error::new(ErrorKind::NotFound, format!("no volume is named {name:?}"))
                .with_errno(libc::ENOENT)
                .with_hint(format!("the volumes of this user are in {}", place.display())),
            _ => error,
        })
        .map_err(|error| error.with_field("name"))?
        .ok_or_else(|| busy(&path))?;
    if of_running()?.iter().any(|(_, names)| names.iter().any(|used| used == name)) {
        return Err(busy(&path));
    }
    remove_tree(&path, RemoveOptions::default())
}

/// Removes volumes without a name whose container has gone without its host: how many.
pub(crate) fn collect() -> Result<usize> {
    let Ok(place) = place().map(|place| place.join(ANONYMOUS)) else { return Ok(0) };
    let found = entries(&place)?;
    if found.is_empty() {
        return Ok(0);
    }
    let mut removed = 0;
    for name in found {
        let path = place.join(&name);
        // Held until it is gone. A detached container, which has no host that holds a lock, is recorded before its host lets go.
        let Ok(Some(_free)) = lock(&path, libc::LOCK_EX) else { continue };
        let of = |id: &str| name.strip_prefix(id).is_some_and(|rest| rest.starts_with('-'));
        if of_running()?.iter().any(|(id, _)| of(id)) {
            continue;
        }
        remove_tree(&path, RemoveOptions::default())?;
        removed += 1;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "data", "A-1_b.c", "0", &"x".repeat(128)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", ".", "..", ".anonymous", "-x", "a/b", "a b", "\u{e9}", "a\0", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
