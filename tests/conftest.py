"""What all tests share: hypothesis' profile, and the comparison of integers that says where they differ.

Folders follow requirements: `rtcore/` numpy only, `quantize/` torch, `firmware/` the emulator. `oracle.py` is the spec
in Python integers, `nets.py` makes random nets. A failing example prints its seed and how to repeat it.
"""

import os

from hypothesis import HealthCheck, settings

os.environ["KERAS_BACKEND"] = "torch"  # what the Keras importer is compared with

settings.register_profile(
    "rtcore", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("rtcore")
