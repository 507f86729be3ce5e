"""What reads a stranger's files, fed with what coverage-guided mutation (atheris, libFuzzer) makes of real ones.

uv run --with atheris python scripts/fuzz.py --inputs 100000
uv run --with atheris python scripts/fuzz.py --inputs 100000 --target recipe

An input may be read or refused with one of our errors. Anything else, 10 s for one input, or 1 GB, ends the target, and
the input lies in --findings. Prints a row for each target.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
SECONDS, MEGABYTES = 10, 1024

Read = Callable[[Path, bytes], object]


class Agrees(int):
    """A checksum that fits whatever a file says: libFuzzer cannot compute checksums, and behind them is the parser."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


STATE_DICT = (
    b"\x80\x02ccollections\nOrderedDict\n)R(X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n"
    b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04%btQ"
    b"K\x00K\x02K\x02\x86K\x02K\x01\x86\x89}tRu."
)
"""What torch.save pickles of {"w": ones(2, 2)}; %b is empty in archives, None in files of PyTorch before 1.6."""


def recipe() -> tuple[Read, list[bytes]]:
    from finetune.recipe_file import load_recipe

    def read(folder: Path, data: bytes) -> object:
        file = folder / "recipe.yaml"
        file.write_bytes(data)
        return load_recipe(file)

    return read, [file.read_bytes() for file in (ROOT / "recipes").glob("*.yaml")]


def overrides() -> tuple[Read, list[bytes]]:
    from finetune.recipe_file import load_recipe

    def read(folder: Path, data: bytes) -> object:
        given = data.decode("utf-8", "surrogateescape").split("\n")
        return load_recipe(ROOT / "recipes" / "resnet_freeze.yaml", given)

    return read, [
        b"seed=1\nstages.0.epochs=2",
        b"data.shift={kind: fog, severity: 3}",
        b"batchnorm.policy=retrain",
    ]


def state_dict() -> tuple[Read, list[bytes]]:
    """The pickle inside of a whole archive, so that mutation does not end at the archive's checksums."""
    from finetune.backbones.torch_file import read_state_dict

    def read(folder: Path, data: bytes) -> object:
        with zipfile.ZipFile(folder / "net.pth", "w") as archive:
            archive.writestr("net/data.pkl", data)
            archive.writestr("net/data/0", np.ones(4, "<f4").tobytes())
        return read_state_dict(folder / "net.pth")

    return read, [STATE_DICT % b""]


def state_dict_file() -> tuple[Read, list[bytes]]:
    from finetune.backbones.torch_file import LEGACY_MAGIC, read_state_dict

    def read(folder: Path, data: bytes) -> object:
        (folder / "net.pth").write_bytes(data)
        return read_state_dict(folder / "net.pth")

    header = b"".join(pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, {"little_endian": True}))
    numbers = struct.pack("<q", 4) + np.ones(4, "<f4").tobytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("net/data.pkl", STATE_DICT % b"")
        file.writestr("net/data/0", np.ones(4, "<f4").tobytes())
    return read, [header + STATE_DICT % b"N" + pickle.dumps(["0"], 2) + numbers, archive.getvalue()]


def bundle_index() -> tuple[Read, list[bytes]]:
    """The index of the variables of a SavedModel, and what it says of the data."""
    from finetune.errors import ModelError
    from finetune.formats import sorted_table, tensor_bundle

    def read(folder: Path, data: bytes) -> object:
        (folder / "variables.index").write_bytes(data)
        (folder / "variables.data-00000-of-00001").write_bytes(bytes(4096))
        agreeing = [patch.object(module, "masked_crc32c", Agrees) for module in (sorted_table, tensor_bundle)]
        with agreeing[0], agreeing[1], patch.object(Agrees, "__new__", lambda cls, data: int.__new__(cls)):
            bundle = tensor_bundle.TensorBundle(folder / "variables")
            bundle.verify()
            for key in bundle.keys:
                try:
                    bundle.read(key)
                    bundle.read_string(key)
                except ModelError:
                    continue
        return bundle

    return read, [_index()]


def _index() -> bytes:
    """That of a checkpoint which TensorFlow wrote; in a process of its own, so that its memory is not ours."""
    code = (
        "import sys, tensorflow as tf; tf.train.Checkpoint(a=tf.Variable([1.0, 2.0]), b=tf.Variable([[3]]),"
        "c=tf.Variable('text')).write(sys.argv[1])"
    )
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", code, f"{folder}/x"], check=True, stderr=subprocess.DEVNULL)
        return Path(folder, "x.index").read_bytes()


def moments() -> tuple[Read, list[bytes]]:
    """Reference statistics beside a model. ValueError is what its callers expect of it."""
    from finetune.batchnorm.moments import PopulationMoments
    from finetune.batchnorm.moments_file import SavedMoments, load, save

    def read(folder: Path, data: bytes) -> object:
        (folder / "reference.npz").write_bytes(data)
        try:
            return load(folder / "reference.npz")
        except ValueError:
            return None

    with tempfile.TemporaryDirectory() as folder:
        one = PopulationMoments(8.0, np.ones(2), np.ones(2))
        save(Path(folder, "x.npz"), SavedMoments({"bn": one}, 8))
        return read, [Path(folder, "x.npz").read_bytes()]


def arrays() -> tuple[Read, list[bytes]]:
    from finetune.datasets.array_file import read_arrays, save_arrays

    def read(folder: Path, data: bytes) -> object:
        (folder / "images.npz").write_bytes(data)
        return read_arrays(folder / "images.npz")

    with tempfile.TemporaryDirectory() as folder:
        pair = np.zeros((4, 2, 2), np.uint8), np.arange(4) % 2
        return read, [save_arrays(Path(folder, "x.npz"), pair, class_names=("a", "b")).read_bytes()]


def array_member() -> tuple[Read, list[bytes]]:
    """One array inside of a whole archive."""
    from finetune.datasets.array_file import read_arrays

    def read(folder: Path, data: bytes) -> object:
        with zipfile.ZipFile(folder / "images.npz", "w") as archive:
            archive.writestr("images.npy", data)
            archive.writestr("labels.npy", _npy(np.arange(4) % 2))
        return read_arrays(folder / "images.npz")

    return read, [_npy(np.zeros((4, 2, 2), np.uint8))]


def _npy(values: NDArray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def provenance() -> tuple[Read, list[bytes]]:
    from finetune.recalibration.lineage import read_lineage

    def read(folder: Path, data: bytes) -> object:
        (folder / "provenance.json").write_bytes(data)
        return read_lineage(folder)

    known = {"recalibration": {"parent": {"version": 1}, "images": {"source": "x", "count": 2}}, "data": {}}
    return read, [json.dumps(known).encode(), b"[1, null, true, 1e9]"]


def keras_archive() -> tuple[Read, list[bytes]]:
    """The archive of a .keras file, up to the weights."""
    from finetune.formats.keras_archive import weights_of
    from finetune.formats.keras_loading import in_words

    def read(folder: Path, data: bytes) -> object:
        (folder / "model.keras").write_bytes(data)
        with in_words(folder / "model.keras"):
            return weights_of(folder / "model.keras")

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(name, b"{}" * 40)
    return read, [archive.getvalue()]


def keras_config() -> tuple[Read, list[bytes]]:
    """The configuration inside a whole .keras archive, of which a backbone's image size is read."""
    from finetune.backbones.keras_file import expected_side

    def read(folder: Path, data: bytes) -> object:
        with zipfile.ZipFile(folder / "model.keras", "w") as archive:
            archive.writestr("config.json", data)
        return expected_side(folder / "model.keras")

    layer = {"class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 3]}}
    return read, [json.dumps({"config": {"layers": [layer]}}).encode(), b"[" * 900 + b"]" * 900]


def run_state() -> tuple[Read, list[bytes]]:
    """What a run folder says of itself, before it is gone on with."""
    from finetune.checkpoint import latest
    from finetune.run_state import STATE, resumable_state

    def read(folder: Path, data: bytes) -> object:
        (folder / STATE).write_bytes(data)
        return resumable_state(folder), latest(folder)

    return read, [b'{"digest": "x", "mlflow_run": "", "status": "running", "reason": ""}']


TARGETS: dict[str, Callable[[], tuple[Read, list[bytes]]]] = {
    each.__name__: each
    for each in (
        recipe,
        overrides,
        state_dict,
        state_dict_file,
        bundle_index,
        moments,
        arrays,
        array_member,
        provenance,
        keras_archive,
        keras_config,
        run_state,
    )
}


def carry_out(name: str, inputs: int, seed: int, findings: Path) -> None:
    """In this process, which ends with the last input or with the first that was neither read nor refused."""
    import atheris

    with atheris.instrument_imports(include=["finetune"]):
        read, seeds = TARGETS[name]()
    from finetune.errors import FinetuneError

    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory(dir=_memory()) as place:
        for number, content in enumerate(seeds):
            Path(corpus, str(number)).write_bytes(content)

        def one(data: bytes) -> None:
            try:
                read(Path(place), data)
            except FinetuneError as refused:
                if not str(refused).strip():
                    raise AssertionError("refused without a word") from refused

        limits = [f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", f"-artifact_prefix={findings}/{name}-"]
        rest = ["-print_final_stats=1", "-max_len=8192", "-verbosity=1", f"-seed={seed}", f"-runs={inputs}"]
        atheris.Setup([sys.argv[0], *limits, *rest, corpus], one)
        atheris.Fuzz()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def rows(names: list[str], inputs: int, seed: int, findings: Path) -> Iterator[dict[str, Any]]:
    for name in names:
        begun = time.perf_counter()
        again = ["--target", name, "--inputs", str(inputs), "--seed", str(seed), "--findings", str(findings)]
        done = subprocess.run(
            [sys.executable, __file__, "--inside", *again], capture_output=True, text=True, errors="replace"
        )
        said = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", done.stderr)}
        if done.returncode:
            print(done.stdout[-3000:], done.stderr[-1500:], file=sys.stderr)
        yield {
            "target": name,
            "inputs": said.get("number_of_executed_units", 0),
            "slowest": said.get("slowest_unit_time_sec", -1),
            "memory": said.get("peak_rss_mb", -1),
            "seconds": time.perf_counter() - begun,
            "found": "nothing" if done.returncode == 0 else f"exit {done.returncode}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.findings.mkdir(exist_ok=True)
    names = given.target or list(TARGETS)
    if given.inside:
        carry_out(names[0], given.inputs, given.seed, given.findings)
        return
    print(
        "| target | inputs | slowest, s | peak, MB | seconds | found |\n|---|---|---|---|---|---|", flush=True
    )
    failed = False
    for row in rows(names, given.inputs, given.seed, given.findings):
        failed |= row["found"] != "nothing"
        told = f"| {row['target']} | {row['inputs']:,} | {row['slowest']} | {row['memory']} |"
        print(f"{told} {row['seconds']:.0f} | {row['found']} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
