"""A folder to start from: commented scenario, plant and settings files, and a CI job on request."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from beilun import console
from config.errors import UsageError
from config.version import __version__

WORKFLOW = f"""\
# Replays a recording on every push, and fails when a KPI moved.
name: beilun
on: [push, pull_request]
jobs:
  kpis:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: pipx install "beilun=={__version__}"
      - run: sh ci/beilun.sh
      - uses: actions/upload-artifact@v4
        if: always()
        with:
          name: beilun
          path: ci/beilun.xml
"""

SCRIPT = """\
#!/bin/sh
# Replays the recording and fails (exit 1) when a KPI moved; works in any CI system.
#
#   sh ci/beilun.sh            compare with the golden rows
#   sh ci/beilun.sh --update   take today's rows as golden, after a change that was meant
#
# Commit ci/recording.beilun and ci/golden.ndjson. Until there is a recording, --update makes one
# from scenario.toml; put a recording of your own factory in its place when you have one.
set -eu
cd "$(dirname "$0")/.."
if [ "${1:-}" = "--update" ]; then
    if [ ! -f ci/recording.beilun ]; then
        beilun run scenario.toml --for 10m -o ci/recording.beilun || [ $? -eq 1 ]
    fi
    # Exit 1 would only say that ten minutes are too short for what the scenario expects of a day.
    beilun replay ci/recording.beilun --golden ci/golden.ndjson || [ $? -eq 1 ]
    exit 0
fi
if [ ! -f ci/recording.beilun ] || [ ! -f ci/golden.ndjson ]; then
    echo "no recording yet: run sh ci/beilun.sh --update, and commit what it writes" >&2
    exit 1
fi
beilun config check scenario.toml plant.toml beilun.toml
exec beilun replay ci/recording.beilun --expect ci/golden.ndjson --junit ci/beilun.xml
"""


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Where to write.", show_default="here")
    ] = Path(),
    ci: Annotated[bool, typer.Option("--ci", help="Also a CI job that watches the KPIs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> None:
    """Write scenario.toml, plant.toml and beilun.toml, ready to run and to change."""
    texts = {
        "scenario.toml": scenario_text(),
        "plant.toml": (files("config") / "plants" / "quickstart.toml").read_text("utf-8"),
        "beilun.toml": settings_text(),
    }
    if ci:
        texts |= {".github/workflows/beilun.yml": WORKFLOW, "ci/beilun.sh": SCRIPT}
    there = [name for name in texts if (folder / name).exists()]
    if there and not force:
        raise UsageError(
            f"already there: {', '.join(there)}",
            at=str(folder),
            hint="--force overwrites; nothing was written",
        )
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        console.out(str(path))
    console.note(f"next: beilun run {folder / 'scenario.toml'}")
    if ci:
        console.note("then: sh ci/beilun.sh --update, and commit what it writes")


def scenario_text() -> str:
    """The shipped scenario, running the plant file beside it."""
    text = (files("config") / "scenarios" / "quickstart.toml").read_text("utf-8")
    return re.sub(
        r"(?m)^plant = .*$",
        'plant = "plant.toml"        # beside this file; a bare name is a shipped plant',
        text,
        count=1,
    )


def settings_text() -> str:
    """Every setting with its meaning and default, commented out."""
    return "\n".join(_settings_lines()) + "\n"


def _settings_lines() -> Iterator[str]:
    from config import settings

    yield "# Settings of this folder and all below it; `beilun config show` tells what is in force."
    yield "# Precedence: default < scenario < this file < BEILUN_SECTION__KEY < flag."
    section = ""
    for setting in settings.load(env={}, folder=Path("/")).show():
        table, _, name = setting.key.partition(".")
        if name in ("password", "token", "secret"):
            continue  # never in a file
        if table != section:
            section = table
            yield f"\n[{section}]"
        yield from (f"# {line}" for line in setting.doc.splitlines())
        value = setting.value
        if (table, name) in settings.LISTS:
            value = "[" + ", ".join(f'"{each}"' for each in value.split(", ") if each) + "]"
        elif name in ("password_file", "token_file", "secret_file"):
            value = '"/run/secrets/broker"'
        else:
            value = f'"{value}"'
        yield f"# {name} = {value}"
