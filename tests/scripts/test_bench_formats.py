"""The table of what a measurement costs in every format: its arithmetic, and that nothing is left behind."""

import sys
from pathlib import Path

import numpy as np
import pytest

from finetune.formats.opening import open_model
from tests.scripts.test_measure_formats import small_network


@pytest.fixture(scope="module")
def bench():
    """The script that is tested, as a module."""
    folder = str(Path(__file__).resolve().parents[2] / "scripts")
    sys.path.insert(0, folder)
    import bench_formats

    sys.path.remove(folder)
    return bench_formats


def test_ratios_are_of_the_same_round_and_an_image_costs_what_is_beyond_one_batch(bench):
    rounds = [
        (((6.0, 12.0), (2.0, 3.0)), ((3.0, 6.0), (1.0, 1.0))),
        (((9.0, 9.0), (5.0, 5.0)), ((3.0, 3.0), (1.0, 1.0))),
        (((30.0, 4.0), (10.0, 3.0)), ((10.0, 4.0), (5.0, 3.5))),
    ]
    assert bench.ratio(rounds, 0, without_one=False) == "3.00 x (2.00 to 3.00)"
    assert bench.ratio(rounds, 1, without_one=False) == "2.00 x (1.00 to 3.00)"
    assert bench.ratio(rounds, 0, without_one=True) == "2.00 x (2.00 to 4.00)"


def test_every_side_has_a_line_and_the_model_keeps_its_statistics(bench, monkeypatch, capsys):
    opened = []

    def kept(path):
        opened.append(open_model(path))
        return opened[-1]

    net = small_network()
    monkeypatch.setattr(bench, "open_model", kept)
    monkeypatch.setitem(bench.NETWORKS, "bundled", lambda: net)
    typed = ["--formats", "ONNX", "--images", "8", "--batch", "4", "--rounds", "1", "--markdown"]
    monkeypatch.setattr(sys, "argv", ["bench_formats.py", *typed])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[2] for line in lines[2:5]] == ["unmeasured", "layerwise", "one_pass"]
    (model,) = opened
    for number, site in enumerate(model.sites, 1):
        _, _, mean, variance = net.get_layer(f"site_{number}").get_weights()
        np.testing.assert_array_equal(site.statistics.mean, mean)
        np.testing.assert_array_equal(site.statistics.variance, variance)


def test_the_unmeasured_side_runs_up_to_the_last_site(bench, tmp_path, monkeypatch):
    net = small_network()
    model = open_model(bench.trained_formats.FORMATS["ONNX"](net, tmp_path))
    network, ran = model.network(), []

    class Watched:
        dataflow = network.dataflow

        def segment(self, feeds, keeps, sites, *, precise):
            piece = network.segment(feeds, keeps, sites, precise=precise)
            return lambda tensors: ran.append(piece(tensors))

    monkeypatch.setattr(model, "network", Watched)
    batches = bench.fed(model, np.zeros((4, *net.input_shape[1:]), np.uint8), 2)
    bench.unmeasured(model, batches)
    assert len(ran) == 2
    for parts, moments in ran:
        assert not moments
        assert sum(len(last) for last in parts) == 2
        assert {last.shape[1] for last in parts} == {len(model.sites[-1].statistics.mean)}


def test_one_batch_says_that_two_are_needed(bench, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_formats.py", "--images", "100"])
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert stopped.value.code == 2
    assert "at least two batches of 64 are needed" in capsys.readouterr().err
