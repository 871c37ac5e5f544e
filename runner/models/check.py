"""What a model must be, checked before anything is trained."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner.data import Dataset
from runner.errors import UserError
from runner.layers import Layer, allocate, parameter_count, record

BATCHED = (
    "it makes the output for one sample depend on the others of its batch, so that no kernel of two "
    "samples exists; use runner.layers.LayerNorm or no norm"
)
RANDOM = "it makes the network another function at every call, so that it has no one kernel; leave it out"
_WHY = {nn.modules.batchnorm._NormBase: BATCHED, nn.modules.dropout._DropoutNd: RANDOM}


_LARGE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Size:
    """What one sample costs in one cell.

    Attributes:
        activations: Numbers that layers return.
        multiplications: Multiplications of a forward pass of one sample, in layers that multiply by a matrix.
        calls: Operations that a forward pass dispatches.
        written: Numbers that those write for one sample.
        paired: Multiplications that the kernel of a pair of samples takes, of one output.
    """

    activations: int
    multiplications: int
    calls: int
    written: int
    paired: int


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is dispatched inside, and the numbers that it writes; a view writes none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls = self.written = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing compiles here; to say so to torch's compiler would import it, which takes two seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        returned = func(*args, **(kwargs or {}))
        self.calls += 1
        if isinstance(returned, Tensor) and not func.is_view:
            self.written += returned.numel()
        return returned


def check(model: nn.Module, dataset: Dataset) -> Size:
    """Return the size of a model that can be trained as an ensemble and measured.

    Args:
        model: Built without cells; it has none that matter afterwards.

    Returns:
        What one sample costs.

    Raises:
        UserError: If it has a layer without a per-sample kernel, a parameter outside the ensemble layers, or
            another shape of output than the data ask for.
    """
    for path, module in model.named_modules():
        check_module(path, module)
        if isinstance(module, Layer):
            require_trained(path, module)
            continue
        for name, _ in module.named_parameters(path, recurse=False):
            raise UserError(
                f"model must hold its parameters in runner.layers, got {name} in a {type(module).__name__}; "
                "build it from ensemble layers, or wrap it with model=torch"
            )
    # One cell and one sample for real: on the meta device torch would import its compiler, for 1.4 seconds. A
    # network that may be too large for the memory is told by shapes alone: only its own training is to fail.
    device = "cpu" if 4 * parameter_count(model) < _LARGE_BYTES else "meta"
    allocate(model, 1, device)
    sample = dataset.probe.inputs[None, :1].to(device)
    sample = sample.float() if sample.is_floating_point() else sample
    try:
        with record() as tape, torch.no_grad(), _Count() as counted:
            produced = tuple(model(sample).shape)
    except UserError:
        raise
    except Exception as error:
        raise cannot_run(tuple(dataset.input_shape), error) from error
    if produced != (1, 1, dataset.outputs):
        wanted = f"[cell, sample, {dataset.outputs}]"
        if dataset.vocabulary is not None:
            wanted = f"[cell, sample, {dataset.positions}, {dataset.vocabulary}] or {wanted}"
        raise UserError(
            f"model must map [cell, sample, *inputs] to {wanted}, got {produced} "
            "for one cell and one sample; see runner.layers"
        )
    costs = [call.layer.cost(call) for call in tape]
    return Size(
        sum(numbers for numbers, _ in costs),
        sum(products for _, products in costs),
        counted.calls,
        counted.written,
        sum(_paired(call.layer, *cost) for call, cost in zip(tape, costs, strict=True)),
    )


def _paired(layer: Layer, numbers: int, products: int) -> int:
    """Return a call's multiplications for the kernel of a pair of samples, of one output.

    At one position gradients of outputs are paired. At several those of the weight are, or the positions,
    whichever is less; see :mod:`runner.layers.contraction`.
    """
    weights = parameter_count(layer)
    return numbers if products <= weights else min(weights, numbers * products // weights)


def cannot_run(shape: tuple[int, ...], error: Exception) -> UserError:
    """Return what to say of a model that fails on a sample."""
    reason = " ".join(str(error).split())
    if "random operation" in reason:  # as torch.func says of dropout in a forward
        return UserError(f"model must compute a function of each sample, got {reason}: {RANDOM}")
    return UserError(
        f"model must map samples of shape {shape}, got {type(error).__name__}: {reason}; "
        "choose another model or other data"
    )


def require_trained(path: str, module: nn.Module) -> None:
    """Raise UserError for a parameter that is not to be trained."""
    for name, parameter in module.named_parameters(path, recurse=False):
        if not parameter.requires_grad:
            raise UserError(
                f"model must train all of its parameters, got requires_grad=False of {name}; "
                "keep what is fixed in a buffer: self.register_buffer"
            )


def check_module(path: str, module: nn.Module) -> None:
    """Raise UserError for a module under which a network has no per-sample kernel."""
    for kind, why in _WHY.items():
        if isinstance(module, kind) and not _harmless(module):
            raise UserError(
                f"model must not contain {type(module).__name__}, got one at {path or 'its top'}: {why}"
            )


def _harmless(module: nn.Module) -> bool:
    """Whether a norm or a dropout treats samples alone and in one way."""
    # An instance norm has the name of a batch norm, but treats samples alone.
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return not module.track_running_stats
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return not module.training and module.running_mean is not None
    return not module.training or getattr(module, "p", 1.0) == 0
