"""The one list of kernel sources and compiler flags, for setup.py, for the firmware and for the tests.

Neighbours: `setup.py` (host extensions), `quantize/emit_c.py` (copies the sources), `firmware_sim/toolchain.py`
(compiles what was copied). Imports nothing of the package, so that setup.py can load it by path.
"""

from __future__ import annotations

from pathlib import Path

CSRC = Path(__file__).resolve().parent / "csrc"

# Kernel sources by dtype; every header in csrc goes with either.
SOURCES_I16 = (
    "rtcore_sigma.c",
    "rtcore_sums4.c",
    "rtcore_stream_i16.c",
    "rtcore_matrix_i16.c",
    "rtcore_dense_i16.c",
    "rtcore_window.c",
    "rtcore_conv_i16.c",
    "rtcore_depthwise_i16.c",
    "rtcore_depthwise_stream_i16.c",
    "rtcore_pool_i16.c",
    "rtcore_gru_i16.c",
    "rtcore_lstm_i16.c",
    "rtcore_rnn_i16.c",
    "rtcore_state_i16.c",
    "rtcore_elementwise_i16.c",
    "rtcore_copy_i16.c",
    "rtcore_scalar.c",
    "rtcore_function_i16.c",
    "rtcore_normalize_i16.c",
)
SOURCES_F32 = (
    "rtcore_math_f32.c",
    "rtcore_dense_f32.c",
    "rtcore_gru_f32.c",
    "rtcore_lstm_f32.c",
    "rtcore_rnn_f32.c",
    "rtcore_window_f32.c",
    "rtcore_normalize_f32.c",
    "rtcore_function_f32.c",
)

# Cores with kernels of their own: files of these folders of csrc replace the portable ones of the same name, same bits.
CORES = {
    "portable": (),
    "cortex-m4": ("cortex_m4", "thumb2"),
    "cortex-m3": ("cortex_m3", "thumb2"),
    "cortex-m0": ("cortex_m0",),
    "cortex-m55": ("cortex_m55", "cortex_m4", "thumb2"),
    "rv32imc": ("rv32imc",),
}


def kernel_path(file: str, core: str = "portable") -> Path:
    """Where a kernel source for a core is."""
    own = (CSRC / folder / file for folder in CORES[core])
    return next((path for path in own if path.is_file()), CSRC / file)


# What every kernel and every generated file compiles under without a warning, gcc and clang.
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-pedantic", "-Werror")

# Float kernels give the same bits everywhere only when no multiply-add is contracted.
KERNEL_FLAGS = ("-std=c99", "-ffp-contract=off")

HOST_MAX_NEURONS = 2048
HOST_FLAGS = ("-O3", "-ffp-contract=off", f"-DRTCORE_MAX_NEURONS={HOST_MAX_NEURONS}", "-include", "rtcore_host.h")
SANITIZE_FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
