"""Estimate the requests, tokens, cost and time of a stage that calls a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from neuron_atlas.tasks.artifacts.location import scratch_folder
from neuron_atlas.tasks.models.prices import price_of
from neuron_atlas.tasks.models.request_file import read_request_files
from neuron_atlas.workflows.cluster.progress import print_line, progress
from neuron_atlas.workflows.models.calls import ModelUse, OpenCalls, open_calls
from neuron_atlas.workflows.run.context import Context
from neuron_atlas.workflows.run.items import ItemRunner
from neuron_atlas.workflows.run.stage import Item, Stage, Step

_MAX_SAMPLED = 512
"""Most neurons whose requests are built. Their numbers are scaled up to all neurons."""


@dataclass(frozen=True)
class Estimate:
    """Upper bounds on the calls of one stage.

    neurons: number of the stage's neurons, or of their meanings, named by `unit`. n_sampled: of
    those whose requests were built. answered: requests with a stored answer. usd: dollars for live
    calls.
    """

    use: ModelUse
    neurons: int
    n_sampled: int
    requests: int
    answered: int
    tokens_in: int
    tokens_out: int
    usd: float
    unit: str = "neurons"

    @property
    def total_usd(self) -> float:
        """Dollars at the price of the stage's mode, live or batch."""
        price = price_of(self.use.prices, self.use.client.model)
        assert price is not None  # check_price has passed.
        return self.usd * (price.batch if self.use.mode == "batch" else 1.0)


def dry_run(stage: Stage, context: Context) -> Estimate | None:
    """Print and return an estimate of a stage; None if it calls no model. Sends nothing.

    Tokens and dollars are upper bounds for the first request of each question. Raises ProviderError
    if a model has no price.
    """
    step = stage.steps[-1]
    use = step.needs(context).model
    if use is None:
        print_line(f"dry run    {stage.title} calls no model")
        return None
    # In batch mode, so that open batches of an earlier run raise no error.
    with open_calls(replace(use, mode="batch", budget_usd=None), context.store.local) as calls:
        estimate = _estimate(step, use, calls, context)
    for line in estimate_lines(estimate, stage.explainer):
        print_line(line)
    return estimate


def closing_lines(estimates: Sequence[Estimate | None]) -> list[str]:
    """Return the lines after all estimates: their sum, and the costs not included."""
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
    """Return the lines of one estimate. explainer: its name, if there are several."""
    use = estimate.use
    price = price_of(use.prices, use.client.model)
    assert price is not None
    sampled = ""
    if estimate.n_sampled < estimate.neurons:
        sampled = f", estimated from {estimate.n_sampled:,} of them"
    by_batch = f", {price.batch:g} of it by batch" if use.mode == "batch" else ""
    author = f"{explainer}: " if explainer else ""
    return [
        f"dry run    {author}{estimate.neurons:,} {estimate.unit}{sampled}",
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
        return "up to 24 for each batch, the provider's limit"
    if limits.requests_per_minute is None and limits.tokens_per_minute is None:
        return f"unknown: {use.stage}.client.limits has no limit a minute"
    hours = limits.hours(estimate.requests, estimate.tokens_in + estimate.tokens_out)
    return f"{hours:,.2f} at the limits in {use.stage}.client.limits"


def _estimate(step: Step, use: ModelUse, calls: OpenCalls, context: Context) -> Estimate:
    with scratch_folder(context.store.out) as folder:
        items = step.items(context, folder)
        some = _evenly(items, _MAX_SAMPLED)
        n_sampled = sum(item.size for item in some)
        with progress("dry run", n_sampled, step.unit) as advance:
            runner = ItemRunner(step.name, step.work, folder, folder / "logs", advance)
            runner.run(some, lambda item: calls.dry_run_calls(folder / f"{item.key}.jsonl"))
        requests = list(read_request_files(sorted(folder.glob("*.jsonl"))))
    neurons = sum(item.size for item in items)
    scale = neurons / max(1, n_sampled)
    return Estimate(
        use=use,
        neurons=neurons,
        n_sampled=n_sampled,
        requests=round(len(requests) * scale),
        answered=round(calls.account.tally().replayed * scale),
        tokens_in=round(sum(one.tokens_in for one in requests) * scale),
        tokens_out=round(sum(one.tokens_out for one in requests) * scale),
        usd=sum(one.usd for one in requests) * scale,
        unit=step.unit,
    )


def _evenly(items: Sequence[Item], size: int) -> list[Item]:
    """Return items of about `size` units in total, evenly spaced; all if they have fewer."""
    total = sum(item.size for item in items)
    if total <= size:
        return list(items)
    count = -(-len(items) * size // total)
    return [items[place * len(items) // count] for place in range(count)]
