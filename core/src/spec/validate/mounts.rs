//! The root file system, mounts and files.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::ids::{mount_idmap, own_idmap};
use super::limits::MIN_SIZE;
use super::syntax::{absolute, descriptor, file_mode, no_nul, normal};
use crate::error::Result;
use crate::spec::at::At;
use crate::spec::{BindSource, File, Mount, MountKind, RootfsKind, Spec};

/// The most layers of an overlay: OVL_MAX_STACK of the kernel.
const MAX_LAYERS: usize = 500;

impl Spec {
    pub(super) fn validate_rootfs(&self) -> Result<()> {
        let at = At::Field("rootfs");
        if let Some(idmap) = &self.rootfs.idmap {
            let at = at.key("idmap");
            if matches!(self.rootfs.kind, RootfsKind::Host | RootfsKind::HostOwned) {
                let error = at.error("only a directory or layers have one");
                return Err(error.with_hint("\"host:owned\" is the host's tree with the container's map"));
            }
            own_idmap(&at, idmap)?;
        }
        match &self.rootfs.kind {
            RootfsKind::Host | RootfsKind::HostOwned => Ok(()),
            RootfsKind::Directory(path) => {
                absolute(&at, path)?;
                if normal(path.as_os_str().as_bytes()) == b"/" {
                    return Err(at
                        .error("\"/\" would be the host's own tree in place, writable")
                        .with_hint("\"host\" is a private view of it"));
                }
                Ok(())
            }
            RootfsKind::Layers { lower, upper } => {
                let lower_at = at.key("lower");
                if lower.is_empty() {
                    return Err(lower_at.error("has no layer; at least one is needed"));
                }
                if lower.len() > MAX_LAYERS {
                    return Err(lower_at.error(format!("{} layers; overlayfs takes {MAX_LAYERS}", lower.len())));
                }
                for (i, path) in lower.iter().enumerate() {
                    absolute(&lower_at.index(i), path)?;
                }
                match upper {
                    Some(path) => absolute(&at.key("upper"), path),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Files of /proc that lxcfs and others replace; a mount on any other could redirect what is written to a process's attributes
/// (CVE-2019-16884, CVE-2025-52881).
const PROC_FILES: [&[u8]; 9] = [
    b"/proc/cpuinfo",
    b"/proc/diskstats",
    b"/proc/meminfo",
    b"/proc/stat",
    b"/proc/swaps",
    b"/proc/uptime",
    b"/proc/loadavg",
    b"/proc/slabinfo",
    b"/proc/net/dev",
];

/// What the container's /dev has anyway.
pub(super) const DEV_ENTRIES: [&[u8]; 15] = [
    b"null", b"zero", b"full", b"random", b"urandom", b"tty", b"ptmx", b"pts", b"shm", b"mqueue", b"fd", b"stdin",
    b"stdout", b"stderr", b"core",
];

pub(super) fn validate_mounts(mounts: &[Mount]) -> Result<()> {
    let list = At::Field("mounts");
    let mut earlier: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = list.index(i);
        if mount.target.as_os_str().is_empty() {
            return Err(match &mount.kind {
                MountKind::Bind { source: BindSource::Path(text), .. } => match Mount::parse(text.as_os_str()) {
                    Err(why) => at.error(format!("{text:?} is not source[:target][:rw]: {why}")),
                    Ok(_) => at.key("target").error("is empty"),
                },
                _ => at.key("target").error("is empty"),
            });
        }
        match &mount.kind {
            MountKind::Bind { source: BindSource::Path(path), .. } => absolute(&at.key("source"), path)?,
            MountKind::Bind { source: BindSource::Fd(fd), .. } => descriptor(&at.key("fd"), *fd)?,
            MountKind::Tmpfs { size, mode } => {
                if let Some(size) = size
                    && *size < MIN_SIZE
                {
                    return Err(at.key("size").error(format!("{size} bytes are less than {MIN_SIZE}")));
                }
                if let Some(mode) = mode {
                    file_mode(&at.key("mode"), *mode)?;
                }
            }
            MountKind::Volume { name } => {
                if let Some(name) = name {
                    crate::volume::check_name(name)
                        .map_err(|why| at.key("source").error(format!("{name:?}: {why}")))?;
                }
            }
            MountKind::Proc | MountKind::Sysfs | MountKind::Mqueue | MountKind::Devpts | MountKind::Cgroup => {}
            MountKind::BinfmtMisc { register } => {
                for (i, line) in register.iter().enumerate() {
                    binary_format(&at.key("register").index(i), line.as_bytes())?;
                }
            }
        }
        if mount.owner.is_some() && !matches!(mount.kind, MountKind::Bind { .. } | MountKind::Volume { .. }) {
            return Err(at.key("owner").error("only a bind or a volume has one"));
        }
        mount_idmap(&at, mount)?;
        let target_at = at.key("target");
        let target = inside(&target_at, &mount.target)?;
        if target == b"/" {
            return Err(target_at.error("\"/\" is what rootfs says"));
        }
        let in_proc = target == b"/proc" || target.starts_with(b"/proc/");
        let fits = match mount.kind {
            MountKind::Proc => target == b"/proc",
            MountKind::BinfmtMisc { .. } => target == Mount::BINFMT_MISC.as_bytes(),
            _ => PROC_FILES.contains(&&target[..]),
        };
        if in_proc && !fits {
            return Err(target_at.error(format!(
                "{:?}: a mount in /proc could redirect what is written to attributes of processes",
                mount.target
            )));
        }
        if let Some(other) = earlier.get(&target) {
            return Err(target_at.error(format!("{:?} is the target of mounts[{other}] already", mount.target)));
        }
        let mut below = target.clone();
        below.push(b'/');
        if let Some((path, other)) = earlier.range(below.clone()..).next()
            && path.starts_with(&below)
        {
            return Err(target_at
                .error(format!("{:?} would cover mounts[{other}] at {:?}", mount.target, OsStr::from_bytes(path)))
                .with_hint("put the one above first"));
        }
        earlier.insert(target, i);
    }
    Ok(())
}

/// `:name:type:offset:magic:mask:interpreter:flags`, with any character in the place of the colon: as far as it can be told
/// without the kernel.
fn binary_format(at: &At, line: &[u8]) -> Result<()> {
    // MAX_REGISTER_LENGTH of the kernel.
    const LONGEST: usize = 1920;
    no_nul(at, OsStr::from_bytes(line))?;
    let wrong = |why: &str| Err(at.error(format!("{:?}: {why}", OsStr::from_bytes(line))));
    if line.len() > LONGEST {
        return wrong("the kernel takes 1920 bytes");
    }
    let Some((&delimiter, rest)) = line.split_first() else { return wrong("is empty") };
    let fields: Vec<&[u8]> = rest.split(|&b| b == delimiter).collect();
    let [name, kind, _, _, _, interpreter, _] = fields[..] else {
        return wrong("a line is :name:type:offset:magic:mask:interpreter:flags");
    };
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name == b"register"
        || name == b"status"
        || name.contains(&b'/')
    {
        return wrong("the first field is no name that can be registered");
    }
    if kind != b"M" && kind != b"E" {
        return wrong("the type is M (magic) or E (extension)");
    }
    if !interpreter.starts_with(b"/") {
        return wrong("the interpreter is no absolute path");
    }
    Ok(())
}

pub(super) fn validate_files(files: &BTreeMap<PathBuf, File>, mounts: &[Mount]) -> Result<()> {
    let map = At::Field("files");
    let targets: BTreeSet<Vec<u8>> = if files.is_empty() {
        BTreeSet::new()
    } else {
        mounts.iter().map(|mount| normal(mount.target.as_os_str().as_bytes())).collect()
    };
    let mut earlier = BTreeSet::new();
    for (path, file) in files {
        let shown = path.to_string_lossy();
        let at = map.key(&shown);
        let target = inside(&at, path)?;
        file_mode(&at.key("mode"), file.mode)?;
        let bytes = path.as_os_str().as_bytes();
        if target == b"/" || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            return Err(at.error("names a directory; a file is made here"));
        }
        if [&b"/proc/"[..], b"/sys/"].iter().any(|tree| target.starts_with(tree)) {
            return Err(at.error("no file can be made in /proc or /sys"));
        }
        if targets.contains(&target) {
            return Err(at.error("is also the target of a mount"));
        }
        earlier.insert(target);
    }
    for file in &earlier {
        let mut below = file.clone();
        below.push(b'/');
        if let Some(other) = earlier.range(below.clone()..).next()
            && other.starts_with(&below)
        {
            let shown = String::from_utf8_lossy(file);
            return Err(map.key(&shown).error(format!("is a file, and {:?} is below it", OsStr::from_bytes(other))));
        }
    }
    Ok(())
}

/// A path inside the container (or below a control group): absolute, and `..` nowhere. Returns its normal form.
pub(super) fn inside(at: &At, path: &Path) -> Result<Vec<u8>> {
    absolute(at, path)?;
    let bytes = path.as_os_str().as_bytes();
    if bytes.split(|&b| b == b'/').any(|part| part == b"..") {
        return Err(at.error(format!("{path:?} has \"..\" in it")));
    }
    Ok(normal(bytes))
}
