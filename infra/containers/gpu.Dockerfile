# A worker of the Ray cluster: everything, with torch for CUDA, whose libraries come with its wheel.
# The machine brings the driver of its GPUs and the NVIDIA container toolkit.
#
#   docker build -f infra/containers/gpu.Dockerfile -t neuron-atlas-gpu:0.1.0 .
#   docker run --rm --gpus all --shm-size 2g neuron-atlas-gpu:0.1.0 neuron-atlas experiment=demo out=/tmp/demo
#
# Python and Ray must be those of the driver's image; both take them from the same lines.
FROM python:3.11.14-slim-bookworm

# KubeRay's probes use wget; torch.compile and Triton want a C compiler. Newest versions, for fixes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 ray

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/neuron-atlas
# Torch first: by far the largest, and the one that changes least.
COPY constraints.txt ./
RUN pip install --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY infra infra
COPY src src
COPY tasks tasks
COPY workflows workflows
RUN pip install --constraint constraints.txt .
USER 1000
WORKDIR /home/ray
CMD ["neuron-atlas", "--help"]
