"""Files of torch.save as weights only: what is harmless beside the weights is read by stand-ins, and no code runs."""

from __future__ import annotations

import argparse
import datetime
import io
import pickle
import re
import sys
import types
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_build.errors import FileError
from model_build.network import resnet18
from model_build.pickles import load, plain

WEIGHT = torch.arange(3.0)


def loaded(tmp_path: Path, data: Any) -> Any:
    torch.save(data, tmp_path / "w.pth")
    return load(tmp_path / "w.pth")


def with_pickle(path: Path, content: bytes) -> Path:
    """A file of torch.save whose pickle is ``content``."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/data.pkl", content)
        file.writestr("w/version", "3\n")
    return path


def touched(folder: Path) -> None:
    """What would leave a trace if it were called."""
    (folder / "called").touch()


class Config:
    """An object with attributes."""

    def __init__(self, classes: int) -> None:
        self.classes = classes


class Mapping(dict[str, float]):
    """A dict with a name of its own."""


class Sequence(list[int]):
    """A list with a name of its own."""


class Called:
    """An object that is made by calling a function."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return touched, (str(self.folder),)


class TestBesideTheWeights:
    """What training scripts keep: as JSON could tell it."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (argparse.Namespace(lr=0.1, name="a"), {"lr": 0.1, "name": "a"}),
            (types.SimpleNamespace(size=[1, 2]), {"size": [1, 2]}),
            (argparse.Namespace(inner=argparse.Namespace(out=Path("runs/1"))), {"inner": {"out": "runs/1"}}),
            (np.float64(0.5), 0.5),
            (np.float32(0.25), 0.25),
            (np.int64(-7), -7),
            (np.bool_(True), True),
            (np.str_("猫"), "猫"),
            (np.dtype(">i2").type(3), 3),
            (np.datetime64("2026-01-01"), None),
            (np.array(["cat", "dog"]), ["cat", "dog"]),
            (np.array(["cat", "dog"], object), ["cat", "dog"]),
            (np.asfortranarray([[1, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]]),
            (np.array([1.5], ">f4"), [1.5]),
            (defaultdict(list, a=[1]), {"a": [1]}),
            (torch.__version__, str(torch.__version__)),
            ({"cat": 0, 1: "dog"}, {"cat": 0, 1: "dog"}),
            ({"a": WEIGHT, "b": 1, "c": None}, {"b": 1, "c": None}),
            ({"a": {"b": WEIGHT}}, None),
            ([WEIGHT], None),
            ((), []),
            (torch.float16, None),
            (slice(1, 2), None),
            (range(3), None),
            (frozenset({1}), None),
            (datetime.date(2026, 1, 1), {}),
            (torch.nn.functional.relu, None),
        ],
        ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),
    )
    def test_it_is_plain(self, tmp_path: Path, value: Any, expected: Any) -> None:
        data = loaded(tmp_path, {"weight": WEIGHT, "value": value})
        assert torch.equal(data["weight"], WEIGHT)
        assert plain(data["value"]) == expected
        assert type(plain(data["value"])) is type(expected)

    def test_what_is_nested_without_end(self) -> None:
        data: dict[str, Any] = {"a": 1}
        data["self"] = data
        assert plain(data, depth=2) == {"a": 1, "self": {"a": 1}}


class TestNothingRuns:
    """The classes that a pickle names are not met: not imported, not made, not called."""

    def test_the_stand_ins_are_none_of_them(self, tmp_path: Path) -> None:
        data = loaded(tmp_path, {"a": argparse.Namespace(x=1), "n": np.float64(1), "v": np.ones(2), "p": Path("x")})
        assert not isinstance(data["a"], argparse.Namespace)
        assert type(data["n"]) is float
        assert not isinstance(data["v"], np.ndarray)
        assert type(data["p"]) is str

    def test_what_is_not_there_is_not_imported(self, tmp_path: Path) -> None:
        """pathlib._local is Python 3.13's alone, and importing numpy.core warns, which would fail a test."""
        assert sys.version_info >= (3, 13) or "pathlib._local" not in sys.modules
        content = b"\x80\x02cpathlib._local\nPosixPath\nX\x01\0\0\0a\x85R."
        assert load(with_pickle(tmp_path / "w.pth", content)) == "a"
        content = pickle.dumps(np.float64(2.5), 2).replace(b"numpy._core", b"numpy.core")
        assert load(with_pickle(tmp_path / "w.pth", content)) == 2.5

    def test_torch_s_own_list_is_as_before(self, tmp_path: Path) -> None:
        before = set(torch.serialization.get_safe_globals())
        loaded(tmp_path, {"a": argparse.Namespace(x=1)})
        assert set(torch.serialization.get_safe_globals()) == before

    @pytest.mark.parametrize("where", ["top", "namespace", "array", "factory", "scalar", "path"])
    def test_code_is_refused_and_not_run(self, tmp_path: Path, where: str) -> None:
        witness = tmp_path / "ran"

        class Exploit:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (witness,)

        class Factory(defaultdict[str, Any]):
            def __reduce__(self) -> tuple[Any, ...]:
                return defaultdict, (Exploit(),)

        class Scalar:
            def __reduce__(self) -> tuple[Any, ...]:
                scalar = np.float64(1).__reduce__()[0]
                return scalar, (np.dtype("O"), Exploit())

        class Route:
            def __reduce__(self) -> tuple[Any, ...]:
                return type(Path()), (Exploit(),)

        value = {
            "top": Exploit,
            "namespace": lambda: argparse.Namespace(x=Exploit()),
            "array": lambda: np.array([Exploit()], object),
            "factory": Factory,
            "scalar": Scalar,
            "path": Route,
        }[where]()
        torch.save({"fc.weight": value}, tmp_path / "w.pth")
        with pytest.raises(FileError, match=r"^holds more than tensors \([\w.]+\) and is not loaded, because"):
            load(tmp_path / "w.pth")
        assert not witness.exists()

    @pytest.mark.parametrize(
        "state",
        [
            b"}X\x09\0\0\0__class__X\x01\0\0\0xs",  # a Namespace that would be of another class
            b"}X\x0c\0\0\0__setstate__X\x01\0\0\0xs",
            b"X\x01\0\0\0x",  # no dict at all
            b"N}X\x09\0\0\0__class__cargparse\nNamespace\ns\x86",  # by setattr
        ],
    )
    def test_hostile_states_of_a_namespace(self, tmp_path: Path, state: bytes) -> None:
        content = b"\x80\x02cargparse\nNamespace\n)\x81" + state + b"b."
        try:
            result = plain(load(with_pickle(tmp_path / "w.pth", content)))
        except FileError:
            return
        assert isinstance(result, dict | None)

    @pytest.mark.parametrize("name", ["O8", "V4", "f8,i4", "(2,)f8", "U99999999", "M8[s]", "nothing"])
    def test_types_of_numpy_that_are_no_numbers(self, tmp_path: Path, name: str) -> None:
        text = name.encode()
        named = b"X" + len(text).to_bytes(4, "little") + text
        dtype = b"cnumpy\ndtype\n" + named + b"\x85R"
        content = b"\x80\x02cnumpy._core.multiarray\nscalar\n" + dtype + pickle.dumps(b"12345678", 2)[2:-1] + b"\x86R."
        assert load(with_pickle(tmp_path / "w.pth", content)) is None

    def test_a_whole_module_of_the_older_format(self, tmp_path: Path) -> None:
        torch.save(resnet18(3), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
        said = r"holds a whole module in torch\.save's older format.*torch\.save\(model\.state_dict\(\)"
        with pytest.raises(FileError, match=said):
            load(tmp_path / "w.pth")

    def test_objects_of_any_class_are_their_attributes(self, tmp_path: Path) -> None:
        data = {"config": Config(3), "mapping": Mapping(lr=0.1), "sequence": Sequence([1, 2]), "call": Called(tmp_path)}
        data["config"].itself = data["config"]  # type: ignore[attr-defined]
        opened = loaded(tmp_path, data)
        assert opened["config"]["classes"] == 3
        assert opened["config"]["itself"] is opened["config"]
        assert (dict(opened["mapping"]), opened["sequence"], opened["call"]) == ({"lr": 0.1}, [1, 2], {})
        assert not (tmp_path / "called").exists()


class TestBounds:
    """Small files that name more than any memory holds."""

    def test_a_range_is_not_counted_out(self, tmp_path: Path) -> None:
        numbers = pickle.dumps(10**8, 2)[2:-1]
        content = b"\x80\x02cbuiltins\nlist\ncbuiltins\nrange\n" + numbers + b"\x85R\x85R."
        with pytest.raises(FileError, match="can't be read as weights only"):
            load(with_pickle(tmp_path / "w.pth", content))

    def test_tuples_that_hold_one_another_twice(self, tmp_path: Path) -> None:
        nested: Any = ()
        for _ in range(64):
            nested = (nested, nested)
        opened = loaded(tmp_path, {"a": nested})["a"]
        assert opened[0] is opened[1]
        named = pickle.dumps(nested, 2)[2:-1]
        content = b"\x80\x02ctorch.torch_version\nTorchVersion\n" + named + b"\x85R."
        assert load(with_pickle(tmp_path / "w.pth", content)) == ""

    def test_lists_that_hold_one_list_many_times(self, tmp_path: Path) -> None:
        nested: Any = [1]
        for _ in range(7):
            nested = [nested] * 50
        with pytest.raises(FileError, match=r"^holds more than 1,000,000 values beside its tensors"):
            plain(loaded(tmp_path, nested))

    def test_an_array_of_no_values_and_a_long_side(self, tmp_path: Path) -> None:
        nothing = b"c_codecs\nencode\nX\0\0\0\0X\x06\0\0\0latin1\x86R"
        content = re.sub(
            rb"c__builtin__\nbytes\n(q.)?\)(q.)?R", lambda _: nothing, pickle.dumps(np.zeros((10**8, 0)), 2)
        )
        assert nothing in content
        assert plain(load(with_pickle(tmp_path / "w.pth", content))) == []


class TestWords:
    """torch's advice to load unsafely is never passed on."""

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x80\x02.",
            b"\x80\x02X\xff\xff\xff\x7fa.",
            b"\x80\x02cos\nsystem\n.",
            b"\x80\x02cbuiltins\neval\nX\x01\0\0\0a\x85R.",
            b"\x80\x02(lp0\n.",
            b"\x80\x02X\x03\0\0\0abcQ.",
            b"\x80\x02" + b"\x85" * 5,
        ],
        ids=repr,
    )
    def test_one_line_without_it(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(FileError) as raised:
            load(with_pickle(tmp_path / "w.pth", content))
        message = str(raised.value)
        assert "\n" not in message
        for word in ("weights_only=", "add_safe_globals", "trust", "arbitrary"):
            assert word not in message

    def test_quantised_tensors_bring_no_warnings(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        with pytest.warns(UserWarning):
            torch.save({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, buffer)
        (tmp_path / "w.pth").write_bytes(buffer.getvalue())
        assert load(tmp_path / "w.pth")["w"].is_quantized
