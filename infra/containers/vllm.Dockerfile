# Image of a vLLM server: a self-hosted explainer or simulator with the OpenAI protocol.
# It is a separate image because vLLM pins another version of torch.
#
#   docker build -f infra/containers/vllm.Dockerfile -t neuron-atlas-vllm:0.1.0 .
#   docker run --rm --gpus all --ipc=host --env VLLM_API_KEY -p 127.0.0.1:8000:8000 \
#          -v "$HOME/.cache/huggingface:/models" --env HF_HOME=/models \
#          neuron-atlas-vllm:0.1.0 --model Qwen/Qwen2.5-VL-7B-Instruct
#   neuron-atlas explain=gpt4o explain.client.base_url=http://127.0.0.1:8000/v1 \
#          explain.client.api_key_env=VLLM_API_KEY explain.client.model=Qwen/Qwen2.5-VL-7B-Instruct \
#          '+explain.prices={Qwen/Qwen2.5-VL-7B-Instruct: {input: 0, output: 0, date: "2026-11-23"}}' out=...
FROM vllm/vllm-openai:v0.33.0

ENV VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
EXPOSE 8000
HEALTHCHECK --start-period=10m --interval=15s --timeout=5s \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# The address inside the container; `docker run -p` controls access from outside.
ENTRYPOINT ["python3", "-m", "vllm.entrypoints.openai.api_server", "--host", "0.0.0.0", "--port", "8000"]
CMD ["--max-logprobs", "20"]
