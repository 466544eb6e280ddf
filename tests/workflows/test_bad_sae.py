"""A run with an SAE that cannot be used ends in one line, before images are opened."""

from __future__ import annotations

import re

from tests.tasks.subject.sae.test_sae import sparsify


def test_an_sae_without_weights_ends_the_run_before_images_are_opened(
    ray_of_two_cores, ended, tmp_path, shared_mlflow
):
    folder = sparsify(tmp_path / "layers.1")
    (folder / "sae.safetensors").unlink()
    path = f"capture.sae.path={folder}"
    status, err = ended("capture.hook_point=sae", path, f"out={tmp_path / 'out'}")
    assert status == 2
    *_, line = err.splitlines()
    assert re.match(r"neuron-atlas: capture\.sae\.path: .* has no sae_weights.*; download", line)
    assert "samples/s" not in err
    assert not list((tmp_path / "out").rglob("samples.parquet"))
