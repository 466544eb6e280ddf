"""What an explainer is, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from neuron_atlas.tasks.evidence.evidence import Evidence
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.samples.catalog import Catalog


@dataclass(frozen=True)
class Explanation:
    """One explainer's outcome for one neuron; `status` is one of the `explanations` table's.

    evidence_for, evidence_against: what speaks for and against it, in the explainer's words.
    confidence: how sure it is, 0 to 1; None where it does not say. exemplar_ids: the samples that
    it saw.
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


class Explainer(Protocol):
    """Says in words what a neuron responds to. Implementations are frozen dataclasses of their
    settings; `name` is what their rows carry."""

    name: str

    @property
    def wording(self) -> str:
        """Hash of the prompts; empty where a model is not asked. Another one explains anew."""

    def check(self) -> None:
        """Raise `tasks.models.failures.Unusable` where no call could succeed, such as for want of a
        key: asked before hours of capture, which would be in vain."""

    def explain(
        self, evidence: Sequence[Evidence], catalog: Catalog, calls: Calls
    ) -> list[Explanation]:
        """Answer for every neuron, in order: a failure is an outcome, not an exception.

        Where `calls` are written down instead of being sent, those that wait for an answer are of
        the status `pending`, which no table takes.

        Raises `tasks.models.client.Unusable` where no call can succeed (wrong key, unknown model).
        """
