"""PackML (ANSI/ISA-TR88.00.02): the 17 states and their numbers on the wire."""

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
