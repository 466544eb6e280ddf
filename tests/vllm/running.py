"""A real vLLM on the CPU: the settings that start it, and what of it runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from tests.vllm.servable import POSITIONS, VOCABULARY
from tests.workflows.runs import ROOT

MODEL = "llava-scenes"
PYTHON = os.environ.get("VLLM_PYTHON", str(ROOT / ".venv-vllm" / "bin" / "python"))
_MARK = "NEURON_ATLAS_TEST"


def served(folder: Path) -> list[str]:
    """Overrides by which the program serves the model in `folder` for its simulator.

    Whitespace is kept out of structured answers: a model that knows no JSON would choose it for
    ever where the grammar lets it.
    """
    arguments = [
        *("--model", str(folder), "--served-model-name", MODEL),
        *("--dtype", "float32", "--enforce-eager", "--max-model-len", str(POSITIONS)),
        *("--max-logprobs", str(VOCABULARY)),
        *("--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}'),
    ]
    listed = ",".join(f"'{word}'" for word in arguments)
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_COLOR": "0",
        _MARK: str(folder),
    }
    return [
        "simulate=vllm",
        f"simulate.client.model={MODEL}",
        f"simulate.servers.command.0={PYTHON}",
        f"simulate.servers.arguments=[{listed}]",
        *(f"+simulate.servers.environment.{name}='{value}'" for name, value in environment.items()),
        "simulate.servers.start_timeout_s=600",
        "simulate.client.timeout_s=300",
        "simulate.client.concurrency=8",
        "simulate.grid=2",
        "simulate.image_size=200",
    ]


def processes(folder: Path) -> list[psutil.Process]:
    """What runs of a server of the model in `folder`, its children and its watchdog, wherever they
    have come to be in the tree of processes."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return [one for one in found if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def sessions(folder: Path) -> set[int]:
    """The sessions of servers of the model in `folder`. All that a server starts is in its own,
    also what has overwritten its environment with its title, as vLLM's engine does."""
    found = set()
    for process in processes(folder):
        with suppress(ProcessLookupError):
            found.add(os.getsid(process.pid))
    return found


def left_of(sessions: set[int]) -> list[psutil.Process]:
    """What still runs of some sessions."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = os.getsid(process.pid) in sessions
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


def api_server(folder: Path) -> psutil.Process | None:
    """The process that answers."""
    for process in processes(folder):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "vllm.entrypoints.openai.api_server" in words and "-I" not in words:
            return process
    return None
