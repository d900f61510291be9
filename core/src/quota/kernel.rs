//! What the kernel was built with, from what it shows. For the reasons of errors: whether something works is tried.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// CONFIG_QFMT_V2, without which ext4 has no quota; `None`: nothing tells.
pub(super) fn has_quota_format() -> Option<bool> {
    /// Of fs/quota/quota_v2.c.
    const SYMBOL: &str = " v2_check_quota_file";
    // The symbols are some megabytes of text, and the kernel stays the same.
    static FOUND: OnceLock<Option<bool>> = OnceLock::new();
    // A module that is not loaded has no symbols yet.
    *FOUND.get_or_init(|| Some(has_symbol(SYMBOL)? || has_module("quota_v2")))
}

/// Whether a file system is there or is loaded when somebody asks for it.
pub(super) fn has_filesystem(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split('\t').next_back() == Some(name)) || has_module(name)
}

fn has_module(name: &str) -> bool {
    let Ok(uname) = nix::sys::utsname::uname() else { return false };
    let modules = Path::new("/lib/modules").join(uname.release());
    let lists = ["modules.dep", "modules.builtin"].map(|list| fs::read_to_string(modules.join(list)));
    lists.into_iter().flatten().any(|list| list.contains(&format!("/{name}.ko")))
}

/// CONFIG_XFS_QUOTA; `None`: xfs is not loaded, or nothing tells.
pub(super) fn has_xfs_quota() -> Option<bool> {
    let dir = Path::new("/proc/fs/xfs");
    dir.join("stat").exists().then(|| dir.join("xqmstat").exists())
}

/// `None`: the kernel shows no symbols.
fn has_symbol(symbol: &str) -> Option<bool> {
    let all = fs::read_to_string("/proc/kallsyms").ok()?;
    (!all.is_empty()).then(|| all.contains(symbol))
}
