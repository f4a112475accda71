"""Run the README's first Python block as a reader would: alone, with nothing but the package.

Usage: `python scripts/quickstart.py [README.md]`. The block runs in a fresh interpreter that sees
only the installed packages, never this checkout; warnings are errors. The exit code is the block's.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

FENCE = re.compile(r"^```(?:python|py)\b[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS = 60


def first_block(markdown: str) -> str:
    """Return the code of the first fenced Python block.

    Raises:
        SystemExit: There is none.
    """
    found = FENCE.search(markdown)
    if found is None:
        raise SystemExit("quickstart: there is no ```python block")
    return found[1]


def main() -> int:
    """Run the quick-start and return its exit code."""
    readme = Path(sys.argv[1] if len(sys.argv) > 1 else "README.md")
    code = first_block(readme.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        script = Path(folder, "quickstart.py")
        script.write_text(code, encoding="utf-8")
        command = [sys.executable, "-I", "-W", "error", str(script)]
        return subprocess.run(command, cwd=folder, timeout=SECONDS, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
