"""What many tests share: where data lie, and one small network with its sites."""

import gc
import os
import signal
import tempfile

import pytest
from hypothesis import HealthCheck, settings

# no test is timed, neither its examples nor the making of them: a machine may be slow
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# a shell lets its background jobs ignore Ctrl-C, and what is ignored is not taken over
signal.signal(signal.SIGINT, signal.default_int_handler)

# read by tensorflow-datasets when it is imported, so it is set before any test module is; one for all workers of
# pytest-xdist, of which the first that needs a dataset prepares it
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["TFDS_DATA_DIR"] = tempfile.mkdtemp(prefix="finetune-tests-")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# as the command line does (finetune/cli/quiet.py): the kernels under test are those that users run
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# workers of pytest-xdist share the cores: threads of each that wait for a small operation's end take them from others
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
# likewise those of NumPy and scikit-learn (OpenBLAS and OpenMP), which spin while they wait
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


LONG = (
    "docs/test_notebook.py",
    "test_compare_run.py",
    "distribution/test_together.py",
    "test_run.py",
    "test_resumption.py",
    "test_registered_run.py",
)
"""Files that take longest; begun last, they would keep one core waiting at the end."""


def pytest_xdist_auto_num_workers():
    """One more than there are cores, for what waits: servers, processes, stores that do not answer."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items):
    """Long files first. Within a file all stays in order."""

    def rank(item):
        name = item.nodeid.partition("::")[0].removeprefix("tests/")
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """No garbage is collected while test modules are imported: it would look at the same objects again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """Leave out of every later garbage collection what the tests import: TensorFlow's million objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
