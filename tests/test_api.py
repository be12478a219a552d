"""The public functions: loaded where they are used, and the same work as the command's verbs."""

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
from datasets import Dataset
from tiny import PAIRS, sentences, write_pairs

import distilface
from distilface import cli
from distilface.data.texts import as_texts
from distilface.model.folder import load
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


def test_the_import_is_free_of_torch():
    source = (
        "import sys, distilface; print(sorted({'torch', 'transformers', 'datasets'} & {*sys.modules}), dir(distilface))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
    assert all(name in done.stdout for name in distilface.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'tran'"):
        distilface.tran  # noqa: B018


@pytest.mark.parametrize("name", distilface.__all__)
def test_each_is_typed_and_has_an_example(name):
    function = getattr(distilface, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
    assert ">>> " in (function.__doc__ or "")


def test_train_takes_text_in_each_form(materials, tmp_path):
    """The same text in three forms trains the same weights as the command does."""
    texts = list(dict.fromkeys(materials.text.read_text().splitlines()))
    options = {"backbone": str(materials.backbone), "pooling": "mean", "dev": str(materials.pairs), "bf16": "no"}
    options |= {"steps": 2, "batch_size": 8}
    expected = tmp_path / "expected"
    words = [
        "--data",
        materials.text,
        "--output_dir",
        expected,
        *(w for k, v in options.items() for w in (f"--{k}", v)),
    ]
    cli.run(["train", "simcse", *map(str, words)])
    forms = {"sentences": texts, "data set": Dataset.from_dict({"text": texts}), "file": [str(materials.text)]}
    for form, data in forms.items():
        run = distilface.train("simcse", data=data, config=None, output_dir=tmp_path / form, **options)
        assert run["steps"] == 2
        assert load(tmp_path / form).encode("a dog").shape == (32,)
        np.testing.assert_array_equal(load(tmp_path / form).encode(texts), load(expected).encode(texts))


def test_text_and_its_sources_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="both sentences and files"):
        as_texts(["a cat sat on it", "gone.txt"])
    with pytest.raises(InputError, match="has no column 'text' but words"):
        as_texts(Dataset.from_dict({"words": ["a"]}))
    with pytest.raises(InputError, match="holds 1 different sentences"):
        as_texts(["a cat sat", "a cat sat "])
    assert as_texts(["gone.txt"])[0] == ["gone.txt"], "a file that is not there is refused as one"


def test_an_unknown_setting_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="unknown setting of simcse: 'learning_rat': did you mean 'learning_rate'"):
        distilface.train("simcse", data=sentences(4), learning_rat=1)
    with pytest.raises(InputError, match="unknown setting of encode: 'varient': did you mean 'variant'"):
        distilface.encode("m", "i.txt", "o.npy", varient="int8")


def test_the_verbs_from_python(materials, tmp_path, capsys):
    """A folder is encoded, scored and given a card, each as the command does."""
    run = distilface.train(
        "embedding",
        data=[str(materials.text)],
        output_dir=tmp_path / "m",
        teacher=str(materials.teacher),
        backbone=str(materials.backbone),
        projection=True,
        cache_dir=str(materials.cache),
        dev=str(materials.pairs),
        steps=2,
        batch_size=8,
        bf16="no",
    )
    assert run["method"] == "embedding"
    report = distilface.encode(tmp_path / "m", materials.text, tmp_path / "v.npy")
    texts = materials.text.read_text().splitlines()
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), distilface.load(tmp_path / "m").encode(texts), atol=1e-5)
    assert report.rows == len(texts)
    write_pairs(tmp_path / "data" / "STS12.jsonl", PAIRS)
    scores = distilface.evaluate(tmp_path / "m", tasks=["STS12"], data_dir=tmp_path / "data")
    words = ["--tasks", "STS12", "--data_dir", str(tmp_path / "data"), "--output", str(tmp_path / "r.json")]
    assert cli.run(["evaluate", str(tmp_path / "m"), *words]) == scores
    assert json.loads((tmp_path / "r.json").read_text())["scores"] == scores
    assert f"STS12 {scores['STS12']:>21.2f}" in capsys.readouterr().out
    card = distilface.write_card(tmp_path / "m", license="mit")
    assert "license: mit" in card.read_text()
    with pytest.raises(InputError, match="names no owner"):
        distilface.push(tmp_path / "m", "mine")
