"""A state dict in several files, with the JSON index that says which tensor is where, as Hugging Face writes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from model_build.errors import FileError
from model_build.misfit import quoted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONGEST = 1 << 26


def index(path: Path) -> dict[str, str] | None:
    """The name of each tensor's file, if the file at ``path`` is such an index. Raises FileError and OSError."""
    with path.open("rb") as file:
        if file.read(1) != b"{" or path.stat().st_size > LONGEST:
            return None
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    found = data.get("weight_map") if isinstance(data, dict) else None
    if found is None:
        return None
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise FileError("is an index without files: its 'weight_map' must give the file of each tensor")
    for name in found.values():
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise FileError(f"is an index that names {quoted(name)}, expected files beside it, by their names alone")
    return found


def merge(path: Path, places: dict[str, str], load: Callable[[Path], Any]) -> dict[str, Any]:
    """The tensors by key of all files beside the index at ``path``, each read by ``load``. Raises FileError."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(places.values()):
        file = path.with_name(name)
        if not file.is_file():
            raise FileError(f"is an index that names {quoted(name)}, and that file is not beside it")
        try:
            data = load(file)
        except FileError as error:
            raise FileError(f"is an index of files, of which {quoted(name)} {error}") from None
        expected = {key for key, place in places.items() if place == name}
        if not isinstance(data, dict) or data.keys() != expected:
            keys = {str(key) for key in data} if isinstance(data, dict) else set()
            odd = next(iter(sorted(expected - keys) or sorted(keys - expected)), "")
            raise FileError(
                f"is an index that does not fit its file {quoted(name)}: {quoted(odd)} is in one of them only"
            )
        merged |= data
    return merged
