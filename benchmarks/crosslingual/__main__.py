"""The command ``python -m benchmarks.crosslingual``."""

from benchmarks.crosslingual.run import main
from distilface.console import run_command

if __name__ == "__main__":
    run_command(main)
