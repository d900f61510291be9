//! The table of fields: one line per field gives JSON, the text rules of C, and the schema.

use super::at::At;
use super::json::{self, Json};
use super::suggest;
use crate::error::{Error, ErrorKind, Result};

/// A field of `T`, by its name in the vocabulary.
pub(crate) struct Field<T: 'static> {
    pub(super) name: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) merge: fn(&mut T, &Json, &At) -> Result<()>,
    pub(super) set: fn(&mut T, &[u8], &At) -> Result<()>,
    pub(super) clear: fn(&mut T),
    pub(super) write: fn(&T) -> Option<Json>,
    /// Whether the two have the same value.
    pub(super) same: fn(&T, &T) -> bool,
    pub(super) schema: fn() -> Json,
}

/// A struct whose fields are in a table.
pub(crate) trait Fields: Default + 'static {
    const FIELDS: &'static [Field<Self>];
}

/// The table of a struct: `field: Shape` lines.
macro_rules! table {
    ($Struct:ident { $($field:ident: $shape:ty,)* }) => {
        impl $crate::spec::fields::Fields for $Struct {
            const FIELDS: &'static [$crate::spec::fields::Field<Self>] = &[$(
                $crate::spec::fields::Field {
                    name: stringify!($field),
                    unit: <$shape as $crate::spec::shape::Shape>::UNIT,
                    merge: |all, json, at| <$shape as $crate::spec::shape::Shape>::merge(&mut all.$field, json, at),
                    set: |all, text, at| <$shape as $crate::spec::shape::Shape>::set(&mut all.$field, text, at),
                    clear: |all| all.$field = $Struct::default().$field,
                    write: |all| <$shape as $crate::spec::shape::Shape>::write(&all.$field),
                    same: |one, other| one.$field == other.$field,
                    schema: <$shape as $crate::spec::shape::Shape>::schema,
                },
            )*];
        }
    };
}
pub(crate) use table;

/// A struct of public fields, its defaults, its table and the documentation of each field as text, all from one place.
macro_rules! documented {
    (
        $(#[$meta:meta])*
        pub struct $Struct:ident {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr, as $shape:ty;)*
        }
    ) => {
        $(#[$meta])*
        pub struct $Struct {
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl Default for $Struct {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        $crate::spec::fields::table!($Struct { $($field: $shape,)* });

        /// The documentation of each field, in the order of the table.
        pub(super) const DOCUMENTATION: &[&str] = &[$(concat!($($doc, "\n"),*),)*];
    };
}
pub(super) use documented;

/// Fields of the vocabulary that this version knows but cannot do yet.
pub(super) const LATER: [&str; 1] = ["hooks"];

/// What other container programs call it, and what to write here.
const FOREIGN: [(&str, &str); 84] = [
    ("volumes", "mounts"),
    ("volume", "mounts"),
    ("binds", "mounts"),
    ("bind", "mounts"),
    ("tmpfs", "mounts, with {\"type\": \"tmpfs\", \"target\": ...}"),
    ("mem_limit", "memory"),
    ("memory_limit", "memory"),
    ("memory_max", "memory"),
    ("mem", "memory"),
    ("ram", "memory"),
    ("mem_reservation", "memory_low"),
    ("memswap_limit", "swap"),
    ("memory_swap", "swap"),
    ("network", "net"),
    ("network_mode", "net"),
    ("networks", "net"),
    ("net_mode", "net"),
    ("working_dir", "cwd"),
    ("workdir", "cwd"),
    ("work_dir", "cwd"),
    ("chdir", "cwd"),
    ("environment", "env"),
    ("envs", "env"),
    ("env_file", "env"),
    ("labels", "annotations"),
    ("label", "annotations"),
    ("command", "argv"),
    ("cmd", "argv"),
    ("args", "argv"),
    ("entrypoint", "argv"),
    ("image", "rootfs"),
    ("root", "rootfs"),
    ("root_fs", "rootfs"),
    ("read_only", "rootfs, with {\"readonly\": true}"),
    ("readonly", "rootfs, with {\"readonly\": true}"),
    (
        "privileged",
        "capabilities, \"all\", and idmap, \"host\", for what is really needed; there is no switch for everything",
    ),
    ("cap_add", "capabilities, with {\"add\": [...]}"),
    ("cap_drop", "capabilities, with {\"drop\": [...]}"),
    ("caps", "capabilities"),
    ("security_opt", "seccomp, apparmor, selinux, mount_label or no_new_privs"),
    ("cpu", "cpus"),
    ("nano_cpus", "cpus"),
    ("cpu_quota", "cpus"),
    ("cpu_period", "cpus"),
    ("cpu_shares", "cpu_weight"),
    ("cpuset_cpus", "cpuset"),
    ("blkio_weight", "io_weight"),
    ("cpu_rt_runtime_us", "cpu_rt_runtime, which is in seconds"),
    ("ioprio", "io_priority, of a process, or io_weight, of the container"),
    ("numpty", "ptys"),
    ("pids_limit", "pids"),
    ("max_pids", "pids"),
    ("ulimits", "rlimits"),
    ("ulimit", "rlimits"),
    ("tty", "terminal"),
    ("stdin_open", "stdin, \"pipe\""),
    ("userns", "idmap"),
    ("userns_mode", "idmap"),
    ("uidmap", "idmap, with {\"uid\": ..., \"gid\": ...}"),
    ("gidmap", "idmap, with {\"uid\": ..., \"gid\": ...}"),
    ("pid", "namespaces, with {\"pid\": ...}, or pids, the limit"),
    ("pid_mode", "namespaces, with {\"pid\": ...}"),
    ("ipc", "namespaces, with {\"ipc\": ...}"),
    ("ipc_mode", "namespaces, with {\"ipc\": ...}"),
    ("uts", "namespaces, with {\"uts\": ...}"),
    ("uts_mode", "namespaces, with {\"uts\": ...}"),
    ("cgroupns_mode", "namespaces, with {\"cgroup\": ...}"),
    ("extra_hosts", "hosts"),
    ("add_host", "hosts"),
    ("group_add", "groups"),
    ("gid", "user, with \"uid:gid\""),
    ("stop_grace_period", "stop_timeout"),
    ("container_name", "name"),
    ("id", "name"),
    ("publish", "ports"),
    ("sysctl", "sysctls"),
    ("expose", "ports"),
    ("mac_address", "net, with {\"mac\": ...}"),
    ("firewall", "net, with {\"firewall\": ...}"),
    ("logging", "stdout and stderr, or log_max"),
    ("log_config", "stdout and stderr, or log_max"),
    ("depends_on", "after, of the member of a group"),
    ("healthcheck", "wait_for, of the member of a group, or the call wait_for"),
    ("timeout", "start_timeout, stop_timeout, or the timeout of the call"),
];

/// What other container programs have and this has not, and what there is instead.
const ABSENT: [(&str, &str); 7] = [
    ("remove", "nothing is left of a container that has ended, and it ends with its handle unless detach is set"),
    ("auto_remove", "nothing is left of a container that has ended, and it ends with its handle unless detach is set"),
    ("rm", "nothing is left of a container that has ended, and it ends with its handle unless detach is set"),
    ("restart", "a container that ended is not started again; its events and wait tell of it"),
    ("restart_policy", "a container that ended is not started again; its events and wait tell of it"),
    ("pull", "there are no images; a directory that holds an unpacked one is a rootfs"),
    ("platform", "there are no images; a directory that holds an unpacked one is a rootfs"),
];

fn find<T: Fields>(name: &str) -> Result<&'static Field<T>> {
    T::FIELDS.iter().find(|field| field.name == name).ok_or_else(|| unknown::<T>(name))
}

fn unknown<T: Fields>(name: &str) -> Error {
    if LATER.contains(&name) {
        return Error::spec(name, "not available yet").with_kind(ErrorKind::NotAvailable);
    }
    // A key may be any text of any length; the field of an error is for programs to act on.
    let shown: String = name.chars().take(64).collect();
    let error = Error::spec(&shown, "unknown field");
    let plain = suggest::plain(&shown);
    if super::Spec::FIELDS.iter().any(|field| field.name == name) {
        return error.with_hint("it belongs to the container, not to one process in it");
    }
    let known = || T::FIELDS.iter().map(|field| field.name).chain(LATER);
    if let Some((_, ours)) = FOREIGN.iter().find(|(foreign, _)| *foreign == plain) {
        return error.with_hint(format!("did you mean {ours}?"));
    }
    if let Some((_, instead)) = ABSENT.iter().find(|(foreign, _)| *foreign == plain) {
        return error.with_hint(*instead);
    }
    match known().find(|name| *name == plain).or_else(|| suggest::nearest(&shown, known())) {
        Some(name) => error.with_hint(format!("did you mean {name}?")),
        None => error,
    }
}

/// Layers the members of a JSON object over what is there: all of them, or none when one is wrong.
pub(crate) fn merge_json<T: Fields + Clone>(all: &mut T, text: &str) -> Result<()> {
    let json = json::parse(text)?;
    let Json::Object(members) = &json else {
        return Err(json::wrong_type(&At::Field("spec"), "a JSON object", &json));
    };
    let mut merged = all.clone();
    for (name, json) in members {
        match find::<T>(name) {
            Ok(field) if json.is_null() => (field.clear)(&mut merged),
            Ok(field) => (field.merge)(&mut merged, json, &At::Field(field.name))
                .map_err(|error| without_limit(error, json.as_str().unwrap_or_default()))?,
            // Nothing is asked of the field, so nothing is missing.
            Err(error) if json.is_null() && error.kind() == ErrorKind::NotAvailable => {}
            Err(error) => return Err(error),
        }
    }
    *all = merged;
    Ok(())
}

/// What differs from the default, as a JSON object in the order of the table.
pub(crate) fn to_json<T: Fields>(all: &T) -> String {
    let default = T::default();
    let mut text = String::from("{");
    for field in T::FIELDS.iter().filter(|field| !(field.same)(all, &default)) {
        if text.len() > 1 {
            text.push(',');
        }
        // A field that was emptied where the default is not empty; null puts the default back, which there is none of yet.
        let json = (field.write)(all).unwrap_or(Json::Null);
        text.push_str(&format!("\"{}\":{json}", field.name));
    }
    text.push('}');
    text
}

/// The fields that the two have different values of.
pub(crate) fn differences<T: Fields>(one: &T, other: &T) -> Vec<&'static str> {
    T::FIELDS.iter().filter(|field| !(field.same)(one, other)).map(|field| field.name).collect()
}

/// Sets a field from text.
pub(crate) fn set<T: Fields>(all: &mut T, name: &str, text: &[u8]) -> Result<()> {
    let field = find::<T>(name)?;
    if text.is_empty() {
        (field.clear)(all);
        return Ok(());
    }
    let words = std::str::from_utf8(text).unwrap_or_default();
    (field.set)(all, text, &At::Field(field.name)).map_err(|error| without_limit(error, words))
}

/// Limits that are none when they are not set.
const LIMITS: [&str; 11] = [
    "memory",
    "memory_high",
    "swap",
    "cpus",
    "pids",
    "ptys",
    "disk",
    "inodes",
    "wall_time",
    "cpu_time",
    "cpu_rt_runtime",
];

/// Who writes `max`, as the kernel's files have it, wants no limit.
fn without_limit(error: Error, text: &str) -> Error {
    let is_limit = error.field().is_some_and(|field| LIMITS.contains(&field));
    if !is_limit || !["max", "unlimited", "infinity", "inf", "none", "-1"].contains(&text) {
        return error;
    }
    error.with_hint("for no limit leave it out, or give null (None in Python)")
}

/// Puts the default back.
pub(crate) fn clear<T: Fields>(all: &mut T, name: &str) -> Result<()> {
    find::<T>(name).map(|field| (field.clear)(all))
}

/// The text of a field; `None` when nothing is set.
pub(crate) fn get<T: Fields>(all: &T, name: &str) -> Result<Option<String>> {
    Ok(match (find::<T>(name)?.write)(all) {
        None => None,
        Some(Json::String(text)) => Some(text),
        Some(json) => Some(json.to_string()),
    })
}

/// The names of the fields, in the order of the table.
pub(crate) fn keys<T: Fields>() -> Vec<&'static str> {
    T::FIELDS.iter().map(|field| field.name).collect()
}
