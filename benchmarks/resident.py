"""How much memory this process holds, and what else it keeps open."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")
_OPEN_FILES = Path("/proc/self/fd")


def resident() -> int:
    """Bytes of memory held now; where the system does not tell (macOS), the most ever held."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def open_files() -> int:
    """File descriptors in use; 0 where the system does not tell."""
    return len(list(_OPEN_FILES.iterdir())) if _OPEN_FILES.exists() else 0
