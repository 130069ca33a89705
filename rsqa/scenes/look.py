"""What one scene draws once: its light, its noise tiles and its tree crowns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rsqa.scenes.canvas import NOISE_PX, Floats, Noise, fractal_noise, wave_noise
from rsqa.scenes.styles import Style, varied


@dataclass(frozen=True, slots=True)
class Look:
    """Shared by all painters of a scene."""

    style: Style
    gsd_m: float
    sun: tuple[float, float]
    """Unit (row, col) on the ground, towards the sun."""
    shadow_per_m: float
    """Length of the shadow of one metre of height, pixels."""
    shadow: float
    """Share of light that a shadow takes."""
    cloud: Noise
    """Large soft patches."""
    mottle: Noise
    """Patches of a few metres."""
    grain: Noise
    """Fine texture."""
    waves: Noise
    canopy: Noise
    """Light on a closed roof of tree crowns."""
    grass: Floats
    bare: Floats
    paved: Floats
    road: Floats
    water: Floats
    shore: Floats
    """Mud, sand or reeds beside water and under its shallows."""
    forest: Floats

    def shadow_shift(self, height_m: float) -> tuple[float, float]:
        """(row, col) from the top of something to the end of its shadow, pixels."""
        length = height_m * self.shadow_per_m
        return -self.sun[0] * length, -self.sun[1] * length


def draw_look(rng: np.random.Generator, style: Style, gsd_m: float) -> Look:
    """One scene's share of what a style allows."""
    azimuth = rng.uniform(0, 2 * np.pi)
    sun = (float(np.cos(azimuth)), float(np.sin(azimuth)))
    height = np.deg2rad(rng.uniform(*style.sun_deg))
    grain, mottle = fractal_noise(rng, 0.3), fractal_noise(rng, 1.0, 1.5 / gsd_m)
    return Look(
        style=style,
        gsd_m=gsd_m,
        sun=sun,
        shadow_per_m=float(1 / np.tan(height) / gsd_m),
        shadow=float(rng.uniform(*style.shadow)),
        cloud=fractal_noise(rng, 1.7, 8.0 / gsd_m),
        mottle=mottle,
        grain=grain,
        waves=wave_noise(rng, rng.uniform(3, 8) / gsd_m, rng.uniform(0, np.pi)),
        canopy=_canopy(rng, style, gsd_m, sun, grain, mottle),
        grass=varied(rng, style.grass),
        bare=varied(rng, style.bare),
        paved=varied(rng, style.asphalt if rng.random() < 0.6 else style.bare),
        road=varied(rng, style.asphalt),
        water=varied(rng, style.water, 0.1),
        shore=varied(rng, style.bare if rng.random() < 0.5 else style.forest),
        forest=varied(rng, style.forest, 0.1),
    )


def _canopy(
    rng: np.random.Generator, style: Style, gsd_m: float, sun: tuple[float, float], grain: Noise, mottle: Noise
) -> Noise:
    """Crowns as the nearest of jittered seeds, lit from the sun's side; the gaps between them are dark."""
    across = max(8, round(NOISE_PX * gsd_m / style.crown_m))
    pitch = NOISE_PX / across
    seeds = rng.uniform(0.05, 0.95, (2, across, across)).astype(np.float32)
    size = rng.uniform(0.0, 0.45, (across, across)).astype(np.float32)
    tint = rng.normal(0, 0.12, (across, across)).astype(np.float32)
    at = (np.arange(NOISE_PX, dtype=np.float32) + np.float32(0.5)) / np.float32(pitch)
    cell = at.astype(np.int64)
    place = at - np.floor(at)
    best = np.full((NOISE_PX, NOISE_PX), np.inf, np.float32)
    light = np.zeros((NOISE_PX, NOISE_PX), np.float32)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            pick = np.ix_((cell + down) % across, (cell + right) % across)
            row = (place - np.float32(down))[:, None] - seeds[0][pick]
            col = (place - np.float32(right))[None, :] - seeds[1][pick]
            square = row * row + col * col - size[pick]
            nearer = square < best
            np.copyto(best, square, where=nearer)
            slope = row * np.float32(0.9 * sun[0]) + col * np.float32(0.9 * sun[1])
            np.copyto(light, slope + tint[pick], where=nearer)
    depth = np.clip(best + np.float32(0.45), 0, 2)
    crowns = light - (np.sqrt(depth) if style.conifers else depth) * np.float32(0.5)
    crowns += (grain.doubled + mottle.doubled)[:NOISE_PX, :NOISE_PX] * np.float32(0.1)
    crowns -= crowns.mean()
    crowns /= crowns.std()
    return Noise(np.tile(crowns.astype(np.float32), (2, 2)))
