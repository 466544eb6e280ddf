"""Estimate what explaining or simulating would take, before a cent is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuron_atlas.tasks.artifacts.location import scratch
from neuron_atlas.tasks.models.prices import price_of
from neuron_atlas.tasks.models.request_file import read_request_files
from neuron_atlas.workflows.cluster.progress import progress, say
from neuron_atlas.workflows.models.calls import ModelUse, OpenCalls, open_calls
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.items import ItemRunner
from neuron_atlas.workflows.run.stage import Item, Stage, Step

_LOOKED_AT = 512
"""Neurons whose requests are made; with more than that to explain, these stand for all."""


@dataclass(frozen=True)
class Estimate:
    """What the calls of one stage would take, at most.

    looked_at: neurons whose requests were made. answered: requests that are answered already. usd:
    dollars for live calls.
    """

    use: ModelUse
    neurons: int
    looked_at: int
    requests: int
    answered: int
    tokens_in: int
    tokens_out: int
    usd: float

    @property
    def total_usd(self) -> float:
        """Dollars in the stage's mode: live, or by batch."""
        price = price_of(self.use.prices, self.use.client.model)
        assert price is not None  # The client was checked for one.
        return self.usd * (price.batch if self.use.mode == "batch" else 1.0)


def dry_run(stage: Stage, context: Context) -> Estimate | None:
    """Print how many requests, tokens, dollars and hours a stage would take; None if it calls no
    model. Nothing is sent.

    Tokens and dollars are the most that the first request of each question can take. Raises
    Unusable where a model has no price.
    """
    step = stage.steps[-1]
    use = step.needs(context).model
    if use is None:
        say(f"dry run    {stage.title} calls no model")
        return None
    # Opened as for batches, so that those of an earlier run do not stand in the way.
    with open_calls(replace(use, mode="batch", budget_usd=None), context.store.local) as calls:
        estimate = _estimate(step, use, calls, context)
    for line in estimate_lines(estimate, stage.explainer):
        say(line)
    return estimate


def closing_lines(estimates: Sequence[Estimate | None]) -> list[str]:
    """The lines after the estimates of all explainers: their sum, and what they leave out."""
    if not estimates:
        return []
    made = [estimate for estimate in estimates if estimate is not None]
    lines = []
    if len(made) > 1:
        requests, usd = sum(one.requests for one in made), sum(one.total_usd for one in made)
        lines.append(f"in all     {requests:,} requests, {usd:,.2f} dollars at most")
    if made:
        lines.append(
            "left out   second requests after unreadable answers, and failed attempts that are "
            "billed"
        )
    return [*lines, "nothing was sent"]


def estimate_lines(estimate: Estimate, explainer: str = "") -> list[str]:
    """The lines of one estimate. explainer: named where there are several."""
    use = estimate.use
    price = price_of(use.prices, use.client.model)
    assert price is not None
    sampled = ""
    if estimate.looked_at < estimate.neurons:
        sampled = f", estimated from {estimate.looked_at:,} of them"
    by_batch = f", {price.batch:g} of it by batch" if use.mode == "batch" else ""
    return [
        f"dry run    {f'{explainer}: ' if explainer else ''}{estimate.neurons:,} neurons{sampled}",
        f"requests   {estimate.requests:,} to {use.client.model}, and {estimate.answered:,} more "
        "that are answered already",
        f"tokens     {estimate.tokens_in:,} in the prompts and {estimate.tokens_out:,} in the "
        "answers, at most",
        f"dollars    {estimate.total_usd:,.2f} at most (prices of {price.date}: {price.input:g} "
        f"in, {price.output:g} out for a million tokens{by_batch})",
        f"hours      {_hours(estimate)}",
    ]


def _hours(estimate: Estimate) -> str:
    use, limits = estimate.use, estimate.use.client.limits
    if use.mode == "batch":
        return "up to 24 for each batch, as the provider says"
    if limits.requests_per_minute is None and limits.tokens_per_minute is None:
        return f"unknown: {use.stage}.client.limits has no limit a minute"
    hours = limits.hours(estimate.requests, estimate.tokens_in + estimate.tokens_out)
    return f"{hours:,.2f} at the limits in {use.stage}.client.limits"


def _estimate(step: Step, use: ModelUse, calls: OpenCalls, context: Context) -> Estimate:
    with scratch(context.store.out) as folder:
        items = step.items(context, folder)
        some = _evenly(items, _LOOKED_AT)
        looked_at = sum(item.size for item in some)
        with progress("dry run", looked_at, "neurons") as advance:
            runner = ItemRunner(step.name, step.work, folder, folder / "logs", advance)
            runner.run(some, lambda item: calls.rehearsing(folder / f"{item.key}.jsonl"))
        requests = list(read_request_files(sorted(folder.glob("*.jsonl"))))
    neurons = sum(item.size for item in items)
    scale = neurons / max(1, looked_at)
    return Estimate(
        use=use,
        neurons=neurons,
        looked_at=looked_at,
        requests=round(len(requests) * scale),
        answered=round(calls.account.tally().replayed * scale),
        tokens_in=round(sum(one.tokens_in for one in requests) * scale),
        tokens_out=round(sum(one.tokens_out for one in requests) * scale),
        usd=sum(one.usd for one in requests) * scale,
    )


def _evenly(items: Sequence[Item], size: int) -> list[Item]:
    """Items of at least `size` units together, evenly over all."""
    total = sum(item.size for item in items)
    if total <= size:
        return list(items)
    count = -(-len(items) * size // total)
    return [items[place * len(items) // count] for place in range(count)]
