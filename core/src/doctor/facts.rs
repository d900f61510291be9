//! What the files of /proc, /sys and /etc say about this process and this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// One kind of namespace.
pub(super) struct Kind {
    pub name: &'static str,
    /// For clone(2); 0: not by clone.
    pub flag: u64,
    /// As in `user.max_NAME_namespaces`.
    pub sysctl: &'static str,
    /// Part of what containers get by default.
    pub default: bool,
    pub option: &'static str,
}

const fn kind(name: &'static str, flag: i32, option: &'static str) -> Kind {
    Kind { name, flag: flag as u64, sysctl: name, default: true, option }
}

pub(super) const KINDS: [Kind; 8] = [
    kind("user", libc::CLONE_NEWUSER, "CONFIG_USER_NS"),
    kind("mnt", libc::CLONE_NEWNS, ""),
    kind("pid", libc::CLONE_NEWPID, "CONFIG_PID_NS"),
    kind("net", libc::CLONE_NEWNET, "CONFIG_NET_NS"),
    kind("ipc", libc::CLONE_NEWIPC, "CONFIG_IPC_NS"),
    kind("uts", libc::CLONE_NEWUTS, "CONFIG_UTS_NS"),
    kind("cgroup", libc::CLONE_NEWCGROUP, "CONFIG_CGROUPS"),
    Kind { default: false, ..kind("time", 0, "CONFIG_TIME_NS") },
];

pub(super) const CAP_SETFCAP: u32 = 31;

/// This thread, as the kernel sees it.
#[derive(Debug, Default)]
pub(super) struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub capabilities: u64,
    /// A seccomp filter is installed; how many are, where the kernel tells (5.9).
    pub filtered: bool,
    pub filters: Option<u32>,
    pub no_new_privs: bool,
    pub chrooted: bool,
    /// Whether this process may open its own /proc files for writing.
    pub dumpable: bool,
}

impl Caller {
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
                .unwrap_or_default()
        };
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            capabilities: u64::from_str_radix(field("CapEff"), 16).unwrap_or(0),
            filtered: field("Seccomp") == "2",
            filters: field("Seccomp_filters").parse().ok(),
            no_new_privs: field("NoNewPrivs") == "1",
            chrooted: chrooted(&fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default()),
            dumpable: nix::sys::prctl::get_dumpable().unwrap_or(true),
        }
    }

    pub(super) fn has(&self, capability: u32) -> bool {
        self.capabilities >> capability & 1 == 1
    }
}

/// The kernel leaves mounts out of the list that the root directory cannot reach: in a chroot that is no mount, its own too.
fn chrooted(mountinfo: &str) -> bool {
    !mountinfo.is_empty() && !mountinfo.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

/// Where something is mounted over a part of `root` (an octal escape in a path cannot make it begin with /proc).
pub(super) fn mounts_below(root: &str) -> Vec<String> {
    let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let below = |line: &str| {
        let path = line.split(' ').nth(4)?;
        path.strip_prefix(root)?.starts_with('/').then(|| path.to_owned())
    };
    mountinfo.lines().filter_map(below).collect()
}

/// `user.max_net_namespaces`: None where there is no such file.
pub(super) fn sysctl(name: &str) -> Option<String> {
    let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
    Some(value.trim().to_owned())
}

/// The active security modules, where securityfs is mounted and readable.
pub(super) fn security_modules() -> Option<String> {
    fs::read_to_string("/sys/kernel/security/lsm").ok().map(|l| l.trim().to_owned())
}

/// The AppArmor profile of this process, if one confines it.
pub(super) fn apparmor_profile() -> Option<String> {
    let current = fs::read_to_string("/proc/thread-self/attr/apparmor/current").ok()?;
    let profile = current.trim_matches(['\0', '\n', ' ']).to_owned();
    (!profile.is_empty() && profile != "unconfined").then_some(profile)
}

/// `6.18.1-generic` is (6, 18).
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Where a part of the kernel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    /// Loaded, or built in, or this kernel cannot tell.
    Present,
    /// A file, to be loaded at the first use.
    Loadable,
    Missing,
}

pub(super) fn module(name: &str, release: &str) -> Module {
    let Ok(loaded) = fs::read_to_string("/proc/modules") else { return Module::Present };
    if loaded.lines().any(|line| line.split(' ').next() == Some(name)) {
        return Module::Present;
    }
    let listed = |file: &str| {
        let list = fs::read_to_string(format!("/lib/modules/{release}/{file}"));
        list.map(|list| list.lines().any(|line| line.contains(&format!("/{name}.ko"))))
    };
    match (listed("modules.builtin"), listed("modules.dep")) {
        (Ok(true), _) | (Err(_), Err(_)) => Module::Present,
        (_, Ok(true)) => Module::Loadable,
        _ => Module::Missing,
    }
}

/// A program in PATH and the customary directories.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let customary = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(customary)
        .map(|dir| dir.join(name))
        .find(|file| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0))
}

/// How an installed program gets the right to map ids: set-user-id root or a file capability; else why it does not.
pub(super) fn raises(file: &Path) -> Result<&'static str, String> {
    let metadata = fs::metadata(file).map_err(|e| e.to_string())?;
    let nosuid =
        nix::sys::statvfs::statvfs(file).is_ok_and(|fs| fs.flags().contains(nix::sys::statvfs::FsFlags::ST_NOSUID));
    if nosuid {
        return Err("its file system is mounted nosuid".to_owned());
    }
    if metadata.uid() == 0 && metadata.mode() & libc::S_ISUID != 0 {
        return Ok("set-user-id root");
    }
    let opened = fs::File::open(file).map_err(|e| e.to_string())?;
    if crate::sys::xattr::get(&opened, c"security.capability").is_ok_and(|value| !value.is_empty()) {
        return Ok("with file capabilities");
    }
    Err("it is neither set-user-id root nor has it file capabilities".to_owned())
}

/// The lines of /etc/subuid or /etc/subgid that give ids to a user: how many ids each.
pub(super) fn sub_ids(text: &str, uid: u32, name: Option<&str>) -> Vec<u32> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let mine = Some(owner) == name || owner.parse() == Ok(uid);
        let (_, count) = (fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?);
        (mine && count > 0).then_some(count)
    };
    text.lines().filter_map(line).collect()
}

/// The user's name in /etc/passwd. (Not by NSS: that loads code into the host.)
pub(super) fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read(Path::new("/etc/passwd")).ok()?;
    let passwd = String::from_utf8_lossy(&passwd).into_owned();
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    chrooted(text);
    version(text);
    sub_ids(text, 1000, Some("user"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("5.4"), Some((5, 4)));
        assert_eq!(version("x"), None);
    }

    #[test]
    fn sub_ids_by_name_or_number() {
        let text = "root:1:2\nann:100000:65536\n1001:300000:1000\nann:5:0\nann:x:1\nannabel:1:1\n";
        assert_eq!(sub_ids(text, 1001, Some("ann")), [65_536, 1000]);
        assert_eq!(sub_ids(text, 7, None), [0u32; 0]);
    }

    #[test]
    fn the_root_mount_is_not_seen_in_a_chroot() {
        assert!(!chrooted("22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:5 / /proc rw - proc proc rw\n"));
        assert!(chrooted("23 22 0:5 / /proc rw - proc proc rw\n"));
        assert!(!Caller::now().chrooted);
    }

    #[test]
    fn programs_and_how_they_raise() {
        let passwd = program("passwd").or_else(|| program("su")).expect("a set-user-id program");
        assert_eq!(raises(&passwd), Ok("set-user-id root"));
        assert!(raises(&program("ls").unwrap()).unwrap_err().contains("neither"));
        assert_eq!(program("no-such-program-anywhere"), None);
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(.|\n){0,200}") {
            chrooted(&text);
            version(&text);
            sub_ids(&text, 1, Some("a"));
        }
    }
}
