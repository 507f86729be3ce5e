"""A damaged model is refused in words, or means what its own library makes of it; never a traceback.

scripts/damage_formats.py does the same with as many copies as are wanted.
"""

import pytest

from tests.formats.damaging import FORMATS, make, outcome, pictures

COPIES = 12


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("images") / "pictures")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    made = {}

    def model(name):
        if name not in made:
            made[name] = make(name, folder / str(len(made)))
        return made[name]

    return model


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(COPIES))
def test_a_damaged_copy_is_refused_or_means_what_its_own_library_makes_of_it(
    name, seed, whole, images, tmp_path
):
    assert outcome(whole(name), seed, images, tmp_path) in ("refused", "correct")


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_copy_is_recalibrated(name, whole, images, tmp_path):
    assert outcome(whole(name), None, images, tmp_path) == "correct"
