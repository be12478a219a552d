"""The command ``python -m benchmarks.glue``."""

from benchmarks.glue.run import main
from distilface.console import run_command

if __name__ == "__main__":
    run_command(main)
