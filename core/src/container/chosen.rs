//! What was chosen for a container, and what is told of it.

use serde_json::{Value, json};

use super::{Container, Inner, disk, ports};
use crate::cgroup::Group;
use crate::launch::Keeper;
use crate::plan::container::namespace_source;
use crate::plan::facts::DiskFact;
use crate::spec::{NamespaceKind, NamespaceSource, Spec};

/// What was chosen at the start.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) mode: &'static str,
    pub(super) maps: Option<crate::plan::facts::IdMaps>,
    pub(super) why: Option<String>,
    /// The caller's supplementary groups that came along.
    pub(super) groups: Vec<u32>,
    pub(super) left_out: Vec<std::path::PathBuf>,
    pub(super) disk: Option<DiskFact>,
    pub(super) home: Option<disk::Home>,
    /// The id of the pod.
    pub(super) pod: Option<String>,
}

impl Chosen {
    pub(super) fn describe(&self, spec: &Spec, id: &str, pid: i32, keeper: &Keeper, group: Option<&Group>) -> Value {
        let lines = |text: &str| -> Vec<Vec<u64>> {
            text.lines().map(|l| l.split_whitespace().filter_map(|n| n.parse().ok()).collect()).collect()
        };
        let maps = self.maps.as_ref();
        let namespaces: serde_json::Map<String, Value> = NamespaceKind::ALL
            .into_iter()
            .map(|kind| {
                let source = match namespace_source(spec, kind) {
                    NamespaceSource::New => "new",
                    NamespaceSource::Host => "host",
                    _ => "joined",
                };
                (kind.name().to_owned(), source.into())
            })
            .collect();
        json!({
            "id": id,
            "name": spec.name,
            "pid": pid,
            "keeper_pid": keeper.pid,
            "privileged": keeper.privileged,
            "detached": spec.detach,
            "idmap": {
                "mode": self.mode,
                "uid": maps.map(|m| lines(&m.uid)),
                "gid": maps.map(|m| lines(&m.gid)),
                "why": self.why,
                "idmapped_mounts": maps.is_some_and(|m| m.idmapped_mounts),
                "groups_kept": self.groups,
            },
            "namespaces": namespaces,
            "pod": self.pod,
            "cgroup": group.map_or(Value::Null, Group::describe),
            "device_rules": group.and_then(Group::device_rules_by),
            "disk": disk::describe(self.disk, self.home),
            "left_out": self.left_out.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>(),
        })
    }
}

impl Inner {
    pub(super) fn info(&self) -> &Value {
        let describe = || self.chosen.describe(&self.spec, &self.id, self.pid, &self.keeper, self.group.as_ref());
        self.info.get_or_init(describe)
    }
}

impl Container {
    /// What was chosen for the container, as JSON: id, pid, idmap (mode, maps in the keeper's ids, why not more), control
    /// groups, what limits the writable layer, namespaces, what of the host's tree was left out.
    pub fn info_json(&self) -> String {
        let inner = self.inner();
        let mut info = inner.info().clone();
        // An update may have given it more controllers since somebody asked first.
        if let Some(group) = inner.group.as_ref().filter(|_| inner.runs()) {
            info["cgroup"] = group.describe();
        }
        info["ports"] = ports::describe(&inner.ports);
        info.to_string()
    }
}
