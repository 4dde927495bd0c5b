"""Colour scales: two ramps, mixed in a perceptual space, for light and for dark pages.

A cell never carries a colour of its own; it carries a step (``d0``..``d40`` diverging, ``s0``..``s20``
sequential) and the style sheet of :func:`stylesheet` gives each step a colour and a readable text colour in
either colour scheme. Orange-blue and the single-hue blue ramp stay apart under the common colour deficiencies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DIVERGING_STEPS = 41
SEQUENTIAL_STEPS = 21

_RAMPS = {
    ("d", "light"): ("#8a3d00", "#d9822b", "#f6cf9f", "#f6f4ef", "#b4d2e7", "#4a90c2", "#0d4a7f"),
    ("d", "dark"): ("#ffc48a", "#d9822b", "#6e4218", "#22262d", "#1f4a69", "#3f8fc4", "#a8d8ff"),
    ("s", "light"): ("#f6f4ef", "#cfe0ec", "#8fbbd9", "#4a8dbf", "#1b5f98", "#0a3a66"),
    ("s", "dark"): ("#22262d", "#1e3c54", "#265f87", "#3f8fc4", "#7ebde8", "#cdeaff"),
}


@dataclass(frozen=True)
class Scale:
    """What a colour means.

    Attributes:
        low: value at the first step, which is the lightest where the scale has no centre.
        high: value at the last step; below ``low`` where the small values are those that count.
        units: units of the values, shown beside the legend.
        diverging: whether the scale has a centre (then ``low == -high``).
        name: the quantity, shown beside the legend.
    """

    low: float
    high: float
    units: str
    name: str
    diverging: bool

    @classmethod
    def centred(cls, limit: float, *, units: str, name: str) -> Scale:
        """A diverging scale over [-limit, limit]."""
        limit = limit if math.isfinite(limit) and limit > 0 else 1.0
        return cls(-limit, limit, units, name, True)

    @classmethod
    def rising(cls, low: float, high: float, *, units: str, name: str) -> Scale:
        """A sequential scale over [low, high]."""
        return cls(low, high if high > low else low + 1.0, units, name, False)

    @classmethod
    def falling(cls, high: float, low: float, *, units: str, name: str) -> Scale:
        """A sequential scale over [low, high] on which the low values stand out, as of p-values."""
        return cls(high, low, units, name, False)

    @property
    def steps(self) -> int:
        """How many colours the scale has."""
        return DIVERGING_STEPS if self.diverging else SEQUENTIAL_STEPS

    def step(self, value: float) -> str:
        """The step of a value, as the style sheet's class; values beyond the ends take the end's colour."""
        if not math.isfinite(value):
            return "void"
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return f"{'d' if self.diverging else 's'}{math.floor(share * (self.steps - 1) + 0.5)}"


def _to_oklab(colour: str) -> tuple[float, float, float]:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    cone_l = math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b)
    cone_m = math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b)
    cone_s = math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b)
    return (
        0.2104542553 * cone_l + 0.7936177850 * cone_m - 0.0040720468 * cone_s,
        1.9779984951 * cone_l - 2.4285922050 * cone_m + 0.4505937099 * cone_s,
        0.0259040371 * cone_l + 0.7827717662 * cone_m - 0.8086757660 * cone_s,
    )


def _from_oklab(lightness: float, a: float, b: float) -> str:
    cone_l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    cone_m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    cone_s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * cone_l - 3.3077115913 * cone_m + 0.2309699292 * cone_s,
        -1.2684380046 * cone_l + 2.6097574011 * cone_m - 0.3413193965 * cone_s,
        -0.0041960863 * cone_l - 0.7034186147 * cone_m + 1.7076147010 * cone_s,
    )
    coded = (12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055 for c in (max(0.0, c) for c in linear))
    return "#" + "".join(f"{round(255 * min(1.0, c)):02x}" for c in coded)


def ramp(kind: str, scheme: str) -> list[str]:
    """The colours of a ramp (``d`` or ``s``; ``light`` or ``dark``), first step to last, as ``#rrggbb``."""
    anchors = [_to_oklab(colour) for colour in _RAMPS[(kind, scheme)]]
    steps = DIVERGING_STEPS if kind == "d" else SEQUENTIAL_STEPS
    colours = []
    for index in range(steps):
        place = index / (steps - 1) * (len(anchors) - 1)
        left = min(int(place), len(anchors) - 2)
        share = place - left
        mixed = (p + (q - p) * share for p, q in zip(anchors[left], anchors[left + 1], strict=True))
        colours.append(_from_oklab(*mixed))
    return colours


def luminance(colour: str) -> float:
    """Relative luminance of ``#rrggbb``, in [0, 1] (WCAG 2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, in [1, 21] (WCAG 2)."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def text_on(colour: str) -> str:
    """The ink that reads on a colour: soft black or white where that is enough (4.5 : 1), else the better of both."""
    for ink in ("#14171c", "#ffffff"):
        if contrast(colour, ink) >= 4.5:
            return ink
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(colour, ink))


def stylesheet() -> str:
    """CSS variables and classes of both ramps, for light and dark pages."""

    def variables(scheme: str) -> str:
        return "".join(
            f"--{kind}{i}:{colour};--{kind}{i}t:{text_on(colour)};"
            for kind in ("d", "s")
            for i, colour in enumerate(ramp(kind, scheme))
        )

    names = [f"d{i}" for i in range(DIVERGING_STEPS)] + [f"s{i}" for i in range(SEQUENTIAL_STEPS)]
    rules = "".join(
        f".plot .{n}{{fill:var(--{n})}}.plot text.{n}t{{fill:var(--{n}t)}}"
        f".chip.{n}{{background:var(--{n});color:var(--{n}t)}}"
        for n in names
    )
    return (
        f":root{{{variables('light')}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables('dark')}}}}}\n"
        f"{rules}\n"
    )
