"""What samples can be asked for: from the data to the condition vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hpcgen.config import ConditionsConfig
from hpcgen.errors import ConfigError, DataError
from hpcgen.family.conditions import CENTRES, Conditions
from hpcgen.family.request import Request

ELEMENTS = (38, 22, 8)
KNOWN: list[dict[str, Any]] = [
    {"elements": (8, 22, 38), "n_atoms": 5, "band_gap": 1.8, "system": "cubic", "group": "221"},
    {"elements": (8, 22), "n_atoms": 6, "band_gap": 3.0, "group": "136"},
    {"elements": (22,), "n_atoms": 2, "system": "hexagonal"},
    {"elements": (8, 38), "n_atoms": 2, "band_gap": 0.0, "system": "cubic", "group": "225"},
]
CONFIG = ConditionsConfig(scalars=["band_gap"], categories=["system", "group"])


@pytest.fixture(scope="module")
def conditions() -> Conditions:
    return Conditions.fit(KNOWN, ELEMENTS, CONFIG)


def test_groups_hold_the_value_and_end_with_a_flag(conditions: Conditions) -> None:
    layout = conditions.layout(always=3)
    assert conditions.names == ("elements", "n_atoms", "band_gap", "system", "group")
    assert layout.width == 4 + 2 * (CENTRES + 2) + 3 + 4 + 3
    c = conditions.encode(KNOWN)
    assert c.dtype == np.float32
    groups = dict(zip(conditions.names, layout.groups, strict=True))
    assert c[:, groups["elements"]].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 1], [1, 0, 1, 1]]
    assert c[:, groups["system"]].tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 1]]
    assert c[:, groups["group"]].tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]
    gaps = c[:, groups["band_gap"]]
    assert gaps[:, -1].tolist() == [1, 1, 0, 1]
    assert not gaps[2].any()
    assert gaps[[0, 1, 3], 0].mean() == pytest.approx(0, abs=1e-6)
    assert gaps[[0, 1, 3], 0].std() == pytest.approx(1, abs=1e-6)


def test_a_scalar_is_embedded_smoothly_and_tells_values_apart(conditions: Conditions) -> None:
    gaps = np.linspace(-1, 4, 200)
    rows = np.array([conditions.ask({"band_gap": float(g)}) for g in gaps])
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    assert steps.max() < 0.3  # no jumps,
    assert steps.min() > 0.01  # and no plateau, also beyond the data


def test_what_is_asked_for_is_what_a_row_has(conditions: Conditions) -> None:
    np.testing.assert_array_equal(conditions.ask(KNOWN[0]), conditions.encode(KNOWN[:1])[0])
    np.testing.assert_array_equal(conditions.ask({**KNOWN[0], "group": 221}), conditions.encode(KNOWN[:1])[0])
    assert not conditions.ask({}).any()


def test_a_category_of_a_held_out_row_that_training_never_saw_is_absent(conditions: Conditions) -> None:
    row = conditions.encode([{"system": "trigonal", "n_atoms": 5}])[0]
    groups = dict(zip(conditions.names, conditions.layout().groups, strict=True))
    assert not row[groups["system"]].any()
    assert row[groups["n_atoms"]].any()


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [
        ({"colour": "red"}, ["`colour`", "elements, n_atoms, band_gap, system, group"]),
        ({"system": "cubik"}, ["'cubik'", "one of cubic, hexagonal", "perhaps 'cubic'"]),
        ({"group": 14}, ["14", "136, 221, 225"]),
        ({"elements": (79, 8)}, ["Au", "O, Ti, Sr"]),
        ({"band_gap": "wide"}, ["'wide'", "a number"]),
        ({"band_gap": float("nan")}, ["nan", "a number"]),
        ({"n_atoms": True}, ["True", "a number"]),
    ],
    ids=str,
)
def test_what_the_model_does_not_know_is_an_error(
    conditions: Conditions, wanted: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        conditions.ask(wanted)
    for part in parts:
        assert part in str(caught.value)


def test_a_column_that_is_known_of_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="`energy` is not known of any of the 4"):
        Conditions.fit(KNOWN, ELEMENTS, ConditionsConfig(scalars=["energy"]))


def test_state_and_choice_of_fields(conditions: Conditions) -> None:
    again = Conditions.from_state(conditions.state())
    np.testing.assert_array_equal(again.encode(KNOWN), conditions.encode(KNOWN))
    assert conditions.columns().names == ("band_gap", "system", "group")
    nothing = Conditions.fit(KNOWN, ELEMENTS, ConditionsConfig(elements=False, n_atoms=False))
    assert nothing.encode(KNOWN).shape == (4, 0)
    assert nothing.ask({}).shape == (0,)
    with pytest.raises(ConfigError, match="nothing"):
        nothing.ask({"n_atoms": 5})


def test_requests_are_read() -> None:
    request = Request.of({"elements": ["Sr", "O"], "n_atoms": 4, "lattice": {"a": 4, "alpha": 90.0}, "band_gap": 1})
    assert request == Request(None, (8, 38), None, 4, {"a": 4.0, "alpha": 90.0}, {"band_gap": 1})
    assert Request.of({"formula": "Sr2Ti2O6"}).counts == {38: 2, 22: 2, 8: 6}
    assert Request.of({}) == Request()


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({"formula": "SrXx"}, "SrXx"),
        ({"formula": "Sr0.5O"}, "whole numbers"),
        ({"formula": ""}, "whole numbers"),
        ({"elements": ["Qq"]}, "Qq"),
        ({"elements": []}, "element symbols"),
        ({"elements": [False]}, "quote No"),
        ({"n_atoms": 2.5}, "2.5"),
        ({"n_atoms": 0}, "whole number"),
        ({"lattice": {"A": 4}}, "a, b, c"),
        ({"lattice": {"a": -4}}, "lattice.a"),
        ({"lattice": {"alpha": 180}}, "180"),
        ({"lattice": [1, 2]}, "a, b, c"),
        ({"formula": "SrTiO3", "n_atoms": 10}, "5 atoms of 3"),
        ({"formula": "SrTiO3", "elements": ["Sr", "O"]}, "otherwise"),
    ],
    ids=str,
)
def test_requests_that_mean_nothing_are_errors(asked: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        Request.of(asked)
