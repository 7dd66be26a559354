"""The options of MiniOpenImages: its size, and the rates of annotation gaps and errors."""

import dataclasses

from pfdet.errors import InputError


def _knob(default: object, text: str, rate: bool = False) -> dataclasses.Field:
    return dataclasses.field(default=default, metadata={'help': text, 'rate': rate})


@dataclasses.dataclass(frozen=True)
class Knobs:
    """The options of MiniOpenImages.

    Each field is a flag of ``python -m pfdet.openimages.make_mini``, with the same default.

    Raises:
        InputError: If a value is out of range. The message names the flag.
    """

    images: int = _knob(1000, 'number of training images')
    validation_images: int = _knob(-1, 'number of validation images; -1: a quarter of --images')
    seed: int = _knob(0, 'random seed; the same seed gives the same bytes')
    long_side: int = _knob(256, 'long side of the images in pixels')
    parts_verified: float = _knob(
        0.3,
        'share of the training images of a subject (Person, Land vehicle, Door) in which '
        'its parts and possessions are verified and boxed',
        rate=True,
    )
    parts_prominent: float = _knob(
        0.0,
        'share of those images that are chosen for the largest parts, as if suggested by an '
        'image classifier; the others are random',
        rate=True,
    )
    portraits: float = _knob(0.4, 'share of the people that are drawn from the waist up', rate=True)
    parent_only: float = _knob(
        0.2,
        'share of the training images of a class, such as Apple, in which it is boxed only '
        'as its parent, such as Fruit',
        rate=True,
    )
    toy_cars: float = _knob(
        0.25, 'share of the cars that are toys: Car and Toy with one box', rate=True
    )
    torch_flashlight: tuple[float, float] = _knob(
        (0.65, 0.5),
        'concurrent rates: share of the objects labelled Torch that are also labelled '
        'Flashlight, and vice versa',
        rate=True,
    )
    leopard_cheetah: tuple[float, float] = _knob(
        (0.5, 0.4), 'the same for Leopard and Cheetah', rate=True
    )
    validation_naming: str = _knob(
        'both',
        'labels of confused objects in the validation split: "both" names, as from '
        'exhaustive verification, or "as-training"',
    )
    tail: float = _knob(
        1.0,
        'imbalance of the training split: natural object counts are raised to this power; '
        '0 gives equal counts, values above 1 a longer tail',
    )
    validation_tail: float = _knob(0.3, 'the same for the validation split')
    group_of: float = _knob(
        0.05, 'share of the images with a heap of objects in one group-of box', rate=True
    )
    depictions: float = _knob(0.03, 'share of the objects that are framed pictures', rate=True)
    inside: float = _knob(0.005, 'share of the images taken from inside a car', rate=True)
    negatives: float = _knob(3.0, 'mean number of classes verified as absent per training image')
    truncated: float = _knob(0.1, 'share of the objects truncated by the border', rate=True)
    overlap: float = _knob(
        0.35, 'maximum share of an object that another may cover, if space permits', rate=True
    )
    jitter: float = _knob(
        0.012,
        'standard deviation of the edges of training boxes, relative to the box side',
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
        for name, minimum in (
            ('images', 1),
            ('validation_images', -1),
            ('seed', 0),
            ('long_side', 64),
            ('tail', 0),
            ('validation_tail', 0),
            ('negatives', 0),
        ):
            if not getattr(self, name) >= minimum:
                raise InputError(f'{flag(name)} {getattr(self, name)}: expected at least {minimum}')
        if self.validation_images == 0:
            raise InputError('--validation-images 0: expected at least 1, or -1 for a quarter')
        for name in ('torch_flashlight', 'leopard_cheetah'):
            if (getattr(self, name)[0] > 0) != (getattr(self, name)[1] > 0):
                raise InputError(
                    f'{flag(name)} {getattr(self, name)}: expected both rates or none to be 0, '
                    'since they count the same objects'
                )
        if self.validation_naming not in ('both', 'as-training'):
            raise InputError(
                f'--validation-naming {self.validation_naming}: expected both or as-training'
            )

    def n_image(self, split: str) -> int:
        """Return the number of images of ``'train'`` or ``'validation'``."""
        if split == 'train':
            return self.images
        if self.validation_images < 0:
            return max(1, self.images // 4)
        return self.validation_images

    def rng_seed(self, split: str, *key: int) -> list[int]:
        """Return a seed for :func:`numpy.random.default_rng` that is unique per split and key."""
        return [self.seed, ('train', 'validation').index(split), *key]


def flag(name: str) -> str:
    """Return the command line flag of a field."""
    return '--' + name.replace('_', '-')
