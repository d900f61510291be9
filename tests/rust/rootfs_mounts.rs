//! Mounts, files from bytes, /dev, masked and read-only paths.
//!
//! tests/run: timeout=600

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use common::*;
use ringfence::ErrorKind;

#[allow(dead_code, reason = "each test program uses a part of it")]
mod common;

/// A directory `in` with a file in it.
fn source() -> (Tmp, String) {
    let dir = tmp();
    fs::create_dir(dir.path().join("in")).expect("a directory");
    fs::write(dir.path().join("in/f"), "host\n").expect("a file");
    let path = dir.path().join("in").to_str().expect("UTF-8").to_owned();
    (dir, path)
}

// --- binds ---

#[test]
fn directories_and_files_read_only_and_read_write() {
    let (_dir, path) = source();
    let script =
        "cat /d/f /f; for f in /d/f /d/new /f /rw/f /rw/new; do (echo inside >>$f) 2>/dev/null && echo $f; done; true";
    let mounts = json!([
        format!("{path}:/d"),
        {"source": format!("{path}/f"), "target": "/f"},
        {"source": path, "target": "/rw", "rw": true},
    ]);
    assert_eq!(sh(script, json!({"mounts": mounts})), "host\nhost\n/rw/f\n/rw/new\n");
    assert_eq!(fs::read_to_string(format!("{path}/f")).expect("read"), "host\ninside\n");
    let new = fs::metadata(format!("{path}/new")).expect("made inside");
    assert_eq!((new.uid(), new.gid()), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
}

#[test]
fn a_writable_file() {
    let (_dir, path) = source();
    sh("echo inside >/etc/one", json!({"mounts": [format!("{path}/f:/etc/one:rw")]}));
    assert_eq!(fs::read_to_string(format!("{path}/f")).expect("read"), "inside\n");
}

#[test]
fn binds_give_no_devices_and_no_set_user_id() {
    let (_dir, path) = source();
    let options = sh("grep ' /d ' /proc/self/mountinfo | cut -d' ' -f6", json!({"mounts": [format!("{path}:/d:rw")]}));
    for option in ["nosuid", "nodev", "rw"] {
        assert!(options.trim().split(',').any(|o| o == option), "{options}");
    }
}

/// One message between two processes brings 253 descriptors, and root's binds take one each of this program's.
#[test]
fn hundreds_of_binds() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    // Root's are descriptors of this program while it starts: 1,024 are customary, and more on request.
    let (_, hard) = getrlimit(RLIMIT_NOFILE).unwrap();
    setrlimit(RLIMIT_NOFILE, hard, hard).unwrap();
    let (_dir, path) = source();
    let binds = |count: usize| -> Vec<String> { (0..count).map(|i| format!("{path}:/binds/{i}")).collect() };
    for count in [300, 1000] {
        let script = format!(
            "cat /binds/0/f /binds/{}/f; ls /proc/self/fd | wc -l; grep -c ' /binds/' /proc/self/mountinfo",
            count - 1
        );
        assert_eq!(sh(&script, json!({"mounts": binds(count)})), format!("host\nhost\n4\n{count}\n"));
    }
    if is_root() {
        let error = refused(json!({"argv": ["true"], "mounts": binds(8300)}));
        assert!(error.field().is_some_and(|field| field.starts_with("mounts[8")), "{error}");
        assert_eq!((error.kind(), error.errno()), (ErrorKind::Exhausted, libc::E2BIG), "{error}");
    }
}

/// A program that may have few descriptors.
const FEW: &str = "RINGFENCE_TEST_FEW";

#[test]
fn more_binds_than_the_program_may_have_descriptors() {
    let name = "more_binds_than_the_program_may_have_descriptors";
    if std::env::var_os(FEW).is_none() {
        let mut few = std::process::Command::new("sh");
        few.args(["-c", "ulimit -n 400; exec \"$0\" --exact \"$1\""]).arg(std::env::current_exe().expect("a path"));
        let ran = few.arg(name).env(FEW, "1").output().expect("a shell");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        return;
    }
    let (_dir, path) = source();
    let binds: Vec<String> = (0..600).map(|i| format!("{path}:/binds/{i}")).collect();
    let error = refused(json!({"argv": ["true"], "mounts": binds}));
    assert!(error.field().is_some_and(|field| field.starts_with("mounts[")), "{error}");
    assert_eq!((error.kind(), error.errno()), (ErrorKind::Exhausted, libc::EMFILE), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("RLIMIT_NOFILE")), "{error}");
    // Nothing of it is kept.
    sh("test -e /binds/99/f", json!({"mounts": binds[..100]}));
}

/// What is mounted below the source comes along, read-only too.
#[test]
fn recursive_binds() {
    if !is_root() {
        return skip("only root can mount below the source");
    }
    let (_dir, path) = source();
    let below = format!("{path}/below");
    fs::create_dir(&below).expect("a directory");
    let mounted =
        nix::mount::mount(Some("tmpfs"), below.as_str(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"));
    mounted.expect("mount a tmpfs");
    fs::write(format!("{below}/deep"), "deep\n").expect("a file");
    let script =
        "cat /d/below/deep 2>/dev/null; ls /d/below | wc -l; (echo x >/d/below/x) 2>/dev/null && echo wrote; true";
    let bind = |recursive: bool| json!({"mounts": [{"source": path, "target": "/d", "recursive": recursive}]});
    let seen = std::panic::catch_unwind(|| (sh(script, bind(true)), sh(script, bind(false))));
    nix::mount::umount2(below.as_str(), nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    let (with_below, without) = seen.expect("both run");
    assert_eq!(with_below, "deep\n1\n");
    assert_eq!(without, "0\n");
}

#[test]
fn from_an_open_descriptor() {
    let (_dir, path) = source();
    let directory = fs::File::open(&path).expect("open");
    let file = fs::File::open(format!("{path}/f")).expect("open");
    let mounts = json!([
        {"fd": directory.as_raw_fd(), "target": "/d"},
        {"fd": file.as_raw_fd(), "target": "/one", "rw": true},
    ]);
    assert_eq!(
        sh("cat /d/f /one; echo x >/one; ls /proc/self/fd", json!({"mounts": mounts})),
        "host\nhost\n0\n1\n2\n3\n"
    );
    assert_eq!(fs::read_to_string(format!("{path}/f")).expect("read"), "x\n");
    let error = refused(json!({"argv": ["true"], "mounts": [{"fd": 987, "target": "/d"}]}));
    assert_eq!((error.field(), error.errno()), (Some("mounts[0].fd"), libc::EBADF), "{error}");
}

#[test]
fn paths_of_bytes() {
    let dir = tmp();
    let name = OsString::from_vec(b"a\xffb c\n".to_vec());
    fs::create_dir(dir.path().join(&name)).expect("a directory");
    fs::write(dir.path().join(&name).join("f"), "odd\n").expect("a file");
    let mut target = OsString::from("/tgt");
    target.push(&name);
    let mount = ringfence::spec::Mount::bind(dir.path().join(&name), target);
    let spec = ringfence::Spec::new().argv(["sh", "-c", "cat /tgt*/f"]).mount(mount);
    let output = ringfence::run(&spec, None, TIMEOUT).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(output.stdout, b"odd\n");
}

// --- targets ---

#[test]
fn missing_targets_are_made() {
    let (_dir, path) = source();
    let mounts = json!([format!("{path}:/very/deep/down"), {"source": format!("{path}/f"), "target": "/a/b/file"}]);
    assert_eq!(
        sh("cat /very/deep/down/f /a/b/file; stat -c %a /very /a/b", json!({"mounts": mounts})),
        "host\nhost\n755\n755\n"
    );
}

#[test]
fn later_mounts_go_into_earlier_ones() {
    let (_dir, path) = source();
    let mounts = json!([
        {"type": "tmpfs", "target": "/data"},
        format!("{path}:/data/host"),
        {"type": "tmpfs", "target": "/data/more/scratch", "mode": "0700"},
    ]);
    assert_eq!(
        sh("cat /data/host/f; stat -c %a /data/more/scratch; ls /data", json!({"mounts": mounts})),
        "host\n700\nhost\nmore\n"
    );
    let twice = json!([format!("{path}:/data"), {"type": "tmpfs", "target": "/data"}]);
    let error = refused(json!({"argv": ["true"], "mounts": twice}));
    assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{error}");
    let hidden = json!([format!("{path}:/data/host"), {"type": "tmpfs", "target": "/data"}]);
    let error = refused(json!({"argv": ["true"], "mounts": hidden}));
    assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{error}");
}

/// A symlink of the image leads to where it would lead inside, not on the host.
#[test]
fn a_target_through_a_symlink_stays_inside() {
    let dir = tmp();
    let Some(root) = busybox_image(dir.path()) else { return skip("no static busybox") };
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let outside_path = outside.to_str().expect("UTF-8");
    let links =
        [("absolute", outside_path.to_owned()), ("relative", "../../../../../../../../..".to_owned() + outside_path)];
    for (name, target) in &links {
        symlink(target, root.join(name)).expect("a link");
    }
    let (_dir, path) = source();
    for (name, _) in &links {
        let fields = json!({
            "rootfs": root,
            "mounts": [format!("{path}:/{name}/in")],
            "files": {format!("/{name}/made"): "made\n"},
        });
        let error_or_text =
            try_run(with(json!({"argv": ["/bin/sh", "-c", format!("cat /{name}/in/f /{name}/made")]}), fields));
        match error_or_text {
            Ok(ran) => assert_eq!(ran.out, "host\nmade\n", "{name}: {}", ran.err),
            // A link to what is not there cannot be a directory.
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
        assert_eq!(fs::read_dir(&outside).expect("read").count(), 0, "{name} led out");
    }
}

/// `..` is refused when the spec is checked; in a link it ends at the container's root.
#[test]
fn targets_that_cannot_be() {
    let (_dir, path) = source();
    for target in ["/a/../../b", "relative", "/..", ""] {
        let error = refused(json!({"argv": ["true"], "mounts": [{"source": path, "target": target}]}));
        assert_eq!(error.kind(), ErrorKind::InvalidSpec, "{target:?}: {error}");
        assert!(error.field().is_some_and(|f| f.starts_with("mounts[0]")), "{error}");
    }
    // A directory on a file, and the other way round.
    let error = refused(json!({"argv": ["true"], "mounts": [format!("{path}:/etc/passwd")]}));
    assert!(error.errno() == libc::EINVAL && error.hint().is_some(), "{error}");
    let error = refused(json!({"argv": ["true"], "mounts": [format!("{path}/f:/etc")]}));
    assert!(error.errno() == libc::EINVAL && error.hint().is_some(), "{error}");
    // Below a file.
    let error = refused(json!({"argv": ["true"], "mounts": [format!("{path}:/etc/passwd/x")]}));
    assert_eq!((error.field(), error.errno()), (Some("mounts[0]"), libc::ENOTDIR), "{error}");
}

// --- kinds ---

#[test]
fn tmpfs_size_and_mode_are_enforced() {
    let mounts = json!([
        {"type": "tmpfs", "target": "/small", "size": "1M", "mode": "0750"},
        {"type": "tmpfs", "target": "/default"},
        {"type": "tmpfs", "target": "/ro", "rw": false},
    ]);
    let script = "stat -c %a /small /default; head -c 2000000 /dev/zero 2>/dev/null >/small/f || echo full; stat -c %s /small/f
                  (echo x >/ro/x) 2>/dev/null || echo read-only; grep ' /small ' /proc/self/mountinfo | grep -o nosuid,nodev";
    assert_eq!(sh(script, json!({"mounts": mounts})), "750\n1777\nfull\n1048576\nread-only\nnosuid,nodev\n");
}

#[test]
fn proc_sysfs_mqueue_devpts_cgroup() {
    let mounts = json!([
        {"type": "proc", "target": "/m/proc"},
        {"type": "sysfs", "target": "/m/sys"},
        {"type": "mqueue", "target": "/m/mqueue"},
        {"type": "devpts", "target": "/m/pts"},
    ]);
    let script = "stat -f -c %T /m/proc /m/sys /m/pts; cat /m/proc/1/comm; ls /m/sys/class/net; ls /m/pts
                  : >/m/mqueue/q; ls /dev/mqueue; grep ' /m/' /proc/self/mountinfo | grep -c nosuid
                  (echo x >/m/sys/kernel/uevent_helper) 2>/dev/null && echo wrote; true";
    let out = sh(script, json!({"mounts": mounts}));
    let expected = "proc\nsysfs\ndevpts\nringfence\nlo\nptmx\nq\n4\n";
    assert_eq!(out, expected);
    let view = json!({"mounts": [{"type": "cgroup", "target": "/groups"}]});
    let out = sh(
        "stat -f -c %T /groups; cat /groups/cgroup.procs | wc -l; (mkdir /groups/x) 2>/dev/null && echo made; true",
        view,
    );
    assert!(out.starts_with("cgroup2fs\n") && !out.contains("made"), "{out}");
}

#[test]
fn proc_shows_the_container_s_processes_only() {
    let out = sh("ls /proc | grep -c '^[0-9]'; cat /proc/1/comm", json!({}));
    let count: usize = out.lines().next().expect("a number").parse().expect("a number");
    assert!(count <= 4, "{out}");
}

#[test]
fn sysfs_shows_the_container_s_network_and_is_read_only() {
    let script = "ls /sys/class/net; for f in /sys/kernel/mm/transparent_hugepage/enabled /sys/kernel/uevent_helper; do
                  (echo never >$f) 2>/dev/null && echo wrote $f; done; true";
    assert_eq!(sh(script, json!({})), "lo\n");
}

#[test]
fn propagation_is_private() {
    let out = sh("cut -d' ' -f7- /proc/self/mountinfo | grep -cE '^(shared|master|propagate)'; true", json!({}));
    assert_eq!(out, "0\n");
    if !is_root() {
        return;
    }
    // A mount of the host that comes later is not seen, and one made inside is not seen by the host.
    let (_dir, path) = source();
    let container = start(json!({"mounts": [format!("{path}:/d:rw")], "capabilities": {"add": ["sys_admin"]}}));
    let below = format!("{path}/late");
    fs::create_dir(&below).expect("a directory");
    nix::mount::mount(Some("tmpfs"), below.as_str(), Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=64k"))
        .expect("mount a tmpfs");
    fs::write(format!("{below}/f"), "x").expect("a file");
    let seen = sh_in(&container, "ls /d/late | wc -l; mount -t tmpfs inside /mnt && touch /mnt/inside && echo mounted");
    nix::mount::umount2(below.as_str(), nix::mount::MntFlags::MNT_DETACH).expect("unmount");
    assert_eq!(seen, "0\nmounted\n");
    assert!(!fs::read_to_string("/proc/self/mountinfo").expect("mountinfo").contains(" inside "));
    container.close(None).expect("close");
}

// --- files ---

#[test]
fn files_from_bytes_with_their_modes() {
    let fields = json!({"files": {
        "/etc/app.conf": "text\n",
        "/usr/tool": {"data": "#!/bin/sh\necho tool\n", "mode": "755"},
        "/etc/key": {"data": {"base64": "AAEC/w=="}, "mode": "600"},
        "/new/dir/empty": "",
        "/etc/hostname": "replaced\n",
    }});
    let script = "cat /etc/app.conf /etc/hostname; /usr/tool; wc -c </etc/key; stat -c %a:%u:%g:%s /etc/app.conf /usr/tool /etc/key /new/dir/empty
                  echo more >>/etc/app.conf && cat /etc/app.conf";
    let out = sh(script, fields.clone());
    assert_eq!(out, "text\nreplaced\ntool\n4\n644:0:0:5\n755:0:0:20\n600:0:0:4\n644:0:0:0\ntext\nmore\n");
    assert_ne!(fs::read_to_string("/etc/hostname").unwrap_or_default(), "replaced\n");
    // Directories of the host below the topmost have the host's owner.
    let error = refused(json!({"argv": ["true"], "files": {"/usr/bin/no-such-tool": ""}}));
    assert_eq!((error.errno(), error.hint().is_some()), (libc::EACCES, true), "{error}");
    // Made anew for each container.
    assert!(sh("cat /etc/app.conf", fields) == "text\n");
}

#[test]
fn a_file_in_an_image_leaves_the_image_s_own() {
    let dir = tmp();
    let Some(root) = busybox_image(dir.path()) else { return skip("no static busybox") };
    let fields = json!({"rootfs": root, "files": {"/etc/motd": "given\n"}});
    assert_eq!(sh("cat /etc/motd; echo x >/etc/motd", fields), "given\n");
    assert_eq!(fs::read_to_string(root.join("etc/motd")).expect("read"), "image\n");
}

#[test]
fn hosts_and_dns() {
    let fields = json!({"hostname": "db", "hosts": {"web": "10.0.0.1"}, "dns": ["10.0.0.53", "::1"]});
    let out = sh("cat /etc/hosts /etc/resolv.conf", fields);
    for line in ["127.0.0.1\tlocalhost", "127.0.1.1\tdb", "10.0.0.1\tweb", "nameserver 10.0.0.53", "nameserver ::1"] {
        assert!(out.lines().any(|l| l == line), "{line}: {out}");
    }
}

#[test]
fn a_large_file() {
    let data = "x".repeat(8 << 20);
    assert_eq!(sh("wc -c </big", json!({"files": {"/big": data}})), format!("{}\n", 8 << 20));
}

// --- /dev ---

#[test]
fn standard_devices_and_nothing_else() {
    let script = "ls /dev; stat -c '%n %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
                  readlink /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx; find /dev -type b | wc -l
                  (mknod /dev/sda b 8 0) 2>/dev/null && echo made a device; (echo x >/dev/full) 2>/dev/null || echo full
                  stat -c %a /dev /dev/pts /dev/shm; touch /dev/new && echo writable";
    let out = sh(script, json!({}));
    let (names, rest) = out.split_once("/dev/null 1:3\n").expect("/dev/null");
    let names: Vec<_> = names.lines().collect();
    assert_eq!(
        names,
        [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
            "urandom", "zero"
        ]
    );
    assert_eq!(
        rest,
        "/dev/zero 1:5\n/dev/full 1:7\n/dev/random 1:8\n/dev/urandom 1:9\n/dev/tty 5:0\n/proc/self/fd\n/proc/self/fd/0\n\
         /proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n0\nfull\n755\n755\n1777\nwritable\n"
    );
}

const PTY: &str = "import os, pty; m, s = pty.openpty(); print(os.ttyname(s), os.listdir('/dev/pts'))";

#[test]
fn a_devpts_of_its_own() {
    let ran = run(json!({"argv": ["python3", "-c", PTY]}));
    assert!(ran.out.starts_with("/dev/pts/0 "), "{}{}", ran.out, ran.err);
}

#[test]
fn the_size_of_dev_shm() {
    let script = "head -c 3000000 /dev/zero 2>/dev/null >/dev/shm/f || echo full; stat -c %s /dev/shm/f";
    assert_eq!(sh(script, json!({"shm_size": "1M"})), "full\n1048576\n");
    assert_eq!(sh("df -k /dev/shm | tail -n 1 | awk '{print $2}'", json!({})), "65536\n");
}

// --- masked and read-only paths ---

#[test]
fn what_leaks_from_proc_and_sys_is_masked_by_default() {
    let script = "for p in /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/interrupts; do
                    test -e $p || continue; test -c $p || echo file $p; cat $p; done
                  for p in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
                    test -d $p || continue; ls -A $p; (touch $p/x) 2>/dev/null && echo wrote $p; done; true";
    assert_eq!(sh(script, json!({})), "");
    let script =
        "for p in /proc/sys/kernel/panic /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/bus/x /proc/fs/x; do
                    (echo 1 >$p) 2>/dev/null && echo wrote $p; done; true";
    assert_eq!(sh(script, json!({"idmap": if is_root() { "host" } else { "auto" }})), "");
}

#[test]
fn masked_paths_of_the_spec() {
    let fields = json!({
        "files": {"/data/secret": "s", "/one": "1"},
        "masked_paths": ["/data", "/one", "/no/such/path", "/usr/lib/os-release", "/etc/passwd/below"],
    });
    let script = "ls -A /data; cat /one; (echo x >/data/x) 2>/dev/null && echo wrote; umount /data 2>/dev/null && echo gone; true";
    let out = run(with(
        json!({"argv": ["sh", "-c", script]}),
        with(fields, json!({"masked_paths": ["/data", "/one", "/no/such/path"]})),
    ));
    assert_eq!((out.out.as_str(), out.status.code), ("", Some(0)), "{}", out.err);
    // An empty list masks nothing.
    let out = sh("stat -c %F /proc/timer_list /proc/bus", json!({"masked_paths": []}));
    assert_eq!(out, "regular empty file\ndirectory\n");
}

#[test]
fn read_only_paths_of_the_spec() {
    let fields = json!({"files": {"/data/f": "f\n", "/one": "1\n"}, "readonly_paths": ["/data", "/one", "/no/such"]});
    let script =
        "cat /data/f /one; for f in /data/f /data/new /one; do (echo x >$f) 2>/dev/null && echo wrote $f; done; true";
    assert_eq!(sh(script, fields), "f\n1\n");
}

/// A user namespace made inside gives all capabilities, but what was mounted before is locked together.
#[test]
fn masks_are_not_lifted_by_a_user_namespace_made_inside() {
    let fields = json!({"masked_paths": ["/data", "/proc/timer_list"], "files": {"/data/secret": "s"}});
    let script = "umount /data; umount -l /data; umount /proc/timer_list; umount -l /proc; mkdir /tmp/x
                  mount --bind / /tmp/x && ls -A /tmp/x/data; ls -A /data; cat /proc/timer_list; echo end";
    let ran = run(with(json!({"argv": ["unshare", "-Urm", "sh", "-c", script]}), fields));
    // A machine may forbid nested user namespaces, which is as good.
    assert!(ran.out == "end\n" || ran.out.is_empty() && !ran.status.success(), "{}{}", ran.out, ran.err);
}

#[test]
fn the_order_of_many_mounts() {
    let (_dir, path) = source();
    let mounts: Vec<_> = (0..60).map(|i| format!("{path}:/m/{i}")).collect();
    assert_eq!(sh("cat /m/*/f | wc -l", json!({"mounts": mounts})), "60\n");
}

#[test]
fn modes_of_sources_are_kept() {
    let (_dir, path) = source();
    fs::set_permissions(format!("{path}/f"), fs::Permissions::from_mode(0o640)).expect("its mode");
    assert_eq!(sh("stat -c %a:%u:%g /d/f", json!({"mounts": [format!("{path}:/d")]})), "640:0:0\n");
}
