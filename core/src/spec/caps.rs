//! Capabilities by name and number.

use super::at::At;
use super::codec::Codec;
use super::json::{self, Json, json, wrong_type};
use super::securebits::Securebits;
use super::suggest;
use crate::error::Result;

/// What the payload may do inside: the five sets of capabilities(7) that its program begins with, as bits of capability numbers
/// (bit 21 is CAP_SYS_ADMIN).
///
/// The sets are those after the exec of the program, which the kernel makes of those before: a root program (uid 0 inside, without
/// `securebits: noroot`) has all of the bounding set in its permitted and effective sets, or with `no_new_privs`, the default, what
/// `permitted` leaves of it; any other program has the ambient set there. A set that would come out otherwise is an error
/// that says so, never another set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Above this set no program comes, whatever it executes. What a root program has.
    pub bounding: u64,
    /// What any program has, and what stays over its execs: also in the permitted, effective and inheritable sets. A subset of
    /// `bounding`, and of the three where they are given.
    pub ambient: u64,
    /// `None`: all of `bounding` for a root program, else `ambient`.
    pub permitted: Option<u64>,
    /// `None`: as `permitted`. The kernel gives an executed program no other, so that it is here for those who say all five.
    pub effective: Option<u64>,
    /// What files with inheritable capabilities can give, with `no_new_privs: false`. `None`: `ambient`, which the kernel demands.
    /// (More than that made programs with such files stronger than their user in other container programs: CVE-2022-29162.)
    pub inheritable: Option<u64>,
}

/// The five sets of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sets {
    pub bounding: u64,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
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

    /// The sets of a program of this user. `root`: uid 0, to which the kernel gives more than to others.
    pub(crate) fn sets(&self, root: bool) -> Sets {
        let Self { bounding, ambient, .. } = *self;
        let permitted = self.permitted.unwrap_or(if root { bounding } else { ambient });
        let effective = self.effective.unwrap_or(permitted);
        Sets { bounding, permitted, effective, inheritable: self.inheritable.unwrap_or(ambient), ambient }
    }

    /// What can never be, whoever the user is.
    pub(super) fn validate(&self) -> Result<()> {
        let at = At::Field("capabilities");
        let sets = [
            ("ambient", Some(self.ambient)),
            ("permitted", self.permitted),
            ("effective", self.effective),
            ("inheritable", self.inheritable),
        ];
        let all = sets.iter().filter_map(|(_, set)| *set).fold(self.bounding, |all, set| all | set);
        if all & !Self::ALL != 0 {
            let unknown = (all & !Self::ALL).trailing_zeros();
            return Err(at.error(format!("{unknown} is not the number of a capability")));
        }
        for (name, set) in sets {
            if let Some(other) = Self::names(set.unwrap_or(0) & !self.bounding).next() {
                return Err(at.key(name).error(format!("{other} is not in the bounding set")));
            }
        }
        for (name, set) in &sets[1..] {
            if let Some(missing) = set.and_then(|set| Self::names(self.ambient & !set).next()) {
                return Err(at.key(name).error(format!("{missing} is ambient, so it has to be here too")));
            }
        }
        if let Some(more) = self.permitted.and_then(|set| Self::names(self.effective.unwrap_or(0) & !set).next()) {
            return Err(at.key("effective").error(format!("{more} is not in the permitted set")));
        }
        Ok(())
    }

    /// What the kernel makes of them at the exec of a program of this user.
    pub(crate) fn check_exec(&self, uid: u32, no_new_privs: bool, securebits: Securebits) -> Result<()> {
        let root = uid == 0 && !securebits.has(Securebits::NOROOT);
        let asked = self.sets(root);
        let at = At::Field("capabilities");
        let names = |set: u64| match Self::names(set).collect::<Vec<_>>() {
            names if names.is_empty() => "none".to_owned(),
            names => names.join(", "),
        };
        if root {
            if !no_new_privs && asked.permitted != self.bounding {
                let error = at
                    .key("permitted")
                    .error("without no_new_privs a root program gets all of the bounding set when it is executed");
                return Err(error.with_hint("give bounding the same, or leave no_new_privs at its default"));
            }
        } else if asked.permitted != self.ambient {
            let error = at.key("permitted").error(format!(
                "a program of uid {uid} has the ambient set when it is executed ({}), and no other",
                names(self.ambient)
            ));
            return Err(error.with_hint("name them in ambient"));
        }
        if asked.effective != asked.permitted {
            let error = at.key("effective").error(format!(
                "when a program is executed its effective set is the permitted one ({})",
                names(asked.permitted)
            ));
            return Err(
                error.with_hint("take what it is not to have out of permitted too; a program can lower its own")
            );
        }
        Ok(())
    }

    /// The first that is named in some set and that a kernel with this last one lacks. `all` means all that there are.
    pub(crate) fn beyond(&self, last: u32) -> Option<&'static str> {
        let known = u64::MAX >> (63 - last.min(63));
        let sets = [Some(self.bounding), Some(self.ambient), self.permitted, self.effective, self.inheritable];
        let named = sets.into_iter().flatten().filter(|&set| set != Self::ALL).fold(0, |all, set| all | set);
        Self::names(named & !known).next()
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
        Self { bounding: Self::DEFAULT, ambient: 0, permitted: None, effective: None, inheritable: None }
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

const FORMS: &str = "a list of names, \"all\", \"none\", \"default\", or an object with add, drop, and the five sets";

/// The sets that an object may give beside `bounding`.
const BASE: &str = "a list of names, \"all\", \"none\" or \"default\"";

impl Codec for Capabilities {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        let Json::Object(_) = json else {
            return Ok(Self { bounding: base(json, at, FORMS)?, ..Self::default() });
        };
        let known = ["bounding", "add", "drop", "ambient", "permitted", "effective", "inheritable"];
        let members = json::members(json, at, FORMS, &known)?;
        let list = |key| match json::member(members, key) {
            Some(json) => set(json, &at.key(key), "a list of names or \"all\""),
            None => Ok(0),
        };
        let maybe = |key| json::member(members, key).map(|json| base(json, &at.key(key), BASE)).transpose();
        let bounding = maybe("bounding")?.unwrap_or(Self::DEFAULT);
        let (add, drop) = (list("add")?, list("drop")?);
        if let Some(name) = (add != Self::ALL && drop != Self::ALL).then(|| Self::names(add & drop).next()).flatten() {
            return Err(at.error(format!("{name} is both added and dropped")));
        }
        // All but a few, and none but a few: the short list is the exception.
        let bounding = if drop == Self::ALL { add } else { (bounding | add) & !drop };
        let ambient = maybe("ambient")?.unwrap_or(0);
        let (permitted, effective, inheritable) = (maybe("permitted")?, maybe("effective")?, maybe("inheritable")?);
        Ok(Self { bounding, ambient, permitted, effective, inheritable })
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
        let rest = [
            ("ambient", Some(value.ambient).filter(|&set| set != 0)),
            ("permitted", value.permitted),
            ("effective", value.effective),
            ("inheritable", value.inheritable),
        ];
        let mut members: json::Members =
            rest.into_iter().filter_map(|(key, set)| Some((key.to_owned(), list(set?)))).collect();
        if members.is_empty() {
            return bounding;
        }
        members.insert("bounding".to_owned(), bounding);
        Json::Object(members)
    }

    fn schema() -> Json {
        let names = json!({"type": "array", "items": {"$ref": "#/$defs/capability"}});
        let base = json!({"anyOf": [{"enum": ["all", "none", "default"]}, names]});
        let list = json!({"anyOf": [{"const": "all"}, names]});
        json!({"anyOf": [
            {"enum": ["all", "none", "default"]},
            names,
            {"type": "object", "additionalProperties": false,
                "properties": {"bounding": base, "add": list, "drop": list, "ambient": base, "permitted": base,
                    "effective": base, "inheritable": base}},
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
                    if short == "all" {
                        return Err(error.with_hint("\"all\" stands for itself, in no list"));
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_exec_makes_of_the_sets_is_what_was_asked_for() {
        let sets = |permitted: Option<u64>, effective: Option<u64>| Capabilities {
            bounding: 0b111,
            ambient: 0b1,
            permitted,
            effective,
            inheritable: None,
        };
        let none = Securebits::default();
        let noroot = Securebits(Securebits::NOROOT);
        let field = |caps: Capabilities, uid, nnp, bits| {
            caps.check_exec(uid, nnp, bits).err().map(|e| e.field().unwrap_or_default().to_owned())
        };
        let permitted = Some("capabilities.permitted".to_owned());
        let effective = Some("capabilities.effective".to_owned());
        assert_eq!(field(sets(None, None), 0, false, none), None);
        assert_eq!(field(sets(Some(0b11), None), 0, true, none), None);
        assert_eq!(field(sets(Some(0b11), None), 0, false, none), permitted);
        assert_eq!(field(sets(Some(0b11), Some(0b1)), 0, true, none), effective);
        assert_eq!(field(sets(None, None), 5, true, none), None);
        assert_eq!(field(sets(Some(0b1), Some(0b1)), 5, true, none), None);
        assert_eq!(field(sets(Some(0b11), None), 5, true, none), permitted);
        assert_eq!(field(sets(None, None), 0, true, noroot), None);
        assert_eq!(sets(None, None).sets(false).permitted, 0b1);
        assert_eq!(field(sets(Some(0b111), None), 0, true, noroot), permitted);
    }

    #[test]
    fn a_capability_that_the_kernel_lacks_is_named() {
        let caps = |set| Capabilities { bounding: set, ..Capabilities::default() };
        assert_eq!(caps(Capabilities::ALL).beyond(37), None);
        assert_eq!(caps(1 << 40 | 1 << 37).beyond(37), Some("checkpoint_restore"));
        assert_eq!(caps(1 << 40).beyond(40), None);
        let inherited =
            Capabilities { inheritable: Some(1 << 39), bounding: Capabilities::ALL, ..Capabilities::default() };
        assert_eq!(inherited.beyond(38), Some("bpf"));
    }
}
