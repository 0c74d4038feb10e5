"""The recordings of the run directory: which there are, which came last, and those that are open.

A recording is asked for by its name, and only by one that is on the list: nothing else of the host
is ever opened, whatever an address says. One that several tabs look at is open once, until the last
of them is gone.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from beilun.serving.acks import SUFFIX, Acks
from beilun.serving.reading import Reader
from config.errors import RecordingError
from ingest.recording import is_recording

LOOK_S = 2.0
"""How often the folder is read, at most."""


class Found(NamedTuple):
    """A recording of the run directory."""

    name: str
    """Of the file, without its ending."""
    written_ns: int
    """When it was written to last; wall time."""


class Library:
    """What a server may show; for any number of threads.

    ``served`` is the recording it was started with, which stays open and belongs to the caller, and
    need not lie in the ``folder``. ``follows``: it is there because it was the newest, so one that
    comes after it is news.
    """

    def __init__(
        self,
        served: Reader,
        folder: Path | None = None,
        *,
        follows: bool = False,
        acks: Path | None = None,
        compare: Reader | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.served = served
        self.compare = compare
        """What others are compared with, unless somebody chooses another."""
        self._folder = folder
        self._follows = follows
        self._acks = acks
        self._now_s = now_s
        self._lock = threading.Lock()
        self._looked_s = -LOOK_S
        self._listed: dict[str, tuple[Found, Path]] = {}
        self._good: dict[tuple[str, int], None] = {}
        """Names and inodes of files that are recordings, as they came: such a file stays one."""
        self._open: dict[Path, tuple[Reader, int]] = {}
        self._look()
        self._before = set(self._good)

    def list(self) -> list[Found]:
        """The recordings there are, the one written to last first. Reads the folder."""
        with self._lock:
            self._look()
            return sorted((f for f, _ in self._listed.values()), key=lambda f: -f.written_ns)

    def newest(self) -> str:
        """Name of the recording that came last since the server was started; empty where none
        did, or the server was told which to show. Reads the folder."""
        if not self._follows:
            return ""
        with self._lock:
            self._look()
            came = [key[0] for key in self._good if key not in self._before]
            came = [name for name in came if name in self._listed]
        return came[-1] if came else ""

    def lease(self, name: str) -> Reader:
        """A recording by its name; give it back. Raises ``RecordingError`` where there is none of
        that name, or it cannot be read."""
        if name == self.served.name:
            return self.served
        with self._lock:
            self._look(at_once=name not in self._listed)
            if name not in self._listed:
                raise RecordingError("no such recording", at=name[:100])
            path = self._listed[name][1]
            reader, leases = self._open.get(path, (None, 0))
            reader = Reader(path) if reader is None else reader
            self._open[path] = reader, leases + 1
            return reader

    def give_back(self, reader: Reader) -> None:
        """Nobody of those who leased it once needs it any more."""
        with self._lock:
            found = self._open.get(reader.path)
            if found is None or found[0] is not reader:
                return
            if found[1] > 1:
                self._open[reader.path] = reader, found[1] - 1
                return
            del self._open[reader.path]
        reader.close()

    def acks(self, reader: Reader) -> Acks:
        """Where acknowledgements of a recording are kept. A place that is one file is that of the
        recording the server was started with; those of others lie beside it."""
        place = self._acks
        if place is not None and place.suffix == SUFFIX and reader.path != self.served.path:
            place = place.parent
        return Acks(reader.path, place)

    def _look(self, *, at_once: bool = False) -> None:
        if self._folder is None or (not at_once and self._now_s() < self._looked_s + LOOK_S):
            return
        self._looked_s = self._now_s()
        listed: dict[str, tuple[Found, Path]] = {}
        with contextlib.suppress(OSError):
            for path in sorted(self._folder.absolute().glob("*.beilun")):
                with contextlib.suppress(OSError):  # it may go while we look
                    if (found := self._found(path)) is not None:
                        listed[found.name] = found, path
        self._listed = listed

    def _found(self, path: Path) -> Found | None:
        if path.is_symlink() or not path.is_file():
            return None
        stat = path.stat()
        name = path.name.removesuffix(".beilun")
        key = name, stat.st_ino
        if key not in self._good:
            if not is_recording(path):
                return None
            self._good[key] = None
        log = path.with_name(f"{path.name}-wal")
        written_ns = max(stat.st_mtime_ns, log.stat().st_mtime_ns if log.exists() else 0)
        return Found(name, written_ns)
