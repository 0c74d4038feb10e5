"""PackML (ANSI/ISA-TR88.00.02): the 17 states, unit modes and maintenance, as on the wire."""

from enum import IntEnum


class PackML(IntEnum):
    """State numbers of OPC 30060. HELD is for causes inside, SUSPENDED for blocked or starved."""

    CLEARING = 1
    STOPPED = 2
    STARTING = 3
    IDLE = 4
    SUSPENDED = 5
    EXECUTE = 6
    STOPPING = 7
    ABORTING = 8
    ABORTED = 9
    HOLDING = 10
    HELD = 11
    UNHOLDING = 12
    SUSPENDING = 13
    UNSUSPENDING = 14
    RESETTING = 15
    COMPLETING = 16
    COMPLETE = 17


class Mode(IntEnum):
    """Unit modes, as channel ``mode`` tells them; a unit that tells none is in production."""

    PRODUCTION = 1
    MAINTENANCE = 2
    MANUAL = 3
    SETUP = 4


class Maintenance(IntEnum):
    """What is done to keep a unit running, as channel ``maintenance`` tells it."""

    NONE = 0
    CORRECTIVE = 1
    PREVENTIVE = 2
