"""Labels of SELinux under a policy that is enforced: tests/vm/guest/selinux.cil. What it confines is in tests/rust/selinux.rs.

tests/run: tier=vm vm-boot=selinux
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import ringfence

SHOW = ["cat", "/proc/self/attr/current"]
HOST = "system_u:system_r:host_t:s0-s0:c0.c9"


def label(kind: str = "box_t", level: str = "s0:c1") -> str:
    return f"system_u:system_r:{kind}:{level}"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for path, kind in ((tmp_path, "host_t"), (tmp_path / "secret", "secret_t"), (tmp_path / "plain", "host_t")):
        if path != tmp_path:
            path.write_text("content")
        subprocess.run(["chcon", f"system_u:object_r:{kind}:s0", path], check=True)
    return tmp_path


def test_a_label_confines_the_program_and_what_is_started_beside_it(secret: Path) -> None:
    with ringfence.Container(mounts=[f"{secret}:/data"]) as c:
        assert c.run(SHOW, capture_output=True, text=True).stdout.rstrip("\0\n") == HOST
        assert c.run(["cat", "/data/secret"], capture_output=True, text=True).stdout == "content"
        shown = c.run(SHOW, capture_output=True, text=True, selinux=label()).stdout
        assert shown.rstrip("\0\n") == label()
        ran = c.run(["cat", "/data/plain", "/data/secret"], capture_output=True, text=True, selinux=label())
        assert (ran.returncode, ran.stdout) == (1, "content")
        assert "/data/secret: Permission denied" in ran.stderr
    ran = ringfence.run(SHOW, capture_output=True, text=True, selinux=label(level="s0:c3,c2,c1"))
    assert ran.stdout.rstrip("\0\n") == label(level="s0:c1.c3")
    with ringfence.Container(mounts=[f"{secret}:/data"], selinux=label()) as c:
        assert c.run(SHOW, capture_output=True, text=True).stdout.rstrip("\0\n") == label()
        with pytest.raises(PermissionError):
            c.call(Path.read_text, Path("/data/secret"))
        assert c.call(Path.read_text, Path("/data/plain")) == "content"


def test_file_systems_of_a_container_have_the_label_of_mounts() -> None:
    own = "system_u:object_r:own_t:s0:c1"
    show = ["sh", "-c", "echo x >/dev/shm/x && stat -c %C /dev/shm/x"]
    ran = ringfence.run(show, capture_output=True, text=True, selinux=label(), mount_label=own)
    assert ran.stdout == f"{own}\n"
    with pytest.raises(ringfence.Error) as refused:
        ringfence.run(["true"], mount_label="system_u:object_r:secret_t:s0")
    assert (refused.value.kind, refused.value.field) == ("permission_denied", "mount_label")
    assert "relabelto" in (refused.value.hint or "")


def test_a_refused_label_is_an_error() -> None:
    with pytest.raises(ringfence.Error, match="the policy has no label") as unknown:
        ringfence.run(["true"], selinux=label("no_such_t"))
    assert unknown.value.field == "selinux"
    with ringfence.Container() as c, pytest.raises(ringfence.Error) as closed:
        c.run(["true"], selinux=label("closed_t"))
    assert (closed.value.kind, closed.value.field) == ("permission_denied", "argv[0]")
    assert "process { transition }" in (closed.value.hint or "")
