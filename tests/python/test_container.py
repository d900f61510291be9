"""`Container`: life, processes, limits, what can be asked.

tests/run: vm=delegated
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

import ringfence

SH = "/bin/sh"


def gone(pid: int, within: float = 5) -> bool:
    until = time.monotonic() + within
    while os.path.exists(f"/proc/{pid}"):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def ready(container: ringfence.Container, within: float = 10) -> None:
    """Its main process has said so: what it sets up first is set up."""
    until = time.monotonic() + within
    while "ready\n" not in container.logs():
        assert time.monotonic() < until, container.logs()
        time.sleep(0.01)


def test_the_constructor_starts_it_and_the_block_ends_it() -> None:
    with ringfence.Container(hostname="box") as c:
        pid = c.pid
        assert c.running
        assert c.main is None
        assert c.run(["uname", "-n"], capture_output=True, text=True).stdout == "box\n"
        assert os.path.exists(f"/proc/{pid}")
    assert not c.running
    assert gone(pid)


def test_a_main_process_ends_it() -> None:
    c = ringfence.Container([SH, "-c", "exit 3"])
    assert c.main is not None
    assert c.wait(10) == 3
    assert c.main.returncode == 3
    assert not c.running
    c.close()
    c.close()


def test_streams_of_a_main_process() -> None:
    with ringfence.Container(["cat"], stdin=ringfence.PIPE, stdout=ringfence.PIPE, text=True) as c:
        assert c.main is not None
        assert c.main.communicate("hello\n") == ("hello\n", None)
    with ringfence.Container([SH, "-c", "echo out; echo err >&2"]) as c:
        c.wait(10)
        assert c.logs() == "out\nerr\n"
        assert c.logs(4) == "err\n"
        fd = c.log_fd()
        assert os.get_inheritable(fd) is False
        os.close(fd)


def test_shell_for_the_main_process() -> None:
    with ringfence.Container("echo $((6*7))", shell=True) as c:
        c.wait(10)
        assert c.logs() == "42\n"


def test_processes_share_the_container(container: ringfence.Container) -> None:
    container.run([SH, "-c", "echo kept > /tmp/file"], check=True)
    assert container.run(["cat", "/tmp/file"], capture_output=True).stdout == b"kept\n"


def test_many_at_once(container: ringfence.Container) -> None:
    results: list[bytes] = []

    def work(n: int) -> None:
        results.append(container.run(["echo", str(n)], capture_output=True, timeout=30).stdout)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(b"%d\n" % n for n in range(16))


def test_parallel_starts() -> None:
    codes: list[int] = []

    def work(n: int) -> None:
        codes.append(ringfence.run([SH, "-c", f"exit {n}"], timeout=60).returncode)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == list(range(16))


def test_what_can_be_asked(container: ringfence.Container) -> None:
    assert container.id
    assert container.name is None
    assert container.pid > 0
    assert os.readlink(f"/proc/self/fd/{container.pidfd}").startswith(("anon_inode:[pidfd]", "pidfd:"))
    assert isinstance(container.info, dict)
    assert container.info
    assert container.id in repr(container)


def test_namespaces(container: ringfence.Container) -> None:
    assert set(container.namespaces) == {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup", "time"}
    for kind in ("mnt", "net", "ipc", "uts", "user"):
        namespace = container.namespaces[kind]
        inside = container.run(["readlink", f"/proc/self/ns/{kind}"], capture_output=True, text=True).stdout.strip()
        assert inside == f"{kind}:[{namespace.inode}]"
        assert namespace.inode != os.stat(f"/proc/self/ns/{kind}").st_ino
    fd = container.namespaces["net"].open()
    assert not os.get_inheritable(fd)
    os.close(fd)
    with pytest.raises(KeyError):
        container.namespaces["nonsense"]
    with pytest.raises(ringfence.Error):
        container.ns_fd("nonsense")


def test_a_namespace_of_another_container(container: ringfence.Container) -> None:
    with ringfence.Container(namespaces={"ipc": container, "user": container}) as other:
        assert other.namespaces["ipc"] == container.namespaces["ipc"]


@pytest.mark.needs("memory", "pids")
def test_usage_and_limits() -> None:
    with ringfence.Container(memory="64M", pids=20) as c:
        usage = c.usage()
        assert usage.memory_max == 64 << 20
        assert usage.pids_max == 20
        assert usage.pids_current and usage.pids_current < 20
        assert usage.memory_current is not None
        assert usage.memory_peak is None or usage.memory_peak >= usage.memory_current // 2


@pytest.mark.needs("memory")
def test_memory_runs_out() -> None:
    result = ringfence.run(["tail", "/dev/zero"], memory="32M", timeout=60)
    assert result.returncode == -signal.SIGKILL
    assert result.reason == "out_of_memory"
    assert result.usage.memory_oom_kills is None or result.usage.memory_oom_kills >= 1


@pytest.mark.needs("pids")
def test_processes_run_out() -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done"
    result = ringfence.run([SH, "-c", script], pids=8, stderr=ringfence.PIPE, timeout=60)
    assert b"ork" in result.stderr
    assert result.usage.pids_refused is None or result.usage.pids_refused >= 1


def test_signal_kill_stop() -> None:
    with ringfence.Container(["sleep", "60"]) as c:
        c.signal(signal.SIGTERM)
        assert c.wait(10) == -signal.SIGTERM
    with ringfence.Container(["sleep", "60"]) as c:
        c.kill()
        assert c.wait(10) == -signal.SIGKILL
    c = ringfence.Container(["sleep", "60"])
    assert c.stop() == -signal.SIGTERM
    assert not c.running
    c = ringfence.Container([SH, "-c", "trap '' TERM; echo ready; sleep 60; sleep 60"], stop_timeout=0.3)
    ready(c)
    started = time.monotonic()
    assert c.stop() == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - started < 8
    script = "trap 'exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with ringfence.Container([SH, "-c", script], stop_signal="SIGINT") as c:
        ready(c)
        assert c.stop() == 5


def test_wait_times_out() -> None:
    with ringfence.Container(["sleep", "60"]) as c:
        started = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            c.wait(0.2)
        assert time.monotonic() - started < 3
    with ringfence.Container() as c, pytest.raises(subprocess.TimeoutExpired, match=f"container {c.id}"):
        c.wait(0.01)


def test_closing_ends_waits_of_other_threads() -> None:
    c = ringfence.Container(["sleep", "60"])
    assert c.main is not None
    seen: list[object] = []
    main = c.main

    def wait() -> None:
        seen.append(main.wait(30))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    c.close()
    thread.join(10)
    assert seen == [-signal.SIGKILL]
    assert main.reason in ("container_ended", "signaled")


def test_after_close_calls_are_refused() -> None:
    c = ringfence.Container()
    c.close()
    with pytest.raises(ringfence.Error) as caught:
        c.run(["true"])
    assert caught.value.kind == "closed"
    with pytest.raises(ringfence.Error):
        c.signal(signal.SIGTERM)


def test_freeze_and_thaw(container: ringfence.Container) -> None:
    p = container.popen([SH, "-c", "while :; do echo x; sleep 0.01; done"], stdout=ringfence.PIPE)
    assert p.stdout
    p.stdout.readline()
    try:
        container.freeze()
    except ringfence.Error as error:
        p.kill()
        p.wait()
        p.stdout.close()
        if error.kind in ("unsupported", "permission_denied"):
            pytest.skip(str(error))
        raise
    os.set_blocking(p.stdout.fileno(), False)
    time.sleep(0.2)
    while p.stdout.read():
        pass
    time.sleep(0.2)
    assert not p.stdout.read()
    container.thaw()
    os.set_blocking(p.stdout.fileno(), True)
    assert p.stdout.read(1) == b"x"
    p.stdout.close()
    p.kill()
    p.wait()


def test_names() -> None:
    name = f"python-test-{os.getpid()}"
    with ringfence.Container(name=name) as c:
        assert c.name == name
        assert name in [entry.name for entry in ringfence.ls()]
        again = ringfence.by_name(name)
        assert again.id == c.id
        assert again.run(["true"]).returncode == 0
        with pytest.raises(FileExistsError) as caught:
            ringfence.Container(name=name)
        assert name in str(caught.value)
        del again
        gc.collect()
        assert c.run(["true"]).returncode == 0
    assert name not in [entry.name for entry in ringfence.ls()]
    with pytest.raises(FileNotFoundError):
        ringfence.by_name(name)


def test_detached() -> None:
    name = f"python-detached-{os.getpid()}"
    script = f"import ringfence; ringfence.Container(['sleep', '60'], name={name!r}, detach=True)"
    subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", script], check=True)
    c = ringfence.by_name(name)
    try:
        assert c.running
        (entry,) = [e for e in ringfence.ls() if e.name == name]
        assert entry.detached and entry.state == "running" and entry.command == ["sleep", "60"]
        assert c.run(["echo", "x"], capture_output=True).stdout == b"x\n"
        # A block does not end what was made to live on.
        with ringfence.by_name(name) as other:
            pass
        del other
        gc.collect()
        assert c.running
    finally:
        c.close()
        assert c.stop(0) is None, "a closed handle ends nothing"
        again = ringfence.by_name(name)
        assert again.running
        again.stop(1)
    (entry,) = [e for e in ringfence.ls() if e.name == name]
    assert entry.state == "ended"
    assert entry.exit_code == 128 + signal.SIGTERM
    # Its keeper holds the name until it has left, a moment after the end is recorded.
    until = time.monotonic() + 1
    while name in [e.name for e in ringfence.ls()] and time.monotonic() < until:
        ringfence.gc()
        time.sleep(0.01)
    assert name not in [e.name for e in ringfence.ls()]


def test_a_forgotten_container_is_killed_with_a_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        c = ringfence.Container()
        pid = c.pid
        del c
        gc.collect()
    assert [w.category for w in caught] == [ResourceWarning]
    assert gone(pid)


def test_a_container_that_ended_is_forgotten_silently() -> None:
    c = ringfence.Container(["true"])
    c.wait(10)
    del c
    gc.collect()


def test_a_failed_start_leaves_nothing_to_warn_of() -> None:
    with pytest.raises(ringfence.SpecError):
        ringfence.Container(memory="much")
    with pytest.raises(FileNotFoundError):
        ringfence.Container(["no-such-program"])
    gc.collect()


def test_share_python() -> None:
    with ringfence.Container(share_python=True) as c:
        assert c.run([sys.executable, "-c", "print(6*7)"], capture_output=True).stdout == b"42\n"


def test_this_interpreter_runs() -> None:
    script = "import sys, json, site; print(sys.prefix)"
    assert ringfence.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == sys.prefix + "\n"


def in_venv(venv: Path, script: str) -> str:
    """What the script prints in a virtual environment below a hidden directory."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    site = next((venv / "lib").glob("python3*")) / "site-packages"
    (site / "only_here.py").write_text("answer = 42\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [venv / "bin/python", "-X", "dev", "-W", "error", "-c", script]
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True).stdout


def test_a_virtual_environment_below_a_hidden_directory(tmp_path: Path) -> None:
    script = """
import sys, ringfence
command = [sys.executable, "-c", "import only_here; print(only_here.answer)"]
print(ringfence.run(command, capture_output=True, check=True).stdout)
with ringfence.Container(share_python=True) as c:
    print(c.run(command, capture_output=True, check=True).stdout)
"""
    assert in_venv(tmp_path / "venv", script) == "b'42\\n'\n" * 2


def test_the_hint_for_an_interpreter_in_a_hidden_directory(tmp_path: Path) -> None:
    script = """
import sys, ringfence
with ringfence.Container() as c:
    try:
        c.run([sys.executable, "-c", ""])
    except FileNotFoundError as error:
        print(error.hint)
"""
    assert "share_python=True" in in_venv(tmp_path / "venv", script)


def test_a_program_in_a_hidden_directory_names_the_mount(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho found\n")
    program.chmod(0o755)
    with pytest.raises(FileNotFoundError) as caught:
        ringfence.run([str(program)])
    assert isinstance(caught.value, ringfence.Error)
    assert "mounts" in str(caught.value)
    done = ringfence.run([str(program)], mounts=[str(tmp_path)], capture_output=True)
    assert done.stdout == b"found\n"


def test_files_and_mounts(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("in")
    with ringfence.Container(
        mounts=[f"{tmp_path}:/data:rw"], files={"/etc/app.conf": "text", "/bin.dat": (b"\xff\x00", 0o600)}
    ) as c:
        assert c.run(["cat", "/data/in", "/etc/app.conf"], capture_output=True).stdout == b"intext"
        assert c.run(["cat", "/bin.dat"], capture_output=True).stdout == b"\xff\x00"
        assert c.run(["stat", "-c", "%a", "/bin.dat"], capture_output=True).stdout == b"600\n"
        c.run([SH, "-c", "echo out > /data/out"], check=True)
    assert (tmp_path / "out").read_text() == "out\n"
    assert (tmp_path / "out").stat().st_uid == os.geteuid()


def test_a_terminal() -> None:
    with ringfence.popen([SH, "-c", "tty; stty size"], terminal=(33, 99), stdin=None, stdout=None, stderr=None) as p:
        assert p.terminal_fd is not None
        seen = b""
        while True:
            try:
                data = os.read(p.terminal_fd, 1000)
            except OSError:
                break
            if not data:
                break
            seen += data
    assert b"/dev/pts/" in seen
    assert b"33 99" in seen


def test_plan_and_doctor_are_values() -> None:
    plan = ringfence.plan(["true"], hostname="x")
    assert plan.steps
    assert any("hostname" in str(step.get("field")) for step in plan.steps)
    assert "hostname" in str(plan)
    report = ringfence.doctor()
    assert report.findings
    assert report.ok
    assert all(f.ok or f.remedy for f in report.findings if f.essential)
    assert str(report)
    rows = {finding.what: finding for finding in report.findings}
    rules, groups = rows["devices.rules"], rows["caller.groups"]
    with ringfence.Container() as container:
        info = container.info
        assert rules.ok == (info["device_rules"] is not None), (rules, info)
        kept = info["idmap"]["groups_kept"]
        assert groups.detail.startswith(", ".join(map(str, kept)) or "none "), (groups, kept)
        inside = container.run(
            ["grep", "^Groups:", "/proc/self/status"], capture_output=True, text=True
        ).stdout.split()[1:]
        assert len(inside) >= len(kept), (inside, kept)


def test_gc_and_schema() -> None:
    assert ringfence.gc().remaining == []
    assert "memory" in ringfence.schema()["properties"]
