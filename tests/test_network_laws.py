"""Laws that every network profile keeps, those in ``config/networks`` today and those to come."""

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from config.errors import ConfigError
from config.units import NS_PER_MS, NS_PER_S
from simulator.link import profile as profiles
from simulator.link.link import Direction, Link
from simulator.link.profile import Profile, load_profile, profile_names

SHIPPED = {
    "ethernet",
    "mmwave-5g",
    "private-4g",
    "private-5g",
    "private-5g-udp",
    "urllc-5g",
    "wifi-ideal",
    "wifi-loaded",
    "wifi-untuned",
}


def test_the_promised_profiles_are_shipped():
    assert set(profile_names()) >= SHIPPED


@pytest.mark.parametrize("name", profile_names())
class TestEveryProfile:
    def test_it_is_valid_and_says_what_it_is(self, name: str):
        profile = load_profile(name)
        assert profile.name == name
        assert profile.summary.endswith(".")
        assert profile.source
        assert Profile.model_validate(profile.model_dump()) == profile

    @pytest.mark.parametrize("direction", Direction, ids=lambda d: d.name)
    def test_delays_are_positive_ordered_seeded_and_their_quantiles_rise(
        self, name: str, direction: Direction
    ):
        t_ns = 10**18 + np.arange(5_000, dtype=np.int64) * (200 * NS_PER_MS)
        n_bytes = np.full_like(t_ns, 250)
        profile = load_profile(name)
        first, same, other = (
            Link(profile, seed).bearer("a", direction).send_many(t_ns, n_bytes)
            for seed in (5, 5, 6)
        )
        assert first.tolist() == same.tolist() != other.tolist()
        heard = first >= 0
        delay_ns = (first - t_ns)[heard]
        assert np.all(delay_ns > 0)
        assert np.all(np.diff(first[heard]) >= 0)
        assert np.all(np.diff(np.percentile(delay_ns, [0, 1, 50, 90, 99, 99.9, 100])) >= 0)
        assert np.median(delay_ns) < NS_PER_S

    @pytest.mark.parametrize("direction", Direction, ids=lambda d: d.name)
    def test_what_is_lost_has_a_cause_and_tcp_loses_nothing(self, name: str, direction: Direction):
        profile = load_profile(name).model_copy(update={"drop_ratio": 0.1})
        bearer = Link(profile, 5).bearer("a", direction)
        t_ns = 10**18 + np.arange(2_000, dtype=np.int64) * (200 * NS_PER_MS)
        arrival_ns = bearer.send_many(t_ns, np.full_like(t_ns, 250))
        assert np.sum(arrival_ns < 0) == sum(bearer.lost.values())
        assert set(bearer.lost) <= {"radio", "drop"}
        assert bool(bearer.lost) == (profile.transport.kind == "udp")


def models(model: type[BaseModel]) -> list[type[BaseModel]]:
    return [model, *(deeper for sub in model.__subclasses__() for deeper in models(sub))]


UNITS = (
    "_ms", "_us", "_s", "_m", "_db", "_dbm", "_ppm", "_mbps", "_hz", "_ghz", "_ratio", "_bytes",
)  # fmt: skip
COUNTS = {
    "cw_max",
    "cw_min",
    "after",  # written with its unit, like 90s
    "five_qi",
    "flows",
    "length",  # written with its unit
    "modulus",  # in the unit of the channel
    "per_h",  # in the unit of the channel
    "ratio",
    "retries",
    "rounds",
    "sst",
    "transmissions",
    "users_per_slot",
    "weight",
    "window",  # a duration, which is written with its unit
}


def test_every_number_of_a_profile_names_its_unit():
    for model in models(profiles.Spec):
        for name, field in model.model_fields.items():
            if field.annotation in (int, float):
                assert name.endswith(UNITS) or name in COUNTS, f"{model.__name__}.{name}"


def test_an_unknown_profile_gets_a_guess():
    with pytest.raises(ConfigError, match="unknown network profile 'privat-5g'") as caught:
        load_profile("privat-5g")
    assert "private-5g" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        load_profile("../plants/quickstart")
    assert "known: ethernet" in caught.value.hint


def test_all_problems_of_a_file_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (files("config") / "networks" / "private-5g.toml").read_text("utf-8")
    text = text.replace('"DDDU"', '"DDDD"').replace("slot_ms = 0.5", 'slot_ms = "half"')
    (tmp_path / "odd.toml").write_text(text.replace("drop_ratio", "drop_rate"))
    (tmp_path / "torn.toml").write_text("summary = ")
    monkeypatch.setattr(profiles, "_folder", lambda: tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_profile("odd")
    assert caught.value.at == "odd.toml"
    text = str(caught.value)
    assert "3 problems" in text
    assert "radio.slot_ms   should be a valid number, got 'half'" in text
    assert "drop_rate       unknown setting; did you mean drop_ratio?" in text
    assert "drop_ratio      is missing [ratio]" in text
    with pytest.raises(ConfigError, match="not TOML"):
        load_profile("torn")


def test_a_profile_is_closed_strict_and_immutable():
    profile = load_profile("private-5g")
    raw = profile.model_dump()
    with pytest.raises(ValidationError):
        Profile.model_validate(raw | {"colour": "red"})
    with pytest.raises(ValidationError):
        Profile.model_validate(raw | {"drop_ratio": "0.1"})
    with pytest.raises(ValidationError):
        profile.name = "x"


def test_requests_fall_on_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = (files("config") / "networks" / "private-5g.toml").read_text("utf-8")
    (tmp_path / "odd.toml").write_text(text.replace("sr_period_ms = 2.0", "sr_period_ms = 2.5"))
    monkeypatch.setattr(profiles, "_folder", lambda: tmp_path)
    with pytest.raises(ConfigError, match=r"no multiple of 2 ms"):
        load_profile("odd")


def test_like_takes_whole_tables_and_does_not_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base, udp = load_profile("private-5g"), load_profile("private-5g-udp")
    assert udp.radio == base.radio
    assert udp.up == base.up
    assert udp.transport.kind == "udp"
    folder = files("config") / "networks"
    (tmp_path / "private-5g.toml").write_text((folder / "private-5g.toml").read_text("utf-8"))
    (tmp_path / "a.toml").write_text('like = "private-5g"\n')
    (tmp_path / "b.toml").write_text('like = "a"\n')
    monkeypatch.setattr(profiles, "_folder", lambda: tmp_path)
    assert load_profile("a").radio == base.radio
    with pytest.raises(ConfigError, match="itself like another"):
        load_profile("b")


def test_the_files_hold_mechanisms_and_no_table_of_delays():
    folder = files("config") / "networks"
    for name in profile_names():
        values: list[object] = [tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))]
        while values:
            value = values.pop()
            assert not isinstance(value, list), name
            if isinstance(value, dict):
                values += value.values()
