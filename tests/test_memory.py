"""The memory that is forecast for a pack against what torch allocates for it."""

import gc

import pytest
import torch
from cells import DIGITS, make_cell
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from runner.layers import kernel_memory
from runner.planning.memory import peak_bytes
from runner.training.preflight import inspect
from runner.training.train import train_pack

ABOVE = 4.5
"""Times what is held, at most: an estimate for every model and measure from few constants."""


class Allocated(TorchDispatchMode):
    """Sums the storages that are alive after each operation."""

    def __init__(self):
        super().__init__()
        self.peak, self._sum, self._live = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **kwargs or {})
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                if storage._cdata not in self._live:
                    self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                    self._sum += storage.nbytes()
                    if self._sum > self.peak:
                        self._forget()
                        self.peak = max(self.peak, self._sum)
        return made

    def _forget(self):
        for key in [key for key, (storage, _) in self._live.items() if storage.expired()]:
            self._sum -= self._live.pop(key)[1]


def model(name, **keys):
    return {"_target_": f"runner.models.{name}", "activation": "tanh", **keys}


def digits(samples, probes=32):
    return DIGITS | {"train_size": samples, "test_size": samples, "probe_size": probes}


TEXT = {
    "_target_": "runner.data.text", "seed": 0, "context": 16, "size": 4000,
    "train_size": 32, "test_size": 32, "probe_size": 8,
}  # fmt: skip
LANGUAGE = model("Transformer", causal=True, readout="every", heads=4)
ADAM = {"optimizer": {"_target_": "runner.optim.Adam"}, "lr_unit": "absolute", "lr": 1e-3}
KERNEL, SEARCH = ("ntk_change", "feature_movement"), ("sharpness",)
CASES = {
    "mlp": (4, {"width": 32, "data": digits(512)}, ()),
    "mlp, one cell, few samples": (1, {"width": 32, "data": digits(64, 10)}, ()),
    "mlp, wide": (2, {"width": 512, "data": digits(128)}, ()),
    "mlp, minibatches": (2, {"width": 128, "data": digits(512), "batch_size": 8}, ()),
    "mlp, adam": (2, {"width": 256, "data": digits(256)} | ADAM, ()),
    "mlp, flow": (
        1,
        {"width": 256, "data": digits(32), "lr": 0.001, "lr_unit": "absolute"},
        ("flow_distance",),
    ),
    "mlp, double": (2, {"width": 128, "data": digits(256), "dtype": "float64"}, KERNEL),
    "mlp, kernel": (4, {"width": 256, "data": digits(128, 64)}, KERNEL),
    "mlp, hessian": (2, {"width": 32, "data": digits(128)}, SEARCH),
    "mlp, spectrum": (2, {"width": 64, "data": digits(48)}, ("spectrum",)),
    "mlp, regression": (
        2,
        {"width": 64, "data": {"train_size": 256, "test_size": 64}},
        ("kernel_regression",),
    ),
    "cnn": (2, {"width": 16, "model": model("CNN"), "data": digits(128)}, ()),
    "cnn, minibatches": (2, {"width": 16, "model": model("CNN"), "data": digits(128), "batch_size": 8}, ()),
    "cnn, kernel": (2, {"width": 32, "model": model("CNN"), "data": digits(32)}, KERNEL),
    "transformer": (2, {"width": 32, "model": model("Transformer"), "data": digits(64)}, ()),
    "transformer, kernel": (2, {"width": 16, "model": model("Transformer"), "data": digits(64)}, KERNEL),
    "text": (2, {"width": 64, "model": LANGUAGE, "data": TEXT, "loss": "cross_entropy"} | ADAM, ()),
    "text, kernel": (
        1,
        {"width": 32, "model": LANGUAGE, "data": TEXT, "loss": "cross_entropy"} | ADAM,
        KERNEL,
    ),
}


def pack(case):
    count, changes, names = CASES[case]
    measure = {"points": 2, "functions": {name: {"_target_": f"runner.measures.{name}"} for name in names}}
    given = {"base_width": 8, "dtype": "float32", "steps": 2, "lr": 0.1, "measure": measure} | changes
    return [make_cell(**given, seed=seed) for seed in range(count)]


def held(cells):
    gc.collect()
    with Allocated() as allocated:
        train_pack(cells, torch.device("cpu"))
    return allocated.peak


@pytest.mark.parametrize("case", CASES)
def test_no_less_than_is_held_and_not_much_more(case):
    cells = pack(case)
    forecast = peak_bytes(cells[0], inspect(cells[0]), len(cells))
    allocated = held(cells)
    assert allocated <= forecast <= ABOVE * allocated


def test_the_limit_of_kernels_is_kept_in_mind():
    cells = pack("cnn, kernel")
    shape = inspect(cells[0])
    with kernel_memory(4):
        assert peak_bytes(cells[0], shape, len(cells)) < peak_bytes(cells[0], shape, 2 * len(cells))
        limited, allocated = peak_bytes(cells[0], shape, len(cells)), held(cells)
    assert limited < peak_bytes(cells[0], shape, len(cells))
    assert allocated <= limited
