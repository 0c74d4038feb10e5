"""What may be confirmed: the highest number of a connection with none missing before it."""

from collections.abc import Mapping


class Contiguous:
    """Tracks, per connection, the highest contiguous number out of any order, with repeats.

    Numbers begin at 1. An edge that restarts hands in what its journal held.

    >>> seen = Contiguous()
    >>> for cseq in (1, 2, 4):
    ...     seen.add("cell-1", cseq)
    >>> seen.highest("cell-1")
    2
    >>> seen.add("cell-1", 3)
    >>> seen.highest("cell-1")
    4
    """

    def __init__(self, highest: Mapping[str, int] | None = None) -> None:
        self._highest = dict(highest or {})
        self._ahead: dict[str, set[int]] = {}

    def add(self, conn: str, cseq: int) -> None:
        """Count a number as committed."""
        top = self._highest.get(conn, 0)
        if cseq <= top:
            return
        ahead = self._ahead.setdefault(conn, set())
        if cseq > top + 1:
            ahead.add(cseq)
            return
        top = cseq
        while top + 1 in ahead:
            top += 1
            ahead.remove(top)
        self._highest[conn] = top

    def highest(self, conn: str) -> int:
        """The last number before the first gap; 0 where nothing came yet."""
        return self._highest.get(conn, 0)

    def all(self) -> dict[str, int]:
        """The highest contiguous number of every connection heard of."""
        return dict.fromkeys(self._ahead, 0) | self._highest

    def missing(self, conn: str) -> bool:
        """Whether there is a gap: numbers came beyond the highest contiguous one."""
        return bool(self._ahead.get(conn))
