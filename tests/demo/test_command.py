"""The command line: what it accepts, what it refuses, and with which words."""

import importlib.util
import subprocess
import sys

import pytest

from asyncworkers import CancelToken, cli
from asyncworkers.demo.catalog import Batch, public_modules
from asyncworkers.demo.records import DemoFailed, Rendered, Settings
from asyncworkers.demo.render import prepare, render_batch, write_index


def test_the_version_is_told(capsys):
    """`--version` names the package and ends well."""
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("asyncworkers ")


def test_python_dash_m_is_the_same_command():
    """`python -m asyncworkers` is there for those whose PATH is not."""
    ran = subprocess.run(
        [sys.executable, "-m", "asyncworkers", "--help"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("Usage: asyncworkers ")
    assert "demo" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["demon"], "No such command 'demon'"),
        (["demo", "--workers", "0"], "'--workers': 0 is not in the range 1<=x<=100000"),
        (["demo", "--threads", "many"], "'--threads': 'many' is not a valid integer"),
        (["demo", "--processes", "0"], "'--processes': 0 is not in the range"),
        (["demo", "--pages", "-3"], "'--pages': -3 is not in the range"),
        (["demo", "--faults", "1.5"], "'--faults': '1.5' is not a number from 0 to 1"),
        (["demo", "--faults", "nan"], "'--faults': 'nan' is not a number from 0 to 1"),
        (["demo", "--faults", "0.1", "--no-faults"], "not allowed with --faults"),
    ],
)
def test_wrong_usage_is_named(capsys, arguments, complaint):
    """The option, the value and what is accepted; exit code 2, as everywhere."""
    assert cli.main(arguments) == 2
    assert complaint in capsys.readouterr().err


def test_a_missing_extra_says_its_name(capsys, monkeypatch, tmp_path):
    """Without the HTTP library the demo says what to install, in one line, and does nothing."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "aiohttp" or None)
    assert cli.main(["demo", "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        "asyncworkers: the demo needs an HTTP library: pip install 'asyncworkers[demo]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_one_line(capsys, tmp_path):
    """An error of the system is told without a traceback."""
    (tmp_path / "file").write_text("in the way")
    assert cli.main(["demo", "--output", str(tmp_path / "file" / "out")]) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith("asyncworkers: ")
    assert complaint.count("\n") == 1


def test_pages_of_others_are_never_deleted(tmp_path):
    """A folder named `site` that the demo did not make is left alone, with a word of advice."""
    settings = Settings(tmp_path)
    settings.site.mkdir()
    page = settings.site / "index.html"
    page.write_text("mine")
    with pytest.raises(DemoFailed, match="choose another --output"):
        prepare(settings)
    assert page.read_text() == "mine"


def test_pages_of_an_earlier_run_are_removed(tmp_path):
    """A module that is gone from the library leaves no page behind."""
    settings = Settings(tmp_path / "out")
    prepare(settings)
    (settings.site / "asynchat.html").write_text("old")
    prepare(settings)
    assert list(settings.site.iterdir()) == []


def test_modules_are_rendered_in_a_process_of_their_own(tmp_path):
    """Pages are written, what does not import is reported, and none of it is imported here."""
    assert "sndhdr_of_nobody" not in sys.modules
    sys.modules.pop("nturl2path", None)
    found = {
        page.module: page
        for page in render_batch(Batch(1, tmp_path, ("nturl2path", "sndhdr_of_nobody")))
    }
    assert found["nturl2path"].error is None
    assert (tmp_path / "nturl2path.html").stat().st_size == found["nturl2path"].size > 1000
    assert found["sndhdr_of_nobody"].error is not None
    assert "nturl2path" not in sys.modules


def test_a_page_that_cannot_be_written_is_reported(tmp_path):
    """One page's trouble is that page's error, and not the end of its batch."""
    batch = Batch(4, tmp_path / "missing", ("json", "abc"))
    errors = [page.error or "" for page in render_batch(batch)]
    assert len(errors) == 2
    assert all(error.startswith("FileNotFoundError") for error in errors)


def test_a_child_that_nobody_waits_for_is_killed(tmp_path):
    """A cancelled batch does not go on rendering: its process ends before its pages are done."""
    names = tuple(module.name for module in public_modules())
    token = CancelToken()
    token.cancel("enough")
    with pytest.raises(DemoFailed, match=r"batch 2, \d+ modules from .* ended with code -?\d+"):
        list(render_batch(Batch(2, tmp_path, names), token))
    assert len(list(tmp_path.iterdir())) < len(names) / 2


def test_the_index_links_to_what_was_rendered(tmp_path):
    """Modules in packages are left to the pages of their packages, failures to nobody."""
    rendered = [Rendered(name, 1, 0.0, None) for name in ("json.tool", "json", "abc")]
    write_index(tmp_path, [*rendered, Rendered("winreg", 0, 0.0, "no")])
    text = (tmp_path / "index.html").read_text()
    assert [
        name for name in ("abc", "json", "json.tool", "winreg") if f'"{name}.html"' in text
    ] == [
        "abc",
        "json",
    ]
