"""The files of the page in ``demo/``, and the model that is put beside it; :mod:`test_page_browser` runs it."""

import json
import re
from pathlib import Path

import pytest
import yaml
from browser import DEMO, INT8, put_model
from tiny import tiny_model

from distilface.cards.facts import read_facts
from distilface.model.folder import save_folder
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def page_sources() -> dict[str, str]:
    """Read the files that the page is built from."""
    files = [DEMO / "index.html", DEMO / "vite.config.js", *(DEMO / "src").iterdir(), *(DEMO / "public").iterdir()]
    return {file.name: file.read_text(encoding="utf-8") for file in files}


def test_the_space_is_described():
    head, _ = (DEMO / "README.md").read_text(encoding="utf-8").removeprefix("---\n").split("\n---\n", 1)
    metadata = yaml.safe_load(head)
    assert (metadata["sdk"], metadata["app_file"]) == ("static", "dist/index.html")
    assert metadata["models"] == [json.loads(page_sources()["model.json"])["name"]]
    assert len(metadata["short_description"]) <= 60


def test_versions_are_the_cards_and_no_registry_is_named():
    package, lock = (json.loads((DEMO / name).read_text()) for name in ("package.json", "package-lock.json"))
    locked, named = lock["packages"], "@huggingface/transformers"
    assert package["dependencies"][named] == read_facts()["versions"]["transformers.js"]
    for name, version in {**package["dependencies"], **package["devDependencies"]}.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert not any("resolved" in each for each in locked.values())
    # The page's runtime is the one that transformers.js was made with, and there is no second one.
    runtime = "onnxruntime-web"
    assert locked[f"node_modules/{named}"]["dependencies"][runtime] == package["dependencies"][runtime]
    assert [name for name in locked if name.endswith(f"/{runtime}")] == [f"node_modules/{runtime}"]


def test_the_sources_name_no_other_host_and_set_text_alone():
    for name, source in page_sources().items():
        addresses = set(re.findall(r"(?:https?:)?//[\w-]+\.[\w./-]+", source))
        assert addresses <= {"https://huggingface.co/", "http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", source), name


@pytest.fixture
def folder(tmp_path) -> Path:
    """Save a tiny model with what passes for its int8 export."""
    folder = save_folder(tiny_model(tmp_path / "made"), tmp_path / "mine")
    (folder.path / "onnx").mkdir()
    (folder.path / INT8).write_text("int8")
    (folder.path / "export.json").write_text(json.dumps({"fingerprint": folder.fingerprint, "files": {INT8: {}}}))
    return folder.path


@pytest.fixture
def page(tmp_path) -> Path:
    """Make what is as a built page."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "index.html").touch()
    return tmp_path / "dist"


def test_a_model_is_put_beside_the_page(folder, page, capsys):
    place = page / "models" / "local"
    (place / "onnx").mkdir(parents=True)
    (place / "onnx" / "older.onnx").touch()
    put_model.main(["--folder", str(folder), "--page", str(page)])
    assert json.loads((page / "model.json").read_text()) == {"name": "mine", "folder": "models/local", "dtype": "int8"}
    files = {file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()}
    assert files == {
        "config.json",
        "config_sentence_transformers.json",
        "tokenizer.json",
        "tokenizer_config.json",
        INT8,
    }
    assert f"python -m http.server --bind localhost --directory {page}" in capsys.readouterr().out


def test_what_the_page_could_not_run_is_refused(folder, page):
    """An export of older weights would be shown as the model, and nothing would tell."""
    with pytest.raises(InputError, match="is not a built page; build it first"):
        put_model.put_model(folder, page.parent)
    (folder / "export.json").write_text(json.dumps({"fingerprint": "of other weights", "files": {INT8: {}}}))
    with pytest.raises(InputError, match=r"of other weights than the folder; make it again: distilface export"):
        put_model.put_model(folder, page)
    (folder / INT8).unlink()
    with pytest.raises(InputError, match=r"has no onnx/model_int8.onnx.*make it: distilface export .* onnx int8"):
        put_model.put_model(folder, page, "int8")
    with pytest.raises(InputError, match=r"has no onnx/model_q4.onnx.*make it: distilface export .* onnx q4"):
        put_model.put_model(folder, page)
    with pytest.raises(InputError, match="unknown variant 'q5'"):
        put_model.put_model(folder, page, "q5")
    assert not (page / "model.json").exists()
