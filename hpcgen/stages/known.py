"""The crystals that novelty is judged against: the training split, and the files of `screen.known`."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from hpcgen.config import DataConfig
from hpcgen.crystal import Crystal
from hpcgen.data.reader import available_cores, load
from hpcgen.stages.context import Context
from hpcgen.stages.data import training_structures

log = logging.getLogger("hpcgen")

_NO_LIMIT = {"max_atoms": 500, "max_elements": 20, "elements": None}


@dataclass(frozen=True, eq=False)
class Known:
    """Known crystals.

    Attributes:
        crystals: all of them.
        inputs: content digest of each further file, by its name.
        text: what they are, for the report.
    """

    crystals: list[Crystal]
    inputs: dict[str, str]
    text: str


def known_structures(ctx: Context) -> Known:
    """The training structures and those of `screen.known`.

    Raises:
        StoreError: if dataset.h5 is missing or damaged.
        DataError: if a file of `screen.known` is missing, of no known layout, or mostly unusable.
    """
    crystals = [crystal for _, crystal in training_structures(ctx)]
    inputs: dict[str, str] = {}
    texts = [f"{len(crystals)} training structures"]
    for source in ctx.config.screen.known:
        config = DataConfig.model_validate(
            {"source": source, "max_failures": ctx.config.data.max_failures, **_NO_LIMIT}
        )
        found = load(config, config_dir=ctx.config_dir, processes=available_cores())
        crystals += found.crystals
        inputs |= found.inputs
        bad = f" ({len(found.failures)} could not be read)" if found.failures else ""
        texts.append(f"{len(found.crystals)} of {', '.join(found.inputs)}{bad}")
        if found.failures:
            first = found.failures[0]
            log.warning(
                "%s: %d structures cannot be read; %s: %s", source, len(found.failures), first.id, first.message
            )
    return Known(crystals, inputs, " and ".join(texts))
