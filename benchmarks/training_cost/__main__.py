"""The command ``python -m benchmarks.training_cost``."""

from benchmarks.training_cost.throughput import main
from distilface.console import run_command

if __name__ == "__main__":
    run_command(main)
