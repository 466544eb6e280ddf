"""Training batches: drawn scenes as the processor and the chat template present them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import IterableDataset
from transformers import LlavaProcessor

from neuron_atlas.infra.subject.architecture import conversation
from neuron_atlas.tasks.samples.scenes import Scenes

_IGNORED = -100


@dataclass(frozen=True)
class Lessons(IterableDataset):
    """The scenes in order, `batch_size` at a time; the last, smaller batch is left out.

    Every token of the answer is to be learned, from its first to the EOS; nothing else is.
    """

    scenes: Scenes
    processor: LlavaProcessor
    batch_size: int

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield input_ids, attention_mask and labels [batch, tokens], pixel_values [batch, ...]."""
        prompt = self.processor.apply_chat_template(conversation(), add_generation_prompt=True)
        records = iter(self.scenes.records())
        while len(batch := list(islice(records, self.batch_size))) == self.batch_size:
            images = [self.scenes.open_image(record.image).pixels for record in batch]
            chats = [
                self.processor.apply_chat_template(conversation(record.text)) for record in batch
            ]
            inputs = self.processor(
                images=images, text=chats, padding=True, padding_side="right", return_tensors="pt"
            )
            prompt_length = len(self.processor(images=images[:1], text=[prompt])["input_ids"][0])
            labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, _IGNORED)
            labels[:, :prompt_length] = _IGNORED
            yield {**inputs, "labels": labels}
