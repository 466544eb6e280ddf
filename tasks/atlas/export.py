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

from neuron_atlas.tasks.artifacts import EXPLANATIONS, NEURON_TESTS, NEURON_TYPES, SCORES, TableSpec
from neuron_atlas.tasks.artifacts.full_disk import DiskFull, raise_if_disk_full
from neuron_atlas.tasks.artifacts.location import reading
from neuron_atlas.tasks.atlas.atlas import Atlas
from neuron_atlas.tasks.atlas.card import Exported, write_card
from neuron_atlas.tasks.atlas.runs import NoSuchRun

CONFIGS: dict[str, TableSpec] = {
    "types": NEURON_TYPES,
    "tested_types": NEURON_TESTS,
    "explanations": EXPLANATIONS,
    "scores": SCORES,
}
"""The dataset's configs, each a table; `tested_types` only of a run that tested."""


def main() -> None:
    """The console script: exit status 0, 1 where it failed, 2 for a wrong call."""
    options = _parser().parse_args()
    try:
        atlas = Atlas.open(options.out, options.run)
        exported = export(atlas, Path(options.folder), options.license, options.title)
    except (NoSuchRun, ValueError, FileExistsError) as error:
        _end(2, str(error))
    except (DiskFull, OSError) as error:
        _end(1, str(error))
    for one in exported:
        print(f"{one.name:<13} {one.rows:,} rows")
    print(f"card          {Path(options.folder) / 'README.md'}")


def export(
    atlas: Atlas, folder: Path, license_id: str = "unknown", title: str = ""
) -> list[Exported]:
    """Write types, explanations and scores with a card into a new folder.

    license_id: one of the Hub's identifiers, such as cc-by-4.0. title: of the card; empty for one
    that names subject and dataset. Raises FileExistsError where the folder holds something, and
    ValueError where the run has no types.
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
    """One table as one file, a row group at a time, so that it may be larger than memory."""
    schema = pa.schema([pa.field(field.name, field.type) for field in spec.schema])
    path = folder / name / "atlas-00000-of-00001.parquet"
    path.parent.mkdir()
    rows = size = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for source in atlas.run.paths(name):
            with reading(source) as opened:
                for batch in pq.ParquetFile(opened).iter_batches(columns=schema.names):
                    table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
                    writer.write_table(table)
                    rows, size = rows + table.num_rows, size + table.nbytes
    return Exported(name, spec, schema, path, rows, size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-export",
        description="Export types, explanations and scores of a run as a Hugging Face dataset.",
        epilog="The folder can be loaded by datasets.load_dataset(FOLDER, 'types'), and uploaded "
        "by `hf upload NAME FOLDER --repo-type dataset`. Credentials of an object store are read "
        "from the environment.",
    )
    parser.add_argument("out", metavar="OUT", help="what out=... named: a folder or s3://...")
    parser.add_argument("folder", metavar="FOLDER", help="to be made; must not hold anything yet")
    parser.add_argument("--run", help="name of a run in OUT; the last one if it is not given")
    parser.add_argument(
        "--license",
        default="unknown",
        metavar="ID",
        help="under which you publish it, as the Hub writes it: cc-by-4.0, cc0-1.0 ...; the card "
        "says that none is chosen if it is not given",
    )
    parser.add_argument("--title", default="", help="of the card")
    return parser


def _end(status: int, message: str) -> NoReturn:
    print(f"neuron-atlas-export: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
