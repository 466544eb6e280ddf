"""`neuron-atlas-serve`: serve the page and the site of the runs of a folder to a browser."""

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
from urllib.parse import quote

import uvicorn
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from neuron_atlas.tasks.artifacts.location import is_uri
from neuron_atlas.tasks.atlas.runs import Run, RunNotFoundError, list_runs
from neuron_atlas.tasks.report.pages import template_environment
from neuron_atlas.tasks.report.palette import color_css
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
        description="Serve the page and the site of a run, read-only. If the folder has several "
        "runs, the first page lists them.",
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
    runs = served_runs(Path(options.folder))
    several = len(runs) > 1
    server = runs_server(runs, options.host) if several else report_server(root, options.host)
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
    what = f"{len(runs)} runs in {options.folder}" if several else root
    print(f"http://{host}:{listener.getsockname()[1]}/  ({what})", flush=True)
    with suppress(KeyboardInterrupt):
        server.run([listener])


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
    return _server([Mount("/", _Files(directory=root, html=True))], host)


def served_runs(folder: Path) -> list[Run]:
    """Return the runs of an output folder that have a page, last to first; none for a report."""
    try:
        found = list_runs(folder)
    except RunNotFoundError:
        return []
    pages = {run.page: run for run in found if run.page is not None and run.page.is_file()}
    return list(reversed(pages.values()))


def runs_server(runs: Sequence[Run], host: str = "127.0.0.1") -> uvicorn.Server:
    """Return a server of several runs: a list of them, and each report at its path below `out`.

    Comparisons of sweeps are served too; their links to the reports are relative.
    """
    out = runs[0].out
    comparisons = sorted(path.parent for path in (out / "sweep").glob("*/index.html"))
    reports = [run.page.parent for run in runs if run.page is not None]
    page = _list_of_runs(runs, comparisons)
    mounts = [
        Mount(f"/{folder.relative_to(out).as_posix()}", _Files(directory=folder, html=True))
        for folder in [*reports, *comparisons]
    ]
    return _server([Route("/", lambda request: HTMLResponse(page)), *mounts], host)


def _list_of_runs(runs: Sequence[Run], comparisons: Sequence[Path]) -> str:
    out = runs[0].out
    return (
        template_environment()
        .get_template("runs.html")
        .render(
            name=out.name,
            colors=Markup(color_css()),
            comparisons=[(path.name, _link(out, path)) for path in comparisons],
            runs=[
                (run, _link(out, run.page.parent), ", ".join(map(str, run.layers)))
                for run in runs
                if run.page is not None
            ],
        )
    )


def _link(out: Path, folder: Path) -> str:
    return f"{quote(folder.relative_to(out).as_posix())}/"


def _server(routes: Sequence[BaseRoute], host: str) -> uvicorn.Server:
    for suffix, kind in _TYPES.items():
        mimetypes.add_type(kind, suffix)
    allowed = _LOOPBACK if host in ("127.0.0.1", "::1", "localhost") else ("*",)
    app = Starlette(
        routes=list(routes),
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
