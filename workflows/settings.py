"""Everything a run is told, as frozen dataclasses: the typed mirror of conf/."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tasks.analyse.settings import AnalyseSettings
from tasks.capture.settings import CaptureSettings
from tasks.classify.rule import ClassifySettings
from tasks.explain.explanation import Explainer
from tasks.explain.select import NeuronChoice
from tasks.report.settings import ReportSettings
from tasks.samples.source import Source
from tasks.score.settings import ScoreSettings
from tasks.serve.settings import ServersSettings
from tasks.settings import runtime
from tasks.simulate.simulator import Simulator
from tasks.subject.settings import DescribeSettings, SubjectSettings
from workflows.errors import WrongCall


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

    beside: further explainers, each with settings of its own; see `_explain_settings`.
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

    def check(self) -> None:
        """Raise Unusable where a model that will be asked cannot be, such as for want of a key."""
        self.explain.check()
        if not any(one.dry_run for one in self.explain.each):
            self.simulate.check()


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Check a composed config against the dataclasses. Raises WrongCall with one line."""
    return _build(Settings, config, "")


def _explain_settings(config: Mapping[str, Any], path: str) -> ExplainSettings:
    """Several explainers, each a whole group of settings below its name in `explainers`.

    What stands beside `explainers` holds for every one of them that has such a setting.
    """
    named, where = config["explainers"], f"{path}.explainers"
    if not isinstance(named, Mapping) or not named:
        raise WrongCall(f"{where}: must name explainers, such as explain=[gpt4o,dissect]")
    groups = {str(name): group for name, group in named.items()}
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise WrongCall(f"{where}.{name}: must be a group of settings, not {group!r}")
    shared = {key: value for key, value in config.items() if key != "explainers"}
    known = {key for group in groups.values() for key in group}
    for key in shared.keys() - known:
        raise WrongCall(unknown_key(f"{path}.{key}", known - {"_target_", "name"}))
    built = [
        _build(
            ExplainSettings,
            _merged(group, {key: value for key, value in shared.items() if key in group})
            | {"name": name},
            f"{where}.{name}",
        )
        for name, group in groups.items()
    ]
    return replace(built[0], beside=tuple(built[1:]))


def _merged(group: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(group)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _build(kind: Any, config: Any, path: str) -> Any:
    """An instance of the dataclass `kind` from a mapping, every value checked by its type hint."""
    if not isinstance(config, Mapping):
        raise WrongCall(f"{path}: must be a group of settings, not {config!r}")
    if kind is ExplainSettings and "explainers" in config:
        return _explain_settings(config, path)
    hints = get_type_hints(kind)
    known = {spec.name: spec for spec in fields(kind)}
    values: dict[str, Any] = {}
    remaining = dict(config)
    for name, spec in known.items():
        where = f"{path}.{name}" if path else name
        if name in remaining:
            values[name] = _convert(hints[name], remaining.pop(name), where)
        elif name in _PLUGS:
            continue
        elif spec.default is MISSING and spec.default_factory is MISSING:
            raise WrongCall(f"{where}: must be given")
    for name in _PLUGS & known.keys():
        values[name] = _plug_in(remaining, path)
        remaining = {}
    if remaining:
        raise WrongCall(unknown_key(f"{path}.{min(remaining)}" if path else min(remaining), known))
    try:
        return kind(**values)
    except ValueError as error:
        raise WrongCall(f"{path}.{error}" if path else str(error)) from error


_PLUGS = {"source", "rule", "explainer", "simulator"}
"""Settings whose class the config names with `_target_`, their own fields flat beside the group's:
the places where the program is meant to be extended with a file and a line of YAML."""


def _plug_in(config: dict[str, Any], path: str) -> Any:
    target = config.pop("_target_", None)
    if not isinstance(target, str) or "." not in target:
        raise WrongCall(f"{path}._target_: must name a class, such as tasks.samples.folder.Folder")
    module, name = target.rsplit(".", 1)
    try:
        kind = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise WrongCall(f"{path}._target_: cannot import {target!r}: {error}") from error
    if not (isinstance(kind, type) and is_dataclass(kind)):
        raise WrongCall(f"{path}._target_: {target!r} is no class of settings (a dataclass)")
    return _build(kind, config, path)


def unknown_key(where: str, allowed: Any) -> str:
    """The one line for a setting that does not exist."""
    return f"{where}: no such setting; allowed here: {', '.join(sorted(allowed))}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        return _build(hint, value, where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _optional(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise WrongCall(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise WrongCall(f"{where}: must be a mapping, not {value!r}")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    return _plain(hint, value, where)


def _optional(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and NoneType in arguments:
        return None
    (hint,) = [argument for argument in arguments if argument is not NoneType]
    return _convert(hint, value, where)


_PLAIN: dict[type, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    float: ("a number", lambda v: isinstance(v, int | float) and not isinstance(v, bool)),
    str: ("text", lambda value: isinstance(value, str)),
}


def _plain(hint: Any, value: Any, where: str) -> Any:
    if hint not in _PLAIN:
        return value
    expected, fits = _PLAIN[hint]
    if hint is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # A name such as 2024 reads as a number in YAML.
    if not fits(value):
        raise WrongCall(f"{where}: must be {expected}, not {value!r}")
    return hint(value)


def _check_budget(value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise ValueError("budget_usd: must be at least 0, or null for no limit")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be a share from 0 to 1")
