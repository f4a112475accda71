"""A supervisor with jobs in every state behind a dashboard, and a browser that looks at it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "http"))
