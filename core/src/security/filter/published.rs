//! The default profile beside those that Docker and Podman publish: what it allows, they allow, but for what is listed here.
//!
//! Those of the distribution are in packages: golang-github-containers-common (/usr/share/containers/seccomp.json) and
//! golang-github-docker-docker-dev; RINGFENCE_PODMAN_SECCOMP and RINGFENCE_DEBIAN_DOCKER_SECCOMP are paths of copies.
//! RINGFENCE_DOCKER_SECCOMP is the path of a copy of what Docker publishes (moby/profiles, seccomp/default.json): tests/setup brings
//! that of the newest package that has it as a file, Docker 26's; this test also passed with seccomp/v0.2.3 of May 2026.

use std::collections::BTreeMap;
use std::fs;

use super::compile::{Instruction, compile};
use super::interpret::{Call, run};
use super::profile;
use super::rules::{Context, Filter, Seccomp, SeccompArch};
use super::{syscalls, table};
use crate::spec::{Capabilities, Spec};

/// What is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Allowed {
    ByUsOnly,
    ByThemOnly,
}
use Allowed::{ByThemOnly, ByUsOnly};

/// Its filter as libseccomp's users compile it: ENOSYS is the runtime's affair, not the profile's.
fn published(path: &str, context: &Context) -> Option<Filter> {
    let text = fs::read_to_string(path).ok()?;
    let json = format!(r#"{{"seccomp": {text}}}"#);
    let spec = Spec::from_json(&json).unwrap_or_else(|error| panic!("{path}: {error}"));
    spec.validate().unwrap_or_else(|error| panic!("{path}: {error}"));
    profile::filter(&spec.seccomp, false, context)
}

/// First arguments with which rules of these profiles treat calls differently.
const FIRST: [u64; 13] =
    [0, 1, 0x8, 16, 38, 39, 40, 41, 0x2_0000, 0xffff_ffff, libc::CLONE_NEWUSER as u64, 1 << 32 | 8, 1 << 32 | 38];

/// Calls that one of the two allows and the other does not, with some first argument, on one architecture.
fn differences(
    ours: &[Instruction],
    theirs: &[Instruction],
    arch: SeccompArch,
) -> BTreeMap<&'static str, (Allowed, Vec<u64>)> {
    let mut found: BTreeMap<&str, (Allowed, Vec<u64>)> = BTreeMap::new();
    for (name, _) in &syscalls::SYSCALLS {
        let Some(number) = table::number(name, arch) else { continue };
        for first in FIRST.iter().copied().filter(|first| arch != SeccompArch::I386 || *first <= 0xffff_ffff) {
            let call = Call::new(number, arch, [first, 0, 0, 0, 0, 0]);
            let allows = |program| run(program, &call) == libc::SECCOMP_RET_ALLOW;
            let one = match (allows(ours), allows(theirs)) {
                (true, false) => ByUsOnly,
                (false, true) => ByThemOnly,
                _ => continue,
            };
            found.entry(name).or_insert((one, Vec::new())).1.push(first);
        }
    }
    found
}

/// All differences but for those that a list explains: names, and who alone allows them.
fn unexplained(path: &str, explained: &[(&str, Allowed)]) -> Option<Vec<String>> {
    let explains = |name: &str, one| {
        explained.iter().any(|(names, other)| *other == one && names.split_ascii_whitespace().any(|n| n == name))
    };
    let mut rest = Vec::new();
    let sets = (0..41).map(|capability| 1 << capability).chain([0, Capabilities::DEFAULT, Capabilities::ALL]);
    for capabilities in sets {
        for native in [SeccompArch::X86_64, SeccompArch::Aarch64] {
            let context = Context { native, capabilities, kernel: (6, 17), ports: false };
            let theirs = published(path, &context)?;
            let ours = profile::filter(&Seccomp::Default, false, &context).unwrap();
            assert_eq!(ours.architectures, theirs.architectures);
            let (ours, theirs) = (compile(&ours).unwrap(), compile(&theirs).unwrap());
            for &arch in native.family() {
                for (name, (one, first)) in differences(&ours, &theirs, arch) {
                    if !explains(name, one) {
                        rest.push(format!("{name} {one:?} on {arch:?}, {capabilities:#x}, {first:x?}"));
                    }
                }
            }
        }
    }
    Some(rest)
}

/// The kernel does not look at the upper half of these first arguments; they do.
const UPPER_HALF: [(&str, Allowed); 2] = [("socket", ByThemOnly), ("personality", ByUsOnly)];

/// They hold socket(2) back from AF_ALG and AF_VSOCK, and no other way to one.
const OTHER_SOCKETS: (&str, Allowed) = ("socketpair socketcall", ByThemOnly);

#[test]
fn docker() {
    let Ok(path) = std::env::var("RINGFENCE_DOCKER_SECCOMP") else {
        return println!("SKIP: RINGFENCE_DOCKER_SECCOMP is not set to a copy of Docker's profile");
    };
    let mut explained = vec![
        UPPER_HALF[0],
        UPPER_HALF[1],
        OTHER_SOCKETS,
        // Newer than the profile of 2026.
        ("file_getattr file_setattr open_tree_attr", ByUsOnly),
    ];
    let is_older = fs::read_to_string(&path).is_ok_and(|text| !text.contains(r#""mseal""#));
    if is_older {
        // Newer than that of 2024 (Docker 26), and with CAP_SYS_ADMIN what it has for nobody.
        explained
            .push(("getxattrat listmount listxattrat mseal removexattrat setxattrat statmount uretprobe", ByUsOnly));
        explained.push(("lsm_get_self_attr lsm_list_modules lsm_set_self_attr", ByUsOnly));
    }
    let rest = unexplained(&path, &explained).expect("the profile can be read");
    assert!(rest.is_empty(), "{rest:#?}");
}

#[test]
fn docker_of_the_distribution() {
    let Ok(path) = std::env::var("RINGFENCE_DEBIAN_DOCKER_SECCOMP") else {
        return println!("SKIP: Docker's profile is not on this machine (package golang-github-docker-docker-dev)");
    };
    let explained = [
        UPPER_HALF[0],
        UPPER_HALF[1],
        OTHER_SOCKETS,
        // Refused since Docker 25.
        ("io_uring_setup io_uring_enter io_uring_register", ByThemOnly),
        // Newer than the profile of 2022, or than its knowledge of capabilities; what it keeps for old kernels or for one call of two.
        (
            "bpf cachestat clock_settime64 fchmodat2 file_getattr file_setattr futex_requeue futex_wait futex_wake getxattrat listmount \
             listxattrat lsm_get_self_attr lsm_list_modules lsm_set_self_attr map_shadow_stack mseal name_to_handle_at open_tree_attr \
             perf_event_open pkey_alloc pkey_free pkey_mprotect process_vm_readv process_vm_writev removexattrat \
             set_mempolicy_home_node setxattrat statmount uretprobe",
            ByUsOnly,
        ),
    ];
    let rest = unexplained(&path, &explained).expect("the profile can be read");
    assert!(rest.is_empty(), "{rest:#?}");
}

#[test]
fn podman() {
    let path = std::env::var("RINGFENCE_PODMAN_SECCOMP");
    let explained = [
        UPPER_HALF[0],
        UPPER_HALF[1],
        OTHER_SOCKETS,
        // It lets everybody try what Docker's lets who has CAP_SYS_ADMIN and other capabilities: namespaces, mounts, and more.
        (
            "clone clone3 unshare setns mount umount umount2 mount_setattr move_mount open_tree fsopen fsmount fsconfig fspick \
             pivot_root syslog reboot pidfd_getfd get_mempolicy set_mempolicy mbind keyctl",
            ByThemOnly,
        ),
        // Those of long ago.
        ("query_module readdir sigaction signal sigpending sigsuspend", ByThemOnly),
        // vmsplice and io_pgetevents it refuses; the capabilities of 2020 it does not know.
        ("vmsplice io_pgetevents io_pgetevents_time64 bpf perf_event_open", ByUsOnly),
        // Newer than the profile of 2022.
        (
            "cachestat fchmodat2 file_getattr file_setattr futex_requeue futex_wait futex_waitv futex_wake getxattrat listmount \
             listxattrat lsm_get_self_attr lsm_list_modules lsm_set_self_attr map_shadow_stack mseal open_tree_attr quotactl_fd \
             removexattrat set_mempolicy_home_node setxattrat statmount uretprobe",
            ByUsOnly,
        ),
    ];
    match unexplained(path.as_deref().unwrap_or("/usr/share/containers/seccomp.json"), &explained) {
        Some(rest) => assert!(rest.is_empty(), "{rest:#?}"),
        None => println!("SKIP: Podman's profile is not on this machine (package golang-github-containers-common)"),
    }
}
