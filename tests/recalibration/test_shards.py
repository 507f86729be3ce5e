"""Several processes measure one calibration set: what comes of it is what one process finds."""

import hashlib
import json
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from PIL import Image

from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.moments_file import SavedMoments, load, save
from finetune.errors import DataError, InputError, OutputError
from finetune.recalibration.images import open_folder
from finetune.recalibration.lineage import read_lineage
from finetune.recalibration.meeting import Meeting
from finetune.recalibration.merged_shares import merge_files
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.shard import Shard, shard_in
from finetune.recalibration_run import recalibrate
from finetune.share_run import measure_share
from tests.nets import SIZE, functional_net

COUNT, BATCH = 90, 16
DIGEST = "ab" * 32
TOLD = {"image_size": SIZE, "scale": "none"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A network of three sites in depth, and pictures: five whole batches and one of ten."""
    place, random = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    functional_net().save(place / "net.keras")
    (place / "today").mkdir()
    for number in range(COUNT):
        pixels = random.integers(0, 40 + 2 * number, (SIZE, SIZE, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / "today" / f"{number}.png")
    return place


def settings(method="layerwise", **options):
    # random weights: whether they are worth publishing is not asked here
    return Settings(method=method, batch_size=BATCH, told=TOLD, force="a test", **options)


def measured(place, out, **options):
    """The published model, and its running statistics."""
    images = ImageSource(folder=place / "today")
    done = recalibrate(place / "net.keras", images, out, settings(**options))
    return done, stored(done.version)


def stored(version):
    found = [
        weight for weight in keras.models.load_model(version / "net.keras").weights if "moving" in weight.path
    ]
    assert len(found) == 6
    return [weight.numpy() for weight in found]


def digest_of(place, *shares):
    """Of the pictures that are in these shares."""
    hashes = sorted(
        open_folder(place / "today", keep=lambda at, share=share: share.holds(at, BATCH)).digest
        for share in shares
    )
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def test_shares_that_meet_publish_what_one_process_publishes(place, tmp_path):
    """Two processes, as they would be two machines that see one folder."""
    alone, expected = measured(place, tmp_path / "alone")
    command = (
        f"{sys.executable} -m finetune recalibrate {place}/net.keras --images {place}/today --quiet --json"
    )
    command += f" --image-size {SIZE} --scale none --batch-size {BATCH} --meet {tmp_path}/meet --force test"
    started = [
        subprocess.Popen(
            [*command.split(), "--shard", f"{number}/2", "--out", tmp_path / "together"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (1, 2)
    ]
    first, second = (json.loads(process.communicate(timeout=300)[0]) for process in started)
    assert first["version"] == str(tmp_path / "together" / "1")
    assert second["version"] is None
    for said in (first, second):
        assert said["measurement"]["images"] == COUNT
        assert said["measurement"]["residual"] < 1e-5
    assert first["shifts"] == second["shifts"]
    for one, other in zip(stored(tmp_path / "together" / "1"), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)
    # the record has the pictures of both
    lineage = read_lineage(tmp_path / "together" / "1")
    assert lineage.images.digest == digest_of(place, Shard(1, 2), Shard(2, 2))
    assert read_lineage(alone.version).images.digest == open_folder(place / "today").digest


def test_shares_measured_apart_are_the_moments_of_the_whole(place, tmp_path):
    """To 1e-12, and put in force they are what one process stores."""
    images = ImageSource(folder=place / "today")

    def part(number, of):
        file = tmp_path / f"{number}-{of}.npz"
        measure_share(place / "net.keras", images, file, settings("one_pass", shard=Shard(number, of)))
        return file

    merged = merge_files([part(3, 3), part(1, 3), part(2, 3)], tmp_path / "merged.npz")
    whole = load(part(1, 1))
    assert merged.images == whole.images == COUNT
    for path, moments in whole.moments.items():
        np.testing.assert_allclose(merged.moments[path].mean, moments.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(merged.moments[path].variance, moments.variance, rtol=1e-12)
    _, expected = measured(place, tmp_path / "alone", method="one_pass")
    done, found = measured(
        place, tmp_path / "merged", method="one_pass", merged=tmp_path / "merged.npz", samples=20
    )
    assert done.measurement.images == COUNT
    shares = [Shard(number, 3) for number in (1, 2, 3)]
    assert read_lineage(done.version).images.digest == digest_of(place, *shares)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_every_image_is_in_one_share_and_batches_stay_whole():
    for of in (1, 2, 5):
        held = [[Shard(number, of).holds(place, 16) for place in range(100)] for number in range(1, of + 1)]
        assert np.array_equal(np.sum(held, axis=0), np.ones(100))
        batches = np.array(held)[:, :96].reshape(of, 6, 16)
        assert np.array_equal(batches.all(axis=2), batches.any(axis=2))


@pytest.mark.parametrize("text", ["0/4", "5/4", "2", "a/b", "1/0", "-1/2", ""])
def test_a_share_that_is_none_is_one_line(text):
    with pytest.raises(InputError, match=rf"--shard {text}: expected I/N"):
        shard_in(text)
    assert shard_in("2/4") == Shard(2, 4)


def some_moments(offset=0.0):
    return [PopulationMoments(4.0, np.ones(2) + offset, np.ones(2))]


def test_a_share_that_does_not_come_is_named(tmp_path):
    alone = Meeting(tmp_path, Shard(1, 3), "x", DIGEST, patience=0.1)
    with pytest.raises(DataError, match=r"share 2 of 3 has not come to cut 0 within 0\.1 s"):
        alone.combine(some_moments())


def test_what_an_earlier_measurement_left_is_not_taken(tmp_path):
    Meeting(tmp_path, Shard(1, 1), "x", DIGEST).combine(some_moments())
    with pytest.raises(OutputError, match="is there already, from an earlier measurement"):
        Meeting(tmp_path, Shard(1, 1), "x", DIGEST).combine(some_moments())


def test_shares_of_different_settings_do_not_mix(tmp_path):
    outcomes = []

    def share(number, identity):
        try:
            outcomes.append(
                Meeting(tmp_path, Shard(number, 2), identity, DIGEST, patience=20).combine(some_moments())
            )
        except DataError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=share, args=each) for each in ((1, "one"), (2, "another"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["other models, images or settings" in str(outcome) for outcome in outcomes] == [True, True]


def test_what_cannot_be_shared_is_refused(place, tmp_path):
    images = ImageSource(folder=place / "today")
    with pytest.raises(InputError, match="layerwise statistics have to meet"):
        measure_share(place / "net.keras", images, tmp_path / "x.npz", settings(shard=Shard(1, 2)))
    with pytest.raises(InputError, match="--shard 1/2: expected --meet FOLDER"):
        measured(place, tmp_path / "out", shard=Shard(1, 2))
    with pytest.raises(DataError, match="no batch is left for this share of 90 pictures; take fewer shares"):
        measured(place, tmp_path / "out", shard=Shard(9, 9), meet=tmp_path / "meet")
    with pytest.raises(InputError, match="merged shares are one_pass statistics"):
        settings(merged=tmp_path / "x.npz")
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_shares_are_named_all_at_once(place, tmp_path):
    images = ImageSource(folder=place / "today")
    for name in ("one.npz", "again.npz"):
        measure_share(place / "net.keras", images, tmp_path / name, settings("one_pass", shard=Shard(1, 2)))
    (tmp_path / "other.npz").write_bytes(b"no moments")
    parts = [tmp_path / name for name in ("one.npz", "again.npz", "other.npz", "none.npz")]
    with pytest.raises(DataError) as refused:
        merge_files(parts, tmp_path / "merged.npz")
    said = [problem.removeprefix(f"{tmp_path}/") for problem in refused.value.problems]
    assert said[0].startswith("again.npz: holds the same share as ")
    assert said[1].startswith("other.npz: not a file of population moments")
    assert said[2].startswith("none.npz: there is no such file")
    assert not (tmp_path / "merged.npz").exists()
    save(tmp_path / "small.npz", SavedMoments({"bn": some_moments()[0]}, 4))
    with pytest.raises(DataError, match="moments of another network: 1 sites, the model has 3"):
        measured(place, tmp_path / "out", method="one_pass", merged=tmp_path / "small.npz")
