"""Where data lie while the tests run: a folder of their own, prepared once."""

import os
import tempfile

# read by tensorflow-datasets when it is imported, so it is set before any test module is
os.environ.setdefault("TFDS_DATA_DIR", tempfile.mkdtemp(prefix="finetune-tests-"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
