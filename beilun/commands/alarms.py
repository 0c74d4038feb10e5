"""Alarm rules in force, what a recording raised, and sending its alarms to a webhook."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beilun import alarming, console
from beilun.commands.nouns import known
from config import settings as layers
from config import tomlfile
from config.errors import ConfigError, Exit, RecordingError, UsageError

if TYPE_CHECKING:
    from config.alarms import Rule

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="RULE|FILE", show_default=False,
            help="Describe this rule; or list what a recording raised, or the rules of a file.",
        ),
    ] = "",
    scenario: Annotated[str, typer.Option(help="Rules in force in this scenario.")] = "",
    as_json: Json = False,
) -> None:  # fmt: skip
    """List the alarm rules in force, describe one, or list the alarms of a recording."""
    path = Path(name)
    if name and (tomlfile.is_path(name) or path.is_file()):
        if path.suffix == ".toml":
            _list(_of_file(path), as_json=as_json)
        else:
            _raised(path, as_json=as_json)
        return
    from beilun.composing import scenario_of

    rules = alarming.rules_of(layers.load(scenario_of(scenario) if scenario else None))
    if not name:
        if not rules:
            console.note("no rule is in force: none was chosen, or none goes by windows in use")
        _list(rules, as_json=as_json)
        return
    by_name = {rule.name: rule for rule in rules}
    chosen = by_name[known("alarm rule", name, by_name)]
    if as_json:
        console.ndjson([_settings(chosen)])
        return
    shown = {key: value for key, value in _settings(chosen).items() if value not in (None, [])}
    width = max(map(len, shown)) + 2
    text = shown.pop("text")
    console.out(*(f"{f'text.{tongue}':{width}}{said}" for tongue, said in text.items()))
    console.out(*(f"{key:{width}}{_plain(value)}" for key, value in shown.items()))


def send(
    file: Annotated[Path, typer.Argument(help="A recording that nobody writes to now.")],
    webhook: Annotated[str | None, typer.Option(help="https://host/path.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every alarm, also those that were taken before.")
    ] = False,
) -> Exit:
    """Send the alarms that a webhook was not told, or all of them."""
    from beilun import remote
    from beilun.composing import recorded_campus, recorded_policy
    from edge.alarms import Alarms
    from edge.store import RowStore
    from ingest.boundary import guarding
    from ingest.recording import Recording

    effective = layers.load(flags={"webhook.url": webhook})
    if not effective.webhook.url:
        raise UsageError(
            "name the webhook", hint=f"beilun alarms send {file} --webhook https://host/path"
        )
    with Recording.open(file) as readable:
        rules, windows = alarming.recorded_rules(readable), recorded_policy(readable).windows
        within = recorded_campus(readable)
    with guarding(within), Recording.create(file) as recording:
        store = RowStore(recording)
        store.prepare()
        alarms = Alarms(rules, windows, store)
        with alarming.posting(effective.webhook, recording, alarms) as poster:
            assert poster is not None
            return remote.send(poster, "webhook", everything=everything)


def _of_file(path: Path) -> "tuple[Rule, ...]":
    from config.alarms import load_rules
    from edge import kpis

    try:
        return load_rules(path, kpis=kpis.load()).rule
    except ConfigError as error:
        error.hint = error.hint or "`beilun config schema alarms` lists every setting of a rule"
        raise


def _list(rules: "tuple[Rule, ...]", *, as_json: bool) -> None:
    from edge import kpis

    if as_json:
        console.ndjson(map(_settings, rules))
        return
    units = {kpi.name: kpi.unit for kpi in kpis.load().values()}
    console.table(
        ("rule", "severity", "kpi", "of", "raised by", "text"),
        [
            (rule.name, rule.severity, rule.kpi, _where(rule),
             rule.told(units.get(rule.kpi, "1")), rule.text.en)
            for rule in rules
        ],
    )  # fmt: skip


def _where(rule: "Rule") -> str:
    named = "" if rule.asset == "*" else f" {rule.asset}"
    kinds = f" of {', '.join(rule.kinds)}" if rule.kinds else ""
    return f"{rule.level}{named}{kinds}"


def _settings(rule: "Rule") -> dict[str, Any]:
    """A rule in the words of its file, with all its defaults and the unit of its KPI."""
    from edge import kpis

    given = rule.model_dump(mode="json", by_alias=True)
    kpi = kpis.load().get(rule.kpi)
    return {**given, "unit": None if kpi is None else kpi.unit}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _raised(path: Path, *, as_json: bool) -> None:
    """What a recording raised, oldest first."""
    from beilun.composing import recorded_policy
    from edge.alarms import Alarms
    from edge.store import RowStore
    from ingest.recording import Recording

    with Recording.open(path) as recording:
        rules = alarming.recorded_rules(recording)
        if recording.meta("alarms") is None:
            raise RecordingError(
                "was made without alarm rules", at=str(path), hint="`beilun run` makes one with"
            )
        store = RowStore(recording)
        found = list(_standings(Alarms(rules, recorded_policy(recording).windows, store), store))
    if as_json:
        console.ndjson(found)
        return
    console.table(
        ("raised", "cleared", "for", "severity", "rule", "asset", "value", "limit", "unit"),
        [
            (each["raised"], each["cleared"] or "stands", each["lasted"] or "", each["severity"],
             each["rule"], each["asset"], each["value"], each["threshold"], each["unit"])
            for each in found
        ],
    )  # fmt: skip


def _standings(alarms: Any, store: Any) -> Iterator[dict[str, Any]]:
    from beilun.verdict import asset_path
    from config.units import NS_PER_S, format_duration, format_time
    from edge.alarms import standings

    for each in standings(store.named("alarm.*")):
        about = alarms.about(each.raised)
        ended_ns = each.cleared_ns
        lasted_ns = None if ended_ns is None else ended_ns - each.raised_ns
        yield {
            "rule": each.rule,
            "severity": about.get("severity", ""),
            "text": about.get("text"),
            "asset": asset_path(each.asset),
            "raised": format_time(each.raised_ns),
            "cleared": None if ended_ns is None else format_time(ended_ns),
            "lasted": None if lasted_ns is None else format_duration(lasted_ns),
            "lasted_s": None if lasted_ns is None else lasted_ns / NS_PER_S,
            "kpi": about.get("kpi", ""),
            "value": about.get("value"),
            "condition": about.get("condition", ""),
            "threshold": about.get("threshold"),
            "unit": about.get("unit", ""),
            "window": about.get("window", ""),
        }
