//! Rules about devices, and devices that come and go while a container runs.
//!
//! tests/run: timeout=180 as=root,user vm=root

use std::process;

use common::*;
use ringfence::spec::{Device, DeviceAccess, NamespaceKind};
use ringfence::{Container, Error, ErrorKind, Pod, Spec};
use serde_json::Value;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A device that everybody has and nobody may: opened by who may, it does nothing.
const CONTROL: &str = "/dev/loop-control";
const CONTROL_MINOR: u32 = 237;

/// `None`, and a message, where this user sets no rules.
fn can_rule() -> bool {
    let _ = process::Command::new("modprobe").arg("loop").stderr(process::Stdio::null()).status();
    if !is_root() {
        skip("only root sets rules about devices");
    }
    is_root()
}

/// What comes of opening it for reading, and for writing: `yes`, `EPERM`, or something else.
const OPENS: &str = r#"opens() {
    for how in '<' '<>' '>>'; do
        if said=$( (eval ": $how \$1") 2>&1 ); then echo -n "$how "; continue; fi
        case $said in *"not permitted"*) ;; *) echo -n "$how:$said ";; esac
    done
    echo
}
"#;

fn opens(container: &Container, path: &str) -> String {
    sh_in(container, &format!("{OPENS} opens {path}")).trim().to_owned()
}

const EVERYTHING: &str = "< <> >>";

fn by(container: &Container) -> Value {
    serde_json::from_str::<Value>(&container.info_json()).expect("JSON")["device_rules"].clone()
}

fn fails(result: Result<(), Error>, kind: ErrorKind, field: &str) -> Error {
    let error = result.expect_err("it fails");
    assert_eq!((error.kind(), error.field()), (kind, Some(field)), "{error}");
    error
}

#[test]
fn a_node_that_root_makes_is_not_the_device() {
    if !can_rule() {
        return;
    }
    // All that is mounted has no devices but /dev's nodes, until somebody may change that.
    let fields = |rules: Value| json!({"idmap": "host", "capabilities": {"add": ["sys_admin"]}, "device_rules": rules});
    let script = format!(
        "{OPENS} mount -o remount,bind,dev /dev; mknod /dev/x c 10 {CONTROL_MINOR}; opens /dev/x; mknod /dev/y c 1 7; opens /dev/y"
    );
    let seen = |rules: Value| sh(&script, fields(rules));
    assert_eq!(seen(json!([])), format!("\n{EVERYTHING} \n"), "what every container has");
    assert_eq!(seen(json!(["c 10:* r"])), format!("< \n{EVERYTHING} \n"));
    assert_eq!(seen(json!(["a"])), format!("{EVERYTHING} \n{EVERYTHING} \n"));
    assert_eq!(seen(json!(["a", "deny c 10:* w", "deny c 1:7 r"])), "< \n>> \n");
    // The last that is about it decides.
    assert_eq!(
        seen(json!(["deny c 10:237 rw", {"type": "c", "major": 10, "access": "w"}])),
        format!(">> \n{EVERYTHING} \n")
    );
    let nodes =
        "mknod /dev/x c 10 237 2>&1; mknod /dev/y b 7 0; ls /dev/x /dev/y 2>/dev/null; : </dev/zero; : >/dev/null";
    let seen = sh(nodes, json!({"idmap": "host", "device_rules": ["deny c *:* m"]}));
    assert!(seen.contains("not permitted") && seen.ends_with("/dev/y\n"), "{seen}");
    // Whoever sees the host's /dev has what the host has, unless it is said.
    let host = |rules: Value| json!({"idmap": "host", "namespaces": {"mnt": "host"}, "device_rules": rules});
    let script = format!("{OPENS} opens {CONTROL}");
    assert_eq!(sh(&script, host(json!([]))), format!("{EVERYTHING} \n"));
    assert_eq!(sh(&script, host(json!(["c 10:237 r"]))), "< \n");
}

#[test]
fn an_access_is_held_for_whoever_opens() {
    if !can_rule() {
        return;
    }
    for idmap in ["auto", "host"] {
        let devices = json!([format!("{CONTROL}:/dev/a:r"), format!("{CONTROL}:/dev/b:r"), "/dev/full:/dev/c:w"]);
        let c = start(json!({"idmap": idmap, "devices": devices, "init": true}));
        assert!(by(&c) == "bpf" || by(&c) == "devices", "{}", by(&c));
        assert_eq!(
            (opens(&c, "/dev/a"), opens(&c, "/dev/b"), opens(&c, "/dev/c")),
            ("<".into(), "<".into(), ">>".into())
        );
        assert_eq!(opens(&c, "/dev/full"), ">>", "it is the same device");
        // Changes hold at once, and leave alone what is open.
        let reader = c.command("sh").args(["-c", "exec 3<>/dev/null; sleep 0.1; echo ok >&3"]).spawn().unwrap();
        c.update_json(&json!({"device_rules": ["deny c 1:5 rw"]}).to_string()).unwrap();
        assert_eq!(opens(&c, "/dev/zero"), "");
        assert_eq!(reader.wait(TIMEOUT).unwrap().unwrap().code, Some(0));
        c.update(|spec| (spec.device_rules, spec.devices[0].access) = (vec![], DeviceAccess::ALL)).unwrap();
        c.update(|spec| spec.devices[1].access = DeviceAccess::default()).unwrap();
        assert_eq!((opens(&c, "/dev/zero"), opens(&c, "/dev/a")), (EVERYTHING.into(), EVERYTHING.into()));
        c.close(None).unwrap();
    }
}

/// Also of a detached container, through other handles and while it is frozen.
#[test]
fn devices_come_and_go() {
    if !can_rule() {
        return;
    }
    let name = format!("rf-nodes-{}", process::id());
    let host = json!({"idmap": "host", "capabilities": {"add": ["sys_admin"]}});
    for fields in [host, json!({}), json!({"detach": true, "name": name})] {
        let first = start(with(fields.clone(), json!({"devices": ["/dev/zero:/dev/z"]})));
        let c = if fields["detach"] == true { Container::by_name(&name).unwrap() } else { first.clone() };
        c.add_device(Device::new(CONTROL).target("/dev/deep/er/control").access(DeviceAccess::READ)).unwrap();
        assert_eq!(opens(&c, "/dev/deep/er/control"), "<");
        assert_eq!(
            sh_in(&c, "stat -c %F:%t:%T /dev/deep/er/control; ls -A /dev/deep"),
            "character special file:a:ed\ner\n"
        );
        let mode = sh_in(&c, "stat -c %u:%a /dev/deep/er/control");
        assert!(mode.starts_with("0:6"), "{mode}");
        assert_eq!(c.spec().devices.len(), 2);
        c.freeze().unwrap();
        c.add_device_json("/dev/full:/dev/f").unwrap();
        c.thaw().unwrap();
        assert_eq!(opens(&c, "/dev/f"), EVERYTHING);

        // Refusals change nothing: nodes, rules, spec.
        sh_in(&c, "echo mine >/dev/taken; ln -s /tmp /dev/link; ln -s /tmp/over /dev/dangling");
        const LISTED: &str = "ls -lR --time-style=full-iso /dev | grep -v ^total | sort; ls -A /tmp";
        let before = (c.spec(), sh_in(&c, LISTED));
        let target = "devices[3].target";
        fails(c.add_device("/dev/full:/dev/taken"), ErrorKind::AlreadyExists, target);
        fails(c.add_device("/dev/full:/dev/dangling"), ErrorKind::AlreadyExists, target);
        fails(c.add_device("/dev/full:/dev/f"), ErrorKind::InvalidSpec, target);
        fails(c.add_device("/dev/full:/dev/null"), ErrorKind::InvalidSpec, target);
        fails(c.add_device("/dev/no-such-device"), ErrorKind::NotFound, "devices[3]");
        fails(c.add_device("full"), ErrorKind::InvalidSpec, "devices[3]");
        fails(c.add_device_json("[\"/dev/full:/dev/f2\", \"/dev/full:/dev/f3\"]"), ErrorKind::InvalidSpec, "devices");
        let error = c.add_device("/dev/full:/dev/link/x").unwrap_err();
        assert_eq!((error.field(), error.errno()), (Some("devices[3]"), libc::ELOOP), "{error}");
        let two = json!({"devices": ["/dev/full:/dev/new", format!("{CONTROL}:/dev/taken")]}).to_string();
        fails(c.update_json(&two), ErrorKind::AlreadyExists, "devices[1].target");
        fails(c.remove_device("/dev/taken"), ErrorKind::NotFound, "target");
        assert_eq!((c.spec(), sh_in(&c, LISTED)), before);
        assert_eq!((opens(&c, "/dev/deep/er/control"), opens(&c, "/dev/z")), ("<".into(), EVERYTHING.into()));

        if fields["idmap"] == "host" {
            sh_in(&c, "mount -o remount,bind,dev /dev; mknod /dev/kept c 10 237");
            assert_eq!(opens(&c, "/dev/kept"), "<");
        }
        let open = c
            .command("sh")
            .args(["-c", "exec 3</dev/z; : >/tmp/open; sleep 0.2; head -c 1 <&3 | wc -c"])
            .spawn()
            .unwrap();
        until("it is open", || sh_in(&c, "ls /tmp").contains("open"));
        first.remove_device("/dev/deep/er/control").unwrap();
        c.remove_device("/dev/z").unwrap();
        assert_eq!(sh_in(&c, "ls -A /dev/deep/er; ls /dev/z 2>&1 || :").lines().count(), 1);
        assert_eq!(open.wait(TIMEOUT).unwrap().unwrap().code, Some(0));
        if fields["idmap"] == "host" {
            assert_eq!(opens(&c, "/dev/kept"), "", "a node that it made is none any more");
        }
        // What was there at the start can come back, and what the container put in its place is not taken away.
        c.add_device("/dev/zero:/dev/z").unwrap();
        assert_eq!(c.spec().devices.len(), 2);
        c.remove_device("/dev/f").unwrap();
        fails(c.remove_device("/dev/f"), ErrorKind::NotFound, "target");
        first.kill().unwrap();
        c.close(None).unwrap();
        assert_eq!(c.add_device("/dev/full:/dev/x").unwrap_err().kind(), ErrorKind::Closed);
        // Its keeper holds the name until it has left.
        until("the name is free", || {
            ringfence::gc().unwrap();
            Container::by_name(&name).is_err_and(|e| e.kind() == ErrorKind::NotFound)
        });
    }
}

/// A mount's `nodev` is its owner's to take away, which root of a user namespace with CAP_SYS_ADMIN is.
#[test]
fn a_node_of_an_image_is_not_the_device() {
    let dir = public_tmp();
    let Some(image) = busybox_image(dir.path()) else { return skip("no static busybox") };
    if !can_rule() {
        return;
    }
    let node = image.join("control");
    let kind = nix::sys::stat::SFlag::S_IFCHR;
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
    nix::sys::stat::mknod(&node, kind, mode, libc::makedev(10, CONTROL_MINOR)).unwrap();
    std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let script = "mount -o remount,bind,dev / && (: </control) && echo opened";
    let seen = |rules: Value| {
        let fields = json!({"rootfs": image, "capabilities": {"add": ["sys_admin"]}, "device_rules": rules});
        run(with(json!({"argv": ["/bin/sh", "-c", script]}), fields))
    };
    let denied = seen(json!([]));
    assert!(denied.out.is_empty() && denied.err.contains("not permitted"), "{denied:?}");
    assert_eq!(seen(json!(["c 10:237 r"])).out, "opened\n");
}

#[test]
fn rules_of_a_pod_hold_for_all_in_it() {
    if !can_rule() {
        return;
    }
    let rules = ["c 10:237 r", "deny c 1:5 rw"].map(|rule| rule.parse().unwrap());
    let pod = Pod::start(&Spec::new().device_rules(rules), Pod::SHARE).unwrap();
    let one = pod.container(&Spec::new().device(format!("{CONTROL}:/dev/x"))).unwrap();
    let two = pod.container(&Spec::new().device_rules(["c 1:5 rw".parse().unwrap()])).unwrap();
    assert_eq!(
        (opens(&one, "/dev/x"), opens(&two, "/dev/zero"), opens(&two, "/dev/full")),
        ("<".into(), "".into(), EVERYTHING.into())
    );
    pod.update(|spec| spec.device_rules = vec!["a".parse().unwrap()]).unwrap();
    assert_eq!((opens(&one, "/dev/x"), opens(&two, "/dev/zero")), (EVERYTHING.into(), EVERYTHING.into()));
    two.update(|spec| spec.device_rules.clear()).unwrap();
    two.add_device(format!("{CONTROL}:/dev/y:w")).unwrap();
    assert_eq!(opens(&two, "/dev/y"), ">>");
    pod.close(None).unwrap();
    let pod = Pod::start(&Spec::new(), &[NamespaceKind::Net]).unwrap();
    let one = pod.container(&Spec::new().device(format!("{CONTROL}:/dev/x:r"))).unwrap();
    assert_eq!(opens(&one, "/dev/x"), "<");
    pod.close(None).unwrap();
}

#[test]
fn an_ordinary_user_has_devices_without_rules() {
    if is_root() {
        return;
    }
    for (fields, field) in [
        (json!({"device_rules": ["c 1:5 r"]}), "device_rules"),
        (json!({"devices": ["/dev/full:/dev/a:rw", "/dev/full:/dev/b:r"]}), "devices[1].access"),
    ] {
        let error = refused(with(json!({"argv": ["true"]}), fields));
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some(field)), "{error}");
        assert!(error.to_string().contains("CAP_SYS_ADMIN") && error.hint().is_some(), "{error}");
    }
    let c = start(json!({"devices": ["/dev/zero:/dev/z:rwm"]}));
    assert_eq!(by(&c), Value::Null);
    c.add_device("/dev/full:/dev/sub/f").unwrap();
    assert_eq!(opens(&c, "/dev/sub/f"), EVERYTHING);
    fails(c.add_device("/dev/full:/dev/sub/g:w"), ErrorKind::PermissionDenied, "devices[2].access");
    fails(c.add_device("/dev/full:/dev/sub/f/g"), ErrorKind::InvalidSpec, "devices[2].target");
    fails(c.update(|spec| spec.device_rules = vec!["a".parse().unwrap()]), ErrorKind::PermissionDenied, "device_rules");
    sh_in(&c, "ln -s /tmp /dev/link");
    assert_eq!(c.add_device("/dev/full:/dev/link/x").unwrap_err().errno(), libc::ELOOP);
    c.remove_device("/dev/z").unwrap();
    c.remove_device("/dev/sub/f").unwrap();
    assert_eq!(sh_in(&c, "ls -A /dev/sub /tmp | tr '\\n' ' '; ls /dev/z 2>&1 || :").lines().count(), 1);
    c.close(None).unwrap();
}
