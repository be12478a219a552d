"""How a mistake is refused, for every test of one."""

from collections.abc import Callable
from typing import Any

import pytest

from distilface.settings import InputError


def refusal(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Call what must be refused, and return its one sentence."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence
