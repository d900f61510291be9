//! Where the state lives, and that nobody else can write there.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::unistd::{AccessFlags, access, mkdir};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::rights;

/// The state directory, open: what is below is reached by this descriptor, so that a renamed path changes nothing.
#[derive(Debug)]
pub(super) struct StateDir {
    pub path: PathBuf,
    pub fd: OwnedFd,
}

struct Candidate {
    path: PathBuf,
    flags: OFlag,
    closed_to_others: u32,
}

/// What decides where the directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    uid: u32,
    /// As the user namespace above knows it: root there is not the root that everybody means, and every user can be it.
    uid_above: u32,
    chosen: Option<OsString>,
    runtime_dir: Option<OsString>,
}

impl Place {
    pub(super) fn now() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            uid_above: rights::uid_above(),
            chosen: variable("RINGFENCE_STATE_DIR"),
            runtime_dir: variable("XDG_RUNTIME_DIR"),
        }
    }

    #[cfg(test)]
    pub(super) fn at(path: &Path) -> Self {
        Self { chosen: Some(path.into()), runtime_dir: None, ..Self::now() }
    }

    /// Opens the directory; makes it if it does not exist.
    pub(super) fn open(&self) -> Result<StateDir> {
        self.open_with(Path::new("/run"), Path::new("/tmp"))
    }

    fn open_with(&self, run: &Path, tmp: &Path) -> Result<StateDir> {
        let (last, before) = self.candidates(run, tmp);
        // A read-only /run, a directory of another user: the next one.
        let found = before.iter().find_map(|candidate| self.open_one(candidate).ok());
        found.map_or_else(|| self.open_one(&last), Ok)
    }

    /// Where it is or would be made, without making it.
    pub(super) fn look(&self) -> Result<PathBuf> {
        self.find().map(|(path, _)| path)
    }

    /// The same, with the directory if it is there: for those who only look.
    pub(super) fn find(&self) -> Result<(PathBuf, Option<StateDir>)> {
        let (last, before) = self.candidates(Path::new("/run"), Path::new("/tmp"));
        let find = |candidate: &Candidate| {
            let missing = stat(&candidate.path) == Err(Errno::ENOENT);
            let parent = candidate.path.parent().unwrap_or(Path::new("/"));
            if missing && access(parent, AccessFlags::W_OK | AccessFlags::X_OK).is_ok() {
                return Ok((candidate.path.clone(), None));
            }
            // If it is still missing, then because it cannot be made.
            self.open_one(candidate).map(|dir| (dir.path.clone(), Some(dir)))
        };
        let found = before.iter().find_map(|candidate| find(candidate).ok());
        found.map_or_else(|| find(&last), Ok)
    }

    /// The last resort, and what is tried before it.
    fn candidates(&self, run: &Path, tmp: &Path) -> (Candidate, Vec<Candidate>) {
        if let Some(chosen) = &self.chosen {
            // Named by the caller: a symbolic link may be what is meant, its target is checked all the same.
            let chosen = Candidate { path: chosen.into(), flags: OFlag::empty(), closed_to_others: 0o022 };
            return (chosen, Vec::new());
        }
        let candidate = |path, closed_to_others| Candidate { path, flags: OFlag::O_NOFOLLOW, closed_to_others };
        let parents = self.runtime_parents(run);
        let before = parents.iter().map(|parent| candidate(parent.join("ringfence"), 0o022)).collect();
        // Shared with everybody: the name must be this user's own, and closed to all others.
        (candidate(tmp.join(format!("ringfence-{}", self.uid_above)), 0o077), before)
    }

    fn runtime_parents(&self, run: &Path) -> Vec<PathBuf> {
        if self.uid == 0 && self.uid_above == 0 {
            return vec![run.to_owned()];
        }
        let chosen = self.runtime_dir.iter().map(PathBuf::from).filter(|path| path.is_absolute());
        let parents = chosen.chain([run.join(format!("user/{}", self.uid_above))]);
        parents.filter(|parent| stat(parent).is_ok_and(|s| self.is_ours(&s, 0o022))).collect()
    }

    fn is_ours(&self, stat: &FileStat, closed_to_others: u32) -> bool {
        stat.st_uid == self.uid && stat.st_mode & closed_to_others == 0
    }

    fn open_one(&self, candidate: &Candidate) -> Result<StateDir> {
        const HINT: &str = "set RINGFENCE_STATE_DIR to a directory that only this user can write";
        let path = candidate.path.as_path();
        let fail =
            |step: &str, errno: Errno| Error::os(step, errno as i32).with_path(path.to_string_lossy()).with_hint(HINT);
        let flags = candidate.flags | OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = match open(path, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                match mkdir(path, Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(fail("mkdir", errno)),
                }
                open(path, flags, Mode::empty())
            }
            other => other,
        };
        let fd = fd.map_err(|errno| fail("open", errno))?;
        let found = fstat(&fd).map_err(|errno| fail("fstat", errno))?;
        if !self.is_ours(&found, candidate.closed_to_others) {
            let detail = format!(
                "the state directory belongs to uid {} with mode {:03o}; it must be uid {}'s and closed to others",
                found.st_uid,
                found.st_mode & 0o777,
                self.uid
            );
            return Err(Error::new(ErrorKind::PermissionDenied, detail)
                .with_path(path.to_string_lossy())
                .with_errno(libc::EPERM)
                .with_hint(HINT));
        }
        Ok(StateDir { path: path.to_owned(), fd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn ours(runtime_dir: Option<&Path>) -> Place {
        Place { chosen: None, runtime_dir: runtime_dir.map(|p| p.as_os_str().to_owned()), ..Place::now() }
    }

    #[test]
    fn it_is_made_private() {
        let base = tempfile::tempdir().unwrap();
        let dir = Place::at(&base.path().join("state")).open().unwrap();
        assert_eq!(std::fs::metadata(&dir.path).unwrap().mode() & 0o777, 0o700);
        let other = base.path().join("other");
        assert_eq!(Place::at(&other).look().unwrap(), other);
        assert!(!other.exists());
        assert!(Place::at(&other.join("deeper")).look().is_err());
        Place::at(&dir.path).open().unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("open");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = Place::at(&path).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.hint().unwrap().contains("RINGFENCE_STATE_DIR"), "{error}");
    }

    #[test]
    fn what_others_left_in_tmp_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid();
        let name = base.path().join(format!("ringfence-{uid}"));
        let nowhere = base.path().join("nowhere");

        // A link into somebody's directory, even into our own.
        symlink(base.path(), &name).unwrap();
        assert!(ours(None).open_with(&nowhere, base.path()).is_err());
        std::fs::remove_file(&name).unwrap();

        // A readable one.
        std::fs::create_dir(&name).unwrap();
        std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(ours(None).open_with(&nowhere, base.path()).is_err());

        // Another user's.
        std::fs::set_permissions(&name, std::fs::Permissions::from_mode(0o700)).unwrap();
        let other = Place { uid: uid.as_raw() + 1, uid_above: uid.as_raw() + 1, ..ours(None) };
        std::fs::rename(&name, base.path().join(format!("ringfence-{}", other.uid))).unwrap();
        let error = other.open_with(&nowhere, base.path()).unwrap_err();
        assert_eq!(error.errno(), libc::EPERM, "{error}");
    }

    #[test]
    fn the_order_of_places() {
        let base = tempfile::tempdir().unwrap();
        let [run, tmp, xdg] = ["run", "tmp", "xdg"].map(|name| {
            let path = base.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        });
        let uid = nix::unistd::geteuid();
        let found = |place: Place| place.open_with(&run, &tmp).unwrap().path;
        if uid.is_root() {
            assert_eq!(found(ours(Some(&xdg))), run.join("ringfence"));
            std::fs::remove_dir_all(&run).unwrap();
        } else {
            assert_eq!(found(ours(Some(&xdg))), xdg.join("ringfence"));
            std::fs::create_dir_all(run.join(format!("user/{uid}"))).unwrap();
            assert_eq!(found(ours(None)), run.join(format!("user/{uid}/ringfence")));
            // A runtime directory that others can write is not one.
            std::fs::set_permissions(&xdg, std::fs::Permissions::from_mode(0o777)).unwrap();
            assert_eq!(found(ours(Some(&xdg))), run.join(format!("user/{uid}/ringfence")));
            std::fs::remove_dir_all(&run).unwrap();
        }
        assert_eq!(found(ours(None)), tmp.join(format!("ringfence-{uid}")));
    }
}
