//! Fields that do not go together.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::spec::at::At;
use crate::spec::{Idmap, MountKind, NamespaceKind, NamespaceSource, Net, Spec, fields, net};

/// What only a main process has. Commands in a running container take what confines them (`capabilities`, `seccomp`, `landlock`, ...)
/// from its spec, and these from themselves alone.
const OF_MAIN: [&str; 16] = [
    "env",
    "env_inherit",
    "cwd",
    "groups",
    "umask",
    "terminal",
    "stdin",
    "stdout",
    "stderr",
    "log_max",
    "io_priority",
    "rlimits",
    "nice",
    "scheduler",
    "oom_score_adj",
    "pass_fds",
];

impl Spec {
    /// For callers that start a container and only wait for it, as [`run`](crate::run) does.
    ///
    /// # Errors
    /// InvalidSpec when a rule of `seccomp` has the action `notify`: nobody would answer. What is wrong with such a spec for
    /// everybody is said first.
    pub fn check_unanswered(&self) -> Result<()> {
        if !self.seccomp.notifies() {
            return Ok(());
        }
        self.validate()?;
        Err(Error::spec("seccomp", "asks the host about calls, and nobody could answer them while this waits")
            .with_hint("start a Container, and answer them with its syscall_listener"))
    }

    /// Fields that are each fine, but not together.
    pub(super) fn validate_contradictions(&self) -> Result<()> {
        if self.detach && self.name.is_none() {
            return Err(Error::spec("detach", "a detached container needs a name, by which it is found again")
                .with_hint("set name"));
        }
        if self.detach {
            net::detached(self.net.attachments())?;
        }
        if self.detach && self.seccomp.notifies() {
            return Err(Error::spec(
                "detach",
                "calls with the action \"notify\" are answered by this program, which it outlives",
            )
            .with_hint("leave out detach, or give those calls another action"));
        }
        if !self.init && self.argv.is_empty() {
            return Err(
                Error::spec("init", "without init the payload is pid 1, and there is no argv").with_hint("set argv")
            );
        }
        let source = |kind| self.namespaces.get(&kind);
        let field = |kind: NamespaceKind| At::Field("namespaces").key(kind.name()).to_string();
        match (source(NamespaceKind::Net), &self.net) {
            (None, _) | (_, Net::Loopback) => {}
            (Some(NamespaceSource::New), Net::None | Net::Attached(_)) | (Some(NamespaceSource::Host), Net::Host) => {}
            (Some(_), _) => {
                return Err(Error::spec("net", "contradicts namespaces.net").with_hint("set only one of the two"));
            }
        }
        match (source(NamespaceKind::User), &self.idmap) {
            (None, _) | (Some(NamespaceSource::Host), Idmap::Host) => {}
            (Some(NamespaceSource::Host), _) => {
                return Err(Error::spec(field(NamespaceKind::User), "idmap decides the user namespace")
                    .with_hint("set idmap to \"host\" to have none"));
            }
            (Some(NamespaceSource::New), Idmap::Host) => {
                return Err(Error::spec("idmap", "contradicts namespaces.user").with_hint("set only one of the two"));
            }
            (Some(NamespaceSource::New), _) | (Some(_), Idmap::Auto) => {}
            (Some(_), _) => {
                return Err(Error::spec(
                    "idmap",
                    "a user namespace that is joined has its map already (namespaces.user)",
                )
                .with_hint("leave idmap out"));
            }
        }
        let foreign =
            |kind| matches!(source(kind), Some(source) if !matches!(source, NamespaceSource::New)).then(|| field(kind));
        let defaults = Spec::default();
        for (kind, what, fields) in [
            (
                NamespaceKind::Uts,
                "it would rename a UTS namespace that is not the container's own",
                &[("hostname", self.hostname.is_some()), ("domainname", self.domainname.is_some())][..],
            ),
            (
                NamespaceKind::Time,
                "offsets can be set in a new time namespace only",
                &[("time_offsets", self.time_offsets != defaults.time_offsets)],
            ),
            (
                NamespaceKind::Mnt,
                "it would change a mount namespace that is not the container's own",
                &[
                    ("rootfs", self.rootfs != defaults.rootfs),
                    ("mounts", !self.mounts.is_empty()),
                    ("files", !self.files.is_empty()),
                    ("devices", !self.devices.is_empty()),
                    ("shm_size", self.shm_size.is_some()),
                    ("disk", self.disk.is_some()),
                    ("inodes", self.inodes.is_some()),
                    ("quota", !self.quota.is_empty()),
                    ("ptys", self.ptys.is_some()),
                    ("mount_label", self.mount_label.is_some()),
                    ("dns", !self.dns.is_empty()),
                    ("hosts", !self.hosts.is_empty()),
                    ("masked_paths", self.masked_paths.is_some()),
                    ("readonly_paths", self.readonly_paths.is_some()),
                ],
            ),
        ] {
            if let (Some(namespace), Some((field, _))) = (foreign(kind), fields.iter().find(|(_, set)| *set)) {
                return Err(Error::spec(*field, what).with_hint(format!("leave out {field} or {namespace}")));
            }
        }
        self.validate_nesting()?;
        let own =
            self.idmap != Idmap::Host && !matches!(source(NamespaceKind::User), Some(s) if *s != NamespaceSource::New);
        let formats = self.mounts.iter().position(|mount| matches!(mount.kind, MountKind::BinfmtMisc { .. }));
        if let Some(i) = formats.filter(|_| !own) {
            return Err(Error::spec(
                format!("mounts[{i}].type"),
                "without a user namespace of its own, a container's binfmt_misc is that of others",
            )
            .with_hint("leave idmap and namespaces.user at their defaults"));
        }
        self.validate_disk_contradictions()?;
        self.validate_passed_limits()
    }

    /// Nothing would come of these fields, and who set them takes it that something does.
    /// (But of `user`: it is also whose the files are that are copied in, and those of mounts with an owner.)
    pub(super) fn validate_absent_main(&self) -> Result<()> {
        if !self.argv.is_empty() {
            return Ok(());
        }
        let mut set = fields::differences(&Self::default(), self).into_iter();
        match set.find(|field| OF_MAIN.contains(field)) {
            Some(field) => Err(Error::spec(field, "there is no main process: argv is not set")
                .with_hint("set argv, or give it to what is started inside: command, run and popen take it, calls as one of their options")),
            None => Ok(()),
        }
    }

    /// Inside, the kernel makes new instances of /proc and /sys only where whole ones are seen, and of namespaces that are the
    /// container's own.
    fn validate_nesting(&self) -> Result<()> {
        if !self.nesting {
            return Ok(());
        }
        let refuse = |why: String, field: &str| {
            Err(Error::spec("nesting", why).with_hint(format!("leave out nesting or {field}")))
        };
        if self.seccomp.is_strict() {
            return refuse("the seccomp profile \"strict\" lets nobody make namespaces".into(), "seccomp");
        }
        if self.idmap == Idmap::Host {
            return refuse(
                "needs a user namespace: without one root inside would have a writable /proc of the machine".into(),
                "idmap",
            );
        }
        if self.cpu_rt_runtime.is_some() {
            return refuse(
                "divides the groups of the cpu controller, and a budget of real-time is not divided".into(),
                "cpu_rt_runtime",
            );
        }
        if self.net == Net::Host {
            return refuse("needs a network namespace of its own, to which its /sys belongs".into(), "net");
        }
        let kinds =
            [NamespaceKind::User, NamespaceKind::Mnt, NamespaceKind::Pid, NamespaceKind::Net, NamespaceKind::Cgroup];
        for kind in kinds {
            if self.namespaces.get(&kind).is_some_and(|source| *source != NamespaceSource::New) {
                let name = kind.name();
                return refuse(format!("needs a new {name} namespace"), &format!("namespaces.{name}"));
            }
        }
        for (field, paths) in [("masked_paths", &self.masked_paths), ("readonly_paths", &self.readonly_paths)] {
            let covers = |path: &&PathBuf| ["/proc", "/sys"].iter().any(|whole| path.starts_with(whole));
            if let Some(path) = paths.iter().flatten().find(covers) {
                return refuse(format!("needs a whole /proc and /sys, and {field} has {}", path.display()), field);
            }
        }
        Ok(())
    }
}
