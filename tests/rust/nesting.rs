//! Containers in containers: `nesting`.
//!
//! tests/run: timeout=600 vm=delegated

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::fs;
use std::process;

use common::*;
use ringfence::spec::NamespaceKind;
use ringfence::{Command, Container, ErrorKind, Namespace};

/// The number of the level that this program is on, in a container of this test.
const LEVEL: &str = "RINGFENCE_TEST_LEVEL";
/// Whether the host can limit: those inside cannot tell it by the environment, because their groups are where they are.
const LIMITS: &str = "RINGFENCE_TEST_LIMITS";
/// More than anybody runs.
const LEVELS: usize = 8;

/// As many children as there can be, which stay; prints how many.
const FORKS: &str = "while (1) { $p = fork; last unless defined $p; if (!$p) { close STDOUT; close STDERR; sleep 60; exit } \
                     last if ++$n >= 200 } print $n + 0";

fn pids_of(level: usize) -> u64 {
    100 - 10 * level as u64
}

/// This program as the payload of a container, in which containers can be started.
fn level(number: usize, test: &str, limits: bool) -> Value {
    let program = std::env::current_exe().expect("this program");
    let (dir, name) = (program.parent().expect("a directory"), program.file_name().expect("a name").to_string_lossy());
    let fields = json!({
        "argv": [format!("/exe/{name}"), "--exact", test, "--nocapture"],
        "env": {LEVEL: number.to_string(), LIMITS: limits.to_string(), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        "hostname": format!("level{number}"),
        "mounts": [format!("{}:/exe", dir.display())],
        "nesting": true,
        // The kernel stacks two overlays: from the third level on the tree of the second is shared.
        "rootfs": {"path": "host", "readonly": number > 1},
        "stdin": "pipe", "stdout": "pipe", "stderr": "stdout",
    });
    if limits { with(fields, json!({"pids": pids_of(number)})) } else { fields }
}

/// The level and whether there are limits, in a container of this test.
fn inside() -> Option<(usize, bool)> {
    let number = std::env::var(LEVEL).ok()?.parse().expect("a number");
    Some((number, std::env::var(LIMITS).expect("set") == "true"))
}

/// Runs the next level, and passes on what it printed.
#[track_caller]
fn descend(number: usize, test: &str, limits: bool) -> (Container, String) {
    let container = start(level(number, test, limits));
    let main = container.main().expect("a main process");
    let output = main.communicate(None, TIMEOUT).unwrap_or_else(|e| panic!("{e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    assert_eq!(output.status.code, Some(0), "level {number}: {:?}", output.status);
    (container, text)
}

#[test]
fn one_level_down() {
    let Some((number, limits)) = inside() else { return };
    let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
    println!("at level {number}: {}", name.trim());
    if number == LEVELS {
        if limits {
            // Its own limit holds for it, whatever those above have.
            let output = process::Command::new("perl").args(["-e", FORKS]).output().expect("perl");
            println!("children: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        // Until somebody has looked.
        println!("bottom");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("a line");
        return;
    }
    // The bottom speaks with the test itself.
    let streams = json!({"stdin": "inherit", "stdout": "inherit", "stderr": "inherit"});
    let container = start(with(level(number + 1, "one_level_down", limits), streams));
    // Both numbers of the next pid 1, from here.
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("its status");
    assert_eq!(status_line(&status, "NSpid"), format!("{}\t1", container.pid()));
    let pids = container.namespace(NamespaceKind::Pid).expect("its pid namespace");
    assert_eq!(pids.parent().expect("parent"), Some(Namespace::own(NamespaceKind::Pid).expect("own")));
    assert_eq!(pids.pid_in(container.pid()).expect("inside"), 1);
    assert_eq!(pids.pid_from(1).expect("here"), container.pid());
    if limits {
        assert_eq!(container.usage().expect("usage").pids_max, Some(pids_of(number + 1)));
    }
    let status = container.main().expect("a main process").wait(TIMEOUT).expect("wait").expect("an end");
    assert_eq!(status.code, Some(0), "{status:?}");
}

#[test]
fn eight_levels_with_limits_and_numbers_at_each() {
    let limits = can_limit();
    let container = start(level(1, "one_level_down", limits));
    let main = container.main().expect("a main process");
    let mut output = std::io::BufReader::new(fs::File::from(main.take_stdout().expect("stdout")));
    let mut said = String::new();
    while !said.contains("bottom\n") {
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut said).expect("to read"), 0, "{said}");
    }
    for number in 1..=LEVELS {
        assert!(said.contains(&format!("at level {number}: level{number}\n")), "{said}");
    }
    // The one at the bottom has a number on each level, and the first and the last lead to each other.
    let name = std::env::current_exe().expect("this program");
    let name = name.file_name().expect("a name").to_string_lossy();
    let numbers = |pid: &i32| -> Vec<i32> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default().to_owned();
        line.split_whitespace().map(|n| n.parse().expect("a number")).collect()
    };
    let own = numbers(&(process::id() as i32)).len();
    let is_payload = |pid: &i32| {
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&argv).starts_with(&format!("/exe/{name}\0"))
    };
    let all = container.processes().expect("processes");
    let deepest: Vec<i32> =
        all.iter().map(|p| p.pid).filter(|pid| is_payload(pid) && numbers(pid).len() == own + LEVELS).collect();
    let [deepest] = deepest[..] else { panic!("{deepest:?} of {all:?}") };
    let last = *numbers(&deepest).last().expect("a number");
    let bottom = Namespace::of_pid(deepest, NamespaceKind::Pid).expect("its pid namespace");
    assert_eq!(bottom.pid_in(deepest).expect("inside"), last);
    assert_eq!(bottom.pid_from(last).expect("outside"), deepest);
    let mut above = bottom;
    for _ in 0..LEVELS {
        above = above.parent().expect("parent").expect("one above");
    }
    assert_eq!(above, Namespace::own(NamespaceKind::Pid).expect("own"));
    if limits {
        let children: u64 =
            said.lines().find_map(|l| l.strip_prefix("children: ")).expect("a count").parse().expect("a number");
        assert!(children > 0 && children < pids_of(LEVELS), "{children}: {said}");
        let usage = container.usage().expect("usage");
        assert!(usage.pids_current.expect("counted") > children, "what is below counts above: {usage:?}");
    }
    // One word, and each level ends after the one below it.
    let input = main.take_stdin().expect("stdin");
    std::io::Write::write_all(&mut fs::File::from(input), b"go\n").expect("to tell it");
    let status = main.wait(TIMEOUT).expect("wait").expect("an end");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).expect("the rest");
    assert_eq!(status.code, Some(0), "{said}{rest}");
    container.close(TIMEOUT).expect("close");
}

/// How deep it can go is the kernel's to say, and the error says what it said.
#[test]
fn down_to_the_last() {
    let Some((number, _)) = inside() else { return };
    match Container::start(&spec(level(number + 1, "down_to_the_last", false))) {
        Ok(container) => {
            let output = container.main().expect("a main process").communicate(None, TIMEOUT).expect("output");
            print!("{}", String::from_utf8_lossy(&output.stdout));
        }
        Err(error) => {
            println!("{number} levels: {} {} {}", error.kind().name(), error.field().unwrap_or("-"), error);
        }
    }
}

#[test]
fn user_namespaces_end_at_the_kernel_s_depth() {
    // Most of the way without containers.
    let mut command = process::Command::new("unshare");
    for _ in 0..27 {
        command.args(["-Ur", "--kill-child", "-f", "unshare"]);
    }
    command.args(["-Ur", "--kill-child", "-f"]).arg(std::env::current_exe().expect("this program"));
    command.args(["--exact", "down_to_the_last", "--nocapture"]).env(LEVEL, "0").env(LIMITS, "false");
    let output = command.env_remove("RINGFENCE_CGROUP_PARENT").output().expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains(" levels: "));
    let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let (levels, error) = line.split_once(" levels: ").expect("just seen");
    assert!((1..3).contains(&levels.parse().expect("a number")), "{line}");
    // The last but one is the keeper's.
    assert!(error.starts_with("exhausted namespaces.user ") || error.starts_with("exhausted namespaces "), "{line}");
    assert!(error.contains("ENOSPC") && error.contains("nested 32 deep"), "{line}");
}

#[test]
fn at_the_bottom() {
    if std::env::var_os(LEVEL).is_none_or(|level| level != "bottom") {
        return;
    }
    let error = Container::start(&spec(json!({"idmap": "auto"}))).expect_err("no more pid namespaces");
    println!("refused: {} {error}", error.kind().name());
}

#[test]
fn pid_namespaces_end_at_the_kernel_s_depth() {
    let run = |depth: usize| {
        let mut command = process::Command::new("unshare");
        command.args(["-Ur", "--kill-child"]);
        for _ in 0..depth {
            command.args(["-pf", "--kill-child", "unshare"]);
        }
        command.args(["-mpf", "--kill-child", "--mount-proc"]).arg(std::env::current_exe().expect("this program"));
        command.args(["--exact", "at_the_bottom", "--nocapture"]).env(LEVEL, "bottom");
        let output = command.output().expect("unshare");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // This machine may be in some already.
    let said = (0..32).rev().map(run).find(|said| said.contains("refused: "));
    let said = said.expect("a depth at which one more is too many");
    let line = said.lines().find(|line| line.contains("refused: ")).expect("just seen");
    assert!(line.contains("refused: exhausted ") && line.contains("pid namespace"), "{line}");
    assert!(line.contains("ENOSPC") && line.contains("nested 32 deep"), "{line}");
}

/// What the container's root may do with its groups, and what not.
#[test]
fn groups_can_be_divided_but_not_widened() {
    if !can_limit() {
        return skip("no control groups");
    }
    let container = start(json!({"nesting": true, "pids": 30, "memory": "100M"}));
    // Where the files are that limit it, if anywhere; then a group of its own, and a process into that.
    let script = r#"
        cd /sys/fs/cgroup
        for dir in pids memory .; do
            [ -d $dir ] && [ -e $dir/cgroup.procs ] || continue
            mkdir $dir/mine && sh -c 'echo $$ >'$dir'/mine/cgroup.procs' && rmdir $dir/mine && echo divided
            for file in pids.max memory.max memory.limit_in_bytes; do
                [ -e $dir/$file ] && { echo max >$dir/$file || echo -1 >$dir/$file; } 2>/dev/null
            done
        done
        true
    "#;
    let said = sh_in(&container, script);
    assert!(said.starts_with("divided\n"), "{said}");
    let usage = container.usage().expect("usage");
    assert_eq!((usage.pids_max, usage.memory_max), (Some(30), Some(100 << 20)));
    // Nothing of the host's groups is in sight.
    let (path, _) = group_of(&container, "pids", "pids");
    assert!(fs::exists(&path).expect("looked"));
    let seen = sh_in(&container, "cat /proc/self/cgroup; find /sys/fs/cgroup -maxdepth 3 -type d");
    let host = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(!seen.contains(&host), "{seen}");
    let mut command = Command::new("perl");
    command.args(["-e", FORKS]);
    let children: u64 = exec_in(&container, &command).out.parse().expect("a number");
    assert!((1..30).contains(&children), "{children}");
    container.close(TIMEOUT).expect("close");
    assert!(!fs::exists(&path).expect("looked"));
}

/// A greater limit inside does not widen the one around it.
#[test]
fn the_limit_above_holds() {
    match inside() {
        Some(_) => {
            let inner = start(json!({"pids": 1000, "rootfs": {"path": "host"}}));
            let mut command = Command::new("perl");
            command.args(["-e", FORKS]);
            println!("children: {}", exec_in(&inner, &command).out);
            assert_eq!(inner.usage().expect("usage").pids_max, Some(1000));
            inner.close(TIMEOUT).expect("close");
            // What is killed for want of memory is told where it was limited.
            let argv = ["perl", "-e", "$x = 'x' x (96 << 20)"];
            let ran = run(json!({"argv": argv, "memory": "32M"}));
            println!("greedy: {}", ran.status.reason.name());
        }
        None if !can_limit() => skip("no control groups"),
        None => {
            let container = start(with(level(1, "the_limit_above_holds", true), json!({"pids": 40})));
            let output = container.main().expect("a main process").communicate(None, TIMEOUT).expect("output");
            let said = String::from_utf8_lossy(&output.stdout);
            let children = said.lines().find_map(|l| l.strip_prefix("children: ")).unwrap_or_else(|| panic!("{said}"));
            assert!(children.trim().parse::<u64>().expect("a number") < 40, "{said}");
            assert!(said.contains("greedy: out_of_memory\n"), "{said}");
            container.close(TIMEOUT).expect("close");
        }
    }
}

/// Groups below groups below groups, and nobody left to remove them but the outermost keeper.
#[test]
fn what_is_below_goes_with_the_one_above() {
    let container = start(json!({"nesting": true}));
    let path = can_limit().then(|| group_of(&container, "pids", "pids").0);
    if path.is_some() {
        let script = r#"
            for top in /sys/fs/cgroup /sys/fs/cgroup/*; do
                [ -e $top/cgroup.procs ] || continue
                case $top in */payload) continue;; esac
                dir=$top
                i=0
                while [ $i -lt 100 ] && mkdir $dir/d 2>/dev/null; do dir=$dir/d; i=$((i + 1)); done
                [ $i -ge 60 ] || exit 1
                mkdir $top/beside $(seq -f $top/beside/%.0f 100) $(seq -f $top/beside/%.0f/below 100)
            done
        "#;
        sh_in(&container, script);
    }
    container.close(TIMEOUT).expect("close");
    if let Some(path) = path {
        assert!(!fs::exists(&path).expect("looked"), "{path:?}");
    }
}

#[test]
fn only_with_it_the_kernel_lets_programs_mount_proc() {
    let script = "unshare -Urpf --mount-proc sh -c 'echo $$'";
    let with_it = run(json!({"argv": ["sh", "-c", script], "nesting": true}));
    assert_eq!(with_it.out, "1\n", "{}", with_it.err);
    let without = run(json!({"argv": ["sh", "-c", script]}));
    assert_ne!(without.status.code, Some(0));
    // What is not masked any more is still the machine's root's.
    let script = "for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /sys/power/state; do \
                  [ -e $f ] && (echo x >$f) 2>/dev/null && echo $f; done; head -c 1 /proc/kcore 2>/dev/null; \
                  cat /proc/1/environ /proc/keys >/dev/null; echo end";
    let ran = run(json!({"argv": ["sh", "-c", script], "nesting": true}));
    assert_eq!(ran.out, "end\n", "{}", ran.err);
}

#[test]
fn a_third_overlay_is_refused_with_the_remedy() {
    match inside() {
        Some((2, _)) => {
            let error = refused(json!({"argv": ["true"]}));
            assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("rootfs")), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("readonly")), "{error}");
            println!("refused");
        }
        Some((number, _)) => {
            let (container, _) = descend(number + 1, "a_third_overlay_is_refused_with_the_remedy", false);
            container.close(TIMEOUT).expect("close");
        }
        None => {
            let (container, text) = descend(1, "a_third_overlay_is_refused_with_the_remedy", false);
            assert!(text.contains("refused\n"), "{text}");
            container.close(TIMEOUT).expect("close");
        }
    }
}

/// A socket that a program of one level made is no way for the next.
#[test]
fn sockets_of_a_level_are_not_reached_from_the_next() {
    const TEST: &str = "sockets_of_a_level_are_not_reached_from_the_next";
    let Some((number, _)) = inside() else {
        let (container, text) = descend(1, TEST, false);
        assert!(text.contains("at level 3: "), "{text}");
        return container.close(TIMEOUT).expect("close");
    };
    // In a directory that the next one sees: of a read-only root there is none, which is why it may be shared.
    let own = format!("/etc/socket{number}");
    let _listener = match std::os::unix::net::UnixListener::bind(&own) {
        Ok(listener) => Some(listener),
        Err(error) => {
            assert!(number > 1, "{error}");
            assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            None
        }
    };
    for above in 1..number {
        let path = format!("/etc/socket{above}");
        let tried = std::os::unix::net::UnixStream::connect(&path);
        println!("at level {number}: {path}: {:?}", tried.as_ref().err().map(std::io::Error::kind));
        assert!(tried.is_err(), "{path} at level {number}");
    }
    if number < 3 {
        let (container, _) = descend(number + 1, TEST, false);
        container.close(TIMEOUT).expect("close");
    }
}

#[test]
fn what_cannot_be_nested_is_refused() {
    for (fields, has) in [
        (json!({"idmap": "host"}), "user namespace"),
        (json!({"net": "host"}), "network namespace"),
        (json!({"namespaces": {"pid": "host"}}), "pid namespace"),
        (json!({"namespaces": {"cgroup": "host"}}), "cgroup namespace"),
        (json!({"masked_paths": ["/proc/kcore"]}), "masked_paths has /proc/kcore"),
        (json!({"readonly_paths": ["/sys"]}), "readonly_paths has /sys"),
    ] {
        let error = refused(with(json!({"argv": ["true"], "nesting": true}), fields));
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("nesting")), "{error}");
        assert!(error.to_string().contains(has) && error.hint().is_some(), "{error}");
    }
    if is_root() {
        // Who has the host's id 0 may write what only it may, for example what the kernel runs when a program crashes.
        for map in ["0 0 10", "0 100000 1000\n1000 0 1"] {
            let number = |text: &str| text.parse::<u32>().expect("a number");
            let ranges: Vec<Vec<u32>> = map.lines().map(|line| line.split(' ').map(number).collect()).collect();
            let error = refused(json!({"argv": ["true"], "nesting": true, "idmap": {"uid": ranges, "gid": ranges}}));
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidSpec, Some("nesting")), "{error}");
        }
    }
    if fs::exists("/sys/fs/cgroup/blkio").expect("looked") {
        let error = refused(json!({"argv": ["true"], "nesting": true, "io_max": {"1:0": {"rbps": "1M"}}}));
        assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("io_max")), "{error}");
    }
    let fine = json!({"argv": ["true"], "nesting": true, "masked_paths": ["/etc/hostname"], "readonly_paths": []});
    assert_eq!(run(fine).status.code, Some(0));
}
