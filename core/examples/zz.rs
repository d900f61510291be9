use ringfence::{Command, Container, Spec, spec::Terminal};
use std::io::{Read, Write};
fn main() {
    let c = Container::start(&Spec::new()).unwrap();
    let mut cmd = Command::new("sh");
    cmd.args(["-c", "ps -e -o pid,pgid,sid,tpgid,stat,comm; grep Sig /proc/self/status; stty -a; echo ready; sleep 1000"]);
    cmd.terminal = Some(Terminal::default());
    let p = c.spawn(&cmd).unwrap();
    let mut f = std::fs::File::from(p.terminal().unwrap().try_clone_to_owned().unwrap());
    let mut s = String::new();
    let mut b = [0; 1000];
    while !s.contains("ready") { let n = f.read(&mut b).unwrap(); s.push_str(&String::from_utf8_lossy(&b[..n])); }
    println!("{s}");
    std::thread::sleep(std::time::Duration::from_millis(300));
    f.write_all(b"\x03").unwrap();
    println!("{:?}", p.wait(Some(std::time::Duration::from_secs(2))));
    println!("{}", String::from_utf8_lossy(&c.command("ps").args(["-e", "-o", "pid,pgid,sid,tpgid,stat,comm"]).output().unwrap().stdout));
    c.close(None).unwrap();
}
