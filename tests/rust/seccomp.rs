//! Filters of system calls, tried by a program that makes the calls and nothing else: this one, in the container.
//!
//! tests/run: timeout=600 vm=root,user

use std::fs;

use common::*;
use ringfence::Container;
use ringfence::spec::{SeccompAction, SeccompProfile, SeccompRule, SeccompRules};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const CALLS: &str = "RINGFENCE_TEST_CALLS";

/// The calls that it is asked for, `NUMBER[:ARGUMENT...]`; their errnos, 0 for success.
#[test]
fn inside() {
    let Ok(calls) = std::env::var(CALLS) else { return };
    let mut answers = String::new();
    for call in calls.split(' ') {
        let (by, numbers) = call.split_at(1);
        let mut words = numbers.split(':').map(|word| word.parse::<i64>().expect("a number"));
        let number = words.next().expect("a number");
        let args: Vec<i64> = words.chain(std::iter::repeat(0)).take(6).collect();
        let result = match by {
            "n" => {
                // SAFETY: whoever asks gives no addresses that the kernel could write to.
                match unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) } {
                    -1 => std::io::Error::last_os_error().raw_os_error().unwrap_or(-1),
                    _ => 0,
                }
            }
            #[cfg(target_arch = "x86_64")]
            "i" => i386(number, args[0], args[1]),
            other => panic!("{other}"),
        };
        answers += &format!("{result} ");
    }
    println!("ANSWERS {answers}");
}

/// As a 32-bit program has it: the kernel takes it for one by the instruction.
#[cfg(target_arch = "x86_64")]
fn i386(number: i64, first: i64, second: i64) -> i32 {
    let result: i64;
    // SAFETY: as above; rbx, which the compiler keeps for itself, is put back, and the kernel clears r8 to r11.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
            first = inout(reg) first => _,
            inlateout("rax") number => result,
            in("rcx") second, in("rdx") 0, in("rsi") 0, in("rdi") 0,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    if (-4095..0).contains(&(result as i32)) { -(result as i32) } else { 0 }
}

/// A container in which this program is.
struct Probe {
    container: Container,
    _dir: Tmp,
}

impl Probe {
    fn new(fields: Value) -> Self {
        let dir = public_tmp();
        let program = dir.path().join("calls");
        fs::copy(std::env::current_exe().expect("own path"), &program).expect("copy");
        let mounts = json!([{"source": program, "target": "/tmp/calls"}]);
        Self { container: start(with(json!({"mounts": mounts}), fields)), _dir: dir }
    }

    fn run(&self, calls: &str, fields: Value) -> Ran {
        let mut command = ringfence::Command::new("/tmp/calls");
        command.args(["--exact", "inside", "--nocapture", "--test-threads=1"]).env(CALLS, calls);
        command.merge_json(&fields.to_string()).expect("fields of a command");
        exec_in(&self.container, &command)
    }

    #[track_caller]
    fn answers(&self, calls: &[String], fields: Value) -> Vec<i32> {
        let ran = self.run(&calls.join(" "), fields);
        let line = ran.out.lines().find_map(|line| line.split_once("ANSWERS ").map(|(_, rest)| rest));
        let Some(line) = line else { panic!("{:?}: {}{}", ran.status, ran.out, ran.err) };
        line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    }
}

fn native(number: i64, args: &[i64]) -> String {
    args.iter().fold(format!("n{number}"), |text, arg| format!("{text}:{arg}"))
}

/// What the kernel would have said to the same calls without a filter is something else.
const HARMLESS: [(&str, i64, &[i64]); 21] = [
    ("keyctl", libc::SYS_keyctl, &[0, -1, 0]),
    ("add_key", libc::SYS_add_key, &[1, 1, 0, 0, -1]),
    ("request_key", libc::SYS_request_key, &[1, 1, 0, 0]),
    ("bpf", libc::SYS_bpf, &[0, 1, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, &[1, 0, -1, -1, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, &[0x7fff]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[0, 0]),
    ("unshare", libc::SYS_unshare, &[libc::CLONE_FILES as i64]),
    ("setns", libc::SYS_setns, &[-1, 0]),
    ("mount", libc::SYS_mount, &[1, 1, 1, 0, 0]),
    ("umount2", libc::SYS_umount2, &[1, -1]),
    ("pivot_root", libc::SYS_pivot_root, &[1, 1]),
    ("open_tree", libc::SYS_open_tree, &[-1, 1, 0]),
    ("fsopen", libc::SYS_fsopen, &[1, 0]),
    ("move_mount", libc::SYS_move_mount, &[-1, 1, -1, 1, 0]),
    ("swapon", libc::SYS_swapon, &[1, -1]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, -1]),
    ("quotactl", libc::SYS_quotactl, &[-1, 0, 0, 0]),
    ("lookup_dcookie", libc::SYS_lookup_dcookie, &[0, 0, 0]),
    ("clone", libc::SYS_clone, &[(libc::CLONE_NEWUSER | libc::CLONE_SIGHAND) as i64]),
    ("migrate_pages", libc::SYS_migrate_pages, &[-1, -1]),
];

#[test]
fn calls_under_the_profiles() {
    let calls: Vec<String> = HARMLESS.iter().map(|(_, number, args)| native(*number, args)).collect();
    let more = [
        // clone3, so that libc takes clone; numbers that no kernel has yet.
        native(libc::SYS_clone3, &[0, 0]),
        native(999, &[]),
        native(1 << 29, &[]),
        native(libc::SYS_socket, &[libc::AF_VSOCK.into(), 1, 0]),
        native(libc::SYS_socket, &[i64::from(libc::AF_ALG) | 1 << 32, 5, 0]),
        native(libc::SYS_socketpair, &[libc::AF_VSOCK.into(), 1, 0, 0]),
        // To ask for the execution domain, and to switch off where the kernel puts things.
        native(libc::SYS_personality, &[0xffff_ffff]),
        native(libc::SYS_personality, &[libc::ADDR_NO_RANDOMIZE.into()]),
        native(libc::SYS_ptrace, &[-1, -1, 0, 0]),
        native(libc::SYS_getppid, &[]),
    ];
    let probe = Probe::new(json!({}));
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    for (profile, families, ptrace) in [("default", [eperm, eperm], 3), ("strict", [libc::EAFNOSUPPORT; 2], eperm)] {
        let answers = probe.answers(&calls, json!({"seccomp": profile}));
        for ((name, ..), answer) in HARMLESS.iter().zip(&answers) {
            assert_eq!(*answer, eperm, "{name} under {profile}");
        }
        let answers = probe.answers(&more, json!({"seccomp": profile}));
        let [vsock, alg] = families;
        assert_eq!(answers, [enosys, enosys, enosys, vsock, alg, vsock, 0, eperm, ptrace, 0], "{profile}");
    }
    // Without one they fail otherwise, or not at all: EPERM above was the filter's.
    let open = probe.answers(&calls, json!({"seccomp": "none", "capabilities": "none"}));
    let refused: Vec<&str> =
        HARMLESS.iter().zip(&open).filter(|(_, answer)| **answer == eperm).map(|((name, ..), _)| *name).collect();
    assert!(refused.len() < HARMLESS.len() / 2 && !refused.contains(&"unshare"), "{refused:?}: {open:?}");
    probe.container.close(None).expect("close");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn other_interfaces_of_the_same_processor() {
    const X32: i64 = 0x4000_0000;
    let probe = Probe::new(json!({}));
    // x32: getpid. Most kernels have none of it, and with one it would be another way to every call.
    let x32 = [native(X32 | libc::SYS_getpid, &[]), native(X32 | libc::SYS_unshare, &[0])];
    for profile in ["default", "strict"] {
        assert_eq!(probe.answers(&x32, json!({"seccomp": profile})), [libc::ENOSYS; 2], "{profile}");
    }
    // Also where everything else is allowed.
    let all = json!({"seccomp": {"default_action": "allow", "architectures": ["x86_64", "i386"]}});
    assert_eq!(probe.answers(&x32, all.clone()), [libc::ENOSYS; 2]);
    // i386: getpid 20, unshare 310, keyctl 288, clone3 435 and one that nobody has; socketcall 102 for socket, bind and socketpair, which
    // have their arguments nowhere.
    let i386 =
        ["i20", "i310:0:0", "i288:0:-1", "i435:0:0", "i999:0:0", "i102:1:0", "i102:2:0", "i102:8:0"].map(str::to_owned);
    if probe.run("i20", json!({"seccomp": "none"})).status.signal == Some(libc::SIGSEGV) {
        probe.container.close(None).expect("close");
        return skip("this kernel runs no 32-bit programs");
    }
    let default = probe.answers(&i386, json!({"seccomp": "default"}));
    let (eperm, enosys) = (libc::EPERM, libc::ENOSYS);
    assert_eq!(default, [0, eperm, eperm, enosys, enosys, enosys, libc::EFAULT, enosys]);
    assert_eq!(probe.answers(&i386[..2], all.clone()), [0, 0]);
    assert_eq!(probe.answers(&i386[5..], all), [libc::EFAULT; 3]);
    // Where it is not one of the architectures, whoever makes such a call is killed.
    for foreign in [json!("strict"), json!({"default_action": "allow"})] {
        let status = probe.run("i20", json!({"seccomp": foreign})).status;
        assert_eq!(status.signal, Some(libc::SIGSYS), "{foreign}: {status:?}");
    }
    probe.container.close(None).expect("close");
}

#[test]
fn rules_of_the_builder() {
    let own = SeccompRules {
        profile: Some(SeccompProfile::Default),
        rules: vec![SeccompRule::new(["getppid"], SeccompAction::Errno(libc::EXDEV as u16))],
        ..SeccompRules::default()
    };
    let spec = spec(json!({"argv": ["sh", "-c", "echo $PPID"]})).seccomp(own.clone());
    let output = ringfence::run(&spec, None, TIMEOUT).expect("run");
    // dash keeps what the call gave.
    assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "1");
    assert_eq!(ringfence::Spec::from_json(&spec.to_json()).expect("read back"), spec);
    // The list is the container's, for every process, and the processes' processes.
    let probe = Probe::new(serde_json::from_str(&ringfence::Spec::new().seccomp(own).to_json()).expect("JSON"));
    assert_eq!(probe.answers(&[native(libc::SYS_getppid, &[])], json!({})), [libc::EXDEV]);
    probe.container.close(None).expect("close");
}

/// The program is not there, and the filter lets nothing through that could say so.
#[test]
fn what_cannot_be_executed_under_a_tight_filter() {
    for init in [true, false] {
        let only = json!({"default_action": "errno", "rules": [{"names": ["execve"], "action": "allow"}]});
        let begun = std::time::Instant::now();
        let error = refused(json!({"argv": ["no-such-program"], "seccomp": only, "init": init}));
        assert_eq!((error.field(), error.errno()), (Some("argv[0]"), libc::ENOENT), "{error}");
        assert!(begun.elapsed().as_secs() < 10);
    }
}
