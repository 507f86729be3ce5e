"""State dicts without PyTorch: both layouts, and files that want more than to be read."""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType

import numpy as np
import pytest

from finetune.backbones.torch_file import LEGACY_MAGIC, read_state_dict
from finetune.errors import WeightsError


class FloatStorage:
    """Stands where PyTorch has its class of this name."""


def _rebuild_tensor_v2(*_):
    """Stands where PyTorch has its function of this name."""


class Numbers:
    """What a state dict points to, outside the pickle."""

    def __init__(self, key, values):
        self.key, self.values = key, np.asarray(values, "<f4")


class Tensor:
    def __init__(self, numbers, offset, shape, strides):
        self.made_of = (numbers, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.made_of


class Runs:
    def __reduce__(self):
        return os.mkdir, (f"{os.environ['HOME']}/was_run",)


@pytest.fixture(autouse=True)
def torch(monkeypatch):
    """Modules of the names that pickles of PyTorch have."""
    for name, module, item in (
        ("torch", "torch", FloatStorage),
        ("torch._utils", "torch._utils", _rebuild_tensor_v2),
    ):
        there = ModuleType(module)
        setattr(there, item.__name__, item)
        monkeypatch.setattr(item, "__module__", module)
        monkeypatch.setitem(sys.modules, name, there)


def pickled(value, legacy):
    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if not isinstance(item, Numbers):
                return None
            return ("storage", FloatStorage, item.key, "cpu", item.values.size, *([None] if legacy else []))

    file = io.BytesIO()
    Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def archive(path, state, numbers, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("net/data.pkl", pickled(state, legacy=False))
        for each in numbers:
            file.writestr(f"net/data/{each.key}", each.values.tobytes())


def legacy(path, state, numbers):
    parts = [pickled(value, legacy=True) for value in (LEGACY_MAGIC, 1001, {"little_endian": True}, state)]
    parts.append(pickled([each.key for each in numbers], legacy=True))
    for each in numbers:
        parts += [struct.pack("<q", each.values.size), each.values.tobytes()]
    path.write_bytes(b"".join(parts))


LAYOUTS = pytest.mark.parametrize("write", [archive, legacy])
ALL = Numbers("0", np.arange(12))
STATE = OrderedDict(
    kernel=Tensor(ALL, 0, (2, 3), (3, 1)),
    turned=Tensor(ALL, 0, (3, 2), (1, 3)),
    part=Tensor(ALL, 6, (2,), (2,)),
    scalar=Tensor(ALL, 5, (), ()),
    none=Tensor(ALL, 0, (0, 4), (4, 1)),
)


@LAYOUTS
def test_tensors_are_cut_out_of_their_storage(write, tmp_path):
    write(tmp_path / "net.pth", STATE, [ALL])
    found = read_state_dict(tmp_path / "net.pth")
    np.testing.assert_array_equal(found["kernel"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found["turned"], found["kernel"].T)
    np.testing.assert_array_equal(found["part"], [6, 8])
    assert (found["scalar"], found["none"].shape) == (5, (0, 4))


@LAYOUTS
def test_a_checkpoint_holds_the_state_dict_beside_other_things(write, tmp_path):
    write(tmp_path / "net.pth", {"epoch": 3, "state_dict": STATE}, [ALL])
    assert set(read_state_dict(tmp_path / "net.pth")) == set(STATE)


@LAYOUTS
def test_what_would_run_is_refused_and_not_run(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "net.pth", {"kernel": Runs()}, [])
    with pytest.raises(
        WeightsError, match=r"asks for posix\.mkdir, which could run code; expected a plain state dict"
    ):
        read_state_dict(tmp_path / "net.pth")
    assert not (tmp_path / "was_run").exists()


@LAYOUTS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (1 << 20, 1 << 20), (0, 0)),
        (0, (2, 7), (7, 1)),
        (11, (2,), (1,)),
        (-3, (2,), (1,)),
        (0, (2,), (-1,)),
    ],
)
def test_tensors_that_reach_beyond_their_storage_are_refused(write, offset, shape, strides, tmp_path):
    write(tmp_path / "net.pth", {"kernel": Tensor(ALL, offset, shape, strides)}, [ALL])
    with pytest.raises(WeightsError, match="damaged, or not a PyTorch state dict"):
        read_state_dict(tmp_path / "net.pth")


def test_numbers_that_unpack_to_more_than_the_file_are_refused(tmp_path):
    many = Numbers("0", np.zeros(1 << 20))
    archive(tmp_path / "net.pth", {"k": Tensor(many, 0, (2,), (1,))}, [many], zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="compressed"):
        read_state_dict(tmp_path / "net.pth")


@LAYOUTS
def test_damaged_files_are_refused_or_read(write, tmp_path):
    write(tmp_path / "net.pth", STATE, [ALL])
    whole, random = (tmp_path / "net.pth").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        content = bytearray(whole[: random.integers(len(whole))] if random.random() < 0.2 else whole)
        for place in random.integers(max(len(content), 1), size=random.integers(1, 4)):
            content[place : place + 1] = bytes([random.integers(256)])
        (tmp_path / "damaged.pth").write_bytes(content)
        try:
            read_state_dict(tmp_path / "damaged.pth")
        except WeightsError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"", "damaged"),
        (b"no pickle", "damaged"),
        (pickle.dumps({"a": 1}), "damaged"),
    ],
)
def test_what_is_no_state_dict_is_refused(content, said, tmp_path):
    if content is not None:
        (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=said):
        read_state_dict(tmp_path / "net.pth")
