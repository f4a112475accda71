"""The chronicle of a run: what its events told of it, kept in bounded memory.

- `recorder` is the listener; it learns from events alone, so it can be filled by any supervisor, or in
  a test by hand. Counts and times are kept in full, as sums and histograms; of single attempts, jobs,
  stalls and the like only the last so many, or the worst. What had to be left out is counted (`dropped`).
- `histogram` keeps how long things took, `book` what is known of one queue, `figures` adds up;
- `saying` keeps what jobs said to `logging`;
- `answers` are the records that the recorder answers with.
"""

from __future__ import annotations

from asyncworkers.chronicle.answers import Errors, FinishedJob, Span, Stalls
from asyncworkers.chronicle.book import Throughput
from asyncworkers.chronicle.figures import Figures
from asyncworkers.chronicle.histogram import Histogram
from asyncworkers.chronicle.recorder import Chronicle
from asyncworkers.chronicle.saying import JobLog, LogLine

__all__ = [
    "Chronicle",
    "Errors",
    "Figures",
    "FinishedJob",
    "Histogram",
    "JobLog",
    "LogLine",
    "Span",
    "Stalls",
    "Throughput",
]
