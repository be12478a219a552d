"""The file that is fastest on this processor: how it is found, remembered and used."""

import json
import shutil
import time

import numpy as np
import pytest
from exported import as_traced
from tiny import sentences

import distilface
from distilface import cli, environment
from distilface.exporters import exporting
from distilface.light import LightEncoder, fastest, ways
from distilface.light.openvino import multiplies_bf16
from distilface.model.folder import open_folder
from distilface.runtimes import opening
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_home")


@pytest.fixture
def slow(monkeypatch):
    """Have one file win, whatever this machine does meanwhile."""

    def wins(name):
        def measure(encoders, one_by_one):
            for encode in encoders.values():
                assert len(encode(fastest.TEXTS)) == len(fastest.TEXTS)
            return fastest.Choice(name, {each: 1 + (each == name) for each in encoders}, "a processor")

        monkeypatch.setattr(fastest, "measure", measure)

    return wins


def test_a_processor_is_named_with_what_it_can(monkeypatch):
    """Two processors of one name, one with VNNI and one without, must not share a measurement."""
    flags = {"model name": "AMD EPYC", "flags": "fpu avx512_vnni avx2 sse"}
    monkeypatch.setattr(environment, "_cpu_info", lambda key: flags.get(key, ""))
    assert environment.processor() == "AMD EPYC (avx2, avx512_vnni)"
    flags["flags"] = "fpu"
    assert environment.processor() == "AMD EPYC"


def test_the_fastest_is_the_one_of_the_higher_rate(monkeypatch):
    monkeypatch.setattr(fastest, "SECONDS", 0.2)
    calls = []

    def takes(name, seconds):
        def encode(texts):
            calls.append(name)
            time.sleep(seconds)

        return encode

    choice = fastest.measure({"slow": takes("slow", 0.03), "quick": takes("quick", 0.003)})
    assert choice.name == "quick"
    assert 500 < choice.rates["slow"] < 32 / 0.03 + 1 < choice.rates["quick"] < 32 / 0.003 + 1
    assert calls[:6] == ["slow", "quick"] * 3, "they take turns"
    assert str(choice).startswith("quick is the fastest here (")
    assert str(choice).endswith(f"; slow {choice.rates['slow']:,.0f}")


def test_a_measurement_is_remembered(tmp_path, own_home, slow, monkeypatch):
    """A wrong memory would be silent: another file, another number of threads, another processor are measured again."""
    slow("b")
    file = tmp_path / "file"
    file.write_bytes(b"one")
    measured = []

    def opened():
        measured.append(1)
        return {"a": list, "b": list}

    def ask(threads=1):
        return fastest.fastest({"a": [file]}, threads, opened).name

    assert fastest.remembered({"a": [file]}, 1) is None
    assert [ask(), ask(), len(measured)] == ["b", "b", 1]
    assert fastest.remembered({"a": [file]}, 1).rates == {"a": 1, "b": 2}
    ask(threads=2)
    assert len(measured) == 2
    file.write_bytes(b"two")
    ask()
    assert len(measured) == 3
    monkeypatch.setattr(fastest, "processor", lambda: "another")
    ask()
    assert len(measured) == 4
    for memory in (own_home / "fastest").iterdir():
        memory.write_text("{")
    assert [ask(), ask(), len(measured)] == ["b", "b", 5]


@pytest.fixture(scope="module")
def exported_once(students, tmp_path_factory):
    """Export a folder, once for all tests of this file, by the trace that it has."""
    folder = shutil.copytree(students["mean"], tmp_path_factory.mktemp("exported") / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_onnx", as_traced(students["mean"]))
        distilface.export(folder, formats=["onnx", "int8", "quantized"])
    return folder


@pytest.fixture
def exported(exported_once, tmp_path):
    """Return a folder with files of fp32, of int8 weights, and of dynamic int8."""
    return shutil.copytree(exported_once, tmp_path / "model")


@pytest.fixture(scope="module")
def small(students, tmp_path_factory):
    """Return the folder that people download, with a file of 4 bits alone."""
    place, others = tmp_path_factory.mktemp("small") / "small", shutil.ignore_patterns("onnx", "export.json")
    folder = shutil.copytree(students["mean"], place, ignore=others)
    # The first file is the model's own, the second that of the rounded one.
    traces = iter([as_traced(students["mean"]), exporting.to_onnx])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "to_onnx", lambda model, file: next(traces)(model, file))
        distilface.export(folder, formats=["q4"])
    assert not list(traces)
    return folder


def test_the_light_encoder_takes_the_fastest(exported, slow, monkeypatch):
    slow("onnx")
    auto = distilface.load(exported, runtime="auto")
    assert isinstance(auto, LightEncoder)
    assert auto.file.name == "model.onnx"
    assert LightEncoder(exported).file.name == "model_int8.onnx", "the smallest, where nothing is asked"
    texts = sentences(5)
    np.testing.assert_allclose(auto.encode(texts), LightEncoder(exported, "onnx").encode(texts), atol=1e-6)
    (exported / "onnx" / "model_int8.onnx").unlink()
    monkeypatch.setattr(fastest, "fastest", None)
    monkeypatch.setattr(ways, "find_spec", lambda package: None)
    assert distilface.load(exported, runtime="auto").file.name == "model.onnx", "of one there is nothing to measure"
    with pytest.raises(InputError, match="leave out variant='q4'"):
        distilface.load(exported, runtime="auto", variant="q4")


def test_texts_that_come_one_by_one_are_measured_so(exported, own_home, monkeypatch):
    """What is fastest in batches need not be so with one text; each is remembered for itself."""
    monkeypatch.setattr(fastest, "SECONDS", 0.05)
    sizes, offered = [], []

    def encode(texts):
        sizes.append(len(texts))
        time.sleep(1e-5)

    def agreeing(ways, opened):
        offered.append(list(ways))
        return {"onnx": encode, "int8": encode}

    monkeypatch.setattr(fastest, "agreeing", agreeing)
    monkeypatch.setattr("distilface.light.encoder.usable_threads", lambda: 0)
    monkeypatch.setattr("distilface.environment.cores", lambda: 2)
    first = distilface.load(exported, runtime="auto", one_by_one=True)
    assert set(sizes) == {1}
    sizes.clear()
    assert distilface.load(exported, runtime="auto", one_by_one=True).file == first.file
    assert not sizes, "it is remembered"
    distilface.load(exported, runtime="auto")
    assert set(sizes) == {len(fastest.TEXTS)}
    assert not [name for name in offered.pop() if "on one thread" in name], "batches have work for all threads"
    assert [name for name in offered.pop() if "on one thread" in name]
    LightEncoder(exported, "auto", one_by_one=True, threads=2)
    assert not [name for name in offered.pop() if "on one thread" in name], "so many were asked for"
    shutil.rmtree(own_home)
    monkeypatch.setattr("distilface.environment.cores", lambda: 1)
    distilface.load(exported, runtime="auto", one_by_one=True)
    assert not [name for name in offered.pop() if "on one thread" in name], "there is no more than one"
    assert str(fastest.Choice("a", {"a": 2.0}, "p", one_by_one=True)).endswith("2 short texts a second, one by one")


def test_one_by_one_is_of_auto_alone(exported):
    with pytest.raises(InputError, match="one_by_one needs runtime='auto', which chooses the file"):
        distilface.load(exported, one_by_one=True)
    with pytest.raises(InputError, match="one_by_one needs 'auto'"):
        LightEncoder(exported, "onnx", one_by_one=True)
    with pytest.raises(InputError, match=r"both variant='auto' and file='onnx/model\.onnx' are given"):
        LightEncoder(exported, "auto", file="onnx/model.onnx")


def test_encode_takes_the_fastest_of_those_with_one_vector(exported, slow, tmp_path, capsys):
    """Dynamic int8 gives a text another vector in another batch, so it is not among them."""
    slow("int8")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(sentences(20)) + "\n")
    folder = open_folder(str(exported))
    assert opening.known_fastest(folder) is None
    steady = {"onnx", "int8", f"onnx in {ways.BY_ROWS[ways.sums_fit()]}", "onnx on OpenVINO", "int8 on OpenVINO"}
    bf16 = {f"{name} in bf16" for name in ("onnx on OpenVINO", "int8 on OpenVINO") if multiplies_bf16()}
    assert set(opening.fastest_format(folder).rates) == steady | bf16
    assert opening.choose(folder).file.name == "model_int8.onnx"
    assert opening.choose(folder, "int8").file.name == "model_quantized.onnx", (
        "the dynamic one, to those who ask for it"
    )
    cli.run(["encode", str(exported), str(text), str(tmp_path / "auto.npy"), "--variant", "auto"])
    light = LightEncoder(exported, "int8").encode(sentences(20))
    np.testing.assert_allclose(np.load(tmp_path / "auto.npy"), light, atol=1e-6)
    capsys.readouterr()
    cli.run(["info", str(exported)])
    said = capsys.readouterr().out
    assert "--variant auto: int8 is the fastest here (a processor): 2 short texts a second; " in said
    assert 'runtime="auto"' not in said


def test_info_says_what_load_takes(exported, slow, capsys):
    slow("int8")
    cli.run(["info", str(exported)])
    load = f'distilface.load("{exported}", runtime="auto"'
    unmeasured = f"--variant auto and {load}) have not measured yet which way is the fastest here"
    assert unmeasured in capsys.readouterr().out
    distilface.load(exported, runtime="auto")
    cli.run(["info", str(exported)])
    said = capsys.readouterr().out
    assert f"{load}): int8 is the fastest here (a processor): 2 short texts a second; " in said
    assert "one_by_one" not in said
    assert unmeasured not in said
    distilface.load(exported, runtime="auto", one_by_one=True)
    cli.run(["info", str(exported)])
    assert f"{load}, one_by_one=True): int8" in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_encode_runs_what_the_light_encoder_would(exported, slow, tmp_path, precision):
    """The fastest way may be another runtime than the file's own, and another precision."""
    if precision == "bf16" and not multiplies_bf16():
        pytest.skip("this processor has no bf16")
    name = "onnx on OpenVINO" + (" in bf16" if precision == "bf16" else "")
    slow(name)
    (tmp_path / "text.txt").write_text("\n".join(sentences(20)) + "\n")
    report = cli.run(
        ["encode", str(exported), str(tmp_path / "text.txt"), str(tmp_path / "auto.npy"), "--variant", "auto"]
    )
    assert report.rows == 20
    light = LightEncoder(exported).running(ways.ways_of(exported)[name], 1)
    np.testing.assert_allclose(np.load(tmp_path / "auto.npy"), light.encode(sentences(20)), atol=1e-6)
    way = opening.choose(open_folder(str(exported)), "auto")
    encoder = opening.open_file(way, exported)
    assert encoder.name == "onnx/model.onnx " + name.removeprefix("onnx ")
    assert encoder.precision == ("bf16" if precision == "bf16" else "fp32")
    assert encoder.fingerprint != opening.open_file(way.file, exported).fingerprint


@pytest.mark.parametrize(
    ("name", "place", "precision", "near"),
    [
        ("q4 in fp32", "expanded", "fp32", 1e-5),
        ("q4 in int8", "int8", "int8", 0.02),
        ("q4 in int8 by rows", "int8_by_rows", "int8", 0.02),
        ("q4 in paired int8 by rows", "paired_int8_by_rows", "int8", 0.02),
    ],
)
def test_a_file_of_4_bits_is_rewritten_for_encode(small, tmp_path, slow, monkeypatch, name, place, precision, near):
    """Each gives the vectors of the file, near enough, and a report names what it computes in."""
    monkeypatch.setattr(ways, "sums_fit", lambda: "paired" not in name)
    slow(name)
    (tmp_path / "text.txt").write_text("\n".join(sentences(20)) + "\n")
    for variant in ("q4", "auto"):
        words = ["encode", small, tmp_path / "text.txt", tmp_path / f"{variant}.npy", "--variant", variant]
        cli.run([str(word) for word in words])
    way = opening.choose(open_folder(str(small)), "auto")
    assert (way.words, way.path().parent.name) == (name.removeprefix("q4 "), place)
    assert opening.open_file(way, small).precision == precision
    np.testing.assert_allclose(np.load(tmp_path / "auto.npy"), np.load(tmp_path / "q4.npy"), atol=near)


def test_what_is_measured_is_what_is_taken(exported, monkeypatch):
    """The name int8 is also that of the dynamic file, which was once measured in its place."""
    opened, open_file = [], opening.open_file
    monkeypatch.setattr(opening, "open_file", lambda way, *more: opened.append(way.file.name) or open_file(way, *more))
    monkeypatch.setattr(fastest, "SECONDS", 0.01)
    choice = opening.fastest_format(open_folder(str(exported)))
    assert set(opened) == {"model.onnx", "model_int8.onnx"}
    assert choice.rates[choice.name] == max(choice.rates.values())


def test_a_folder_without_such_files_is_a_sentence(exported, tmp_path):
    report = json.loads((exported / "export.json").read_text())
    report["files"] = {name: row for name, row in report["files"].items() if "quantized" in name}
    (exported / "export.json").write_text(json.dumps(report))
    with pytest.raises(InputError, match="has no onnx export of its weights; make it first: distilface export"):
        opening.choose(open_folder(str(exported)), "auto")


def test_auto_gives_each_thread_a_batch(exported, slow, tmp_path):
    """Except of texts that come one by one, and of a file that is asked for by its name."""
    slow("onnx")
    assert LightEncoder(exported, "auto", threads=3)._session._workers == 3
    assert LightEncoder(exported, "auto", threads=3, one_by_one=True)._session._workers == 1
    assert LightEncoder(exported, "onnx", threads=3)._session._workers == 1
    folder, texts = open_folder(str(exported)), sentences(50)
    way = opening.choose(folder, "auto", threads=3)
    assert way.batch_per_thread
    several, one = opening.open_file(way, exported, 3), opening.open_file(way.file, exported, 3)
    assert (several.session._workers, one.session._workers) == (3, 1)
    np.testing.assert_allclose(several.encode(texts), one.encode(texts), atol=1e-6)
    (tmp_path / "model.onnx").write_bytes(b"no file")
    with pytest.raises(InputError, match="cannot be opened"):
        opening.open_file(tmp_path / "model.onnx", exported)
