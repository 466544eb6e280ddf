"""What explaining or simulating would take, said before a cent is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray

from neuron_atlas.tasks.artifacts.location import scratch
from neuron_atlas.tasks.models.calls import Calls
from neuron_atlas.tasks.models.prices import Price, price_of
from neuron_atlas.tasks.models.settings import ClientSettings
from neuron_atlas.tasks.models.spool import Spool, read_spools
from neuron_atlas.workflows.cluster.progress import progress, say
from neuron_atlas.workflows.cluster.spread import spread
from neuron_atlas.workflows.models.asking import Asking
from neuron_atlas.workflows.models.calls import OpenCalls, open_calls
from neuron_atlas.workflows.run.neuron_parts import NeuronPart, cut_into_parts
from neuron_atlas.workflows.run.stage import Context

_LOOKED_AT = 512
"""Neurons whose requests are made; with more than that to explain, these stand for all."""


@dataclass(frozen=True)
class Estimate:
    """What calls would take, at most. answered: requests that the journal has an answer to."""

    neurons: int
    looked_at: int
    requests: int
    answered: int
    tokens_in: int
    tokens_out: int
    usd: float


def dry_run(context: Context, rehearsed: Callable[[Context], Asking]) -> None:
    """Say how many requests, tokens, dollars and hours a stage would take, for each explainer and,
    of several, in all. Nothing is sent.

    rehearsed: what the stage asks. The tokens and the dollars are the most that the first request
    of each question can take. Raises Unusable where a model has no price.
    """
    context.start_cluster()
    asked = [
        found
        for _, apart in context.each_explainer()
        if (found := _of_one(apart, rehearsed(apart)))
    ]
    for line in closing(asked):
        say(line)


def _of_one(context: Context, asking: Asking) -> tuple[int, float] | None:
    """The requests and dollars for one explainer, once they are told; None if no model is asked."""
    with open_calls(asking.asker, context, asking.stage, None, "batch") as calls:
        if calls is None:
            say(f"dry run    {asking.asker.name} asks no model")
            return None
        estimate = _estimate(context, asking, calls)
        price = price_of(calls.prices, calls.client.model)
        assert price is not None  # Looked for before the stage.
        is_batch = asking.settings.mode == "batch"
        for line in told(
            estimate, asking.stage, calls.client, price, is_batch=is_batch, apart=context.apart
        ):
            say(line)
        return estimate.requests, estimate.usd * (price.batch if is_batch else 1.0)


def closing(asked: Sequence[tuple[int, float]]) -> list[str]:
    """The last lines, given the requests and dollars of each explainer that asks a model."""
    lines = []
    if len(asked) > 1:
        requests, usd = sum(one for one, _ in asked), sum(one for _, one in asked)
        lines.append(f"in all     {requests:,} requests, {usd:,.2f} dollars at most")
    if asked:
        lines.append(
            "beside it  second questions after answers that cannot be read, and attempts that are "
            "billed without an answer"
        )
    return [*lines, "nothing was sent"]


def told(
    estimate: Estimate,
    stage: str,
    client: ClientSettings,
    price: Price,
    *,
    is_batch: bool,
    apart: str = "",
) -> list[str]:
    """The lines that tell of an estimate for a stage; apart: the explainer, where there are
    several."""
    judged = ""
    if estimate.looked_at < estimate.neurons:
        judged = f", judging by {estimate.looked_at:,} of them"
    lines = [
        f"dry run    {f'{apart}: ' if apart else ''}{estimate.neurons:,} neurons{judged}",
        f"requests   {estimate.requests:,} to {client.model}, and {estimate.answered:,} more that "
        "are answered already",
        f"tokens     {estimate.tokens_in:,} in the prompts and {estimate.tokens_out:,} in the "
        "answers, at most",
    ]
    usd, by_batch = estimate.usd, ""
    if is_batch:
        usd, by_batch = usd * price.batch, f", {price.batch:g} of it by batch"
    lines.append(
        f"dollars    {usd:,.2f} at most (prices of {price.date}: {price.input:g} in, "
        f"{price.output:g} out for a million tokens{by_batch})"
    )
    limits = client.limits
    if is_batch:
        lines.append("hours      up to 24 for each batch, as the provider says")
    elif limits.requests_per_minute is None and limits.tokens_per_minute is None:
        lines.append(f"hours      as many as it takes: {stage}.client.limits has no limit a minute")
    else:
        hours = limits.hours(estimate.requests, estimate.tokens_in + estimate.tokens_out)
        lines.append(f"hours      {hours:,.2f} at the limits in {stage}.client.limits")
    return lines


def _estimate(context: Context, asking: Asking, calls: OpenCalls) -> Estimate:
    looked_at = _evenly(asking.neurons, _LOOKED_AT)
    chosen = asking.neurons
    submit = asking.begin(calls)
    with scratch(context.store.out) as folder:

        def write_down(part: NeuronPart) -> ray.ObjectRef:
            spool = Spool(folder / f"{part.file('requests')}.jsonl", keep_bodies=False)
            return submit(part, Calls(calls.journal, None, spool, group=asking.stage), None)

        with progress("dry run", len(looked_at), "neurons") as advance:
            for part, _ in spread(cut_into_parts(looked_at, asking.neurons_per_task), write_down):
                advance(len(part.neurons))
        spooled = list(read_spools(sorted(folder.glob("*.jsonl"))))
    scale = len(chosen) / max(1, len(looked_at))
    return Estimate(
        neurons=len(chosen),
        looked_at=len(looked_at),
        requests=round(len(spooled) * scale),
        answered=round(calls.journal.tally_now().replayed * scale),
        tokens_in=round(sum(one.tokens_in for one in spooled) * scale),
        tokens_out=round(sum(one.tokens_out for one in spooled) * scale),
        usd=sum(one.usd for one in spooled) * scale,
    )


def _evenly(chosen: pa.Table, count: int) -> pa.Table:
    """At most so many rows, evenly over all."""
    if len(chosen) <= count:
        return chosen
    return chosen.take([place * len(chosen) // count for place in range(count)])
