//! Whether this kernel has what a program is to be confined by. What it lacks is an error before anything is made.

use once_cell::sync::OnceCell;

use crate::error::{Error, ErrorKind, Result};
use crate::plan::confine::Confinement;
use crate::spec::{Capabilities, Landlock, sysctl};
use crate::sys::{probe, rights};

/// `uid`: of the program, where there is one to be started. Returns the label of SELinux as the kernel shows it.
pub(crate) fn check(
    confinement: &Confinement<'_>,
    capabilities: &Capabilities,
    no_new_privs: bool,
    uid: Option<u32>,
) -> Result<Option<String>> {
    if let Some(name) = capabilities.beyond(rights::last_capability()) {
        return Err(Error::new(ErrorKind::Unsupported, format!("this kernel has no capability {name}"))
            .with_field("capabilities")
            .with_errno(libc::EINVAL)
            .with_hint("the last one that it has is kernel.cap_last_cap; leave the newer ones out"));
    }
    if let Some(uid) = uid {
        capabilities.check_exec(uid, no_new_privs, confinement.securebits)?;
    }
    check_landlock(confinement.landlock)?;
    if confinement.apparmor.is_some() && std::fs::read("/proc/self/attr/apparmor/current").is_err() {
        return Err(inactive("apparmor", "AppArmor", "CONFIG_SECURITY_APPARMOR, and apparmor"));
    }
    check_label("selinux", confinement.selinux)
}

/// Whether a keyring more leaves the caller, whose quota it counts for, enough for its own: half of what it may have. A login
/// needs one too.
pub(crate) fn may_take_keyring() -> bool {
    let users = std::fs::read_to_string("/proc/key-users").unwrap_or_default();
    has_keys_left(&users, nix::unistd::geteuid().as_raw())
}

/// Lines of proc_key-users(5): `UID: USAGE NKEYS/NIKEYS QNKEYS/MAXKEYS QNBYTES/MAXBYTES`.
fn has_keys_left(users: &str, uid: u32) -> bool {
    let half = |word: Option<&str>| {
        let (used, most) = word?.split_once('/')?;
        Some(used.parse::<u64>().ok()?.saturating_mul(2) < most.parse().ok()?)
    };
    let line = users.lines().find_map(|line| line.trim().split_once(':').filter(|(who, _)| *who == uid.to_string()));
    let Some((_, rest)) = line else { return true };
    let mut words = rest.split_whitespace().skip(2);
    half(words.next()).unwrap_or(true) && half(words.next()).unwrap_or(true)
}

/// Parameters that older kernels have once, for the whole machine. `root` without a user namespace would change that.
pub(crate) fn check_sysctls<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    const OF_NAMESPACES: (u32, u32) = (6, 14);
    let Some(name) = names.into_iter().find(|name| sysctl::path(name) == sysctl::PID_MAX) else { return Ok(()) };
    if rights::kernel_version() >= OF_NAMESPACES {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "pid namespaces have one of their own since Linux 6.14, and this kernel is older",
    )
    .with_field(format!("sysctls[{name:?}]"))
    .with_errno(libc::EOPNOTSUPP)
    .with_hint("the container's own number of processes is pids"))
}

fn inactive(field: &str, module: &str, takes: &str) -> Error {
    let active = std::fs::read_to_string("/sys/kernel/security/lsm");
    let active = active.map(|list| format!("; active are {}", list.trim())).unwrap_or_default();
    Error::new(ErrorKind::Unsupported, format!("{module} is not active in this kernel{active}"))
        .with_field(field)
        .with_errno(libc::EOPNOTSUPP)
        .with_hint(format!("it takes {takes} in the kernel's lsm= parameter"))
}

/// As libselinux finds out: the kernel registers its file system only when the module is active.
fn has_selinux() -> bool {
    let list = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    list.split_whitespace().any(|word| word == "selinuxfs")
}

/// A label of SELinux as the kernel writes it, with ranges of categories and without aliases: for what is read back of the program's own.
/// Where the policy or the machine does not let the caller ask, it is as it was given.
pub(crate) fn check_label(field: &'static str, label: Option<&str>) -> Result<Option<String>> {
    let Some(label) = label else { return Ok(None) };
    if !has_selinux() {
        return Err(inactive(field, "SELinux", "CONFIG_SECURITY_SELINUX, a policy, and selinux"));
    }
    // Without a policy the kernel has labels of its own only, and takes any that is written for one of them: `kernel`.
    if std::fs::read_to_string("/proc/self/attr/current").is_ok_and(|own| !own.contains(':')) {
        return Err(Error::new(ErrorKind::Unsupported, "SELinux has no policy")
            .with_field(field)
            .with_errno(libc::EOPNOTSUPP)
            .with_hint(
                "it is loaded when the machine starts: the distribution's package (selinux-policy), load_policy(8)",
            ));
    }
    let as_given = Ok(Some(label.to_owned()));
    match nix::sys::statfs::statfs(SELINUXFS) {
        Ok(found) if found.filesystem_type() == nix::sys::statfs::SELINUX_MAGIC => {}
        _ => return as_given,
    }
    match ask_label(label) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(Error::new(ErrorKind::Os, format!("the policy has no label {label:?}"))
                .with_field(field)
                .with_errno(libc::EINVAL)
                .with_hint(
                    "it is user:role:type:level, of names that the policy has and lets go together (seinfo -u -r -t)",
                ))
        }
        Err(_) => as_given,
    }
}

const SELINUXFS: &str = "/sys/fs/selinux";

/// A write is checked against the policy; what is read afterwards is the answer.
fn ask_label(label: &str) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut file = std::fs::File::options().read(true).write(true).open(format!("{SELINUXFS}/context"))?;
    file.write_all(label.as_bytes())?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    text.truncate(text.trim_end_matches('\0').len());
    Ok(text)
}

fn check_landlock(rules: &Landlock) -> Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    static VERSION: OnceCell<std::result::Result<usize, i32>> = OnceCell::new();
    let refuse = |member: &str, why: String, errno, hint: &str| {
        let field = if member.is_empty() { "landlock".to_owned() } else { format!("landlock.{member}") };
        let error = Error::new(ErrorKind::Unsupported, why).with_field(field).with_errno(errno);
        Err(if hint.is_empty() { error } else { error.with_hint(hint) })
    };
    let (needed, member) = rules.needs();
    match *VERSION.get_or_init(probe::landlock) {
        Ok(version) if version >= needed as usize => Ok(()),
        Ok(version) => refuse(
            member,
            format!("takes version {needed} of Landlock's interface, and this kernel has {version}"),
            libc::EOPNOTSUPP,
            &format!("Linux {} has it; with abi, an older version is enough, which denies less", since(needed)),
        ),
        Err(libc::EOPNOTSUPP) => refuse(
            "",
            format!("takes version {needed} of Landlock's interface, which is built into this kernel, but not active"),
            libc::EOPNOTSUPP,
            "add landlock to the kernel's lsm= parameter",
        ),
        Err(libc::ENOSYS) => refuse(
            "",
            format!("takes version {needed} of Landlock's interface, and this kernel has none"),
            libc::ENOSYS,
            &format!(
                "Linux {} with CONFIG_SECURITY_LANDLOCK has it; a filter of this process may refuse it too",
                since(needed)
            ),
        ),
        Err(errno) => refuse("", "Landlock cannot be used".to_owned(), errno, ""),
    }
}

/// The kernel that brought a version.
fn since(version: u32) -> &'static str {
    match version {
        ..=1 => "5.13",
        2 => "5.19",
        3 => "6.2",
        4 => "6.7",
        5 => "6.10",
        _ => "6.12",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_keys_are_left_to_the_caller() {
        let users = "    0:     9 8/8 3/1000000 48/25000000\n 1000:   120 99/99 99/200 500/20000\n 1001: 3 3/3 100/200 1/20000\n\
                     1002: 3 3/3 1/200 10000/20000\n65401: x\n";
        let left: Vec<bool> = [0, 1000, 1001, 1002, 65_401, 5].map(|uid| has_keys_left(users, uid)).into();
        assert_eq!(left, [true, true, false, false, true, true]);
        assert!(has_keys_left("", 0));
    }
}
