"""`docs/hdf5.md`, written from the schemas, so that it cannot drift."""

from __future__ import annotations

from hpcgen.store.schema import STAGES, Schema, describe, schemas
from hpcgen.store.table import FAILURE_COLUMNS

_INTRODUCTION = """\
# The HDF5 files

Every stage writes one HDF5 file into the run folder. This page is generated from the record types that the code
works with (`python docs/generate.py`).

All files are laid out alike: columns of equal length, crystals as ragged arrays, no compression, no pickles.
They are written under a temporary name and renamed when complete, so a file that exists is whole.
`hpcgen inspect FILE` prints what one holds, `hpcgen inspect --verify FILE` compares all records with their checksums.

```
/                attributes, see below
/id              (M,) ids; an id depends on the configuration, the stage and the index only
/lattice         (M, 3, 3) lattice vectors as rows, angstrom          } files whose records
/atoms/offset    (M+1,) crystal i owns atoms offset[i]:offset[i+1]    } have a crystal
/atoms/number    (N,) atomic numbers                                  }
/atoms/frac      (N, 3) fractional coordinates                        }
/steps/offset    (M+1,) record i owns steps offset[i]:offset[i+1]; files whose records have columns per step
/table/<column>  (M,) one dataset per scalar
/failures/*      (F,) the items that did not get through: {failures}
/crc32           (M,) checksum of each record, volatile columns left out
```

M is the number of records, N the number of atoms of all of them, S that of all steps. Every dataset has an attribute
`description` and, if it has a unit, `unit`. *Volatile* columns (times) are not part of a record's identity: two runs
of the same configuration agree in everything else, and then have the same `content_digest`.

## Reading a file

With h5py:

```python
{h5py}
```

The scalars in pandas:

```python
{pandas}
```

As typed records, with checks of schema, version and counts:

```python
from hpcgen import store
with store.open("candidates.h5") as f:
    first, residuals, failures = f[0], f.column("residual"), f.failures
```

## Root attributes

| attribute | meaning |
|---|---|
| `schema`, `schema_version`, `record_type` | what it holds; newer versions are refused, older ones read or refused |
| `count` | number of records |
| `content_digest` | digest of everything but volatile columns and attributes |
| `hpcgen_version`, `git`, `packages` | what wrote it (`packages` as JSON) |
| `created_utc`, `host` | when and where (`host` as JSON) |
| `config`, `config_digest`, `seed` | the whole configuration as YAML, its digest, its seed |
| `inputs` | content digest of each input file, as JSON |
| `balance` | what entered the stage, what left it and the failures by kind, as JSON |
"""


def hdf5_markdown() -> str:
    """The page: the layout, how to read it, and a table of columns for each schema."""
    text = _INTRODUCTION
    for name, value in (
        ("failures", ", ".join(FAILURE_COLUMNS)),
        ("h5py", "\n".join(h5py_lines("candidates.h5", crystals=True))),
        ("pandas", pandas_line("candidates.h5")),
    ):
        text = text.replace(f"{{{name}}}", value)
    return text + "".join(f"\n{_section(schema)}" for schema in schemas() if _is_ours(schema))


def h5py_lines(file: str, crystals: bool) -> list[str]:
    """Python that reads ids, scalars and, if there are any, the first crystal of a file."""
    lines = ["import h5py", f'f = h5py.File("{file}")', 'ids, table = f["id"].asstr()[:], f["table"]']
    if crystals:
        lines += [
            'i, j = f["atoms/offset"][0:2]  # crystal 0',
            'lattice, frac, numbers = f["lattice"][0], f["atoms/frac"][i:j], f["atoms/number"][i:j]',
        ]
    return lines


def pandas_line(file: str) -> str:
    """Python that makes a data frame of the scalars."""
    return (
        f'import h5py, pandas; t = h5py.File("{file}")["table"]\n'
        'df = pandas.DataFrame({k: d[:] if d.dtype.kind not in "OS" else d.asstr()[:] for k, d in t.items()})'
    )


def _is_ours(schema: Schema) -> bool:
    """Whether hpcgen itself defines it: the page must not depend on which other families are installed."""
    return schema.record_type.__module__.startswith("hpcgen.")


def _section(schema: Schema) -> str:
    stage, _ = STAGES.get(schema.name, ("", ""))
    about = (schema.record_type.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    written = f" Written by the stage `{stage}`." if stage else ""
    lines = [
        f"## `{schema.name}`: {schema.record_type.__name__}",
        "",
        f"Version {schema.version}. {' '.join(about.split())}{written}",
        "",
        "| dataset | type | shape | unit | description |",
        "|---|---|---|---|---|",
    ]
    for path, dtype, shape, unit, doc in describe(schema):
        lines.append(f"| `{path}` | {dtype} | {shape} | {unit} | {doc.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
