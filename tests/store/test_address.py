"""Which store a URL names, and with which words anything else is refused."""

from urllib.parse import unquote

import pytest

from asyncworkers.store.address import make_store
from asyncworkers.store.memory import MemoryStore
from asyncworkers.store.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///jobs.db", "jobs.db"),
        ("sqlite:///data/jobs.db", "data/jobs.db"),
        ("sqlite:///../jobs.db", "../jobs.db"),
        ("sqlite:///my%20jobs%3F%23.db", "my jobs?#.db"),
        ("sqlite:///j%C3%B6bs.db", "jöbs.db"),
        ("sqlite:///jobs.db?", "jobs.db"),
    ],
)
def test_a_file_is_named_from_the_current_directory(url, path, tmp_path, monkeypatch):
    """Three slashes and a path: relative, as other libraries have it; making it touches nothing."""
    monkeypatch.chdir(tmp_path)
    store = make_store(url)
    assert type(store) is SqliteStore
    assert store.path == tmp_path / path
    assert list(tmp_path.iterdir()) == []


def test_four_slashes_are_absolute(tmp_path):
    """The fourth slash is the path's own."""
    store = make_store(f"sqlite:///{tmp_path}/jobs.db")
    assert store.path == tmp_path / "jobs.db"


def test_settings_follow_a_question_mark():
    """They are those of the store, read as what they are."""
    store = make_store("sqlite:///jobs.db?ttl=2.5&durability=process&history=7&keep=0")
    assert store.ttl == 2.5
    assert store._place._durability == "process"
    assert (store._settings.history, store._settings.keep) == (7, 0)


def test_jobs_in_memory():
    """For tests and trials: each call has jobs of its own."""
    assert type(make_store("memory:")) is MemoryStore


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "must be sqlite:///jobs.db"),
        ("jobs.db", "store 'jobs.db' must be sqlite:///jobs.db"),
        ("/var/lib/jobs.db", "must be sqlite:///jobs.db"),
        ("postgresql://host/jobs", "must be sqlite:///jobs.db"),
        ("memory", "or memory:"),
        ("memory:x", "or memory:"),
        ("sqlite:", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite:jobs.db", "names no file"),
        ("sqlite://jobs.db", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///jobs.db#1", "names no file"),
        ("sqlite:///jobs\n.db", "not printable"),
        ("sqlite:///jobs%00.db", "path must name a file"),
        ("sqlite:///jobs.db?ttl", "not written name=value"),
        ("sqlite:///jobs.db?tll=3", "has no setting 'tll': known are .* did you mean 'ttl'"),
        ("sqlite:///jobs.db?ttl=3&ttl=4", "has the setting 'ttl' twice"),
        ("sqlite:///jobs.db?ttl=soon", "ttl='soon', which is no number"),
        ("sqlite:///jobs.db?ttl=0", "ttl must be more than 0"),
        ("sqlite:///jobs.db?ttl=nan", "ttl must be more than 0"),
        ("sqlite:///jobs.db?losses=1.5", "losses='1.5', which is no number"),
        ("sqlite:///jobs.db?durability=none", "durability must be one of 'power', 'process'"),
    ],
)
def test_what_names_no_store_is_refused(url, complaint):
    """The URL, what is wrong with it, and what is accepted."""
    with pytest.raises(ValueError, match=complaint):
        make_store(url)


@pytest.mark.parametrize("url", [None, b"sqlite:///jobs.db", 1])
def test_a_url_is_text(url):
    """Anything else is a mistake of another kind."""
    with pytest.raises(TypeError, match="store must be a str"):
        make_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hunter2@[::1]:5432/jobs",
        "postgresql://ada:hunter2@%2Fvar%2Frun%2Fpostgresql/jobs",
        "postgresql://ada:hun@ter:hunter2@host/jobs?sslmode=require",
        "postgresql:///jobs?host=/tmp&password=hunter2",
        "sqlite://ada:hunter2@host/jobs.db",
        "sqlite:///jobs.db?token=hunter2",
        "sqlite://ada:hunter2@[::1/jobs.db",
        "redis://:hunter2@localhost",
    ],
)
def test_fault_B08_an_address_is_never_echoed_with_its_password(url):
    """Whatever is wrong with an address, it is refused, and no message repeats the password."""
    with pytest.raises(ValueError, match="store") as caught:
        make_store(url)
    text = f"{caught.value!r} {caught.value.__cause__!r}"
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "name", ["%", "%zz", "%00", "a%2Fb", "ä%C3%A4", "a b", "a%20b", "%F0%9F%A6"]
)
def test_fault_B08_odd_percent_encoding(name, tmp_path):
    """It names a file or is refused; it never names another one than it seems to."""
    url = f"sqlite:///{tmp_path}/{name}"
    try:
        store = make_store(url)
    except ValueError:
        return
    assert str(store.path) == f"{tmp_path}/{unquote(name)}"
