"""One import package: files of the user's and other distributions do not touch it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from tests.infra.installed import (
    NEW,
    Environment,
    build,
    copy_sources,
    environment_with,
    foreign_wheel,
    repository_files,
    set_traps,
)
from tests.workflows.runs import ROOT, SMALL

TOP_LEVEL = {
    *(".ci", ".dockerignore", ".gitignore", "LICENSE", "Makefile", "README.md"),
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"),
    *("constraints.txt", "pyproject.toml", "bench", "conf", "docs", "infra", "src", "tasks"),
    *("tests", "workflows"),
}
DATA = ("tasks/", "workflows/", "conf/", "infra/subject/llava-scenes/")
"""Folders of which every file is installed; of infra/, otherwise, the Python files alone."""
INSIDE_OUT = re.compile(r"\b(?:from|import|-m) +(?:tasks|workflows|conf|infra)\b(?! */)")
WHERE_FROM = """
import ray
from neuron_atlas.workflows.cluster.connect import cluster
from neuron_atlas.workflows.config.settings import ClusterSettings

@ray.remote
def where() -> str:
    import neuron_atlas.tasks.artifacts
    return neuron_atlas.tasks.artifacts.__file__

with cluster(ClusterSettings(cpus=1)):
    print("from", ray.get(where.remote()))
"""


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="session")
def wheel(sources, tmp_path_factory) -> Path:
    return build(sources, tmp_path_factory.mktemp("built") / "wheel", "build_wheel")


@pytest.fixture(scope="session")
def from_wheel(wheel, tmp_path_factory) -> Environment:
    return environment_with(wheel, tmp_path_factory.mktemp("wheel") / "venv")


@pytest.fixture(scope="session")
def from_checkout(sources, tmp_path_factory) -> Environment:
    """As `pip install --editable` leaves it."""
    folder = tmp_path_factory.mktemp("checkout")
    editable = build(sources, folder / "built", "build_editable")
    return environment_with(editable, folder / "venv", sources / "src" / "neuron_atlas")


@pytest.fixture(params=["from_wheel", "from_checkout"])
def installed(request) -> Environment:
    return request.getfixturevalue(request.param)


@pytest.fixture
def trapped(tmp_path) -> Path:
    return set_traps(tmp_path)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("neuron-atlas", "--help"), "neuron-atlas"),
        (("neuron-atlas", "--cfg", "job"), "_target_: neuron_atlas.tasks.samples.scenes.Scenes"),
        (("neuron-atlas-export", "--help"), "usage: neuron-atlas-export"),
        (("neuron-atlas-log", "--help"), "usage: neuron-atlas-log"),
        (("neuron-atlas-serve", "--help"), "usage: neuron-atlas-serve"),
        (("neuron-atlas-ui", "--help"), "usage: neuron-atlas-ui"),
        (("python", "-c", "from neuron_atlas import Atlas; print(Atlas)"), "neuron_atlas.tasks"),
        (("python", "-m", "neuron_atlas.infra.run_cluster", "--help"), "usage: run-cluster"),
    ],
)
def test_modules_in_the_users_folder_change_nothing(installed, trapped, command, told):
    assert told in installed.run(*command, cwd=trapped)


def test_modules_in_the_users_folder_change_nothing_for_rays_workers(from_checkout, trapped):
    (trapped / "program.py").write_text(WHERE_FROM, encoding="utf-8")
    said = from_checkout.run("python", "program.py", cwd=trapped)
    assert f"from {from_checkout.package / 'tasks' / 'artifacts' / '__init__.py'}" in said


@pytest.mark.slow
def test_the_wheel_runs_the_whole_line_among_them(from_wheel, trapped):
    settings = ("data.count=40", *SMALL, "capture.layers=[1]", "evidence.random_samples=4")
    assert "scores     mean" in from_wheel.run("neuron-atlas", *settings, "out=out", cwd=trapped)
    code = "from neuron_atlas import Atlas; print(*Atlas.open('out').tables)"
    assert "explanations" in from_wheel.run("python", "-c", code, cwd=trapped)
    export = ("neuron-atlas-export", "out", "dataset", "--license", "cc-by-4.0")
    assert "explanations" in from_wheel.run(*export, cwd=trapped)


def test_a_package_of_the_same_names_comes_and_goes_next_to_it(wheel, tmp_path):
    both = environment_with(wheel, tmp_path / "venv")
    ours = ("python", "-c", "from neuron_atlas.tasks import settings; print(settings.__name__)")
    theirs = ("python", "-c", "import tasks, workflows; print(tasks.OWNER, workflows.OWNER)")
    both.pip("install", "--no-index", str(foreign_wheel(tmp_path)))
    assert both.run(*theirs, cwd=tmp_path).split() == ["theirs", "theirs"]
    assert "neuron_atlas.tasks" in both.run(*ours, cwd=tmp_path)
    both.pip("uninstall", "--yes", "theirs")
    assert "neuron_atlas.tasks" in both.run(*ours, cwd=tmp_path)
    both.pip("install", "--no-index", str(foreign_wheel(tmp_path)))
    both.pip("uninstall", "--yes", "neuron-atlas")
    assert not both.package.exists()
    assert both.run(*theirs, cwd=tmp_path).split() == ["theirs", "theirs"]


def test_the_wheel_has_one_importable_name(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {
        "neuron_atlas"
    }


def test_the_wheel_holds_every_file_of_the_installed_folders(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {
        f"neuron_atlas/{path.as_posix()}"
        for path in repository_files(*NEW)
        if path.as_posix().startswith(DATA) or (path.parts[0] == "infra" and path.suffix == ".py")
    }
    held = {name for name in names if ".dist-info/" not in name}
    assert held == wanted | {"neuron_atlas/__init__.py"}


def test_the_top_of_the_repository_is_what_the_design_lists():
    assert {path.parts[0] for path in repository_files()} == TOP_LEVEL


def test_the_folders_are_imported_as_parts_of_the_package_alone():
    suffixes = (".py", ".md", ".yaml", ".sh", ".sbatch", ".toml", ".Dockerfile")
    here = Path(__file__).relative_to(ROOT)
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in repository_files(*NEW)
        if path.suffix in suffixes and path not in (here, here.with_name("installed.py"))
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), start=1)
        if INSIDE_OUT.search(line)
    ]
    assert found == []
