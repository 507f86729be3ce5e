"""Images that are arrays in Python: one file of them, which `finetune.save_arrays` writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from finetune.datasets.base import Dataset, Split, Splits
from finetune.datasets.picture_files import Fractions

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.datasets.originals import Originals


class Arrays(Dataset):
    """Images and labels in a .npz file that finetune.save_arrays wrote, divided there or by `fractions`."""

    source: Literal["arrays"] = "arrays"
    path: str = Field(min_length=1, description="a .npz file")
    fractions: Fractions | None = Field(
        None,
        description="where the file does not say which split an image is in; a tenth each where left out",
    )

    def read(self, image_size: int, seed: int) -> Splits:
        from finetune.datasets.array_file import read_arrays
        from finetune.datasets.examples import digest_of

        self.check_augmentation(image_size)
        held = read_arrays(Path(self.path).expanduser())
        places = self._places(held, seed)
        shares_training = "calibration" not in places
        places.setdefault("calibration", places["train"])
        splits = {name: self._open(name, held, *where, image_size) for name, where in places.items()}
        content = {name: _digest(held, *where) for name, where in places.items()}
        shift = self.shift and self.shift.model_dump()
        return Splits(
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            calibration=splits["calibration"],
            class_names=held.class_names,
            image_size=image_size,
            digest=digest_of(classes=held.class_names, content=content, image_size=image_size, shift=shift),
            shares_training=shares_training,
            multi_label=held.multi_label,
        )

    def originals(self) -> Originals | None:
        """By the shape of the largest array."""
        from finetune.datasets.array_file import read_arrays
        from finetune.datasets.originals import of_shape

        images = read_arrays(Path(self.path).expanduser()).images.values()
        return of_shape(sum(map(len, images)), *max(images, key=len).shape[1:])

    def _places(self, held: Any, seed: int) -> dict[str, tuple[str, list[int]]]:
        """By split: under which name in the file, and which of its images."""
        import numpy as np

        from finetune.datasets.folder_scan import Picture
        from finetune.datasets.folder_split import divide, in_random_order
        from finetune.errors import DataError

        if "" not in held.images:
            if self.fractions is not None:
                raise DataError(f"data.fractions: {self.path} is divided already; leave fractions out")
            return {
                name: (name, np.random.default_rng(seed).permutation(len(labels)).tolist())
                for name, labels in held.labels.items()
            }
        labels = held.labels[""].tolist()
        listed = [
            Picture(Path(), str(place), tuple(label) if held.multi_label else label)
            for place, label in enumerate(labels)
        ]
        shares = (self.fractions or Fractions()).model_dump()
        divided = divide(listed, held.class_names, shares, seed)
        return {
            name: ("", [int(picture.id) for picture in in_random_order(pictures, seed)])
            for name, pictures in divided.items()
        }

    def _open(self, name: str, held: Any, inside: str, places: list[int], image_size: int) -> Split:
        from finetune.datasets.examples import make_examples

        raw = _raw(held.images[inside], held.labels[inside], places)
        examples = make_examples(raw, self.shift, image_size, len(places))
        description = f"{self.path} {name}" + (f", {self.shift}" if self.shift else "")
        return Split(name, examples, len(places), description)


def _raw(images: Any, labels: Any, places: list[int]) -> tf.data.Dataset:
    """(image uint8 (height, width, channels), id, label) at these places, in their order."""
    import numpy as np
    import tensorflow as tf

    # the images stay outside of the graph, which may not hold more than 2 GB
    def at(place: Any) -> tf.Tensor:
        image = tf.numpy_function(lambda place: images[place], [place], tf.uint8)
        return tf.ensure_shape(image, images.shape[1:])

    order = np.array(places, np.int64)
    listing = tf.data.Dataset.from_tensor_slices((order, [str(place) for place in places], labels[order]))
    return listing.map(lambda place, name, label: (at(place), name, label))


def _digest(held: Any, inside: str, places: list[int]) -> str:
    import hashlib

    import numpy as np

    order = np.array(places, np.int64)
    digest = hashlib.sha256(np.ascontiguousarray(held.labels[inside][order]).tobytes())
    for place in places:
        digest.update(np.ascontiguousarray(held.images[inside][place]).tobytes())
    return digest.hexdigest()
