"""Train the bundled subject: a small LLaVA that learns from scratch to describe drawn scenes."""

import argparse
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from neuron_atlas.infra.subject.architecture import build_model, build_processor
from neuron_atlas.infra.subject.card import write_model_card
from neuron_atlas.infra.subject.evaluate import measure_subject
from neuron_atlas.infra.subject.training_batches import TrainingBatches
from neuron_atlas.tasks.samples.scenes import Scenes

BUNDLED = Path(__file__).parent / "llava-scenes"
# Training scenes use seeds from here on; tests, demonstrations and measurements use lower ones.
TRAINING_SEED = 1_000_000
TOKENIZER_TEXTS = 4000
SNAPSHOT_STEPS = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Training settings; together with the code, they decide the weights."""

    seed: int = 0
    steps: int = 3000
    batch_size: int = 64
    peak_rate: float = 1.5e-3
    weight_decay: float = 0.01
    clip_norm: float = 1.0


def train(
    recipe: Recipe, snapshots: Path | None = None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Train a subject on drawn scenes, each used once. Save every 500th step to `snapshots`."""
    scenes = Scenes(count=recipe.steps * recipe.batch_size, seed=TRAINING_SEED + recipe.seed)
    processor = build_processor(
        record.text for record in Scenes(count=TOKENIZER_TEXTS, seed=scenes.seed).records()
    )
    model = build_model(recipe.seed).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.peak_rate, weight_decay=recipe.weight_decay, fused=True
    )
    schedule = OneCycleLR(optimizer, recipe.peak_rate, total_steps=recipe.steps)
    batches = DataLoader(
        TrainingBatches(scenes, processor, recipe.batch_size),
        batch_size=None,
        num_workers=1,
        prefetch_factor=8,
    )
    start = time.monotonic()
    for step, batch in enumerate(batches, start=1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0:
            log.info("step %d loss %.4f %.0f s", step, loss.item(), time.monotonic() - start)
        if snapshots and step % SNAPSHOT_STEPS == 0:
            save(model, processor, snapshots / f"step-{step}")
    return model.eval(), processor


def save(model: LlavaForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write the subject in bfloat16, with the weight names of the published LLaVA models.

    transformers omits `vision_model` from the names, and vLLM does not find such weights.
    """
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=rounded)
    processor.save_pretrained(folder)
    weights = folder / "model.safetensors"
    named = {_published_name(name): tensor for name, tensor in load_file(weights).items()}
    save_file(named, weights, metadata={"format": "pt"})
    weights.chmod(0o644)


def _published_name(name: str) -> str:
    prefix, nested = "vision_tower.", "vision_tower.vision_model."
    if name.startswith(prefix) and not name.startswith(nested):
        return nested + name.removeprefix(prefix)
    return name


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=BUNDLED)
    parser.add_argument("--snapshots", type=Path, help="save every 500th step in this folder")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(2)
    recipe = Recipe(seed=options.seed, steps=options.steps)
    start = time.monotonic()
    model, processor = train(recipe, options.snapshots)
    minutes = (time.monotonic() - start) / 60
    save(model, processor, options.output)
    measurement = measure_subject(options.output)
    write_model_card(options.output, asdict(recipe), minutes, measurement)
    log.info("%s", (options.output / "README.md").read_text())


if __name__ == "__main__":
    _main()
