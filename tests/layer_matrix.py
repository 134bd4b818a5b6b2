"""The layer matrix as data: every kind of layer and its options, as small models, and the float32 class of the kind.

`firmware/test_layer_matrix.py` makes every cell a test: model x weight width x engine. README prints the same table;
`python tests/layer_matrix.py` writes its rows. Neighbours: `quantize/test_window_import.py` (importing),
`rtcore/test_layers_f32.py` (the float32 classes).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ENGINES = ("host", "C", "cortex-m0", "cortex-m4", "rv32imc")
WEIGHTS = (16, 8)


@dataclass(frozen=True)
class Row:
    """kind, option: its name in the table. make() -> nn.Module; shape: of a frame or window, beside the batch, or a
    tuple of shapes. f32: the class of its float32 form in rtcore, or "" where there is none."""

    kind: str
    option: str
    make: Callable
    shape: tuple
    f32: str = ""
    integers: int = 0  # the input holds indices below this

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.option}" if self.option else self.kind


def rows() -> list[Row]:
    """Needs torch, therefore a function."""
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415
    from torch.nn import functional as F  # noqa: PLC0415

    from quantize import nn as own  # noqa: PLC0415
    from torch_models import module  # noqa: PLC0415

    def layer(make: Callable, *shape: int, call: Callable = lambda m, x: m(x)) -> tuple[Callable, tuple]:
        return (lambda: module(lambda self, x: call(self.m, x), m=make)), shape

    def function(f: Callable, *shape: int) -> tuple[Callable, tuple]:
        return (lambda: module(lambda self, x: f(x))), shape

    first = lambda m, x: m(x)[0]  # noqa: E731 (what a recurrent layer gives for every step)
    last = lambda m, x: m(x)[1][-1]  # noqa: E731 (its last state)
    cell = lambda m, x: m(x)[1][1][-1]  # noqa: E731 (an LSTM's last cell)

    def unrolled(self, x):
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = self.m(x[:, t], h)
        return h

    def unrolled_lstm(self, x):
        h, c = x.new_zeros(len(x), 5), x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h, c = self.m(x[:, t], (h, c))
        return h + c

    def normed(kind: Callable, n: int) -> Callable:
        def make():
            norm = kind(n)
            generator = torch.Generator().manual_seed(1)
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
            return norm

        return make

    steps, image, sound = (7, 4), (3, 6, 5), (4, 12)
    gru, lstm, rnn = (dict(batch_first=True) for _ in range(3))
    both = dict(batch_first=True, bidirectional=True)
    table = [
        ("Linear", "", *layer(lambda: nn.Linear(4, 5), *steps), "DenseF32"),
        ("Linear", "bias=False", *layer(lambda: nn.Linear(4, 5, bias=False), *steps), "DenseF32"),
        ("GRU", "num_layers=2", *layer(lambda: nn.GRU(4, 5, 2, **gru), *steps, call=first), "GruF32"),
        ("GRU", "bias=False, last state", *layer(lambda: nn.GRU(4, 5, bias=False, **gru), *steps, call=last), "GruF32"),
        ("GRU", "bidirectional", *layer(lambda: nn.GRU(4, 5, **both), *steps, call=first), "GruF32"),
        ("GRU", "reset before", *layer(lambda: own.GRU(4, 5, reset_after=False, **gru), *steps, call=first), "GruF32"),
        ("GRU", "ReLU", *layer(lambda: own.GRU(4, 5, activation="relu", **gru), *steps, call=first), "GruF32"),
        ("GRU", "hard gates", *layer(lambda: own.GRU(4, 5, gate_slope=1 / 6, **gru), *steps, call=first), "GruF32"),
        ("GRU", "hard gates, reset before", *layer(
            lambda: own.GRU(4, 5, reset_after=False, gate_slope=0.2, **gru), *steps, call=first), "GruF32"),
        ("GRUCell", "loop", lambda: module(unrolled, m=lambda: nn.GRUCell(4, 5)), steps, "GruF32"),
        ("LSTM", "num_layers=2", *layer(lambda: nn.LSTM(4, 5, 2, **lstm), *steps, call=first), "LstmF32"),
        ("LSTM", "last cell", *layer(lambda: nn.LSTM(4, 5, bias=False, **lstm), *steps, call=cell), "LstmF32"),
        ("LSTM", "proj_size", *layer(lambda: nn.LSTM(4, 5, proj_size=3, **lstm), *steps, call=first), "LstmF32"),
        ("LSTM", "bidirectional", *layer(lambda: nn.LSTM(4, 5, **both), *steps, call=first), "LstmF32"),
        ("LSTM", "peepholes", *layer(lambda: own.LSTM(4, 5, peephole=True, **lstm), *steps, call=first), "LstmF32"),
        ("LSTM", "coupled gates", *layer(lambda: own.LSTM(4, 5, coupled=True, **lstm), *steps, call=first), "LstmF32"),
        ("LSTM", "hard gates", *layer(lambda: own.LSTM(4, 5, gate_slope=0.2, **lstm), *steps, call=first), "LstmF32"),
        ("LSTMCell", "loop", lambda: module(unrolled_lstm, m=lambda: nn.LSTMCell(4, 5)), steps, "LstmF32"),
        ("RNN", "tanh", *layer(lambda: nn.RNN(4, 5, **rnn), *steps, call=first), "RnnF32"),
        ("RNN", "ReLU", *layer(lambda: nn.RNN(4, 5, nonlinearity="relu", **rnn), *steps, call=first), "RnnF32"),
        ("RNN", "bidirectional", *layer(lambda: nn.RNN(4, 5, **both), *steps, call=first), "RnnF32"),
        ("RNNCell", "loop", lambda: module(unrolled, m=lambda: nn.RNNCell(4, 5)), steps, "RnnF32"),
        (
            "Conv1d",
            "causal, in a stream",
            *layer(lambda: nn.Conv1d(4, 6, 3, dilation=2), *sound, call=lambda m, x: m(F.pad(x, (4, 0)))),
            "CausalConvF32",
        ),
        (
            "Conv1d",
            "causal, depthwise",
            *layer(lambda: nn.Conv1d(4, 4, 3, groups=4), *sound, call=lambda m, x: m(F.pad(x, (2, 0)))),
            "CausalConvF32",
        ),
        ("Conv1d", "stride, padding", *layer(lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), *sound), "ConvF32"),
        ("Conv2d", "stride, padding", *layer(lambda: nn.Conv2d(3, 5, 3, (2, 1), 1), *image), "ConvF32"),
        ("Conv2d", "dilation, 1x1", *layer(lambda: nn.Sequential(nn.Conv2d(3, 5, 2, dilation=2), nn.Conv2d(5, 4, 1)),
                                          *image), "ConvF32"),
        ("Conv2d", "groups", *layer(lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), 4, 6, 5), "ConvF32"),
        ("Conv2d", "depthwise", *layer(lambda: nn.Conv2d(3, 6, 3, padding=1, groups=3), *image), "ConvF32"),
        ("MaxPool1d", "", *layer(lambda: nn.Sequential(nn.Conv1d(4, 3, 1), nn.MaxPool1d(3, 2)), *sound), "PoolF32"),
        ("MaxPool2d", "padding, dilation, ceil_mode", *layer(lambda: nn.MaxPool2d(2, 2, 1, 2, ceil_mode=True), *image),
         "PoolF32"),
        ("AvgPool1d", "", *layer(lambda: nn.Sequential(nn.Conv1d(4, 3, 1), nn.AvgPool1d(3, 2)), *sound), "PoolF32"),
        ("AvgPool2d", "padding, ceil_mode", *layer(lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True), *image), "PoolF32"),
        ("AdaptiveAvgPool2d", "to one", *layer(lambda: nn.AdaptiveAvgPool2d(1), *image), "PoolF32"),
        ("mean", "over time", *layer(lambda: nn.GRU(4, 5, **gru), *steps, call=lambda m, x: m(x)[0].mean(1)),
         "PoolF32"),
        ("BatchNorm1d", "folded", *layer(lambda: nn.Sequential(nn.Linear(4, 5), normed(nn.BatchNorm1d, 5)()), 4),
         "NormalizeF32"),
        ("BatchNorm1d", "alone", *layer(normed(nn.BatchNorm1d, 4), 4), "NormalizeF32"),
        ("BatchNorm2d", "folded", *layer(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), normed(nn.BatchNorm2d, 4)()),
                                         *image), "NormalizeF32"),
        ("BatchNorm2d", "alone", *layer(normed(nn.BatchNorm2d, 3), *image), "NormalizeF32"),
        ("LayerNorm", "", *layer(lambda: nn.LayerNorm(4), *steps), "NormalizeF32"),
        ("softmax", "", *function(lambda x: x.softmax(-1), *steps), "NormalizeF32"),
        ("log_softmax", "", *function(lambda x: x.log_softmax(-1), *steps), "NormalizeF32"),
        ("PReLU", "by channel", *layer(lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.PReLU(4)), *image), "FunctionF32"),
        ("pad, stack, permute, flip, slices", "", *function(
            lambda x: torch.stack([F.pad(x, (1, 2), value=0.5), F.pad(x.flip(1), (0, 3))], 2).permute(0, 3, 2, 1)[
                :, 1:, :, ::2], *steps), ""),
        ("cat, chunk, split", "", *function(
            lambda x: torch.cat([*x.chunk(2, 1), x[:, :, :2].transpose(1, 2).flatten(1)[:, None, :4]], 1), *steps), ""),
        ("add, sub, mul", "broadcast", *function(lambda x: (x + x[:, :1]) * x[:, :, :1] - 0.5 * x, *steps), ""),
        ("minimum, maximum, clamp", "", *function(
            lambda x: torch.maximum(torch.minimum(x, x.flip(1)), 0.3 * x).clamp(-1, 2), *steps), ""),
    ]  # fmt: skip
    for kind, f in {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "ReLU": F.relu,
        "ReLU6": F.relu6,
        "leaky ReLU": F.leaky_relu,
        "ELU": F.elu,
        "GELU": F.gelu,
        "SiLU": F.silu,
        "softplus": F.softplus,
        "softsign": F.softsign,
        "log-sigmoid": F.logsigmoid,
        "hard sigmoid": F.hardsigmoid,
        "hard tanh": F.hardtanh,
        "hard swish": F.hardswish,
        "abs": torch.abs,
        "exp": torch.exp,
        "sqrt": lambda x: x.abs().sqrt(),
    }.items():
        table.append((kind, "", *function(f, *steps), "FunctionF32"))
    found = [Row(*row) for row in table]
    embedding = layer(lambda: nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3)), 6)
    return [*found, Row("Embedding", "", *embedding, integers=9)]


def markdown() -> str:
    """The table that the README prints: a line per kind."""
    by_kind: dict[str, list[Row]] = {}
    for row in rows():
        by_kind.setdefault(row.kind, []).append(row)
    lines = [
        "| kind | options | float32 | int16/w16 | int16/w8 |",
        "|---|---|---|---|---|",
    ]
    for kind, mine in by_kind.items():
        options = "; ".join(row.option for row in mine if row.option)
        f32 = ", ".join(dict.fromkeys(f"`{row.f32}`" for row in mine if row.f32)) or "refused"
        lines.append(f"| {kind} | {options} | {f32} | yes | yes |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
