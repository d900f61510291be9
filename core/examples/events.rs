//! What happens to a container, told as it happens: a program that wants too much memory, one that forks too much, a freeze,
//! the end.
//!
//! tests/run: timeout=60

use std::time::Duration;

use ringfence::spec::Stdio;
use ringfence::{Container, ErrorKind, EventOptions, Pressure, PressureResource, Result, Spec};

fn main() -> Result<()> {
    // Who may set limits depends on the machine: for an ordinary user, control groups must be delegated.
    let limited = Spec { memory: Some(48 << 20), pids: Some(16), ..Spec::default() };
    let container = Container::start(&limited).or_else(|error| {
        println!("without limits here: {error}");
        Container::start(&Spec::default())
    })?;

    // Everything that this machine tells of, and a threshold: 100 ms of waiting for memory within 2 s.
    let threshold = Pressure::new(PressureResource::Memory, Duration::from_millis(100));
    let mut options = EventOptions { pressure: vec![threshold], ..EventOptions::default() };
    let events = match container.events(&options) {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            println!("without pressure here: {error}");
            options.pressure.clear();
            container.events(&options)?
        }
        result => result?,
    };
    println!("told here: {:?}", events.kinds());

    // Nobody waits here: a descriptor could be polled beside others, or another thread could read.
    if container.spec().memory.is_some() {
        let greedy = ["x = bytearray(200 << 20)", "import os, time\nfor _ in range(20): os.fork() or time.sleep(1)"];
        for script in greedy {
            let mut command = container.command("python3");
            command.args(["-c", script]).stdin(Stdio::Null).stderr(Stdio::Null).spawn()?.wait(None)?;
        }
        container.freeze()?;
        container.thaw()?;
    }
    container.close(None)?;

    // All that was counted meanwhile, then the end.
    for event in &events {
        let event = event?;
        println!("{} (times {})", event.kind.name(), event.count);
    }
    Ok(())
}
