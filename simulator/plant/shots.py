"""Shots of a casting cell as columns: what the coming ones will be, and what became of the past.

Theory of operation
===================

Each shot has a row of draws of its own, and rows are used in order. What does not depend on when a
shot is made (its time, its biscuit, the pressure in a warm die) is computed a block of rows at a
time; whether it is good also depends on its number since the last start with a cold die, and is
judged anew for all coming rows when that number is not what was expected.

    rows     0  1  2  3 |4  5  6 ...              a start with a cold die before row 4:
    number  41 42 43 44 | 1  2  3 ...             rows from 4 on are judged again
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_MS, NS_PER_S
from ingest.messages import Floats
from simulator.device import Ints
from simulator.lags import noise

if TYPE_CHECKING:
    from simulator.devices.casting_cell import CastingCellSpec

Flags = NDArray[np.bool_]
Narrow = NDArray[np.float32]
Whole = NDArray[np.int32]

WARM_UP = ((3, 0.98), (6, 0.76), (10, 0.08), (50, 0.03), (300, 0.012))
"""Up to which shot after a start, and the share rejected because the die was cold."""
_WARM_AFTER = np.array([shot for shot, _ in WARM_UP])
_COLD_SHARES = np.array([*(share for _, share in WARM_UP), 0.0])

LOW_PRESSURE = 0.91
"""Share of the nominal pressure below which a casting is porous (domain facts: 300 of 330 bar)."""
LOW_REJECTED = 0.988
"""Share of shots with so little pressure that is rejected."""
_FROZEN = 0.85
"""Share of the pressure that gets through when a cold die has frozen the gate."""
_LOSS_PER_MM = 0.08
"""Share of the pressure that is lost for each millimetre that the biscuit is below its lower
limit."""
_MOST_LOST = 0.3
_ROWS = 512


def cold_scrap(shot: Ints) -> Floats:
    """Shares rejected for a cold die at the n-th shots (from 1) after a start."""
    return np.asarray(_COLD_SHARES[_WARM_AFTER.searchsorted(shot)])


class Shot(NamedTuple):
    """What became of one shot, and what was measured."""

    end_ns: int
    cycle_ms: int
    bad: bool
    """Whether it was rejected."""
    number: int
    """Since the last start with a cold die."""
    biscuit_um: int
    pressure_kpa: int


class Shots:
    """The shots made, or sure to be made, so far: an array a column, an entry a shot."""

    __slots__ = ("bad", "biscuit_um", "cycle_ms", "end_ns", "number", "pressure_kpa")

    def __init__(self) -> None:
        self.end_ns = array("q")
        self.cycle_ms = array("i")
        self.bad = array("b")
        self.number = array("i")
        self.biscuit_um = array("i")
        self.pressure_kpa = array("i")

    def __len__(self) -> int:
        return len(self.end_ns)

    def __getitem__(self, n: int) -> Shot:
        return Shot(
            self.end_ns[n], self.cycle_ms[n], bool(self.bad[n]), self.number[n],
            self.biscuit_um[n], self.pressure_kpa[n],
        )  # fmt: skip

    def __iter__(self) -> Iterator[Shot]:
        return (self[n] for n in range(len(self)))

    def between(self, after_ns: int, to_ns: int) -> slice:
        """Which ended in ``(after_ns, to_ns]``."""
        return slice(bisect_right(self.end_ns, after_ns), bisect_right(self.end_ns, to_ns))

    def log(self, end_ns: Ints, run: "Run") -> None:
        """The shots of a run, with the times at which they end."""
        self.end_ns.frombytes(end_ns.tobytes())
        for column, values in (
            (self.cycle_ms, (run.cycle_ns + NS_PER_MS // 2) // NS_PER_MS),
            (self.number, run.number), (self.biscuit_um, run.biscuit_um),
            (self.pressure_kpa, run.pressure_kpa),
        ):  # fmt: skip
            column.frombytes(values.astype(np.int32).tobytes())
        self.bad.frombytes(run.bad.astype(np.int8).tobytes())


class Run(NamedTuple):
    """Shots in a row, as columns."""

    cycle_ns: Ints
    bad: Flags
    mends: Flags
    """Of the rejects those that can be reworked."""
    number: Ints
    biscuit_um: Whole
    pressure_kpa: Whole


class Limits(NamedTuple):
    """How far a run of shots may go at most."""

    runs_ns: int
    """Running time left until something breaks, in the middle of a shot or not."""
    begins_ns: int
    """Running time after which no more shot is begun, at least 1."""
    last_ns: int
    """The same, but a shot may begin at this very time."""
    good: int
    """Good pieces, at least 1."""


class Coming:
    """The shots to come, if nothing is between them.

    A cell keeps some hundred rows, so they are kept no wider than what they say: odds and pressures
    as floats of 32 bits, the biscuit in the tenths of a millimetre that are measured.
    """

    def __init__(self, spec: "CastingCellSpec", dice: np.random.Generator) -> None:
        self._spec = spec
        self._dice = dice
        self._drift = float(dice.standard_normal())
        """Deviation of the biscuit at the last row drawn, in standard deviations."""
        self._at = _ROWS
        """The next row; rows are drawn when one is asked for."""
        self._expected = 1
        """Its number since a start."""

    def _draw(self) -> None:
        """The next block of rows."""
        spec, dice = self._spec, self._dice
        length, step, stray = dice.standard_normal((_ROWS, 3)).T
        odds: Floats = dice.random((_ROWS, 4)).T
        self._odds: Narrow = odds[1:].astype(np.float32)
        cycle_s = spec.cycle_s * np.maximum(1.0 + spec.cycle_spread * length, 0.5)
        self._ends_ns: Ints = np.zeros(_ROWS + 1, dtype=np.int64)
        np.cumsum(np.rint(cycle_s * NS_PER_S).astype(np.int64), out=self._ends_ns[1:])
        self._ends: list[int] = self._ends_ns.tolist()
        """The same as plain numbers, to look a single time up in."""
        steps = np.full(_ROWS, -np.log(spec.biscuit_memory) if spec.biscuit_memory else np.inf)
        drift = noise(self._drift, step, steps)
        self._drift = float(drift[-1])
        short = odds[0] < spec.short_dose_ratio
        biscuit = spec.biscuit_mm + spec.biscuit_sd_mm * drift - spec.short_dose_mm * short
        biscuit = np.maximum(biscuit, 0.0)
        lost = np.clip(_LOSS_PER_MM * (spec.biscuit_lsl_mm - biscuit), 0.0, _MOST_LOST)
        self._pressure: Narrow = (spec.pressure_mpa * (1.0 - lost)).astype(np.float32)
        self._stray: Narrow = (spec.pressure_sd_mpa * stray).astype(np.float32)
        self._biscuits = np.rint(10.0 * biscuit).astype(np.int32)
        self._at = 0
        self._judge()

    def _judge(self) -> None:
        """What becomes of the rows from the next one on, it having the number expected."""
        spec, low = self._spec, self._at
        self._first = low
        cold_odds, bad_odds, mend_odds = self._odds[:, low:]
        number = self._numbers(len(cold_odds))
        share = cold_scrap(number) / LOW_REJECTED
        through = np.where(cold_odds < share, _FROZEN, 1.0)
        pressure = np.maximum(self._pressure[low:] * through + self._stray[low:], 0.0)
        porous = pressure < LOW_PRESSURE * spec.pressure_mpa
        self._bad: Flags = bad_odds < np.where(porous, LOW_REJECTED, spec.scrap_ratio)
        self._mends: Flags = self._bad & ~porous & (mend_odds < spec.rework_ratio)
        self._pressures = np.rint(10.0 * pressure).astype(np.int32)
        self._good = np.zeros(len(number) + 1, dtype=np.int32)
        np.cumsum(~self._bad, out=self._good[1:])

    def _numbers(self, count: int) -> Ints:
        """Of the next shots since a start."""
        return np.arange(self._expected, self._expected + count, dtype=np.int64)

    @property
    def number(self) -> int:
        """Of the next shot since a start with a cold die."""
        return self._expected

    def restart(self) -> None:
        """The next shot is the first one into a cold die."""
        if self._expected != 1:
            self._expected = 1
            if self._at < _ROWS:
                self._judge()

    def take(self, limits: Limits) -> tuple[Run, int | None]:
        """The whole shots up to the first limit, or to the last row known (then more may follow at
        once); and if the next one breaks off, how long it would have been, and it is none."""
        if self._at == _ROWS:
            self._draw()
        at, first, ends = self._at, self._first, self._ends_ns
        now_ns, good = self._ends[at], int(self._good[at - first])
        plain = self._ends
        whole = bisect_right(plain, now_ns + limits.runs_ns) - 1 - at
        count = min(
            _ROWS - at,
            bisect_left(plain, now_ns + limits.begins_ns) - at,
            bisect_right(plain, now_ns + limits.last_ns) - at,
            int(self._good.searchsorted(good + limits.good)) - (at - first),
        )
        broken = int(ends[at + whole + 1] - ends[at + whole]) if whole < count else None
        count = min(whole, count)
        judged = slice(at - first, at - first + count)
        run = Run(
            ends[at + 1 : at + 1 + count] - ends[at : at + count],
            self._bad[judged], self._mends[judged], self._numbers(count),
            100 * self._biscuits[at : at + count], 100 * self._pressures[judged],
        )  # fmt: skip
        self._at += count
        self._expected += count
        if broken is not None:  # its row is used up, its number is not
            self._at += 1
            if self._at < _ROWS:
                self._judge()
        return run, broken
