"""Fixtures of the attacks.

tests/run: as=root,user vm=root timeout=300
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchers import IDMAPS, Root


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """A root file system with the attackers and nothing else."""
    return Root(tmp_path / "root")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's, which nobody shares, with a file."""
    directory = tmp_path / "outside"
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
