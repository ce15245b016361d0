"""The reader of torch.save's files: their values exactly, and never a line of their code."""

import collections
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch_files
from torch_files import Call, Global, Tensor

from fa_hific_jax.convert.inert_pickle import Record
from fa_hific_jax.convert.torch_file import INDEX_LIMIT, read_torch_file
from fa_hific_jax.errors import UserError

WRITERS = {"zip": torch_files.save, "legacy": torch_files.save_legacy}
BASE = np.arange(24, dtype=np.float32)


def sample():
    """A value with every kind of content, and what it is to be read as."""
    written = collections.OrderedDict(
        weight=BASE.reshape(4, 6),
        transposed=Tensor(BASE, (6, 4), (1, 6)),
        window=Tensor(BASE, (2, 3), (6, 1), offset=8),
        expanded=Tensor(BASE, (3, 2), (0, 1), offset=5),
        scalar=Tensor(BASE, (), (), offset=7),
        empty=Tensor(BASE, (0, 3), (3, 1)),
        double=np.linspace(0, 1, 3),
        half=np.float16([1.5, -2.0]),
        bfloat=Tensor(np.uint16([0x3FC0, 0xC000]), dtype="bfloat16"),
        integers=np.int64([1, -2]),
        flags=np.array([True, False]),
        parameter=Call("torch._utils", "_rebuild_parameter", BASE[:2].copy(), True, {}),
        size=Call("torch", "Size", (2, 3)),
        device=Call("torch", "device", "cuda", 0),
        dtype=Global("torch", "float32"),
        number=Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "f8"), b"\0" * 8),
        plain=[None, True, 1, 1 << 70, 2.5, "text", b"bytes", (1, (2,)), {"a": {3: "b"}}],
        repeated=[BASE] * 2,
    )
    windowed = [[5, 6], [5, 6], [5, 6]]
    expected = dict(
        weight=BASE.reshape(4, 6),
        transposed=BASE.reshape(4, 6).T,
        window=np.float32([[8, 9, 10], [14, 15, 16]]),
        expanded=np.float32(windowed),
        scalar=np.float32(7),
        empty=np.zeros((0, 3), np.float32),
        double=np.float64([0, 0.5, 1]),
        half=np.float16([1.5, -2.0]),
        bfloat=np.float32([1.5, -2.0]),
        integers=np.int64([1, -2]),
        flags=np.array([True, False]),
        parameter=np.float32([0, 1]),
        size=(2, 3),
        device="cuda:0",
        dtype="float32",
        number=0.0,
        plain=written["plain"],
        repeated=[BASE, BASE],
    )
    return written, expected


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_every_kind_of_content_is_read_exactly(tmp_path, save):
    written, expected = sample()
    found = read_torch_file(save(tmp_path / "a.pt", written))
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray | np.floating):
            assert found[name].dtype == value.dtype, name
            np.testing.assert_array_equal(found[name], value, strict=True, err_msg=name)
        elif name != "repeated":
            assert found[name] == value, name
            assert type(found[name]) is type(value), name
    np.testing.assert_array_equal(found["repeated"], expected["repeated"])


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_pytorch_itself_are_read_exactly(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    module = torch.nn.Conv2d(3, 5, 4).bfloat16()
    base = torch.arange(24.0).reshape(4, 6)
    written = {
        "state": module.state_dict(),
        "t": base.t(),
        "w": base[1:3, 2:5],
        "size": base.size(),
    }
    torch.save(written, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = read_torch_file(tmp_path / "a.pt")
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(found["state"][name], tensor.float().numpy(), strict=True)
    np.testing.assert_array_equal(found["t"], base.t().numpy(), strict=True)
    np.testing.assert_array_equal(found["w"], base[1:3, 2:5].numpy(), strict=True)
    assert found["size"] == (4, 6)


def test_big_endian_files_are_read_in_native_order(tmp_path):
    data, _ = torch_files.pickled([BASE])
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", "big")
        file.writestr("archive/data/0", BASE.astype(">f4").tobytes())
    np.testing.assert_array_equal(read_torch_file(path)[0], BASE, strict=True)


@pytest.mark.parametrize(
    "module, name",
    [
        ("argparse", "Namespace"),
        ("types", "SimpleNamespace"),
        ("default_config", "hific_args"),
        ("src.helpers.utils", "Struct"),
    ],
)
def test_a_record_keeps_the_state_of_known_classes(tmp_path, module, name):
    state = {"regime": "low", "normalize_input_image": True}
    found = read_torch_file(torch_files.save(tmp_path / "a.pt", Call(module, name, state=state)))
    assert isinstance(found, Record)
    assert (found.kind, found.state) == (f"{module}.{name}", state)


def payloads(target: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that would create the file `target`, and the global that each is refused for."""
    command = f"touch {target}"

    class Reduced:
        def __init__(self, function, *arguments):
            self.pair = function, arguments

        def __reduce__(self):
            return self.pair

    import os
    import subprocess

    program = f"open({target!r}, 'w')"
    nested = Call("builtins", "getattr", Global("os", "x"), "system")
    opcode = pickle
    return {
        "os.system": (pickle.dumps(Reduced(os.system, command), 2), "posix.system"),
        "eval": (pickle.dumps(Reduced(eval, program), 2), "__builtin__.eval"),
        "exec": (pickle.dumps(Reduced(exec, program), 4), "builtins.exec"),
        "subprocess": (
            pickle.dumps(Reduced(subprocess.Popen, ["touch", target]), 4),
            "subprocess.Popen",
        ),
        "getattr": (torch_files.pickled(nested)[0], "builtins.getattr"),
        "INST": (b"(S'" + command.encode() + b"'\nios\nsystem\n.", "os.system"),
        "OBJ": (b"(cos\nsystem\nS'" + command.encode() + b"'\no.", "os.system"),
        "NEWOBJ": (b"cos\nsystem\n(S'" + command.encode() + b"'\nt\x81.", "os.system"),
        "STACK_GLOBAL": (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93" + opcode.MARK + opcode.TUPLE + b"R.",
            "os.system",
        ),
        "__setstate__": (
            torch_files.pickled(
                Call("argparse", "Namespace", state={"__setstate__": Global("os", "system")})
            )[0],
            "os.system",
        ),
        "dotted": (b"ctorch\n_utils.os.system\n.", "torch._utils.os.system"),
        "numpy": (b"cnumpy.f2py.crackfortran\nmyeval\n.", "numpy.f2py.crackfortran.myeval"),
        "storage": (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        "odd name": (b"cos\n\x1b[2Jsystem\n.", r"os\.\\x1b\[2Jsystem"),
    }


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", payloads(""))
def test_code_in_a_file_is_refused_by_name_and_never_runs(tmp_path, name, form):
    target = tmp_path / "ran"
    data, refused = payloads(str(target))[name]
    path = tmp_path / "a.pt"
    if form == "zip":
        torch_files.archive(path, data, {})
    else:
        path.write_bytes(torch_files.save_legacy(path, [BASE]).read_bytes()[:14] + data)
        head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
        path.write_bytes(b"".join(head) + data)
    with pytest.raises(UserError, match=f"refers to {refused}, which could run code"):
        read_torch_file(path)
    assert not target.exists()


def test_state_given_to_an_object_changes_only_records(tmp_path):
    # pickle.loads would call __setstate__, or set attributes of the function itself.
    record = read_torch_file(
        torch_files.save(
            tmp_path / "a.pt", Call("argparse", "Namespace", state={"__class__": "x", "state": 1})
        )
    )
    assert type(record) is Record
    assert record.state == {"__class__": "x", "state": 1}
    data = b"ctorch._utils\n_rebuild_tensor_v2\n}U\x08__code__K\x01sb."
    with pytest.raises(UserError, match="damaged"):
        read_torch_file(torch_files.archive(tmp_path / "b.pt", data, {}))


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", Tensor(BASE, (5, 6), (6, 1)))
    with pytest.raises(UserError, match=r"shape \(5, 6\) needs 30 values, its storage has 24"):
        read_torch_file(path)
    data, _ = torch_files.pickled([BASE])
    path = torch_files.archive(tmp_path / "b.pt", data, {"data/0": BASE[:5]})
    with pytest.raises(UserError, match="a storage of 24 values has 20 bytes, not 96"):
        read_torch_file(path)


def test_repeating_one_value_does_not_make_a_huge_tensor(tmp_path):
    path = torch_files.save(tmp_path / "a.pt", Tensor(BASE, (1 << 20, 1 << 20), (0, 0)))
    with pytest.raises(UserError, match="larger than the whole file"):
        read_torch_file(path)


def test_bombs_are_refused_by_their_declared_sizes(tmp_path):
    zeros = np.zeros(1 << 20, np.float32)
    data, _ = torch_files.pickled([zeros])
    bomb = torch_files.archive(
        tmp_path / "a.pt", data, {"data/0": zeros}, compression=zipfile.ZIP_DEFLATED
    )
    assert bomb.stat().st_size < 1 << 14
    with pytest.raises(UserError, match="declares more bytes than it has"):
        read_torch_file(bomb)
    small = torch_files.archive(
        tmp_path / "b.pt", data, {"x": np.random.bytes(9)}, compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(UserError, match="compressed or encrypted"):
        read_torch_file(small)
    index = torch_files.archive(tmp_path / "c.pt", b"N" * (INDEX_LIMIT + 1), {})
    with pytest.raises(UserError, match="more than any list of tensors"):
        read_torch_file(index)


def test_a_deeply_nested_key_is_refused_before_it_is_hashed(tmp_path):
    # Hashing such a tuple overflows the stack of the interpreter.
    data = b"})" + b"\x85" * 100_000 + b"Ns."
    with pytest.raises(UserError, match="damaged"):
        read_torch_file(torch_files.archive(tmp_path / "a.pt", data, {}))


@pytest.mark.parametrize(
    "value",
    [
        Call("torch", "Size", Tensor(BASE)),
        Call("torch", "device", ((),)),
        Call("torch._utils", "_rebuild_tensor_v2", 1, 0, (2,), (1,)),
        Call("torch._utils", "_rebuild_tensor_v2", Tensor(BASE), 0, (2,), Tensor(BASE)),
        Call("torch._utils", "_rebuild_tensor_v2", Tensor(BASE), 0, (-2,), (1,)),
        Call("torch._utils", "_rebuild_tensor_v2", Tensor(BASE), 0, (2,), (1 << 99,)),
        Call("torch._utils", "_rebuild_tensor_v2", Tensor(BASE), 0, (0, 1 << 99), (1, 1)),
        Call("torch._utils", "_rebuild_tensor_v2", Tensor(BASE), 0, (1,) * 64, (1,) * 64),
        Call("numpy.core.multiarray", "scalar", Call("numpy", "dtype", "O8"), b"\0" * 8),
        Call("_codecs", "encode", "a", "zip"),
        Call("collections", "OrderedDict", [(((),), 1)]),
        Tensor(BASE[:1], (1 << 5000,), (0,)),
    ],
)
@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_arguments_that_make_no_sense_are_refused(tmp_path, save, value):
    with pytest.raises(UserError, match="damaged|needs .* values|larger than the whole"):
        read_torch_file(save(tmp_path / "a.pt", value))


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is not a file of torch.save but a PNG image"),
        (struct.pack("<Q", 40) + b'{"a":' + bytes(60), "but a safetensors file"),
        (b"<!DOCTYPE html><html>", "but a web page: download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\n", "but a Git LFS pointer"),
        (b"hello", "is not a file of torch.save: name a checkpoint"),
    ],
    ids=["empty", "png", "safetensors", "html", "lfs", "text"],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, sentence):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_torch_file(path)


def test_missing_files_folders_and_other_archives_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_torch_file(tmp_path / "none.pt")
    with pytest.raises(UserError, match="is a folder"):
        read_torch_file(tmp_path)
    np.savez(tmp_path / "a.npz", a=BASE)
    with pytest.raises(UserError, match="without data.pkl"):
        read_torch_file(tmp_path / "a.npz")
    torch_files.archive(tmp_path / "b.pt", b"N.", {"constants.pkl": b"N."})
    with pytest.raises(UserError, match="a TorchScript program"):
        read_torch_file(tmp_path / "b.pt")


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_a_file_cut_short_is_named(tmp_path, save):
    whole = save(tmp_path / "a.pt", [BASE]).read_bytes()
    for length in range(20, len(whole), 7):
        (tmp_path / "b.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match="damaged or cut short"):
            read_torch_file(tmp_path / "b.pt")


@pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)
def test_mutations_of_a_file_give_a_value_or_a_sentence(tmp_path, save):
    written, _ = sample()
    whole = np.frombuffer(save(tmp_path / "a.pt", written).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "b.pt", 0
    tracemalloc.start()
    for _ in range(150):
        damaged = whole.copy()
        where = rng.integers(len(whole), size=rng.integers(1, 9))
        damaged[where] = rng.integers(256, size=where.size)
        start, stop = np.sort(rng.integers(len(whole), size=2))
        if rng.random() < 0.3:
            damaged = np.concatenate([damaged[:start], damaged[stop:]])
        path.write_bytes(damaged.tobytes())
        try:
            read_torch_file(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 15
    assert peak < 1 << 25


def test_mutations_of_the_index_give_a_value_or_a_sentence(tmp_path):
    written, _ = sample()
    data, storages = torch_files.pickled(written)
    members = {f"data/{i}": array for i, array in enumerate(storages)}
    rng, opcodes = (
        np.random.default_rng(1),
        np.frombuffer(
            b"(.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu})]\x81\x85\x86\x87\x93\x94", np.uint8
        ),
    )
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(data, np.uint8).copy()
        where = rng.integers(len(data), size=rng.integers(1, 4))
        damaged[where] = rng.choice(opcodes, size=where.size)
        try:
            read_torch_file(torch_files.archive(tmp_path / "a.pt", damaged.tobytes(), members))
        except UserError:
            refused += 1
    assert refused > 50
