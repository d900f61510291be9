"""Namespaces as a tree, for people at a shell."""

from __future__ import annotations

from collections.abc import Iterable

from . import _table
from ._types import NamespaceEntry

HEADERS = ("NAMESPACE", "ID", "OWNER UID", "PROCS", "PID", "COMMAND")


def rows(entries: Iterable[NamespaceEntry], relation: str) -> list[list[_table.Cell]]:
    """Each namespace below the one that it belongs to: its `owner`, or its `parent`."""
    listed = list(entries)
    known = {(entry.kind, entry.inode) for entry in listed}
    below: dict[tuple[str, int] | None, list[NamespaceEntry]] = {}
    for entry in listed:
        above = getattr(entry, relation)
        key = None if above is None else ("user" if relation == "owner" else entry.kind, above)
        # What belongs to something that is not shown stands at the left.
        below.setdefault(key if key in known else None, []).append(entry)
    out: list[list[_table.Cell]] = []
    _branch(below, None, "", out)
    return out


def _branch(
    below: dict[tuple[str, int] | None, list[NamespaceEntry]],
    key: tuple[str, int] | None,
    indent: str,
    out: list[list[_table.Cell]],
) -> None:
    # What has a tree below it comes last, so that the short ones stay at what they belong to.
    children = sorted(below.get(key, ()), key=lambda entry: (entry.kind, entry.inode) in below)
    for entry in children:
        last = entry is children[-1]
        mark = "" if key is None else "└─" if last else "├─"
        out.append(row(entry, indent + mark))
        _branch(below, (entry.kind, entry.inode), "" if key is None else indent + ("  " if last else "│ "), out)


def row(entry: NamespaceEntry, prefix: str = "") -> list[_table.Cell]:
    """One line, without what stands above it."""
    return [
        (f"{prefix}{entry.kind}:[{entry.inode}]", "bold" if entry.kind == "user" else ""),
        ("-" if entry.id is None else str(entry.id), "dim"),
        ("-" if entry.owner_uid is None else str(entry.owner_uid), ""),
        (str(len(entry.members)), "" if entry.members else "yellow"),
        (str(entry.members[0]) if entry.members else "-", ""),
        (entry.command or "", "dim") if entry.members else (_kept_by(entry), "yellow"),
    ]


def _kept_by(entry: NamespaceEntry) -> str:
    """Why there is one without processes."""
    reasons = []
    if entry.held_by:
        reasons.append("held by " + ", ".join(map(str, entry.held_by)))
    if entry.mounts:
        reasons.append("mounted at " + ", ".join(entry.mounts))
    return "; ".join(reasons) or "kept by what belongs to it"
