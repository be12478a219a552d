"""Train one recipe several times, under several seeds or in several variants, and draw what came out.

    python benchmarks/run_seeds.py      mean and deviation over seeds, scored on MTEB's STS tasks
    python benchmarks/run_sweep.py      variants, compared on the development set
    python benchmarks/plot_variants.py  development score against steps, with the range of the seeds
    python benchmarks/plot_curves.py    score against steps of a sweep, and of the backbone's adaptation

A series takes as long as its trainings, and about 4 minutes more for each folder that is scored; a stopped one goes on
with the same command. A figure takes a second or two. ``--help`` of each shows an example; ``python -m
benchmarks.series.seeds``, ``.sweep``, ``.plot_variants`` and ``.plot_curves`` are the same commands.
"""
