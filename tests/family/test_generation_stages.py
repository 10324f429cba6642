"""The representation family in stages: what is trained, and what is drawn from it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from hpcgen.config import Config, loads
from hpcgen.crystal import Crystal
from hpcgen.errors import ConfigError, Failure
from hpcgen.family.draw import Trained
from hpcgen.family.lattice_model import LatticePart
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.flow import Entry

CONFIG = loads(
    """
    seed: 3
    data: {max_atoms: 6}
    conditions: {scalars: [gap], categories: [system]}
    representation: {variance: 0.99}
    model: {name: resmlp, width: 32, resnet_blocks: 1, lattice_width: 32, lattice_blocks: 1, composition_width: 16}
    diffusion: {steps: 100}
    sample: {sampler: ddim, steps: 6, micro_batch: 8}
    """
)
LATTICE_MODELS = ("autoregressive", "diffusion")
JOINT = CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"stages": "joint"})})
PAIRS = [(11, 17), (3, 9), (12, 8), (20, 16), (19, 35), (37, 53)]
IDS = [f"{i:016x}" for i in range(11)]


def rocksalt(cation: int, anion: int, a: float) -> Crystal:
    return Crystal(a / 2 * (np.ones((3, 3)) - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [cation, anion])


def fluorite(cation: int, anion: int, a: float) -> Crystal:
    sites = [[0, 0, 0], [0.25] * 3, [0.75] * 3]
    return Crystal(a / 2 * (np.ones((3, 3)) - np.eye(3)), sites, [cation, anion, anion])


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    rng = np.random.default_rng(0)
    out = []
    for i in range(60):
        cation, anion = PAIRS[i % 6]
        make = (rocksalt, fluorite)[i % 2]
        values = {"gap": float(i % 5), "system": ["cubic", "trigonal"][i % 2]} if i % 3 else {}
        crystal = make(cation, anion, 5 + 0.1 * rng.random())
        out.append(Entry(f"{i:016x}", crystal, f"row:{i}", "train", json.dumps(values)))
    return out


@pytest.fixture(scope="module")
def family(entries: list[Entry]) -> RepresentationFamily:
    return RepresentationFamily.fit([e.crystal for e in entries], CONFIG, [e.values for e in entries])


def trained(family: RepresentationFamily, entries: list[Entry], config: Config, steps: int = 4) -> dict[str, Trained]:
    """A few steps of training: enough to be no network of zeros."""
    models = {}
    rows = family.training_tensors(entries, config)
    for part in family.parts(config):
        torch.manual_seed(1)
        network = part.network().train()
        optimiser, generator = torch.optim.Adam(network.parameters(), 0.01), torch.Generator().manual_seed(0)
        data = rows[part.name]
        for _ in range(steps):
            losses = part.losses(network, data, part.draw(len(data["x"]), generator))
            assert losses.shape == (len(data["x"]),)
            optimiser.zero_grad()
            losses.mean().backward()
            optimiser.step()
        # wide bounds: what so short a training gives would all be cut to the same values
        models[part.name] = Trained(part, network.eval(), data["x"].amin(0) - 20, data["x"].amax(0) + 20)
    return models


def with_lattice(model: str) -> Config:
    return CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update={"lattice": model})})


@pytest.fixture(scope="module", params=LATTICE_MODELS)
def models(request: Any, family: RepresentationFamily, entries: list[Entry]) -> dict[str, Trained]:
    return trained(family, entries, with_lattice(request.param))


def generate(
    family: RepresentationFamily, models: dict[str, Trained], asked: dict[str, Any] | None = None, **keys: Any
) -> list[RepresentationSample]:
    settings = CONFIG.sample.model_copy(update=keys)
    return family.generate(models, IDS, seed=1, settings=settings, conditions=asked)  # type: ignore[return-value]


def same(a: RepresentationSample, b: RepresentationSample) -> bool:
    arrays = ("composition", "lattice", "descriptor", "n_atoms")
    return a.id == b.id and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)


@pytest.mark.parametrize("lattice", LATTICE_MODELS)
def test_rows_of_each_part(family: RepresentationFamily, entries: list[Entry], lattice: str) -> None:
    config = with_lattice(lattice)
    rows = family.training_tensors(entries, config)
    assert list(rows) == [part.name for part in family.parts(config)] == ["composition", "lattice", "descriptor"]
    assert rows["composition"]["x"].shape == (60, 3)
    assert rows["lattice"]["x"].shape == (60, 12 if lattice == "autoregressive" else 6)
    assert rows["descriptor"]["x"].shape == (60, family.descriptor.length)
    for part in family.parts(config):
        layout = getattr(part, "layout", None) or part.condition
        assert rows[part.name]["c"].shape == (60, layout.width)
        assert rows[part.name]["x"].dtype == rows[part.name]["c"].dtype == torch.float32
    # columns reach all three, elements and number of atoms only the first: the others know the composition
    assert [len((getattr(p, "layout", None) or p.condition).groups) for p in family.parts(config)] == [4, 2, 2]
    cells = rows["descriptor"]["c"][:, -6:]
    assert lattice == "autoregressive" or torch.equal(cells, rows["lattice"]["x"])
    joined = np.concatenate([cells, rows["descriptor"]["x"]], 1)
    np.testing.assert_array_equal(joined, family.encode([e.crystal for e in entries])[0][:, -joined.shape[1] :])


def test_what_cannot_be_encoded_is_left_out_and_named(family: RepresentationFamily, entries: list[Entry]) -> None:
    gold = Entry("f" * 16, Crystal(np.eye(3) * 3, [[0, 0, 0]], [79]), "row:60", "validation")
    sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0.5], [0.5, 0.5, 0]]
    pattern = Entry("e" * 16, Crystal(np.diag([5.0, 5.0, 9.0]), sites, [11, 11, 17, 17]), "row:61", "validation")
    assert [i for i, _ in family.misfits([gold.crystal, pattern.crystal])] == [0]
    rows = family.training_tensors([gold, pattern, *entries[:3]], CONFIG)
    assert len(rows["lattice"]["x"]) == len(rows["descriptor"]["x"]) == 4
    assert len(rows["composition"]["x"]) == 3  # no crystal of the training split has two and two atoms
    assert len(family.training_tensors([gold], CONFIG)["lattice"]["x"]) == 0


def test_samples_are_whole_compositions(family: RepresentationFamily, models: dict[str, Trained]) -> None:
    samples = generate(family, models)
    assert [s.id for s in samples] == IDS
    for s in samples:
        assert s.composition.sum() == s.n_atoms
        assert sorted(s.composition[s.composition > 0]) in ([1, 1], [1, 2])
        assert np.isfinite(s.lattice).all()
        assert np.isfinite(s.descriptor).all()
        assert s.repair == ""


def test_a_sample_depends_on_its_id_alone(family: RepresentationFamily, models: dict[str, Trained]) -> None:
    for asked in ({}, {"system": "cubic"}, {"lattice": {"alpha": 60.0}}):
        whole = generate(family, models, asked)
        some = [3, 9, 10]
        settings = CONFIG.sample
        few = family.generate(models, [IDS[i] for i in some], seed=1, settings=settings, conditions=asked)
        assert all(same(a, whole[i]) for a, i in zip(few, some, strict=True))
        other = family.generate(models, IDS, seed=2, settings=settings, conditions=asked)
        assert not any(same(a, b) for a, b in zip(whole, other, strict=True))


def test_a_formula_is_kept(family: RepresentationFamily, models: dict[str, Trained]) -> None:
    samples = generate(family, models, {"formula": "Mg2Cl4"})
    elements = family.sample_attrs()["elements"]
    for s in samples:
        named = {e: int(n) for e, n in zip(elements, s.composition, strict=True) if n}
        assert named == {"Mg": 2, "Cl": 4}
    assert len({tuple(s.lattice) for s in samples}) == len(samples)


def test_elements_and_number_of_atoms_are_kept(family: RepresentationFamily, models: dict[str, Trained]) -> None:
    elements = family.sample_attrs()["elements"]
    for s in generate(family, models, {"elements": ["Cl", "Mg"], "n_atoms": 3}):
        named = {e: int(n) for e, n in zip(elements, s.composition, strict=True) if n}
        assert set(named) == {"Mg", "Cl"}
        assert sum(named.values()) == 3
    assert {int(s.n_atoms) for s in generate(family, models, {"n_atoms": 2})} == {2}


def test_given_lattice_parameters_are_kept(family: RepresentationFamily, models: dict[str, Trained]) -> None:
    free = generate(family, models)
    part = generate(family, models, {"lattice": {"a": 3.7, "alpha": 60.0}})
    for s, other in zip(part, free, strict=True):
        assert s.lattice[[0, 3]] == pytest.approx([3.7, 60.0], abs=1e-5)
        assert not np.allclose(s.lattice, other.lattice, rtol=1e-3)
    # the descriptor is drawn for the cell as given, not for the one that would have been
    assert not any(np.allclose(a.descriptor, b.descriptor) for a, b in zip(part, free, strict=True))
    whole = {"a": 3.7, "b": 3.8, "c": 4.0, "alpha": 60.0, "beta": 70.0, "gamma": 80.0}
    for s in generate(family, {k: v for k, v in models.items() if k != "lattice"}, {"lattice": whole}):
        assert s.lattice == pytest.approx(list(whole.values()))


def test_columns_reach_every_part_and_guidance_acts(family: RepresentationFamily, entries: list[Entry]) -> None:
    models = trained(family, entries, CONFIG, steps=30)
    free, asked = generate(family, models), generate(family, models, {"gap": 4.0})
    led = generate(family, models, {"gap": 4.0}, guidance=3.0)
    for name in ("lattice", "descriptor"):
        for a, b in ((free, asked), (asked, led)):
            same_ones = [np.array_equal(getattr(x, name), getattr(y, name)) for x, y in zip(a, b, strict=True)]
            assert sum(same_ones) < len(a) / 2, name  # a few cells are drawn as the same tokens
    # fluorites are trigonal in these data, and have three atoms
    many = [f"{i:016x}" for i in range(200)]
    settings = CONFIG.sample.model_copy(update={"guidance": 2.0, "steps": 2, "micro_batch": 100})
    atoms = {
        system: np.mean([float(s.n_atoms) for s in family.generate(
            models, many, seed=1, settings=settings, conditions={"system": system})])
        for system in ("cubic", "trigonal")
    }  # fmt: skip
    assert atoms["trigonal"] > atoms["cubic"] + 0.2


def test_numbers_that_are_not_finite_are_failures(
    family: RepresentationFamily, entries: list[Entry], models: dict[str, Trained]
) -> None:
    broken = {**models, "descriptor": trained(family, entries, CONFIG, steps=1)["descriptor"]}
    with torch.no_grad():
        broken["descriptor"].network.last.bias[0] = torch.nan
    results = generate(family, broken)
    assert [(r.id, r.kind) for r in results if isinstance(r, Failure)] == [(id_, "not-finite") for id_ in IDS]


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        ({"colour": 1}, ["`colour`", "gap, system"]),
        ({"system": "hexagonal"}, ["'hexagonal'", "cubic, trigonal"]),
        ({"elements": ["Au"]}, ["Au", "not in the training data", "Na"]),
        ({"formula": "AuCl"}, ["Au", "not in the training data"]),
        ({"formula": "NaClBr"}, ["3 elements", "at most 6 atoms of 2"]),
        ({"formula": "Na6Cl6"}, ["12 atoms"]),
        ({"lattice": {"a": 3, "b": 3, "c": 3, "alpha": 170, "beta": 20, "gamma": 20}}, ["no cell"]),
        ({"n_atoms": 5}, ["no composition", "5 atoms"]),
        ({"among": ["Na", "Cl"]}, ["`among`", "pointcloud"]),
        ({"elements": ["Na", "Cl"], "n_atoms": 4}, ["4 atoms and 2 elements"]),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_an_error(
    family: RepresentationFamily, models: dict[str, Trained], asked: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        generate(family, models, asked)
    for part in parts:
        assert part in str(caught.value)


def test_conditions_can_be_left_out_altogether(entries: list[Entry]) -> None:
    bare = loads(CONFIG.text(), overrides=["conditions={elements: false, n_atoms: false}"])
    family = RepresentationFamily.fit([e.crystal for e in entries], bare)
    models = trained(family, entries, bare)
    assert len(generate(family, models)) == len(IDS)
    elements = family.sample_attrs()["elements"]
    for s in generate(family, models, {"elements": ["Mg", "O"]}):  # holds by construction
        assert {e for e, n in zip(elements, s.composition, strict=True) if n} == {"Mg", "O"}


def test_the_joint_vector_is_one_part_with_the_same_conditions(
    family: RepresentationFamily, entries: list[Entry]
) -> None:
    rows = family.training_tensors(entries, JOINT)
    assert list(rows) == ["joint"]
    np.testing.assert_array_equal(rows["joint"]["x"], family.encode([e.crystal for e in entries])[0])
    models = trained(family, entries, JOINT)
    free, asked = generate(family, models), generate(family, models, {"n_atoms": 3, "system": "cubic"})
    assert len(free) == len(IDS)
    assert not any(same(a, b) for a, b in zip(free, asked, strict=True))
    for wanted in ({"formula": "NaCl"}, {"lattice": {"a": 4.0}}):
        with pytest.raises(ConfigError, match="factorised"):
            generate(family, models, wanted)


def test_the_family_survives_a_checkpoint(family: RepresentationFamily, models: dict[str, Trained], tmp_path) -> None:
    torch.save(family.state(), tmp_path / "family.pt")
    restored = RepresentationFamily.from_state(torch.load(tmp_path / "family.pt", weights_only=True))
    assert restored.tokens == family.tokens
    assert restored.conditions == family.conditions
    again = {}
    lattice = "autoregressive" if isinstance(models["lattice"].part, LatticePart) else "diffusion"
    for part in restored.parts(with_lattice(lattice)):
        network = part.network().eval()
        network.load_state_dict(models[part.name].network.state_dict())
        again[part.name] = Trained(part, network, models[part.name].lower, models[part.name].upper)
    assert all(map(same, generate(family, models), generate(restored, again)))


def test_checkpoints_of_before_draw_cells_by_diffusion(family: RepresentationFamily, entries: list[Entry]) -> None:
    state = {name: value for name, value in family.state().items() if name != "lattice_tokens"}
    before = RepresentationFamily.from_state(state)
    assert [type(part).__name__ for part in before.parts(CONFIG)][1] == "DiffusionPart"
    assert before.training_tensors(entries, CONFIG)["lattice"]["x"].shape[1] == 6
    assert "lattice_tokens" not in before.state()


def test_further_attempts_leave_the_first_as_it_is(family: RepresentationFamily, entries: list[Entry]) -> None:
    models = trained(family, entries, CONFIG)
    several = CONFIG.sample.model_copy(update={"attempts": 3})
    one = family.generate(models, IDS, seed=3, settings=CONFIG.sample)
    three = family.generate(models, IDS, seed=3, settings=several)
    alone = family.generate(models, IDS[4:5], seed=3, settings=several)[0]
    for a, b in zip(one, three, strict=True):
        assert isinstance(a, RepresentationSample)
        assert isinstance(b, RepresentationSample)
        assert (a.lattice == b.lattice).all()
        assert (a.descriptor == b.descriptor).all()
        assert (a.composition == b.composition).all()
        assert len(a.more_lattices) == len(a.more_descriptors) == 0
        assert b.more_lattices.shape == (2, 6)
        assert b.more_descriptors.shape == (2, len(b.descriptor))
        assert (b.more_lattices[0] != b.lattice).any()
        assert (b.more_descriptors[0] != b.more_descriptors[1]).any()
    assert isinstance(alone, RepresentationSample)
    assert isinstance(three[4], RepresentationSample)
    assert (alone.more_descriptors == three[4].more_descriptors).all()


def test_the_joint_vector_has_one_attempt(family: RepresentationFamily, entries: list[Entry]) -> None:
    models = trained(family, entries, JOINT)
    with pytest.raises(ConfigError, match=r"sample\.attempts is 2"):
        family.generate(models, IDS, seed=3, settings=JOINT.sample.model_copy(update={"attempts": 2}))
