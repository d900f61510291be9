//! Spec + what the machine offers -> Plan: pure functions, no system call.
//!
//! A plan is a flat list of system calls, each tagged with the field of the spec that asked for it; the keeper's children
//! interpret it. `plan()` shows one without doing it.

/// What a process asks its host to do to it.
pub(crate) mod attribute;
/// Puts operations and data into one buffer.
pub(crate) mod builder;
/// What confines a program beside its credentials.
pub(crate) mod confine;
/// The sections of a container's start and end.
pub(crate) mod container;
/// The environment of a payload.
pub(crate) mod env;
/// Joining a running container.
pub(crate) mod exec;
/// What plans are made from besides the spec.
pub(crate) mod facts;
/// Mounts with ids of their own.
pub(crate) mod idmap;
/// Device nodes of a running container.
pub(crate) mod nodes;
/// From a fresh child to the program.
pub(crate) mod process;
/// Sockets and files inside, for the host.
pub(crate) mod reach;
/// What carries connections to published ports.
pub(crate) mod relay;
/// Kernel parameters.
mod sysctl;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Value, json};

use self::builder::{Compiled, Tag};
use crate::error::Result;
use crate::proto::{Op, arg, pseudo, section, slot};
use crate::spec::Spec;

const SECTIONS: [&str; section::COUNT] = ["prepare", "setup", "payload", "undo", "lift", "end"];

/// What a start would do, step by step. `Display` is for people.
#[derive(Clone)]
pub struct Plan {
    compiled: Compiled,
    needs: Vec<facts::Need>,
    clone_flags: Vec<&'static str>,
    maps: Option<facts::IdMaps>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("steps", &self.compiled.ops.iter().map(Vec::len).sum::<usize>()).finish()
    }
}

impl Plan {
    pub(crate) fn compile(spec: &Spec, facts: &facts::Facts) -> Self {
        let (compiled, needs) = container::compile(spec, facts);
        let clone_flags = crate::spec::NamespaceKind::ALL
            .into_iter()
            .filter(|&kind| container::namespace_source(spec, kind) == crate::spec::NamespaceSource::New)
            .map(crate::spec::NamespaceKind::name)
            .collect();
        Self { compiled, needs, clone_flags, maps: facts.idmaps.clone() }
    }

    #[cfg(any(fuzzing, test))]
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.compiled.buffer
    }

    fn argument(&self, op: &Op, index: usize) -> Value {
        let value = op.args[index];
        match op.kinds[index] {
            arg::DATA => match self.compiled.text_at(value) {
                Some(text) => json!(text),
                None => json!("&data"),
            },
            arg::SLOT => json!(self.slot_name(value as u32)),
            _ if value as i64 == i64::from(libc::AT_FDCWD) => json!("AT_FDCWD"),
            _ => json!(value as i64),
        }
    }

    fn slot_name(&self, index: u32) -> String {
        match index {
            slot::LIFELINE => "$lifeline".into(),
            slot::PROC => "$proc".into(),
            slot::INIT => "$init".into(),
            _ => match self.needs.get((index as usize).wrapping_sub(slot::FIRST as usize)) {
                Some(facts::Need::Tree { path, .. }) => format!("${index} tree {}", path.display()),
                Some(facts::Need::GroupTasks(i)) => format!("${index} cgroup tasks {i}"),
                Some(facts::Need::Stream(i)) => format!("${index} stream {i}"),
                _ => format!("${index}"),
            },
        }
    }

    fn steps(&self) -> impl Iterator<Item = (usize, usize, &Op, &Tag)> {
        self.compiled
            .ops
            .iter()
            .enumerate()
            .flat_map(|(section, ops)| ops.iter().enumerate().map(move |(i, (op, tag))| (section, i, op, tag)))
    }

    /// Mounts with maps of their own.
    fn own_maps(&self) -> impl Iterator<Item = (&builder::Idmapped, &idmap::OwnMaps)> {
        self.compiled.idmapped.iter().filter_map(|one| Some((one, one.maps.as_ref()?)))
    }

    fn arguments(&self, op: &Op) -> Vec<Value> {
        let used = (0..6).rev().find(|&i| op.kinds[i] != arg::IMM || op.args[i] != 0).map_or(0, |i| i + 1);
        (0..used).map(|i| self.argument(op, i)).collect()
    }

    /// `{"namespaces": [...], "uid_map", "gid_map", "idmapped": [{"field", "path", "uid_map", "gid_map"}...], "steps": [{"section", "index", "field", "call", "path", "args",
    /// "result", "may_fail_with"}...]}`; the sections `end`, `lift` and `undo` are what happens after the end.
    pub fn to_json(&self) -> String {
        let steps: Vec<Value> = self
            .steps()
            .map(|(section, index, op, tag)| {
                let fine: Vec<Value> = op
                    .ok
                    .iter()
                    .filter(|&&e| e != 0)
                    .map(|&e| json!(crate::errno_name(e.into()).unwrap_or_else(|| "any".into())))
                    .collect();
                json!({
                    "section": SECTIONS[section],
                    "index": index,
                    "field": &*tag.field,
                    "call": tag.call,
                    "path": tag.path,
                    "args": self.arguments(op),
                    "result": (op.out != slot::NONE).then(|| format!("${}", op.out)),
                    "may_fail_with": fine,
                })
            })
            .collect();
        json!({
            "namespaces": self.clone_flags,
            "uid_map": self.maps.as_ref().map(|m| m.uid.trim_end()),
            "gid_map": self.maps.as_ref().map(|m| m.gid.trim_end()),
            "idmapped": self.own_maps().map(|(one, maps)| json!({
                "field": &*one.field,
                "path": one.path.to_string_lossy(),
                "uid_map": maps.uid.trim_end(),
                "gid_map": maps.gid.trim_end(),
            })).collect::<Vec<_>>(),
            "steps": steps,
        })
        .to_string()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clone3 with new namespaces: {}", self.clone_flags.join(" "))?;
        if let Some(maps) = &self.maps {
            writeln!(f, "uid_map: {}   gid_map: {}", maps.uid.trim_end(), maps.gid.trim_end())?;
        }
        for (one, maps) in self.own_maps() {
            let one_line = |map: &str| map.trim_end().replace('\n', ", ");
            let (uid, gid) = (one_line(&maps.uid), one_line(&maps.gid));
            let call = if maps.replaces { "open_tree_attr" } else { "mount_setattr" };
            writeln!(f, "{}: {call} MOUNT_ATTR_IDMAP, uid_map: {uid}   gid_map: {gid}", one.field)?;
        }
        let mut last = None;
        for (section, index, op, tag) in self.steps() {
            if last != Some(section) {
                writeln!(f, "\n{}:", SECTIONS[section])?;
                last = Some(section);
            }
            let args: Vec<String> = self
                .arguments(op)
                .iter()
                .map(|a| match a {
                    Value::String(text) if !text.starts_with('$') && !text.starts_with('&') => format!("{text:?}"),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
                .collect();
            write!(f, "{index:4} {:<16} {}({})", tag.field, tag.call, args.join(", "))?;
            if op.out != slot::NONE {
                write!(f, " -> ${}", op.out)?;
            }
            if let Some(path) = tag.path.as_ref().filter(|p| !args.iter().any(|a| a.contains(p.as_str()))) {
                write!(f, "  # {path}")?;
            }
            if op.nr == pseudo::ASK {
                write!(f, "  # by the host, where that is refused")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Explains a start without doing it: no container, no control group, no id range is made; only the host's tree, mounts,
/// limits and users are looked at. A range that `idmap: auto` would claim is shown as the pool's first.
///
/// # Errors
/// Those of validation, and of paths and users that do not exist.
pub fn plan(spec: &Spec) -> Result<Plan> {
    spec.validate()?;
    let facts = crate::launch::prospective_facts(spec)?;
    Ok(Plan::compile(spec, &facts))
}
