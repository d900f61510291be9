//! What this machine and this caller can do, why not, and what to do about it.
//!
//! What can be tried is tried, in short-lived tasks of their own; files are asked only for the reasons. Nothing is changed.

mod explain;
pub(crate) mod facts;

use std::fmt;
use std::fs;

use self::explain::{Reason, errno_text};
use self::facts::{Caller, KINDS, Kind};
use crate::cgroup;
use crate::net::{self, netlink::Socket};
use crate::state;
use crate::sys::probe::{self, Refusal};
use crate::sys::rights::{self, CAP_SYS_ADMIN};

const CAP_NET_ADMIN: u32 = 12;

pub(crate) use self::explain::explain;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `namespaces.user`, `cgroup.memory`, `idmap.newuidmap`, ...
    pub what: String,
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do, when not ok.
    pub remedy: Option<String>,
    /// Without it no container starts with the defaults.
    pub essential: bool,
}

/// The table. `Display` draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether containers start with the defaults: everything essential is there.
    pub fn ok(&self) -> bool {
        self.findings.iter().all(|f| f.ok || !f.essential)
    }

    /// The row of that name.
    pub fn get(&self, what: &str) -> Option<&Finding> {
        self.findings.iter().find(|f| f.what == what)
    }

    /// `{"ok": ..., "findings": [{"what", "ok", "detail", "remedy", "essential"}, ...]}`, in the order of the table.
    pub fn to_json(&self) -> String {
        let findings = self.findings.iter().map(|f| {
            serde_json::json!({
                "what": f.what, "ok": f.ok, "detail": f.detail, "remedy": f.remedy, "essential": f.essential,
            })
        });
        serde_json::json!({"ok": self.ok(), "findings": findings.collect::<Vec<_>>()}).to_string()
    }

    fn add(&mut self, what: impl Into<String>, essential: bool, found: Result<String, Reason>) {
        let (ok, detail, remedy) = match found {
            Ok(detail) => (true, detail, None),
            Err((why, remedy)) => (false, why, remedy),
        };
        self.findings.push(Finding { what: what.into(), ok, detail, remedy, essential });
    }
}

impl fmt::Display for Report {
    /// `yes`, `no`, or `NO` where a container cannot do without; remedies stand below their rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
        for finding in &self.findings {
            let mark = match (finding.ok, finding.essential) {
                (true, _) => "yes",
                (false, true) => "NO",
                (false, false) => "no",
            };
            writeln!(f, "{:width$}  {mark:3}  {}", finding.what, finding.detail)?;
            if let Some(remedy) = &finding.remedy {
                writeln!(f, "{:width$}       -> {remedy}", "")?;
            }
        }
        f.write_str(if self.ok() {
            "Containers start here with the defaults."
        } else {
            "Containers do not start here with the defaults: see NO."
        })
    }
}

/// Probes the machine for this thread's caller; nothing is changed. Takes some milliseconds.
pub fn doctor() -> Report {
    let caller = Caller::now();
    let mut report = Report { findings: Vec::new() };
    kernel(&mut report);
    process(&mut report, &caller);
    for kind in &KINDS {
        namespace(&mut report, kind, &caller);
    }
    calls(&mut report, &caller);
    mounts(&mut report, &caller);
    ids(&mut report, &caller);
    groups(&mut report);
    devices(&mut report);
    kept_groups(&mut report);
    disk(&mut report);
    security(&mut report, &caller);
    rest(&mut report, &caller);
    report
}

fn release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

fn kernel(report: &mut Report) {
    let release = release();
    let found = match facts::version(&release) {
        Some(version) if version >= (6, 3) => Ok(format!("Linux {release}")),
        _ => Err((
            format!(
                "Linux {release}: the defaults need about 6.3 (idmapped tmpfs); the rows below tell what is missing"
            ),
            Some("a newer kernel".to_owned()),
        )),
    };
    report.add("kernel", false, found);
}

fn process(report: &mut Report, caller: &Caller) {
    let capable = if caller.has(CAP_SYS_ADMIN) { "with" } else { "without" };
    let who = match facts::user_name(caller.uid) {
        Some(name) => format!("{name} (uid {}), {capable} CAP_SYS_ADMIN", caller.uid),
        None => format!("uid {}, {capable} CAP_SYS_ADMIN", caller.uid),
    };
    let over = if rights::in_initial_user_namespace() { "" } else { ", over a user namespace below the machine's" };
    report.add("caller", false, Ok(format!("{who}{over}")));
    report.add(
        "caller.no_new_privs",
        false,
        match (caller.no_new_privs, caller.uid) {
            (false, _) => Ok("not set".to_owned()),
            (true, 0) => Ok("set".to_owned()),
            (true, _) => Err((
                "set: newuidmap and newgidmap cannot raise privileges, containers have one id".to_owned(),
                Some("run without no_new_privs (systemd: NoNewPrivileges=no)".to_owned()),
            )),
        },
    );
    let filters = match (caller.filtered, caller.filters) {
        (false, _) => "none".to_owned(),
        (true, Some(n)) => format!("{n}; they bind the containers too"),
        (true, None) => "some; they bind the containers too".to_owned(),
    };
    report.add("caller.seccomp_filters", false, Ok(filters));
}

/// How a kind of namespace can be had.
struct Tried {
    direct: Refusal,
    /// In a new user namespace. For the user namespace itself the same as `direct`.
    inside: Refusal,
}

fn try_namespace(kind: &Kind) -> Tried {
    let user = libc::CLONE_NEWUSER as u64;
    if kind.name == "user" {
        let direct = probe::namespaces(user);
        return Tried { direct, inside: direct };
    }
    let attempt = |inside: bool| match kind.flag {
        0 => probe::time_namespace(inside),
        flag => probe::namespaces(flag | if inside { user } else { 0 }),
    };
    Tried { direct: attempt(false), inside: attempt(true) }
}

fn namespace(report: &mut Report, kind: &Kind, caller: &Caller) {
    let tried = try_namespace(kind);
    let found = match (tried.direct, tried.inside) {
        (None, None) => Ok(if kind.name == "user" { "yes" } else { "directly and in a user namespace" }.to_owned()),
        (None, Some(_)) => Ok("directly; not in a user namespace of its own".to_owned()),
        (Some(_), None) => Ok("in a user namespace".to_owned()),
        (Some(_), Some(errno)) => Err(explain::namespace(kind, errno, caller)),
    };
    // Root's containers do without a user namespace where there is none, weaker but running.
    let essential = kind.default && !(kind.name == "user" && caller.has(CAP_SYS_ADMIN));
    report.add(format!("namespaces.{}", kind.name), essential, found);
}

fn calls(report: &mut Report, caller: &Caller) {
    let calls: [(&str, &str, Refusal, bool); 5] = [
        ("clone3", "clone3", probe::clone3(), true),
        ("pidfd", "pidfd_open", probe::pidfd(), true),
        ("openat2", "openat2", probe::openat2(), true),
        ("mount_api", "fsopen", probe::mount_api(), true),
        ("clone_into_cgroup", "CLONE_INTO_CGROUP", probe::clone_into_cgroup(), false),
    ];
    for (what, call, refusal, essential) in calls {
        let found = match refusal {
            None => Ok("yes".to_owned()),
            Some(libc::ENOSYS) => Err(explain::no_such_call(call, caller)),
            // An argument or a size that this kernel does not know.
            Some(libc::EINVAL | libc::E2BIG) => Err(explain::no_such_call(call, caller)),
            Some(errno) => Err((format!("refused: {}", errno_text(errno)), None)),
        };
        report.add(format!("calls.{what}"), essential, found);
    }
}

fn mounts(report: &mut Report, caller: &Caller) {
    let root = caller.has(CAP_SYS_ADMIN);
    let user_namespace = match probe::inside(caller.uid, caller.gid) {
        Ok(inside) => {
            report.add(
                "namespaces.user.map",
                !root && caller.dumpable,
                match inside.map {
                    None => Ok("its own id can be mapped".to_owned()),
                    Some(errno) => Err(explain::id_map(errno, caller)),
                },
            );
            let rows = [
                ("tmpfs", inside.tmpfs, true),
                ("overlay", inside.overlay, true),
                ("proc", inside.proc, true),
                ("sysfs", inside.sysfs, false),
                ("mqueue", inside.mqueue, false),
                ("devpts", inside.devpts, true),
            ];
            if inside.map.is_none() {
                for (name, refusal, essential) in rows {
                    let found = match refusal {
                        None => Ok("in a user namespace".to_owned()),
                        Some(errno) => Err(explain::mount(name, errno, caller)),
                    };
                    report.add(format!("mounts.{name}"), essential, found);
                }
            }
            inside.map.is_none()
        }
        Err(errno) => {
            let why = format!("not tried: the namespaces for it were refused: {}", errno_text(errno));
            report.add("mounts.overlay", !root, Err((why, Some("see the namespaces above".to_owned()))));
            false
        }
    };
    let found = match () {
        () if !root => Err((
            "by root only; not needed for an ordinary user, whose files belong to the container's root".to_owned(),
            None,
        )),
        () if !user_namespace => Err(("not tried: it needs a user namespace".to_owned(), None)),
        () => match probe::idmapped_mount(c"/", caller.uid, caller.gid) {
            None => Ok("the root file system can be".to_owned()),
            Some(libc::EINVAL) => Err((
                "the root file system cannot be idmapped".to_owned(),
                Some("ext4, xfs, btrfs, or a newer kernel for others".to_owned()),
            )),
            Some(libc::ENOSYS) => Err(explain::no_such_call("mount_setattr", caller)),
            Some(errno) => Err((errno_text(errno), None)),
        },
    };
    report.add("mounts.idmapped", false, found);
}

fn ids(report: &mut Report, caller: &Caller) {
    if let Some(ids) = crate::launch::lent_ids() {
        let text = format!("not needed: the {ids} ids of this user namespace can be mapped");
        for row in ["newuidmap", "newgidmap", "subuid", "subgid"] {
            report.add(format!("idmap.{row}"), false, Ok(text.clone()));
        }
        return;
    }
    let root = caller.uid == 0 && rights::in_initial_user_namespace();
    for program in ["newuidmap", "newgidmap"] {
        let found = match facts::program(program) {
            None if root => Ok("not installed; root does not need it".to_owned()),
            None => Err((
                "not installed: containers have one id".to_owned(),
                Some("install it (Debian, Ubuntu: uidmap; Fedora: shadow-utils)".to_owned()),
            )),
            Some(path) => match facts::raises(&path) {
                Ok(how) => Ok(format!("{}, {how}", path.display())),
                Err(why) if root => Ok(format!("{}; {why}, but root does not need it", path.display())),
                Err(why) => Err((
                    format!("{}: {why}", path.display()),
                    Some(format!("as root: chmod u+s {}, or install it again", path.display())),
                )),
            },
        };
        report.add(format!("idmap.{program}"), false, found);
    }
    let name = facts::user_name(caller.uid);
    for (what, path) in [("subuid", "/etc/subuid"), ("subgid", "/etc/subgid")] {
        let text = fs::read(path).map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
        let counts = facts::sub_ids(&text, caller.uid, name.as_deref());
        let total: u64 = counts.iter().map(|&n| u64::from(n)).sum();
        let who = name.clone().unwrap_or_else(|| caller.uid.to_string());
        let found = match counts.len() {
            0 if root => Ok("none; root takes ranges of the machine's pool".to_owned()),
            0 => Err((
                format!("{path} has no line for {who}: containers have one id"),
                Some(format!("as root: usermod --add-{what}s 100000-165535 {who} (a range that nobody else has)")),
            )),
            1 => Ok(format!("{total} ids")),
            n => Ok(format!("{total} ids in {n} ranges")),
        };
        report.add(format!("idmap.{what}"), false, found);
    }
}

fn groups(report: &mut Report) {
    let groups = cgroup::layout_report();
    let found = match groups.layout {
        "none" => Err((groups.detail, Some("mount a cgroup2 file system at /sys/fs/cgroup".to_owned()))),
        layout => Ok(format!("{layout}: {}", groups.detail)),
    };
    report.add("cgroup.layout", false, found);
    for row in groups.controllers {
        let found = if row.usable { Ok(row.detail) } else { Err((row.detail, row.remedy)) };
        report.add(format!("cgroup.{}", row.name), false, found);
    }
}

/// An error's sentence without its hint, which is the remedy and has a line of its own.
fn why_and_remedy(error: &crate::Error) -> (String, Option<String>) {
    let (text, remedy) = (error.to_string(), error.hint().map(str::to_owned));
    let why = remedy.as_deref().and_then(|hint| text.strip_suffix(hint)?.strip_suffix("; "));
    (why.unwrap_or(&text).to_owned(), remedy)
}

/// What has rules about devices.
fn devices(report: &mut Report) {
    let found = if crate::container::may_rule_devices() {
        cgroup::device_rules_way().map_err(|error| why_and_remedy(&error))
    } else {
        let why = "not by this caller: they take CAP_SYS_ADMIN of the machine itself; none are needed in its containers, which are in \
                   user namespaces where no device node can be made";
        Err((why.to_owned(), None))
    };
    report.add("devices.rules", false, found);
}

/// Whether containers have the caller's supplementary groups, and what those may use.
fn kept_groups(report: &mut Report) {
    let groups = crate::launch::kept_groups();
    let shown = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let detail = if groups.is_empty() {
        "none of the caller's come along".to_owned()
    } else {
        format!(
            "{shown} of the caller's come along, with what they may use: containers have one id, and there the kernel lets nobody give them up"
        )
    };
    report.add("caller.groups", false, Ok(detail));
}

/// What can limit a writable layer.
fn disk(report: &mut Report) {
    report.add("disk.tmpfs", false, Ok("the size of a private layer in memory".to_owned()));
    for backend in crate::quota::report() {
        let found = backend.found.map_err(|error| why_and_remedy(&error));
        report.add(format!("disk.{}", backend.name), false, found);
    }
}

fn security(report: &mut Report, caller: &Caller) {
    let found = match probe::seccomp() {
        None => Ok("yes".to_owned()),
        Some(libc::ENOSYS | libc::EINVAL) => Err((
            "this kernel has no seccomp filters".to_owned(),
            Some("a kernel with CONFIG_SECCOMP_FILTER=y".to_owned()),
        )),
        Some(errno) => Err((errno_text(errno), None)),
    };
    report.add("security.seccomp", false, found);
    let found = match probe::landlock() {
        Ok(version) => Ok(format!("interface version {version}")),
        Err(libc::EOPNOTSUPP) => {
            Err(("built in, but not active".to_owned(), Some("add landlock to the kernel's lsm= parameter".to_owned())))
        }
        Err(libc::ENOSYS) => {
            let (why, remedy) = explain::no_such_call("landlock", caller);
            Err((why, remedy.map(|r| format!("{r}, with CONFIG_SECURITY_LANDLOCK=y"))))
        }
        Err(errno) => Err((errno_text(errno), None)),
    };
    report.add("security.landlock", false, found);
    let modules = facts::security_modules();
    report.add(
        "security.modules",
        false,
        Ok(match (modules, facts::apparmor_profile()) {
            (Some(modules), Some(profile)) => format!("{modules}; this process has the AppArmor profile {profile:?}"),
            (Some(modules), None) => modules,
            (None, _) => "not readable here (/sys/kernel/security/lsm)".to_owned(),
        }),
    );
}

/// Whether the kernel leads out of networks that are not internal.
fn forwarding(report: &mut Report, caller: &Caller, has_nftables: bool) {
    let found = if caller.has(CAP_SYS_ADMIN) && caller.has(CAP_NET_ADMIN) {
        let socket = has_nftables.then(|| Socket::open(libc::NETLINK_NETFILTER)).transpose();
        let leads_out = socket.and_then(|socket| net::leads_out(socket.as_ref()));
        leads_out.map(|()| "yes".to_owned()).map_err(|error| why_and_remedy(&error))
    } else {
        Err(("by root only: pasta leads out of the networks of an ordinary user".to_owned(), None))
    };
    report.add("net.forward", false, found);
}

fn rest(report: &mut Report, caller: &Caller) {
    let found = match probe::executable_memfd() {
        None => Ok(match facts::sysctl("vm.memfd_noexec") {
            Some(value) => format!("yes (vm.memfd_noexec is {value})"),
            None => "yes".to_owned(),
        }),
        Some(errno) => Err(explain::memfd(errno, caller)),
    };
    report.add("keeper.memfd", true, found);
    report.add(
        "state.directory",
        true,
        state::dir().map(|path| path.display().to_string()).map_err(|e| (e.to_string(), e.hint().map(str::to_owned))),
    );
    let release = release();
    let nftables = facts::module("nf_tables", &release);
    // To ask a module that is not loaded would load it; it has no chains then.
    forwarding(report, caller, matches!(nftables, facts::Module::Present));
    let found = match nftables {
        // Trying it would load it.
        facts::Module::Loadable => Ok("a module, loaded when it is needed".to_owned()),
        facts::Module::Missing => Err(libc::ENOSYS),
        facts::Module::Present => probe::nftables().map_or_else(|| Ok("yes".to_owned()), Err),
    };
    let found = found.map_err(|errno| match errno {
        libc::EPERM | libc::EACCES => (format!("not to be tried here: {}", errno_text(errno)), None),
        _ => ("this kernel has no nf_tables".to_owned(), Some("a kernel with CONFIG_NF_TABLES".to_owned())),
    });
    report.add("net.nftables", false, found);
    for (what, program, why, remedy) in [
        ("tools.criu", "criu", "checkpoints need it", "install criu 4.0 or later"),
        ("tools.pasta", "pasta", "an ordinary user's containers need it to reach the network", "install passt"),
    ] {
        let found = match facts::program(program) {
            Some(path) => Ok(path.display().to_string()),
            None => Err((format!("not installed; {why}"), Some(remedy.to_owned()))),
        };
        report.add(what, false, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    fn unshare(options: &[&str], program: &[&str]) -> bool {
        let mut command = Command::new("unshare");
        command.args(options).args(program).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    /// Every answer is compared with what unshare(1) and mount(8) can do at the same time, as the same caller.
    #[test]
    fn what_doctor_says_is_true() {
        let report = doctor();
        let options = ["-U", "-m", "-p", "-n", "-i", "-u", "-C", "-T"];
        for (kind, option) in KINDS.iter().zip(options) {
            let mut ok = unshare(&[option], &["true"]);
            if option == "-p" {
                ok = unshare(&["-pf"], &["true"]);
            }
            ok |= unshare(&["-U", &format!("{option}f")], &["true"]);
            let row = report.get(&format!("namespaces.{}", kind.name)).unwrap();
            assert_eq!(row.ok, ok, "{row:?}\n{report}");
            assert_eq!(row.remedy.is_some(), !ok, "{row:?}");
        }
        for (row, script) in [
            ("mounts.proc", "mount -t proc proc /proc"),
            ("mounts.tmpfs", "mount -t tmpfs tmpfs /tmp"),
            (
                "mounts.overlay",
                "mount -t tmpfs t /tmp && cd /tmp && mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m",
            ),
        ] {
            let ok = unshare(&["-Urmpfni"], &["sh", "-c", script]);
            assert_eq!(report.get(row).is_some_and(|row| row.ok), ok, "{row}\n{report}");
        }
        assert_eq!(report.get("calls.clone3").unwrap().ok, probe::clone3().is_none());
        if let Some(expected) = std::env::var_os("RINGFENCE_TEST_DOCTOR") {
            let (row, words) = expected.to_str().unwrap().split_once('=').unwrap();
            let row = report.get(row).unwrap();
            assert!(format!("{row:?}").contains(words), "{row:?} does not say {words:?}\n{report}");
        }
    }

    /// The test above in another process, after `prepare`.
    fn under(expected: &str, program: &[&str], prepare: impl Fn() -> std::io::Result<()> + Send + Sync + 'static) {
        // The build directory may be closed to others.
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let own = dir.path().join("test");
        // Not by this process: a test that forks beside would hold the file open for writing (ETXTBSY).
        let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&own).status().unwrap();
        assert!(copied.success());
        let mut words: Vec<&std::ffi::OsStr> = program.iter().map(std::ffi::OsStr::new).collect();
        words.push(own.as_os_str());
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["--exact", "doctor::tests::what_doctor_says_is_true", "--nocapture"])
            .current_dir("/")
            .env("RINGFENCE_STATE_DIR", "/tmp/ringfence-doctor-test")
            .env("RINGFENCE_TEST_DOCTOR", expected);
        // SAFETY: `prepare` makes system calls only.
        unsafe { command.pre_exec(prepare) };
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}{text}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test was not run");
    }

    fn root() -> bool {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            println!("SKIP: root only");
        }
        root
    }

    #[test]
    fn without_cap_sys_admin() {
        if root() {
            let setpriv = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
            under("caller=without CAP_SYS_ADMIN", &setpriv, || Ok(()));
        }
    }

    #[test]
    fn as_an_ordinary_user() {
        if root() {
            let setpriv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
            under("caller=(uid 65534), without CAP_SYS_ADMIN", &setpriv, || Ok(()));
        }
    }

    #[test]
    fn rules_of_devices_and_groups_that_come_along() {
        if !nix::unistd::geteuid().is_root() {
            let row = doctor().get("devices.rules").unwrap().clone();
            return assert!(!row.ok && row.detail.contains("CAP_SYS_ADMIN"), "{row:?}");
        }
        let report = doctor();
        let row = report.get("devices.rules").unwrap();
        assert_eq!(report.get("caller.groups").unwrap().detail, "none of the caller's come along");
        // What it says is what a container has.
        let started = crate::Container::start(&crate::Spec::new().device_rules(["deny c 1:7 w".parse().unwrap()]));
        match started {
            Ok(container) => {
                let info: serde_json::Value = serde_json::from_str(&container.info_json()).unwrap();
                let words = if info["device_rules"] == "bpf" { "BPF program" } else { "controller of v1" };
                assert!(row.ok && row.detail.contains(words), "{row:?}: {info}");
            }
            Err(error) => assert!(!row.ok && row.remedy.is_some(), "{row:?}: {error}"),
        }
        // Without subordinate ids they do: 4 and 24 are no primary groups.
        let setpriv = ["setpriv", "--reuid", "54321", "--regid", "54321", "--groups", "4,24,54321"];
        under("caller.groups=4, 24 of the caller's come along", &setpriv, || Ok(()));
        under("devices.rules=not by this caller", &setpriv, || Ok(()));
    }

    #[test]
    fn with_no_namespaces_left() {
        // In a user namespace of its own, whose limit the caller may set.
        let script = "echo 0 >/proc/sys/user/max_net_namespaces && exec \"$@\"";
        let program = ["unshare", "-Ur", "sh", "-c", script, "sh"];
        if unshare(&program[1..], &["true"]) {
            under("namespaces.net=user.max_net_namespaces is 0", &program, || Ok(()));
        } else {
            println!("SKIP: no user namespace here");
        }
    }

    /// A container manager's filter: clone and unshare of namespaces are EPERM, clone3 is ENOSYS.
    fn deny_namespaces() -> std::io::Result<()> {
        const LOAD: u16 = 0x20;
        const EQUAL: u16 = 0x15;
        const ANY_OF: u16 = 0x45;
        const RETURN: u16 = 0x06;
        const KINDS: u32 = probe::CLONEABLE as u32;
        let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
        let errno = |errno: i32| jump(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0);
        let filter = [
            jump(LOAD, 0, 0, 0),
            jump(EQUAL, libc::SYS_clone3 as u32, 4, 0),
            jump(EQUAL, libc::SYS_clone as u32, 1, 0),
            jump(EQUAL, libc::SYS_unshare as u32, 0, 4),
            // The low half of the first argument; for unshare also the time namespace.
            jump(LOAD, 16, 0, 0),
            jump(ANY_OF, KINDS, 1, 2),
            errno(libc::ENOSYS),
            errno(libc::EPERM),
            jump(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: integers, then a program that outlives the call.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) < 0
        };
        if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }

    #[test]
    fn under_a_filter_that_denies_namespaces() {
        under("namespaces.user=a seccomp filter of this process", &["env"], deny_namespaces);
        under("calls.clone3=a seccomp filter of this process says", &["env"], deny_namespaces);
    }

    #[test]
    fn the_host_does_not_notice() {
        // In a process of its own: other tests open files at the same time.
        const ALONE: &str = "RINGFENCE_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "doctor::tests::the_host_does_not_notice", "--nocapture"]).env(ALONE, "1");
            let done = alone.output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            return;
        }
        let fds = || fs::read_dir("/proc/self/fd").unwrap().count();
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let namespaces = || KINDS.map(|k| fs::read_link(format!("/proc/self/ns/{}", k.name)).ok());
        let before = (mounts(), namespaces(), nix::sys::prctl::get_dumpable());
        doctor();
        assert_eq!((mounts(), namespaces(), nix::sys::prctl::get_dumpable()), before);
        let first = fds();
        for _ in 0..20 {
            doctor();
        }
        assert_eq!(fds(), first);
    }

    #[test]
    fn the_table_and_json() {
        let finding = |what: &str, ok, remedy: Option<&str>, essential| Finding {
            what: what.into(),
            ok,
            detail: format!("about {what}"),
            remedy: remedy.map(str::to_owned),
            essential,
        };
        let mut report = Report {
            findings: vec![finding("a", true, None, true), finding("long.name", false, Some("do it"), false)],
        };
        assert_eq!(
            report.to_string(),
            "a          yes  about a\nlong.name  no   about long.name\n                -> do it\n\
             Containers start here with the defaults."
        );
        assert_eq!(
            report.to_json(),
            r#"{"findings":[{"detail":"about a","essential":true,"ok":true,"remedy":null,"what":"a"},"#.to_owned()
                + r#"{"detail":"about long.name","essential":false,"ok":false,"remedy":"do it","what":"long.name"}],"ok":true}"#
        );
        report.findings[1].essential = true;
        assert!(!report.ok() && report.to_string().contains("NO"));
        assert_eq!(report.get("a").unwrap().detail, "about a");
    }

    #[test]
    fn explanations_of_failed_steps() {
        assert_eq!(explain("read", libc::EIO), None);
        assert!(explain("clone3", libc::EAGAIN).unwrap().contains("RLIMIT_NPROC"));
        assert!(explain("openat2", libc::ENOSYS).unwrap().contains("5.6"));
        assert!(explain("mount_setattr", libc::EINVAL).unwrap().contains("idmapped"));
        assert!(explain("write uid_map", libc::EINVAL).unwrap().contains("/proc/self/uid_map"));
        assert!(explain("mount overlay", libc::ENODEV).unwrap().contains("modprobe overlay"));
    }
}
