"""Keras files in an envelope, as an archive of some company might keep them: eight bytes, then the file."""

import tempfile
from pathlib import Path

ENVELOPE = b"EXAMPLE\n"


class Enveloped:
    """The Keras file inside, written back into an envelope."""

    def __init__(self, path, inside):
        self.path, self._inside, self.format = path, inside, f"enveloped {inside.format}"

    def __getattr__(self, name):
        return getattr(self._inside, name)

    def write(self, destination):
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "model.keras"
            changed = self._inside.write(plain)
            destination.write_bytes(ENVELOPE + plain.read_bytes())
        return changed


def open_enveloped(path):
    """None for whatever is no such file."""
    if not path.is_file() or not path.read_bytes().startswith(ENVELOPE):
        return None
    from finetune.formats.keras_file import open_keras_file

    with tempfile.NamedTemporaryFile(suffix=".keras", delete=False) as plain:
        plain.write(path.read_bytes()[len(ENVELOPE) :])
    return Enveloped(path, open_keras_file(Path(plain.name), trust=False))
