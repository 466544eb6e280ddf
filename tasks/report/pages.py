"""Load the templates and the style of the report's pages."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from neuron_atlas.tasks.report import wording
from neuron_atlas.tasks.report.controls import strongest_control
from neuron_atlas.tasks.report.glossary import READING, term
from neuron_atlas.tasks.report.palette import color_css

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def template_environment(
    package: str = "neuron_atlas.tasks.report", folder: str = "templates"
) -> Environment:
    """Return the templates of a package. Inserted values are escaped."""
    made = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(wording.FILTERS)
    made.filters["strongest_control"] = strongest_control
    made.globals.update(term=term, reading=READING)
    return made


def stylesheet(within: str = "") -> str:
    """Return the style sheet of a page. within: limit it to elements inside this selector."""
    style = f"{color_css()}\n{template_text('atlas.css')}"
    if not within:
        return style
    nested = re.sub("^body|:root", "&", style, flags=re.MULTILINE)
    return f"{within} {{\n{nested}\n}}"


def template_text(name: str) -> str:
    """Read a file in the folder of the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")
