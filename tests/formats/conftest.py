"""SavedModels made once for all tests that read them."""

import pytest


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Name of a make -> its folder; nobody may change what lies there."""
    from tests.formats.saved_models import MAKES

    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("made") / name
            MAKES[name](folders[name])
        return folders[name]

    return folder
