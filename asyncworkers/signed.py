"""A SignedPickle lets the stored jobs of one queue be pickled: signed, and the signature checked first.

Whoever can write to a store could have anything executed by a process that unpickles what is there.
So each value carries a code (HMAC-SHA256) over itself and whose it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asyncworkers import _checks
from asyncworkers.errors import ArgumentsMismatch
from asyncworkers.units import counted

__all__ = ["SignedPickle"]

LEAST_KEY = 16
"""Bytes. `secrets.token_bytes(32)` makes a good one."""


class SignedPickle:
    """The codec of a queue that stores what JSON cannot: `Queue("models", codec=SignedPickle(key))`.

    - `key`: at least 16 secret bytes, which every process that submits to this queue or runs its jobs
      must have, and nobody else.
    - `old`: keys that are still accepted, so that a key can be replaced: first add the new one to
      `old` everywhere, then make it the `key`, and drop the old one when its jobs are done.

    Arguments and results must be picklable, and of classes that can be imported where they are read.
    """

    __slots__ = ("_keys",)

    def __init__(self, key: bytes, *, old: Iterable[bytes] = ()) -> None:
        given: Any = old
        if isinstance(given, (bytes, str)):
            raise TypeError(f"old must be a list of keys, not one of them ({type(given).__name__})")
        accepted = [_key("old", one) for one in _checks.iterable("old", old)]
        self._keys = (_key("key", key), *accepted)

    def _seal(self, whose: str, value: Any) -> str:
        """The value as text, signed as belonging to this; raises what pickle raises."""
        import base64
        import pickle

        raw = pickle.dumps(value, 5)
        return base64.b64encode(self._code(self._keys[0], whose, raw) + raw).decode("ascii")

    def _open(self, whose: str, text: str) -> Any:
        """The value. Raises ArgumentsMismatch, and unpickles nothing, if it was not signed with one of
        the keys, or as belonging to somebody else.
        """
        import base64
        import hmac
        import pickle

        try:
            signed = base64.b64decode(text.encode("ascii", "replace"), validate=True)
        except ValueError:
            signed = b""
        code, raw = signed[:32], signed[32:]
        # Every key is tried, whichever fits: how long it takes tells nothing.
        fits = [hmac.compare_digest(code, self._code(key, whose, raw)) for key in self._keys]
        if not any(fits):
            raise ArgumentsMismatch("its signature is wrong")
        try:
            return pickle.loads(raw)  # noqa: S301 (signed by who holds the key)
        except Exception as error:
            raise ArgumentsMismatch(
                f"it cannot be unpickled (any more): {_checks.summary(error)}"
            ) from error

    @staticmethod
    def _code(key: bytes, whose: str, raw: bytes) -> bytes:
        import hashlib
        import hmac

        owner = whose.encode("utf-8", "surrogatepass")
        return hmac.digest(key, len(owner).to_bytes(4, "big") + owner + raw, hashlib.sha256)

    def __repr__(self) -> str:
        return f"<SignedPickle with {counted(len(self._keys), 'key')}>"

    def __reduce__(self) -> Any:
        raise TypeError("a SignedPickle holds keys, and is not pickled")


def _key(argument: str, key: object) -> bytes:
    if not isinstance(key, bytes):  # never shown: it may be the key, of another type
        raise TypeError(f"{argument} must be bytes, not {type(key).__name__}")
    if len(key) < LEAST_KEY:
        raise ValueError(f"{argument} must have at least {LEAST_KEY} bytes, not {len(key)}")
    return key
