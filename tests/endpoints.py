"""An endpoint on loopback that speaks as OpenAI's, and fails as it is asked to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: What stands in the place of an answer: a status with its headers and body, or ``None`` for a connection cut short.
Failure = tuple[int, dict[str, str], Any] | None


class Endpoint:
    """A server of embeddings.

    Attributes:
        url: with ``/v1``.
        vectors: what it embeds texts by.
        failures: what it answers with instead, the first of them first.
        change: what is done to a good answer before it is sent.
        most: the requests that it answers; those after them it refuses for the moment.
        requests: the bodies of all requests that were answered.
        keys: the header of the key of each, or ``None``.
    """

    def __init__(self, vectors: Callable[[list[str]], list[list[float]]]) -> None:
        self.vectors, self.url = vectors, ""
        self.failures: list[Failure] = []
        self.most: int | None = None
        self.change: Callable[[dict[str, Any]], Any] = lambda answer: answer
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def sent(self) -> list[str]:
        """All texts that were embedded, in the order of the requests."""
        return [text for request in self.requests for text in request["input"]]

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Answer with the last text first: the order of OpenAI's answer is that of ``index``."""
        vectors = self.vectors(body["input"])
        data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"object": "list", "data": data[::-1], "model": body["model"], "usage": {"total_tokens": 1}}


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Serve an endpoint on a free port, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            endpoint.keys.append(self.headers["Authorization"])
            if self.path != "/v1/embeddings":
                return self.send(404, {}, {"error": {"message": f"no {self.path}"}})
            if endpoint.failures:
                failure = endpoint.failures.pop(0)
                return self.cut() if failure is None else self.send(*failure)
            if len(endpoint.requests) == endpoint.most:
                return self.send(503, {}, "")
            endpoint.requests.append(body)
            return self.send(200, {}, endpoint.change(endpoint.answer(body)))

        def send(self, status: int, headers: dict[str, str], body: Any) -> None:
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def cut(self) -> None:
            """Promise more than is sent, and close the connection."""
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b'{"data": [')
            self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
