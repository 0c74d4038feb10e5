"""Mappings: what they refuse, what they make of anyone's JSON, and drafts of them from traffic."""

import json
import re
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import paho.mqtt.client as paho
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beilun.cli import main
from config.errors import ConfigError, UsageError
from config.mapping import find_mapping, mapping_names, parse_mapping, pointer_parts
from config.units import NS_PER_S
from edge.columns import Columns
from edge.measures.flows import Flows
from ingest.cells import boolean, number, time_reader
from ingest.codecs import Unusable
from ingest.codecs.mapped import Mapped
from ingest.decode import Decoder
from ingest.messages import Batch, Birth, Envelope, Reject
from ingest.suggest import Survey, suggest
from ingest.tabular import Tabular

NOW_NS = 1_767_600_000 * NS_PER_S
"""2026-01-05T08:00:00Z."""

LIVE = """
[asset]
site = "plant"
area = "{area}"
line = "main"
name = "{machine}"
kind = "press"
names = { "Presse 9" = "press9" }

[live]
topic = "plant/{area}/{machine}/data"

[time]
pointer = "/ts"
format = "epoch_ms"

[[channel]]
name = "cycle"
pointer = "/data/cycle"
unit = "1"
role = "counter"

[[channel]]
name = "temp_c"
pointer = "/data/temp"
unit = "degC"
scale = 0.1

[[channel]]
name = "state"
pointer = "/mode"
as = "map"
values = { RUN = 6, STOP = 2 }
unit = "PackML"
role = "state"

[[channel]]
name = "jam"
pointer = "/jam"
as = "bool"
unit = "1"
role = "event"
"""
TOPIC = "plant/casting/press1/data"


def live(text=LIVE):
    return Mapped(parse_mapping(text, "a-plant"))


def envelope(payload, topic=TOPIC, received_ns=NOW_NS):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Envelope("mapped", topic, received_ns, data)


def sample(**changes):
    return {
        "ts": 1_767_600_000_123, "data": {"cycle": 7, "temp": 215}, "mode": "RUN", "jam": False,
        **changes,
    }  # fmt: skip


def rows(batch):
    return {name: column.tolist() for name, column in batch.channels.items()}


ROLLS = LIVE.replace(
    'role = "counter"', 'role = "counter"\nscale = 0.1\nmodulus = 6553.6\nsentinels = [-1, 65535]'
)


class TestRegisters:
    def test_a_birth_tells_the_modulus_and_sentinels_are_blank(self):
        message = envelope(
            [sample(data={"cycle": c, "temp": 215}) for c in (65_530, -1, 4, 65_535)]
        )
        birth, batch = live(ROLLS).decode(message)
        assert birth.modulus == {"cycle": 6_553.6}
        np.testing.assert_allclose(batch.channels["cycle"], [6_553, np.nan, 0.4, np.nan])
        measure = Flows("cycle").of(birth)
        end_ns = int(batch.t_ns[-1])
        state = measure.fold(Columns([batch], end_ns - NS_PER_S, end_ns))
        assert measure.facts(state) == {"cycle": 1_000_000}
        assert not live().decode(envelope(sample()))[0].modulus

    def test_an_imported_birth_tells_it_too(self):
        text = """
[asset]
site = "s"
area = "a"
line = "l"
name = "m"
kind = "k"
[table]
[time]
column = "t"
format = "epoch_s"
[[channel]]
name = "cycle"
column = "c"
unit = "1"
role = "counter"
modulus = 100
sentinels = [-1]
"""
        table = Tabular(parse_mapping(text, "t"), ["t,c", "1767600000,99", "1767600001,-1"])
        messages = [record for block in table for record in block.records]
        decoded = [read.message for r in messages for read in Decoder().read(r.envelope)]
        assert [m.modulus for m in decoded if isinstance(m, Birth)] == [{"cycle": 100.0}]
        (batch,) = [m for m in decoded if isinstance(m, Batch)]
        np.testing.assert_array_equal(batch.channels["cycle"], [99, np.nan])

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ('name = "temp_c"', "only a counter has a modulus"),
            ('name = "state"', "only a counter has a modulus"),
        ],
    )
    def test_only_a_counter_has_a_modulus(self, line, told):
        with pytest.raises(ConfigError, match=told):
            parse_mapping(LIVE.replace(line, f"{line}\nmodulus = 5.0"), "m")

    def test_only_a_number_has_sentinels(self):
        with pytest.raises(ConfigError, match="only a number has sentinels"):
            parse_mapping(LIVE.replace('name = "jam"', 'name = "jam"\nsentinels = [5]'), "m")


class TestModel:
    def test_every_shipped_mapping_validates(self):
        assert "ur3-cobotops" in mapping_names()
        for name in mapping_names():
            mapping = find_mapping(name)
            assert mapping.name == name
            assert mapping.summary
            assert parse_mapping(mapping.text, name) == mapping

    def test_five_mistakes_are_told_at_once(self, tmp_path):
        path = tmp_path / "m.toml"
        text = LIVE.replace('unit = "degC"', 'unti = "degC"').replace("/data/cycle", "data.cycle")
        text = text.replace('format = "epoch_ms"', 'format = "epoch-ms"')
        text = text.replace('site = "plant"', 'site = "my plant"').replace('"event"', '"counter"')
        path.write_text(text)
        with pytest.raises(ConfigError) as error:
            find_mapping(path)
        told = str(error.value)
        for word in ("channel[temp_c].unti", "did you mean unit?", "channel[temp_c].unit",
                     "JSON pointer", "did you mean epoch_ms?", "my plant", "a counter is a number",
                     "channel[cycle].pointer"):  # fmt: skip
            assert word in told, told
        assert error.value.exit == 3

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ('topic = "plant/{area}/{machine}/data"', 'topic = "plant/#"', "# is not taken"),
            ("{machine}/data", "{Machine}/data", "small letters"),
            ('name = "{machine}"', 'name = "{machin}"', "did you mean machine?"),
            ("scale = 0.1", "scale = 0.0", "scale 0 leaves nothing"),
            ('as = "map"\n', "", "a map has values, and nothing else"),
            ('role = "state"', "", 'a map is no signal; say role = "event" or "state"'),
            ('name = "jam"', 'name = "cycle"', "named twice: cycle"),
            ('pointer = "/jam"\n', "", "needs a pointer, since there is a [live]"),
            ("[live]", "[table]\n[live]", "needs a column, since there is a [table]"),
            ('format = "epoch_ms"', 'format = "%d.%m.%Y %H:%M"', "it needs a zone"),
            ('format = "epoch_ms"', 'zone = "Mars/Olympus"', "unknown time zone"),
            ('kind = "press"', 'kind = "a press"', "asset.kind"),
            ("[live]", "[live", "not TOML"),
        ],
    )
    def test_says_what_is_wrong(self, old, new, told):
        assert old in LIVE
        with pytest.raises(ConfigError) as error:
            live(LIVE.replace(old, new))
        assert told in str(error.value)

    def test_the_examples_of_the_how_to_validate(self):
        text = (Path(__file__).parents[1] / "docs" / "mapping.md").read_text()
        blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
        assert len(blocks) == 3
        assert [bool(parse_mapping(b).live) for b in blocks] == [True, True, False]

    def test_an_unknown_name_gets_a_guess(self):
        with pytest.raises(UsageError, match="did you mean ur3-cobotops"):
            find_mapping("ur3-cobotop")

    def test_pointers_are_unescaped(self):
        assert pointer_parts("") == ()
        assert pointer_parts("/a~1b/m~0n//0") == ("a/b", "m~n", "", "0")


class TestCells:
    @pytest.mark.parametrize("text", ["", " ", "1_0", "nan", "inf", "0x1", "1,5", "1e", "٣", "--1"])
    def test_what_only_looks_like_a_number_is_refused(self, text):
        with pytest.raises(ValueError, match="not a number"):
            number(text)

    def test_a_point_is_no_decimal_comma(self):
        assert number("-7,39E-30", ",") == -7.39e-30
        with pytest.raises(ValueError, match="not a number"):
            number("1.234", ",")

    def test_bools(self):
        assert [boolean(v) for v in (True, 0, "Yes", " off ", 1.0)] == [1, 0, 1, 0, 1]
        for value in ("2", None, [], 0.5, "maybe"):
            with pytest.raises(ValueError, match="neither"):
                boolean(value)

    @pytest.mark.parametrize(
        ("format_", "zone", "value", "t_ns"),
        [
            ("iso8601", "", "2026-01-05T08:00:00Z", NOW_NS),
            ("iso8601", "", "2026-01-05T09:00:00.123456789+01:00", NOW_NS + 123_456_789),
            ("iso8601", "Europe/Berlin", "2026-01-05 09:00:00,5", NOW_NS + NS_PER_S // 2),
            ("iso8601", "Europe/Berlin", "2026-01-05T08:00:00Z", NOW_NS),
            ("epoch_s", "", 1_767_600_000.123, NOW_NS + 123_000_000),
            ("epoch_s", "", "1767600000.123456789", NOW_NS + 123_456_789),
            ("epoch_ms", "", 1_767_600_000_001, NOW_NS + 1_000_000),
            ("epoch_us", "", 1_767_600_000_000_001, NOW_NS + 1_000),
            ("epoch_ns", "", NOW_NS + 1, NOW_NS + 1),
            ("%d.%m.%Y %H:%M:%S", "UTC", "05.01.2026 08:00:00", NOW_NS),
        ],
    )
    def test_times_are_exact(self, format_, zone, value, t_ns):
        text = LIVE.replace('format = "epoch_ms"', f'format = "{format_}"\nzone = "{zone}"')
        read = time_reader(parse_mapping(text).time)
        assert read(value) == t_ns
        for bad in (None, True, "soon", "1e999999999", [], {}, ""):
            with pytest.raises(ValueError):
                read(bad)

    def test_a_stamp_without_a_zone_is_refused(self):
        read = time_reader(parse_mapping(LIVE.replace("epoch_ms", "iso8601")).time)
        with pytest.raises(ValueError, match="no time zone"):
            read("2026-01-05T08:00:00")


class TestMapped:
    def test_one_object_is_one_sample(self):
        codec = live()
        assert codec.topics() == ("plant/+/+/data",)
        assert codec.claims(TOPIC)
        assert not codec.claims("plant/casting/press1/data/more")
        birth, batch = codec.decode(envelope(sample()))
        assert isinstance(birth, Birth)
        assert isinstance(batch, Batch)
        assert str(batch.asset) == "plant/casting/main/press1"
        assert (birth.kind, dict(birth.channels)["temp_c"]) == ("press", "degC")
        assert batch.t_ns.tolist() == [1_767_600_000_123_000_000]
        assert rows(batch) == {"cycle": [7], "temp_c": [21.5], "state": [6], "jam": [0]}
        assert batch.meta.arrival_ns == NOW_NS

    def test_an_array_of_objects_is_sorted_by_time(self):
        later = sample(ts=1_767_600_001_000, jam=True)
        _, batch = live().decode(envelope([later, sample()]))
        assert isinstance(batch, Batch)
        assert np.diff(batch.t_ns).tolist() == [877_000_000]
        assert rows(batch)["jam"] == [0, 1]

    def test_an_object_of_arrays_is_columns(self):
        columns = {
            "ts": [1_767_600_000_000, 1_767_600_001_000],
            "data": {"cycle": [1, None]}, "jam": [True, False],
        }  # fmt: skip
        _, batch = live().decode(envelope(columns))
        assert isinstance(batch, Batch)
        assert rows(batch)["jam"] == [1, 0]
        assert np.isnan(batch.channels["cycle"]).tolist() == [False, True]
        assert np.isnan(batch.channels["temp_c"]).all()

    def test_samples_below_a_pointer(self):
        codec = live(LIVE.replace("[time]", 'samples = "/readings"\n[time]'))
        _, batch = codec.decode(envelope({"readings": [sample(), sample()]}))
        assert isinstance(batch, Batch)
        assert len(batch) == 2

    def test_without_a_time_the_receipt_counts(self):
        codec = live(LIVE.replace('pointer = "/ts"\nformat = "epoch_ms"', ""))
        birth, batch = codec.decode(envelope(sample()))
        assert isinstance(batch, Batch)
        assert batch.t_ns.tolist() == [NOW_NS]
        assert isinstance(birth, Birth)
        assert birth.t_ns == NOW_NS

    def test_an_equal_value_later_is_another_sample_unless_it_carries_its_time(self):
        timed, untimed = live(), live(LIVE.replace('pointer = "/ts"\nformat = "epoch_ms"', ""))
        for codec, same in ((timed, True), (untimed, False)):
            a, b = (
                codec.decode(envelope(sample(), received_ns=NOW_NS + n))[1].meta for n in (0, 1)
            )
            assert (a.identity == b.identity) is same

    def test_blank_and_missing_are_no_evidence(self):
        _, batch = live().decode(envelope({"ts": 1_767_600_000_123, "jam": True, "mode": None}))
        assert isinstance(batch, Batch)
        assert np.isnan([batch.channels[n][0] for n in ("cycle", "temp_c", "state")]).all()

    def test_topic_levels_that_are_no_names_are_named_or_refused(self):
        _, batch = live().decode(envelope(sample(), topic="plant/casting/Presse 9/data"))
        assert batch.asset.name == "press9"  # type: ignore[union-attr]
        with pytest.raises(Unusable, match=r"unmapped.*\[asset.names\]"):
            live().decode(envelope(sample(), topic="plant/casting/Presse 8/data"))

    def test_one_topic_per_signal(self):
        codec = live(
            """
            asset = { site = "s", area = "a", line = "l", name = "{machine}", kind = "press" }
            live = { topic = "shop/{machine}/{signal}" }
            [[channel]]
            name = "temp_c"
            pointer = ""
            when = { signal = "temp" }
            unit = "degC"
            [[channel]]
            name = "cycle"
            pointer = ""
            when = { signal = "count" }
            unit = "1"
            role = "counter"
            """
        )
        birth, batch = codec.decode(envelope(b"21.5", topic="shop/m1/temp"))
        assert isinstance(batch, Batch)
        assert rows(batch) == {"temp_c": [21.5]}
        other, _ = codec.decode(envelope(b"7", topic="shop/m1/count"))
        assert isinstance(birth, Birth)
        assert isinstance(other, Birth)
        assert birth.channels == other.channels == {"temp_c": "degC", "cycle": "1"}
        assert birth.meta.identity == other.meta.identity  # a duplicate for the gate
        with pytest.raises(Unusable, match="unmapped"):
            codec.decode(envelope(b"7", topic="shop/m1/other"))

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            (b"{", "not_json"),
            (b"\xff\xfe", "not_json"),
            (b"NaN", "not_json"),
            (b"[" * 4_000 + b"]" * 4_000, "not_json"),
            (b'{"ts": 1e400}', "not_finite"),
            (b"[]", "bad_shape"),
            (b"[1, 2]", "bad_shape"),
            (b"{}", "unmapped"),
            (b"7", "unmapped"),
            (sample(ts=None), "bad_shape"),
            (sample(ts="soon"), "bad_shape"),
            (sample(ts=0), "absurd_time"),
            (sample(ts=10**40), "absurd_time"),
            (sample(mode="RUNN"), "bad_shape"),
            (sample(jam="perhaps"), "bad_shape"),
            (sample(data={"cycle": True}), "bad_shape"),
            (sample(data={"cycle": 1e300}), "bad_shape"),
            (sample(data={"cycle": 10**400}), "bad_shape"),
            (sample(data={"cycle": {}}), "bad_shape"),
            (sample(data={"cycle": [1, 2]}), "bad_shape"),
            ({"ts": [1_767_600_000_000], "jam": [True, False]}, "bad_shape"),
            ({"ts": [], "jam": []}, "bad_shape"),
        ],
    )
    def test_garbage_is_refused_with_its_reason(self, payload, reason):
        with pytest.raises(Unusable) as why:
            live().decode(envelope(payload))
        assert why.value.reason == reason

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
        | st.sampled_from(["RUN", "1", 1_767_600_000_123, "21,5"]),
        lambda inner: st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["ts", "data", "cycle", "temp", "mode", "jam", ""]), inner, max_size=6
        ),
        max_leaves=20,
    )  # fmt: skip

    @given(
        document=json_values, topic=st.sampled_from([TOPIC, "plant/é/x/data", "plant/a//data"]),
        column=st.booleans(),
    )  # fmt: skip
    @example(document={"ts": [1_767_600_000_123, 2], "jam": [1, 0]}, topic=TOPIC, column=False)
    def test_random_json_becomes_a_batch_or_is_refused(self, document, topic, column):
        text = LIVE.replace("[time]", 'samples = "/data"\n[time]') if column else LIVE
        payload = json.dumps(document).encode()
        found = Decoder([live(text)]).receive(topic, payload, NOW_NS)
        if isinstance(found, Reject):
            assert found.reason in {"not_json", "bad_shape", "not_finite", "absurd_time",
                                    "unknown_topic", "unmapped"}  # fmt: skip
            return
        batch = found[1].message
        assert isinstance(batch, Batch)
        assert len({len(batch), *map(len, batch.channels.values())}) == 1
        assert (np.diff(batch.t_ns) >= 0).all()
        assert not any(np.isinf(column).any() for column in batch.channels.values())

    @given(payload=st.binary(max_size=60))
    def test_random_bytes_are_refused(self, payload):
        assert isinstance(Decoder([live()]).receive(TOPIC, payload, NOW_NS), Reject)


def plant_traffic(n=30):
    """Three machines with a document each, and two with one topic per signal."""
    for i in range(n):
        t_ns = NOW_NS + i * NS_PER_S
        for area, machine in (("casting", "press1"), ("casting", "Presse 9"), ("trim", "arm1")):
            document = {
                "ts": (t_ns + 250_000_000) / NS_PER_S, "fw": "1.2.3", "id": machine,
                "data": {"cycle": 5 + i // 3, "temp_c": 20.5 + i % 3, "Running": i % 4 > 0},
                "mode": ["RUN", "STOP"][i % 2], "note": f"message {i}", "level": "7.5",
            }  # fmt: skip
            yield f"plant/{area}/{machine}/data", json.dumps(document).encode(), t_ns
        for machine in ("m1", "m2"):
            yield f"shop/{machine}/temp", str(20 + i % 5 / 2).encode(), t_ns
            yield f"shop/{machine}/count", str(i).encode(), t_ns
        yield "odd", b"\xff", t_ns
        yield "$SYS/broker/uptime", b"7", t_ns


class TestSuggest:
    def test_a_plant_of_two_kinds(self):
        documents, signals = map(parse_mapping, suggest(plant_traffic()))
        assert documents.live is not None
        assert documents.live.topic == "plant/{line}/{machine}/data"
        assert documents.asset.levels() == ("plant", "area", "{line}", "{machine}")
        assert documents.asset.names == {"Presse 9": "Presse-9"}
        assert (documents.time.pointer, documents.time.format) == ("/ts", "epoch_s")
        found = {c.name: (c.pointer, c.as_, c.role) for c in documents.channel}
        assert found == {
            "cycle": ("/data/cycle", "number", "counter"),
            "temp_c": ("/data/temp_c", "number", "signal"),
            "running": ("/data/Running", "bool", "state"),
            "mode": ("/mode", "map", "state"),
            "level": ("/level", "number", "signal"),
        }
        modes = next(c for c in documents.channel if c.name == "mode")
        assert modes.values == {"RUN": 6, "STOP": 2}
        assert signals.live is not None
        assert signals.live.topic == "shop/{machine}/{signal}"
        assert {c.name: (c.when["signal"], c.role) for c in signals.channel} == {
            "count": ("count", "counter"),
            "temp": ("temp", "signal"),
        }

    def test_a_draft_reads_the_traffic_it_was_drafted_from(self):
        mappings = map(parse_mapping, suggest(plant_traffic()))
        decoder = Decoder([Mapped(m, f"mapped{n}") for n, m in enumerate(mappings)])
        for topic, payload, t_ns in plant_traffic():
            if topic[0] in "ps":
                assert not isinstance(decoder.receive(topic, payload, t_ns), Reject)

    def test_says_what_it_left_out(self):
        draft = suggest(plant_traffic())[0]
        left = draft[draft.index("# Left out:") :]
        assert '"/note": any text' in left
        assert '"/fw": a text that never changed' in left
        assert '"/id": a text that never changed' in left  # one name a topic is no state

    def test_counts_what_it_could_not_read(self):
        survey = Survey()
        for message in plant_traffic(2):
            survey.add(*message)
        survey.add("beilun/v1/s/a/l/m/process", b"{}", NOW_NS)
        assert survey.unread == {"not JSON": 2, "reserved topic": 2, "read without a mapping": 1}

    def test_naive_stamps_need_a_zone(self):
        stamps = (f'{{"when": "2026-01-05 08:00:0{i}", "v": {i / 2}}}'.encode() for i in range(5))
        (draft,) = suggest(("one/box", stamp, NOW_NS) for stamp in stamps)
        mapping = parse_mapping(draft)
        assert (mapping.time.pointer, mapping.time.format) == ("/when", "iso8601")
        assert mapping.time.zone == "UTC"
        assert "which is it?" in draft

    messages = st.tuples(
        st.lists(st.text(max_size=6), min_size=1, max_size=4).map("/".join),
        st.one_of(
            TestMapped.json_values.map(lambda d: json.dumps(d).encode()),
            st.dictionaries(st.text(max_size=6), TestMapped.json_values).map(
                lambda d: json.dumps(d).encode()
            ),
            st.binary(max_size=8),
        ),
        st.integers(0, 2**62),
    )

    @given(heard=st.lists(messages, max_size=12))
    @example(heard=[('a"\x7f\n/b', b'{"x~/\\u0000": 1, "y": {"": true}}', NOW_NS)])
    @example(heard=[("a/b", b'{"s": "a\\u007f\\nb"}', 1), ("a/b", b'{"s": "\\u0085"}', 2)])
    @example(heard=[("a/b c", b"1", 1), ("a/\xe9", b"2", 1), ("a/b-c", b"3", 1)])
    def test_every_draft_validates(self, heard):
        for draft in suggest(heard):
            Mapped(parse_mapping(draft))


class TestCommand:
    def test_check_shows_the_channels(self, capsys):
        assert main(["map", "check", "ur3-cobotops"]) == 0
        assert "protective_stop" in capsys.readouterr().out

    def test_check_shows_what_a_message_becomes(self, tmp_path, capsys):
        mapping, payload = tmp_path / "m.toml", tmp_path / "p.json"
        mapping.write_text(LIVE)
        payload.write_text(json.dumps(sample()))
        args = ["map", "check", str(mapping), "--payload", str(payload), "--topic"]
        assert main([*args, TOPIC]) == 0
        out = capsys.readouterr().out
        assert "plant/casting/main/press1" in out
        assert "2026-01-05T08:00:00.123Z" in out
        assert "21.5" in out
        assert main([*args, "elsewhere"]) == 1
        payload.write_text(json.dumps(sample(mode="OFF")))
        assert main([*args, TOPIC]) == 1
        assert "not among the values: 'OFF'" in capsys.readouterr().err
        assert main(["map", "check", str(mapping), "--topic", TOPIC]) == 2

    def test_suggest_from_a_broker(self, broker, tmp_path, capsys):
        address = broker.address
        done = threading.Event()

        def publish():
            client = paho.Client(paho.CallbackAPIVersion.VERSION2)
            client.connect(address.host, address.port)
            client.loop_start()
            n = 0
            while not done.wait(0.05):
                n += 1
                payload = msgspec.json.encode({"ts": time.time(), "cycle": n, "on": n % 2 == 0})
                client.publish("map-test/hall/press1/data", payload)
            client.disconnect()
            client.loop_stop()

        publisher = threading.Thread(target=publish)
        publisher.start()
        target = tmp_path / "draft.toml"
        url = f"mqtt://{address.host}:{address.port}"
        args = ["map", "suggest", "--broker", url, "--topic", "map-test/#", "--for", "2s"]
        try:
            assert main([*args, "-o", str(target)]) == 0
        finally:
            done.set()
            publisher.join()
        mapping = find_mapping(Path(target))
        assert mapping.time.pointer == "/ts"
        assert {c.name: c.role for c in mapping.channel} == {"cycle": "counter", "on": "state"}
        assert main(["map", "suggest", "--broker", url, "--topic", "nobody", "--for", "50ms"]) == 1
        assert "nothing to map was heard" in capsys.readouterr().err

    def test_no_broker_is_exit_4(self, capsys):
        args = ["map", "suggest", "--broker", "mqtt://127.0.0.1:9", "--for", "1s"]
        assert main(args) == 4
        assert "is the broker running" in capsys.readouterr().err
        assert main(["map", "suggest"]) == 2
