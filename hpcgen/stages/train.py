"""Stage train: dataset.h5 -> checkpoint.pt, train.csv.

Until training has come to its last step its state lies in checkpoint.partial.pt: checkpoint.pt is there only when done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpcgen.errors import CheckpointError, DataError, Failure, TrainingError
from hpcgen.stages.context import Balance, Context

if TYPE_CHECKING:
    from pathlib import Path

    from hpcgen.train.loop import Weights

log = logging.getLogger("hpcgen")

PARTIAL = "checkpoint.partial.pt"


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data set as the network sees it: (M, *shape) training, (V, *shape) validation, and the fitted family."""

    train: np.ndarray
    validation: np.ndarray
    family: Any
    balance: Balance
    failures: list[Failure]
    dataset_digest: str


def run(ctx: Context) -> Balance | None:
    """Fit the family to the training split, train the network, and write checkpoint.pt and train.csv.

    Under torchrun or srun every process calls it; process 0 reads, encodes, writes and returns the balance, the
    others return None. Entries of the test split are counted as `held-out-test`, those that cannot be encoded as
    `not-encoded`. A finished checkpoint of the same configuration and data is left as it is.

    Raises:
        StoreError: if dataset.h5 is missing or damaged.
        DataError: if no entry of the training split can be encoded.
        CheckpointError: if checkpoint.pt belongs to another configuration or other data.
        TrainingError: if the loss is not a number.
        LaunchError: if the device or the other processes are not there.
    """
    import torch

    from hpcgen.train import ddp, loop

    with ddp.processes(ctx.config.train.device) as procs:
        prepared: Prepared | None = None
        # Process 0 tells the others how many rows come, 0 if there is nothing to do, -1 if it failed.
        header = torch.full((8,), -1, dtype=torch.int64)
        done: Balance | None = None
        try:
            if procs.first:
                done = _finished(ctx)
                if done is not None:
                    header.zero_()
                else:
                    prepared = prepare(ctx)
                    shape = prepared.train.shape[1:]
                    header = torch.tensor([len(prepared.train), len(prepared.validation), len(shape), *shape])
                    header = torch.cat([header, header.new_zeros(8 - len(header))])
        finally:
            header = procs.from_first(header, (8,), torch.int64)
        rows, held, rank = (int(v) for v in header[:3])
        if rows == 0:
            return done
        if rows < 0:
            raise TrainingError("process 0 could not prepare the training data", remedy="read its message")
        shape = tuple(int(v) for v in header[3 : 3 + rank])
        data = procs.from_first(torch.from_numpy(prepared.train) if prepared else None, (rows, *shape))
        validation = procs.from_first(torch.from_numpy(prepared.validation) if prepared else None, (held, *shape))

        def keep(weights: Weights) -> None:
            assert prepared is not None
            _save(ctx, prepared, weights)

        loop.train(ctx.config, data, validation, procs, keep=keep, csv_path=ctx.path("train.csv"))
    return prepared.balance if prepared else None


def prepare(ctx: Context) -> Prepared:
    """Read dataset.h5, fit the family to the training split and encode training and validation.

    Raises:
        StoreError: if dataset.h5 is missing or damaged.
        DataError: if the training split is empty or none of it can be encoded.
    """
    from hpcgen import store
    from hpcgen.family import get_family
    from hpcgen.flow import Entry

    path = ctx.path("dataset.h5")
    with store.open(path, Entry) as file:
        entries: list[Entry] = list(file)
    digest = store.content_digest(path)
    split = {name: [e for e in entries if e.split == name] for name in ("train", "validation", "test")}
    if not split["train"]:
        raise DataError(f"{path} has no entry in the training split", remedy="give more data, or lower the fractions")
    family = get_family(ctx.config.train.family).fit([e.crystal for e in split["train"]], ctx.config)
    encoded, failures = {}, []
    for name in ("train", "validation"):
        x, bad = family.encode([e.crystal for e in split[name]])
        encoded[name] = np.asarray(x, dtype=np.float32).reshape(-1, *family.shape)
        failures += [Failure(split[name][i].id, "train", "not-encoded", reason) for i, reason in bad]
    used = sum(map(len, encoded.values()))
    if not len(encoded["train"]):
        raise DataError(f"none of the {len(split['train'])} training structures can be encoded: {failures[0].message}")
    kinds = ["held-out-test"] * len(split["test"]) + [f.kind for f in failures]
    balance = Balance.of("train", len(entries), used, kinds)
    log.info("%s; vectors of shape %s", balance, family.shape)
    return Prepared(encoded["train"], encoded["validation"], family, balance, failures, digest)


def _finished(ctx: Context) -> Balance | None:
    """The balance of a finished checkpoint of this configuration and data; None if there is still work.

    Raises:
        CheckpointError: if the checkpoint is another run's.
    """
    from hpcgen import store
    from hpcgen.train import checkpoint

    path: Path = ctx.path("checkpoint.pt")
    if not path.exists():
        return None
    found = checkpoint.load(path, family=ctx.config.train.family, config_digest=ctx.config.digest())
    digest = store.content_digest(ctx.path("dataset.h5"))
    if found.dataset_digest != digest:
        raise CheckpointError(
            f"{path} was trained on other data: content digest {found.dataset_digest}",
            expected=f"{digest}, that of dataset.h5",
            remedy="move the checkpoint away, or use another run folder",
        )
    if not found.finished:
        log.warning("train: checkpoint.pt stops at step %d of %d; training starts again", found.step, found.steps)
        return None
    log.info("train: checkpoint.pt has all %d steps; nothing to do", found.steps)
    return Balance.from_json(found.balance)


def _save(ctx: Context, prepared: Prepared, weights: Weights) -> None:
    import torch

    from hpcgen.train import checkpoint

    lower, upper = prepared.train.min(0), prepared.train.max(0)
    content = checkpoint.Checkpoint(
        family=prepared.family.name,
        family_state=prepared.family.state(),
        shape=list(prepared.family.shape),
        config=ctx.config.text(),
        config_digest=ctx.config.digest(),
        dataset_digest=prepared.dataset_digest,
        step=weights.step,
        steps=ctx.config.train.steps,
        weights=weights.model,
        ema=weights.ema,
        lower=torch.from_numpy(lower),
        upper=torch.from_numpy(upper),
        balance=prepared.balance.to_json(),
        failures=[[f.id, f.stage, f.kind, f.message] for f in prepared.failures],
    )
    partial = ctx.path(PARTIAL)
    if not content.finished:
        checkpoint.save(partial, content)
        return
    checkpoint.save(ctx.path("checkpoint.pt"), content)
    partial.unlink(missing_ok=True)
