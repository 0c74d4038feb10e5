"""The alarms of a run: rules in force, how a recording keeps them, the webhook, what is told."""

from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, contextmanager

from pydantic import ValidationError

from beilun.verdict import asset_path
from config.alarms import Rule, Rules, rules_in_force
from config.errors import ConfigError, RecordingError
from config.settings import Settings, Webhook
from config.units import format_duration, format_time
from edge import kpis
from edge.alarms import Alarms, Standing, standings
from edge.rows import Row
from edge.sinks import webhook
from edge.sinks.forward import Forwarder
from edge.sinks.outbox import Outbox
from ingest.recording import Recording

BOX = "webhook"
"""Whose outbox it is, beside the store's."""
_SHOWN = 20
"""The most alarms that a run's summary lists."""


def rules_of(effective: Settings) -> tuple[Rule, ...]:
    """The rules that are in force under these settings; raises ``ConfigError``."""
    return rules_in_force(effective.alarms.file, kpis=kpis.load(), windows=effective.edge.windows)


def alarms_header(rules: Sequence[Rule]) -> Mapping[str, str]:
    """The rules as a recording keeps them."""
    return {"alarms": Rules(rule=tuple(rules)).as_json()}


def recorded_rules(recording: Recording) -> tuple[Rule, ...]:
    """The rules a recording was made under; none for one of before there were any."""
    text = recording.meta("alarms")
    if text is None:
        return ()
    try:
        return Rules.model_validate_json(text).rule
    except ValidationError as error:
        raise RecordingError(
            f"its alarm rules cannot be read: {error.errors()[0]['msg']}", at=str(recording.path)
        ) from None


@contextmanager
def posting(
    settings: Webhook, recording: Recording, alarms: Alarms
) -> Generator[Forwarder | None, None, None]:
    """What posts alarms of a recording that change in the block; ``None`` without a webhook."""
    if not settings.url:
        yield None
        return
    try:
        server = webhook.Webhook(settings.url, secret=settings.key(), timeout_ns=settings.timeout)
    except ValueError as error:
        raise ConfigError(str(error), at="webhook.secret") from None

    def post(row: Row, _: str) -> str:
        return webhook.post_of(row, alarms.about(row), recording.meta("run") or "")

    # No windows: their names are the rules', and each alarm goes out once.
    outbox = Outbox(recording, (), most=settings.backlog, name=BOX, kpis="alarm.*", write=post)
    outbox.prepare()
    with closing(server):
        yield Forwarder(outbox, server, keep_s=0.0, batch=1)


def lines(rows: Iterable[Row], rules: Sequence[Rule]) -> list[str]:
    """What was raised in a run, as lines for people; nothing where there are no rules."""
    if not rules:
        return []
    found = standings(rows)
    if not found:
        return [f"Alarms: none raised by {len(rules)} rules"]
    standing = sum(each.cleared is None for each in found)
    counts = Counter(each.rule for each in found)
    summed = ", ".join(f"{name} {n}" for name, n in counts.most_common())
    told = [f"Alarms: {len(found)} raised, {standing} standing ({summed})"]
    severities = {rule.name: rule.severity for rule in rules}
    told += [f"  {line(each, severities.get(each.rule, ''))}" for each in found[:_SHOWN]]
    if len(found) > _SHOWN:
        told.append(f"  and {len(found) - _SHOWN} more; `beilun alarms FILE` lists them")
    return told


def line(each: Standing, severity: str) -> str:
    """One alarm on a line."""
    ended = each.cleared_ns
    lasted = "stands" if ended is None else f"for {format_duration(ended - each.raised_ns)}"
    where = asset_path(each.asset)
    return f"{format_time(each.raised_ns)}  {severity:8}  {each.rule}@{where}  {lasted}"
