"""One model on one runtime, timed in a process of its own, which imports only what that runtime needs.

    python benchmarks/speed/worker.py < REQUEST.json

:mod:`benchmarks.speed.rounds` starts it; a request holds the fields of :class:`benchmarks.speed.models.Contender`, the
texts and the threads. The reply is one line of JSON: the time of the first embedding (``ready``, on the clock of
``time.monotonic``), the seconds of each pass over each set of texts (``passes``), those of single texts (``singles``)
and the greatest memory (``peak_mb``, 10^6 bytes). A request with ``matrix`` multiplies square matrices in place of
texts, and its reply holds the operations a second (``peaks``, 10^9).
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

#: Embeds texts, cut to a number of tokens.
Encode = Callable[[list[str], int], Any]
#: Embeds batches of tokens, in their order.
Run = Callable[[list[dict[str, Any]]], list[Any]]
BATCH = 32


def torch_encoder(request: dict[str, Any]) -> Encode:
    """Return ``SentenceTransformer.encode`` as it is, in fp32 or entirely in bf16."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(request["threads"])
    model = SentenceTransformer(request["folder"], device="cpu")
    if request["runtime"] == "torch bf16":
        model = model.bfloat16()

    def encode(texts: list[str], length: int) -> Any:
        model.max_seq_length = length
        return model.encode(texts, batch_size=BATCH, show_progress_bar=False)

    return encode


def file_encoder(request: dict[str, Any]) -> Encode:
    """Return an exported file as an encoder of batches of similar length, with the package tokenizers and no torch."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(request["folder"]) / "tokenizer.json"))
    tokenizer.no_padding()
    run = (openvino_runner if request["file"].endswith(".xml") else onnx_runner)(request)

    def encode(texts: list[str], length: int) -> Any:
        tokenizer.enable_truncation(length)
        rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        order = np.argsort([len(row) for row in rows], kind="stable")
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        embeddings = np.concatenate(run([padded([rows[row] for row in batch], request["pad"]) for batch in batches]))
        embeddings[order] = embeddings.copy()
        return embeddings

    return encode


def padded(rows: list[list[int]], pad: int) -> dict[str, Any]:
    """Return the ids of a batch, padded to its longest text, and their mask: int64, shape (B, T)."""
    import numpy as np

    ids = np.full((len(rows), max(map(len, rows))), pad, np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)], mask[place, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def onnx_runner(request: dict[str, Any]) -> Run:
    """Return an ONNX file as a function of batches, on onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    session = onnxruntime.InferenceSession(request["file"], options, providers=["CPUExecutionProvider"])
    return lambda batches: [session.run(["sentence_embedding"], inputs)[0] for inputs in batches]


def openvino_runner(request: dict[str, Any]) -> Run:
    """Return an OpenVINO file as a function of batches; what is not int8 is fp32, as in the parity check.

    Of several batches each thread computes its own; a single one is computed by all threads, which is sooner.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports every use over the network
    import openvino

    core: Any = openvino.Core()
    common = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": request["threads"]}
    many = {**common, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": request["threads"]}
    compiled: dict[str, Any] = {}

    def ready(name: str, settings: dict[str, Any]) -> Any:
        if name not in compiled:
            compiled[name] = core.compile_model(request["file"], "CPU", settings)
        return compiled[name]

    def run(batches: list[dict[str, Any]]) -> list[Any]:
        if len(batches) == 1:
            return [ready("one", {**common, "PERFORMANCE_HINT": "LATENCY"})(batches[0])["sentence_embedding"]]
        model = ready("many", many)
        requests = [model.create_infer_request() for _ in range(1 + request["threads"])]
        embeddings: list[Any] = []

        def finish() -> None:
            oldest = requests[len(embeddings) % len(requests)]
            oldest.wait()
            embeddings.append(oldest.get_tensor("sentence_embedding").data.copy())

        for number, inputs in enumerate(batches):
            if number >= len(requests):
                finish()
            requests[number % len(requests)].start_async(inputs)
        while len(embeddings) < len(batches):
            finish()
        return embeddings

    return run


def seconds(work: Callable[[], Any]) -> float:
    """Return how long the work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def passes(work: Callable[[], Any], least: float) -> list[float]:
    """Time passes until their sum is ``least`` seconds; the first is not counted, for it allocates and compiles."""
    work()
    times = [seconds(work)]
    while sum(times) < least:
        times.append(seconds(work))
    return times


def peaks(threads: int, size: int, least: float) -> dict[str, float]:
    """Measure 10^9 operations a second of square matrix products, by the precision of the matrices."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    torch.set_num_threads(threads)
    products: dict[str, Callable[[], Any]] = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one, other = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
        products[name] = partial(torch.matmul, one, other)
    random = np.random.default_rng(0)
    left, right = random.integers(0, 127, (2, size, size)).astype(np.uint8)
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", types.UINT8, [size, size])],
        [helper.make_tensor_value_info("c", types.INT32, [size, size])],
        [onnx.numpy_helper.from_array(right.astype(np.int8), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    products["int8"] = partial(session.run, None, {"a": left})
    return {name: 2 * size**3 / min(passes(work, least)) / 1e9 for name, work in products.items()}


def peak_megabytes() -> float:
    """Return the greatest memory of this process so far; the kernel's ``ru_maxrss`` would count its parent's too."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024 / 1e6  # type: ignore[index]
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def reply_to(request: dict[str, Any]) -> dict[str, Any]:
    """Measure what a request asks for, and return the reply."""
    if "matrix" in request:
        return {"peaks": peaks(request["threads"], request["matrix"], request["least"])}
    encode = (torch_encoder if request["runtime"].startswith("torch") else file_encoder)(request)
    first = request["singles"]["texts"]
    encode(first[:1], request["singles"]["length"])
    reply: dict[str, Any] = {"ready": time.monotonic()}
    reply["passes"] = {
        name: passes(partial(encode, work["texts"], work["length"]), request["least"])
        for name, work in request["work"].items()
    }
    reply["singles"] = [seconds(partial(encode, [text], request["singles"]["length"])) for text in first]
    return reply | {"peak_mb": peak_megabytes()}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    print(json.dumps(reply_to(json.load(sys.stdin))))
