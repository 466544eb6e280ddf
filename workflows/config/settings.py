"""Everything a run is told, as frozen dataclasses: the typed mirror of conf/."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.rule import ClassifySettings
from neuron_atlas.tasks.explain.explanation import Explainer
from neuron_atlas.tasks.explain.select import NeuronChoice
from neuron_atlas.tasks.report.settings import ReportSettings
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.serve.settings import ServersSettings
from neuron_atlas.tasks.settings import runtime
from neuron_atlas.tasks.simulate.simulator import Simulator
from neuron_atlas.tasks.subject.settings import DescribeSettings, SubjectSettings


@dataclass(frozen=True)
class DataSettings:
    """The dataset, and the share of bad samples above which a run does not start."""

    source: Source
    max_bad_share: float = runtime(0.01)

    def __post_init__(self) -> None:
        _check_share("max_bad_share", self.max_bad_share)


@dataclass(frozen=True)
class ExplainSettings:
    """Who explains which neurons; past max_failed_share failed ones the run fails.

    beside: further explainers, each with settings of its own (`settings_reader`).
    budget_usd: the most that explaining may cost in this output folder, over all runs and all
    explainers; None for no limit. mode: ask live, or by batch. dry_run: only say what explaining
    would take.
    """

    explainer: Explainer
    neurons: NeuronChoice = field(default_factory=NeuronChoice)
    neurons_per_task: int = runtime(128)
    max_failed_share: float = runtime(0.05)
    budget_usd: float | None = runtime(None)
    mode: Literal["live", "batch"] = runtime("live")
    dry_run: bool = runtime(False)
    beside: tuple[ExplainSettings, ...] = ()

    def __post_init__(self) -> None:
        _check_budget(self.budget_usd)
        _check_share("max_failed_share", self.max_failed_share)
        if self.neurons_per_task < 1:
            raise ValueError("neurons_per_task: must be at least 1")

    @property
    def each(self) -> tuple[ExplainSettings, ...]:
        """The settings of every explainer, this one first, alone each."""
        return (replace(self, beside=()), *self.beside)

    @property
    def names(self) -> tuple[str, ...]:
        """The explainers' names."""
        return tuple(one.explainer.name for one in self.each)

    @property
    def is_dry_run(self) -> bool:
        """Whether one of them runs dry: then nothing is explained."""
        return any(one.dry_run for one in self.each)

    def check(self) -> None:
        """See `Explainer.check`, of every explainer; one that only runs dry needs no key."""
        for one in self.each:
            if not one.dry_run:
                one.explainer.check()


@dataclass(frozen=True)
class SimulateSettings:
    """Who predicts traces from explanations; past max_failed_share failed predictions the run
    fails.

    seed: of the choice of controls. budget_usd: the most that simulating may cost in this output
    folder, over all runs and for all explainers; None for no limit. mode: ask live, or by batch.
    dry_run: only say what simulating would take. servers: of the simulator's model, started for
    this run. base_urls: instead, addresses of servers that somebody else runs. Without either the
    model is where the simulator's client says.
    """

    simulator: Simulator
    seed: int = 0
    max_failed_share: float = runtime(0.05)
    budget_usd: float | None = runtime(None)
    mode: Literal["live", "batch"] = runtime("live")
    dry_run: bool = runtime(False)
    servers: ServersSettings | None = runtime(None)  # noqa: RUF009
    base_urls: tuple[str, ...] = runtime(())

    def __post_init__(self) -> None:
        if self.mode == "batch" and not getattr(self.simulator, "takes_batches", True):
            raise ValueError(f"mode: {self.simulator.name} cannot be asked by batch; take live")
        _check_budget(self.budget_usd)
        _check_share("max_failed_share", self.max_failed_share)
        if self.servers or self.base_urls:
            if not getattr(self.simulator, "asks_model", False):
                raise ValueError(f"servers: the simulator {self.simulator.name!r} asks no model")
            if self.mode == "batch":
                raise ValueError("mode: servers of one's own are asked live, not by batch")

    def check(self) -> None:
        """See `Simulator.check`; one that only runs dry, or has servers of its own, needs no
        key."""
        if not (self.dry_run or self.servers or self.base_urls):
            self.simulator.check()


@dataclass(frozen=True)
class ClusterSettings:
    """Where the work runs. None of it changes a result.

    address: of a Ray cluster to attach to; None starts one in this process's machine. cpus: of
    the cluster that is started; None for all. actors: subject actors; None for one on each GPU,
    or one on each CPU core where there are none. gpus_per_actor: GPUs that one subject is spread
    over, layer by layer. threads: of each actor on a CPU. gpus: that a cluster which grows shall
    have before the subject is placed; None takes those that are there.
    """

    address: str | None = None
    cpus: int | None = None
    actors: int | None = None
    gpus_per_actor: int = 1
    threads: int = 1
    gpus: int | None = None

    def __post_init__(self) -> None:
        for name in ("cpus", "actors", "gpus_per_actor", "threads", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: must be at least 1")


@dataclass(frozen=True)
class TrackingSettings:
    """MLflow: the experiment, and a name for the run; None names it by what is run."""

    experiment: str = "neuron-atlas"
    run_name: str | None = None


@dataclass(frozen=True)
class Settings:
    """One run."""

    out: str
    subject: SubjectSettings
    data: DataSettings
    describe: DescribeSettings
    capture: CaptureSettings
    classify: ClassifySettings
    analyse: AnalyseSettings
    explain: ExplainSettings
    simulate: SimulateSettings
    score: ScoreSettings
    report: ReportSettings
    cluster: ClusterSettings
    tracking: TrackingSettings
    local: str | None = None
    """A folder of the driver's machine: of the journal and MLflow's runs (output.opened_store)."""

    def __post_init__(self) -> None:
        voting, kept = self.classify.rule.top_n, self.capture.top_n
        if voting is not None and voting > kept:
            raise ValueError(
                f"classify: {voting} exemplars shall vote (top_n) and capture.top_n keeps {kept}; "
                "raise the latter, which captures again"
            )

    @property
    def is_dry_run(self) -> bool:
        """Whether it ends before the last stage, with what a model would be asked."""
        return self.explain.is_dry_run or self.simulate.dry_run

    def check(self) -> None:
        """Raise Unusable where a model that will be asked cannot be, such as for want of a key."""
        self.explain.check()
        if not self.explain.is_dry_run:
            self.simulate.check()


def _check_budget(value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ValueError("budget_usd: must be at least 0, or null for no limit")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be a share from 0 to 1")
