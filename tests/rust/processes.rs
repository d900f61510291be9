//! The processes of a container, with their numbers on both sides.

use std::os::fd::AsFd;

use common::*;
use ringfence::ErrorKind;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

#[test]
fn both_numbers_and_what_they_are() {
    let container = start(json!({"hostname": "inside"}));
    let mut command = ringfence::Command::new("/bin/sh");
    command.args(["-c", "sleep 1000 & sleep 1000; true"]);
    let shell = container.spawn(&command).unwrap();
    until("two sleep, and the shell waits", || {
        let all = container.processes().unwrap();
        let sleeping = |name: &str| all.iter().filter(|p| p.name == name && p.state == 'S').count();
        sleeping("sleep") == 2 && sleeping("sh") == 1
    });
    let all = container.processes().unwrap();
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!((all[0].pid_inside, all[0].pid, all[0].parent_inside), (1, container.pid(), None));
    let of_shell = all.iter().find(|p| p.pid == shell.pid()).expect("the shell is there");
    assert_eq!((of_shell.name.as_str(), of_shell.state, of_shell.threads), ("sh", 'S', 1), "{of_shell:?}");
    assert_eq!(of_shell.parent_inside, None, "its parent is the keeper");
    for sleeper in all.iter().filter(|p| p.name == "sleep") {
        assert_eq!(sleeper.parent_inside, Some(of_shell.pid_inside), "{sleeper:?}");
        assert_eq!(sleeper.uid, of_shell.uid);
        // As the container itself sees it, and as the test reads it.
        let inside = sh_in(&container, &format!("cat /proc/{}/comm", sleeper.pid_inside));
        assert_eq!(inside, "sleep\n");
        let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.pid)).expect("its status");
        let numbers: Vec<_> = status_line(&status, "NSpid").split_whitespace().map(str::to_owned).collect();
        assert_eq!(numbers.last(), Some(&sleeper.pid_inside.to_string()));
        until("its memory is what its status says", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.pid)).expect("its status");
            let resident: u64 = status_line(&status, "VmRSS").trim_end_matches(" kB").parse().expect("a number");
            let now = container.processes().unwrap().into_iter().find(|p| p.pid == sleeper.pid).expect("it is there");
            now.memory == resident << 10
        });
        if can_limit() {
            assert!(sleeper.cgroup.as_deref().expect("a group").contains(container.id()), "{sleeper:?}");
        }
    }
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_pidfd_by_the_number_inside() {
    let container = start(json!({}));
    let sleeper = container.spawn(ringfence::Command::new("sleep").arg("1000")).unwrap();
    let entry = container.processes().unwrap().into_iter().find(|p| p.pid == sleeper.pid()).expect("it is there");
    let pidfd = container.pidfd_of(entry.pid_inside).unwrap();
    // SAFETY: no pointers but a null siginfo.
    let sent = unsafe {
        use std::os::fd::AsRawFd;
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), libc::SIGKILL, std::ptr::null::<u8>(), 0)
    };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    assert_eq!(sleeper.wait(TIMEOUT).unwrap().expect("ended").signal, Some(libc::SIGKILL));
    let gone = container.pidfd_of(entry.pid_inside).unwrap_err();
    assert_eq!((gone.kind(), gone.field()), (ErrorKind::NotFound, Some("pid")), "{gone}");
    for wrong in [0, -1] {
        assert_eq!(container.pidfd_of(wrong).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    container.kill().unwrap();
    container.wait_end(TIMEOUT).unwrap();
    assert_eq!(container.processes().unwrap_err().kind(), ErrorKind::Closed);
    container.close(TIMEOUT).unwrap();
}

/// What a process says of itself is not taken whole, and numbers of threads are no processes.
#[test]
fn long_arguments_and_threads() {
    let container = start(json!({}));
    let long = "x".repeat(100_000);
    let mut command = ringfence::Command::new("/bin/sh");
    command.args(["-c", "sleep 1000; true", &long]);
    let shell = container.spawn(&command).unwrap();
    let entry = container.processes().unwrap().into_iter().find(|p| p.pid == shell.pid()).expect("it is there");
    let length: usize = entry.argv.iter().map(|word| word.len() + 1).sum();
    assert!((4000..=4097).contains(&length), "{length}");
    let script = "import threading, time\nt = threading.Thread(target=time.sleep, args=(1000,))\nt.start()\nprint(t.native_id, flush=True)";
    let mut command = ringfence::Command::new("python3");
    command.args(["-c", script]).stdout(ringfence::spec::Stdio::Pipe);
    let python = container.spawn(&command).unwrap();
    let mut line = String::new();
    use std::io::BufRead;
    let output = std::fs::File::from(python.take_stdout().expect("a pipe"));
    std::io::BufReader::new(output).read_line(&mut line).expect("a number");
    let error = container.pidfd_of(line.trim().parse().expect("a number")).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("pid")), "{error}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn zombies_and_stopped_ones() {
    let container = start(json!({}));
    let script = "sh -c 'true & exec sleep 1000' & sleep 1000 & kill -STOP $!; wait";
    let mut command = ringfence::Command::new("/bin/sh");
    command.args(["-c", script]);
    container.spawn(&command).unwrap();
    until("a zombie and a stopped one", || {
        let states: Vec<_> = container.processes().unwrap().iter().map(|p| p.state).collect();
        states.contains(&'Z') && states.contains(&'T')
    });
    let zombie = container.processes().unwrap().into_iter().find(|p| p.state == 'Z').expect("one");
    assert_eq!((zombie.argv.len(), zombie.memory), (0, 0), "{zombie:?}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn without_a_pid_namespace_of_its_own() {
    let container = match ringfence::Container::start(&spec(json!({"namespaces": {"pid": "host"}}))) {
        Ok(container) => container,
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
            return skip(&error.to_string());
        }
    };
    let error = container.processes().unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("namespaces")), "{error}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn a_wanted_pid() {
    let container = start(json!({}));
    let mut command = ringfence::Command::new("sleep");
    command.arg("1000").set_tid(4000);
    let sleeper = container.spawn(&command).unwrap();
    let entry = container.processes().unwrap().into_iter().find(|p| p.pid == sleeper.pid()).expect("it is there");
    assert_eq!(entry.pid_inside, 4000);
    let error = container.spawn(&command).unwrap_err();
    assert_eq!((error.kind(), error.field(), error.errno()), (ErrorKind::AlreadyExists, Some("set_tid"), libc::EEXIST));
    assert_eq!(error.to_string(), "exec \"sleep\": set_tid: clone3: pid 4000 is taken in the container (EEXIST)");
    // Another container has numbers of its own.
    let other = start(json!({}));
    other.spawn(&command).unwrap();
    container.close(TIMEOUT).unwrap();
    other.close(TIMEOUT).unwrap();
}

#[test]
fn a_wanted_pid_is_below_the_namespace_s_pid_max() {
    let container = start(json!({"capabilities": {"add": ["sys_admin"]}, "readonly_paths": []}));
    if sh_in(&container, "echo 400 2>/dev/null >/proc/sys/kernel/pid_max && echo set; true") != "set\n" {
        return skip("a pid_max of a pid namespace's own takes Linux 6.14");
    }
    let spawn = |tid| container.spawn(ringfence::Command::new("true").set_tid(tid));
    spawn(399).unwrap().wait(TIMEOUT).unwrap();
    let error = spawn(400).unwrap_err();
    assert_eq!((error.kind(), error.field(), error.errno()), (ErrorKind::InvalidSpec, Some("set_tid"), libc::EINVAL));
    assert!(error.to_string().contains("pid_max"), "{error}");
    container.close(TIMEOUT).unwrap();
}

#[test]
fn pids_of_another_namespace_are_not_the_container_s_to_give() {
    if !can_limit() {
        return skip("needs a control group");
    }
    let container = start(json!({"namespaces": {"pid": "host"}}));
    let error = container.spawn(ringfence::Command::new("true").set_tid(4000)).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Unsupported, Some("set_tid")), "{error}");
    container.close(TIMEOUT).unwrap();
}
