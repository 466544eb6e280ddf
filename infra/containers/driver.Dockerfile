# Image of the driver and the Ray head: all dependencies except torch, which the driver never
# imports.
#
#   docker build -f infra/containers/driver.Dockerfile -t neuron-atlas-driver:0.1.0 .
#
# Start the head without CPUs (ray start --head --num-cpus=0), or Ray schedules tasks that need
# torch on it. Pass API keys in the container's environment.
FROM python:3.11.14-slim-bookworm

# KubeRay's probes use wget, in Debian's newest version because of security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 ray

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
WORKDIR /opt/neuron-atlas
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; print(*(name for name in tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'] if not name.startswith(('torch', 'accelerate'))), sep='\n')" > /tmp/wanted.txt \
 && pip install --constraint constraints.txt --requirement /tmp/wanted.txt \
 && rm /tmp/wanted.txt
COPY README.md LICENSE ./
COPY conf conf
COPY infra infra
COPY src src
COPY tasks tasks
COPY workflows workflows
RUN pip install --no-deps .
USER 1000
WORKDIR /home/ray
CMD ["neuron-atlas", "--help"]
