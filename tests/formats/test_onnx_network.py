"""An ONNX network measured in parts side by side, against an independent float64 network."""

import os

import pytest
from onnx import helper

from finetune.errors import ModelError
from finetune.formats.onnx_network import SHARES, OnnxNetwork
from tests.formats.onnx_nets import apart_from, images, measured_in_float64, nodes, opened, weights
from tests.formats.recalibrating import recalibrate


@pytest.mark.parametrize("cores", [1, 2, 5, 24])
@pytest.mark.parametrize("batch", [1, 7, 48])
def test_a_batch_in_parts_is_measured_as_a_whole_wherever_its_images_lie(cores, batch, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    net = opened(tmp_path, graph=with_images_on_the_third_axis())
    parts, divided = set(), OnnxNetwork._parts

    def counted(*given):
        found = divided(*given)
        parts.add(len(found))
        return found

    monkeypatch.setattr(OnnxNetwork, "_parts", counted)
    recalibrate(net, images(), batch=batch)
    assert max(parts) == min(cores, batch, SHARES)
    oracle = measured_in_float64(images())
    assert max(apart_from(oracle, site) for site in net.sites) < 2e-5


def with_images_on_the_third_axis():
    """The second site sees (height, channels, images, width)."""
    graph = nodes()
    place = next(number for number, node in enumerate(graph) if node.name == "bn_2")
    graph[place].input[0], graph[place].output[0] = "turned", "normalised"
    there = helper.make_node("Transpose", ["x2"], ["turned"], perm=[2, 1, 0, 3])
    back = helper.make_node("Transpose", ["normalised"], ["y2"], perm=[2, 1, 0, 3])
    return [*graph[:place], there, graph[place], back, *graph[place + 1 :]]


def test_a_site_that_reads_other_channels_than_it_has_is_damaged(tmp_path):
    values = weights()
    values |= {name: values[name][:5] for name in values if name.startswith("bn_2.")}
    graph = nodes()
    place = next(number for number, node in enumerate(graph) if node.name == "bn_2")
    graph[place].input[0] = "shaped"
    # of a shape that is computed onnxruntime knows nothing before it runs
    shape = [
        helper.make_node("Shape", ["x2"], ["shape"]),
        helper.make_node("Reshape", ["x2", "shape"], ["shaped"]),
    ]
    net = opened(tmp_path, values=values, graph=[*graph[:place], *shape, *graph[place:]])
    with pytest.raises(ModelError, match="shaped has 6 channels, the site that reads it 5"):
        recalibrate(net, images())
