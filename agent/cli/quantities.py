"""Numbers on the command line.

Secret: how argparse is told what is wrong with one. Promise: a number that makes no sense is a usage error in words.
"""

from __future__ import annotations

import argparse
import math


def whole(text: str) -> int:
    """A count or a size: 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def port(text: str) -> int:
    """A TCP port; 0 for any free one."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no TCP port: give 0 to 65535")
    return int(text)


def positive(text: str) -> float:
    """A rate or a duration above 0."""
    if (number := seconds(text)) == 0:
        raise argparse.ArgumentTypeError("0 is too small: give a number above 0")
    return number


def seconds(text: str) -> float:
    """A duration of 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 up")
    return number
