"""An image pipeline with Pillow that answers requests over its standard streams.

It stands for a function that makes previews: a request names a picture, says what to do to it one step after the other, and which format to
write. The pictures are drawn at the start, from a fixed seed, and kept as files of several formats in memory, in the place of a
bucket that a function would fetch them from:

    {"picture": "shore.jpg", "steps": [["resize", 640, 427], ["sharpen", 2.0]], "format": "PNG"}
        ->  {"size": [640, 427], "image": "<base64>", "sha256": "<of the image>"}

A cold start pays for drawing them, where a function with a bucket would not: what it takes is to be compared with that in mind.

--small draws small pictures, for tests.
"""

import argparse
import base64
import hashlib
import io
import json
import sys

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

SEED = 20260105
SIZE = (2400, 1600)
SMALL = (300, 200)


def landscape(draw, size):
    """Waves of light in three colors and noise above them: something for a codec to do, as a photograph is."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0], dtype=np.float32), np.linspace(0, 1, size[1], dtype=np.float32))
    bands = []
    for _ in range(3):
        across, down, turn = draw.uniform(2, 9, 3)
        bands.append(128 + 90 * np.sin(across * x + turn + 2 * np.sin(down * y)))
    noise = draw.integers(-8, 9, (size[1], size[0], 3), dtype=np.int8)
    return Image.fromarray((np.stack(bands, axis=-1) + noise).astype(np.uint8))


def encode(image, form):
    out = io.BytesIO()
    image.save(out, format=form)
    return out.getvalue()


def load(size):
    # All codecs are loaded, not only those that Pillow loads with the first picture.
    Image.init()
    draw = np.random.default_rng(SEED)
    badge = landscape(draw, (size[0] // 2, size[1] // 2)).convert("RGBA")
    badge.putalpha(Image.linear_gradient("L").resize(badge.size))
    return {
        "shore.jpg": encode(landscape(draw, size), "JPEG"),
        "ridge.webp": encode(landscape(draw, (size[0] // 2, size[1] // 2)), "WEBP"),
        "scan.tiff": encode(landscape(draw, (size[0] // 2, size[1] // 2)).convert("L"), "TIFF"),
        "badge.png": encode(badge, "PNG"),
    }


STEPS = {
    "resize": lambda image, width, height: image.resize((width, height), Image.Resampling.LANCZOS),
    "fit": lambda image, width, height: ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC),
    "rotate": lambda image, degrees: image.rotate(degrees, Image.Resampling.BILINEAR, expand=True),
    "gray": lambda image: ImageOps.grayscale(image),
    "equalize": lambda image: ImageOps.equalize(image),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "sharpen": lambda image, radius: image.filter(ImageFilter.UnsharpMask(radius)),
    "blur": lambda image, radius: image.filter(ImageFilter.GaussianBlur(radius)),
    "median": lambda image, size: image.filter(ImageFilter.MedianFilter(size)),
    "colors": lambda image, count: image.quantize(count),
}


def answer(pictures, request):
    image = Image.open(io.BytesIO(pictures[request["picture"]]))
    for name, *arguments in request["steps"]:
        image = STEPS[name](image, *arguments)
    data = encode(image, request["format"])
    return {
        "size": image.size,
        "image": base64.b64encode(data).decode(),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    pictures = load(SMALL if parser.parse_args().small else SIZE)
    say({"ready": True})
    for line in sys.stdin:
        try:
            say(answer(pictures, json.loads(line)))
        except (ValueError, KeyError, TypeError, OSError) as err:
            say({"error": f"{type(err).__name__}: {err}"})


if __name__ == "__main__":
    main()
