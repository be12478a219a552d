"""Compare the vectors of other runtimes: the same as ``python -m benchmarks.works_with``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.works_with", run_name="__main__")
