"""The comparison with published networks: what it covers, what holds, and what is known not to."""

import numpy as np
import pytest

from simulator.link.check import Finding, check, measured, smoothest
from simulator.link.profile import load_profile, profile_names

MISFITS = {
    # The published quantiles joined by straight lines have a mean of 6.0 ms; the published mean is
    # 5.70. A law with two modes must be far from the line between them.
    ("private-5g", "L3", "down KS distance, quantiles joined by lines"),
    ("private-5g-udp", "L3", "down KS distance, quantiles joined by lines"),
}
FOUND = {name: check(name, 1) for name in profile_names()}


@pytest.mark.parametrize("name", FOUND)
def test_every_target_is_met_but_for_the_known_misfits(name: str):
    missed = {(name, f.id, f.what) for f in FOUND[name] if f.ok is False}
    assert missed == {each for each in MISFITS if each[0] == name}


def test_every_acceptance_test_is_covered_by_some_profile():
    ids = {f.id for found in FOUND.values() for f in found}
    assert ids >= {f"L{n}" for n in range(1, 12)}
    assert {f.id for f in FOUND["private-5g"]} == {"L1", "L2", "L3", "L4", "L6", "L7", "L8", "L11"}
    assert {f.id for f in FOUND["ethernet"]} == {"L7", "B1"}


def test_findings_are_seeded_and_say_what_they_compare():
    assert check("ethernet", 1) == FOUND["ethernet"]
    assert check("ethernet", 2) != FOUND["ethernet"]
    for finding in FOUND["private-5g"]:
        assert isinstance(finding, Finding)
        assert np.isfinite(finding.modelled)
        assert bool(finding.target) == (finding.ok is not None)


def test_the_measurements_are_no_profiles_and_name_profiles():
    names = profile_names()
    assert not {"measured", "layouts", "aachen", "aalborg"} & set(names)
    assert {each.id for name in names for each in measured(name)} >= {"L1", "L2", "L5", "L9", "L10"}
    for name in names:
        for each in measured(name):
            assert set(each.networks) <= set(names)
            assert load_profile(each.networks[0])
            delays = [delay for _, delay in each.quantiles_ms]
            assert delays == sorted(delays)


def test_the_smoothest_law_keeps_what_was_published():
    for each in measured("private-5g"):
        per_cents, values = zip(*each.quantiles_ms, strict=True)
        x, cdf = smoothest(values, np.array(per_cents) / 100.0, each.mean_ms, each.sd_ms)
        assert np.all(np.diff(x) > 0)
        assert np.all(np.diff(cdf) >= 0)
        assert np.interp(values, x, cdf) == pytest.approx(np.array(per_cents) / 100.0, abs=1e-6)
        middle, mass = (x[1:] + x[:-1]) / 2, np.diff(cdf)
        mean = float(np.sum(middle * mass))
        assert mean == pytest.approx(each.mean_ms, abs=0.005)
        sd = float(np.sqrt(np.sum((middle - mean) ** 2 * mass)))
        assert sd == pytest.approx(each.sd_ms, rel=0.01)
