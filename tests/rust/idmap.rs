//! User namespaces: which ids a container gets, and why not more.
//!
//! tests/run: timeout=300

use std::fs;

use common::*;
use ringfence::{Container, ErrorKind};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// (inside, outside, count) as the caller's user namespace sees it.
fn map_of(container: &Container) -> Vec<(u64, u64, u64)> {
    let path = format!("/proc/{}/uid_map", container.pid());
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.lines()
        .map(|line| {
            let mut numbers = line.split_whitespace().map(|n| n.parse().expect("a number"));
            let mut next = || numbers.next().expect("three numbers");
            (next(), next(), next())
        })
        .collect()
}

fn info(container: &Container) -> Value {
    serde_json::from_str(&container.info_json()).expect("JSON")
}

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[test]
fn parallel_containers_share_no_ids() {
    let containers: Vec<_> = (0..5).map(|_| start(json!({}))).collect();
    let mut ranges = Vec::new();
    for container in &containers {
        let info = info(container);
        let map = map_of(container);
        if is_root() {
            assert_eq!(info["idmap"]["mode"], "auto", "{info}");
            assert!(map.len() == 1 && map[0].0 == 0 && map[0].2 == 65_536, "{map:?}");
            assert!(map[0].1 >= 524_288 && map[0].1.is_multiple_of(65_536) && map[0].1 < 1_879_048_192, "{map:?}");
            assert_eq!(info["idmap"]["uid"], json!([[0, map[0].1, 65_536]]), "{info}");
            assert_eq!(info["idmap"]["idmapped_mounts"], true);
        } else {
            assert_eq!((map[0].0, map[0].1, map[0].2), (0, uid().into(), 1), "{map:?}");
            assert!(info["idmap"]["mode"] != "single" || info["idmap"]["why"].is_string(), "why not more: {info}");
        }
        // The caller's own id is root in each of an ordinary user's.
        ranges.extend(map.into_iter().filter(|m| is_root() || m.1 != u64::from(uid())));
    }
    for (i, a) in ranges.iter().enumerate() {
        for b in &ranges[i + 1..] {
            assert!(a.1 + a.2 <= b.1 || b.1 + b.2 <= a.1, "{a:?} and {b:?}");
        }
    }
    for container in containers {
        container.close(None).expect("close");
    }
}

#[test]
fn ranges_are_free_again() {
    if !is_root() {
        return skip("an ordinary user without subordinate ids has no ranges");
    }
    let first = start(json!({}));
    let start_of = map_of(&first)[0].1;
    first.close(None).expect("close");
    let seen: Vec<_> = (0..4)
        .map(|_| {
            let container = start(json!({}));
            let at = map_of(&container)[0].1;
            container.close(None).expect("close");
            at
        })
        .collect();
    assert!(seen.iter().all(|at| *at < start_of + 100 * 65_536), "{start_of} {seen:?}");
}

#[test]
fn ranges_of_the_system_are_left_alone() {
    if !is_root() {
        return skip("an ordinary user has only its own ranges");
    }
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let taken: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(1).map(|n| n.trim().parse().ok());
            Some((fields.next()??, fields.next()??))
        })
        .collect();
    let container = start(json!({}));
    let (_, start_of, count) = map_of(&container)[0];
    for (first, n) in taken {
        assert!(start_of + count <= first || first + n <= start_of, "{start_of} is in {first}+{n}");
    }
    container.close(None).expect("close");
}

#[test]
fn explicit_maps() {
    if !is_root() {
        // What the caller has: itself.
        let own = json!({"uid": format!("0 {} 1", uid()), "gid": format!("0 {} 1", nix::unistd::getegid())});
        let container = start(json!({"idmap": own}));
        assert_eq!(map_of(&container), [(0, uid().into(), 1)]);
        assert_eq!(info(&container)["idmap"]["mode"], "explicit");
        container.close(None).expect("close");
        let error = refused(json!({"argv": ["true"], "idmap": "0 0 1"}));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.field().is_some_and(|f| f.starts_with("idmap")), "{error}");
        return;
    }
    let container = start(json!({"idmap": {"uid": "0 700000 1000\n1000 900000 10", "gid": "0 800000 2000"}}));
    assert_eq!(map_of(&container), [(0, 700_000, 1000), (1000, 900_000, 10)]);
    assert_eq!(sh_in(&container, "cat /proc/self/gid_map | tr -s ' '"), " 0 800000 2000\n");
    let mut command = ringfence::Command::new("sh");
    command.args(["-c", "touch /tmp/f; stat -c %u:%g /tmp/f"]).user("1005:5");
    assert_eq!(exec_in(&container, &command).out, "1005:5\n");
    container.close(None).expect("close");
}

#[test]
fn maps_that_cannot_be() {
    let many: String = (0..341).map(|i| format!("{i} {} 1\n", 700_000 + i)).collect();
    let wrong = [
        "0 700000 0",
        "0 700000",
        "0 700000 10\n5 800000 10",
        "0 700000 10\n20 700005 10",
        "0 4294967290 10",
        "4294967290 0 10",
        "0 -1 1",
        many.as_str(),
        // As long as could confuse a message's length (CVE-2021-43784).
        &"0 700000 1 ".repeat(7000),
    ];
    for map in wrong {
        let error = refused(json!({"argv": ["true"], "idmap": map}));
        assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{map:.60}: {error}");
        assert!(error.field().is_some_and(|f| f.starts_with("idmap")), "{map:.60}: {error}");
    }
    // Without root inside nothing can be set up.
    let error = refused(json!({"argv": ["true"], "idmap": "1 700000 10"}));
    assert!(error.to_string().contains("idmap"), "{error}");
}

#[test]
fn keep_id() {
    let spec = json!({"argv": ["sh", "-c", "id -u; id -g"], "idmap": "keep-id"});
    if is_root() {
        let error = refused(spec);
        assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("idmap")), "{error}");
        assert!(error.hint().is_some());
        return;
    }
    assert_eq!(run(spec).out, format!("{}\n{}\n", uid(), nix::unistd::getegid()));
    let dir = tmp();
    let fields = json!({"idmap": "keep-id", "mounts": [format!("{}:/d:rw", dir.path().display())]});
    assert_eq!(sh("touch /d/f; stat -c %u /d/f", fields), format!("{}\n", uid()));
}

#[test]
fn the_host_s_ids() {
    if !is_root() {
        let error = refused(json!({"argv": ["true"], "idmap": "host"}));
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("idmap")), "{error}");
        assert!(error.hint().is_some());
        return;
    }
    let container = start(json!({"idmap": "host"}));
    assert_eq!(info(&container)["idmap"]["mode"], "host");
    let own = fs::read_to_string("/proc/self/uid_map").expect("read");
    assert_eq!(sh_in(&container, "cat /proc/self/uid_map"), own);
    // Held back by capabilities alone.
    let script = "(mount -t tmpfs x /mnt) 2>/dev/null && echo mounted; (mknod /tmp/d b 8 0 && cat /tmp/d >/dev/null) 2>/dev/null && echo device
                  (echo 1 >/proc/sys/kernel/sysrq) 2>/dev/null && echo sysctl; (date -s 2000-01-01) 2>/dev/null >&2 && echo clock; echo end";
    assert_eq!(sh_in(&container, script), "end\n");
    container.close(None).expect("close");
}

#[test]
fn nobody_is_mapped_or_the_reason_known() {
    let container = start(json!({}));
    let info = info(&container);
    let map: u64 = map_of(&container).iter().map(|m| m.2).sum();
    assert!(map >= 65_536 || info["idmap"]["why"].is_string() || !is_root(), "{info}");
    container.close(None).expect("close");
}

// --- an ordinary user with subordinate ids: this program again, as one ---

/// A line each in /etc/subuid and /etc/subgid, removed at the end.
struct SubIds {
    line: String,
}

const FIRST: u32 = 1_900_000_000;

impl SubIds {
    fn new(uid: u32, count: u32) -> Self {
        let line = format!("{uid}:{FIRST}:{count}\n");
        for file in ["/etc/subuid", "/etc/subgid"] {
            let mut text = fs::read_to_string(file).unwrap_or_default();
            text.push_str(&line);
            fs::write(file, text).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        Self { line }
    }
}

impl Drop for SubIds {
    fn drop(&mut self) {
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = fs::read_to_string(file).unwrap_or_default().replace(&self.line, "");
            let _ = fs::write(file, text);
        }
    }
}

/// An account that every distribution has and nothing runs as: newuidmap looks its caller up.
fn account() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = text.lines().find(|line| line.starts_with("games:"))?.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[test]
fn subordinate_ids_of_an_ordinary_user() {
    use std::os::unix::process::CommandExt;
    if std::env::var_os("RINGFENCE_TEST_SUBIDS").is_some() {
        return with_subordinate_ids();
    }
    if !is_root() {
        return skip("only root can give out subordinate ids");
    }
    if !fs::exists("/usr/bin/newuidmap").unwrap_or(false) {
        return skip("newuidmap is not installed");
    }
    let Some((user, group)) = account() else { return skip("there is no account \"games\"") };
    let ids = SubIds::new(user, 65_536);
    let dir = public_tmp();
    std::os::unix::fs::chown(dir.path(), Some(user), Some(group)).expect("chown");
    let program = dir.path().join("test");
    fs::copy(std::env::current_exe().expect("own path"), &program).expect("copy");
    let output = std::process::Command::new(&program)
        .args(["--exact", "subordinate_ids_of_an_ordinary_user", "--nocapture"])
        .env("RINGFENCE_TEST_SUBIDS", "1")
        .env("XDG_RUNTIME_DIR", dir.path())
        .env("TMPDIR", dir.path())
        .env_remove("RINGFENCE_CGROUP_PARENT")
        .uid(user)
        .gid(group)
        .output();
    drop(ids);
    let output = output.expect("run as the user");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

fn with_subordinate_ids() {
    let (user, group) = account().expect("the account that this runs as");
    let first = start(json!({}));
    let map = map_of(&first);
    assert_eq!(map[0], (0, user.into(), 1), "{map:?}");
    assert!(map.len() >= 2 && map[1].0 == 1 && map[1].1 >= u64::from(FIRST), "{map:?}");
    assert_eq!(info(&first)["idmap"]["mode"], "auto");
    // Users and groups inside, setgroups and chown.
    let script = "touch /tmp/f && chown 33:44 /tmp/f && stat -c %u:%g /tmp/f; id -G";
    assert_eq!(sh_in(&first, script), "33:44\n0\n");
    let mut command = ringfence::Command::new("id");
    command.arg("-G").user("7:8");
    command.groups = vec!["9".into()];
    assert_eq!(exec_in(&first, &command).out, "8 9\n");
    // A second one beside it has others.
    let second = start(json!({}));
    let ids = |map: Vec<(u64, u64, u64)>| map.into_iter().filter(|m| m.1 != u64::from(user)).collect::<Vec<_>>();
    for a in ids(map) {
        for b in ids(map_of(&second)) {
            assert!(a.1 + a.2 <= b.1 || b.1 + b.2 <= a.1, "{a:?} {b:?}");
        }
    }
    let keep = json!({"argv": ["sh", "-c", "id -u; touch /tmp/f; chown 6 /tmp/f 2>/dev/null || echo not root"], "idmap": "keep-id"});
    assert_eq!(run(keep).out, format!("{user}\nnot root\n"));
    let explicit = json!({"idmap": {"uid": format!("0 {user} 1\n1 {} 10", FIRST + 100), "gid": format!("0 {group} 1\n1 {} 10", FIRST + 100)}});
    let third = start(explicit);
    assert_eq!(map_of(&third)[1], (1, u64::from(FIRST) + 100, 10));
    for container in [first, second, third] {
        container.close(None).expect("close");
    }
}
