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

fn connected(container: &Container, service: &TcpListener) -> (TcpStream, TcpStream) {
    let patient = |stream: TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream
    };
    let outside = TcpStream::connect(("127.0.0.1", container.port(SERVICE).unwrap())).expect("the published port");
    (patient(outside), patient(service.accept().expect("a client").0))
}

/// As many descriptors as this program may have.
fn descriptors() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a struct rlimit, valid for both calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
    limit.rlim_max
}

#[test]
fn ten_thousand_connections() {
    // This program has both ends, and what serves them as many descriptors.
    let at_once = 9_500.min(descriptors().saturating_sub(600) / 2) as usize;
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
    for _ in at_once..10_000 {
        let (outside, mut inside) = connected(&container, &service);
        drop(outside);
        assert_eq!(inside.read(&mut [0]).expect("read"), 0);
    }
    container.close(TIMEOUT).unwrap();
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
