//! Hosts that are confined themselves: by another container manager's filter, or without capabilities.

use super::*;

pub const TESTS: &[Test] = &[
    ("a filter that denies namespaces is explained", 60, namespaces_denied),
    ("root without capabilities is an ordinary caller", 60, without_capabilities),
];

const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u32;

fn statement(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn confine(filter: &[libc::sock_filter]) {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the filter lives through the call; an ordinary caller needs no_new_privs for it.
    unsafe {
        if libc::geteuid() != 0 {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        }
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

/// As container managers filter their containers: clone and unshare with flags for namespaces give EPERM, clone3 (whose flags
/// a filter cannot see) ENOSYS, so that C libraries fall back to clone.
fn namespaces_denied() {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const ANY_BIT: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let errno = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
    for clone3 in [libc::ENOSYS, libc::EPERM] {
        join_worker(in_worker(|| {
            confine(&[
                statement(LOAD, 0, 0, 0),
                statement(EQUAL, 5, 0, libc::SYS_clone3 as u32),
                statement(EQUAL, 1, 0, libc::SYS_clone as u32),
                statement(EQUAL, 0, 2, libc::SYS_unshare as u32),
                // The low half of the first argument.
                statement(LOAD, 0, 0, 16),
                statement(ANY_BIT, 2, 0, NEW_NAMESPACES),
                statement(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
                statement(RETURN, 0, 0, errno(clone3)),
                statement(RETURN, 0, 0, errno(libc::EPERM)),
            ]);
            let error = Container::start(&spec(["true"])).expect_err("namespaces are denied");
            println!("{error}");
            let expected = [ErrorKind::PermissionDenied, ErrorKind::Unsupported];
            assert!(expected.contains(&error.kind()), "{:?} {error}", error.kind());
            let hint = error.hint().unwrap_or_else(|| panic!("no explanation: {error}"));
            assert!(hint.contains("seccomp"), "{hint}");
            assert!(!ringfence::doctor().ok(), "the doctor finds nothing wrong");
            assert_childless();
        }));
    }
}

fn without_capabilities() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("an ordinary caller has none to lose");
    }
    let header = [0x2008_0522u32, 0];
    let none = [0u32; 6];
    // SAFETY: the header and the data of version 3; then an attribute of this process.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        for capability in 0..64 {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()), 0);
    }
    let unlimited = Spec { memory: None, pids: None, ..spec(["sh", "-c", "exit 12"]) };
    match Container::start(&unlimited) {
        Ok(container) => {
            let status = container.main().expect("main").wait(Some(Duration::from_secs(20))).expect("wait");
            assert_eq!(status.expect("ended").code, Some(12));
            let info: serde_json::Value = serde_json::from_str(&container.info_json()).expect("JSON");
            assert_eq!(info["privileged"], false);
            container.close(Some(Duration::from_secs(5))).expect("close");
        }
        Err(error) => {
            assert!(error.hint().is_some(), "no explanation: {error}");
            println!("{error}");
        }
    }
}
