//! `linux.seccomp` of OCI's config.json, and what Docker and Podman write in its place: with `archMap`, `includes` and `excludes`.

use super::*;

const PROFILE: [&str; 9] = [
    "defaultAction",
    "defaultErrnoRet",
    "defaultErrno",
    "architectures",
    "archMap",
    "syscalls",
    "flags",
    "listenerPath",
    "listenerMetadata",
];
const SYSCALL: [&str; 9] = ["name", "names", "action", "args", "errnoRet", "errno", "includes", "excludes", "comment"];

const ACTIONS: [(&str, SeccompAction); 9] = [
    ("SCMP_ACT_ALLOW", SeccompAction::Allow),
    ("SCMP_ACT_ERRNO", SeccompAction::Errno(libc::EPERM as u16)),
    ("SCMP_ACT_KILL", SeccompAction::KillThread),
    ("SCMP_ACT_KILL_THREAD", SeccompAction::KillThread),
    ("SCMP_ACT_KILL_PROCESS", SeccompAction::KillProcess),
    ("SCMP_ACT_TRAP", SeccompAction::Trap),
    ("SCMP_ACT_TRACE", SeccompAction::Trace(libc::EPERM as u16)),
    ("SCMP_ACT_LOG", SeccompAction::Log),
    ("SCMP_ACT_NOTIFY", SeccompAction::Notify),
];

const OPS: [(&str, SeccompOp); 7] = [
    ("SCMP_CMP_NE", SeccompOp::NotEqual),
    ("SCMP_CMP_LT", SeccompOp::Less),
    ("SCMP_CMP_LE", SeccompOp::LessOrEqual),
    ("SCMP_CMP_EQ", SeccompOp::Equal),
    ("SCMP_CMP_GE", SeccompOp::GreaterOrEqual),
    ("SCMP_CMP_GT", SeccompOp::Greater),
    ("SCMP_CMP_MASKED_EQ", SeccompOp::MaskedEqual(0)),
];

/// Others are not run by the machines that this library is for.
const ARCHITECTURES: [(&str, SeccompArch); 3] = [
    ("SCMP_ARCH_X86_64", SeccompArch::X86_64),
    ("SCMP_ARCH_X86", SeccompArch::I386),
    ("SCMP_ARCH_AARCH64", SeccompArch::Aarch64),
];

pub(super) fn read(json: &Json, at: &At) -> Result<SeccompRules> {
    let members = json::members(json, at, FORMS, &PROFILE)?;
    for key in ["listenerPath", "listenerMetadata"] {
        if matches!(json::member(members, key), Some(json) if *json != json!("")) {
            // Of runtimes that are programs of their own, a third one gets the listener; here it is the caller's.
            let error = at.key(key).error("is not used: calls with the action SCMP_ACT_NOTIFY come to this program");
            return Err(error.with_hint("leave it out, and answer them with the container's syscall_listener"));
        }
    }
    let Some(default) = action(members, "defaultAction", "defaultErrnoRet", "defaultErrno", at)? else {
        return Err(at.error("needs defaultAction"));
    };
    let mut rules = Vec::new();
    let syscalls_at = at.key("syscalls");
    for (i, json) in list(members, "syscalls", at)?.iter().enumerate() {
        syscall(json, &syscalls_at.index(i), default, &mut rules)?;
    }
    // As with libseccomp, which knows no order: a rule without arguments holds whatever others say, and one that is the
    // default says nothing.
    rules.retain(|rule| rule.action != default);
    rules.sort_by_key(|rule| !rule.args.is_empty());
    let mut own = SeccompRules { default_action: Some(default), rules, ..SeccompRules::default() };
    let mut architectures = texts(members, "architectures", at)?;
    let map_at = at.key("archMap");
    for (i, json) in list(members, "archMap", at)?.iter().enumerate() {
        let at = map_at.index(i);
        let entry = json::members(json, &at, "an object", &["architecture", "subArchitectures"])?;
        architectures.extend(match json::member(entry, "architecture") {
            Some(Json::String(name)) => Some(name.clone()),
            _ => return Err(at.key("architecture").error("expected text")),
        });
        architectures.extend(texts(entry, "subArchitectures", &at)?);
    }
    for (_, arch) in ARCHITECTURES.iter().filter(|(name, _)| architectures.iter().any(|given| given == name)) {
        own.architectures.push(*arch);
    }
    let flags_at = at.key("flags");
    for (i, flag) in texts(members, "flags", at)?.iter().enumerate() {
        match flag.as_str() {
            "SECCOMP_FILTER_FLAG_LOG" => own.log = true,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => own.spec_allow = true,
            // There is one thread when the filter is installed; and listeners have the other one from Linux 5.19 on.
            "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {}
            _ => return Err(flags_at.index(i).error(format!("{flag:?} is unknown"))),
        }
    }
    Ok(own)
}

fn action(members: &Members, key: &str, number: &str, name: &str, at: &At) -> Result<Option<SeccompAction>> {
    let Some(json) = json::member(members, key) else { return Ok(None) };
    let action = choice(json, &at.key(key), "the name of an action", &ACTIONS)?;
    let given = [number, name].into_iter().find_map(|key| Some((key, json::member(members, key)?)));
    let Some((key, json)) = given else { return Ok(Some(action)) };
    let errno = errno(json, &at.key(key))?;
    Ok(Some(match action {
        SeccompAction::Errno(_) => SeccompAction::Errno(errno),
        SeccompAction::Trace(_) => SeccompAction::Trace(errno),
        // Profiles have it where it means nothing, too.
        other => other,
    }))
}

fn syscall(json: &Json, at: &At, default: SeccompAction, rules: &mut Vec<SeccompRule>) -> Result<()> {
    let members = json::members(json, at, "an object with names and action", &SYSCALL)?;
    let mut names = texts(members, "names", at)?;
    match json::member(members, "name") {
        None => {}
        Some(Json::String(name)) if names.is_empty() => names.push(name.clone()),
        Some(_) => return Err(at.key("name").error("has to be text, and to stand alone without names")),
    }
    let Some(action) = action(members, "action", "errnoRet", "errno", at)? else {
        return Err(at.error("needs an action"));
    };
    // What Linux here does not have cannot be allowed, and need not be: profiles are written for many kernels and machines.
    // But what is to be refused, of what is otherwise done, has to be known.
    if action.refuses()
        && !default.refuses()
        && let Some((i, name)) = names.iter().enumerate().find(|(_, name)| !known_call(name))
    {
        let error =
            at.key("names").index(i).error(format!("{name:?} is not a system call of Linux {}", filter::kernel()));
        return Err(error.with_hint("what is not known cannot be refused"));
    }
    names.retain(|name| known_call(name));
    if names.is_empty() {
        return Ok(());
    }
    let (capabilities, architectures, kernel) = condition(members, "includes", at)?;
    let (without_capabilities, without_architectures, before_kernel) = condition(members, "excludes", at)?;
    let when =
        SeccompWhen { capabilities, without_capabilities, architectures, without_architectures, kernel, before_kernel };
    let args_at = at.key("args");
    let mut args = Vec::new();
    for (i, json) in list(members, "args", at)?.iter().enumerate() {
        args.push(arg(json, &args_at.index(i))?);
    }
    // Several comparisons of one argument are alternatives: what runc makes of them.
    let mut indexes: Vec<u8> = args.iter().map(|arg| arg.index).collect();
    indexes.sort_unstable();
    if indexes.windows(2).any(|pair| pair[0] == pair[1]) {
        rules.extend(args.into_iter().map(|arg| SeccompRule {
            names: names.clone(),
            action,
            args: vec![arg],
            when: when.clone(),
        }));
    } else {
        rules.push(SeccompRule { names, action, args, when });
    }
    Ok(())
}

fn arg(json: &Json, at: &At) -> Result<SeccompArg> {
    let members = json::members(json, at, "an object", &["index", "value", "valueTwo", "op"])?;
    let number = |key, most| match json::member(members, key) {
        Some(json) => bounded(json, &at.key(key), "a whole number", most),
        None => Ok(0),
    };
    let (index, value, second) = (number("index", 5)? as u8, number("value", u64::MAX)?, number("valueTwo", u64::MAX)?);
    let Some(op) = json::member(members, "op") else { return Err(at.error("needs op")) };
    Ok(match choice(op, &at.key("op"), "the name of a comparison", &OPS)? {
        // The value is the mask there; bits beyond it are not compared.
        SeccompOp::MaskedEqual(_) => SeccompArg { index, op: SeccompOp::MaskedEqual(value), value: second & value },
        op => SeccompArg { index, op, value },
    })
}

/// Capabilities, machines, and the kernel from which on.
type Condition = (u64, Vec<String>, Option<(u32, u32)>);

/// `includes` or `excludes`.
fn condition(members: &Members, key: &str, at: &At) -> Result<Condition> {
    let Some(json) = json::member(members, key) else { return Ok((0, Vec::new(), None)) };
    let at = at.key(key);
    let members = json::members(json, &at, "an object", &["caps", "arches", "minKernel"])?;
    Ok((set(members, "caps", &at)?, texts(members, "arches", &at)?, kernel(members, "minKernel", &at)?))
}
