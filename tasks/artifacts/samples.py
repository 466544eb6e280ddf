"""Tables of the samples, their ground-truth concepts, and their descriptions by the subject."""

from __future__ import annotations

import pyarrow as pa

from neuron_atlas.tasks.artifacts.columns import OUTCOME, SAMPLE_ID, TableSpec, column

ROW_GROUP_OF_SAMPLES = 64
"""Rows per row group of the tables by sample. A work item reads scattered samples of a large
dataset; with fewer rows, a file's footer would exceed the rows."""

CONCEPT_GRID = 24
"""Rows, and columns, of a concept's coverage mask over the whole image."""

SAMPLE_STATUSES = (
    "ok",
    "missing",
    "unreadable",
    "oversized",
    "outside_folder",
    "empty_text",
    "duplicate_id",
    "malformed",
    "skipped",
)
"""malformed: a row of the dataset that cannot be read, or whose images or text would be lost.
skipped: a video or audio row, which the program does not read; it is not counted as bad."""
DESCRIPTION_STATUSES = ("ok", "truncated", "empty_text", "too_long", "not_encoded")
USABLE = ("ok", "truncated")
"""Statuses of the descriptions that later stages use."""

REGION = pa.struct(
    [
        column("image", pa.int8(), "index among the sample's images, from 0"),
        column("rows", pa.int16(), "rows of the grid; tokens are in row-major order", "tokens"),
        column("columns", pa.int16(), "columns of the grid", "tokens"),
        *(
            column(edge, pa.float32(), "edge of the grid; may be outside the image", "px")
            for edge in ("left", "top", "right", "bottom")
        ),
    ]
)
"""Grid of visual tokens over a box of an image; see tasks/artifacts/regions.py."""

SAMPLES = TableSpec(
    "samples",
    pa.schema(
        [
            SAMPLE_ID,
            column("source_id", pa.string(), "the dataset's own id"),
            column("images", pa.list_(pa.string()), "references for the source's open_image"),
            column(
                "image_sha256",
                pa.string(),
                "hash of the stored image, or of the hashes of several images; empty if there is "
                "no image or it was not read",
            ),
            column("width", pa.int32(), "width of the first image, upright", "px"),
            column("height", pa.int32(), "height of the first image, upright", "px"),
            column("text", pa.string(), "the dataset's own text"),
            *OUTCOME,
        ]
    ),
    key=("sample_id",),
    statuses=SAMPLE_STATUSES,
    row_group=ROW_GROUP_OF_SAMPLES,
)

CONCEPTS = TableSpec(
    "concepts",
    pa.schema(
        [
            SAMPLE_ID,
            column("concept", pa.string(), "name of the concept"),
            column("kind", pa.string(), "color, shape, size, position, background ..."),
            column("words", pa.list_(pa.string()), "words that name the concept in a text"),
            column(
                "mask",
                pa.list_(pa.uint8(), CONCEPT_GRID**2),
                "coverage of each cell of a 24 x 24 grid over the image, row-major",
                "1/255",
            ),
        ]
    ),
    key=("sample_id", "concept"),
    row_group=ROW_GROUP_OF_SAMPLES,
)

DESCRIPTIONS = TableSpec(
    "descriptions",
    pa.schema(
        [
            SAMPLE_ID,
            column("text", pa.string(), "text, teacher-forced after the question"),
            column(
                "text_source", pa.string(), "generated (by the subject) or given (by the dataset)"
            ),
            column("tokens", pa.list_(pa.string()), "the text, split at its token boundaries"),
            column("n_visual", pa.int32(), "number of visual tokens", "tokens"),
            column("n_text", pa.int32(), "number of text tokens", "tokens"),
            column(
                "regions",
                pa.list_(REGION),
                "grids of visual tokens over the images, in token order",
            ),
            *OUTCOME,
        ]
    ),
    key=("sample_id",),
    statuses=DESCRIPTION_STATUSES,
    row_group=ROW_GROUP_OF_SAMPLES,
)
