"""Measure what small encoders cost on this machine: speed, latency, load time, memory and size, on each runtime.

    python benchmarks/run_speed.py --output benchmarks/results/speed.json

A three-layer student, all-MiniLM-L6-v2, and DistilBERT's and BERT-base's shapes in random weights run in torch fp32 and
bf16, ONNX fp32 and int8, and OpenVINO int8 (BERT-base in torch alone). A model on a runtime is a process of its own,
which imports what that runtime needs and no more. They take turns, round by round, so that a change of the machine's
speed affects all of them; the table shows medians. The ratios compare with what people run today: all-MiniLM-L6-v2
through ``SentenceTransformer.encode``. The goal is a ratio of 8 for the int8 student. The last column is the share of
the machine's own peak in matrix products. About fifteen minutes on 2 cores that do nothing else; the first round says
how long the others take. ``python -m benchmarks.speed`` is the same command.
"""
