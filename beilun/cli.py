"""The one console script: finds the verb, loads only its module, and turns errors into exit codes.

The verbs themselves are Typer functions. This front is not: Typer would have to import every module
to describe it, and ``beilun --help`` answers in the time Python takes to start. It also lets the
global options stand anywhere on the line.
"""

import io
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from config.errors import BeilunError, Exit, UsageError
from config.version import __version__

if TYPE_CHECKING:
    import typer

VERBS = {
    "run": ("run", "run a whole factory and its edge, and judge it"),
    "simulate": ("simulate", "publish a simulated factory's telemetry to a broker"),
    "edge": ("edge", "turn telemetry from a broker into KPIs"),
    "replay": ("replay", "recompute a recording's KPIs and compare them"),
    "import": ("import_", "turn a tabular log into a recording"),
    "export": ("export", "write KPI rows and signals as Parquet"),
    "explain": ("explain", "say where on the link the time of messages went"),
    "score": ("score", "hold a simulated run's KPIs against the truth"),
    "verify": ("verify", "run the published scenarios, and hold them against the headlines"),
    "map": ("map", "draft a mapping for someone else's telemetry"),
    "store": ("store", "check a remote store, or send it what it is owed"),
    "serve": ("serve:command", "serve the operators' page and the API of a recording"),
    "serve token": ("serve:token", "make a token to sign in with"),
    "watch": ("watch", "show live KPIs in this terminal"),
    "init": ("init", "write a commented scenario, plant and settings file"),
    "doctor": ("doctor", "check this machine, with a fix for each finding"),
}
NOUNS = {
    "kpis": ("nouns:kpis", "list the KPIs, or describe one"),
    "kpis explain": ("kpis_explain", "say where the value of a KPI came from"),
    "alarms": ("alarms", "list the alarm rules, describe one, or list what a recording raised"),
    "alarms send": ("alarms:send", "send a recording's alarms to a webhook"),
    "devices": ("nouns:devices", "list the device kinds, or describe one"),
    "scenarios": ("nouns:scenarios", "list the scenarios, or describe one"),
    "networks": ("nouns:networks", "list the network profiles, or describe one"),
    "networks check": ("networks_check", "the link model against published measurements"),
    "faults": ("nouns:faults", "list what can go wrong with a network, or describe one"),
    "networks compare": ("networks_compare", "one factory over two links, KPI by KPI"),
    "config": ("config", "show, check and describe settings and files"),
}
COMMANDS = VERBS | NOUNS
"""Name -> (module of ``beilun.commands``, summary).

A module offers ``command``, a function with Typer parameters that returns an ``Exit``, an ``int``
or nothing; a group of commands is a ``typer.Typer`` named ``app``; ``module:name`` names another.
"""

MEANING = {
    Exit.FAILED: "an expectation failed or had no data",
    Exit.USAGE: "wrong usage",
    Exit.INVALID: "a file or setting does not validate",
    Exit.UNREACHABLE: "broker or store unreachable",
    Exit.BUG: "a bug in beilun",
    Exit.INTERRUPTED: "interrupted",
}

_HELP = ["-h", "--help"]
_GLOBAL = """\
  -q, --quiet                  no narration
  -v, --verbose                more of it; -vv still more
      --color WHEN             auto, always or never; NO_COLOR is respected
      --debug                  tracebacks
      --version                version, Python, install location
  -h, --help                   this text, or that of a command
"""


@dataclass(frozen=True, slots=True)
class Globals:
    """Options of the whole program."""

    level: int = 0
    color: str = "auto"
    debug: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    _open_streams()
    try:
        code = _run(words)
        sys.stdout.flush()
    except BeilunError as error:
        code = error.exit
        if debug:
            _traceback()
        _say(f"error: {error}")
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        if not _stdout_is_gone():
            code = _bug(words, debug=debug)
        else:
            return int(Exit.INTERRUPTED)
    except OSError as error:
        code = Exit.INVALID
        if debug:
            _traceback()
        where = f"{error.filename}: " if error.filename else ""
        _say(f"error: {where}{error.strerror or error}")
    except Exception as error:
        code = _foreseen(error) or _bug(words, debug=debug)
    if code != Exit.OK:
        _say(f"exit {int(code)}: {MEANING[code]}")
    return int(code)


def _open_streams() -> None:
    """Standard streams that take whatever is written to them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a screen without `–` is no bug


def _run(words: list[str]) -> Exit:
    settings, rest = _globals(words)
    if not rest:
        sys.stderr.write(usage())
        return Exit.USAGE
    verb, args = rest[0], rest[1:]
    if verb in ("-h", "--help", "help"):
        if verb != "help" or not args:
            sys.stdout.write(usage())
            return Exit.OK
        verb, args = args[0], [*args[1:], "--help"]
    if verb == "--version":
        where = Path(__file__).parent
        sys.stdout.write(f"beilun {__version__} (Python {platform.python_version()}, {where})\n")
        return Exit.OK
    if verb.startswith("-"):
        raise UsageError(f"no such option: {verb}", hint="`beilun --help` lists the options")
    if args and f"{verb} {args[0]}" in COMMANDS:
        verb, args = f"{verb} {args[0]}", args[1:]
    if verb not in COMMANDS:
        raise UsageError(f"no such command: {verb}", hint=_did_you_mean(verb))
    from beilun import console

    console.setup(level=settings.level, color=settings.color)
    return _invoke(verb, args)


def _globals(words: Sequence[str]) -> tuple[Globals, list[str]]:
    """The global options, wherever they stand before ``--``, and the other words."""
    level, color, debug = 0, "auto", False
    rest: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            rest += [word, *queue]
            break
        if word in ("-q", "--quiet"):
            level = -1
        elif word == "--verbose" or re.fullmatch(r"-v+", word):
            level += 1 if word == "--verbose" else len(word) - 1
        elif word == "--debug":
            debug = True
        elif word == "--color" or word.startswith("--color="):
            color = word[8:] if "=" in word else queue.pop(0) if queue else ""
            if color not in ("auto", "always", "never"):
                raise UsageError(f"--color is auto, always or never, got {color!r}")
        else:
            rest.append(word)
    return Globals(level, color, debug), rest


def usage() -> str:
    """The text of ``beilun --help``."""

    def block(title: str, commands: dict[str, tuple[str, str]]) -> str:
        return f"\n{title}\n" + "".join(f"  {n:18}{s}\n" for n, (_, s) in commands.items())

    return (
        "usage: beilun COMMAND [options]\n\n"
        "A 5G factory floor in software: simulated machines, a modelled radio, MQTT and KPIs.\n"
        "`beilun run quickstart` shows the whole of it in under a minute.\n"
        + block("Commands", VERBS)
        + block("Look up", NOUNS)
        + "\nOptions\n"
        + _GLOBAL
    )


def _invoke(verb: str, args: list[str]) -> Exit:
    import typer

    app = _load(verb)
    group = not app.registered_commands or app.registered_callback is not None
    command: Any = typer.main.get_group(app) if group else typer.main.get_command(app)
    try:
        with command.make_context(f"beilun {verb}", args, help_option_names=_HELP) as context:
            result = command.invoke(context)
    except typer.Exit as done:
        return Exit(done.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(error.format_message() + "\n")
            return Exit.USAGE
        raise UsageError(
            error.format_message(), hint=f"`beilun {verb} --help` lists what it takes"
        ) from None
    return Exit(result or 0)


def _load(verb: str) -> "typer.Typer":
    """The module of a verb, as a Typer application with plain help."""
    import importlib

    import typer

    module, _, name = COMMANDS[verb][0].partition(":")
    loaded = importlib.import_module(f"beilun.commands.{module}")
    found = getattr(loaded, name or ("app" if hasattr(loaded, "app") else "command"))
    if isinstance(found, typer.Typer):
        found.rich_markup_mode = None
        if found.registered_callback is None:
            found.callback(help=COMMANDS[verb][1])(_no_options)
        return found
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(found)
    return app


def _no_options() -> None:
    """A group takes none of its own."""


def _did_you_mean(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.5)
    return f"did you mean `beilun {near[0]}`?" if near else "`beilun --help` lists the commands"


def _say(text: str) -> None:
    import contextlib

    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _traceback() -> None:
    import traceback

    _say(traceback.format_exc().rstrip())


def _foreseen(error: BaseException) -> Exit | None:
    """What a person can mend where it comes wrapped: in a group of tasks, or as a full disk."""
    import sqlite3

    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        error = group.exceptions[0]
    if isinstance(error, BeilunError):
        _say(f"error: {error}")
        return error.exit
    if isinstance(error, sqlite3.OperationalError | OSError):
        _say(f"error: {error}")
        return Exit.INVALID
    return None


def _bug(words: Sequence[str], *, debug: bool) -> Exit:
    """Tell of an error that nobody foresaw, and keep what is needed to find it."""
    import tempfile
    import traceback

    if debug:
        _traceback()
    called = re.sub(r"//[^/@\s]*@", "//••••@", " ".join(words))
    with tempfile.NamedTemporaryFile(
        "w", prefix="beilun-bug-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.write(f"beilun {__version__}, Python {platform.python_version()}, {sys.platform}\n")
        log.write(f"beilun {called}\n\n{traceback.format_exc()}")
    _say(f"error: this is a bug in beilun: {traceback.format_exc().strip().splitlines()[-1]}")
    _say(f"  hint: the traceback is in {log.name}; please report it with that file")
    return Exit.BUG


def _stdout_is_gone() -> bool:
    """Whether the reader of stdout has left; then what is still buffered for it goes nowhere."""
    import select

    look = select.poll()
    look.register(sys.stdout.fileno(), 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in look.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
