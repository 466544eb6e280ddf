"""What explaining would take, said before a cent is spent."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray

from tasks.llm.calls import Calls
from tasks.llm.prices import Price
from tasks.llm.settings import ClientSettings
from tasks.llm.spool import Spool, read_spools
from workflows.calls import OpenCalls, open_calls
from workflows.cluster import spread
from workflows.neuron_parts import NeuronPart, TaskInputs, cut_into_parts
from workflows.progress import progress, say
from workflows.stage import Context
from workflows.stages.explain import chosen_neurons, explain_part

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


def dry_run(context: Context) -> None:
    """Say how many requests, tokens, dollars and hours explaining would take. Nothing is sent.

    The tokens and the dollars are the most that the requests can take. Raises Unusable where the
    model has no price.
    """
    context.start_cluster()
    explainer = context.settings.explain.explainer
    with open_calls(explainer, context, "explain", None, "batch") as calls:
        if calls is None:
            say(f"dry run    {explainer.name} asks no model")
            return
        estimate = _estimate(context, calls)
        price = calls.prices[calls.client.model]
        is_batch = context.settings.explain.mode == "batch"
        for line in told(estimate, calls.client, price, is_batch=is_batch):
            say(line)


def told(estimate: Estimate, client: ClientSettings, price: Price, *, is_batch: bool) -> list[str]:
    """The lines that tell of an estimate."""
    judged = ""
    if estimate.looked_at < estimate.neurons:
        judged = f", judging by {estimate.looked_at:,} of them"
    lines = [
        f"dry run    {estimate.neurons:,} neurons{judged}",
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
        lines.append("hours      as many as it takes: explain.client.limits has no limit a minute")
    else:
        hours = limits.hours(estimate.requests, estimate.tokens_in + estimate.tokens_out)
        lines.append(f"hours      {hours:,.2f} at the limits in explain.client.limits")
    return [*lines, "nothing was sent"]


def _estimate(context: Context, calls: OpenCalls) -> Estimate:
    settings = context.settings.explain
    chosen = chosen_neurons(context)
    looked_at = _evenly(chosen, _LOOKED_AT)
    inputs = TaskInputs.of(context)
    with tempfile.TemporaryDirectory(dir=context.store.out) as folder:

        def submit(part: NeuronPart) -> ray.ObjectRef:
            spool = Spool(Path(folder) / f"{part.file('requests')}.jsonl", keep_bodies=False)
            written_down = Calls(calls.journal, None, spool)
            return explain_part.remote(settings.explainer, part, inputs, written_down, None)

        with progress("dry run", len(looked_at), "neurons") as advance:
            for part, _ in spread(cut_into_parts(looked_at, settings.neurons_per_task), submit):
                advance(len(part.neurons))
        spooled = list(read_spools(sorted(Path(folder).glob("*.jsonl"))))
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
