"""The command ``python -m benchmarks.speed``."""

from benchmarks.speed.run import main
from distilface.console import run_command

if __name__ == "__main__":
    run_command(main)
