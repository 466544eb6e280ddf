"""What every page of the report is made with: templates, colours, style."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from neuron_atlas.tasks.report import wording
from neuron_atlas.tasks.report.palette import colour_style

_TEMPLATES = Path(__file__).parent / "templates"


@cache
def environment(
    package: str = "neuron_atlas.tasks.report", folder: str = "templates"
) -> Environment:
    """The templates of a package; what is put into them is no markup."""
    made = Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(wording.FILTERS)
    return made


def stylesheet(within: str = "") -> str:
    """Colours and style of a whole page; within: of the elements below this selector alone."""
    style = f"{colour_style()}\n{template_text('atlas.css')}"
    if not within:
        return style
    nested = re.sub("^body|:root", "&", style, flags=re.MULTILINE)
    return f"{within} {{\n{nested}\n}}"


def template_text(name: str) -> str:
    """A file that stands next to the templates."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")
