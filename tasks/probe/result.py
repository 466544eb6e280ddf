"""What a probe found: the subject's answers, and the neurons that fire most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from neuron_atlas.tasks.report.record import Exemplar, NeuronRecord
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True, repr=False)
class FiringNeuron:
    """A neuron that fires on the probe, compared with its activations over the run's dataset.

    role: `visual` or `text`, the tokens on which the peak is rarest. activation: the peak over
    these tokens. place: where it is, in words. quantile: share of the dataset's tokens of this role
    that are not above it; interpolated in a bin of the neuron's histogram, with the exact bounds
    quantile_low and quantile_high. n_tokens: tokens in that distribution. highest: highest
    activation over the dataset and this role. rank: samples of the dataset with a higher peak over
    all evidence tokens; None if there are more of them than the run stores exemplars. record: the
    neuron's type, explanations, scores and strongest samples. probe: the probe itself as an
    exemplar, with its trace. effects: rows of the run's tables of effects, by name of the table.
    """

    role: str
    activation: float
    place: str
    quantile: float
    quantile_low: float
    quantile_high: float
    n_tokens: int
    highest: float
    rank: int | None
    record: NeuronRecord
    probe: Exemplar
    effects: Mapping[str, tuple[Mapping[str, Any], ...]]

    @property
    def layer(self) -> int:
        """Layer of the neuron."""
        return self.record.layer

    @property
    def neuron(self) -> int:
        """Index of the neuron in its layer."""
        return self.record.neuron

    @property
    def explanation(self) -> str:
        """First explanation of the neuron; empty if it has none."""
        texts = (scored.explanation for scored in self.record.explanations)
        return next((row["text"] for row in texts if row["status"] == "ok"), "")

    @property
    def score(self) -> float | None:
        """Score of the first explanation over all tokens; None if it was not scored."""
        scores = (
            score["correlation"]
            for scored in self.record.explanations
            if scored.explanation["status"] == "ok"
            for score in scored.scores
            if score["tokens"] == "all" and score["status"] == "ok"
        )
        return next(scores, None)

    def __repr__(self) -> str:
        return f"<FiringNeuron {self.layer}:{self.neuron}, {self.activation:.3g} {self.place}>"


@dataclass(frozen=True, repr=False)
class Probe:
    """What the subject of a run does with one image and text.

    name: of the image; empty without one. text: the text that the subject was shown as its own
    answer. is_generated: the subject wrote it; else the caller gave it. answer: the subject's
    answer; None if the text was given and no neuron was changed. changes: the changed neurons in
    words; empty if none. changed_answer: the answer with these changes. n_silent: neurons of the
    run's layers that do not fire on the probe. n_samples: usable samples of the run. neurons: those
    that fire most against their own distribution, first to last.
    """

    run: str
    subject: str
    dataset: str
    question: str
    name: str
    text: str
    is_generated: bool
    answer: str | None
    changes: str
    changed_answer: str | None
    n_neurons: int
    n_silent: int
    n_samples: int
    catalog: Catalog
    neurons: tuple[FiringNeuron, ...]

    @property
    def table(self) -> pl.DataFrame:
        """The neurons as rows, first to last."""
        return pl.DataFrame(
            [
                {
                    "layer": one.layer,
                    "neuron": one.neuron,
                    "type": one.record.type,
                    "role": one.role,
                    "place": one.place,
                    "activation": one.activation,
                    "quantile": one.quantile,
                    "quantile_low": one.quantile_low,
                    "quantile_high": one.quantile_high,
                    "n_tokens": one.n_tokens,
                    "highest": one.highest,
                    "rank": one.rank,
                    "explanation": one.explanation,
                    "score": one.score,
                }
                for one in self.neurons
            ],
            schema={
                "layer": pl.Int16,
                "neuron": pl.Int32,
                "type": pl.String,
                "role": pl.String,
                "place": pl.String,
                "activation": pl.Float32,
                "quantile": pl.Float64,
                "quantile_low": pl.Float64,
                "quantile_high": pl.Float64,
                "n_tokens": pl.Int64,
                "highest": pl.Float32,
                "rank": pl.Int32,
                "explanation": pl.String,
                "score": pl.Float64,
            },
        )

    def write_page(self, path: str | Path) -> Path:
        """Write the probe as one page that needs no other file. Raises OSError."""
        from neuron_atlas.tasks.probe.page import probe_page

        path = Path(path)
        path.write_text(probe_page(self), encoding="utf-8")
        return path

    def __repr__(self) -> str:
        shown = self.name or "a text"
        return f"<Probe of {shown}: {len(self.neurons)} neurons, {self.text!r}>"

    def _repr_html_(self) -> str:
        from neuron_atlas.tasks.probe.page import probe_html

        return probe_html(self)
