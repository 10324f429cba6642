"""Work spread over processes, and what a batch job's log says of it."""

import logging

import pytest

from hpcgen import progress
from hpcgen.evaluate import parallel


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_the_log_can_be_followed(processes, monkeypatch, caplog):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    items = list(range(-20, 20))
    with caplog.at_level(logging.INFO, logger="hpcgen"):
        assert list(parallel.mapped(abs, items, processes=processes, label="sizes", unit=" rows")) == list(
            map(abs, items)
        )
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0].startswith("sizes: 1/40 rows, ")
    assert lines[-1].startswith("sizes: 39/40 rows, ")
    assert all(line.endswith("left") for line in lines)


def test_short_work_says_nothing(caplog):
    with caplog.at_level(logging.INFO, logger="hpcgen"):
        assert list(parallel.mapped(abs, [-1, 2], processes=1, label="sizes")) == [1, 2]
    assert not caplog.records


def test_work_of_unknown_length_tells_how_much_is_done(monkeypatch, caplog):
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    with caplog.at_level(logging.INFO, logger="hpcgen"):
        assert list(progress.shown(iter("abc"), "data")) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [f"data: {n} structures in 0.0 s" for n in (1, 2, 3)]
