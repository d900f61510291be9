//! What this machine and this caller can do, why not, and what to do about it.

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `namespaces.user`, `cgroup.memory`, `idmap.newuidmap`, ...
    pub what: String,
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do, when not ok.
    pub remedy: Option<String>,
    /// Without it no container starts with the defaults.
    pub essential: bool,
}

/// The table. `Display` draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn to_json(&self) -> String {
        unimplemented!()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}

/// Probes the machine; nothing is changed.
pub fn doctor() -> Report {
    unimplemented!()
}

/// What to do about a failed step on this machine.
pub(crate) fn explain(_step: &str, _errno: i32) -> Option<String> {
    None
}
