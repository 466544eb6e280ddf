"""A provider of chat completions and batches on loopback, in a process of its own.

    python -m tests.loopback.provider --port 8123 --log requests.jsonl

It checks a request as the real one does, enforces limits on requests and tokens over a sliding
minute, answers by looking at it, writes a line a request to the log, and misbehaves when told to:
POST to /control/faults a list of faults, each

    {"kind": "429", "times": 2, "match": "", "retry_after": "0.3", "retry_after_ms": null,
     "seconds": 0}

The first whose `match` occurs in the request is used, and used up after `times` (-1: never). The
kind `body` answers with `status` and the text in `body`; with `field`, only requests that have a
field of this name.
DELETE /control/faults forgets them all. POST to /control/limits sets {"requests", "tokens",
"window_s"}, and to /control/batches how batches go (see tests/loopback/batches.py).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.loopback.batches import Batches, How
from tests.loopback.completion import asked_tokens, completion, without_pictures
from tests.loopback.faults import BROKEN_OFF, REJECTIONS, Fault, Faults
from tests.loopback.listing import TOKENIZERS
from tests.loopback.protocol import Rejection, check_body, check_key
from tests.loopback.sliding import SlidingLimits

KEY = "loopback-key-0123456789"
MODELS = ("gpt-4o", "gpt-4o-mini", *TOKENIZERS)
DEPLOYMENT = "my-deployment"
_LARGEST_BODY = 2**30


class Provider:
    """One running provider. plain: answer without looking, and log no bodies, for measurements."""

    def __init__(
        self,
        log: Path,
        key: str,
        models: tuple[str, ...],
        limits: SlidingLimits,
        latency_s: float = 0.0,
        plain: bool = False,
    ) -> None:
        self._key, self._models, self._limits = key, models, limits
        self._latency_s, self._plain = latency_s, plain
        self._faults = Faults()
        self._batches = Batches(self._answer_in_batch)
        self._in_flight = 0
        self._looking = ThreadPoolExecutor(max_workers=1)
        self._log = log.open("a", encoding="utf-8", buffering=1)
        self._writing = threading.Lock()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._in_its_words])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._complete),
                web.post("/openai/deployments/{deployment}/chat/completions", self._complete),
                web.post("/control/faults", self._misbehave),
                web.delete("/control/faults", self._behave),
                web.post("/control/limits", self._set_limits),
                web.post("/control/batches", self._set_batches),
            ]
        )
        for root in ("/v1", "/openai"):
            app.add_routes(
                [
                    web.post(f"{root}/files", self._batches.upload),
                    web.get(f"{root}/files/{{file}}/content", self._batches.content),
                    web.post(f"{root}/batches", self._batches.create),
                    web.get(f"{root}/batches", self._batches.list),
                    web.get(f"{root}/batches/{{batch}}", self._batches.retrieve),
                ]
            )
        return app

    @web.middleware
    async def _in_its_words(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if not request.path.startswith("/control/"):
                self._check_key(request)
                if "/files" in request.path or "/batches" in request.path:
                    self._batches.check_service()
            response = await handler(request)
        except web.HTTPNotFound:
            rejection = Rejection(404, f"Invalid URL ({request.method} {request.path})")
            response = web.json_response(rejection.body(), status=404)
        except Rejection as rejection:
            response = web.json_response(
                rejection.body(), status=rejection.status, headers=rejection.headers
            )
        response.headers["x-request-id"] = f"req_{os.urandom(8).hex()}"
        return response

    def _check_key(self, request: web.Request) -> None:
        given = request.headers.get("authorization")
        if request.path.startswith("/openai/"):
            given = f"Bearer {request.headers.get('api-key', '')}"
            if not request.query.get("api-version"):
                raise Rejection(404, "Resource not found")
        try:
            check_key(given, self._key)
        except Rejection:
            self._write(**self._line(request, ""), status=401, answered=False)
            raise

    async def _misbehave(self, request: web.Request) -> web.Response:
        self._faults.orders += [Fault(**given) for given in await request.json()]
        return web.json_response({})

    async def _behave(self, request: web.Request) -> web.Response:
        self._faults.orders.clear()
        self._limits = SlidingLimits(None, None)
        self._batches.how = How()
        return web.json_response({})

    async def _set_limits(self, request: web.Request) -> web.Response:
        self._limits = SlidingLimits(**await request.json())
        return web.json_response({})

    async def _set_batches(self, request: web.Request) -> web.Response:
        self._batches.how = How(**await request.json())
        return web.json_response({})

    def _line(self, request: web.Request, text: str) -> dict[str, Any]:
        return {
            "time": time.time(),
            "in_flight": self._in_flight,
            "digest": hashlib.sha256(text.encode()).hexdigest(),
            "client_request_id": request.headers.get("x-client-request-id"),
            "user_agent": request.headers.get("user-agent"),
        }

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        begun = time.monotonic()
        self._in_flight += 1
        text = (await request.read()).decode()
        line = self._line(request, text)
        fault: Fault | None = None
        headers: dict[str, str] = {}
        try:
            body = _parse(text)
            line["asked_tokens"] = asked_tokens(body)
            headers = self._limits.admit(line["asked_tokens"])
            line["body"] = None if self._plain else await self._off_loop(without_pictures, body)
            deployment = request.match_info.get("deployment")
            if deployment is not None:
                if deployment != DEPLOYMENT:
                    raise Rejection(404, "No such deployment.", code="DeploymentNotFound")
                body["model"] = self._models[0]
            if not self._plain:
                await self._off_loop(check_body, body, self._models)
            fault = self._faults.take(text, body)
            line["fault"] = fault.kind if fault else None
            _reject(fault, request.headers.get("authorization", ""))
            if self._latency_s:
                await asyncio.sleep(self._latency_s)
            if fault and fault.kind in BROKEN_OFF:
                self._write(**line, status=None, answered=False)
                return await self._break_off(request, fault)
            if fault and fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
            if fault and fault.kind == "body":
                self._write(**line, status=fault.status, answered=fault.status == 200)
                return web.Response(
                    text=fault.body, status=fault.status, headers=headers | fault.waits()
                )
            said = await self._say(body, text, fault)
        except Rejection as rejection:
            self._write(**line, status=rejection.status, answered=False)
            waits = fault.waits() if fault else {}
            return web.json_response(
                rejection.body(),
                status=rejection.status,
                headers=headers | rejection.headers | waits,
            )
        finally:
            self._in_flight -= 1
        # Who is gone by now gets no answer, and is not charged.
        answered = request.transport is not None and not request.transport.is_closing()
        self._write(**line, status=200, answered=answered, said=said["choices"][0])
        headers["openai-processing-ms"] = str(int((time.monotonic() - begun) * 1000))
        return web.json_response(said, headers=headers)

    async def _say(self, body: dict[str, Any], text: str, fault: Fault | None) -> dict[str, Any]:
        kind = fault.kind if fault else ""
        if self._plain:
            return completion(body, text, kind, plain=True)
        return await self._off_loop(completion, body, text, kind, False)

    def _answer_in_batch(self, text: str, batch: str) -> tuple[int, Any]:
        """See tests/loopback/batches.py."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        body = json.loads(text)
        line = {"time": time.time(), "digest": digest, "batch": batch, "in_flight": 1}
        line["body"] = without_pictures(body)
        fault = None
        if body["model"] == DEPLOYMENT:
            body["model"] = self._models[0]
        try:
            check_body(body, self._models)
            fault = self._faults.take(text, body)
            if fault and fault.kind == "body":
                self._write(**line, status=fault.status, answered=fault.status == 200)
                return fault.status, json.loads(fault.body)
            _reject(fault, f"Bearer {self._key}")
            said = completion(body, text, fault.kind if fault else "", plain=False)
        except Rejection as rejection:
            self._write(**line, status=rejection.status, answered=False)
            return rejection.status, rejection.body()
        self._write(**line, status=200, answered=True, said=said["choices"][0])
        return 200, said

    async def _off_loop(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._looking, work, *arguments)

    async def _break_off(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        transport = request.transport
        if fault.kind == "hang":
            await asyncio.sleep(fault.seconds or 30)
        elif fault.kind == "reset" and transport is not None:
            # A linger of 0 s turns the close into a reset.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, linger
            )
            transport.abort()
        elif fault.kind == "half_body" and transport is not None:
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4000\r\n"
            transport.write(head + b'\r\n{"id": "chatcmpl-1", "choices": [')
            transport.close()
        return web.Response(text="<html>Bad gateway</html>", content_type="application/json")

    def _write(self, **line: Any) -> None:
        with self._writing:
            self._log.write(json.dumps(line) + "\n")


def _reject(fault: Fault | None, authorization: str) -> None:
    if fault and fault.kind in REJECTIONS:
        raise REJECTIONS[fault.kind]
    if fault and fault.kind == "repeats_key":
        # As gateways do that list the headers they got, here after a long preamble.
        raise Rejection(400, f"{'Bad header. ' * 23}{authorization}")


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Rejection(400, "We could not parse the JSON body of your request.") from error


def _end_with_parent() -> None:
    """The parent holds the other end of stdin, which closes however the parent ends."""
    sys.stdin.buffer.read()
    os._exit(0)


async def _serve(provider: Provider, port: int) -> None:
    runner = web.AppRunner(provider.app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=2048)
    await site.start()
    assert site._server is not None
    bound = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    print(f"http://127.0.0.1:{bound}/v1", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--requests-per-minute", type=int)
    parser.add_argument("--tokens-per-minute", type=int)
    parser.add_argument("--latency", type=float, default=0.0, help="of every answer (s)")
    parser.add_argument("--plain", action="store_true", help="answer without looking")
    parser.add_argument("--with-parent", action="store_true", help="end when stdin closes")
    given = parser.parse_args()
    limits = SlidingLimits(given.requests_per_minute, given.tokens_per_minute)
    provider = Provider(
        given.log, given.key, tuple(given.models), limits, given.latency, given.plain
    )
    if given.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(provider, given.port))


if __name__ == "__main__":
    main()
