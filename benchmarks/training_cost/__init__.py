"""Measure what a training step costs, and what a teacher adds to it.

    python benchmarks/run_throughput.py    the trainer against a bare PyTorch loop: a ratio of 0.9 or more
    python benchmarks/run_teacher_cost.py  a teacher against its bare forward pass: a ratio of 1 or less
    python -m benchmarks.training_cost.step  the parts of a step on the grid of 4 bits, trainer and bare loop in turn

Each takes about five minutes on 2 cores that do nothing else. ``python -m benchmarks.training_cost`` and ``python -m
benchmarks.training_cost.teacher`` are the same commands.
"""
