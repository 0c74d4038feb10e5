"""Scenarios based on others: changes are pure, named, and lead somewhere."""

import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.changes import Change, changed, values_at
from config.errors import ConfigError
from config.scenario import Scenario, find_scenario, scenario_names
from simulator.plant import make_plant

DATA: dict[str, Any] = {
    "site": "ningbo",
    "pieces_per_container": 24,
    "transport": {"dispatch": "round"},
    "device": [
        {"name": "dcm01", "kind": "casting_cell", "cycle_s": 60.0},
        {"name": "dcm02", "kind": "casting_cell", "control": {"loop_ms": 10}},
        {"name": "arm01", "kind": "robot_arm"},
    ],
    "order": [{"number": 7, "quantity": 10}, {"number": 8, "quantity": 20}],
    "product": [{"name": "cover", "step": [{"operation": "cast"}, {"operation": "trim"}]}],
}
PATHS = (
    "pieces_per_container", "transport.dispatch", "staff.heads", "device.dcm*.cycle_s",
    "device.dcm01.die_change_s", "device.*.mtbf_h", "device.arm01.kind", "order.7.quantity",
    "device.dcm*.control.loop_ms", "product.*.step.cast.pri_s",
)  # fmt: skip


def change(values: dict[str, Any], name: str = "x") -> Change:
    return Change.model_validate({"name": name, "why": "because", "set": values})


def made(*changes: Change) -> dict[str, Any]:
    return changed(DATA, changes, at="test")


VALUES = st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))
CHANGES = st.dictionaries(st.sampled_from(PATHS), VALUES, min_size=1, max_size=4).map(change)


@settings(deadline=None)
@given(one=CHANGES)
def test_a_change_is_pure_made_once_however_often_and_seen_at_its_paths(one: Change) -> None:
    before = deepcopy(DATA)
    after = made(one)
    assert before == DATA
    assert made(one, one) == after == changed(after, [one], at="test")
    for path, value in one.set.items():
        assert set(map(repr, values_at(after, path))) == {repr(value)}


@settings(deadline=None)
@given(values=st.dictionaries(st.sampled_from(PATHS), VALUES, min_size=2), data=st.data())
def test_changes_of_different_places_may_come_in_any_order(
    values: dict[str, Any], data: st.DataObject
) -> None:
    parts = [change({path: value}, f"x{n}") for n, (path, value) in enumerate(values.items())]
    shuffled = data.draw(st.permutations(parts))
    assert made(*parts) == made(*shuffled) == made(change(values))


def test_a_glob_means_every_item_of_that_name_and_no_other() -> None:
    cells = made(change({"device.dcm*.cycle_s": 50.0}))["device"]
    assert [cell.get("cycle_s") for cell in cells] == [50.0, 50.0, None]
    assert [o["quantity"] for o in made(change({"order.8.quantity": 5}))["order"]] == [10, 5]


def test_dotted_keys_without_quotes_are_the_same_path() -> None:
    assert change({"transport": {"dispatch": "event"}}) == change({"transport.dispatch": "event"})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("device.dcn*.cycle_s", "nothing is called 'dcn*' there"),
        ("device.arm1.cycle_s", "nothing is called 'arm1' there; did you mean arm01?"),
        ("device.cycle_s", "device is a list: name its items, like device.*.cycle_s"),
        ("site.name", "goes on after site, which is a value"),
        ("site.long.name", "goes on after site, which is a value"),
        ("tr*.dispatch", "has a glob 'tr*' where there is no list"),
        ("device.dcm01.", "is no path"),
        ("device.dcm01.cycle*", "is no path"),
    ],
)
def test_a_path_that_leads_nowhere_is_told(path: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        made(change({path: 1}, "a"), change({"device.x.y": 1}, "b"))
    told = str(error.value)
    assert f"change[a].set.{path}" in told
    assert words in told
    assert "change[b].set.device.x.y" in told


# scenarios ---------------------------------------------------------------------------------------

BEFORE = 'plant = "quickstart"\nnetwork = "wifi-loaded"\nlength = "1h"\n\n[edge]\npane = "30s"\n'
AFTER = """\
base = "./before.toml"
summary = "After."

[[change]]
name = "radio"
why = "a network of one's own"
set = { network = "private-5g" }

[[change]]
name = "batch"
why = "smaller"
set = { pieces_per_container = 12, "device.dcm*.scrap_ratio" = 0.02 }
"""
LATER = """\
base = "./after.toml"

[[change]]
name = "tiny"
why = "smaller still"
set = { pieces_per_container = 6 }
"""


def write(folder: Path, **texts: str) -> dict[str, Scenario]:
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return {name: find_scenario(folder / f"{name}.toml") for name in texts}


def test_a_scenario_has_what_its_base_has_but_its_changes(tmp_path: Path) -> None:
    found = write(tmp_path, before=BEFORE, after=AFTER, later=LATER)
    before, after, later = found.values()
    assert (after.name, after.plant, after.length) == ("after", "quickstart", before.length)
    assert after.edge == before.edge
    assert (before.network, after.network, later.network) == (
        "wifi-loaded", "private-5g", "private-5g"
    )  # fmt: skip
    plants = [make_plant(each.plant_data()) for each in (before, after, later)]
    assert [plant.pieces_per_container for plant in plants] == [24, 12, 6]
    assert {d.scrap_ratio for d in plants[2].device if d.name.startswith("dcm")} == {0.02}
    assert later.based_on is not None
    assert later.based_on.plant_data() == after.plant_data()


def test_changes_can_be_left_out_one_by_one(tmp_path: Path) -> None:
    after = write(tmp_path, before=BEFORE, after=AFTER)["after"]
    bare, radio, batch = (after.with_only(n) for n in ((), {"radio"}, {"batch"}))
    assert bare.plant_data() == radio.plant_data() != batch.plant_data()
    assert batch.plant_data() == after.plant_data()
    networks = [each.network for each in (bare, radio, batch)]
    assert networks == ["wifi-loaded", "private-5g", "wifi-loaded"]
    assert pickle.loads(pickle.dumps(batch)).plant_data() == batch.plant_data()


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    write(tmp_path, before=BEFORE, after=AFTER)
    chosen = find_scenario(tmp_path / "after.toml", changes={"network": "ethernet", "seed": 9})
    assert (chosen.network, chosen.seed) == ("ethernet", 9)


def test_a_base_elsewhere_keeps_its_own_plant_file(tmp_path: Path) -> None:
    plant = (Path(__file__).parents[1] / "config/plants/quickstart.toml").read_text()
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "plant.toml").write_text(plant)
    write(tmp_path / "base", before=BEFORE.replace("quickstart", "./plant.toml"))
    after = write(tmp_path, after=AFTER.replace("./before", "base/before"))["after"]
    assert make_plant(after.plant_data()).pieces_per_container == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (AFTER.replace("./before.toml", "ikd-befor"), "unknown scenario 'ikd-befor'"),
        (AFTER.replace("./before", "./after"), "based on itself"),
        (AFTER + 'network = "ethernet"\n', "change[batch].network   unknown setting"),
        ('network = "ethernet"\n' + AFTER, "network: it has that from its base"),
        (AFTER.replace('name = "batch"', 'name = "radio"'), "two are called radio"),
        (AFTER.replace('why = "smaller"', 'why = ""'), "why"),
        (BEFORE.replace("[edge]", "[x]") + AFTER.partition("\n\n")[2], "it has no base whose"),
        (AFTER.replace('"private-5g"', '"private-6g"'), "unknown network 'private-6g'"),
    ],
)
def test_mistakes_are_told_in_the_words_of_the_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        write(tmp_path, before=BEFORE, after=text)
    assert words in str(error.value)


def test_a_setting_no_plant_has_is_told_when_the_plant_is_made(tmp_path: Path) -> None:
    text = AFTER.replace("pieces_per_container", "pieces_per_contaner")
    after = write(tmp_path, before=BEFORE, after=text)["after"]
    with pytest.raises(ConfigError, match="pieces_per_contaner   unknown setting; did you mean"):
        make_plant(after.plant_data())


@pytest.mark.parametrize("name", scenario_names())
def test_shipped_scenarios_make_plants(name: str) -> None:
    scenario = find_scenario(name)
    make_plant(scenario.plant_data(), at=name)
    for change in scenario.change:
        make_plant(scenario.with_only({change.name}).plant_data(), at=f"{name}, {change.name}")
