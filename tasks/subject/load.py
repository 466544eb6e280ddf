"""Load a vision-language model and its processor as the subject of a run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AwqConfig,
    CompressedTensorsConfig,
    FineGrainedFP8Config,
    GPTQConfig,
    PreTrainedConfig,
)
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils import find_adapter_config_file
from transformers.utils.quantization_config import AwqBackend

from neuron_atlas.tasks.models.pretrained import ModelError, why_not_loaded
from neuron_atlas.tasks.subject.adapter import add_adapter, check_adapter
from neuron_atlas.tasks.subject.adapter_files import adapter_folder
from neuron_atlas.tasks.subject.families import FAMILIES
from neuron_atlas.tasks.subject.find_layout import find_layout
from neuron_atlas.tasks.subject.folder import (
    check_config,
    check_converted,
    check_files,
    needs_template,
    read_chat_template,
)
from neuron_atlas.tasks.subject.layout import Layout
from neuron_atlas.tasks.subject.plain_prompt import check_prompt, prompt_template
from neuron_atlas.tasks.subject.probe import can_share_batch, check_processor, check_sequence
from neuron_atlas.tasks.subject.processor import load_processor
from neuron_atlas.tasks.subject.quantization import check_quantization, quantization_settings
from neuron_atlas.tasks.subject.settings import SubjectError, SubjectSettings, model_folder
from neuron_atlas.tasks.subject.subject import Subject
from neuron_atlas.tasks.subject.types import check_known, check_type
from neuron_atlas.tasks.subject.weights import check_weights

__all__ = ["Subject", "load_subject"]


def load_subject(
    settings: SubjectSettings, device: str | torch.device = "cpu", threads: int | None = None
) -> Subject:
    """Load weights from safetensors only, without remote code. Raises SubjectError.

    The processor is tried on a small image. device: "auto" spreads the layers over all visible
    GPUs. threads: CPU threads of torch in this process; None does not change them.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    check_prompt(settings)
    folder = model_folder(settings)
    name = str(folder or settings.model)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "You passed `quantization_config`")  # By _plain_arithmetic.
    try:
        if folder is not None:
            check_known(name, check_config(folder))
        else:
            raw, _ = PreTrainedConfig.get_config_dict(name, revision=settings.revision)
            check_converted(name, raw)
            check_quantization(name, raw)
        config = AutoConfig.from_pretrained(
            name, revision=settings.revision, trust_remote_code=False
        )
        check_type(name, config)
        if folder is not None:
            check_files(folder, needs_template=needs_template(settings))
        adapter = adapter_folder(settings)
        if adapter is not None:
            check_adapter(name, config, adapter)
        _check_no_adapter(name, settings.revision)
        model, weights = AutoModelForImageTextToText.from_pretrained(
            name,
            revision=settings.revision,
            dtype="auto" if settings.dtype == "auto" else getattr(torch, settings.dtype),
            use_safetensors=True,
            trust_remote_code=False,
            device_map=_device_map(device),
            output_loading_info=True,
            **_plain_arithmetic(config),
            # Checked below, with the name of the field.
            ignore_mismatched_sizes=True,
        )
        check_weights(name, model, weights)
        _check_spread(name, getattr(model, "hf_device_map", {}))
        _keep_unpacked(model)
        if adapter is not None:
            model = add_adapter(name, model, adapter)
        processor = load_processor(name, config, settings.revision)
        template = read_chat_template(settings)
        if template is not None:
            processor.chat_template = template
    except SubjectError:
        raise
    except ModelError as error:
        raise SubjectError(str(error)) from error
    except Exception as error:
        raise SubjectError(why_not_loaded(settings.model, "subject.model", error)) from error
    first = next(iter(model.get_input_embeddings().parameters()))
    subject = Subject(settings, model.eval(), processor, first.device)
    check_sequence(subject)
    if settings.prompt is not None:
        processor.chat_template = prompt_template(settings.prompt, subject.image_token)
    subject = replace(subject, layout=_layout(subject))
    check_processor(subject)
    if subject.layout.kind != "known":
        subject = replace(subject, shares_batches=can_share_batch(subject))
    return subject


def _layout(subject: Subject) -> Layout:
    geometry = subject.settings.geometry
    if geometry == "none":
        return Layout(about="subject.geometry=none")
    if geometry == "known" and subject.family in FAMILIES:
        return Layout("known", FAMILIES[subject.family], f"the function of {subject.family}")
    return find_layout(subject)


def _check_no_adapter(name: str, revision: str | None) -> None:
    """Raise SubjectError if a Hugging Face id has an adapter: transformers would load it and its
    base model instead."""
    if find_adapter_config_file(name, revision=revision) is not None:
        raise SubjectError(
            f"subject.model: {name!r} holds an adapter (adapter_config.json); name it in "
            "subject.adapter, and its base model in subject.model"
        )


def _check_spread(name: str, device_map: Mapping[str, Any]) -> None:
    """Raise SubjectError if a part of the subject is in host memory or on disk: hooks do not see
    that part, and a run would take days."""
    devices = {str(device) for device in device_map.values()}
    if len(devices) > 1 and devices & {"cpu", "disk"}:
        raise SubjectError(
            f"subject.model: {name!r} does not fit on {len(devices - {'cpu', 'disk'})} GPU(s); "
            "raise cluster.gpus_per_actor, or use a smaller subject"
        )


def _plain_arithmetic(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the argument of from_pretrained that lets quantized layers compute with floats.

    The kernels of some formats exist on some devices only, and have no gradients. Raises
    SubjectError for a format that transformers would ignore.
    """
    settings = quantization_settings(config.to_dict()) or {}
    method, bits = settings.get("quant_method"), settings.get("bits", 4)
    if settings and not AutoHfQuantizer.supports_quant_method(settings):
        raise SubjectError(
            f"subject.model: quantization_config in config.json has quant_method {method!r}, which "
            "transformers does not read; name a model that is quantized in another format"
        )
    made: Any = None
    if method == "compressed-tensors":
        made = CompressedTensorsConfig(dequantize=True)
    elif method in ("fp8", "mxfp8"):
        made = FineGrainedFP8Config(dequantize=True)
    elif method == "gptq":
        made = GPTQConfig(bits=bits, backend="torch")
    elif method == "awq":
        made = AwqConfig(bits=bits, backend=AwqBackend.TORCH_AWQ)
    return {} if made is None else {"quantization_config": made}


def _keep_unpacked(model: Any) -> None:
    """Keep 4-bit weights of bitsandbytes in the layout that they are stored in. On CPUs with
    AVX-512 its layers change it at the first pass, for multiplications in bfloat16 without
    gradients, and only of some widths."""
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False


def _device_map(device: str | torch.device) -> Any:
    if device == "auto":
        return "auto"
    return {"": device} if torch.device(device).type != "cpu" else None
