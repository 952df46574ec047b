"""Types of flags: each makes a value of a text, or refuses it in words."""

import argparse

from fairdd.matching.augment import OPERATIONS


def whole(low):
    """An argparse type: a whole number from low on."""
    return lambda text: _number(int, text, f"a whole number from {low} on", lambda v: v >= low)


def real(low, high=float("inf")):
    """An argparse type: a number above low, up to high."""
    words = f"a number above {low}" + (f", at most {high}" if high < float("inf") else "")
    return lambda text: _number(float, text, words, lambda v: low < v <= high)


def model_name(find_network):
    """An argparse type: the name of a network."""

    def known(text):
        try:
            find_network(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return known


def strategy(text):
    """An argparse type: "none" or operations of DSA joined by underscores."""
    if text.lower() == "none":
        return "none"
    unknown = [name for name in text.split("_") if name not in OPERATIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown operation {unknown[0]!r}; known: {', '.join(OPERATIONS)}, or none")
    return text


def _number(kind, text, words, fits):
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}")
    return value
