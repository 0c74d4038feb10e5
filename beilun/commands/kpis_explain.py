"""``beilun kpis explain``: where the value of a KPI came from, down to the messages."""

import bisect
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Annotated, NamedTuple, TextIO

import typer

from beilun import console
from beilun.commands.nouns import known
from beilun.commands.replay import reader
from beilun.commands.watch import newest
from beilun.composing import recorded_policy, versions
from beilun.verdict import asset_path
from config.errors import Exit, RecordingError, UsageError
from config.globs import asset_matches
from config.tomlfile import guess
from config.units import (
    NS_PER_MS,
    NS_PER_S,
    format_duration,
    format_time,
    parse_duration,
    parse_time,
)
from config.windows import Order, Span, Window, labels_of, longest, spelt
from edge import evidence as evidences
from edge import kpis
from edge.engine import Engine
from edge.evidence import Evidence, Inquiry, Place, Quantity, Said, Spectrum, Stretch
from edge.kpi import Kpi
from edge.measures import Facts
from edge.pipeline import Journal
from edge.policy import Policy
from edge.rows import ALL, ORDER_NUMBER, Row, rows_in
from edge.store import RowStore
from ingest.messages import Asset, Batch, Identity
from ingest.packml import Mode, PackML
from ingest.recording import Recording

_BAR = 60
_GLYPHS = "█▓▒░#=+:*%@&abcdefgh"
_STRETCHES = 24
"""How many stretches of a time line are listed; the longest, where there are more."""
_COLUMNS = 6
"""Members that are columns of a table; more are its lines."""
_ELEMENTS = ("apt_ns", "aust_ns", "adet_ns", "adot_ns", "maintained_ns", "dark_ns")
"""Facts that share planned busy time out among them."""
_NAMES: Mapping[str, type[PackML | Mode]] = {"state": PackML, "mode": Mode}
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")


class Spot(NamedTuple):
    """Where a message lies in the journal."""

    block: int
    place: int
    """In the block, from 0."""
    codec: str
    topic: str
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Found:
    """A row of a recording, and what it was made of."""

    stored: Row
    evidence: Evidence
    policy: Policy
    label: str
    truth: float | None
    has_truth: bool
    spots: Mapping[tuple[Identity, int], Spot]
    read: int
    """Messages of the asset in the journal."""
    made_here: bool
    """Whether this version of the program made the recording."""

    @property
    def same(self) -> bool:
        """Whether the row came out as it is stored."""
        mine = self.evidence.row
        return all(
            getattr(mine, name) == getattr(self.stored, name)
            for name in ("value", "n", "late", "unit")
        )


def command(
    kpi: Annotated[str, typer.Argument(metavar="KPI", help="One of `beilun kpis`.")],
    file: Annotated[
        Path | None, typer.Argument(help="A recording.", show_default="newest in runs/")
    ] = None,
    asset: Annotated[
        str, typer.Option(help="Whose: a name or path; of a line, area or site too.")
    ] = "",
    window: Annotated[
        str | None,
        typer.Option(
            help="Which windows: 1h, shift, order ..., or one: START+LENGTH.",
            show_default="the longest",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            help="The window that holds this moment, like 2026-01-05T01:00:00Z.",
            show_default="the last with a value",
        ),
    ] = None,
    messages: Annotated[
        bool, typer.Option("--messages", help="List the messages it was made of.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many messages to list.")] = 20,
    raw: Annotated[bool, typer.Option("--raw", help="With --messages: their bytes too.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object: everything, times in ns.")
    ] = False,
) -> Exit:
    """Show what a KPI's value was made of: times, counts, time line, messages. Exit 1 if the
    journal gives another value than the one that is stored."""
    every = kpis.load()
    chosen = every[known("KPI", kpi, every)]
    path = file or newest()
    with Recording.open(path) as recording:
        found = _find(recording, chosen, asset, window, at)
        said = evidences.messages(found.evidence, found.policy.late) if messages else []
        shown = _spread(said, limit)
        payloads = _payloads(recording, found, shown) if raw else {}
    if as_json:
        console.ndjson([_as_json(found, every, said if messages else None, payloads)])
    else:
        _show(found, every, path)
        if messages:
            _show_messages(found, said, shown, payloads)
        elif found.evidence.parts:
            console.note("--messages lists the messages; --json has every stretch and fact")
    if found.same:
        return Exit.OK
    why = "" if found.made_here else "; the recording was made by another version"
    console.error(f"the journal does not give the stored row{why}")
    return Exit.FAILED


# which row ----------------------------------------------------------------------------------------


def _find(recording: Recording, kpi: Kpi, asset: str, window: str | None, at: str | None) -> Found:
    policy = recorded_policy(recording)
    path = recording.path
    store = RowStore(recording)
    everyone = store.assets()
    mine: dict[Asset, list[Row]] = {}
    for row in store.rows(kpis=(kpi.name, ORDER_NUMBER)):
        mine.setdefault(row.asset, []).append(row)
    if not everyone:
        raise RecordingError(
            "holds no KPI rows", at=str(path), hint="`beilun replay FILE` computes them"
        )
    having = {a: rows for a, rows in mine.items() if any(r.kpi == kpi.name for r in rows)}
    whose = _asset(path, kpi, asset, having.keys(), everyone)
    stored, kind = _row(having[whose], policy.windows, kpi, window, at)
    place = evidences.place_of(stored)
    # Windows that are not asked for change nothing of the others; but where one of them lies at
    # the very place of an order, it has the row.
    by_order = isinstance(kind, Order) and not labels_of(policy.windows, place.span)
    if kind is not None and not isinstance(kind, Order):
        policy = replace(policy, windows=(kind,))
    inquiry = Inquiry((kpi,), (place,), (place.span,) if by_order else ())
    evidence, spots, read = _replayed(recording, inquiry, place, policy)
    if evidence is None:
        raise RecordingError(
            f"the journal gives no row of {kpi.name} there, though one is stored",
            at=str(path), hint="`beilun replay FILE` compares all of them",
        )  # fmt: skip
    truths = {
        row[:4]: row.value for row in recording.truth()
        if row.kpi == kpi.name and row.window_start_ns == place.span.start_ns
    }  # fmt: skip
    key = ("/".join(whose), kpi.name, place.span.start_ns, place.span.length_ns)
    label = kind.label if kind is not None else format_duration(place.span.length_ns)
    here = recording.meta_json("versions") == versions()
    return Found(stored, evidence, policy, label, truths.get(key), key in truths, spots, read, here)


def _asset(
    path: Path, kpi: Kpi, text: str, having: Collection[Asset], everyone: Collection[Asset]
) -> Asset:
    """The asset that is meant, of those that have the KPI."""
    have = {asset_path(a): a for a in everyone if a in having}
    there = f"{kpi.name} is there of {_some(sorted(have)) or 'no asset'}"
    if not text:
        own = [a for a in have.values() if a.name != ALL]
        if len(own) == 1:
            return own[0]
        raise UsageError("--asset says whose value is to be explained", hint=there)
    found = [a for p, a in have.items() if asset_matches(text, p)]
    if len(found) == 1:
        return found[0]
    if found:
        paths = sorted(map(asset_path, found))
        raise UsageError(f"{text} may be {_some(paths)}", hint="write the whole path")
    others = {asset_path(a): a for a in everyone}
    if any(asset_matches(text, p) for p in others):
        what = f"{text} has no {kpi.name}"
        if kpi.kinds:
            what += f", which is made for {', '.join(kpi.kinds)}"
        raise UsageError(f"{what} that announced {_some(kpi.needs)}" if kpi.needs else what,
                         hint=there)  # fmt: skip
    names = [*others, *(p.rpartition("/")[2] for p in others)]
    raise UsageError(f"{path} has no asset {text!r}{guess(text, names)}", hint=there)


def _row(
    rows: list[Row], windows: Sequence[Window], kpi: Kpi, text: str | None, at: str | None
) -> tuple[Row, Window | None]:
    """The row that is meant, and the kind of its window where that is one in use."""
    at_ns = None
    try:
        if at is not None:
            at_ns = parse_time(at)
        exact = _span(text) if text is not None else None
        label = None if text is None or exact is not None else spelt(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    kind = longest(windows) if label is None else next(
        (w for w in windows if w.label == label), None)  # fmt: skip
    own = [row for row in rows if row.kpi == kpi.name]
    if exact is not None:
        found = [row for row in own if evidences.place_of(row).span == exact]
        names = labels_of(windows, exact)
        kind = next((w for w in windows if w.label in names), None)
        if kind is None and any(
            evidences.place_of(r).span == exact for r in rows_in(rows, Order())
        ):
            kind = next((w for w in windows if isinstance(w, Order)), None)
    elif kind is None:
        used = ", ".join(w.label for w in windows)
        raise UsageError(f"no windows of {label} in the recording", hint=f"there are {used}")
    else:
        found = [row for row in rows_in(rows, kind) if row.kpi == kpi.name]
    if at_ns is not None:
        found = [r for r in found if r.window_start_ns <= at_ns < evidences.place_of(r).span.end_ns]
    if not found:
        shown = own if kind is None else [r for r in rows_in(rows, kind) if r.kpi == kpi.name]
        raise UsageError("no such window in the recording", hint=_windows_there(shown or own))
    found.sort(key=lambda row: row.window_start_ns)
    told = [row for row in found if row.value is not None]
    return (told or found)[-1], kind


def _span(text: str) -> Span | None:
    """``START+LENGTH``; ``None`` for a label."""
    start, plus, length = text.rpartition("+")
    if not plus or "T" not in start:
        return None
    start_ns = parse_time(start)
    return Span(start_ns, start_ns + parse_duration(length))


def _windows_there(rows: Sequence[Row]) -> str:
    lengths: dict[int, list[int]] = {}
    for row in rows:
        lengths.setdefault(row.window_length_ns, []).append(row.window_start_ns)
    return "there are " + "; ".join(
        f"{len(starts)} of {format_duration(length)}, from {format_time(min(starts))} to"
        f" {format_time(max(starts) + length)}"
        for length, starts in islice(sorted(lengths.items()), 6)
    )


def _some(names: Sequence[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _replayed(
    recording: Recording, inquiry: Inquiry, place: Place, policy: Policy
) -> tuple[Evidence | None, dict[tuple[Identity, int], Spot], int]:
    """What the journal gives for a row, and where the asset's messages lie in it."""
    decoder, run = reader(recording)
    engine = Engine(policy, inquiry.kpis, Journal(recording, decoder), run=run)
    spots: dict[tuple[Identity, int], Spot] = {}
    read = 0
    total = recording.db.execute("SELECT count(*) FROM block").fetchone()[0]
    with console.progress(total, "blocks") as progress:
        for count, block in enumerate(recording.blocks(), 1):
            for number, envelope in enumerate(block.envelopes):
                records = decoder.read(envelope)
                engine.feed(records)
                for message in (record.message for record in records):
                    if not isinstance(message, Batch) or message.asset != place.asset:
                        continue
                    read += 1
                    spot = Spot(block.id, number, envelope.codec, envelope.topic,
                                len(envelope.payload))  # fmt: skip
                    spots.setdefault((message.meta.identity, message.meta.arrival_ns), spot)
            inquiry.note(engine.advance())
            progress.update(count)
    inquiry.note(engine.finish())
    return inquiry.evidence(place), spots, read


def _payloads(recording: Recording, found: Found, said: Sequence[Said]) -> dict[Identity, bytes]:
    """The bytes of messages, as the journal has them."""
    wanted: dict[int, list[tuple[int, Identity]]] = {}
    for one in said:
        if (spot := found.spots.get((one.identity, one.arrival_ns))) is not None:
            wanted.setdefault(spot.block, []).append((spot.place, one.identity))
    payloads: dict[Identity, bytes] = {}
    last = max(wanted, default=0)
    for block in recording.blocks():
        for number, identity in wanted.get(block.id, ()):
            payloads[identity] = block.envelopes[number].payload
        if block.id >= last:
            break
    return payloads


# what it says -------------------------------------------------------------------------------------


def _show(found: Found, every: Mapping[str, Kpi], file: Path) -> None:
    evidence, stored = found.evidence, found.stored
    row, kpi = evidence.row, evidence.kpi
    span = evidences.place_of(row).span
    console.out(
        f"{console.paint(kpi.name, 'bold', _stdout())} of {asset_path(row.asset)},"
        f" {format_time(span.start_ns)} to {format_time(span.end_ns)} ({found.label})",
        kpi.summary, "",
    )  # fmt: skip
    late = f", {stored.late:,} of them late" if stored.late else ""
    console.out(f"{'stored':12}{_exact(stored.value)} {_unit(row.unit)}".rstrip()
                + f"   from {stored.n:,} samples{late}; revision {stored.revision}")  # fmt: skip
    if found.same:
        word = console.paint("the same", "good", _stdout())
        console.out(f"{'recomputed':12}{word}, to the bit, from the journal")
    else:
        late = f", {row.late:,} late" if row.late else ""
        word = console.paint("NOT THE SAME", "bad", _stdout())
        console.out(f"{'recomputed':12}{_exact(row.value)} {_unit(row.unit)}".rstrip()
                    + f"   from {row.n:,} samples{late}: {word}")  # fmt: skip
    if found.has_truth:
        console.out(f"{'truth':12}{_exact(found.truth)}{_error(row.value, found.truth)}")
    covered_ns = _covered_ns(evidence)
    if evidence.parts and covered_ns < span.length_ns:
        console.out(f"{'covered':12}{_clock(covered_ns)} of {_clock(span.length_ns)}:"
                    " the asset came later, or the recording ends sooner")  # fmt: skip
    for head, words in zip(chain(("announced",), repeat("")), _announced(evidence), strict=False):
        console.out(f"{head:12}{words}")
    console.out("")
    _show_formula(evidence, every)
    if evidence.members:
        _show_members(evidence, file)
    else:
        _show_facts(evidence)
        for name, line in evidences.time_lines(evidence).items():
            _show_line(name, line, span)


def _announced(evidence: Evidence) -> Iterator[str]:
    """What the asset said beforehand of how to read the channels that went into a row."""
    birth, inputs = evidence.birth, evidence.kpi.inputs
    if birth is None:
        return
    for channel in inputs:
        if channel in birth.modulus:
            yield f"{channel} begins again at 0 at {birth.modulus[channel]:.10g}"
        if sentinels := birth.sentinels.get(channel):
            yield f"{channel} of {', '.join(f'{v:.10g}' for v in sentinels)} is no measurement"


def _error(value: float | None, truth: float | None) -> str:
    if value is None or truth is None:
        return "" if value is truth else "   known on one side only"
    if value == truth:
        return "   no error"
    relative = f" ({(value - truth) / abs(truth):+.3%})" if truth else ""
    return f"   error {value - truth:+.4g}{relative}"


def _show_formula(evidence: Evidence, every: Mapping[str, Kpi]) -> None:
    kpi = evidence.kpi
    console.out(f"{'formula':12}{kpi.formula}   [{kpi.clause}]")
    terms = evidences.symbols(evidence, every)
    words = dict.fromkeys(_WORD.findall(kpi.formula))
    if words.keys() <= terms.keys():
        console.out(f"{'':12}{_filled(kpi.formula, terms)}")
    elif some := ", ".join(f"{w} = {_term(terms, w)}" for w in words if w in terms):
        console.out(f"{'':12}where {some}")
    result = evidence.row.value
    if result is None:
        why = (
            "what it divides by is nothing, or was not told" if evidence.facts
            else "nothing was heard that it could be made of"
        )  # fmt: skip
        console.out(f"{'':12}= {console.NO_DATA}   no evidence: {why}")
    else:
        console.out(f"{'':12}= {_exact(result)} {_unit(kpi.unit)}".rstrip())
    for name in words:
        if name in terms and name in every:
            formula = every[name].formula
            console.out(f"{'':12}{name} = {formula} = {_filled(formula, terms)}")
    console.out("")


def _filled(formula: str, terms: Mapping[str, Quantity]) -> str:
    """A formula with the numbers put in, as far as they are known."""
    return _WORD.sub(lambda word: _term(terms, word[0]), formula)


def _term(terms: Mapping[str, Quantity], word: str) -> str:
    quantity = terms.get(word)
    if quantity is None:
        return word
    return f"{_exact(float(quantity.value))} {_unit(quantity.unit)}".rstrip()


def _show_facts(evidence: Evidence) -> None:
    told = evidences.described(evidence)
    amounts = [one for one in told if isinstance(one, Quantity)]
    spectra = [one for one in told if isinstance(one, Spectrum)]
    if amounts:
        covered_ns = _covered_ns(evidence)
        lines = [
            (one.label, _amount(one), _share(one, covered_ns)) for one in amounts
        ]  # fmt: skip
        console.out("Made of")
        _aligned(lines)
        console.out("")
    if spectra:
        console.table(
            ("readings", "n", "min", "p50", "max", "unit"),
            [(s.label, s.n, s.least, s.middle, s.most, s.unit) for s in spectra],
        )
        console.out("")


def _covered_ns(evidence: Evidence) -> int:
    """How much of the window was folded."""
    return max((part.span.length_ns for part in evidence.parts), default=0)


def _share(quantity: Quantity, covered_ns: int) -> str:
    if quantity.unit != "s" or not covered_ns:
        return ""
    share = float(quantity.value * NS_PER_S / covered_ns)
    return f"{share:6.1%}" if share <= 1 else ""


def _show_members(evidence: Evidence, file: Path) -> None:
    members, name = evidence.members, evidence.kpi.name
    console.out(f"The sum of {len(members)}: facts are added up, never values")
    columns = [(member.row.asset.name, member.facts, member.row) for member in members]
    columns.append(("sum", evidence.facts, evidence.row))
    heads = ("", *(_label(evidence, fact) for fact in evidence.facts), "samples", "late", name)
    lines = [
        (head, *(_short(evidence, facts, fact) for fact in evidence.facts), f"{row.n:,}",
         f"{row.late:,}", console.number(row.value))
        for head, facts, row in columns
    ]  # fmt: skip
    if len(members) <= _COLUMNS:
        heads, *lines = zip(heads, *lines, strict=True)
    console.table(heads, lines)
    first = members[0].row
    console.note(f"`{command_for(evidences.place_of(first), file)}` goes on")


def _label(evidence: Evidence, name: str) -> str:
    (one,) = evidences.described(evidence, {name: evidence.facts[name]})
    return one.label


def _short(evidence: Evidence, facts: Facts, name: str) -> str:
    if name not in facts:
        return console.NO_DATA
    (one,) = evidences.described(evidence, {name: facts[name]})
    if isinstance(one, Spectrum):
        return f"{one.n:,} around {console.number(one.middle)} {_unit(one.unit)}".rstrip()
    return _amount(one)


# time line ----------------------------------------------------------------------------------------


def _show_line(name: str, line: Sequence[Stretch], span: Span) -> None:
    if not line:
        return
    totals: dict[str, int] = {}
    for stretch in line:
        for element in stretch.elements:
            totals[element] = totals.get(element, 0) + stretch.span.length_ns

    def kind(stretch: Stretch) -> str:
        return _kind(stretch, totals)

    spent: dict[str, int] = {}
    for stretch in line:
        spent[kind(stretch)] = spent.get(kind(stretch), 0) + stretch.span.length_ns
    order = sorted(spent, key=lambda one: -spent[one])
    glyphs = {one: _GLYPHS[min(n, len(_GLYPHS) - 1)] for n, one in enumerate(order) if one}
    glyphs[""] = "·"
    whole = Span(line[0].span.start_ns, line[-1].span.end_ns)
    console.out(
        f"Time line by `{name}`: {len(line):,} {'stretch' if len(line) == 1 else 'stretches'}",
        f"  {_bar(line, span, glyphs, kind)}",
        "  " + "  ".join(f"{glyphs[one]} {_stem(one) or 'nothing counted'}"
                         f" {_clock(spent[one])} ({spent[one] / whole.length_ns:.1%})"
                         for one in order),
    )  # fmt: skip
    longest_ = sorted(line, key=lambda stretch: -stretch.span.length_ns)[:_STRETCHES]
    listed = sorted(longest_)
    told = {c: {s.situation[c] for s in line} for c in line[0].situation}
    always = {c: values.pop() for c, values in told.items() if len(values) == 1}
    channels = [c for c in told if c not in always]
    if constant := [f"{c} {_reading(c, v)}" for c, v in always.items() if v is not None]:
        console.out("  all the time: " + ", ".join(constant))
    rows = [
        (_moment(s.span.start_ns, span), _clock(s.span.length_ns), _stem(kind(s)) or "–",
         *(_reading(channel, s.situation[channel]) for channel in channels),
         ", ".join(f"{_stem(n)} +{f}" for n, f in s.facts.items()
                   if isinstance(f, int) and f and not n.endswith(("_ns", "_us"))))
        for s in listed
    ]  # fmt: skip
    _lines(("start", "length", "counts as", *channels, "counted"), rows)
    if len(line) > len(listed):
        rest = {s.span for s in line} - {s.span for s in listed}
        rest_ns = sum(span.length_ns for span in rest)
        console.out(f"and {len(rest):,} shorter stretches, {_clock(rest_ns)} in all")
    console.out("")


def _kind(stretch: Stretch, totals: Mapping[str, int]) -> str:
    """The fact that says most about a stretch: an element of the time model, else the rarest."""
    own = stretch.elements
    return next((e for e in _ELEMENTS if e in own), min(own, key=totals.__getitem__, default=""))


def _bar(
    line: Sequence[Stretch],
    span: Span,
    glyphs: Mapping[str, str],
    kind: Callable[[Stretch], str],
) -> str:
    """The time line in a few characters, each what has most of its time; blank: not folded."""
    out = ""
    starts = [stretch.span.start_ns for stretch in line]
    for place in range(_BAR):
        low = span.start_ns + span.length_ns * place // _BAR
        high = span.start_ns + span.length_ns * (place + 1) // _BAR
        spent: dict[str, int] = {}
        for stretch in line[max(bisect.bisect_right(starts, low) - 1, 0) :]:
            if stretch.span.start_ns >= high:
                break
            part = min(high, stretch.span.end_ns) - max(low, stretch.span.start_ns)
            if part > 0:
                spent[kind(stretch)] = spent.get(kind(stretch), 0) + part
        out += glyphs[max(spent, key=spent.__getitem__)] if spent else " "
    return out.rstrip()


# messages -----------------------------------------------------------------------------------------


def _spread(said: Sequence[Said], most: int) -> list[Said]:
    """The first and the last of them, half and half."""
    if len(said) <= most:
        return list(said)
    return [*said[: most - most // 2], *(said[-(most // 2) :] if most > 1 else ())]


def _show_messages(
    found: Found, said: Sequence[Said], shown: Sequence[Said], payloads: Mapping[Identity, bytes]
) -> None:
    if found.evidence.members:
        console.note("messages are listed of one asset at a time: explain a member")
        return
    span = evidences.place_of(found.stored).span
    n, late = len(said), sum(one.late for one in said)
    earlier = sum(one.before for one in said)
    console.out(
        f"Messages: {n:,} of the asset's {found.read:,}; {earlier:,} told what was known before the"
        f" window, {late:,} came late"
    )
    rows = [
        (
            _moment(one.first_ns, span),
            "known before" if one.before else "late" if one.late else "",
            str(one.identity.seq), _moment(one.arrival_ns, span), str(one.n or ""),
            _lies(found.spots.get((one.identity, one.arrival_ns))), _told(one),
        )
        for one in shown
    ]  # fmt: skip
    half = len(shown) - len(shown) // 2 if len(shown) < n else len(shown)
    columns = ("time", "", "seq", "arrival", "samples", "block:place", "said")
    if len(shown) < n:
        rows.insert(half, ("...", f"{n - len(shown):,} more", "", "", "", "", "--limit lists them"))
    _lines(columns, rows)
    topics = sorted({s.topic for o in said if (s := found.spots.get((o.identity, o.arrival_ns)))})
    console.out("topics: " + _some(topics, 6))
    for one in shown:
        if one.identity in payloads:
            console.out(f"seq {one.identity.seq}: {_text(payloads[one.identity])}")
    if not payloads and shown:
        console.note("--raw shows their bytes as they are in the journal")


def _lies(spot: Spot | None) -> str:
    return console.NO_DATA if spot is None else f"{spot.block}:{spot.place}"


def _told(one: Said) -> str:
    if not one.told:
        if one.before:
            return ""
        return (
            f"delay {console.number((one.arrival_ns - one.sent_ns) / NS_PER_MS)} ms"
            if one.sent_ns is not None else ""
        )  # fmt: skip
    return ", ".join(
        f"{channel} {_reading(channel, first)}"
        + (f" → {_reading(channel, last)}" if first != last else "")
        for channel, (first, last) in one.told.items()
    )


def _text(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return payload.hex()


# words --------------------------------------------------------------------------------------------


def _stdout() -> TextIO:
    return sys.stdout


def _exact(value: float | None) -> str:
    """Six significant digits, whole numbers in full."""
    if value is None:
        return console.NO_DATA
    return f"{int(value):,}" if value == int(value) else f"{value:,.6g}"


def _unit(unit: str) -> str:
    """UCUM without the braces of what is counted; nothing for a ratio."""
    return "" if unit == "1" else unit.replace("{", "").replace("}", "")


def _amount(quantity: Quantity) -> str:
    if quantity.unit == "s":
        return _clock(int(quantity.value * NS_PER_S))
    if quantity.unit == "piece.s":
        return f"{_exact(float(quantity.value / 3_600))} piece.h"
    return f"{_exact(float(quantity.value))} {_unit(quantity.unit)}".rstrip()


def _clock(ns: int) -> str:
    """A duration as h:mm:ss, to the millisecond where it is not whole seconds."""
    ms = round(Fraction(ns, NS_PER_MS))
    seconds, rest = divmod(ms, 1_000)
    minutes, second = divmod(seconds, 60)
    text = f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
    return f"{text}.{rest:03d}" if rest else text


def _moment(t_ns: int, span: Span) -> str:
    """The time of day, with the date where that is not the one day (in UTC) of the window."""
    text = format_time(t_ns)
    days = {text[:10], format_time(span.start_ns)[:10], format_time(span.end_ns - 1)[:10]}
    return text[11:] if len(days) == 1 else text


def _stem(name: str) -> str:
    return name.removesuffix("_ns")


def _reading(channel: str, value: float | None) -> str:
    """States and modes by name, whole numbers without a point."""
    if value is None:
        return "?"
    names = _NAMES.get(channel)
    if names is not None and value in {int(member) for member in names}:
        return names(int(value)).name
    return f"{value:.10g}"


def command_for(place: Place, file: Path) -> str:
    """What to type to have a row of a recording explained."""
    words = ("beilun", "kpis", "explain", place.kpi, "--asset", asset_path(place.asset),
             "--window", _spelt(place.span), str(file))  # fmt: skip
    return shlex.join(words)


def _spelt(span: Span) -> str:
    """``START+LENGTH``, to the nanosecond: the windows of orders begin and end anywhere."""
    whole, rest = divmod(span.start_ns, NS_PER_S)
    part = f".{rest:09d}".rstrip("0") if rest else ""
    start = f"{format_time(whole * NS_PER_S).removesuffix('Z')}{part}Z"
    if span.length_ns % NS_PER_MS == 0:
        return f"{start}+{format_duration(span.length_ns)}"
    seconds, rest = divmod(span.length_ns, NS_PER_S)
    return f"{start}+{seconds}.{rest:09d}s"


def _aligned(lines: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(line[place]) for line in lines) for place in (0, 1)]
    for label, amount, share in lines:
        console.out(f"  {label:{widths[0]}}  {amount:>{widths[1]}}  {share}".rstrip())


def _as_json(
    found: Found,
    every: Mapping[str, Kpi],
    said: Sequence[Said] | None,
    payloads: Mapping[Identity, bytes],
) -> dict[str, object]:
    evidence, stored = found.evidence, found.stored
    row = evidence.row
    terms = evidences.symbols(evidence, every)
    used = {w: terms[w] for w in _WORD.findall(evidence.kpi.formula) if w in terms}
    both_known = row.value is not None and found.truth is not None
    return {
        "asset": asset_path(row.asset), "kpi": row.kpi, "unit": row.unit, "window": found.label,
        "window_start_ns": row.window_start_ns, "window_length_ns": row.window_length_ns,
        "value": stored.value, "n": stored.n, "late": stored.late, "revision": stored.revision,
        "recomputed": {"value": row.value, "n": row.n, "late": row.late}, "same": found.same,
        "truth": found.truth if found.has_truth else None,
        "error": (row.value or 0.0) - (found.truth or 0.0) if both_known else None,
        "formula": evidence.kpi.formula, "clause": evidence.kpi.clause,
        "announced": list(_announced(evidence)),
        "terms": {w: {"value": float(q.value), "unit": q.unit} for w, q in used.items()},
        "facts": _plain(evidence.facts),
        "members": [
            {"asset": asset_path(m.row.asset), "value": m.row.value, "n": m.row.n,
             "late": m.row.late, "facts": _plain(m.facts)}
            for m in evidence.members
        ],
        "time_lines": {
            name: [
                {"start_ns": s.span.start_ns, "end_ns": s.span.end_ns,
                 "situation": s.situation, "facts": _plain(s.facts)}
                for s in line
            ]
            for name, line in evidences.time_lines(evidence).items()
        },
        "messages": None if said is None else [
            _message_json(one, found, payloads.get(one.identity)) for one in said
        ],
    }  # fmt: skip


def _plain(facts: Facts) -> dict[str, object]:
    return {n: f if isinstance(f, int) else {str(b): c for b, c in sorted(f.items())}
            for n, f in facts.items()}  # fmt: skip


def _message_json(one: Said, found: Found, payload: bytes | None) -> dict[str, object]:
    spot = found.spots.get((one.identity, one.arrival_ns))
    told: dict[str, object] = {
        "source": one.identity.source, "boot": one.identity.boot, "seq": one.identity.seq,
        "first_ns": one.first_ns, "sent_ns": one.sent_ns, "arrival_ns": one.arrival_ns,
        "before": one.before, "late": one.late, "n": one.n,
        "told": {c: list(v) for c, v in one.told.items()},
        "topic": spot and spot.topic, "block": spot and spot.block, "place": spot and spot.place,
        "n_bytes": spot and spot.n_bytes,
    }  # fmt: skip
    return told if payload is None else told | {"payload": _text(payload)}


def _lines(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table whose last column may be long: a terminal shows as much of it as there is room."""
    lines = console.aligned(columns, rows)
    if console.is_terminal(sys.stdout):
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
    console.out(*lines)
