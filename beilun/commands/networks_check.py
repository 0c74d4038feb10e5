"""``beilun networks check``: the link model against published measurements and its own promises."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from beilun import console
from config.errors import Exit

if TYPE_CHECKING:
    from simulator.link.check import Finding


def command(
    profile: Annotated[str, typer.Argument(help="A network profile; default: all.")] = "",
    seed: Annotated[int, typer.Option(help="Start of every random stream.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Compare, line by line; a line without a target is a number to know. Exit 1 on a miss."""
    from simulator.link.check import check
    from simulator.link.profile import load_profile, profile_names

    names = [load_profile(profile).name] if profile else profile_names()
    lines = [(name, finding) for name in names for finding in check(name, seed)]
    if as_json:
        console.ndjson({"profile": name, **finding._asdict()} for name, finding in lines)
    else:
        adjusted = [line for line in lines if not line[1].held_out]
        _show("Constants were adjusted with these in sight", adjusted)
        if held_out := [line for line in lines if line[1].held_out]:
            _show("Not fitted to", held_out)
    missed = sum(finding.ok is False for _, finding in lines)
    console.note(f"{len(lines)} lines, {missed} missed")
    return Exit.FAILED if missed else Exit.OK


def _show(title: str, lines: Sequence[tuple[str, "Finding"]]) -> None:
    words = {True: "PASS", False: "FAIL", None: ""}
    console.table(
        ("", "profile", "id", "what", "published", "modelled", "target"),
        [(words[f.ok], name, f.id, f.what, f.measured, f.modelled, f.target) for name, f in lines],
        title,
    )
    for text in dict.fromkeys(f"{name} {f.id}: {f.why}" for name, f in lines if f.why):
        console.out(text)
    console.out("")
