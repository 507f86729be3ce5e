"""What reads HDF5, a library in C that may crash or hang, fed with damaged files in forked processes.

    uv run python scripts/fuzz_hdf5.py --inputs 100000

Each input is read as finetune.formats.hdf5_reading reads it, in a process that may end by it. What gets through is read
by the next reader too, which would be in the process of the person: there a crash, a hang, or 1 GB is a finding.
Prints what became of the inputs; with a finding, the exit code is 1 and the inputs lie in --findings.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np

from finetune.formats.hdf5_reading import program
from finetune.formats.keras_datasets import vectors

SECONDS, MEGABYTES = 10, 1024
TOGETHER = 100
"""Inputs that one process reads one after the other: to start one takes as long as to read twenty."""

PASSED, READ, REFUSED = b"p", b"r", b"x"
"""What a process says of an input: it got through the guard; then whether the next reader read it or refused it."""


def sound_file() -> bytes:
    """All that Keras puts into its files: groups, names as attributes, vectors, pieces that are compressed."""
    file = io.BytesIO()
    with h5py.File(file, "w") as h5:
        h5.attrs["model_config"] = '{"class_name": "Functional", "config": {}}'
        h5.attrs["layer_names"] = np.array(["conv", "bn"], dtype=h5py.string_dtype())
        for layer in ("conv", "bn"):
            group = h5.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = np.array([f"{layer}/kernel", f"{layer}/beta"], dtype="S20")
            group.create_dataset("kernel", data=np.arange(108.0, dtype="f4").reshape(3, 3, 12))
            group.create_dataset("beta", data=np.arange(12.0, dtype="f4"))
        h5.create_dataset("pieces", data=np.arange(1000.0), chunks=(100,), compression="gzip")
        h5.create_dataset("open", data=np.arange(8, dtype="f4"), maxshape=(None,))
        h5["link"] = h5py.SoftLink("/model_weights/bn/beta")
    return file.getvalue()


def damaged(whole: bytes, seed: int) -> bytes:
    """Bits, bytes and stretches changed, cut off, moved; mostly where HDF5 keeps its own records, not the numbers."""
    dice, content = random.Random(seed), bytearray(whole)
    for _ in range(dice.choice([1, 1, 2, 4, 8])):
        place = dice.randrange(len(content))
        match dice.randrange(6):
            case 0:
                content[place] ^= 1 << dice.randrange(8)
            case 1:
                content[place] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])
            case 2:
                size = dice.choice([2, 4, 8])
                content[place : place + size] = dice.choice([b"\xff", b"\x00", b"\x7f"]) * size
            case 3:
                content[place : place + dice.randrange(200)] = b""
            case 4:
                length, other = dice.randrange(1, 64), dice.randrange(len(content))
                content[place : place + length] = content[other : other + length]
            case _:
                del content[max(place, 100) :]
        if not content:
            return b""
    return bytes(content)


def guarded(data: bytes, guard: object) -> bool:
    """Whether it gets through, as the process of its own reads it; what the library refuses does."""
    stdin, sys.stdin = sys.stdin, SimpleNamespace(buffer=io.BytesIO(data))
    try:
        exec(guard, {})
    except SystemExit:
        return False
    except Exception:
        return True
    finally:
        sys.stdin = stdin
    return True


def read_all(first: int, last: int, whole: bytes, pipe: int) -> None:
    """In a forked process: say of each input how far it came."""
    guard = compile(program(), "guard", "exec")
    for seed in range(first, last):
        data = damaged(whole, seed)
        if not guarded(data, guard):
            os.write(pipe, REFUSED)
            continue
        os.write(pipe, PASSED)
        try:
            vectors(data, Path("model.h5"))
        # whatever h5py raises is put into words by its caller
        except Exception:
            os.write(pipe, REFUSED)
        else:
            os.write(pipe, READ)


def batch(first: int, last: int, whole: bytes, counted: Counter[str]) -> tuple[int, str, int]:
    """How many inputs a process got through before it ended; what ended it too early; its memory, MB."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        read_all(first, last, whole, writing)
        os._exit(0)
    os.close(writing)
    said, hung = b"", False
    while True:
        ready, _, _ = select.select([reading], [], [], SECONDS)
        if not ready:
            hung = True
            os.kill(process, signal.SIGKILL)
        new = os.read(reading, 65536)
        if not new:
            break
        said += new
    os.close(reading)
    _, status, usage = os.wait4(process, 0)
    counted["read"] += said.count(READ)
    counted["refused"] += said.count(REFUSED)
    done = said.count(READ) + said.count(REFUSED)
    ended = "hang" if hung else "crash" if os.WIFSIGNALED(status) else ""
    if ended:
        ended += " after the guard" if said.endswith(PASSED) else " in the guard"
    return done, ended, usage.ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--findings", type=Path, default=Path("findings"))
    given = parser.parse_args()
    whole, counted, peak, begun = sound_file(), Counter[str](), 0, time.perf_counter()
    seed, last = given.first, given.first + given.inputs
    while seed < last:
        done, ended, memory = batch(seed, min(last, seed + TOGETHER), whole, counted)
        peak, seed = max(peak, memory), seed + done
        if ended:
            counted[ended] += 1
        if ended.endswith("after the guard") or memory > MEGABYTES:
            given.findings.mkdir(exist_ok=True)
            (given.findings / f"{seed}.h5").write_bytes(damaged(whole, seed))
            print(f"seed {seed}: {ended or 'memory'} {memory} MB", flush=True)
        seed += bool(ended)
    wrong = peak > MEGABYTES or any(name.endswith("after the guard") for name in counted)
    told = ", ".join(f"{name} {count:,}" for name, count in sorted(counted.items()))
    print(f"{given.inputs:,} inputs: {told}; peak {peak} MB; {time.perf_counter() - begun:.0f} s")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
