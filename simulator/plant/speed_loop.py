"""The speed loop of a cable line: gauge readings go up, the set speed comes down, over the link.

Theory of operation
===================

    line                                   central control at the MEC
     |── reading, with every heartbeat ──────────►|  hears nothing for the limit: "safe speed"
     |◄─────────────── set speed, with every ─────|  hears again:                "full speed"
     |                 heartbeat
     hears nothing for the limit: safe speed by itself, until it hears again

So the line has its full speed only while both directions work. What control says when it changes
its mind is a message of its own, which rides behind the heartbeats and takes what they take.

Nobody looks at single heartbeats. The loop is looked at ahead of time, in columns, up to where
either end may next have something else to say; what it does until then is a list of changes.
"""

from collections import deque
from typing import Protocol

from config.units import NS_PER_MS, NS_PER_S
from simulator.device import SCAN_NS, Process, Steps, World
from simulator.plant.control import BEAT_NS, RETRY_NS, Control, Lane, arrive

COMMAND_BYTES = 120


class Watch:
    """One end's watchdog over what comes to it on a lane."""

    def __init__(self, lane: Lane, limit_ns: int, t_ns: int) -> None:
        self._lane = lane
        self._limit_ns = limit_ns
        self._hears = True
        self._seen_ns = t_ns

    def begin(self, t_ns: int) -> None:
        """Something was heard now."""
        self._hears, self._seen_ns = True, t_ns

    def changes(self, to_ns: int) -> list[tuple[int, bool]]:
        """When it fell silent and was heard again, before a time. Sends heartbeats up to there."""
        self._lane.advance(to_ns)
        found: list[tuple[int, bool]] = []
        while self._seen_ns < to_ns:
            if self._hears:
                t_ns = self._lane.quiet(self._seen_ns, to_ns, self._limit_ns)
            else:
                t_ns = self._lane.hears(self._seen_ns, to_ns)
            if t_ns is None or t_ns >= to_ns:
                self._seen_ns = to_ns if self._hears else to_ns - 1
                break
            self._seen_ns, self._hears = t_ns, not self._hears
            found.append((t_ns, self._hears))
        return found


class Loop(Protocol):
    """What tells a line how fast it may run, and carries its set points."""

    closed: Steps
    """1 while the line may run at full speed; known some way ahead of the plant's time."""

    @property
    def reply_s(self) -> float:
        """How long a reading and the set point that answers it take, while the loop is closed."""
        ...

    def permission(self) -> Process:
        """Wait until the line may start."""
        ...

    def is_closed(self) -> bool:
        """Whether the line may run at full speed now."""
        ...

    def change_ns(self, to_ns: int) -> int | None:
        """When the loop next opens or closes before a time."""
        ...

    def look(self, to_ns: int) -> None:
        """Know the loop up to a time."""
        ...


class LocalLoop:
    """The panel beside the line: always there, and nothing of it rides a link."""

    reply_s = SCAN_NS / NS_PER_S

    def __init__(self, env: World) -> None:
        self._env = env
        self.closed = Steps(env.now, 1)

    def permission(self) -> Process:
        """The line starts at its next scan."""
        yield self._env.timeout(SCAN_NS)

    def is_closed(self) -> bool:
        """It is."""
        return True

    def change_ns(self, to_ns: int) -> int | None:
        """Never."""
        return None

    def look(self, to_ns: int) -> None:
        """There is nothing to know."""


class SpeedLoop:
    """Central control of one line. It is watched from a permission on, while the line moves."""

    def __init__(self, env: World, control: Control, watchdog_ms: float) -> None:
        self._env = env
        self._control = control
        limit_ns = round(watchdog_ms * NS_PER_MS)
        self._at_control = Watch(control.up, limit_ns, env.now)
        self._at_line = Watch(control.down, limit_ns, env.now)
        self._known_ns = env.now
        self._wants_full = self._has_full = self._line_hears = True
        self._again_ns: int | None = None
        """When control repeats a command that was lost."""
        self._coming: deque[tuple[int, bool]] = deque()
        """Commands under way: arrival, and whether they are for full speed."""
        self._round_trip_ns = 0
        """What the last permission took."""
        self.closed = Steps(env.now, 1)

    @property
    def reply_s(self) -> float:
        """Readings and set points ride the heartbeats: each waits half a beat for its own on the
        mean, and both take what the last permission took."""
        return (self._round_trip_ns + BEAT_NS) / NS_PER_S

    def permission(self) -> Process:
        """Control must allow every start: a message up, and its answer down."""
        env, control = self._env, self._control
        yield env.timeout(SCAN_NS)  # the line asks at its next scan; see `look`
        asked_ns = env.now
        yield from arrive(env, control.up, COMMAND_BYTES)
        yield from arrive(env, control.down, COMMAND_BYTES)
        self._round_trip_ns = env.now - asked_ns
        self._at_control.begin(env.now)
        self._at_line.begin(env.now)
        self._known_ns = env.now
        self._wants_full = self._has_full = self._line_hears = True
        self._again_ns = None
        self._coming.clear()
        self.closed.set(env.now, 1)

    def is_closed(self) -> bool:
        """Whether the line may run at full speed now."""
        self.look(self._env.now + 1)
        return bool(self.closed.get(self._env.now))

    def change_ns(self, to_ns: int) -> int | None:
        """When the loop next opens or closes before a time; see ``look``."""
        change_ns = self.closed.next_ns(self._env.now)
        if change_ns is None:  # only then is more to be known
            self.look(to_ns)
            change_ns = self.closed.next_ns(self._env.now)
        return change_ns if change_ns is not None and change_ns < to_ns else None

    def look(self, to_ns: int) -> None:
        """Know the loop up to a time, which must lie ahead of the plant's time while the line
        moves: then nothing that others ask of the lanes can change what is found. The heartbeats up
        to there are sent, so before a scan has passed there the line must not ask for a permission.
        """
        if to_ns <= self._known_ns:
            return
        for t_ns, hears in self._at_control.changes(to_ns):
            self._repeat(t_ns)
            self._command(t_ns, hears)
        self._repeat(to_ns)
        heard = [(t_ns, True, hears) for t_ns, hears in self._at_line.changes(to_ns)]
        events: list[tuple[int, bool, bool]] = []
        while self._coming and self._coming[0][0] < to_ns:
            t_ns, full = self._coming.popleft()
            events.append((max(t_ns, self._known_ns), False, full))
        events += heard  # a command that ends a silence counts before the silence ends
        for t_ns, own, value in sorted(events, key=lambda event: event[0]):
            if own:
                self._line_hears = value
            else:
                self._has_full = value
            self.closed.set(t_ns, int(self._line_hears and self._has_full))
        self._known_ns = to_ns

    def _repeat(self, before_ns: int) -> None:
        while self._again_ns is not None and self._again_ns < before_ns:
            self._command(self._again_ns, self._wants_full)

    def _command(self, t_ns: int, full: bool) -> None:
        self._wants_full = full
        arrival_ns = self._control.down.send(t_ns, COMMAND_BYTES)
        self._again_ns = t_ns + RETRY_NS if arrival_ns is None else None
        if arrival_ns is not None:
            self._coming.append((arrival_ns, full))
