"""Sections of the generator: conditions, networks, diffusion, training, sampling."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hpcgen.config.base import Count, Positive, Section


class ConditionsConfig(Section):
    """What samples can be asked for; the model learns to generate with and without each of these."""

    elements: bool = Field(True, description="the set of elements")
    n_atoms: bool = Field(True, description="the number of atoms in the cell")
    scalars: list[str] = Field([], description="columns of the data source that hold numbers, such as `band_gap`")
    categories: list[str] = Field(
        [],
        description="columns that hold one of several words or numbers, such as `spacegroup.number`; `space_group` and "
        "`crystal_system` are computed where the source has no such column",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the data source."""
        return (*self.scalars, *self.categories)

    @model_validator(mode="after")
    def _each_name_once(self) -> ConditionsConfig:
        names = ["elements", "n_atoms", "formula", "lattice", *self.columns]
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(doubled)}: named twice, or a name with a meaning of its own")
        return self


class ModelConfig(Section):
    """The network."""

    stages: Literal["factorised", "joint"] = Field(
        "factorised",
        description="`factorised`: composition, then lattice, then descriptor, a model each; `joint`: the paper's one "
        "vector of everything",
    )
    composition_width: Count = Field(128, description="hidden units of the model of compositions")
    composition_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of them that are dropped in training"
    )
    lattice: Literal["autoregressive", "diffusion"] = Field(
        "autoregressive",
        description="how cells are generated: as tokens one after the other, sharp where real cells crowd, or by "
        "diffusion of six numbers",
    )
    lattice_width: Count = Field(256, description="hidden units of the lattice's network, a residual MLP")
    lattice_blocks: Count = Field(3, description="residual blocks of the lattice's network")
    lattice_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of them that are dropped in training, if it is autoregressive"
    )
    name: Literal["resmlp", "unet1d", "unet2d", "transformer"] = Field(
        "resmlp",
        description="for vectors `resmlp`, a residual MLP, better on any budget that was measured, or `unet1d`, the "
        "paper's; for point clouds `transformer`, or `unet2d`, the paper's",
    )
    width: Count = Field(
        256,
        description="hidden units of `resmlp` and `transformer`; channels of a U-Net's first stage (the papers': 64)",
    )
    multipliers: list[Count] = Field([1, 2], description="channels of each stage of a U-Net, times width")
    resnet_blocks: Count = Field(
        3, description="blocks of `resmlp` and `transformer`; ResNet blocks per stage of a U-Net (the papers': 2)"
    )
    attention_heads: Count = Field(4, description="heads of the attention")
    attention_dim: Count = Field(256, description="width of the U-Nets' attention, all heads together")
    patch: Count = Field(
        1,
        description="neighbouring dimensions, or points of a cloud, folded into the channels of one position; 1: the "
        "paper's",
    )


class DiffusionConfig(Section):
    """Noise schedule and objective."""

    steps: Count = Field(1000, description="noise steps of the forward process")
    schedule: Literal["cosine", "linear"] = Field("cosine", description="noise schedule")
    objective: Literal["noise", "x0", "v"] = Field("v", description="what the network predicts")
    weighting: Literal["plain", "min-snr"] = Field(
        "plain", description="weight of noise levels in the loss; `min-snr`: arXiv 2303.09556"
    )
    loss: Literal["l2", "l1"] = Field(
        "l2", description="of the prediction: squared error, or absolute as for the paper's point clouds"
    )
    unconditional: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of the rows trained without any condition, for classifier-free guidance"
    )

    @model_validator(mode="after")
    def _weights_are_of_squares(self) -> DiffusionConfig:
        if self.loss == "l1" and self.weighting != "plain":
            raise ValueError(f"weighting {self.weighting} weights squared errors, and loss is l1")
        return self


class PartTraining(Section):
    """What is other for one part of a generator; None: as for all."""

    steps: Count | None = Field(None, description="optimiser steps")
    batch: Count | None = Field(None, description="global batch")
    learning_rate: Positive | None = Field(None, description="peak of the schedule")
    select: Literal["last", "best"] | None = Field(None, description="averaged weights that sample")


class TrainConfig(Section):
    """The training loop."""

    family: str = Field("representation", description="generator family")
    checkpoint: str | None = Field(
        None,
        description="a finished checkpoint.pt of another run to sample from, instead of training; network, diffusion, "
        "descriptor and conditions are then its own",
    )
    steps: Count = Field(4000, description="optimiser steps")
    batch: Count = Field(64, description="global batch, whatever the number of processes")
    learning_rate: Positive = Field(1e-3, description="peak of the schedule")
    warmup: Annotated[int, Field(ge=0)] = Field(100, description="steps of linear warm-up, before the cosine decay")
    grad_clip: Positive = Field(1.0, description="largest norm of the gradient")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="decay of the averaged weights, which are the ones that sample"
    )
    validate_every: Count = Field(500, description="steps between two lines of train.csv")
    score_every: Annotated[int, Field(ge=0)] = Field(
        5, description="lines of train.csv between two samples that are drawn, decoded and scored; 0: never"
    )
    checkpoint_every: Count = Field(1000, description="steps between two checkpoints")
    keep: Count = Field(2, description="last checkpoints that stay until the next one is written, beside the best")
    select: Literal["auto", "last", "best"] = Field(
        "auto",
        description="averaged weights that sample: after the last step, or with the lowest validation loss; `auto`: "
        "`best` for the composition, which is soon known by heart, `last` for all else",
    )
    parts: dict[str, PartTraining] = Field(
        {}, description="steps, batch, learning_rate and select of single parts, as `{composition: {steps: 1000}}`"
    )
    processes: Count = Field(1, description="DDP processes that `hpcgen run` starts on this node")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU if there is one")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the network's products; `auto`: bf16 on a GPU that has it, else fp32"
    )
    compile: bool = Field(False, description="compile the network by torch.compile, on a GPU into CUDA graphs")

    def of(self, part: str) -> TrainConfig:
        """The settings for one part."""
        other = self.parts.get(part, PartTraining()).model_dump(exclude_none=True)
        return self.model_copy(update=other)


class SampleConfig(Section):
    """Sampling."""

    n: Count = Field(64, description="samples to draw")
    sampler: Literal["ddpm", "ddim", "dpm++"] = Field(
        "dpm++", description="`ddpm` is the paper's; `dpm++`: a multistep solver, arXiv 2211.01095"
    )
    steps: Count = Field(20, description="denoising steps of `ddim` and `dpm++`; `ddpm` takes all steps of the model")
    conditions: dict[str, Any] = Field(
        {},
        description="what is asked for: `formula`, `elements`, `n_atoms`, `lattice`, or columns that the model was "
        "trained with (section `conditions`), as `{elements: [Sr, Ti, O], band_gap: 2.0}`; of point clouds also "
        "`among`: elements within which the sets of the training data are drawn",
    )
    attempts: Count = Field(
        1,
        description="cells and descriptors drawn for each composition; reconstruction looks at one after the other "
        "until `reconstruct.accept` is met, and keeps the crystal that comes nearest to what was drawn (representation "
        "family)",
    )
    guidance: Annotated[float, Field(ge=0)] = Field(
        0.0, description="w of classifier-free guidance: how far samples are led towards what is asked for"
    )
    micro_batch: Count = Field(64, description="fixed, padded: a sample never depends on its neighbours")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto` takes a GPU if there is one")
