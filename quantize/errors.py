"""What goes wrong, as the user sees it.

Every exception that leaves this package for a reason the user can act on is one of these. A message names the layer or
argument, the value, the limit it broke, and the remedy. All derive from ValueError, so that a caller who knows nothing
of this package can still catch them.

Neighbours: every file of this package raises them; `firmware_sim` turns them into exit status 2.
"""

from __future__ import annotations


class QuantizeError(ValueError):
    """Base of all errors below; raised itself for bad arguments, frames and weights."""


class UnsupportedError(QuantizeError):
    """The model holds a construct that has no fixed-point form here; named with its place in the user's source."""


class CalibrationError(QuantizeError):
    """The calibration data cannot give ranges: empty, constant, or not what the model takes."""


class FormatError(QuantizeError):
    """A file is not what it should be: missing, of another kind or version, truncated or edited."""


class PlanError(QuantizeError):
    """No number format meets the request: an accumulator would overflow, or a layer exceeds a limit."""
