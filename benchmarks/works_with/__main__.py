"""The command ``python -m benchmarks.works_with``."""

from benchmarks.works_with.run import main
from distilface.console import run_command

if __name__ == "__main__":
    run_command(main)
