//! /dev, and device nodes of the host in it.

use std::path::Path;

use super::{ContainerPlan, DISK, NODEV, NOEXEC, NOSUID, RDONLY, TREE_CLONE, namespace_source};
use crate::plan::builder::{Arg, call};
use crate::plan::facts::{DeviceFact, Need, TapsFact};
use crate::plan::idmap::Ids;
use crate::spec::{NamespaceKind as Ns, NamespaceSource, Spec};

/// A device node of the host's that is bound: a device can be written to on a read-only mount, while the node's mode, owner and
/// times, which root would change for the host too where its ids are the host's, cannot.
pub(super) const NODE_OF_HOST: u64 = RDONLY | NOSUID;

pub(crate) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The group of terminals, where the container has it.
pub(crate) const TTY: u32 = 5;

/// The options of a devpts of the container: its own at /dev/pts, or one of `mounts`. A change of one of them has to give all,
/// because what it leaves out gets the kernel's default.
pub(crate) fn devpts_options(spec: &Spec, has_tty: bool, own: bool) -> Vec<(&'static str, String)> {
    let mut options = vec![("ptmxmode", "0666".to_owned()), ("mode", "0620".to_owned())];
    if own && has_tty {
        options.push(("gid", TTY.to_string()));
    }
    options.extend(spec.ptys.map(|ptys| ("max", ptys.to_string())));
    options
}

/// The size of /dev/shm.
pub(crate) fn shm_size(spec: &Spec) -> u64 {
    spec.shm_size.unwrap_or(Spec::SHM_SIZE)
}

impl<'a> ContainerPlan<'a> {
    pub(super) fn devices(&mut self, scratch: u16) {
        self.b.field("/dev");
        let at = Arg::Slot(scratch);
        self.mkdir(at, "dev", 0o755);
        let names = ["dev/pts", "dev/shm", "dev/mqueue"];
        names.iter().for_each(|name| self.mkdir(at, name, 0o755));
        let mode = libc::S_IFREG | 0o666;
        for (name, _, _) in DEVICES {
            let file = format!("dev/{name}");
            let text = self.b.text(&file);
            self.b.op(call::MKNODAT, [at, text, mode.into(), 0.into()]).path(format!("/{file}"));
        }
        let links = [
            ("ptmx", "pts/ptmx"),
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
        ];
        for (name, target) in links {
            let (target, link) = (self.b.text(target), self.b.text(format!("dev/{name}")));
            self.b.op(call::SYMLINKAT, [target, at, link]).path(format!("/dev/{name}"));
        }
        let dev = self.clone_dir(scratch, "dev");
        self.set_attributes(dev, NOSUID | NOEXEC, false);
        if self.facts.watch_disk {
            self.b.op(call::SEND_FD, [Arg::Slot(dev), DISK.into()]);
        }
        self.later(dev, "/dev", true, true);
        // mknod of devices is not for user namespaces: the host's nodes, bound, after a look at what they are.
        for (name, major, minor) in DEVICES {
            let path = format!("/dev/{name}");
            let tree = self.tree(Path::new(&path), false, &Ids::Host);
            let device = libc::makedev(major, minor);
            self.b.op(call::VERIFY, [Arg::Slot(tree), libc::S_IFCHR.into(), device.into()]).path(&*path);
            self.set_attributes(tree, NODE_OF_HOST, false);
            self.later(tree, path, false, true);
        }
        self.given_devices();
        if let Some(taps) = &self.facts.taps {
            self.taps(at, taps);
        }
        self.b.field("/dev/pts");
        // A joined user namespace may not have the group.
        let unknown = !self.is_own(Ns::User) && namespace_source(self.spec, Ns::User) != NamespaceSource::Host;
        let has_tty = self.facts.idmaps.as_ref().map_or(!unknown, |maps| maps.has_gid(TTY));
        let pts = self.new_fs("devpts", &devpts_options(self.spec, has_tty, true), NOSUID | NOEXEC);
        self.later(pts, "/dev/pts", true, true);
        self.b.field("shm_size");
        let shm = if self.facts.shared_shm { self.need(Need::SharedMemory) } else { self.shared_memory() };
        self.later(shm, "/dev/shm", true, true);
        if self.is_own(Ns::Ipc) {
            self.b.field("/dev/mqueue");
            let mqueue = self.new_fs("mqueue", &[], NOSUID | NODEV | NOEXEC);
            self.later(mqueue, "/dev/mqueue", true, true);
        }
    }

    pub(super) fn shared_memory(&mut self) -> u16 {
        let size = shm_size(self.spec).to_string();
        self.new_fs("tmpfs", &[("mode", "1777".into()), ("size", size)], NOSUID | NODEV | NOEXEC)
    }

    /// `devices`: nodes of the container's own, from a mount that the caller has made, or the host's, bound.
    fn given_devices(&mut self) {
        if self.spec.devices.is_empty() {
            return;
        }
        let nodes = self.facts.own_nodes.then(|| {
            self.b.field("devices");
            let root = self.facts.root;
            let maps = self.facts.idmaps.as_ref();
            let mapped = |fact: &DeviceFact| DeviceFact {
                uid: if maps.is_none_or(|maps| maps.has_uid(fact.uid)) { fact.uid } else { root.0 },
                gid: if maps.is_none_or(|maps| maps.has_gid(fact.gid)) { fact.gid } else { root.1 },
                ..*fact
            };
            let nodes = self.facts.devices.iter().map(mapped).collect();
            let slot = self.need(Need::Nodes(nodes, self.spec.mount_label.clone()));
            self.note_ids(slot, false, &Ids::Container, Path::new(""));
            self.stage(slot);
            slot
        });
        for (i, device) in self.spec.devices.iter().enumerate() {
            self.b.field(format!("devices[{i}]"));
            let shown = device.path.to_string_lossy().into_owned();
            let (tree, attributes) = match nodes {
                Some(nodes) => {
                    let name = self.b.text(i.to_string());
                    (self.b.op(call::OPEN_TREE, [Arg::Slot(nodes), name, TREE_CLONE.into()]).path(shown).keep(), NOSUID)
                }
                None => {
                    let DeviceFact { kind, number, .. } = self.facts.devices[i];
                    let tree = self.tree(&device.path, false, &Ids::Host);
                    self.b.op(call::VERIFY, [Arg::Slot(tree), kind.into(), number.into()]).path(shown);
                    (tree, NODE_OF_HOST)
                }
            };
            self.set_attributes(tree, attributes | NOEXEC, false);
            self.later(tree, device.target.clone(), false, true);
        }
    }

    /// Nodes of macvtaps come with the devices, by names that are known before their numbers are. The host makes them on the mount that is
    /// there: a clone to be idmapped would take Linux 6.15, so their ids are the host's.
    fn taps(&mut self, scratch: Arg, taps: &TapsFact) {
        self.b.field("net");
        self.mkdir(scratch, "dev/taps", 0o755);
        for (name, number) in &taps.devices {
            let (target, link) = (self.b.text(format!("taps/{name}")), self.b.text(format!("dev/tap{number}")));
            self.b.op(call::SYMLINKAT, [target, scratch, link]).path(format!("/dev/tap{number}"));
        }
        let directory = self.need(Need::Pass(taps.directory));
        self.later(directory, "/dev/taps", true, true);
    }
}
