"""What the pages say of the code is what the code says."""

import inspect
import re
from datetime import timedelta
from pathlib import Path

import pytest
from generated import PARTS, part

import asyncworkers
from asyncworkers import (
    Queue,
    Retry,
    Supervisor,
    _checks,
    chronicle,
    events,
    report,
    run,
    testing,
    timeline,
)
from asyncworkers._engine import attempt, crew, room, stop, watchdog
from asyncworkers._engine.stored import queue as stored_queue
from asyncworkers._record import fields
from asyncworkers.function import Options, job

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def page(name: str) -> str:
    """Return the text of a reference page."""
    return (REFERENCE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_are_up_to_date(name):
    """A generated part of a page is what would be generated now."""
    where, make = PARTS[name]
    found = part(name).search(where.read_text(encoding="utf-8"))
    assert found is not None, f"{where} has no part {name}"
    assert found[2] == make(), "run: python tests/docs/generated.py"


def documented(name: str) -> set[str]:
    """Return the last words of what mkdocstrings shows on a page."""
    return {
        line.rpartition(".")[2] for line in re.findall(r"^::: (\S+)$", page(name), re.MULTILINE)
    }


def test_every_public_name_is_documented():
    """Each name that can be imported from asyncworkers stands on a page of the reference."""
    described = documented("api.md") | set(re.findall(r"`asyncworkers\.(\w+)`", page("api.md")))
    in_errors = set(re.findall(r"^\| `(\w+)` \|", page("errors.md"), re.MULTILINE))
    assert set(asyncworkers.__all__) - described - in_errors == set()
    assert in_errors <= set(asyncworkers.__all__)
    assert documented("api.md") - set(asyncworkers.__all__) == {
        *("Options", "Listener", "Backoff", "Connection", "Stored", "Using")
    }


def test_every_testing_name_is_documented():
    """The reference page of asyncworkers.testing has all of its names, and the plugin."""
    assert documented("testing.md") == {*testing.__all__, "plugin"}


def test_every_name_of_reports_is_documented():
    """The reference page of what was recorded has all classes of the modules it is made by."""
    classes = {
        name
        for module in (chronicle, report, timeline)
        for name in module.__all__
        if isinstance(getattr(module, name), type)
    }
    assert documented("recording.md") == classes


def test_every_bound_of_a_chronicle_is_in_the_settings():
    """Each parameter has its row, with its default."""
    rows = {name: default for name, (default, _) in settings("Chronicle").items()}
    parameters = inspect.signature(chronicle.Chronicle).parameters
    assert {name: f"{one.default:,}" for name, one in parameters.items()} == rows


def settings(heading: str) -> dict[str, tuple[str, str]]:
    """Return default and range of each setting in the table under a heading."""
    _, found, rest = page("settings.md").partition(f"## {heading}\n")
    assert found, f"settings.md has no heading {heading!r}"
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", rest.partition("\n## ")[0], re.MULTILINE)
    return {name: (default, accepted) for name, default, accepted in rows}


def shown(value: object) -> str:
    """Return a default as the page shows it."""
    if value is inspect.Parameter.empty:
        return "required"
    if value == ():
        return "none"
    return (
        f"{value:,}" if type(value) is int else f"`{value}`" if type(value) is bool else str(value)
    )


MAKERS = {
    "Supervisor": (Supervisor, {}),
    "Queue": (Queue, {"name": "q", "kind": "processes"}),
    "Retry": (Retry, {"attempts": 2, "on": OSError}),
}


@pytest.mark.parametrize("heading", [*MAKERS, "map"])
def test_settings_are_those_of_the_signature(heading):
    """A settings table has every parameter, in order, with its default."""
    function = Supervisor.map if heading == "map" else MAKERS[heading][0]
    wanted = {
        name: shown(parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "function", "items")
    }
    table = {name: default.replace('"', "") for name, (default, _) in settings(heading).items()}
    assert list(table) == list(wanted)
    assert table == {name: default.replace("None", "none") for name, default in wanted.items()}


def test_options_are_all_listed():
    """The table of `@job` has every option."""
    assert list(settings("@job and .options()")) == list(Options.__annotations__)


def ranges() -> list[tuple[str, str, int, int]]:
    """Return every setting whose range is given as whole numbers."""
    found = []
    for heading in [*MAKERS, "@job and .options()"]:
        for name, (_, accepted) in settings(heading).items():
            bounds = re.match(r"(−?[\d,]+) to ([\d,]+)(?! s)", accepted)
            if bounds:
                low, high = (
                    int(text.replace(",", "").replace("−", "-")) for text in bounds.groups()
                )
                found.append((heading, name, low, high))
    return found


@pytest.mark.parametrize(("heading", "name", "low", "high"), ranges())
def test_ranges_are_what_is_accepted(heading, name, low, high):
    """The ends of a range are accepted, and one beyond each end is refused by name."""

    def give(value: int) -> object:
        if heading in MAKERS:
            make, others = MAKERS[heading]
            return make(**{**others, name: value})
        return job(print, **{name: value})

    give(low)
    give(high)
    for value in (low - 1, high + 1):
        with pytest.raises(ValueError, match=name):
            give(value)


def test_some_ranges_are_checked():
    """The ranges are read from the page, so make sure that they are found there."""
    assert len(ranges()) >= 6


def test_no_duration_is_longer_than_the_page_says():
    """Ten years are accepted, a second more is not."""
    assert "ten years" in page("settings.md")
    Retry(1, on=OSError, delay=timedelta(days=3660))
    with pytest.raises(ValueError, match="delay"):
        Retry(1, on=OSError, delay=timedelta(days=3660, seconds=1))


def test_fixed_limits_are_those_of_the_code():
    """The table of what cannot be changed says what the code has."""
    table = dict(re.findall(r"^\| (.*?) \| (.*?) \|$", page("settings.md"), re.MULTILINE))
    wanted = {
        "the watchdog looks": f"every {watchdog.EVERY:g} s, or twice in a shorter `stall`",
        "jobs that may wait inside `submit` for room in one queue": f"{room.WAITING_JOBS:,}",
        "an idle worker or thread is let go": f"after {crew.REAP_AFTER:g} s",
        "workers of a queue give way to the rest of the loop": f"every {crew.TURN * 1000:g} ms",
        "the same, of jobs in a SQLite file, which needs the interpreter too": (
            f"every {stored_queue.TURN * 1000:g} ms"
        ),
        "cancelled jobs may unwind when the supervisor stops": f"{stop.LAST_UNWIND:g} s",
        "the longest duration of any setting": f"{_checks.LONGEST / 86_400:,.0f} days",
        "tasks left behind may wind up when `run()` ends": f"{run.__globals__['WIND_UP']:g} s",
    }
    assert {name: table.get(name) for name in wanted} == wanted
    assert attempt.UNFINISHED  # what must not be returned: the errors page names the three kinds
    assert all(word in page("errors.md") for word in ("coroutine", "generator", "async generator"))


def test_glossary_names_the_states():
    """The glossary lists every state of a job."""
    for state in asyncworkers.JobState:
        assert f"`{state}`" in page("glossary.md")


def test_events_page_says_what_all_have():
    """Every event has `at`, those of jobs have four fields more, which the page says once."""
    assert fields(events.Event) == ("at",)
    assert "Each has `at`" in page("events.md")
    assert fields(events.JobEvent) == ("at", "job_id", "job_name", "queue", "tags")
    assert "`job_id`, `job_name`, `queue` and `tags`" in " ".join(page("events.md").split())
