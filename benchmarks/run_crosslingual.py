"""Score the stages of multi-stage distillation: the same as ``python -m benchmarks.crosslingual``."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # the checkout in place of this folder
    runpy.run_module("benchmarks.crosslingual", run_name="__main__")
