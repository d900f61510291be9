//! Logs line by line: followed to the end, woken by the kernel or by a clock, from several threads, of detached containers.
//!
//! tests/run: timeout=300 vm=delegated

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use common::*;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{InitFlags, Inotify};
use ringfence::{Container, ErrorKind, LogOptions, LogReader};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const FOLLOW: LogOptions = LogOptions { tail: None, since: 0, follow: true };

/// Writes what it reads.
fn cat() -> (Container, File) {
    let container = start(json!({"argv": ["cat"], "stdin": "pipe"}));
    let input = File::from(container.main().unwrap().take_stdin().unwrap());
    (container, input)
}

fn all(reader: &LogReader) -> String {
    let lines: Result<Vec<_>, _> = reader.iter().collect();
    String::from_utf8(lines.unwrap().concat()).unwrap()
}

fn is_readable(reader: &LogReader, timeout: u16) -> bool {
    poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], PollTimeout::from(timeout)).unwrap() == 1
}

#[test]
fn a_reader_is_readable_while_there_is_something() {
    let (container, mut input) = cat();
    let reader = container.logs(&FOLLOW).unwrap();
    assert_eq!(reader.next(Some(Duration::ZERO)), Ok(None));
    assert!(!is_readable(&reader, 0));
    input.write_all(b"one\ntwo\npart").unwrap();
    assert!(is_readable(&reader, 60_000));
    assert_eq!(reader.next(TIMEOUT).unwrap().unwrap(), b"one\n");
    assert!(is_readable(&reader, 0));
    assert_eq!(reader.next(TIMEOUT).unwrap().unwrap(), b"two\n");
    assert_eq!(reader.next(Some(Duration::ZERO)), Ok(None));
    assert!(!is_readable(&reader, 0) && !reader.is_over());
    assert_eq!(reader.position(), 8);
    drop(input);
    assert!(is_readable(&reader, 60_000));
    assert_eq!(reader.next(TIMEOUT).unwrap().unwrap(), b"part");
    assert_eq!(reader.next(TIMEOUT), Ok(None));
    assert!(reader.is_over() && is_readable(&reader, 0));
    reader.cancel();
    assert_eq!(reader.next(None), Ok(None));
    container.close(None).unwrap();
}

#[test]
fn each_line_is_given_to_one_of_several_threads() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done";
    let container = start(json!({"argv": ["sh", "-c", script]}));
    let reader = container.logs(&FOLLOW).unwrap();
    let mut seen: Vec<u32> = std::thread::scope(|scope| {
        let read = || scope.spawn(|| reader.iter().map(|l| String::from_utf8(l.unwrap()).unwrap()).collect::<Vec<_>>());
        let threads = [read(), read(), read()];
        threads.into_iter().flat_map(|t| t.join().unwrap()).map(|line| line.trim_end().parse().unwrap()).collect()
    });
    seen.sort();
    assert_eq!(seen, (0..3000).collect::<Vec<_>>());
    container.close(None).unwrap();
}

#[test]
fn a_long_line_comes_in_pieces() {
    let script = "head -c 2500000 /dev/zero | tr '\\0' x; echo";
    let container = start(json!({"argv": ["sh", "-c", script], "log_max": "4M"}));
    let lengths: Vec<usize> = container.logs(&FOLLOW).unwrap().iter().map(|line| line.unwrap().len()).collect();
    assert_eq!(lengths, [1 << 20, 1 << 20, 2_500_001 - (2 << 20)]);
    container.close(None).unwrap();
}

#[test]
fn without_inotify_a_clock_does_the_same() {
    let mut taken = Vec::new();
    // Each counts for the user: as many as there are, if that is not too many for a test.
    while let Ok(one) = Inotify::init(InitFlags::IN_CLOEXEC) {
        taken.push(one);
        if taken.len() > 900 {
            return skip("more instances of inotify for a user than a test should take");
        }
    }
    let (container, mut input) = cat();
    let reader = container.logs(&FOLLOW).unwrap();
    drop(taken);
    assert_eq!(reader.next(Some(Duration::ZERO)), Ok(None));
    for text in ["one\n", "two\n"] {
        input.write_all(text.as_bytes()).unwrap();
        assert!(is_readable(&reader, 60_000));
        assert_eq!(reader.next(TIMEOUT).unwrap().unwrap(), text.as_bytes());
        // The clock goes slower and slower while there is nothing.
        assert_eq!(reader.next(Some(Duration::from_millis(50))), Ok(None));
    }
    drop(input);
    assert_eq!(all(&reader), "");
    container.close(None).unwrap();
}

#[test]
fn cancelling_and_closing() {
    let (container, mut input) = cat();
    let cancelled = container.logs(&FOLLOW).unwrap();
    let other = container.logs(&FOLLOW).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| cancelled.next(None));
        std::thread::sleep(Duration::from_millis(20));
        cancelled.cancel();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(cancelled.next(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::Closed);
        // Another reader does not mind, and reads to the end that closing is.
        input.write_all(b"last\n").unwrap();
        let waits = scope.spawn(|| all(&other));
        while container.log_position().unwrap() < 5 {
            std::thread::sleep(Duration::from_millis(1));
        }
        container.close(None).unwrap();
        assert_eq!(waits.join().unwrap(), "last\n");
    });
    for error in [container.logs(&FOLLOW).unwrap_err(), container.log_position().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
    assert_eq!(container.log_is_full().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(container.log_fd().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_detached_container_has_its_log_from_its_keeper() {
    let name = format!("logs-{}", std::process::id());
    let script = "echo one; while test ! -e /tmp/go; do sleep 0.01; done; echo two";
    let started = start(json!({"name": name, "detach": true, "argv": ["sh", "-c", script]}));
    started.close(None).unwrap();
    drop(started);
    // The keeper alone has it.
    let found = Container::by_name(&name).unwrap();
    let reader = found.logs(&FOLLOW).unwrap();
    assert_eq!(reader.next(TIMEOUT).unwrap().unwrap(), b"one\n");
    assert_eq!(found.log(0).unwrap(), b"one\n");
    found.command("touch").args(["/tmp/go"]).output().unwrap();
    assert_eq!(all(&reader), "two\n");
    // This one never asked while it ran.
    let late = Container::by_name(&name).unwrap();
    assert!(late.wait_end(TIMEOUT).unwrap());
    assert_eq!(all(&late.logs(&LogOptions { tail: Some(1), ..FOLLOW }).unwrap()), "two\n");
    assert_eq!(late.log_position(), Ok(8));
    assert_eq!(late.log_is_full(), Ok(false));
    drop(reader);
    let plain = start(json!({"name": format!("{name}-plain"), "detach": true}));
    plain.close(None).unwrap();
    let plain = Container::by_name(&format!("{name}-plain")).unwrap();
    assert_eq!(plain.log_position().unwrap_err().kind(), ErrorKind::NotFound);
    plain.kill().unwrap();
    assert!(plain.wait_end(TIMEOUT).unwrap());
    drop((found, late, plain));
    ringfence::gc().unwrap();
}
