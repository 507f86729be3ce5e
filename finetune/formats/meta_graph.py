"""saved_model.pb: which of its MetaGraphs is served, and by which signature or function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from finetune.errors import ModelError

GRAPH_FILE = "saved_model.pb"
SERVE = "serve"
DEFAULT_SIGNATURE = "serving_default"


def read_meta_graph(folder: Path) -> Any:
    """The MetaGraphDef that serves: the one tagged `serve`, else the untagged one (TF-Hub v1). Raises ModelError."""
    model = saved_model_pb2.SavedModel()
    try:
        model.ParseFromString((folder / GRAPH_FILE).read_bytes())
    except OSError as error:
        raise ModelError(f"{folder / GRAPH_FILE}: cannot be read ({error.strerror})") from error
    except DecodeError as error:
        raise ModelError(
            f"{folder / GRAPH_FILE}: damaged: it cannot be parsed; restore it from a copy"
        ) from error
    graphs = {tuple(sorted(graph.meta_info_def.tags)): graph for graph in model.meta_graphs}
    for tags, graph in graphs.items():
        if SERVE in tags:
            return graph
    if () in graphs:
        return graphs[()]
    raise ModelError(f"{folder / GRAPH_FILE}: nothing in it is tagged {SERVE!r}; its tags are {list(graphs)}")


def signature_names(meta_graph: Any) -> tuple[str, ...]:
    """The signatures that take something, by name; TensorFlow's own begin with two underscores."""
    found = meta_graph.signature_def.items()
    # the order of a map in a protobuf is another one in every process
    return tuple(sorted(name for name, each in found if each.inputs and not name.startswith("__")))


def chosen_signature(meta_graph: Any, wanted: str | None, folder: Path) -> str | None:
    """The signature wanted, else `serving_default`, else the only one; None where there is none. Raises ModelError."""
    names = signature_names(meta_graph)
    if wanted is not None and wanted not in names:
        raise ModelError(f"{folder}: no signature {wanted!r}; there are {', '.join(names) or 'none'}")
    if wanted is not None or not names:
        return wanted
    if DEFAULT_SIGNATURE in names:
        return DEFAULT_SIGNATURE
    if len(names) > 1:
        raise ModelError(f"{folder}: several signatures ({', '.join(names)}); say which one serves")
    return names[0]


def children(object_graph: Any, node: int = 0) -> Mapping[str, int]:
    """Name -> number of what hangs on one object of the object graph; object 0 is the root."""
    if not object_graph.nodes:
        return {}
    return {child.local_name: child.node_id for child in object_graph.nodes[node].children}


def maker(meta_graph: Any, folder: Path) -> str:
    """What made a model, in words."""
    parts = children(meta_graph.object_graph_def)
    if (folder / "tfhub_module.pb").exists():
        return "TF-Hub 1"
    if (folder / "keras_metadata.pb").exists():
        return "Keras 2"
    if not parts:
        return "TensorFlow 1"
    if "_all_variables" in parts and "_misc_assets" in parts:
        return "Keras export"
    return "Keras 3" if "_operations" in parts else "TensorFlow 2"
