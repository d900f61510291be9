//! What this thread may do, and over what.

use std::os::unix::fs::MetadataExt;

use once_cell::sync::OnceCell;

pub(crate) const CAP_SETGID: u32 = 6;
pub(crate) const CAP_SETUID: u32 = 7;
pub(crate) const CAP_SYS_ADMIN: u32 = 21;
pub(crate) const CAP_MKNOD: u32 = 27;
pub(crate) const CAP_SYS_RESOURCE: u32 = 24;

/// Effective capabilities of this thread, in its user namespace.
pub(crate) fn capabilities() -> u64 {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: header and data have the layout of version 3; 0 is this thread.
    let r = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    if r == 0 { u64::from(data[0]) | u64::from(data[3]) << 32 } else { 0 }
}

/// The number of the last capability that the kernel has: 40 since Linux 5.9.
pub(crate) fn last_capability() -> u32 {
    static LAST: OnceCell<u32> = OnceCell::new();
    // SAFETY: no pointers; EINVAL for a number that is none.
    let known =
        |number: &u32| unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(*number), 0, 0, 0) } >= 0;
    *LAST.get_or_init(|| (1..64).take_while(known).last().unwrap_or(0))
}

/// Major and minor number of the running kernel's version; 0 where it is in no such form.
pub(crate) fn kernel_version() -> (u32, u32) {
    let name = nix::sys::utsname::uname();
    let release = name.as_ref().map(|name| name.release().to_string_lossy()).unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Is this the machine's first user namespace, of which capabilities hold for all that the kernel has? (Without /proc, where
/// nothing works anyway, it is.)
pub(crate) fn in_initial_user_namespace() -> bool {
    /// include/linux/proc_ns.h
    const PROC_USER_INIT_INO: u64 = 0xefff_fffd;
    std::fs::metadata("/proc/self/ns/user").is_ok_and(|meta| meta.ino() == PROC_USER_INIT_INO)
        || !std::path::Path::new("/proc/self/uid_map").exists()
}

/// Lines of /proc/self/uid_map or gid_map: first id here, first id in the namespace above, how many.
pub(crate) fn id_map(file: &str) -> Vec<(u32, u32, u32)> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let number = |word: Option<&str>| word?.parse().ok();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((number(words.next())?, number(words.next())?, number(words.next())?))
        })
        .collect()
}

/// The effective uid as the user namespace above knows it.
pub(crate) fn uid_above() -> u32 {
    let uid = nix::unistd::geteuid().as_raw();
    if in_initial_user_namespace() {
        return uid;
    }
    let range = id_map("uid_map").into_iter().find(|&(first, _, count)| uid >= first && uid - first < count);
    range.map_or(uid, |(first, above, _)| above + (uid - first))
}
