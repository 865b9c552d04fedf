"""Pictures that are no photographs, drawn by a seed: what `unfamiliar.py` hopes to see flagged."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

__all__ = ["GENERATED_KINDS", "generated"]

_WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or "
    "had an they which one you were all her she there would their we him been has when who will "
    "quality picture measure sample result value method table number figure between several"
).split()


def generated(kind: str, seed: int) -> Image.Image:
    """One picture of a key of `GENERATED_KINDS`, 512 pixels or more on its short side."""
    random = np.random.default_rng([seed, sorted(GENERATED_KINDS).index(kind)])
    return GENERATED_KINDS[kind](random).convert("RGB")


def _colour(random: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    red, green, blue = random.integers(low, high, 3).tolist()
    return red, green, blue


def _size(random: np.random.Generator) -> tuple[int, int]:
    short, long = 512, int(random.integers(512, 800))
    return (short, long) if random.random() < 0.5 else (long, short)


def _sentence(random: np.random.Generator, words: int) -> str:
    return " ".join(random.choice(_WORDS, words)).capitalize() + "."


def _text_page(random: np.random.Generator) -> Image.Image:
    """A printed page, dark on light, sometimes light on dark."""
    size = int(random.integers(11, 22))
    paper, ink = _colour(random, 235, 256), _colour(random, 0, 50)
    if random.random() < 0.25:
        paper, ink = ink, paper
    page = Image.new("RGB", (620, 820), paper)
    draw, font, down = ImageDraw.Draw(page), ImageFont.load_default(size), 40
    draw.text((50, down), _sentence(random, 4), ink, ImageFont.load_default(2 * size))
    down += 4 * size
    while down < 780:
        line = _sentence(random, 30)
        while draw.textlength(line, font) > 520:
            line = line.rsplit(" ", 1)[0]
        draw.text((50, down), line, ink, font)
        down += int(1.4 * size) + (size if random.random() < 0.12 else 0)
    return page


def _chart(random: np.random.Generator) -> Image.Image:
    """A diagram of matplotlib's: lines, bars, points, a matrix or a pie."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 5.2), dpi=110)
    axes = figure.subplots()
    values = random.normal(size=(4, 30)).cumsum(1)
    kind = random.integers(5)
    if kind == 0:
        axes.plot(values.T)
        axes.grid(True)
    elif kind == 1:
        axes.bar(range(12), np.abs(values[0, :12]), color=random.random(3))
    elif kind == 2:
        across, up = random.normal(size=(2, 200))
        axes.scatter(across, up, s=12, c=random.random(200))
    elif kind == 3:
        axes.imshow(random.random((12, 12)), cmap=str(random.choice(["viridis", "Greys", "hot"])))
    else:
        axes.pie(random.random(5) + 0.2, labels=[str(w) for w in random.choice(_WORDS, 5)])
    axes.set_title(_sentence(random, 5))
    axes.set_xlabel(_sentence(random, 2))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer)


def _screenshot(random: np.random.Generator) -> Image.Image:
    """A window with a bar of buttons, a list at the side, and fields."""
    dark = random.random() < 0.4
    back, ink = ((32, 34, 40), (220, 220, 225)) if dark else ((246, 246, 248), (40, 40, 45))
    accent = _colour(random, 40, 220)
    picture = Image.new("RGB", (960, 600), back)
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    draw.rectangle((0, 0, 960, 36), accent)
    draw.text((14, 9), _sentence(random, 3), (255, 255, 255), font)
    for place in range(3):
        draw.ellipse((880 + 24 * place, 12, 892 + 24 * place, 24), (255, 255, 255))
    shade: tuple[int, int, int] = (44, 47, 55) if dark else (229, 231, 236)
    draw.rectangle((0, 36, 210, 600), shade)
    for place in range(int(random.integers(6, 13))):
        top = 54 + 40 * place
        if place == 1:
            draw.rectangle((0, top - 8, 210, top + 26), accent)
        draw.rectangle((14, top, 30, top + 16), _colour(random))
        draw.text((42, top), _sentence(random, 2), ink, small)
    for row in range(int(random.integers(4, 9))):
        top = 60 + 62 * row
        draw.rounded_rectangle((235, top, 930, top + 50), 8, shade, accent if row == 2 else None)
        draw.text((250, top + 8), _sentence(random, int(random.integers(3, 9))), ink, font)
        draw.text((250, top + 29), _sentence(random, int(random.integers(5, 12))), ink, small)
        draw.rounded_rectangle((850, top + 12, 915, top + 38), 6, accent)
    return picture


def _flat(random: np.random.Generator) -> Image.Image:
    """One colour."""
    return Image.new("RGB", _size(random), _colour(random))


def _white_noise(random: np.random.Generator) -> Image.Image:
    """Independent pixels, in colour or grey, uniform or normal."""
    across, down = _size(random)
    channels = int(random.choice([1, 3]))
    values = random.random((down, across, channels)) * 255
    if random.random() < 0.5:
        values = random.normal(127, 50, (down, across, channels))
    pixels = np.clip(values, 0, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(pixels, 3 // channels, axis=2))


def _gradient(random: np.random.Generator) -> Image.Image:
    """A straight or round transition between two colours."""
    across, down = _size(random)
    rows, columns = np.mgrid[0:down, 0:across] / np.array([down, across]).reshape(2, 1, 1)
    angle = random.uniform(0, 2 * np.pi)
    share = rows * np.sin(angle) + columns * np.cos(angle)
    if random.random() < 0.4:
        share = np.hypot(rows - random.random(), columns - random.random())
    share = ((share - share.min()) / np.ptp(share))[..., None]
    first, second = np.array(_colour(random)), np.array(_colour(random))
    return Image.fromarray((first * (1 - share) + second * share).astype(np.uint8))


def _scan(random: np.random.Generator) -> Image.Image:
    """Like a slice of a scanner: grey ellipses in a bright ring on black, a little grain."""
    side = 512
    rows, columns = (np.mgrid[0:side, 0:side] - side / 2) / (side / 2)
    field = np.zeros((side, side))
    wide, high = random.uniform(0.6, 0.85, 2)
    body = (columns / wide) ** 2 + (rows / high) ** 2
    field[body < 1] = 0.9
    field[body < random.uniform(0.78, 0.9)] = random.uniform(0.25, 0.45)
    for _ in range(int(random.integers(4, 12))):
        x, y = random.uniform(-0.4, 0.4, 2)
        a, b = random.uniform(0.05, 0.28, 2)
        turn = random.uniform(0, np.pi)
        u = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        v = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        field[((u / a) ** 2 + (v / b) ** 2 < 1) & (body < 0.75)] += random.uniform(-0.25, 0.3)
    blurred = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(float(random.uniform(0.8, 2.5)))
    )
    grain = random.normal(0, random.uniform(3, 14), (side, side))
    return Image.fromarray(np.clip(np.asarray(blurred) + grain, 0, 255).astype(np.uint8))


def _drawing(random: np.random.Generator) -> Image.Image:
    """A scene of flat shapes with outlines: ground, sky, houses, trees, a sun."""
    picture = Image.new("RGB", (720, 540), _colour(random, 150, 256))
    draw, ink = ImageDraw.Draw(picture), (30, 30, 30)
    horizon = int(random.integers(280, 400))
    x, y = int(random.integers(60, 660)), int(random.integers(50, 120))
    draw.ellipse((x - 45, y - 45, x + 45, y + 45), (250, 215, 60), ink, 3)
    for hill in range(3):
        middle, wide = int(random.integers(0, 720)), int(random.integers(200, 420))
        top = horizon - int(random.integers(20, 110))
        box = (middle - wide, top, middle + wide, top + 700)
        draw.ellipse(box, _colour(random, 60 + 20 * hill, 200), ink, 3)
    draw.rectangle((0, horizon + 40, 720, 540), _colour(random, 60, 190), ink, 3)
    for _ in range(int(random.integers(2, 5))):
        left, base = int(random.integers(20, 620)), int(random.integers(horizon + 50, 530))
        wide, high = int(random.integers(60, 130)), int(random.integers(60, 140))
        draw.rectangle((left, base - high, left + wide, base), _colour(random), ink, 3)
        roof = [(left - 12, base - high), (left + wide // 2, base - high - 55)]
        draw.polygon([*roof, (left + wide + 12, base - high)], _colour(random), ink, 3)
        draw.rectangle((left + 18, base - high + 18, left + 42, base - high + 42), "white", ink, 3)
    for _ in range(int(random.integers(2, 7))):
        left, base = int(random.integers(10, 690)), int(random.integers(horizon + 30, 520))
        draw.rectangle((left, base - 60, left + 14, base), (120, 80, 40), ink, 3)
        draw.ellipse((left - 32, base - 130, left + 46, base - 45), _colour(random, 30), ink, 3)
    return picture


def _pattern(random: np.random.Generator) -> Image.Image:
    """Stripes, a chessboard or rings of two colours."""
    across, down = _size(random)
    rows, columns = np.mgrid[0:down, 0:across].astype(float)
    period = float(random.uniform(8, 70))
    kind = random.integers(3)
    if kind == 0:
        angle = random.uniform(0, np.pi)
        inside = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 2 * np.pi / period) > 0
    elif kind == 1:
        inside = (rows // period + columns // period) % 2 == 0
    else:
        inside = np.sin(np.hypot(rows - down / 2, columns - across / 2) * 2 * np.pi / period) > 0
    first, second = np.array(_colour(random)), np.array(_colour(random))
    return Image.fromarray(np.where(inside[..., None], first, second).astype(np.uint8))


GENERATED_KINDS: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "chart": _chart,
    "drawing": _drawing,
    "flat colour": _flat,
    "gradient": _gradient,
    "pattern": _pattern,
    "scan": _scan,
    "screenshot": _screenshot,
    "text page": _text_page,
    "white noise": _white_noise,
}
