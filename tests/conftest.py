"""What many tests share: where data lie, and one small network with its sites."""

import os
import signal
import tempfile

import pytest

# a shell lets its background jobs ignore Ctrl-C, and what is ignored is not taken over
signal.signal(signal.SIGINT, signal.default_int_handler)

# read by tensorflow-datasets when it is imported, so it is set before any test module is; one for each worker of
# pytest-xdist, which would prepare the same dataset at the same time
os.environ["TFDS_DATA_DIR"] = tempfile.mkdtemp(prefix="finetune-tests-")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# as the command line does (finetune/cli/quiet.py): the kernels under test are those that users run
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@pytest.fixture
def model():
    """Three sites in depth; Keras is imported here, so that tests without it start at once."""
    from tests.nets import functional_net

    return functional_net()


@pytest.fixture(scope="session")
def service():
    """A classifier of four sites that was really trained; whoever changes it gives it back."""
    from tests.trained_service import Service

    return Service()


@pytest.fixture
def sites(model):
    from finetune.batchnorm.sites import find_sites
    from tests.nets import images

    return find_sites(model, images(1))
