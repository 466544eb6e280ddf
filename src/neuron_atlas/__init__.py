"""An atlas of the FFN neurons of a vision-language model.

The folders linked here are the ones at the top of the repository, so that everything installs as
one package and nothing else in a user's folder can take its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuron_atlas.tasks.atlas import Atlas

__all__ = ["Atlas"]


def __getattr__(name: str) -> Any:
    # Imported on first use: every import of a submodule runs this file, and most need no tables.
    if name == "Atlas":
        from neuron_atlas.tasks.atlas import Atlas

        return Atlas
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
