"""A multilingual assistant where none can be downloaded: a teacher's layers under a multilingual vocabulary."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distilface.compression.student import load_backbone, load_student, save_encoder
from distilface.locks import scratch_folder
from distilface.model.families import family_name, is_causal, padding_position, usual_length
from distilface.settings import InputError

#: The special tokens and their roles, in the order of their ids; BERT's names, so that a teacher's rows are found.
SPECIAL = {"[PAD]": "pad_token", "[UNK]": "unk_token", "[CLS]": "cls_token", "[SEP]": "sep_token"}
MASK = "[MASK]"
#: The mark of a word's begin in a Unigram vocabulary.
BEGIN = "▁"
#: Standard deviation of the noise, in that of the teacher's table, on a row with nothing to start from.
NOISE = 0.1


def train_tokenizer(
    texts: Dataset, vocabulary: int = 32_000, max_length: int = 512, lowercase: bool = True, padding: int = 0
) -> PreTrainedTokenizerFast:
    """Train a Unigram tokenizer (arXiv 1804.10959) on sentences of many languages.

    It normalises by NFKC, marks the begins of words, and cuts off punctuation; it gives ``input_ids`` and
    ``attention_mask``, between [CLS] and [SEP].

    Args:
        texts: a column ``text``.
        vocabulary: tokens at most; a small text gives fewer.
        max_length: tokens of a sentence that it cuts at.
        lowercase: read everything in lower case.
        padding: the id of the padding token, from 0 to 4.

    Raises:
        InputError: if the vocabulary cannot hold every character of the text.
    """
    tokenizer, special = Tokenizer(models.Unigram()), [*SPECIAL, MASK]
    special.insert(padding, special.pop(0))
    # Lower-cased as it is, a Turkish capital I with a dot would be two characters that no other word has.
    lower: list[Any] = [normalizers.Replace("İ", "i"), normalizers.Lowercase()] if lowercase else []
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *lower, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(BEGIN), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace(BEGIN)
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=special, unk_token="[UNK]", show_progress=False
    )
    batches = (batch["text"] for batch in texts.select_columns(["text"]).iter(batch_size=1000))
    try:
        tokenizer.train_from_iterator(batches, trainer, length=len(texts))
    except Exception as error:
        if "not large enough" not in str(error):
            raise
        raise InputError(
            f"--vocabulary {vocabulary} cannot hold every character of the text; raise it, as to 32000"
        ) from None
    tokenizer.model = _in_order(tokenizer, special)
    tokenizer.add_special_tokens(special)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
        mask_token=MASK,
        **{role: token for token, role in SPECIAL.items()},
    )


def _in_order(tokenizer: Tokenizer, special: Sequence[str]) -> models.Unigram:
    """Number the pieces of a trained vocabulary by their names, and so alike every time.

    The trainer numbers them by their scores (log probabilities), which it adds up in another order in each run: they
    differ by up to about 0.001, and with them thousands of numbers.
    """
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    pieces = sorted((piece, round(score, 3)) for piece, score in vocabulary if piece not in special)
    return models.Unigram([*((token, 0.0) for token in special), *pieces], unk_id=list(special).index("[UNK]"))


def _teacher_rows(token: str, tokenizer: PreTrainedTokenizerBase, known: dict[str, int]) -> list[int]:
    """Find a token in a teacher's vocabulary: its own row, the rows of its pieces, or none.

    Inside a word it is looked for with WordPiece's mark first; punctuation and Chinese characters, which WordPiece
    makes words of their own, only without.
    """
    bare = token.removeprefix(BEGIN)
    inside = token == bare and bare.isalnum() and bare < "\u2e80"
    for form in (f"##{bare}", token) if inside else (token, bare):
        if form in known:
            return [known[form]]
    rows = tokenizer(bare, add_special_tokens=False)["input_ids"] if bare else []
    return [] if tokenizer.unk_token_id in rows else list(rows)


def new_table(
    table: Tensor, teacher: PreTrainedTokenizerBase, tokenizer: PreTrainedTokenizerBase, seed: int = 0
) -> Tensor:
    """Make the word embeddings of a new vocabulary from a teacher's.

    A row is the teacher's own where it has the token, else the mean of the teacher's pieces of it, else (another
    script) the mean of the whole table with a little noise.

    Args:
        table: the teacher's, shape (V, width).
        teacher: the teacher's tokenizer.
        tokenizer: the new one, of V' tokens.
        seed: the seed of the noise.

    Returns:
        A table of shape (V', width).
    """
    generator, known = torch.Generator().manual_seed(seed), teacher.get_vocab()
    noise = torch.randn(len(tokenizer), table.shape[1], generator=generator)
    embeddings = table.mean(0) + NOISE * table.std() * noise
    for token, row in tokenizer.get_vocab().items():
        if rows := _teacher_rows(token, teacher, known):
            embeddings[row] = table[rows].mean(0)
    return embeddings


def make_assistant(
    teacher: str,
    texts: Dataset,
    vocabulary: int = 32_000,
    layers: Sequence[int] | None = None,
    *,
    normalize: bool = False,
    max_seq_length: int | None = None,
    dropout: float | None = None,
    seed: int = 0,
) -> SentenceTransformer:
    """Make an assistant: the layers of an English teacher under a vocabulary trained on multilingual text.

    Args:
        teacher: a Hub id or a folder; BERT or DistilBERT where layers are to be kept later.
        texts: sentences of all the languages, a column ``text``.
        vocabulary: tokens of the new vocabulary.
        layers: which of the teacher's layers, cut into a DistilBERT; ``None`` keeps the encoder whole.
        normalize: end in unit length, as a teacher that does.
        max_seq_length: tokens that it reads; ``None``: as many as it has positions.
        dropout: the encoder's dropout in training; ``None`` keeps its own.
        seed: the seed of the new rows' noise.

    Raises:
        InputError: as :func:`distilface.compression.student.load_backbone` and :func:`train_tokenizer`, or of a
            decoder.
    """
    encoder: Any
    encoder, old = load_backbone(teacher, layers)
    if is_causal(encoder):
        raise InputError(
            f"{family_name(encoder.config)} reads from left to right; a new vocabulary is put under an encoder that "
            "reads both ways, as BERT: name another teacher"
        )
    lowercase = old.tokenize("A") == old.tokenize("a")
    # RoBERTa's and MPNet's positions are counted from the id of the padding, which must stay.
    padding = padding_position(encoder) or 0
    tokenizer = train_tokenizer(texts, vocabulary, usual_length(encoder, old), lowercase, padding)
    rows = new_table(encoder.get_input_embeddings().weight.detach(), old, tokenizer, seed)
    encoder.set_input_embeddings(nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=tokenizer.pad_token_id))
    encoder.config.vocab_size, encoder.config.pad_token_id = len(rows), tokenizer.pad_token_id
    with scratch_folder() as folder:
        save_encoder(encoder, tokenizer, folder)
        return load_student(folder, normalize=normalize, max_seq_length=max_seq_length, dropout=dropout)
