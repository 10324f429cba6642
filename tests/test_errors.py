"""Exit codes are distinct, documented, and a message always carries its remedy."""

from __future__ import annotations

from pathlib import Path

from hpcgen import errors

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_every_error_has_its_own_exit_code() -> None:
    kinds = errors.HpcgenError.__subclasses__()
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= set(errors.EXIT_CODES)
    assert errors.EXIT_INTERNAL not in codes


def test_the_message_has_three_parts() -> None:
    text = str(errors.DataError("x.csv has no column `cif`", expected="a column `cif`", remedy="rename it"))
    assert text.splitlines() == ["x.csv has no column `cif`", "  expected: a column `cif`", "  remedy:   rename it"]


def test_the_table_of_exit_codes_is_complete() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for code, meaning in errors.EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text
