//! What is mounted in the root: file systems of the kernel, the spec's mounts and files.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::devices::devpts_options;
use super::{
    CLOEXEC, ContainerPlan, HOSTS, NODEV, NOEXEC, NOSUID, RDONLY, RESOLV_CONF, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS,
    hosts_text, namespace_source,
};
use crate::plan::builder::{Arg, call};
use crate::plan::facts::{GroupMount, Need};
use crate::plan::idmap::Ids;
use crate::spec::{BindSource, MountKind, NamespaceKind as Ns, NamespaceSource};

/// A binfmt_misc, and what is to be registered in it.
pub(super) struct Formats<'a> {
    field: Arc<str>,
    tree: u16,
    register: &'a [std::ffi::OsString],
    readonly: bool,
}

/// The interpreter of a line of binfmt.d(5) that the kernel opens when the line is written (flag F).
fn opened_at_once(line: &[u8]) -> Option<&[u8]> {
    let (&separator, rest) = line.split_first()?;
    let mut fields = rest.split(|&byte| byte == separator).skip(5);
    let (interpreter, flags) = (fields.next()?, fields.next()?);
    flags.contains(&b'F').then_some(interpreter)
}

impl<'a> ContainerPlan<'a> {
    fn has_mount_at(&self, target: &str) -> bool {
        self.spec.mounts.iter().any(|m| m.target == Path::new(target))
    }

    /// The container's own groups, to be divided inside.
    fn own_groups(&mut self, scratch: u16) {
        const PLACE: &str = "/sys/fs/cgroup";
        if self.has_mount_at(PLACE) {
            return;
        }
        self.b.field(PLACE);
        let attributes = NOSUID | NODEV | NOEXEC;
        match self.facts.group_mounts.clone().as_slice() {
            [] => {}
            [GroupMount { v2: true, .. }] if self.facts.pure_v2 => {
                let group = self.new_fs("cgroup2", &[], attributes);
                self.later(group, PLACE, true, true);
            }
            hierarchies => {
                self.mkdir(Arg::Slot(scratch), "groups", 0o755);
                for hierarchy in hierarchies {
                    self.mkdir(Arg::Slot(scratch), &format!("groups/{}", hierarchy.name), 0o755);
                }
                let place = self.clone_dir(scratch, "groups");
                self.set_attributes(place, RDONLY | attributes, false);
                self.later(place, PLACE, true, true);
                for hierarchy in hierarchies {
                    let mount = match hierarchy.v2 {
                        true => self.new_fs("cgroup2", &[], attributes),
                        false => self.v1_hierarchy(&hierarchy.controllers, attributes),
                    };
                    self.later(mount, format!("{PLACE}/{}", hierarchy.name), true, true);
                }
            }
        }
    }

    /// The v2 tree, as its namespace of control groups shows it. In the host's the mount's options are those of the whole
    /// tree (cgroup_reconfigure() in the kernel): without the host's own, its `nsdelegate` would end here, and with it the
    /// borders of all namespaces.
    fn control_groups(&mut self, attributes: u64) -> u16 {
        const SET_FLAG: i32 = 0;
        let kind = "cgroup2";
        if self.is_new(Ns::Cgroup) {
            return self.new_fs(kind, &[], attributes);
        }
        let name = self.b.text(kind);
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        for option in &self.facts.group_options {
            let key = self.b.text(&**option);
            self.b.op(call::FSCONFIG, [Arg::Slot(context), SET_FLAG.into(), key, 0.into(), 0.into()]).path(&**option);
        }
        self.create_fs(context, kind).hint(
            "the tree of a control group namespace that is not the container's own takes root, and no user namespace",
        );
        self.mount_fs(context, kind, attributes)
    }

    /// A hierarchy is known by its controllers: flags, and the name of one without any.
    fn v1_hierarchy(&mut self, controllers: &[String], attributes: u64) -> u16 {
        const SET_FLAG: i32 = 0;
        const SET_STRING: i32 = 1;
        let kind = "cgroup";
        let name = self.b.text(kind);
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).keep();
        for controller in controllers {
            let (how, key, value) = match controller.strip_prefix("name=") {
                Some(name) => (SET_STRING, self.b.text("name"), self.b.text(name)),
                None => (SET_FLAG, self.b.text(controller), 0.into()),
            };
            self.b.op(call::FSCONFIG, [Arg::Slot(context), how.into(), key, value, 0.into()]).path(&**controller);
        }
        self.finish_fs(context, kind, attributes)
    }

    pub(super) fn file_systems(&mut self, scratch: u16) {
        if !self.has_mount_at("/proc") {
            self.b.field("/proc");
            let proc = self.proc();
            self.later(proc, "/proc", true, true);
        }
        if !self.has_mount_at("/sys") {
            self.b.field("/sys");
            let sys = self.sysfs(!self.spec.nesting);
            self.later(sys, "/sys", true, true);
            if self.spec.nesting {
                self.own_groups(scratch);
            } else if self.facts.pure_v2 && self.is_new(Ns::Cgroup) && !self.has_mount_at("/sys/fs/cgroup") {
                self.b.field("/sys/fs/cgroup");
                let group = self.new_fs("cgroup2", &[], RDONLY | NOSUID | NODEV | NOEXEC);
                self.later(group, "/sys/fs/cgroup", true, true);
            }
        }
    }

    /// A proc of somebody else's pid namespace, which root of a user namespace of its own may not make.
    pub(super) fn proc_of(&mut self, namespace: u16) -> u16 {
        const SET_FD: i32 = 5;
        let kind = "proc";
        let hint = "the /proc of a pid namespace that is joined takes root and Linux 6.17; else join its user namespace too, or share both \
                    in a pod";
        let (name, key) = (self.b.text(kind), self.b.text("pidns"));
        let context = self.b.op(call::FSOPEN, [name, 1.into()]).path(kind).hint(hint).keep();
        let args = [Arg::Slot(context), SET_FD.into(), key, 0.into(), Arg::Slot(namespace)];
        self.b.op(call::FSCONFIG, args).path("proc pidns").hint(hint);
        self.finish_fs(context, kind, NOSUID | NODEV | NOEXEC)
    }

    fn proc(&mut self) -> u16 {
        if let Some(proc) = self.joined_proc {
            return proc;
        }
        // The host's /proc would show the host's processes, and not those that it is among.
        if self.is_own(Ns::Pid) || self.joins(Ns::Pid) {
            return self.new_fs("proc", &[], NOSUID | NODEV | NOEXEC);
        }
        let tree = self.tree(Path::new("/proc"), true, &Ids::Host);
        self.set_attributes(tree, NOSUID | NODEV | NOEXEC, true);
        tree
    }

    fn sysfs(&mut self, readonly: bool) -> u16 {
        let attributes = NOSUID | NODEV | NOEXEC | if readonly { RDONLY } else { 0 };
        if let Some(sys) = self.joined_sys.take() {
            self.set_attributes(sys, attributes | RDONLY, false);
            return sys;
        }
        let may = self.facts.privileged && namespace_source(self.spec, Ns::User) == NamespaceSource::Host;
        if self.is_own(Ns::Net) || (may && self.joins(Ns::Net)) {
            return self.new_fs("sysfs", &[], attributes);
        }
        // Only the network namespace's owner may mount it: the host's, without what is mounted on it (control groups, tracing).
        // An ordinary caller's copies of mounts are locked together and come as a whole.
        let whole = !self.facts.privileged;
        let tree = self.tree(Path::new("/sys"), whole, &Ids::Host);
        self.set_attributes(tree, attributes | RDONLY, whole);
        tree
    }

    pub(super) fn user_mounts(&mut self) {
        for (i, mount) in self.spec.mounts.iter().enumerate() {
            self.b.field(format!("mounts[{i}]"));
            let readonly = if mount.readonly { RDONLY } else { 0 };
            let common = NOSUID | NODEV;
            let (mut directory, mut below) = (true, None);
            let tree = match &mount.kind {
                MountKind::Bind { source, recursive } => {
                    directory = self.facts.mount_is_dir[i];
                    let ids = self.facts.mount_ids.get(i).cloned().unwrap_or_default();
                    let recursive = *recursive && ids.below.is_empty();
                    let tree = self.in_field_of(&ids, |plan| {
                        let path = match (source, &plan.facts.mount_paths[i]) {
                            (BindSource::Fd(fd), path) if plan.facts.privileged || matches!(ids.ids, Ids::Own(_)) => {
                                let field = plan.b.field.clone();
                                let slot = plan.need(Need::TreeOfFd { fd: *fd, recursive, field });
                                let path = path.clone().unwrap_or_default();
                                plan.note_ids(slot, recursive && mount.idmap_recursive, &ids.ids, &path);
                                return slot;
                            }
                            (BindSource::Path(path), None) | (_, Some(path)) => path,
                            (BindSource::Fd(_), None) => unreachable!("facts have a path for it"),
                        };
                        plan.tree_of(path, recursive, &ids.ids, mount.idmap_recursive)
                    });
                    self.set_attributes(tree, readonly | common, recursive);
                    below = Some((ids, readonly | common));
                    tree
                }
                MountKind::Volume { .. } => {
                    let path = self.facts.mount_paths[i].clone().expect("facts have a path for it");
                    let ids = self.facts.mount_ids.get(i).cloned().unwrap_or_default();
                    let tree = self.in_field_of(&ids, |plan| plan.tree(&path, false, &ids.ids));
                    self.set_attributes(tree, readonly | common, false);
                    tree
                }
                MountKind::Tmpfs { size, mode } => {
                    let mut options = vec![("mode", format!("{:o}", mode.unwrap_or(0o1777)))];
                    if let Some(size) = size {
                        options.push(("size", size.to_string()));
                    }
                    self.new_fs("tmpfs", &options, readonly | common)
                }
                MountKind::Proc => self.proc(),
                MountKind::Sysfs => self.sysfs(mount.readonly),
                MountKind::Mqueue => self.new_fs("mqueue", &[], readonly | common | NOEXEC),
                MountKind::Devpts => self.new_fs("devpts", &devpts_options(self.spec, false, false), NOSUID | NOEXEC),
                MountKind::Cgroup => self.control_groups(readonly | common | NOEXEC),
                MountKind::BinfmtMisc { register } => {
                    let tree = self.binfmt_misc();
                    let field = self.b.field.clone();
                    self.formats.push(Formats { field, tree, register, readonly: mount.readonly });
                    tree
                }
            };
            self.later(tree, mount.target.clone(), directory, false);
            if mount.target.starts_with("/proc/sys") {
                // What makes that read-only would be on top, and cover it.
                self.on_top.extend(self.attach.pop());
            }
            if let Some((ids, attributes)) = below {
                self.below(&ids, attributes, &mount.target);
            }
        }
    }

    /// The instance of the container's user namespace, which its processes' programs are looked up in from now on.
    fn binfmt_misc(&mut self) -> u16 {
        let kind = "binfmt_misc";
        let name = self.b.text(kind);
        let context = self
            .b
            .op(call::FSOPEN, [name, 1.into()])
            .path(kind)
            .hint("the kernel has none: it takes CONFIG_BINFMT_MISC, as a module one that can be loaded (modprobe binfmt_misc)")
            .keep();
        const CMD_CREATE: i32 = 6;
        let zero = || Arg::Imm(0);
        self.b
            .op(call::FSCONFIG, [Arg::Slot(context), CMD_CREATE.into(), zero(), zero(), zero()])
            .path(kind)
            .hint("one of a container's own takes Linux 6.7 or newer");
        let attributes = NOSUID | NODEV | NOEXEC;
        let mount = self.b.op(call::FSMOUNT, [Arg::Slot(context), 1.into(), attributes.into()]).path(kind).keep();
        self.b.op(call::CLOSE, [Arg::Slot(context)]);
        mount
    }

    /// Only now, because the interpreters are looked up in the container: at once, for those with flag F.
    pub(super) fn register(&mut self, formats: Formats<'_>) {
        for (i, line) in formats.register.iter().enumerate() {
            self.b.field(format!("{}.register[{i}]", formats.field));
            let shown = line.to_string_lossy().into_owned();
            if let Some(interpreter) = opened_at_once(line.as_bytes()) {
                // The kernel opens it as this task, whose /proc/self/fd leads to the host's files.
                let how = self.how(libc::O_PATH | CLOEXEC, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
                let path = self.b.text(interpreter);
                let file = self.b.op(call::OPENAT2, [libc::AT_FDCWD.into(), path, how, 24.into()]).path(&*shown).keep();
                self.b.op(call::VERIFY, [Arg::Slot(file), libc::S_IFREG.into(), 0.into()]).path(&*shown);
                self.b.op(call::CLOSE, [Arg::Slot(file)]);
            }
            let (name, data) = (self.b.text("register"), self.b.bytes(line.as_bytes()));
            let flags = libc::O_WRONLY | CLOEXEC;
            let file = self.b.op(call::OPENAT, [Arg::Slot(formats.tree), name, flags.into()]).path("register").keep();
            self.b
                .op(call::WRITE, [Arg::Slot(file), data, (line.len() as u64).into()])
                .path(shown)
                .hint("a line is :name:type:offset:magic:mask:interpreter:flags, each name once; see binfmt.d(5)");
            self.b.op(call::CLOSE, [Arg::Slot(file)]);
        }
        if formats.readonly {
            self.b.field(formats.field);
            self.set_attributes(formats.tree, RDONLY, false);
        }
    }

    /// Contents of `files`, /etc/hosts and /etc/resolv.conf: bound over their targets from memory, so that an image in use
    /// by others is not changed.
    pub(super) fn files(&mut self, scratch: u16) {
        let mut files: Vec<(String, PathBuf, Vec<u8>, u32)> = Vec::new();
        if !self.spec.dns.is_empty() {
            let text: String = self.spec.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
            files.push(("dns".into(), RESOLV_CONF.into(), text.into_bytes(), 0o644));
        } else if let Some(text) = &self.facts.name_servers {
            files.push(("net".into(), RESOLV_CONF.into(), text.clone().into_bytes(), 0o644));
        }
        let is_own = |path: &str| self.spec.files.contains_key(Path::new(path));
        if let Some(path) = self.facts.hosts.clone().filter(|_| !is_own("/etc/hosts")) {
            self.b.field("net");
            let tree = self.tree(&path, false, &Ids::Host);
            self.set_attributes(tree, RDONLY, false);
            self.later(tree, "/etc/hosts", false, false);
        } else if let Some(text) = hosts_text(self.spec, self.is_new(Ns::Mnt)) {
            files.push(("hosts".into(), "/etc/hosts".into(), text.into_bytes(), 0o644));
        }
        files.retain(|(_, target, _, _)| !self.spec.files.contains_key(target));
        for (path, file) in &self.spec.files {
            files.push((format!("files[{:?}]", path.to_string_lossy()), path.clone(), file.data.clone(), file.mode));
        }
        for (i, (field, target, data, mode)) in files.into_iter().enumerate() {
            let field_is_net = field == "net";
            self.b.field(field);
            let name = format!("f{i}");
            let text = self.b.text(&name);
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | CLOEXEC;
            let args = [Arg::Slot(scratch), text, flags.into(), mode.into()];
            let shown = target.to_string_lossy().into_owned();
            let file = self.b.op(call::OPENAT, args).path(&*shown).keep();
            let bytes = self.b.bytes(&data);
            self.b.op(call::WRITE_ALL, [Arg::Slot(file), bytes, (data.len() as u64).into()]).path(&*shown);
            if self.facts.sends_hosts && target == Path::new("/etc/hosts") {
                self.b.op(call::SEND_FD, [Arg::Slot(file), HOSTS.into()]);
            }
            self.b.op(call::CLOSE, [Arg::Slot(file)]);
            let tree = self.clone_dir(scratch, &name);
            let optional = field_is_net && target == Path::new(RESOLV_CONF);
            self.later(tree, target, false, false);
            if let Some(attach) = self.attach.last_mut().filter(|_| optional) {
                attach.optional = true;
            }
        }
    }
}
