"""The page of ``demo/`` in Chromium and Firefox: what a person sees of it, and its vectors against Python's.

npm's packages are installed once, in ``DISTILFACE_VENVS`` if that is set.
"""

import json
import os

import numpy as np
import pytest
from browser import IDLE, INT8, int8_model, put_model, visiting
from page_visits import TEXTS, VIOLIN, alone, unit
from tiny import needs_package

from distilface.data.pairs import read_sts
from distilface.model.folder import load

pytestmark = [
    *(pytest.mark.slow, pytest.mark.timeout(900), needs_package),
    pytest.mark.usefixtures("one_thread", "own_cache"),
]
pytest_plugins = ["page_visits"]


def heat(visit) -> np.ndarray:
    """Read the heat map."""
    rows = visit.page.locator("#heatmap tbody tr").all()
    return np.array([[float(cell) for cell in row.locator("td").all_inner_texts()] for row in rows])


def test_typing_brings_the_right_neighbour_first(visit, model):
    assert visit.ask("a child rehearses on her instrument")[0] == VIOLIN
    assert visit.ask("a pet naps on the computer")[0] == "The cat is asleep on the warm laptop."
    assert visit.ask("repairing a bike")[0].startswith("He mended the brakes of his bicycle")
    shown = [float(score) for score in visit.page.locator("#results .score").all_inner_texts()]
    assert len(shown) == 12
    assert shown == sorted(shown, reverse=True)
    size = sum((model / name).stat().st_size for name in (*put_model.READ, INT8))
    facts = visit.page.inner_text("#facts")
    for fact in (model.name, "from this server", f"{size / 1e6:.1f} MB, int8", "384 numbers", " ms, median"):
        assert fact in facts


def test_every_vector_is_pythons(visit, model):
    """Of the int8 files it is the one that rounds no activations, which each runtime would do in its own way."""
    texts = [*TEXTS, *read_sts("sample")["sentence1"][:100]]
    visit.fill(texts)
    query = "Where is the tram stop?"
    visit.ask(query)
    by_text = visit.vectors()
    assert list(by_text) == [query, *texts]
    vectors, expected = unit(np.array(list(by_text.values()))), unit(alone(model, list(by_text)))
    print(f"{len(by_text)} vectors, the largest difference {np.abs(vectors - expected).max():.2e}")
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    own = unit(load(model).encode(list(by_text)))
    assert (vectors * own).sum(1).min() > 0.98
    assert "of which the first 512 are read" in visit.page.locator("#results li", has_text="Step 0").inner_text()
    assert visit.page.title() != "run"
    assert visit.page.locator("main img").count() == 0


def test_the_heat_map_is_of_the_first_or_the_picked_lines(visit):
    visit.fill(TEXTS)
    vectors = unit(np.array([visit.vectors()[text] for text in TEXTS]))
    expected = vectors @ vectors.T
    np.testing.assert_allclose(heat(visit), expected, atol=5.1e-3)
    for text in (TEXTS[4], TEXTS[0]):
        visit.page.locator("#results li", has=visit.page.get_by_text(text, exact=True)).click()
    visit.wait("document.querySelectorAll('#heatmap tbody tr').length === 2")
    assert heat(visit)[0, 1] == pytest.approx(expected[4, 0], abs=5.1e-3)
    visit.page.click("#none")
    visit.wait(f"document.querySelectorAll('#heatmap tbody tr').length === {len(TEXTS)}")


def test_the_keyboard_is_enough(visit):
    focused = "document.activeElement.id || document.activeElement.querySelector('.line').textContent"
    ranked = visit.page.locator("#results .line").all_inner_texts()
    press = visit.page.keyboard.press
    visit.page.locator("#theme").focus()
    press("/")
    assert visit.page.evaluate(focused) == "query"
    press("ArrowDown")
    press("ArrowDown")
    assert visit.page.evaluate(focused) == ranked[1]
    press("Space")
    visit.wait("document.querySelectorAll('#heatmap tbody tr').length === 1")
    assert visit.page.evaluate(focused) == ranked[1]
    press("End")
    assert visit.page.evaluate(focused) == ranked[-1]
    press("Home")
    press("ArrowUp")
    assert visit.page.evaluate(focused) == "query"


def test_dark_and_light_are_kept(visit, address):
    colour = "getComputedStyle(document.documentElement).backgroundColor"
    light = visit.page.evaluate(colour)
    visit.page.click("#theme")
    dark = visit.page.evaluate(colour)
    assert sum(map(int, dark[4:-1].split(","))) < 150 < 600 < sum(map(int, light[4:-1].split(",")))
    visit.open(address)
    assert visit.page.evaluate(colour) == dark
    assert visit.page.get_attribute("#theme", "aria-pressed") == "true"
    visit.page.click("#theme")
    assert visit.page.evaluate(colour) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_sideways_scrolling(browser, page, address, model, scheme):
    put_model.put_model(model, page)
    with visiting(browser, viewport={"width": 360, "height": 740}, color_scheme=scheme) as visit:
        visit.open(address)
        visit.fill([*TEXTS, "w" * 300])
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360
        assert visit.page.evaluate("document.querySelector('.scroll').scrollWidth") <= 360
        assert visit.page.get_attribute("#theme", "aria-pressed") == str(scheme == "dark").lower()


def test_a_thousand_lines_are_read_and_a_query_does_not_wait(visit):
    visit.page.fill("#text", "\n".join([*(f"Line number {number}." for number in range(1100)), "Line number 7."]))
    visit.wait("document.querySelector('#counts').textContent.startsWith('1,000')")
    counts = visit.page.inner_text("#counts")
    assert "1 repeated line left out" in counts
    assert "only the first 1,000 are used, 100 more are not" in counts
    visit.page.fill("#query", "Line number 3.")
    visit.wait("document.querySelector('#results .score')?.textContent === '1.000'")
    assert visit.page.locator("#results .line").first.inner_text() == "Line number 3."
    assert visit.page.get_attribute("#results", "aria-busy") == "true"
    assert visit.page.locator("#progress").is_visible()
    visit.page.fill("#text", VIOLIN)
    visit.wait(IDLE)


def test_files_are_dropped_and_chosen(visit, tmp_path):
    drop = """({name, type, text}) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([text], name, {type}));
      document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
    }"""
    visit.page.evaluate(drop, {"name": "cat.png", "type": "image/png", "text": "x"})
    visit.wait("document.querySelector('#notice').textContent.includes('cat.png is not a text file')")
    visit.page.evaluate(drop, {"name": "a.txt", "type": "text/plain", "text": f"{VIOLIN}\r\nA cat.\n"})
    visit.wait("document.querySelector('#text').value.includes('A cat.')")
    assert visit.page.inner_text("#notice") == ""
    (tmp_path / "large.txt").write_text("a line\n" * 300_000)
    visit.page.set_input_files("#file", tmp_path / "large.txt")
    visit.wait("document.querySelector('#notice').textContent.includes('2.1 MB; at most 2 MB')")
    visit.page.fill("#text", "")
    visit.wait("document.querySelectorAll('#results li').length === 0")
    assert "No sentences yet" in visit.page.inner_text("#hint")
    assert visit.page.is_disabled("#save")


def test_a_model_made_anew_is_the_one_that_runs(browser, page, address, model, tmp_path):
    """A browser keeps a file that was old when it came for days, and asks nobody whether it still holds."""
    put_model.put_model(model, page)
    for file in page.rglob("*"):
        os.utime(file, (0, 0))
    with visiting(browser) as visit:
        visit.open(address)
        assert "384 numbers" in visit.page.inner_text("#facts")
        put_model.put_model(int8_model(tmp_path / "mine"), page)
        visit.open(address)
        assert "12 numbers, up to 64 tokens" in visit.page.inner_text("#facts")


def test_a_model_of_the_hub(browser, address, tmp_path):
    """The real Hub is out of reach: its addresses are answered here, from a folder, and nothing else is asked for.

    Its vectors are the first token's, of 64 tokens at most: what transformers.js does by itself with a longer text,
    dropping the closing token, shows in them; so does its default prompt.
    """
    folder = int8_model(tmp_path / "mine", prompt="the big cat: ")
    hub = "https://huggingface.co/org/mine/resolve/main/"
    with visiting(browser) as visit:
        visit.window.route(f"{hub}**", lambda route: route.fulfill(path=folder / route.request.url.removeprefix(hub)))
        visit.open(f"{address}?model=org/mine")
        visit.fill(["the dog runs", "a big red house", *(f"the {word} " * 40 for word in ("cat", "dog", "big", "red"))])
        by_text = visit.vectors()
        facts = visit.page.inner_text("#facts")
    expected = alone(folder, [f"the big cat: {text}" for text in by_text])
    difference = np.abs(np.array(list(by_text.values())) - expected).max(axis=1) / np.abs(expected).max()
    assert difference.max() < 5e-6
    assert "from the Hugging Face Hub" in facts
    assert visit.errors == []
    assert visit.hosts == {"localhost", "huggingface.co"}


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ("", "mine could not be loaded from this server: Could not locate file"),
        ("?model=org/none", "org/none could not be loaded from the Hugging Face Hub: "),
        ("?model=nonsense", '"nonsense" is not a name on the Hub; it has the form owner/name'),
    ],
)
def test_a_model_that_is_not_there_is_told(browser, page, address, ask, said):
    (page / "model.json").write_text(json.dumps({"name": "mine", "folder": "models/local"}))
    with visiting(browser) as visit:
        visit.page.goto(address + ask)
        visit.wait("document.querySelector('#strip').classList.contains('trouble')")
        status = visit.page.inner_text("#status")
        assert said in status
        assert status.endswith("make page.")
        assert visit.page.locator("#progress").is_hidden()


@pytest.mark.parametrize("lack", ["delete globalThis.WebAssembly", "WebAssembly.validate = () => false"])
def test_a_browser_without_webassembly_is_told_plainly(browser, address, lack):
    with visiting(browser) as visit:
        visit.window.add_init_script(lack)
        visit.page.goto(address)
        visit.wait("document.querySelector('#strip').classList.contains('trouble')")
        assert "This page needs WebAssembly" in visit.page.inner_text("#status")
        assert not any("worker" in request for request in visit.requests)
        assert visit.errors == []
