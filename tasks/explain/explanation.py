"""The explainer protocol, and an explainer's result for one neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol

from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.models.call_options import CallOptions
from neuron_atlas.tasks.models.prices import Price
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Explanation:
    """One explainer's result for one neuron, with a status of the `explanations` table.

    evidence_for, evidence_against: for and against the explanation, in the explainer's words.
    confidence: 0 to 1; None if the explainer gives none. exemplar_ids: the samples it saw.
    omitted: request fields that its model's server refuses.
    """

    text: str
    status: str = "ok"
    reason: str = ""
    evidence_for: str = ""
    evidence_against: str = ""
    confidence: float | None = None
    model: str = ""
    prompt_hash: str = ""
    attempts: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float | None = 0.0
    seconds: float = 0.0
    exemplar_ids: tuple[int, ...] = ()
    omitted: str = ""


@dataclass(frozen=True)
class Background:
    """What an explainer may use besides the evidence that it explains.

    calibration: evidence of the same neurons that may decide between explanations, and that no
    score uses. word_classes: words that the texts of the dataset use alike.
    """

    calibration: Sequence[Evidence] = ()
    word_classes: Sequence[tuple[str, ...]] = ()


class Explainer(Protocol):
    """Protocol of explainers, which write what a neuron responds to.

    Implementations are frozen dataclasses of their settings, and subclasses of this class.
    """

    uses_background: ClassVar[bool] = False
    """Whether `explain_with` reads the background and the image clusters of the catalog. They are
    made only then."""

    name: str
    """Stored in its rows, so that several explainers can be compared."""
    client: ClientSettings | None = None
    """How to call its model; None if it calls no model."""
    prices: Mapping[str, Price] = MappingProxyType({})
    """Prices by model name, for explainers that call one."""

    @property
    def prompt_hash(self) -> str:
        """Hash of the prompts; a changed hash reruns explain. Empty if it calls no model."""
        return ""

    def check(self) -> None:
        """Raise ProviderError if no call can succeed, such as without a key. Runs before any
        stage."""
        return None

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: CallOptions
    ) -> list[Explanation]:
        """Explain every neuron, in order. A failure is an Explanation with that status.

        If `calls` collects requests for the batch API, an unanswered neuron has status `pending`,
        and the table is not written. Raises ProviderError if no call can succeed (wrong key,
        unknown model).
        """

    def explain_with(
        self,
        background: Background,
        evidence: Sequence[Evidence],
        catalog: Catalog,
        calls: CallOptions,
    ) -> list[Explanation]:
        """Explain every neuron as `explain` does, with a background."""
        return self.explain(evidence, catalog, calls)
