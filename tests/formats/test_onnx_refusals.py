"""ONNX files that cannot be recalibrated say why and what to do."""

import builtins

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from finetune.errors import ModelError
from finetune.formats.onnx_file import open_onnx
from finetune.formats.onnx_session import in_words, session
from tests.formats.onnx_nets import images, model, save, weights
from tests.formats.recalibrating import recalibrate


def folded():
    values = {"w": weights()["conv_1.w"], "b": np.zeros(6, np.float32)}
    return model(values, graph=[helper.make_node("Conv", ["image", "w", "b"], ["y"])], outputs=("y",))


def training():
    net = model()
    net.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    net.graph.node[1].output.extend(["new_mean", "new_variance"])
    return net


def quantised():
    net = model()
    net.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(0.1), "q"), numpy_helper.from_array(np.uint8(0), "zero")]
    )
    net.graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "q", "zero"], ["small"]))
    net.graph.node.insert(1, helper.make_node("DequantizeLinear", ["small", "q", "zero"], ["image_q"]))
    net.graph.node[2].input[0] = "image_q"
    return net


def computed():
    net = model()
    net.graph.node.insert(0, helper.make_node("Neg", ["bn_1.running_mean"], ["negative"]))
    net.graph.node[2].input[3] = "negative"
    return net


def read_elsewhere():
    net = model()
    net.graph.node.insert(0, helper.make_node("Neg", ["bn_3.running_mean"], ["negative"]))
    net.graph.output.append(helper.make_tensor_value_info("negative", 1, [5]))
    return net


def merged_constants():
    """One tensor for beta and a mean, as optimisers merge equal zeros."""
    net = model()
    net.graph.node[1].input[2] = "bn_1.running_mean"
    return net


def merged_sites():
    """One mean with two variances."""
    net = model()
    net.graph.node[4].input[3] = "bn_1.running_mean"
    return net


def inside_a_branch():
    branch = helper.make_graph(
        [
            helper.make_node(
                "BatchNormalization",
                ["x1", *(f"bn_1.{n}" for n in ("weight", "bias", "running_mean", "running_var"))],
                ["inner"],
                name="hidden",
            )
        ],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", 1, None)],
    )
    net = model()
    net.graph.node.append(helper.make_node("If", ["yes"], ["either"], then_branch=branch, else_branch=branch))
    net.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    net.graph.output.append(helper.make_tensor_value_info("either", 1, None))
    return net


def inside_a_function():
    net = model()
    imports = [helper.make_opsetid("", 17)]
    inputs = list(net.graph.node[1].input)
    net.functions.append(helper.make_function("own", "Norm", inputs, ["y1"], [net.graph.node[1]], imports))
    net.opset_import.append(helper.make_opsetid("own", 1))
    net.graph.node[1].CopyFrom(helper.make_node("Norm", inputs, ["y1"], domain="own"))
    return net


def for_every_pixel():
    net = model(opset=7)
    net.graph.node[1].attribute.append(helper.make_attribute("spatial", 0))
    return net


def unknown_operation():
    net = model()
    net.graph.node[2].CopyFrom(helper.make_node("Sharpen", ["y1"], ["first"], domain="elsewhere"))
    net.opset_import.append(helper.make_opsetid("elsewhere", 1))
    return net


REFUSED = {
    folded: "folded into them at export; export it again without folding",
    training: "bn_1: normalises with the batch .*in inference mode",
    quantised: "quantised .*quantise that again",
    computed: "bn_1: the statistics are computed in the graph",
    read_elsewhere: "bn_3.running_mean: statistics of a site that something else reads",
    merged_constants: "bn_1.running_mean: statistics of a site that something else reads",
    merged_sites: "bn_1.running_mean: statistics of a site that something else reads",
    inside_a_branch: "hidden: inside a loop or a branch",
    inside_a_function: "inline_local_functions",
    for_every_pixel: "for every pixel",
    unknown_operation: "onnxruntime .*does not have.*Sharpen",
    lambda: model(dtype=np.float64): "onnxruntime .*does not have.*Conv",
    lambda: model(opset=6): "opset 6.*version_converter",
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.items())
def test_what_cannot_be_recalibrated_is_refused_with_the_reason_in_one_line(make, reason, tmp_path):
    path = save(make(), tmp_path / "model.onnx")
    with pytest.raises(ModelError, match=reason) as refusal:
        open_onnx(path)
    (line,) = refusal.value.problems
    assert "\n" not in line
    assert line.startswith(str(path))


def test_an_error_that_onnxruntime_cannot_word_is_raised_without_a_word_on_stdout(tmp_path, capfd):
    path = save(unknown_operation(), tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes().replace(b"Sharpen", b"\xaf" * 7))
    with pytest.raises(ModelError, match="damaged, or it needs"), in_words(path):
        session(path)
    assert capfd.readouterr().out == ""


def test_half_precision_numbers_of_changing_length_are_refused(tmp_path):
    net = model(dtype=np.float16)
    for tensor in net.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.ravel()))
    with pytest.raises(ModelError, match=r"cannot be replaced in place; .*raw_data"):
        open_onnx(save(net, tmp_path / "model.onnx"))


def test_nothing_and_a_folder_are_no_file(tmp_path):
    with pytest.raises(ModelError, match="found nothing"):
        open_onnx(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="found a folder"):
        open_onnx(tmp_path)


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    really = builtins.__import__

    def absent(name, *rest):
        if name == "finetune.formats.onnx_model":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ModelError, match=r"pip install 'finetune\[onnx\]'"):
        open_onnx(tmp_path / "model.onnx")


def test_a_place_that_is_taken_is_refused_and_left_alone(tmp_path):
    net = open_onnx(save(model(), tmp_path / "model.onnx"))
    taken = tmp_path / "taken.onnx"
    taken.write_bytes(b"something")
    with pytest.raises(ModelError, match="exists"):
        net.write(taken)
    assert taken.read_bytes() == b"something"
    external = open_onnx(save(model(), tmp_path / "big.onnx", external=True))
    with pytest.raises(ModelError, match=r"big.onnx.data: exists; .*a folder of its own"):
        external.write(tmp_path / "new.onnx")
    assert {each.name for each in tmp_path.iterdir()} == {
        "model.onnx",
        "taken.onnx",
        "big.onnx",
        "big.onnx.data",
    }


def test_a_copy_that_is_not_what_was_written_leaves_nothing_behind(tmp_path, monkeypatch):
    net = open_onnx(save(model(), tmp_path / "model.onnx"))
    recalibrate(net, images())
    monkeypatch.setattr("finetune.formats.onnx_copy._patch", lambda copy, updates: 1)
    with pytest.raises(ModelError, match="not what was written"):
        net.write(tmp_path / "deep" / "down" / "new.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]


def test_external_data_outside_of_the_folder_are_refused(tmp_path):
    path = save(model(), tmp_path / "in" / "model.onnx", external=True)
    data = path.with_name("model.onnx.data")
    data.rename(tmp_path / "outside.data")
    net = onnx.load(path, load_external_data=False)
    for tensor in net.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = "../outside.data"
    path.write_bytes(net.SerializeToString())
    with pytest.raises(ModelError):
        open_onnx(path)
