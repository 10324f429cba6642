"""Stage data: the configured source -> dataset.h5 (structures that are usable, with their split, and failures)."""

from __future__ import annotations

import json
import logging
from collections import Counter

from hpcgen import data, provenance, store
from hpcgen.crystal import Crystal
from hpcgen.data.split import SPLITS
from hpcgen.flow import Entry, make_id
from hpcgen.stages.context import Balance, Context

log = logging.getLogger("hpcgen")


def run(ctx: Context) -> Balance:
    """Read, reduce, validate and split the structures of `data.source`, and write dataset.h5.

    An entry's id comes from its place among all items of the source, usable or not. Root attributes beside the
    balance: `elements` (symbols by atomic number), `max_atoms`, `max_elements` (the largest that occur), `source`.
    Entries carry what is known of them in the columns of the section `conditions`.

    Raises:
        DataError: if the source is missing, empty, of no known layout, or too much of it is unusable; or if it lacks
            a column of `conditions`.
        ConfigError: if the configuration names something that is no element.
        StoreError: if dataset.h5 cannot be written.
    """
    from ase.data import chemical_symbols

    config = ctx.config
    read = data.load(config.data, config.conditions, config_dir=ctx.config_dir, processes=data.available_cores())
    splits = data.splits(
        read.labels,
        config.seed,
        config.data.validation_fraction,
        config.data.test_fraction,
        numbers=read.indices,
        test_every=config.data.test_every,
    )
    run_digest = config.identity("data")
    entries = [
        Entry(make_id(run_digest, "data", index), crystal, label, split, json.dumps(known, sort_keys=True))
        for index, label, crystal, split, known in zip(
            read.indices, read.labels, read.crystals, splits, read.properties, strict=True
        )
    ]
    balance = Balance.of("data", len(entries) + len(read.failures), len(entries), read.failures)
    numbers = sorted({int(z) for crystal in read.crystals for z in crystal.numbers})
    attrs = {
        "balance": balance.to_json(),
        "source": config.data.source,
        "elements": [chemical_symbols[z] for z in numbers],
        "max_atoms": max(len(crystal) for crystal in read.crystals),
        "max_elements": max(len(crystal.elements) for crystal in read.crystals),
    }
    header = provenance.header(config, read.inputs)
    store.write(ctx.path("dataset.h5"), Entry, entries, failures=read.failures, header=header, attrs=attrs)
    shares = Counter(splits)
    counted = ", ".join(f"{shares[s]} {s}" for s in SPLITS)
    log.info("data: %s of %d elements; %s", counted, len(numbers), config.data.source)
    for name in config.conditions.columns:
        log.info("data: `%s` is known of %d entries", name, sum(name in known for known in read.properties))
    return balance


def training_structures(ctx: Context) -> list[tuple[str, Crystal]]:
    """(name, crystal) of the training split in dataset.h5; the name says where it came from and its id.

    Raises:
        StoreError: if dataset.h5 is missing, damaged or of another schema.
    """
    with store.open(ctx.path("dataset.h5"), Entry) as f:
        crystals = f.crystals
        table = zip(f.ids, f.column("source"), f.column("split"), strict=True)
        return [(f"{source} ({i})", crystals[k]) for k, (i, source, split) in enumerate(table) if split == "train"]
