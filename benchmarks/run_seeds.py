"""Train and score a recipe under several seeds: the same as ``python -m benchmarks.series.seeds``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.series.seeds", run_name="__main__")
