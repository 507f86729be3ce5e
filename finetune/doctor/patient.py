"""What is examined: a network with its sites, how it is asked, and what is known of its past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.measurable import Measurable
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.sites import BNSite
from finetune.doctor.company import Predict
from finetune.doctor.facts import SiteFacts, of_live


@dataclass(frozen=True, eq=False)
class Patient:
    """address: what the person typed, for the commands in the findings. format: in words.

    network: its called sites, measured as one. predict: None where it has no single output of scores. model, sites:
    the live Keras model and all of its sites, where it is one. reference: by site path, the moments on its training
    images; carried: they lie beside it.
    """

    address: str
    format: str
    network: Measurable
    facts: tuple[SiteFacts, ...]
    predict: Predict | None
    model: keras.Model | None = None
    sites: tuple[BNSite, ...] = ()
    reference: Mapping[str, PopulationMoments] | None = None
    carried: bool = False

    @property
    def repair(self) -> str:
        """The command that measures the statistics anew."""
        if self.address.endswith((".yaml", ".yml")):
            return f"finetune compare {self.address}    # which policy suits the data"
        return f"finetune recalibrate {self.address} --images DIR    # --labelled where labels are known"


@dataclass(frozen=True, eq=False)
class Seen:
    """Images as the model reads them, in batches; labels (count,), where there are labels."""

    batches: Sequence[NDArray]
    labels: NDArray[np.integer] | None = None

    @property
    def count(self) -> int:
        return sum(len(batch) for batch in self.batches)


def live_patient(
    model: keras.Model,
    sites: Sequence[BNSite],
    address: str = "MODEL",
    form: str = "Keras model",
    reference: Mapping[str, PopulationMoments] | None = None,
    carried: bool = False,
) -> Patient:
    """sites: all of the model's."""

    def predict(images: NDArray) -> NDArray:
        return np.asarray(keras.ops.convert_to_numpy(model(images, training=False)), np.float64)

    classifies = len(getattr(model, "outputs", None) or [None]) == 1
    return Patient(
        address=address,
        format=form,
        network=LiveModel(model, [site for site in sites if site.calls]),
        facts=tuple(of_live(site) for site in sites if site.built),
        predict=predict if classifies else None,
        model=model,
        sites=tuple(sites),
        reference=reference,
        carried=carried,
    )
