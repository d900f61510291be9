//! The root file system.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{BESIDE, ContainerPlan, NODEV, NOEXEC, NOSUID, PAGE, PATH_DIR, RDONLY, tmpfs_limits};
use crate::plan::builder::{Arg, call};
use crate::plan::facts::{DiskFact, HostEntry, Need};
use crate::plan::idmap::{Ids, MountIds};
use crate::spec::{NamespaceKind as Ns, RootfsKind};

/// What keeps a file system from being a layer of an overlay: it may not be entered (0700, as /boot/efi often is), the kernel
/// cannot use it (FAT and others that ignore case, autofs, an overlay on an overlay), its server is gone.
const NO_LAYER: [i32; 4] = [libc::EACCES, libc::EINVAL, libc::ENOTCONN, libc::ESTALE];

impl<'a> ContainerPlan<'a> {
    pub(super) fn root(&mut self) {
        self.b.field("rootfs");
        let (old, slash) = self.old_root();
        // One tmpfs for all that is private and in memory: upper layers, /tmp, /dev, contents of `files`.
        let scratch = self.scratch();
        self.stage(scratch);

        let root = self.root_mount(scratch);
        self.devices(scratch);
        self.file_systems(scratch);
        self.user_mounts();
        self.files(scratch);
        let masks = self.mask_sources(scratch);

        self.b.field("rootfs");
        self.change_root(root, (old, slash));

        for attach in std::mem::take(&mut self.attach) {
            self.b.field(attach.field.clone());
            if attach.optional {
                self.attach_where_there(&attach);
            } else {
                self.attach(&attach);
            }
        }
        self.mask(masks);
        for attach in std::mem::take(&mut self.on_top) {
            self.b.field(attach.field.clone());
            self.attach(&attach);
        }
        for formats in std::mem::take(&mut self.formats) {
            self.register(formats);
        }
        if self.spec.rootfs.readonly {
            self.b.field("rootfs.readonly");
            // Only now, because mount points were made in them; what else is mounted below stays as it is.
            for part in [vec![root], std::mem::take(&mut self.root_parts)].concat() {
                // A mount that was left out has none.
                self.b.op(call::SKIP_IF_NEGATIVE, [Arg::Slot(part), 1.into()]);
                self.set_attributes(part, RDONLY, false);
            }
        }
        self.b.op(call::CHDIR, [slash]).path("/");
    }

    /// The directory that `/` is until then, and its path.
    fn old_root(&mut self) -> (u16, Arg) {
        let slash = self.b.text("/");
        let old = self.b.op(call::OPENAT, [libc::AT_FDCWD.into(), slash, PATH_DIR.into()]).path("/").keep();
        if !self.facts.privileged || !self.is_new(Ns::User) {
            // The copy of the host's mounts must not send anything back. (A privileged keeper's three are private.)
            let none = self.b.text("");
            let flags: u64 = libc::MS_REC | libc::MS_PRIVATE;
            self.b.op(call::MOUNT, [none, slash, none, flags.into(), 0.into()]).path("/");
        }
        (old, slash)
    }

    fn change_root(&mut self, root: u16, (old, slash): (u16, Arg)) {
        self.stage(root);
        let dot = self.b.text(".");
        self.b.op(call::FCHDIR, [Arg::Slot(root)]).path("/");
        self.b.op(call::PIVOT_ROOT, [dot, dot]).path("/");
        self.b.op(call::FCHDIR, [Arg::Slot(old)]).path("/");
        // The old root goes with all below it. What was staged on the root itself is on top of it, and "." is looked up to
        // the top: then one by one, because what is left would be on top of the new root for whoever joins. (Each umount
        // waits for an RCU grace period.)
        let umounts = if self.stage_dir() == "/" { self.staged } else { 1 };
        for _ in 0..umounts {
            self.b.op(call::UMOUNT2, [dot, libc::MNT_DETACH.into()]).path("/");
        }
        self.b.op(call::CLOSE, [Arg::Slot(old)]);
        self.b.op(call::CHDIR, [slash]).path("/");
    }

    /// Of a container that only holds namespaces: nothing but the /dev/shm of those who share them.
    pub(super) fn empty_root(&mut self) {
        self.b.field("rootfs");
        let (old, slash) = self.old_root();
        let options = [("mode", "0555".to_owned()), ("nr_inodes", "8".to_owned())];
        let root = self.new_fs("tmpfs", &options, NOSUID | NODEV | NOEXEC);
        self.mkdir(Arg::Slot(root), "dev", 0o555);
        self.mkdir(Arg::Slot(root), "dev/shm", 0o555);
        self.b.field("shm_size");
        let shm = self.shared_memory();
        self.later(shm, "/dev/shm", true, true);
        self.b.field("rootfs");
        self.change_root(root, (old, slash));
        for attach in std::mem::take(&mut self.attach) {
            self.attach(&attach);
        }
        self.b.field("rootfs");
        self.set_attributes(root, RDONLY | NOSUID | NODEV | NOEXEC, false);
    }

    /// What all private layers are in: a tmpfs, of the size that was asked for, or the container's image.
    fn scratch(&mut self) -> u16 {
        let mut options = vec![("mode", "0755".to_owned())];
        match self.facts.disk {
            DiskFact::Image => {
                self.b.field("disk");
                let image = self.need(Need::Disk);
                self.note_ids(image, false, &Ids::Container, Path::new(""));
                self.set_attributes(image, NOSUID | NODEV, false);
                return image;
            }
            DiskFact::Tmpfs => options.extend(tmpfs_limits(self.spec)),
            // What is not in the limited directory may not be a way to store without a limit. `files` are in it too.
            DiskFact::Project(_) | DiskFact::Btrfs => {
                let pages = |file: &crate::spec::File| (file.data.len() as u64).next_multiple_of(PAGE);
                let files: u64 = self.spec.files.values().map(pages).sum();
                options.push(("size", (BESIDE + files).to_string()));
                options.push(("nr_inodes", (BESIDE / PAGE + self.spec.files.len() as u64).to_string()));
            }
        }
        if options.len() > 1 {
            self.b.field(if self.spec.disk.is_some() { "disk" } else { "inodes" });
        }
        let scratch = self.new_fs("tmpfs", &options, NOSUID | NODEV);
        self.b.field("rootfs");
        scratch
    }

    /// With which ids a layer of the root file system is shown.
    fn root_ids(&self, layer: usize) -> MountIds {
        self.facts.root_ids.get(layer).cloned().unwrap_or_default()
    }

    fn root_mount(&mut self, scratch: u16) -> u16 {
        match self.spec.rootfs.kind.clone() {
            RootfsKind::Host | RootfsKind::HostOwned => self.host_root(scratch),
            RootfsKind::Directory(path) => {
                let ids = self.root_ids(0);
                let whole = ids.below.is_empty();
                let root = self.in_field_of(&ids, |plan| plan.tree(&path, whole, &ids.ids));
                // Nodes of an image, and those that root makes where its ids are the host's, are the host's devices.
                let attributes = NODEV | (NOSUID * u64::from(self.is_own(Ns::User)));
                self.set_attributes(root, attributes, whole);
                self.below(&ids, attributes, Path::new("/"));
                root
            }
            RootfsKind::Layers { lower, upper } => {
                let mut lowers = Vec::new();
                for (i, path) in lower.iter().enumerate() {
                    self.b.field(format!("rootfs.lower[{i}]"));
                    let ids = self.root_ids(i);
                    let tree = self.in_field_of(&ids, |plan| plan.tree(path, false, &ids.ids));
                    self.stage(tree);
                    lowers.push(tree);
                }
                let base = match upper {
                    Some(path) => {
                        self.b.field("rootfs.upper");
                        let ids = self.root_ids(lower.len());
                        let tree = self.in_field_of(&ids, |plan| plan.tree(&path, false, &ids.ids));
                        self.stage(tree);
                        tree
                    }
                    None => scratch,
                };
                self.mkdir(Arg::Slot(base), "upper", 0o755);
                self.mkdir(Arg::Slot(base), "work", 0o755);
                let upper = self.open_dir(Arg::Slot(base), "upper");
                let work = self.open_dir(Arg::Slot(base), "work");
                self.overlay(&lowers, (upper, work), false)
            }
        }
    }

    /// `rootfs: host`: the host's directories as lower layers. A privileged keeper overlays its clone of `/` as a whole and
    /// each mount below it; an ordinary one gets each directory that has no mounts below it, because the kernel refuses
    /// layers with locked mounts.
    fn host_root(&mut self, scratch: u16) -> u16 {
        let at = Arg::Slot(scratch);
        let owned = self.spec.rootfs.kind == RootfsKind::HostOwned;
        let mut root = None;
        for (i, entry) in self.facts.host.clone().into_iter().enumerate() {
            let (path, optional) = match entry {
                HostEntry::Overlay(path) => (path, false),
                HostEntry::Mount(path) => (path, true),
                HostEntry::Bind(path) => {
                    let mount = self.tree(&path, false, &Ids::Host);
                    self.set_attributes(mount, RDONLY | NOSUID | NODEV, false);
                    self.later(mount, path, true, false);
                    continue;
                }
                HostEntry::Dir(_) | HostEntry::Symlink(..) => continue,
            };
            let lower = if self.facts.privileged {
                let tree = self.tree(&path, false, if owned { &Ids::Container } else { &Ids::Host });
                self.stage(tree);
                tree
            } else {
                let text = self.b.text(path.as_os_str().as_bytes());
                let shown = path.to_string_lossy();
                self.b.op(call::OPENAT, [libc::AT_FDCWD.into(), text, PATH_DIR.into()]).path(shown).keep()
            };
            let (up, work) = (format!("u{i}"), format!("w{i}"));
            self.mkdir(at, &up, 0o755);
            self.mkdir(at, &work, 0o755);
            let (up, work) = (self.open_dir(at, &up), self.open_dir(at, &work));
            if path == Path::new("/") {
                // A directory in the upper layer lends the merged one its owner: its top is writable inside.
                for name in self.facts.host_top.clone() {
                    self.mkdir(Arg::Slot(up), &name, 0o755);
                }
                root = Some(self.overlay(&[lower], (up, work), true));
            } else {
                let first = self.b.len();
                let mount = self.overlay(&[lower], (up, work), true);
                if optional {
                    self.b.may_be_left_out(first, NO_LAYER, &path.to_string_lossy());
                }
                self.root_parts.push(mount);
                self.later(mount, path, true, false);
                self.attach.last_mut().expect("just pushed").optional = optional;
            }
        }
        let root = root.unwrap_or_else(|| {
            self.mkdir(at, "root", 0o755);
            let dir = self.open_dir(at, "root");
            for entry in self.facts.host.clone() {
                match entry {
                    HostEntry::Dir(path) | HostEntry::Mount(path) | HostEntry::Bind(path) => {
                        let path = path.to_string_lossy();
                        self.mkdir(Arg::Slot(dir), path.trim_start_matches('/'), 0o755);
                    }
                    HostEntry::Symlink(path, target) => {
                        let path = path.to_string_lossy().into_owned();
                        let target = self.b.text(target.as_os_str().as_bytes());
                        let link = self.b.text(path.trim_start_matches('/'));
                        self.b.op(call::SYMLINKAT, [target, Arg::Slot(dir), link]).path(path);
                    }
                    HostEntry::Overlay(_) => {}
                }
            }
            self.clone_dir(scratch, "root")
        });
        for (i, (path, mode)) in self.facts.hidden.iter().enumerate() {
            let name = format!("h{i}");
            self.mkdir(at, &name, *mode);
            let dir = self.clone_dir(scratch, &name);
            self.later(dir, path.clone(), true, true);
        }
        root
    }
}
