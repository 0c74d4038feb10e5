"""The campus boundary of a run: which rows may leave, what was sent where, what is judged."""

from collections.abc import Callable, Collection, Iterable, Sequence

from beilun.verdict import Verdict, asset_path
from config.campus import Campus
from config.scenario import Expect
from edge.rows import Row
from ingest.boundary import TRAFFIC, Sent, Traffic, outside, sent, side
from ingest.recording import Recording

FORBIDDEN: tuple[Traffic, ...] = ("telemetry", "control")
"""What may not leave where a scenario says so. Summaries may: those it names, and only those are
ever handed to the feed."""


def allowance(campus: Campus | None) -> Callable[[Row, str], bool]:
    """Whether a row may be fed. With a campus it must be among its summaries wherever the feed
    leads: a broker inside may pass on what it gets."""
    if campus is None:
        return lambda _row, _window: True
    return lambda row, window: campus.allows(row.kpi, asset_path(row.asset), window)


def recorded(recording: Recording, halves: Iterable[str]) -> list[Sent]:
    """What the halves of a run sent, by the ledger of its recording."""
    return [each for half in halves for each in sent(half, recording.entries(side(half)))]


def judge(campus: Campus, counts: Sequence[Sent], halves: Collection[str]) -> list[Verdict]:
    """That nothing forbidden left; not shown where one of the halves has left no count, and nothing
    to show where the campus only counts."""
    if not campus.only:
        return []
    silent = sorted(set(halves) - {each.half for each in counts})
    told = f"no count of the {' and the '.join(silent)}" if silent else ""
    verdicts: list[Verdict] = []
    for traffic in FORBIDDEN:
        left = outside(counts, traffic)
        measured = None if silent and not left else float(left)
        expect = Expect(kpi="bytes_outside", asset=traffic, op="==", value=(0.0,))
        verdicts.append(Verdict(expect, traffic, measured, measured == 0, told))
    return verdicts


def lines(campus: Campus, counts: Sequence[Sent]) -> list[str]:
    """Who sent how much to which address, as a table, and what of it left."""
    rule = "only summaries may leave" if campus.only else "everything may leave, and is counted"
    rows = [
        (each.half, each.address, "inside" if each.inside else "OUTSIDE",
         *(f"{each.sent_bytes[traffic]:,}" for traffic in TRAFFIC))
        for each in counts
    ]  # fmt: skip
    table = [("from", "to", "campus", *(f"{traffic} bytes" for traffic in TRAFFIC)), *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    left = ", ".join(f"{traffic} {outside(counts, traffic):,}" for traffic in TRAFFIC)
    return [
        f"Campus ({campus.spelt}): {rule}",
        *(
            "  ".join(
                cell.ljust(width) if place < 3 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in table
        ),
        f"bytes that left: {left} (as handed to MQTT, or to the socket of a store or webhook)",
    ]
