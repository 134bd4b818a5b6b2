"""Keras models, one for each layer and option that the importer takes: name -> a function that makes (model, samples).

Neighbours: `quantize/keras_import.py` (reads them), `quantize/test_keras.py`, `firmware/test_keras_mcu.py` (run them).
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers as L

SEED = 21
MODELS = {}


def seeded(model, seed=SEED):
    """The model with every weight drawn anew, biases and statistics included: trained ones are not zero or one."""
    rng = np.random.default_rng(seed)
    arrays = []
    for variable in model.weights:
        values = 0.4 * rng.standard_normal(variable.shape)
        arrays.append(np.abs(values) + 0.2 if "variance" in variable.path else values)
    model.set_weights(arrays)
    return model


def frames(*shape, seed=SEED):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def add(name, make, *shapes):
    MODELS[name] = lambda: (seeded(make()), tuple(frames(*shape, seed=i) for i, shape in enumerate(shapes)))


def chain(name, shape, *makers):
    """A Sequential of the layers that the makers give, on an input of this shape."""
    sizes = tuple(9 if n is None else n for n in shape)
    add(name, lambda: keras.Sequential([keras.Input(shape), *(make() for make in makers)]), (2, *sizes))


# --- recurrent ------------------------------------------------------------------------------------------------------

for _after in (True, False):
    for _act in ("tanh", "relu", "sigmoid", "linear"):
        chain(
            f"gru-{_act}-{_after}",
            (None, 5),
            lambda a=_act, r=_after: L.GRU(4, activation=a, reset_after=r, return_sequences=True),
        )
    chain(f"gru-last-{_after}", (None, 5), lambda r=_after: L.GRU(4, reset_after=r), lambda: L.Dense(3))
    chain(f"gru-no-bias-{_after}", (None, 5), lambda r=_after: L.GRU(4, reset_after=r, use_bias=False))
    chain(
        f"gru-backwards-{_after}",
        (None, 5),
        lambda r=_after: L.GRU(4, reset_after=r, go_backwards=True, return_sequences=True),
    )
chain("lstm", (None, 5), lambda: L.LSTM(4, return_sequences=True))
chain("lstm-no-bias-backwards", (None, 5), lambda: L.LSTM(4, use_bias=False, go_backwards=True))
chain("lstm-dropout", (None, 5), lambda: L.LSTM(4, dropout=0.3, recurrent_dropout=0.2), lambda: L.Dropout(0.5))
for _act in ("tanh", "relu"):
    chain(f"rnn-{_act}", (None, 5), lambda a=_act: L.SimpleRNN(4, activation=a, return_sequences=True))
for _act in ("tanh", "relu"):
    for _after in (True, False):
        chain(
            f"gru-hard-{_act}-{_after}",
            (None, 5),
            lambda a=_act, r=_after: L.GRU(
                4, activation=a, reset_after=r, recurrent_activation="hard_sigmoid", return_sequences=True
            ),
        )
HARD = dict(recurrent_activation="hard_sigmoid")
chain("gru-hard-backwards", (None, 5), lambda: L.GRU(4, use_bias=False, go_backwards=True, **HARD), lambda: L.Dense(3))
chain("lstm-hard", (None, 5), lambda: L.LSTM(4, return_sequences=True, **HARD))
chain("lstm-hard-last", (None, 5), lambda: L.LSTM(4, use_bias=False, go_backwards=True, **HARD))
for _kind in ("GRU", "LSTM", "SimpleRNN"):
    chain(f"unrolled-{_kind}", (9, 5), lambda k=_kind: getattr(L, k)(4, unroll=True, zero_output_for_mask=True))
CELLS = {
    "gru": lambda **k: L.GRU(4, **k),
    "gru-before": lambda **k: L.GRU(4, reset_after=False, **k),
    "gru-hard": lambda **k: L.GRU(4, **HARD, **k),
    "lstm": lambda **k: L.LSTM(4, **k),
    "lstm-hard": lambda **k: L.LSTM(4, **HARD, **k),
    "rnn": lambda **k: L.SimpleRNN(4, **k),
}
for _cell in CELLS:
    for _mode in ("concat", "sum", "mul", "ave"):
        for _all in (True, False):
            chain(
                f"both-{_cell}-{_mode}-{_all}",
                (None, 5),
                lambda c=_cell, m=_mode, s=_all: L.Bidirectional(CELLS[c](return_sequences=s), merge_mode=m),
            )


def both(cell, mode, sequences):
    x = keras.Input((None, 5), name="x")
    layer = L.Bidirectional(CELLS[cell](return_sequences=sequences, return_state=True), merge_mode=mode)
    return keras.Model(x, list(layer(x)))


for _cell in CELLS:
    add(f"both-states-{_cell}", lambda c=_cell: both(c, "concat", True), (2, 9, 5))
    add(f"both-apart-{_cell}", lambda c=_cell: both(c, None, False), (2, 9, 5))


def unlike_directions():
    x = keras.Input((None, 5), name="x")
    other = L.GRU(4, go_backwards=True, return_sequences=True)
    return keras.Model(x, L.Bidirectional(L.LSTM(4, return_sequences=True), backward_layer=other)(x))


def states_in_and_out(**gates):
    x, h = keras.Input((None, 5), name="x"), keras.Input((4,), name="h")
    y, last = L.GRU(4, return_sequences=True, return_state=True, **gates)(x, initial_state=h)
    return keras.Model([x, h], [y, last])


def encoder_decoder(**gates):
    heard, asked = keras.Input((None, 5), name="heard"), keras.Input((None, 3), name="asked")
    _, h, c = L.LSTM(4, return_state=True, **gates)(heard)
    y = L.LSTM(4, return_sequences=True, **gates)(asked, initial_state=[h, c])
    return keras.Model([heard, asked], L.Dense(2)(y))


def both_from_a_state():
    x, h = keras.Input((7, 5), name="x"), keras.Input((4,), name="h")
    return keras.Model([x, h], L.Bidirectional(L.GRU(4))(x, initial_state=[h, h]))


add("unlike-directions", unlike_directions, (2, 9, 5))
add("states-in-and-out", states_in_and_out, (2, 9, 5), (2, 4))
add("encoder-decoder", encoder_decoder, (2, 9, 5), (2, 6, 3))
add("states-in-and-out-hard", lambda: states_in_and_out(**HARD), (2, 9, 5), (2, 4))
add("encoder-decoder-hard", lambda: encoder_decoder(**HARD), (2, 9, 5), (2, 6, 3))
add("both-from-a-state", both_from_a_state, (2, 7, 5), (2, 4))

# --- windows --------------------------------------------------------------------------------------------------------

for _pad in ("valid", "same", "causal"):
    for _stride, _dilation, _size in ((1, 1, 2), (1, 1, 3), (2, 1, 2), (2, 1, 3), (3, 1, 2), (1, 2, 2), (1, 2, 3)):
        chain(
            f"conv1d-{_pad}-{_stride}-{_dilation}-{_size}",
            (12, 6),
            lambda p=_pad, s=_stride, d=_dilation, k=_size: L.Conv1D(
                4, k, strides=s, dilation_rate=d, padding=p, groups=2, activation="relu"
            ),
        )
for _pad in ("valid", "same"):
    for _stride, _dilation in ((1, 1), (2, 1), (1, 2)):
        _how = dict(strides=_stride, dilation_rate=_dilation, padding=_pad)
        _name = f"{_pad}-{_stride}-{_dilation}"
        chain(f"depthwise1d-{_name}", (12, 6), lambda k=_how: L.DepthwiseConv1D(2, depth_multiplier=2, **k))
        chain(
            f"separable1d-{_name}",
            (12, 6),
            lambda k=_how: L.SeparableConv1D(5, 2, depth_multiplier=2, activation="tanh", **k),
        )
        chain(f"conv2d-{_name}", (9, 8, 4), lambda k=_how: L.Conv2D(6, (2, 3), groups=2, **k))
        chain(f"depthwise2d-{_name}", (9, 8, 4), lambda k=_how: L.DepthwiseConv2D((3, 2), activation="relu", **k))
        chain(f"separable2d-{_name}", (9, 8, 4), lambda k=_how: L.SeparableConv2D(5, 3, use_bias=False, **k))
    for _size, _stride in ((2, None), (3, 1), (2, 1), (3, 2), (4, 1), (2, 3)):
        _how = dict(strides=_stride, padding=_pad)
        _name = f"{_pad}-{_size}-{_stride}"
        chain(f"largest1d-{_name}", (13, 3), lambda n=_size, k=_how: L.MaxPooling1D(n, **k))
        chain(f"largest2d-{_name}", (13, 8, 3), lambda n=_size, k=_how: L.MaxPooling2D((n, 2), **k))
chain("mean1d", (13, 3), lambda: L.AveragePooling1D(4, 3))
chain("mean1d-same", (13, 3), lambda: L.AveragePooling1D(3, 1, padding="same"))
chain("mean2d", (13, 8, 3), lambda: L.AveragePooling2D((2, 3), 2))
chain("mean2d-same", (13, 9, 3), lambda: L.AveragePooling2D(3, 2, padding="same"))
for _what in ("Average", "Max"):
    for _keep in (True, False):
        chain(
            f"all-1d-{_what}-{_keep}", (13, 3), lambda w=_what, k=_keep: getattr(L, f"Global{w}Pooling1D")(keepdims=k)
        )
        chain(
            f"all-2d-{_what}-{_keep}", (9, 5, 3), lambda w=_what, k=_keep: getattr(L, f"Global{w}Pooling2D")(keepdims=k)
        )
chain(
    "causal-stream",
    (None, 6),
    lambda: L.Conv1D(4, 3, padding="causal", dilation_rate=2),
    lambda: L.ReLU(),
    lambda: L.GRU(3, return_sequences=True),
)
chain("channels-first", (3, 12), lambda: L.Conv1D(4, 2, padding="same", data_format="channels_first"), lambda: L.ReLU())
chain(
    "image",
    (8, 8, 2),
    lambda: L.Conv2D(4, 3, padding="same", use_bias=False),
    lambda: L.BatchNormalization(),
    lambda: L.ReLU(),
    lambda: L.MaxPooling2D(),
    lambda: L.SpatialDropout2D(0.2),
    lambda: L.Flatten(),
    lambda: L.Dense(3, activation="softmax"),
)
chain(
    "video",
    (None, 8, 8, 3),
    lambda: L.TimeDistributed(L.Conv2D(2, 3, strides=2, activation="relu")),
    lambda: L.TimeDistributed(L.Flatten()),
    lambda: L.TimeDistributed(L.Dense(5, activation="tanh")),
    lambda: L.GRU(4),
)
for _name, _shape, _make in (
    ("zeros1d", (14, 5), lambda: L.ZeroPadding1D((1, 2))),
    ("zeros2d", (6, 7, 5), lambda: L.ZeroPadding2D(((1, 2), (0, 3)))),
    ("cropping1d", (14, 5), lambda: L.Cropping1D((1, 0))),
    ("cropping2d", (6, 7, 5), lambda: L.Cropping2D(((1, 2), (0, 3)))),
    ("permute", (14, 5), lambda: L.Permute((2, 1))),
    ("permute2d", (6, 7, 5), lambda: L.Permute((3, 1, 2))),
    ("flatten", (6, 7, 5), lambda: L.Flatten()),
    ("reshape", (14, 5), lambda: L.Reshape((-1, 10))),
    ("rescaling", (None, 5), lambda: L.Rescaling(0.5, offset=-1.0)),
):
    chain(_name, _shape, _make)
chain("repeat", (5,), lambda: L.Dense(4), lambda: L.RepeatVector(6), lambda: L.GRU(3, return_sequences=True))

# --- functions and normalizations -----------------------------------------------------------------------------------

ACTIVATIONS = [
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "softmax",
    "log_softmax",
    "elu",
    "selu",
    "celu",
    "softplus",
    "softsign",
    "silu",
    "gelu",
    "exponential",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "mish",
    "log_sigmoid",
    "linear",
]
for _act in ACTIVATIONS:
    chain(f"dense-{_act}", (None, 5), lambda a=_act: L.Dense(4, activation=a))
    chain(f"activation-{_act}", (None, 5), lambda a=_act: L.Dense(4), lambda a=_act: L.Activation(a))
for _name, _make in {
    "relu": lambda: L.ReLU(),
    "relu-clipped": lambda: L.ReLU(max_value=1.0),
    "relu-leaking": lambda: L.ReLU(negative_slope=0.1),
    "relu-all": lambda: L.ReLU(max_value=0.5, negative_slope=0.1),
    "leaky": lambda: L.LeakyReLU(negative_slope=0.1),
    "elu": lambda: L.ELU(0.7),
    "softmax": lambda: L.Softmax(),
    "softmax-time": lambda: L.Softmax(axis=1),
    "prelu": lambda: L.PReLU(),
    "prelu-shared": lambda: L.PReLU(shared_axes=[1]),
    "prelu-time": lambda: L.PReLU(shared_axes=[2]),
    "prelu-single": lambda: L.PReLU(shared_axes=[1, 2]),
    "noise": lambda: L.GaussianNoise(1.0),
    "normal": lambda: L.BatchNormalization(epsilon=0.01),
    "normal-no-center": lambda: L.BatchNormalization(center=False),
    "normal-no-scale": lambda: L.BatchNormalization(scale=False),
    "normal-axis-1": lambda: L.BatchNormalization(axis=1),
    "layer-norm": lambda: L.LayerNormalization(epsilon=0.01),
    "layer-norm-two": lambda: L.LayerNormalization(axis=[1, 2]),
    "layer-norm-no-center": lambda: L.LayerNormalization(center=False),
    "layer-norm-no-scale": lambda: L.LayerNormalization(scale=False),
    "layer-as-activation": lambda: L.Dense(4, activation=L.LeakyReLU(negative_slope=0.05)),
}.items():
    chain(_name, (7, 5), _make)
chain("normal-stream", (None, 5), lambda: L.Dense(4), lambda: L.BatchNormalization())
chain("no-time", (5,), lambda: L.Dense(4, use_bias=False), lambda: L.Dense(2))


def indexed():
    layers = [keras.Input((None,), dtype="int32"), L.Embedding(20, 6), L.GRU(4, return_sequences=True)]
    return seeded(keras.Sequential(layers)), (np.random.default_rng(SEED).integers(0, 20, (2, 9)),)


MODELS["embedding"] = indexed

# --- wiring ---------------------------------------------------------------------------------------------------------


def merged(kind):
    a, b = keras.Input((None, 5), name="a"), keras.Input((None, 5), name="b")
    return keras.Model([a, b], getattr(L, kind)()([L.Dense(3)(a), L.Dense(3)(b)]))


def unlike_ranks():
    a, b = keras.Input((6, 5), name="a"), keras.Input((5,), name="b")
    return keras.Model([a, b], L.Add()([a, b]))


def shared():
    x = keras.Input((None, 5), name="x")
    dense = L.Dense(5, activation="tanh", name="both")
    return keras.Model(x, L.Average()([dense(x), dense(L.GRU(5, return_sequences=True)(dense(x))), x]))


def nested():
    """A functional model with two results called twice, and a Sequential one within a Sequential one."""
    a = keras.Input((6, 5), name="a")
    inner = keras.Model(a, [L.Dense(3)(a), L.GRU(4)(a)], name="inner")
    x = keras.Input((6, 5), name="x")
    p, q = inner(x)
    _, s = inner(L.Dense(5)(x))
    flat = keras.Sequential([L.Flatten(), keras.Sequential([L.Dense(4), L.Dense(4)])], name="flat")
    return keras.Model(x, [q, s, L.Concatenate()([q, s, flat(p)])])


def named():
    a, b = keras.Input((None, 5), name="a"), keras.Input((None, 5), name="b")
    return keras.Model({"a": a, "b": b}, {"left": L.Dense(3)(b), "right": L.Dense(2)(a)})


for _kind in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"):
    add(_kind, lambda k=_kind: merged(k), (2, 9, 5), (2, 9, 5))
add("unlike-ranks", unlike_ranks, (2, 6, 5), (2, 5))
add("shared", shared, (2, 9, 5))
add("nested", nested, (2, 6, 5))
MODELS["named"] = lambda: (seeded(named()), {"a": frames(2, 9, 5, seed=1), "b": frames(2, 9, 5, seed=2)})
