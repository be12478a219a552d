"""One way to train anything here: settings, the folder of a run, the trainer, checkpoints, the verdict.

Imports settings, locks, storage, Hub ids, the run, data, model and compression; no method. Every method imports it.
"""

from distilface.training.evaluators import DevEvaluator
from distilface.training.fitting import encoder_trainer, fit
from distilface.training.settings import StudentSettings, TeacherSettings, TrainSettings
from distilface.training.student import make_student
from distilface.training.teacher import load_teacher
from distilface.training.verdict import Measure

__all__ = [
    "DevEvaluator",
    "Measure",
    "StudentSettings",
    "TeacherSettings",
    "TrainSettings",
    "encoder_trainer",
    "fit",
    "load_teacher",
    "make_student",
]
