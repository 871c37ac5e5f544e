"""What the ``dtype`` of a cell means: the numbers of its tensors, and how a GPU multiplies them."""

from __future__ import annotations

import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64, "tf32": torch.float32}


def set_precision(dtype: str) -> None:
    """Have a GPU multiply float32 matrices in full precision, or in TF32 for the dtype of that name.

    TF32 keeps 10 bits of the 23 of a mantissa: errors of 1e-3, as large as the movements by which the lazy
    regime is told. Off, also for convolutions, where torch's own default is on.
    """
    mode = "tf32" if dtype == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = mode
    torch.backends.cudnn.conv.fp32_precision = mode  # type: ignore[attr-defined]
