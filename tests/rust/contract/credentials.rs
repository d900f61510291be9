//! Authority is the asking thread's, not the process's.

use super::*;

pub const TESTS: &[Test] = &[
    ("a thread that dropped its privileges has none of the keeper's", 60, dropped_privileges),
    ("a directory that a thread with other rights shares leaves no gap", 60, shared_with_other_rights),
    ("end_keepers makes the next start begin a new keeper", 60, ended_keepers),
];

const NOBODY: libc::c_long = 65534;

fn info(container: &Container, key: &str) -> serde_json::Value {
    let info: serde_json::Value = serde_json::from_str(&container.info_json()).expect("JSON");
    info[key].clone()
}

fn dropped_privileges() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root can become another user");
    }
    let container = container_of_nothing();
    assert_eq!(info(&container, "privileged"), true);
    let keeper = info(&container, "keeper_pid");
    let inside = container.clone();
    let thread = std::thread::spawn(move || {
        // SAFETY: the raw calls change this thread's ids only, which libc's functions would not.
        unsafe {
            assert_eq!(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()), 0);
            assert_eq!(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY), 0);
            assert_eq!(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY), 0);
        }
        let joined = inside.command("true").output().expect_err("root's container is not this thread's to join");
        assert_eq!(joined.kind(), ErrorKind::PermissionDenied, "{joined}");
        let unlimited = Spec { memory: None, pids: None, ..spec(["sleep", "100"]) };
        match Container::start(&unlimited) {
            Ok(own) => {
                assert_eq!(info(&own, "privileged"), false, "root's keeper started it");
                assert_ne!(info(&own, "keeper_pid"), keeper);
                let status = std::fs::read_to_string(format!("/proc/{}/status", own.main().expect("main").pid()));
                let uid = status.expect("status").lines().find_map(|l| l.strip_prefix("Uid:")).map(str::to_owned);
                assert_eq!(uid.expect("Uid").split_whitespace().next(), Some("65534"));
                own.close(Some(Duration::from_secs(5))).expect("close");
                println!("it has a keeper of its own");
            }
            Err(error) => {
                let expected = [ErrorKind::PermissionDenied, ErrorKind::Unsupported];
                assert!(expected.contains(&error.kind()), "{error}");
                println!("{error}");
            }
        }
    });
    thread.join().expect("the thread without privileges");
    // The others have what they had.
    assert!(container.command("true").output().expect("a command").status.success());
    container.close(Some(Duration::from_secs(5))).expect("close");
}

/// What a start on another thread could not share with this keeper, the keeper still knows when its own thread shares it:
/// otherwise it could not remove the groups that are made there.
fn shared_with_other_rights() {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        return skip("only root can take other groups");
    }
    let Some(above) = std::env::var_os("RINGFENCE_CGROUP_PARENT") else { return skip("needs a control group") };
    let first = container_of_nothing();
    let keeper = info(&first, "keeper_pid");
    let parent = std::path::Path::new(&above).join(format!("gap-{}", std::process::id()));
    let there = Spec { cgroup_parent: Some(parent), ..spec(["sleep", "100"]) };
    let elsewhere = there.clone();
    std::thread::spawn(move || {
        let group = NOBODY as u32;
        // SAFETY: one group, and the raw call changes this thread's only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setgroups, 1, &raw const group) }, 0);
        let container = Container::start(&elsewhere).expect("a keeper of its own");
        container.close(Some(Duration::from_secs(20))).expect("close");
    })
    .join()
    .expect("the thread with another group");
    let container = Container::start(&there).expect("a start");
    assert_eq!(info(&container, "keeper_pid"), keeper, "the first keeper started it");
    let groups: Vec<std::path::PathBuf> = info(&container, "cgroup")["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| group["path"].as_str().expect("a path").into())
        .collect();
    assert!(!groups.is_empty() && groups.iter().all(|group| group.exists()), "{groups:?}");
    container.close(Some(Duration::from_secs(20))).expect("close");
    for group in groups {
        assert!(!group.exists(), "{} is left", group.display());
    }
    first.close(Some(Duration::from_secs(20))).expect("close");
}

fn ended_keepers() {
    let first = container_of_nothing();
    ringfence::end_keepers();
    // What runs goes on; its keeper goes after it.
    let second = container_of_nothing();
    assert_ne!(info(&first, "keeper_pid"), info(&second, "keeper_pid"));
    assert!(first.is_running());
    let old = info(&first, "keeper_pid").as_i64().expect("a pid") as i32;
    first.close(Some(Duration::from_secs(5))).expect("close");
    second.close(Some(Duration::from_secs(5))).expect("close");
    let started = Instant::now();
    while runs(old) {
        assert!(started.elapsed() < Duration::from_secs(1), "the keeper stays");
        std::thread::sleep(Duration::from_millis(5));
    }
}
