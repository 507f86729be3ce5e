"""Sessions of onnxruntime: the memory of one serves the next, and a second batch takes no more."""

import gc
import resource

import numpy as np
import pytest
from onnx import TensorProto, helper

from finetune.formats.onnx_session import session

BYTES = 64_000_000
PAGES = BYTES // resource.getpagesize()


def wide() -> object:
    """A session whose tensors in between are `BYTES` each, and which hands on one number."""
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "shape"], ["wide"]),
            helper.make_node("Neg", ["wide"], ["negative"]),
            helper.make_node("Exp", ["negative"], ["grown"]),
            helper.make_node("ReduceMax", ["grown"], ["largest"], keepdims=0),
        ],
        "wide",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1]),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("largest", TensorProto.FLOAT, [])],
    )
    return session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def pages_touched(run) -> int:
    """First touches of a page by this process while something runs."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def batch(piece) -> None:
    fed = {"x": np.full((1, 1), -2, np.float32), "shape": np.array([4, BYTES // 16])}
    (largest,) = piece.run(None, fed)
    assert largest == pytest.approx(np.exp(2.0))


def test_the_memory_that_one_session_has_touched_serves_the_next():
    first = wide()
    batch(first)
    del first
    second = wide()
    assert pages_touched(lambda: batch(second)) < PAGES / 4


def test_the_second_batch_of_a_size_touches_no_memory_of_its_own():
    piece = wide()
    batch(piece)
    assert pages_touched(lambda: batch(piece)) < PAGES / 4
