"""Settings of one run, as frozen dataclasses. Most groups' settings are next to their code."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge

from neuron_atlas.tasks.analyse.settings import AnalyseSettings
from neuron_atlas.tasks.capture.settings import CaptureSettings
from neuron_atlas.tasks.classify.rule import Rule
from neuron_atlas.tasks.effects.settings import EffectsSettings
from neuron_atlas.tasks.evidence.settings import EvidenceSettings
from neuron_atlas.tasks.explain.explanation import Explainer
from neuron_atlas.tasks.explain.select import NeuronChoice
from neuron_atlas.tasks.groups.settings import GroupSettings, SteeringSettings
from neuron_atlas.tasks.image_clusters.settings import ImageClusterSettings
from neuron_atlas.tasks.models.servers import complete_url
from neuron_atlas.tasks.near_misses.settings import NearMissSettings
from neuron_atlas.tasks.report.settings import ReportSettings
from neuron_atlas.tasks.samples.source import Source
from neuron_atlas.tasks.score.settings import ScoreSettings
from neuron_atlas.tasks.search.settings import SearchSettings
from neuron_atlas.tasks.settings import AtLeastOne, Share, not_hashed
from neuron_atlas.tasks.simulate.simulator import Simulator
from neuron_atlas.tasks.subject.settings import (
    MODULE_PREFIX,
    TOWERS,
    DescribeSettings,
    SubjectSettings,
)
from neuron_atlas.workflows.config.plug_in import PLUG_IN
from neuron_atlas.workflows.config.servers import ServersSettings

Budget = Annotated[float, Ge(0)]
Mode = Literal["live", "batch"]


@dataclass(frozen=True)
class DataSettings:
    """Settings of the dataset. max_bad_share: the run fails if a larger share of samples is bad."""

    source: Annotated[Source, PLUG_IN]
    max_bad_share: Share = not_hashed(0.01)


@dataclass(frozen=True)
class ClassifySettings:
    """Settings of the rule that gives each neuron its type."""

    rule: Annotated[Rule, PLUG_IN]


@dataclass(frozen=True)
class ExplainSettings:
    """Settings of one explainer, and of the neurons it explains.

    meanings: `auto` also explains and scores each meaning of the neurons that have several; 1 does
    not. neurons_per_task: neurons of one work item. max_failed_share: the run fails if a larger
    share of neurons fails. budget_usd: spending limit (USD) for all explainers and all runs in this
    output folder; None for no limit. mode: live, or through the batch API. dry_run: only estimate
    requests, tokens and cost. other_explainers: their settings.
    """

    explainer: Annotated[Explainer, PLUG_IN]
    neurons: NeuronChoice = field(default_factory=NeuronChoice)
    meanings: Literal["auto", 1] = 1
    neurons_per_task: AtLeastOne = not_hashed(128)
    max_failed_share: Share = not_hashed(0.05)
    budget_usd: Budget | None = not_hashed(None)
    mode: Mode = not_hashed("live")
    dry_run: bool = not_hashed(False)
    other_explainers: tuple[ExplainSettings, ...] = ()

    @property
    def each_explainer(self) -> tuple[ExplainSettings, ...]:
        """Settings of each explainer alone, this one first."""
        return (replace(self, other_explainers=()), *self.other_explainers)

    @property
    def names(self) -> tuple[str, ...]:
        """The explainers' names."""
        return tuple(one.explainer.name for one in self.each_explainer)

    @property
    def is_dry_run(self) -> bool:
        """Whether any explainer is a dry run. Then all of them are."""
        return any(one.dry_run for one in self.each_explainer)

    def check(self) -> None:
        """Check the explainers that call a model (`Explainer.check`). A dry run needs no key.

        Raises ProviderError.
        """
        for one in self.each_explainer:
            if not one.dry_run:
                one.explainer.check()


@dataclass(frozen=True)
class SimulateSettings:
    """Settings of the simulator, which predicts traces from explanations.

    seed: for the choice of controls. max_failed_share: the run fails if a larger share of
    predictions fails. budget_usd: spending limit (USD) for all explainers and all runs in this
    output folder; None for no limit. mode: live, or through the batch API. dry_run: only estimate
    requests, tokens and cost. servers: servers of the simulator's model, started for this run.
    base_urls: addresses of running servers; they take precedence over `servers`. Without either,
    the simulator's client holds the address. Raises ValueError if the simulator cannot use the mode
    or servers, or if a URL is invalid.
    """

    simulator: Annotated[Simulator, PLUG_IN]
    seed: int = 0
    max_failed_share: Share = not_hashed(0.05)
    budget_usd: Budget | None = not_hashed(None)
    mode: Mode = not_hashed("live")
    dry_run: bool = not_hashed(False)
    servers: ServersSettings | None = not_hashed(None)
    base_urls: tuple[str, ...] = not_hashed(())

    def __post_init__(self) -> None:
        if self.mode == "batch" and not self.simulator.takes_batches:
            raise ValueError(f"mode: {self.simulator.name} cannot use the batch API; set live")
        if self.servers or self.base_urls:
            if self.simulator.client is None:
                raise ValueError(f"servers: the simulator {self.simulator.name!r} calls no model")
            if self.mode == "batch":
                raise ValueError("mode: servers and base_urls have no batch API; set live")
        for base_url in self.base_urls:
            try:
                complete_url(base_url)
            except ValueError as error:
                raise ValueError(f"base_urls: {error}") from None

    @property
    def own_servers(self) -> ServersSettings | None:
        """Servers to start for this run; None without any, or with base_urls."""
        return None if self.base_urls else self.servers

    def check(self) -> None:
        """Check the simulator (`Simulator.check`). Dry runs and own servers need no key.

        Raises ProviderError or ModelError.
        """
        if not (self.dry_run or self.servers or self.base_urls):
            self.simulator.check()


@dataclass(frozen=True)
class ClusterSettings:
    """Settings of the Ray cluster. They never change a result.

    address: of the cluster to connect to; None starts a local one. cpus: of the local cluster; None
    for all. actors: number of subject actors; None for one on each GPU, or on each CPU core without
    GPUs. gpus_per_actor: GPUs over which one subject's layers are spread. threads_per_actor: of
    each actor on a CPU. autoscale_gpus: on an autoscaling cluster, GPUs to wait for before the
    subject is placed; None uses those that exist.
    """

    address: str | None = None
    cpus: AtLeastOne | None = None
    actors: AtLeastOne | None = None
    gpus_per_actor: AtLeastOne = 1
    threads_per_actor: AtLeastOne = 1
    autoscale_gpus: AtLeastOne | None = None


@dataclass(frozen=True)
class TrackingSettings:
    """Settings of MLflow. run_name: None derives it from subject, layers and explainers."""

    experiment: str = "neuron-atlas"
    run_name: str | None = None


@dataclass(frozen=True)
class Settings:
    """Settings of one run.

    out: output folder or S3 prefix. local_dir: folder on the driver's machine for the journal and
    MLflow's runs; None for the default (`workflows.run.output`). Raises ValueError if classify
    or evidence needs more exemplars or activations than capture stores, or effects other neurons.
    """

    out: str
    subject: SubjectSettings
    data: DataSettings
    describe: DescribeSettings
    capture: CaptureSettings
    classify: ClassifySettings
    evidence: EvidenceSettings
    analyse: AnalyseSettings
    search: SearchSettings
    image_clusters: ImageClusterSettings
    explain: ExplainSettings
    near_misses: NearMissSettings
    simulate: SimulateSettings
    score: ScoreSettings
    effects: EffectsSettings
    groups: GroupSettings
    steering: SteeringSettings
    report: ReportSettings
    cluster: ClusterSettings
    tracking: TrackingSettings
    local_dir: str | None = None

    def __post_init__(self) -> None:
        voting, captured = self.classify.rule.top_n, self.capture.top_n
        if voting is not None and voting > captured:
            raise ValueError(
                f"classify: top_n ({voting}) exceeds capture.top_n ({captured}). "
                "Raise capture.top_n; this reruns capture"
            )
        stored = self.capture.top_activations
        for name, needed in self.classify.rule.activations_needed().items():
            if needed > stored:
                raise ValueError(
                    f"classify: {name} ({needed}) exceeds capture.top_activations ({stored}). "
                    "Raise capture.top_activations; this reruns capture"
                )
        used = self.evidence.exemplars
        if used is not None and used > captured:
            raise ValueError(
                f"evidence: exemplars ({used}) exceeds capture.top_n ({captured}). "
                "Raise capture.top_n; this reruns capture"
            )
        if self.effects.run and self.capture.hook_point.startswith(MODULE_PREFIX):
            raise ValueError(
                "effects: neurons of an FFN are needed, and capture.hook_point is "
                f"{self.capture.hook_point!r}. Set effects=none, or capture.hook_point=gate_up"
            )
        if self.capture.hook_point in TOWERS:
            changing = {
                "effects=none": self.effects.run,
                "groups.samples=0": self.groups.samples,
                "steering.neurons_per_type=0": self.steering.neurons_per_type,
                "steering.types=[]": self.steering.types,
            }
            missing = [setting for setting, is_on in changing.items() if is_on]
            if missing:
                raise ValueError(
                    f"capture.hook_point: neurons at {self.capture.hook_point!r} are read, and not "
                    f"changed. Set {', '.join(missing)}"
                )

    @property
    def is_dry_run(self) -> bool:
        """Whether calls are only estimated; the run then ends at that stage."""
        return self.explain.is_dry_run or self.simulate.dry_run

    def check(self) -> None:
        """Raise ProviderError or ModelError if a model of this run cannot be used."""
        self.search.check()
        self.capture.chosen_layers()
        self.explain.check()
        if self.explain.is_dry_run:
            return
        self.simulate.check()
        servers = None if self.simulate.dry_run else self.simulate.own_servers
        # On a cluster, the servers' program may exist only on the nodes.
        if servers is not None and not (self.cluster.address or os.environ.get("RAY_ADDRESS")):
            servers.check()
