//! Device nodes in /dev, and rules about devices: as they are at the start, and changes of them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde_json::{Value, json};

use super::update::Undo;
use super::{Container, Inner};
use crate::cgroup::{DeviceRules, Numbers};
use crate::error::{Error, ErrorKind, Result};
use crate::launch::nodes;
use crate::namespace::Namespace;
use crate::plan::facts::DeviceFact;
use crate::plan::nodes::NodeSource;
use crate::proto::{record, request};
use crate::spec::{Device, DeviceAccess, NamespaceKind, NamespaceSource, Spec};
use crate::sys::rights;

/// The devices of a container, by their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    /// Of each entry of `devices`.
    pub given: Vec<DeviceFact>,
    /// Of macvtaps.
    pub taps: Vec<u64>,
}

/// For other programs that take up a detached container, under this key of its record.
pub(super) const NODES: &str = "device_nodes";

impl Nodes {
    pub fn describe(&self) -> Value {
        let given = self.given.iter().map(|fact| json!([fact.kind, fact.number, fact.mode, fact.uid, fact.gid]));
        json!({"given": given.collect::<Vec<_>>(), "taps": self.taps})
    }

    /// What a record has under [`NODES`].
    pub fn recorded(data: &Value) -> Self {
        let list = |key| data[NODES][key].as_array().into_iter().flatten();
        let fact = |fact: &Value| {
            let number = |i: usize| fact[i].as_u64().unwrap_or(0);
            let [kind, mode, uid, gid] = [0, 2, 3, 4].map(|i| number(i) as u32);
            DeviceFact { kind, number: number(1), mode, uid, gid }
        };
        Self { given: list("given").map(fact).collect(), taps: list("taps").filter_map(Value::as_u64).collect() }
    }
}

/// To write a device's rules takes CAP_SYS_ADMIN of the machine itself, for a BPF program as for the controller of v1.
pub(crate) fn may_rule() -> bool {
    rights::capabilities() & 1 << rights::CAP_SYS_ADMIN != 0 && rights::in_initial_user_namespace()
}

/// The rules of a container with this spec. `standard`: those that every container has are for it too when nothing else is asked
/// for. They are not for who sees the host's /dev. They are for containers with a user namespace as well: no node can be made there,
/// but with CAP_SYS_ADMIN in it root can take `nodev` away from the mount of an image that has some.
pub(super) fn rules(spec: &Spec, nodes: &Nodes, standard: bool) -> Result<Option<DeviceRules>> {
    let narrower = || spec.devices.iter().position(|device| !device.access.contains(DeviceAccess::default()));
    let field = match spec.device_rules.is_empty() {
        false => Some("device_rules".to_owned()),
        true => narrower().map(|i| format!("devices[{i}].access")),
    };
    if !may_rule() {
        let Some(field) = field else { return Ok(None) };
        let what = "rules about devices take CAP_SYS_ADMIN of the machine itself";
        return Err(Error::new(ErrorKind::PermissionDenied, what).with_field(field).with_errno(libc::EPERM).with_hint(
            "without them a container of an ordinary user can make no device node, and has those of /dev and `devices`, for reading \
             and writing as far as their modes allow",
        ));
    }
    if field.is_none() && !standard {
        return Ok(None);
    }
    let given = spec.devices.iter().zip(&nodes.given);
    let given = given.map(|(device, fact)| (Numbers::of(fact.kind, fact.number), device.access));
    let taps = nodes.taps.iter().map(|&number| (Numbers::of(libc::S_IFCHR, number), DeviceAccess::default()));
    let given: Vec<_> = given.chain(taps).collect();
    Ok(Some(DeviceRules::new(&spec.device_rules, &given, field)))
}

/// For a pod, whose containers have their rules themselves.
pub(super) fn rules_of_pod(spec: &Spec) -> Result<Option<DeviceRules>> {
    Ok(rules(spec, &Nodes::default(), false)?.or_else(|| may_rule().then(DeviceRules::everything)))
}

/// Whether the standard rules are for a container with this spec.
pub(super) fn has_own_dev(spec: &Spec) -> bool {
    super::namespace_source(spec, NamespaceKind::Mnt) == NamespaceSource::New
}

impl Inner {
    /// `devices` and `device_rules`. How to take back what was done is in `undo`, also after an error.
    pub(super) fn change_devices<'a>(
        &'a self,
        now: &Spec,
        new: &Spec,
        nodes: &mut Nodes,
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        if now.devices == new.devices && now.device_rules == new.device_rules {
            return Ok(());
        }
        let same = |one: &Device, other: &Device| one.path == other.path && one.target == other.target;
        let (mut added, mut after) = (Vec::new(), Nodes { given: Vec::new(), ..nodes.clone() });
        for (i, device) in new.devices.iter().enumerate() {
            let field = format!("devices[{i}]");
            let known = now.devices.iter().position(|known| same(known, device));
            let fact = match known.and_then(|at| nodes.given.get(at)) {
                Some(fact) => *fact,
                None => {
                    let looked = nodes::look(&device.path, device.access, self.caller(), self.makes_nodes());
                    let fact = looked.map_err(|e| e.with_field(&*field).with_path(device.path.to_string_lossy()))?;
                    added.push((field, device.clone(), fact));
                    fact
                }
            };
            after.given.push(fact);
        }
        self.change_rules(now, new, nodes, &after, undo)?;
        let given = now.devices.iter().zip(&nodes.given);
        let gone: Vec<_> = given.filter(|(device, _)| !new.devices.iter().any(|kept| same(kept, device))).collect();
        // What may be refused comes first, so that a refusal takes nothing away: all but what is where another one was.
        let in_place = |new: &Device| gone.iter().any(|(old, _)| new.target.starts_with(&old.target));
        let (replaced, fresh): (Vec<_>, _) = added.into_iter().partition(|(_, device, _)| in_place(device));
        self.add_nodes(fresh, undo)?;
        for (device, fact) in gone {
            self.remove_node("devices", fact, &device.target)?;
            let (device, fact) = (device.clone(), *fact);
            undo.note("devices", move || self.add_node("devices", &device, &fact));
        }
        self.add_nodes(replaced, undo)?;
        *nodes = after;
        Ok(())
    }

    fn add_nodes<'a>(&'a self, added: Vec<(String, Device, DeviceFact)>, undo: &mut Undo<'a>) -> Result<()> {
        for (field, device, fact) in added {
            self.add_node(&field, &device, &fact)?;
            undo.note("devices", move || self.remove_node("devices", &fact, &device.target));
        }
        Ok(())
    }

    fn change_rules<'a>(
        &'a self,
        now: &Spec,
        new: &Spec,
        before: &Nodes,
        after: &Nodes,
        undo: &mut Undo<'a>,
    ) -> Result<()> {
        let standard = has_own_dev(&self.spec) && !self.is_holder();
        let (old, rules) = (rules(now, before, standard)?, rules(new, after, standard)?);
        if old == rules {
            return Ok(());
        }
        let everything = DeviceRules::everything();
        let old = old.unwrap_or_else(DeviceRules::everything);
        let rules = rules.unwrap_or(everything);
        let Some(group) = &self.group else {
            // There are none then, and what is there already asks for none.
            return match rules.field() {
                Some(field) => Err(super::no_group().with_field(field)),
                None => Ok(()),
            };
        };
        group.set_device_rules(Some(&old), &rules)?;
        undo.note("device_rules", move || group.set_device_rules(Some(&rules), &old));
        Ok(())
    }

    /// It has the namespaces of a pod, and no /dev.
    fn is_holder(&self) -> bool {
        self.holder
    }

    /// The ids of an ordinary caller.
    fn caller(&self) -> Option<(u32, u32)> {
        let here = || (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let outer = self.keeper.outer.as_ref().map(|outer| (outer.uid, outer.gid));
        (!self.keeper.privileged).then(|| outer.unwrap_or_else(here))
    }

    /// Whether the container has nodes of its own.
    fn makes_nodes(&self) -> bool {
        self.keeper.privileged && nodes::may_make()
    }

    /// A mount with one node, its ids the container's.
    fn make_node(&self, fact: &DeviceFact) -> Result<OwnedFd> {
        let idmap = &self.info()["idmap"];
        let mapped = |kind: &str, id: u32| {
            let number = |map: &Value, i: usize| map[i].as_u64().unwrap_or(0);
            let within = |map: &Value| (number(map, 0)..number(map, 0) + number(map, 2)).contains(&id.into());
            idmap[kind].as_array().is_none_or(|maps| maps.iter().any(within))
        };
        let uid = if mapped("uid", fact.uid) { fact.uid } else { 0 };
        let gid = if mapped("gid", fact.gid) { fact.gid } else { 0 };
        let node = DeviceFact { uid, gid, ..*fact };
        let mount = nodes::make(&[node], self.spec.mount_label.as_deref())?;
        if idmap["idmapped_mounts"] == true {
            let user = Namespace::of_pidfd(self.pidfd(), NamespaceKind::User)?;
            crate::sys::mount::idmap(mount.as_fd(), user.as_fd(), false, false)
                .map_err(|e| Error::os("mount_setattr", e))?;
        }
        Ok(mount)
    }

    fn add_node(&self, field: &str, device: &Device, fact: &DeviceFact) -> Result<()> {
        let named = |e: Error| if e.field().is_some() { e } else { e.with_field(field) };
        let (source, mount) = match self.keeper.privileged {
            true if nodes::may_make() => (NodeSource::Own, Some(self.make_node(fact).map_err(named)?)),
            true => (NodeSource::Host(&device.path), None),
            false => (NodeSource::Outer(&device.path), None),
        };
        let joining = self.outside_of_groups();
        let (compiled, needs) =
            crate::plan::nodes::add(&joining, self.may_setgroups, field, &source, fact, &device.target);
        let done = self.ask(request::CALL, None, (&compiled, &needs), &[mount, None, None], None, record::ENDED);
        let error = match done {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if error.step() == Some("mknodat") && error.errno() == libc::EEXIST {
            let what = "something is there already";
            return Err(error
                .with_kind(ErrorKind::AlreadyExists)
                .with_field(format!("{field}.target"))
                .with_detail(what));
        }
        Err(error)
    }

    fn remove_node(&self, field: &str, fact: &DeviceFact, target: &Path) -> Result<()> {
        let joining = self.outside_of_groups();
        let (compiled, needs) = crate::plan::nodes::remove(&joining, self.may_setgroups, field, fact, target);
        let none = [None, None, None];
        let done = self.ask(request::CALL, None, (&compiled, &needs), &none, None, record::ENDED);
        done.map(drop).map_err(|e| match e.errno() {
            libc::ELOOP | libc::ENOENT | libc::ENOTDIR if e.kind() != ErrorKind::Closed => {
                e.with_kind(ErrorKind::NotFound).with_detail("the container has something else there by now")
            }
            _ => e,
        })
    }
}

impl Container {
    /// Gives the container a device of the host while it runs: a node in its /dev, and the rule that allows what `access` says. As
    /// an entry of the field [`devices`](Spec#structfield.devices) at a start, which it is from then on.
    ///
    /// The node is put there by a task that joins: whatever the container has made of its /dev, no symlink is followed, and nothing
    /// that is there is covered. All of it or nothing. Detached containers can be given devices by every program of their user.
    ///
    /// # Errors
    /// As a start with this entry (`devices[N]`); AlreadyExists (`devices[N].target`) when something is there; InvalidSpec for a target
    /// that another entry has, and for a container without a mount namespace of its own; PermissionDenied for an access without
    /// `r` or `w` without CAP_SYS_ADMIN; Closed.
    pub fn add_device(&self, device: impl Into<Device>) -> Result<()> {
        self.update(|spec| spec.devices.push(device.into()))
    }

    /// As [`add_device`](Self::add_device), with an entry as [`Spec::set`] takes it: `path[:target][:access]`, or an object as JSON.
    pub fn add_device_json(&self, device: &str) -> Result<()> {
        let mut one = Spec::new();
        one.set("devices", device.as_bytes())?;
        match <[Device; 1]>::try_from(one.devices) {
            Ok([device]) => self.add_device(device),
            Err(_) => Err(Error::spec("devices", "is not one device: path[:target][:access], or an object")),
        }
    }

    /// Takes a device away that the field `devices` or [`add_device`](Self::add_device) gave it, by its path inside. What has it open
    /// keeps it; it cannot be opened any more, by nodes that the container made of it neither (where there are rules).
    ///
    /// # Errors
    /// NotFound (`target`) for what was not given so, and (`devices`) when the container has put something else there; Closed.
    pub fn remove_device(&self, target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref();
        let mut found = false;
        self.change(|spec| {
            let before = spec.devices.len();
            spec.devices.retain(|device| device.target != target);
            found = spec.devices.len() < before;
            if found {
                return Ok(());
            }
            Err(Error::new(ErrorKind::NotFound, format!("{target:?} is the target of no device of the container"))
                .with_field("target")
                .with_errno(libc::ENOENT))
        })
    }
}
