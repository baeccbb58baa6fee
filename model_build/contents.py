"""The kind of a file of weights, by its content: a suffix says nothing, and a download may have brought anything."""

from __future__ import annotations

import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Literal

from model_build.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["zip", "legacy", "safetensors"]

EXPECTED = "expected the weights as torch.save(model.state_dict(), FILE) or safetensors writes them"
# A pickle of the number that every file of torch.save before 1.6 begins with.
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
HEAD, CHUNK, QUOTED = 4096, 1 << 20, 40
# safetensors' own bound of its header, bytes.
LONGEST_HEADER = 100_000_000
# What a zip may unpack to, by its own size. torch.save doesn't compress, and weights hardly can be.
MOST_TIMES = 20

# The first bytes of other files, in the order to be tried, and the words for them.
BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs\.github\.com/", "is a pointer of git-lfs, not the file itself: run git lfs pull"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|!--)", "is an HTML page: what was downloaded is no file"),
    (rb"(?i)(\xef\xbb\xbf)?\s*<\?xml", "is an XML document: a server's refusal, perhaps, instead of the file"),
    (rb"\x08[\x01-\x20][\x12\x1a\x22\x3a\x42]", "is an ONNX model, and the build makes its own from the weights"),
    (rb"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes it"),
    (rb"(?s).{4}TFL3", "is a TensorFlow Lite model"),
    (rb"(?s).{4}ORTM", "is a model in ONNX Runtime's own format"),
    (rb"GGUF", "is a GGUF file"),
    (rb"\x93NUMPY", "is an array of NumPy"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ\x00|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "is a compressed archive: unpack it first"),
    (rb"(?s).{257}ustar", "is a tar archive: unpack it first"),
    (rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF", "is an image or a sound"),
    (rb"%PDF", "is a PDF"),
)


def recognise(path: Path) -> Kind:
    """The kind of the file at ``path``: torch.save's zip, its legacy pickle, or safetensors.

    Raises FileError, which names any other kind, and OSError.
    """
    size = path.stat().st_size
    if not size:
        raise FileError(f"is empty; {EXPECTED}")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip"
    if head.startswith(LEGACY):
        return "legacy"
    # A length of 8 bytes, then JSON.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= LONGEST_HEADER:
        return "safetensors"
    raise FileError(f"{_other(head)}; {EXPECTED}")


def _other(head: bytes) -> str:
    for beginning, said in BEGINNINGS:
        if re.match(beginning, head):
            return said
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return f"is a pickle of protocol {head[1]}, not as torch.save writes it, and could run any code"
    if not head.strip(b"\0"):
        return f"begins with {len(head)} zeros: a download that did not finish, perhaps"
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD else "ignore").strip()
    except UnicodeDecodeError:
        text = ""
    if text and all(character.isprintable() or character.isspace() for character in text):
        return f"is a text that begins with {text[:QUOTED]!r}"
    return f"is of no kind that is known here: it begins with the bytes {head[:8].hex(' ')}"


def _damaged(archive: zipfile.ZipFile) -> list[str]:
    """The members of ``archive`` whose checksums are wrong, which torch doesn't look at."""
    wrong = []
    for member in archive.infolist():
        try:
            with archive.open(member) as file:
                while file.read(CHUNK):
                    pass
        except zipfile.BadZipFile:
            wrong.append(member.filename)
    return wrong


def _check_zip(path: Path) -> None:
    """Raise FileError if the zip at ``path`` is cut short, or is not torch.save's of a state dict."""
    try:
        with zipfile.ZipFile(path) as archive:
            names, size = archive.namelist(), path.stat().st_size
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > MOST_TIMES * size:
                raise FileError(
                    f"is a zip of {size} bytes that unpacks to {unpacked}, and at most {MOST_TIMES} times its size is "
                    f"read; {EXPECTED}"
                )
            data = next((name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")), None)
            wrong = _damaged(archive) if data else []
            protocol = archive.open(data).read(2) if data and data not in wrong else b""
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise FileError(f"is cut short or damaged ({error}); fetch or copy it again") from None
    if 0 < len(wrong) < len(names):  # torch can be told to write no checksums; then all are wrong
        raise FileError(f"is damaged: the checksum of {wrong[0]!r} in it is wrong; fetch or copy it again")
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner) or "model.json" in inner:
        raise FileError(
            "is a TorchScript model, which holds code beside its weights; where you trust it, save just these: "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
        )
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        raise FileError(
            "is a program of torch.export, not a state dict; where you trust it, save just the weights: "
            "torch.save(torch.export.load(FILE).state_dict, 'weights.pth')"
        )
    if data is None:
        shown = ", ".join(repr(name[:QUOTED]) for name in names[:3]) + (", …" if len(names) > 3 else "")
        raise FileError(f"is a zip of {len(names)} files ({shown}), not of torch.save: unpack it first; {EXPECTED}")
    if protocol[:1] == b"\x80" and protocol[1:] != b"\x02":
        raise FileError(
            f"was saved with pickle protocol {protocol[-1]}, which can't be read as weights only; save it with "
            "torch.save's own, 2, or as safetensors"
        )
