"""Stage train: dataset.h5 -> checkpoint.pt, train.csv.

Until training has come to its last step its state lies in the folder checkpoints/: checkpoint.pt is there only when
done.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpcgen.config import resolve_path
from hpcgen.errors import EXIT_REQUEUE, CheckpointError, DataError, Failure
from hpcgen.stages.context import Balance, Context

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from hpcgen.crystal import Crystal
    from hpcgen.family.draw import Trained
    from hpcgen.farm.signals import StopSignals
    from hpcgen.train.checkpoint import TrainedPart
    from hpcgen.train.ddp import Processes
    from hpcgen.train.keeper import Keeper
    from hpcgen.train.loop import Score
    from hpcgen.train.part import Part, Rows
    from hpcgen.train.trainer import Trainer

log = logging.getLogger("hpcgen")

CHECKPOINTS, EVENTS, TABLE = "checkpoints", "tensorboard", "train.csv"
DONE = "checkpoint.pt"
STAGE = "train"


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data set as the networks see it, and the fitted family.

    Attributes:
        family: fitted to the training split.
        train: the training rows of each part, by its name.
        validation: the validation rows likewise.
        real: crystals of the validation split, or of the training split if that is empty, to compare samples with.
    """

    family: Any
    train: dict[str, Rows]
    validation: dict[str, Rows]
    real: list[Crystal]
    balance: Balance
    failures: list[Failure]
    dataset_digest: str


def run(ctx: Context) -> Balance | None:
    """Fit the family to the training split, train its parts one after the other, and write checkpoint.pt.

    Under torchrun or srun every process calls it; process 0 reads, encodes, writes and returns the balance, the
    others return None. Entries of the test split are counted as `held-out-test`, those that cannot be encoded as
    `not-encoded`. A finished checkpoint of the same configuration and data is left as it is; an interrupted training
    goes on from its newest checkpoint.

    Raises:
        StoreError: if dataset.h5 is missing or damaged, or something cannot be written.
        DataError: if no entry of the training split can be encoded.
        CheckpointError: if there are checkpoints of another configuration, family or data set.
        TrainingError: if a gradient is not a finite number, or a batch does not fit into memory.
        LaunchError: if the device or the other processes are not there.
        SystemExit: with the code for a requeue, when stopped by a signal with everything saved.
    """
    from hpcgen.family import get_family
    from hpcgen.family.draw import Trained
    from hpcgen.farm.signals import StopSignals
    from hpcgen.train import ddp

    with StopSignals() as signals, ddp.processes(ctx.config.train.device) as procs:
        prepared: Prepared | None = None
        done: Balance | None = None

        def begin() -> dict[str, Any] | None:
            nonlocal prepared, done
            done = _finished(ctx) or _given(ctx)
            if done is not None:
                return None
            prepared = prepare(ctx)
            return {"state": prepared.family.state(), "train": prepared.train, "validation": prepared.validation}

        shared = procs.first_does(begin)
        if shared is None:
            return done
        family = get_family(ctx.config.train.family).from_state(shared["state"])
        trained: dict[str, TrainedPart] = {}
        models: dict[str, Trained] = {}
        for part in family.parts(ctx.config):
            keeper = _keeper(ctx, part, prepared) if prepared else None
            rows, held_out = (shared[split][part.name] for split in ("train", "validation"))
            score = _scores(ctx, prepared, part, rows, models, procs) if prepared else None
            trainer = _train(ctx, part, rows, held_out, procs, keeper, score, signals)
            if trainer.step < trainer.settings.steps:
                if procs.first:
                    log.warning("train: stopped by a signal after step %d, everything done is saved", trainer.step)
                raise SystemExit(EXIT_REQUEUE)
            done_part = trained[part.name] = _trained(trainer, rows, keeper)
            trainer.average.load_state_dict(done_part.ema)
            models[part.name] = Trained(part, trainer.average, done_part.lower, done_part.upper)
    if prepared:
        _save(ctx, prepared, trained)
        return prepared.balance
    return None


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
    family = get_family(ctx.config.train.family).fit(
        [e.crystal for e in split["train"]], ctx.config, [e.values for e in split["train"]]
    )
    encoded: dict[str, dict[str, Rows]] = {}
    failures, used = [], 0
    for name in ("train", "validation"):
        bad = family.misfits([e.crystal for e in split[name]])
        failures += [Failure(split[name][i].id, "train", "not-encoded", reason) for i, reason in bad]
        used += len(split[name]) - len(bad)
        if name == "train" and not used:
            raise DataError(f"none of the {len(split[name])} training structures can be encoded: {failures[0].message}")
        encoded[name] = family.training_tensors(split[name], ctx.config)
    kinds = ["held-out-test"] * len(split["test"]) + [f.kind for f in failures]
    balance = Balance.of(STAGE, len(entries), used, kinds)
    shapes = ", ".join(f"{name} {tuple(rows['x'].shape[1:])}" for name, rows in encoded["train"].items())
    log.info("%s; arrays of shape %s", balance, shapes)
    real = [e.crystal for e in split["validation"] or split["train"]]
    return Prepared(family, encoded["train"], encoded["validation"], real, balance, failures, digest)


def _finished(ctx: Context) -> Balance | None:
    """The balance of a finished checkpoint of this configuration and data; None if there is still work.

    Raises:
        CheckpointError: if the checkpoint is another run's.
    """
    from hpcgen import store
    from hpcgen.train import checkpoint

    path: Path = ctx.path(DONE)
    if not path.exists():
        return None
    found = checkpoint.load(
        path,
        family=ctx.config.train.family,
        config_digest=ctx.config.digest(),
        dataset_digest=store.content_digest(ctx.path("dataset.h5")),
    )
    log.info("train: %s has all steps of %s; nothing to do", DONE, ", ".join(found.parts))
    return Balance.from_json(found.balance)


def _given(ctx: Context) -> Balance | None:
    """Take over the checkpoint that the configuration names, with a balance that says that no entry was trained on.

    Raises:
        CheckpointError: if it is missing, damaged, of another family, or unfinished.
    """
    from hpcgen import store
    from hpcgen.flow import Entry
    from hpcgen.train import checkpoint

    named = ctx.config.train.checkpoint
    if named is None:
        return None
    source = resolve_path(named, ctx.config_dir)
    found = checkpoint.load(source, family=ctx.config.train.family)
    if not found.finished:
        raise CheckpointError(f"the training of {source} was not finished", remedy="finish it, or name another one")
    path = ctx.path("dataset.h5")
    with store.open(path, Entry) as file:
        entries = len(file)
    balance = Balance.of(STAGE, entries, 0, ["trained-elsewhere"] * entries)
    mine = replace(
        found,
        config_digest=ctx.config.digest(),
        dataset_digest=store.content_digest(path),
        balance=balance.to_json(),
        failures=[],
    )
    checkpoint.save(ctx.path(DONE), mine)
    log.info("train: %s is sampled from, nothing is trained", source)
    return balance


def _keeper(ctx: Context, part: Part, prepared: Prepared) -> Keeper:
    from hpcgen.train.checkpoint import Origin
    from hpcgen.train.keeper import Keeper

    origin = Origin(prepared.family.name, ctx.config.digest(), prepared.dataset_digest)
    return Keeper(ctx.path(CHECKPOINTS) / part.name, origin, ctx.config.train.keep)


def _scores(
    ctx: Context, prepared: Prepared, part: Part, rows: Rows, before: dict[str, Trained], procs: Processes
) -> Score:
    """What scores a part while it is trained, with the parts before it as they sample."""
    from hpcgen.family.draw import Trained

    lower, upper = rows["x"].aminmax(dim=0)

    def score(step: int, network: nn.Module) -> dict[str, float]:
        models = {**before, part.name: Trained(part, network, lower, upper)}
        return prepared.family.score(models, part.name, prepared.real, ctx.config, procs.device)

    return score


def _train(
    ctx: Context,
    part: Part,
    rows: Rows,
    held_out: Rows,
    procs: Processes,
    keeper: Keeper | None,
    score: Score | None,
    signals: StopSignals,
) -> Trainer:
    from hpcgen.farm import lock
    from hpcgen.train.history import History
    from hpcgen.train.loop import train

    def stop() -> bool:
        lock.check()  # nothing may be written any more where another run has taken the folder over
        return signals.raised

    config = ctx.config.model_copy(update={"train": ctx.config.train.of(part.name)})
    history = History(ctx.path(TABLE), part.name, ctx.path(EVENTS)) if procs.first else None
    return train(part, config, rows, held_out, procs, keeper=keeper, history=history, score=score, stop=stop)


def _trained(trainer: Trainer, rows: Rows, keeper: Keeper | None) -> TrainedPart:
    """What is left of a finished training for sampling."""
    from hpcgen.train.checkpoint import TrainedPart

    select = trainer.settings.select if trainer.settings.select != "auto" else trainer.part.select
    best = keeper.best() if keeper and select == "best" else None
    lower, upper = rows["x"].aminmax(dim=0)
    return TrainedPart(
        shape=list(rows["x"].shape[1:]),
        step=trainer.step,
        steps=trainer.settings.steps,
        weights=trainer.network.state_dict(),
        ema=best["ema"] if best else trainer.average.state_dict(),
        ema_step=best["step"] if best else trainer.step,
        lower=lower,
        upper=upper,
    )


def _save(ctx: Context, prepared: Prepared, trained: dict[str, TrainedPart]) -> None:
    from hpcgen.train import checkpoint

    content = checkpoint.Checkpoint(
        family=prepared.family.name,
        family_state=prepared.family.state(),
        config=ctx.config.text(),
        config_digest=ctx.config.digest(),
        dataset_digest=prepared.dataset_digest,
        parts=trained,
        balance=prepared.balance.to_json(),
        failures=[[f.id, f.stage, f.kind, f.message] for f in prepared.failures],
    )
    checkpoint.save(ctx.path(DONE), content)
