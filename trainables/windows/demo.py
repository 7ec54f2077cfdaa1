"""The windows demo set: drawings of five kinds of window, which differ in their structure alone.

Colour, wall, light, size, perspective, grilles, occlusion, blur and noise do not depend on the kind: no statistic of
the pixels separates the classes. Hinges, sashes, meeting rails and bay angles do.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from trainables import Progress

#: Part of the cache key: raise it when a drawing changes.
VERSION = 1
CLASSES = (
    "New Awning Window",
    "New Bay Window",
    "New Fixed Window",
    "New Horizontal Sliding Window",
    "New Hung Window",
)
#: Pictures are drawn larger by this factor and then reduced, which smooths edges.
SCALE = 2

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]


def draw_all(labels: np.ndarray, size: int, seed: int, progress: Progress) -> np.ndarray:
    """One picture a label, uint8 (n, 3, size, size); picture i depends on (seed, i, labels[i]) alone."""
    images = np.empty((len(labels), 3, size, size), dtype=np.uint8)

    def draw_one(index: int) -> None:
        label = int(labels[index])
        image = draw(label, size, np.random.default_rng([seed, index, label]))
        images[index] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(draw_one, range(len(labels))), 1):
            progress(done, len(labels), "drawing the demo set")
    return images


def draw(label: int, size: int, rng: np.random.Generator) -> Image.Image:
    """A square RGB picture of one window of class `label`."""
    side = size * SCALE
    wall = _colour(rng)
    image = _wall(side, wall, rng)
    width, height = side * rng.uniform(0.5, 0.8), side * rng.uniform(0.5, 0.8)
    x0, y0 = rng.uniform(0.06, 0.94) * (side - width), rng.uniform(0.06, 0.94) * (side - height)
    painter = _Painter(ImageDraw.Draw(image), rng, side)
    (_awning, _bay, _fixed, _sliding, _hung)[label](painter, (x0, y0, x0 + width, y0 + height))
    image = _perspective(image, rng)
    image = _light(image, rng)
    image = _occlude(image, rng)
    image = image.resize((size, size), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6)))
    pixels = np.asarray(image, dtype=np.float32) + rng.normal(0, rng.uniform(1, 9), (size, size, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class _Painter:
    """Draws with the colours and thicknesses of one window."""

    def __init__(self, draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
        self.draw, self.rng, self.side = draw, rng, side
        self.frame, self.glass = _colour(rng), _colour(rng)
        while _contrast(self.frame, self.glass) < 90:  # the frame must differ visibly from the glass
            self.frame = _colour(rng)
        self.dark = _shade(self.frame, 0.55)
        self.thick = side * rng.uniform(0.024, 0.04)
        self.grille = int(rng.integers(0, 4)) if rng.random() < 0.35 else 0
        self.grille_across = bool(rng.random() < 0.5)

    def pane(self, quad: list[tuple[float, float]], thick: float) -> None:
        """A framed pane in any quadrilateral, with reflections and, if this window has them, thin grilles."""
        self.draw.polygon(quad, fill=self.frame, outline=self.dark)
        inner = _shrink(quad, thick)
        self.draw.polygon(inner, fill=self.glass)
        for _ in range(int(self.rng.integers(0, 3))):
            at, wide = self.rng.uniform(0, 0.8), self.rng.uniform(0.05, 0.25)
            band = [_at(inner, at, 0), _at(inner, at + wide, 0), _at(inner, at, 1), _at(inner, at - wide, 1)]
            self.draw.polygon(band, fill=_shade(self.glass, self.rng.uniform(0.8, 1.35)))
        thin = max(1, round(thick * 0.3))
        for k in range(1, self.grille + 1):
            t = k / (self.grille + 1)
            self.draw.line([_at(inner, t, 0), _at(inner, t, 1)], fill=self.frame, width=thin)
            if self.grille_across:
                self.draw.line([_at(inner, 0, t), _at(inner, 1, t)], fill=self.frame, width=thin)

    def casing(self, box: Box) -> Box:
        """The outer frame and sill; returns the opening."""
        x0, y0, x1, y1 = box
        t = self.thick * self.rng.uniform(0.8, 1.6)
        self.draw.rectangle((x0 - t, y0 - t, x1 + t, y1 + t), fill=_shade(self.frame, 0.85), outline=self.dark)
        if self.rng.random() < 0.6:
            self.draw.rectangle((x0 - 2 * t, y1 + t, x1 + 2 * t, y1 + 2.2 * t), fill=_shade(self.frame, 0.75))
        self.draw.rectangle(box, fill=_shade(self.glass, 0.5))
        return box


def _fixed(p: _Painter, box: Box) -> None:
    """One pane in its frame: no sash, no hardware."""
    p.pane(_corners(p.casing(box)), p.thick * p.rng.uniform(0.5, 1.1))


def _hung(p: _Painter, box: Box) -> None:
    """Two sashes above each other, the lower one behind the upper; a thick meeting rail with a lock."""
    x0, y0, x1, y1 = p.casing(box)
    middle = y0 + (y1 - y0) * p.rng.uniform(0.42, 0.6)
    rail = p.thick * p.rng.uniform(1.1, 1.6)
    inset = p.thick * 0.5
    p.pane(_corners((x0 + inset, middle - rail / 2, x1 - inset, y1)), rail)
    p.pane(_corners((x0, y0, x1, middle + rail / 2)), rail)
    p.draw.line((x0, middle + rail / 2, x1, middle + rail / 2), fill=p.dark, width=max(1, round(p.thick * 0.35)))
    centre = (x0 + x1) / 2
    p.draw.rectangle((centre - rail, middle - rail * 0.3, centre + rail, middle + rail * 0.3), fill=p.dark)


def _sliding(p: _Painter, box: Box) -> None:
    """Two sashes side by side, one before the other; a thick upright meeting rail with a pull."""
    x0, y0, x1, y1 = p.casing(box)
    middle = x0 + (x1 - x0) * p.rng.uniform(0.42, 0.58)
    rail = p.thick * p.rng.uniform(1.1, 1.6)
    inset = p.thick * 0.5
    back, front = (x0, y0 + inset, middle + rail / 2, y1 - inset), (middle - rail / 2, y0, x1, y1)
    if p.rng.random() < 0.5:
        back, front = (middle - rail / 2, y0 + inset, x1, y1 - inset), (x0, y0, middle + rail / 2, y1)
    p.pane(_corners(back), rail)
    p.pane(_corners(front), rail)
    p.draw.line((middle, y0, middle, y1), fill=p.dark, width=max(1, round(p.thick * 0.35)))
    half = (y0 + y1) / 2
    p.draw.rectangle((middle - rail * 0.3, half - rail, middle + rail * 0.3, half + rail), fill=p.dark)


def _awning(p: _Painter, box: Box) -> None:
    """One sash hinged at the top, its lower edge pushed out of the wall: a flared pane over a dark gap."""
    x0, y0, x1, y1 = p.casing(box)
    out = (x1 - x0) * p.rng.uniform(0.07, 0.16)
    drop = (y1 - y0) * p.rng.uniform(0.08, 0.2)
    low = y1 - drop
    p.draw.polygon([(x0, low), (x1, low), (x1, y1), (x0, y1)], fill=_shade(p.glass, 0.3))
    for x in (x0, x1):  # the stays that hold the sash
        p.draw.line((x, y1 - drop * 0.3, x + (out if x == x1 else -out) * 0.8, low), fill=p.dark,
                    width=max(1, round(p.thick * 0.4)))  # fmt: skip
    p.pane([(x0, y0), (x1, y0), (x1 + out, low), (x0 - out, low)], p.thick * p.rng.uniform(0.9, 1.3))
    for t in (0.2, 0.8):  # hinges
        x = x0 + (x1 - x0) * t
        p.draw.rectangle((x - p.thick, y0 - p.thick * 0.5, x + p.thick, y0 + p.thick * 0.4), fill=p.dark)


def _bay(p: _Painter, box: Box) -> None:
    """Three panes standing out of the wall: a flat one between two that recede at an angle."""
    x0, y0, x1, y1 = box
    wing = (x1 - x0) * p.rng.uniform(0.2, 0.3)
    slope = (y1 - y0) * p.rng.uniform(0.1, 0.2)
    roof = p.thick * p.rng.uniform(1.5, 3)
    outline = [(x0, y0 + slope), (x0 + wing, y0), (x1 - wing, y0), (x1, y0 + slope),
               (x1, y1 - slope), (x1 - wing, y1), (x0 + wing, y1), (x0, y1 - slope)]  # fmt: skip
    lifted = [(x, y - roof) for x, y in outline[:4]] + [(x, y + roof * 0.7) for x, y in outline[4:]]
    p.draw.polygon(lifted, fill=_shade(p.frame, 0.7), outline=p.dark)
    t = p.thick * p.rng.uniform(0.8, 1.2)
    glass, tone = p.glass, p.rng.uniform(0.65, 0.95)
    p.glass = _shade(glass, tone)
    p.pane([outline[0], outline[1], outline[6], outline[7]], t)
    p.glass = _shade(glass, tone * p.rng.uniform(0.8, 1.2))
    p.pane([outline[2], outline[3], outline[4], outline[5]], t)
    p.glass = glass
    p.pane([outline[1], outline[2], outline[5], outline[6]], t)


def _colour(rng: np.random.Generator) -> Rgb:
    r, g, b = rng.integers(40, 226, 3)
    return int(r), int(g), int(b)


def _contrast(a: Rgb, b: Rgb) -> int:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def _shade(colour: Rgb, factor: float) -> Rgb:
    r, g, b = (min(255, int(c * factor)) for c in colour)
    return r, g, b


def _corners(box: Box) -> list[tuple[float, float]]:
    x0, y0, x1, y1 = box
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def _at(quad: list[tuple[float, float]], u: float, v: float) -> tuple[float, float]:
    """The point of a quadrilateral at (u, v) in [0, 1]^2, by bilinear interpolation."""
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = quad
    top, bottom = (ax + (bx - ax) * u, ay + (by - ay) * u), (dx + (cx - dx) * u, dy + (cy - dy) * u)
    return top[0] + (bottom[0] - top[0]) * v, top[1] + (bottom[1] - top[1]) * v


def _shrink(quad: list[tuple[float, float]], by: float) -> list[tuple[float, float]]:
    wide = max(abs(quad[1][0] - quad[0][0]), 1)
    high = max(abs(quad[3][1] - quad[0][1]), 1)
    u, v = min(0.45, by / wide), min(0.45, by / high)
    return [_at(quad, a, b) for a, b in ((u, v), (1 - u, v), (1 - u, 1 - v), (u, 1 - v))]


def _wall(side: int, colour: Rgb, rng: np.random.Generator) -> Image.Image:
    """Plaster, bricks, or siding laid across or upright."""
    image = Image.new("RGB", (side, side), colour)
    draw = ImageDraw.Draw(image)
    kind = int(rng.integers(0, 4))
    joint = _shade(colour, rng.uniform(0.6, 0.9))
    step = side * rng.uniform(0.04, 0.12)
    rows = int(side / step) + 1
    for row in range(rows if kind else 0):
        at = row * step
        if kind == 3:
            draw.line((at, 0, at, side), fill=joint)
            continue
        draw.line((0, at, side, at), fill=joint)
        if kind == 1:
            shift = step if row % 2 else 0
            for x in np.arange(-step, side + step, 2 * step):
                draw.line((x + shift, at, x + shift, at + step), fill=joint)
    return image


def _perspective(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes the perspective a little, and tilts the picture."""
    side = image.width
    jitter = rng.uniform(-0.06, 0.06, (4, 2)) * side
    tilt = rng.uniform(-0.08, 0.08)
    corners = np.array([(0, 0), (0, side), (side, side), (side, 0)], dtype=float)
    centred = corners - side / 2
    turned = centred @ np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]) * 0.93
    quad = (turned + side / 2 + jitter).clip(0, side - 1)
    return image.transform((side, side), Image.Transform.QUAD, quad.flatten().tolist(), Image.Resampling.BILINEAR)


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Changes the exposure, and darkens the picture in one direction."""
    side = image.width
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    axis = np.linspace(-0.5, 0.5, side)
    ramp = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    gain = rng.uniform(0.6, 1.25) * (1 + strength * ramp)
    pixels = np.asarray(image, dtype=np.float32) * gain[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _occlude(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Draws leaves, branches and a shadow in front of the window."""
    side = image.width
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 3))):
        colour: Any = _colour(rng)
        x, y = rng.uniform(0, side, 2)
        if rng.random() < 0.4:
            dx, dy = rng.normal(0, side * 0.4, 2)
            draw.line((x, y, x + dx, y + dy), fill=colour, width=int(side * rng.uniform(0.01, 0.025)))
        else:
            r = side * rng.uniform(0.03, 0.1)
            for _ in range(4):
                ox, oy = rng.normal(0, r, 2)
                draw.ellipse((x + ox - r, y + oy - r * 0.7, x + ox + r, y + oy + r * 0.7), fill=colour)
    if rng.random() < 0.25:  # the shadow of a tree or a building
        edge = rng.uniform(0.2, 0.8) * side
        mask = Image.new("L", (side, side), 255)
        ImageDraw.Draw(mask).polygon([(0, 0), (edge, 0), (edge + rng.normal(0, side * 0.2), side), (0, side)], 150)
        image = ImageChops.multiply(image, Image.merge("RGB", [mask] * 3))
    return image
