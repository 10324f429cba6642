"""Diffusion on tensors: noise schedules, objectives, what is trained, and samplers. Knows nothing of crystals."""

from hpcgen.diffusion.conditions import ConditionLayout
from hpcgen.diffusion.objective import OBJECTIVES, loss, q_sample
from hpcgen.diffusion.part import DiffusionPart
from hpcgen.diffusion.samplers import ddim, ddpm, denoiser, dpm_solver, guided
from hpcgen.diffusion.schedules import Schedule

__all__ = [
    "OBJECTIVES",
    "ConditionLayout",
    "DiffusionPart",
    "Schedule",
    "ddim",
    "ddpm",
    "denoiser",
    "dpm_solver",
    "guided",
    "loss",
    "q_sample",
]
