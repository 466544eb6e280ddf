"""Build training batches: drawn scenes, encoded with the processor and the chat template."""

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
class TrainingBatches(IterableDataset):
    """Dataset of training batches: the scenes in order; a smaller last batch is dropped.

    The loss covers all tokens of the answer, including the EOS, and no other tokens.
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
