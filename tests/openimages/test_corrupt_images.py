import pytest

from pfdet.errors import InputError
from pfdet.openimages.corrupt_images import CorruptImages


def counted(n_image, bad, **options):
    """A count of images of which those at some places are corrupt."""
    corrupt = CorruptImages(**options)
    for place in range(n_image):
        if place in bad:
            corrupt.add(place, InputError(f'{place}.jpg: empty file'))
        else:
            corrupt.n_image += 1
    return corrupt


def test_too_many_are_a_share_and_a_number():
    counted(1900, range(19), max_share=0.001).check()
    counted(2000, range(20), max_share=0.01).check()
    counted(3, range(3), max_share=0.0, least=4).check()
    counted(0, ()).check()
    for corrupt in (
        counted(1999, range(20), max_share=0.01),
        counted(20, range(20)),
        counted(1000, [3], max_share=0.0, least=1),
    ):
        with pytest.raises(InputError, match='cannot be read'):
            corrupt.check()


def test_one_line_says_it():
    with pytest.raises(InputError) as e:
        counted(2000, range(100, 130), n_first=2).check()
    assert str(e.value) == (
        '30 of 2,000 images cannot be read (1.5 %): 100.jpg: empty file; '
        '101.jpg: empty file; ...; expected at most 1 %'
    )
    assert str(counted(7, ())) == '0 of 7 images cannot be read (0 %)'
    assert str(counted(4, [1])) == '1 of 4 images cannot be read (25 %): 1.jpg: empty file'


def test_merged_are_as_if_counted_together():
    whole = counted(60, {3, 9, 20, 33, 34, 35, 50}, n_first=4)
    merged = CorruptImages(n_first=4)
    for rank in 2, 0, 1:
        part = CorruptImages(n_first=4)
        for place in range(rank, 60, 3):
            if place in {3, 9, 20, 33, 34, 35, 50}:
                part.add(place, InputError(f'{place}.jpg: empty file'))
            else:
                part.n_image += 1
        taken = part.take()
        assert (part.n_image, part.n_corrupt, part.first) == (0, 0, [])
        merged.merge(taken.n_image, taken.n_corrupt, taken.first)
    assert str(merged) == str(whole) and merged.first == whole.first
    assert [place for place, _ in merged.first] == [3, 9, 20, 33]


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_refuses(share):
    with pytest.raises(ValueError, match='max_share'):
        CorruptImages(share)
