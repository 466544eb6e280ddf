"""Lets torchvision be imported where only its build for CUDA is to be had, on a torch without CUDA.

Its import registers Python versions of two operators that its compiled library should have defined,
and fails because that library could not be loaded. Here they are defined, without an
implementation, just before torchvision is first imported: preparing images calls neither.

Python imports this module at every start, by the .pth file beside it, so it must cost nothing.
"""

import importlib.abc
import sys

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Finds nothing; is asked for torchvision before those who do."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """See `MetaPathFinder`."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for name in _OPERATORS:
                torch.library.define(f"torchvision::{name}", _SIGNATURE)


sys.meta_path.insert(0, _BeforeTorchvision())
