"""The provider on loopback as a server that the program starts for itself.

    python -m tests.loopback.served --port 8123 --log requests.jsonl --models llava

Beside the provider's own it answers GET /v1/models; the key is in VLLM_API_KEY, as vLLM takes it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from aiohttp import web

from tests.loopback.provider import Provider
from tests.loopback.sliding import SlidingLimits


async def _serve(provider: Provider, models: list[str], port: int) -> None:
    async def offered(_: web.Request) -> web.Response:
        listed = [{"id": model, "object": "model"} for model in models]
        return web.json_response({"object": "list", "data": listed})

    app = provider.app()
    app.router.add_get("/v1/models", offered)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--latency", type=float, default=0.0, help="of every answer (s)")
    given = parser.parse_args()
    provider = Provider(
        given.log,
        os.environ["VLLM_API_KEY"],
        tuple(given.models),
        SlidingLimits(None, None),
        given.latency,
    )
    asyncio.run(_serve(provider, given.models, given.port))


if __name__ == "__main__":
    main()
