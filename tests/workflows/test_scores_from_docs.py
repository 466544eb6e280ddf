"""The scores of a run are those that docs/scores.md describes, worked out from the page alone."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from neuron_atlas.tasks.artifacts import LEVELS, TOKENS, read_table
from tests.workflows import scores_from_docs as docs
from tests.workflows import shares_from_docs as shares
from tests.workflows.correlations_from_docs import ROLES, STRATA, Sample
from tests.workflows.runs import SPECS, Atlas

pytestmark = pytest.mark.usefixtures("first_run")

SETTINGS = SimpleNamespace(seed=0, resamples=100)
KEY = ("layer", "neuron")
N_NEURONS = 12
"""Neurons whose every number is worked out; p and q are over all."""
COLUMNS = (
    *("correlation", "ci_low", "ci_high", "margin", "margin_low", "margin_high", "p_paired"),
    *(
        "purity",
        "random_purity",
        "recall",
        "top_random_correlation",
        "n_samples",
        "n_tokens",
        "n_near_misses",
    ),
    *("control_other", "control_empty", "control_blind", "spearman", "auroc"),
    *("explained_variance", "explained_variance_uncentered", "detection_auroc"),
    *("detection_auroc_other", "balanced_accuracy", "n_active"),
    *("control_broader", "control_narrower", "p_broader", "p_narrower"),
)


def near_misses_of(atlas: Atlas) -> dict[tuple, list[dict]]:
    """The near misses of each neuron's explanation. Other runs share its folder, and may have added
    explanations."""
    stored = rows_of(atlas, "near_misses")
    return {
        key: [row for row in stored[key] if row["claim"] == shares.claim(one["text"])]
        for key, (one, *_) in rows_of(atlas, "explanations").items()
    }


def rows_of(atlas: Atlas, name: str) -> dict[tuple, list[dict]]:
    """The rows of a table by neuron, in the order of its files."""
    found = defaultdict(list)
    for row in read_table(atlas.files(name), SPECS[name]).to_pylist():
        found[row["layer"], row["neuron"]].append(row)
    return found


def images_of(atlas: Atlas) -> dict[int, set[str]]:
    """The images of each sample."""
    return {
        row["sample_id"]: {*row["images"], row["image_sha256"]} - {None, ""}
        for row in atlas.table("samples").to_pylist()
    }


def sample(row: dict, claims: dict[str, dict]) -> Sample:
    return Sample(
        row["sample_id"],
        row["stratum"],
        {role: row[role] for role in ROLES},
        {claim: {role: its[role] for role in ROLES} for claim, its in claims.items()},
        {claim: its["sample_prediction"] for claim, its in claims.items()},
    )


def sizes_of(atlas: Atlas) -> dict[tuple, dict]:
    """The row of `stratum_sizes` of each neuron's explanation. Other runs share its folder, and may
    have added neurons and explanations."""
    stored = rows_of(atlas, "stratum_sizes")
    found = {}
    for key, (explained, *_) in rows_of(atlas, "explanations").items():
        claim = shares.claim(explained["text"])
        (found[key],) = (row for row in stored[key] if row["claim"] == claim)
    return found


def expected(
    evidence: list[dict], simulations: list[dict], scale: float, sizes: dict, tokens: dict
) -> dict:
    """The columns of each kind of tokens of one explanation. evidence: with its near misses."""
    real = {(row["purpose"], row["sample_id"]): row for row in evidence}
    claims = defaultdict(dict)
    for row in simulations:
        if row["status"] == "ok":
            claims[row["purpose"], row["sample_id"]][row["explanation"]] = row
    present = {name for its in claims.values() for name in its}
    names = sorted(present - set(LEVELS), key="own other empty".find)
    purposes = {
        purpose: [sample(real[key], its) for key, its in claims.items() if key[0] == purpose]
        for purpose in ("scorer", "calibration")
    }
    shown = [sample(row, {}) for row in evidence if row["purpose"] == "explainer"]
    docs.predict_blindly(shown, purposes["scorer"], tokens)
    names = [*names, "blind"]
    levels = [name for name in LEVELS if name in present]
    return {
        kind: docs.score(*purposes.values(), names, scale, sizes, kind, SETTINGS)
        | docs.compare_levels(purposes["scorer"], levels, kind)
        for kind in TOKENS
    }


@pytest.fixture(scope="module")
def scores(atlas: Atlas) -> list[dict[str, Any]]:
    return atlas.table("scores").to_pylist()


def test_every_column_of_a_score_is_what_the_page_says(atlas, scores):
    evidence, simulations = rows_of(atlas, "evidence"), rows_of(atlas, "simulations")
    scale = {key: rows[0]["scale"] for key, rows in rows_of(atlas, "types").items()}
    tokens = {row["sample_id"]: row["tokens"] for row in atlas.table("descriptions").to_pylist()}
    compared = defaultdict(int)
    near_misses, sizes = near_misses_of(atlas), sizes_of(atlas)
    keys = list(simulations)[:: max(1, len(simulations) // N_NEURONS)]
    for key in keys:
        its = [*evidence[key], *near_misses[key]]
        found = expected(its, simulations[key], scale[key], sizes[key], tokens)
        for row in scores:
            if (row["layer"], row["neuron"]) != key or row["status"] not in ("ok", "no_control"):
                continue
            for name in COLUMNS:
                value = found[row["tokens"]][name]
                if row[name] is None:
                    assert row["status"] == "no_control" or math.isnan(value), (key, name)
                else:
                    assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-6), (key, name)
                    compared[name] += 1
    always_null = {"control_empty"}  # The concept simulator predicts 0 from no words.
    assert {name for name in COLUMNS if compared[name] < N_NEURONS} == always_null


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def test_p_and_q_are_over_all_neurons_of_a_kind_of_tokens(scores):
    for tokens in TOKENS:
        rows = [row for row in scores if row["tokens"] == tokens]
        contests = shares.p_contests(rows)
        p = [
            float("nan") if row["p_paired"] is None else max(contest, row["p_paired"])
            for row, contest in zip(rows, contests, strict=True)
        ]
        levels = [(f"q_{name}", [_nan(row[f"p_{name}"]) for row in rows]) for name in LEVELS]
        q_of_levels = [(name, shares.q_values(values)) for name, values in levels]
        for name, values in (
            *(("p_contest", contests), ("p", p), ("q", shares.q_values(p))),
            *q_of_levels,
        ):
            given = [float("nan") if row[name] is None else row[name] for row in rows]
            assert given == pytest.approx(values, abs=1e-9, nan_ok=True), name


def test_the_means_and_their_intervals_are_over_the_scored_neurons(atlas, scores):
    (aggregate,) = (
        row
        for row in atlas.table("score_aggregates").to_pylist()
        if (row["tokens"], row["by"], row["measure"]) == ("all", "all", "margin")
    )
    rows = sorted(
        (row for row in scores if row["tokens"] == "all"),
        key=lambda row: (row["type"], row["layer"]),
    )
    values = [
        row["margin"] if row["correlation"] is not None and row["margin"] is not None else math.nan
        for row in rows
    ]
    defined = [value for value in values if value == value]
    assert aggregate["n"] == len(defined)
    assert aggregate["mean"] == pytest.approx(math.fsum(defined) / len(defined), abs=1e-6)
    low, high = shares.mean_interval(values, SETTINGS.seed, SETTINGS.resamples)
    assert (aggregate["ci_low"], aggregate["ci_high"]) == pytest.approx((low, high), abs=1e-6)


def test_samples_are_shared_out_as_the_page_says(atlas):
    exemplars = rows_of(atlas, "exemplars")
    images = images_of(atlas)
    used, near_misses = rows_of(atlas, "simulations"), near_misses_of(atlas)
    checked = 0
    evidence = rows_of(atlas, "evidence")
    for key in rows_of(atlas, "explanations"):
        chosen = [row for row in evidence[key] if row["purpose"] != "show"]
        random = sorted(row["sample_id"] for row in chosen if row["stratum"] == "random")
        ranked = exemplars[key][0]["sample_id"]
        purposes = shares.share_out(ranked, random, images)
        assert {row["sample_id"]: row["purpose"] for row in chosen} == purposes
        for purpose in ("scorer", "calibration"):
            kinds = [[one for one in ids if purposes[one] == purpose] for ids in (ranked, random)]
            n = min(map(len, kinds))
            expected = [one for ids in kinds for one in shares.evenly(ids, n)]
            simulated = [
                row["sample_id"]
                for row in used[key]
                if (row["explanation"], row["purpose"]) == ("own", purpose)
            ]
            drawn = [row["sample_id"] for row in near_misses[key]] if purpose == "scorer" else []
            assert simulated == [*expected, *sorted(drawn)]
        checked += 1
    assert checked > N_NEURONS


def test_controls_and_random_samples_are_chosen_as_the_page_says(atlas):
    explained = [
        row
        for row in atlas.table("explanations", ["type", "text", "status"]).to_pylist()
        if row["status"] == "ok"
    ]
    controls = {
        key: (rows[0]["explanation_layer"], rows[0]["explanation_neuron"])
        for key, of in rows_of(atlas, "simulations").items()
        if (rows := [row for row in of if row["explanation"] == "other" and row["status"] == "ok"])
    }
    assert len(controls) > N_NEURONS
    assert controls == {key: shares.control(key, explained) for key in controls}
    usable = [
        row["sample_id"] for row in atlas.table("samples").to_pylist() if row["status"] == "ok"
    ]
    drawn = set(shares.draw(usable, 12))
    for key, rows in rows_of(atlas, "evidence").items():
        found = {row["sample_id"] for row in rows if row["stratum"] == "random"}
        ranked = {row["sample_id"] for row in rows if row["stratum"] == "exemplar"}
        assert not found or found == drawn - ranked, key


def test_strata_and_near_misses_are_those_of_the_page(atlas):
    images = images_of(atlas)
    described = atlas.table("descriptions").to_pylist()
    usable = {row["sample_id"] for row in described if row["status"] in ("ok", "truncated")}
    evidence, near_misses = rows_of(atlas, "evidence"), rows_of(atlas, "near_misses")
    n_drawn = 0
    for key, sizes in sizes_of(atlas).items():
        used = [row for row in evidence[key] if row["purpose"] != "show"]
        seen = {row["sample_id"] for row in used if row["purpose"] != "scorer"}
        scored = {row["sample_id"] for row in used} - seen
        drawn = {row["sample_id"] for row in near_misses[key]}
        assert sizes["exemplars"] == sum(row["stratum"] == "exemplar" for row in used)
        assert sum(sizes[name] for name in STRATA) == len(usable)
        assert set(sizes["predicted_ids"]) <= scored
        assert drawn <= usable - seen - scored
        assert len(drawn) <= min(8, sizes["near_misses"])
        shown = {image for one in seen for image in images[one]}
        assert not any(images[one] & shown for one in drawn), key
        n_drawn += len(drawn)
    assert n_drawn > N_NEURONS
