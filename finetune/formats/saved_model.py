"""SavedModels of every make: Keras 3, tf_keras, TensorFlow 1 and 2, TF-Hub. No code of the model's own is needed.

The graph is read as TensorFlow Serving reads it, its sites are found by trying what the variables do
(finetune.formats.probing), and a copy differs in the bytes of the statistics alone
(finetune.formats.tensor_bundle).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from finetune.batchnorm.batch_network import BatchNetwork
from finetune.batchnorm.matching import Affine, with_affine
from finetune.batchnorm.passes import Measured, Run, exact, pooled
from finetune.batchnorm.tf_network import TFNetwork
from finetune.errors import ModelError
from finetune.formats.batch_mode import gamma_and_beta, in_batch_mode
from finetune.formats.both_loaders import by_objects, by_session
from finetune.formats.cut_network import bare_network, trace, watched_network
from finetune.formats.deployed import Batch, DeployedSite, InputSpec
from finetune.formats.entrance import find_entrance
from finetune.formats.fused_sites import find_fused
from finetune.formats.hidden_sites import hidden_sites
from finetune.formats.inlining import Inliner
from finetune.formats.live_variable import captures, live
from finetune.formats.lookup_tables import captured_tables
from finetune.formats.meta_graph import maker, read_meta_graph
from finetune.formats.new_copy import VARIABLES, write_copy
from finetune.formats.probing import find_composite
from finetune.formats.refusals import refuse_closed, refuse_unmeasurable
from finetune.formats.saved_site import SavedSite, group, unused_statistics
from finetune.formats.site_call import SiteCall
from finetune.formats.tensor_bundle import TensorBundle
from finetune.formats.variables import REFERENCES, names_by_key, stored_variables


def open_saved_model(path: Path, signature: str | None = None) -> SavedModel:
    """A SavedModel folder. signature: `serving_default`, or the only one, where nothing is said.

    Raises ModelError, in words, where it is damaged, or its statistics cannot be measured anew.
    """
    if keras.backend.backend() != "tensorflow":
        raise ModelError(f"{path}: a SavedModel runs on TensorFlow only; set KERAS_BACKEND=tensorflow")
    with in_words(path):
        return SavedModel(path, signature)


@contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside the block is a ModelError that names the file."""
    try:
        yield
    except ModelError as error:
        raise ModelError(
            words if str(path) in words else f"{path}: {words}" for words in error.problems
        ) from error
    # what a damaged file runs into is not foreseeable: any of Python's, protobuf's or TensorFlow's errors
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"{path}: damaged, or it needs operations that this TensorFlow does not have: "
            f"{type(error).__name__}: {first}"
        ) from error


class SavedModel:
    """An opened SavedModel; see finetune.formats.deployed."""

    path: Path
    format: str
    sites: Sequence[DeployedSite]
    unused: Sequence[str]
    inputs: Sequence[InputSpec]
    batch_size: int | None

    def __init__(self, path: Path, signature: str | None) -> None:
        meta_graph = read_meta_graph(path)
        self.path, self.format = path, f"SavedModel ({maker(meta_graph, path)})"
        self._tags = tuple(meta_graph.meta_info_def.tags)
        self._entrance = find_entrance(meta_graph, signature, path)
        self._read_graph(meta_graph)
        self._read_variables(meta_graph)
        self.sites = self._sites = group(self._find_sites(meta_graph), self._variables)
        self._cut(meta_graph.graph_def.library)

    def _read_graph(self, meta_graph: Any) -> None:
        entrance = self._entrance
        self._graph = Inliner(meta_graph, entrance.extra, entrance.truths).flatten(
            {name: each.tensor for name, each in entrance.inputs.items()}, entrance.outputs
        )
        self.inputs = [InputSpec(name, each.shape, each.dtype) for name, each in entrance.inputs.items()]
        sizes = (each.batch_size for each in entrance.inputs.values())
        self.batch_size = next((size for size in sizes if size is not None), None)
        refuse_closed(self._graph, self.path)

    def _read_variables(self, meta_graph: Any) -> None:
        bundle = TensorBundle(self.path / VARIABLES)
        self._stored = stored_variables(meta_graph, self._entrance, self._graph, bundle, self.path)
        self._variables = live(self._stored.values())
        self._names = names_by_key(bundle)

    def _find_sites(self, meta_graph: Any) -> list[SiteCall]:
        """Every call of every site, in the graph's order."""
        shapes = {tensor: stored.value.shape for tensor, stored in self._stored.items()}
        fused = find_fused(self._graph, shapes)
        place = {name: number for number, name in enumerate(self._graph.nodes)}
        calls = sorted(
            (*fused.sites, *find_composite(self._graph, shapes)), key=lambda call: place[call.operations[-1]]
        )
        hidden = [self._stored[tensor].name for tensor in hidden_sites(meta_graph, self._graph, shapes)]
        refuse_unmeasurable(self._graph, fused, calls, hidden, self.path)
        used = {key for call in calls for t in (call.mean, call.variance) for key in self._stored[t].keys}
        self.unused = unused_statistics(name for key, name in self._names.items() if key not in used)
        return calls

    def _cut(self, functions: Any) -> None:
        references = [t for t in self._stored if self._graph.node(t).op in REFERENCES]
        outside = captures(self._variables, references)
        outside |= {tensor: tf.constant(truth) for tensor, truth in self._entrance.truths.items()}
        outside |= captured_tables(self._graph, self._entrance, self._variables, self.path)
        self._bare = bare_network(self._graph, functions, self._entrance.inputs, outside)
        places = [place for site in self._sites for place in site.places]
        watched = [t for place in places for t in (place.inputs, f"{place.operations[-1]}:0")]
        # nothing runs, but whatever this TensorFlow cannot run shows
        self._known = trace(self._bare, self._entrance.inputs, [*watched, *self._graph.outputs.values()])

    @property
    def saved_sites(self) -> Sequence[SavedSite]:
        """`sites`, with the variables behind them."""
        return self._sites

    @property
    def weights(self) -> list[tuple[str, NDArray]]:
        """Names and values, as the file has them, of all variables that an inference reads, statistics too."""
        return [(each.name, each.value) for each in self._stored.values()]

    def network(self) -> TFNetwork:
        """To be cut at the sites; its inputs are `inputs`, in their order."""
        return watched_network(self._bare, [site.places for site in self._sites], self._known)

    def one_pass(self, batches: Iterable[Batch], affine: Mapping[str, Affine] | None = None) -> Measured:
        """Per site the moments under precise BN, and the number of images.

        Raises ValueError where there is none, and where batches that are needed twice can be read only once.
        """
        parameters = [
            with_affine(
                *gamma_and_beta(self._graph, place, site, self._variables), (affine or {}).get(site.path)
            )
            for site in self._sites
            for place in site.places
        ]

        def once(precise: Collection[int]) -> Measured:
            def open_run(first: Batch) -> Run:
                run = self._in_batch_mode.run(parameters, precise, self._fed(first), self._running)
                return lambda batch: run(self._fed(batch))

            return pooled(batches, open_run, lambda batch: len(batch[self.inputs[0].name]))

        return exact(once, batches, [site.epsilon for site in self._sites])

    @cached_property
    def _in_batch_mode(self) -> BatchNetwork:
        any_size = len(self.inputs) == 1 and self.batch_size is None
        return in_batch_mode(self._bare, self._sites, self._known, any_size=any_size)

    def _running(self) -> AbstractContextManager[None]:
        return in_words(self.path)

    @cached_property
    def _inference(self) -> Any:
        outputs = list(self._graph.outputs.values())
        return self._bare.function(self._bare.inputs, outputs, optimised="as served")

    def predict(self, batch: Batch) -> dict[str, NDArray]:
        """The outputs, by name, under the statistics in force."""
        with in_words(self.path):
            values = map(np.asarray, self._inference(self._fed(batch)))
            return dict(zip(self._graph.outputs, values, strict=True))

    def _fed(self, batch: Batch) -> list[Any]:
        return [tf.convert_to_tensor(batch[each.name], each.dtype) for each in self.inputs]

    def write(self, destination: Path) -> int:
        """A copy with the statistics in force; how many bytes differ. Raises ModelError, with nothing left behind."""
        statistics = [v for site in self._sites for v in (site.mean, site.variance)]
        updates = {key: variable.values for variable in statistics for key in variable.keys}
        with in_words(self.path):
            return write_copy(self.path, destination, updates, self._check)

    def _check(self, copy: Path) -> None:
        """Raise ModelError where a loader of TensorFlow finds other statistics in a copy than are in force."""
        statistics = [
            t for site in self._sites for place in site.places for t in (place.mean, place.variance)
        ]
        wanted = {t: self._variables[t].values for t in statistics}
        served = {
            tensor: None if self._graph.node(tensor).op in REFERENCES else values.dtype
            for tensor, values in wanted.items()
            if self._stored[tensor].session
        }
        for loader, found in (
            ("tf.saved_model.load", by_objects(copy, self._tags, self._entrance, wanted)),
            ("a session", by_session(copy, self._tags, served)),
        ):
            for tensor, values in found.items():
                if values.tobytes() != wanted[tensor].tobytes():
                    raise ModelError(
                        f"{self.path}: {loader} finds other values in {self._stored[tensor].name!r} of the copy than "
                        "were written; the file is of a make that is not known"
                    )
