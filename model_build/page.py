"""An HTML page that needs nothing else: its style, and images as data URIs."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONGEST = 60
_STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--paper:#fff;--faint:#8883;--accent:#2563eb}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8ea;--paper:#161618;--accent:#7aa2ff}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;max-width:1100px;
padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--faint);text-align:right;white-space:nowrap}
th:first-child{text-align:left}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:1rem}
figure{margin:0}figure img{width:128px;height:128px;image-rendering:pixelated;border-radius:4px}
figcaption{font-size:.8rem;overflow-wrap:anywhere}svg{max-width:100%;height:auto}
svg text{fill:currentColor;font:12px system-ui,sans-serif}
"""


def document(title: str, body: str) -> str:
    """A whole page; ``body`` is HTML, ``title`` plain text."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def text(value: str) -> str:
    """``value`` escaped, and cut if it is long."""
    return escape(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…")


def picture(pixels: NDArray[np.uint8], side: int) -> str:
    """The data URI of an image uint8[S, S, 3] as a JPEG of at most ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
