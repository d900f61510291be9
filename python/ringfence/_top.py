"""`top` and `stats`: what the named containers use, and how fast."""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from . import _machine, _table
from ._container import Container
from ._errors import Error
from ._types import Usage


@dataclass
class Row:
    """One container at one moment. Rates are per second since the look before; None: not known."""

    name: str
    usage: Usage | None = None
    #: Why there is no usage.
    note: str = ""
    #: Cores in use, and the limit of the spec.
    cpus: float | None = None
    cpus_max: float | None = None
    #: Share of the time in which the limit of processor time held it.
    throttled: float | None = None
    read: float | None = None
    write: float | None = None
    rx: float | None = None
    tx: float | None = None

    def pressure(self, resource: str) -> float | None:
        """Percent of the last 10 seconds in which something waited for it."""
        stalls = getattr(self.usage.pressure, resource, None) if self.usage else None
        return stalls.some.avg10 if stalls and stalls.some else None

    def to_json(self) -> dict[str, object]:
        rates = {
            "cpus": self.cpus,
            "throttled": self.throttled,
            "io_read_bytes": self.read,
            "io_write_bytes": self.write,
        }
        rates |= {"net_rx_bytes": self.rx, "net_tx_bytes": self.tx}
        usage = asdict(self.usage) if self.usage else None
        return {"name": self.name, "cpus": self.cpus_max, "rates": rates, "usage": usage, "note": self.note or None}


def _sum(usage: Usage, of: str, figure: str) -> int | None:
    devices = getattr(usage, of)
    return None if devices is None else sum(getattr(device, figure) for device in devices.values())


_RATES: list[tuple[str, float, Callable[[Usage], int | None]]] = [
    ("cpus", 1e6, lambda u: u.cpu_usage_usec),
    ("throttled", 1e6, lambda u: u.cpu_throttled_usec),
    ("read", 1.0, lambda u: _sum(u, "io", "read_bytes")),
    ("write", 1.0, lambda u: _sum(u, "io", "write_bytes")),
    ("rx", 1.0, lambda u: _sum(u, "net", "rx_bytes")),
    ("tx", 1.0, lambda u: _sum(u, "net", "tx_bytes")),
]


@dataclass
class Watch:
    """Looks at containers again and again. Without names at all of this user that run."""

    names: Sequence[str] = ()
    _known: dict[str, Container] = field(default_factory=dict)
    _before: dict[str, tuple[float, Usage]] = field(default_factory=dict)

    def look(self) -> list[Row]:
        if self.names:
            return [self._row(name) for name in self.names]
        running = [entry.name for entry in _machine.ls() if entry.state == "running"]
        for name in self._known.keys() - set(running):
            self._forget(name)
        rows = []
        for name in running:
            try:
                rows.append(self._row(name))
            except Error as error:
                # It ended just now, or it belongs to another program.
                if error.kind not in ("not_found", "closed"):
                    note = "attached to another program" if error.kind == "permission_denied" else str(error)
                    rows.append(Row(name, note=note))
        return rows

    def close(self) -> None:
        for name in list(self._known):
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._before.pop(name, None)
        self._known.pop(name).close()

    def _row(self, name: str) -> Row:
        container = self._known.get(name)
        if container is not None and not container.running:
            # Perhaps there is another of that name.
            self._forget(name)
            container = None
        if container is None:
            container = self._known[name] = Container.by_name(name)
            if not container.running:
                self._forget(name)
                raise Error(f"container {name!r} has ended", kind="closed")
        try:
            usage = container.usage()
        except Error as error:
            if error.kind != "unsupported":
                raise
            return Row(name, note="it has no control group")
        now = time.monotonic()
        cpus = container.spec.get("cpus")
        row = Row(name, usage, cpus_max=cpus)
        if name in self._before:
            then, earlier = self._before[name]
            for rate, scale, figure in _RATES:
                a, b = figure(earlier), figure(usage)
                # A device that it uses for the first time has no figure before.
                if b is not None and now > then:
                    setattr(row, rate, max(b - (a or 0), 0) / scale / (now - then))
        self._before[name] = now, usage
        return row


def size(count: float | None) -> str:
    """Bytes for people: four places."""
    if count is None:
        return "-"
    for unit in ("", "K", "M", "G", "T"):
        if count < 1000 or unit == "T":
            return f"{count:.0f}{unit}" if unit == "" or count >= 100 else f"{count:.1f}{unit}"
        count /= 1024
    return ""


def _number(value: float | None, form: str = "{:.0f}") -> str:
    return "-" if value is None else form.format(value)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(part / whole, 1.0)


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _style(share: float | None) -> str:
    if share is None:
        return ""
    return "red" if share >= 0.9 else "yellow" if share >= 0.7 else "green"


@dataclass(frozen=True)
class Column:
    """What a column shows; the higher `keep`, the longer it stays when there is not enough room."""

    header: str
    keep: int
    cell: Callable[[Row], _table.Cell]
    #: Drawn as a bar: how much of what there is.
    share: Callable[[Row], float | None] | None = None
    left: bool = False


def _memory_share(row: Row) -> float | None:
    usage = row.usage
    return _share(usage.memory_current, usage.memory_max or _machine_memory()) if usage else None


def _cpu_share(row: Row) -> float | None:
    return _share(row.cpus, row.cpus_max or os.cpu_count())


def _pids_share(row: Row) -> float | None:
    return _share(row.usage.pids_current, row.usage.pids_max) if row.usage else None


def _of(figure: str) -> Callable[[Row], int | None]:
    return lambda row: getattr(row.usage, figure) if row.usage else None


def _pressure(resource: str) -> Callable[[Row], _table.Cell]:
    def cell(row: Row) -> _table.Cell:
        value = row.pressure(resource)
        return _number(value, "{:.0f}%"), "" if value is None else _style(value / 50)

    return cell


def _figure(value: Callable[[Row], float | None], form: str = "{:.0f}") -> Callable[[Row], _table.Cell]:
    return lambda row: (_number(value(row), form), "")


def _bytes(value: Callable[[Row], float | None]) -> Callable[[Row], _table.Cell]:
    return lambda row: (size(value(row)), "")


COLUMNS = [
    Column("NAME", 99, lambda row: (row.name, ""), left=True),
    Column("CPU", 98, lambda row: (_number(row.cpus and row.cpus * 100, "{:.1f}%"), ""), _cpu_share),
    Column("OF", 40, lambda row: (_number(row.cpus_max, "{:g}"), "dim")),
    Column("MEMORY", 97, _bytes(_of("memory_current")), _memory_share),
    Column("OF", 70, lambda row: (size(_of("memory_max")(row)), "dim")),
    Column("SWAP", 20, _bytes(_of("memory_swap"))),
    Column("PIDS", 90, _figure(_of("pids_current")), _pids_share),
    Column("OF", 30, lambda row: (_number(_of("pids_max")(row)), "dim")),
    Column("READ/s", 60, _bytes(lambda row: row.read)),
    Column("WRITE/s", 60, _bytes(lambda row: row.write)),
    Column("RX/s", 50, _bytes(lambda row: row.rx)),
    Column("TX/s", 50, _bytes(lambda row: row.tx)),
    Column("WAITS CPU", 80, _pressure("cpu")),
    Column("MEM", 80, _pressure("memory")),
    Column("IO", 80, _pressure("io")),
]

#: Key of the keyboard and name of `--sort`: the column's order.
SORTS: dict[str, Callable[[Row], float]] = {
    "cpu": lambda row: row.cpus or 0,
    "memory": lambda row: _of("memory_current")(row) or 0,
    "pids": lambda row: _of("pids_current")(row) or 0,
    "io": lambda row: (row.read or 0) + (row.write or 0),
    "net": lambda row: (row.rx or 0) + (row.tx or 0),
    "waits": lambda row: max(row.pressure(resource) or 0 for resource in ("cpu", "memory", "io")),
}


def ordered(rows: list[Row], sort: str, reverse: bool) -> list[Row]:
    """By a column, the largest first; by name, from A."""
    if sort == "name":
        return sorted(rows, key=lambda row: row.name, reverse=reverse)
    return sorted(rows, key=lambda row: (-SORTS[sort](row), row.name), reverse=reverse)


_BAR = 8


def _blocks() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _bar(share: float | None, width: int) -> str:
    if share is None:
        return " " * width
    if not _blocks():
        full = round(share * width)
        return "#" * full + "." * (width - full)
    eighths = round(share * width * 8)
    full, rest = divmod(eighths, 8)
    return ("\u2588" * full + (" \u258f\u258e\u258d\u258c\u258b\u258a\u2589"[rest] if rest else "")).ljust(
        width, "\u00b7"
    )


def _draw(rows: list[Row], width: int | None) -> list[list[_table.Cell]]:
    """Lines of cells, the headings first, as many columns as fit into the width."""
    columns = list(COLUMNS)

    def table() -> list[list[_table.Cell]]:
        lines: list[list[_table.Cell]] = [[] for _ in range(len(rows) + 1)]
        for column in columns:
            cells = [column.cell(row) for row in rows]
            wide = max([len(column.header), *(len(text) for text, _ in cells)])
            shares = [column.share(row) for row in rows] if column.share else []
            bars = bool(shares) and any(share is not None for share in shares) and (width is None or width >= 90)
            for i, (text, style) in enumerate([(column.header, "bold"), *cells]):
                padded = text.ljust(wide) if column.left else text.rjust(wide)
                lines[i].append((padded, style))
                if bars:
                    lines[i].append((_bar(shares[i - 1], _BAR), _style(shares[i - 1])) if i else (" " * _BAR, ""))
        return lines

    lines = table()
    while width is not None and len(columns) > 1 and sum(len(text) + 1 for text, _ in lines[0]) - 1 > width:
        columns.remove(min(reversed(columns), key=lambda column: column.keep))
        lines = table()
    for line, row in zip(lines[1:], rows, strict=True):
        if row.usage is None:
            line[1:] = [(row.note, "dim")]
    return lines


def _text(cells: list[_table.Cell], coloured: bool, width: int | None) -> str:
    """One line, not wider than the screen."""
    out, left = [], width if width is not None else sys.maxsize
    for text, style in cells:
        shown = text[:left]
        left -= len(shown) + 1
        out.append(_table.styled(shown, style) if coloured else shown)
        if left <= 0:
            break
    line = " ".join(out)
    return line if coloured else line.rstrip()


def _summary(rows: list[Row]) -> str:
    counted = [row for row in rows if row.usage]
    cpus = sum(row.cpus or 0 for row in counted)
    memory = sum(row.usage.memory_current or 0 for row in counted if row.usage)
    tasks = sum(row.usage.pids_current or 0 for row in counted if row.usage)
    kills = sum(row.usage.memory_oom_kills or 0 for row in counted if row.usage)
    text = f"{len(rows)} container{'' if len(rows) == 1 else 's'}, {tasks} tasks, {cpus:.2f} of {os.cpu_count()} processors, "
    text += f"{size(memory)} of {size(_machine_memory())} memory"
    return text + (f", {kills} killed for want of memory" if kills else "")


@dataclass
class Top:
    """The live table."""

    watch: Watch
    interval: float
    count: int | None
    sort: str
    reverse: bool = False

    def run(self) -> int:
        screen = sys.stdin.isatty() and sys.stdout.isatty() and self.count is None
        if not screen:
            return self._print()
        try:
            with _screen():
                self._live()
        except KeyboardInterrupt:
            pass
        return 0

    def _print(self) -> int:
        width = os.get_terminal_size(1).columns if sys.stdout.isatty() else None
        self.watch.look()
        for i in range(self.count or 1):
            # Rates need two looks. The first pair need not be far apart.
            time.sleep(self.interval if i else min(self.interval, 0.5))
            rows = ordered(self.watch.look(), self.sort, self.reverse)
            if i:
                print()
            print(_summary(rows))
            for line in _draw(rows, width):
                print(_text(line, _table.colours(), width))
            sys.stdout.flush()
        return 0

    def _live(self) -> None:
        rows = self.watch.look()
        due = time.monotonic() + min(self.interval, 0.5)
        while True:
            self._show(ordered(rows, self.sort, self.reverse))
            ready, _, _ = select.select([0], [], [], max(due - time.monotonic(), 0))
            if ready:
                for key in os.read(0, 64).decode(errors="replace").lower():
                    if key in ("q", "\x03", "\x04"):
                        return
                    self._press(key)
            if time.monotonic() >= due:
                rows = self.watch.look()
                due = time.monotonic() + self.interval

    def _press(self, key: str) -> None:
        if key == "r":
            self.reverse = not self.reverse
        elif key in "+-":
            self.interval = min(max(self.interval * (0.5 if key == "-" else 2), 0.1), 60.0)
        else:
            for name in (*SORTS, "name"):
                if key == _key(name):
                    self.sort, self.reverse = name, False

    def _show(self, rows: list[Row]) -> None:
        # Anew each time: the window may have another size.
        width, height = os.get_terminal_size(1)
        # A character in the last column would go with what is erased behind it.
        width -= 1
        coloured = _table.colours()
        lines = [_text([("ringfence", "bold"), (_summary(rows), "")], coloured, width)]
        table = _draw(rows, width)
        room = max(height - 4, 1)
        lines += ["", *(_text(line, coloured, width) for line in table[: room + 1])]
        if len(rows) > room:
            lines[-1] = _text([(f"... and {len(rows) - room + 1} more", "dim")], coloured, width)
        if not rows:
            lines.append(_text([("no container runs", "dim")], coloured, width))
        order = "by name" if self.sort == "name" else f"{'smallest' if self.reverse else 'largest'} {self.sort} first"
        help = f"{order}, every {self.interval:g} s | q:quit r:reverse +-:interval"
        for keys in (
            " ".join(f"{_key(name)}:{name}" for name in (*SORTS, "name")),
            "sort:" + "".join(map(_key, (*SORTS, "name"))),
        ):
            if len(help) + len(keys) + 1 <= width:
                help += f" {keys}"
                break
        lines += [""] * (height - 1 - len(lines)) + [_text([(help, "dim")], coloured, width)]
        # Over what stands there, so that nothing flickers.
        text = "\x1b[H" + "\x1b[K\r\n".join(lines[:height]) + "\x1b[K\x1b[J"
        sys.stdout.write(text)
        sys.stdout.flush()


def _key(name: str) -> str:
    return {"name": "a"}.get(name, name[0])


@contextmanager
def _screen() -> Iterator[None]:
    """The other screen, without a cursor, with keys as they are pressed."""
    before = termios.tcgetattr(0)
    sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[?7l")
    try:
        tty.setcbreak(0)
        yield
    finally:
        sys.stdout.write("\x1b[?7h\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def stats(watch: Watch, interval: float, stream: bool, as_json: bool) -> int:
    """One table, or one after the other; as JSON one array in a line for each look."""
    watch.look()
    time.sleep(interval if stream else min(interval, 0.5))
    while True:
        rows = watch.look()
        if as_json:
            print(json.dumps([row.to_json() for row in rows]))
        else:
            cells = [[column.cell(row) for column in COLUMNS] for row in rows]
            for line, row in zip(cells, rows, strict=True):
                if row.usage is None:
                    line[1:] = [(row.note, "dim")] + [("", "")] * (len(COLUMNS) - 2)
            _table.show([column.header for column in COLUMNS], cells)
        sys.stdout.flush()
        if not stream:
            return 0
        time.sleep(interval)
        if not as_json:
            print()
