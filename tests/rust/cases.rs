//! Runs the language-neutral cases of tests/cases through the Rust interface.
//!
//! tests/run: harness=none timeout=600 vm=root parts=2

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfence::spec::{NetworkSpec, Stdio};
use ringfence::{
    Command, Container, ControlGroup, CopyOptions, Direction, Error, ErrorKind, Group, LogOptions, Network, Output,
    Pod, ProcessEntry, Shape, Spec, Usage, WaitFor, WriteOptions, errno_name,
};
use serde_json::Value;

/// Why a case did not pass: it cannot run here, or it went wrong.
enum Verdict {
    Skip(String),
    Fail(String),
}

fn directory() -> PathBuf {
    std::env::var_os("RINGFENCE_CASES")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/cases"), PathBuf::from)
}

fn main() {
    let directory = directory();
    let filter = std::env::args().nth(1).filter(|a| !a.starts_with('-')).unwrap_or_default();
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let part = std::env::var("RINGFENCE_TEST_PART").unwrap_or_else(|_| "0/1".to_owned());
    let (part, parts) = part.split_once('/').expect("NUMBER/COUNT");
    let (part, parts): (usize, usize) = (part.parse().expect("a number"), parts.parse().expect("a number"));
    let (mut number, mut failed, mut seen) = (0, 0, 0);
    for file in files {
        let text = fs::read_to_string(&file).expect("a case file");
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for case in cases {
            let name = format!(
                "{}: {}",
                file.file_stem().expect("a file name").to_string_lossy(),
                case["name"].as_str().expect("name")
            );
            let delegated = std::env::var_os("RINGFENCE_TEST_AS").is_some_and(|user| user == "delegated");
            if !name.contains(&filter) || delegated && case["slow"] == true {
                continue;
            }
            seen += 1;
            if seen % parts != part {
                continue;
            }
            number += 1;
            match with_setup(&case) {
                Ok(()) => println!("ok {number} - {name}"),
                Err(Verdict::Skip(reason)) => println!("ok {number} - {name} # SKIP {reason}"),
                Err(Verdict::Fail(reason)) => {
                    failed += 1;
                    println!("{reason}\nnot ok {number} - {name}");
                }
            }
        }
    }
    println!("1..{number}");
    std::process::exit(i32::from(failed > 0));
}

/// The number of a block device of this machine: the first by name.
fn a_disk() -> String {
    let mut disks: Vec<PathBuf> =
        fs::read_dir("/sys/block").into_iter().flatten().flatten().map(|e| e.path()).collect();
    disks.sort();
    let number = disks.first().and_then(|disk| fs::read_to_string(disk.join("dev")).ok());
    number.unwrap_or_default().trim().to_owned()
}

/// The number of the disk that has the host's programs; empty where none has.
fn disk_of_programs() -> String {
    let device = fs::metadata("/usr/bin").map_or(0, |m| std::os::unix::fs::MetadataExt::dev(&m));
    let part = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)));
    let whole = if part.join("partition").exists() {
        fs::canonicalize(&part).ok().and_then(|part| Some(part.parent()?.to_owned()))
    } else {
        Some(part)
    };
    let number = whole.and_then(|disk| fs::read_to_string(disk.join("dev")).ok());
    number.unwrap_or_default().trim().to_owned()
}

/// Runs the case while tests/lib/machine.py has what it needs of the machine.
fn with_setup(case: &Value) -> Result<(), Verdict> {
    let Some(name) = case["setup"].as_str() else { return in_place(case, &[]) };
    let mut command = process::Command::new("python3");
    command.arg(directory().join("../lib/machine.py")).arg(name);
    let mut program = command.stdin(process::Stdio::piped()).stdout(process::Stdio::piped()).spawn().expect("python3");
    let said = BufReader::new(program.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    let said: Vec<String> = said.take_while(|line| !line.is_empty()).collect();
    let values: Vec<_> = said.iter().filter_map(|line| line.split_once(' ')).collect();
    let verdict = match values.first() {
        Some(("SKIP", why)) => Err(Verdict::Skip((*why).to_owned())),
        _ => in_place(case, &values),
    };
    // It undoes it when its stdin ends, which wait() closes.
    let end = program.wait().expect("its end");
    if end.success() { verdict } else { Err(Verdict::Fail(format!("machine.py {name}: {end}"))) }
}

/// Makes the temporary directory of the case, fills in what the case says about this machine, runs it.
fn in_place(case: &Value, values: &[(&str, &str)]) -> Result<(), Verdict> {
    let tmp = tempfile::Builder::new().prefix("case-").tempdir().expect("a temporary directory");
    fs::set_permissions(tmp.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    let mut text = case.to_string().replace("${TMP}", tmp.path().to_str().expect("UTF-8"));
    for kind in ringfence::spec::NamespaceKind::ALL {
        let own = fs::read_link(format!("/proc/self/ns/{}", kind.name())).unwrap_or_default();
        text = text.replace(&format!("${{NS_{}}}", kind.name()), &own.to_string_lossy());
    }
    for (key, value) in values {
        text = text.replace(&format!("${{{key}}}"), value);
    }
    let disk = disk_of_programs();
    if text.contains("${USR_DISK}") && disk.is_empty() {
        return Err(Verdict::Skip("/usr is on no disk of its own".to_owned()));
    }
    let cases = directory();
    let fuse = std::env::var("RINGFENCE_TEST_FUSE").unwrap_or_else(|_| "/dev/fuse".to_owned());
    text = text.replace("${CASES}", &cases.to_string_lossy()).replace("${FUSE}", &fuse);
    text = text.replace("${ID}", &process::id().to_string());
    text = text.replace("${DISK}", &a_disk()).replace("${USR_DISK}", &disk);
    let case: Value = serde_json::from_str(&text).expect("JSON after filling in");
    for (path, content) in case["tmp"].as_object().into_iter().flatten() {
        let path = tmp.path().join(path);
        match content.as_str() {
            Some(content) => {
                fs::create_dir_all(path.parent().expect("a directory")).expect("directories");
                fs::write(path, content).expect("a file");
            }
            None => fs::create_dir_all(path).expect("a directory"),
        }
    }
    run(&case)?;
    check_files(&case["expect"]["files"], tmp.path())
}

fn check_files(files: &Value, tmp: &Path) -> Result<(), Verdict> {
    for (path, wanted) in files.as_object().into_iter().flatten() {
        let seen = fs::read_to_string(tmp.join(path)).map_err(|e| Verdict::Fail(format!("{path}: {e}")))?;
        if Some(seen.as_str()) != wanted.as_str() {
            return Err(Verdict::Fail(format!("{path}: expected {wanted}: {seen:?}")));
        }
    }
    Ok(())
}

/// Containers that share namespaces.
fn in_pod(case: &Value, timeout: Option<Duration>) -> Result<(), Verdict> {
    let start = || {
        let share = case["share"].as_str().map_or_else(|| Ok(Pod::SHARE.to_vec()), Pod::parse_share)?;
        let pod = Pod::start(&Spec::from_json(&case["pod"].to_string())?, &share)?;
        for spec in case["containers"].as_array().expect("containers") {
            pod.container(&Spec::from_json(&spec.to_string())?)?;
        }
        Ok(pod)
    };
    let pod = match start() {
        Ok(pod) => pod,
        Err(error) => return check(case, case, Err(error)),
    };
    if case["expect"]["error"].is_object() {
        return Err(Verdict::Fail("an error was expected".to_owned()));
    }
    let containers = pod.containers();
    for step in case["commands"].as_array().expect("commands") {
        let container = &containers[step["in"].as_u64().unwrap_or(0) as usize];
        check(case, step, command(container, step, timeout))?;
    }
    pod.close(timeout).map_err(|e| Verdict::Fail(format!("close: {e}")))
}

/// Containers that need each other.
fn in_group(case: &Value, timeout: Option<Duration>) -> Result<(), Verdict> {
    let group = match Group::from_json(&case["group"].to_string()) {
        Ok(group) => group,
        Err(error) => return check(case, case, Err(error)),
    };
    if let Err(error) = group.start(timeout) {
        return check(case, case, Err(error));
    }
    if case["expect"]["error"].is_object() {
        return Err(Verdict::Fail("an error was expected".to_owned()));
    }
    let failed = |what: &str, error: Error| Verdict::Fail(format!("{what}: {error}"));
    let order = group.order().map_err(|e| failed("order", e))?;
    if case["expect"]["order"].is_array() && Value::from(order.clone()) != case["expect"]["order"] {
        return Err(Verdict::Fail(format!("expected the order {}: {order:?}", case["expect"]["order"])));
    }
    for step in case["commands"].as_array().expect("commands") {
        let container = group.container(step["in"].as_str().expect("a name")).map_err(|e| failed("container", e))?;
        check(case, step, command(&container, step, timeout))?;
    }
    group.close(timeout).map_err(|e| failed("close", e))
}

/// Runs it, and removes the volumes that it has made.
fn run(case: &Value) -> Result<(), Verdict> {
    let verdict = run_with_volumes(case);
    let removed = texts(case, "volumes").into_iter().map(ringfence::remove_volume).collect::<Vec<_>>();
    verdict?;
    removed.into_iter().try_for_each(|one| one.map_err(|e| Verdict::Fail(format!("remove volume: {e}"))))
}

fn run_with_volumes(case: &Value) -> Result<(), Verdict> {
    // SAFETY: geteuid has no preconditions.
    let caller = if unsafe { libc::geteuid() } == 0 { "root" } else { "user" };
    if case["as"].as_str().is_some_and(|wanted| wanted != caller) {
        return Err(Verdict::Skip(format!("only as {}", case["as"])));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if let Some(program) = texts(case, "programs").iter().find(|program| !there(program)) {
        return Err(Verdict::Skip(format!("no {program} here")));
    }
    let timeout = Duration::from_secs_f64(case["timeout"].as_f64().unwrap_or(30.0));
    if let Some(specs) = case["rivals"].as_array() {
        return rivals(case, specs, timeout);
    }
    let timeout = Some(timeout);
    if case["pod"].is_object() {
        return in_pod(case, timeout);
    }
    if case["group"].is_object() {
        return in_group(case, timeout);
    }
    let mut networks = Vec::new();
    for options in case["networks"].as_array().into_iter().flatten() {
        match NetworkSpec::from_json(&options.to_string()).and_then(|spec| Network::start(&spec)) {
            Ok(network) => networks.push(network),
            Err(error) => return check(case, case, Err(error)),
        }
    }
    let spec = match Spec::from_json(&case["spec"].to_string()) {
        Ok(spec) => spec,
        Err(error) => return check(case, case, Err(error)),
    };
    let Some(commands) = case["commands"].as_array() else {
        let input = case["input"].as_str().map(str::as_bytes);
        if case["expect"]["usage"].is_object() {
            return run_for_usage(case, spec, input, timeout);
        }
        return check(case, case, ringfence::run(&spec, input, timeout));
    };
    let mut all = Vec::new();
    let beside = case["neighbour"].is_object().then(|| Spec::from_json(&case["neighbour"].to_string()));
    for spec in [Ok(spec)].into_iter().chain(beside) {
        match spec.and_then(|spec| Container::start(&spec)) {
            Ok(container) => all.push(container),
            Err(error) => return check(case, case, Err(error)),
        }
    }
    for step in commands {
        let container = &all[usize::from(step["in"] == "neighbour")];
        if step["update"].is_object() {
            update(case, container, step)?;
        } else if step["wait_for"].is_object() {
            wait_for(case, container, step)?;
        } else if step["shape"].is_object() {
            shape(case, &networks[0], container, step)?;
        } else if let Some(seen) = one_call(container, step, timeout) {
            told(case, step, seen)?;
        } else {
            check(case, step, command(container, step, timeout))?;
        }
    }
    let mut closed = all.iter().map(|container| container.close(timeout));
    closed.try_for_each(|end| end).map_err(|e| Verdict::Fail(format!("close: {e}")))
}

/// A step that gives a container's link a rate, a delay, losses.
fn shape(case: &Value, network: &Network, container: &Container, step: &Value) -> Result<(), Verdict> {
    let direction = Direction::parse(step["direction"].as_str().unwrap_or("both"));
    let shaped =
        Shape::from_json(&step["shape"].to_string()).and_then(|shape| network.shape(container, &shape, direction?));
    match shaped {
        Err(error) if error.kind() == ErrorKind::Unsupported => Err(Verdict::Skip(error.to_string())),
        Err(error) => check_error(case, &step["expect"]["error"], &error),
        Ok(()) if step["expect"]["error"].is_object() => Err(Verdict::Fail("an error was expected".into())),
        Ok(()) => Ok(()),
    }
}

/// Who wants a part of what rivals share: a container, or a group inside one.
struct Rival {
    group: Option<ControlGroup>,
    container: Arc<Container>,
}

impl Rival {
    fn usage(&self) -> Result<Usage, Error> {
        self.group.as_ref().map_or_else(|| self.container.usage(), ControlGroup::usage)
    }
}

/// Starts a rival, or those which are groups inside of one.
fn start_rival(given: &Value) -> Result<Vec<Rival>, Error> {
    let groups = given["groups"].as_array();
    let fields = if groups.is_some() { &given["spec"] } else { given };
    let container = Arc::new(Container::start(&Spec::from_json(&fields.to_string())?)?);
    let Some(groups) = groups else { return Ok(vec![Rival { group: None, container }]) };
    let start = |(number, given): (usize, &Value)| {
        let group = container.group(&format!("g{number}"), &Spec::from_json(&given["limits"].to_string())?)?;
        let words = texts(given, "argv");
        group.command(words[0]).args(&words[1..]).stdin(Stdio::Null).spawn()?;
        Ok(Rival { group: Some(group), container: container.clone() })
    };
    groups.iter().enumerate().map(start).collect()
}

/// Containers that want the same, a processor if nothing else is said: the share that each gets.
fn rivals(case: &Value, specs: &[Value], timeout: Duration) -> Result<(), Verdict> {
    let mut all = Vec::new();
    for spec in specs {
        match start_rival(spec) {
            Ok(rivals) => all.extend(rivals),
            Err(error) => return check(case, case, Err(error)),
        }
    }
    let deadline = Instant::now() + timeout;
    let figure = case["expect"]["of"].as_str().unwrap_or("cpu_usage_usec");
    let amount = case["expect"]["amount"].as_str().map_or(1_250_000, |text| text.parse().expect("a number"));
    let used = |done: &dyn Fn(&[u64]) -> bool| loop {
        let now: Vec<u64> = all.iter().map(|r| r.usage().ok().and_then(|u| u.get(figure)?).unwrap_or(0)).collect();
        if done(&now) {
            return Ok(now);
        }
        if Instant::now() >= deadline {
            return Err(Verdict::Fail(format!("not in time: {now:?}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let wanted = case["expect"]["shares"].as_array().expect("shares");
    let wanted: Vec<f64> = wanted.iter().map(|s| s.as_f64().expect("a number")).collect();
    // The first turns are not like the later ones: each has had its share of as much before it is measured.
    let due = |share: f64| share / 100.0 * amount as f64;
    let before = used(&|now| now.iter().zip(&wanted).all(|(&had, &share)| had as f64 >= due(share)))?;
    let after = used(&|now| now.iter().sum::<u64>() >= before.iter().sum::<u64>() + amount)?;
    let gained: Vec<f64> = after.iter().zip(&before).map(|(after, before)| (after - before) as f64).collect();
    let whole: f64 = gained.iter().sum();
    let within = |share: f64| case["expect"]["within"].as_f64().unwrap_or(share / 10.0);
    let held =
        gained.iter().zip(&wanted).all(|(gained, &share)| (gained / whole * 100.0 - share).abs() <= within(share));
    // The last first: who is idle ends when the others have left it a processor.
    while all.pop().is_some() {}
    if held {
        return Ok(());
    }
    Err(Verdict::Fail(format!("expected shares of {}: {gained:?}", case["expect"]["shares"])))
}

/// As `ringfence::run`, and the usage after the end.
fn run_for_usage(case: &Value, spec: Spec, input: Option<&[u8]>, timeout: Option<Duration>) -> Result<(), Verdict> {
    let spec = Spec { stdout: Some(Stdio::Pipe), stderr: Some(Stdio::Pipe), ..spec };
    let container = match Container::start(&spec) {
        Ok(container) => container,
        Err(error) => return check(case, case, Err(error)),
    };
    check(case, case, container.main().expect("a main process").communicate(input, timeout))?;
    check_usage(case, &container)
}

/// A step that changes the running container.
fn update(case: &Value, container: &Container, step: &Value) -> Result<(), Verdict> {
    match container.update_json(&step["update"].to_string()) {
        Err(error) => check(case, step, Err(error)),
        Ok(()) if step["expect"]["error"].is_object() => Err(Verdict::Fail("an error was expected".to_owned())),
        Ok(()) => check_usage(step, container),
    }
}

/// A step that waits until the container is ready.
fn wait_for(case: &Value, container: &Container, step: &Value) -> Result<(), Verdict> {
    let timeout = Duration::from_secs_f64(step["timeout"].as_f64().unwrap_or(30.0));
    let ready = WaitFor::from_json(&step["wait_for"].to_string())
        .and_then(|conditions| container.wait_for(&conditions, Some(timeout)));
    match ready {
        Err(error) => {
            check_error(case, &step["expect"]["error"], &error)?;
            let tail = error.log_tail().unwrap_or_default();
            match texts(&step["expect"]["error"], "log_has").iter().find(|text| !tail.contains(**text)) {
                Some(text) => Err(Verdict::Fail(format!("no {text:?} in the end of the log: {tail:?}"))),
                None => Ok(()),
            }
        }
        Ok(()) if step["expect"]["error"].is_object() => Err(Verdict::Fail("an error was expected".to_owned())),
        Ok(()) => Ok(()),
    }
}

/// A step that is one call, which tells a text or nothing; `None` for a command.
fn one_call(container: &Container, step: &Value, timeout: Option<Duration>) -> Option<Result<Vec<u8>, Error>> {
    let text = |key: &str| step[key].as_str();
    let paths = |key: &str| step[key].as_array().map(|_| texts(step, key));
    let nothing = |done: Result<(), Error>| Some(done.map(|()| Vec::new()));
    if step["logs"].is_object() {
        Some(logs(container, &step["logs"]))
    } else if let Some(path) = text("read") {
        Some(container.read(path, None))
    } else if let Some(path) = text("write") {
        let mode = text("mode").map(|mode| u32::from_str_radix(mode, 8).expect("an octal number"));
        let options = WriteOptions { mode, ..WriteOptions::default() };
        nothing(container.write(path, text("text").expect("text").as_bytes(), &options))
    } else if let Some(paths) = paths("copy_in") {
        nothing(container.copy_in(paths[0], paths[1], CopyOptions { timeout, ..CopyOptions::default() }).map(drop))
    } else if let Some(paths) = paths("copy_out") {
        nothing(container.copy_out(paths[0], paths[1], CopyOptions { timeout, ..CopyOptions::default() }).map(drop))
    } else if let Some(port) = step["connect"].as_u64() {
        Some(container.port(port as u16).map(|port| asked(port, text("input").expect("input"))))
    } else if step["processes"] == true {
        Some(container.processes().map(|all| all.iter().flat_map(line).collect()))
    } else {
        None
    }
}

/// What a service at this port of the host answers, to the end.
fn asked(port: u16, question: &str) -> Vec<u8> {
    let mut service = TcpStream::connect(("127.0.0.1", port)).expect("the published port");
    service.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut answer = Vec::new();
    service.write_all(question.as_bytes()).expect("a question");
    service.shutdown(Shutdown::Write).expect("its end");
    service.read_to_end(&mut answer).expect("an answer");
    answer
}

fn line(process: &ProcessEntry) -> Vec<u8> {
    let parent = process.parent_inside.map_or_else(|| "-".to_owned(), |parent| parent.to_string());
    format!("{} {parent} {}\n", process.pid_inside, process.name).into_bytes()
}

fn logs(container: &Container, options: &Value) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    let lines = container.logs(&LogOptions::from_json(&options.to_string())?)?;
    while let Some(line) = lines.next(None)? {
        text.extend(line);
    }
    Ok(text)
}

/// Compares what such a step told with what it is to tell: nothing, if nothing is said.
fn told(case: &Value, step: &Value, seen: Result<Vec<u8>, Error>) -> Result<(), Verdict> {
    match seen {
        Err(error) => check_error(case, &step["expect"]["error"], &error),
        Ok(_) if step["expect"]["error"].is_object() => Err(Verdict::Fail("an error was expected".to_owned())),
        Ok(text) if step["expect"]["stdout"].as_str().unwrap_or_default().as_bytes() == text => Ok(()),
        Ok(text) => Err(Verdict::Fail(format!("expected {}: {:?}", step["expect"], String::from_utf8_lossy(&text)))),
    }
}

fn check_usage(expecting: &Value, container: &Container) -> Result<(), Verdict> {
    if !expecting["expect"]["usage"].is_object() {
        return Ok(());
    }
    let usage = container.usage().map_err(|e| Verdict::Fail(format!("usage: {e}")))?;
    for (key, bounds) in expecting["expect"]["usage"].as_object().into_iter().flatten() {
        let seen = usage.get(key).flatten();
        let within =
            |n: u64| bounds["min"].as_u64().unwrap_or(0) <= n && n <= bounds["max"].as_u64().unwrap_or(u64::MAX);
        if !seen.is_some_and(within) {
            return Err(Verdict::Fail(format!("expected {key} {bounds}: {seen:?}")));
        }
    }
    Ok(())
}

fn command(container: &Container, step: &Value, timeout: Option<Duration>) -> Result<Output, Error> {
    let words: Vec<&str> = step["argv"].as_array().expect("argv").iter().map(|w| w.as_str().expect("text")).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
    let input = step["input"].as_str().map(str::as_bytes);
    command.stdin(if input.is_some() { Stdio::Pipe } else { Stdio::Null });
    for (key, value) in step["set"].as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        command.set(key, text.as_bytes())?;
    }
    container.spawn(&command)?.communicate(input, timeout)
}

fn texts<'a>(expect: &'a Value, key: &str) -> Vec<&'a str> {
    expect[key].as_array().into_iter().flatten().map(|t| t.as_str().expect("text")).collect()
}

/// Compares what was seen with `expect` of the step.
fn check(case: &Value, step: &Value, seen: Result<Output, Error>) -> Result<(), Verdict> {
    let expect = &step["expect"];
    let output = match seen {
        Ok(output) => output,
        Err(error) => return check_error(case, &expect["error"], &error),
    };
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut wrong = Vec::new();
    if expect["error"].is_object() {
        wrong.push(format!("expected an error: {}", expect["error"]));
    }
    let signal = expect["signal"].as_i64().map(|n| n as i32);
    let code = expect["code"].as_i64().map_or_else(|| signal.is_none().then_some(0), |n| Some(n as i32));
    if (output.status.code, output.status.signal) != (code, signal) {
        wrong.push(format!("expected code {code:?}, signal {signal:?}: {:?}", output.status));
    }
    if expect["reason"].as_str().is_some_and(|reason| reason != output.status.reason.name()) {
        wrong.push(format!("expected reason {}: {}", expect["reason"], output.status.reason.name()));
    }
    for (name, seen) in [("stdout", &stdout), ("stderr", &stderr)] {
        if expect[name].as_str().is_some_and(|text| text != *seen) {
            wrong.push(format!("expected {name} {}", expect[name]));
        }
        let pattern = &expect[format!("{name}_matches")];
        if pattern.as_str().is_some_and(|pattern| !matches(seen, pattern)) {
            wrong.push(format!("expected a match of {pattern} in {name}"));
        }
    }
    wrong.extend(
        texts(expect, "stdout_has").iter().filter(|t| !stdout.contains(**t)).map(|t| format!("no {t:?} in stdout")),
    );
    wrong.extend(
        texts(expect, "stdout_lacks").iter().filter(|t| stdout.contains(**t)).map(|t| format!("{t:?} in stdout")),
    );
    wrong.extend(
        texts(expect, "stderr_has").iter().filter(|t| !stderr.contains(**t)).map(|t| format!("no {t:?} in stderr")),
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Verdict::Fail(format!("{}\nstdout: {stdout:?}\nstderr: {stderr:?}", wrong.join("\n"))))
}

/// A POSIX extended regular expression, as in the C runner.
fn matches(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (CString::new(text).expect("no NUL"), CString::new(pattern).expect("no NUL"));
    // SAFETY: both strings end with a NUL, and the compiled expression is initialised by regcomp before it is used and freed.
    unsafe {
        let mut compiled: libc::regex_t = std::mem::zeroed();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        assert_eq!(libc::regcomp(&mut compiled, pattern.as_ptr(), flags), 0, "bad pattern {pattern:?}");
        let found = libc::regexec(&compiled, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0;
        libc::regfree(&mut compiled);
        found
    }
}

fn is_as(expected: &Value, error: &Error) -> bool {
    expected.is_object()
        && expected["kind"].as_str().is_none_or(|kind| kind == error.kind().name())
        && expected["field"].as_str().is_none_or(|field| Some(field) == error.field())
        && expected["errno"].as_str().is_none_or(|name| Some(name) == errno_name(error.errno()).as_deref())
        && expected["has"].as_str().is_none_or(|text| error.to_string().contains(text))
}

fn check_error(case: &Value, expected: &Value, error: &Error) -> Result<(), Verdict> {
    if is_as(&case["unless"], error) {
        return Ok(());
    }
    if texts(case, "needs").iter().any(|field| error.field() == Some(field))
        && matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied)
    {
        return Err(Verdict::Skip(error.to_string()));
    }
    if is_as(expected, error) {
        Ok(())
    } else {
        Err(Verdict::Fail(format!("expected {expected}: {}", error.to_json())))
    }
}
