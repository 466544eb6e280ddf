"""Make a torchvision built for CUDA importable with a torch without CUDA.

torchvision's import registers Python versions of two operators that its compiled library defines.
It fails because that library cannot be loaded. This module defines the operators, without an
implementation, just before the first import of torchvision. Image preprocessing calls neither.

A .pth file in the same folder imports this module at every start of Python, so it must be cheap.
"""

import importlib.abc
import sys

_OPERATORS = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    """Import hook that defines the operators before torchvision is found; finds no module."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Define the operators if `fullname` is torchvision; always return None."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for name in _OPERATORS:
                torch.library.define(f"torchvision::{name}", _SIGNATURE)


sys.meta_path.insert(0, _BeforeTorchvision())
