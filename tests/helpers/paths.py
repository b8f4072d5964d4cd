"""Where the repository and its golden files are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
SUBMISSIONS = GOLDEN / "submission"
"""Templates, predictions and examples of every format."""
