"""Exported programs and .pt2 files: what a file keeps, and that nothing but data is ever loaded from one."""

from __future__ import annotations

import io
import pickle
import zipfile

import pytest
import torch
from torch import nn

from quantize.errors import FormatError
from quantize.float_run import run_graph
from quantize.torch_import import import_model
from torch_models import BOTH, FC, FORMS, GRU, exported, merged_steps, module, ops, randn, same, saved

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export's, about its own treatment of nn.GRU

FILED = ["steps as batch", "own gru", "in place", "in place, seen by another", "no_grad", "h_n of two layers, reshaped"]


@pytest.mark.parametrize("name", FILED)
def test_pt2_round_trip(name, tmp_path):
    forward, members = FORMS[name]
    model = module(forward, **members)
    path = saved(exported(model, randn(2, 5, 3)), tmp_path / "model.pt2")
    graph = import_model(path, randn(4, 9, 3))
    x = randn(3, 8, 3)
    same(run_graph(graph, x), model(x))
    direct = import_model(model, randn(2, 5, 3))
    assert ops(direct) == ops(graph)
    assert [node.where for node in direct.nodes if node.op in ("gru", "linear")] == [
        node.where for node in graph.nodes if node.op in ("gru", "linear")
    ]


def test_program_with_free_sizes():
    model = module(merged_steps, **BOTH)
    batch = torch.export.Dim("batch")
    program = exported(model, randn(2, 5, 3), dynamic_shapes={"x": {0: batch}})
    graph = import_model(program, randn(4, 9, 3))
    x = randn(3, 8, 3)
    same(run_graph(graph, x), model(x))


def test_program_with_free_length():
    model = module(lambda self, x: self.fc(x) * 2, **FC)
    program = exported(model, randn(2, 5, 3), dynamic_shapes={"x": {1: torch.export.Dim("time", min=2, max=30)}})
    x = randn(3, 40, 3)
    same(run_graph(import_model(program), x), model(x))


def test_program_with_an_argument_left_out():
    model = module(lambda self, h, x: self.rnn(x, h)[0], **GRU)
    graph = import_model(exported(model, None, randn(2, 5, 3)))
    x = randn(3, 8, 3)
    same(run_graph(graph, x), model(None, x))


def test_older_pt2(tmp_path):
    """The archive that torch wrote before 2.8."""
    serialize = pytest.importorskip("torch._export.serde.serialize", reason="private to torch: may move").serialize
    model = module(lambda self, x: self.fc(x), **FC)
    parts = serialize(exported(model, randn(2, 5, 3)))
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("version", "8.8")
        archive.writestr("serialized_exported_program.json", parts.exported_program)
        archive.writestr("serialized_state_dict.pt", parts.state_dict)
        archive.writestr("serialized_constants.pt", parts.constants)
        archive.writestr("serialized_example_inputs.pt", parts.example_inputs)
    x = randn(3, 8, 3)
    same(run_graph(import_model(str(tmp_path / "old.pt2")), x), model(x))


class Bomb:
    """Unpickling it would leave a mark."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_files_that_are_no_programs(tmp_path):
    path = tmp_path / "model.pt2"
    with pytest.raises(FormatError, match=r"cannot read .*model\.pt2: No such file"):
        import_model(path, randn(2, 5, 3))
    for content in (b"", b"garbage" * 100, pickle.dumps(Bomb())):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"model\.pt2 is not a \.pt2 file.*torch\.export\.save"):
            import_model(path, randn(2, 5, 3))
    torch.save(Bomb(), path)
    with pytest.raises(FormatError, match="pickled Python objects .torch.save"):
        import_model(path, randn(2, 5, 3))
    torch.jit.save(torch.jit.script(nn.Linear(3, 2)), path)
    with pytest.raises(FormatError, match="TorchScript"):
        import_model(path, randn(2, 5, 3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.txt", "hello")
    with pytest.raises(FormatError, match="holds other files, it is not a .pt2"):
        import_model(path, randn(2, 5, 3))
    with pytest.raises(FormatError, match="cannot read"):
        import_model(tmp_path, randn(2, 5, 3))


def rewritten(path, target, edit):
    """Copy a zip, each member's bytes through edit(name, bytes)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, edit(name, old.read(name)))
    return target


def test_damaged_files(tmp_path):
    path = saved(exported(module(lambda self, x: self.fc(x), **FC), randn(2, 5, 3)), tmp_path / "model.pt2")
    whole = path.read_bytes()
    for end in (10, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:end])
        with pytest.raises(FormatError, match=r"model\.pt2"):
            import_model(path)
    at = whole.index(b'"graph_module"')
    path.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
    with pytest.raises(FormatError, match="model.json fails its checksum"):
        import_model(path)
    path.write_bytes(whole)
    edited = rewritten(path, tmp_path / "e.pt2", lambda n, b: b[: len(b) // 2] if n.endswith("model.json") else b)
    with pytest.raises(FormatError, match="e.pt2 cannot be loaded"):
        import_model(edited)
    edited = rewritten(path, tmp_path / "e.pt2", lambda n, b: b"{" if n.endswith("weights_config.json") else b)
    with pytest.raises(FormatError, match="e.pt2 is damaged"):
        import_model(edited)


def test_pickles_inside_a_pt2_are_refused(tmp_path):
    path = saved(exported(module(lambda self, x: self.fc(x), **FC), randn(2, 5, 3)), tmp_path / "model.pt2")
    buffer = io.BytesIO()
    torch.save((Bomb(),), buffer)
    bomb = buffer.getvalue()
    edits = {
        "sample": lambda n, b: bomb if "sample_inputs" in n else b,
        "weights": lambda n, b: b.replace(b'"use_pickle": false', b'"use_pickle": true') if "config" in n else b,
        "constants": lambda n, b: b.replace(b"weight_0", b"opaque_obj_0") if "config" in n else b,
    }
    for name, edit in edits.items():
        edited = rewritten(path, tmp_path / f"{name}.pt2", edit)
        with pytest.raises(FormatError, match="holds pickled Python objects"):
            import_model(edited)
