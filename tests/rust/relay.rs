//! The relay of published ports under a load that fills it.
//!
//! tests/run: tier=machine as=root timeout=300

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::*;
use ringfence::Container;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const SERVICE: u16 = 5432;
const AT_ONCE: u64 = 10_000;
/// What this program and the relay have open besides: of each connection, both have two ends.
const OTHERS: u64 = 600;

fn connected(container: &Container, service: &TcpListener) -> (TcpStream, TcpStream) {
    let patient = |stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    };
    let outside = TcpStream::connect(("127.0.0.1", container.port(SERVICE).unwrap())).expect("the published port");
    (patient(outside), patient(service.accept().expect("a client").0))
}

/// As many connections as this program, and the keeper that it will start, may have: if it can, it gives itself enough.
fn may_have() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct rlimit, valid for all calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        let wanted = limit.rlim_max.max(2 * AT_ONCE + OTHERS);
        // Root without CAP_SYS_RESOURCE keeps what it has.
        let raised = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) != 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
    }
    AT_ONCE.min(limit.rlim_cur.saturating_sub(OTHERS) / 2)
}

#[test]
fn ten_thousand_connections() {
    let at_once = may_have();
    let container = start(json!({"ports": [SERVICE]}));
    let service = TcpListener::from(container.listen("127.0.0.1:5432", 1024).unwrap());
    let mut pairs: Vec<_> = (0..at_once).map(|_| connected(&container, &service)).collect();
    // All are alive at once.
    for (i, (outside, inside)) in pairs.iter_mut().enumerate() {
        let (from, to) = if i % 2 == 0 { (outside, inside) } else { (inside, outside) };
        from.write_all(&i.to_ne_bytes()).expect("write");
        let mut number = [0; 8];
        to.read_exact(&mut number).expect("read");
        assert_eq!(usize::from_ne_bytes(number), i);
    }
    drop(pairs);
    for _ in 0..500 {
        let (outside, mut inside) = connected(&container, &service);
        drop(outside);
        assert_eq!(inside.read(&mut [0]).expect("read"), 0);
    }
    container.close(TIMEOUT).unwrap();
    if at_once < AT_ONCE {
        skip(&format!(
            "{at_once} at once were carried: {AT_ONCE} take a hard RLIMIT_NOFILE of {}",
            2 * AT_ONCE + OTHERS
        ));
    }
}

const BLOCK: usize = 1 << 18;
const BLOCKS: u64 = (1 << 30) / BLOCK as u64;

fn block() -> Vec<u8> {
    (0..BLOCK).map(|i| (i * 7 / 5) as u8).collect()
}

fn send(mut to: TcpStream) {
    let mut block = block();
    for number in 0..BLOCKS {
        block[..8].copy_from_slice(&number.to_ne_bytes());
        to.write_all(&block).expect("write");
    }
    to.shutdown(Shutdown::Write).expect("shutdown");
}

fn receive(mut from: TcpStream) {
    let (mut wanted, mut data) = (block(), vec![0; BLOCK]);
    for number in 0..BLOCKS {
        wanted[..8].copy_from_slice(&number.to_ne_bytes());
        from.read_exact(&mut data).expect("read");
        assert!(data == wanted, "other bytes than were sent, in block {number}");
    }
    assert_eq!(from.read(&mut [0]).expect("read"), 0, "more than was sent");
}

#[test]
fn a_gibibyte_each_way_at_once() {
    // The first container's start decides what the keeper may have, whichever test makes it.
    may_have();
    let container = start(json!({"ports": [SERVICE]}));
    let service = TcpListener::from(container.listen("127.0.0.1:5432", 8).unwrap());
    let (outside, inside) = connected(&container, &service);
    let copy = |stream: &TcpStream| stream.try_clone().expect("a copy");
    thread::scope(|scope| {
        scope.spawn(|| send(copy(&outside)));
        scope.spawn(|| send(copy(&inside)));
        scope.spawn(|| receive(copy(&outside)));
        receive(copy(&inside));
    });
    container.close(TIMEOUT).unwrap();
}
