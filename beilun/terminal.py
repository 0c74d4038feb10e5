"""A terminal taken over for a while: whole screens drawn, keys as they are pressed, given back.

Theory of operation
===================

    enter ─► other screen, no echo ─► draw, keys, draw, keys ... ─► as it was before
                    ▲                        │         ▲
                    └──── SIGCONT ◄── stop ◄─┘ Ctrl-Z  └ SIGINT, SIGTERM, SIGHUP: ``ended``

Signals do nothing but set a flag and wake the wait for keys: an exception out of a handler could
come between two steps of giving the terminal back. What is drawn is compared with what is there,
and only lines that changed are sent, since the terminal may be at the far end of a thin line.
"""

import contextlib
import os
import re
import select
import signal
import termios
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO

_TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
"""The other screen, no cursor, nothing wraps."""
_GIVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_CHUNK = 1_024
_GIVING_S = 1.0
"""The most that giving back waits for a terminal that takes nothing."""
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NAMES = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up",
    "\x1b[6~": "page down", "\x1b[H": "home", "\x1b[F": "end", "\x1bOH": "home", "\x1bOF": "end",
    "\x1b[1~": "home", "\x1b[4~": "end", "\x1b": "escape", "\r": "enter", "\n": "enter",
    "\x7f": "backspace", "\x08": "backspace", "\x04": "q",
}  # fmt: skip
_KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)


class Screen:
    """The whole of a terminal, inside a ``with`` block; in the main thread.

    The block ends of itself where nobody looks any more: then, and where somebody asked for it by a
    signal, ``ended`` is true and nothing more is drawn.
    """

    def __init__(self, out: TextIO, keys: TextIO | None = None) -> None:
        """``keys`` is a terminal too, or there are none."""
        self.ended = False
        self._out, self._encoding = out.fileno(), out.encoding or "utf-8"
        self._in = keys.fileno() if keys is not None and keys.isatty() else None
        self._saved: list[Any] | None = None
        self._shown: list[str] = []
        self._size = (0, 0)
        self._suspended = self._resumed = False
        self._text = ""
        self._handlers: dict[int, Any] = {}
        self._wake: tuple[int, int] = (-1, -1)
        self._woken = -1

    def __enter__(self) -> "Screen":
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (*_ENDING, signal.SIGTSTP, signal.SIGCONT):
            self._handlers[number] = signal.signal(number, self._told)
        try:
            if self._in is not None:
                self._saved = termios.tcgetattr(self._in)
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._give()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._woken)
        for end in self._wake:
            os.close(end)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:  # it is gone
            columns, lines = 80, 24
        return columns, lines

    @property
    def blank(self) -> bool:
        """Whether nothing of what was drawn is there any more."""
        return not self._shown

    def draw(self, lines: Sequence[str]) -> None:
        """Show lines from the top; each fits the width, and there are no more than the height."""
        if self.size != self._size:
            self._size, self._shown = self.size, []
        sent = [] if self._shown else ["\x1b[2J"]
        for place in range(max(len(lines), len(self._shown))):
            line = lines[place] if place < len(lines) else ""
            if place >= len(self._shown) or self._shown[place] != line:
                sent.append(f"\x1b[{place + 1};1H\x1b[0m\x1b[2K{line}")
        self._shown = list(lines)
        if sent:
            self._write("".join(sent))

    def keys(self, timeout_s: float) -> list[str]:
        """Keys pressed since, by name; waits for the first one, a signal, or the timeout."""
        there = self._wait(timeout_s)
        if self._suspended:
            self._stop()
        if self._resumed:
            self._resumed = False
            try:
                self._take()
            except termios.error:  # a line that is cut continues us, too
                self.ended = True
        if not there or self._in is None:
            return []
        try:
            said = os.read(self._in, _CHUNK)
        except OSError:
            said = b""
        if not said:  # whoever pressed keys is gone
            self.ended = True
        found: list[str] = _KEY.findall(said.decode("utf-8", "ignore"))
        return [_NAMES.get(key, key) for key in found]

    # signals --------------------------------------------------------------------------------------

    def _told(self, number: int, _frame: FrameType | None) -> None:
        self.ended |= number in _ENDING
        self._suspended |= number == signal.SIGTSTP
        self._resumed |= number == signal.SIGCONT

    def _wait(self, timeout_s: float) -> bool:
        """Whether there are keys."""
        watched = [self._wake[0], *([] if self._in is None else [self._in])]
        ready, _, _ = select.select(watched, [], [], 0 if self._called else timeout_s)
        if self._wake[0] in ready:
            os.read(self._wake[0], _CHUNK)
        return self._in in ready

    @property
    def _called(self) -> bool:
        return self.ended or self._suspended or self._resumed

    def _stop(self) -> None:
        """Stop, as Ctrl-Z asks; goes on here once the shell continues us."""
        self._suspended = False
        self._give()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)
        self._resumed = True

    # the terminal itself --------------------------------------------------------------------------

    def _take(self) -> None:
        if self._in is not None and self._saved is not None:
            changed = termios.tcgetattr(self._in)
            changed[3] &= ~(termios.ICANON | termios.ECHO)
            changed[6][termios.VMIN], changed[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._in, termios.TCSANOW, changed)
        self._shown, self._size = [], self.size
        self._write(_TAKE)

    def _give(self) -> None:
        """As it was. A terminal that is gone needs nothing."""
        self._write(_GIVE, giving=True)
        if self._in is not None and self._saved is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._in, termios.TCSANOW, self._saved)

    def _write(self, text: str, *, giving: bool = False) -> None:
        """Send text; what a terminal does not take until the end is asked for is let go."""
        data = memoryview(text.encode(self._encoding, "replace"))
        until_s = time.monotonic() + _GIVING_S
        while data and (giving or not self._called):
            _, ready, _ = select.select([] if giving else [self._wake[0]], [self._out], [], 0.1)
            if giving and not ready and time.monotonic() > until_s:
                return
            if ready:
                try:
                    data = data[os.write(self._out, data[:_CHUNK]) :]
                except OSError:  # it was closed, or its line was cut
                    self.ended = True
                    return
