"""Images of a packed set as small files for a page.

content = thumb(packed.images("val")[12])
"""

from __future__ import annotations

import io

import numpy as np

LOSSLESS = 40  # pixels of the longer side up to which an image is a PNG, and shown pixel by pixel
SIDE = 132  # of the larger ones, in a page
QUALITY = 82  # of WebP: what is lost is not seen at this size


def thumb(image: np.ndarray) -> bytes:
    """uint8 [H,W,C], C 1 or 3, as a PNG if it is small, else as a WebP whose longer side is SIDE at most."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    content = io.BytesIO()
    if max(picture.size) <= LOSSLESS:
        picture.save(content, "PNG")
    else:
        if max(picture.size) > SIDE:
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.save(content, "WEBP", quality=QUALITY, method=4)
    return content.getvalue()
