//! Readiness: each condition, all together, ends and timeouts, from several threads, in steps.
//!
//! tests/run: timeout=300 vm=delegated

use std::time::Duration;

use common::*;
use ringfence::{Container, Error, ErrorKind, HttpCheck, WaitFor};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const SOON: Option<Duration> = Some(Duration::from_millis(50));

#[track_caller]
fn not_yet(container: &Container, what: &WaitFor) -> Error {
    let error = container.wait_for(what, SOON).unwrap_err();
    assert_eq!((error.kind(), error.errno()), (ErrorKind::TimedOut, libc::ETIMEDOUT), "{error}");
    error
}

fn wait() -> WaitFor {
    WaitFor::default()
}

/// Serves HTTP on port 80 as soon as somebody makes /tmp/go.
const SERVER: &str = r#"
import http.server, os, socket, time
print("waits", flush=True)
while not os.path.exists("/tmp/go"): time.sleep(0.01)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 53))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(302 if self.path == "/elsewhere" else 500); self.end_headers()
http.server.HTTPServer(("127.0.0.1", 80), Answer).serve_forever()
"#;

#[test]
fn all_kinds_of_conditions() {
    let container = start(json!({"argv": ["python3", "-c", SERVER]}));
    container.wait_for(&wait().log("^waits$"), TIMEOUT).unwrap();
    let all = wait()
        .port(80)
        .udp_port(53)
        .log("waits")
        .path("/tmp/go")
        .command(["test", "-e", "/tmp/go"])
        .http("http://127.0.0.1/elsewhere");
    let error = not_yet(&container, &all);
    assert_eq!(error.field(), Some("port"));
    assert_eq!(error.log_tail(), Some("waits\n"));
    for part in
        ["missing: port 80 (not open), port 53/udp (not open), path \"/tmp/go\" (not there)", "; there: log \"waits\""]
    {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(error.to_json().contains(r#""log_tail":"waits\n""#), "{}", error.to_json());
    std::thread::scope(|scope| {
        let waits: Vec<_> = (0..3).map(|_| scope.spawn(|| container.wait_for(&all, TIMEOUT))).collect();
        container.command("touch").args(["/tmp/go"]).output().unwrap();
        for wait in waits {
            wait.join().unwrap().unwrap();
        }
    });
    let error = not_yet(&container, &wait().http("http://127.0.0.1/"));
    assert!(error.to_string().contains("status 500"), "{error}");
    let exactly = WaitFor { http: Some(HttpCheck { url: "http://localhost/".into(), status: Some(500) }), ..wait() };
    container.wait_for(&exactly, TIMEOUT).unwrap();
    container.close(None).unwrap();
}

#[test]
fn ends_are_noticed_at_once() {
    let container = start(json!({"argv": ["sh", "-c", "echo broken; exit 7"]}));
    let error = container.wait_for(&wait().port(80), None).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::Closed, Some("port")));
    assert!(error.to_string().contains("exit code 7"), "{error}");
    assert_eq!(error.log_tail(), Some("broken\n"));
    // What it said counts afterwards too.
    container.wait_for(&wait().log("broken"), SOON).unwrap();
    container.close(None).unwrap();
    assert_eq!(container.wait_for(&wait().port(80), None).unwrap_err().kind(), ErrorKind::Closed);

    let container = start(json!({}));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| container.wait_for(&wait().command(["sleep", "1000"]), None));
        std::thread::sleep(Duration::from_millis(50));
        container.close(None).unwrap();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn in_steps() {
    let container = start(json!({}));
    let mut readiness = container.readiness(&wait().path("/tmp/x").command(["sleep", "1000"]), TIMEOUT).unwrap();
    assert_eq!(readiness.wait(SOON), Ok(false));
    assert!(!readiness.is_late());
    let argv_of = |name: &str| container.processes().unwrap().iter().filter(|p| p.name == name).count();
    assert_eq!(argv_of("sleep"), 1);
    // The command goes with it.
    drop(readiness);
    assert_eq!(argv_of("sleep"), 0);
    container.close(None).unwrap();
}

#[test]
fn a_fifo_is_there_and_holds_up_nobody() {
    let container = start(json!({}));
    container.command("mkfifo").args(["/tmp/fifo"]).output().unwrap();
    container.wait_for(&wait().path("/tmp/fifo"), TIMEOUT).unwrap();
    not_yet(&container, &wait().path("/tmp/fifo/below"));
    container.close(None).unwrap();
}

#[test]
fn what_can_never_hold() {
    let container = start(json!({}));
    for (what, field) in [
        (wait(), "conditions"),
        (wait().port(0), "port"),
        (wait().log("a{2"), "log"),
        (wait().log("fine").log("["), "log[1]"),
        (wait().path("tmp"), "path"),
        (wait().http("https://127.0.0.1/"), "http"),
    ] {
        let error = container.wait_for(&what, TIMEOUT).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some(field)), "{error}");
    }
    let error = container.wait_for(&wait().command(["/no/such"]), TIMEOUT).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("command")), "{error}");
    let error = container.wait_for(&wait().log("x"), TIMEOUT).unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::NotFound, Some("log")), "{error}");
    container.close(None).unwrap();
}
