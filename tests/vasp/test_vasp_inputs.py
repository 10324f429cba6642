"""What is asked of VASP: its energy, its minimum, and forces that belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("custodian")

from hpcgen.config import VaspConfig
from hpcgen.crystal import Crystal, to_structure
from hpcgen.slots.outcome import Control
from hpcgen.vasp.handlers import StopHandler, fresh_handlers
from hpcgen.vasp.inputs import Plan, energy, forces, input_set, minimum
from hpcgen.vasp.outputs import read_output

NICKEL_OXIDE = Crystal(
    np.array([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([28, 8])
)


def section(**changes: Any) -> VaspConfig:
    return VaspConfig.model_validate({"command": ["vasp_std"], "potcars": False} | changes)


def incar(plan: Plan, config: VaspConfig, carry: dict[str, Any] | None = None, crystal: Crystal = NICKEL_OXIDE) -> Any:
    return input_set(plan.steps[0], to_structure(crystal), config, plan, carry or {}).incar


def test_a_minimum_is_relaxed_to_small_forces_with_the_set_s_physics() -> None:
    config = section()
    plain, tight = incar(energy(config), config), incar(minimum(config, 0.005, {}), config)
    for tag in ("ENCUT", "ISPIN", "LDAUU", "LASPH", "MAGMOM", "NSW", "IBRION", "ISIF"):
        assert tight[tag] == plain[tag]
    assert {tag: tight[tag] for tag in ("EDIFFG", "EDIFF", "LREAL", "ISMEAR", "SIGMA")} == {
        "EDIFFG": -0.005, "EDIFF": 1e-8, "LREAL": False, "ISMEAR": 0, "SIGMA": 0.05,
    }  # fmt: skip
    assert minimum(section(relaxations=3), 0.005, {}).steps == ("relax1", "relax2", "relax3")
    own = incar(minimum(config, 0.005, {"ediff": 1e-7}), section(incar={"NCORE": 4, "EDIFF": 1e-4}))
    assert (own["EDIFF"], own["NCORE"]) == (1e-7, 4)


@pytest.mark.parametrize("input_set_name", ["mp", "mp24", "mpscan"])
def test_forces_are_of_the_structure_as_it_stands(input_set_name: str) -> None:
    config = section(input_set=input_set_name, incar={"NSW": 200})
    plan = forces({}, carry={}, mesh=None, repeats=[2, 2, 2], moments=None)
    tags = incar(plan, config)
    assert {tag: tags[tag] for tag in ("NSW", "IBRION", "EDIFF", "LREAL", "LWAVE", "LCHARG", "ADDGRID")} == {
        "NSW": 0, "IBRION": -1, "EDIFF": 1e-8, "LREAL": False, "LWAVE": False, "LCHARG": False, "ADDGRID": False,
    }  # fmt: skip
    assert tags["PREC"] == "Accurate"
    assert tags["ENCUT"] == incar(energy(config), config)["ENCUT"]
    assert plan.at_rest
    assert not energy(config).at_rest


def test_corrections_help_the_supercells_but_do_not_change_their_physics() -> None:
    carry = {"ALGO": "All", "EDIFF": 1e-5, "SIGMA": 0.2, "ISYM": 0, "IBRION": 1}
    plan = forces({}, carry=carry, mesh=None, repeats=[1, 1, 1], moments=None)
    tags = incar(plan, section())
    assert (tags["ALGO"], tags["ISYM"]) == ("All", 0)
    assert (tags["EDIFF"], tags["SIGMA"], tags["IBRION"]) == (1e-8, 0.05, -1)
    again = incar(minimum(section(), 0.005, {}), section(), {"ALGO": "All", "EDIFF": 1e-5})
    assert (again["ALGO"], again["EDIFF"]) == ("All", 1e-8)


def test_k_points_of_a_supercell_are_no_coarser_than_those_of_its_cell() -> None:
    plan = forces({}, carry={}, mesh=[7, 7, 8], repeats=[4, 3, 2], moments=None)
    assert plan.mesh == [2, 3, 4]
    made = input_set("forces", to_structure(NICKEL_OXIDE), section(kpoints={"reciprocal_density": 500}), plan, {})
    assert made.kpoints.kpts == [(2, 3, 4)]
    assert made.kpoints.style.name == "Gamma"
    spacing = forces({}, carry={}, mesh=None, repeats=[2, 2, 2], moments=None)
    assert input_set("forces", to_structure(NICKEL_OXIDE), section(input_set="mp24"), spacing, {}).kpoints is None


def test_k_points_that_a_handler_changed_are_noticed(tmp_path: Path) -> None:
    from pymatgen.io.vasp.inputs import Kpoints

    from hpcgen.vasp import task

    plan = forces({}, carry={}, mesh=[4, 4, 4], repeats=[2, 2, 2], moments=None)
    made = input_set("forces", to_structure(NICKEL_OXIDE), section(), plan, {})
    made.kpoints.write_file(str(tmp_path / "KPOINTS.forces"))
    assert task._unlike_asked(tmp_path, made, {"ISYM": 0}) == ""
    Kpoints.gamma_automatic((3, 3, 3)).write_file(str(tmp_path / "KPOINTS.forces"))
    assert task._unlike_asked(tmp_path, made, {}) == "k-points (3, 3, 3) instead of (2, 2, 2)"
    assert task._mesh(made.kpoints) == [2, 2, 2]
    assert task._mesh(Kpoints.automatic(30)) is None
    assert task._mesh(None) is None


def test_moments_of_the_relaxed_cell_are_where_the_supercells_begin() -> None:
    """Antiferromagnetic, which the set's moments by element are not; atoms sorted by electronegativity."""
    four = Crystal(
        np.diag([4.2, 4.2, 4.2]),
        np.array([[0.5, 0, 0], [0, 0, 0], [0, 0.5, 0], [0.5, 0.5, 0]]),
        np.array([8, 28, 8, 28]),
    )
    plan = forces({}, carry={}, mesh=None, repeats=[1, 1, 1], moments=[0.1, 1.6, -0.1, -1.6])
    config = section(incar={"MAGMOM": {"Ni": 5}})
    made = input_set("forces", to_structure(four), config, plan, {})
    assert [s.symbol for s in made.poscar.structure.species] == ["Ni", "Ni", "O", "O"]
    assert made.incar["MAGMOM"] == [1.6, -1.6, 0.1, -0.1]
    assert incar(energy(config), config, crystal=four)["MAGMOM"] == [5, 5, 0.6, 0.6]


def test_moments_are_read_from_a_real_run(data_folder: Path) -> None:
    output = read_output(data_folder / "vasp_runs/ok/mp_run")
    assert output.moments is not None
    assert output.moments.shape == (2,)
    assert output.moments[0] == pytest.approx(1.5, abs=0.5)  # nickel
    assert output.moments.sum() == pytest.approx(output.magnetization, abs=0.5)


def test_smearing_of_forces_is_not_corrected() -> None:
    def names(**options: bool) -> set[str]:
        return {type(handler).__name__ for handler in fresh_handlers(section(), Control(), **options)}

    usual = names(at_rest=False, own_smearing=False)
    assert usual - names(at_rest=True, own_smearing=True) == {"LargeSigmaHandler", "IncorrectSmearingHandler"}


def test_a_run_at_rest_may_finish_in_the_first_half_of_the_grace(tmp_path: Path) -> None:
    (moving, *_), (resting, *_) = (
        fresh_handlers(section(), Control(), at_rest=at_rest, own_smearing=True) for at_rest in (False, True)
    )
    for handler in (moving, resting):
        assert isinstance(handler, StopHandler)
        handler.control = Control()
        assert not handler.check(str(tmp_path))
        handler.control.stop(1000.0)
    assert moving.check(str(tmp_path))
    assert not resting.check(str(tmp_path))
    for handler in (moving, resting):
        assert isinstance(handler, StopHandler)
        handler.control.stop(400.0)
        assert handler.check(str(tmp_path))
        handler.correct(str(tmp_path))
        assert "LABORT" in (tmp_path / "STOPCAR").read_text()
