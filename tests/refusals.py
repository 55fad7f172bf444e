"""Checks that a mistake is refused by its code, whatever the wording."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from crossroads.errors import CrossroadsError


@contextmanager
def refused(
    code: str, kind: type[CrossroadsError] = CrossroadsError, **facts: object
) -> Iterator[pytest.ExceptionInfo[CrossroadsError]]:
    """Expects an error of `kind` with this code.

    Args:
        code: The code of the rule.
        kind: The class of the error.
        **facts: Further attributes that the error must have, such as ``field="epochs"``.
    """
    with pytest.raises(kind) as caught:
        yield caught
    assert caught.value.code == code, caught.value
    for name, value in facts.items():
        assert getattr(caught.value, name) == value, caught.value
