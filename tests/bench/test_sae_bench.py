"""The benchmark of top-k SAEs captures the same record in both ways."""

from __future__ import annotations

import argparse

import torch

from bench.sae import WAYS, compare, measure


def test_both_ways_record_the_same(tmp_path) -> None:
    options = argparse.Namespace(latents=300, k=8, samples=8, batch_size=4, rounds=1)
    for way in WAYS:
        assert measure(options, way, tmp_path)["samples_per_s"] > 0
    same = compare(*(torch.load(tmp_path / f"{way}.pt") for way in WAYS))
    assert min(share for name, share in same.items() if name != "mean") == 1
    assert same["mean"] < 1e-5
