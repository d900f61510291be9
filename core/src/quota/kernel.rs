//! What the kernel was built with, from what it shows. For the reasons of errors: whether something works is tried.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// CONFIG_QFMT_V2, without which ext4 has no quota; `None`: nothing tells.
pub(super) fn has_quota_format() -> Option<bool> {
    /// Of fs/quota/quota_v2.c.
    const SYMBOL: &str = " v2_check_quota_file";
    if has_symbol(SYMBOL)? {
        return Some(true);
    }
    // A module that is not loaded has no symbols yet.
    let release = nix::sys::utsname::uname().ok()?.release().to_string_lossy().into_owned();
    let modules = Path::new("/lib/modules").join(release);
    let lists = ["modules.dep", "modules.builtin"].map(|name| fs::read_to_string(modules.join(name)));
    Some(lists.into_iter().flatten().any(|list| list.contains("/quota_v2.ko")))
}

/// CONFIG_XFS_QUOTA; `None`: xfs is not loaded, or nothing tells.
pub(super) fn has_xfs_quota() -> Option<bool> {
    let dir = Path::new("/proc/fs/xfs");
    dir.join("stat").exists().then(|| dir.join("xqmstat").exists())
}

fn has_symbol(symbol: &str) -> Option<bool> {
    let file = fs::File::open("/proc/kallsyms").ok()?;
    let mut any = false;
    for line in BufReader::new(file).lines() {
        any = true;
        let line = line.ok()?;
        if line.split('\t').next().is_some_and(|line| line.ends_with(symbol)) {
            return Some(true);
        }
    }
    any.then_some(false)
}
