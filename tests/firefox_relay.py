"""Let Playwright drive a Firefox as its maker builds it, of 140 or newer.

Playwright speaks WebDriver BiDi to such a Firefox, and as it starts it sends commands that Firefox 140, Debian's, does
not know. This program is run in Firefox's place, ``python firefox_relay.py PROGRAM OPTION...``: it starts it, passes
everything on but such commands, and answers those as if they were done, of a newer Firefox too. The tests do without
what they are for: bodies of responses, the folder of downloads, the colour scheme, the size of the screen.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

LISTENS = "WebDriver BiDi listening on "
LARGEST = 1 << 28  # bytes of a message: a picture of the page is one
ANSWERS: dict[str, dict[str, str]] = {
    "browser.setDownloadBehavior": {},
    "emulation.setMediaFeaturesOverride": {},
    "emulation.setScreenOrientationOverride": {},
    "emulation.setScreenSettingsOverride": {},
    "network.addDataCollector": {"collector": "none"},
}


class Relay(WebSocketHandler):
    """Passes messages between Playwright and Firefox."""

    def initialize(self, firefox: str) -> None:
        self.address = firefox

    async def open(self) -> None:
        self.firefox = await websocket_connect(self.address + self.request.path, max_message_size=LARGEST)
        self.answers = asyncio.create_task(self.pass_answers())

    async def on_message(self, message: str) -> None:
        command = json.loads(message)
        if command["method"] in ANSWERS:
            answer = {"type": "success", "id": command["id"], "result": ANSWERS[command["method"]]}
            await self.write_message(json.dumps(answer))
        else:
            await self.firefox.write_message(message)

    async def pass_answers(self) -> None:
        while (message := await self.firefox.read_message()) is not None:
            await self.write_message(message)
        self.close()


async def started(command: list[str]) -> tuple[Process, str]:
    """Start Firefox, and return it with the address that it listens at."""
    firefox = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    while line := (await firefox.stderr.readline()).decode():
        if line.startswith(LISTENS):
            return firefox, line.removeprefix(LISTENS).strip()
    raise SystemExit("Firefox ended before it listened")


async def main(command: list[str]) -> None:
    """Start Firefox, say where this program listens as Firefox would, and end with it."""
    firefox, address = await started(command)
    application = Application([(".*", Relay, {"firefox": address})], websocket_max_message_size=LARGEST)
    sockets = bind_sockets(0, "localhost")
    HTTPServer(application).add_sockets(sockets)
    print(f"{LISTENS}ws://localhost:{sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    while await firefox.stderr.readline():
        pass
    await firefox.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
