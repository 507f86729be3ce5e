"""The recipe that `finetune init` writes for a folder of pictures."""

import numpy as np
import pytest
from PIL import Image

from finetune.datasets.folder_look import look_at_folder
from finetune.errors import DataError, OutputError
from finetune.first_recipe import LEAST, MOST, choose, first_recipe, write_first_recipe
from finetune.recipe_file import load_recipe
from tests.datasets.pictures import two_classes, write_folder


def photos(root, cats=12, dogs=30, size=(300, 240)):
    """Noise in colour, one folder a class."""
    random = np.random.default_rng(0)
    for name, count in (("cat", cats), ("dog", dogs)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.jpg")
    return root


def test_what_lies_there_is_seen(tmp_path):
    root = photos(tmp_path / "photos")
    (root / "cat" / "broken.png").write_bytes(b"no picture")
    (root / "cat" / "notes.txt").write_text("a file")
    look = look_at_folder(root)
    assert look.counts == {"cat": 13, "dog": 30}
    assert (look.smallest, look.side, look.largest, look.grey) == (240, 240, 240, 0)
    assert (look.unreadable, look.others) == (("cat/broken.png",), ("cat/notes.txt",))
    assert (look.divided, look.trained) == (False, round(0.8 * 43))


def test_folders_that_divide_are_left_to_do_it(tmp_path):
    for split, cats in (("train", 20), ("validation", 5), ("test", 5)):
        two_classes(tmp_path / split, cats, 7)
    look = look_at_folder(tmp_path)
    assert (look.counts, look.trained, look.divided, look.grey) == ({"cat": 30, "dog": 21}, 27, True, 51)


def test_the_recipe_loads_and_says_what_was_seen(tmp_path):
    root = photos(tmp_path / 'my "photos"')
    (root / "cat" / "broken.png").write_bytes(b"no picture")
    file = tmp_path / "mine.yaml"
    write_first_recipe(look_at_folder(root), file)
    recipe = load_recipe(file)
    assert recipe.data.path == str(root)
    assert (recipe.backbone.source, recipe.policy.policy) == ("efficientnet_lite", "freeze")
    assert (recipe.data.class_weights, recipe.data.skip_corrupt) == ("balanced", True)
    text = file.read_text()
    assert "30 of dog, 13 of cat" in text
    assert "cat/broken.png cannot be opened" in text


@pytest.mark.parametrize(
    ("cats", "dogs", "side", "expected"),
    [
        (400, 400, 300, (224, 32, 8, False)),
        (100, 150, 150, (128, 16, 12, False)),
        (20, 40, 40, (64, 8, 25, True)),
        (9000, 100, 224, (224, 32, 4, True)),
        (6, 7, 500, (224, 8, 30, False)),
    ],
)
def test_pictures_decide_size_batch_and_epochs(cats, dogs, side, expected, tmp_path):
    look = look_at_folder(two_classes(tmp_path, 2, 2))
    counts = {"cat": cats, "dog": dogs}
    seen = type(look)(**vars(look) | {"counts": counts, "trained": round(0.8 * (cats + dogs)), "side": side})
    choice = choose(seen)
    assert (choice.image_size, choice.batch_size, choice.epochs, choice.balanced) == expected
    assert LEAST <= choice.epochs <= MOST


def test_a_name_cannot_end_the_comment_it_stands_in(tmp_path):
    root = write_folder(tmp_path / "photos", {"a/0.png": 0, "b/0.png": 1, "b/1.png": 2, "b/2.png": 3})
    (root / "a").rename(root / "a\nbatchnorm: {policy: retrain}")
    recipe = first_recipe(look_at_folder(root), "mine.yaml")
    assert "\nbatchnorm: {policy: retrain}" not in recipe


def test_nothing_is_overwritten(tmp_path):
    look, file = look_at_folder(two_classes(tmp_path / "photos")), tmp_path / "mine.yaml"
    file.write_text("mine")
    with pytest.raises(
        OutputError, match=r"mine\.yaml: exists already; name another with --out, or remove it"
    ):
        write_first_recipe(look, file)
    assert file.read_text() == "mine"


def test_all_problems_of_a_folder_are_told_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as refused:
        look_at_folder(tmp_path)
    assert len(refused.value.problems) == 2


def test_a_folder_of_which_nothing_opens_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"none of the 2 pictures in .* can be opened"):
        look_at_folder(tmp_path)
