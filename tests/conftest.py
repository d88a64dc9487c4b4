"""The order of the test files, and what several of them share."""

import gc
import os

import pytest

import cdc_keras  # noqa: F401 - before TensorFlow, which it has compute by oneDNN

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; what they start inherits it
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}


def pytest_collection_modifyitems(items):
    """Files with slow tests come first: of several workers none is left alone with one of them in the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """What has been imported stays: Python need not look through it for garbage, a quarter of the time of a build."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """The cache of this process and of what it starts is a folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CDC_KERAS_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def zero_kernels():
    """Networks start with kernels of zeros, for tests that draw their own: He's are most of the time of a build."""
    import keras

    def zeros(self, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
        yield


@pytest.fixture(scope="module")
def few_test_images():
    """The set `shapes` has 100 test images in this process, for tests to which 2,000 would say no more."""
    from cdc_keras.data import load

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "SHAPES_TEST_SIZE", 100)
        yield
