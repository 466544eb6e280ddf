"""A chat-completions provider on loopback, in a process of its own.

    python -m tests.loopback.provider --port 8123 --log requests.jsonl

It checks a request as the real one does, answers by looking at it, writes a line a request to the
log, and misbehaves when told to: POST to /control/faults a list of faults, each

    {"kind": "429", "times": 2, "match": "", "retry_after": "0.3", "retry_after_ms": null,
     "seconds": 0}

The first whose `match` occurs in the request is used, and used up after `times` (-1: never).
DELETE /control/faults forgets them all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.loopback.looking import look
from tests.loopback.protocol import Rejection, check_body, check_key, open_picture

PATH = "/v1/chat/completions"
KEY = "loopback-key-0123456789"
MODELS = ("gpt-4o", "gpt-4o-mini")

REJECTIONS = {
    "400": Rejection(400, "Something about this request is wrong."),
    "401": Rejection(401, "Incorrect API key provided.", code="invalid_api_key"),
    "403": Rejection(403, "You are not allowed to use this model.", kind="permission_error"),
    "404": Rejection(404, "The model does not exist.", code="model_not_found"),
    "408": Rejection(408, "Timed out.", kind="timeout"),
    "409": Rejection(409, "Locked.", kind="conflict"),
    "429": Rejection(429, "Rate limit reached.", kind="requests", code="rate_limit_exceeded"),
    "500": Rejection(500, "The server had an error.", kind="server_error"),
    "503": Rejection(503, "The engine is overloaded.", kind="server_error"),
    "insufficient_quota": Rejection(
        429,
        "You exceeded your current quota.",
        kind="insufficient_quota",
        code="insufficient_quota",
    ),
    "filtered_request": Rejection(400, "The prompt was filtered.", code="content_filter"),
    "no_json_schema": Rejection(
        400,
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported.",
        param="response_format",
    ),
}


@dataclass
class Fault:
    kind: str
    times: int = 1
    match: str = ""
    retry_after: str | None = None
    retry_after_ms: str | None = None
    seconds: float = 0.0


class Provider(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, port: int, log: Path, key: str, models: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.key = key
        self.models = models
        self.lock = threading.Lock()
        self.faults: list[Fault] = []
        self.in_flight = 0
        self.log = log.open("a", encoding="utf-8", buffering=1)

    def next_fault(self, text: str, has_schema: bool) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.match not in text or (fault.kind == "no_json_schema" and not has_schema):
                    continue
                fault.times -= 1
                if fault.times == 0:
                    self.faults.remove(fault)
                return fault
        return None

    def write(self, **line: Any) -> None:
        with self.lock:
            self.log.write(json.dumps(line) + "\n")

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Provider
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        if self.path == "/control/faults":
            with self.server.lock:
                self.server.faults += [Fault(**given) for given in json.loads(text)]
            self._reply(200, {})
            return
        with self.server.lock:
            self.server.in_flight += 1
        try:
            self._complete(text)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def do_DELETE(self) -> None:
        with self.server.lock:
            self.server.faults.clear()
        self._reply(200, {})

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _complete(self, text: str) -> None:
        line: dict[str, Any] = {
            "time": time.time(),
            "in_flight": self.server.in_flight,
            "digest": hashlib.sha256(text.encode()).hexdigest(),
            "user_agent": self.headers.get("user-agent"),
        }
        fault = None
        try:
            if self.path != PATH:
                raise Rejection(404, f"Invalid URL (POST {self.path})")
            check_key(self.headers.get("authorization"), self.server.key)
            body = _parse(text)
            line["body"] = _without_pictures(body)
            check_body(body, self.server.models)
            fault = self.server.next_fault(text, "response_format" in body)
            line["fault"] = fault.kind if fault else None
            if fault and fault.kind in REJECTIONS:
                raise REJECTIONS[fault.kind]
            if fault and fault.kind == "repeats_key":
                # As gateways do that list the headers they got, here after a long preamble.
                raise Rejection(400, f"{'Bad header. ' * 23}{self.headers['authorization']}")
        except Rejection as rejection:
            self.server.write(**line, status=rejection.status, answered=False)
            self._reply(rejection.status, rejection.body(), _waits(fault))
            return
        if fault and fault.kind in ("hang", "reset", "half_body", "invalid_json"):
            self.server.write(**line, status=None, answered=False)
            self._break_off(fault)
            return
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        completion = _completion(body, text, fault.kind if fault else "")
        self.server.write(**line, status=200, answered=True, said=completion["choices"][0])
        self._reply(200, completion)

    def _break_off(self, fault: Fault) -> None:
        self.close_connection = fault.kind != "invalid_json"
        if fault.kind == "hang":
            time.sleep(fault.seconds or 30)
        elif fault.kind == "reset":
            # A linger of 0 s turns the close into a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fault.kind == "half_body":
            self._send(200, b'{"id": "chatcmpl-1", "choices": [', length=4000)
        elif fault.kind == "invalid_json":
            self._send(200, b"<html>Bad gateway</html>")

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), headers=headers)

    def _send(
        self,
        status: int,
        content: bytes,
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(length or len(content)))
        self.send_header("x-request-id", f"req_{os.urandom(8).hex()}")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Rejection(400, "We could not parse the JSON body of your request.") from error


def _waits(fault: Fault | None) -> dict[str, str]:
    if fault is None:
        return {}
    given = {"retry-after": fault.retry_after, "retry-after-ms": fault.retry_after_ms}
    return {name: value for name, value in given.items() if value is not None}


def _completion(body: dict[str, Any], text: str, fault: str) -> dict[str, Any]:
    said = json.dumps(look(body))
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    finish = "stop"
    if fault == "refusal":
        message |= {"content": None, "refusal": "I'm sorry, I can't assist with that."}
    elif fault == "length":
        message["content"], finish = said[: len(said) // 2], "length"
    elif fault == "content_filter":
        message["content"], finish = "", "content_filter"
    elif fault == "prose":
        message["content"] = "It seems to like all sorts of things."
    elif fault == "empty":
        message["content"] = ""
    elif fault == "many_lines":
        answer = look(body)
        answer["explanation"] = answer["explanation"].replace(" ", "\n\t", 2)
        message["content"] = json.dumps(answer)
    elif "response_format" not in body:
        message["content"] = f"Here is what I found:\n```json\n{said}\n```\nLet me know!"
    return {
        "id": f"chatcmpl-{hashlib.sha256(text.encode()).hexdigest()[:24]}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{body['model']}-2024-08-06",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": _usage(body, message["content"] or ""),
    }


def _usage(body: dict[str, Any], said: str) -> dict[str, int]:
    """Four characters a token, and 85 tokens a picture as for detail low."""
    pictures, characters = 0, 0
    for message in body["messages"]:
        content = message["content"]
        for part in [{"text": content}] if isinstance(content, str) else content:
            pictures += "image_url" in part
            characters += len(part.get("text", ""))
    tokens_in, tokens_out = characters // 4 + 85 * pictures, len(said) // 4 + 1
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _without_pictures(value: Any) -> Any:
    """For the log: a picture is named by its hash, its size and its format."""
    if isinstance(value, dict):
        return {name: _without_pictures(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_pictures(part) for part in value]
    if isinstance(value, str) and value.startswith("data:image/"):
        picture = open_picture(value)
        digest = hashlib.sha256(value.encode()).hexdigest()
        return f"{picture.format} {picture.width}x{picture.height} {digest[:16]}"
    return value


def _end_with_parent() -> None:
    """The parent holds the other end of stdin, which closes however the parent ends."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--key", default=KEY)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--with-parent", action="store_true", help="end when stdin closes")
    given = parser.parse_args()
    server = Provider(given.port, given.log, given.key, tuple(given.models))
    if given.with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
