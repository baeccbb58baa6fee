"""Coverage-guided fuzzing of classifier.pixels.decode: ``make fuzz``.

libFuzzer mutates the images of tests/hostile.py, which are written to a folder of seeds first. Anything but pixels or
one of decode's errors is a crash; so are more than 10 s or 2 GB. atheris has wheels for Linux only, so it is no part of
the tests' environment: requirements/fuzz.txt. The coverage it is led by is that of Python code: Pillow's plugins and
ours; the C libraries under them are not instrumented.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "build" / "fuzz"
CODES = {"unreadable_image", "image_too_large", "unsupported_media_type"}


def write_seeds(folder: Path) -> int:
    """Write the seed corpus, every valid image and every bomb of under 100 KB; how many there are."""
    from tests import hostile

    images = hostile.seeds() | {name: data for name, (_, data) in hostile.bombs().items() if len(data) < 100_000}
    for name, data in images.items():
        (folder / re.sub(r"\W+", "-", name)).write_bytes(data)
    return len(images)


def main() -> None:
    """Fuzz for some seconds; ends as libFuzzer does, with 0 where nothing was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.classifier.fuzz_pixels", description="Fuzz classifier.pixels.decode."
    )
    parser.add_argument("--seconds", type=int, default=60, metavar="S", help="how long (60)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="run this one input, such as a crash, instead")
    parser.add_argument(
        "--corpus",
        type=Path,
        default=BUILD / "corpus",
        metavar="DIR",
        help="where inputs that reached new code are kept, for the next run to begin with (build/fuzz/corpus)",
    )
    options = parser.parse_args()
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install -r requirements/fuzz.txt (Linux, Python 3.11 to 3.13)")
    with atheris.instrument_imports(include=["classifier", "PIL"]):
        from classifier import pixels
        from classifier.errors import ClassifierError
        from classifier.preprocessing import Preprocessing

    def one(data: bytes) -> None:
        try:
            array = pixels.decode(data, Preprocessing(32, 36), 1_000_000)
        except ClassifierError as error:
            if error.code not in CODES:
                raise
        else:
            assert (array.shape, array.dtype.name) == ((32, 32, 3), "uint8")

    seeds = BUILD / "seeds"
    for folder in (seeds, options.corpus):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"{write_seeds(seeds)} seeds; what is found: {options.corpus}")  # noqa: T201
    where = [str(options.input)] if options.input else [str(options.corpus), str(seeds)]
    limits = [f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={BUILD}/", "-print_final_stats=1", *where], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
