"""Decode each image once per machine: a folder of decoded images that its processes share."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_HEADER = struct.Struct("<qq")
"""Width and height of the image; the RGB bytes of its pixels follow."""
_LOCKS = 64
"""Locks that the images of a folder share."""
LIMIT_BYTES = 2 * 10**9
"""Default limit of a machine's folder: 2,000 photographs of 640 x 480 pixels."""

_SHARERS = 64
"""Processes of a machine that may store images at the same time without exceeding the limit."""

_allowances: dict[tuple[Path, int], int] = {}
"""Bytes that this process may store in a folder with a limit, before it measures it again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageCache:
    """Decoded images of one dataset, in a temporary folder of this machine. Picklable.

    key: names the dataset as it was read; images of other keys are not seen. limit_bytes: limit of
    the folder. When it is full, images of other keys are removed; images of this key stay, because
    the work items of a stage go through the same images again and again. A folder that cannot be
    written is not used.
    """

    key: str
    limit_bytes: int = LIMIT_BYTES

    def open(self, reference: str, decode: Callable[[], Image.Image]) -> Image.Image:
        """Return the image, RGB, decoded by this or another process of the machine.

        decode: decodes it; called by at most one process at a time. Raises the errors of `decode`,
        which are not stored.
        """
        folder = _own_folder()
        if folder is None:
            return decode()
        digest = hashlib.sha256(reference.encode("utf-8", "surrogatepass")).hexdigest()
        path = folder / f"{self._prefix}-{digest[:32]}"
        stored = _read(path)
        if stored is not None:
            return stored
        with _locked(folder / f"lock-{int(digest[:4], 16) % _LOCKS}"):
            stored = _read(path)
            if stored is not None:
                return stored
            image = decode()
            with suppress(OSError):  # A full disk: the image is decoded again next time.
                self._store(path, image)
        return image

    def clear(self) -> None:
        """Remove the images of this key from this machine."""
        folder = _own_folder()
        for path in folder.glob(f"{self._prefix}-*") if folder is not None else ():
            path.unlink(missing_ok=True)

    @property
    def _prefix(self) -> str:
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]

    def _store(self, path: Path, image: Image.Image) -> None:
        size = _HEADER.size + 3 * image.width * image.height
        if image.mode != "RGB" or not self._has_space(path.parent, size):
            return
        unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            unfinished.write_bytes(_HEADER.pack(*image.size) + image.tobytes())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _has_space(self, folder: Path, size: int) -> bool:
        """Return whether `size` bytes fit. A look at all files serves for many images, until a
        process has stored its share of what was free."""
        key = (folder, self.limit_bytes)
        left = _allowances.get(key, 0) - size
        if left < 0:
            free = self._free(folder, size)
            if free < 0:
                return False
            left = free // _SHARERS
        _allowances[key] = left
        return True

    def _free(self, folder: Path, size: int) -> int:
        """Return the bytes that are free after `size` more, negative if they do not fit. Images of
        other keys are removed if they do not."""
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
        excess = sum(sizes.values()) + size - self.limit_bytes
        for name, other in sizes.items():
            if excess > 0 and not name.startswith((self._prefix, "lock-", ".")):
                (folder / name).unlink(missing_ok=True)
                excess -= other
        return -excess


def _read(path: Path) -> Image.Image | None:
    try:
        with path.open("rb") as stream:
            size = _HEADER.unpack(stream.read(_HEADER.size))
            return Image.frombytes("RGB", size, stream.read()) if min(size) > 0 else None
    except (OSError, ValueError, struct.error):  # Absent, or cut short by a crash of the machine.
        return None


def _own_folder() -> Path | None:
    """Return this user's folder on this machine; None if it cannot be used."""
    folder = Path(tempfile.gettempdir()) / f"neuron-atlas-images-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        _log.info("images are decoded again for each work item: %s", error)
        return None
    # Nobody else may have made it, since its content is shown as the dataset's.
    is_own = folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid()
    return folder if is_own and not status.st_mode & 0o077 else None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
