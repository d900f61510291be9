//! What a start costs the host, and what of the host is seen inside.

use super::*;

pub const TESTS: &[Test] = &[
    ("a start does not write-protect the host's memory", 60, no_page_tables_copied),
    ("the host makes no process but its keeper", 60, no_fork),
    ("a payload inherits nothing but limits", 30, nothing_inherited),
];

/// fork copies page tables and write-protects what they map, so that the next write to each page is a fault. Of 64 MiB in
/// small pages that would be 16,384 faults.
fn no_page_tables_copied() {
    const SIZE: usize = 64 << 20;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping; then advice about it.
    let memory = unsafe {
        let memory =
            libc::mmap(std::ptr::null_mut(), SIZE, prot, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0).cast::<u8>();
        assert_ne!(memory.cast(), libc::MAP_FAILED);
        libc::madvise(memory.cast(), SIZE, libc::MADV_NOHUGEPAGE);
        memory
    };
    // SAFETY: within the mapping, which is writable.
    let touch = || (0..SIZE).step_by(4096).for_each(|at| unsafe { memory.add(at).write_volatile(1) });
    let faults = || {
        // SAFETY: the kernel fills the struct.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        usage.ru_minflt
    };
    touch();
    // The first start begins the keeper too; the others are what starts are otherwise.
    for _ in 0..3 {
        let container = start(["sleep", "100"]);
        let before = faults();
        touch();
        let more = faults() - before;
        assert!(more < 500, "{more} pages had to be made writable again after a start");
        container.close(Some(Duration::from_secs(5))).expect("close");
    }
}

fn no_fork() {
    let log = std::env::temp_dir().join(format!("ringfence-strace-{}", std::process::id()));
    let output = HostCommand::new("strace")
        .args(["-qq", "-e", "trace=fork,vfork,clone,clone3,execve,execveat", "-o"])
        .arg(&log)
        .arg(myself())
        .args(["--victim", "several"])
        .output();
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    match output {
        Ok(output) if output.status.success() => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return skip("no strace on this machine"),
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("ptrace") => {
            return skip("nothing can be traced here");
        }
        other => panic!("{other:?}"),
    }
    let made: Vec<&str> = text.lines().filter(|l| l.contains("clone") || l.contains("fork(")).collect();
    let executed = text.lines().filter(|l| l.starts_with("execve")).count();
    assert_eq!(executed, 1, "the host executed something: {text}");
    assert!(!made.is_empty(), "no clone was seen: {text}");
    for line in &made {
        let cheap = line.contains("CLONE_VM") && (line.contains("CLONE_VFORK") || line.contains("CLONE_THREAD"));
        assert!(cheap && !line.contains("SIGCHLD"), "{line}");
    }
    // The keeper's birth, and at most a probe of what the machine can do.
    let tasks = made.iter().filter(|l| !l.contains("CLONE_THREAD")).count();
    assert!(tasks <= 4, "ten containers and ten commands took {tasks} clones: {text}");
}

fn nothing_inherited() {
    // SAFETY: changes and then asks for attributes of this test's own process and thread.
    let nofile = unsafe {
        libc::umask(0o077);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGUSR1);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: 234, rlim_max: 567 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        let core = libc::rlimit { rlim_cur: 0, rlim_max: 4096 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_CORE, &core), 0);
        limit
    };
    // Descriptors that a careless host would hand to its children.
    // SAFETY: descriptors of this test's own, left open.
    unsafe { assert!(libc::dup2(1, 77) == 77 && libc::dup2(0, 9) == 9) };
    // SAFETY: this process has one thread.
    unsafe { std::env::set_var("RINGFENCE_TEST_SECRET", "of the host") };
    let script = "ls /proc/self/fd | tr '\\n' ' '; echo; grep -E '^Sig(Blk|Ign)|^SigPnd|^ShdPnd|^NoNewPrivs' \
                  /proc/self/status; umask; pwd; env; ulimit -n; ulimit -Hn; ulimit -Hc";
    let check = |output: Vec<u8>| {
        let text = String::from_utf8(output).expect("text");
        let lines: Vec<&str> = text.lines().collect();
        // `ls` has the directory itself open.
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{text}");
        for (line, name) in lines[1..].iter().zip(["SigPnd", "ShdPnd", "SigBlk", "SigIgn"]) {
            assert_eq!(
                line.split_whitespace().collect::<Vec<_>>(),
                [&format!("{name}:"), "0000000000000000"],
                "{text}"
            );
        }
        assert!(lines.contains(&"NoNewPrivs:\t1") && lines.contains(&"0022") && lines.contains(&"/"), "{text}");
        assert!(!text.contains("RINGFENCE") && !text.contains("of the host"), "{text}");
        assert!(lines.contains(&"LANG=C.UTF-8") && lines.iter().any(|l| l.starts_with("PATH=")), "{text}");
        let soft = nofile.rlim_cur.to_string();
        let hard = nofile.rlim_max.to_string();
        assert!(lines.ends_with(&[&soft, &hard, "8"]), "the limits are not the asking thread's: {text}");
    };
    let mut main = spec(["sh", "-c", script]);
    main.stdout = Some(Stdio::Pipe);
    check(ringfence::run(&main, None, Some(Duration::from_secs(20))).expect("run").stdout);
    let container = container_of_nothing();
    check(container.command("sh").args(["-c", script]).output().expect("a command").stdout);
    // Not by way of init or of the keeper either.
    let output =
        container.command("sh").args(["-c", "tr '\\0' '\\n' </proc/1/environ 2>&1"]).output().expect("a command");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("of the host"));
    container.close(Some(Duration::from_secs(5))).expect("close");
}
