"""Places below the root of a container, which the container or its image may have made into something else.

tests/run: timeout=600
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from launchers import ROUNDS, Outcome, Root, careless, contained, mount_points, swapping, tree, until_won

import ringfence


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What is mounted."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "marker").write_text("mounted\n")
    return directory


@pytest.fixture
def shared(root: Root) -> Path:
    """A volume that the attacker has too."""
    directory = root / "vol"
    directory.mkdir()
    return directory


@pytest.fixture
def swapped(shared: Path, outside: Path) -> Iterator[Path]:
    """A directory of the shared volume, which is again and again a symlink that leads out of the root."""
    (shared / "a").mkdir()
    (shared / "b").symlink_to(outside)
    with swapping(shared / "a", shared / "b"):
        yield shared / "a"


def _rounds(outside: Path, launch: Callable[[int], Outcome], check: Callable[[Outcome], None]) -> None:
    """Nothing of the host's is changed by any of them, and some start: where there are few rounds, those that come after them."""
    before, mounts = tree(outside), mount_points()
    started = 0
    for number in range(ROUNDS * 20):
        if number >= ROUNDS and started:
            break
        seen = launch(number)
        if seen.started:
            started += 1
            check(seen)
        assert tree(outside) == before
    assert mount_points() == mounts
    assert started, "the race was never lost by the attacker either"


def test_a_careless_mount_lands_outside(root: Root, outside: Path, source: Path, swapped: Path) -> None:
    """Class 4, CVE-2021-30465: a directory of a shared volume becomes a symlink between the look and the mount."""

    def attack() -> bool:
        words = ["--mount", f"{source}:/vol/a", "--tell-mounts"]
        return f" {outside} " in careless("--root", root, *words, "--", "/bin/look", "count").out

    until_won(attack)


@pytest.mark.parametrize("below", ["", "/deep/er"])
def test_mounts_land_inside(root: Root, outside: Path, source: Path, swapped: Path, idmap: str, below: str) -> None:
    """Class 4, CVE-2021-30465: a mount in a volume that somebody else changes."""
    if below:
        (outside / below[1:]).mkdir(parents=True)

    def launch(number: int) -> Outcome:
        mounts = [f"{swapped.parent}:/vol:rw", f"{source}:/vol/a{below}"]
        return contained("/bin/look", "cat", "/proc/self/mountinfo", rootfs=root, idmap=idmap, mounts=mounts)

    def check(seen: Outcome) -> None:
        points = [line.split(" ")[4] for line in seen.out.splitlines()]
        # In the volume, or where the symlink leads inside: its path, below the container's root.
        assert points.count("/vol") == 1, seen
        assert any(point.startswith(("/vol/", str(outside))) for point in points), seen

    _rounds(outside, launch, check)


@pytest.mark.parametrize("target", ["{outside}", "../outside"])
def test_a_careless_mount_follows_the_image(root: Root, outside: Path, source: Path, target: str) -> None:
    """Class 4, CVE-2019-18837: where an image has a symlink, which nobody exchanges, something is to be mounted."""
    (root / "data").symlink_to(target.format(outside=outside))
    words = ["--follow", f"{source}:/data", "--tell-mounts"]
    assert f" {outside} " in careless("--root", root, *words, "--", "/bin/look", "count").out


@pytest.mark.parametrize("layers", [False, True])
def test_mounts_do_not_follow_the_image(root: Root, outside: Path, source: Path, idmap: str, layers: bool) -> None:
    """Class 4, CVE-2019-18837: a symlink of the image is followed inside, as the target and as a parent of it; a link of /proc never is."""
    inside = {str(outside): str(outside), "../outside": "/outside", f"/proc/self/root{outside}": None}
    fields: dict[str, Any] = {"rootfs": {"lower": [str(root)]} if layers else root, "idmap": idmap}
    fields["mounts"] = [f"{source}:/data", f"{source}/marker:/data/marker"]
    before, mounts = tree(outside), mount_points()
    for is_there in (False, True):
        for target, place in inside.items():
            (root / "data").symlink_to(target)
            seen = contained("/bin/look", "cat", "/proc/self/mountinfo", **fields)
            (root / "data").unlink()
            points = [line.split(" ")[4] for line in seen.out.splitlines()]
            if place and is_there:
                assert place in points and f"{place}/marker" in points, seen
            else:
                assert not seen.started and "mounts[0]" in seen.error, seen
            assert tree(outside) == before and mount_points() == mounts
        for place in filter(None, inside.values()):
            (root / place[1:]).mkdir(parents=True, exist_ok=True)


def test_a_careless_mount_point_is_made_outside(root: Root, outside: Path, swapped: Path) -> None:
    """Class 10, CVE-2024-45310: a parent becomes a symlink while the way to a mount point is made."""
    before = tree(outside)

    def attack() -> bool:
        words = [word for i in range(20) for word in ("--mkdir", f"/vol/a/x{i}/y")]
        careless("--root", root, *words, "--", "/bin/look", "count")
        return tree(outside) != before

    until_won(attack)


def test_mount_points_are_made_inside(root: Root, outside: Path, source: Path, swapped: Path, idmap: str) -> None:
    """Class 10, CVE-2024-45310: mount points that are not there yet, of directories, of files, and of `files`."""

    def launch(number: int) -> Outcome:
        mounts = [f"{swapped.parent}:/vol:rw", f"{source}:/vol/a/x{number}/y", f"{source}/marker:/vol/a/m{number}"]
        files = {f"/vol/a/z{number}/f": "text"}
        return contained("/bin/look", "count", rootfs=root, idmap=idmap, mounts=mounts, files=files)

    _rounds(outside, launch, lambda seen: None)


@pytest.mark.parametrize("way", ["--copy-in", "--copy-out"])
def test_a_careless_copy_goes_outside(root: Root, outside: Path, swapped: Path, way: str) -> None:
    """Class 16, CVE-2018-15664: a directory becomes a symlink between the look at it and the copy, in both directions."""
    (outside / "secret").write_text("secret")
    before = tree(outside)
    words = ["--slow", "300", way, "/vol/a/secret" if way == "--copy-out" else "/vol/a/new=pwned"]

    def attack() -> bool:
        seen = careless("--root", root, *words, "--", "/bin/look", "count")
        return seen.out.startswith("secret") or tree(outside) != before

    until_won(attack)


def test_files_are_copied_inside(root: Root, outside: Path, swapped: Path, idmap: str, tmp_path: Path) -> None:
    """Class 16, CVE-2018-15664, and 4 and 10 at a running container: what the host writes, makes, reads and copies by a path inside."""
    (outside / "secret").write_text("secret")
    before = tree(outside)
    # While they are exchanged, one of the two is the directory.
    fine = swapped.parent / "fine"
    fine.mkdir()
    (fine / "secret").write_text("inside")
    mounts = [f"{swapped.parent}:/vol:rw"]
    done = 0
    with ringfence.Container(rootfs=root, idmap=idmap, mounts=mounts) as container:

        def opened(path: str, mode: str) -> bytes:
            with container.open(path, mode) as file:
                return bytes(file.read()) if mode == "rb" else bytes(file.write(b"over"))

        for number in range(ROUNDS):
            out = tmp_path / f"out{number}"
            calls: list[Callable[[], Any]] = [
                lambda: container.write_bytes("/vol/a/file", b"over"),
                lambda: container.copy_in(root / "bin", "/vol/a/new"),
                lambda: container.read_bytes("/vol/a/secret"),
                lambda: opened("/vol/a/secret", "rb"),
                lambda: opened("/vol/a/other", "wb"),
                partial(container.copy_out, "/vol/a", out),
                partial(container.copy_out, "/vol/a/secret", out),
                partial(container.copy_out, "/vol", out),
            ]
            for call in calls:
                try:
                    assert call() != b"secret"
                    done += 1
                except ringfence.Error:
                    pass
            assert tree(outside) == before
            if out.is_symlink() or out.is_file():
                assert out.is_symlink() or out.read_text() != "secret"
                continue
            for found in out.rglob("*"):
                assert found.is_symlink() or found.is_dir() or found.read_bytes() != b"secret", found
    assert done


def test_devices_are_put_inside(root: Root, outside: Path, idmap: str, tmp_path: Path) -> None:
    """Classes 9 and 10 at a running container: a directory of /dev becomes a symlink to a volume while a device is put there, or taken away."""
    fields: dict[str, Any] = {"rootfs": root, "idmap": idmap, "mounts": [f"{outside}:/vol:rw"]}
    (outside / "full").write_text("untouched\n")
    race = tmp_path / "race"
    (race / "a").mkdir(parents=True)
    (race / "b").symlink_to("/vol")
    added = removed = 0
    with ringfence.Container(**fields) as container:
        container.copy_in(race, "/dev/race")
        before = tree(outside)
        swap = ["/bin/swap", "/dev/race/a", "/dev/race/b"]
        with container.popen(swap, stdout=ringfence.PIPE, text=True) as racer:
            assert racer.stdout and racer.stdout.readline() == "swapping\n"
            for number in range(ROUNDS * 20):
                if number >= ROUNDS and added and removed:
                    break
                try:
                    container.add_device("/dev/full:/dev/race/a/full")
                    added += 1
                except ringfence.Error as error:
                    assert error.field and error.field.startswith("devices"), error
                try:
                    container.remove_device("/dev/race/a/full")
                    removed += 1
                except ringfence.Error as error:
                    assert error.kind == "not_found", error
                points = contained("/bin/look", "cat", "/proc/self/mountinfo", container=container).out
                assert tree(outside) == before and " /vol/" not in points, points
            assert racer.poll() is None
            racer.kill()
    assert added and removed


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_a_careless_file_system_follows_the_image(root: Root, outside: Path, name: str) -> None:
    """Classes 8 and 9, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2026-41579, CVE-2026-47766: /proc, /sys or /dev is a symlink."""
    (root / name).rmdir()
    (root / name).symlink_to(outside)
    before = tree(outside)
    seen = careless("--root", root, f"--{name}", "--tell-mounts", "--", "/bin/look", "count")
    assert f" {outside}" in seen.out
    # Nodes and links are there for good; file systems were in the launcher's mount namespace.
    assert (tree(outside) != before) == (name == "dev")


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("layers", [False, True])
def test_file_systems_do_not_follow_the_image(root: Root, outside: Path, idmap: str, name: str, layers: bool) -> None:
    """Classes 8 and 9: where a directory of the container has to be, a symlink is refused, wherever it leads."""
    (root / name).rmdir()
    for target in (outside, "../outside", "/tmp", "bin", "/proc/self/root"):
        (root / name).symlink_to(target)
        before, image = tree(outside), tree(root.path)
        rootfs: Any = {"lower": [str(root)]} if layers else root
        seen = contained("/bin/look", "count", rootfs=rootfs, idmap=idmap)
        assert not seen.started and "symlink" in seen.error and f"/{name}" in seen.error, seen
        assert tree(outside) == before and set(tree(root.path)) == set(image)
        (root / name).unlink()


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_file_systems_do_not_follow_a_file(root: Root, outside: Path, idmap: str, name: str) -> None:
    """Class 8, a variant: the place is a file, or a FIFO that blocks who opens it."""
    (root / name).rmdir()
    (root / name).write_text("")
    assert not contained("/bin/look", "count", rootfs=root, idmap=idmap).started
    (root / name).unlink()
    os.mkfifo(root / name)
    assert not contained("/bin/look", "count", rootfs=root, idmap=idmap).started


def _traps(root: Root, outside: Path) -> None:
    """An image whose /dev has everything already, and all of it leads to a file of the host's."""
    for name in ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin"):
        (root / "dev" / name).symlink_to(outside / "file")
    for name in ("shm", "pts", "mqueue"):
        (root / "dev" / name).symlink_to(outside)


def test_careless_nodes_follow_the_image(root: Root, outside: Path) -> None:
    """Class 9, CVE-2026-88264, CVE-2026-88265: /dev/console and /dev/null of the image are symlinks to files of the host's."""
    _traps(root, outside)
    before = tree(outside)
    (root / "dev/null").unlink()
    careless("--root", root, "--dev", "--", "/bin/look", "count")
    assert tree(outside) != before, "its mode"
    (root / "dev/null").unlink()
    (root / "dev/null").symlink_to(outside / "file")
    seen = careless("--root", root, "--proc", "--null", "--", "/bin/look", "cat", "/proc/self/fd/0")
    assert seen.out == "untouched\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_nodes_do_not_follow_the_image(root: Root, outside: Path, idmap: str, terminal: bool) -> None:
    """Class 9: /dev is the container's own, whatever the image has there, and so is standard input."""
    _traps(root, outside)
    before, image = tree(outside), tree(root.path)
    null = ringfence.DEVNULL
    with ringfence.Container(rootfs=root, idmap=idmap) as container:
        for run in (container.run, lambda argv, **fields: ringfence.run(argv, rootfs=root, idmap=idmap, **fields)):
            if terminal:
                with container.popen(["/bin/look", "stat", "fd:0", "/dev/ptmx"], terminal=True) as process:
                    assert process.wait(10) == 0
                continue
            seen = run(
                ["/bin/look", "stat", "fd:0", "/dev/null", "/dev/ptmx"], stdin=null, stdout=ringfence.PIPE, text=True
            )
            numbers = [line.split(" ")[3] for line in seen.stdout.splitlines()]
            assert numbers == ["1:3", "1:3", "5:2"], seen
    assert tree(outside) == before and tree(root.path) == image
