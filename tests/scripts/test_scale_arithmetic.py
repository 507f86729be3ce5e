"""The arithmetic of docs/scale.md, against a ring that is played through message by message."""

from pathlib import Path

import numpy as np
import pytest

from scripts import scale_arithmetic
from scripts.scale_arithmetic import Network, networks, seconds, sent

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"


def ring(vectors):
    """All-reduce of one vector a worker: the sums that each holds at the end, bytes that each sent, and rounds."""
    count = len(vectors)
    held = [list(np.array_split(vector.astype(np.float64), count)) for vector in vectors]
    bytes_sent, rounds = [0] * count, 0
    for adding in (True, False):
        for turn in range(count - 1):
            places = [(worker - turn + (not adding)) % count for worker in range(count)]
            messages = [held[worker][places[worker]].copy() for worker in range(count)]
            for worker, message in enumerate(messages):
                bytes_sent[worker] += message.nbytes
                target = held[(worker + 1) % count]
                place = places[worker]
                target[place] = target[place] + message if adding else message
            rounds += 1
    return [np.concatenate(parts) for parts in held], bytes_sent, rounds


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_a_ring_sends_what_the_formula_says_in_as_many_rounds(workers):
    random = np.random.default_rng(0)
    vectors = [random.normal(size=240) for _ in range(workers)]
    sums, bytes_sent, rounds = ring(vectors)
    for each in sums:
        np.testing.assert_allclose(each, np.sum(vectors, axis=0), rtol=1e-12)
    assert bytes_sent == [pytest.approx(sent(vectors[0].nbytes, workers))] * workers
    # no link at all: what is left are the rounds of three sums
    assert seconds(0, 3, workers, (1.0, 1.0)) == 3 * rounds


def test_a_network_exchanges_what_its_layers_hold():
    """Two convolutions without bias in front of a site each, as 3 x 3 x 3 -> 4 and 3 x 3 x 4 -> 6."""
    kernels, channels = 3 * 3 * 3 * 4 + 3 * 3 * 4 * 6, 4 + 6
    network = Network("two", 2, channels, kernels + 4 * channels)
    assert network.gradients == 4 * (kernels + 2 * channels)
    assert network.synchronised == 4 * (2 + 2) * channels
    assert network.moments == sum(np.r_[1.0, np.zeros(c), np.zeros(c)].nbytes for c in (4, 6))
    weights = 4 * (kernels + 4 * channels)
    assert network.checkpoint(2) == 3 * weights + 2 * network.gradients


def test_the_page_has_the_tables_that_the_script_prints(capsys):
    scale_arithmetic.main()
    tables = [table for table in capsys.readouterr().out.split("\n\n") if table.strip()]
    assert len(tables) == 4
    page = PAGE.read_text()
    for table in tables:
        assert table.strip() in page
    assert all(network.name in tables[0] for network in networks())
