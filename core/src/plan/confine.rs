//! What a program is confined by beside its credentials: a session keyring of its own, a profile or label of a security module,
//! rules of Landlock.

use super::builder::{Arg, Builder, call};
use crate::command::Command;
use crate::proto::slot;
use crate::spec::{Landlock, Securebits, Spec};

/// What a spec or a command says of it.
#[derive(Clone, Copy)]
pub(crate) struct Confinement<'a> {
    pub securebits: Securebits,
    pub landlock: &'a Landlock,
    pub apparmor: Option<&'a str>,
    pub selinux: Option<&'a str>,
}

impl<'a> Confinement<'a> {
    pub fn of_spec(spec: &'a Spec) -> Self {
        Self {
            securebits: spec.securebits,
            landlock: &spec.landlock,
            apparmor: spec.apparmor.as_deref(),
            selinux: spec.selinux.as_deref(),
        }
    }

    /// The container's, but for what the command says itself.
    pub fn of_command(command: &'a Command, spec: &'a Spec) -> Self {
        let of_spec = Self::of_spec(spec);
        Self {
            securebits: command.securebits.unwrap_or(of_spec.securebits),
            landlock: command.landlock.as_ref().unwrap_or(of_spec.landlock),
            apparmor: command.apparmor.as_deref().or(of_spec.apparmor),
            selinux: command.selinux.as_deref().or(of_spec.selinux),
        }
    }
}

const RESOLVE_NO_XDEV: u64 = 1;
const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_BENEATH: u64 = 8;
const RESOLVE_IN_ROOT: u64 = 16;

/// A new session keyring. The host's is not seen without it either: what would be inherited is the keeper's, which is revoked, and
/// in which nothing is. While the ids are the keeper's, whose quota it is charged to (`kernel.keys.root_maxkeys` for root).
///
/// Under SELinux a key has the label of who makes it, and a program with another one could not even ask for its keyring. So it gets
/// the program's, where the policy lets the caller say so; else it is as good as none.
pub(super) fn keyring(b: &mut Builder, label: Option<&str>) {
    const JOIN_SESSION_KEYRING: i32 = 1;
    b.field("keyring");
    if let Some(label) = label {
        let file = open_attribute(b, "self/attr/keycreate");
        let data = b.text(label);
        b.op(call::WRITE, [Arg::Slot(file), data, (label.len() as u64).into()]).ok(&[libc::EACCES, libc::EPERM]);
        b.op(call::CLOSE, [Arg::Slot(file)]);
    }
    // Where a filter or the kernel has no keyctl(2), it has no keys for the container either. Without the quota for one more it
    // has the revoked one, in which nothing is.
    b.op(call::KEYCTL, [JOIN_SESSION_KEYRING.into(), 0.into()]).ok(&[
        libc::ENOSYS,
        libc::EPERM,
        libc::EACCES,
        libc::EDQUOT,
    ]);
}

/// Says what the next exec is to make of this process. The kernel takes that from the process itself only, through its proc: the
/// keeper's, because what the container has there can lead elsewhere (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881); no mount
/// is crossed, so that the file is procfs' own; and the answer is read back.
pub(super) fn labels(b: &mut Builder, confinement: &Confinement<'_>) {
    if let Some(profile) = confinement.apparmor {
        b.field("apparmor");
        let hint = "the profile has to be loaded (apparmor_parser -r FILE), and the caller's own, where it has one, has to allow \
                    the change";
        // The kernel shows a name with a namespace, or a stack of names, in a form of its own.
        let shown = (!profile.starts_with([':', '&']) && !profile.contains("//&")).then_some(profile);
        let other = "the kernel made another of it";
        attribute(b, "self/attr/apparmor/exec", &format!("exec {profile}"), shown, [hint, other]);
    }
    if let Some(label) = confinement.selinux {
        b.field("selinux");
        let hint = "the policy has to know the label, and to allow the change to it (process: setexec, transition)";
        let other = "no policy is loaded, or /sys/fs/selinux could not be asked how the kernel writes the label: give it in that form";
        attribute(b, "self/attr/exec", label, Some(label), [hint, other]);
    }
}

/// An attribute of this process in the keeper's proc.
fn open_attribute(b: &mut Builder, path: &str) -> u16 {
    let resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
    let how = b.words(&[(libc::O_RDWR | libc::O_CLOEXEC) as u64, 0, resolve]);
    let text = b.text(path);
    let proc = Arg::Slot(slot::PROC as u16);
    b.op(call::OPENAT2, [proc, text, how, 24.into()]).path(format!("/proc/{path}")).keep()
}

fn attribute(b: &mut Builder, path: &str, text: &str, shown: Option<&str>, [hint, other]: [&'static str; 2]) {
    let in_proc = format!("/proc/{path}");
    let file = open_attribute(b, path);
    let data = b.text(text);
    // One write: the kernel takes it whole or not.
    b.op(call::WRITE, [Arg::Slot(file), data, (text.len() as u64).into()]).path(&*in_proc).hint(hint);
    match shown {
        Some(shown) => {
            let data = b.text(shown);
            let begins = 1;
            let args = [Arg::Slot(file), data, (shown.len() as u64).into(), begins.into()];
            b.op(call::COMPARE, args).path(&*in_proc).hint(other);
        }
        None => {
            let room = b.bytes(&[0; 8]);
            b.op(call::PREAD64, [Arg::Slot(file), room, 8.into(), 0.into()]).path(&*in_proc);
        }
    }
    b.op(call::CLOSE, [Arg::Slot(file)]);
}

/// Restricts this process, for good. Before its credentials change, because root of the container reaches every path that it may
/// name; after no_new_privs, where that is asked for, because the kernel wants it or CAP_SYS_ADMIN.
pub(super) fn landlock(b: &mut Builder, rules: &Landlock) {
    const BIND_TCP: u64 = 1;
    const CONNECT_TCP: u64 = 2;
    const RULE_NET_PORT: i32 = 2;
    if rules.is_empty() {
        return;
    }
    b.field("landlock");
    let ports = [(BIND_TCP, "bind", &rules.bind), (CONNECT_TCP, "connect", &rules.connect)];
    let handled = ports.iter().filter(|(_, _, list)| list.is_some()).fold(0, |all, (bit, _, _)| all | bit);
    // struct landlock_ruleset_attr; an older kernel takes the longer one as long as the rest is 0.
    let attr = b.words(&[rules.handled(), handled, rules.scopes]);
    let ruleset = b.op(call::LANDLOCK_CREATE_RULESET, [attr, 24.into(), 0.into()]).keep();
    if !rules.paths.is_empty() {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let slash = b.text("/");
        let root = b.op(call::OPENAT, [libc::AT_FDCWD.into(), slash, flags.into()]).path("/").keep();
        for (path, &access) in &rules.paths {
            b.field(format!("landlock.paths[{:?}]", path.to_string_lossy()));
            path_rule(b, (ruleset, root), path, access & rules.handled(), access == Landlock::ALL);
        }
        b.field("landlock.paths");
        b.op(call::CLOSE, [Arg::Slot(root)]);
    }
    for (bit, name, list) in ports {
        for (i, &port) in list.iter().flatten().enumerate() {
            b.field(format!("landlock.{name}[{i}]"));
            let attr = b.words(&[bit, port.into()]);
            b.op(call::LANDLOCK_ADD_RULE, [Arg::Slot(ruleset), RULE_NET_PORT.into(), attr, 0.into()]);
        }
    }
    b.field("landlock");
    b.op(call::LANDLOCK_RESTRICT_SELF, [Arg::Slot(ruleset), 0.into()]).hint(
        "without no_new_privs it takes CAP_SYS_ADMIN in the user namespace; and the kernel stacks 16 sets of rules, the host's too",
    );
    b.op(call::CLOSE, [Arg::Slot(ruleset)]);
}

/// A rule for a directory, or, where only what can be one of a file is asked for, for whichever it is.
fn path_rule(b: &mut Builder, (ruleset, root): (u16, u16), path: &std::path::Path, access: u64, all: bool) {
    use std::os::unix::ffi::OsStrExt;
    let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    let shown = path.to_string_lossy().into_owned();
    let text = b.text(path.as_os_str().as_bytes());
    let of_file = access & Landlock::OF_FILES;
    let may_be_file = of_file != 0 && (all || access & !(Landlock::OF_FILES | Landlock::READ) == 0);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let how_dir = b.words(&[(flags | libc::O_DIRECTORY) as u64, 0, resolve]);
    let how = b.words(&[flags as u64, 0, resolve]);
    let first = b.len();
    let step = b.op(call::OPENAT2, [Arg::Slot(root), text, how_dir, 24.into()]).path(&*shown);
    let file = if may_be_file {
        step.ok(&[libc::ENOTDIR]).hint("a rule is for what is there when the program starts").keep()
    } else {
        step.hint("the path has to be there, and these rights are of a directory").keep()
    };
    b.op(call::LANDLOCK_PATH, [Arg::Slot(ruleset), Arg::Slot(file), access.into()]).path(&*shown);
    b.op(call::CLOSE, [Arg::Slot(file)]);
    if may_be_file {
        b.skip_from(first, false);
        let done = b.len() - 1;
        b.op(call::OPENAT2, [Arg::Slot(root), text, how, 24.into()]).path(&*shown).keep_in(file);
        b.op(call::LANDLOCK_PATH, [Arg::Slot(ruleset), Arg::Slot(file), of_file.into()]).path(&*shown);
        b.op(call::CLOSE, [Arg::Slot(file)]);
        b.skip_from(done, true);
    }
}
