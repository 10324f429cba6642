"""Pictures of crystals as pixels: shaded spheres with a depth buffer, in perspective. No graphics library needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hpcgen.crystal import Crystal, FloatArray
from hpcgen.report.scene import Scene, element_style, scene

AZIMUTH, ELEVATION = np.radians(-28.0), np.radians(16.0)
LIGHT = np.array([-0.45, 0.65, 0.75]) / np.linalg.norm([-0.45, 0.65, 0.75])
EDGE_COLOUR = (0.45, 0.48, 0.52)
DISTANCE = 4.5  # of the eye from the middle, in radii of the scene
BOND_RADIUS, EDGE_RADIUS = 0.09, 0.022  # angstrom; relative to the scene's radius


def picture(crystal: Crystal, pixels: int = 420, oversample: int = 2) -> NDArray[np.float64]:
    """(pixels, pixels, 4) RGBA in 0-1 of a crystal in its cell, transparent background.

    Args:
        crystal: what to draw; atoms on faces appear on both, bonds are drawn.
        pixels: edge of the picture.
        oversample: each pixel is the mean of this many squared.
    """
    centres, radii, colours = _spheres(scene(crystal))
    centres = centres @ _view().T
    canvas = _Canvas(pixels * oversample, centres, radii)
    for centre, radius, colour in zip(centres, radii, colours, strict=True):
        canvas.sphere(centre, float(radius), colour)
    return canvas.image().reshape(pixels, oversample, pixels, oversample, 4).mean(axis=(1, 3))


def _view() -> FloatArray:
    """(3, 3) rotation from the crystal (z up) to the screen (x right, y up, z towards the eye)."""
    up = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    ca, sa, ce, se = np.cos(AZIMUTH), np.sin(AZIMUTH), np.cos(ELEVATION), np.sin(ELEVATION)
    turn = np.array([[ca, 0, sa], [0, 1, 0], [-sa, 0, ca]])
    tilt = np.array([[1, 0, 0], [0, ce, -se], [0, se, ce]])
    return tilt @ turn @ up


def _spheres(s: Scene) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centres (m, 3), radii (m,) and colours (m, 3): atoms, and bonds and edges as chains of small spheres."""
    styles = [element_style(int(z)) for z in s.numbers]
    centres, radii = [s.position], [np.array([style[2] for style in styles])]
    colours = [np.array([style[1] for style in styles])]
    extent = np.linalg.norm(s.edges.reshape(-1, 3), axis=1).max()

    def chain(start: FloatArray, end: FloatArray, radius: float, colour: tuple[float, float, float]) -> None:
        n = max(2, int(np.linalg.norm(end - start) / (0.7 * radius)))
        t = np.linspace(0, 1, n)[:, None]
        centres.append(start + t * (end - start))
        radii.append(np.full(n, radius))
        colours.append(np.tile(colour, (n, 1)))

    for start, end in s.edges:
        chain(start, end, EDGE_RADIUS * 0.35 * extent, EDGE_COLOUR)
    for i, j in s.bonds:
        middle = (s.position[i] + s.position[j]) / 2
        chain(s.position[i], middle, BOND_RADIUS, styles[i][1])
        chain(s.position[j], middle, BOND_RADIUS, styles[j][1])
    return np.concatenate(centres), np.concatenate(radii), np.concatenate(colours)


class _Canvas:
    """A square picture with depth, its scale such that all spheres just fit. Lengths in angstrom."""

    def __init__(self, size: int, centres: FloatArray, radii: FloatArray) -> None:
        self.size = size
        self.extent = float((np.linalg.norm(centres, axis=1) + radii).max())
        self.eye = DISTANCE * self.extent
        self.rgb = np.zeros((size, size, 3))
        self.depth = np.full((size, size), -np.inf)
        near = self.eye / (self.eye - centres[:, 2])
        low = ((centres[:, :2] - radii[:, None]) * near[:, None]).min(axis=0)
        high = ((centres[:, :2] + radii[:, None]) * near[:, None]).max(axis=0)
        self.middle = (low + high) / 2
        self.scale = 0.96 * size / float((high - low).max())

    def sphere(self, centre: FloatArray, radius: float, colour: FloatArray) -> None:
        """Draw one sphere. `centre`: x right, y up, z towards the eye."""
        near = self.eye / (self.eye - centre[2])
        x = self.size / 2 + self.scale * (centre[0] * near - self.middle[0])
        y = self.size / 2 - self.scale * (centre[1] * near - self.middle[1])
        r = self.scale * near * radius
        left, right = max(0, int(x - r)), min(self.size, int(x + r) + 2)
        top, bottom = max(0, int(y - r)), min(self.size, int(y + r) + 2)
        if left >= right or top >= bottom or r <= 0:
            return
        nx = (np.arange(left, right) + 0.5 - x)[None, :] / r
        ny = -(np.arange(top, bottom) + 0.5 - y)[:, None] / r
        inside = nx**2 + ny**2
        nz = np.sqrt(np.clip(1 - inside, 0, 1))
        depth = centre[2] + radius * nz
        window = (slice(top, bottom), slice(left, right))
        seen = (inside <= 1) & (depth > self.depth[window])
        lambert = np.clip(nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2], 0, 1)
        half = (LIGHT + np.array([0, 0, 1])) / np.linalg.norm(LIGHT + np.array([0, 0, 1]))
        shine = 0.45 * np.clip(nx * half[0] + ny * half[1] + nz * half[2], 0, 1) ** 40
        fog = 0.12 * np.clip(-centre[2] / self.extent, 0, 1)  # what lies behind is paler
        shaded = colour * (0.38 + 0.62 * lambert)[..., None] + shine[..., None]
        shaded = np.clip(shaded * (1 - fog) + fog, 0, 1)
        self.rgb[window][seen] = shaded[seen]
        self.depth[window][seen] = depth[seen]

    def image(self) -> NDArray[np.float64]:
        """(size, size, 4), colours multiplied by nothing: opaque where something was drawn."""
        alpha = np.isfinite(self.depth).astype(float)
        return np.concatenate([self.rgb, alpha[..., None]], axis=-1)
