"""Files of torch.save, read as weights only: no name in a pickle is imported or called.

Training scripts keep other things beside the weights: a command line's Namespace, NumPy's numbers, paths, torch's
version, or the whole module instead of its weights. torch refuses these by name. Here stand-ins read them in place of
the named classes. No stand-in calls anything, and none is more than a dict, a number, a text or plain attributes.
"""

from __future__ import annotations

import math
import pickle
import re
import sys
import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from model_build.errors import FileError, first_line
from model_build.modules import Standing, contents, is_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class _Namespace:
    """Stands for argparse.Namespace and types.SimpleNamespace, whose pickles only set attributes."""


class _DType:
    """Stands for numpy.dtype: ``name``, as "<f8"."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = name if isinstance(name, str) else ""

    def __setstate__(self, state: object) -> None:
        # (version, byte order, …); what else it tells is of arrays with fields.
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.name = f"{state[1]}{self.name}"

    def decode(self, data: object, count: int) -> np.ndarray | None:
        """The first ``count`` values in ``data``; None if they are neither numbers nor texts."""
        if not isinstance(data, bytes) or not re.fullmatch(r"[<>]?[biufcSU][0-9]{1,5}", self.name):
            return None
        return np.frombuffer(data, np.dtype(self.name), count=count)


def _scalar(dtype: object, data: object = b"") -> Any:
    """Stands for numpy.core.multiarray.scalar: the plain value, or None if it is no number or text."""
    values = dtype.decode(data, 1) if isinstance(dtype, _DType) else None
    return None if values is None else values[0].item()


class _Array:
    """Stands for numpy.ndarray: ``values``, nested lists of plain values, or None for other values."""

    values: Any = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        match state:
            case (_, tuple(shape), _DType() as dtype, by_columns, bytes(data)) if math.prod(shape):
                values = dtype.decode(data, math.prod(shape))
                order: Literal["F", "C"] = "F" if by_columns else "C"
                self.values = None if values is None else values.reshape(*shape, order=order).tolist()
            case (_, (int(length),), _DType(), _, list(objects)) if length == len(objects):
                self.values = objects
            case (_, tuple(), _DType(), _, bytes()):  # of no values, whatever its other sides
                self.values = []


class _Text:
    """Stands for classes of texts: a plain one.

    A nested value isn't written out, as it may be longer than any memory.
    """

    def __new__(cls, value: object = "", *_: object) -> str:  # type: ignore[misc]  # a text instead
        return str(value) if isinstance(value, str) else ""


def _path(*parts: object) -> str:
    """Stands for the classes of pathlib: the path as text."""
    return "/".join(part for part in parts if isinstance(part, str))


class _Range:
    """Stands for a range, which is not written out: its numbers may be more than any memory holds."""

    def __init__(self, *_: object) -> None:
        pass


def _mapping(*_: object) -> dict[Any, Any]:
    """Stands for collections.defaultdict: a dict without the default function, which would be called."""
    return {}


# By the names that pickles of any version of these libraries have.
STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Namespace, "argparse.Namespace"),
    (_Namespace, "types.SimpleNamespace"),
    (_DType, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (_Text, "torch.torch_version.TorchVersion"),
    (_Range, "builtins.range"),
    (_mapping, "collections.defaultdict"),
    *((kind, f"builtins.{kind.__name__}") for kind in (dict, float, frozenset, int, list, slice)),
    *(
        (_path, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
]


# Of Python's own modules these few are stood for; a file that names another of them may be an attack.
HARMLESS = frozenset(
    {
        "functools.partial",
        "collections.deque",
        *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
    }
)
# Names that a file may have beyond the table's.
MOST_NAMES = 400
# Values beside the tensors. Lists that hold one list many times make more than any memory of a small file.
MOST_VALUES = 1_000_000


def _stand_in(name: str, like: type | None) -> type:
    """A stand-in for the class or function ``name``, whose objects are filled as those of ``like`` are, if given."""

    def made(*_: object) -> Any:
        return like() if like else object.__new__(stand_in)

    stand_in = type(name, (Standing,), {"kind": name, "__module__": "standing", "__new__": made})
    return stand_in


def load(path: Path) -> Any:
    """The content of the file of torch.save at ``path``: tensors on the CPU, and plain values. Raises FileError.

    Of a module that was pickled whole, its state dict and what else it tells. Other objects are dicts of their
    attributes.
    """
    names: dict[str, type] = {}
    while True:
        try:
            return _opened(_load(path, names), {})
        except pickle.UnpicklingError as error:
            # torch's own words recommend to load it all the same, which would run whatever it holds.
            if not _learnt(str(error), names):
                raise FileError(_refusal(str(error))) from None
        except FileError:
            raise
        except Exception as error:  # torch raises its own, pickle's and zip's errors here, without a common base
            said = first_line(error).partition("weights_only=")[0]  # what follows is how to load it unsafely
            raise FileError(f"can't be read as weights only, it is cut short or damaged: {said}") from None


def _load(path: Path, names: dict[str, type]) -> Any:
    allowed = [*STAND_INS, *((stand_in, name) for name, stand_in in names.items())]
    # By its open file: torch goes by the suffix of a name.
    with path.open("rb") as file, torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own internals, where a file has them
        return torch.load(file, map_location="cpu", weights_only=True)


def _learnt(said: str, names: dict[str, type]) -> bool:
    """Whether a stand-in was added to ``names``, or changed, for what torch refused with the words ``said``."""
    if found := re.search(r"(SETITEM|append|extend).* got <class 'standing\.([\w.]+)'>", said):
        verb, name = found.groups()
        names[name] = _stand_in(name, OrderedDict if verb == "SETITEM" else list)
        return True
    found = re.search(r"GLOBAL ([\w.]+)", said)
    if not found or found[1] in names or len(names) >= MOST_NAMES:
        return False
    name, top = found[1], found[1].partition(".")[0]
    own = top in sys.stdlib_module_names and top != "__main__"
    if name not in HARMLESS and (own or "." not in name or top == "__builtin__"):
        return False
    names[name] = _stand_in(name, None)
    return True


def _refusal(said: str) -> str:
    save = "save just the weights where it was made: torch.save(model.state_dict(), ...) or a .safetensors"
    if found := re.search(r"GLOBAL ([\w.]+)", said):
        return f"holds more than tensors ({found[1]}) and is not loaded, because that could run any code; {save}"
    if "persistent_load" in said:
        return f"holds a whole module in torch.save's older format, which can't be read without its code; {save}"
    return "can't be read as weights only: it is damaged, or no file of torch.save"


def _opened(value: Any, seen: dict[int, Any]) -> Any:
    """``value``, each stand-in of an object in it as a dict: of a module what it tells, of another its attributes."""
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, Standing):
        if is_module(value):
            seen[id(value)] = contents(value)
        else:
            seen[id(value)] = attributes = dict(vars(value).get("state", {}))
            attributes |= {key: _opened(item, seen) for key, item in attributes.items()}
        return seen[id(value)]
    if isinstance(value, dict | list):
        seen[id(value)] = value
        for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = _opened(item, seen)
    if type(value) is tuple:
        # A tuple may hold another one many times, and so on, which makes no end of paths through a small file.
        seen[id(value)] = tuple(_opened(item, seen) for item in value)
        return seen[id(value)]
    return value


def plain(value: Any, depth: int = 8) -> Any:
    """``value`` as JSON could hold it: dicts, lists, texts, numbers, None; anything else is left out.

    None if nothing is left, and for values nested more than ``depth`` deep. Raises FileError for more values than
    ``MOST_VALUES``.
    """
    return _plain(value, depth, iter(range(MOST_VALUES)))


def _plain(value: Any, depth: int, budget: Iterator[int]) -> Any:
    if next(budget, None) is None:
        raise FileError(f"holds more than {MOST_VALUES:,} values beside its tensors; save just the weights")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, _Namespace):
        value = vars(value)
    if isinstance(value, _Array):
        value = value.values
    if not depth:
        return None
    if isinstance(value, dict):
        kept = {key: _plain(item, depth - 1, budget) for key, item in value.items() if isinstance(key, str | int)}
        kept = {key: item for key, item in kept.items() if item is not None or value[key] is None}
        return kept if kept or not value else None
    if isinstance(value, list | tuple | set):
        items = [_plain(item, depth - 1, budget) for item in value]
        return items if any(item is not None for item in items) or not items else None
    return None
