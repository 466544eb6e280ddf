# Image of a Ray worker: all dependencies, with torch for CUDA; its wheel contains the CUDA
# libraries. The host needs the NVIDIA driver and the NVIDIA container toolkit.
#
#   docker build -f infra/containers/gpu.Dockerfile -t neuron-atlas-gpu:0.1.0 .
#   docker run --rm --gpus all --shm-size 2g neuron-atlas-gpu:0.1.0 neuron-atlas experiment=demo out=/tmp/demo
#
# Python and Ray must have the same versions as in the driver's image.
FROM python:3.11.14-slim-bookworm

# KubeRay's probes use wget; torch.compile and Triton need a C compiler. Newest versions, for fixes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 ray

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/neuron-atlas
# Install torch first: it is by far the largest layer and changes least.
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
