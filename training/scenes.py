"""Scenes drawn by code, with a mask for everything on them that one may ask for: what sam-tiny learns from.

A scene belongs to one of nine families: assorted things, cells, lesions, cracks, polyps, eye grounds,
shadows, regions of texture, and thin structures. All colours, shapes and sizes are drawn from wide ranges, by
rules of thumb; no photograph went into them. A scene is a function of its seed and its number alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np
from canvas import SIDE, Canvas, Colour, Field, Point, Scene
from looks import any_colour, developed, domed, light, near, spread, step, textured, usual
from outlines import any_outline, lines, polar, turned, walk, wavy


def draw_scene(seed: int, number: int) -> Scene:
    """Draw scene `number` of a series; other seeds give other series."""
    rng = np.random.default_rng([seed, number])
    while True:
        canvas = Canvas(rng, *_shape(rng))
        shares = [family.share for family in FAMILIES.values()]
        name = list(FAMILIES)[rng.choice(len(FAMILIES), p=shares)]
        FAMILIES[name].draw(canvas)
        light(canvas)
        scene = canvas.scene()
        if scene is not None:
            return replace(scene, image=developed(rng, scene.image), family=name)


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    """Return height and width: square, or longer in one direction."""
    if rng.random() < 0.35:
        return SIDE, SIDE
    short = int(rng.uniform(0.6, 1) * SIDE)
    return (short, SIDE) if rng.random() < 0.75 else (SIDE, short)


def _assorted(canvas: Canvas) -> None:
    """Things of any shape and colour, in parts or not, that may hide one another, with clutter."""
    ground = _background(canvas)
    for _ in range(canvas.rng.integers(1, 9)):
        _thing(canvas, ground)
    if canvas.chance(0.3):
        _clutter(canvas)


def _background(canvas: Canvas) -> Colour:
    """Fill the picture with a texture of one colour or of two, and return the first colour."""
    rng = canvas.rng
    ground = any_colour(rng)
    canvas.pixels[:] = textured(canvas, ground)
    if canvas.chance(0.3):
        other = textured(canvas, near(rng, ground, 0.05, 0.3))
        canvas.paint(step(6 * canvas.noise(rng.uniform(20, 60))).astype(np.float32), other)
    return ground


def _thing(canvas: Canvas, ground: Colour) -> None:
    rng = canvas.rng
    centre, radius = canvas.place(), canvas.size(0.05, 0.42)
    outline = any_outline(rng)
    cover = canvas.area(outline, centre, radius)
    if canvas.chance(0.12):
        cover = cover * (1 - canvas.area(any_outline(rng), centre, radius * rng.uniform(0.3, 0.6)))
    colour = near(rng, ground, 0.08, 0.6)
    paint = textured(canvas, colour)
    if canvas.chance(0.3):
        paint = paint * domed(canvas, cover, radius, rng.uniform(0.1, 0.5))
    if canvas.chance(0.2):
        beside = canvas.area(outline, centre + rng.uniform(-0.2, 0.2, 2) * radius, radius)
        canvas.paint(beside, np.zeros(3), opacity=rng.uniform(0.2, 0.6), blur=rng.uniform(1, 4))
    blur = rng.uniform(0.3, 2.5) if canvas.chance(0.4) else 0.0
    opacity = rng.uniform(0.5, 1) if canvas.chance(0.3) else 1.0
    whole = canvas.keep(canvas.paint(cover, paint, opacity=opacity, blur=blur))
    if radius > 0.1 * canvas.side and canvas.chance(0.5):
        _parts(canvas, whole, cover, centre, radius, colour)


def _parts(canvas: Canvas, whole: int, cover: Field, centre: Point, radius: float, colour: Colour) -> None:
    """Paint parts onto a thing: pieces that lie on it, or what lies on one side of a line."""
    rng = canvas.rng
    for _ in range(rng.integers(1, 4)):
        inner = textured(canvas, near(rng, colour, 0.1, 0.5))
        if canvas.chance(0.3):
            turn = rng.uniform(0, 2 * np.pi)
            ahead = (canvas.x - centre[0]) * np.cos(turn) + (canvas.y - centre[1]) * np.sin(turn)
            piece = (ahead - rng.uniform(-0.2, 0.5) * radius + 0.5).clip(0, 1)
        else:
            offset = rng.uniform(-0.5, 0.5, 2) * radius
            piece = canvas.area(any_outline(rng), centre + offset, radius * rng.uniform(0.2, 0.6))
        canvas.keep(canvas.paint(cover * piece, inner), part_of=whole)


def _clutter(canvas: Canvas) -> None:
    """Lay thin lines or specks over the picture that nobody asks for."""
    rng = canvas.rng
    if canvas.chance(0.5):
        cover = lines(canvas, int(rng.integers(1, 8)), (0.5, 1.0), 0.12)
    else:
        cover = step(8 * (canvas.noise(rng.uniform(1.5, 4)) - rng.uniform(1.8, 2.6))).astype(np.float32)
    canvas.paint(cover, any_colour(rng), opacity=rng.uniform(0.4, 0.95))


def _cells(canvas: Canvas) -> None:
    """One or two kinds of cells, from many small ones to one that fills the picture, some with a nucleus."""
    rng = canvas.rng
    tone = float(rng.choice([0.06, 0.88]))
    ground = usual(rng, tone, tone, tone)
    canvas.pixels[:] = textured(canvas, ground, 0.12)
    for _ in range(2 if canvas.chance(0.35) else 1):
        radius = canvas.size(0.04, 0.38)
        crowd = 0.6 * canvas.height * canvas.width / (np.pi * radius**2)
        number = int(np.clip(rng.uniform(0.1, 1) * crowd, 1, 30))
        _population(canvas, number, radius, near(rng, ground, 0.12, 0.6))


def _population(canvas: Canvas, number: int, radius: float, colour: Colour) -> None:
    rng = canvas.rng
    nucleated, lone = canvas.chance(0.5), canvas.chance(0.6)
    inside = near(rng, colour, 0.12, 0.5)
    bodies, nuclei = textured(canvas, colour, 0.2), textured(canvas, inside, 0.2)
    roughness, blur = rng.uniform(0.03, 0.2), rng.uniform(0, 1.2)
    taken = np.zeros((canvas.height, canvas.width), dtype=bool)
    cells, kernels = [], []
    for _ in range(number):
        centre = canvas.place()
        if lone and taken[int(centre[1]), int(centre[0])]:
            continue
        own = radius * rng.uniform(0.75, 1.3)
        cover = canvas.area(turned(rng, wavy(rng, roughness), 1.6), centre, own)
        if lone:
            cover[taken] = 0
        shade = rng.uniform(0.85, 1.15)
        paint = bodies * shade * domed(canvas, cover, own, 0.15)
        covered = canvas.paint(cover, paint, blur=blur, opacity=rng.uniform(0.75, 1))
        cells.append(canvas.keep(covered))
        taken |= covered
        if nucleated and own > 4:
            offset = rng.uniform(-0.3, 0.3, 2) * own
            outline = turned(rng, wavy(rng, 2 * roughness), 1.8)
            nucleus = cover * canvas.area(outline, centre + offset, own * rng.uniform(0.35, 0.75))
            painted = canvas.paint(nucleus, nuclei * shade, blur=0.5 * blur)
            kernels.append(canvas.keep(painted, part_of=cells[-1]))
    canvas.group(cells)
    canvas.group(kernels)


def _lesions(canvas: Canvas) -> None:
    """One blotch on skin, of ragged edge and mixed colours, under hairs; at times two."""
    rng = canvas.rng
    skin = usual(rng, 0.80, 0.62, 0.52)
    canvas.pixels[:] = textured(canvas, skin, 0.1) + 0.03 * canvas.noise(canvas.side / 4)[..., None]
    for _ in range(2 if canvas.chance(0.1) else 1):
        radius = canvas.size(0.1, 0.5)
        outline = turned(rng, wavy(rng, 0.25), 1.5)
        centre = canvas.rng.uniform(0.3, 0.7, 2) * [canvas.width, canvas.height]
        cover = canvas.area(outline, centre, radius)
        ragged = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.5, 4)) + rng.uniform(0, 0.15) * canvas.noise(4)
        first = near(rng, skin, 0.08, 0.55)
        pigment = textured(canvas, first, 0.3)
        if canvas.chance(0.5):
            share = step(2 * canvas.noise(max(4.0, radius / 2)))[..., None]
            pigment = pigment + share * (near(rng, first, 0.05, 0.3) - pigment)
        soft = step((ragged - 0.5) / rng.uniform(0.03, 0.15)).astype(np.float32)
        canvas.paint(soft, pigment, opacity=rng.uniform(0.6, 1))
        canvas.keep(cover > 0.5)
    if canvas.chance(0.5):
        canvas.paint(lines(canvas, int(rng.integers(2, 14)), (0.5, 0.9), 0.06), any_colour(rng), opacity=0.8)


def _cracks(canvas: Canvas) -> None:
    """A net of thin lines that branch, on a grainy ground with stains."""
    rng = canvas.rng
    tone = rng.uniform(0.2, 0.8)
    ground = usual(rng, tone, tone, tone)
    canvas.pixels[:] = textured(canvas, ground, 0.15) + rng.uniform(0.02, 0.12) * canvas.grain[..., None]
    cover = lines(canvas, int(rng.integers(1, 4)), (1.0, 3.5), rng.uniform(0.1, 0.4))
    canvas.keep(canvas.paint(cover, near(rng, ground, 0.2, 0.6), blur=rng.uniform(0, 0.8)))


def _strands(canvas: Canvas) -> None:
    """A few thin structures, each a mask of its own: threads, rods, rings and curls."""
    rng = canvas.rng
    ground = _background(canvas)
    strands = []
    for _ in range(rng.integers(1, 6)):
        colour = textured(canvas, near(rng, ground, 0.15, 0.6))
        if canvas.chance(0.3):
            outline, centre, radius = any_outline(rng), canvas.place(), canvas.size(0.1, 0.4)
            thin = 1 - rng.uniform(1.5, 4) / radius
            cover = canvas.area(outline, centre, radius) * (1 - canvas.area(outline, centre, radius * thin))
        else:
            cover = lines(canvas, 1, (1.2, 4.0), rng.uniform(0.02, 0.3))
        strands.append(canvas.keep(canvas.paint(cover, colour, blur=rng.uniform(0, 0.7))))
    canvas.group(strands)


def _polyps(canvas: Canvas) -> None:
    """A bulge of nearly the colour of the wet, folded wall around it."""
    rng = canvas.rng
    wall = usual(rng, 0.70, 0.40, 0.32)
    folds = np.sin(canvas.noise(rng.uniform(15, 45)) * rng.uniform(1, 4))
    canvas.pixels[:] = textured(canvas, wall, 0.1) * (1 + rng.uniform(0.05, 0.3) * folds)[..., None]
    for _ in range(2 if canvas.chance(0.15) else 1):
        radius, centre = canvas.size(0.06, 0.42), canvas.place() * 0.8 + 0.1 * canvas.side
        cover = canvas.area(turned(rng, wavy(rng, 0.15), 1.7), centre, radius)
        skin = textured(canvas, near(rng, wall, 0.03, 0.25), 0.12)
        bulge = skin * domed(canvas, cover, radius, rng.uniform(0.15, 0.6))
        canvas.keep(canvas.paint(cover, bulge, blur=rng.uniform(0.4, 2.5)))
    lamp = np.hypot(
        canvas.x - canvas.width * rng.uniform(0.2, 0.8), canvas.y - canvas.height * rng.uniform(0.2, 0.8)
    )
    canvas.pixels *= (1.2 - rng.uniform(0.2, 1.0) * (lamp / SIDE) ** 2)[..., None].clip(0.05, None)
    if canvas.chance(0.6):
        glints = step(10 * (canvas.noise(rng.uniform(2, 6)) - rng.uniform(1.8, 2.8)))
        canvas.paint(glints.astype(np.float32), np.ones(3), opacity=0.9)


def _eyes(canvas: Canvas) -> None:
    """An eye ground: a round field with a bright disc, a cup in the disc, and vessels."""
    rng = canvas.rng
    canvas.pixels[:] = rng.uniform(0, 0.1)
    field = usual(rng, 0.72, 0.33, 0.15)
    zoom = np.exp(rng.uniform(0, np.log(4)))
    radius = zoom * canvas.side * rng.uniform(0.4, 0.6)
    disc = rng.uniform(0.1, 0.2) * radius
    middle = np.array([canvas.width, canvas.height]) / 2
    place = middle + rng.uniform(-0.3, 0.3, 2) * canvas.side
    centre = middle + rng.normal(0, 2, 2) if zoom < 1.3 else place + rng.uniform(-0.5, 0.5, 2) * radius
    round_ = polar(np.linspace(0, 2 * np.pi, 96, endpoint=False), np.ones(96))
    lit = textured(canvas, field, 0.12) * domed(canvas, canvas.area(round_, centre, radius), radius, 0.2)
    eye = canvas.keep(canvas.paint(canvas.area(round_, centre, radius), lit, blur=1))
    bright = field + rng.uniform(0.1, 0.35)
    cover = canvas.area(turned(rng, wavy(rng, 0.04), 1.3), place, disc)
    whole = canvas.keep(
        canvas.paint(cover, textured(canvas, bright, 0.08), blur=rng.uniform(0.02, 0.15) * disc), part_of=eye
    )
    inner = canvas.area(
        turned(rng, wavy(rng, 0.06), 1.3),
        place + rng.normal(0, 0.08, 2) * disc,
        disc * rng.uniform(0.3, 0.8),
    )
    pale = bright + rng.uniform(0.05, 0.25)
    canvas.keep(canvas.paint(cover * inner, pale, blur=rng.uniform(0.02, 0.15) * disc), part_of=whole)
    vessels = np.zeros_like(canvas.x)
    for turn in rng.uniform(0, 2 * np.pi, rng.integers(3, 8)):
        vessel = walk(rng, place, turn, 1.2 * radius, rng.uniform(0.08, 0.2) * disc, 0.12)
        vessels = np.maximum(vessels, canvas.strokes(vessel))
    seen = vessels * canvas.area(round_, centre, radius)
    canvas.paint(seen, 0.5 * field, opacity=rng.uniform(0.3, 0.8))


def _shadows(canvas: Canvas) -> None:
    """A shadow with a soft edge that falls on a ground and on things alike."""
    rng = canvas.rng
    ground = _background(canvas)
    for _ in range(rng.integers(0, 4)):
        _thing(canvas, ground)
    cover = np.zeros_like(canvas.x)
    for _ in range(rng.integers(1, 4)):
        cover = np.maximum(cover, canvas.area(any_outline(rng), canvas.place(), canvas.size(0.12, 0.6)))
    soft = cv2.GaussianBlur(cover, (0, 0), rng.uniform(0.4, 3))[..., None]
    canvas.pixels *= 1 - soft * (1 - rng.uniform(0.25, 0.7) * (1 + 0.08 * spread(rng)))
    canvas.keep(cover > 0.5, hides=False)


def _regions(canvas: Canvas) -> None:
    """A picture that falls into regions, each of its own texture."""
    rng = canvas.rng
    kinds = int(rng.integers(2, 6))
    cell = rng.uniform(25, 60)
    labels = np.argmax([canvas.noise(cell) for _ in range(kinds)], axis=0)
    first = any_colour(rng)
    for kind in range(kinds):
        cover = (labels == kind).astype(np.float32)
        colour = near(rng, first, 0.0 if canvas.chance(0.2) else 0.1, 0.5)
        canvas.paint(cover, textured(canvas, colour, 0.5), blur=0.6)
        number, pieces = cv2.connectedComponents(cover.astype(np.uint8))
        canvas.group([canvas.keep(pieces == piece) for piece in range(1, number)])


@dataclass(frozen=True)
class Family:
    """One kind of scene."""

    draw: Callable[[Canvas], None]
    share: float
    """Of all scenes; the shares of all families add up to 1."""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "assorted": Family(_assorted, 0.32),
        "cells": Family(_cells, 0.15),
        "lesions": Family(_lesions, 0.10),
        "polyps": Family(_polyps, 0.10),
        "eyes": Family(_eyes, 0.08),
        "shadows": Family(_shadows, 0.09),
        "regions": Family(_regions, 0.06),
        "cracks": Family(_cracks, 0.04),
        "strands": Family(_strands, 0.06),
    }
)
