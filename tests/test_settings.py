"""Settings in layers, files with mistakes, scenarios."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import settings, tomlfile
from config.errors import ConfigError, Exit, UsageError
from config.scenario import EdgeSettings, Scenario, Tolerance, find_scenario, scenario_names
from config.units import NS_PER_S, format_duration

KPIS = ("oee", "line_speed")

FIVE_MISTAKES = """
plant = "nowhere.toml"
network = "private-6g"
lenght = "8h"
length = "fast"
[edge]
pane = 10
"""


def scenario(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


class TestTheScenarioFile:
    def test_tells_five_mistakes_in_one_message_with_units_and_guesses(self, tmp_path):
        with pytest.raises(ConfigError) as caught:
            find_scenario(scenario(tmp_path, FIVE_MISTAKES))
        error = caught.value
        assert error.exit == Exit.INVALID
        told = {line.split()[0]: line for line in error.details}
        assert len(error.details) == 5
        assert "no such file" in told["plant"]
        assert "did you mean private-5g?" in told["network"]
        assert told["lenght"].endswith("unknown setting; did you mean length?")
        assert "should be a positive duration, got 'fast' [duration" in told["length"]
        assert "needs a unit, got 10 [duration" in told["edge.pane"]

    def test_aligns_what_it_tells(self, tmp_path):
        with pytest.raises(ConfigError) as caught:
            find_scenario(scenario(tmp_path, FIVE_MISTAKES))
        columns = {len(line) - len(line.split(None, 1)[1]) for line in caught.value.details}
        assert len(columns) == 1

    def test_names_expectations_by_number_and_guesses_kpis(self, tmp_path):
        text = 'plant = "quickstart"\nlength = "1h"\n' + "\n".join(
            f'[[expect]]\nkpi = "{kpi}"\nop = "{op}"\nvalue = {value}'
            for kpi, op, value in (
                ("oee", ">=", 0.5),
                ("oeee", ">=", 0.5),
                ("oee", "=>", 0.5),
                ("oee", "between", 0.5),
                ("oee", "<", '"much"'),
            )
        )
        with pytest.raises(ConfigError) as caught:
            find_scenario(scenario(tmp_path, text), kpis=KPIS)
        assert [" ".join(line.split()[:2]) for line in caught.value.details] == [
            "expect #2.kpi", "expect #3.op", "expect #4.value", "expect #5.value",
        ]  # fmt: skip
        assert "did you mean oee?" in caught.value.details[0]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('[edge]\nwindows = ["1m", "15s"]', "multiple of the pane (10s); 15s is not"),
            ('[[expect]]\nkpi = "oee"\nop = ">"\nvalue = 1\nwindow = "7m"', "not in edge.windows"),
            ("[tolerance]\noee = { relativ = 0.1 }", "did you mean relative?"),
            ('start = "2026-01-05"', "write it like 2026-01-05T00:00:00Z [RFC 3339]"),
            ("seed = -1", "should be greater than or equal to 0, got -1"),
            ("seed = true", "should be a valid integer, got True"),
        ],
    )
    def test_says_what_is_wrong(self, tmp_path, text, told):
        with pytest.raises(ConfigError) as caught:
            find_scenario(scenario(tmp_path, _with_head(text)))
        assert told in str(caught.value)

    def test_gives_line_and_column_of_a_syntax_error(self, tmp_path):
        with pytest.raises(ConfigError, match="line 2, column 11: not TOML"):
            find_scenario(scenario(tmp_path, 'plant = "quickstart"\nlength = 8h\n'))

    def test_guesses_a_misspelt_file_and_a_misspelt_name(self, tmp_path):
        scenario(tmp_path, "")
        with pytest.raises(ConfigError, match=r"did you mean .*mine\.toml"):
            find_scenario(tmp_path / "mime.toml")
        with pytest.raises(UsageError, match="did you mean quickstart"):
            find_scenario("quikstart")

    def test_finds_its_plant_beside_it(self, tmp_path):
        (tmp_path / "plant.toml").write_text("")
        found = find_scenario(scenario(tmp_path, _with_head("", plant="plant.toml")))
        assert found.name == "mine"
        assert found.plant_file() == tmp_path / "plant.toml"

    @pytest.mark.parametrize("name", scenario_names())
    def test_every_shipped_one_is_valid(self, name):
        from config.claims import load_claims
        from edge import kpis

        found = find_scenario(name, kpis=kpis.load())
        assert found.summary
        assert found.name == name
        assert found.expect or load_claims().of(name), "nothing is expected of it"


def _with_head(text: str, plant: str = "quickstart") -> str:
    return f'plant = "{plant}"\nlength = "1h"\n{text}\n'


def test_problems_are_told_by_name_where_an_item_has_one():
    assert tomlfile.key(("device", 1, "cycle_s"), {"device": [{}, {"name": "dcm02"}]}) == (
        "device[dcm02].cycle_s"
    )


class TestTolerance:
    def test_takes_the_wider_of_the_two(self):
        either = Tolerance(relative=0.1, absolute=0.5)
        assert either.covers(10.0, 11.0)
        assert either.covers(1.0, 1.5)
        assert not either.covers(1.0, 1.6)

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_by_default_covers_nothing_but_the_same(self, value):
        assert Tolerance().covers(value, value)
        assert not Tolerance().covers(1.0, 1.0 + 2**-52)


class TestSettings:
    LAYERS = ("default", "scenario", "beilun.toml", "--config", "environment", "flag")

    @pytest.mark.parametrize("highest", range(len(LAYERS)), ids=LAYERS)
    def test_the_highest_layer_wins_and_is_named(self, tmp_path, highest):
        def when(layer: int) -> bool:
            return layer <= highest

        (tmp_path / "deep").mkdir()
        given_file = tmp_path / "other.toml"
        given_file.write_text('[edge]\nlateness = "33s"\n')
        if when(2):
            (tmp_path / "beilun.toml").write_text('[edge]\nlateness = "22s"\n')
        got = settings.load(
            Scenario(
                name="mine", plant="quickstart", length=1,
                edge=EdgeSettings(lateness=11 * NS_PER_S),
            ) if when(1) else None,
            config=given_file if when(3) else None,
            env={"BEILUN_EDGE__LATENESS": "44s"} if when(4) else {},
            flags={"edge.lateness": "55s" if when(5) else None},
            folder=tmp_path / "deep",
        )  # fmt: skip
        shown = {setting.key: setting for setting in got.show()}["edge.lateness"]
        assert (
            format_duration(got.edge.lateness) == ("2s", "11s", "22s", "33s", "44s", "55s")[highest]
        )
        assert shown.value == format_duration(got.edge.lateness)
        assert shown.origin == (
            "default", "scenario mine", str(tmp_path / "beilun.toml"), str(given_file),
            "BEILUN_EDGE__LATENESS", "flag --edge-lateness",
        )[highest]  # fmt: skip

    def test_every_setting_can_be_given_in_the_environment(self, tmp_path):
        env = {
            "BEILUN_BROKER__URL": "mqtt://localhost:1883",
            "BEILUN_BROKER__USERNAME": "ann",
            "BEILUN_BROKER__PASSWORD": "secret",
            "BEILUN_BROKER__PASSWORD_FILE": "/nowhere",
            "BEILUN_BROKER__PATIENCE": "1m",
            "BEILUN_RUN__SPEED": "60",
            "BEILUN_RUN__DIRECTORY": "out",
            "BEILUN_EDGE__PANE": "5s",
            "BEILUN_EDGE__WINDOWS": "1m,10m",
            "BEILUN_EDGE__ZONE": "UTC",
            "BEILUN_EDGE__SHIFTS": "08:00-16:00,16:00",
            "BEILUN_EDGE__LATENESS": "1s",
            "BEILUN_EDGE__RETENTION": "1h",
            "BEILUN_EDGE__MAX_SKEW": "1s",
            "BEILUN_FEED__URL": "mqtt://localhost:1884",
            "BEILUN_STORE__URL": "http://localhost:8086",
            "BEILUN_STORE__BUCKET": "b",
            "BEILUN_STORE__ORG": "o",
            "BEILUN_STORE__TOKEN": "secret",
            "BEILUN_STORE__TOKEN_FILE": "/nowhere",
            "BEILUN_STORE__TIMEOUT": "1s",
            "BEILUN_STORE__KEEP": "2m",
            "BEILUN_STORE__BACKLOG": "1000",
            "BEILUN_ALARMS__FILE": "none",
            "BEILUN_WEBHOOK__URL": "https://host/alarms",
            "BEILUN_WEBHOOK__SECRET": "whisper",
            "BEILUN_WEBHOOK__SECRET_FILE": "/run/secrets/webhook",
            "BEILUN_WEBHOOK__TIMEOUT": "3s",
            "BEILUN_WEBHOOK__BACKLOG": "100",
            "BEILUN_SERVE__HOST": "0.0.0.0",
            "BEILUN_SERVE__PORT": "9000",
            "BEILUN_SERVE__TOKENS_FILE": "/run/secrets/tokens",
            "BEILUN_SERVE__ACKS": "/acks",
            "BEILUN_SERVE__CERTIFICATE": "/run/secrets/host.crt",
            "BEILUN_SERVE__KEY": "/run/secrets/host.key",
            "BEILUN_SERVE__PROXIES": "10.0.0.2,10.1.0.0/16",
            "BEILUN_LOG__LEVEL": "debug",
        }
        got = settings.load(env=env, folder=tmp_path)
        assert {setting.origin for setting in got.show()} == set(env)
        assert got.run.speed == 60.0
        assert got.edge.windows == ("1m", "10m")

    def test_all_wrong_variables_are_told_at_once(self, tmp_path):
        env = {
            "BEILUN_BROKER__URLL": "auto",
            "BEILUN_RUN__SPEED": "fast",
            "BEILUN_EDGE__PANE": "10",
            "BEILUN_REQUIRE_SERVERS": "1",
        }
        with pytest.raises(ConfigError) as caught:
            settings.load(env=env, flags={"broker.url": "amqp://x"}, folder=tmp_path)
        told = str(caught.value)
        assert caught.value.exit == Exit.INVALID
        assert told.startswith("settings: 4 problems")
        assert "did you mean BEILUN_BROKER__URL?" in told
        assert "should be max or a number above 0, got 'fast'" in told
        assert "should be a positive duration, got '10' [duration" in told
        assert "--broker " in told

    def test_a_secret_is_used_and_not_shown(self, tmp_path):
        env = {"BEILUN_BROKER__PASSWORD": "secret", "BEILUN_BROKER__URL": "mqtt://ann:secret@h"}
        got = settings.load(env=env, folder=tmp_path)
        assert got.broker.secret() == "secret"
        assert "secret" not in " ".join(setting.value for setting in got.show())

    def test_a_secret_comes_from_a_file_beside_the_settings(self, tmp_path):
        (tmp_path / "pass").write_text("secret\n")
        (tmp_path / "beilun.toml").write_text('[broker]\npassword_file = "pass"\n')
        assert settings.load(env={}, folder=tmp_path).broker.secret() == "secret"

    def test_a_secret_in_the_settings_file_is_refused(self, tmp_path):
        (tmp_path / "beilun.toml").write_text('[broker]\npassword = "hunter2"\n')
        with pytest.raises(ConfigError, match="does not belong") as caught:
            settings.load(env={}, folder=tmp_path)
        assert "hunter2" not in str(caught.value)

    def test_an_unknown_key_gets_a_guess(self, tmp_path):
        (tmp_path / "beilun.toml").write_text('[run]\nspeeed = 60\n[brokr]\nurl = "auto"\n')
        with pytest.raises(ConfigError) as caught:
            settings.load(env={}, folder=tmp_path)
        assert "did you mean speed?" in str(caught.value)
        assert "did you mean broker?" in str(caught.value)
