"""From a generated sample to a candidate: what is impossible is a failure, what was repaired or refined is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcgen import store
from hpcgen.config import Config
from hpcgen.crystal import Crystal, lattice_parameters
from hpcgen.errors import Failure
from hpcgen.family.rebuild import RepresentationReconstructor
from hpcgen.family.representation import RepresentationFamily, RepresentationSample
from hpcgen.family.samples import of_vectors
from hpcgen.flow import Candidate, content
from hpcgen.reconstruct.refine_fit import deformation
from hpcgen.represent.descriptor import make_descriptor

PEROVSKITE = Crystal(
    3.9 * np.eye(3),
    np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]),
    np.array([38, 22, 8, 8, 8], dtype=np.uint8),
)
METAL = Crystal(2.9 * np.eye(3) - 1.45 * (1 - np.eye(3)) / 5, np.zeros((1, 3)), np.array([26], dtype=np.uint8))
CONFIG = Config()
FAMILY = RepresentationFamily.fit([PEROVSKITE, METAL], CONFIG)
RECONSTRUCTOR = RepresentationReconstructor(FAMILY.sample_attrs(), CONFIG)


def sample(crystal: Crystal, noise: float = 0.0, strain: float = 0.0, seed: int = 0) -> RepresentationSample:
    """What a good network would generate for a crystal, with relative noise and a strained cell."""
    rng = np.random.default_rng(seed)
    [good] = of_vectors(FAMILY, ["a" * 16], FAMILY.encode([crystal])[0])
    vector = make_descriptor(CONFIG.representation).encode_batch([crystal], FAMILY.codec.channels)[0]
    vector = vector * (1 + noise * rng.standard_normal(len(vector)))
    h = np.append(strain * rng.standard_normal(5), 0.0)
    cell = lattice_parameters(crystal.lattice @ deformation(h))
    return replace(good, descriptor=vector.astype(np.float32), lattice=cell.astype(np.float32))


def rebuild(given: RepresentationSample) -> Candidate | Failure:
    return RECONSTRUCTOR.reconstruct(given, "b" * 16, seed=1)


def candidate(given: RepresentationSample) -> Candidate:
    result = rebuild(given)
    assert isinstance(result, Candidate), result
    return result


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (lambda s: {"descriptor": -s.descriptor}, "impossible-target", "negative"),
        (lambda s: {"descriptor": s.descriptor * 0}, "impossible-target", "zero"),
        (lambda s: {"descriptor": s.descriptor[:-1]}, "wrong-length", "descriptor"),
        (lambda s: {"descriptor": np.append(s.descriptor[:-1], np.float32(np.inf))}, "not-finite", "finite"),
        (lambda s: {"composition": s.composition * 0}, "empty-composition", "0 elements"),
        (lambda s: {"composition": -s.composition}, "empty-composition", "0 elements"),
        (lambda s: {"n_atoms": np.float32(0.2)}, "empty-composition", "0.20 atoms"),
        (lambda s: {"n_atoms": np.float32(-4)}, "empty-composition", "-4.00 atoms"),
        (lambda s: {"lattice": np.array([4, 4, 4, 90, 90, 0], np.float32)}, "impossible-cell", "4.000"),
        (lambda s: {"lattice": np.array([4, 4, 4, 60, 60, 120], np.float32)}, "impossible-cell", "close to a cell"),
        (lambda s: {"lattice": np.zeros(6, np.float32)}, "impossible-cell", "0.000"),
    ],
)
def test_impossible_targets_are_failures(change, kind: str, word: str) -> None:
    good = sample(PEROVSKITE)
    result = rebuild(replace(good, **change(good)))
    assert isinstance(result, Failure)
    assert (result.id, result.stage, result.kind) == (good.id, "reconstruct", kind)
    assert word in result.message


def test_negative_entries_that_are_allowed_or_small_are_no_failure() -> None:
    good = sample(PEROVSKITE)
    noise = 0.05 * np.abs(good.descriptor).max() * np.random.default_rng(0).standard_normal(len(good.descriptor))
    noise[np.argmin(good.descriptor)] = -np.abs(noise).max()
    disturbed = (good.descriptor + noise).astype(np.float32)
    assert disturbed.min() < good.descriptor.min()
    assert candidate(replace(good, descriptor=disturbed)).crystal.formula == "SrTiO3"


def test_a_candidate_tells_residual_by_block_and_what_it_is_worth() -> None:
    exact, noisy = candidate(sample(PEROVSKITE)), candidate(sample(PEROVSKITE, noise=0.2))
    names = RECONSTRUCTOR.candidate_attrs()["names_residual_blocks"]
    assert names == ["rdf", "s"]
    for found in (exact, noisy):
        assert found.residual_blocks.shape == (2,)
        assert np.sqrt((found.residual_blocks**2).sum()) == pytest.approx(found.residual)
        assert 0 <= found.match_probability <= 1
    assert exact.residual < 1e-3 < 0.1 < noisy.residual
    assert noisy.match_probability < exact.match_probability


def test_a_generated_cell_is_refined_and_made_symmetric_within_its_bounds() -> None:
    given = sample(PEROVSKITE, noise=0.02, strain=0.008)
    found = candidate(given)
    assert found.symmetry == "Pm-3m (221)"
    assert 0 < found.cell_strain < 0.05
    parameters = found.crystal.parameters
    assert np.abs(parameters[3:] - 90).max() < 1e-6
    assert np.ptp(parameters[:3]) < 1e-6
    assert np.abs(parameters[:3] / given.lattice[:3] - 1).max() <= CONFIG.reconstruct.cell_length
    assert found.residual < 0.03


def test_settings_decide_whether_the_cell_may_change() -> None:
    given = sample(PEROVSKITE, noise=0.02, strain=0.008)
    config = Config.model_validate({"reconstruct": {"cell_length": 0.0, "symmetry_tolerance": None}})
    found = RepresentationReconstructor(FAMILY.sample_attrs(), config).reconstruct(given, "b" * 16, seed=1)
    assert isinstance(found, Candidate)
    assert (found.cell_strain, found.symmetry) == (0, "")
    np.testing.assert_allclose(found.crystal.parameters, given.lattice, rtol=1e-6)


def test_one_atom_is_measured_against_its_own_images() -> None:
    good = candidate(sample(METAL))
    assert len(good.crystal) == 1
    assert good.residual < 1e-3
    stretched = sample(METAL)
    cell = lattice_parameters(METAL.lattice @ np.diag([1.15, 1.0, 1 / 1.15]))
    wrong = candidate(replace(stretched, lattice=cell.astype(np.float32)))
    assert wrong.residual > 0.03


def test_every_repair_is_told() -> None:
    good = sample(PEROVSKITE)
    absent = FAMILY.sample_attrs()["elements"].index("Fe")
    composition = good.composition.copy()
    composition[absent] = -0.3
    assert candidate(replace(good, composition=composition)).repair == "1 elements with less than no atoms left out"
    counts = good.composition * np.float32(1.2)
    both = replace(good, composition=counts, n_atoms=np.float32(4), repair="channels of O merged")
    assert candidate(both).repair == "channels of O merged; counts 1:1:4 -> 1:1:3; atoms 4 -> 5"
    assert candidate(good).repair == ""


def test_atoms_of_a_channel_without_element_are_told() -> None:
    codec = FAMILY.codec
    vector = codec.encode(METAL.numbers)
    vector[codec.bits + 1] = 1.8  # a second channel that says `empty`, with atoms
    assert codec.decode(vector).repair == "1.8 atoms of no element left out"
    vector[codec.bits + 1] = 0.4
    assert codec.decode(vector).repair == ""


def test_candidates_are_the_same_again_and_survive_a_file(tmp_path: Path) -> None:
    given = [sample(PEROVSKITE, noise=0.05, strain=0.01, seed=s) for s in range(2)]
    first = [RECONSTRUCTOR.reconstruct(s, f"{i:016x}", i) for i, s in enumerate(given)]
    again = [RECONSTRUCTOR.reconstruct(s, f"{i:016x}", i) for i, s in reversed(list(enumerate(given)))][::-1]
    path = tmp_path / "candidates.h5"
    store.write(path, Candidate, first, attrs=RECONSTRUCTOR.candidate_attrs())
    with store.open(path) as f:
        assert list(f.attrs["names_residual_blocks"]) == ["rdf", "s"]
        assert f.array("residual_blocks").shape == (2, 2)
        for a, b, c in zip(first, again, f, strict=True):
            assert all(np.array_equal(content(a)[key], value) for key, value in content(b).items())
            assert all(np.array_equal(content(a)[key], value) for key, value in content(c).items())


def test_a_file_of_failures_alone_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "candidates.h5"
    failure = rebuild(replace(sample(PEROVSKITE), n_atoms=np.float32(0)))
    store.write(path, Candidate, [], failures=[failure], attrs=RECONSTRUCTOR.candidate_attrs())
    with store.open(path) as f:
        assert len(f) == 0
        assert [x.kind for x in f.failures] == ["empty-composition"]


def with_others(first: RepresentationSample, *others: RepresentationSample) -> RepresentationSample:
    """A sample for whose composition further cells and descriptors were drawn."""
    return replace(
        first,
        more_lattices=np.stack([s.lattice for s in others]),
        more_descriptors=np.stack([s.descriptor for s in others]),
    )


def test_the_attempt_that_a_crystal_comes_nearest_to_is_kept() -> None:
    bad, good, fair = sample(PEROVSKITE, 0.9, seed=1), sample(PEROVSKITE), sample(PEROVSKITE, 0.2, seed=2)
    found = candidate(with_others(bad, fair, good, bad))
    assert (found.attempt, found.attempts) == (2, 3)  # good enough: the fourth was not tried
    assert found.residual < 0.01
    alone = candidate(bad)
    assert (alone.attempt, alone.attempts) == (0, 1)
    assert candidate(with_others(bad, bad)).residual <= alone.residual


def test_all_attempts_are_tried_where_none_is_good_enough() -> None:
    many = [sample(PEROVSKITE, 0.4, seed=i) for i in range(4)]
    found = candidate(with_others(*many))
    assert found.attempts == 4
    assert found.residual == min(candidate(with_others(many[0], *many[1:k])).residual for k in range(2, 5))


def test_a_limit_of_the_residual_times_the_atoms_is_for_large_crystals() -> None:
    many = with_others(*(sample(PEROVSKITE, 0.01, seed=i) for i in range(3)))
    residual = candidate(many).residual
    assert 0.001 < residual < CONFIG.reconstruct.accept

    def attempts(limit: float | None) -> int:
        settings = CONFIG.reconstruct.model_copy(update={"accept_atoms": limit})
        config = CONFIG.model_copy(update={"reconstruct": settings})
        found = RepresentationReconstructor(FAMILY.sample_attrs(), config).reconstruct(many, "b" * 16, seed=1)
        assert isinstance(found, Candidate)
        return found.attempts

    assert attempts(None) == attempts(residual * len(PEROVSKITE) * 1.01) == 1
    assert attempts(residual * len(PEROVSKITE) * 0.99) > 1


def test_a_file_of_before_several_attempts_is_rebuilt(tmp_path: Path) -> None:
    path = tmp_path / "samples.h5"
    several = with_others(sample(PEROVSKITE), sample(PEROVSKITE, 0.1))
    store.write(path, RepresentationSample, [several], attrs=FAMILY.sample_attrs())
    with store.open(path) as f:
        new = RECONSTRUCTOR.costs(f)
    with h5py.File(path, "r+") as f:
        del f["representation/more_lattices"], f["representation/more_descriptors"]
        f.attrs["schema_version"] = 1
    with store.open(path) as f:
        assert RECONSTRUCTOR.costs(f) == pytest.approx(new / (1 + 2 / 6))  # a sixth of the search for each of both
        assert candidate(f[0]).attempts == 1


def test_cells_of_like_volume_are_looked_at_before_others() -> None:
    bad, good = sample(PEROVSKITE, 0.9, seed=1), sample(PEROVSKITE)
    stretched = np.array([1.2, 1.2, 1.2, 1, 1, 1], np.float32) * good.lattice
    larger = replace(bad, lattice=stretched)
    found = candidate(with_others(bad, larger, larger, good))
    assert (found.attempt, found.attempts) == (3, 2)
    assert found.residual < 0.01


def test_an_impossible_attempt_does_not_spoil_the_others() -> None:
    good = sample(PEROVSKITE)
    impossible = replace(good, lattice=np.zeros(6, np.float32))
    assert candidate(with_others(impossible, good)).attempt == 1
    failed = rebuild(with_others(impossible, impossible))
    assert isinstance(failed, Failure)
    assert failed.kind == "impossible-cell"
    assert "nor were 1 other" in failed.message


def test_further_attempts_of_another_length_are_a_failure() -> None:
    several = with_others(sample(PEROVSKITE), sample(PEROVSKITE))
    for change in (
        {"more_descriptors": several.more_descriptors[:, :-1]},
        {"more_lattices": several.more_lattices[:, :-1]},
        {"more_lattices": several.more_lattices[:0]},
    ):
        failed = rebuild(replace(several, **change))
        assert isinstance(failed, Failure)
        assert failed.kind == "wrong-length"
