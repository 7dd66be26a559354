"""Every phenomenon of MiniOpenImages, and how much of it there is."""

import dataclasses

from pfdet.errors import InputError


def _knob(default: object, text: str, rate: bool = False) -> dataclasses.Field:
    return dataclasses.field(default=default, metadata={'help': text, 'rate': rate})


@dataclasses.dataclass(frozen=True)
class Knobs:
    """What to make. Each field is a flag of ``python -m pfdet.openimages.make_mini``."""

    images: int = _knob(1000, 'number of training images')
    validation_images: int = _knob(-1, 'number of validation images; -1: a quarter of --images')
    seed: int = _knob(0, 'the same seed gives the same bytes')
    long_side: int = _knob(256, 'long side of the images in pixels')
    parts_verified: float = _knob(
        0.3,
        'share of the training images of a subject (Person, Land vehicle, Door) in which '
        'its parts and possessions are verified, and boxed',
        rate=True,
    )
    parts_prominent: float = _knob(
        0.0,
        'of those images, the share that are the ones with the largest parts, as an image '
        'classifier suggests to annotators what to look for; the others are any',
        rate=True,
    )
    portraits: float = _knob(0.4, 'share of the people that are seen from the waist up', rate=True)
    parent_only: float = _knob(
        0.2,
        'share of the training images of a class, such as Apple, in which it is boxed as '
        'its parent, such as Fruit, only',
        rate=True,
    )
    toy_cars: float = _knob(
        0.25, 'share of the cars that are toys: Car and Toy by one box', rate=True
    )
    torch_flashlight: tuple[float, float] = _knob(
        (0.65, 0.5),
        'concurrent rates: share of the objects called Torch that are also called '
        'Flashlight, and the other way round',
        rate=True,
    )
    leopard_cheetah: tuple[float, float] = _knob(
        (0.5, 0.4), 'the same for Leopard and Cheetah', rate=True
    )
    validation_naming: str = _knob(
        'both',
        'what the validation split calls an object of a confused pair: "both" names, as '
        'one who checks every class would, or "as-training"',
    )
    tail: float = _knob(
        1.0,
        'imbalance of the training split: object counts are the natural ones to this power; '
        '0 makes all classes alike, above 1 a longer tail',
    )
    validation_tail: float = _knob(0.3, 'the same for the validation split')
    group_of: float = _knob(
        0.05, 'share of the images with a heap or a bunch under one group-of box', rate=True
    )
    depictions: float = _knob(0.03, 'share of the objects that are framed pictures', rate=True)
    inside: float = _knob(0.005, 'share of the images taken from within a car', rate=True)
    negatives: float = _knob(3.0, 'mean number of classes verified absent, per training image')
    truncated: float = _knob(0.1, 'share of the objects cut by the border', rate=True)
    overlap: float = _knob(
        0.35, 'most of an object that another may cover when both find a place', rate=True
    )
    jitter: float = _knob(
        0.012,
        'how far annotators miss an edge of a training box, in box sides (one standard deviation)',
        rate=True,
    )
    validation_jitter: float = _knob(0.0, 'the same for the validation split', rate=True)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.metadata['rate']:
                value = getattr(self, field.name)
                for rate in value if isinstance(value, tuple) else (value,):
                    if not 0 <= rate <= 1:
                        raise InputError(
                            f'{flag(field.name)} {rate}: expected a number from 0 to 1'
                        )
        for name, least in (
            ('images', 1),
            ('validation_images', -1),
            ('seed', 0),
            ('long_side', 64),
            ('tail', 0),
            ('validation_tail', 0),
            ('negatives', 0),
        ):
            if not getattr(self, name) >= least:
                raise InputError(f'{flag(name)} {getattr(self, name)}: expected at least {least}')
        if self.validation_images == 0:
            raise InputError('--validation-images 0: expected at least 1, or -1 for a quarter')
        for name in ('torch_flashlight', 'leopard_cheetah'):
            if (getattr(self, name)[0] > 0) != (getattr(self, name)[1] > 0):
                raise InputError(
                    f'{flag(name)} {getattr(self, name)}: the two rates count the '
                    'same objects, so expected both or none to be 0'
                )
        if self.validation_naming not in ('both', 'as-training'):
            raise InputError(
                f'--validation-naming {self.validation_naming}: expected both or as-training'
            )

    def n_image(self, split: str) -> int:
        """Number of images of ``'train'`` or ``'validation'``."""
        if split == 'train':
            return self.images
        if self.validation_images < 0:
            return max(1, self.images // 4)
        return self.validation_images

    def stream(self, split: str, *place: int) -> list[int]:
        """A seed for :func:`numpy.random.default_rng`, its own for each place of use."""
        return [self.seed, ('train', 'validation').index(split), *place]


def flag(name: str) -> str:
    """The command line flag of a field."""
    return '--' + name.replace('_', '-')
