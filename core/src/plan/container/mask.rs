//! Paths that are hidden or cannot be written to.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::devices::NODE_OF_HOST;
use super::{
    CLOEXEC, ContainerPlan, EMPTY, MOVE_BOTH, NODEV, NOEXEC, NOSUID, PATH_DIR, RDONLY, RECURSIVE, RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
};
use crate::plan::builder::{Arg, call};
use crate::plan::idmap::Ids;
use crate::spec::Spec;

impl<'a> ContainerPlan<'a> {
    /// Detached clones to put over masked directories and files: both, where only the kernel can tell what the path is.
    pub(super) fn mask_sources(&mut self, scratch: u16) -> Vec<(PathBuf, Option<u16>, Option<u16>)> {
        let known = self.facts.known_paths.clone();
        let customary = || Spec::MASKED_PATHS.iter().map(PathBuf::from);
        let masked: Vec<PathBuf> = match &self.spec.masked_paths {
            // The customary list, and more.
            Some(paths) if customary().all(|path| paths.contains(&path)) => {
                paths.iter().chain(&self.facts.throttles).cloned().collect()
            }
            Some(paths) => paths.clone(),
            None if self.spec.nesting => Vec::new(),
            None => customary().chain(self.facts.throttles.iter().cloned()).collect(),
        };
        self.b.field("masked_paths");
        let mut made = false;
        let mut out = Vec::new();
        for path in masked {
            let directory = match known.iter().find(|(p, _)| *p == path) {
                Some((_, None)) => continue,
                Some((_, directory)) => *directory,
                None => None,
            };
            let over_directory = (directory != Some(false)).then(|| {
                if !std::mem::replace(&mut made, true) {
                    self.mkdir(Arg::Slot(scratch), "empty", 0o555);
                }
                let tree = self.clone_dir(scratch, "empty");
                self.set_attributes(tree, RDONLY | NOSUID | NODEV | NOEXEC, false);
                tree
            });
            let over_file = (directory != Some(true)).then(|| {
                let tree = self.tree(Path::new("/dev/null"), false, &Ids::Host);
                self.set_attributes(tree, NODE_OF_HOST, false);
                tree
            });
            out.push((path, over_directory, over_file));
        }
        out
    }

    pub(super) fn mask(&mut self, masks: Vec<(PathBuf, Option<u16>, Option<u16>)>) {
        let empty = self.b.text("");
        let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
        let how = self.how(libc::O_PATH | CLOEXEC, resolve);
        let how_dir = self.how(PATH_DIR, resolve);
        self.b.field("masked_paths");
        for (path, over_directory, over_file) in masks {
            let shown = path.to_string_lossy().into_owned();
            let text = self.b.text(path.as_os_str().as_bytes());
            let mut masked_directory = None;
            for (tree, how) in [(over_directory, how_dir), (over_file, how)] {
                let Some(tree) = tree else { continue };
                let at = self.b.len();
                let target = self.open_where_there(text, how, &shown);
                let args = [Arg::Slot(tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
                self.b.op(call::MOVE_MOUNT, args).path(&*shown);
                self.b.skip_from(at, false);
                match masked_directory {
                    None => masked_directory = Some(at + 1),
                    // What was masked as a directory is no file.
                    Some(directory) => self.b.skip_from(directory, true),
                }
            }
        }
        self.b.field("readonly_paths");
        let readonly: Vec<PathBuf> = match &self.spec.readonly_paths {
            Some(paths) => paths.clone(),
            None if self.spec.nesting => Vec::new(),
            None => Spec::READONLY_PATHS.iter().map(PathBuf::from).collect(),
        };
        let attr = self.b.words(&[RDONLY | NOSUID | NODEV | NOEXEC, 0, 0, 0]);
        for path in readonly {
            if self.facts.known_paths.iter().any(|(p, d)| *p == path && d.is_none()) {
                continue;
            }
            let shown = path.to_string_lossy().into_owned();
            let text = self.b.text(path.as_os_str().as_bytes());
            let at = self.b.len();
            let target = self.open_where_there(text, how, &shown);
            let tree = self.clone_of(target, true, &shown);
            let flags = EMPTY | RECURSIVE;
            let args = [Arg::Slot(tree), empty, flags.into(), attr, 32.into()];
            self.b.op(call::MOUNT_SETATTR, args).path(&*shown);
            let args = [Arg::Slot(tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
            self.b.op(call::MOVE_MOUNT, args).path(shown);
            self.b.skip_from(at, false);
        }
    }
    /// A path that may not be there: what needs it is left out then.
    fn open_where_there(&mut self, path: Arg, how: Arg, shown: &str) -> u16 {
        self.b
            .op(call::OPENAT2, [libc::AT_FDCWD.into(), path, how, 24.into()])
            .ok(&[libc::ENOENT, libc::ENOTDIR])
            .path(shown)
            .keep()
    }
}
