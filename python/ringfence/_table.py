"""Tables for people at a shell: drawn by `rich` when it is installed, else plain."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

_ANSI = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}

Cell = tuple[str, str]
"""Text and style: `green`, `yellow`, `red`, `dim`, `bold` or nothing."""


def colours() -> bool:
    """Standard output is a terminal that may show colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """Text with the codes of a terminal."""
    return f"\x1b[{_ANSI[style]}m{text}\x1b[0m" if style else text


def printable(text: str) -> str:
    """The text with escapes for what is no character to be shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def show(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Prints a table. What processes call themselves, and where things are mounted, is others' text: no code of it reaches the terminal."""
    rows = [[(printable(text), style) for text, style in row] for row in rows]
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        _rich(headers, rows)
    else:
        _plain(headers, rows)


def _rich(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    console = importlib.import_module("rich.console").Console()
    text = importlib.import_module("rich.text").Text
    table = importlib.import_module("rich.table").Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(text(cell, style=style) for cell, style in row))
    console.print(table)


def _plain(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    widths = [max(map(len, column)) for column in zip(headers, *([c for c, _ in row] for row in rows), strict=True)]
    coloured = colours()

    def line(cells: Sequence[Cell]) -> str:
        words = []
        for (text, style), width in zip(cells, widths, strict=True):
            padded = text.ljust(width)
            words.append(styled(padded, style) if coloured else padded)
        return "  ".join(words).rstrip()

    print(line([(header, "") for header in headers]))
    for row in rows:
        print(line(row))
