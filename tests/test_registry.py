"""What every method brings with it, whichever there are: its paper, its settings, its name."""

import re
from dataclasses import fields

import pytest

from distilface.methods import find_method, methods
from distilface.methods.base import Paper
from distilface.settings import InputError
from distilface.training.settings import TrainSettings

NAMES = list(methods())


@pytest.mark.parametrize("name", NAMES)
def test_a_method_brings_its_paper(name):
    """A card cites what the method says: an empty paper would be a card that cites nothing."""
    method = find_method(name)
    for paper in method.cites({}):
        assert isinstance(paper, Paper)
        assert paper.name
        assert paper.summary
        assert paper.limits
        assert all(link.startswith("https://") for link in paper.links.values())
        assert paper.links
        assert len(re.findall(r"^@\w+\{\w+,$", paper.bibtex, re.MULTILINE)) >= 1
        assert paper.bibtex.count("{") == paper.bibtex.count("}")


@pytest.mark.parametrize("name", NAMES)
def test_a_methods_settings_have_a_help_each(name):
    settings = find_method(name).Settings
    assert issubclass(settings, TrainSettings)
    assert all(field.metadata["help"] for field in fields(settings))


def test_names_and_aliases_are_one_methods_own():
    names = [name for method in methods().values() for name in (method.name, *method.aliases)]
    assert len(names) == len(set(names))
    assert {find_method(alias).name for alias in ("distill", "unsup", "distillcse")} == {
        "embedding",
        "simcse",
        "online",
    }


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(InputError, match=r"^unknown method 'distil': did you mean 'distill'"):
        find_method("distil")


def test_a_codir_run_cites_what_stands_beside_it():
    papers = [paper.name for paper in find_method("codir").cites({"base": "simcse"})]
    assert papers == [find_method("codir").paper.name, find_method("simcse").paper.name]
