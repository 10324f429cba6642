"""Diffusion on tensors: noise schedules, training objectives and samplers. Knows nothing of crystals."""

from hpcgen.diffusion.objective import OBJECTIVES, loss, q_sample
from hpcgen.diffusion.samplers import ddim, ddpm, denoiser
from hpcgen.diffusion.schedules import Schedule

__all__ = ["OBJECTIVES", "Schedule", "ddim", "ddpm", "denoiser", "loss", "q_sample"]
