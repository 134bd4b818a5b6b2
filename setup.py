"""Builds the Cython extensions: every one compiles the kernel sources of rtcore/csrc as they are.

RTCORE_SANITIZE=1 builds them under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import runpy
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

build = runpy.run_path(str(Path(__file__).parent / "rtcore" / "_build.py"))
SANITIZE = list(build["SANITIZE_FLAGS"]) if os.environ.get("RTCORE_SANITIZE") == "1" else []


def extension(name: str, *sources: str) -> Extension:
    """rtcore.<name>, linked with the kernel sources that it calls."""
    kernels = [f"rtcore/csrc/{source}" for source in sources]
    return Extension(
        f"rtcore.{name}",
        [f"rtcore/{name}.pyx", *kernels, "rtcore/host/rtcore_host.c"],
        depends=[str(p) for p in sorted([*Path("rtcore/csrc").glob("*.h"), *Path("rtcore/host").glob("*.h")])]
        + [f"rtcore/{name}.pxd" for name in ("crtcore", "crtcore_f32", "layer", "layer_f32", "recurrent")],
        include_dirs=["rtcore/csrc", "rtcore/host", numpy.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=[*build["HOST_FLAGS"], *SANITIZE],
        extra_link_args=SANITIZE,
    )


I16 = build["SOURCES_I16"]
MATRIX = ("rtcore_sigma.c", "rtcore_sums4.c", "rtcore_stream_i16.c", "rtcore_matrix_i16.c")

setup(
    ext_modules=cythonize(
        [
            extension("layer", *MATRIX),
            extension("recurrent", "rtcore_state_i16.c"),
            extension("fixed", "rtcore_sigma.c"),
            extension("dense_i16", *MATRIX, "rtcore_dense_i16.c"),
            extension("gru_i16", *MATRIX, "rtcore_gru_i16.c"),
            extension("lstm_i16", *MATRIX, "rtcore_lstm_i16.c", "rtcore_state_i16.c"),
            extension("rnn_i16", *MATRIX, "rtcore_rnn_i16.c"),
            extension("elementwise_i16", "rtcore_sigma.c", "rtcore_elementwise_i16.c"),
            extension(
                "window_i16",
                *MATRIX,
                *("rtcore_window.c", "rtcore_conv_i16.c", "rtcore_pool_i16.c"),
                *("rtcore_depthwise_i16.c", "rtcore_depthwise_stream_i16.c"),
            ),
            extension("copy_i16", "rtcore_copy_i16.c", "rtcore_state_i16.c"),
            extension("function_i16", "rtcore_scalar.c", "rtcore_function_i16.c"),
            extension("normalize_i16", "rtcore_scalar.c", "rtcore_normalize_i16.c"),
            extension("layer_f32"),
            extension("dense_f32", "rtcore_math_f32.c", "rtcore_dense_f32.c"),
            extension("gru_f32", "rtcore_math_f32.c", "rtcore_gru_f32.c"),
            extension("lstm_f32", "rtcore_math_f32.c", "rtcore_lstm_f32.c"),
            extension("rnn_f32", "rtcore_math_f32.c", "rtcore_rnn_f32.c"),
            extension("window_f32", "rtcore_math_f32.c", "rtcore_window_f32.c"),
            extension("causal_conv_f32", "rtcore_math_f32.c", "rtcore_window_f32.c"),
            extension("normalize_f32", "rtcore_math_f32.c", "rtcore_normalize_f32.c"),
            extension("function_f32", "rtcore_math_f32.c", "rtcore_function_f32.c"),
            extension("net"),
        ],
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False},
    )
)
