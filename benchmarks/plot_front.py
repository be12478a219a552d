"""Draw the family against its megabytes and its speed: the same as ``python -m benchmarks.sts.front``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.sts.front", run_name="__main__")
