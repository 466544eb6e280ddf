"""`neuron-atlas-probe`: which neurons fire on your own image, and what the subject says without
them.

neuron-atlas-probe OUT --image photo.jpg
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from neuron_atlas.tasks.atlas.atlas import Atlas
from neuron_atlas.tasks.atlas.runs import RunNotFoundError
from neuron_atlas.tasks.clean_text import clean_text
from neuron_atlas.tasks.probe.errors import ProbeError
from neuron_atlas.tasks.subject.settings import SubjectError

_PAGE = "probe.html"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the console script. Exit status: 0 for success, 1 for a failure, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    # Read before torch loads, so that --help and a wrong OUT answer at once.
    try:
        atlas = Atlas.open(options.out, options.run)
    except (RunNotFoundError, ValueError) as error:
        _end(2, error)
    from neuron_atlas.tasks.artifacts import OldTableError
    from neuron_atlas.tasks.probe.changed import parse_neurons, parse_values
    from neuron_atlas.tasks.probe.probe import probe_atlas

    _quiet()
    try:
        probe = probe_atlas(
            atlas,
            options.image,
            options.text,
            without=parse_neurons(options.without),
            clamp=parse_values(options.clamp),
            count=options.count,
            max_new_tokens=options.max_new_tokens,
            model=options.model,
            device=options.device,
        )
    except (ProbeError, SubjectError, OldTableError) as error:
        _end(2, error)
    except OSError as error:
        _end(1, error)
    from neuron_atlas.tasks.probe.terminal import terminal_lines

    width = shutil.get_terminal_size().columns
    try:
        for line in terminal_lines(probe, width):
            print(clean_text(line))
        page = probe.write_page(options.page)
    except OSError as error:
        _end(1, error)
    print(f"\npage       {page}")


def _quiet() -> None:
    """Keep progress bars of transformers out of the output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers.utils import logging

    logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neuron-atlas-probe",
        description="Show the subject of a run your own image, and list the neurons that fire most "
        "against what they do on the run's dataset.",
        epilog="The subject is the run's own; another one is refused. See docs/probe.md.",
    )
    parser.add_argument(
        "out", metavar="OUT", help="output folder of the run, as in out=...: a folder or s3://..."
    )
    parser.add_argument("--image", type=Path, help="the image file")
    parser.add_argument(
        "--text",
        help="text that the subject sees as its own answer; without it, the subject answers the "
        "run's question about the image",
    )
    parser.add_argument(
        "--without",
        default="",
        metavar="LAYER:NEURON,...",
        help="neurons to zero in a second answer, such as 12:345,3:46",
    )
    parser.add_argument(
        "--clamp",
        default="",
        metavar="LAYER:NEURON=VALUE,...",
        help="neurons to clamp in the second answer: at every token the activation is at least "
        "VALUE, or at most VALUE if VALUE is 0 or below",
    )
    parser.add_argument(
        "--count", type=int, default=20, help="number of neurons to show (default: 20)"
    )
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        help="most tokens of an answer; the default is the run's describe.max_new_tokens",
    )
    parser.add_argument(
        "--page",
        type=Path,
        default=Path(_PAGE),
        help=f"file to write the page to (default: {_PAGE})",
    )
    parser.add_argument("--run", help="name of a run in OUT; the default is the last one")
    parser.add_argument(
        "--model",
        help="where the run's subject is now: a folder, or a Hugging Face id; the default is where "
        "the run found it",
    )
    parser.add_argument(
        "--device",
        help="device to run on, such as cpu or cuda:0, or auto to spread the layers over all GPUs; "
        "the default is a GPU if there is one",
    )
    return parser


def _end(status: int, error: Exception) -> NoReturn:
    # One line, whatever the message holds.
    print(f"neuron-atlas-probe: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
