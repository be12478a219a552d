"""Fine-tune a teacher on GLUE tasks, then a layer cut of it four ways: CE, KD, KD + L2, KD + CoDIR (arXiv 2009.14167).

    python benchmarks/run_glue.py --tasks rte mrpc cola sst2 --seeds 1 2 3 --output FILE.json

The rows and steps of every training are logged first. An epoch reads each row once; the teacher takes about twice as
long as its three-layer student. --max-train 5000 trains on a subset, which the result states. Data come from the Hub,
or from --data-dir, a folder of <task>/train.jsonl[.gz] and <task>/validation.jsonl[.gz]. The epoch is chosen on rows
held out of the training set; the validation set is scored once. The output file holds every finished training: a
stopped run goes on with the same command, and a later one adds tasks, ways or seeds. The teachers' weights stay in
OUTPUT.teachers until the end. A way may have settings of its own, which makes a sweep:

    python benchmarks/run_glue.py --tasks rte --seeds 1 --ways "kd+codir weight=0.1" "kd+codir weight=1" --report false

--report false does not read the validation set: settings are chosen on the held-out rows. The result is a table of the
ways, mean ± sd over the seeds. ``python -m benchmarks.glue`` is the same command.
"""
