"""The fields of KubeRay's RayJob that this project may use, with their types.

From the reference of `ray.io/v1`, KubeRay 1.6: RayJobSpec, RayClusterSpec, and theirs.
A pod's own fields are Kubernetes', and are checked by its schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

INT32 = "int32"
STRING = "string"
BOOLEAN = "boolean"
ANY = "any"
Kind = Any

_AUTOSCALER = {
    "resources": ANY,
    "image": STRING,
    "imagePullPolicy": {"Always", "Never", "IfNotPresent"},
    "securityContext": ANY,
    "idleTimeoutSeconds": INT32,
    "upscalingMode": {"Default", "Aggressive", "Conservative"},
    "version": {"v1", "v2"},
    "env": ANY,
    "envFrom": ANY,
    "volumeMounts": ANY,
}
_HEAD = {
    "template": ANY,
    "headService": ANY,
    "enableIngress": BOOLEAN,
    "resources": ("each", STRING),
    "labels": ("each", STRING),
    "rayStartParams": ("each", STRING),
    "serviceType": {"ClusterIP", "NodePort", "LoadBalancer"},
}
_WORKERS = {
    "groupName": STRING,
    "replicas": INT32,
    "minReplicas": INT32,
    "maxReplicas": INT32,
    "idleTimeoutSeconds": INT32,
    "numOfHosts": INT32,
    "suspend": BOOLEAN,
    "resources": ("each", STRING),
    "labels": ("each", STRING),
    "rayStartParams": ("each", STRING),
    "template": ANY,
    "scaleStrategy": ANY,
}
_CLUSTER = {
    "authOptions": {"mode": {"disabled", "token"}, "secretName": STRING},
    "suspend": BOOLEAN,
    "managedBy": STRING,
    "autoscalerOptions": _AUTOSCALER,
    "headServiceAnnotations": ("each", STRING),
    "enableInTreeAutoscaling": BOOLEAN,
    "gcsFaultToleranceOptions": ANY,
    "headGroupSpec": _HEAD,
    "rayVersion": STRING,
    "workerGroupSpecs": ("list", _WORKERS),
}
RAY_JOB: Mapping[str, Kind] = {
    "apiVersion": {"ray.io/v1"},
    "kind": {"RayJob"},
    "metadata": {
        "name": STRING,
        "namespace": STRING,
        "labels": ("each", STRING),
        "annotations": ("each", STRING),
    },
    "spec": {
        "activeDeadlineSeconds": INT32,
        "preRunningDeadlineSeconds": INT32,
        "backoffLimit": INT32,
        "rayClusterSpec": _CLUSTER,
        "submitterPodTemplate": ANY,
        "metadata": ("each", STRING),
        "clusterSelector": ("each", STRING),
        "submitterConfig": {"backoffLimit": INT32},
        "managedBy": STRING,
        "deletionStrategy": ANY,
        "entrypoint": STRING,
        "runtimeEnvYAML": STRING,
        "jobId": STRING,
        "submissionMode": {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"},
        "entrypointResources": STRING,
        "entrypointNumCpus": "number",
        "entrypointNumGpus": "number",
        "ttlSecondsAfterFinished": INT32,
        "shutdownAfterJobFinishes": BOOLEAN,
        "suspend": BOOLEAN,
    },
}


def strange_fields(value: Any, kind: Kind, path: str = "") -> list[str]:
    """What of a manifest is not of its kind: the field, and what it must be."""
    return list(_strange(value, kind, path))


def _strange(value: Any, kind: Kind, path: str) -> Iterator[str]:
    if isinstance(kind, Mapping):
        if not isinstance(value, Mapping):
            yield f"{path}: must be a group of fields"
            return
        for name, inner in value.items():
            where = f"{path}.{name}".lstrip(".")
            if name in kind:
                yield from _strange(inner, kind[name], where)
            else:
                yield f"{where}: no such field; there are {', '.join(sorted(kind))}"
    elif isinstance(kind, tuple):
        form, inner_kind = kind
        items = value.items() if form == "each" else enumerate(value)
        for name, inner in items:
            yield from _strange(inner, inner_kind, f"{path}.{name}")
    elif isinstance(kind, set):
        if value not in kind:
            yield f"{path}: must be one of {', '.join(sorted(kind))}"
    elif not _is(value, kind):
        yield f"{path}: must be {kind}"


def _is(value: Any, kind: str) -> bool:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    return {
        INT32: is_int and -(2**31) <= value < 2**31 if is_int else False,
        STRING: isinstance(value, str),
        BOOLEAN: isinstance(value, bool),
        "number": is_int or isinstance(value, float),
        ANY: True,
    }[kind]
