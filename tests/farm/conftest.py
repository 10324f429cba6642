from __future__ import annotations

import pytest
from farm_runs import TASKS, run

from hpcgen import store
from hpcgen.flow import Candidate, make_id


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content digest of the run without MPI, after looking at it."""
    folder = tmp_path_factory.mktemp("alone")
    code, text = run(folder, 0)
    assert code == 0, text
    with store.open(folder / "out.h5", Candidate) as f:
        f.verify()
        failed = [i for i in range(TASKS) if i % 10 == 3]
        assert f.ids == [make_id("farm", "toy", i) for i in range(TASKS) if i not in failed]
        assert [x.id for x in f.failures] == [make_id("farm", "sample", i) for i in failed]
        return f.content_digest
