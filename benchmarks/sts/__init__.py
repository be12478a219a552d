"""Score a model on MTEB's English STS tasks, beside its teacher, its untrained self and published peers.

    python benchmarks/run_mteb.py --model ID_OR_FOLDER --data-dir DIR --output FILE.json --figure FILE.png

A model of the size of all-MiniLM-L6-v2 takes about 4 minutes of one core, the second time seconds: mteb keeps its
results. For ``--model sentence-transformers/all-MiniLM-L6-v2`` the last line of scores is (within 0.02)

    scores: 72.37 80.60 75.60 85.39 78.99 82.03 77.58

Without ``--model`` it scores what ``training/train_unsup.py`` writes; without ``--data-dir`` the data come from the
Hub. Across languages, it scores each pair of them and their mean:

    python benchmarks/run_mteb.py --model ID_OR_FOLDER --tasks STS17 --data-dir DIR

with ``DIR/en-ar.jsonl.gz`` and so on. STSBenchmarkMultilingualSTS works in the same way, and so does
STSBenchmarkCrosslingualSTS (English on one side), which mteb does not have. ``python -m benchmarks.sts`` is the same
command.
"""
