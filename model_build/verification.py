"""What is served against the original: the user's own network, on the same images, before anything is registered.

The original is Python of the user, which runs because the command line names it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps

from classifier.manifest import sha256
from model_build import splits
from model_build.errors import first_line
from model_build.gate import BATCH, likeness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from model_build.gate import Thresholds
    from model_build.samples import Samples
    from model_build.weights import Checkpoint

    Probabilities = NDArray[np.float32]

FORM = "FILE.py:NAME"


class VerificationError(Exception):
    """The original can't be run, or disagrees; the message says which, and what is expected."""


@dataclass(frozen=True)
class Original:
    """The user's network. ``name``: as the command line has it; ``digest``: the sha256 of its code and its state.

    ``transform``: from a PIL image, R, G, B, to what the network takes, float32[3, H, W]; None for the checkpoint's own
    preprocessing.
    """

    name: str
    digest: str
    network: torch.nn.Module
    transform: Callable[[Image.Image], torch.Tensor] | None


@dataclass(frozen=True)
class Comparison:
    """What an artifact answers against the ``original`` on so many ``images`` of ``source``.

    ``agreement``: the share of images with the same top-1; ``largest_difference``: of a probability. ``preprocessing``:
    whose it was, "original" or "checkpoint".
    """

    original: str
    images: int
    source: str
    preprocessing: str
    agreement: float
    largest_difference: float

    def told(self) -> dict[str, Any]:
        """Its part of the manifest's ``gate``."""
        return asdict(self)

    def sentence(self, what: str) -> str:
        """The result in words, about ``what``."""
        return (
            f"{what} against {self.original} on {self.images} images ({self.source}): top-1 agreement "
            f"{self.agreement:.2%}, largest difference of a probability {self.largest_difference:.1e}"
        )

    def failure(self, thresholds: Thresholds) -> str | None:
        """Why it is not what fp32 must hold, or None.

        On the same pixels both networks are to answer alike. The original's own preprocessing may decode and scale a
        little differently, and then the share of equal answers decides.
        """
        if self.preprocessing == "original":
            if self.agreement >= thresholds.agreement:
                return None
            return f"needed: {thresholds.agreement:.2%}"
        if self.agreement == 1 and self.largest_difference <= thresholds.difference:
            return None
        return f"needed: 100% and {thresholds.difference:g}"


def load(text: str) -> Original:
    """The original that ``text`` names: a file of Python and a name in it. Raises VerificationError.

    The name is of a module of torch or of a function that gives one, or gives it with a transform of images.
    """
    file, _, name = text.rpartition(":")
    path = Path(file)
    if not name.isidentifier() or path.suffix != ".py":
        raise VerificationError(f"--verify {text!r} must be {FORM}: a file of Python, and a name in it")
    if not path.is_file():
        raise VerificationError(f"--verify {text!r}: there is no file {file!r}")
    # Under a name of its own, so that a file called random.py takes no library's place.
    spec = importlib.util.spec_from_file_location(f"original_{path.stem}", path)
    assert spec and spec.loader, "a file that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    # As if it were run: what lies beside it can be imported.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with _reported(text):
            spec.loader.exec_module(module)
            found = getattr(module, name, None)
            if found is not None and not isinstance(found, torch.nn.Module | tuple):
                found = found()
    finally:
        sys.path.pop(0)
    network, transform = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(network, torch.nn.Module) or not (transform is None or callable(transform)):
        raise VerificationError(
            f"--verify {text!r} is a {type(found).__name__}; expected a torch.nn.Module, or a function that returns "
            "one, alone or as (module, transform)"
        )
    with _reported(text):
        network = network.cpu().float().eval()
        return Original(text, _digest(path, network), network, transform)


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Raise VerificationError for whatever the user's code raises; a script may even end the process."""
    try:
        yield
    except VerificationError:
        raise
    except (Exception, SystemExit) as error:
        raise VerificationError(f"--verify {name!r} raised {type(error).__name__}: {first_line(error)}") from None


def _code(path: Path) -> list[tuple[str, Path]]:
    """The file at ``path`` and the imported ones beside and below it, by their paths from there; none is installed."""
    folder = path.resolve().parent
    imported = (getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values()))
    files = {path.resolve(), *(Path(file).resolve() for file in imported if isinstance(file, str))}
    return sorted(
        (file.relative_to(folder).as_posix(), file)
        for file in files
        if file.is_relative_to(folder) and file.is_file() and not {"site-packages", "dist-packages"} & {*file.parts}
    )


def _digest(path: Path, network: torch.nn.Module) -> str:
    """The sha256 over the code of the original and all tensors of the network, which may come from elsewhere."""
    digest = hashlib.sha256()
    for name, file in _code(path):
        digest.update(f"{name}{sha256(file)}".encode())
    for key, value in sorted(network.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().to_dense().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def probabilities(original: Original, checkpoint: Checkpoint, samples: Samples, folder: Path | None) -> Probabilities:
    """What the original answers for ``samples``: float32[N, C].

    ``folder``: where they come from, which an original with a transform of its own reads again. Raises
    VerificationError.
    """
    if original.transform is None:
        batches = _squares(checkpoint, samples)
    elif folder is None:
        raise VerificationError(f"--verify {original.name!r} has a transform, which needs images: add --eval FOLDER")
    else:
        batches = _transformed(original.transform, folder)
    found = []
    with torch.inference_mode(), _reported(original.name):
        for batch in batches:
            output = original.network(batch)
            found.append(_checked(original, getattr(output, "logits", output), checkpoint.classes))
    return _probabilities(torch.cat(found))


def compare(original: Original, expected: Probabilities, actual: Probabilities, samples: Samples) -> Comparison:
    """``actual`` of an artifact against ``expected`` of the original."""
    agreement, difference = likeness(actual, expected)
    return Comparison(
        original=original.name,
        images=len(expected),
        source=samples.source,
        preprocessing="original" if original.transform else "checkpoint",
        agreement=agreement,
        largest_difference=difference,
    )


def _squares(checkpoint: Checkpoint, samples: Samples) -> Iterator[torch.Tensor]:
    """The checkpoint's own preprocessing, in batches: what its network sees, float32[N, channels, H, W]."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (checkpoint.mean, checkpoint.std))
    grey = checkpoint.structure.channels == 1
    for start in range(0, len(samples), BATCH):
        pixels = samples.pixels[start : start + BATCH]
        if grey:
            pixels = np.stack([np.asarray(Image.fromarray(one).convert("L"))[..., None] for one in pixels])
        batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        batch = batch[:, :1] if grey else batch.flip(1) if checkpoint.bgr else batch
        if checkpoint.upsample:
            side = (checkpoint.upsample, checkpoint.upsample)
            batch = torch.nn.functional.interpolate(batch, size=side, mode="bilinear", align_corners=False)
        yield batch


def _transformed(transform: Callable[[Image.Image], torch.Tensor], folder: Path) -> Iterator[torch.Tensor]:
    """The images in ``folder`` by ``transform``, in batches."""
    split = splits.find(folder)
    images = split.open(split.first(splits.VALIDATION, splits.TEST))
    for start in range(0, len(images.items), BATCH):
        batch = []
        for name, _ in images.items[start : start + BATCH]:
            with Image.open(io.BytesIO(images.read(name))) as image:
                batch.append(transform(ImageOps.exif_transpose(image).convert("RGB")))
        yield torch.stack(batch)


def _checked(original: Original, output: Any, classes: int) -> torch.Tensor:
    """A network's ``output`` for a batch: float32[N, C], or [N, 1] of two classes. Raises VerificationError."""
    allowed = {classes, 1} if classes == 2 else {classes}
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] not in allowed:
        shape = f"{tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
        raise VerificationError(f"--verify {original.name!r} gave {shape}; expected logits of shape (N, {classes})")
    return output.float()


def _probabilities(output: torch.Tensor) -> Probabilities:
    """The ``output`` for all images as probabilities: of logits, probabilities already, or one output of a sigmoid.

    One output is the sigmoid's own if it is from 0 to 1 for every image, else its logit.
    """
    if output.shape[1] == 1:
        positive = output if output.min() >= 0 and output.max() <= 1 else torch.sigmoid(output)
        output = torch.cat([1 - positive, positive], 1)
    elif output.min() < 0 or not torch.allclose(output.sum(1), torch.ones(len(output)), atol=1e-4):
        output = torch.softmax(output, 1)
    result: Probabilities = output.numpy()
    return result
