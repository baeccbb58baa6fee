"""``python -m model_build.reliability TAG --out FILE.svg``: the reliability diagram of an artifact in the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from model_build.temperature import BINS

_SIDE, _LEFT, _TOP = 220, 46, 28
_WIDTH, _HEIGHT = 2 * (_SIDE + _LEFT) + 24, _SIDE + _TOP + 44


def draw(confidence: dict[str, Any], title: str) -> str:
    """The SVG of ``gate.confidence`` of a manifest: accuracy over confidence, before and after temperature scaling."""
    parts = []
    headings = {"before": "T = 1", "after": f"T = {confidence['temperature']:g}"}
    for number, (name, heading) in enumerate(headings.items()):
        parts.append(_panel(confidence[name], heading, number * (_SIDE + _LEFT + 12) + _LEFT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><title>{title}</title><rect width="100%" height="100%" fill="white"/>\n'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(found: dict[str, Any], heading: str, left: int) -> str:
    bottom = _TOP + _SIDE
    parts = [f'<text x="{left}" y="18">{heading}: ECE {found["ece"]:.4f}, {_count(found)} images</text>\n']
    width = _SIDE / BINS
    for number, one in enumerate(found["bins"]):
        if not one["count"]:
            continue
        height = one["accuracy"] * _SIDE
        # What few images tell is faint.
        opacity = min(1.0, 0.25 + one["count"] / 100)
        parts.append(
            f'<rect x="{left + number * width:.1f}" y="{bottom - height:.1f}" width="{width - 1:.1f}" '
            f'height="{height:.1f}" fill="#0b6e4f" fill-opacity="{opacity:.2f}"/>'
            f'<circle cx="{left + (number + 0.5) * width:.1f}" cy="{bottom - one["confidence"] * _SIDE:.1f}" r="2.5" '
            'fill="#d98324"/>\n'
        )
    parts.append(f'<rect x="{left}" y="{_TOP}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#9aa5b1"/>\n')
    for share in (0, 0.5, 1):
        along = share * _SIDE
        parts.append(f'<text x="{left + along}" y="{bottom + 14}" text-anchor="middle">{share:g}</text>')
        parts.append(f'<text x="{left - 5}" y="{bottom - along + 4}" text-anchor="end">{share:g}</text>\n')
    axes = "bars: share of right answers; dots: mean probability"
    return (
        "".join(parts)
        + f'<text x="{left + _SIDE / 2}" y="{bottom + 32}" text-anchor="middle" font-size="9">{axes}</text>'
    )


def _count(found: dict[str, Any]) -> int:
    return sum(one["count"] for one in found["bins"])


@click.command()
@click.argument("tag")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The SVG to write.")
def main(tag: str, out: Path) -> None:
    """Draw the reliability diagram of the artifact TAG, as its manifest has it."""
    from runners.artifacts import ArtifactError, open_artifact

    try:
        artifact = open_artifact(tag)
    except ArtifactError as error:
        raise click.ClickException(str(error)) from None
    confidence = artifact.manifest.gate.get("confidence")
    if confidence is None:
        raise click.ClickException(
            f"{tag!r} has no gate.confidence: it was built without enough labelled --eval images"
        )
    out.write_text(draw(confidence, f"Reliability of {artifact.tag}"), encoding="utf-8")


if __name__ == "__main__":
    main(prog_name="python -m model_build.reliability")
