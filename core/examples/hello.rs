//! A container with a command in it: `cargo run -p ringfence --example hello`.
//!
//! tests/run: as=root,delegated

use ringfence::{Container, Spec};

fn main() -> ringfence::Result<()> {
    let spec = Spec::new().hostname("hello").memory(256 << 20).cpus(0.5).pids(64);
    let container = Container::start(&spec)?;
    let output = container.command("sh").args(["-c", "hostname; id -u; echo pid 1 is $(cat /proc/1/comm)"]).output()?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    println!("memory peak: {:?} bytes, exit code: {:?}", container.usage()?.memory_peak, output.status.code);
    container.close(None)
}
