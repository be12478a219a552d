"""Every command and every snippet of the README and the docs, executed; a table says of the others what runs them."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs_material import STAND_INS, Desk
from tiny import needs_package

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)(?: (\S+))?\n((?:.*\n)*?)```$", re.MULTILINE)
#: Of the shell: a number sign inside a word, as in ``URL#MODEL``, begins none.
COMMENT = re.compile(r"(?:^|\s)#.*$")
#: What is not executed here: a command by its words, a snippet by its page and heading. Each with its reason, and the
#: test or target that runs it.
PYPI = "it installs from PyPI; tests/test_wheel.py installs the wheel"
OWN_VENV = "its packages need an environment of their own; tests/test_card_runtimes.py makes them"
ENDPOINT = "it asks a server; tests/test_endpoint.py has one on loopback"
ELSEWHERE = {
    "pip install -c constraints.txt .": PYPI,
    "pip install -c constraints.txt -e '.[train,offline]'": PYPI,
    "pip install distilface": PYPI,
    "pip install 'distilface[train]'": PYPI,
    "pip install detect-secrets": "another project's package, from PyPI; no test",
    "detect-secrets scan --all-files models/minilm-l3": "another project's command; no test",
    "make demo": "it makes an environment; tests/test_benchmark_scripts.py runs training/demo.py in small",
    "make test": "it runs the tests",
    "make page": "it needs npm; tests/test_page_browser.py",
    "python -m pytest -q tests/test_leaf.py": "make test runs these tests",
    "python -m pytest -q tests/test_registry.py tests/test_scripts.py tests/test_train.py tests/test_card.py -k leaf": (
        "make test runs these tests"
    ),
    "torchrun --nproc_per_node 2 -m distilface train distill --config minilm-l3 --data TEXT.txt "
    "--output-dir models/mine": "it starts two processes; tests/test_processes.py",
    "OPENAI_API_KEY=... distilface train leaf --teacher https://api.openai.com/v1#text-embedding-3-small --backbone "
    "sentence-transformers/all-MiniLM-L6-v2 --data TEXT.txt --dev none --output-dir models/mine": ENDPOINT,
    "distilface train distill --teacher http://127.0.0.1:8000/v1#NAME --backbone ID_OR_FOLDER --data TEXT.txt": (
        ENDPOINT
    ),
    "distilface push models/minilm-l3 --repo-id org/distilface --tag v1": (
        "it asks before it publishes; tests/test_publish.py answers"
    ),
    "distilface encode models/minilm-l3 texts vectors": "it embeds the reader's files; tests/test_parts.py",
    "distilface encode models/minilm-l3 s3://bucket/texts s3://bucket/vectors --engine ray --threads 4": (
        "it needs the extra ray and a store; tests/test_parts_ray.py, where they are installed"
    ),
    "distilface encode models/minilm-l3 lines.txt vectors.parquet --engine ray --workers 8 --threads 1": (
        "it needs the extra ray; tests/test_encode.py, where that is installed"
    ),
    "distilface train distill --config minilm --table_rank 192 --bits 4 --data TEXT.txt": (
        "its stand-in for the teacher is narrower than the rank; tests/test_low_rank.py"
    ),
    "distilface train distill --config minilm --layers 0 2 4 5 --hidden_size 320 --bits 4 --data TEXT.txt "
    "--output-dir models/narrow": ("its stand-in for the teacher is narrower; tests/test_hidden_state.py"),
    "training/family.sh TEXT models/family --dev none": "four trainings; tests/test_family_script.py runs it in small",
    "python benchmarks/run_speed.py --output speed.json": "fifteen minutes; tests/test_speed.py runs it in small",
    "python -m benchmarks.speed.cold_start --output cold-start.json": (
        "two minutes of new processes; tests/test_light.py starts one"
    ),
    "python -m benchmarks.training_cost.step --length 12 --batch_size 16 --output step-cost.json": (
        "minutes; tests/test_training_cost.py runs it in small"
    ),
    "python benchmarks/run_works_with.py --output works-with.json": (
        "it makes environments from PyPI and npm; tests/test_run_works_with.py"
    ),
    "python -m benchmarks.training_cost.memory --rows 1000000 5000000 20000000 --output memory.json": (
        "an hour; tests/test_training_cost.py runs it in small"
    ),
    "python -m benchmarks.training_cost.plot_memory --result memory.json --output memory.png": (
        "it draws what an hour measured; tests/test_training_cost.py draws"
    ),
    "python benchmarks/run_glue.py --max-train 8000 --epochs 2 --learning-rate 1e-4 --data-dir GLUE --ways ce kd "
    '"kd+l2 weight=0.1" "kd+codir weight=0.3"': "sixty trainings; tests/test_glue.py runs it in small",
    'python benchmarks/run_seeds.py --script codir --seeds 1 2 3 --variants "weight=0" "weight=0.01" "weight=0.1" '
    "--no_relatives --data-dir STS --output FILE.json -- --config minilm-l3-codir --data TEXT... --max_sentences 20000 "
    "--dev DEV.jsonl --steps 300 --batch_size 64 --eval_steps 150 --output_dir models/codir": (
        "nine trainings; tests/test_benchmark_scripts.py runs variants in small"
    ),
    "python benchmarks/run_crosslingual.py --model models/xx-minilm-small --stsb-dir STSB_XX --sts17-dir STS17": (
        "it scores every stage of a training; tests/test_crosslingual.py has one"
    ),
    "runtimes.md, transformers.js": OWN_VENV,
    "runtimes.md, fastembed": OWN_VENV,
    "runtimes.md, LangChain": OWN_VENV,
    "runtimes.md, LlamaIndex": OWN_VENV,
    "runtimes.md, Haystack": OWN_VENV,
    "runtimes.md, optimum": OWN_VENV,
}


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: that it stands in.
        heading: the last one before it.
        language: of the code.
        quoted: the file that it is quoted from, which ``test_docs.py`` checks.
    """

    page: Path
    heading: str
    language: str
    quoted: str
    code: str

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.page.name}, {self.heading}"

    def commands(self) -> list[str]:
        """Return the commands of a block of the shell, each on one line and without its comment."""
        lines = [COMMENT.sub("", line) for line in self.code.replace("\\\n", "").splitlines()]
        return [" ".join(line.split()) for line in lines if line.strip()]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of code of a page."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in BLOCK.finditer(text):
        headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text[: match.start()]), re.MULTILINE)
        found.append(Block(page, headings[-1], match[1], match[2] or "", match[3]))
    return found


def all_blocks() -> Iterator[Block]:
    """Yield the blocks of all pages."""
    for page in PAGES:
        yield from blocks(page)


def test_the_table_names_what_stands_in_the_docs():
    """An entry that no page has any more would hide the next command that is not executed."""
    named = {command for block in all_blocks() if block.language == "bash" for command in block.commands()}
    named |= {block.name for block in all_blocks() if block.language in ("python", "js")}
    assert not set(ELSEWHERE) - named
    languages = {block.language for block in all_blocks()}
    assert languages <= {"bash", "python", "js", "json", "yaml", ""}, "each is executed, read, or in the table"
    assert {block.name for block in all_blocks() if block.language == "js"} <= set(ELSEWHERE)
    for block in all_blocks():
        if block.language == "json":
            json.loads(block.code)
    tests = re.findall(r"tests/\w+\.py", " ".join(ELSEWHERE.values()))
    assert all((ROOT / test).is_file() for test in tests)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Yield a reader's desk: the checkout, what the docs name, and a Hub."""
    with Desk(tmp_path_factory.mktemp("desk")) as ready:
        yield ready


def failures(desk: Desk, block: Block) -> list[str]:
    """Execute a block; return what failed, each with the end of what it printed."""
    failed = []
    if block.language == "python" and not block.quoted and block.name not in ELSEWHERE:
        place = desk.place(block.code)
        (place / "snippet.py").write_text(block.code)
        done = desk.run(place, place / "snippet.py", [])
        failed += [f"{block.name}:\n{block.code}\n{done.stderr[-1500:]}"] if done.code else []
    for command in block.commands() if block.language == "bash" else []:
        if command not in ELSEWHERE:
            place = desk.place(command)
            done = desk.run(place, *script(place, [STAND_INS.get(word, word) for word in shlex.split(command)]))
            failed += [f"{block.page.name}: {command}\n{done.stderr[-1500:]}"] if done.code else []
    return failed


def script(place: Path, words: list[str]) -> tuple[Path, list[str]]:
    """Return the file that a command runs, and its own words; another program is not known, and fails."""
    program, first, *rest = words
    if program == "distilface":
        return ROOT / "distilface" / "__main__.py", [first, *rest]
    assert program == "python", f"{shlex.join(words)}: neither executed nor in the table"
    if first != "-m":
        return place / first, rest
    spec = find_spec(rest[0])
    assert spec is not None
    assert spec.origin is not None
    return place / Path(spec.origin).relative_to(ROOT), rest[1:]


@needs_package
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_and_snippets_run(page, desk):
    """Each in a folder of its own, with small stand-ins for the models and the text that a reader brings."""
    failed = [failure for block in blocks(page) for failure in failures(desk, block)]
    assert not failed, "\n\n".join(failed)


def test_a_command_that_is_not_known_fails(tmp_path):
    """Silent if broken: a command of another program would count as executed."""
    with pytest.raises(AssertionError, match="neither executed nor in the table"):
        script(tmp_path, ["accelerate", "launch"])
