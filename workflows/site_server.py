"""`neuron-atlas-serve`: the page and the site of a run, to a browser."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from neuron_atlas.tasks.artifacts.location import is_local, location, read_file
from neuron_atlas.workflows.run.store import MANIFEST

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: exit status 2 for a wrong call, 1 where the port cannot be had."""
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-serve",
        description="Serve the page and the site of a run: its files, to be read only.",
    )
    parser.add_argument(
        "folder",
        nargs="?",
        default="out",
        help="a run's output folder (out=), or a folder with a report's index.html; either may be "
        "on an object store, as s3://BUCKET/PREFIX (default: out)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets everyone in who reaches this machine "
        "(default: 127.0.0.1, this machine alone)",
    )
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: 8000)")
    options = parser.parse_args(arguments)
    try:
        root = report_folder(location(options.folder))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    except Exception as error:  # An object store fails in its client's own ways.
        print(f"neuron-atlas-serve: {options.folder}: cannot be read: {error}", file=sys.stderr)
        sys.exit(1)
    if not 0 <= options.port < 65_536:
        parser.error("--port: must be 0 to 65535")
    try:
        server = report_server(root, options.host, options.port)
    except OSError as error:
        print(
            f"neuron-atlas-serve: cannot listen on {options.host}:{options.port}: "
            f"{error.strerror or error}; try another --port",
            file=sys.stderr,
        )
        sys.exit(1)
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{host}:{server.server_port}/  ({root})", flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


def report_folder(folder: Path) -> Path:
    """The folder of the report: of the last run in an output folder, or the folder itself.

    Raises FileNotFoundError with one line that says what was expected; of an object store that
    cannot be read, what its client raises.
    """
    try:
        artifacts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["artifacts"]
        pages = [folder / name for name in artifacts["report"]["files"]]
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        pages = [folder / "index.html"]
    for page in pages:
        if page.name == "index.html" and page.is_file():
            return page.parent
    raise FileNotFoundError(
        f"{folder}: no report is here; name the out= folder of a run that has ended, "
        "or a folder with a report's index.html"
    )


def report_server(root: Path, host: str = "127.0.0.1", port: int = 8000) -> ThreadingHTTPServer:
    """A server of the files below `root`, listening. Raises OSError where it cannot listen."""
    kind = _ServerV6 if ":" in host else _Server
    if is_local(root):
        return kind((host, port), partial(_Files, root=root.resolve(), host=host))
    return kind((host, port), partial(_Objects, root=root, host=host))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a file is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Files(SimpleHTTPRequestHandler):
    """Files below a folder: no listings, no hidden files, nothing that a link leads out to."""

    protocol_version = "HTTP/1.1"
    server_version = "neuron-atlas"
    sys_version = ""

    def __init__(self, *arguments: Any, root: Path, host: str, **named: Any):
        self._root, self._host = root, host
        super().__init__(*arguments, directory=str(root), **named)

    def send_head(self) -> Any:
        """The head of the answer, and the file to send."""
        if not self._is_asked_by_name():
            self.send_error(HTTPStatus.FORBIDDEN, "Ask for this server by its own name")
            return None
        return self._send_head()

    def _send_head(self) -> Any:
        path = Path(self.translate_path(self.path)).resolve()
        parts = path.relative_to(self._root).parts if path.is_relative_to(self._root) else None
        if parts is None or any(part.startswith(".") for part in parts):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> BinaryIO | None:  # type: ignore[override]
        """Folders are not shown."""
        self.send_error(HTTPStatus.NOT_FOUND)
        return None

    def guess_type(self, path: Any) -> str:
        """By a list of our own: a machine's may call a script plain text, which no browser runs."""
        return _TYPES.get(Path(str(path)).suffix.lower(), "application/octet-stream")

    def end_headers(self) -> None:
        """What holds for every answer: types are as said, and a new run is seen at once."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Only what failed is told, and not each of the many files that a page loads."""

    def log_error(self, format: str, *arguments: Any) -> None:
        """See `log_message`."""
        print(f"neuron-atlas-serve: {self.path}: {format % arguments}", file=sys.stderr)

    def _is_asked_by_name(self) -> bool:
        """On loopback, whether the browser means this machine: a page elsewhere can have its own
        name lead here, and would then read what is served."""
        if self._host not in _LOOPBACK:
            return True
        asked = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return asked in _LOOPBACK


class _Objects(_Files):
    """The same of a prefix of an object store. Each file is read whole: a site's are small."""

    def _send_head(self) -> Any:
        asked = Path(self.translate_path(self.path)).relative_to(Path(self.directory))
        parts = [*asked.parts, *(["index.html"] if urlsplit(self.path).path.endswith("/") else [])]
        if not parts or any(part.startswith(".") for part in parts):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        try:
            content = read_file(self._root.joinpath(*parts))
        except (FileNotFoundError, IsADirectoryError):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        except Exception as error:  # Whatever the store does, the next file may be had.
            self.log_error("%s", error)
            self.send_error(HTTPStatus.BAD_GATEWAY, "The object store did not answer")
            return None
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", self.guess_type(parts[-1]))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return BytesIO(content)


if __name__ == "__main__":
    main()
