"""What counts as a failure of a backend or of the machine."""

import pytest

from crossroads._runtime.faults import PACKAGE, is_failure, is_out_of_memory


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    return None


def of_keras():
    import keras

    keras.layers.Conv2D(4, 9)(keras.Input((4, 4, 3)))


def of_tensorflow():
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


def of_openvino():
    from openvino.frontend import OpConversionFailure

    raise OpConversionFailure("no conversion rule for LSTM")


def of_the_disk():
    raise OSError(28, "No space left on device")


def of_jax():
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")


def of_memory():
    raise MemoryError


@pytest.mark.parametrize("function", [of_tensorflow, of_openvino, of_keras, of_the_disk, of_jax, of_memory])
def test_what_a_backend_or_the_machine_raises_is_a_failure(function):
    error = raised(function)
    assert error is not None
    assert is_failure(error)
    assert is_out_of_memory(error) == (function in (of_tensorflow, of_jax, of_memory))


@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, AssertionError, NameError, IndexError, ZeroDivisionError])
def test_what_only_wrong_code_raises_is_none(kind):
    def wrong():
        raise kind("ResourceExhausted")

    assert not is_failure(raised(wrong))
    assert not is_out_of_memory(raised(wrong))


def test_a_value_error_that_is_raised_in_this_package_is_a_fault_of_it():
    code = compile("raise ValueError", PACKAGE + "module.py", "exec")
    assert not is_failure(raised(lambda: exec(code)))


@pytest.mark.parametrize("kind", [RecursionError, NotImplementedError])
def test_kinds_of_runtime_error_that_only_wrong_code_raises_are_none(kind):
    def wrong():
        raise kind("RESOURCE_EXHAUSTED by a bug")

    assert not is_failure(raised(wrong))
