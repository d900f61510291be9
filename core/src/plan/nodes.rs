//! Plans that put a device node into the /dev of a running container, or take one away.
//!
//! /dev is the container's to change. Everything below it is found from its root by descriptors, and no symlink is followed, so
//! that what it puts there leads to nothing but its own files.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::builder::{Arg, Builder, Compiled, call};
use super::exec::Joining;
use super::facts::{DeviceFact, Need};
use super::process::need;
use crate::proto::section;

/// Where the node is taken from.
pub(crate) enum NodeSource<'a> {
    /// A mount with the node `0`, which the request brings in the place of the first stream.
    Own,
    /// The host's node, for callers who may clone mounts.
    Host(&'a Path),
    /// The same for those who may not: by the keeper's task, in a namespace of its own.
    Outer(&'a Path),
}

const EMPTY: i32 = libc::AT_EMPTY_PATH;
const TREE_CLONE: i32 = 1 | libc::O_CLOEXEC;
const FROM_EMPTY: i32 = 4;
const TO_EMPTY: i32 = 0x40;
const RDONLY: u64 = 1;
const NOSUID_NOEXEC: u64 = 2 | 8;
const O_DIRECTORY: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;

/// The private mount namespace of a moment in which a mount is attached: only what is attached can be cloned before Linux 6.15.
fn own_mounts(b: &mut Builder) {
    b.op(call::UNSHARE, [libc::CLONE_NEWNS.into()]);
    let slash = b.text("/");
    let zero = || Arg::Imm(0);
    b.op(call::MOUNT, [zero(), slash, zero(), (libc::MS_REC | libc::MS_PRIVATE).into(), zero()]).path("/");
}

/// The node as a mount that is attached nowhere, verified.
fn tree(b: &mut Builder, needs: &mut Vec<Need>, source: &NodeSource<'_>, fact: &DeviceFact) -> u16 {
    let tree = match source {
        NodeSource::Own => {
            let nodes = need(needs, Need::Stream(0));
            own_mounts(b);
            let (empty, stage, name) = (b.text(""), b.text("/mnt"), b.text("0"));
            let args = [Arg::Slot(nodes), empty, libc::AT_FDCWD.into(), stage, FROM_EMPTY.into()];
            b.op(call::MOVE_MOUNT, args).path("/mnt");
            b.op(call::OPEN_TREE, [Arg::Slot(nodes), name, TREE_CLONE.into()]).keep()
        }
        NodeSource::Host(path) => {
            let field = b.field.clone();
            need(needs, Need::Tree { path: path.to_path_buf(), recursive: false, field })
        }
        NodeSource::Outer(path) => {
            let shown = path.to_string_lossy().into_owned();
            own_mounts(b);
            let (text, empty) = (b.text(path.as_os_str().as_bytes()), b.text(""));
            let flags = libc::O_PATH | libc::O_CLOEXEC;
            let file = b.op(call::OPENAT, [libc::AT_FDCWD.into(), text, flags.into()]).path(&*shown).keep();
            b.op(call::OPEN_TREE, [Arg::Slot(file), empty, (TREE_CLONE | EMPTY).into()]).path(shown).keep()
        }
    };
    b.op(call::VERIFY, [Arg::Slot(tree), fact.kind.into(), fact.number.into()]);
    // A device can be written to on a read-only mount; the mode, owner and times of the host's node are not the container's.
    let of_host = if matches!(source, NodeSource::Own) { 0 } else { RDONLY };
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let (empty, attributes) = (b.text(""), b.words(&[NOSUID_NOEXEC | of_host, 0, libc::MS_PRIVATE, 0]));
    b.op(call::MOUNT_SETATTR, [Arg::Slot(tree), empty, EMPTY.into(), attributes, 32.into()]);
    tree
}

/// The directory that `target` is in, and its last name. With `make`, directories that are missing are made.
fn parent<'a>(b: &mut Builder, target: &'a Path, make: bool) -> (u16, &'a [u8]) {
    let slash = b.text("/");
    let root = b.op(call::OPENAT, [libc::AT_FDCWD.into(), slash, O_DIRECTORY.into()]).path("/").keep();
    let mut names = target.components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    });
    let last = names.next_back().unwrap_or_default();
    let (mut at, mut path) = (root, String::new());
    for name in names {
        path = format!("{path}/{}", String::from_utf8_lossy(name));
        // /dev itself is there.
        if make && at != root {
            let text = b.text(name);
            b.op(call::MKDIRAT, [Arg::Slot(at), text, 0o755.into()]).ok(&[libc::EEXIST]).path(&*path);
        }
        at = open(b, at, name, O_DIRECTORY, &path);
    }
    (at, last)
}

/// What is there itself, whatever it is: below the directory, by no symlink.
fn open(b: &mut Builder, at: u16, name: &[u8], flags: i32, shown: &str) -> u16 {
    const NO_MAGICLINKS: u64 = 2;
    const NO_SYMLINKS: u64 = 4;
    const BENEATH: u64 = 8;
    let how = b.words(&[flags as u32 as u64, 0, NO_MAGICLINKS | NO_SYMLINKS | BENEATH]);
    let text = b.text(name);
    b.op(call::OPENAT2, [Arg::Slot(at), text, how, 24.into()]).path(shown).keep()
}

/// Puts a node at `target`, where nothing may be.
pub(crate) fn add(
    joining: &Joining,
    may_setgroups: bool,
    field: &str,
    source: &NodeSource<'_>,
    fact: &DeviceFact,
    target: &Path,
) -> (Compiled, Vec<Need>) {
    let (mut b, mut needs) = (Builder::new(), Vec::new());
    b.section(section::PREPARE);
    b.field(field);
    let tree = tree(&mut b, &mut needs, source, fact);
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field(field);
    joining.become_root(&mut b, may_setgroups);
    b.op(call::UMASK, [0.into()]);
    let shown = target.to_string_lossy().into_owned();
    let (at, name) = parent(&mut b, target, true);
    let text = b.text(name);
    let mode = libc::S_IFREG | 0o666;
    b.op(call::MKNODAT, [Arg::Slot(at), text, mode.into(), 0.into()]).path(&*shown);
    let file = open(&mut b, at, name, libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC, &shown);
    let empty = b.text("");
    let args = [Arg::Slot(tree), empty, Arg::Slot(file), empty, (FROM_EMPTY | TO_EMPTY).into()];
    b.op(call::MOVE_MOUNT, args).path(shown);
    (b.build(), needs)
}

/// Takes the node at `target` away; an error (ELOOP) if something else is there by now.
pub(crate) fn remove(
    joining: &Joining,
    may_setgroups: bool,
    field: &str,
    fact: &DeviceFact,
    target: &Path,
) -> (Compiled, Vec<Need>) {
    const UMOUNT_NOFOLLOW: i32 = 8;
    let (mut b, mut needs) = (Builder::new(), Vec::new());
    joining.prepare(&mut b, &mut needs);
    b.section(section::PAYLOAD);
    b.field(field);
    joining.become_root(&mut b, may_setgroups);
    let shown = target.to_string_lossy().into_owned();
    let (at, name) = parent(&mut b, target, false);
    let file = open(&mut b, at, name, libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC, &shown);
    b.op(call::VERIFY, [Arg::Slot(file), fact.kind.into(), fact.number.into()]).path(&*shown);
    b.op(call::CLOSE, [Arg::Slot(file)]);
    // umount2(2) takes a path: one of one name, in the directory that was found.
    b.op(call::FCHDIR, [Arg::Slot(at)]);
    let text = b.text(name);
    b.op(call::UMOUNT2, [text, (libc::MNT_DETACH | UMOUNT_NOFOLLOW).into()]).path(&*shown);
    b.op(call::UNLINKAT, [Arg::Slot(at), text, 0.into()]).path(shown);
    (b.build(), needs)
}
