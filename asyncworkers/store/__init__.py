"""Where durable jobs live: the protocol, and what every store shares."""

from asyncworkers.store.protocol import (
    Cancelled,
    Lease,
    Maintained,
    Mark,
    Page,
    QueueCounts,
    Receipt,
    Renewal,
    Settlement,
    Store,
    StoredJob,
    Submission,
    Tally,
    Unique,
    Want,
    Where,
)

__all__ = [
    "Cancelled",
    "Lease",
    "Maintained",
    "Mark",
    "Page",
    "QueueCounts",
    "Receipt",
    "Renewal",
    "Settlement",
    "Store",
    "StoredJob",
    "Submission",
    "Tally",
    "Unique",
    "Want",
    "Where",
]
