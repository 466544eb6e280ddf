"""The files of infra/ are what their readers take: Ray, Kubernetes, Compose, bash, Docker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from dockerfile_parse import DockerfileParser
from fsspec.registry import known_implementations
from jsonschema import ValidationError
from jsonschema.validators import validator_for
from ray.autoscaler._private.util import prepare_config, validate_config

from neuron_atlas.workflows.config.reader import read_settings
from tests.infra.rayjob_fields import RAY_JOB, strange_fields
from tests.workflows.runs import ROOT, composed

INFRA = ROOT / "infra"
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line
)
LAUNCHERS = ("aws", "gcp")
DOCKERFILES = sorted((INFRA / "containers").glob("*.Dockerfile"))
SCRIPTS = sorted((INFRA / "slurm").iterdir())
FILES = (
    *(INFRA / f"{name}.yaml" for name in (*LAUNCHERS, "compose", "kuberay/rayjob")),
    *DOCKERFILES,
    *SCRIPTS,
)
SECRET = re.compile(
    r"(?i)(api_key|token|secret(_key)?|password)\b['\"]?\s*[:=]\s*['\"]?(?P<value>\S+)"
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_itself_takes_the_launchers_file(name):
    validate_config(prepare_config(read(INFRA / f"{name}.yaml")))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launchers_file_with_a_slip_is_not_taken(name):
    config = read(INFRA / f"{name}.yaml")
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(prepare_config(config | {"max_worker": 3}))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launched_head_gives_no_work_a_place_and_workers_are_spot_with_a_gpu(name):
    config = read(INFRA / f"{name}.yaml")
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in " ".join(config["head_start_ray_commands"])
    for worker in types.values():
        assert worker["resources"]["GPU"] >= 1
        assert "spot" in json.dumps(worker["node_config"]).lower()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launched_cluster_wants_a_token_and_its_job_server_is_on_loopback(name):
    config = read(INFRA / f"{name}.yaml")
    for start in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in start[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    # Ray's own defaults install beside the environment, which Debian's Python refuses.
    prepared = prepare_config(config)
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert not [line for line in prepared[commands] if line.startswith("pip ")]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_the_command_that_starts_a_node_is_bash(name):
    config = read(INFRA / f"{name}.yaml")
    for command in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def package_of(protocol: str) -> str:
    """What fsspec wants installed for addresses of a protocol."""
    return str(known_implementations[protocol]["class"]).partition(".")[0]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launched_nodes_have_what_the_address_in_the_files_head_needs(name):
    text = content(INFRA / f"{name}.yaml")
    (protocol,) = set(re.findall(r"OUT=(\w+)://", text))
    package = package_of(protocol)
    project = tomllib.loads(content(ROOT / "pyproject.toml"))["project"]
    setup = " ".join(read(INFRA / f"{name}.yaml")["setup_commands"])
    on_every_node = re.findall(r"([\w-]+==[\d.]+)", setup)
    assert package in project["dependencies"] or f"{package}=={PINNED[package]}" in on_every_node


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launchers_file_says_where_nodes_find_the_dataset(name):
    head = content(INFRA / f"{name}.yaml").partition("cluster_name:")[0]
    for setting in ("data.annotations=", "data.images=", "data=hub"):
        assert setting in head


def test_the_rayjob_has_only_fields_that_kuberay_knows():
    assert strange_fields(read(INFRA / "kuberay/rayjob.yaml"), RAY_JOB) == []


@pytest.mark.parametrize(
    ("path", "value", "strange"),
    [
        (("spec", "backoffLimits"), 3, "spec.backoffLimits: no such field"),
        (("spec", "backoffLimit"), "3", "spec.backoffLimit: must be int32"),
        (
            ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"),
            0,
            "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus: must be string",
        ),
        (("spec", "submissionMode"), "Http", "spec.submissionMode: must be one of"),
    ],
)
def test_a_rayjob_with_a_slip_is_not_taken(path, value, strange):
    job = read(INFRA / "kuberay/rayjob.yaml")
    *parents, last = path
    inner = job
    for name in parents:
        inner = inner[name]
    inner[last] = value
    (told,) = strange_fields(job, RAY_JOB)
    assert told.startswith(strange)


def pod_templates() -> Iterator[dict[str, Any]]:
    cluster = read(INFRA / "kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]


def as_pod(template: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": template["spec"]}


def test_kubernetes_takes_the_pods_of_the_rayjob():
    for template in pod_templates():
        kubernetes_validate.validate(as_pod(template), "1.33", strict=True)


def test_a_pod_with_a_slip_is_not_taken():
    pod = as_pod(next(pod_templates()))
    pod["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(pod, "1.33", strict=True)


def test_the_rayjob_ends_cleans_up_and_tries_again():
    spec = read(INFRA / "kuberay/rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > spec["preRunningDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_entrypoint_of_the_rayjob_is_a_call_that_the_program_takes():
    program, *overrides = read(INFRA / "kuberay/rayjob.yaml")["spec"]["entrypoint"].split()
    assert program == "neuron-atlas"
    settings = read_settings(composed(*overrides))
    assert settings.out.startswith("/")
    workers = read(INFRA / "kuberay/rayjob.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert settings.cluster.autoscale_gpus == sum(group["replicas"] for group in workers)


def compose_problems(config: Any) -> list[str]:
    schema = get_builtin_schema("vendor.compose-spec")
    return [error.message for error in validator_for(schema)(schema).iter_errors(config)]


def test_docker_compose_takes_the_compose_file():
    assert compose_problems(read(INFRA / "compose.yaml")) == []


def test_a_compose_file_with_a_slip_is_not_taken():
    config = read(INFRA / "compose.yaml")
    config["services"]["mlflow"]["port"] = ["127.0.0.1:5000:5000"]
    assert len(compose_problems(config)) == 1


def test_every_service_is_published_on_loopback_only_and_says_whether_it_is_well():
    services = read(INFRA / "compose.yaml")["services"]
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        waited_for = {
            other: how["condition"] for other, how in service.get("depends_on", {}).items()
        }
        for other, condition in waited_for.items():
            assert condition in ("service_healthy", "service_completed_successfully")
            assert condition != "service_healthy" or "healthcheck" in services[other]
        assert "healthcheck" in service or name == "buckets"


def test_compose_does_not_start_without_its_secrets():
    text = (INFRA / "compose.yaml").read_text(encoding="utf-8")
    for name in ("POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        used = re.findall(rf"(?<!\$)\$\{{{name}(.*?)\}}", text)
        assert used
        assert all(default.startswith(":?") for default in used)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    written = [line for line in lines if not line.lstrip().startswith("#")]
    for line in written:
        found = SECRET.search(line)
        if found and path.suffix != ".sbatch":
            assert re.match(r"\$\{|\?set |token$|~/|true", found["value"] + " "), line


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_says_in_its_head_what_to_set_and_how_to_use_it(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    head = []
    for line in lines[1:] if lines[0].startswith("#!") else lines:
        if not line.startswith("#"):
            break
        head.append(line)
    assert len(head) >= 4
    assert [line for line in head if line.startswith("#   ")], "a command to use it"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_bash_and_shellcheck_take_the_scripts(path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    subprocess.run([beside_python("shellcheck"), str(path)], check=True)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_takes_the_container_files(path):
    subprocess.run(
        [beside_python("hadolint"), "--failure-threshold", "info", str(path)], check=True
    )


def beside_python(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found is not None, f"{name}: make setup installs it"
    return found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_are_built_from_what_is_here_and_from_a_pinned_base(path):
    parser = DockerfileParser(fileobj=path.open("rb"))
    assert re.search(r":v?\d+\.\d+\.\d+", parser.baseimage)
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for step in parser.structure:
        if step["instruction"] == "COPY":
            for source in step["value"].split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in let_in


def test_driver_and_workers_have_the_same_python():
    bases = {
        DockerfileParser(fileobj=path.open("rb")).baseimage
        for path in DOCKERFILES
        if path.stem != "vllm"
    }
    (base,) = bases
    assert base in (INFRA / "compose.yaml").read_text(encoding="utf-8")


def test_versions_agree_with_those_that_are_installed():
    job = read(INFRA / "kuberay/rayjob.yaml")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == PINNED["ray"]
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for name, version in re.findall(r"\b([A-Za-z0-9_.-]+)==([0-9.]+)", text):
            assert PINNED.get(name, version) == version, f"{path.name}: {name}"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = content(INFRA / "vllm" / "constraints-gpu.txt").strip().removeprefix("vllm==")
    assert f"vllm-openai:v{wanted}\n" in content(INFRA / "containers" / "vllm.Dockerfile")
    for image in re.findall(r"neuron-atlas-[a-z]+:([0-9.]+[0-9])", "".join(map(content, FILES))):
        assert image == project["version"]


def content(path: Path) -> str:
    return path.read_text(encoding="utf-8")
