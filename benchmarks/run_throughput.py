"""Measure what a training step costs: the same as ``python -m benchmarks.training_cost.throughput``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.training_cost.throughput", run_name="__main__")
