"""Benchmarks, a folder for each subject. ``python -m benchmarks.SUBJECT --help`` tells its settings.

    sts            a model's STS scores through mteb, beside its teacher, its untrained self and published models
    series         the trainings and scores of one recipe under several seeds, or in several variants
    crosslingual   the scores of every stage of multi-stage distillation across languages
    glue           ways to fine-tune a student on labelled tasks beside a fine-tuned teacher
    speed          speed, latency, load time, memory and size of models on each runtime
    training_cost  what a training step costs, and what a teacher adds to it
    works_with     the vectors of other runtimes, by the card's own snippets

``python benchmarks/run_mteb.py`` and the other scripts of this folder run the same commands. A benchmark prints its
result on stdout and logs its progress under ``distilface.benchmarks``, which a command shows on stderr. ``results/``
holds the results that the README and the cards cite.
"""
