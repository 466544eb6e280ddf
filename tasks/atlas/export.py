"""Export an atlas as a Hugging Face dataset: a folder of Parquet files with a card.

neuron-atlas-export OUT FOLDER --license cc-by-4.0
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from neuron_atlas.tasks.artifacts import (
    EFFECTS,
    EXPERTS,
    EXPLANATIONS,
    FAITHFULNESS,
    NEURON_TESTS,
    NEURON_TYPES,
    OUTPUT_TOKENS,
    SCORES,
    TableSpec,
    read_batches,
)
from neuron_atlas.tasks.artifacts.full_disk import DiskFullError, raise_if_disk_full
from neuron_atlas.tasks.atlas.atlas import Atlas
from neuron_atlas.tasks.atlas.card import Exported, write_card
from neuron_atlas.tasks.atlas.runs import RunNotFoundError

CONFIGS: dict[str, TableSpec] = {
    "types": NEURON_TYPES,
    "experts": EXPERTS,
    "tested_types": NEURON_TESTS,
    "explanations": EXPLANATIONS,
    "scores": SCORES,
    "effects": EFFECTS,
    "output_tokens": OUTPUT_TOKENS,
    "faithfulness": FAITHFULNESS,
}
"""Configs of the dataset, each one table. Only runs with classify=tested have `tested_types`, only
those with effects=all have the last three, and only models with experts have `experts`."""


def main() -> None:
    """Run the console script. Exit status: 0 for success, 1 for a failure, 2 for a wrong call."""
    options = _parser().parse_args()
    try:
        atlas = Atlas.open(options.out, options.run)
        exported = export(atlas, Path(options.folder), options.license, options.title)
    except (RunNotFoundError, ValueError, FileExistsError) as error:
        _end(2, str(error))
    except (DiskFullError, OSError) as error:
        _end(1, str(error))
    for one in exported:
        print(f"{one.name:<13} {one.rows:,} rows")
    print(f"card          {Path(options.folder) / 'README.md'}")


def export(
    atlas: Atlas, folder: Path, license_id: str = "unknown", title: str = ""
) -> list[Exported]:
    """Write types, explanations, scores and, if measured, effects with a card into a new folder.

    license_id: one of the Hub's identifiers, such as cc-by-4.0. title: title of the card; empty for
    one that names subject and dataset. Raises FileExistsError if the folder is not empty,
    ValueError if the run has no types, DiskFullError if the disk is full, and OSError if a file
    cannot be read or written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{str(folder)!r} is not empty; name a new folder")
    if "types" not in atlas.tables:
        raise ValueError(f"{str(atlas.run.out)!r}: this run has no types to export")
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with raise_if_disk_full(folder):
            written = [
                _write(atlas, name, spec, unfinished)
                for name, spec in CONFIGS.items()
                if name in atlas.tables
            ]
            write_card(atlas, unfinished / "README.md", written, license_id, title)
        if folder.is_dir():
            folder.rmdir()
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return written


def _write(atlas: Atlas, name: str, spec: TableSpec, folder: Path) -> Exported:
    """Write a table as one file, in batches, so that it may be larger than memory."""
    schema = pa.schema([pa.field(field.name, field.type) for field in spec.schema])
    path = folder / name / "atlas-00000-of-00001.parquet"
    path.parent.mkdir()
    rows = size = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for source in atlas.run.paths(name):
            for group in read_batches(source, spec):
                table = group.cast(schema)
                writer.write_table(table)
                rows, size = rows + table.num_rows, size + table.nbytes
    return Exported(name, spec, schema, path, rows, size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-export",
        description="Export types, explanations, scores and effects of a run as a Hugging Face "
        "dataset.",
        epilog="The folder can be loaded by datasets.load_dataset(FOLDER, 'types'), and uploaded "
        "by `hf upload NAME FOLDER --repo-type dataset`. Credentials of an object store are read "
        "from the environment.",
    )
    parser.add_argument(
        "out", metavar="OUT", help="output folder of the run, as in out=...: a folder or s3://..."
    )
    parser.add_argument(
        "folder", metavar="FOLDER", help="folder to create; it must be empty or absent"
    )
    parser.add_argument("--run", help="name of a run in OUT; the default is the last one")
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="license of the dataset, by its identifier on the Hub, such as cc-by-4.0; without it, "
        "the card states that no license has been chosen",
    )
    parser.add_argument("--title", default="", help="title of the card")
    return parser


def _end(status: int, message: str) -> NoReturn:
    print(f"neuron-atlas-export: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
