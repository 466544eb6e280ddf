"""An image is decoded once by all processes of a machine."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neuron_atlas.tasks.samples.catalog import Catalog, Sample
from neuron_atlas.tasks.samples.source import OpenedImage, SampleError
from neuron_atlas.workflows.cluster.image_cache import ImageCache

_SIZE = (7, 5)
_BYTES = 16 + 3 * 7 * 5


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of a machine of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Counting:
    """A source that notes in a file each image that it decodes."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def open_image(self, image: str) -> OpenedImage:
        if image == "missing":
            raise SampleError("missing", "no such file")
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"{image}\n")
        return OpenedImage(_picture(image), "")

    @property
    def decoded(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").split()


def _picture(name: str) -> Image.Image:
    rng = np.random.default_rng(sum(name.encode()))
    return Image.fromarray(rng.integers(0, 256, (*_SIZE[::-1], 3)).astype(np.uint8))


def _pixels(machine: str, log: Path, names: list[str]) -> list[bytes]:
    """Open images in another process of the machine."""
    tempfile.tempdir = machine
    source = Counting(log)
    cache = ImageCache("a dataset")
    return [
        cache.open(one, lambda one=one: source.open_image(one).pixels).tobytes() for one in names
    ]


def test_processes_of_a_machine_decode_an_image_once(machine):
    names = [f"{number}.png" for number in range(20)]
    log = machine / "log"
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        opened = [pool.submit(_pixels, str(machine), log, names * 2) for _ in range(3)]
        pixels = [one.result() for one in opened]

    assert sorted(Counting(log).decoded) == sorted(names)
    for some in pixels:
        assert some == [_picture(name).tobytes() for name in names * 2]


def test_a_catalog_decodes_the_image_of_several_neurons_once(machine):
    source = Counting(machine / "log")
    sample = Sample(0, "0", ("a.png",), "x", ("x",), (), *_SIZE)
    catalogs = [
        Catalog({0: sample}, source=source, images=ImageCache("a dataset"))  # type: ignore[arg-type]
        for _ in range(2)
    ]

    opened = [catalog.open_image("a.png") for catalog in (*catalogs, *catalogs)]

    assert source.decoded == ["a.png"]
    assert {(one.mode, one.size, one.tobytes()) for one in opened} == {
        ("RGB", _SIZE, _picture("a.png").tobytes())
    }


def test_an_error_is_raised_each_time_and_is_not_stored(machine):
    source = Counting(machine / "log")
    cache = ImageCache("a dataset")
    for _ in range(2):
        with pytest.raises(SampleError, match="no such file"):
            cache.open("missing", lambda: source.open_image("missing").pixels)
    assert cache.open("missing", lambda: _picture("found")).tobytes() == _picture("found").tobytes()


def test_datasets_do_not_see_the_images_of_each_other(machine):
    for key in ("one", "other"):
        opened = ImageCache(key).open("a.png", lambda key=key: _picture(key))
        assert opened.tobytes() == _picture(key).tobytes()


def test_a_full_folder_gives_up_images_of_other_datasets_first(machine):
    _fill("old", 3)
    limit = 2 * _BYTES
    _fill("new", 5, limit)

    assert _stored("old") == 0
    assert _stored("new") == 2
    ImageCache("new").clear()
    assert _stored("new") == 0


def test_many_images_are_stored_up_to_the_limit_with_few_looks_at_the_folder(machine, monkeypatch):
    looks: list[Path] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: looks.append(folder) or scan(folder))
    limit = 1000 * _BYTES
    _fill("many", 100, limit)
    assert len(looks) < 12
    _fill("many", 1010, limit)
    monkeypatch.undo()
    files = machine.glob("neuron-atlas-images-*/*")
    assert sum("lock" not in path.name for path in files) in range(990, 1001)


def _fill(key: str, count: int, limit: int = 10**6) -> None:
    for number in range(count):
        opened = ImageCache(key, limit).open(
            str(number), lambda number=number: _picture(str(number))
        )
        assert opened.tobytes() == _picture(str(number)).tobytes()


def _stored(key: str) -> int:
    """Return how many of a dataset's images need no decoding."""

    def fail() -> Image.Image:
        raise SampleError("missing", "")

    count = 0
    for number in range(5):
        try:
            ImageCache(key).open(str(number), fail)
        except SampleError:
            continue
        count += 1
    return count


@pytest.mark.parametrize("mode", [0o755, 0o777])
def test_a_folder_that_others_may_use_is_not_used(machine, mode):
    folder = machine / f"neuron-atlas-images-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    source = Counting(machine / "log")

    for _ in range(2):
        ImageCache("a dataset").open("a.png", lambda: source.open_image("a.png").pixels)

    assert source.decoded == ["a.png", "a.png"]
    assert not list(folder.iterdir())


@pytest.mark.parametrize("stored", [b"", b"short", b"\0" * 40])
def test_a_stored_image_that_was_cut_short_is_decoded_again(machine, stored):
    cache, source = ImageCache("a dataset"), Counting(machine / "log")

    def opened() -> bytes:
        return cache.open("one", lambda: source.open_image("one").pixels).tobytes()

    whole = opened()
    (file,) = (path for path in machine.glob("neuron-atlas-images-*/*") if "lock" not in path.name)
    file.write_bytes(stored)
    assert opened() == opened() == whole
    assert source.decoded == ["one", "one"]
