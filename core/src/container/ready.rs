//! Waiting until a container is ready: ports, lines of the log, files, a command, an HTTP server.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, SockaddrLike, SockaddrStorage, getsockopt, send, sockopt};
use regex::bytes::{Regex, RegexBuilder};

use super::logs::{LogOptions, LogReader, new_log, tail_start};
use super::{Container, SHORT};
use crate::error::{Error, ErrorKind, Result};
use crate::launch;
use crate::process::{ExitStatus, Process};
use crate::spec::Stdio;

/// How long the log is read before time and signals are looked at.
const TURN: Duration = Duration::from_millis(10);
/// How long after a look that found something missing the next one is, from and up to.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];
/// A server that takes a connection and says nothing is asked again after this.
const HTTP_TRY: Duration = Duration::from_secs(5);
/// Of an answer; what matters is its first line.
const HTTP_HEAD: usize = 4096;
/// What an error has of a log, and of what a command said.
const TAIL_LINES: u64 = 50;
const TAIL_BYTES: u64 = 16 << 10;
const SAID: u64 = 4096;
/// How long a failed look waits for an end that would explain it.
const ENDING: Duration = Duration::from_millis(200);
/// An incomplete line is searched up to this length.
const PARTIAL: usize = 64 << 10;

/// A port of the container's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortCheck {
    /// 1 to 65535.
    pub number: u16,
    /// A bound UDP socket; else a TCP socket that listens.
    pub udp: bool,
}

impl std::fmt::Display for PortCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.number, if self.udp { "/udp" } else { "" })
    }
}

/// An HTTP server inside, asked by GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// `http://ADDRESS[:PORT]/PATH`, seen from inside: ADDRESS is `localhost`, an IPv4 address or an IPv6 address in brackets; names are not
    /// looked up.
    pub url: String,
    /// The status that it is to answer; `None`: any from 200 to 399.
    pub status: Option<u16>,
}

/// What a container is to have before it is ready: all of it. See [`Container::wait_for`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitFor {
    /// Ports that are open, on any address. They are looked for in the socket tables of the container's network
    /// (/proc/PID/net/tcp and others): nobody connects to them. With `net: host` these are the host's.
    pub ports: Vec<PortCheck>,
    /// Regular expressions (of the crate `regex`, on bytes) that each match somewhere in a line of the log, from its beginning. An
    /// incomplete last line counts as it stands. Needs a stream of the main process that is a `log`.
    pub logs: Vec<String>,
    /// Paths that exist inside, absolute; links are followed inside the container only. Nothing is opened: a FIFO holds up nobody.
    pub paths: Vec<PathBuf>,
    /// A command that exits with 0, run inside again and again, one at a time. Its streams are null and a scrap of memory, whose text
    /// errors show. One that is under way when the wait ends is killed (SIGKILL; not what it started itself). A program that does not exist
    /// is an error at once.
    pub command: Vec<OsString>,
    /// An HTTP server that answers.
    pub http: Option<HttpCheck>,
}

impl WaitFor {
    /// One more TCP port.
    pub fn port(mut self, number: u16) -> Self {
        self.ports.push(PortCheck { number, udp: false });
        self
    }

    /// One more UDP port.
    pub fn udp_port(mut self, number: u16) -> Self {
        self.ports.push(PortCheck { number, udp: true });
        self
    }

    /// One more expression for the log.
    pub fn log(mut self, regex: impl Into<String>) -> Self {
        self.logs.push(regex.into());
        self
    }

    /// One more path.
    pub fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// The command.
    pub fn command<S: AsRef<OsStr>>(mut self, argv: impl IntoIterator<Item = S>) -> Self {
        self.command = argv.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
        self
    }

    /// The URL of an HTTP server, with any status from 200 to 399.
    pub fn http(mut self, url: impl Into<String>) -> Self {
        self.http = Some(HttpCheck { url: url.into(), status: None });
        self
    }

    /// `{"port": [5432, "53/udp"], "log": "ready", "path": "/run/x", "command": ["pg_isready"], "http": "http://127.0.0.1:8080/health"}`:
    /// one or several of these. `port`, `log` and `path` may be lists; `http` may be `{"url": ..., "status": 204}`.
    ///
    /// # Errors
    /// InvalidArgument with the member's name as field.
    pub fn from_json(text: &str) -> Result<Self> {
        crate::spec::wait_for::wait_for(text)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.compile().map(drop)
    }

    fn compile(&self) -> Result<Vec<Condition>> {
        let mut list = Vec::new();
        for (i, port) in self.ports.iter().enumerate() {
            if port.number == 0 {
                return Err(invalid("is not in the range 1 to 65535", &of("port", i, self.ports.len())));
            }
            list.push(Condition::new(Kind::Port(*port)));
        }
        for (i, pattern) in self.logs.iter().enumerate() {
            let regex = RegexBuilder::new(pattern).build().map_err(|e| {
                // The error shows the expression over several lines; its last says what is wrong.
                let text = e.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                invalid(format!("{pattern:?} is no regular expression: {why}"), &of("log", i, self.logs.len()))
            })?;
            list.push(Condition::new(Kind::Log(regex)));
        }
        for (i, path) in self.paths.iter().enumerate() {
            let field = of("path", i, self.paths.len());
            if path.as_os_str().as_bytes().contains(&0) {
                return Err(invalid("has a NUL byte", &field));
            }
            if !path.is_absolute() {
                return Err(invalid(format!("{path:?} is not absolute"), &field));
            }
            list.push(Condition::new(Kind::Path(path.clone())));
        }
        if !self.command.is_empty() {
            list.push(Condition::new(Kind::Command { argv: self.command.clone(), running: None }));
        }
        if let Some(http) = &self.http {
            list.push(Condition::new(Kind::Http { to: Target::parse(http)?, asking: None }));
        }
        if list.is_empty() {
            return Err(invalid("there is nothing to wait for", "conditions")
                .with_hint("give one or several of port, log, path, command, http"));
        }
        Ok(list)
    }
}

fn of(key: &str, index: usize, count: usize) -> String {
    if count == 1 { key.to_owned() } else { format!("{key}[{index}]") }
}

fn invalid(why: impl Into<String>, field: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, why).with_field(field).with_errno(libc::EINVAL)
}

/// Where an HTTP server is, and what it is asked.
#[derive(Clone, Debug)]
struct Target {
    url: String,
    address: SocketAddr,
    request: String,
    status: Option<u16>,
}

impl Target {
    fn parse(http: &HttpCheck) -> Result<Self> {
        let url = &http.url;
        let wrong = |why: &str| invalid(format!("{url:?} {why}"), "http");
        if http.status.is_some_and(|status| !(100..=599).contains(&status)) {
            return Err(invalid("is not in the range 100 to 599", "http.status"));
        }
        if url.bytes().any(|byte| !(0x21..0x7f).contains(&byte)) {
            return Err(wrong("has a character that a URL cannot have").with_hint("write it as %XX"));
        }
        let scheme = |name: &str| url.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        if scheme("https://") {
            return Err(wrong("needs TLS, which this cannot do: https is not known").with_hint("wait for the port"));
        }
        if !scheme("http://") {
            return Err(wrong("does not begin with http://"));
        }
        let rest = url[7..].split('#').next().unwrap_or_default();
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.contains('@') {
            return Err(wrong("has a user, and nobody logs in"));
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        let port = match port {
            None => 80,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port != 0 => port,
                _ => return Err(wrong("has a port that is not in the range 1 to 65535")),
            },
        };
        let numeric = if name.eq_ignore_ascii_case("localhost") { "127.0.0.1" } else { name };
        let address = format!("{numeric}:{port}").parse().map_err(|_| {
            wrong("has no numeric address, and no names are looked up")
                .with_hint("the address is seen from inside, as in http://127.0.0.1:8080/health")
        })?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let request = format!(
            "GET {slash}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringfence/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            crate::VERSION
        );
        Ok(Self { url: url.clone(), address, request, status: http.status })
    }
}

/// One request under way.
struct Asking {
    socket: OwnedFd,
    connected: bool,
    sent: usize,
    head: Vec<u8>,
    until: Instant,
}

enum Kind {
    Port(PortCheck),
    Log(Regex),
    Path(PathBuf),
    Command { argv: Vec<OsString>, running: Option<(Process, OwnedFd)> },
    Http { to: Target, asking: Option<Asking> },
}

struct Condition {
    kind: Kind,
    /// Once it held it is not looked at again.
    held: bool,
    /// What the last look came to.
    why: Option<String>,
}

impl Condition {
    fn new(kind: Kind) -> Self {
        Self { kind, held: false, why: None }
    }

    fn field(&self) -> &'static str {
        match self.kind {
            Kind::Port(_) => "port",
            Kind::Log(_) => "log",
            Kind::Path(_) => "path",
            Kind::Command { .. } => "command",
            Kind::Http { .. } => "http",
        }
    }

    fn describe(&self) -> String {
        let mut text = match &self.kind {
            Kind::Port(port) => format!("port {port}"),
            Kind::Log(regex) => format!("log {:?}", regex.as_str()),
            Kind::Path(path) => format!("path {path:?}"),
            Kind::Command { argv, .. } => format!("command {:?}", argv[0]),
            Kind::Http { to, .. } => format!("http {}", to.url),
        };
        if let Some(why) = self.why.as_ref().filter(|_| !self.held) {
            let _ = write!(text, " ({why})");
        }
        text
    }
}

/// A wait for a container that can be done in steps: for event loops and for whoever looks at something else in between.
/// [`Container::wait_for`] is all steps at once.
///
/// Dropped, it kills a command that is under way. It keeps the handle of its container.
pub struct Readiness {
    container: Container,
    conditions: Vec<Condition>,
    log: Option<LogReader>,
    deadline: Option<Instant>,
    timeout: Option<Duration>,
    back_off: Duration,
    next_look: Instant,
    /// There is more of the log than one turn reads.
    unread: bool,
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let missing: Vec<_> = self.conditions.iter().filter(|c| !c.held).map(Condition::describe).collect();
        f.debug_struct("Readiness")
            .field("container", &self.container)
            .field("missing", &missing)
            .finish_non_exhaustive()
    }
}

impl Container {
    /// Waits until the container is ready: until everything in `what` holds (each once; what held is not looked at again). `None` waits for
    /// ever.
    ///
    /// Looks again 1 to 50 ms after it found something missing; lines of the log and the end of the container are noticed at once.
    /// Any number of threads may wait. For attached and detached containers, of root and of ordinary users.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ringfence::{Container, Spec, WaitFor};
    /// # fn main() -> ringfence::Result<()> {
    /// let server = "import socket; s = socket.create_server(('127.0.0.1', 6000)); print('ready', flush=True); s.accept()";
    /// let argv = ["python3", "-c", server].map(Into::into);
    /// let container = Container::start(&Spec { argv: argv.into(), ..Spec::default() })?;
    /// container.wait_for(&WaitFor::default().port(6000).log("^ready"), Some(Duration::from_secs(10)))?;
    /// container.close(None)
    /// # }
    /// ```
    ///
    /// # Errors
    /// TimedOut; Closed, at once, when the container ends before it is ready, or its handle is closed. Both say what holds and what does
    /// not (`field()` is the first), and have the last 50 lines of the log ([`Error::log_tail`]). InvalidArgument with the field
    /// for what can never hold, NotFound for a program that does not exist, and for `log` without a log.
    pub fn wait_for(&self, what: &WaitFor, timeout: Option<Duration>) -> Result<()> {
        let mut readiness = self.readiness(what, timeout)?;
        match readiness.wait(None)? {
            true => Ok(()),
            false => Err(readiness.timed_out()),
        }
    }

    /// [`wait_for`](Self::wait_for) in steps.
    ///
    /// # Errors
    /// As `wait_for`, for what can be told without waiting.
    pub fn readiness(&self, what: &WaitFor, timeout: Option<Duration>) -> Result<Readiness> {
        self.open()?;
        let conditions = what.compile()?;
        let log = match conditions.iter().any(|c| matches!(c.kind, Kind::Log(_))) {
            true => Some(self.logs(&LogOptions { follow: true, ..LogOptions::default() }).map_err(|e| {
                let hint = "the container needs a main process with stdout or stderr: log, the default";
                if e.kind() == ErrorKind::NotFound { e.with_field("log").with_hint(hint) } else { e }
            })?),
            false => None,
        };
        let now = Instant::now();
        Ok(Readiness {
            container: self.clone(),
            conditions,
            log,
            deadline: timeout.and_then(|timeout| now.checked_add(timeout)),
            timeout,
            back_off: BACK_OFF[0],
            next_look: now,
            unread: false,
        })
    }

    /// The last lines of the log, if there is one.
    fn log_tail(&self) -> Option<String> {
        let file = self.inner().log_file().ok()?;
        let end = super::logs::log_length(file.as_fd()).0;
        let since = end.saturating_sub(TAIL_BYTES);
        let start = tail_start(file, since, end, TAIL_LINES).ok()?;
        let bytes = super::logs::read_part(file, start, (end - start) as usize).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty())
    }
}

impl Readiness {
    /// Waits for at most `step` (`None`: as long as the timeout goes) and returns whether it is ready. False: not yet, or the timeout has passed
    /// ([`is_late`](Self::is_late)).
    ///
    /// # Errors
    /// As [`Container::wait_for`], but TimedOut.
    pub fn wait(&mut self, step: Option<Duration>) -> Result<bool> {
        let until = match (launch::deadline(step), self.deadline) {
            (Some(step), Some(end)) => Some(step.min(end)),
            (step, end) => step.or(end),
        };
        loop {
            let inner = self.container.open().map_err(|e| self.explain(e))?.clone();
            // Asked first: what the container did before it ended counts.
            let pid_one_ended = !inner.runs();
            let ended = inner.events_are_over(pid_one_ended)?;
            let look = ended || Instant::now() >= self.next_look;
            if self.look(look, ended)? {
                return Ok(true);
            }
            if ended && !self.unread {
                return Err(self.has_ended());
            }
            let now = Instant::now();
            if look {
                self.next_look = now + self.back_off;
                self.back_off = (self.back_off * 2).min(BACK_OFF[1]);
            }
            if until.is_some_and(|until| now >= until) {
                return Ok(false);
            }
            if self.unread {
                continue;
            }
            let polled = self.conditions.iter().any(|c| !c.held && !matches!(c.kind, Kind::Log(_)));
            let wake =
                if polled { Some(until.map_or(self.next_look, |until| until.min(self.next_look))) } else { until };
            let ends = inner.end_descriptors();
            let mut fds: Vec<_> = ends
                .always
                .into_iter()
                .chain(ends.until_pid_one_ended.filter(|_| !pid_one_ended))
                .chain([inner.cancel.as_fd()])
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
                .collect();
            if self.conditions.iter().any(|c| !c.held && matches!(c.kind, Kind::Log(_))) {
                fds.extend(self.log.as_ref().map(|log| PollFd::new(log.fd(), PollFlags::POLLIN)));
            }
            for condition in self.conditions.iter().filter(|c| !c.held) {
                match &condition.kind {
                    Kind::Command { running: Some((process, _)), .. } => {
                        fds.push(PollFd::new(process.status_fd(), PollFlags::POLLIN));
                    }
                    Kind::Http { asking: Some(asking), .. } => {
                        let reads = asking.connected && asking.head_is_wanted();
                        let events = if reads { PollFlags::POLLIN } else { PollFlags::POLLOUT };
                        fds.push(PollFd::new(asking.socket.as_fd(), events));
                    }
                    _ => {}
                }
            }
            sleep(&mut fds, wake)?;
        }
    }

    /// Whether the timeout has passed.
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The error for a wait that came too late: what holds, what does not, the last lines of the log.
    pub fn timed_out(&self) -> Error {
        let seconds = self.timeout.unwrap_or_default().as_secs_f64();
        self.explain(
            Error::new(ErrorKind::TimedOut, format!("not ready within {seconds} s")).with_errno(libc::ETIMEDOUT),
        )
    }

    fn has_ended(&self) -> Error {
        let what = match self.container.main() {
            Some(main) => match main.wait(Some(SHORT)) {
                Ok(Some(status)) => format!("the main process ended ({})", shown(&status)),
                _ => "the main process ended".to_owned(),
            },
            None => "the container ended".to_owned(),
        };
        self.explain(Error::new(ErrorKind::Closed, format!("{what} before it was ready")))
    }

    /// With what holds and what does not.
    fn explain(&self, error: Error) -> Error {
        let list = |held: bool| {
            let found = self.conditions.iter().filter(|c| c.held == held).map(Condition::describe);
            found.collect::<Vec<_>>().join(", ")
        };
        let (missing, held) = (list(false), list(true));
        let mut detail = error.detail().unwrap_or_default().to_owned();
        let _ = write!(detail, "; missing: {missing}");
        if !held.is_empty() {
            let _ = write!(detail, "; there: {held}");
        }
        let field = self.conditions.iter().find(|c| !c.held).map_or("conditions", Condition::field);
        let error = error.with_detail(detail).with_field(field).with_context("wait_for");
        match self.container.log_tail() {
            Some(tail) => error.with_log_tail(tail),
            None => error,
        }
    }

    /// Whether all hold. Those without a descriptor that tells of them are looked at when it is time.
    fn look(&mut self, time: bool, ended: bool) -> Result<bool> {
        self.search_log()?;
        let Self { container, conditions, deadline, .. } = self;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        for condition in conditions.iter_mut().filter(|c| !c.held) {
            let looked = match &mut condition.kind {
                // What only something that runs can show.
                _ if ended => continue,
                Kind::Log(_) => continue,
                Kind::Port(_) | Kind::Path(_) if !time => continue,
                Kind::Port(port) => is_open(container, *port),
                Kind::Path(path) => exists(container, path, left),
                Kind::Command { argv, running } => try_command(container, argv, running, time, left),
                Kind::Http { to, asking } => try_http(container, to, asking, time),
            };
            let why = match looked {
                // The next turn says what became of the container.
                Err(_) if is_ending(container)? => Look::Unknown,
                looked => looked?,
            };
            match why {
                Look::Holds => condition.held = true,
                Look::Not(why) => condition.why = Some(why),
                Look::Unknown => {}
            }
        }
        Ok(conditions.iter().all(|c| c.held))
    }

    fn search_log(&mut self) -> Result<()> {
        self.unread = false;
        let Some(log) = &self.log else { return Ok(()) };
        let began = Instant::now();
        let open = |c: &&mut Condition| !c.held && matches!(c.kind, Kind::Log(_));
        let conditions = &mut self.conditions;
        let mut search = |line: &[u8]| {
            for condition in conditions.iter_mut().filter(open) {
                if let Kind::Log(regex) = &condition.kind {
                    condition.held = regex.is_match(line);
                }
            }
        };
        while let Some(line) = log.next(Some(Duration::ZERO))? {
            search(line.strip_suffix(b"\n").unwrap_or(&line));
            // A program can write faster than this reads.
            if began.elapsed() > TURN {
                self.unread = true;
                return Ok(());
            }
        }
        let partial = log.partial();
        if !partial.is_empty() && partial.len() <= PARTIAL {
            search(&partial);
        }
        Ok(())
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        for condition in &mut self.conditions {
            if let Kind::Command { running: Some((process, _)), .. } = &condition.kind {
                let _ = process.kill(libc::SIGKILL);
                // Of a container that is frozen it goes when that is thawed.
                let _ = process.wait(Some(Duration::from_secs(1)));
            }
        }
    }
}

enum Look {
    Holds,
    Not(String),
    /// Nothing new.
    Unknown,
}

/// A container that ends just now makes calls fail in many ways.
fn is_ending(container: &Container) -> Result<bool> {
    let inner = container.inner();
    if inner.closed.load(Ordering::Relaxed) {
        return Ok(true);
    }
    let [ended] = launch::poll([inner.pidfd.as_fd()], Some(Instant::now() + ENDING))?;
    Ok(ended)
}

fn shown(status: &ExitStatus) -> String {
    match (status.code, status.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal).map_or("signal", |signal| signal.as_str());
            format!("{name}, {}", status.reason.name())
        }
        _ => status.reason.name().to_owned(),
    }
}

/// poll(2) until a moment; interrupted polls go on.
fn sleep(fds: &mut [PollFd<'_>], until: Option<Instant>) -> Result<()> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        match poll(fds, wait) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os("poll", errno as i32)),
            Ok(_) => return Ok(()),
        }
    }
}

fn is_open(container: &Container, port: PortCheck) -> Result<Look> {
    let inner = container.open()?;
    let (tables, state): ([&str; 2], Option<&str>) =
        if port.udp { (["udp", "udp6"], None) } else { (["tcp", "tcp6"], Some("0A")) };
    for table in tables {
        let path = format!("/proc/{}/net/{table}", inner.pid);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // No IPv6 here; or the container has just ended.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(_) if !inner.runs() => continue,
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => continue,
            Err(e) => return Err(Error::io("open", &e).with_path(path).with_field("port")),
        };
        if has_port(&text, port.number, state) && inner.runs() {
            return Ok(Look::Holds);
        }
    }
    Ok(Look::Not("not open".to_owned()))
}

/// Lines are `sl local_address rem_address st ...`, with ADDRESS:PORT in hexadecimal.
fn has_port(table: &str, port: u16, state: Option<&str>) -> bool {
    table.lines().skip(1).any(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let local = words.next().and_then(|local| local.rsplit_once(':'));
        let found = local.and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok()) == Some(port);
        found && state.is_none_or(|state| words.nth(1) == Some(state))
    })
}

fn exists(container: &Container, path: &std::path::Path, left: Option<Duration>) -> Result<Look> {
    match container.find_path(path, left) {
        Ok(()) => Ok(Look::Holds),
        Err(e) => match e.kind() {
            ErrorKind::NotFound => Ok(Look::Not("not there".to_owned())),
            ErrorKind::TimedOut => Ok(Look::Not("could not be looked at in time".to_owned())),
            // The next turn says what became of the container.
            ErrorKind::Closed => Ok(Look::Unknown),
            _ if matches!(e.errno(), libc::EACCES | libc::ELOOP | libc::EIO) => {
                Ok(Look::Not(Errno::from_raw(e.errno()).desc().to_owned()))
            }
            _ => Err(e.with_field("path")),
        },
    }
}

fn try_command(
    container: &Container,
    argv: &[OsString],
    running: &mut Option<(Process, OwnedFd)>,
    time: bool,
    left: Option<Duration>,
) -> Result<Look> {
    if let Some((process, output)) = running {
        let status = match process.try_wait() {
            Ok(Some(status)) => status,
            Ok(None) => return Ok(Look::Unknown),
            Err(e) if e.kind() == ErrorKind::Closed => return Ok(Look::Unknown),
            Err(e) => return Err(e),
        };
        if status.success() {
            *running = None;
            return Ok(Look::Holds);
        }
        let (length, _) = super::logs::log_length(output.as_fd());
        let said = super::logs::read_part(output, 0, length as usize).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last: Option<String> =
            said.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.chars().take(200).collect());
        *running = None;
        return Ok(Look::Not(match last {
            Some(last) => format!("{}: {last:?}", shown(&status)),
            None => shown(&status),
        }));
    }
    if !time {
        return Ok(Look::Unknown);
    }
    let output = new_log(SAID)?;
    let mut command = container.command(&argv[0]);
    let fd = output.as_raw_fd();
    command.args(&argv[1..]).stdin(Stdio::Null).stdout(Stdio::Fd(fd)).stderr(Stdio::Fd(fd));
    // A look that is over at once may still see one that is quick.
    command.start_timeout = left.map(|left| left.max(Duration::from_millis(100)));
    match container.spawn(&command) {
        Ok(process) => {
            *running = Some((process, output));
            Ok(Look::Unknown)
        }
        Err(e) if e.kind() == ErrorKind::Closed => Ok(Look::Unknown),
        Err(e) if matches!(e.kind(), ErrorKind::Frozen | ErrorKind::TimedOut | ErrorKind::Exhausted) => {
            Ok(Look::Not(e.to_string()))
        }
        Err(e) => Err(e.with_context("wait_for").with_field("command")),
    }
}

impl Asking {
    fn head_is_wanted(&self) -> bool {
        self.sent == usize::MAX
    }
}

fn try_http(container: &Container, to: &Target, asking: &mut Option<Asking>, time: bool) -> Result<Look> {
    if asking.is_none() {
        if !time {
            return Ok(Look::Unknown);
        }
        match begin(container, to) {
            Ok(begun) => *asking = Some(begun),
            Err(e) if e.kind() == ErrorKind::Closed => return Ok(Look::Unknown),
            Err(e) if e.step() == Some("connect") => {
                return Ok(Look::Not(Errno::from_raw(e.errno()).desc().to_owned()));
            }
            Err(e) => return Err(e.with_field("http")),
        }
    }
    let Some(under_way) = asking else { return Ok(Look::Unknown) };
    let step = go_on(under_way, to);
    let late = Instant::now() >= under_way.until;
    let answer = match step {
        Ok(None) if late => Look::Not("no answer".to_owned()),
        Ok(None) => return Ok(Look::Unknown),
        Ok(Some(status)) => {
            let wanted = to.status.map_or((200..400).contains(&status), |wanted| wanted == status);
            if wanted { Look::Holds } else { Look::Not(format!("status {status}")) }
        }
        Err(why) => Look::Not(why),
    };
    *asking = None;
    Ok(answer)
}

fn begin(container: &Container, to: &Target) -> Result<Asking> {
    let address = SockaddrStorage::from(to.address);
    let domain = address.family().map_or(libc::AF_INET, |family| family as i32);
    let socket = container.socket(domain, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    match nix::sys::socket::connect(socket.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
        Err(errno) => return Err(Error::os("connect", errno as i32)),
    }
    Ok(Asking { socket, connected: false, sent: 0, head: Vec::new(), until: Instant::now() + HTTP_TRY })
}

/// As far as it goes without waiting; the status when it is there.
fn go_on(asking: &mut Asking, to: &Target) -> std::result::Result<Option<u16>, String> {
    let said = |errno: Errno| errno.desc().to_owned();
    if !asking.connected {
        if !is_ready(asking.socket.as_fd(), PollFlags::POLLOUT) {
            return Ok(None);
        }
        match getsockopt(&asking.socket, sockopt::SocketError).map_err(said)? {
            0 => asking.connected = true,
            errno => return Err(said(Errno::from_raw(errno))),
        }
    }
    while asking.sent < to.request.len() {
        let rest = &to.request.as_bytes()[asking.sent..];
        match send(asking.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(n) => asking.sent += n,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(said(errno)),
        }
    }
    asking.sent = usize::MAX;
    let mut file = std::fs::File::from(asking.socket.try_clone().map_err(|e| e.to_string())?);
    loop {
        if let Some(status) = status_of(&asking.head)? {
            return Ok(Some(status));
        }
        let mut block = [0; 512];
        match file.read(&mut block) {
            Ok(0) => return Err("it closed the connection without an answer".to_owned()),
            Ok(n) => asking.head.extend_from_slice(&block[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.raw_os_error().map_or_else(|| e.to_string(), |e| said(Errno::from_raw(e)))),
        }
    }
}

/// Of the first line of an answer, as soon as it is whole.
fn status_of(head: &[u8]) -> std::result::Result<Option<u16>, String> {
    let no_http = || "it does not speak HTTP/1".to_owned();
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() < HTTP_HEAD { Ok(None) } else { Err(no_http()) };
    };
    let line = String::from_utf8_lossy(&head[..end]);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split_ascii_whitespace().nth(1));
    let status = status.and_then(|status| status.parse().ok()).filter(|status| (100..=599).contains(status));
    status.map(Some).ok_or_else(no_http)
}

fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    poll(&mut [PollFd::new(fd, events)], PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz(text: &str) {
    let http = HttpCheck { url: text.to_owned(), status: None };
    if let Ok(target) = Target::parse(&http) {
        // One request, whatever the address says.
        assert_eq!(target.request.matches("\r\n\r\n").count(), 1, "{:?}", target.request);
        assert!(target.request.ends_with("\r\n\r\n") && target.request.starts_with("GET /"), "{:?}", target.request);
        assert_eq!(target.request.lines().count(), 6, "{:?}", target.request);
    }
    if let Ok(Some(status)) = status_of(text.as_bytes()) {
        assert!((100..=599).contains(&status));
    }
    has_port(text, 80, Some("0A"));
    let _ = WaitFor::from_json(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_the_kernel_s_tables() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:1538 00000000:0000 0A 00000000:00000000\n\
                     \x20  1: 0100007F:1770 0100007F:A0B0 01 00000000:00000000\n\
                     \x20  2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A x\n";
        assert!(has_port(table, 5432, Some("0A")));
        assert!(has_port(table, 80, Some("0A")));
        assert!(!has_port(table, 6000, Some("0A")));
        assert!(has_port(table, 6000, None));
        assert!(!has_port(table, 0x1539, None));
        assert!(!has_port("sl\nrubbish\n 1: x:y\n", 80, None));
    }

    #[test]
    fn urls() {
        let parse = |url: &str| Target::parse(&HttpCheck { url: url.to_owned(), status: None });
        for (url, address, line) in [
            ("http://127.0.0.1", "127.0.0.1:80", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
            ("HTTP://localhost:8080/a?b=c#d", "127.0.0.1:8080", "GET /a?b=c HTTP/1.1\r\nHost: localhost:8080\r\n"),
            ("http://[::1]/x", "[::1]:80", "GET /x HTTP/1.1\r\nHost: [::1]\r\n"),
            ("http://[::1]:81?q", "[::1]:81", "GET /?q HTTP/1.1\r\nHost: [::1]:81\r\n"),
        ] {
            let target = parse(url).unwrap();
            assert_eq!(target.address.to_string(), address, "{url}");
            assert!(target.request.starts_with(line), "{}", target.request);
        }
        for url in ["", "http://", "http:///x", "http://[::1", "http://1.2.3.4:x/", "127.0.0.1:80", "http://1.2.3/"] {
            assert_eq!(parse(url).unwrap_err().field(), Some("http"), "{url}");
        }
    }
}
