"""The weight of a linear layer as one matrix, however the layer stores it."""

import pytest
import torch

from neuron_atlas.tasks.subject.dense_weight import dense_weight


class Packed(torch.nn.Module):
    """A linear layer with an int8 code per weight and a scale per output."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        generator = torch.Generator().manual_seed(0)
        codes = torch.randint(-127, 128, (outputs, inputs), generator=generator)
        self.register_buffer("weight", codes.to(torch.int8))
        self.register_buffer("scale", torch.rand(outputs, 1, generator=generator).to(dtype))
        self.bias = torch.nn.Parameter(torch.rand(outputs, generator=generator).to(dtype))

    def dense(self) -> torch.Tensor:
        return self.weight.to(self.scale.dtype) * self.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.dense(), self.bias)


@pytest.mark.parametrize("inputs", [3, 1024, 2500])
def test_a_packed_layer_is_read_through_its_own_arithmetic(inputs):
    layer = Packed(inputs, 7, torch.float32)
    found = dense_weight(layer, torch.float32)
    assert found.shape == (7, inputs)
    torch.testing.assert_close(found, layer.dense(), rtol=1e-5, atol=1e-5)


def test_a_packed_layer_of_half_precision_reads_its_own_number_format():
    layer = Packed(40, 7, torch.bfloat16)
    found = dense_weight(layer, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, layer.dense(), rtol=0.02, atol=0.02)


def test_a_plain_layer_returns_its_own_weight():
    layer = torch.nn.Linear(5, 3)
    found = dense_weight(layer, torch.float32)
    assert found.data_ptr() == layer.weight.data_ptr()
    assert not found.requires_grad


def test_a_layer_that_changes_its_weight_is_not_read_from_it():
    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(2 * x)

    layer = Doubled(5, 3)
    expected = 2 * layer.weight.detach()
    torch.testing.assert_close(dense_weight(layer, torch.float32), expected)
