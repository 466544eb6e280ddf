"""Make synthetic samples with single-color images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from bench.synthetic.sizes import Sizes
from neuron_atlas.tasks.artifacts import DESCRIPTIONS, SAMPLES, write_table
from neuron_atlas.tasks.report.inputs import SampleFiles
from neuron_atlas.tasks.samples.source import (
    Concept,
    OpenedImage,
    SampleError,
    SampleRecord,
    Source,
)


@dataclass(frozen=True)
class SingleColorSource(Source):
    """Source of single-color images. A reference is a color; "missing" cannot be opened."""

    side: int = 96

    @property
    def title(self) -> str:
        """See Source."""
        return "painted"

    def records(self) -> Iterable[SampleRecord]:
        """List no records: the tables are written directly."""
        return ()

    def probe(self) -> str:
        """See Source."""
        return ""

    def concepts(self, image: str) -> list[Concept]:
        """See Source."""
        return []

    def open_image(self, image: str) -> OpenedImage:
        """See Source."""
        if image == "missing":
            raise SampleError("missing", "no such file: <b>missing</b>")
        return OpenedImage(Image.new("RGB", (self.side, self.side), image), image)


def write_synthetic_samples(folder: Path, sizes: Sizes, tokens: Sequence[str]) -> SampleFiles:
    """Write `samples` and `descriptions`; every text consists of all `tokens`."""
    rng = np.random.default_rng(7)
    listed, described = [], []
    for sample_id in range(sizes.samples):
        color = "#{:02x}{:02x}{:02x}".format(*rng.integers(256, size=3))
        image = "missing" if sample_id == 1 else color
        common = {"sample_id": sample_id, "status": "ok", "reason": ""}
        listed.append(
            common
            | {"source_id": f"{tokens[0].strip()}-{sample_id}", "images": [image], "width": 96}
            | {"image_sha256": image, "height": 96, "text": "".join(tokens)}
        )
        region = {"image": 0, "rows": sizes.grid, "columns": sizes.grid, "left": 0.0, "top": 0.0}
        described.append(
            common
            | {"text": "".join(tokens), "text_source": "given", "tokens": list(tokens)}
            | {"n_visual": sizes.grid**2, "n_text": len(tokens)}
            | {"regions": [region | {"right": 96.0, "bottom": 96.0}]}
        )
    paths = {}
    for spec, rows in ((SAMPLES, listed), (DESCRIPTIONS, described)):
        paths[spec.name] = folder / f"{spec.name}.parquet"
        write_table(pa.Table.from_pylist(rows, spec.schema), spec, paths[spec.name])
    return SampleFiles((paths["samples"],), (paths["descriptions"],), SingleColorSource())
