"""The devices that tests pretend to have: what is left on the CPU is found, and what a recording loses."""

import pytest
import torch
from cells import LinearModel
from pretended_cuda import pretended_cuda
from test_devices import CPU, CUDA, OPTIMIZERS, cells, check, section_of

from runner.data.order import Batch, BatchOrder
from runner.measures.snapshot import Measurement
from runner.numerics import losses
from runner.optim import SGD
from runner.training.train import train_pack

CONSTANT = torch.ones(1, dtype=torch.float64)


class LeavingModel(LinearModel):
    """Makes a tensor without saying where."""

    def forward(self, x):
        return self.output(x) + torch.zeros(1)


class LeavingSGD(SGD):
    def update(self, slot, parameter, gradient):
        super().update(slot, parameter, gradient + torch.zeros(gradient.shape, dtype=gradient.dtype))


def leaving_measure(now, start):
    return Measurement(trace={"own": now.ensemble.gamma[:, 0, 0] * torch.ones(len(now.ensemble.cells))})


def hosted_measure(now, start):
    return Measurement(trace={"own": torch.tensor(now.outputs("test").numpy().mean((1, 2)))})


LEFT = {
    "in a model": {"model": {"_target_": f"{__name__}.LeavingModel"}},
    "in an optimizer": {"optimizer": {"_target_": f"{__name__}.LeavingSGD", "momentum": 0.9}},
    "in a measure": {"measure": section_of({"own": {"_target_": f"{__name__}.leaving_measure"}})},
    "as an array": {"measure": section_of({"own": {"_target_": f"{__name__}.hosted_measure"}})},
}


@pytest.mark.parametrize("where", LEFT)
def test_what_is_left_behind_is_found(where):
    pack = cells(LEFT[where])
    train_pack(pack, CPU)
    error = pytest.raises((RuntimeError, TypeError), match=r"same device|can't convert cuda:0")
    with pretended_cuda(), error:
        train_pack(pack, CUDA)


def test_a_batch_that_nobody_moved_is_found(monkeypatch):
    drawn = BatchOrder.next
    monkeypatch.setattr(BatchOrder, "next", lambda self: Batch(drawn(self).places.cpu()))
    with pretended_cuda(), pytest.raises(RuntimeError, match="same device"):
        train_pack(cells({"batch_size": 7}), CUDA)


def test_a_constant_of_a_module_is_found(monkeypatch):
    """It is older than any device."""
    monkeypatch.setitem(losses.GRADIENTS, "mse", lambda f, y: (f - y) * CONSTANT)
    with pretended_cuda(), pytest.raises(RuntimeError, match="same device"):
        train_pack(cells({}), CUDA)


def test_what_a_recorded_step_waits_for_is_found(monkeypatch):
    """Such a step would be recorded on no GPU."""
    update = SGD.update

    def waiting(self, slot, parameter, gradient):
        assert gradient.sum().item() is not None
        update(self, slot, parameter, gradient)

    monkeypatch.setattr(SGD, "update", waiting)
    with pretended_cuda(), pytest.raises(RuntimeError, match="stream is capturing"):
        train_pack(cells({"optimizer": OPTIMIZERS["momentum"]}), CUDA)


def test_what_a_recording_would_keep_is_found(monkeypatch):
    """A rate in a new tensor at every step: replayed, it is that of the step that was recorded."""
    pack = cells({"optimizer": OPTIMIZERS["momentum"] | {"schedule": "linear"}}, steps=8)
    begin = SGD.begin

    def stale(self):
        begin(self)
        for slot in self.slots:
            slot.rate = slot.rate.clone()

    monkeypatch.setattr(SGD, "begin", stale)
    with pytest.raises(AssertionError):
        check(pack)


def test_devices_of_tensors():
    with pretended_cuda():
        x = torch.ones(2, 3, device="cuda")
        assert x.is_cuda
        assert x.device == torch.zeros_like(x).device == torch.device("cuda", 0)
        assert (x @ x.mT)[0].detach().device == x.device
        assert x.cpu().device == x.to(torch.zeros(1)).device == x.new_zeros(1, device="cpu").device == CPU
        assert x.to("cuda:1").device == torch.device("cuda", 1)
        assert x[[0]].device == torch.func.vmap(lambda row: row * 2)(x).device == x.device
        assert (x + torch.tensor(1.0)).device == x.device
        for wrong in (
            lambda: x + torch.ones(3), lambda: x.to("cuda:1") * x, lambda: x @ torch.ones(3, 1),
            lambda: torch.stack([x[0, 0], torch.tensor(1.0)]), lambda: x[torch.tensor([0])],
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        with pytest.raises(RuntimeError, match="generator"):
            torch.randn(2, device="cuda", generator=torch.Generator())
