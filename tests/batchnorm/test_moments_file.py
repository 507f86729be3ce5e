"""Moments in files: what is read is what was written, and shares merge to what one machine measures."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.moments_file import SavedMoments, load, merge, save
from finetune.batchnorm.population import input_moments, one_pass
from tests.nets import photographs


def measured(values, images):
    return SavedMoments(
        {path: PopulationMoments.of_batch(len(x), x.mean(0), x.var(0)) for path, x in values.items()},
        images,
    )


def two_sites(count, seed=0, channels=3):
    random = np.random.default_rng(seed)
    return {
        "net/bn_1": random.normal(4, 0.3, (count * 5, 2)),
        "net/bn_2": random.normal(size=(count, channels)),
    }


def test_what_is_read_is_what_was_written_to_the_bit(tmp_path):
    saved = replace(measured(two_sites(7), 7), digests=("cd" * 32, "ab" * 32))
    save(tmp_path / "part.npz", saved)
    again = load(tmp_path / "part.npz")
    assert (list(again.moments), again.images) == (["net/bn_1", "net/bn_2"], 7)
    assert again.digests == saved.digests
    for path, moments in saved.moments.items():
        assert again.moments[path].count == moments.count
        assert again.moments[path].mean.tobytes() == moments.mean.tobytes()
        assert again.moments[path].m2.tobytes() == moments.m2.tobytes()


def test_a_digest_that_is_no_hash_is_refused(tmp_path):
    """It would stand in the record of a recalibration."""
    save(tmp_path / "part.npz", replace(measured(two_sites(7), 7), digests=("ab" * 32, "<script>")))
    with pytest.raises(ValueError, match=r"expected 64 hexadecimal digits each, found '<script>'"):
        load(tmp_path / "part.npz")


@given(cuts=st.lists(st.integers(1, 39), min_size=1, max_size=5, unique=True), turn=st.integers(0, 5))
def test_shares_in_any_order_merge_to_the_moments_of_all_values(cuts, turn):
    values = two_sites(40)
    parts = [
        measured({"net/bn_1": first, "net/bn_2": second}, len(second))
        for first, second in zip(
            np.split(values["net/bn_1"], [5 * c for c in sorted(cuts)]),
            np.split(values["net/bn_2"], sorted(cuts)),
            strict=True,
        )
    ]
    merged = merge(parts[turn % len(parts) :] + parts[: turn % len(parts)])
    assert merged.images == 40
    for path, x in values.items():
        np.testing.assert_allclose(merged.moments[path].mean, x.mean(0), rtol=1e-12)
        np.testing.assert_allclose(merged.moments[path].variance, x.var(0), rtol=1e-12)


@pytest.mark.parametrize("measure", [one_pass, input_moments])
def test_shards_of_a_live_network_merge_to_what_one_process_measures(model, sites, measure, tmp_path):
    batches = np.split(photographs(48), 3)
    for number, shard in enumerate((batches[:1], batches[1:])):
        moments, images = measure(model, sites, shard)
        paths = [site.path for site in sites]
        save(tmp_path / f"part-{number}.npz", SavedMoments(dict(zip(paths, moments, strict=True)), images))
    merged = merge(load(path) for path in sorted(tmp_path.glob("part-*.npz")))
    alone, images = measure(model, sites, batches)
    assert merged.images == images == 48
    for found, expected in zip(merged.moments.values(), alone, strict=True):
        assert found.count == expected.count
        np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-12)


def test_shares_of_different_networks_are_refused_with_the_site():
    with pytest.raises(ValueError, match=r"share 2 .* differs from those before it at net/bn_2"):
        merge([measured(two_sites(7), 7), measured(two_sites(7, channels=4), 7)])
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([])


@pytest.mark.parametrize("damage", ["another", "cut", "empty", "pickled", "shapes"])
def test_another_file_or_a_damaged_one_is_named(tmp_path, damage):
    path = tmp_path / "part.npz"
    save(path, measured(two_sites(7), 7))
    whole = path.read_bytes()
    if damage == "another":
        np.savez(path, weights=np.zeros(3))
    elif damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pickled":
        np.savez(path, paths=np.array([{"a": 1}], dtype=object))
    else:
        parts = {"paths": np.array(["a"]), "images": np.array(1), "counts": np.ones(1)}
        np.savez(path, **parts, mean_0=np.zeros(2), m2_0=np.zeros(3))
    with pytest.raises(ValueError, match=r"part\.npz: not a file of population moments, or a damaged one"):
        load(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere.npz")


def test_an_archive_that_points_out_of_itself_is_no_os_error(tmp_path):
    """Whoever reads takes an OSError for a file that is not there; found by scripts/fuzz.py."""
    path = tmp_path / "part.npz"
    save(path, measured(two_sites(7), 7))
    content = bytearray(path.read_bytes())
    # the end of a zip archive says where its directory begins; too far on, members begin before the file
    directory = int.from_bytes(content[-6:-2], "little")
    content[-6:-2] = (directory + 10_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a damaged one"):
        load(path)
