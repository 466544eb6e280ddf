"""Files and batches, as the real provider has them."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.loopback.protocol import Rejection

Answer = Callable[[str, str], tuple[int, Any]]
"""From a request's body and its batch's id to a status and the reply's body."""


@dataclass
class How:
    """How batches go: seconds each, the share that is answered before they expire, how many lines
    a batch may have, whether the reply to their creation is lost, the error that a batch is refused
    with, how many of an output's lines are cut off halfway, how many of the next requests for files
    and batches find the server overloaded, and how many batches may be worked on at once."""

    seconds: float = 0.1
    answered_share: float = 1.0
    most_requests: int = 50_000
    refuse: str | None = None
    refuse_saying: str = "Enqueued token limit reached."
    lose_replies: int = 0
    torn: int = 0
    outages: int = 0
    at_once: int = 1_000


@dataclass
class Batches:
    """All files and batches of one provider."""

    answer: Answer
    how: How = field(default_factory=How)
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    working: set[asyncio.Task[None]] = field(default_factory=set)

    def check_service(self) -> None:
        """Raise a Rejection while there is an outage."""
        if self.how.outages:
            self.how.outages -= 1
            raise Rejection(503, "The engine is overloaded.", kind="server_error")

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("purpose") != "batch":
            raise Rejection(400, "Invalid purpose.", param="purpose")
        sent = form["file"]
        assert isinstance(sent, web.FileField)
        file_id = self._keep(sent.file.read())
        return web.json_response({"id": file_id, "object": "file", "purpose": "batch"})

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["file"]])

    async def create(self, request: web.Request) -> web.Response:
        told = await request.json()
        if (
            told.get("endpoint") != "/v1/chat/completions"
            or told["input_file_id"] not in self.files
        ):
            raise Rejection(400, "Invalid batch.")
        batch = {
            "id": f"batch_{uuid.uuid4().hex}",
            "object": "batch",
            "endpoint": told["endpoint"],
            "completion_window": told["completion_window"],
            "input_file_id": told["input_file_id"],
            "metadata": told.get("metadata"),
            "created_at": int(time.time()),
            "status": "validating",
        }
        self.batches[batch["id"]] = batch
        task = asyncio.ensure_future(self._work_on(batch))
        self.working.add(task)
        task.add_done_callback(self.working.discard)
        if self.how.lose_replies:
            self.how.lose_replies -= 1
            raise Rejection(500, "The server had an error.", kind="server_error")
        return web.json_response(batch)

    async def retrieve(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["batch"])
        if batch is None:
            raise Rejection(404, "No such batch.")
        return web.json_response(batch)

    async def list(self, request: web.Request) -> web.Response:
        found = sorted(self.batches.values(), key=lambda batch: -batch["created_at"])
        return web.json_response({"object": "list", "data": found, "has_more": False})

    def _keep(self, content: bytes) -> str:
        file_id = f"file-{uuid.uuid4().hex}"
        self.files[file_id] = content
        return file_id

    async def _work_on(self, batch: dict[str, Any]) -> None:
        how = self.how
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        others = [one for one in self.batches.values() if one["status"] == "in_progress"]
        if how.refuse or len(lines) > how.most_requests or len(others) >= how.at_once:
            code = how.refuse or "token_limit_exceeded"
            error = {"code": code, "message": how.refuse_saying, "line": None}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [error]}}
            return
        batch["status"] = "in_progress"
        await asyncio.sleep(how.seconds)
        outputs, errors = [], []
        for place, line in enumerate(lines):
            reply = {"id": f"batch_req_{place}", "custom_id": line["custom_id"]}
            if place >= how.answered_share * len(lines):
                error = {"code": "batch_expired", "message": "This request was not executed."}
                errors.append(reply | {"response": None, "error": error})
                continue
            status, body = await asyncio.to_thread(
                self.answer, json.dumps(line["body"]), batch["id"]
            )
            reply |= {"response": {"status_code": status, "body": body}, "error": None}
            (outputs if status == 200 else errors).append(reply)
        for name, replies in (("output_file_id", outputs), ("error_file_id", errors)):
            if replies:
                # Unescaped, as JSON may be, with all that other formats take for a line's end.
                told = [json.dumps(reply, ensure_ascii=False) for reply in replies]
                if name == "output_file_id":
                    told[: how.torn] = [line[: len(line) // 2] for line in told[: how.torn]]
                batch[name] = self._keep("\n".join(told).encode())
        batch["status"] = "completed" if how.answered_share >= 1 else "expired"
