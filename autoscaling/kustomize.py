"""The objects of a manifest file or of a kustomize directory, patched as ``kubectl kustomize`` would.

It handles only fields that can change an autoscaler: ``resources``, and patches whose target is one. Fields for images,
names, labels and the like are ignored; any other field is refused by its name.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import yaml

from autoscaling.fields import Fields, ManifestError, quoted

if TYPE_CHECKING:
    from pathlib import Path

AUTOSCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# They change no number of an autoscaler.
_PASSED_OVER = (
    "apiVersion", "kind", "metadata", "images", "namespace", "namePrefix", "nameSuffix", "labels", "commonLabels",
    "commonAnnotations", "buildMetadata", "configMapGenerator", "secretGenerator", "generatorOptions", "sortOptions",
)  # fmt: skip


def objects(path: Path, within: tuple[Path, ...] = ()) -> list[Fields]:
    """Every object of ``path``: of a YAML file, or of a directory with a kustomization. Raises ManifestError.

    ``within`` are the directories that ``path`` is a resource of.
    """
    if not is_folder(path):
        return _documents(path)
    if path.resolve() in within:
        raise ManifestError(f"{path}: this directory is among its own resources")
    found = next((path / name for name in _NAMES if (path / name).is_file()), None)
    if found is None:
        raise ManifestError(f"{path}: this directory has no kustomization.yaml; name a file, or a directory with one")
    if len(documents := _documents(found)) != 1:
        raise ManifestError(f"{found}: it holds {len(documents)} documents; a kustomization is one")
    own = documents[0]
    own.only("resources", "patches", *_PASSED_OVER)
    listed = [item for name in _texts(own, "resources") for item in _resource(own, name, path, within)]
    for patch in own.children("patches"):
        listed = _patched(listed, patch, path)
    return listed


def is_folder(path: Path) -> bool:
    """Whether ``path`` is a directory; no path is one that is too long, or has a NUL in it."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _resource(own: Fields, name: str, folder: Path, within: tuple[Path, ...]) -> list[Fields]:
    if not (is_folder(folder / name) or _is_file(folder / name)):
        own.refuse("resources", f"{quoted(name)} is no file or directory here; nothing is fetched")
    return objects(folder / name, (*within, folder.resolve()))


def _texts(fields: Fields, name: str) -> list[str]:
    values = fields.values.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        fields.refuse(name, f"{quoted(values)} is no list of names")
    return values


def _documents(path: Path) -> list[Fields]:
    try:
        loaded = _loaded(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: it can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ManifestError(f"{path}: it is no YAML: {error}") from error
    for item in loaded:
        if item is not None and not isinstance(item, dict):
            raise ManifestError(f"{path}: {str(item)[:60]!r} is no object of Kubernetes")
    return [Fields(str(path), "", item) for item in loaded if item is not None]


def _loaded(text: str) -> list[Any]:
    """The documents of ``text``. Raises ValueError; its message has no line break."""
    try:
        return list(yaml.safe_load_all(text))
    # ValueError: a number of thousands of digits, or a date such as 2024-13-45.
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None


def _patched(listed: list[Fields], patch: Fields, folder: Path) -> list[Fields]:
    """``listed`` with one entry of ``patches`` applied to its target autoscalers."""
    patch.only("path", "patch", "target")
    change = _change(patch, folder)
    target = patch.child("target")
    if isinstance(change, dict) and not patch.has("target"):
        given = Fields(patch.file, f"{patch.path}.patch", change)
        named = {"kind": given.text("kind"), "name": given.child("metadata").text("name")}
        target = Fields(patch.file, patch.path, {field: re.escape(value) for field, value in named.items()})
    if not target.values:
        patch.refuse("target", "a patch that is a list of operations needs one")
    after = [_done(item, change, patch) if _meant(item, target) else item for item in listed]
    return [item for item in after if item is not None]


def _change(patch: Fields, folder: Path) -> dict[str, Any] | list[Any]:
    """A patch: an object to be merged, or a list of operations."""
    if patch.has("path"):
        path = folder / patch.text("path")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            patch.refuse("path", f"{quoted(str(path))} can't be read: {getattr(error, 'strerror', None) or error}")
    else:
        text = patch.text("patch")
    try:
        loaded = _loaded(text)
    except ValueError as error:
        patch.refuse("patch", f"it is no YAML: {error}")
    if len(loaded) != 1:
        patch.refuse("patch", f"it holds {len(loaded)} documents; a patch is one")
    (change,) = loaded
    if not isinstance(change, dict | list):
        patch.refuse("patch", f"{quoted(change)} is neither an object nor a list of operations")
    return change


def _meant(item: Fields, target: Fields) -> bool:
    """Whether ``item`` is an autoscaler that matches ``target``, regular expressions of the whole kind and name."""
    kind = item.values.get("kind")
    if kind not in AUTOSCALERS:
        return False
    name = item.child("metadata").text("name")
    target.only("group", "version", "kind", "name", "namespace")
    given = item.text("apiVersion").split("/")
    group, version = ("", given[0]) if len(given) == 1 else given
    known = {"kind": kind, "name": name, "group": group, "version": version}
    return all(
        re.fullmatch(target.text(field), str(value)) is not None for field, value in known.items() if target.has(field)
    )


def _done(item: Fields, change: dict[str, Any] | list[Any], patch: Fields) -> Fields | None:
    """``item`` after ``change``; None if it is deleted."""
    if isinstance(change, dict):
        if change.get("$patch") == "delete":
            return None
        # A patch for whatever its target names may itself be of any kind and name: they stay.
        kept = {name: item.values[name] for name in ("apiVersion", "kind") if name in item.values}
        merged = _merged(item.values, change, patch) | kept
        merged["metadata"] = merged["metadata"] | {"name": item.child("metadata").text("name")}
        return Fields(item.file, item.path, merged)
    values = copy.deepcopy(item.values)
    for operation in change:
        _operate(values, operation, patch)
    return Fields(item.file, item.path, values)


def _merged(old: dict[str, Any], new: dict[str, Any], patch: Fields) -> dict[str, Any]:
    """A strategic merge: mappings are merged, null takes away, and lists of an autoscaler are replaced as a whole."""
    merged = dict(old)
    for name, value in new.items():
        if str(name).startswith("$"):
            patch.refuse("patch", f"the directive {name}: {value} can't be done here; only $patch: delete of an object")
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            under = merged.get(name)
            merged[name] = _merged(under if isinstance(under, dict) else {}, value, patch)
        else:
            merged[name] = value
    return merged


def _operate(values: dict[str, Any], operation: Any, patch: Fields) -> None:
    """One operation of JSON Patch (RFC 6902) on ``values``, in place: add, replace or remove."""
    told = f"{str(operation)[:80]!r}"
    if not isinstance(operation, dict) or operation.get("op") not in ("add", "replace", "remove"):
        patch.refuse("patch", f"{told} is no add, replace or remove, which are what can be done here")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in str(operation.get("path", "")).split("/")[1:]]
    try:
        parent: Any = values
        for part in parts[:-1]:
            parent = parent[_index(part) if isinstance(parent, list) else part]
        _put(parent, parts[-1], operation)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ManifestError(f"{patch.file}: {patch.path}: {told} does not fit the object") from error


def _put(parent: Any, last: str, operation: dict[str, Any]) -> None:
    op = operation["op"]
    if isinstance(parent, list) and op == "add":
        parent.insert(len(parent) if last == "-" else _index(last), operation["value"])
        return
    key: Any = _index(last) if isinstance(parent, list) else last
    if op != "add":
        parent[key]  # a key that is removed or replaced must exist
    if op == "remove":
        del parent[key]
    else:
        parent[key] = operation["value"]


def _index(part: str) -> int:
    if not part.isdecimal():
        raise ValueError(part)
    return int(part)
