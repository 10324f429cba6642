"""What a potential says beyond energies: does a crystal hold together when it is warm, and do its ions move?

md          molecular dynamics at one temperature: a `Trajectory`
framework   does the framework stay a crystal
paths       is there a way for an ion through the framework at rest: the cheap filter before the molecular dynamics
transport   diffusivity with an error bar, Arrhenius, conductivity
phonons     are there imaginary modes
"""

from hpcgen.dynamics.framework import Framework, framework
from hpcgen.dynamics.md import Evaluated, Potential, SimulationError, Trajectory, simulate, supercell
from hpcgen.dynamics.paths import bottleneck, ionic_radii
from hpcgen.dynamics.transport import Arrhenius, Diffusion, arrhenius, check_installed, diffusion, nernst_einstein

__all__ = [
    "Arrhenius",
    "Diffusion",
    "Evaluated",
    "Framework",
    "Potential",
    "SimulationError",
    "Trajectory",
    "arrhenius",
    "bottleneck",
    "check_installed",
    "diffusion",
    "framework",
    "ionic_radii",
    "nernst_einstein",
    "simulate",
    "supercell",
]
