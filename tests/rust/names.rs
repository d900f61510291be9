//! Named containers as other processes see them: each step is a process of its own (this program, started once more), with a
//! state directory of the test's own.
//!
//! tests/run: vm=delegated

use std::collections::{BTreeMap, HashSet};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::{Container, Spec};

const DO: &str = "RINGFENCE_TEST_DO";
const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn by_name(name: &str) -> Container {
    Container::by_name(name).unwrap_or_else(|e| panic!("{e}"))
}

/// Not a test of its own: what the other processes do. `start NAME PROGRAM...` is detached, `hold` attached.
#[test]
fn step() {
    let Ok(words) = std::env::var(DO) else { return };
    let words: Vec<&str> = words.split('\n').collect();
    match words[0] {
        "start" | "hold" => {
            let mut spec = Spec::new().name(words[1]).argv(words[2..].to_vec());
            spec.detach = words[0] == "start";
            match Container::start(&spec) {
                Ok(container) => {
                    println!("ANSWER started {}", container.pid());
                    if words[0] == "hold" {
                        std::thread::sleep(Duration::from_secs(60));
                    }
                }
                Err(error) => println!("ANSWER {} {error}", error.kind().name()),
            }
        }
        "exec" => {
            let output = by_name(words[1]).command("sh").args(["-c", words[2]]).output().expect("output");
            println!("ANSWER {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        "wait" => {
            let status = by_name(words[1]).main().expect("a main process").wait(PATIENCE).expect("wait");
            println!("ANSWER {:?}", status.expect("it ends").code);
        }
        "kill" => {
            let container = by_name(words[1]);
            container.kill().expect("kill");
            println!("ANSWER {:?}", container.wait_end(PATIENCE));
        }
        "ls" => {
            for e in ringfence::ls().expect("ls") {
                println!("ANSWER {} {} {} {:?}", e.name, e.state, e.pid, e.exit_code);
            }
        }
        "gc" => {
            // The whole machine's garbage, that of tests running beside included: what remains of theirs is theirs.
            let report = ringfence::gc().expect("gc");
            println!("ANSWER {}", report.files);
        }
        "churn" => {
            for n in 0..25 {
                let spec = Spec::new().name(format!("{}-{n}", words[1])).argv(["sh", "-c", "exit 7"]);
                let container = Container::start(&spec).unwrap_or_else(|e| panic!("{e}"));
                let status = container.main().expect("main").wait(PATIENCE).expect("wait").expect("it ends");
                assert_eq!(status.code, Some(7), "{status:?}");
                container.close(PATIENCE).expect("close");
            }
            println!("ANSWER done");
        }
        "brief" => {
            for n in 0..25 {
                let mut spec = Spec::new().name(format!("brief-{n}")).argv(["sh", "-c", "exit 5"]);
                spec.detach = true;
                let container = Container::start(&spec).unwrap_or_else(|e| panic!("{e}"));
                let status = container.main().expect("main").wait(PATIENCE).expect("wait").expect("it ends");
                assert_eq!(status.code, Some(5), "{status:?}");
                let again = by_name(&format!("brief-{n}"));
                assert_eq!(again.main().expect("main").wait(PATIENCE).expect("wait").expect("ended").code, Some(5));
                again.signal(libc::SIGTERM).expect("nobody is left to signal");
                again.kill().expect("nobody is left to kill");
            }
            println!("ANSWER done");
        }
        other => panic!("unknown step {other}"),
    }
}

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn spawn(&self, words: &[&str]) -> Child {
        Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "step", "--nocapture"])
            .env(DO, words.join("\n"))
            .env("RINGFENCE_STATE_DIR", self.0.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program")
    }

    fn step(&self, words: &[&str]) -> Vec<String> {
        answers(self.spawn(words))
    }

    fn start(&self, words: &[&str]) -> i32 {
        let answer = self.step(&[&["start"], words].concat());
        let pid = answer[0].strip_prefix("started ").unwrap_or_else(|| panic!("{answer:?}"));
        pid.parse().expect("a pid")
    }

    /// Name -> state and exit code.
    fn ls(&self) -> BTreeMap<String, String> {
        let line = |line: String| {
            let words: Vec<&str> = line.split(' ').collect();
            let state = match (words[1], words[2]) {
                ("running", "0") => "starting",
                (state, pid) => {
                    assert_eq!(pid != "0", state == "running", "{line}");
                    state
                }
            };
            (words[0].to_owned(), format!("{state} {}", words[3]))
        };
        self.step(&["ls"]).into_iter().map(line).collect()
    }

    fn keeper(&self, name: &str) -> i32 {
        let path = self.0.path().join("state/names").join(name).join("record.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("a record")).expect("JSON");
        record["keeper"]["pid"].as_i64().expect("a pid") as i32
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Its containers stay to be looked at; the leak check names them.
            return;
        }
        for (name, state) in self.ls() {
            if state.starts_with("running") {
                self.step(&["kill", &name]);
            }
        }
        self.step(&["gc"]);
    }
}

fn answers(child: Child) -> Vec<String> {
    let output = child.wait_with_output().expect("wait");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    // The test frame's own words may stand before it on the line.
    text.lines().filter_map(|line| Some(line.split_once("ANSWER ")?.1.to_owned())).collect()
}

fn kill(pid: i32) {
    // SAFETY: no memory is passed; the pid is that of a process which this test started.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
}

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Each look is a process of its own, on a machine that may be busy; how fast it has to be, the contract's tests measure.
fn soon(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_detached_container_is_everybodys_of_this_user() {
    let machine = Machine::new();
    let pid = machine.start(&["db", "sh", "-c", "echo ready >/tmp/x; sleep 100"]);
    assert_eq!(machine.ls(), BTreeMap::from([("db".to_owned(), "running None".to_owned())]));
    soon("its script writes", || machine.step(&["exec", "db", "cat /tmp/x"]) == ["ready"]);
    let taken = machine.step(&["start", "db", "true"]);
    assert!(taken[0].starts_with("already_exists ") && taken[0].contains(&format!("process {pid}")), "{taken:?}");
    assert_eq!(machine.step(&["kill", "db"]), ["Ok(true)"]);
    assert!(!runs(pid));
    // pid 1 was killed, and could not tell what became of the main process.
    assert_eq!(machine.ls()["db"], "ended None");
    machine.start(&["db", "true"]);
}

#[test]
fn an_ended_container_is_readable_until_gc() {
    let machine = Machine::new();
    machine.start(&["job", "sh", "-c", "exit 3"]);
    assert_eq!(machine.step(&["wait", "job"]), ["Some(3)"]);
    soon("it is listed as ended", || machine.ls().get("job").is_some_and(|state| state == "ended Some(3)"));
    machine.start(&["killed", "sh", "-c", "kill -9 $$"]);
    soon("it is ended", || machine.ls().get("killed").is_some_and(|state| state == "ended Some(137)"));
    // From the record alone.
    assert_eq!(machine.step(&["wait", "job"]), ["Some(3)"]);
    assert_eq!(machine.step(&["gc"]), ["2"]);
    assert!(machine.ls().is_empty());
}

/// They have ended before their host could say that they are to outlive it.
#[test]
fn a_detached_container_may_end_at_once() {
    let machine = Machine::new();
    assert_eq!(machine.step(&["brief"]), ["done"]);
    let all = machine.ls();
    assert!(all.len() == 25 && all.values().all(|state| state == "ended Some(5)"), "{all:?}");
}

/// Its last word was a request to the keeper, which is not answered before the keeper knows it.
#[test]
fn a_host_may_end_as_soon_as_it_has_started_something() {
    let machine = Machine::new();
    for n in 0..10 {
        let pid = machine.start(&[&format!("stays-{n}"), "sleep", "100"]);
        assert!(runs(pid), "{:?}", machine.ls());
    }
    assert!(machine.ls().values().all(|state| state == "running None"), "{:?}", machine.ls());
}

#[test]
fn a_killed_keeper_loses_its_container_and_gc_forgets_it() {
    let machine = Machine::new();
    let pid = machine.start(&["lost", "sleep", "100"]);
    kill(machine.keeper("lost"));
    soon("pid 1 dies with it", || !runs(pid));
    assert_eq!(machine.ls()["lost"], "lost None");
    assert_eq!(machine.step(&["gc"]), ["1"]);
    assert!(machine.ls().is_empty());
}

#[test]
fn the_name_of_a_killed_host_is_free() {
    let machine = Machine::new();
    let mut host = machine.spawn(&["hold", "held", "sleep", "100"]);
    soon("it runs", || machine.ls().get("held").is_some_and(|state| state == "running None"));
    let directory = machine.0.path().join("state/names/held");
    assert!(directory.is_dir());
    host.kill().expect("kill");
    host.wait().expect("wait");
    // By its keeper: nobody has looked or called gc.
    let killed = Instant::now();
    while directory.exists() {
        assert!(killed.elapsed() < Duration::from_secs(1), "a file is left after a second");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(machine.ls().is_empty());
    machine.start(&["held", "true"]);
}

#[test]
fn one_of_many_processes_gets_the_name() {
    let machine = Machine::new();
    let hosts: Vec<Child> = (0..6).map(|_| machine.spawn(&["start", "one", "sleep", "100"])).collect();
    let answers: Vec<String> = hosts.into_iter().flat_map(answers).collect();
    let started = answers.iter().filter(|a| a.starts_with("started ")).count();
    let refused = answers.iter().filter(|a| a.starts_with("already_exists ")).count();
    assert_eq!((started, refused), (1, 5), "{answers:?}");
}

#[test]
fn containers_of_several_processes_share_no_ids() {
    let machine = Machine::new();
    let names = ["a", "b", "c", "d"];
    let hosts: Vec<Child> = names.iter().map(|name| machine.spawn(&["start", name, "sleep", "100"])).collect();
    let mut seen = HashSet::new();
    for answer in hosts.into_iter().flat_map(answers) {
        let pid = answer.strip_prefix("started ").unwrap_or_else(|| panic!("{answer}"));
        let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).expect("a map");
        // The caller's own id is everybody's 0, where it is mapped at all.
        for line in map.lines().filter(|line| !line.trim_end().ends_with(" 1")) {
            let fields: Vec<u64> = line.split_ascii_whitespace().map(|f| f.parse().expect("a number")).collect();
            assert!((0..fields[2]).step_by(1024).all(|n| seen.insert(fields[1] + n)), "{map} is used twice");
        }
    }
}

#[test]
fn gc_touches_nothing_that_lives() {
    let machine = Machine::new();
    let pid = machine.start(&["stays", "sleep", "100"]);
    let mut hosts: Vec<Child> = ["x", "y"].iter().map(|name| machine.spawn(&["churn", name])).collect();
    // Their pipes hold what they print: nothing blocks.
    while hosts.iter_mut().any(|host| host.try_wait().expect("wait").is_none()) {
        machine.step(&["gc"]);
    }
    for host in hosts {
        assert_eq!(answers(host), ["done"]);
    }
    assert!(runs(pid));
    assert_eq!(machine.ls(), BTreeMap::from([("stays".to_owned(), "running None".to_owned())]));
}
