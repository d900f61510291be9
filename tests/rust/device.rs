//! Network devices that move into a container and back.
//!
//! tests/run: as=root,user vm=root

use std::process::Command as Host;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;
use common::*;
use ringfence::{Container, Error, ErrorKind};

/// On this thread, and so in the network namespace in which it is.
fn host(script: &str) -> String {
    let output = Host::new("sh").args(["-ec", script]).output().expect("sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// In a network namespace of the test's own with two devices that are one cable: `left` is up, `right` is down.
fn with_devices(test: impl FnOnce() + Send + 'static) {
    if !is_root() {
        return skip("to have devices takes root");
    }
    let inside = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
        host("ip link add left type veth peer name right && ip link set left up");
        test();
    };
    std::thread::spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn names() -> String {
    host("ip -br link | cut -d' ' -f1 | cut -d@ -f1 | sort | tr '\\n' ' '")
}

fn inside(container: &Container, device: &str) -> String {
    sh_in(container, &format!("cat /sys/class/net/{device}/flags"))
}

#[track_caller]
fn fails(result: Result<(), Error>, kind: ErrorKind, field: &str) {
    let error = result.expect_err("refused");
    assert_eq!((error.kind(), error.field()), (kind, Some(field)), "{error}");
}

#[test]
fn a_device_goes_in_and_comes_back() {
    with_devices(|| {
        let container = start(json!({"capabilities": {"add": ["net_admin"]}}));
        container.attach_device("left", Some("eth0")).expect("attach");
        container.attach_device("right", None).expect("attach");
        assert_eq!(names(), "lo ");
        assert_eq!(inside(&container, "eth0").trim(), "0x1003", "up, as it was");
        assert_eq!(inside(&container, "right").trim(), "0x1002", "down, as it was");
        // It is the container's to use.
        sh_in(&container, "ip address add 192.0.2.1/24 dev eth0 && ip link set right up");
        fails(container.attach_device("left", None), ErrorKind::NotFound, "device");
        container.detach_device("eth0").expect("detach");
        assert_eq!(names(), "left lo ");
        assert!(!host("ip address show dev left").contains("192.0.2.1"));
        container.detach_device("right").expect("detach");
        assert_eq!(names(), "left lo right ");
        assert!(!host("ip -br link show").contains(",UP"), "down, whatever the container made of them");
        fails(container.detach_device("right"), ErrorKind::NotFound, "inside");
        container.close(TIMEOUT).expect("close");
    });
}

#[test]
fn the_end_of_the_container_gives_devices_back() {
    with_devices(|| {
        let first = start(json!({}));
        first.attach_device("left", Some("a")).expect("attach");
        first.close(TIMEOUT).expect("close");
        assert_eq!(names(), "left lo right ");
        // Killed, and its name is somebody else's by then.
        let second = start(json!({}));
        second.attach_device("left", Some("b")).expect("attach");
        host("ip link add left type bridge");
        second.kill().expect("kill");
        assert!(second.wait_end(TIMEOUT).expect("wait"));
        assert_eq!(names(), "b left lo right ");
        drop(second);
        let third = start(json!({}));
        third.attach_device("right", None).expect("attach");
        host("ip link add right type bridge");
        drop(third);
        assert_eq!(names(), "b dev1 left lo right ", "any other name");
    });
}

#[test]
fn what_the_container_deleted_is_gone() {
    with_devices(|| {
        let container = start(json!({"capabilities": {"add": ["net_admin"]}}));
        container.attach_device("left", None).expect("attach");
        sh_in(&container, "ip link set left name other && ip link del other");
        assert_eq!(names(), "lo ", "both ends of the cable");
        container.close(TIMEOUT).expect("close");
        assert_eq!(names(), "lo ");
    });
}

#[test]
fn what_cannot_move_stays() {
    if !is_root() {
        let container = start(json!({}));
        let error = container.attach_device("lo", Some("lo1")).expect_err("refused");
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("device")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("CAP_NET_ADMIN")), "{error}");
        return container.close(TIMEOUT).expect("close");
    }
    with_devices(|| {
        let container = start(json!({"capabilities": {"add": ["net_admin"]}}));
        fails(container.attach_device("", None), ErrorKind::InvalidArgument, "device");
        fails(container.attach_device("left", Some("a/b")), ErrorKind::InvalidArgument, "inside");
        fails(container.attach_device("left", Some("sixteen_letters_")), ErrorKind::InvalidArgument, "inside");
        fails(container.attach_device("left", Some("dev%d")), ErrorKind::InvalidArgument, "inside");
        fails(container.attach_device("nothing", None), ErrorKind::NotFound, "device");
        fails(container.attach_device("lo", Some("lo1")), ErrorKind::Os, "device");
        fails(container.attach_device("left", Some("lo")), ErrorKind::AlreadyExists, "inside");
        fails(container.detach_device("lo"), ErrorKind::NotFound, "inside");
        sh_in(&container, "ip link add evil type veth peer name other");
        fails(container.detach_device("evil"), ErrorKind::NotFound, "inside");
        assert_eq!(names(), "left lo right ");
        // Where its place is taken when it comes back by request.
        container.attach_device("left", None).expect("attach");
        host("ip link add left type bridge");
        fails(container.detach_device("left"), ErrorKind::AlreadyExists, "inside");
        host("ip link del left");
        container.detach_device("left").expect("detach");
        let host_net = start(json!({"net": "host", "idmap": "host"}));
        fails(host_net.attach_device("left", None), ErrorKind::InvalidArgument, "device");
        host_net.close(TIMEOUT).expect("close");
        container.close(TIMEOUT).expect("close");
        assert_eq!(container.attach_device("left", None).expect_err("closed").kind(), ErrorKind::Closed);
        assert_eq!(names(), "left lo right ");
    });
}
