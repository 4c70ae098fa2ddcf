"""Whole numbers among the settings of a config.

A config is compared with what JSON brings back, and a run is repeated from it. So a number of steps
is an int and nothing that merely looks like one: 1e5 is refused, and NumPy's integers become
Python's.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def integer(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an int.

    Args:
        name: of the setting, for the message.
        value: Python's or NumPy's integer.
        least: the smallest one accepted.

    Raises:
        ValueError: for a smaller number, and for anything else: a bool, a float, a string.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        kind = "a positive integer" if least == 1 else f"an integer from {least} up"
        raise ValueError(f"{name} is {value!r}; give {kind}")
    return int(value)


def keep_integers(config: object, *names: str, least: int = 1) -> None:
    """Makes ints of some fields of a frozen dataclass that is being initialised.

    Raises:
        ValueError: as :func:`integer`.
    """
    for name in names:
        object.__setattr__(config, name, integer(name, getattr(config, name), least))
