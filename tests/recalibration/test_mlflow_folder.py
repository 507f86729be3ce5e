"""The model inside an MLflow folder is found by its flavour, and another one takes its place."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from finetune.batchnorm.moments_file import REFERENCE
from finetune.errors import ModelError
from finetune.recalibration.mlflow_folder import model_inside, put_back, take_out


def mlflow_model(folder: Path, flavours: dict, files: dict[str, str]) -> Path:
    for name, text in {"requirements.txt": "keras", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": {}, **flavours}}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


KERAS = ({"keras": {"data": "data"}}, {"data/model.keras": "old", "data/keras_module.txt": "keras"})
EXPORTED = ({"keras": {"data": "data"}}, {"data/model/saved_model.pb": "old"})
H5 = ({"tensorflow": {"data": "data"}}, {"data/model.h5": "old"})
SAVED = ({"tensorflow": {"saved_model_dir": "tfmodel"}}, {"tfmodel/saved_model.pb": "old"})
ONNX = ({"onnx": {"data": "model.onnx"}}, {"model.onnx": ""})
PLACES = ["data/model.keras", "data/model", "data/model.h5", "tfmodel", "model.onnx"]


@pytest.mark.parametrize(
    ("made", "place"), list(zip([KERAS, EXPORTED, H5, SAVED, ONNX], PLACES, strict=True))
)
def test_the_flavour_says_where_the_model_lies(tmp_path, made, place):
    assert model_inside(mlflow_model(tmp_path, *made)) == Path(place)


@pytest.mark.parametrize(
    ("flavours", "said"),
    [
        (
            {"sklearn": {}},
            "expected a model of the flavour keras, tensorflow or onnx, found python_function, skl",
        ),
        ({"keras": {"data": "data"}}, "found keras, python_function"),
        ({"onnx": {"data": "../../outside.onnx"}}, "found onnx"),
        ({"onnx": {}}, "holds no readable MLmodel file"),
    ],
)
def test_other_flavours_are_refused_in_one_line(tmp_path, flavours, said):
    (tmp_path / "outside.onnx").write_text("")
    with pytest.raises(ModelError, match=said) as error:
        model_inside(mlflow_model(tmp_path / "a" / "b", flavours, {}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "flavors: [", "- 1"])
def test_a_damaged_description_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "MLmodel").write_text(text)
    with pytest.raises(ModelError, match="expected an MLflow model"):
        model_inside(tmp_path)


@pytest.mark.parametrize("made", [KERAS, SAVED])
def test_it_is_taken_out_with_its_companions_and_put_back_with_new_ones(tmp_path, made):
    beside = {REFERENCE: "reference", "provenance.json": "{}"}
    folder = mlflow_model(tmp_path / "folder", made[0], {**made[1], **beside})
    before = contents(folder)
    model = take_out(folder, tmp_path / "out")
    assert contents(folder) == before
    found = model if model.is_dir() else model.parent
    assert {b"old", b"reference", b"{}"} == set(contents(found).values())
    changed = found / ("saved_model.pb" if model.is_dir() else model.name)
    changed.write_text("new")
    next(found.rglob(REFERENCE)).write_text("new reference")
    put_back(found, folder)
    after = contents(folder)
    assert after[REFERENCE] == b"new reference"
    (old,) = [name for name, held in before.items() if held == b"old"]
    assert after[old] == b"new"
    kept = before.keys() - {old, REFERENCE}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_a_version_without_a_reference_leaves_none_behind(tmp_path):
    folder = mlflow_model(tmp_path / "folder", KERAS[0], {**KERAS[1], REFERENCE: "reference"})
    version = take_out(folder, tmp_path / "out").parent
    (version / REFERENCE).unlink()
    put_back(version, folder)
    assert not (folder / REFERENCE).exists()


def test_the_external_data_of_an_onnx_model_goes_with_it(tmp_path):
    folder = mlflow_model(tmp_path / "folder", ONNX[0], {})
    kernel = onnx.numpy_helper.from_array(np.ones(4096, np.float32), "kernel")
    node = onnx.helper.make_node("Identity", ["kernel"], ["y"])
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4096])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [output], [kernel]))
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin")
    version = take_out(folder, tmp_path / "out").parent
    assert sorted(contents(version)) == ["model.onnx", "weights.bin"]
    (version / "weights.bin").write_bytes(b"new")
    put_back(version, folder)
    assert (folder / "weights.bin").read_bytes() == b"new"
