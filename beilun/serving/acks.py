"""Who acknowledged which alarm, when and with what note: a small SQLite file of each recording.

Not in the recording: that has one writer, the edge, and a KPI or alarm in it is a function of what
the journal holds. That somebody saw an alarm is a fact about people, and it is true at a wall time.
So `floor.beilun` has `floor.beilun.acks` once somebody acknowledges anything, beside it or, where
it lies on something read-only, in a folder that is named; without the file nobody did. Pages in
several processes may write to it; whoever was first stands.
"""

import contextlib
import os
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from config.errors import RecordingError

OPERATOR = "operator"
"""The role that may acknowledge; a viewer or customer may look."""
LONGEST_NOTE = 500
SUFFIX = ".acks"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS ack (
    rule TEXT NOT NULL, asset TEXT NOT NULL, raised_ns INTEGER NOT NULL, at_ns INTEGER NOT NULL,
    who TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (rule, asset, raised_ns)
) WITHOUT ROWID
"""
_PATIENCE_S = 5.0
"""How long to wait for another process that writes."""


class Alarm(NamedTuple):
    """Which alarm: its rule, the path of its asset or group, and when it was raised. An alarm that
    comes again is another one, and wants another look."""

    rule: str
    asset: str
    raised_ns: int


class Ack(NamedTuple):
    """That somebody saw an alarm."""

    alarm: Alarm
    at_ns: int
    """Wall time."""
    who: str
    note: str


class NotAllowed(Exception):
    """The role of the person may not do this."""


class Acks:
    """The acknowledgements that belong to a recording.

    Every call opens the file and closes it: they are rare, and nothing has to be kept open for a
    page that nobody looks at. Raises ``RecordingError`` where the file is no such file or cannot
    be written.
    """

    def __init__(self, recording: Path, place: Path | None = None) -> None:
        """``place``: a folder for the files of any recordings, or the file of this one, which ends
        with ``.acks``; ``None``: beside it."""
        own = f"{recording.name}{SUFFIX}"
        if place is None:
            self.path = recording.with_name(own)
        else:
            self.path = place if place.suffix == SUFFIX else place / own

    def hindrance(self) -> Path | None:
        """What keeps anything from being written: a file or folder; ``None``: nothing does."""
        if self.path.exists() and not os.access(self.path, os.R_OK | os.W_OK):
            return self.path
        folder = next(each for each in self.path.absolute().parents if each.exists())
        return None if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK) else folder

    def all(self) -> dict[Alarm, Ack]:
        """Every acknowledgement."""
        if not self.path.exists():
            return {}
        with self._open("ro") as db:
            rows = db.execute("SELECT rule, asset, raised_ns, at_ns, who, note FROM ack")
            found = (Ack(Alarm(*row[:3]), *row[3:]) for row in rows)
            return {ack.alarm: ack for ack in found}

    def give(self, alarm: Alarm, *, who: str, role: str, at_ns: int, note: str = "") -> Ack:
        """Acknowledge an alarm, and return what stands: the first acknowledgement there was.

        ``at_ns`` is wall time. Raises ``NotAllowed`` for everybody but an operator.
        """
        if role != OPERATOR:
            raise NotAllowed(f"{role or 'nobody'} may not acknowledge alarms")
        with contextlib.suppress(OSError):  # then it cannot be opened, which says why
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open("rwc") as db:
            # No write-ahead log: with one, nobody could read this where nothing can be written.
            db.execute("PRAGMA journal_mode=DELETE")
            db.execute("PRAGMA synchronous=FULL")
            db.execute(_SCHEMA)
            db.execute(
                "INSERT OR IGNORE INTO ack VALUES (?, ?, ?, ?, ?, ?)",
                (*alarm, at_ns, who, note.strip()[:LONGEST_NOTE]),
            )
            row = db.execute(
                "SELECT at_ns, who, note FROM ack WHERE rule = ? AND asset = ? AND raised_ns = ?",
                alarm,
            ).fetchone()
            return Ack(alarm, *row)

    @contextlib.contextmanager
    def _open(self, mode: str) -> Generator[sqlite3.Connection]:
        try:
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            with contextlib.closing(
                sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE_S)
            ) as db:
                yield db
        except sqlite3.Error as error:
            raise RecordingError(
                f"acknowledgements cannot be kept: {error}",
                at=str(self.path),
                hint="its folder must be writable, the file its own; --acks names another place",
            ) from None
