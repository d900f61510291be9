//! Labels of SELinux under a policy that is enforced: tests/vm/guest/selinux.cil says who may do what.
//!
//! tests/run: tier=vm vm-boot=selinux as=root,delegated vm=root,delegated threads=1 timeout=300

use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

use common::*;
use ringfence::spec::{Resource, Rlimit};
use ringfence::{Command, Container, ErrorKind, Pod};

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

const SHOW: &str = "cat /proc/self/attr/current";

/// A label of a program.
fn label(kind: &str, level: &str) -> String {
    format!("system_u:system_r:{kind}:{level}")
}

fn label_file(path: &Path, kind: &str, level: &str) {
    let label = format!("system_u:object_r:{kind}:{level}");
    let done = std::process::Command::new("chcon").arg(&label).arg(path).output().expect("chcon");
    assert!(done.status.success(), "{done:?}");
}

/// A directory of the host with a file in it, which anybody may read but for the labels.
fn labelled_dir(kind: &str, level: &str) -> Tmp {
    let dir = tmp();
    let file = dir.path().join("file");
    fs::write(&file, "content\n").expect("a file");
    label_file(&file, kind, level);
    label_file(dir.path(), if kind == "secret_t" { "host_t" } else { kind }, level);
    dir
}

fn shell(script: &str, label: Option<&str>) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command.selinux = label.map(str::to_owned);
    command
}

/// What is read of an attribute ends with a NUL.
fn shown(text: &str) -> &str {
    text.trim_end_matches(['\0', '\n'])
}

#[test]
fn the_policy_is_enforced() {
    assert_eq!(fs::read_to_string("/sys/fs/selinux/enforce").expect("selinuxfs"), "1");
    let own = fs::read_to_string("/proc/self/attr/current").expect("a label");
    assert_eq!(shown(&own), label("host_t", "s0-s0:c0.c9"));
}

#[test]
fn the_program_has_its_label() {
    let label = label("box_t", "s0:c1");
    for init in [true, false] {
        for no_new_privs in [true, false] {
            let fields = json!({"selinux": label, "init": init, "no_new_privs": no_new_privs});
            for argv in [json!(["cat", "/proc/self/attr/current"]), json!(["/bin/sh", "-c", SHOW])] {
                let ran = run(with(json!({"argv": argv}), fields.clone()));
                assert_eq!(shown(&ran.out), label, "{fields} {ran:?}");
            }
        }
    }
    let ran = run(json!({"argv": ["/bin/sh", "-c", SHOW]}));
    assert_eq!(shown(&ran.out), self::label("host_t", "s0-s0:c0.c9"), "the caller's own, without one");
}

#[test]
fn a_label_may_be_given_in_any_form() {
    for (given, kernels) in
        [("s0:c1,c2,c3", "s0:c1.c3"), ("s0:c3,c1", "s0:c1,c3"), ("s0-s0:c4", "s0-s0:c4"), ("s0-s0", "s0")]
    {
        let ran = run(json!({"argv": ["/bin/sh", "-c", SHOW], "selinux": label("box_t", given)}));
        assert_eq!(shown(&ran.out), label("box_t", kernels), "{ran:?}");
    }
    let ran = run(json!({"argv": ["/bin/sh", "-c", SHOW], "selinux": "system_u:system_r:alias_t:s0"}));
    assert_eq!(shown(&ran.out), label("box_t", "s0"), "an alias of the type: {ran:?}");
}

#[test]
fn the_policy_confines_the_program() {
    let secret = labelled_dir("secret_t", "s0");
    let open = labelled_dir("box_file_t", "s0");
    let script = "cat /secret/file && echo read; cat /open/file; echo x >/open/made && echo made; \
                  echo x >/tmp/own && cat /tmp/own; cat /etc/passwd >/dev/null && echo passwd; echo x >/srv/x && echo host";
    let mounts = json!([
        format!("{}:/secret:rw", secret.path().display()),
        format!("{}:/open:rw", open.path().display()),
        {"type": "tmpfs", "target": "/tmp"},
        {"type": "tmpfs", "target": "/srv"},
    ]);
    let fields = json!({"argv": ["/bin/sh", "-c", script], "mounts": mounts});
    let ran = run(fields.clone());
    assert_eq!(ran.out, "content\nread\ncontent\nmade\nx\npasswd\nhost\n", "{ran:?}");
    fs::remove_file(open.path().join("made")).expect("made");
    let ran = run(with(fields, json!({"selinux": label("box_t", "s0")})));
    assert_eq!(ran.out, "content\nmade\nx\npasswd\nhost\n", "{ran:?}");
    assert!(ran.err.contains("/secret/file: Permission denied"), "{ran:?}");
}

#[test]
fn categories_keep_containers_apart() {
    let volumes = ["c1", "c2"].map(|category| labelled_dir("box_file_t", &format!("s0:{category}")));
    let mounts: Vec<String> =
        volumes.iter().zip(1..).map(|(dir, n)| format!("{}:/volume{n}:rw", dir.path().display())).collect();
    for (mine, others) in [(1, 2), (2, 1)] {
        let container = start(json!({"mounts": mounts, "selinux": label("box_t", &format!("s0:c{mine}"))}));
        let script = |n| format!("cat /volume{n}/file && echo x >/volume{n}/made");
        assert_eq!(sh_in(&container, &script(mine)), "content\n");
        let ran = exec_in(&container, &shell(&script(others), None));
        assert!(ran.status.code != Some(0) && ran.err.contains("Permission denied"), "{ran:?}");
        container.close(None).expect("close");
    }
}

#[test]
fn each_program_in_a_container_has_the_one_that_is_said() {
    let label = |level| label("box_t", level);
    let container = start(json!({"selinux": label("s0:c1")}));
    assert_eq!(shown(&sh_in(&container, SHOW)), label("s0:c1"));
    let ran = exec_in(&container, &shell(SHOW, Some(&label("s0:c2"))));
    assert_eq!(shown(&ran.out), label("s0:c2"), "{ran:?}");
    container.close(None).expect("close");

    // A /proc inside that leads elsewhere changes nothing (CVE-2019-16884, CVE-2025-52881).
    let container = start(json!({"capabilities": {"add": ["sys_admin"]}, "readonly_paths": [], "masked_paths": []}));
    let secret = "mkdir -p /tmp/proc/self/attr && : >/tmp/proc/self/attr/exec && mount --bind /tmp/proc /proc";
    sh_in(&container, secret);
    // Another proc shows what it really has.
    let show = "mkdir -p /tmp/real && mount -t proc proc /tmp/real && cat /tmp/real/self/attr/current";
    let ran = exec_in(&container, &shell("cat /proc/self/attr/exec; kill -0 1", Some(&label("s0"))));
    assert_eq!(ran.out, "", "nothing was written there: {ran:?}");
    assert!(ran.err.contains("Permission denied"), "a box may not signal who is host_t: {ran:?}");
    assert_eq!(shown(&sh_in(&container, show)), self::label("host_t", "s0-s0:c0.c9"));
    let ran = exec_in(&container, &shell("cat /tmp/real/self/attr/current", Some(&label("s0"))));
    assert_eq!(shown(&ran.out), label("s0"), "{ran:?}");
    container.close(None).expect("close");
}

/// The labels of these paths in the container.
fn labels_of(container: &Container, paths: &[&str]) -> Vec<String> {
    let root = format!("/proc/{}/root", container.pid());
    let paths = paths.iter().map(|path| format!("{root}{path}"));
    let done = std::process::Command::new("stat").args(["-c", "%C"]).args(paths).output().expect("stat");
    assert!(done.status.success(), "{done:?}");
    String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn file_systems_of_the_container_have_the_label_of_mounts() {
    let own = "system_u:object_r:own_t:s0:c1";
    let fields = json!({
        "selinux": label("box_t", "s0:c1"), "mount_label": own, "files": {"/etc/app.conf": "x"},
        "mounts": [{"type": "tmpfs", "target": "/scratch"}], "devices": ["/dev/fuse"],
    });
    let places = ["/dev", "/dev/shm", "/dev/pts", "/scratch", "/etc/app.conf"];
    let container = start(fields.clone());
    assert_eq!(labels_of(&container, &places), [own; 5]);
    assert_eq!(labels_of(&container, &["/etc/passwd", "/usr/bin"]), ["system_u:object_r:host_t:s0"; 2], "the host's");
    sh_in(&container, "echo x >/scratch/made && echo x >/dev/shm/made");
    container.update(|spec| spec.shm_size = Some(1 << 20)).expect("update");
    assert_eq!(labels_of(&container, &["/scratch/made", "/dev/shm/made"]), [own; 2]);
    container.close(None).expect("close");

    // Of others with another category nothing is reached, also by who has the mount.
    let dir = tmp();
    let image = busybox_image(dir.path()).expect("busybox");
    label_file(&image, "secret_t", "s0");
    let layers = json!({"lower": [image]});
    let container = start(with(fields.clone(), json!({"rootfs": layers, "devices": []})));
    assert_eq!(labels_of(&container, &["/", "/bin/busybox", "/etc/motd"]), [own; 3]);
    sh_in(&container, "echo x >/etc/motd && echo x >/made && mkdir /dir && mount | grep -q ' / .*context='");
    assert_eq!(labels_of(&container, &["/made", "/dir", "/etc/motd"]), [own; 3]);
    let ran = exec_in(&container, &shell("cat /made", Some(&label("box_t", "s0:c2"))));
    assert!(ran.out.is_empty() && ran.status.code != Some(0), "{ran:?}");
    container.close(None).expect("close");
    assert_eq!(fs::read_to_string(image.join("etc/motd")).expect("motd"), "image\n");
}

#[test]
fn an_image_of_the_layer_and_a_shared_memory_have_it() {
    let own = "system_u:object_r:own_t:s0";
    let pod = Pod::start(&spec(json!({"mount_label": own})), Pod::SHARE).expect("a pod");
    let other = format!("{own}:c2");
    let container = pod.container(&spec(json!({"mount_label": other}))).expect("a container");
    assert_eq!(labels_of(&container, &["/dev/shm", "/dev/pts"]), [own, &other], "the pod's, and its own");
    container.close(None).expect("close");
    pod.close(None).expect("close");
    if !is_root() {
        return;
    }
    let dir = tmp();
    let layers = json!({"lower": [busybox_image(dir.path()).expect("busybox")]});
    let disk = |filesystem: &str, size: &str| json!({"size": size, "backend": "image", "filesystem": filesystem});
    for (filesystem, size) in [("ext4", "16M"), ("xfs", "320M"), ("btrfs", "128M")] {
        let disk = disk(filesystem, size);
        let fields = json!({"disk": disk, "rootfs": layers, "mount_label": own, "selinux": label("box_t", "s0")});
        let container = start(fields);
        sh_in(&container, "echo x >/dev/made && echo x >/made");
        assert_eq!(labels_of(&container, &["/dev/made", "/made"]), [own; 2], "{filesystem}");
        container.close(None).expect("close");
    }
    // The bound of inodes takes a second mount of the image when it grows.
    let fields =
        json!({"disk": disk("ext4", "16M"), "inodes": 1000, "mount_label": own, "selinux": label("box_t", "s0")});
    let container = start(fields);
    container.update(|spec| spec.disk = Some((32 << 20).into())).expect("a larger image");
    container.update(|spec| spec.ptys = Some(9)).expect("other terminals");
    assert_eq!(labels_of(&container, &["/dev", "/dev/pts"]), [own; 2]);
    container.add_device("/dev/fuse").expect("a device");
    assert_eq!(labels_of(&container, &["/dev/fuse"]), [own]);
    container.close(None).expect("close");
}

#[test]
fn a_refused_label_of_mounts_is_an_error() {
    let error = refused(json!({"argv": ["true"], "mount_label": "system_u:object_r:no_such_t:s0"}));
    assert_eq!((error.field(), error.errno()), (Some("mount_label"), libc::EINVAL), "{error}");
    let error = refused(json!({"argv": ["true"], "mount_label": "system_u:object_r:secret_t:s0"}));
    let of_mounts = |error: ringfence::Error| {
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("mount_label")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("relabelto")), "{error}");
    };
    of_mounts(error);
    if is_root() {
        // What the caller mounts itself.
        let fields = json!({"argv": ["true"], "mount_label": "system_u:object_r:secret_t:s0"});
        of_mounts(refused(with(fields.clone(), json!({"devices": ["/dev/fuse"]}))));
        of_mounts(refused(with(fields, json!({"disk": {"size": "16M", "backend": "image"}}))));
    }
}

/// What of add_key(2) and keyctl(2) a program may do with its session keyring, and whose label that has.
#[test]
fn the_session_keyring_is_the_program_s() {
    let script = "import ctypes
c, b = ctypes.CDLL(None), ctypes.create_string_buffer(200)
print(c.syscall(248, b'user', b'name', b'payload', 7, -3) > 0, c.syscall(250, 17, -3, b, 200) > 0 and b.value.decode())";
    let shows = |out: &str, label: &str| assert_eq!(out, format!("True {label}\n"));
    let fields = json!({"selinux": label("box_t", "s0:c1"), "seccomp": "none"});
    for init in [true, false] {
        let ran = run(with(fields.clone(), json!({"argv": ["python3", "-c", script], "init": init})));
        shows(&ran.out, &label("box_t", "s0:c1"));
    }
    let container = start(fields);
    for (own, level) in [(None, "s0:c1"), (Some(label("box_t", "s0:c2")), "s0:c2")] {
        let mut command = Command::new("python3");
        command.args(["-c", script]);
        command.selinux = own;
        let ran = exec_in(&container, &command);
        shows(&ran.out, &label("box_t", level));
    }
    container.close(None).expect("close");
}

#[test]
fn a_labelled_program_that_is_pid_one_ends_with_its_container() {
    let container = start(json!({"argv": ["sleep", "1000"], "init": false, "selinux": label("box_t", "s0")}));
    let info: Value = serde_json::from_str(&container.info_json()).expect("JSON");
    let pid = |name: &str| nix::unistd::Pid::from_raw(info[name].as_i64().expect("a pid") as i32);
    nix::sys::signal::kill(pid("keeper_pid"), nix::sys::signal::Signal::SIGKILL).expect("kill");
    assert!(container.wait_end(Some(std::time::Duration::from_secs(60))).expect("wait"));
    let stat = fs::read_to_string(format!("/proc/{}/stat", container.pid())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "it lives on: {stat}");
    let _ = container.close(None);
}

#[test]
fn the_policy_says_what_a_program_inherits() {
    let secret = labelled_dir("secret_t", "s0");
    let file = fs::File::open(secret.path().join("file")).expect("the file");
    let container = start(json!({}));
    let inherits = |label: Option<&str>| {
        let mut command = shell("ulimit -Sn; ulimit -Hn; cat <&5", label);
        command.pass_fds.insert(file.as_raw_fd(), 5);
        command.rlimits.insert(Resource::Nofile, Rlimit { soft: 64, hard: 128 });
        command.env.insert("LD_PRELOAD".into(), Some("/no/such/library".into()));
        let ran = exec_in(&container, &command);
        (ran.out, ran.err.contains("LD_PRELOAD"))
    };
    assert_eq!(inherits(None), ("64\n128\ncontent\n".to_owned(), true));
    assert_eq!(inherits(Some(&label("box_t", "s0"))), ("128\n128\n".to_owned(), false));
    container.close(None).expect("close");
}

#[test]
fn what_the_policy_refuses_is_said() {
    let container = start(json!({}));
    let refusals = |kind: &str, fields: Value| {
        let label = label(kind, "s0");
        let no_new_privs = fields["no_new_privs"].as_bool();
        let errors = [true, false]
            .map(|init| refused(with(json!({"argv": ["true"], "selinux": label, "init": init}), fields.clone())));
        let mut command = shell("true", Some(&label));
        command.no_new_privs = no_new_privs;
        errors.into_iter().chain([container.spawn(&command).expect_err("a label")])
    };
    for error in refusals("no_such_t", json!({})) {
        assert_eq!((error.field(), error.errno()), (Some("selinux"), libc::EINVAL), "{error}");
        assert!(error.to_string().contains("the policy has no label \"system_u:system_r:no_such_t:s0\""), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("user:role:type:level")), "{error}");
    }
    for error in refusals("closed_t", json!({"no_new_privs": false})) {
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("argv[0]")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("process { transition }")), "{error}");
    }
    for error in refusals("strict_t", json!({})) {
        assert_eq!((error.kind(), error.field()), (ErrorKind::PermissionDenied, Some("argv[0]")), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("nnp_transition")), "{error}");
    }
    let ran = run(json!({"argv": ["/bin/sh", "-c", SHOW], "selinux": label("strict_t", "s0"), "no_new_privs": false}));
    assert_eq!(shown(&ran.out), label("strict_t", "s0"));
    // What has no file of the label's is not run under it; one that is not there is as without a label.
    let secret = labelled_dir("secret_t", "s0");
    let program = secret.path().join("file");
    fs::copy("/bin/true", &program).expect("a program");
    label_file(&program, "secret_t", "s0");
    let mounts = json!([format!("{}:/opt", secret.path().display())]);
    for (argv0, kind) in [("/opt/file", ErrorKind::PermissionDenied), ("/opt/none", ErrorKind::NotFound)] {
        let error = refused(json!({"argv": [argv0], "mounts": mounts, "selinux": label("box_t", "s0")}));
        assert_eq!((error.kind(), error.field()), (kind, Some("argv[0]")), "{error}");
        let about_labels = error.hint().is_some_and(|hint| hint.contains("entrypoint"));
        assert_eq!(about_labels, kind == ErrorKind::PermissionDenied, "{error}");
    }
    assert_eq!(run(json!({"argv": ["/opt/file"], "mounts": mounts})).status.code, Some(0));
    container.close(None).expect("close");
}
