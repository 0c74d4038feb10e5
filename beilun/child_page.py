"""The operators' page of a run: a process of its own, so that it takes nothing from the edge."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from beilun import console
from beilun.commands.serve import require_extra
from beilun.composing import failure_of

PATIENCE_S = 30.0
"""How long it may take to come up, on a slow machine too."""
GRACE_S = 5.0


class Shown:
    """A page that is there."""

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self._process = process
        self._url = url

    def stay(self) -> None:
        """Wait until somebody presses Ctrl-C, or the page has ended."""
        console.note(f"the page stays at {self._url} until Ctrl-C")
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends it in good order
        with contextlib.suppress(KeyboardInterrupt):
            self._process.wait()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def showing(recording: Path) -> Generator[Shown, None, None]:
    """Serve a recording while the block runs, where the settings say; it must be there already."""
    require_extra()
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "beilun", "serve", str(recording), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,  # not a pipe: nobody reads while it runs
            text=True,
            start_new_session=True,  # Ctrl-C is for us: it first stops the run
        )
        try:
            url = _url_of(process, words)
            console.note(f"page: {url}")
            yield Shown(process, url)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _url_of(process: "subprocess.Popen[str]", words: TextIO) -> str:
    """Where it is, by its first line; raises where it did not come up."""
    assert process.stdout is not None
    if select.select([process.stdout], [], [], PATIENCE_S)[0]:
        url = process.stdout.readline().strip()
        if url:
            return url
    process.kill()
    code = process.wait()
    words.seek(0)
    raise failure_of("the page did not come up", code, words.read())
