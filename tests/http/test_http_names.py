"""The names of `asyncworkers.http`: each is in the reference, and says what it is."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import asyncworkers.http
from asyncworkers import Supervisor
from asyncworkers.http import EventStreams, JobsApp, Token

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "http.md"


def test_every_name_is_in_the_reference() -> None:
    """What can be imported and what the page explains are the same, but for types of arguments."""
    sections = re.findall(r"^::: (\S+)", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name.rpartition(".")[2] for name in sections}
    assert named - {"Auth", "Answer"} == set(asyncworkers.http.__all__)
    assert [name for name in asyncworkers.http.__all__ if not _is_documented(name)] == []


def _is_documented(name: str) -> bool:
    one = getattr(asyncworkers.http, name)
    members = [] if not inspect.isclass(one) else vars(one).items()
    public = [m for key, m in members if not key.startswith("_") and inspect.isfunction(m)]
    return all(inspect.getdoc(each) for each in (one, *public))


async def nothing() -> None:
    """Do nothing."""


def test_what_objects_say_of_themselves() -> None:
    """A repr names what matters, and no secret."""
    token = Token()
    assert repr(token) == "<Token>"
    assert repr(JobsApp(Supervisor(), {"nothing": nothing}, auth=token)) == "<JobsApp of nothing>"
    assert "open" in repr(EventStreams())


@pytest.mark.parametrize("missing", ["starlette"])
def test_a_missing_library_is_named_with_its_extra(missing: str) -> None:
    """Without the extra the import says what to install; the package itself needs none of it."""
    script = f"""
import sys
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == {missing!r} else find(name, *more)
import asyncworkers
assert not [name for name in sys.modules if name.startswith({missing!r})]
import asyncworkers.http
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "pip install 'asyncworkers[web]'" in ended.stderr
    assert ended.returncode == 1
