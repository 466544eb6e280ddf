"""A server of a few lines that starts at once, for tests of what starts servers.

    python tiny_server.py PORT [--model NAME] [--child] [--deaf-after N] [--ignore-sigterm] ...

GET /v1/models as vLLM has it, GET /environment, and GET /v1/busy, which computes for ever. It takes
the key from the environment as vLLM does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        given = self.server.given  # type: ignore[attr-defined]
        if self.path == "/environment":
            self._reply(200, dict(os.environ))
        elif self.headers.get("authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
            self._reply(401, {"error": "Unauthorized"})
        elif given.deaf:
            time.sleep(3600)
        elif self.path == "/v1/busy":  # Compute, and answer nobody meanwhile.
            given.deaf = True
            while True:
                pass
        elif self.path == "/v1/models":
            self._reply(200, {"object": "list", "data": [{"id": given.model}]})

    def _reply(self, status: int, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--child", action="store_true", help="start a process of its own")
    parser.add_argument("--deaf", action="store_true", help="let requests with the key wait")
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--fail", help="say this and end")
    given = parser.parse_args()
    if given.fail:
        sys.exit(given.fail)
    if given.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if given.child:
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        print("child", subprocess.Popen(sleep).pid, flush=True)
    print("server", os.getpid(), flush=True)
    server = ThreadingHTTPServer(("127.0.0.1", given.port), _Handler)
    server.given = given  # type: ignore[attr-defined]
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
