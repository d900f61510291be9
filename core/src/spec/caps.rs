//! Capabilities by name and number.

use super::at::At;
use super::codec::Codec;
use super::json::{self, Json, json, wrong_type};
use super::suggest;
use crate::error::Result;

/// What the payload may do inside: bits of capability numbers (bit 21 is CAP_SYS_ADMIN).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding, permitted and effective set of a root payload.
    pub bounding: u64,
    /// Permitted, effective, inheritable and ambient set of any payload; a subset of `bounding`.
    pub ambient: u64,
}

impl Capabilities {
    /// OCI's customary default: chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service sys_chroot
    /// mknod audit_write setfcap net_raw.
    pub const DEFAULT: u64 = 0xa804_25fb;

    /// All 41 that Linux has (since 5.9).
    pub const ALL: u64 = (1 << NAMES.len()) - 1;

    /// Every one that a process can come to have.
    pub(crate) fn all(&self) -> u64 {
        self.bounding | self.ambient
    }

    /// The names of a set, in the order of their numbers, without `CAP_`, in lower case.
    pub fn names(set: u64) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(number, _)| set & (1 << number) != 0).map(|(_, name)| name)
    }

    /// The number of a capability: any case, with or without `CAP_`.
    pub fn number(name: &str) -> Option<u32> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        NAMES.iter().position(|known| *known == name).map(|number| number as u32)
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { bounding: Self::DEFAULT, ambient: 0 }
    }
}

/// capabilities(7), by number.
pub(crate) const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const FORMS: &str =
    "a list of names, \"all\", \"none\", \"default\", or an object with add, drop, bounding and ambient";

impl Codec for Capabilities {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let Json::Object(_) = json else {
            return Ok(Self { bounding: base(json, at, FORMS)?, ambient: 0 });
        };
        let members = json::members(json, at, FORMS, &["bounding", "add", "drop", "ambient"])?;
        let list = |key| match json::member(members, key) {
            Some(json) => set(json, &at.key(key), "a list of names or \"all\""),
            None => Ok(0),
        };
        let bounding = match json::member(members, "bounding") {
            Some(json) => base(json, &at.key("bounding"), "a list of names, \"all\", \"none\" or \"default\"")?,
            None => Self::DEFAULT,
        };
        let (add, drop) = (list("add")?, list("drop")?);
        if let Some(name) = (add != Self::ALL && drop != Self::ALL).then(|| Self::names(add & drop).next()).flatten() {
            return Err(at.error(format!("{name} is both added and dropped")));
        }
        // All but a few, and none but a few: the short list is the exception.
        let bounding = if drop == Self::ALL { add } else { (bounding | add) & !drop };
        Ok(Self { bounding, ambient: list("ambient")? })
    }

    fn write(value: &Self) -> Json {
        let list = |set: u64| match set {
            Self::ALL => Json::from("all"),
            0 => "none".into(),
            Self::DEFAULT => "default".into(),
            // Bits without a name are refused when the spec is used; they must not vanish before.
            _ => (0..64)
                .filter(|bit| set & (1 << bit) != 0)
                .map(|bit| NAMES.get(bit).map_or(json!(bit), |&n| n.into()))
                .collect(),
        };
        let bounding = list(value.bounding);
        if value.ambient == 0 { bounding } else { json!({"bounding": bounding, "ambient": list(value.ambient)}) }
    }

    fn schema() -> Json {
        let names = json!({"type": "array", "items": {"$ref": "#/$defs/capability"}});
        let base = json!({"anyOf": [{"enum": ["all", "none", "default"]}, names]});
        let list = json!({"anyOf": [{"const": "all"}, names]});
        json!({"anyOf": [
            {"enum": ["all", "none", "default"]},
            names,
            {"type": "object", "additionalProperties": false,
                "properties": {"bounding": base, "add": list, "drop": list, "ambient": list}},
        ]})
    }
}

fn base(json: &Json, at: &At, expected: &str) -> Result<u64> {
    match json {
        Json::String(text) if text == "none" => Ok(0),
        Json::String(text) if text == "default" => Ok(Capabilities::DEFAULT),
        _ => set(json, at, expected),
    }
}

pub(super) fn set(json: &Json, at: &At, expected: &str) -> Result<u64> {
    match json {
        Json::String(text) if text == "all" => Ok(Capabilities::ALL),
        Json::Array(items) => items.iter().enumerate().try_fold(0, |set, (i, item)| {
            let at = at.index(i);
            let Json::String(name) = item else { return Err(wrong_type(&at, "the name of a capability", item)) };
            match Capabilities::number(name) {
                Some(number) => Ok(set | 1 << number),
                None => {
                    let error = at.error(format!("{name:?} is not a capability"));
                    let short = name.to_ascii_lowercase();
                    Err(match suggest::nearest(short.strip_prefix("cap_").unwrap_or(&short), NAMES) {
                        Some(near) => error.with_hint(format!("did you mean {near:?}?")),
                        None => error,
                    })
                }
            }
        }),
        _ => Err(wrong_type(at, expected, json)),
    }
}
