"""One root exception: where, what, and what to try; the exit code belongs to the branch."""

from collections.abc import Sequence
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every verb."""

    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID = 3
    UNREACHABLE = 4
    BUG = 70
    INTERRUPTED = 130


class BeilunError(Exception):
    """Something a person can mend. Anything else that escapes is a bug and exits 70.

    ``problem`` says what, ``at`` where (a file, a device, an address), ``hint`` what to try, and
    ``details`` lists every single problem found, in the words of the file.
    """

    exit: Exit = Exit.FAILED

    def __init__(
        self, problem: str, *, at: str = "", hint: str = "", details: Sequence[str] = ()
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.at = at
        self.hint = hint
        self.details = tuple(details)

    def __str__(self) -> str:
        lines = [f"{self.at}: {self.problem}" if self.at else self.problem]
        lines += [f"  {detail}" for detail in self.details]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class UsageError(BeilunError):
    """The words of the command are wrong."""

    exit = Exit.USAGE


class ConfigError(BeilunError):
    """A file or setting does not validate."""

    exit = Exit.INVALID


class RecordingError(BeilunError):
    """A recording is damaged, foreign, or of another format."""

    exit = Exit.INVALID


class UnreachableError(BeilunError):
    """A broker or store does not answer."""

    exit = Exit.UNREACHABLE
