"""Measure what a teacher adds to a training: the same as ``python -m benchmarks.training_cost.teacher``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.training_cost.teacher", run_name="__main__")
