"""CUDA devices that a machine without one pretends to have, so that a tensor left on the CPU is an error.

Tensors stay in the CPU's memory and operations are the CPU's: all numbers are real, and so is every decision
that is made on them. What a device would refuse is refused. A storage carries the device that it pretends to
be on, so that views, detached tensors and what autograd saves share it. New tensors are where they were asked
to be, or where that is from which they are made; no operation takes tensors of two devices but a copy. What
torch makes for itself on the way is where its first partner is, and what was there before is on the CPU.

Stricter than CUDA in one thing: places to pick or to write must be on the device, too. From the CPU they
would be copied at every step, which waits for the device, and no CUDA graph can be recorded.
"""

import contextlib
from unittest import mock

import torch
from torch._C import DisableTorchFunction
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

COUNT = 2
"""Devices that there are."""
CPU, META = torch.device("cpu"), torch.device("meta")
ANYWHERE = None
"""Where torch makes something for itself."""
_OLD, _NONE = (CPU, None), (ANYWHERE, None)
_MANY = 20_000
_LISTS = (list, tuple)
_WAITING = {f"aten::{name}" for name in ("_local_scalar_dense", "nonzero", "equal", "masked_select")}
_GETTERS = {
    torch.Tensor.device.__get__: lambda place: place,
    torch.Tensor.is_cuda.__get__: lambda place: place.type == "cuda",
    torch.Tensor.is_cpu.__get__: lambda place: place.type == "cpu",
    torch.Tensor.get_device: lambda place: -1 if place.index is None else place.index,
}


def pretended(device):
    """Whether something is on a device that does not exist."""
    return device is not ANYWHERE and device.type == "cuda"


class Places:
    """Where storages pretend to be, and the graph that is being recorded."""

    def __init__(self):
        self._of = {}
        self.current = 0
        self.graph = None

    def device(self, name):
        """The device of a name, with its index, as tensors have it."""
        device = torch.device("cuda", name) if isinstance(name, int) else torch.device(name)
        return torch.device("cuda", self.current) if device == torch.device("cuda") else device

    def of(self, tensor):
        """Where a tensor is."""
        storage = _storage(tensor)
        return META if storage is None else self._of.get(storage._cdata, _OLD)[0]

    def put(self, tensor, place, *, new=False):
        """Say where a tensor is, of which nobody knows; or of one that is new, if it is no view."""
        storage = _storage(tensor)
        if storage is not None and not (new and self._of.get(storage._cdata, _NONE)[0] is not ANYWHERE):
            # While there is a reference, if a weak one, no other storage gets this address.
            self._of[storage._cdata] = place, StorageWeakRef(storage)
            if len(self._of) > _MANY:
                self._of = {key: one for key, one in self._of.items() if not one[1].expired()}

    def wait(self, what):
        """Refuse what cannot be recorded."""
        if self.graph is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


def _storage(tensor):
    """The memory of a tensor, which it shares with others; None if it has none."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor.untyped_storage() if tensor.device.type == "cpu" and not is_lazy(tensor) else None


def _tensors(*values):
    """The tensors in whatever is handed to an operation, or comes from it."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, _LISTS) and value:
            found += _tensors(*value)
        elif isinstance(value, dict) and value:
            found += _tensors(*value.values())
    return found


class _Functions(TorchFunctionMode):
    """What is asked of torch by name: the device of a tensor, new tensors, moves."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, places = dict(kwargs or {}), self.places
        if func in _GETTERS:
            return _GETTERS[func](places.of(args[0]) or CPU)
        if func.__name__ == "__get__":
            return func(*args)
        if func in (torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist):
            if pretended(places.of(args[0])):
                if func is not torch.Tensor.tolist:
                    raise TypeError(f"can't convert {places.of(args[0])} device type tensor to numpy")
                places.wait("tolist")
            return func(*args, **kwargs)
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            name = kwargs.get("device", args[1] if len(args) > 1 else "cuda")
            return self.move(args[0], CPU if func is torch.Tensor.cpu else places.device(name))
        if func is torch.Tensor.to:
            return self.to(*args, **kwargs)
        name = kwargs.pop("device", None)
        if name is None or places.device(name) == META:
            made = func(*args, **kwargs) if name is None else func(*args, **kwargs, device=META)
            asked = next((place for one in _tensors(args, kwargs) if (place := places.of(one))), CPU)
        else:
            asked = places.device(name)
            if kwargs.get("generator") is not None and pretended(asked):
                raise RuntimeError(f"Expected a '{asked}' device type for generator but found 'cpu'")
            if func in (torch.as_tensor, torch.asarray) and isinstance(args[0], torch.Tensor):
                return self.to(*args, device=asked, **kwargs)
            made = func(*args, **kwargs, device=CPU)
            places.put(made, asked)
        for tensor in _tensors(made):
            if places.of(tensor) is ANYWHERE:
                places.put(tensor, asked)
        return made

    def to(self, tensor, *args, device=None, other=None, **kwargs):
        """``Tensor.to`` in all its forms."""
        rest = []
        for given in (*args, *([] if other is None else [other])):
            if isinstance(given, torch.Tensor):
                device = self.places.of(given) or CPU
                rest.append(given.dtype)
            elif isinstance(given, str | torch.device):
                device = given
            elif given is not None:
                rest.append(given)
        cast = (
            tensor.to(*rest, **kwargs)
            if any(isinstance(one, torch.dtype) for one in [*rest, *kwargs.values()])
            else tensor
        )
        if device is None:
            return cast
        place = self.places.device(device)
        return cast.to(META) if place == META else self.move(cast, place)

    def move(self, tensor, place):
        """A tensor on a device, itself if it is there."""
        if self.places.of(tensor) == place:
            return tensor
        self.places.wait("a copy between devices")
        moved = tensor.clone()
        self.places.put(moved, place)
        return moved


class _Operations(TorchDispatchMode):
    """What torch does in the end, also inside of autograd and of vmap."""

    def __init__(self, places):
        super().__init__()
        self.places = places

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, places = kwargs or {}, self.places
        with DisableTorchFunction():
            given = _tensors(args, kwargs)
            place = self.where(func, given, kwargs)
            recorded = places.graph is not None and place != CPU
            if recorded:
                places.graph.before(func, args, kwargs)
                if pretended(place) and func._schema.name in _WAITING:
                    places.wait(func)
            made = func(*args, **kwargs)
            if func is torch.ops.aten.lift_fresh.default:
                place = ANYWHERE
            if recorded:
                places.graph.tape.append((func, args, kwargs, made))
            for tensor in _tensors(made):
                places.put(tensor, place, new=True)
            if place is not ANYWHERE:
                for tensor in given:
                    if places.of(tensor) is ANYWHERE:
                        places.put(tensor, place)
        return made

    def where(self, func, given, kwargs):
        """The one device of all arguments."""
        found = {}
        for tensor in given:
            found.setdefault(self.places.of(tensor), []).append(tensor)
        found.pop(ANYWHERE, None)
        found.pop(META, None)
        if (
            len(found) > 1
            and torch.Tag.pointwise in func.tags
            and not any(t.dim() for t in found.get(CPU, ()))
        ):
            found.pop(CPU, None)  # a number may take part where elements do
        if kwargs.get("generator") is not None and any(map(pretended, found)):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if len(found) > 1:
            if func is torch.ops.aten.copy_.default:
                self.places.wait("a copy between devices")
                return self.places.of(given[0])
            named = ", ".join(f"{tuple(some[0].shape)} on {place}" for place, some in found.items())
            raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {named}")
        return next(iter(found), ANYWHERE)


class _Graph:
    """Stands in for ``torch.cuda.CUDAGraph``: operations, none of which takes effect before replay."""

    def __init__(self):
        self.tape, self._written = [], {}

    def before(self, func, args, kwargs):
        """Keep what an operation overwrites."""
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[position] if position < len(args) else kwargs.get(argument.name)
                for tensor in _tensors(value):
                    storage = tensor.untyped_storage()
                    self._written.setdefault(storage._cdata, (storage, storage.clone()))

    def recorded(self):
        """Undo what the recording did."""
        for storage, before in self._written.values():
            storage.copy_(before)
        self._written = {}

    def replay(self):
        """Do it all again, in the same memory."""
        with torch.no_grad():
            for func, args, kwargs, made in self.tape:
                for held, new in zip(_tensors(made), _tensors(func(*args, **kwargs)), strict=True):
                    if held.data_ptr() != new.data_ptr():
                        held.copy_(new)


class _Stream:
    def wait_stream(self, stream):
        pass


@contextlib.contextmanager
def pretended_cuda():
    """Pretend inside that there are CUDA devices, cuda:0 and cuda:1."""
    places = Places()

    @contextlib.contextmanager
    def record(graph, stream=None):
        places.graph = graph
        try:
            yield
        finally:
            places.graph = None
            graph.recorded()

    def set_device(device):
        places.current = places.device(device).index

    stand_ins = {
        "is_available": lambda: True,
        "device_count": lambda: COUNT,
        "set_device": set_device,
        "get_device_name": lambda device=None: "pretended",
        "get_device_properties": lambda device=None: mock.Mock(total_memory=1 << 30),
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "Stream": _Stream,
        "current_stream": _Stream,
        "stream": contextlib.nullcontext,
        "CUDAGraph": _Graph,
        "graph": record,
    }
    with contextlib.ExitStack() as stack:
        for name, stand_in in stand_ins.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, stand_in))
        # Otherwise torch runs a backward of one's own without the mode.
        stack.enter_context(mock.patch("torch.autograd.has_torch_function", return_value=False))
        stack.enter_context(mock.patch("torch.backends.cudnn.is_acceptable", return_value=False))
        stack.enter_context(_Functions(places))
        stack.enter_context(_Operations(places))
        yield places
