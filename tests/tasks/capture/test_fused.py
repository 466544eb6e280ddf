"""The GPU kernel, run by Triton's interpreter on the CPU: what it computes, not how fast."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neuron_atlas.tasks.capture import observe_compiled, observe_torch
from neuron_atlas.tasks.capture.self_check import first_difference

CPU = torch.device("cpu")


@pytest.mark.triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_kernel_records_what_plain_torch_does(dtype):
    # Triton decides when it is imported whether it compiles or interprets.
    program = (
        "import torch\n"
        "from neuron_atlas.tasks.capture import observe_fused, self_check\n"
        "cpu = torch.device('cpu')\n"
        f"found = self_check.first_difference(observe_fused.observe, cpu, torch.{dtype})\n"
        "print('difference:', found or None)\n"
    )
    done = ran(program, TRITON_INTERPRET="1")
    assert done.stdout.strip() == "difference: None", done.stderr


def ran(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.triton
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_kernel_compiles_for_gpus(dtype, capability):
    # Triton compiles for a GPU that is not there, and checks more than its interpreter does.
    program = f"""
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton
from neuron_atlas.tasks.capture import observe_fused as fused
constants = fused.CONSTANTS
kinds = dict(values="*{dtype}", roles="*i8", blocks="*i64", peaks="*fp32", tokens="*i32",
             sums="*fp32", squares="*fp32", positive="*i32", nonfinite="*i32", histogram="*i32",
             n_samples="i32", n_tokens="i32", neurons="i32", cells="i32")
kinds |= dict.fromkeys(constants, "constexpr")
source = ASTSource(fn=fused._accumulate, signature=kinds, constexprs=constants)
compiled = triton.compile(source, target=GPUTarget("cuda", {capability}, 32))
print("compiled" if compiled.asm["cubin"] else "nothing")
"""
    assert ran(program).stdout.strip() == "compiled"


def test_the_self_check_finds_no_fault_in_the_compiled_way():
    assert first_difference(observe_compiled.observe, CPU) == ""


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("histogram", lambda record: record.statistics.histogram[1, 40].add_(1)),
        ("total", lambda record: record.statistics.total[0].mul_(1.001)),
        ("maximum", lambda record: record.statistics.maximum[2].add_(1)),
        ("keys", lambda record: record.keys[3].sub_(1)),
        ("peak_positions", lambda record: record.peak_positions[7].add_(1)),
    ],
)
def test_the_self_check_finds_what_a_kernel_gets_wrong(part, spoil):
    def wrong(record, activations, batch):
        observe_torch.observe(record, activations, batch)
        spoil(record)

    assert first_difference(wrong, CPU) == f"{part} differ from plain torch"
