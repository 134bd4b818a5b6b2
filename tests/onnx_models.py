"""ONNX models that the importer's tests share: single operators, and what onnxruntime says of them.

Agreement is 1e-5 of the peak, as with torch: the graph runs in float64, onnxruntime in float32. Neighbours:
`quantize/test_onnx_operators.py`, `quantize/test_onnx.py`, `quantize/test_onnx_exports.py`.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def array(*shape, seed=0, low=-1.0, high=1.0):
    """float32, uniform."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def value_info(name, shape, dtype=np.float32):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def model(nodes, inputs, outputs, constants, opset=17, **graph):
    """nodes: of helper.make_node; inputs: name -> shape (or array, for its shape and dtype); outputs: names, or value
    infos where onnx cannot infer them; constants: name -> array."""
    given = [value_info(n, list(getattr(s, "shape", s)), getattr(s, "dtype", np.float32)) for n, s in inputs.items()]
    made = helper.make_graph(
        nodes,
        "net",
        given,
        [onnx.ValueInfoProto(name=output) if isinstance(output, str) else output for output in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        **graph,
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset < 19 else 10)
    return onnx.shape_inference.infer_shapes(whole) if any(isinstance(o, str) for o in outputs) else whole


def one(op, x, constants=(), opset=17, outputs=("y",), shape=None, **attrs):
    """A model of one node: input x (an array), then its constants in order (None: left out)."""
    names = ["x"] + [("" if value is None else f"c{i}") for i, value in enumerate(constants)]
    node = helper.make_node(op, names, list(outputs), name=f"the_{op.lower()}", **attrs)
    given = {f"c{i}": value for i, value in enumerate(constants) if value is not None}
    return model([node], {"x": x if shape is None else shape}, [name for name in outputs if name], given, opset)


def reference(proto, feeds):
    """onnxruntime's outputs, in the order of the model's."""
    import onnxruntime  # noqa: PLC0415 (a development extra)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def agree(got, want):
    """Arrays (or a dict of them) equal onnxruntime's to 1e-5 of the peak."""
    got = list(got.values()) if isinstance(got, dict) else [got]
    assert len(got) == len(want)
    for mine, its in zip(got, want, strict=True):
        assert mine.shape == its.shape
        error, peak = np.abs(mine - its).max(), np.abs(its).max()
        assert error <= 1e-5 * peak + 1e-7, f"off by {error:.3g} of {peak:.3g}"
        assert its.any()  # zeros would prove nothing


def saved(proto, path):
    onnx.save(proto, path)
    return path
