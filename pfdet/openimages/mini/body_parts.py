"""Body parts of the people of MiniOpenImages.

Lengths and positions are in units of the person's height, with the origin above the centre of the
head and y downwards.
"""

import numpy as np

from pfdet.openimages.mini.shapes import (
    Colour,
    Patch,
    ellipse,
    limb,
    polygon,
    rectangle,
    shade,
    smooth,
    vary,
)


def crop_at_waist(patches: list[Patch], waist: float = 0.5) -> list[Patch]:
    """Crop a person of one unit height at the waist.

    Args:
        patches (list of Patch): The person.
        waist (float): Distance of the waist from the top.

    Returns:
        list of Patch: The upper part.
    """
    upper = []
    for patch in patches:
        if patch.points[:, 1].min() < waist:
            points = patch.points.copy()
            # Points below the waist are moved up to it.
            points[:, 1] = np.minimum(points[:, 1], waist)
            upper.append(patch._replace(points=points))
    return upper


def draw_ground_shadow(width: float) -> Patch:
    """Draw a shadow at the feet, with the given half width."""
    return Patch(ellipse(0.02, 0.99, width, 0.025), (20, 20, 30), alpha=0.35, solid=False)


def draw_legs(
    rng: np.random.Generator,
    spread: float,
    hip: float,
    foot: float,
    r0: float,
    r1: float,
    colour: Colour,
    shoe: Colour,
    shoe_length: float,
) -> list[Patch]:
    """Draw legs and shoes.

    Args:
        rng (numpy.random.Generator): The random generator.
        spread (float): Mean distance of the feet from the centre.
        hip, foot (float): Vertical positions.
        r0, r1 (float): Radii at the hip and at the foot.
        colour (tuple of float): RGB of the legs.
        shoe (tuple of float): RGB of the shoes.
        shoe_length (float): Half length of a shoe.
    """
    stride = rng.uniform(-0.02, 0.05)
    patches = []
    for side in (-1, 1):
        x = side * (spread + stride)
        patches += [
            Patch(limb((side * spread * 0.9, hip), (x, foot), r0, r1), colour),
            Patch(ellipse(x + side * 0.015, foot + 0.022, shoe_length, 0.026), shoe),
        ]
    return patches


def draw_arms(
    rng: np.random.Generator,
    shoulder: float,
    top: float,
    length: float,
    r: float,
    sleeve: Colour,
    skin: Colour,
) -> list[Patch]:
    """Draw arms with hands.

    Args:
        rng (numpy.random.Generator): The random generator.
        shoulder (float): Distance of the shoulders from the centre.
        top (float): Vertical position of the shoulders.
        length, r (float): Length and radius of an arm.
        sleeve (tuple of float): RGB of the sleeves.
        skin (tuple of float): RGB of the hands.
    """
    patches = []
    for side in (-1, 1):
        # Arms hang down or wave.
        angle = rng.uniform(8, 35) if rng.random() < 0.75 else rng.uniform(110, 150)
        t = np.radians(angle)
        hand = (side * (shoulder + length * np.sin(t)), top + length * np.cos(t))
        patches += [
            Patch(ellipse(hand[0], hand[1], r * 1.15, r * 1.15, n=16), skin),
            Patch(
                limb((side * shoulder, top), (hand[0] * 0.96, hand[1] * 0.98), r, r * 0.9),
                shade(sleeve, 0.9),
            ),
        ]
    return patches


def draw_head(
    rng: np.random.Generator,
    y: float,
    rx: float,
    ry: float,
    skin: Colour,
    hair: Colour,
    away: bool,
    beard: Colour | None = None,
    lips: Colour = (170, 70, 60),
    tuft: bool = False,
) -> list[Patch]:
    """Draw a head with neck and hair, and a face with the part ``'Human face'``.

    Args:
        rng (numpy.random.Generator): The random generator.
        y (float): Vertical position of the centre.
        rx, ry (float): Radii.
        skin, hair (tuple of float): RGB colours.
        away (bool): Draw the back of the head.
        beard (tuple of float): RGB of the beard; :obj:`None` for no beard.
        lips (tuple of float): RGB of the lips.
        tuft (bool): Whether to draw a tuft of hair.
    """
    neck = Patch(rectangle(-rx * 0.38, y + ry * 0.6, rx * 0.38, y + ry * 1.25), shade(skin, 0.85))
    crown = Patch(ellipse(0, y - ry * 0.06, rx * 1.1, ry * 0.98), hair)
    if away:
        return [neck, crown, Patch(ellipse(0, y + ry * 0.1, rx * 1.02, ry * 0.95), hair)]
    face = ('Human face',)
    patches = [neck, crown]
    patches += [
        Patch(ellipse(side * rx * 0.98, y + ry * 0.1, rx * 0.16, ry * 0.2, n=14), shade(skin, 0.9))
        for side in (-1, 1)
    ]
    if beard:
        patches.append(Patch(ellipse(0, y + ry * 0.38, rx * 0.97, ry * 0.72), beard, face))
    top = Patch(
        ellipse(0, y + ry * (-0.04 if beard else 0.06), rx * 0.94, ry * (0.72 if beard else 0.9)),
        skin,
        face,
    )
    patches.append(top)
    eye = vary(rng, (50, 60, 70), 20)
    gaze = rng.uniform(-0.06, 0.06) * rx
    for side in (-1, 1):
        x = side * rx * 0.4
        patches += [
            Patch(ellipse(x, y - ry * 0.02, rx * 0.2, ry * 0.16, n=16), (255, 255, 255), face),
            Patch(ellipse(x + gaze, y - ry * 0.01, rx * 0.11, ry * 0.11, n=14), eye, face),
            Patch(ellipse(x, y - ry * 0.27, rx * 0.24, ry * 0.06, n=14), shade(hair, 0.8), face),
            Patch(
                ellipse(x * 1.35, y + ry * 0.32, rx * 0.18, ry * 0.12, n=14),
                (240, 120, 110),
                face,
                alpha=0.45,
            ),
        ]
    patches += [
        Patch(ellipse(0, y + ry * 0.2, rx * 0.12, ry * 0.13, n=14), shade(skin, 0.85), face),
        Patch(ellipse(0, y + ry * 0.46, rx * 0.36, ry * 0.2, 0, 10, 170, 14), lips, face),
    ]
    fringe = [
        (-rx * 1.02, y - ry * 0.15),
        (-rx * 0.95, y - ry * 0.7),
        (0, y - ry * 1.03),
        (rx * 0.95, y - ry * 0.7),
        (rx * 1.02, y - ry * 0.15),
        (rx * 0.5, y - ry * 0.5),
        (-rx * 0.3, y - ry * 0.55),
    ]
    patches.append(Patch(smooth(fringe), hair))
    if tuft:
        patches.append(
            Patch(
                smooth(
                    [
                        (-rx * 0.3, y - ry * 0.9),
                        (0.0, y - ry * 1.25),
                        (rx * 0.35, y - ry * 1.1),
                        (rx * 0.3, y - ry * 0.85),
                    ]
                ),
                hair,
            )
        )
    return patches


def draw_brimmed_hat(
    y: float, brim: float, height: float, crown: float, colour: Colour, band: Colour
) -> list[Patch]:
    """Draw a hat with a brim, as the part ``'Hat'``.

    Args:
        y (float): Vertical position of the brim.
        brim (float): Half width of the brim.
        height (float): Height of the crown.
        crown (float): Half width of the crown.
        colour, band (tuple of float): RGB of the hat and of its band.
    """
    hat = ('Hat',)
    return [
        Patch(ellipse(0, y, brim, brim * 0.16), shade(colour, 0.85), hat),
        Patch(
            smooth(
                [
                    (-crown * 0.85, y),
                    (-crown * 0.8, y - height),
                    (0, y - height * 1.2),
                    (crown * 0.8, y - height),
                    (crown * 0.85, y),
                    (0, y + 0.02),
                ]
            ),
            colour,
            hat,
        ),
        Patch(
            polygon(
                (-crown * 0.84, y - 0.028),
                (crown * 0.84, y - 0.028),
                (crown * 0.86, y + 0.004),
                (0, y + 0.018),
                (-crown * 0.86, y + 0.004),
            ),
            band,
            hat,
        ),
    ]
