"""The package installed into environments of its own, and folders that try to get in its way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.workflows.runs import ROOT

_INHERITED = ("PYTHON", "RAY_", "MLFLOW_")
_TRAP = "raise SystemError(f'{__file__} is the user\\'s own, and was imported')\n"


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the dependencies of the tests, but not their checkout."""

    folder: Path
    package: Path
    """Where `neuron_atlas` must come from."""

    def run(self, *command: str, cwd: Path) -> str:
        """Run a program of the environment; what it wrote. Fails where it fails."""
        program, *arguments = command
        ended = subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=cwd,
            env=_clean(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def pip(self, *arguments: str) -> None:
        """Run the pip of the tests on this environment, without a network."""
        _run(sys.executable, "-m", "pip", f"--python={self.folder}", "--quiet", *arguments)


def tracked_files() -> list[Path]:
    """Every file of the repository, relative to its root, with those that git does not know yet."""
    listed = _run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    named = map(Path, filter(None, listed.split("\0")))
    return [path for path in named if os.path.lexists(ROOT / path)]


def copy_sources(folder: Path) -> Path:
    """Copy the repository's files, links as links: building writes into its folder."""
    for path in tracked_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path, follow_symlinks=False)
    return folder


def build(sources: Path, folder: Path, hook: str) -> Path:
    """Build with one of the build backend's hooks, build_wheel or build_editable; the wheel."""
    folder.mkdir()
    code = f"from setuptools import build_meta; build_meta.{hook}({str(folder)!r})"
    _run(sys.executable, "-c", code, cwd=sources)
    (wheel,) = folder.iterdir()
    return wheel


def bare_environment(folder: Path) -> Path:
    """Make a virtual environment that has the dependencies and no neuron_atlas."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    # Of a folder that is named in a .pth file, Python reads no .pth files: the dependencies are
    # there, and the checkout that is installed beside them is not.
    dependencies = sysconfig.get_path("purelib") + "\n"
    (_packages(folder) / "dependencies.pth").write_text(dependencies, encoding="utf-8")
    return folder


def environment_with(wheel: Path, folder: Path, package: Path | None = None) -> Environment:
    """Make a virtual environment with this wheel in it.

    package: the folder that an editable wheel points to; None where it holds the package itself.
    """
    made = Environment(bare_environment(folder), package or _packages(folder) / "neuron_atlas")
    # pip would take the checkout's distribution, which it sees there, for an installed one.
    made.pip("install", "--no-deps", "--no-index", "--ignore-installed", str(wheel))
    return made


def _packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def foreign_wheel(folder: Path) -> Path:
    """A distribution of somebody else's whose packages are named as this project's folders."""
    path = folder / "theirs-1.0-py3-none-any.whl"
    info = "theirs-1.0.dist-info"
    files = {f"{name}/__init__.py": "OWNER = 'theirs'\n" for name in ("tasks", "workflows")} | {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def set_traps(folder: Path) -> Path:
    """Put modules with the names of this project's folders into a folder; importing one fails."""
    for name in ("tasks.py", "conf.py", "infra.py", "workflows/__init__.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_TRAP, encoding="utf-8")
    return folder


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_INHERITED)}


def _run(*command: str, cwd: Path | None = None) -> str:
    ended = subprocess.run(
        command, cwd=cwd, env=_clean(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
