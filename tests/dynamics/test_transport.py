from __future__ import annotations

import numpy as np
import pytest
from walks import known_diffusivity, walk  # type: ignore[import-not-found]

from hpcgen.crystal import to_structure
from hpcgen.dynamics import arrhenius, diffusion, framework, nernst_einstein
from hpcgen.dynamics.transport import BOLTZMANN

analyzer = pytest.importorskip("pymatgen.analysis.diffusion.analyzer", reason="pip install 'hpcgen[dynamics]'")


def test_random_walks_lie_within_the_error_bar():
    chance = 0.02
    found = [diffusion(walk(seed, chance), 3) for seed in range(16)]
    deviation = np.array([(d.diffusivity - known_diffusivity(chance)) / d.error for d in found])
    assert (abs(deviation) < 2).mean() >= 0.85
    assert abs(deviation).max() < 4
    assert 0.4 < deviation.std() < 1.6  # neither far too small nor far too large
    assert abs(deviation.mean()) < 1
    assert all(d.measured for d in found)
    # the regression's own error is no error bar of the diffusivity
    assert all(abs(d.diffusivity - known_diffusivity(chance)) > 5 * d.regression_error for d in found)


def test_ions_that_only_vibrate_do_not_diffuse():
    d = diffusion(walk(0, 0.0), 3)
    assert not d.measured
    assert d.diffusivity < 0.02 * known_diffusivity(0.02)


def test_drift_of_everything_is_no_diffusion():
    still, drifting = diffusion(walk(1, 0.02), 3), diffusion(walk(1, 0.02, drift=0.01), 3)
    assert drifting.diffusivity == pytest.approx(still.diffusivity, rel=1e-6)


def test_a_run_that_is_too_short_says_nothing():
    d = diffusion(walk(0, 0.02, frames=40), 3)
    assert np.isnan(d.diffusivity)
    assert not d.measured


def test_ions_without_framework_are_refused():
    t = walk(0, 0.0, frames=10)
    with pytest.raises(ValueError, match="framework"):
        diffusion(t, 11)


def test_framework_displacement_is_that_of_the_analyzer():
    t = walk(3, 0.01, frames=300)
    theirs = analyzer.DiffusionAnalyzer(
        to_structure(t.crystal), t.displacements.transpose(1, 0, 2), "Li", 1000.0, t.interval, 1, smoothed=False
    )
    ours = framework(t, [3])
    assert ours.displacement == pytest.approx(theirs.max_framework_displacement, rel=1e-9)
    assert ours.stays


def test_arrhenius_recovers_what_went_in_with_its_error():
    energy, prefactor, at = 0.35, 2e-3, 300.0
    temperatures = np.array([600.0, 800.0, 1000.0, 1200.0])
    exact = prefactor * np.exp(-energy / (BOLTZMANN * temperatures))
    fit = arrhenius(temperatures, exact, 0.1 * exact, at)
    assert fit.activation_energy == pytest.approx(energy)
    assert fit.diffusivity == pytest.approx(prefactor * np.exp(-energy / (BOLTZMANN * at)))
    rng = np.random.default_rng(0)
    off_energy, off_value = [], []
    for _ in range(300):
        relative = np.array([0.3, 0.15, 0.1, 0.05])
        d = exact * np.exp(relative * rng.standard_normal(4))
        f = arrhenius(temperatures, d, relative * d, at)
        off_energy.append((f.activation_energy - energy) / f.activation_energy_error)
        factor = 1 + f.diffusivity_error / f.diffusivity
        off_value.append(np.log(f.diffusivity / fit.diffusivity) / np.log(factor))
    for off in (off_energy, off_value):
        assert np.std(off) == pytest.approx(1, abs=0.15)
        assert abs(np.mean(off)) < 0.2


def test_one_temperature_is_no_fit():
    assert arrhenius([600.0], [1e-6], [1e-7], 300.0) is None
    assert arrhenius([], [], [], 300.0) is None


def test_nernst_einstein_is_pymatgens():
    from pymatgen.core import Species

    crystal = walk(0, 0.0, frames=2).crystal
    theirs = analyzer.get_conversion_factor(
        to_structure(crystal).copy().add_oxidation_state_by_element({"Li": 1, "F": -1}), Species("Li", 1), 500.0
    )
    assert nernst_einstein(crystal, 3, 1, 500.0) == pytest.approx(theirs / 1000, rel=1e-6)  # theirs is in mS/cm
