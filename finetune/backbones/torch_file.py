"""Arrays out of a PyTorch state dict file, without PyTorch, and without running anything that the file asks for.

A state dict is a pickle, which can call any function there is. This reader knows the six names that a state dict needs
and refuses all others; sizes are checked against what the file holds before anything is made of them.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import WeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What files of PyTorch before 1.6 begin with; newer ones are zip archives."""


def read_state_dict(path: Path) -> dict[str, NDArray]:
    """Tensors by name. Raises WeightsError where the file is missing, damaged, no state dict, or asks for more."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path}: {error.strerror}; expected a PyTorch state dict (.pth or .pt)"
        ) from error
    try:
        read = _from_archive if zipfile.is_zipfile(io.BytesIO(content)) else _from_legacy
        return _tensors(read(content))
    except _Refused as error:
        raise WeightsError(
            f"{path}: {error}; expected a plain state dict, as model.state_dict() gives"
        ) from error
    # what a damaged pickle can raise is not bounded by its documentation
    except Exception as error:
        raise WeightsError(
            f"{path}: damaged, or not a PyTorch state dict ({str(error) or type(error).__name__}); fetch it again"
        ) from error


class _Refused(Exception):
    """The file is whole and asks for something that no state dict needs."""


@dataclass
class _Storage:
    """Numbers that tensors are cut from. data: None until the file comes to them."""

    type: str
    count: int
    data: NDArray | None = None

    def fill(self, content: bytes) -> None:
        import numpy as np

        self.data = np.frombuffer(content, self.type)
        if self.data.size != self.count:
            raise ValueError(f"a storage of {self.count} numbers holds {self.data.size}")


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> NDArray:
        import numpy as np

        data = self.storage.data
        if data is None or len(self.shape) != len(self.strides) or min((0, *self.shape, *self.strides)) < 0:
            raise ValueError("a tensor without numbers, or of no shape")
        if math.prod(self.shape) > data.size:
            # broadcasting would make gigabytes out of one number
            raise ValueError("a tensor larger than its storage")
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and not 0 <= self.offset <= last < data.size:
            raise ValueError("a tensor that reaches beyond its storage")
        steps = [stride * data.itemsize for stride in self.strides]
        return np.array(np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps))


def _tensor(storage: _Storage, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


@dataclass(frozen=True)
class _StorageType:
    type: str


KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _StorageType(kind) for name, kind in TYPES.items()},
}


# the C unpickler makes as large a table as a number in the file tells it to
class _Unpickler(pickle._Unpickler):
    def __init__(self, file: io.BytesIO, storage: Callable[[Any], _Storage]) -> None:
        super().__init__(file, encoding="latin-1")
        self._storage = storage

    def persistent_load(self, pid: Any) -> _Storage:
        return self._storage(pid)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise _Refused(f"asks for {module}.{name}, which could run code")
        return KNOWN[module, name]


def _no_storage(_: Any) -> _Storage:
    raise ValueError("a storage where none belongs")


def _from_archive(content: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        [pickled] = [name for name in archive.namelist() if name.endswith("data.pkl")]
        folder, found = pickled.removesuffix("data.pkl"), dict[str, _Storage]()

        def storage(address: Sequence[Any]) -> _Storage:
            _, kind, key, _, count = address[:5]
            if key not in found:
                entry = archive.getinfo(f"{folder}data/{key}")
                # PyTorch does not compress, so what is larger unpacked is none of its files
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError("compressed numbers")
                found[key] = _Storage(kind.type, count)
                found[key].fill(archive.read(entry))
            return found[key]

        # the pickle itself may be as long as the file, and no longer
        if archive.getinfo(pickled).file_size > len(content):
            raise ValueError("a compressed pickle")
        return _Unpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _from_legacy(content: bytes) -> Any:
    """Magic number, protocol, machine, the state dict, keys of the storages, and the numbers of each."""
    file, found = io.BytesIO(content), dict[str, _Storage]()

    def storage(address: Sequence[Any]) -> _Storage:
        _, kind, key, _, count, view = address
        if view is not None:
            raise ValueError("a view of a storage")
        return found.setdefault(key, _Storage(kind.type, count))

    def plain() -> Any:
        return _Unpickler(file, _no_storage).load()

    if plain() != LEGACY_MAGIC:
        raise ValueError("another kind of pickle")
    plain(), plain()
    state = _Unpickler(file, storage).load()
    for key in plain():
        (count,) = struct.unpack("<q", file.read(8))
        if count != found[key].count:
            raise ValueError("numbers of another count than announced")
        import numpy as np

        found[key].fill(file.read(count * np.dtype(found[key].type).itemsize))
    return state


def _tensors(state: Any) -> dict[str, NDArray]:
    """Of a state dict, or of a checkpoint that holds one as `state_dict`."""
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not any(isinstance(value, _Tensor) for value in state.values()):
        raise _Refused("holds no tensors by name")
    return {str(name): value.array() for name, value in state.items() if isinstance(value, _Tensor)}
