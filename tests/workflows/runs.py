"""Small runs of the whole program, and what they leave."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pyarrow as pa
from hydra.core.global_hydra import GlobalHydra
from mlflow import MlflowClient
from mlflow.entities import Run

from neuron_atlas.tasks import artifacts
from neuron_atlas.tasks.artifacts import read_table
from neuron_atlas.workflows.atlas import run_atlas, stages_of
from neuron_atlas.workflows.config.composition import (
    CONF,
    expand_explainers,
    plain_config,
    register_resolvers,
)
from neuron_atlas.workflows.config.reader import read_settings
from neuron_atlas.workflows.config.settings import Settings
from neuron_atlas.workflows.run.context import Context

ROOT = Path(__file__).parents[2]
LAYERS = (1, 3)
TOP_N = 12
SMALL = (
    "describe=given",
    "classify=tested",
    f"capture.layers={list(LAYERS)}".replace(" ", ""),
    f"capture.top_n={TOP_N}",
    "evidence.random_samples=12",
    "explain.neurons.per_layer_and_type=10",
    "score.resamples=100",
    "groups.samples=0",
    "steering.neurons_per_type=0",
    "report.neurons_per_type=2",
    "report.exemplars=2",
    "report.site.write=false",
    "cluster.cpus=2",
    "cluster.actors=1",
)
"""Every stage in some ten seconds on two cores, beside the data."""
SCENES = "data.count=150"

SPECS = {
    spec.name: spec
    for spec in (
        artifacts.SAMPLES,
        artifacts.CONCEPTS,
        artifacts.DESCRIPTIONS,
        artifacts.exemplars_spec(TOP_N),
        artifacts.EVIDENCE,
        artifacts.MOMENTS,
        artifacts.HISTOGRAMS,
        artifacts.NEURON_TYPES,
        artifacts.NEURON_TESTS,
        artifacts.WORDS,
        artifacts.RESPONSES,
        artifacts.MEANINGS,
        artifacts.TYPE_SHARES,
        artifacts.TYPE_AGREEMENT,
        artifacts.TYPE_KAPPA,
        artifacts.TYPE_RESPONSES,
        artifacts.TYPE_CONCEPTS,
        artifacts.TYPE_TOP_WORDS,
        artifacts.SEARCH_CENTERS,
        artifacts.SEARCH_VECTORS,
        artifacts.NEIGHBORS,
        artifacts.EXPLANATIONS,
        artifacts.STRATUM_SIZES,
        artifacts.NEAR_MISSES,
        artifacts.SIMULATIONS,
        artifacts.SCORES,
        artifacts.SCORE_AGGREGATES,
    )
}
UNTIMED = {"seconds"}
"""Columns that differ between two runs of the same thing."""


def composed(*overrides: str) -> dict[str, Any]:
    """The config of a call with these overrides."""
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return plain_config(hydra.compose("atlas", overrides=expand_explainers(overrides)))


def settings(*overrides: str) -> Settings:
    return read_settings(composed(*overrides))


NAMES = [stage.name for stage in stages_of(settings(*SMALL))]
"""The stages of a small run with one explainer."""


def small_run(out: Path, *overrides: str, data: Sequence[str] = (SCENES,)) -> Context:
    """A small run in this process."""
    return run_atlas(composed(*data, *SMALL, *overrides) | {"out": str(out)})


def run_here(*overrides: str) -> str:
    """Run the whole program in this process, on the Ray of the tests; what it said."""
    said = io.StringIO()
    with redirect_stderr(said):
        run_atlas(composed(*overrides))
    return said.getvalue()


@dataclass(frozen=True)
class Atlas:
    """The folder of a finished run, as its manifest tells of it."""

    out: Path

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.out / "manifest.json").read_text(encoding="utf-8"))

    def files(self, artifact: str) -> list[Path]:
        return [self.out / name for name in self.manifest["artifacts"][artifact]["files"]]

    def table(self, artifact: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, in the order of their key."""
        spec = SPECS[artifact]
        wanted = spec.schema.names if columns is None else columns
        wanted = [name for name in wanted if name not in UNTIMED]
        table = read_table(self.files(artifact), spec, list(dict.fromkeys([*spec.key, *wanted])))
        return table.sort_by([(name, "ascending") for name in spec.key])


def command(*overrides: str) -> list[str]:
    """The program's own console entry, as a person calls it."""
    return [sys.executable, "-m", "neuron_atlas.workflows.atlas", *overrides]


def runs_in(database: Path) -> tuple[MlflowClient, list[Run]]:
    """The MLflow runs of a database, first to last."""
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("neuron-atlas")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return client, list(found)
