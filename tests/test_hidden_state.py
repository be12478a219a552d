"""A narrower hidden state: exact where channels carry nothing, nearer than a plain choice elsewhere, and its folder."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from exported import PAIRS_SET, TEXTS, cosines
from refusals import refusal
from runs import train
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny import on_one_thread, random_bert, save_bert, sentences, write_content
from transformers import DistilBertConfig

from distilface import cli
from distilface.cards.card import make_card
from distilface.compression.hidden import check_hidden_size, narrow_hidden, needed_channels, needed_heads
from distilface.compression.layers import cut_layers
from distilface.compression.student import load_backbone, load_student
from distilface.data.drawn import drawn
from distilface.exporters import exporting
from distilface.light import LightEncoder
from distilface.methods import find_method
from distilface.model.folder import load
from distilface.settings import InputError, parse

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
WIDTH, SIZE = 64, 32


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return a DistilBERT of 64 channels whose layers say much, and its tokenizer."""
    _, tokenizer = load_backbone(str(save_bert(tmp_path_factory.mktemp("bert"))))
    bert = random_bert(layers=2, vocab_size=200, hidden_size=WIDTH, intermediate_size=96)
    return cut_layers(bert, [0, 1]).eval(), tokenizer


def of_half(whole, chosen: torch.Tensor):
    """Have an encoder use the chosen channels and the first two heads alone, in a way that a narrower one can repeat.

    Whatever is added to the state is centred over the chosen channels and 0 elsewhere, and the norms scale all of them
    alike: the norm of the whole state is then that of the chosen channels, but for a factor.
    """
    draw = torch.Generator().manual_seed(7)
    inside = torch.zeros(WIDTH)
    inside[chosen] = 1

    def centred(weight: torch.Tensor) -> None:
        """Centre what a table's rows, or the columns of a map, add to the state."""
        values = torch.randn(weight.shape, generator=draw) * inside
        weight.copy_((values - values.sum(-1, keepdim=True) / SIZE) * inside)

    with torch.no_grad():
        for table in (whole.embeddings.word_embeddings, whole.embeddings.position_embeddings):
            centred(table.weight)
        norms = [whole.embeddings.LayerNorm]
        for layer in whole.transformer.layer:
            norms += [layer.sa_layer_norm, layer.output_layer_norm]
            for linear in (layer.attention.out_lin, layer.ffn.lin2):
                turned = torch.empty(linear.weight.T.shape)
                centred(turned)
                linear.weight.copy_(turned.T)
                centred(linear.bias)
            layer.attention.out_lin.weight[:, WIDTH // 2 :] = 0
        for norm in norms:
            norm.weight.fill_(0.8)
            centred(norm.bias)
    return whole


def last_states(encoder, tokenizer, texts=TEXTS) -> torch.Tensor:
    with torch.no_grad():
        rows = [tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"] for text in texts]
        return torch.cat([encoder.eval()(input_ids=ids).last_hidden_state[0] for ids in rows])


def test_it_is_the_encoder_where_the_other_channels_carry_nothing(encoder):
    chosen = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(2))[:SIZE].sort().values
    whole = of_half(cut_layers(encoder[0], [0, 1]).eval(), chosen)
    narrow, widening, record = narrow_hidden(whole, encoder[1], sentences(300), SIZE)
    assert record == {"size": SIZE, "of": WIDTH, "missed": 0.0}
    assert (narrow.config.dim, narrow.config.n_heads) == (SIZE, 2)
    want, seen = last_states(whole, encoder[1]), widening(last_states(narrow, encoder[1])).detach()
    # Where the chosen channels sum to 0 one of them is the others' negative sum, so the map back is not unique: the
    # ridge that chooses leaves a thousandth.
    torch.testing.assert_close(seen, want, atol=5e-3, rtol=0)
    rows = [torch.tensor([ids]) for ids in encoder[1](TEXTS)["input_ids"]]
    with torch.no_grad():
        assert torch.equal(needed_channels(whole, rows, SIZE), chosen)


def of_channels(name: str, weight: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """Return a weight's part for the channels, and of the attention for the first two heads."""
    kind = name.split(".")[-2]
    if kind in ("q_lin", "k_lin", "v_lin"):
        weight = weight[: WIDTH // 2]
        return weight if weight.ndim == 1 else weight[:, channels]
    if kind == "lin1":
        return weight if weight.ndim == 1 else weight[:, channels]
    if kind in ("word_embeddings", "position_embeddings"):
        return weight[:, channels]
    return weight[channels][:, : WIDTH // 2] if name.endswith("out_lin.weight") else weight[channels]


def test_what_is_missed_by_numpy_is_less_than_of_channels_alone(encoder):
    whole, tokenizer = encoder
    texts = sentences(300)
    narrow, widening, record = narrow_hidden(whole, tokenizer, texts, SIZE)
    want, states = (last_states(each, tokenizer, texts).double().numpy() for each in (whole, narrow))
    seen = states @ widening.weight.detach().double().numpy().T + widening.bias.detach().double().numpy()
    about = ((want - want.mean(0)) ** 2).sum()
    missed = ((want - seen) ** 2).sum() / about
    assert record["missed"] == pytest.approx(missed, abs=1e-3)
    # The same channels of every weight, without least squares but for the last map.
    rows = [torch.tensor([ids]) for ids in tokenizer(texts)["input_ids"]]
    with torch.no_grad():
        channels = needed_channels(whole, rows, SIZE)
    plain = cut_layers(narrow, [0, 1])
    plain.load_state_dict({name: of_channels(name, weight, channels) for name, weight in whole.state_dict().items()})
    states = last_states(plain, tokenizer, texts).double().numpy()
    inputs = np.concatenate([states, np.ones((len(states), 1))], 1)
    left = np.linalg.lstsq(inputs, want, rcond=None)[1].sum() / about
    assert missed < 0.9 * left


def test_a_step_is_fitted_to_held_out_texts_by_chance_alone():
    """Both as many of as many, of 3,000 evenly: once they were the very same, and a fitted student looked better."""
    texts = Dataset.from_dict({"text": [f"text {number:04}" for number in range(3000)]})
    held = {texts["text"][row] for row in np.linspace(0, 2999, 300).astype(int)}
    chosen = drawn(texts, 300)
    assert len({*chosen} & held) < 60  # 30 by chance
    assert chosen == sorted(set(chosen)) == drawn(texts, 300)
    assert drawn(texts, 5000) == texts["text"][:]


@pytest.mark.parametrize("size", [24, 48, 64, 0])
def test_a_size_that_cannot_be_is_refused(size, encoder):
    with pytest.raises(InputError, match=rf"--hidden_size {size} must be a multiple of 32 below .* 64.*: at most 32"):
        narrow_hidden(*encoder, TEXTS, size)


@pytest.mark.parametrize(
    ("width", "heads", "size", "words"),
    [(768, 12, 736, "of 64 .*at most 704"), (768, 16, 528, "of 96 .*at most 672"), (312, 12, 288, "of 416 .*none")],
)
def test_channels_are_of_whole_heads_and_whole_blocks(width, heads, size, words):
    config = DistilBertConfig(dim=width, n_heads=heads)
    with pytest.raises(InputError, match=f"a multiple {words}"):
        check_hidden_size(config, size)
    if "at most" in words:
        check_hidden_size(config, int(words.split()[-1]))


def test_the_heads_that_vary_most_stay():
    """By numpy: the variance over the tokens of what each head adds to the state."""
    draw = np.random.default_rng(3)
    context, weight = draw.normal(size=(50, 24)) * np.repeat([1, 5, 2, 4], 6), draw.normal(size=(10, 24))
    added = [(context[:, at : at + 6] @ weight[:, at : at + 6].T).var(0).sum() for at in (0, 6, 12, 18)]
    chosen = sorted(np.argsort(added)[-2:])
    kept = needed_heads(torch.from_numpy(context), torch.from_numpy(weight), 4, 2)
    assert kept.tolist() == [6 * head + place for head in chosen for place in range(6)]


@pytest.fixture(scope="module")
def small(materials, tmp_path_factory):
    """Train a student of 32 channels whose layers run twice, on the grid of 4 bits, and export it."""
    place = tmp_path_factory.mktemp("small")
    transformer = Transformer(str(save_bert(place / "bert")))
    modules = [transformer, Pooling(WIDTH, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(place / "teacher"), create_model_card=False)
    text = write_content(place / "text.txt", "\n".join(dict.fromkeys(sentences(120))) + "\n")
    words = ["--teacher", place / "teacher", "--cache_dir", place / "cache", "--data", text]
    words += ["--output_dir", place / "m", "--hidden_size", SIZE, "--feed_forward", "64", "--layer_runs", "2"]
    words += ["--bits", "4", "--dev", materials.pairs, "--steps", "12", "--eval_steps", "6"]
    with on_one_thread():
        run = train("embedding", [str(word) for word in [*words, "--batch_size", "8", "--bf16", "no"]])
        results = exporting.export(place / "m", PAIRS_SET, ["q4"])
    return place / "m", run, results["q4"]


def test_the_folder_lies_in_the_teachers_space(small):
    """An Albert of 32 channels, a Dense that gives 64 numbers, and the length that the teacher's vectors have."""
    folder, run, _ = small
    student = load(folder)
    assert [type(module) for module in student][-2:] == [Dense, Normalize]
    assert (student[0].model.config.hidden_size, student.get_embedding_dimension()) == (SIZE, WIDTH)
    steps = {step["step"]: step for step in run["compression"]}
    assert list(steps) == ["hidden state", "width", "shared layers", "bits"]
    assert (steps["hidden state"]["size"], steps["hidden state"]["of"]) == (SIZE, WIDTH)
    assert steps["shared layers"] == {"step": "shared layers", "layers": 2, "runs": 2}
    card = " ".join(make_card(folder)[0].split())
    assert "Its hidden state has 32 of 64 channels: those that the layers need most" in card
    assert "Each of its 2 layers runs 2 times in a row." in card


def test_info_counts_the_layers_that_run_and_those_that_differ(small):
    lines = cli.run(["info", str(small[0])])
    assert lines[0].startswith(f"{small[0]}: albert, 4 layers (2 different ones) of 32, ")


def test_the_file_of_4_bits_gives_its_vectors(small):
    folder, _, parity = small
    assert parity.refused is None
    vectors = LightEncoder(folder, "q4").encode(TEXTS)
    assert vectors.shape == (len(TEXTS), WIDTH)
    assert cosines(vectors, load(folder).encode(TEXTS)).min() > 0.9999


def test_further_training_says_that_the_map_is_lost(small, caplog):
    """An encoder is what a backbone gives: its folder's ``Dense`` stays behind."""
    student = load_student(str(small[0]))
    assert student.get_embedding_dimension() == SIZE
    assert (
        f"{small[0]} ends in a linear layer, which is not its encoder's: the student starts without it" in caplog.text
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--hidden_size", "32", "--pooling", "last4"], "--hidden_size 32 fits a map to the last layer's states"),
        (["--layer_runs", "2", "--bits", "2"], "--layer_runs 2 puts a map behind the token table"),
    ],
)
def test_steps_that_cannot_be_together_are_refused(words, sentence, materials, tmp_path):
    method = find_method("distill")
    settings = parse(method.Settings, materials.words("embedding", tmp_path / "m", *words), "")
    assert sentence in refusal(method.train, settings)
    assert not (tmp_path / "m").exists()


def test_leaf_adds_no_second_map(small, tmp_path):
    """The student of a narrower hidden state ends in a map to the teacher's width, which is what LEAF would add."""
    place = small[0].parent
    words = ["--teacher", place / "teacher", "--data", place / "text.txt", "--output_dir", tmp_path / "m"]
    words += ["--hidden_size", SIZE, "--dev", "none", "--held_out", "20", "--steps", "2", "--batch_size", "8"]
    run = train("leaf", [str(word) for word in [*words, "--eval_steps", "2", "--bf16", "no"]])
    assert run["compression"][0]["step"] == "hidden state"
    assert [type(module) for module in load(tmp_path / "m")][2:] == [Dense, Normalize]


def test_a_static_student_has_no_hidden_state(tmp_path):
    method = find_method("distill")
    words = ["--static", "true", "--hidden_size", "32", "--output_dir", str(tmp_path / "m")]
    with pytest.raises(InputError, match="exclude each other"):
        parse(method.Settings, words, "")
