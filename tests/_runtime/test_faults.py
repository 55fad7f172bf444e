"""Covers which exceptions count as failures of a backend or of the machine."""

import pytest

from crossroads._runtime.faults import PACKAGE, is_failure, is_out_of_memory


def raised(function):
    try:
        function()
    except Exception as error:
        return error
    return None


def keras_fails():
    import keras

    keras.layers.Conv2D(4, 9)(keras.Input((4, 4, 3)))


def tensorflow_fails():
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


def openvino_fails():
    from openvino.frontend import OpConversionFailure

    raise OpConversionFailure("no conversion rule for LSTM")


def disk_is_full():
    raise OSError(28, "No space left on device")


def jax_fails():
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")


def memory_is_full():
    raise MemoryError


@pytest.mark.parametrize("function", [tensorflow_fails, openvino_fails, keras_fails, disk_is_full, jax_fails, memory_is_full])
def test_exceptions_of_backends_and_the_machine_are_failures(function):
    error = raised(function)
    assert error is not None
    assert is_failure(error)
    assert is_out_of_memory(error) == (function in (tensorflow_fails, jax_fails, memory_is_full))


@pytest.mark.parametrize("kind", [TypeError, AttributeError, KeyError, AssertionError, NameError, IndexError, ZeroDivisionError])
def test_exceptions_of_wrong_code_are_not_failures(kind):
    def wrong():
        raise kind("ResourceExhausted")

    assert not is_failure(raised(wrong))
    assert not is_out_of_memory(raised(wrong))


def test_a_value_error_raised_in_this_package_is_not_a_failure():
    code = compile("raise ValueError", PACKAGE + "module.py", "exec")
    assert not is_failure(raised(lambda: exec(code)))


@pytest.mark.parametrize("kind", [RecursionError, NotImplementedError])
def test_runtime_errors_of_wrong_code_are_not_failures(kind):
    def wrong():
        raise kind("RESOURCE_EXHAUSTED by a bug")

    assert not is_failure(raised(wrong))
