"""Finds and builds the suites: everything that a run needs is gathered in target/suites, so that it also runs elsewhere
(as another user, in the virtual machine), without a compiler and without the checkout.

    target/suites/manifest.json   the suites
    target/suites/rust/           test binaries, examples
    target/suites/prefix/         the C library as `make install` installs it
    target/suites/c/              C programs, linked to it
    target/suites/attacks/        attackers, and the launcher that they succeed against: static, so that they run in any root
    target/suites/python/         the unpacked wheel
    target/suites/pydeps/         pytest
    target/suites/tests/          tests that are interpreted, and the language-neutral cases

A source file may say how it is to be run, in a comment within its first 40 lines:

    tests/run: timeout=600 threads=1 as=root,delegated tier=machine

    timeout   seconds for the whole suite (300)          threads   test threads of a Rust test binary
    as        root, user, delegated (all)                tier      machine, vm (both)
    vm        as `as`, in the virtual machine, where a program takes ten to twenty times as long (root, delegated; root alone for C,
              other languages and examples)
    parts     processes that share the tests (1; one in the virtual machine): each has RINGFENCE_TEST_PART, N/COUNT, and takes each
              COUNTth test from the Nth on; suites of Python do, programs that say so do it themselves and print a plan
    vm-boot   in another boot of the virtual machine: systemd, in which that is pid 1; selinux, with a policy of its own
    harness   none: a Rust test with its own main        link      static: a C program linked to libringfence.a
    args      arguments of a program, comma separated    cflags    more compiler flags, comma separated

The code blocks of README.md and of the pages core/src/*.md that a comment `<!-- prints: TEXT -->` precedes are built and run, and must print that text (`; as: root,delegated` behind it: as these only). Those
behind a `<!-- pytest: timeout=120 -->`, with what a source file may say, are test files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SUITES = TARGET / "suites"

DIRECTIVE = re.compile(r"tests/run:\s*(.+?)\s*(?:\*/)?$")

# How a test of another language is run; the tests speak TAP.
INTERPRETERS = {
    ".lua": ["luajit"],
    ".rb": ["ruby"],
    ".js": ["node"],
    ".py": ["python3"],
    ".php": ["php", "-d", "ffi.enable=1"],
    ".pl": ["perl"],
    ".sh": ["sh"],
}


class BuildError(Exception):
    pass


@dataclass
class Suite:
    name: str
    kind: str  # libtest, doctest, pytest, program
    path: str  # relative to target/suites
    options: dict[str, str] = field(default_factory=dict)
    interpreter: list[str] = field(default_factory=list)


def directives(source: Path) -> dict[str, str]:
    options: dict[str, str] = {}
    try:
        lines = source.read_text(errors="replace").splitlines()[:40]
    except OSError:
        return options
    for line in lines:
        found = DIRECTIVE.search(line)
        if found:
            for word in found.group(1).split():
                key, _, value = word.partition("=")
                options[key] = value
    return options


def _say(text: str) -> None:
    print(f"build: {text}", flush=True)


def _call(command: list[str], env: dict[str, str] | None = None, quiet: bool = False) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.stdout.write(done.stdout if quiet else "")
        raise BuildError(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout


def _newer(source: Path, copy: Path) -> bool:
    return not copy.exists() or source.stat().st_mtime_ns > copy.stat().st_mtime_ns


def _strip(source: Path, copy: Path) -> None:
    """Line tables are most of a test binary, and the virtual machine unpacks all of them into memory."""
    if _newer(source, copy):
        copy.parent.mkdir(parents=True, exist_ok=True)
        _call(["strip", "--strip-debug", "-o", str(copy), str(source)])


def _rust() -> tuple[list[Suite], Path | None]:
    """The suites, and the core's rlib for the examples of the README."""
    _say("Rust tests and examples")
    packages = ["ringfence"]
    if (ROOT / "capi" / "src").is_dir():
        packages.append("ringfence-capi")
    chosen = ["--locked", "--message-format=json"] + [word for package in packages for word in ("-p", package)]
    # Not one command: `cargo test --examples` would make test harnesses of the examples.
    built = _call(["cargo", "test", "--no-run", "--lib", "--tests", *chosen])
    built += _call(["cargo", "build", "--examples", *chosen])
    suites = []
    rlib = None
    for line in built.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if message.get("reason") == "compiler-message":
            sys.stdout.write(message["message"].get("rendered") or "")
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "ringfence":
            rlib = next((Path(name) for name in message["filenames"] if name.endswith(".rlib")), rlib)
        executable = message.get("executable")
        if message.get("reason") != "compiler-artifact" or not executable:
            continue
        target = message["target"]
        kind = target["kind"][0]
        package = "" if "core" in Path(message["manifest_path"]).parts[-2] else "capi-"
        if kind == "example":
            name, how = f"example:{package}{target['name']}", "program"
        elif kind == "test":
            name, how = f"rust:{package}{target['name']}", "libtest"
        elif kind == "bin":
            continue
        else:
            name, how = f"rust:{package}unit", "libtest"
        options = directives(Path(target["src_path"]))
        if options.get("harness") == "none":
            how = "program"
        elif "parts" in options:
            raise BuildError(f"{name}: tests of Rust are shared by threads, not by parts")
        copy = SUITES / "rust" / name.replace(":", "-")
        _strip(Path(executable), copy)
        suites.append(Suite(name, how, str(copy.relative_to(SUITES)), options))
    suites.append(Suite("rust:doc", "doctest", ".", {"as": "root", "tier": "machine", "timeout": "900"}))
    return sorted(suites, key=lambda s: s.name), rlib


def _library() -> Path | None:
    """The C library, installed below target/suites as a user would install it."""
    if not (ROOT / "include" / "ringfence.h").exists():
        return None
    _say("C library")
    prefix = SUITES / "prefix"
    _call(["capi/install.sh"], env={"PREFIX": str(prefix), "DESTDIR": "", "PROFILE": "dev"}, quiet=True)
    return prefix


def _c(prefix: Path | None, area: str) -> list[Suite]:
    sources = sorted([*(ROOT / "tests" / area).glob("*.c"), *(ROOT / "tests" / area).glob("*.cc")])
    if not sources or not prefix:
        return []
    _say(f"C programs of tests/{area}")
    suites = []
    for source in sources:
        options = directives(source)
        program = SUITES / area / source.stem
        program.parent.mkdir(parents=True, exist_ok=True)
        cc = [os.environ.get("CC", "cc"), "-std=c17"]
        cxx = [os.environ.get("CXX", "c++"), "-std=c++17"]
        command = cxx if source.suffix == ".cc" else cc
        command += ["-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-g"]
        command += [word for word in options.get("cflags", "").split(",") if word]
        command += ["-o", str(program), str(source), "-pthread"]
        config = ["pkg-config", "--cflags", "--libs", "ringfence"]
        if options.get("link") == "static":
            config.insert(1, "--static")
        flags = _call(config, env={"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}).split()
        if options.get("link") == "static":
            flags = [str(prefix / "lib/libringfence.a") if flag == "-lringfence" else flag for flag in flags]
        else:
            flags.append("-Wl,-rpath,$ORIGIN/../prefix/lib")
        _call(command + flags)
        suites.append(Suite(f"{area}:{source.stem}", "program", str(program.relative_to(SUITES)), options))
    return suites


def _attackers() -> None:
    """What the tests of tests/attacks run inside."""
    _say("attackers")
    directory = SUITES / "attacks"
    directory.mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "tests" / "attacks").glob("*.c")):
        compiler = os.environ.get("CC", "cc")
        if source.stem == "musl":
            compiler = "musl-gcc"
            if not shutil.which(compiler):
                (directory / source.stem).unlink(missing_ok=True)
                continue
        command = [
            compiler,
            "-std=c17",
            "-D_GNU_SOURCE",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-s",
            "-static",
        ]
        _call([*command, "-o", str(directory / source.stem), str(source), "-pthread"])


def _wheel() -> bool:
    """Builds the wheel and unpacks it, as an installer would."""
    if not (ROOT / "python" / "pyproject.toml").exists():
        return False
    _say("Python wheel")
    maturin = TARGET / "venv" / "bin" / "maturin"
    if not maturin.exists():
        raise BuildError(f"{maturin} is missing: run tests/setup")
    wheels = SUITES / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    _call(
        [str(maturin), "build", "--locked", "--manifest-path", "python/Cargo.toml", "--out", str(wheels)]
        + ["--interpreter", python(), "--auditwheel", "skip"],
        quiet=True,
    )
    (wheel,) = wheels.glob("*.whl")
    shutil.rmtree(SUITES / "python", ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(SUITES / "python")
    for library in (SUITES / "python").rglob("*.so"):
        _call(["strip", "--strip-debug", str(library)])
        library.chmod(0o755)
    return True


def python() -> str:
    """The system's own Python: one below a home directory is out of reach for the ordinary user of the tests."""
    given = os.environ.get("RINGFENCE_TEST_PYTHON")
    if given:
        return given
    return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else os.path.realpath(sys.executable)


def _interpreted(have_python: bool, prefix: Path | None) -> list[Suite]:
    suites = []
    copies = SUITES / "tests"
    shutil.rmtree(copies, ignore_errors=True)
    for area in ("lib", "python", "cases", "attacks", "languages", "data"):
        source = ROOT / "tests" / area
        if source.is_dir():
            shutil.copytree(source, copies / area, ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.cc", "*.rs"))
    # What has to come of the attempts is a table that is read by people too.
    shutil.copy(ROOT / "core" / "src" / "attacks.md", copies / "attacks")
    if have_python:
        for area in ("python", "attacks"):
            shared = directives(copies / area / "conftest.py")
            for source in sorted((copies / area).glob("test_*.py")):
                name = f"{area}:{source.stem.removeprefix('test_')}"
                path = str(source.relative_to(SUITES))
                suites.append(Suite(name, "pytest", path, shared | directives(source)))
    if prefix and (copies / "languages").is_dir():
        for source in sorted((copies / "languages").iterdir()):
            interpreter = INTERPRETERS.get(source.suffix)
            if interpreter and not source.name.startswith(("_", ".")):
                name = f"languages:{source.stem}{source.suffix}"
                path = str(source.relative_to(SUITES))
                suites.append(Suite(name, "program", path, directives(source), interpreter))
    deps = TARGET / "pydeps"
    if deps.is_dir() and _newer(deps / ".ringfence", SUITES / "pydeps" / ".ringfence"):
        shutil.rmtree(SUITES / "pydeps", ignore_errors=True)
        shutil.copytree(deps, SUITES / "pydeps", ignore=shutil.ignore_patterns("__pycache__", "bin"))
    return suites


README_BLOCK = re.compile(r"<!-- prints: (.*?)(?:; as: ([a-z,]+))? -->\n```(python|c|rust)\n(.*?)```\n", re.S)


PYTEST_BLOCK = re.compile(r"<!-- pytest:(.*?)-->\n```python\n(.*?)```\n", re.S)


def _readme(rlib: Path | None, prefix: Path | None, have_python: bool) -> list[Suite]:
    _say("examples of the README and the pages")
    directory = SUITES / "readme"
    directory.mkdir(parents=True, exist_ok=True)
    suites = []
    for page in [ROOT / "README.md", *sorted((ROOT / "core" / "src").glob("*.md"))]:
        suites += _examples(page, directory, rlib, prefix, have_python)
    return suites


def _examples(page: Path, directory: Path, rlib: Path | None, prefix: Path | None, have_python: bool) -> list[Suite]:
    suites = []
    of = page.stem.lower()
    for number, (options, code) in enumerate(PYTEST_BLOCK.findall(page.read_text()), 1):
        if have_python:
            source = directory / f"test_{of}_{number}.py"
            source.write_text(code)
            path = str(source.relative_to(SUITES))
            given = dict(word.split("=", 1) for word in options.split())
            suites.append(Suite(f"readme:{of}-pytest-{number}", "pytest", path, given))
    for number, (prints, modes, language, code) in enumerate(README_BLOCK.findall(page.read_text()), 1):
        source = directory / f"{of}-{number}.{language}"
        source.write_text(code)
        program = directory / f"{of}-{number}"
        interpreter = []
        if language == "python" and have_python:
            program, interpreter = source, ["python3"]
        elif language == "c" and prefix:
            flags = _call(
                ["pkg-config", "--cflags", "--libs", "ringfence"],
                env={"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")},
            ).split()
            command = ["cc", "-Wall", "-Wextra", "-Werror", "-x", "c", str(source), "-x", "none", "-o", str(program)]
            _call(command + flags + ["-Wl,-rpath,$ORIGIN/../prefix/lib"])
        elif language == "rust" and rlib:
            command = [
                "rustc",
                "--edition=2024",
                "-Cstrip=debuginfo",
                "--crate-name=readme",
                "-o",
                str(program),
                str(source),
            ]
            _call(command + [f"--extern=ringfence={rlib}", f"-Ldependency={TARGET / 'debug' / 'deps'}"])
        else:
            continue
        path = str(program.relative_to(SUITES))
        options = {"prints": prints} | ({"as": modes} if modes else {})
        suites.append(
            Suite(
                f"readme:{'' if of == 'readme' else of + '-'}{language}-{number}", "program", path, options, interpreter
            )
        )
    return suites


def build() -> list[Suite]:
    SUITES.mkdir(parents=True, exist_ok=True)
    for area in ("rust", "c", "attacks", "readme"):
        directory = SUITES / area
        if directory.is_dir() and area != "rust":
            shutil.rmtree(directory)
    suites, rlib = _rust()
    wanted = {Path(suite.path).name for suite in suites}
    for old in (SUITES / "rust").iterdir():
        if old.name not in wanted:
            old.unlink()
    prefix = _library()
    suites += _c(prefix, "c")
    _attackers()
    have_python = _wheel()
    suites += _interpreted(have_python, prefix)
    suites += _readme(rlib, prefix, have_python)
    (SUITES / "manifest.json").write_text(json.dumps([asdict(s) for s in suites], indent=1) + "\n")
    return suites


def load() -> list[Suite]:
    try:
        listed = json.loads((SUITES / "manifest.json").read_text())
    except OSError as error:
        raise BuildError(f"{error.filename}: {error.strerror}; run tests/run --build-only first") from None
    return [Suite(**entry) for entry in listed]
