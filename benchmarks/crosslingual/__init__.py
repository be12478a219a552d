"""Score an English teacher, its assistant and the student after each stage of multi-stage distillation.

    python benchmarks/run_crosslingual.py --model models/xx-minilm-small --stsb-dir STSB_XX --sts17-dir STS17 \
        --output benchmarks/results/xx-minilm-small.json

Each is scored through mteb on STS-B with English on one side (``en-de``), on STS-B within each language (``de``), and
on STS17's pairs of languages; the table has its size too, the embedding table apart. ``--model`` is what
train_multistage.py writes, with its stages beside it. STSB_XX holds ``en-de.jsonl[.gz]``, ``de-de.jsonl[.gz]`` and so
on, STS17 ``es-en.jsonl[.gz]``; languages without a file are left out. A model takes about three minutes of one core for
six languages, the second time seconds: mteb keeps its results. ``python -m benchmarks.crosslingual`` is the same
command.
"""
