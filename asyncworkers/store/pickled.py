"""The codec of one job whose queue has a SignedPickle: its arguments and its result, pickled and signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from asyncworkers import _checks
from asyncworkers._log import log
from asyncworkers.errors import ArgumentsMismatch, NotSerializable
from asyncworkers.signed import SignedPickle
from asyncworkers.store.codec import LARGEST_ARGUMENTS, LARGEST_RESULT, FunctionCodec

__all__ = ["PICKLE", "PickledCodec"]

PICKLE: Final = "pickle/1"
"""How the store names what is written like this."""


class PickledCodec(FunctionCodec):
    """Writes and reads the arguments and the result of one job."""

    def __init__(self, plain: FunctionCodec, signed: SignedPickle, queue: str, ident: str) -> None:
        self.name = plain.name
        self.arity = plain.arity
        self._signature = plain._signature
        self._signed = signed
        self._queue = queue
        self._whose = f"{queue}\n{ident}\n{plain.name}"

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """The arguments as text; raises TypeError, or NotSerializable."""
        self.arity.check(self.name, args, kwargs)
        return self._sealed("arguments", (args, dict(kwargs)), LARGEST_ARGUMENTS)

    def decode_arguments(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments; raises ArgumentsMismatch."""
        args, kwargs = self._opened("arguments", text, LARGEST_ARGUMENTS)
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsMismatch(
                f"the stored arguments do not fit {self.name!r} (any more): {error}"
            ) from error
        return args, kwargs

    def encode_result(self, value: Any) -> str:
        """What the function returned as text; raises NotSerializable."""
        return self._sealed("result", value, LARGEST_RESULT)

    def decode_result(self, text: str) -> Any:
        """What the function returned; raises ArgumentsMismatch."""
        return self._opened("result", text, LARGEST_RESULT)

    def _sealed(self, what: str, value: Any, largest: int) -> str:
        try:
            text = self._signed._seal(f"{self._whose}\n{what}", value)
        except Exception as error:
            raise NotSerializable(
                f"job {self.name!r} cannot be stored: its {what} cannot be pickled: "
                f"{_checks.summary(error)}"
            ) from error
        if len(text) > largest:
            raise NotSerializable(
                f"job {self.name!r} cannot be stored: its {what} take {len(text):,} bytes, "
                f"at most {largest:,} are accepted; store it elsewhere and pass where it is"
            )
        return text

    def _opened(self, what: str, text: str, largest: int) -> Any:
        if len(text) > largest:
            raise ArgumentsMismatch(f"what is stored for {self.name!r} is too large")
        try:
            return self._signed._open(f"{self._whose}\n{what}", text)
        except ArgumentsMismatch as error:
            if "signature" in str(error):
                log.error(
                    "the stored %s of a job %s of queue %s are not what was signed: somebody has "
                    "changed them, or the key",
                    what,
                    self.name,
                    self._queue,
                )
            raise ArgumentsMismatch(f"the stored {what} of {self.name!r}: {error}") from error
