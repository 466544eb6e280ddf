"""Layouts that many families share, as candidates for a family without a function of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import groupby

from neuron_atlas.tasks.artifacts.regions import Region
from neuron_atlas.tasks.subject.families import (
    gemma3,
    idefics3,
    internvl,
    llava,
    llava_next,
    qwen2_5_vl,
)
from neuron_atlas.tasks.subject.families.grid import (
    Grid,
    ProcessedSample,
    tile_grids,
    whole_image_grid,
)
from neuron_atlas.tasks.subject.geometry import visible_box
from neuron_atlas.tasks.subject.layout import LayOut, image_counts
from neuron_atlas.tasks.subject.settings import SubjectError

Box = tuple[float, float, float, float]
_MOST_TILES = 40


def candidates() -> Mapping[str, LayOut]:
    """Return functions to try, by a description of the layout; the most specific come first."""
    found: dict[str, LayOut] = {
        "one grid over the whole image, of the processor's rows and columns": qwen2_5_vl.lay_out,
        "one grid over the whole image, of the processor's merged patches": _merged_patches,
        "one grid over the whole image, a row for each run of tokens": _rows_of_runs,
        "one grid over the whole image, as the processor sized it": _sized,
        "tiles that the prompt numbers, then the whole image": idefics3.lay_out,
        "a thumbnail, then tiles in rows that tokens separate": _separated_tiles,
        "tiles, then a thumbnail": internvl.lay_out,
        "a thumbnail, then tiles as one grid with newlines": llava_next.lay_out,
        "a thumbnail, then tiles as one grid with newlines, shrunk": llava_next.lay_out_onevision,
        "one grid of the vision tower's patches": llava.lay_out,
        "one square grid over the whole image": gemma3.lay_out,
    }
    for box_name, box in _BOXES.items():
        found[f"one square grid over {box_name}"] = _single(_square, box)
        found[f"one grid over {box_name}, as wide and high as the image"] = _single(_nearest, box)
        found[f"one grid over {box_name} with a newline after each row"] = _single(
            _nearest_with_newlines, box, row_ends=True
        )
        found[f"one grid over {box_name} with newlines and an end"] = _single(
            _nearest_with_newlines, box, row_ends=True, end=True
        )
    for place in ("last", "first", "none"):
        thumbnail = {"last": "then", "first": "after", "none": "without"}[place]
        found[f"square tiles {thumbnail} a thumbnail"] = _tiled(place)
    return found


def _merged_patches(sample: ProcessedSample) -> list[Grid]:
    """Return a grid per image of the patches that the processor counts, with squares of them merged
    as the number of placeholders says."""
    patches = sample.inputs["image_grid_thw"].tolist()
    counts = image_counts(sample)
    grids = []
    for image, (size, count, (_, rows, columns)) in enumerate(
        zip(sample.sizes, counts, patches, strict=True)
    ):
        merged = math.isqrt(rows * columns // count)
        grids.append(whole_image_grid(image, size, rows // merged, columns // merged))
    return grids


def _sized(sample: ProcessedSample) -> list[Grid]:
    """Return a grid per image of square cells of the resized image, whose height and width the
    processor returns. Pixels that fill no cell are not seen."""
    grids = []
    for image, (size, count, (height, width)) in enumerate(
        zip(sample.sizes, image_counts(sample), sample.inputs["image_sizes"].tolist(), strict=True)
    ):
        cell = next(
            cell
            for cell in range(math.isqrt(height * width // count), 0, -1)
            if (height // cell) * (width // cell) == count
        )
        rows, columns = height // cell, width // cell
        right, bottom = size[0] * columns * cell / width, size[1] * rows * cell / height
        grids.append(Grid(Region(image, rows, columns, 0.0, 0.0, right, bottom)))
    return grids


def _separated_tiles(sample: ProcessedSample) -> list[Grid]:
    """Return a square thumbnail and square tiles per image, one run of placeholders each, as
    Ovis2's: a token whose name has the word row separates rows, and the token before the first
    run begins each image."""
    ids = sample.input_ids.tolist()
    names = sample.processor.tokenizer.convert_ids_to_tokens(ids)
    runs: list[tuple[str, int, str]] = []  # the token before, the length, the token after
    position = 0
    for is_placeholder, run in groupby(one == sample.placeholder for one in ids):
        length = len(list(run))
        if is_placeholder:
            runs.append((names[position - 1], length, names[position + length]))
        position += length
    starts = [place for place, run in enumerate(runs) if run[0] == runs[0][0]]
    grids = []
    for image, (size, start, stop) in enumerate(
        zip(sample.sizes, starts, [*starts[1:], len(runs)], strict=True)
    ):
        (_, length, _), *tiles = runs[start:stop]
        side = math.isqrt(length)
        grids.append(whole_image_grid(image, size, side, side))
        if tiles:
            rows = 1 + sum("row" in after.lower() for _, _, after in tiles[:-1])
            grids += tile_grids(image, size, rows, len(tiles) // rows, side)
    return grids


def _rows_of_runs(sample: ProcessedSample) -> list[Grid]:
    """Return a grid per image whose rows are runs of placeholders, as Pixtral's are: one separator
    follows each row, and another one ends the image."""
    rows: list[tuple[int, int]] = []  # length of the run, and the token after it
    ids = sample.input_ids.tolist()
    position = 0
    for is_placeholder, run in groupby(one == sample.placeholder for one in ids):
        length = len(list(run))
        position += length
        if is_placeholder:
            rows.append((length, ids[position] if position < len(ids) else -1))
    images: list[list[int]] = [[]]
    separator = rows[0][1] if rows else -1
    for length, follows in rows:
        images[-1].append(length)
        if follows != separator:
            images.append([])
    images = [runs for runs in images if runs]
    if len(images) != len(sample.sizes) or any(len(set(runs)) > 1 for runs in images):
        raise SubjectError("the runs of placeholders are no rows")
    return [
        whole_image_grid(image, size, len(runs), runs[0])
        for image, (size, runs) in enumerate(zip(sample.sizes, images, strict=True))
    ]


def _single(
    shape: Callable[[int, float], tuple[int, int]],
    box: Callable[[ProcessedSample, tuple[int, int]], Box],
    row_ends: bool = False,
    end: bool = False,
) -> LayOut:
    """Return a layout of one grid per image. shape: from the number of tokens, and height by width
    of the box, to rows and columns."""

    def lay_out(sample: ProcessedSample) -> list[Grid]:
        grids = []
        for image, (size, count) in enumerate(zip(sample.sizes, image_counts(sample), strict=True)):
            left, top, right, bottom = box(sample, size)
            rows, columns = shape(count - end, (bottom - top) / (right - left))
            region = Region(image, rows, columns, left, top, right, bottom)
            grids.append(Grid(region, row_ends, end))
        return grids

    return lay_out


def _square(count: int, ratio: float) -> tuple[int, int]:
    side = math.isqrt(count)
    if side * side != count:
        raise SubjectError(f"{count} tokens are no square")
    return side, side


def _nearest(count: int, ratio: float) -> tuple[int, int]:
    """Return the factors of `count` whose quotient is closest to `ratio`."""
    pairs = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1] / ratio)))


def _nearest_with_newlines(count: int, ratio: float) -> tuple[int, int]:
    pairs = [
        (rows, count // rows - 1)
        for rows in range(1, count // 2 + 1)
        if count % rows == 0 and count // rows > 1
    ]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1] / ratio)))


def _tiled(thumbnail: str) -> LayOut:
    """Return a layout of equal square tiles, one run of placeholders each or all in one run."""

    def lay_out(sample: ProcessedSample) -> list[Grid]:
        runs = sample.runs()
        grids = []
        for image, (size, count) in enumerate(zip(sample.sizes, image_counts(sample), strict=True)):
            side = math.isqrt(_tile_tokens(sample, runs, count))
            n_tiles = count // side**2 - (thumbnail != "none")
            if side**2 * (n_tiles + (thumbnail != "none")) != count or n_tiles > _MOST_TILES:
                raise SubjectError("the placeholders are no square tiles")
            whole = [whole_image_grid(image, size, side, side)]
            tiles = []
            if n_tiles:
                rows, columns = _nearest(n_tiles, size[1] / size[0])
                tiles = tile_grids(image, size, rows, columns, side)
            grids += {"last": tiles + whole, "first": whole + tiles, "none": tiles}[thumbnail]
        return grids

    return lay_out


def _tile_tokens(sample: ProcessedSample, runs: list[int], count: int) -> int:
    """Return the number of tokens of a tile: the length of a run, or as the tensors say."""
    if len(runs) > len(sample.sizes):
        return runs[0]
    n_tiles = len(sample.inputs["pixel_values"].flatten(0, -4))
    return sum(runs) // n_tiles


def _whole(sample: ProcessedSample, size: tuple[int, int]) -> Box:
    return (0.0, 0.0, float(size[0]), float(size[1]))


def _centred(sample: ProcessedSample, size: tuple[int, int]) -> Box:
    width, height = size
    side = max(size)
    left, top = -((side - width) // 2), -((side - height) // 2)
    return (float(left), float(top), float(left + side), float(top + side))


def _cornered(sample: ProcessedSample, size: tuple[int, int]) -> Box:
    return (0.0, 0.0, float(max(size)), float(max(size)))


def _cropped(sample: ProcessedSample, size: tuple[int, int]) -> Box:
    return visible_box(sample.processor.image_processor, *size)


_BOXES: Mapping[str, Callable[[ProcessedSample, tuple[int, int]], Box]] = {
    "the whole image": _whole,
    "the image padded to a square": _centred,
    "the image padded at the right and bottom": _cornered,
    "the middle of the image": _cropped,
}
