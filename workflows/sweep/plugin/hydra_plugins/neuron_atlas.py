"""Launch the jobs of a Hydra multirun in this process, on one Ray cluster.

Hydra loads plugins only from packages named hydra_plugins, anywhere on the path.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from neuron_atlas.workflows.cluster.progress import print_line
from neuron_atlas.workflows.config.composition import plain_config
from neuron_atlas.workflows.run.exit_status import exit_status_of


class OneCluster(Launcher):
    """Launcher that passes all jobs of a sweep to `run_sweep`, composed as by Hydra's launcher."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        """Store the config loader and the config, from which jobs are composed."""
        self._loader: ConfigLoader = hydra_context.config_loader
        self._config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; exit the program if any of them did not finish."""
        from neuron_atlas.workflows.sweep.run import run_sweep

        setup_globals()
        configs = [
            self._compose(overrides, initial_job_idx + number)
            for number, overrides in enumerate(job_overrides)
        ]
        # Errors end the program here, because Hydra would print its own message.
        try:
            status = run_sweep(job_overrides, configs)
        except (Exception, KeyboardInterrupt) as error:
            status, line = exit_status_of(error)
            print_line(f"neuron-atlas: {line}")
        if status:
            sys.exit(status)
        return []

    def _compose(self, overrides: Sequence[str], number: int) -> dict[str, Any]:
        config = self._loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        previous = HydraConfig.instance().cfg
        HydraConfig.instance().set_config(config)  # For settings with ${hydra:job.num}.
        try:
            return plain_config(
                OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            )
        finally:
            # A multirun has none before. The job's stays, so that an error can name the YAML file.
            if previous is not None:
                HydraConfig.instance().cfg = previous
