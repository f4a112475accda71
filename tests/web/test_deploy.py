"""A deploy under load: what was accepted is done, by this release or the next, or named as not done."""

import sys
from pathlib import Path

import pytest
from deploy import deploy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="servers are told by signals"),
]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_deploy_under_load_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str, workers: int
) -> None:
    """SIGTERM in the middle of the requests: the server ends by itself; every stored job that a client
    was told of succeeds, here or in the next release; every job in memory has ended well or is named
    in the report, as those that never end are.
    """
    monkeypatch.chdir(tmp_path)
    found = deploy(tmp_path, loop, workers, jobs=200)
    accepted = found.accepted
    assert len(accepted.durable) > 50
    assert len(accepted.memory) > 50
    assert found.lost == set()
    assert set(accepted.durable.values()) <= set(found.effects)
    assert accepted.memory <= found.drained, found.said
    assert accepted.endless <= found.named, found.said
    assert len(accepted.endless) == 3
