"""The page of ``demo/`` with more than lines: a document, what the browser keeps, and vectors that Python has made."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import IDLE
from page_visits import TEXTS, alone, unit
from tiny import needs_package

from distilface.data.pairs import read_sts

pytestmark = [
    *(pytest.mark.slow, pytest.mark.timeout(900), needs_package),
    pytest.mark.usefixtures("one_thread", "own_cache"),
]
pytest_plugins = ["page_visits"]
DOCUMENT = "\n\n".join(
    " ".join(f"{subject} {verb} the {thing} in room {number}." for number in range(20))
    for subject, verb, thing in [
        ("A nurse", "weighs", "baby"),
        ("The band", "rehearses", "song"),
        ("He", "mends", "bike"),
    ]
)
#: Counts the texts that are given to the model's thread to embed.
COUNTING = """
window.embedded = 0;
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  if (message?.type === "embed") window.embedded++;
  return post.call(this, message, ...rest);
};
"""


def drop(visit, file: Path) -> None:
    """Choose a file as a person does."""
    visit.page.set_input_files("#file", str(file))


def test_a_document_is_cut_into_passages(visit):
    visit.page.fill("#text", DOCUMENT)
    visit.page.select_option("#kind", "document")
    visit.wait(f"{IDLE} && document.querySelectorAll('#results li').length === 6")
    shown = visit.page.locator("#results .line").all_inner_texts()
    assert all(0 < len(passage.split()) <= 80 for passage in shown)
    assert "6 passages." in visit.page.inner_text("#counts")
    assert sum(passage.count("weighs") for passage in shown) == 20
    assert not any("weighs" in passage and "rehearses" in passage for passage in shown)
    assert "rehearses the song" in visit.ask("musicians practise")[0]


def test_the_text_and_its_vectors_are_there_again_until_forgotten(visit, address):
    visit.window.add_init_script(COUNTING)
    visit.open(address)
    visit.fill(TEXTS)
    before = visit.vectors()
    visit.page.wait_for_timeout(500)
    visit.open(address)
    assert visit.page.evaluate("window.embedded") == 1  # the query
    again = visit.vectors()
    assert {text: again[text] for text in TEXTS} == {text: before[text] for text in TEXTS}
    visit.page.click("#forget")
    visit.wait(f"{IDLE} && document.querySelectorAll('#results li').length === 12")
    assert visit.page.evaluate("window.embedded") == 1 + 1 + 12  # the query again, and the page's own sentences
    visit.open(address)
    assert TEXTS[2] not in visit.page.input_value("#text")


@pytest.mark.parametrize("kind", ["npy", "npy in float16", "parquet"])
def test_an_index_that_exists_is_searched(visit, model, tmp_path, kind):
    """Of vectors that Python has made; the order is that of numpy."""
    texts = list(dict.fromkeys(read_sts("sample")["sentence1"][:100]))
    vectors = alone(model, texts)
    if kind == "parquet":
        file = tmp_path / "index.parquet"
        rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        pq.write_table(pa.table({"row": range(len(texts)), "text": texts, "embedding": rows}), file)
    else:
        visit.fill(texts)
        file = tmp_path / "index.npy"
        np.save(file, vectors.astype(np.float16 if "16" in kind else np.float32))
    drop(visit, file)
    visit.page.wait_for_selector("#index:visible")
    assert f"{len(texts)} rows of 384 numbers." in visit.page.inner_text("#index-facts")
    query = "repairing a bike"
    shown = visit.ask(query)
    scores = unit(vectors) @ unit(alone(model, [query]))[0]
    assert shown == [texts[row] for row in np.argsort(-scores)[:50]] or "16" in kind
    assert shown[0] == texts[int(scores.argmax())]
    first = float(visit.page.locator("#results .score").first.inner_text())
    assert first == pytest.approx(scores.max(), abs=1e-3)
    assert visit.page.inner_text("#notice") == ""
    visit.page.click("#leave-index")
    visit.wait(f"{IDLE} && document.querySelector('#index').hidden")


def test_an_index_that_does_not_fit_is_refused_or_warned_of(visit, tmp_path):
    visit.fill(TEXTS)
    draw = np.random.default_rng(0).standard_normal((len(TEXTS), 384), dtype=np.float32)
    problems = {
        "has 768 numbers a row": np.ones((3, 768), np.float32),
        "is not a table of rows and numbers": np.ones((3, 2, 2), np.float32),
        "are not of this model's space": draw,
    }
    for number, (problem, rows) in enumerate(problems.items()):
        file = tmp_path / f"{number}.npy"
        np.save(file, rows)
        drop(visit, file)
        visit.wait(f"document.querySelector('#notice').textContent.includes('{number}.npy')")
        assert problem in visit.page.inner_text("#notice")
