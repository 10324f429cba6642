"""Sections of the relaxation by VASP: which crystals, with which settings, and how the jobs run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpcgen.config.base import Count, Positive, Section

SCALES = {"mp": "vasp-pbe-mp2020", "mp24": "vasp-r2scan-mp24", "mpscan": "vasp-r2scan-mpscan"}
"""Energy scale of each set of inputs."""

DECISIVE = frozenset(
    [
        "AEXX",
        "ENAUG",
        "ENCUT",
        "GGA",
        "HFSCREEN",
        "ISPIN",
        "IVDW",
        "LASPH",
        "LDAU",
        "LDAUJ",
        "LDAUL",
        "LDAUTYPE",
        "LDAUU",
        "LHFCALC",
        "LNONCOLLINEAR",
        "LSORBIT",
        "LUSE_VDW",
        "METAGGA",
        "NELECT",
        "NUPDOWN",
        "PREC",
    ]
)
"""INCAR tags by which energies stop being comparable with those of the set."""


class SelectConfig(Section):
    """Which crystals go on to VASP after the first hull; the dropped keep their reason in selected.h5."""

    max_e_hull: float = Field(0.1, description="eV/atom above the first hull at most")
    require_novel: bool = Field(False, description="drop what matches the training data after relaxation")
    require_converged: bool = Field(False, description="drop what the ML potential did not relax completely")
    per_system: Count | None = Field(None, description="structures of one chemical system at most; null: any number")
    max_structures: Count | None = Field(None, description="structures at most; null: any number")
    node_hours: Positive | None = Field(None, description="node-hours at most, by the estimate below; null: any number")
    hours_16_atoms: Positive = Field(
        1.0, description="node-hours that 16 atoms are expected to take; others as the square of their number"
    )


class VaspConfig(Section):
    """Relaxation by VASP under custodian; without this section the chain ends after the first hull."""

    command: list[str] = Field(
        min_length=1, description="words that start VASP, such as [srun, -N1, --exact, vasp_std]; {slot}: its number"
    )
    gamma_command: list[str] | None = Field(None, description="the same for the Gamma point alone, such as vasp_gam")
    input_set: Literal["mp", "mp24", "mpscan"] = Field(
        "mp", description="`mp`: MPRelaxSet and MPStaticSet (PBE, PBE+U); `mp24`, `mpscan`: those of r2SCAN"
    )
    relaxations: Annotated[int, Field(ge=1, le=4)] = Field(2, description="relaxations before the static run")
    incar: dict[str, Any] = Field({}, description="INCAR tags that replace those of the set")
    kpoints: dict[str, Any] = Field(
        {}, description="pymatgen's user_kpoints_settings, such as {reciprocal_density: 64}"
    )
    potcar: dict[str, str] = Field({}, description="POTCAR by element, such as {W: W_sv}")
    functional: str | None = Field(None, description="family of POTCARs, such as PBE_54; null: that of the set")
    potcars: bool = Field(
        True, description="write POTCAR files (needs PMG_VASP_PSP_DIR); false: POTCAR.spec only, the command adds them"
    )
    scale: str | None = Field(
        None, description="name of the energy scale, needed where settings are not those of the set; null: the set's"
    )
    max_volume_change: Positive = Field(
        3.0, description="ratio to the ML potential's cell beyond which it is a failure"
    )
    max_corrections: Count = Field(10, description="corrections by custodian per attempt")
    poll: Positive = Field(10.0, description="seconds between looks at a running VASP")
    hang: Positive = Field(21600.0, description="seconds without output after which a VASP counts as hung")
    compress: bool = Field(True, description="gzip the outputs of a finished attempt")
    drop: list[str] = Field(
        ["WAVECAR", "CHGCAR", "CHG", "AECCAR*", "LOCPOT", "ELFCAR", "PROCAR", "DOSCAR", "vaspwave.h5", "vaspout.h5"],
        description="files of a finished attempt that are deleted, as patterns",
    )

    @model_validator(mode="after")
    def _scale_says_what_is_computed(self) -> VaspConfig:
        tags = sorted(DECISIVE & {key.upper() for key in self.incar})
        changed = [f"vasp.incar.{tag}" for tag in tags]
        changed += [f"vasp.potcar.{element}" for element in sorted(self.potcar)]
        changed += ["vasp.functional"] if self.functional else []
        if changed and self.scale is None:
            raise ValueError(
                f"{', '.join(changed)} would make energies that may not be compared with {SCALES[self.input_set]}; "
                "leave it out, or name the scale of your own energies (vasp.scale), for which you need a reference"
            )
        if self.scale in SCALES.values() and (changed or self.scale != SCALES[self.input_set]):
            raise ValueError(
                f"vasp.scale: {self.scale} is the scale of a set with unchanged settings; take another name"
            )
        return self

    def decisive(self) -> dict[str, Any]:
        """All that can change a result, as plain values: not how VASP is started, watched and tidied up after."""
        return self.model_dump(mode="json", exclude={"command", "gamma_command", "poll", "hang", "compress", "drop"})

    @property
    def energy_scale(self) -> str:
        """The scale of the energies that these settings give, before any correction."""
        return self.scale or SCALES[self.input_set]


class SlotsConfig(Section):
    """How the jobs of VASP share the machine; nothing here changes a result."""

    n: Count = Field(1, description="VASP jobs at a time")
    attempts: Count = Field(
        3, description="attempts at a structure before it is a failure; wall-time stops do not count"
    )
    walltime: Positive | None = Field(None, description="seconds that there are; null: what Slurm says, else no limit")
    reserve: Positive = Field(300.0, description="seconds before the end at which running jobs are told to stop")
    shortest: Annotated[float, Field(ge=0)] = Field(
        600.0, description="no structure is begun with less than so many seconds before the reserve"
    )
    grace: Positive = Field(60.0, description="seconds that jobs have after a stop signal")
    min_free: Annotated[float, Field(ge=0)] = Field(1.0, description="GB that must be free for another job to begin")
    log_interval: Positive = Field(30.0, description="seconds between progress lines")
    wrapper: list[str] = Field(
        [],
        description="words before the process of a slot, such as [srun, -N1, --overlap], to have it off the head node",
    )
