"""The GPU kernel, run by Triton's interpreter on the CPU: what it computes, not how fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tasks.capture import observe_compiled, observe_torch
from tasks.capture.self_check import first_difference

CPU = torch.device("cpu")


@pytest.mark.triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_kernel_records_what_plain_torch_does(dtype):
    # Triton decides when it is imported whether it compiles or interprets.
    program = (
        "import torch\n"
        "from tasks.capture import observe_fused, self_check\n"
        f"def observe(record, values, batch):\n"
        f"    observe_fused.observe(record, values.to(torch.{dtype}), batch)\n"
        f"def plain(record, values, batch):\n"
        f"    real(record, values.to(torch.{dtype}), batch)\n"
        "real = self_check.observe_torch.observe\n"
        "self_check.observe_torch.observe = plain\n"
        "print('difference:', self_check.first_difference(observe, torch.device('cpu')) or None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "difference: None", done.stderr


def test_the_self_check_finds_no_fault_in_the_compiled_way():
    assert first_difference(observe_compiled.observe, CPU) == ""


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("histogram", lambda record: record.tally.histogram[1, 40].add_(1)),
        ("total", lambda record: record.tally.total[0].mul_(1.001)),
        ("maximum", lambda record: record.tally.maximum[2].add_(1)),
        ("keys", lambda record: record.keys[3].sub_(1)),
        ("peak_places", lambda record: record.peak_places[7].add_(1)),
    ],
)
def test_the_self_check_finds_what_a_kernel_gets_wrong(part, spoil):
    def wrong(record, activations, batch):
        observe_torch.observe(record, activations, batch)
        spoil(record)

    assert first_difference(wrong, CPU) == f"{part} differ from plain torch's"
