"""The reader of torch.save's files: their values exactly, and never a line of their code."""

import collections
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch_files
from torch_files import Call, Global, Tensor

from fa_hific_jax.convert.torch_file import INDEX_LIMIT, Record, read_torch_file
from fa_hific_jax.errors import UserError

WRITERS = {"zip": torch_files.save, "legacy": torch_files.save_legacy}
BASE = np.arange(24, dtype=np.float32)
PLAIN = [None, True, 1, 1 << 70, 2.5, "text", (1, (2,)), {"a": {3: "b"}}]
PARAMETER = Call("torch._utils", "_rebuild_parameter", BASE[:2].copy(), True, {})
BFLOAT = Tensor(np.uint16([0x3FC0, 0xC000]), dtype="bfloat16")
# Every kind of content: what is written, and what it is read as.
SAMPLE = dict(
    weight=(BASE.reshape(4, 6), BASE.reshape(4, 6)),
    transposed=(Tensor(BASE, (6, 4), (1, 6)), BASE.reshape(4, 6).T),
    window=(Tensor(BASE, (2, 3), (6, 1), offset=8), np.float32([[8, 9, 10], [14, 15, 16]])),
    expanded=(Tensor(BASE, (3, 2), (0, 1), offset=5), np.float32([[5, 6]] * 3)),
    scalar=(Tensor(BASE, (), (), offset=7), np.float32(7)),
    empty=(Tensor(BASE, (0, 3), (3, 1)), np.zeros((0, 3), np.float32)),
    double=(np.float64([0, 0.5, 1]), np.float64([0, 0.5, 1])),
    half=(np.float16([1.5, -2.0]), np.float16([1.5, -2.0])),
    bfloat=(BFLOAT, np.float32([1.5, -2.0])),
    integers=(np.int64([1, -2]), np.int64([1, -2])),
    flags=(np.array([True, False]), np.array([True, False])),
    parameter=(PARAMETER, np.float32([0, 1])),
    size=(Call("torch", "Size", (2, 3)), Record()),
    dtype=(Global("torch", "float32"), "float32"),
    plain=(PLAIN, PLAIN),
)
WRITTEN = collections.OrderedDict({name: written for name, (written, _) in SAMPLE.items()})
WRITTEN["repeated"] = [BASE] * 2
BOTH_FORMATS = pytest.mark.parametrize("save", WRITERS.values(), ids=WRITERS)


def refused(path, sentence):
    with pytest.raises(UserError, match=sentence):
        read_torch_file(path)


@BOTH_FORMATS
def test_every_kind_of_content_is_read_exactly(tmp_path, save):
    found = read_torch_file(save(tmp_path / "a.pt", WRITTEN))
    assert list(found) == list(WRITTEN)
    for name, (_, expected) in SAMPLE.items():
        if isinstance(expected, np.ndarray | np.floating):
            np.testing.assert_array_equal(found[name], expected, strict=True, err_msg=name)
        else:
            assert found[name] == expected, name
            assert type(found[name]) is type(expected), name
    np.testing.assert_array_equal(found["repeated"], [BASE, BASE])


@pytest.mark.parametrize("legacy", [False, True])
def test_files_of_pytorch_itself_are_read_exactly(tmp_path, legacy):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {"t": base.t(), "w": base[1:3, 2:5], "p": torch.nn.Parameter(base)}
    tensors |= torch.nn.Conv2d(3, 5, 4).bfloat16().state_dict()
    written = tensors | {"size": base.size()}
    torch.save(written, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = read_torch_file(tmp_path / "a.pt")
    for name, tensor in tensors.items():
        expected = tensor.detach().float().numpy()
        np.testing.assert_array_equal(found[name], expected, strict=True)


def test_objects_that_occur_again_are_read_from_the_memo(tmp_path):
    for protocol in (2, 4):
        data = pickle.dumps([PLAIN, PLAIN], protocol)
        assert read_torch_file(torch_files.archive(tmp_path / "a.pt", data, {})) == [PLAIN] * 2


def test_big_endian_files_are_read_in_native_order(tmp_path):
    data, _ = torch_files.pickled([BASE])
    members = {"byteorder": b"big", "data/0": BASE.astype(">f4")}
    path = torch_files.archive(tmp_path / "a.pt", data, members)
    np.testing.assert_array_equal(read_torch_file(path)[0], BASE, strict=True)


@pytest.mark.parametrize(
    "kind", ["argparse.Namespace", "default_config.hific_args", "src.helpers.utils.Struct"]
)
def test_a_record_keeps_the_state_of_known_classes(tmp_path, kind):
    state = {"regime": "low", "normalize_input_image": True, "__class__": "x", "state": 1}
    call = Call(*kind.rsplit(".", 1), state=state)
    found = read_torch_file(torch_files.save(tmp_path / "a.pt", call))
    assert type(found) is Record and found == state


class Reduced:
    """Pickled as a call of a function that exists here."""

    def __init__(self, function, *arguments):
        self.pair = function, arguments

    def __reduce__(self):
        return self.pair


def payloads(target: str) -> dict[str, tuple[bytes, str]]:
    """Pickles that would create the file `target`, and the global that each is refused for."""
    command, program = f"touch {target}", f"open({target!r}, 'w')"
    nested = Call("builtins", "getattr", Global("os", "x"), "system")
    given = Call("argparse", "Namespace", state={"__setstate__": Global("os", "system")})
    named = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + pickle.MARK + pickle.TUPLE + b"R."
    return {
        "os.system": (pickle.dumps(Reduced(os.system, command), 2), "posix.system"),
        "exec": (pickle.dumps(Reduced(exec, program), 4), "builtins.exec"),
        "getattr": (torch_files.pickled(nested)[0], "builtins.getattr"),
        "OBJ": (b"(cos\nsystem\no.", "os.system"),
        "NEWOBJ": (b"cos\nsystem\n)\x81.", "os.system"),
        "STACK_GLOBAL": (named, "os.system"),
        "__setstate__": (torch_files.pickled(given)[0], "os.system"),
        "dotted": (b"ctorch\n_utils.os.system\n.", "torch._utils.os.system"),
        "storage": (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        "odd name": (b"cos\n\x1b[2Jsystem\n.", r"os\.\\x1b\[2Jsystem"),
    }


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("name", payloads(""))
def test_code_in_a_file_is_refused_by_name_and_never_runs(tmp_path, name, form):
    data, named = payloads(str(tmp_path / "ran"))[name]
    path = tmp_path / "a.pt"
    if form == "zip":
        torch_files.archive(path, data, {})
    else:
        head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
        path.write_bytes(b"".join(head) + data)
    refused(path, f"refers to {named}, which could run code")
    assert not (tmp_path / "ran").exists()


TENSOR = ("torch._utils", "_rebuild_tensor_v2")
DAMAGED = {
    "too many rows": Tensor(BASE, (5, 6), (6, 1)),
    "negative stride": Tensor(BASE, (2,), (-1,)),
    "offset behind the end": Tensor(BASE, (1,), (1,), offset=24),
    "negative offset": Tensor(BASE, (1,), (1,), offset=-1),
    "one value many times": Tensor(BASE, (1 << 20, 1 << 20), (0, 0)),
    "one value too many times": Tensor(BASE[:1], (1 << 5000,), (0,)),
    "no storage": Call(*TENSOR, 1, 0, (2,), (1,)),
    "strides of a tensor": Call(*TENSOR, Tensor(BASE), 0, (2,), Tensor(BASE)),
    "negative size": Call(*TENSOR, Tensor(BASE), 0, (-2,), (1,)),
    "large stride": Call(*TENSOR, Tensor(BASE), 0, (2,), (1 << 99,)),
    "large and empty": Call(*TENSOR, Tensor(BASE), 0, (0, 1 << 99), (1, 1)),
    "nested key": Call("collections", "OrderedDict", [(((),), 1)]),
    # pickle.loads would set an attribute of the function itself.
    "state for a function": b"ctorch._utils\n_rebuild_tensor_v2\n}U\x08__code__K\x01sb.",
    # Hashing such a tuple overflows the stack of the interpreter.
    "deeply nested key": b"})" + b"\x85" * 100_000 + b"Ns.",
    "opcode of protocol 0": b"(S'true'\nios\nsystem\n.",
}


@pytest.mark.parametrize("name", DAMAGED)
@BOTH_FORMATS
def test_what_makes_no_sense_or_would_harm_the_interpreter_is_refused(tmp_path, save, name):
    value, path = DAMAGED[name], tmp_path / "a.pt"
    if isinstance(value, bytes):
        torch_files.archive(path, value, {})
    else:
        save(path, value)
    refused(path, "damaged")


def test_storages_that_are_too_small_and_bombs_are_refused(tmp_path):
    zeros, path = np.zeros(1 << 20, np.float32), tmp_path / "a.pt"
    data, _ = torch_files.pickled([zeros])
    refused(torch_files.archive(path, data, {"data/0": zeros[1:]}), "damaged")
    torch_files.archive(path, data, {"data/0": zeros}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 14
    refused(path, "compressed or encrypted")
    refused(torch_files.archive(path, b"N" * (INDEX_LIMIT + 1), {}), "more than any list of")


def test_other_files_are_refused(tmp_path):
    refused(tmp_path / "none.pt", "cannot be read: No such file")
    refused(tmp_path, "cannot be read: Is a directory")
    np.savez(tmp_path / "a.npz", a=BASE)
    refused(tmp_path / "a.npz", "without data.pkl")
    for content, sentence in {
        b"": "is empty",
        b"<!DOCTYPE html>": "but perhaps a web page",
    }.items():
        (tmp_path / "a.pt").write_bytes(content)
        refused(tmp_path / "a.pt", sentence)


@BOTH_FORMATS
def test_a_file_cut_short_is_named(tmp_path, save):
    whole = save(tmp_path / "a.pt", [BASE]).read_bytes()
    for length in range(20, len(whole), 7):
        (tmp_path / "b.pt").write_bytes(whole[:length])
        refused(tmp_path / "b.pt", "damaged or cut short")


OPCODES = b"(.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu})]\x81\x85\x86\x87\x93\x94"


def mutated(rng, content: bytes, alphabet: bytes, most: int, shortened: float) -> bytes:
    damaged = np.frombuffer(content, np.uint8).copy()
    where = rng.integers(len(content), size=rng.integers(1, most))
    damaged[where] = rng.choice(np.frombuffer(alphabet, np.uint8), size=where.size)
    start, stop = np.sort(rng.integers(len(content), size=2))
    if rng.random() < shortened:
        damaged = np.concatenate([damaged[:start], damaged[stop:]])
    return damaged.tobytes()


@pytest.mark.parametrize("form, least", [("zip", 6), ("legacy", 6), ("index", 20)])
def test_mutations_give_a_value_or_a_sentence_in_little_memory(tmp_path, form, least):
    rng, path, count = np.random.default_rng(0), tmp_path / "a.pt", 0
    index, storages = torch_files.pickled(WRITTEN)
    members = {f"data/{i}": array for i, array in enumerate(storages)}
    whole = b"" if form == "index" else WRITERS[form](path, WRITTEN).read_bytes()
    tracemalloc.start()
    for _ in range(60):
        if form == "index":
            torch_files.archive(path, mutated(rng, index, OPCODES, 4, 0), members)
        else:
            path.write_bytes(mutated(rng, whole, bytes(range(256)), 9, 0.3))
        try:
            read_torch_file(path)
        except UserError as error:
            assert "\n" not in str(error)
            count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count > least and peak < 1 << 25
