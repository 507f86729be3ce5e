"""Batches come back as they went in, from memory or from disk, and the budget holds."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from finetune.batchnorm.activations import ALIGNMENT, Activations, Budget, ReadBack


def batches(dtype=np.float32):
    random = np.random.default_rng(0)
    return [
        [random.normal(size=(n, 3)).astype(dtype), random.normal(size=(n, 2, 2)).astype(dtype)]
        for n in (5, 2, 7)
    ]


@pytest.mark.parametrize("memory", [0, 100, 10**6])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, tf.bfloat16.as_numpy_dtype])
def test_what_was_put_comes_back_in_order_bit_by_bit(memory, dtype):
    put = batches(dtype)
    kept = Activations(Budget(memory))
    for batch in put:
        kept.put(batch)
    for _ in range(2):
        got = [[np.asarray(t) for t in batch] for batch in kept]
        assert [[t.tobytes() for t in b] for b in got] == [[t.tobytes() for t in b] for b in put]
        assert [[(t.shape, t.dtype) for t in b] for b in got] == [
            [(t.shape, t.dtype) for t in b] for b in put
        ]
    drained = [[np.asarray(t) for t in batch] for batch in kept.drain()]
    assert [[t.tobytes() for t in b] for b in drained] == [[t.tobytes() for t in b] for b in put]


@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=8),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_what_was_on_disk_begins_where_a_backend_takes_memory_as_it_is(sizes, dtype):
    kept = Activations(Budget(0))
    for size in sizes:
        kept.put([np.full(size, size, dtype)])
    for size, [values] in zip(sizes, kept.drain(), strict=True):
        assert isinstance(values, ReadBack)
        assert values.aligned
        assert values.ctypes.data % ALIGNMENT == 0
        assert values.tolist() == [size] * size
        assert not values[1:].aligned


def test_memory_is_never_above_the_budget_and_all_given_back():
    budget = Budget(150)
    kept = Activations(budget)
    for batch in batches():
        kept.put(batch)
    assert 0 < budget.peak <= 150
    sizes = sum(t.nbytes for batch in batches() for t in batch)
    assert budget.held + budget.spilled == sizes
    list(kept.drain())
    assert budget.held == 0


def test_draining_makes_room_as_it_goes():
    budget = Budget(10**6)
    kept, held = Activations(budget), []
    for batch in batches():
        kept.put(batch)
    for _ in kept.drain():
        held.append(budget.held)
    assert held == sorted(held, reverse=True)
    assert held[-1] < held[0]


def test_closing_frees_memory_and_file():
    budget = Budget(100)
    kept = Activations(budget)
    for batch in batches():
        kept.put(batch)
    kept.close()
    assert budget.held == 0
    assert list(kept) == []


def test_tensors_of_the_backend_stay_what_they_are_in_memory():
    kept, tensor = Activations(Budget(10**6)), tf.constant([[1.0, 2.0]])
    kept.put([tensor])
    assert next(iter(kept))[0] is tensor
