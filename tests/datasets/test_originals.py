"""What images are before they are resized, told without reading all of them."""

import numpy as np
import pytest
from PIL import Image

from finetune.datasets import Arrays, ImageFolder, ImageTable, TensorFlowDatasets
from finetune.datasets.array_file import save_arrays
from finetune.datasets.originals import Originals, of_shape, originals_of


@pytest.fixture
def photos(tmp_path):
    """Grey and coloured pictures of 20, 30 and 50 px at the shorter side, five of each size."""
    for number in range(15):
        side = (20, 30, 50)[number % 3]
        size = (side, side + 10) if number % 2 else (side + 10, side)
        place = tmp_path / "photos" / ("one" if number < 8 else "two")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("L" if side == 50 else "RGB", size).save(place / f"{number}.png")
    return tmp_path / "photos"


EXPECTED = Originals(15, 30, 20, 50, 5)


def test_of_a_folder_and_of_a_table_of_it(photos):
    assert ImageFolder(path=str(photos)).originals() == EXPECTED
    lines = [f"{file.relative_to(photos)},{file.parent.name}" for file in sorted(photos.rglob("*.png"))]
    (photos / "all.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    assert ImageTable(path=str(photos / "all.csv")).originals() == EXPECTED


def test_of_arrays_and_of_a_dataset_whose_images_are_alike(tmp_path):
    pair = np.zeros((9, 12, 7), np.uint8), np.arange(9) % 2
    path = save_arrays(tmp_path / "x.npz", pair)
    assert Arrays(path=str(path)).originals() == Originals(9, 7, 7, 7, 9)
    assert TensorFlowDatasets(name="fashion_shift").originals().smallest == 28


def test_in_words():
    assert EXPECTED.words == "20 to 50 px at the shorter side, half of them 30 or more, 5 of them grey"
    assert of_shape(3, 28, 40, 1).words == "28 px at the shorter side, all of them grey"
    assert of_shape(3, 28, 40, 3).words == "28 px at the shorter side"


def test_files_that_cannot_be_opened_are_named(photos, tmp_path):
    from finetune.datasets.folder_scan import scan_classes

    (photos / "one" / "broken.png").write_bytes(b"x")
    found, closed = originals_of(scan_classes(photos, photos).pictures)
    assert (found, closed) == (EXPECTED, ("one/broken.png",))
    assert originals_of([]) == (None, ())
