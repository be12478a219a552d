"""Compare variants of a recipe on the development set: the same as ``python -m benchmarks.series.sweep``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.series.sweep", run_name="__main__")
