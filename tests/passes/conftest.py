"""Tests of passes; those on whole networks take them from the zoo of the benchmarks."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
