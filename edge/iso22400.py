"""PackML states to the time model of ISO 22400-2, in one table."""

from ingest.packml import PackML

PRODUCTION = "APT"
SETUP = "AUST"
DELAY = "ADET"
DOWN = "ADOT"

ELEMENT: dict[PackML, str] = {
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
"""Where time in a state goes while an order is on the unit, within planned busy time. Without an
order every state is ADOT: the unit is available and runs for nobody."""


def element(state: int | None, order: int | None) -> str | None:
    """The time element of a moment of planned busy time; ``None``: no evidence."""
    if state is None or order is None:
        return None
    return ELEMENT[PackML(state)] if order else DOWN
