"""PackML states, modes and maintenance to the time model of ISO 22400-2, in one table.

Every moment of planned busy time of which there is evidence lies in exactly one element:

    PBT ─┬─ AUBT ─┬─ AUPT ─┬─ APT   produces
         │        │        └─ AUST  is set up
         │        └─ ADET           is delayed: stopped, blocked, starved, run by hand
         ├─ ADOT                    is available and runs for nobody
         └─ CMT, PMT, MT            is maintained: corrective, preventive, not said which
"""

from typing import Final

from ingest.packml import Maintenance, Mode, PackML

PRODUCTION = "APT"
SETUP = "AUST"
DELAY = "ADET"
DOWN = "ADOT"
CORRECTIVE = "CMT"
PREVENTIVE = "PMT"
MAINTAINED = "MT"


MAINTENANCE: dict[int, str] = {
    Maintenance.CORRECTIVE: CORRECTIVE,
    Maintenance.PREVENTIVE: PREVENTIVE,
}
"""By what ``maintenance`` tells. It goes before mode and state, with an order or without."""

FAILED: Final = frozenset(
    {
        PackML.HOLDING,
        PackML.HELD,
        PackML.UNHOLDING,
        PackML.ABORTING,
        PackML.ABORTED,
        PackML.CLEARING,
    }
)
"""Stopped for an internal cause. A *failure event* is a change into these from outside."""

_PRODUCTION: dict[int, str] = {
    PackML.EXECUTE: PRODUCTION,
    PackML.RESETTING: SETUP,
    PackML.STARTING: SETUP,
    PackML.COMPLETING: SETUP,
    PackML.HOLDING: DELAY,
    PackML.HELD: DELAY,
    PackML.UNHOLDING: DELAY,
    PackML.ABORTING: DELAY,
    PackML.ABORTED: DELAY,
    PackML.CLEARING: DELAY,
    PackML.STOPPING: DELAY,
    PackML.SUSPENDING: DELAY,
    PackML.SUSPENDED: DELAY,
    PackML.UNSUSPENDING: DELAY,
    PackML.IDLE: DOWN,
    PackML.STOPPED: DOWN,
    PackML.COMPLETE: DOWN,
}

ELEMENT: dict[int, dict[int, str]] = {
    Mode.PRODUCTION: _PRODUCTION,
    # Run by hand it makes nothing that was planned: an interruption.
    Mode.MANUAL: {s: DOWN if where == DOWN else DELAY for s, where in _PRODUCTION.items()},
    # A machine that fails while it is set up is delayed, so that TBF and TTR do not overlap.
    Mode.SETUP: {state: DELAY if state in FAILED else SETUP for state in _PRODUCTION},
    Mode.MAINTENANCE: dict.fromkeys(_PRODUCTION, MAINTAINED),
}
"""By mode and state, where time goes while an order is on the unit, within planned busy time.
Without an order every state is ADOT, but in mode maintenance: the unit is available and runs for
nobody."""


def element(
    state: int | None, order: int | None, mode: int | None = None, maintenance: int | None = None
) -> str | None:
    """The time element of a moment of planned busy time; ``None``: no evidence, as of a state or
    mode that has no place in the table. A mode not told is production, maintenance not told none.
    """
    if maintenance in MAINTENANCE:
        return MAINTENANCE[maintenance]
    if state is None or order is None:
        return None
    found = ELEMENT.get(Mode.PRODUCTION if mode is None else mode, {}).get(state)
    return DOWN if found is not None and found != MAINTAINED and order <= 0 else found
