"""How long heat maps take when an image is looked at once, beside the model's plain call.

    python -m bench.clipseg [--images 2] [--explanations 16] [--out bench/clipseg.json]

A CLIPSeg of the published shape (ViT-B/16 at 352 px, decoder of width 64) with random weights, for
what it draws is no matter; the decoder's are larger than a new one's, so that maps differ. The
plain call, of transformers, is given every pair of an image and an explanation, as its
documentation has it; the maps of both are compared. Each is warmed up by a pair.
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
    """Measure, and write and print the figures."""
    parser = argparse.ArgumentParser(description="Heat maps beside the model's plain call.")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--explanations", type=int, default=16)
    parser.add_argument("--plain-explanations", type=int, default=4, help="of the plain call")
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
    few = texts[: options.plain_explanations]
    _plainly(model, processor, images[:1], few[:1])
    _apart(segmenter, images[:1], few[:1])
    plain_s, plain = _timed(_plainly, model, processor, images, few)
    few_s, same = _timed(_apart, segmenter, images, few)
    many_s, _ = _timed(_apart, segmenter, images, texts)
    plain_pairs = options.images * len(few)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} threads",
        "device": _name(options.device),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "images": options.images,
        "plain": {
            "explanations": len(few),
            "seconds_a_map": round(plain_s / plain_pairs, 4),
        },
        "looked_at_once": [
            {
                "explanations": len(said),
                "seconds_a_map": round(seconds / (options.images * len(said)), 4),
                "times_as_fast": round(
                    plain_s / plain_pairs / (seconds / options.images / len(said)), 2
                ),
            }
            for said, seconds in ((few, few_s), (texts, many_s))
        ],
        "difference": {
            "largest": float((plain - same).abs().max()),
            "spread_of_the_maps": round(float(plain.std()), 6),
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    written = json.dumps(result, indent=2)
    options.out.write_text(written + "\n", encoding="utf-8")
    print(written)


def _plainly(
    model: CLIPSegForImageSegmentation,
    processor: CLIPSegProcessor,
    images: Sequence[Image.Image],
    texts: Sequence[str],
) -> torch.Tensor:
    """All maps of an image at a time [pairs, rows, columns]."""
    maps = []
    for image in images:
        inputs = processor(
            text=list(texts), images=[image] * len(texts), padding=True, return_tensors="pt"
        ).to(model.device)
        with torch.inference_mode():
            maps.append(torch.sigmoid(model(**inputs).logits))
    return torch.cat(maps)


def _apart(
    segmenter: Segmenter, images: Sequence[Image.Image], texts: Sequence[str]
) -> torch.Tensor:
    told, _ = segmenter.encode_texts(texts)
    seen = segmenter.encode_images(images)
    return torch.cat(
        [segmenter.heat_maps(of_image.expand(len(texts), -1, -1, -1), told) for of_image in seen]
    )


def _timed(work: object, *arguments: object) -> tuple[float, torch.Tensor]:
    start = time.perf_counter()
    maps = work(*arguments).cpu()  # type: ignore[operator]
    return time.perf_counter() - start, maps


def _published_shape(device: str) -> tuple[CLIPSegForImageSegmentation, CLIPSegProcessor]:
    """See the config.json of CIDAS/clipseg-rd64-refined."""
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
