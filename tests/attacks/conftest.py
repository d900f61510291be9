"""Fixtures of the attacks.

tests/run: as=root,user vm=root timeout=300
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchers import IDMAPS, Root


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A directory where files are devices and add capabilities: /tmp is often mounted so that they do not."""
    with tempfile.TemporaryDirectory(
        prefix="attacks-", dir=os.environ.get("RINGFENCE_TEST_PUBLIC", "/var/tmp")
    ) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def root(on_disk: Path) -> Root:
    """A root file system with the attackers and nothing else."""
    return Root(on_disk / "root")


@pytest.fixture
def outside(on_disk: Path) -> Path:
    """A directory of the host's, which nobody shares, with a file."""
    directory = on_disk / "outside"
    directory.mkdir()
    (directory / "file").write_text("untouched\n")
    return directory


@pytest.fixture(params=IDMAPS)
def idmap(request: pytest.FixtureRequest) -> str:
    """How ids are mapped: with a user namespace, and for root without."""
    return str(request.param)


@pytest.fixture(autouse=True)
def _readable(tmp_path: Path) -> Iterator[None]:
    """Only the attack is in the attacker's way, and not a mode of a temporary directory."""
    for directory in (tmp_path, *tmp_path.parents[:3]):
        if directory.stat().st_uid == os.geteuid():
            directory.chmod(0o755)
    yield
