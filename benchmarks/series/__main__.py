"""The command ``python -m benchmarks.series``."""

from benchmarks.series.seeds import main
from distilface.console import run_command

if __name__ == "__main__":
    run_command(main)
