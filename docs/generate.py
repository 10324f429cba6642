"""Write the pages that are generated from the code: `python docs/generate.py`.

A test compares them with what this would write, so that they cannot drift.
"""

from __future__ import annotations

from pathlib import Path

from hpcgen import config, errors, pipeline

DOCS = Path(__file__).resolve().parent


def commands(template: str) -> str:
    """docs/commands.md: the stages and the exit codes between their markers."""
    stages = ["| command | reads | writes | runs as | what it does |", "|---|---|---|---|---|"]
    runs_as = {"here": "one process", "farm": "MPI ranks", "ddp": "one or several training processes"}
    stages += [
        f"| `hpcgen {s.name}` | {', '.join(f'`{r}`' for r in s.reads) or 'the data source'} | `{s.writes}` "
        f"| {runs_as[s.launch]} | {s.does} |"
        for s in (*pipeline.STAGES[:-1], *pipeline.DFT, pipeline.STAGES[-1])
    ]
    codes = ["| code | meaning |", "|---|---|"]
    codes += [f"| {code} | {meaning} |" for code, meaning in errors.EXIT_CODES.items()]
    text = _between(template, "stages", stages)
    return _between(text, "exit-codes", codes)


def configuration() -> str:
    """docs/configuration.md: every key with its default and meaning."""
    lines = [
        "# Configuration",
        "",
        "One YAML file per campaign; unknown keys and wrong types are errors. This page is generated from the code",
        "(`python docs/generate.py`). Paths: absolute, relative to the working folder, or `data:NAME` for a file below",
        "`$HPCGEN_DATA`.",
        "",
    ]
    sections: dict[str, list[str]] = {}
    for key, default, description in config.documented_keys():
        row = f"| `{key}` | `{default}` | {description.replace('|', chr(92) + '|')} |"
        sections.setdefault(key.rpartition(".")[0], []).append(row)
    for section, rows in sections.items():
        model = config.section_model(section)
        lines += ["", f"## {section or 'top level'}", "", (model.__doc__ or "").strip().split("\n")[0], ""]
        lines += ["| key | default | meaning |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def hdf5() -> str:
    """docs/hdf5.md: the file formats, from the record types."""
    from hpcgen.store.docs import hdf5_markdown

    return hdf5_markdown()


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    return {
        DOCS / "commands.md": commands((DOCS / "commands.md").read_text(encoding="utf-8")),
        DOCS / "configuration.md": configuration(),
        DOCS / "hdf5.md": hdf5(),
    }


def _between(text: str, marker: str, lines: list[str]) -> str:
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    before, _, rest = text.partition(start)
    _, _, after = rest.partition(end)
    return before + start + "\n" + "\n".join(lines) + "\n" + end + after


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        print(page)
