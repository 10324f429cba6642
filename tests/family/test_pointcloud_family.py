"""The point-cloud family: what it encodes, is asked for, draws and decodes."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
import torch

from hpcgen.config import Config, loads
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, DataError, Failure, StoreError
from hpcgen.family import get_family
from hpcgen.family.draw import Trained
from hpcgen.family.pointcloud import CLOUD, PointCloudFamily, in_order
from hpcgen.family.pointcloud_generator import to_samples
from hpcgen.family.pointcloud_samples import CloudSample
from hpcgen.flow import Candidate, Entry
from hpcgen.represent.composition import order_elements
from hpcgen.screen.matching import Matcher

CONFIG = """
pointcloud: {points: 32, max_elements: 3, max_sites: 6}
conditions: {n_atoms: false, scalars: [band_gap]}
model: {name: transformer, width: 16, resnet_blocks: 1, attention_heads: 2, patch: 4}
diffusion: {steps: 50}
train: {family: pointcloud}
sample: {micro_batch: 4, steps: 5}
"""
ROCK_SALT = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])


def salt(a: int, b: int, length: float = 4.0) -> Crystal:
    """Rhombohedral rock salt of two elements."""
    lattice = length / np.sqrt(2) * np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]])
    return Crystal(lattice, ROCK_SALT, np.array([a, b]))


def perovskite(a: int, b: int, x: int, length: float = 4.0) -> Crystal:
    frac = np.array([[0.999, 0, 0], [0.5, 0.5, 0.5], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return Crystal(np.diag([length, length, 1.1 * length]), frac, np.array([a, b, x, x, x]))


CRYSTALS = [salt(11, 17, 4.0), salt(12, 8, 3.0), salt(11, 17, 4.1), perovskite(38, 22, 8), perovskite(56, 22, 8, 4.2)]
VALUES = [{"band_gap": g} for g in (5.0, 6.0, 5.1, 2.0)] + [{}]


def entries(crystals: list[Crystal], values: list[dict[str, float]] | None = None) -> list[Entry]:
    known = values or [{}] * len(crystals)
    return [
        Entry(f"{i:016x}", c, f"row:{i}", "train", json.dumps(v))
        for i, (c, v) in enumerate(zip(crystals, known, strict=True))
    ]


@pytest.fixture(scope="module")
def config() -> Config:
    return loads(CONFIG)


@pytest.fixture(scope="module")
def family(config: Config) -> PointCloudFamily:
    return PointCloudFamily.fit(CRYSTALS, config, VALUES)


@pytest.fixture(scope="module")
def models(family: PointCloudFamily, config: Config) -> dict[str, Trained]:
    """The network with random weights, which depends on everything it is told."""
    torch.manual_seed(1)
    part = family.parts(config)[0]
    network = part.network().eval()
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.1)
    bound = torch.full(part.shape, 3.0)
    return {CLOUD: Trained(part, network, -bound, bound)}


def draw(family: PointCloudFamily, models: Any, config: Config, ids: list[str], guidance: float = 0.0, **asked: Any):
    settings = config.sample.model_copy(update={"guidance": guidance})
    with torch.inference_mode():
        return family.generator(models, seed=0, settings=settings, conditions=asked)(ids)


@pytest.mark.parametrize("how", ["order", "clusters"])
def test_a_crystal_comes_back_from_its_own_array(family: PointCloudFamily, config: Config, how: str) -> None:
    slots = [order_elements(c.numbers.tolist()) for c in CRYSTALS]
    samples = to_samples(family, [str(i) for i in range(5)], slots, family.encode(CRYSTALS))
    chosen = config.model_copy(update={"reconstruct": config.reconstruct.model_copy(update={"decode": how})})
    decoder = PointCloudFamily.reconstructor(family.sample_attrs(), chosen)
    decoder.warm_up()
    for crystal, sample in zip(CRYSTALS, samples, strict=True):
        assert isinstance(sample, CloudSample)
        built = decoder.reconstruct(sample, f"{7:016x}", 3)
        assert isinstance(built, Candidate), built
        assert (built.sample_id, built.family, built.repair) == (sample.id, "pointcloud", "")
        np.testing.assert_allclose(built.crystal.parameters, crystal.parameters, rtol=1e-4)
        matcher = Matcher()
        assert matcher.equal(matcher.reduce(crystal), matcher.reduce(built.crystal))
        assert built.residual < 1e-3
        assert built.confidence > 0.9
        again = decoder.reconstruct(sample, f"{7:016x}", 3)
        assert isinstance(again, Candidate)
        assert again.crystal.frac.tobytes() == built.crystal.frac.tobytes()


def test_points_of_an_atom_lie_side_by_side_and_atoms_in_an_order_of_their_own(family: PointCloudFamily) -> None:
    shuffled = Crystal(CRYSTALS[3].lattice, CRYSTALS[3].frac[[4, 2, 0, 3, 1]], CRYSTALS[3].numbers[[4, 2, 0, 3, 1]])
    x = family.encode([CRYSTALS[3], shuffled])
    np.testing.assert_array_equal(x[0], x[1])
    assert (np.abs(np.diff(x[0, :2], axis=1)).sum((0, 2)) > 0).sum() == 4  # five atoms, four changes
    across = Crystal(np.eye(3) * 4, np.array([[0.9999, 0.5, 0.5]]), np.array([11]))
    inside = Crystal(np.eye(3) * 4, np.array([[0.0001, 0.5, 0.5]]), np.array([11]))
    assert np.abs(np.diff(family.encode([across, inside]), axis=0)).max() < 0.01
    np.testing.assert_array_equal(in_order(across).frac, across.frac)


def test_what_does_not_fit_is_counted_with_its_reason(family: PointCloudFamily, config: Config) -> None:
    four = Crystal(np.eye(3) * 6, np.random.default_rng(0).random((4, 3)), np.array([38, 22, 8, 17]))
    large = Crystal(np.eye(3) * 9, np.random.default_rng(0).random((7, 3)), np.full(7, 11))
    crystals = [*CRYSTALS, four, large, salt(3, 9)]
    found = dict(family.misfits(crystals))
    assert list(found) == [5, 6, 7]
    assert "4 elements, more than 3" in found[5]
    assert "7 sites, more than 6" in found[6]
    assert "Li, F not in the training data" in found[7]
    rows = family.training_tensors(entries(crystals), config)[CLOUD]
    assert rows["x"].shape == (5, 3, 32, 3)
    refitted = PointCloudFamily.fit([*CRYSTALS, four, large], config, [*VALUES, {}, {}])
    assert refitted.state() == family.state()  # what does not fit decides no statistics
    with pytest.raises(DataError, match="none of the 2 training structures is a point cloud"):
        PointCloudFamily.fit([four, large], config, [VALUES[0]] * 2)


def test_no_length_is_too_long(config: Config) -> None:
    long = Crystal(np.diag([4.0, 5.0, 30.0]), np.array([[0.1, 0.2, 0.3]]), np.array([11]))
    family = PointCloudFamily.fit([*CRYSTALS, long], config, [*VALUES, {}])
    sample = to_samples(family, ["a"], [(11,)], family.encode([long]))[0]
    built = PointCloudFamily.reconstructor(family.sample_attrs(), config).reconstruct(sample, "b", 0)
    assert isinstance(built, Candidate)
    np.testing.assert_allclose(built.crystal.parameters, long.parameters, rtol=1e-4)


def test_five_elements_fit_where_five_are_allowed() -> None:
    wide = loads(CONFIG, overrides=["pointcloud.max_elements=5", "pointcloud.points=40"])
    frac = np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0]])
    five = Crystal(np.diag([5.0, 5.5, 6.0]), frac, np.array([11, 20, 22, 8, 9, 9]))
    family = PointCloudFamily.fit([*CRYSTALS, five], wide, [*VALUES, {}])
    slots = [order_elements(c.numbers.tolist()) for c in (five, CRYSTALS[0])]
    samples = to_samples(family, ["a", "b"], slots, family.encode([five, CRYSTALS[0]]))
    decoder = PointCloudFamily.reconstructor(family.sample_attrs(), wide)
    for sample, real in zip(samples, (five, CRYSTALS[0]), strict=True):
        assert isinstance(sample, CloudSample)
        assert sample.element.shape == (40, 5)
        built = decoder.reconstruct(sample, "c", 0)
        assert isinstance(built, Candidate)
        assert sorted(built.crystal.numbers.tolist()) == sorted(real.numbers.tolist())
    network = family.parts(wide)[0].network()
    rows = family.training_tensors(entries([five]), wide)[CLOUD]
    assert network(rows["x"], torch.tensor([3]), rows["c"]).shape == (1, 3, 40, 5)


def test_is_registered_and_its_state_loads_without_code(family: PointCloudFamily) -> None:
    stream = io.BytesIO()
    torch.save(family.state(), stream)
    stream.seek(0)
    restored = get_family("pointcloud").from_state(torch.load(stream, weights_only=True))
    assert isinstance(restored, PointCloudFamily)
    assert restored.state() == family.state()
    np.testing.assert_array_equal(restored.encode(CRYSTALS), family.encode(CRYSTALS))
    assert restored.conditions == family.conditions


def test_elements_that_are_not_asked_for_are_drawn_as_often_as_they_occur(family, models, config) -> None:
    generator = family.generator(models, seed=0, settings=config.sample)
    drawn = [generator.slots(f"{i:016x}") for i in range(600)]
    shares = {s: drawn.count(s) / 600 for s in set(drawn)}
    assert set(shares) == {(11, 17), (12, 8), (38, 22, 8), (56, 22, 8)}
    assert shares[11, 17] == pytest.approx(0.4, abs=0.07)
    assert shares[12, 8] == pytest.approx(0.2, abs=0.06)


def test_elements_can_be_drawn_among_some(family, models, config) -> None:
    asked = {"among": ["O", "Sr", "Ti", "Mg", "Na"]}
    generator = family.generator(models, seed=0, settings=config.sample, conditions=asked)
    drawn = [generator.slots(f"{i:016x}") for i in range(300)]
    assert set(drawn) == {(12, 8), (38, 22, 8)}
    assert drawn.count((12, 8)) / 300 == pytest.approx(0.5, abs=0.1)


def test_polish_imposes_the_symmetry_of_a_noisy_cloud(family: PointCloudFamily, config: Config) -> None:
    x = family.encode(CRYSTALS[:1])
    x = x + 0.02 * np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    sample = to_samples(family, ["a"], [(11, 17)], x)[0]
    built = {}
    for polish in (True, False):
        chosen = config.model_copy(update={"reconstruct": config.reconstruct.model_copy(update={"polish": polish})})
        candidate = family.reconstructor(family.sample_attrs(), chosen).reconstruct(sample, "b", 0)
        assert isinstance(candidate, Candidate)
        built[polish] = candidate
    assert (built[True].symmetry, built[False].symmetry) == ("Fm-3m (225)", "")
    lengths, angles = np.split(built[True].crystal.parameters, 2)
    assert np.ptp(lengths) < 1e-6
    np.testing.assert_allclose(angles, 60, atol=1e-5)
    assert np.ptp(built[False].crystal.parameters[3:]) > 1e-3
    assert built[False].cell_strain == 0 < built[True].cell_strain < 0.02
    assert built[False].residual <= built[True].residual < 1.2 * built[False].residual


def test_a_sample_is_the_same_whatever_is_drawn_beside_it(family, models, config) -> None:
    ids = [f"{i:016x}" for i in range(4)]
    together = draw(family, models, config, ids)
    alone = draw(family, models, config, ids[2:3])[0]
    for name in ("position", "element", "lattice", "elements"):
        assert getattr(together[2], name).tobytes() == getattr(alone, name).tobytes()
    assert alone.position.tobytes() != together[1].position.tobytes()
    assert (alone.position >= 0).all()
    assert (alone.position < 1).all()


def test_the_elements_lead_the_sample_and_without_them_they_do_not(family, models, config) -> None:
    """The original's guidance did nothing: its masked embedding was computed and the unmasked one used."""
    ids = ["a"]

    def lattice(guidance: float, *elements: str) -> np.ndarray:
        return draw(family, models, config, ids, guidance, elements=list(elements))[0].lattice

    salts = {w: np.abs(lattice(w, "Na", "Cl") - lattice(w, "Mg", "O")).mean() for w in (0.0, 2.0)}
    assert salts[0.0] > 1e-4
    assert salts[2.0] > 1.3 * salts[0.0]
    assert np.abs(lattice(2.0, "Na", "Cl") - lattice(0.0, "Na", "Cl")).mean() > 1e-4

    part, network = models[CLOUD].part, models[CLOUD].network
    asked = [torch.from_numpy(family.conditions.ask({"elements": z})[None]) for z in ((11, 17), (12, 8))]
    x, t = torch.randn(1, *part.shape), torch.tensor([20])
    with torch.no_grad():
        told = [network(x, t, c) for c in asked]
        untold = [network(x, t, part.condition.without(c)) for c in asked]
    assert (told[0] - told[1]).abs().max() > 1e-3
    assert torch.equal(untold[0], untold[1])


def test_the_estimate_without_conditions_is_trained(family, config) -> None:
    """The other half of guidance: of the rows that keep something each of the groups is dropped too, and some keep
    nothing, and all of them reach the loss."""
    part = family.parts(config)[0]
    rows = family.training_tensors(entries(CRYSTALS, VALUES), config)[CLOUD]
    drawn = part.draw(4000, torch.Generator().manual_seed(0))
    assert (~drawn["kept"].any(1)).float().mean().item() == pytest.approx(0.1, abs=0.02)
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        seen.append(c)
        return torch.zeros_like(x)

    pick = torch.arange(4000) % 5
    part.losses(network, {k: v[pick] for k, v in rows.items()}, drawn)
    flags = seen[0][:, [g.stop - 1 for g in part.condition.groups]] > 0
    known = rows["c"][pick][:, [g.stop - 1 for g in part.condition.groups]] > 0
    assert torch.equal(flags, drawn["kept"] & known)
    assert seen[0][~flags[:, 0], : part.condition.groups[0].stop].abs().max() == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"formula": "NaCl"}, "`formula`"),
        ({"lattice": {"a": 4.0}}, "`lattice`"),
        ({"n_atoms": 2}, "`n_atoms`"),
        ({"elements": ["Li", "Cl"]}, "Li not in the training data"),
        ({"elements": ["Na", "Cl", "Mg", "O"]}, "names 4 elements"),
        ({"among": ["Na", "O"]}, "no element set"),
        ({"among": ["Na", "Cl"], "elements": ["Na", "Cl"]}, "beside"),
        ({"among": "salt"}, "`among` is 'salt'"),
        ({"colour": "red"}, "`colour`"),
        ({"band_gap": "wide"}, "a number"),
    ],
)
def test_what_cannot_be_asked_for_is_said(family, models, config, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(family, models, config, ["a"], **asked)


def test_columns_and_numbers_of_atoms_are_conditions_where_trained(models, config) -> None:
    wide = loads(CONFIG, overrides=["conditions.n_atoms=true"])
    family = PointCloudFamily.fit(CRYSTALS, wide, VALUES)
    assert family.conditions.names == ("elements", "n_atoms", "band_gap")
    c = family.training_tensors(entries(CRYSTALS, VALUES), wide)[CLOUD]["c"]
    groups = family.conditions.layout().groups
    present = [[float(row[g.stop - 1]) for g in groups] for row in c]
    assert present[0] == [1, 1, 1]
    assert present[4] == [1, 1, 0]  # no band gap is known of it
    two = family.conditions.ask({"elements": (11, 17), "n_atoms": 2})
    assert not np.array_equal(two, family.conditions.ask({"elements": (11, 17), "n_atoms": 5}))


def test_slots_do_not_depend_on_the_order_in_which_elements_are_named(family) -> None:
    ask = family.conditions.ask
    np.testing.assert_array_equal(ask({"elements": (8, 38, 22)}), ask({"elements": (38, 22, 8)}))


def test_scores_say_how_good_a_small_sample_is(family, models, config) -> None:
    found = family.score(models, CLOUD, CRYSTALS, config)
    assert {"decoded", "valid_structure", "all_elements"} <= set(found)
    assert all(np.isfinite(v) for v in found.values())


def test_bad_samples_are_failures_and_bad_attributes_errors(family: PointCloudFamily, config: Config) -> None:
    attrs = family.sample_attrs()
    decoder = PointCloudFamily.reconstructor(attrs, config)
    good = to_samples(family, ["a"], [(11, 17)], family.encode(CRYSTALS[:1]))[0]
    assert isinstance(good, CloudSample)

    def kind(**changes: Any) -> str:
        from dataclasses import replace

        built = decoder.reconstruct(replace(good, **changes), "b", 0)
        assert isinstance(built, Failure)
        assert (built.id, built.stage) == ("a", "reconstruct")
        return built.kind

    assert kind(position=good.position[:5]) == "wrong-shape"
    assert kind(position=np.full_like(good.position, np.nan)) == "not-finite"
    assert kind(elements=np.zeros(3, np.uint8)) == "no-elements"
    assert kind(lattice=-good.lattice) == "impossible-cell"
    assert to_samples(family, ["c"], [(11, 17)], np.full((1, 3, 32, 3), np.inf, np.float32))[0].kind == "not-finite"
    with pytest.raises(StoreError, match="pointcloud"):
        PointCloudFamily.reconstructor({k: v for k, v in attrs.items() if k != "length_unit"}, config)
