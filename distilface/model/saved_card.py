"""The card of a model that was just saved: what the folder is, and how to use it."""

import json
from typing import Any

from sentence_transformers import SentenceTransformer

from distilface.model.dimensions import with_cut
from distilface.model.families import auto_class
from distilface.model.pooling import pooling_code
from distilface.model.static import is_static, static_code

#: The metadata at the head of a card.
METADATA = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
---
"""


def card(model: SentenceTransformer, name: str, configs: list[dict[str, Any]]) -> str:
    """Return a minimal model card: what the folder is, and how to use it."""
    width, length = model.get_embedding_dimension(), configs[0].get("max_seq_length")
    parameters, named = sum(p.numel() for p in model.parameters()), json.dumps(name)
    read = f"text of up to {length} tokens" if length else "text of any length"
    return f"""{METADATA}
# {name}

A sentence encoder of {parameters:,} parameters: {read} to a vector of {width} numbers.

With [sentence-transformers](https://www.sbert.net):

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({named})
embeddings = model.encode(["The cat sat on the mat.", "A cat was sitting on a rug."])
```

{_alone(model, named)}"""


def _alone(model: SentenceTransformer, named: str) -> str:
    """Return how a model is used without sentence-transformers."""
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    asked = f"sentences = [{json.dumps(prompt)} + sentence for sentence in sentences]\n" if prompt else ""
    start = f"""folder = {named}
sentences = ["The cat sat on the mat.", "A cat was sitting on a rug."]
{asked}"""
    if is_static(model):
        code = "\n".join(with_cut(model, static_code(model)))
        return f"""With numpy alone:

```python
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

{start}{code}
```
"""
    transformer: Any = model[0]
    loader, code = auto_class(transformer.model), "\n".join(with_cut(model, pooling_code(model)))
    read = "from safetensors.torch import load_file\n" if "load_file" in code else ""
    return f"""With transformers alone:

```python
import torch
{read}from transformers import {loader}, AutoTokenizer

{start}tokenizer = AutoTokenizer.from_pretrained(folder)
encoder = {loader}.from_pretrained(folder).eval()
inputs = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
with torch.no_grad():
    output = encoder(**inputs)
{code}
```
"""
