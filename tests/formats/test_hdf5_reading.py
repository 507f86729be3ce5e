"""HDF5 files that the library hangs or crashes on are refused in words; sound ones pass, whatever is in them."""

import io
import signal

import h5py
import numpy as np
import pytest

from finetune.errors import ModelError
from finetune.formats import hdf5_reading
from finetune.formats.hdf5_reading import refuse_endless
from finetune.formats.opening import open_model
from tests.formats.damaging import damage, make

ENDLESS = 49
"""Seed of the damage to a small .h5 file (a variable-length attribute) that HDF5 1.14 reads for ever."""


def content():
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5.attrs["names"] = np.array(["a", "b"], dtype=h5py.string_dtype())
        h5.create_dataset("layer/weights", data=np.arange(1000.0), chunks=(10,), compression="gzip")
    return file.getvalue()


def test_a_sound_file_passes(tmp_path):
    refuse_endless(content(), tmp_path / "model.h5")


def test_what_the_library_refuses_itself_is_left_to_the_next_reader(tmp_path):
    refuse_endless(content()[:500], tmp_path / "model.h5")


def test_a_reader_that_never_returns_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_reading, "READ_ALL", "while True: pass")
    monkeypatch.setattr(hdf5_reading, "SECONDS", 0.2)
    with pytest.raises(ModelError, match=r"model\.h5: damaged: reading it does not end; restore it"):
        refuse_endless(content(), tmp_path / "model.h5")


def test_a_reader_that_crashes_takes_nothing_along(tmp_path, monkeypatch):
    crash = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    monkeypatch.setattr(hdf5_reading, "READ_ALL", crash)
    with pytest.raises(ModelError, match=r"ends the process \(signal 11\); restore it"):
        refuse_endless(content(), tmp_path / "model.h5")


def test_a_file_that_promises_more_than_memory_holds_is_refused_before_it_is_taken(tmp_path):
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        # 16 GB of nothing in a file of some kB
        h5.create_dataset("huge", shape=(2**31,), dtype="f8", chunks=(1024,))
    with pytest.raises(ModelError, match=r"model\.h5: damaged: reading it takes more memory .*; restore it"):
        refuse_endless(file.getvalue(), tmp_path / "model.h5")


def test_the_file_that_the_library_reads_for_ever_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_reading, "SECONDS", 5)
    path = make(".h5", tmp_path / "whole")
    damage(path, ENDLESS)
    with pytest.raises(ModelError, match=r"model\.h5: damaged"):
        open_model(path)
