"""Run a model in every runtime that its card has a snippet for, and compare each vector with the folder's own.

    python benchmarks/run_works_with.py --output benchmarks/results/works-with.json

Each snippet is the card's own, run in an environment of its own where it needs one; these are built once, from PyPI and
npm, in --venvs. The goal is a least cosine above 0.9999 in fp32 and above 0.98 in int8; the result names those that are
below. Without --model it is layers 0, 2, 5 of all-MiniLM-L6-v2, untrained and exported first. About three minutes on 2
cores once the environments are there, and about ten more for them. ``python -m benchmarks.works_with`` is the same
command.
"""
