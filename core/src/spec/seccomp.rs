//! The field `seccomp`: a profile's name, rules, or a profile as OCI and Docker have them.

/// Profiles as OCI and Docker have them.
mod oci;

use super::at::At;
use super::caps;
use super::codec::{Bool, Codec};
use super::json::{self, Json, Members, json, wrong_type};
use super::suggest;
use crate::error::{Result, errno_name};
use crate::security::filter::rules::{
    Seccomp, SeccompAction, SeccompArch, SeccompArg, SeccompOp, SeccompProfile, SeccompRule, SeccompRules, SeccompWhen,
};
use crate::security::filter::{self, known_call, known_calls};

const FORMS: &str = "\"default\", \"strict\", \"none\", an object with rules, or a profile of OCI";
const RULES: [&str; 8] =
    ["profile", "default_action", "default_errno", "default_data", "architectures", "rules", "log", "spec_allow"];
const RULE: [&str; 6] = ["names", "action", "errno", "data", "args", "when"];
const ARG: [&str; 4] = ["index", "op", "value", "mask"];
const WHEN: [&str; 6] =
    ["capabilities", "without_capabilities", "architectures", "without_architectures", "kernel", "before_kernel"];
/// MAX_ERRNO of the kernel.
const MAX_ERRNO: u64 = 4095;

const ACTIONS: [(&str, SeccompAction); 8] = [
    ("allow", SeccompAction::Allow),
    ("errno", SeccompAction::Errno(libc::EPERM as u16)),
    ("kill_process", SeccompAction::KillProcess),
    ("kill_thread", SeccompAction::KillThread),
    ("trap", SeccompAction::Trap),
    ("trace", SeccompAction::Trace(0)),
    ("log", SeccompAction::Log),
    ("notify", SeccompAction::Notify),
];

const OPS: [(&str, SeccompOp); 7] = [
    ("ne", SeccompOp::NotEqual),
    ("lt", SeccompOp::Less),
    ("le", SeccompOp::LessOrEqual),
    ("eq", SeccompOp::Equal),
    ("ge", SeccompOp::GreaterOrEqual),
    ("gt", SeccompOp::Greater),
    ("masked_eq", SeccompOp::MaskedEqual(u64::MAX)),
];

impl Codec for Seccomp {
    type Value = Self;

    fn read(json: &Json, at: &At) -> Result<Self> {
        match json {
            Json::String(text) => match text.as_str() {
                "default" => Ok(Self::Default),
                "strict" => Ok(Self::Strict),
                "none" => Ok(Self::Unconfined),
                "unconfined" => Err(at.error("\"unconfined\" is unknown").with_hint("did you mean \"none\"?")),
                _ => Err(wrong_type(at, FORMS, json)),
            },
            Json::Object(members) => {
                let oci = ["defaultAction", "syscalls", "archMap"].iter().any(|key| members.contains_key(*key));
                let rules = if oci { oci::read(json, at)? } else { rules(json, at)? };
                Ok(Self::Rules(rules))
            }
            _ => Err(wrong_type(at, FORMS, json)),
        }
    }

    fn write(value: &Self) -> Json {
        match value {
            Self::Default => "default".into(),
            Self::Strict => "strict".into(),
            Self::Unconfined => "none".into(),
            Self::Rules(rules) => write_rules(rules),
        }
    }

    fn schema() -> Json {
        let action = json!({"enum": ACTIONS.map(|(name, _)| name)});
        let errno = json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_ERRNO}, {"type": "string", "pattern": "^E[A-Z0-9]+$"}]});
        let value = json!({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^(0x[0-9a-fA-F]+|[0-9]+)$"}]});
        let data = json!({"type": "integer", "minimum": 0, "maximum": u16::MAX});
        let texts = json!({"type": "array", "items": {"type": "string"}});
        let capabilities =
            json!({"anyOf": [{"const": "all"}, {"type": "array", "items": {"$ref": "#/$defs/capability"}}]});
        let kernel = json!({"type": "string", "pattern": "^[0-9]+\\.[0-9]+$"});
        let arg = json!({"type": "object", "additionalProperties": false, "required": ["index", "op", "value"], "properties": {
            "index": {"type": "integer", "minimum": 0, "maximum": 5},
            "op": {"enum": OPS.map(|(name, _)| name)}, "value": value, "mask": value,
        }});
        let when = json!({"type": "object", "additionalProperties": false, "properties": {
            "capabilities": capabilities, "without_capabilities": capabilities,
            "architectures": texts, "without_architectures": texts, "kernel": kernel, "before_kernel": kernel,
        }});
        let rule = json!({"type": "object", "additionalProperties": false, "required": ["names", "action"], "properties": {
            "names": {"anyOf": [{"type": "string"}, texts]}, "action": action, "errno": errno,
            "data": data,
            "args": {"type": "array", "items": arg}, "when": when,
        }});
        json!({"anyOf": [
            {"enum": ["default", "strict", "none"]},
            {"type": "object", "additionalProperties": false, "properties": {
                "profile": {"enum": SeccompProfile::ALL.map(SeccompProfile::name)},
                "default_action": action, "default_errno": errno, "default_data": data,
                "architectures": {"type": "array", "items": {"enum": SeccompArch::ALL.map(SeccompArch::name)}},
                "rules": {"type": "array", "items": rule},
                "log": {"type": "boolean"}, "spec_allow": {"type": "boolean"},
            }},
            {"type": "object", "required": ["defaultAction"],
                "description": "linux.seccomp of OCI's config.json, or a profile of Docker"},
        ]})
    }
}

/// One of these names.
fn choice<T: Copy>(json: &Json, at: &At, expected: &str, choices: &[(&'static str, T)]) -> Result<T> {
    let Json::String(text) = json else { return Err(wrong_type(at, expected, json)) };
    if let Some((_, value)) = choices.iter().find(|(name, _)| name == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let error = at.error(format!("{text:?} is unknown; known are {}", names.join(", ")));
    Err(match suggest::nearest(text, names) {
        Some(name) => error.with_hint(format!("did you mean {name:?}?")),
        None => error,
    })
}

fn list<'a>(members: &'a Members, key: &str, at: &At) -> Result<&'a [Json]> {
    match json::member(members, key) {
        None => Ok(&[]),
        Some(Json::Array(items)) => Ok(items),
        Some(other) => Err(wrong_type(&at.key(key), "a list", other)),
    }
}

fn texts(members: &Members, key: &str, at: &At) -> Result<Vec<String>> {
    let list_at = at.key(key);
    let text = |(i, item): (usize, &Json)| match item {
        Json::String(text) => Ok(text.clone()),
        _ => Err(wrong_type(&list_at.index(i), "text", item)),
    };
    list(members, key, at)?.iter().enumerate().map(text).collect()
}

fn flag(members: &Members, key: &str, at: &At) -> Result<bool> {
    json::member(members, key).map_or(Ok(false), |json| Bool::read(json, &at.key(key)))
}

/// A whole number, or text that is one, up to a bound.
fn bounded(json: &Json, at: &At, expected: &str, most: u64) -> Result<u64> {
    let number = match json {
        Json::String(text) => match text.strip_prefix("0x") {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok().map(i128::from),
            _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u64>().ok().map(i128::from),
            _ => None,
        },
        _ => json::integer(json),
    };
    match number {
        Some(number) if number < 0 => Err(at.error(format!("{number} is negative"))),
        Some(number) if number > most.into() => Err(at.error(format!("{number} is more than {most}"))),
        Some(number) => Ok(number as u64),
        None => Err(wrong_type(at, expected, json)),
    }
}

fn errno(json: &Json, at: &At) -> Result<u16> {
    if let Json::String(text) = json {
        let named = (1..=MAX_ERRNO as i32).find(|&errno| errno_name(errno).is_some_and(|name| name == *text));
        return named
            .map(|errno| errno as u16)
            .ok_or_else(|| at.error(format!("{text:?} is not the name of an errno")));
    }
    bounded(json, at, "an errno, by number or name", MAX_ERRNO).map(|errno| errno as u16)
}

fn set(members: &Members, key: &str, at: &At) -> Result<u64> {
    match json::member(members, key) {
        Some(json) => caps::set(json, &at.key(key), "a list of names or \"all\""),
        None => Ok(0),
    }
}

fn kernel(members: &Members, key: &str, at: &At) -> Result<Option<(u32, u32)>> {
    let Some(json) = json::member(members, key) else { return Ok(None) };
    let at = at.key(key);
    let expected = "the version of a kernel, like \"4.8\"";
    let Json::String(text) = json else { return Err(wrong_type(&at, expected, json)) };
    let number = |text: &str| if text.starts_with('+') { None } else { text.parse::<u32>().ok() };
    let parts = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    parts.map(Some).ok_or_else(|| wrong_type(&at, expected, json))
}

/// The members of an action and of what belongs to it.
type ActionKeys = [&'static str; 3];
const DEFAULT_ACTION: ActionKeys = ["default_action", "default_errno", "default_data"];
const ACTION: ActionKeys = ["action", "errno", "data"];

/// The action, with what belongs to it.
fn action(members: &Members, [key, errno_key, data_key]: ActionKeys, at: &At) -> Result<Option<SeccompAction>> {
    let action = match json::member(members, key) {
        Some(json) => Some(choice(json, &at.key(key), "the name of an action", &ACTIONS)?),
        None => None,
    };
    let (errno_given, data) = (json::member(members, errno_key), json::member(members, data_key));
    if errno_given.is_some() && !matches!(action, Some(SeccompAction::Errno(_))) {
        return Err(at.key(errno_key).error(format!("is for {key} \"errno\"")));
    }
    if data.is_some() && !matches!(action, Some(SeccompAction::Trace(_))) {
        return Err(at.key(data_key).error(format!("is for {key} \"trace\"")));
    }
    Ok(match (errno_given, data) {
        (Some(json), _) => Some(SeccompAction::Errno(errno(json, &at.key(errno_key))?)),
        (_, Some(json)) => {
            Some(SeccompAction::Trace(bounded(json, &at.key(data_key), "a whole number", u16::MAX.into())? as u16))
        }
        (None, None) => action,
    })
}

fn rules(json: &Json, at: &At) -> Result<SeccompRules> {
    let members = json::members(json, at, FORMS, &RULES)?;
    let profiles = SeccompProfile::ALL.map(|profile| (profile.name(), profile));
    let profile = json::member(members, "profile");
    let known = SeccompArch::ALL.map(|arch| (arch.name(), arch));
    let list_at = at.key("architectures");
    let architecture =
        |(i, json): (usize, &Json)| choice(json, &list_at.index(i), "the name of an architecture", &known);
    let rules_at = at.key("rules");
    Ok(SeccompRules {
        profile: profile
            .map(|json| choice(json, &at.key("profile"), "the name of a profile", &profiles))
            .transpose()?,
        default_action: action(members, DEFAULT_ACTION, at)?,
        architectures: list(members, "architectures", at)?
            .iter()
            .enumerate()
            .map(architecture)
            .collect::<Result<_>>()?,
        rules: list(members, "rules", at)?
            .iter()
            .enumerate()
            .map(|(i, json)| rule(json, &rules_at.index(i)))
            .collect::<Result<_>>()?,
        log: flag(members, "log", at)?,
        spec_allow: flag(members, "spec_allow", at)?,
    })
}

fn rule(json: &Json, at: &At) -> Result<SeccompRule> {
    let members = json::members(json, at, "an object with names and action", &RULE)?;
    let names = match json::member(members, "names") {
        Some(Json::String(name)) => vec![name.clone()],
        _ => texts(members, "names", at)?,
    };
    let Some(action) = action(members, ACTION, at)? else { return Err(at.error("needs an action")) };
    let args_at = at.key("args");
    let args = list(members, "args", at)?.iter().enumerate().map(|(i, json)| arg(json, &args_at.index(i)));
    let when_at = at.key("when");
    let when = match json::member(members, "when") {
        None => SeccompWhen::default(),
        Some(json) => {
            let members = json::members(json, &when_at, "an object", &WHEN)?;
            SeccompWhen {
                capabilities: set(members, "capabilities", &when_at)?,
                without_capabilities: set(members, "without_capabilities", &when_at)?,
                architectures: texts(members, "architectures", &when_at)?,
                without_architectures: texts(members, "without_architectures", &when_at)?,
                kernel: kernel(members, "kernel", &when_at)?,
                before_kernel: kernel(members, "before_kernel", &when_at)?,
            }
        }
    };
    Ok(SeccompRule { names, action, args: args.collect::<Result<_>>()?, when })
}

fn arg(json: &Json, at: &At) -> Result<SeccompArg> {
    let members = json::members(json, at, "an object with index, op and value", &ARG)?;
    let needed = |key| json::member(members, key).ok_or_else(|| at.error(format!("needs {key}")));
    let number = |key, most| bounded(needed(key)?, &at.key(key), "a whole number", most);
    let index = number("index", 5)? as u8;
    let op = choice(needed("op")?, &at.key("op"), "the name of a comparison", &OPS)?;
    let mask = json::member(members, "mask").map(|json| bounded(json, &at.key("mask"), "a whole number", u64::MAX));
    let op = match (op, mask.transpose()?) {
        (SeccompOp::MaskedEqual(_), Some(mask)) => SeccompOp::MaskedEqual(mask),
        (SeccompOp::MaskedEqual(_), None) => return Err(at.error("needs mask")),
        (_, Some(_)) => return Err(at.key("mask").error("is for op, \"masked_eq\"")),
        (op, None) => op,
    };
    Ok(SeccompArg { index, op, value: number("value", u64::MAX)? })
}

/// The name of what has, and what the value has of its own besides.
fn name_of<T: PartialEq>(choices: &[(&'static str, T)], same: impl Fn(&T) -> bool) -> &'static str {
    choices.iter().find(|(_, value)| same(value)).map_or("", |(name, _)| name)
}

fn write_action(action: SeccompAction, members: &mut Members, [key, errno_key, data_key]: ActionKeys) {
    let same = |known: &SeccompAction| std::mem::discriminant(known) == std::mem::discriminant(&action);
    members.insert(key.into(), name_of(&ACTIONS, same).into());
    match action {
        SeccompAction::Errno(errno) if errno != libc::EPERM as u16 => {
            let name = errno_name(errno.into()).map_or_else(|| Json::from(errno), Json::from);
            members.insert(errno_key.into(), name);
        }
        SeccompAction::Trace(data) if data != 0 => {
            members.insert(data_key.into(), data.into());
        }
        _ => {}
    }
}

fn write_rules(rules: &SeccompRules) -> Json {
    let mut members = Members::new();
    if let Some(profile) = rules.profile {
        members.insert("profile".into(), profile.name().into());
    }
    if let Some(action) = rules.default_action {
        write_action(action, &mut members, DEFAULT_ACTION);
    }
    if !rules.architectures.is_empty() {
        members.insert("architectures".into(), rules.architectures.iter().map(|arch| arch.name()).collect());
    }
    if !rules.rules.is_empty() {
        members.insert("rules".into(), rules.rules.iter().map(write_rule).collect());
    }
    for (key, _) in [("log", rules.log), ("spec_allow", rules.spec_allow)].iter().filter(|(_, set)| *set) {
        members.insert((*key).into(), true.into());
    }
    Json::Object(members)
}

fn write_rule(rule: &SeccompRule) -> Json {
    let mut members = Members::new();
    members.insert("names".into(), rule.names.iter().map(String::as_str).collect());
    write_action(rule.action, &mut members, ACTION);
    if !rule.args.is_empty() {
        let arg = |arg: &SeccompArg| {
            let same = |known: &SeccompOp| std::mem::discriminant(known) == std::mem::discriminant(&arg.op);
            let mut json = json!({"index": arg.index, "op": name_of(&OPS, same), "value": arg.value});
            if let SeccompOp::MaskedEqual(mask) = arg.op {
                json["mask"] = mask.into();
            }
            json
        };
        members.insert("args".into(), rule.args.iter().map(arg).collect());
    }
    let mut when = Members::new();
    let SeccompWhen { capabilities, without_capabilities, architectures, without_architectures, kernel, before_kernel } =
        &rule.when;
    for (key, set) in [("capabilities", capabilities), ("without_capabilities", without_capabilities)] {
        if *set != 0 {
            when.insert(key.into(), super::Capabilities::names(*set).collect());
        }
    }
    for (key, names) in [("architectures", architectures), ("without_architectures", without_architectures)] {
        if !names.is_empty() {
            when.insert(key.into(), names.iter().map(String::as_str).collect());
        }
    }
    for (key, version) in [("kernel", kernel), ("before_kernel", before_kernel)] {
        if let Some((major, minor)) = version {
            when.insert(key.into(), format!("{major}.{minor}").into());
        }
    }
    if !when.is_empty() {
        members.insert("when".into(), Json::Object(when));
    }
    Json::Object(members)
}

impl Seccomp {
    /// What can never work.
    pub(super) fn validate(&self) -> Result<()> {
        let Self::Rules(own) = self else { return Ok(()) };
        let at = At::Field("seccomp");
        match (own.profile, own.default_action) {
            (None, None) => {
                return Err(at.error("needs a default_action, or a profile that has one"));
            }
            (Some(profile), Some(_)) => {
                let name = profile.name();
                let error = at.key("default_action").error(format!("the profile {name:?} has one of its own"));
                return Err(error.with_hint("leave out profile, or default_action"));
            }
            _ => {}
        }
        let known = |action: SeccompAction, at: &At| match action {
            SeccompAction::Errno(errno) if u64::from(errno) > MAX_ERRNO => {
                Err(at.error(format!("errno {errno} is more than {MAX_ERRNO}")))
            }
            _ => Ok(()),
        };
        if let Some(action) = own.default_action {
            known(action, &at.key("default_action"))?;
        }
        let list = at.key("rules");
        for (i, rule) in own.rules.iter().enumerate() {
            validate_rule(rule, &list.index(i), known)?;
        }
        Ok(())
    }

    /// Whether the host is asked about calls.
    pub(crate) fn notifies(&self) -> bool {
        let Self::Rules(own) = self else { return false };
        let mut actions = own.rules.iter().map(|rule| rule.action).chain(own.default_action);
        actions.any(|action| action == SeccompAction::Notify)
    }

    /// Whether namespaces can be made under it, as far as its profile says.
    pub(super) fn is_strict(&self) -> bool {
        match self {
            Self::Strict => true,
            Self::Rules(rules) => rules.profile == Some(SeccompProfile::Strict) && rules.rules.is_empty(),
            _ => false,
        }
    }
}

fn validate_rule(rule: &SeccompRule, at: &At, known: impl Fn(SeccompAction, &At) -> Result<()>) -> Result<()> {
    known(rule.action, &at.key("action"))?;
    let names_at = at.key("names");
    if rule.names.is_empty() {
        return Err(names_at.error("names no system call"));
    }
    if let Some((i, name)) = rule.names.iter().enumerate().find(|(_, name)| !known_call(name)) {
        let error = names_at.index(i).error(format!("{name:?} is not a system call of Linux {}", filter::kernel()));
        return Err(match suggest::nearest(name, known_calls()) {
            Some(near) => error.with_hint(format!("did you mean {near:?}?")),
            None => error,
        });
    }
    let args_at = at.key("args");
    for (i, arg) in rule.args.iter().enumerate() {
        let at = args_at.index(i);
        if arg.index > 5 {
            return Err(at.key("index").error(format!("{} is more than 5", arg.index)));
        }
        if let SeccompOp::MaskedEqual(mask) = arg.op
            && arg.value & !mask != 0
        {
            let (value, mask) = (arg.value, mask);
            return Err(at
                .key("value")
                .error(format!("{value:#x} has bits that the mask {mask:#x} has not: it never holds")));
        }
    }
    Ok(())
}
