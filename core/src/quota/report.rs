//! Which backends this machine offers to this caller, and why not: rows for doctor.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Filesystem, btrfs, image, project, unsupported};
use crate::error::{Error, Result};

/// A way to bound disk space.
pub(crate) struct Backend {
    /// `project`, `qgroup`, `image.ext4`, `image.ext4.users`, ...
    pub name: String,
    /// What was seen, or what is missing.
    pub found: Result<String>,
}

/// Looks only: nothing is mounted or made.
pub(crate) fn report() -> Vec<Backend> {
    let mounts = mounts();
    let on = |kinds: &[&str]| -> Vec<&PathBuf> {
        mounts.iter().filter(|(kind, _)| kinds.contains(&kind.as_str())).map(|(_, path)| path).collect()
    };
    let mut backends = vec![
        Backend {
            name: "project".into(),
            found: first(&on(&["ext4", "xfs"]), "no ext4 or xfs is mounted", |path| {
                project::probe(open_dir(path)?.as_fd())
            }),
        },
        Backend {
            name: "qgroup".into(),
            found: first(&on(&["btrfs"]), "no btrfs is mounted", |path| btrfs::counts(open_dir(path)?.as_fd())),
        },
    ];
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs, Filesystem::Btrfs] {
        let found = image::probe(filesystem);
        backends.push(Backend {
            name: format!("image.{}", filesystem.name()),
            found: found.clone().map(|()| format!("images of {} MiB and more", filesystem.minimum() >> 20)),
        });
        if filesystem != Filesystem::Btrfs {
            let users = found.and_then(|()| image::lacks_users(filesystem).map_or(Ok(()), Err));
            backends.push(Backend {
                name: format!("image.{}.users", filesystem.name()),
                found: users.map(|()| "images in which users and groups have bounds".into()),
            });
        }
    }
    backends
}

/// Where it works, else why the first does not.
fn first(paths: &[&PathBuf], none: &str, probe: impl Fn(&Path) -> Result<()>) -> Result<String> {
    let mut reason = None;
    let mut there = Vec::new();
    for path in paths {
        match probe(path) {
            Ok(()) => there.push(path.to_string_lossy()),
            Err(error) => {
                reason.get_or_insert(error.with_path(path.to_string_lossy()));
            }
        }
    }
    match (there.is_empty(), reason) {
        (false, _) => Ok(there.join(" ")),
        (true, Some(reason)) => Err(reason),
        (true, None) => Err(unsupported(none, "images do not need one")),
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os("open", errno as i32))
}

/// Type and place of what may have bounds, each file system once. Others are not looked at: a dead server would hold this up.
fn mounts() -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut seen = BTreeSet::new();
    let lines = text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let words: Vec<&str> = before.split(' ').collect();
        let kind = after.split(' ').next().filter(|kind| ["ext4", "xfs", "btrfs"].contains(kind))?;
        // A path with an escape in it is not found, and is a rare one.
        let (device, path) = (*words.get(2)?, PathBuf::from(words.get(4)?));
        (path.is_dir() && seen.insert(device.to_owned())).then(|| (kind.to_owned(), path))
    });
    lines.collect()
}
