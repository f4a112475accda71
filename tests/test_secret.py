"""What is secret is masked wherever it could be seen, and is what it was where it is needed."""

import copy
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import msgspec
import pytest

from asyncworkers import ArgumentsMismatch, NotSerializable, Secret, redact
from asyncworkers.store.codec import FunctionCodec

CANARY = "CANARY-71c9"


@dataclass
class Login:
    user: str
    key: Secret[str]


# ---- the value


def test_a_secret_shows_nothing_of_its_value():
    """Neither `repr`, `str`, `format` nor an error about its attributes tells it; `reveal` does."""
    secret = Secret(CANARY)
    with pytest.raises(AttributeError) as refused:
        secret.value = 1
    shown = f"{secret!r} {secret} {secret:>20} %s {[secret]} {Login('a', secret)}" % secret
    assert CANARY not in shown + str(refused.value)
    assert secret.reveal() == CANARY


def test_a_secret_is_a_value():
    """It is equal, hashable, copied and pickled by what it holds."""
    secret = Secret(CANARY)
    assert secret == Secret(CANARY)
    assert secret != Secret("other")
    assert secret != CANARY
    assert len({secret, Secret(CANARY)}) == 1
    assert pickle.loads(pickle.dumps(secret)) == copy.deepcopy(secret) == secret


# ---- in a store


def takes(
    one: Secret[str], *rest: Secret[date], login: Login | None = None, plain: str = ""
) -> Secret:
    """A function that takes secrets in every way."""


CODEC = FunctionCodec(takes, "takes")


def test_a_secret_comes_back_from_a_store_as_it_was():
    """Of the annotated type, also as a part of something else; and what is written says that it is one."""
    args = (Secret(CANARY), Secret(date(2026, 1, 2)))
    kwargs = {"login": Login("a", Secret("b"))}
    text = CODEC.encode_arguments(args, kwargs)
    assert CODEC.decode_arguments(text) == (args, kwargs)
    assert json.loads(text)[0][0] == {"secret": CANARY}
    assert CODEC.decode_result(CODEC.encode_result(Secret(3))) == Secret(3)


def test_a_secret_may_be_written_by_somebody_else():
    """What carries no mark is taken for the value, so that a form on a page need not know of it."""
    assert CODEC.decode_arguments(json.dumps([["a"], {}])) == ((Secret("a"),), {})


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((CANARY,), {}),  # no Secret where one is wanted
        ((Secret("a"),), {"plain": Secret(CANARY)}),  # one where none is expected
        ((Secret("a"),), {"plain": {"inside": [Secret(CANARY)]}}),
        ((Secret("a"), Secret(CANARY)), {}),  # of another type
        ((Secret({CANARY: object()}),), {}),  # nothing that can be stored
    ],
)
def test_a_refusal_does_not_tell_the_secret(args, kwargs):
    """What is refused for a store is named by its parameter, and its value is masked."""
    with pytest.raises(NotSerializable, match=r"argument '\w+' of job 'takes'") as refused:
        CODEC.encode_arguments(args, kwargs)
    assert CANARY not in str(refused.value)


def test_what_is_stored_wrongly_is_not_told_either():
    """A stored value that is not of the secret's type is refused without being shown."""
    with pytest.raises(ArgumentsMismatch, match="it is secret") as refused:
        CODEC.decode_arguments(json.dumps([["a", {"secret": CANARY}], {}]))
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None


# ---- what may be shown


class Opaque:
    def __repr__(self):
        return CANARY


class Struct(msgspec.Struct):
    token: str
    n: int


def test_what_is_masked_keeps_its_shape():
    """Numbers, texts, lists and mappings stay; secrets are masked by kind, by name, and at any depth."""
    value = {
        "n": 1,
        "x": 1.5,
        "ok": True,
        "nothing": None,
        "text": "a\u202eb\x1b[31m\u200bc\n",
        "password": CANARY,
        "X-Auth-Token": CANARY,
        "api_key": {"deep": CANARY},
        "list": [Secret(CANARY), {"cookie": CANARY}],
        "struct": Struct(CANARY, 2),
        "login": Login("ann", Secret(CANARY)),
        "date": date(2026, 1, 2),
        "bytes": b"12345",
        "opaque": Opaque(),
        "dsn": f"postgresql://me:{CANARY}@db.example/x",
        "big": 2**100,
    }
    shown = redact.masked(value)
    assert CANARY not in json.dumps(shown)
    assert shown == {
        "n": 1,
        "x": 1.5,
        "ok": True,
        "nothing": None,
        "text": r"a\u202eb\x1b[31m\u200bc\n",
        "password": "***",
        "X-Auth-Token": "***",
        "api_key": "***",
        "list": ["***", {"cookie": "***"}],
        "struct": {"token": "***", "n": 2},
        "login": {"user": "ann", "key": "***"},
        "date": "2026-01-02",
        "bytes": "<5 bytes>",
        "opaque": "<Opaque>",
        "dsn": "postgresql://me:***@db.example/x",
        "big": str(2**100),
    }


def test_what_is_shown_is_bounded():
    """Deep, long and many: the rest is left out, and it says so; nothing raises."""

    class Broken(Mapping):
        def __getitem__(self, key):
            raise OSError

        def __iter__(self):
            raise OSError

        def __len__(self):
            return 1

    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert "..." in json.dumps(redact.masked(deep))
    assert redact.masked(range(3)) == "<range>"
    assert redact.masked(list(range(60)))[-2:] == [49, "... 10 more"]
    assert redact.masked(dict.fromkeys(range(60)))["..."] == "10 more"
    assert len(redact.masked("x" * 10_000)) == 200
    assert redact.masked(Broken()) == "<Broken>"
    assert redact.masked(10**10_000).startswith("<int whose repr raised")


def test_arguments_are_shown_by_the_names_of_their_parameters():
    """So that what a parameter named `password` gets is masked, though it is a plain text."""

    def log_in(user, password, *rest, **more):
        pass

    shown = redact.arguments(log_in, ("ann", CANARY, 3), {"token": CANARY, "n": 1})
    assert shown == {"user": "ann", "password": "***", "*0": 3, "token": "***", "n": 1}
    assert redact.arguments(takes, (), {"new": 1, "password": CANARY}) == {
        "new": 1,
        "password": "***",
    }


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("postgresql://me:p@ss:w/rd@db/x", "postgresql://me:***@db/x"),
        ("redis://:secret@h:6379/0 failed", "redis://:***@h:6379/0 failed"),
        ("amqp://u:pw@h, then http://v:qw@i", "amqp://u:***@h, then http://v:***@i"),
        ("cut: mysql://root:hunt", "cut: mysql://root:***"),
        ("http://localhost:8080/a?b=c", "http://localhost:8080/a?b=c"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("see http://[::1]:80/", "see http://[::1]:80/"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("https://me@h/x", "https://me@h/x"),
    ],
)
def test_passwords_of_urls_are_masked(text, safe):
    """Whatever they consist of, and also where the text was cut; ports are not passwords."""
    assert redact.safe(text) == safe


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://u:p@h/d?sslpassword=x&a=b", "postgresql://u:***@h/d?sslpassword=***&a=b"),
        ("host=h password='a b' user=u", "host=h password=*** user=u"),
        ("https://h/?access_token=abc", "https://h/?access_token=***"),
    ],
)
def test_addresses_lose_their_secret_settings(url, safe):
    """An address has secrets in its query as well, or is a list of settings."""
    assert redact.safe_url(url) == safe


def test_a_password_is_looked_for_in_bounded_steps():
    """A text that seems to begin a password everywhere is no reason to look through all of it each
    time: what is longer than any password is left as it is.
    """
    assert redact.safe(f"://a:{'x' * 1_024}@h") == "://a:***@h"
    assert redact.safe(f"://a:{'x' * 1_025} @h") == f"://a:{'x' * 1_025} @h"
