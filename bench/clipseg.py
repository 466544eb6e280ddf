"""Compare heat maps with cached image features to the model's plain call.

    python -m bench.clipseg [--images 2] [--explanations 16] [--out bench/clipseg.json]

Uses a CLIPSeg of the published shape (ViT-B/16 at 352 px, decoder of width 64) with random weights,
because the content of the maps does not matter. The decoder's weights are larger than at
initialization, so maps differ. The plain call of transformers gets every pair of an image and an
explanation, as in its documentation. The maps of both methods are compared. Each method is warmed
up with one pair.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import string
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessorPil,
)

from neuron_atlas.tasks.simulate.segmenter import Segmenter

_SIDE = 352
_START, _END = "<|startoftext|>", "<|endoftext|>"


def main() -> None:
    """Measure, print the result and write it as JSON."""
    parser = argparse.ArgumentParser(description="Compare heat maps with the model's plain call.")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--explanations", type=int, default=16)
    parser.add_argument(
        "--plain-explanations", type=int, default=4, help="explanations for the plain call"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("bench/clipseg.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, processor = _published_shape(options.device)
    segmenter = Segmenter(deepcopy(model), processor)
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
        for _ in range(options.images)
    ]
    texts = [
        f"regions of {letter * 3}" for letter in string.ascii_lowercase[: options.explanations]
    ]
    subset = texts[: options.plain_explanations]
    _plain_call(model, processor, images[:1], subset[:1])
    _with_cached_features(segmenter, images[:1], subset[:1])
    plain_s, plain = _timed(_plain_call, model, processor, images, subset)
    subset_s, cached = _timed(_with_cached_features, segmenter, images, subset)
    all_s, _ = _timed(_with_cached_features, segmenter, images, texts)
    plain_pairs = options.images * len(subset)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads",
        "device": _name(options.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "images": options.images,
        "plain": {
            "explanations": len(subset),
            "seconds_per_map": round(plain_s / plain_pairs, 4),
        },
        "cached_features": [
            {
                "explanations": len(explanations),
                "seconds_per_map": round(seconds / (options.images * len(explanations)), 4),
                "speedup": round(
                    plain_s / plain_pairs / (seconds / options.images / len(explanations)), 2
                ),
            }
            for explanations, seconds in ((subset, subset_s), (texts, all_s))
        ],
        "difference": {
            "largest": float((plain - cached).abs().max()),
            "std_of_maps": round(float(plain.std()), 6),
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps(result, indent=2)
    options.out.write_text(written + "\n", encoding="utf-8")
    print(written)


def _plain_call(
    model: CLIPSegForImageSegmentation,
    processor: CLIPSegProcessor,
    images: Sequence[Image.Image],
    texts: Sequence[str],
) -> torch.Tensor:
    """Return the maps of all pairs, float [pairs, rows, columns], one image per forward pass."""
    maps = []
    for image in images:
        inputs = processor(
            text=list(texts), images=[image] * len(texts), padding=True, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            maps.append(torch.sigmoid(model(**inputs).logits))
    return torch.cat(maps)


def _with_cached_features(
    segmenter: Segmenter, images: Sequence[Image.Image], texts: Sequence[str]
) -> torch.Tensor:
    text_features, _ = segmenter.encode_texts(texts)
    image_features = segmenter.encode_images(images)
    return torch.cat(
        [
            segmenter.heat_maps(features.expand(len(texts), -1, -1, -1), text_features)
            for features in image_features
        ]
    )


def _timed(work: object, *arguments: object) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    maps = work(*arguments).cpu()  # type: ignore[operator]
    return time.perf_counter() - start, maps


def _published_shape(device: str) -> tuple[CLIPSegForImageSegmentation, CLIPSegProcessor]:
    """Return a random model with the sizes in CIDAS/clipseg-rd64-refined's config.json."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {token: number for number, token in enumerate([*letters, _START, _END])}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[])
    config = CLIPSegConfig(
        text_config={
            "vocab_size": len(vocabulary),
            "bos_token_id": vocabulary[_START],
            "eos_token_id": vocabulary[_END],
        },
        vision_config={"patch_size": 16},
        use_complex_transposed_convolution=True,
    )
    torch.manual_seed(0)
    model = CLIPSegForImageSegmentation(config).eval().to(device)
    for name, weight in model.decoder.named_parameters():
        if weight.dim() > 1 and "norm" not in name:
            torch.nn.init.normal_(weight, std=0.2)
    size = {"height": _SIDE, "width": _SIDE}
    return model, CLIPSegProcessor(ViTImageProcessorPil(size=size), tokenizer)


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


if __name__ == "__main__":
    main()
