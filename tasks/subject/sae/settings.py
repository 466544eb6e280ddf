"""Settings of SAE latents as neurons, importable without torch."""

from __future__ import annotations

from dataclasses import dataclass

from neuron_atlas.tasks.settings import not_hashed

SAE = "sae"
"""The hook point whose neurons are the latents of a sparse autoencoder (SAE)."""


@dataclass(frozen=True)
class SaeSettings:
    """Where the SAEs are, with capture.hook_point=sae.

    path: the folder of one SAE, or a folder with one SAE for each layer, at any depth. None for any
    other hook point. The content of the files, and not the path, decides the result.
    """

    path: str | None = not_hashed(None)
