"""One way to train anything here: settings, the folder of a run, the trainer, checkpoints, the verdict."""
