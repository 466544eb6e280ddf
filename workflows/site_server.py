"""`neuron-atlas-serve`: serve the page and the site of a run to a browser."""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePath

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.workflows.run.store import MANIFEST

_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
_TYPES = {".css": "text/css", ".js": "text/javascript", ".webp": "image/webp"}
"""Media types that may be missing or wrong on this machine."""
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script. Exit status 2 for a wrong call, 1 if the port is not available."""
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-serve",
        description="Serve the page and the site of a run, read-only.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="out",
        help="a run's output folder (out=), or a folder with a report's index.html (default: out)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 serves everyone who can reach this machine "
        "(default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=8000,
        help="port to listen on; 0 for any free port (default: 8000)",
    )
    options = parser.parse_args(arguments)
    if is_uri(options.folder):
        parser.error(
            f"{options.folder}: only a local folder can be served. Copy the report first "
            "(`aws s3 sync`; see docs/site.md), or open the atlas in Python with Atlas.open"
        )
    if not 0 <= options.port < 65_536:
        parser.error("--port: must be 0 to 65535")
    try:
        root = report_folder(Path(options.folder))
    except OSError as error:
        parser.error(str(error))
    try:
        listener = listen(options.host, options.port)
    except OSError as error:
        print(
            f"neuron-atlas-serve: cannot listen on {options.host}:{options.port}: "
            f"{error.strerror or error}; try another --port",
            file=sys.stderr,
        )
        sys.exit(1)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{host}:{listener.getsockname()[1]}/  ({root})", flush=True)
    with suppress(KeyboardInterrupt):
        report_server(root, options.host).run([listener])


def report_folder(folder: Path) -> Path:
    """Return the report's folder: that of the last run in an output folder, or the folder itself.

    Raises FileNotFoundError, with one line on what was expected, if there is no report.
    """
    try:
        artifacts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["artifacts"]
        pages = [folder / name for name in artifacts["report"]["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        pages = [folder / "index.html"]
    for page in pages:
        if page.name == "index.html" and page.is_file():
            return page.parent
    raise FileNotFoundError(
        f"{folder}: no report is here; name the out= folder of a finished run, "
        "or a folder with a report's index.html"
    )


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a listening socket. port: 0 for any free port. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def report_server(root: Path, host: str = "127.0.0.1") -> uvicorn.Server:
    """Return a server of the files below `root`; its `run([socket])` serves until it is stopped.

    On loopback it answers only requests to loopback host names. Otherwise a website could point its
    own host name at this machine and read the files (DNS rebinding).
    """
    for suffix, kind in _TYPES.items():
        mimetypes.add_type(kind, suffix)
    allowed = _LOOPBACK if host in ("127.0.0.1", "::1", "localhost") else ("*",)
    app = Starlette(
        routes=[Mount("/", _Files(directory=root, html=True))],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed)],
    )
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", headers=_HEADERS, server_header=False)
    )


class _Files(StaticFiles):
    """Static files below a folder, without hidden ones."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        is_hidden = any(part.startswith(".") for part in PurePath(path).parts)
        return ("", None) if is_hidden else super().lookup_path(path)


if __name__ == "__main__":
    main()
