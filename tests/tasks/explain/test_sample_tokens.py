import numpy as np
import pytest

from neuron_atlas.tasks.concepts.formula import STRENGTHS, Atom, Term
from neuron_atlas.tasks.concepts.predict import token_facts
from neuron_atlas.tasks.evidence.evidence import ActivationRecord, Evidence
from neuron_atlas.tasks.explain.sample_tokens import SampleTokens
from neuron_atlas.tasks.samples.catalog import Catalog
from tests.one_process import Described

RED = Term("visual", (Atom("shows", ("red",)),), (Atom("area", ("top half",)),), 1)
WORDS = Term("text", (Atom("word", ("circle", "red")),))
IS = Term("text", (Atom("word", ("is",)), Atom("before", ("large",))), strength=2)


@pytest.fixture(scope="module")
def catalog(scenes: Described) -> Catalog:
    return scenes.catalog()


def evidence(catalog: Catalog, kind: str) -> Evidence:
    rng = np.random.default_rng(0)
    records = [
        ActivationRecord(
            number,
            rng.normal(size=catalog[number].n_visual).astype(np.float32),
            rng.normal(size=len(catalog[number].tokens)).astype(np.float32),
        )
        for number in range(9)
    ]
    return Evidence(1, 7, kind, 3.0, exemplars=tuple(records[:3]), random=tuple(records[3:]))


@pytest.mark.parametrize("terms", [[RED], [WORDS], [RED, WORDS, IS]])
def test_the_worth_of_a_formula_is_its_weighted_correlation_less_the_penalty(catalog, terms):
    neuron = evidence(catalog, "multi-modal")
    facts = token_facts(catalog, neuron.sample_ids)
    records = (*neuron.exemplars, *neuron.random)
    x, y, weights, unweighted = [], [], [], {}
    for role in ("visual", "text"):
        for number, record in enumerate(records):
            real = getattr(record, role)
            holds = [np.zeros(len(real))]
            for term in (one for one in terms if one.role == role):
                atoms = (*term.required, *term.excluded)
                truths = facts.truths(role, atoms, [record.sample_id])
                parts = [truths[atom] for atom in term.required]
                parts += [1 - truths[atom] for atom in term.excluded]
                holds.append(STRENGTHS[term.strength] * np.min(parts, axis=0))
            x.append(real)
            y.append(np.max(holds, axis=0))
            weights.append(np.full(len(real), 1 / 3 if number < 3 else 1 / 6))
        real, predicted = (np.concatenate(part[-len(records) :]) for part in (x, y))
        if any(term.role == role for term in terms):
            unweighted[role] = np.corrcoef(real, predicted)[0, 1]
    cover = np.cov(np.concatenate(x), np.concatenate(y), aweights=np.concatenate(weights))
    r = cover[0, 1] / np.sqrt(cover[0, 0] * cover[1, 1])
    length = sum(len(term.required) + len(term.excluded) for term in terms)
    tokens = SampleTokens(neuron, facts)
    assert tokens.worth(terms, 0.01) == pytest.approx(r - 0.01 * length, abs=1e-6)
    assert tokens.correlations(terms) == pytest.approx(unweighted, abs=1e-6)


def test_a_formula_that_predicts_the_same_everywhere_is_worth_nothing(catalog):
    neuron = evidence(catalog, "visual")
    tokens = SampleTokens(neuron, token_facts(catalog, neuron.sample_ids))
    nowhere = Term("visual", (Atom("shows", ("nothing of this name",)),))
    assert tokens.worth([nowhere], 0.01) == -0.01
    assert tokens.correlations([nowhere]) == {"visual": 0}
