"""Bridges carry a call to where blocking work may run, and its end back: one bridge per worker."""

from asyncworkers.bridge.abandoning import AbandoningBridge
from asyncworkers.bridge.inline import InlineBridge
from asyncworkers.bridge.protocol import (
    Bridge,
    BridgeBroken,
    CancelCallback,
    CancelToken,
    Work,
)
from asyncworkers.bridge.thread import ThreadBridge

__all__ = [
    "AbandoningBridge",
    "Bridge",
    "BridgeBroken",
    "CancelCallback",
    "CancelToken",
    "InlineBridge",
    "ThreadBridge",
    "Work",
]
