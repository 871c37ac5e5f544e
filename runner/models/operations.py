"""Looking at a module's operations while it runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """A mode that sees every operation of torch."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls, **keys: Any) -> None:
        super().__init_subclass__(**keys)  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Import no compiler for it: that takes a second."""
        return False

    @staticmethod
    def name_of(func: Any) -> str:
        """Return the name of an operation, without namespace and overload."""
        name: str = func.overloadpacket._qualified_op_name.rpartition("::")[2]
        return name


@contextmanager
def running(module: nn.Module) -> Iterator[tuple[list[str], dict[str, None]]]:
    """Yield paths of submodules: those that run, the innermost last, and all that did, by first call."""
    stack: list[str] = []
    called: dict[str, None] = {}

    def begin(path: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            stack.append(path)
            called.setdefault(path)

        return hook

    def end(*_: Any) -> None:
        stack.pop()

    handles = []
    for path, part in module.named_modules():
        handles += [
            part.register_forward_pre_hook(begin(path)),
            part.register_forward_hook(end, always_call=True),
        ]
    try:
        yield stack, called
    finally:
        for handle in handles:
            handle.remove()
