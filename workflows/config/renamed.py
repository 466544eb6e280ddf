"""Settings that have a new name. Their old names are refused with a message that gives the new one.

`RENAMED` has the settings by their path without the name of an explainer. A path that begins with
`client` is the same in explain and simulate.
`RENAMED_GROUPS` has the folders of conf/.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

RENAMED = {
    "local": "local_dir",
    "analyse.favourites": "analyse.top_words",
    "analyse.strong": "analyse.strong_share",
    "capture.decoders": "capture.image_threads",
    "capture.random_samples": "evidence.random_samples",
    "capture.seed": "evidence.seed",
    "classify.background": "classify.min_rate_ratio",
    "classify.decides": "classify.deciding_test",
    "client.first_wait_s": "client.backoff_s",
    "client.limits.counted": "client.limits.counted_tokens",
    "client.max_wait_s": "client.max_backoff_s",
    "client.seed": "client.jitter_seed",
    "client.served_as": "client.reply_model_prefix",
    "cluster.gpus": "cluster.autoscale_gpus",
    "cluster.threads": "cluster.threads_per_actor",
    "describe.text": "describe.text_source",
    "explain.seed": "explain.request_seed",
    "report.site.exemplars_of_others": "report.site.exemplars_of_unexplained",
    "report.site.listed": "report.site.total_exemplars",
    "score.active_text": "score.t_text",
    "score.active_visual": "score.t_visual",
    "score.q": "score.max_q",
    "simulate.alternatives": "simulate.top_logprobs",
    "simulate.features_gb": "simulate.feature_cache_gb",
    "simulate.servers.start_s": "simulate.servers.start_timeout_s",
    "simulate.servers.stop_s": "simulate.servers.stop_timeout_s",
}

RENAMED_GROUPS = {"served": "self_hosted"}

_EXPLAINER = re.compile(r"^explain\.explainers\.[^.]+\.")
_CLIENT = re.compile(r"^(explain|simulate)\.(?=client\.)")


def renamed_message(key: str) -> str | None:
    """Return the message for a setting with an old name; None for any other setting."""
    path = _EXPLAINER.sub("explain.", key)
    old = path if path in RENAMED else _CLIENT.sub("", path)
    if old not in RENAMED:
        return None
    old_parent, _, _ = old.rpartition(".")
    new_parent, dot, name = RENAMED[old].rpartition(".")
    if old_parent == new_parent:  # The setting may be one explainer's, or one of a client.
        new_parent, dot, _ = key.rpartition(".")
    new = f"{new_parent}{dot}{name}"
    return f"{key}: is now {new}; write the new name in {_where_set(key)}"


def renamed_group_message(group: str) -> str | None:
    """Return the message for a folder of conf/ with an old name; None for any other folder."""
    name = group.strip("/").partition("@")[0]
    if name not in RENAMED_GROUPS:
        return None
    return f"{name}: this group is now {RENAMED_GROUPS[name]}; write the new name"


def _where_set(key: str) -> str:
    """Return the override or the YAML file that sets a key, as far as Hydra knows its inputs."""
    if not HydraConfig.initialized():
        return "the override or YAML file that sets it"
    hydra = HydraConfig.get()
    path = _EXPLAINER.sub("explain.", key)
    for override in hydra.overrides.task:
        name = override.partition("=")[0]
        if _EXPLAINER.sub("explain.", name.lstrip("+")) == path:
            return f"the override {name}"
    leaf = re.compile(rf"^\s*{re.escape(key.rpartition('.')[2])}\s*:", re.MULTILINE)
    for file in _files(hydra):
        if leaf.search(file.read_text(encoding="utf-8")):
            return str(file)
    return "the override or YAML file that sets it"


def _files(hydra: Any) -> list[Path]:
    """Return the chosen YAML files. A file's own defaults are not among them."""
    folders = [Path(source.path) for source in hydra.runtime.config_sources if source.path]
    choices = {name.partition("@")[0]: choice for name, choice in hydra.runtime.choices.items()}
    names = [f"{hydra.job.config_name}.yaml", *(f"{a}/{b}.yaml" for a, b in choices.items())]
    files = (folder / name for folder in folders for name in names)
    return [file for file in files if file.is_file()]
