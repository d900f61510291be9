//! Mounts: made by descriptor, staged, and attached below the new root.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    CLOEXEC, ContainerPlan, EMPTY, MOVE_BOTH, MOVE_FROM, NODEV, PATH_DIR, RECURSIVE, RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, TREE_CLONE,
};
use crate::plan::builder::{Arg, Builder, Denied, Idmapped, Step, call};
use crate::plan::facts::Need;
use crate::plan::idmap::{Below, Ids, MountIds};
use crate::spec::NamespaceKind as Ns;

/// Of `mount_label`.
pub(crate) const MOUNT_LABEL_REFUSED: &str = "the policy may refuse the label: it has to allow the caller filesystem { relabelfrom } of \
    the label that such file systems have, and { relabelto } of this one";

/// Something that will be mounted once the new root is in place.
pub(super) struct Attach {
    pub(super) field: Arc<str>,
    tree: u16,
    target: PathBuf,
    directory: bool,
    /// A place of the standard layout: a symlink there is an attack, not a layout (CVE-2019-19921 and its kin).
    standard: bool,
    /// A mount of the host's: there is no tree when it was left out, and no place when what it is mounted on was.
    pub(super) optional: bool,
}

impl<'a> ContainerPlan<'a> {
    /// A new file system instance, not attached anywhere.
    pub(super) fn new_fs(&mut self, kind: &'static str, options: &[(&str, String)], attributes: u64) -> u16 {
        let name = self.b.text(kind);
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        for (key, value) in options {
            let (key, value) = (self.b.text(key), self.b.text(value));
            self.b.op(call::FSCONFIG, [Arg::Slot(context), 1.into(), key, value, 0.into()]).path(kind);
        }
        // Of what containers have of their own, these take a label when they are made.
        if matches!(kind, "tmpfs" | "devpts") {
            return self.finish_labelled_fs(context, kind, attributes);
        }
        self.finish_fs(context, kind, attributes)
    }

    /// With `mount_label`, if there is one.
    fn finish_labelled_fs(&mut self, context: u16, kind: &'static str, attributes: u64) -> u16 {
        const SET_STRING: i32 = 1;
        let Some(label) = &self.spec.mount_label else { return self.finish_fs(context, kind, attributes) };
        let before = self.b.field.clone();
        self.b.field("mount_label");
        let (key, value) = (self.b.text("context"), self.b.text(&**label));
        self.b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key, value, 0.into()]).path(kind);
        self.b.field = before;
        let denied = Denied { errnos: &[libc::EACCES], field: "mount_label", hint: MOUNT_LABEL_REFUSED };
        self.create_fs(context, kind).denied(Some(denied));
        self.mount_fs(context, kind, attributes)
    }

    pub(super) fn finish_fs(&mut self, context: u16, kind: &'static str, attributes: u64) -> u16 {
        self.create_fs(context, kind);
        self.mount_fs(context, kind, attributes)
    }

    pub(super) fn create_fs(&mut self, context: u16, kind: &'static str) -> Step<'_> {
        const CMD_CREATE: i32 = 6;
        let zero = || Arg::Imm(0);
        self.b.op(call::FSCONFIG, [Arg::Slot(context), CMD_CREATE.into(), zero(), zero(), zero()]).path(kind)
    }

    pub(super) fn mount_fs(&mut self, context: u16, kind: &'static str, attributes: u64) -> u16 {
        let mount = self.b.op(call::FSMOUNT, [Arg::Slot(context), 1.into(), attributes.into()]).path(kind).keep();
        self.b.op(call::CLOSE, [Arg::Slot(context)]);
        mount
    }

    /// An overlay. Layers are given as directories to change to: "." needs no path that could be misread or swapped, and
    /// works where the kernel takes no descriptors for layers (before 6.13).
    /// What is shown of the host's own tree keeps its labels.
    pub(super) fn overlay(&mut self, lowers: &[u16], (upper, work): (u16, u16), of_host: bool) -> u16 {
        const SET_FLAG: i32 = 0;
        const SET_STRING: i32 = 1;
        let kind = "overlay";
        let (name, dot) = (self.b.text(kind), self.b.text("."));
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        if self.spec.nesting {
            // By this name programs inside know how many overlays are stacked already.
            let (key, source) = (self.b.text("source"), self.b.text(overlay_source(self.facts.stacked + 1)));
            self.b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key, source, 0.into()]).path(kind);
        }
        let layer = |b: &mut Builder, key: &str, dir: u16| {
            let key_text = b.text(key);
            b.op(call::FCHDIR, [Arg::Slot(dir)]).path(key);
            b.op(call::FSCONFIG, [Arg::Slot(context), SET_STRING.into(), key_text, dot, 0.into()])
                .path(format!("overlay {key}"));
        };
        for &lower in lowers {
            layer(&mut self.b, "lowerdir+", lower);
        }
        layer(&mut self.b, "upperdir", upper);
        layer(&mut self.b, "workdir", work);
        if self.is_own(Ns::User) {
            let flag = self.b.text("userxattr");
            self.b.op(call::FSCONFIG, [Arg::Slot(context), SET_FLAG.into(), flag, 0.into(), 0.into()]).path(kind);
        }
        if of_host { self.finish_fs(context, kind, NODEV) } else { self.finish_labelled_fs(context, kind, NODEV) }
    }

    /// Where mounts can be attached until the new root is there, one over the other: a directory below the old root, so that
    /// they go with it. Nothing else of the plan may need what it covers.
    pub(super) fn stage_dir(&self) -> &'static str {
        if self.facts.privileged {
            "/mnt"
        } else if self.is_own(Ns::Pid) {
            "/proc"
        } else if self.is_own(Ns::Net) {
            "/sys"
        } else {
            "/"
        }
    }

    pub(super) fn stage(&mut self, mount: u16) {
        self.staged += 1;
        let dir = self.stage_dir();
        let (empty, path) = (self.b.text(""), self.b.text(dir));
        let args = [Arg::Slot(mount), empty, libc::AT_FDCWD.into(), path, MOVE_FROM.into()];
        self.b.op(call::MOVE_MOUNT, args).path(dir);
    }

    /// A detached clone of the host's mounts at `path`.
    pub(super) fn tree(&mut self, path: &Path, recursive: bool, ids: &Ids) -> u16 {
        self.tree_of(path, recursive, ids, recursive)
    }

    /// The same, where what is mounted below may have other ids: `mapped` says whether it does not.
    pub(super) fn tree_of(&mut self, path: &Path, recursive: bool, ids: &Ids, mapped: bool) -> u16 {
        let field = self.b.field.clone();
        // A caller that has the file system in its user namespace makes the clone, because its keeper could not idmap it.
        if self.facts.privileged || matches!(ids, Ids::Own(_)) {
            let slot = self.need(Need::Tree { path: path.to_owned(), recursive, field });
            self.note_ids(slot, recursive && mapped, ids, path);
            return slot;
        }
        let text = self.b.text(path.as_os_str().as_bytes());
        let shown = path.to_string_lossy().into_owned();
        let flags = libc::O_PATH | CLOEXEC;
        let file = self.b.op(call::OPENAT, [libc::AT_FDCWD.into(), text, flags.into()]).path(&*shown).keep();
        let clone = self.clone_of(file, recursive, &shown);
        self.b.op(call::CLOSE, [Arg::Slot(file)]);
        clone
    }

    pub(super) fn clone_of(&mut self, file: u16, recursive: bool, shown: &str) -> u16 {
        let empty = self.b.text("");
        let flags = TREE_CLONE | EMPTY | if recursive { RECURSIVE } else { 0 };
        self.b
            .op(call::OPEN_TREE, [Arg::Slot(file), empty, flags.into()])
            .path(shown)
            .hint("a mount with locked mounts below it can only be cloned recursively")
            .keep()
    }

    /// Has a descriptor of the request idmapped; the field is the one that the next operations are for.
    pub(super) fn note_ids(&mut self, slot: u16, recursive: bool, ids: &Ids, path: &Path) {
        let (maps, by_caller) = match ids {
            Ids::Host => return,
            // The user namespace of a pod is there already, and the stage, which is in it by then, may not.
            Ids::Container if self.facts.idmaps.as_ref().is_some_and(|m| m.idmapped_mounts) => {
                (None, !self.is_new(Ns::User))
            }
            Ids::Container => return,
            Ids::Own(maps) => (Some(maps.clone()), maps.replaces || !self.facts.privileged),
        };
        let (field, path) = (self.b.field.clone(), path.to_owned());
        self.b.idmapped.push(Idmapped { slot, recursive, maps, by_caller, field, path });
    }

    /// With which ids a mount is shown, for which errors name what of the spec says so.
    pub(super) fn in_field_of<T>(&mut self, ids: &MountIds, tree: impl FnOnce(&mut Self) -> T) -> T {
        let Some(field) = ids.field.clone() else { return tree(self) };
        let before = std::mem::replace(&mut self.b.field, field);
        let made = tree(self);
        self.b.field = before;
        made
    }

    /// What is mounted below a source and has other ids than it.
    pub(super) fn below(&mut self, ids: &MountIds, attributes: u64, target: &Path) {
        for Below { path, rest, directory, ids: own } in &ids.below {
            let tree = self.in_field_of(ids, |plan| plan.tree(path, false, own));
            self.set_attributes(tree, attributes, false);
            self.later(tree, target.join(rest), *directory, false);
        }
    }

    pub(super) fn set_attributes(&mut self, mount: u16, attributes: u64, recursive: bool) {
        let (empty, attr) = (self.b.text(""), self.b.words(&[attributes, 0, 0, 0]));
        let flags = EMPTY | if recursive { RECURSIVE } else { 0 };
        self.b.op(call::MOUNT_SETATTR, [Arg::Slot(mount), empty, flags.into(), attr, 32.into()]);
    }

    pub(super) fn mkdir(&mut self, at: Arg, path: &str, mode: u32) {
        let text = self.b.text(path);
        self.b.op(call::MKDIRAT, [at, text, mode.into()]).ok(&[libc::EEXIST]).path(path);
    }

    pub(super) fn open_dir(&mut self, at: Arg, path: &str) -> u16 {
        let text = self.b.text(path);
        self.b.op(call::OPENAT, [at, text, PATH_DIR.into()]).path(path).keep()
    }

    pub(super) fn clone_dir(&mut self, at: u16, path: &str) -> u16 {
        let text = self.b.text(path);
        self.b.op(call::OPEN_TREE, [Arg::Slot(at), text, TREE_CLONE.into()]).path(path).keep()
    }

    pub(super) fn later(&mut self, tree: u16, target: impl Into<PathBuf>, directory: bool, standard: bool) {
        let field = self.b.field.clone();
        self.attach.push(Attach { field, tree, target: target.into(), directory, standard, optional: false });
    }

    pub(super) fn how(&mut self, flags: i32, resolve: u64) -> Arg {
        self.b.words(&[flags as u64, 0, resolve])
    }

    /// Finds or makes the target below the new root, by descriptors, and mounts there.
    pub(super) fn attach(&mut self, attach: &Attach) {
        let path = attach.target.as_os_str().as_bytes();
        let shown = attach.target.to_string_lossy().into_owned();
        let resolve = RESOLVE_IN_ROOT | if attach.standard { RESOLVE_NO_SYMLINKS } else { RESOLVE_NO_MAGICLINKS };
        let how = self.how(libc::O_PATH | CLOEXEC, resolve);
        let how_dir = self.how(PATH_DIR, resolve);
        let text = self.b.text(path);
        let at = libc::AT_FDCWD;
        let hint = "a symlink stands where a directory of the container has to be";
        let make_hint =
            "a place that is not there yet has to be below a directory that the container's root may write to";
        let first = self.b.len();
        let step = self.b.op(call::OPENAT2, [at.into(), text, how, 24.into()]).ok(&[libc::ENOENT]).path(&*shown);
        let target = if attach.standard { step.hint(hint) } else { step }.keep();
        // Only when it is not there: every part of the way, then the last one.
        let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|p| !p.is_empty()).collect();
        let mut parent = self.b.text("/");
        let mut parent_path = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let dir = self.b.op(call::OPENAT2, [at.into(), parent, how_dir, 24.into()]).path(&*shown).keep();
            let name = self.b.text(part);
            if i + 1 < parts.len() || attach.directory {
                self.b
                    .op(call::MKDIRAT, [Arg::Slot(dir), name, 0o755.into()])
                    .ok(&[libc::EEXIST])
                    .path(&*shown)
                    .hint(make_hint);
            } else {
                let mode = libc::S_IFREG | 0o644;
                self.b
                    .op(call::MKNODAT, [Arg::Slot(dir), name, mode.into(), 0.into()])
                    .ok(&[libc::EEXIST])
                    .path(&*shown)
                    .hint(make_hint);
            }
            self.b.op(call::CLOSE, [Arg::Slot(dir)]);
            parent_path.push(b'/');
            parent_path.extend_from_slice(part);
            parent = self.b.text(&parent_path);
        }
        let step = self.b.op(call::OPENAT2, [at.into(), text, how, 24.into()]).path(&*shown);
        step.keep_in(target);
        self.b.skip_from(first, true);
        let empty = self.b.text("");
        let args = [Arg::Slot(attach.tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
        self.b
            .op(call::MOVE_MOUNT, args)
            .path(shown)
            .hint("a file can only be mounted on a file, a directory on a directory");
        self.b.op(call::CLOSE, [Arg::Slot(target)]);
    }

    /// A mount of the host's, where its place is shown: it is not where the mount above it was left out.
    pub(super) fn attach_where_there(&mut self, attach: &Attach) {
        const OPERATIONS: u64 = 4;
        let shown = attach.target.to_string_lossy().into_owned();
        let text = self.b.text(attach.target.as_os_str().as_bytes());
        let how = self.how(PATH_DIR, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
        let empty = self.b.text("");
        self.b.op(call::SKIP_IF_NEGATIVE, [Arg::Slot(attach.tree), OPERATIONS.into()]);
        let first = self.b.len();
        let target = self.b.op(call::OPENAT2, [libc::AT_FDCWD.into(), text, how, 24.into()]).path(&*shown).keep();
        let args = [Arg::Slot(attach.tree), empty, Arg::Slot(target), empty, MOVE_BOTH.into()];
        self.b.op(call::MOVE_MOUNT, args).path(&*shown);
        self.b.op(call::CLOSE, [Arg::Slot(target)]);
        self.b.may_be_left_out(first, [libc::EACCES, libc::ENOENT, libc::ENOTDIR, libc::ELOOP], &shown);
        debug_assert_eq!(self.b.len() - first, OPERATIONS as usize);
    }
}

fn overlay_source(depth: u32) -> String {
    format!("{OVERLAY}{depth}")
}

/// What overlays of ringfence are called in /proc/self/mountinfo, with the depth of the stack that they are the top of.
const OVERLAY: &str = "ringfence-";

/// How many overlays there are, one on the other, in a mount of this type and source. Of one by somebody else only the top one
/// can be seen.
pub(crate) fn overlays(kind: &[u8], source: &[u8]) -> u32 {
    let depth = std::str::from_utf8(source).ok().and_then(|source| source.strip_prefix(OVERLAY)?.parse::<u32>().ok());
    if kind == b"overlay" { depth.unwrap_or(1).min(MOST_OVERLAYS) } else { 0 }
}

/// How many overlays the kernel stacks (FILESYSTEM_MAX_STACK_DEPTH).
pub(crate) const MOST_OVERLAYS: u32 = 2;
