//! The tables of `make bench`: starts of ringfence beside the kernel's floor, bwrap and runc; snapshots of usage beside plain
//! reads; sockets inside beside setns(2) by hand, fork and nsenter; published ports beside loopback without a container;
//! starts on a network beside starts without; what the ways between containers carry beside loopback; starts and system calls under a
//! filter beside those without.
//!
//! A worker process per host size (an empty one, one with much touched heap) makes one measurement per request; the
//! coordinator asks for one of each subject in turn, so that whatever else the machine does meets all of them alike.

use std::ffi::{CString, c_char};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::spec::{
    Attachment, AttachmentKind, Firewall, FirewallRule, InterfaceAddress, IpvlanMode, NamespaceKind, Net, NetworkSpec,
    Port, RoutedPair, Seccomp,
};
use ringfence::{Container, Network, Spec};

/// What is measured, in the order of a round.
const SUBJECTS: &[Subject] = &[
    Subject { name: "vfork", label: "vfork + exec + wait", every: 1 },
    Subject { name: "fork", label: "fork + exec + wait", every: 1 },
    Subject { name: "floor", label: "floor: clone3, same namespaces + exec + wait", every: 1 },
    Subject { name: "ringfence", label: "ringfence: start + true + wait + close, limits", every: 1 },
    Subject { name: "exec", label: "ringfence: exec + true + wait, running container", every: 1 },
    Subject { name: "bwrap", label: "bwrap --unshare-all", every: 4 },
    Subject { name: "runc", label: "runc run", every: 20 },
];

/// Those that are also measured from the host with much heap.
const HEAVY: &[&str] = &["fork", "floor", "ringfence", "exec"];

/// A snapshot of usage, for one container each; see [`Usages`].
const USAGE: &[Subject] = &[
    Subject { name: "usage-floor", label: "floor: pread of the same files, kept open", every: 1 },
    Subject { name: "usage-files", label: "open + read + close of the same files", every: 1 },
    Subject { name: "usage", label: "ringfence: usage of one container", every: 1 },
    Subject { name: "usage-100", label: "ringfence: usage of 100 containers, per container", every: 4 },
    Subject { name: "usage-1000", label: "ringfence: usage of 1,000 containers, per container", every: 40 },
];

/// One socket in the network namespace of a running container.
const ENTER: &[Subject] = &[
    Subject { name: "enter-floor", label: "floor: setns + socket + setns back, descriptors kept open", every: 1 },
    Subject { name: "enter-lent", label: "ringfence: lend net + socket, until given back", every: 1 },
    Subject { name: "enter", label: "ringfence: enter net on a thread of its own + socket", every: 1 },
    Subject { name: "enter-fork", label: "fork + setns + socket + exit + wait", every: 1 },
    Subject { name: "enter-nsenter", label: "nsenter --net true, by pid", every: 4 },
];

/// A published port, and the same service on this machine's loopback.
const PORTS: [&[Subject]; 3] = [
    &[
        Subject { name: "port-echo-floor", label: "floor: 64 bytes there and back, loopback", every: 1 },
        Subject { name: "port-echo", label: "ringfence: the same through a published port", every: 1 },
    ],
    &[
        Subject {
            name: "port-connect-floor",
            label: "floor: connect, one byte there and back, close, loopback",
            every: 1,
        },
        Subject { name: "port-connect", label: "ringfence: the same through a published port", every: 1 },
    ],
    &[
        Subject { name: "port-stream-floor", label: "floor: 64 MiB one way, loopback", every: 10 },
        Subject { name: "port-stream", label: "ringfence: the same through a published port", every: 10 },
    ],
];

/// A whole run on a network of containers.
const NETWORK: &[Subject] = &[
    Subject { name: "network-floor", label: "ringfence: start, exec, wait, close with a loopback device", every: 1 },
    Subject { name: "network-1", label: "the same on a network with 1 other", every: 1 },
    Subject { name: "network-10", label: "the same on a network with 10 others", every: 1 },
    Subject { name: "network-100", label: "the same on a network with 100 others", every: 2 },
    Subject { name: "network-1000", label: "the same on a network with 1,000 others", every: 4 },
];

/// The same is measured over each way.
macro_rules! wires {
    ($what:literal, $floor:literal, $every:literal) => {
        &[
            Subject { name: concat!("wire-", $what, "-floor"), label: $floor, every: $every },
            wires!(@ $what, "network", "ringfence: two containers on a network", $every),
            wires!(@ $what, "firewall", "ringfence: the same, with a firewall", $every),
            wires!(@ $what, "nat", "ringfence: the host and a port by the kernel", $every),
            wires!(@ $what, "routed", "ringfence: the host and a routed address", $every),
            wires!(@ $what, "netkit", "ringfence: the same over netkit", $every),
            wires!(@ $what, "macvlan", "ringfence: two macvlans on one device", $every),
            wires!(@ $what, "ipvlan", "ringfence: two ipvlans on one device", $every),
        ]
    };
    (@ $what:literal, $way:literal, $label:literal, $every:literal) => {
        Subject { name: concat!("wire-", $what, "-", $way), label: $label, every: $every }
    };
}

/// Ways between two programs, of which one at least is in a container. All but the first are in a network namespace of the worker's own.
const WIRES: [&[Subject]; 3] = [
    wires!("echo", "floor: 64 bytes there and back, loopback", 1),
    wires!("stream", "floor: 64 MiB one way, loopback", 10),
    wires!("iperf3", "floor: 256 MiB by iperf3, loopback", 20),
];

/// Filters of system calls: what they add to a start, and to a thousand calls.
const FILTERS: [&[Subject]; 4] = [
    &[
        Subject { name: "filter-start-floor", label: "ringfence: start + true + wait + close, no filter", every: 1 },
        Subject { name: "filter-start-default", label: "the same under the default profile", every: 1 },
        Subject { name: "filter-start-strict", label: "the same under the strict profile", every: 1 },
    ],
    &[
        Subject { name: "filter-getppid-floor", label: "1,000 times getppid, no filter", every: 4 },
        Subject { name: "filter-getppid-default", label: "the same under the default profile", every: 4 },
    ],
    &[
        Subject { name: "filter-read-floor", label: "1,000 times read of a byte, no filter", every: 4 },
        Subject { name: "filter-read-default", label: "the same under the default profile", every: 4 },
    ],
    &[
        Subject { name: "filter-openat-floor", label: "1,000 times openat and close, no filter", every: 4 },
        Subject { name: "filter-openat-default", label: "the same under the default profile", every: 4 },
    ],
];

struct Subject {
    name: &'static str,
    label: &'static str,
    /// Measured in each n-th round: the slow ones would otherwise be most of the run.
    every: usize,
}

struct Options {
    rounds: usize,
    heap_mib: usize,
    payload: String,
    /// Names of subjects to measure; all when empty.
    only: Vec<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|n| n == name)
    }
}

fn main() {
    let mut options = Options { rounds: 1000, heap_mib: 4096, payload: "/bin/true".into(), only: Vec::new() };
    let mut worker = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--rounds" => options.rounds = value().parse().expect("--rounds N"),
            "--heap" => options.heap_mib = value().parse().expect("--heap MIB"),
            "--payload" => options.payload = value(),
            "--only" => options.only = value().split(',').map(Into::into).collect(),
            "--worker" => worker = Some(value().parse().expect("--worker MIB")),
            "--bench" => {}
            _ => panic!("unknown argument {argument}"),
        }
    }
    match worker {
        Some(heap_mib) => work(heap_mib, &options.payload),
        None => coordinate(&options),
    }
}

// --- the worker -------------------------------------------------------------------------------------------------------------

/// Answers requests, one line each: the name of a subject in, nanoseconds or `! reason` out.
fn work(heap_mib: usize, payload: &str) {
    let mut heap = vec![0u8; heap_mib << 20];
    for page in heap.chunks_mut(4096) {
        page[0] = 1;
    }
    let mut running = None;
    let mut usages = Usages::default();
    let mut ports = Ports::default();
    let mut networks = Networks::default();
    let mut wires = Wires::default();
    for line in std::io::stdin().lines() {
        let answer = match line.expect("a request").as_str() {
            "memory" => memory(&mut running),
            name if name.starts_with("usage") => usages.measure(name).map(|d| d.as_nanos().to_string()),
            name if name.starts_with("port") => ports.measure(name).map(|d| d.as_nanos().to_string()),
            name if name.starts_with("wire") => wires.measure(name).map(|d| d.as_nanos().to_string()),
            name if name.starts_with("network") => networks.measure(name, payload).map(|d| d.as_nanos().to_string()),
            name => measure(name, payload, &mut running).map(|d| d.as_nanos().to_string()),
        };
        match answer {
            Ok(text) => println!("{text}"),
            Err(reason) => println!("! {}", reason.replace('\n', " ")),
        }
    }
    if let Some(container) = running {
        let _ = Container::close(&container, Some(Duration::from_secs(5)));
    }
    std::hint::black_box(&heap);
}

fn measure(name: &str, payload: &str, running: &mut Option<Container>) -> Result<Duration, String> {
    let program = CString::new(payload).expect("no NUL");
    match name {
        "vfork" => timed(|| {
            let argv = [program.as_ptr().cast_mut(), std::ptr::null_mut()];
            let envp = [std::ptr::null_mut::<c_char>()];
            let mut pid = 0;
            // SAFETY: argv and envp are NULL-terminated arrays that live through the call; glibc uses CLONE_VM | CLONE_VFORK.
            let result = unsafe {
                libc::posix_spawn(
                    &mut pid,
                    program.as_ptr(),
                    std::ptr::null(),
                    std::ptr::null(),
                    argv.as_ptr(),
                    envp.as_ptr(),
                )
            };
            if result != 0 { Err(format!("posix_spawn: errno {result}")) } else { reap(pid) }
        }),
        "fork" => timed(|| {
            // SAFETY: this process has one thread, and the child only executes.
            match unsafe { libc::fork() } {
                0 => execute(&program),
                pid => reap(pid),
            }
        }),
        "floor" => timed(|| floor(&program)),
        "ringfence" => {
            let spec = limited(payload);
            timed(|| whole(&spec))
        }
        "exec" => {
            let container = resident(running)?;
            timed(|| {
                let process = container.spawn(&ringfence::Command::new(payload)).map_err(|e| e.to_string())?;
                let status = process.wait(None).map_err(|e| e.to_string())?.ok_or("no status")?;
                if status.success() { Ok(()) } else { Err(format!("{status:?}")) }
            })
        }
        "bwrap" => {
            let arguments = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", payload];
            timed(|| peer(Command::new("bwrap").args(arguments)))
        }
        "runc" => {
            let bundle = bundle(payload)?;
            let id = format!("ringfence-bench-{}", std::process::id());
            timed(|| peer(Command::new("runc").args(["run", "--bundle", &bundle, &id])))
        }
        _ if name.starts_with("filter-start") => {
            let spec = Spec { seccomp: filter(name), ..limited(payload) };
            timed(|| whole(&spec))
        }
        _ if name.starts_with("filter") => calls(name, payload, &resident(running)?),
        _ if name.starts_with("enter") => enter(name, &resident(running)?),
        _ => Err(format!("unknown subject {name}")),
    }
}

fn filter(name: &str) -> Seccomp {
    match name.rsplit('-').next() {
        Some("default") => Seccomp::Default,
        Some("strict") => Seccomp::Strict,
        _ => Seccomp::Unconfined,
    }
}

/// A thousand calls, of many more that a program beside the payload makes.
fn calls(name: &str, payload: &str, container: &Container) -> Result<Duration, String> {
    const COUNT: u32 = 50_000;
    let program = Path::new(payload).with_file_name("calls");
    if !program.exists() {
        return Err(format!("{} is not there", program.display()));
    }
    let call = name.split('-').nth(1).ok_or("no call")?;
    let mut command = ringfence::Command::new(&program);
    command.args([call, &COUNT.to_string()]).stdin(ringfence::spec::Stdio::Null).stdout(ringfence::spec::Stdio::Pipe);
    command.seccomp = Some(filter(name));
    let process = container.spawn(&command).map_err(|e| e.to_string())?;
    let output = process.communicate(None, None).map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let nanoseconds: u64 = text.trim().parse().map_err(|_| format!("{:?}: {text:?}", output.status))?;
    Ok(Duration::from_nanos(nanoseconds) / (COUNT / 1000))
}

/// A container from its start to its end.
fn whole(spec: &Spec) -> Result<(), String> {
    let container = Container::start(spec).map_err(|e| e.to_string())?;
    let main = container.main().ok_or("no main process")?;
    let status = main.wait(None).map_err(|e| e.to_string())?.ok_or("no status")?;
    container.close(None).map_err(|e| e.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("{status:?}")) }
}

/// Networks with so many containers that do nothing.
#[derive(Default)]
struct Networks(Vec<(usize, Network, Vec<Container>)>);

impl Networks {
    fn measure(&mut self, name: &str, payload: &str) -> Result<Duration, String> {
        let spec = limited(payload);
        let Ok(others) = name.trim_start_matches("network-").parse::<usize>() else { return timed(|| whole(&spec)) };
        if !self.0.iter().any(|(count, ..)| *count == others) {
            let network = Network::start(&NetworkSpec::new()).map_err(|e| e.to_string())?;
            let start = |_| network.container(&Spec::new()).map_err(|e| e.to_string());
            let all = (0..others).map(start).collect::<Result<_, _>>()?;
            self.0.push((others, network, all));
        }
        let (_, network, _) = self.0.iter().find(|(count, ..)| *count == others).expect("just made");
        let spec = spec.net(Net::Attached(vec![Attachment::network(network.name())]));
        timed(|| whole(&spec))
    }
}

/// A socket in the container's network, in one of the ways to come there.
fn enter(name: &str, container: &Container) -> Result<Duration, String> {
    let net = container.ns_fd(NamespaceKind::Net).map_err(|e| e.to_string())?;
    let own = std::fs::File::open("/proc/thread-self/ns/net").map_err(|e| e.to_string())?;
    let join = |namespace: &dyn AsRawFd| {
        // SAFETY: no pointers.
        match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(format!("setns: {}", std::io::Error::last_os_error())),
        }
    };
    let socket = || std::net::UdpSocket::bind("127.0.0.1:0").map(drop).map_err(|e| e.to_string());
    match name {
        "enter-floor" => timed(|| {
            join(&net)?;
            let made = socket();
            join(&own)?;
            made
        }),
        "enter-lent" => timed(|| {
            let _lent = container.lend(&[NamespaceKind::Net]).map_err(|e| e.to_string())?;
            socket()
        }),
        "enter" => timed(|| container.enter(&[NamespaceKind::Net], socket).map_err(|e| e.to_string())?),
        // SAFETY: this process has one thread, and the child only calls the kernel.
        "enter-fork" => timed(|| match unsafe { libc::fork() } {
            0 => {
                let made = join(&net).and_then(|()| socket());
                // SAFETY: as a child ends that must not run what its parent registered.
                unsafe { libc::_exit(i32::from(made.is_err())) }
            }
            pid => reap(pid),
        }),
        "enter-nsenter" => {
            let pid = container.pid().to_string();
            timed(|| peer(Command::new("nsenter").args(["--target", &pid, "--net", "/bin/true"])))
        }
        _ => Err(format!("unknown subject {name}")),
    }
}

/// A service on loopback and one in a container, which this program both is itself.
#[derive(Default)]
struct Ports {
    direct: Option<TcpStream>,
    relayed: Option<TcpStream>,
    container: Option<Container>,
    addresses: [Option<SocketAddr>; 2],
}

const STREAM: usize = 64 << 20;

impl Ports {
    fn measure(&mut self, name: &str) -> Result<Duration, String> {
        let text = |e: std::io::Error| e.to_string();
        let relayed = usize::from(!name.ends_with("-floor"));
        let address = self.address(relayed)?;
        let connect = || {
            let stream = TcpStream::connect(address).map_err(text)?;
            stream.set_nodelay(true).map_err(text)?;
            Ok::<_, String>(stream)
        };
        let kept = if relayed == 1 { &mut self.relayed } else { &mut self.direct };
        if name.starts_with("port-echo") {
            if kept.is_none() {
                *kept = Some(connect()?);
            }
            return echoes(kept.as_mut().expect("just made"));
        }
        if name.starts_with("port-connect") {
            return timed(|| echo(&mut connect()?, 1));
        }
        streamed(connect()?)
    }

    fn address(&mut self, relayed: usize) -> Result<SocketAddr, String> {
        if let Some(address) = self.addresses[relayed] {
            return Ok(address);
        }
        let (service, address) = if relayed == 1 {
            let container = Container::start(&Spec::new().port(5432)).map_err(|e| e.to_string())?;
            let service = TcpListener::from(container.listen("127.0.0.1:5432", 64).map_err(|e| e.to_string())?);
            let address = container.ports().map_err(|e| e.to_string())?[0].address();
            self.container = Some(container);
            (service, address)
        } else {
            let service = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
            let address = service.local_addr().map_err(|e| e.to_string())?;
            (service, address)
        };
        serve(service);
        self.addresses[relayed] = Some(address);
        Ok(address)
    }
}

fn echo(stream: &mut TcpStream, size: usize) -> Result<(), String> {
    let mut data = [7; 64];
    let there_and_back = stream.write_all(&data[..size]).and_then(|()| stream.read_exact(&mut data[..size]));
    there_and_back.map_err(|e| e.to_string())
}

/// For one of 64 bytes.
fn echoes(stream: &mut TcpStream) -> Result<Duration, String> {
    const TIMES: u32 = 16;
    Ok(timed(|| (0..TIMES).try_for_each(|_| echo(stream, 64)))? / TIMES)
}

/// For 64 MiB, until all was taken.
fn streamed(mut stream: TcpStream) -> Result<Duration, String> {
    let text = |e: std::io::Error| e.to_string();
    let block = vec![7; 1 << 18];
    timed(|| {
        (0..STREAM / block.len()).try_for_each(|_| stream.write_all(&block)).map_err(text)?;
        stream.shutdown(std::net::Shutdown::Write).map_err(text)?;
        stream.read_to_end(&mut Vec::new()).map(drop).map_err(text)
    })
}

fn serve(service: TcpListener) {
    std::thread::spawn(move || {
        for client in service.incoming().flatten() {
            std::thread::spawn(move || answer(client));
        }
    });
}

/// Two ends of each way, which this program both is itself.
#[derive(Default)]
struct Wires {
    /// Its own network namespace is made.
    apart: bool,
    ends: Vec<(String, Wire)>,
}

struct Wire {
    service: SocketAddr,
    /// Who connects: the worker, or a container.
    client: Option<Container>,
    kept: Option<TcpStream>,
    /// Who listens.
    server: Option<Container>,
    /// For iperf3.
    port: u16,
    _network: Option<Network>,
}

impl Wire {
    fn connect(&self) -> Result<TcpStream, String> {
        let stream = match &self.client {
            None => TcpStream::connect(self.service).map_err(|e| e.to_string())?,
            Some(client) => {
                client.connect(&self.service.to_string(), None).map_err(|e| e.to_string()).map(TcpStream::from)?
            }
        };
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(stream)
    }
}

/// Where iperf3 listens, unless a port leads there.
const IPERF3: u16 = 5201;

impl Wire {
    /// For 256 MiB, as iperf3 says.
    fn iperf3(&self) -> Result<Duration, String> {
        const BYTES: u64 = 256 << 20;
        let text = |e: std::io::Error| format!("iperf3: {e}");
        let serve = format!("--server --one-off --idle-timeout 10 --port {IPERF3}");
        let serve = serve.split(' ');
        // Dropped at the end of this function, when it has ended.
        let (mut own, mut inside) = (None, None);
        match &self.server {
            None => own = Some(Command::new("iperf3").args(serve).stdout(Stdio::null()).spawn().map_err(text)?),
            Some(server) => {
                let command = server.command("iperf3").args(serve).stdout(ringfence::spec::Stdio::Null).spawn();
                inside = Some(command.map_err(|e| e.to_string())?);
            }
        }
        let (address, port) = (self.service.ip(), self.port);
        let ask = format!("--client {address} --port {port} --bytes {BYTES} --connect-timeout 2000 --json");
        let ask = ask.split(' ');
        let patience = Instant::now() + Duration::from_secs(5);
        let mut answer = Vec::new();
        while Instant::now() < patience {
            let output = match &self.client {
                None => Command::new("iperf3").args(ask.clone()).output().map_err(text)?.stdout,
                Some(client) => client.command("iperf3").args(ask.clone()).output().map_err(|e| e.to_string())?.stdout,
            };
            answer = output;
            // The server may not listen yet.
            if !String::from_utf8_lossy(&answer).contains("Connection refused") {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(mut own) = own {
            own.wait().map_err(text)?;
        }
        if let Some(inside) = inside {
            inside.wait(Some(Duration::from_secs(20))).map_err(|e| e.to_string())?;
        }
        let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|e| format!("iperf3: {e}"))?;
        match answer["end"]["sum_received"]["bits_per_second"].as_f64() {
            Some(bits) if bits > 0.0 => Ok(Duration::from_secs_f64(BYTES as f64 * 8.0 / bits)),
            _ => Err(format!("iperf3: {}", answer["error"])),
        }
    }
}

impl Wires {
    fn measure(&mut self, name: &str) -> Result<Duration, String> {
        let (what, way) = name.trim_start_matches("wire-").split_once('-').ok_or("no way")?;
        if !self.ends.iter().any(|(made, _)| made == way) {
            if !std::mem::replace(&mut self.apart, true) {
                apart()?;
            }
            self.ends.push((way.to_owned(), wire(way)?));
        }
        let (_, wire) = self.ends.iter_mut().find(|(made, _)| made == way).expect("just made");
        match what {
            "stream" => return streamed(wire.connect()?),
            "iperf3" => return wire.iperf3(),
            _ => {}
        }
        if wire.kept.is_none() {
            wire.kept = Some(wire.connect()?);
        }
        echoes(wire.kept.as_mut().expect("just made"))
    }
}

/// A network namespace for the worker that forwards, with one device that leads nowhere else.
fn apart() -> Result<(), String> {
    let command = |words: &str| {
        let status = Command::new("ip").args(words.split_whitespace()).status().map_err(|e| format!("ip: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("ip {words}: {status}")) }
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|e| format!("unshare: {e}"))?;
    command("link set lo up")?;
    command("link add near type veth peer name far")?;
    command("link set near up")?;
    command("link set far up")?;
    command("address add 10.7.0.254/24 dev near")?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|e| e.to_string())
}

fn wire(way: &str) -> Result<Wire, String> {
    let text = |e: ringfence::Error| e.to_string();
    let on = |one: Attachment, last: u8| {
        let address = InterfaceAddress { address: [10, 7, 0, last].into(), prefix: Some(24) };
        Container::start(&Spec::new().net(Net::Attached(vec![one.address(address)]))).map_err(text)
    };
    let (mut network, mut client) = (None, None);
    let (server, at) = match way {
        "floor" => (None, None),
        "network" | "firewall" => {
            let made = Network::start(&NetworkSpec::new()).map_err(text)?;
            let mut one = Attachment::network(made.name());
            if way == "firewall" {
                one = one.firewall(Firewall::closed().rule(FirewallRule::allow_in()));
            }
            let server = made.container(&Spec::new().net(Net::Attached(vec![one]))).map_err(text)?;
            client = Some(made.container(&Spec::new()).map_err(text)?);
            let address = server.addresses().map_err(text)?[0].addresses[0];
            network = Some(made);
            (Some(server), Some(address))
        }
        "nat" => {
            let made = Network::start(&NetworkSpec::new().internal(false)).map_err(text)?;
            let server = made.container(&Spec::new().port(Port::new(80).nat()).port(Port::new(IPERF3).nat()));
            let server = server.map_err(text)?;
            network = Some(made);
            (Some(server), Some(Ipv4Addr::LOCALHOST.into()))
        }
        "routed" | "netkit" => {
            let pair = if way == "netkit" { RoutedPair::Netkit } else { RoutedPair::Veth };
            let last = if way == "netkit" { 8 } else { 7 };
            let one = Attachment::new(AttachmentKind::Routed { outer: "near".into(), pair });
            let one = one.address(std::net::IpAddr::from([10, 7, 0, last]));
            let server = Container::start(&Spec::new().net(Net::Attached(vec![one]))).map_err(text)?;
            (Some(server), Some([10, 7, 0, last].into()))
        }
        "macvlan" | "ipvlan" => {
            let (one, first) = match way {
                "macvlan" => (Attachment::macvlan("far"), 20),
                _ => (Attachment::ipvlan("near", IpvlanMode::L2), 30),
            };
            let server = on(one.clone(), first)?;
            client = Some(on(one, first + 1)?);
            (Some(server), Some([10, 7, 0, first].into()))
        }
        _ => return Err(format!("no way {way}")),
    };
    let service = match &server {
        None => TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?,
        Some(server) => TcpListener::from(server.listen("0.0.0.0:80", 64).map_err(text)?),
    };
    let own = service.local_addr().map_err(|e| e.to_string())?;
    let (http, port) = match &server {
        Some(server) if way == "nat" => (server.port(80).map_err(text)?, server.port(IPERF3).map_err(text)?),
        _ => (own.port(), IPERF3),
    };
    serve(service);
    let service = SocketAddr::new(at.unwrap_or(own.ip()), http);
    Ok(Wire { service, client, kept: None, server, port, _network: network })
}

/// Sends back what is short, and takes the rest.
fn answer(mut client: TcpStream) {
    let _ = client.set_nodelay(true);
    let mut data = vec![0; 1 << 18];
    while let Ok(n) = client.read(&mut data) {
        if n == 0 || n <= 64 && client.write_all(&data[..n]).is_err() {
            return;
        }
    }
}

/// Containers of which snapshots are made, started at the first use.
#[derive(Default)]
struct Usages {
    containers: Vec<Container>,
    files: Vec<(std::path::PathBuf, std::fs::File)>,
}

impl Usages {
    fn measure(&mut self, name: &str) -> Result<Duration, String> {
        use std::os::unix::fs::FileExt;
        let count = name.strip_prefix("usage-").and_then(|n| n.parse().ok()).unwrap_or(1);
        self.start(count)?;
        let mut buffer = [0u8; 8192];
        let text = |e: std::io::Error| e.to_string();
        let mut look = || -> Result<(), String> {
            match name {
                "usage-floor" => {
                    for (_, file) in &self.files {
                        file.read_at(&mut buffer, 0).map_err(text)?;
                    }
                }
                "usage-files" => {
                    for (path, _) in &self.files {
                        let file = std::fs::File::open(path).map_err(text)?;
                        file.read_at(&mut buffer, 0).map_err(text)?;
                    }
                }
                _ => {
                    for container in &self.containers[..count] {
                        std::hint::black_box(container.usage().map_err(|e| e.to_string())?);
                    }
                }
            }
            Ok(())
        };
        // One container's files are in the processor's caches, as they are for those that are looked at in a row.
        let looks = if count == 1 { 16 } else { 1 };
        let all = timed(|| (0..looks).try_for_each(|_| look()))?;
        Ok(all / (looks * count as u32))
    }

    fn start(&mut self, count: usize) -> Result<(), String> {
        if self.containers.len() < count {
            // Each has some ten descriptors for itself, and one for each file that tells of it.
            use nix::sys::resource::{Resource, getrlimit, setrlimit};
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| e.to_string())?;
        }
        while self.containers.len() < count {
            let spec = Spec { argv: Vec::new(), ..limited("") };
            let container = Container::start(&spec).map_err(|e| e.to_string())?;
            container.usage().map_err(|e| e.to_string())?;
            if self.containers.is_empty() {
                self.files = read_files(&container);
            }
            self.containers.push(container);
        }
        Ok(())
    }
}

/// The files that a snapshot reads: those of the groups that this process has open now, and the network's.
fn read_files(container: &Container) -> Vec<(std::path::PathBuf, std::fs::File)> {
    let id = format!("/{}/", container.id());
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let paths = open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|path| {
        let path = path.to_string_lossy();
        path.contains(&id) && !path.ends_with("/tasks")
    });
    let network = format!("/proc/{}/net/dev", container.pid()).into();
    paths.chain([network]).filter_map(|path| Some((path.clone(), std::fs::File::open(path).ok()?))).collect()
}

fn timed(run: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let started = Instant::now();
    run()?;
    Ok(started.elapsed())
}

fn limited(payload: &str) -> Spec {
    Spec { argv: vec![payload.into()], memory: Some(256 << 20), cpus: Some(1.0), pids: Some(64), ..Spec::default() }
}

/// The container in which `exec` is measured, started at the first use.
fn resident(running: &mut Option<Container>) -> Result<Container, String> {
    if running.is_none() {
        *running = Some(Container::start(&Spec::default()).map_err(|e| e.to_string())?);
    }
    Ok(running.clone().expect("just started"))
}

fn execute(program: &CString) -> ! {
    let argv = [program.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null()];
    // SAFETY: NULL-terminated arrays; _exit is what a child may do when execve returns.
    unsafe {
        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
        libc::_exit(127)
    }
}

fn reap(pid: i32) -> Result<(), String> {
    if pid < 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    let mut status = 0;
    // SAFETY: waits for a child of this process; status is writable.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0 {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(format!("waitpid: {error}"));
        }
    }
    if status == 0 { Ok(()) } else { Err(format!("wait status {status:#x}")) }
}

/// clone3 with the namespaces of a default container, exec, wait: what the kernel itself takes.
fn floor(program: &CString) -> Result<(), String> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
    }
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let arguments = CloneArgs { flags: namespaces as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    // SAFETY: without CLONE_VM the child has a copy of this single-threaded process, and only executes.
    match unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<CloneArgs>()) } {
        0 => execute(program),
        pid => reap(pid as i32),
    }
}

fn peer(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// An OCI bundle with the payload as its only file, made once.
fn bundle(payload: &str) -> Result<String, String> {
    let directory = format!("/tmp/ringfence-bench-{}", std::process::id());
    if Path::new(&directory).is_dir() {
        return Ok(directory);
    }
    let fail = |e: std::io::Error| e.to_string();
    std::fs::create_dir_all(format!("{directory}/rootfs")).map_err(fail)?;
    std::fs::copy(payload, format!("{directory}/rootfs/true")).map_err(fail)?;
    peer(Command::new("runc").args(["spec", "--bundle", &directory]))?;
    let path = format!("{directory}/config.json");
    let text = std::fs::read_to_string(&path).map_err(fail)?;
    let mut config: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["/true"]);
    let parent = std::env::var("RINGFENCE_CGROUP_PARENT").unwrap_or_else(|_| "/ringfence-test".into());
    config["linux"]["cgroupsPath"] = format!("{parent}/runc").into();
    config["linux"]["resources"] = serde_json::json!({"memory": {"limit": 256 << 20}, "pids": {"limit": 64}, "cpu": {"quota": 100_000, "period": 100_000}});
    std::fs::write(&path, config.to_string()).map_err(fail)?;
    Ok(directory)
}

/// Resident sizes in KiB of the keeper and of a container's init, and the number of other processes of ours.
fn memory(running: &mut Option<Container>) -> Result<String, String> {
    let container = resident(running)?;
    let init = container.pid();
    let keeper = status_field(init, "PPid").ok_or("no parent of init")?;
    let init_kib = status_field(init, "VmRSS").ok_or("no size of init")?;
    let keeper_kib = status_field(keeper as i32, "VmRSS").ok_or("no size of the keeper")?;
    Ok(format!("{keeper_kib} {init_kib}"))
}

fn status_field(pid: i32, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|l| l.starts_with(&format!("{name}:")))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

// --- the coordinator --------------------------------------------------------------------------------------------------------

struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    fn start(heap_mib: usize, payload: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--worker", &heap_mib.to_string(), "--payload", payload])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a worker");
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, requests, answers }
    }

    fn ask(&mut self, what: &str) -> Result<String, String> {
        writeln!(self.requests, "{what}").map_err(|e| format!("worker: {e}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| format!("worker: {e}"))?;
        match line.trim_end() {
            "" => Err("the worker died".into()),
            text => match text.strip_prefix("! ") {
                Some(reason) => Err(reason.into()),
                None => Ok(text.into()),
            },
        }
    }

    fn end(self) {
        let Self { mut child, requests, .. } = self;
        drop(requests);
        let _ = child.wait();
        let _ = std::fs::remove_dir_all(format!("/tmp/ringfence-bench-{}", child.id()));
    }
}

#[derive(Default)]
struct Series {
    label: String,
    /// Milliseconds.
    samples: Vec<f64>,
    failure: Option<String>,
}

impl Series {
    fn sample(&mut self, worker: &mut Worker, name: &str) {
        if self.failure.is_some() {
            return;
        }
        match worker.ask(name) {
            Ok(text) => self.samples.push(text.parse::<f64>().expect("nanoseconds") / 1e6),
            Err(reason) => self.failure = Some(reason),
        }
    }

    fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() - 1) as f64 * q).round() as usize]
    }

    fn measured(&self) -> bool {
        self.failure.is_none() && !self.samples.is_empty()
    }
}

fn coordinate(options: &Options) {
    let mut empty = Worker::start(0, &options.payload);
    let mut heavy = Worker::start(options.heap_mib, &options.payload);
    let mut rows: Vec<Series> =
        SUBJECTS.iter().map(|s| Series { label: s.label.into(), ..Series::default() }).collect();
    let mut heavy_rows: Vec<Series> = HEAVY
        .iter()
        .map(|name| {
            let label = SUBJECTS.iter().find(|s| s.name == *name).expect("a subject").label;
            Series { label: format!("{label}, host with {} MiB", options.heap_mib), ..Series::default() }
        })
        .collect();
    let warm_up = 20.min(options.rounds / 10);
    for round in 0..options.rounds + warm_up {
        for (subject, row) in SUBJECTS.iter().zip(&mut rows) {
            if round % subject.every == 0 && options.wants(subject.name) {
                row.sample(&mut empty, subject.name);
            }
        }
        // fork copies the page tables of all that heap each time; a tenth of the samples shows it well enough.
        for (name, row) in HEAVY.iter().zip(&mut heavy_rows) {
            let due = round % 10 == 0 || matches!(*name, "ringfence" | "exec");
            if due && options.wants(name) {
                row.sample(&mut heavy, name);
            }
        }
        if round + 1 == warm_up {
            for row in rows.iter_mut().chain(&mut heavy_rows) {
                row.samples.clear();
            }
        }
    }
    let rounds = options.rounds.min(400);
    let enter_rows = series(&mut empty, ENTER, rounds, warm_up, options);
    let port_rows = PORTS.map(|subjects| series(&mut empty, subjects, rounds, warm_up, options));
    let filter_rows = FILTERS.map(|subjects| series(&mut empty, subjects, rounds, warm_up, options));
    let memory = if options.wants("exec") { empty.ask("memory") } else { Err("needs the container of `exec`".into()) };
    empty.end();
    heavy.end();
    // By itself, because it ends with a thousand containers.
    let mut usage = Worker::start(0, &options.payload);
    let usage_rows = series(&mut usage, USAGE, rounds, warm_up, options);
    usage.end();
    let mut network = Worker::start(0, &options.payload);
    let network_rows = series(&mut network, NETWORK, rounds, warm_up, options);
    network.end();
    let mut wire = Worker::start(0, &options.payload);
    let wire_rows = WIRES.map(|subjects| series(&mut wire, subjects, rounds, warm_up, options));
    wire.end();
    print!("{}", table(&rows, &heavy_rows));
    print!("\n{}", fine_table(&usage_rows));
    print!("\n{}", fine_table(&enter_rows));
    for rows in port_rows.iter().chain([&network_rows]).chain(&wire_rows).chain(&filter_rows) {
        print!("\n{}", fine_table(rows));
    }
    print!("{}", goals(&rows, &heavy_rows, &usage_rows, &network_rows, memory));
}

/// Measures subjects that take microseconds.
fn series(worker: &mut Worker, subjects: &[Subject], rounds: usize, warm_up: usize, options: &Options) -> Vec<Series> {
    let mut rows: Vec<Series> =
        subjects.iter().map(|s| Series { label: s.label.into(), ..Series::default() }).collect();
    for round in 0..rounds + warm_up {
        for (subject, row) in subjects.iter().zip(&mut rows) {
            if round % subject.every == 0 && options.wants(subject.name) {
                row.sample(worker, subject.name);
            }
        }
        if round + 1 == warm_up {
            rows.iter_mut().for_each(|row| row.samples.clear());
        }
    }
    rows
}

fn find<'a>(rows: &'a [Series], list: &[&str], name: &str) -> Option<&'a Series> {
    let index = list.iter().position(|n| *n == name)?;
    rows.get(index).filter(|row| row.measured())
}

fn names() -> Vec<&'static str> {
    SUBJECTS.iter().map(|s| s.name).collect()
}

fn table(rows: &[Series], heavy: &[Series]) -> String {
    let mut out = String::new();
    let all: Vec<&Series> = rows.iter().chain(heavy).filter(|r| r.failure.is_some() || !r.samples.is_empty()).collect();
    let floor = find(rows, &names(), "floor").map(|row| row.quantile(0.5));
    let largest = all.iter().filter(|r| r.measured()).map(|r| r.quantile(0.5)).fold(0.0, f64::max);
    let width = all.iter().map(|r| r.label.len()).max().unwrap_or(0);
    let _ = writeln!(out, "{:<width$}  {:>6}  {:>8}  {:>8}  {:>7}", "milliseconds", "n", "p50", "p99", "x floor");
    for row in all {
        if let Some(reason) = &row.failure {
            let _ = writeln!(out, "{:<width$}  not measured: {reason}", row.label);
            continue;
        }
        let (p50, p99) = (row.quantile(0.5), row.quantile(0.99));
        let ratio = floor.map_or_else(|| "-".into(), |f| format!("{:.2}", p50 / f));
        // A logarithmic bar: the rows differ by a factor of a hundred and more.
        let bar = (1.0 + p50 / 0.1).ln() / (1.0 + largest / 0.1).ln() * 30.0;
        let bar = "#".repeat((bar.round() as usize).max(1));
        let _ =
            writeln!(out, "{:<width$}  {:>6}  {p50:>8.3}  {p99:>8.3}  {ratio:>7}  {bar}", row.label, row.samples.len());
    }
    out
}

/// Microseconds; the first row is the floor.
fn fine_table(rows: &[Series]) -> String {
    let mut out = String::new();
    let width = rows.iter().map(|r| r.label.len()).max().unwrap_or(0);
    let floor = rows.first().filter(|row| row.measured()).map(|row| row.quantile(0.5));
    let _ = writeln!(out, "{:<width$}  {:>6}  {:>8}  {:>8}  {:>7}", "microseconds", "n", "p50", "p99", "x floor");
    for row in rows.iter().filter(|r| r.failure.is_some() || !r.samples.is_empty()) {
        if let Some(reason) = &row.failure {
            let _ = writeln!(out, "{:<width$}  not measured: {reason}", row.label);
            continue;
        }
        let (p50, p99) = (row.quantile(0.5), row.quantile(0.99));
        let ratio = floor.map_or_else(|| "-".into(), |f| format!("{:.2}", p50 / f));
        let (n, p50, p99) = (row.samples.len(), p50 * 1e3, p99 * 1e3);
        let _ = writeln!(out, "{:<width$}  {n:>6}  {p50:>8.1}  {p99:>8.1}  {ratio:>7}", row.label);
    }
    out
}

fn goals(
    rows: &[Series],
    heavy: &[Series],
    usage: &[Series],
    network: &[Series],
    memory: Result<String, String>,
) -> String {
    let mut out = String::from("\n");
    let mut goal = |what: &str, value: Option<f64>, limit: f64, unit: &str| {
        let _ = match value {
            Some(v) => {
                let verdict = if v <= limit { "met" } else { "MISSED" };
                writeln!(out, "{what:<64} {v:>8.2}{unit} (goal: at most {limit}{unit}) {verdict}")
            }
            None => writeln!(out, "{what:<64} not measured"),
        };
    };
    let names = names();
    let of = |name: &str, q: f64| find(rows, &names, name).map(|row| row.quantile(q));
    let of_heavy = |name: &str, q: f64| find(heavy, HEAVY, name).map(|row| row.quantile(q));
    let ratio = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    goal("start against floor, p50", ratio(of("ringfence", 0.5), of("floor", 0.5)), 2.0, "x");
    goal("start against floor, p99", ratio(of("ringfence", 0.99), of("floor", 0.99)), 2.0, "x");
    goal(
        "start from the large host against the empty one, p50",
        ratio(of_heavy("ringfence", 0.5), of("ringfence", 0.5)),
        1.1,
        "x",
    );
    goal(
        "exec in a running container against vfork + exec + wait, p50",
        ratio(of("exec", 0.5), of("vfork", 0.5)),
        2.0,
        "x",
    );
    let sizes: Option<Vec<f64>> =
        memory.as_ref().ok().map(|text| text.split(' ').filter_map(|n| n.parse().ok()).collect());
    goal("resident memory of the keeper", sizes.as_ref().and_then(|s| s.first().copied()), 300.0, " KiB");
    goal("resident memory of a container's init", sizes.as_ref().and_then(|s| s.get(1).copied()), 100.0, " KiB");
    let usages: Vec<&str> = USAGE.iter().map(|s| s.name).collect();
    let of_usage = |name: &str| find(usage, &usages, name).map(|row| row.quantile(0.5) * 1e3);
    goal("usage of one container, p50", of_usage("usage"), 40.0, " us");
    goal(
        "usage of 1,000 containers against 100, per container",
        ratio(of_usage("usage-1000"), of_usage("usage-100")),
        1.2,
        "x",
    );
    let networks: Vec<&str> = NETWORK.iter().map(|s| s.name).collect();
    let of_network = |name: &str| find(network, &networks, name).map(|row| row.quantile(0.5));
    let added = of_network("network-1").zip(of_network("network-floor")).map(|(with, without)| with - without);
    goal("what a network adds to a run, p50", added, 1.0, " ms");
    for (name, what) in [("network-100", "a run beside 100 on the network"), ("network-1000", "a run beside 1,000")] {
        let what = format!("{what} against beside one, p50");
        goal(&what, ratio(of_network(name), of_network("network-1")), 1.5, "x");
    }
    if let Err(reason) = memory {
        let _ = writeln!(out, "memory not measured: {reason}");
    }
    out
}
