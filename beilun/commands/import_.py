"""Turns a tabular log into a recording."""

import hashlib
import io
import json
from pathlib import Path
from typing import Annotated

import typer

from beilun import console
from beilun.composing import edge_header, versions
from config.errors import ConfigError, Exit, UsageError
from config.mapping import Mapping, find_mapping
from config.scenario import EdgeSettings
from config.units import format_time


def command(
    mapping: Annotated[str, typer.Argument(help="Mapping file, or the name of a shipped one.")],
    data: Annotated[Path, typer.Argument(help="The table, as text.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Recording; default: DATA.beilun.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> Exit:
    """Turn a tabular log into a recording, through a mapping of its columns.

    `beilun replay` then computes its KPIs. Rows that say nothing usable are counted by reason and
    kept in the recording.
    """
    from ingest.recording import Recording
    from ingest.tabular import Tabular

    made = find_mapping(mapping)
    target = output or data.with_suffix(".beilun")
    if made.table is None:
        raise ConfigError("has no [table]: it reads live messages only", at=mapping)
    if not data.is_file():
        raise ConfigError("no such file", at=str(data))
    if target.exists() and not force:
        raise UsageError("is there already", at=str(target), hint="--force replaces it")
    part = target.with_name(target.name + ".part")
    _remove(part)
    try:
        encoding = "utf-8-sig" if made.table.encoding in ("utf-8", "utf8") else made.table.encoding
        with (
            data.open("rb") as raw,
            io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="") as lines,
            Recording.create(part) as recording,
            console.progress(data.stat().st_size, "bytes") as bar,
        ):
            run = _run_id(made.text, raw)
            table = Tabular(made, lines)
            recording.set_meta(_header(made, run))
            for block in table:
                recording.append(block.records, block.rejects)
                bar.update(raw.tell(), f"{table.counts.rows} rows")
        counts = table.counts
        reasons = [f"{n:>8}  {why:15} first: {counts.first_detail[why]}"
                   for why, n in counts.rejected.most_common()]  # fmt: skip
        if counts.first_ns is None or counts.last_ns is None:
            raise ConfigError(
                f"none of {counts.rows} rows is usable", at=str(data), details=reasons
            )
        _remove(target)
        part.replace(target)
    finally:
        _remove(part)
    console.note(
        f"{data.name}: {counts.rows} rows, {counts.samples} samples of {table.asset}"
        f" in {counts.messages} messages, {format_time(counts.first_ns)}"
        f" to {format_time(counts.last_ns)}"
    )
    blank = {name: n for name, n in counts.blank.items() if n}
    if blank:
        console.note("blank cells (no evidence) by channel:")
        shown = [f"{name} {n}" for name, n in sorted(blank.items())]
        console.note("  " + ", ".join(shown[:12]) + (", ..." if len(shown) > 12 else ""))
    if reasons:
        n = counts.rejected.total()
        console.error(f"{n} row{'s' * (n != 1)} refused, kept in the recording:")
        for line in reasons:
            console.error(line)
    console.note(f"wrote {target}; `beilun replay {target}` computes its KPIs")
    return Exit.OK


def _remove(path: Path) -> None:
    """A recording, and what a killed writer left beside it: SQLite would apply it to the next."""
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def _run_id(mapping: str, raw: io.BufferedReader) -> str:
    """The same for the same mapping and table."""
    content = hashlib.blake2b(mapping.encode() + b"\0")
    while part := raw.read(1 << 20):
        content.update(part)
    raw.seek(0)
    return f"import-{content.hexdigest()[:12]}"


def _header(mapping: Mapping, run: str) -> dict[str, str]:
    return {
        "run": run,
        "source": "import",
        "name": mapping.name,
        "mapping": mapping.text,
        "versions": json.dumps(versions()),
        "edge": edge_header(EdgeSettings()),
    }
