//! What `make demo` shows of the Rust interface: programs of this machine, run in containers of their own.
//!
//! tests/run: timeout=60

use std::time::{Duration, Instant};

use ringfence::spec::Stdio;
use ringfence::{Container, Result, Spec};

const SCRIPT: &str = "
import os, socket
print('a Python script, pid', os.getpid(), 'on', socket.gethostname(), 'as uid', os.getuid())
print('pid 1 is', open('/proc/1/comm').read().strip(), '- the processes it sees:', sum(n.isdigit() for n in os.listdir('/proc')))
";

fn main() -> Result<()> {
    let mut spec = Spec { hostname: Some("demo-rust".into()), ..Spec::default() };
    // Who may set limits depends on the machine: for an ordinary user, control groups must be delegated.
    let limited = Spec { memory: Some(256 << 20), cpus: Some(0.5), pids: Some(32), ..spec.clone() };
    let started = Instant::now();
    let container = match Container::start(&limited) {
        Ok(container) => {
            spec = limited;
            container
        }
        Err(error) => {
            println!("without limits here: {error}");
            Container::start(&spec)?
        }
    };
    println!("started in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);

    // One command after the other in the same container; each is a process with its own streams and status.
    let output = container.command("/usr/bin/python3").args(["-c", SCRIPT]).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let output = container
        .command("sh")
        .args([
            "-c",
            "ls /usr/bin | grep -c . | sed 's/^/a shell pipeline counts this many programs in \\/usr\\/bin: /'",
        ])
        .output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));

    // What is written inside stays inside, and goes with the container.
    container.command("sh").args(["-c", "echo secret > /tmp/only-inside"]).output()?;
    println!("/tmp/only-inside exists on the host: {}", std::path::Path::new("/tmp/only-inside").exists());

    if spec.memory.is_some() {
        let usage = container.usage()?;
        println!(
            "it used at most {} KiB of {} MiB, {} ms of CPU time",
            usage.memory_peak.unwrap_or(0) >> 10,
            usage.memory_max.unwrap_or(0) >> 20,
            usage.cpu_usage_usec.unwrap_or(0) / 1000
        );
        // More than it may have: the kernel ends it, the container and this program live on.
        let mut command = container.command("tail");
        let greedy = command.arg("/dev/zero").stdout(Stdio::Null).spawn()?;
        let status = greedy.wait(Some(Duration::from_secs(30)))?.expect("ended in time");
        println!("a program that wants all memory: signal {:?}, {}", status.signal, status.reason.name());
    }
    let pid = container.pid();
    container.close(Some(Duration::from_secs(5)))?;
    println!("closed; its pid 1 ({pid}) exists: {}", std::path::Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}
