import pytest

from pfdet.errors import InputError
from pfdet.openimages.corrupt_images import CorruptImages


def count_images(n_image, bad, **options):
    """Counts of ``n_image`` images, of which those at the positions ``bad`` are corrupt."""
    corrupt = CorruptImages(**options)
    for position in range(n_image):
        if position in bad:
            corrupt.add(position, InputError(f'{position}.jpg: empty file'))
        else:
            corrupt.n_image += 1
    return corrupt


def test_check_needs_a_share_and_a_number():
    count_images(1900, range(19), max_share=0.001).check()
    count_images(2000, range(20), max_share=0.01).check()
    count_images(3, range(3), max_share=0.0, min_count=4).check()
    count_images(0, ()).check()
    for corrupt in (
        count_images(1999, range(20), max_share=0.01),
        count_images(20, range(20)),
        count_images(1000, [3], max_share=0.0, min_count=1),
    ):
        with pytest.raises(InputError, match='cannot be read'):
            corrupt.check()


def test_message():
    with pytest.raises(InputError) as e:
        count_images(2000, range(100, 130), n_first=2).check()
    assert str(e.value) == (
        '30 of 2,000 images cannot be read (1.5 %): 100.jpg: empty file; '
        '101.jpg: empty file; ...; expected at most 1 %'
    )
    assert str(count_images(7, ())) == '0 of 7 images cannot be read (0 %)'
    assert str(count_images(4, [1])) == '1 of 4 images cannot be read (25 %): 1.jpg: empty file'


def test_merged_counts_equal_joint_counts():
    whole = count_images(60, {3, 9, 20, 33, 34, 35, 50}, n_first=4)
    merged = CorruptImages(n_first=4)
    for rank in 2, 0, 1:
        part = CorruptImages(n_first=4)
        for position in range(rank, 60, 3):
            if position in {3, 9, 20, 33, 34, 35, 50}:
                part.add(position, InputError(f'{position}.jpg: empty file'))
            else:
                part.n_image += 1
        taken = part.take()
        assert (part.n_image, part.n_corrupt, part.first) == (0, 0, [])
        merged.merge(taken.n_image, taken.n_corrupt, taken.first)
    assert str(merged) == str(whole) and merged.first == whole.first
    assert [position for position, _ in merged.first] == [3, 9, 20, 33]


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_invalid_share(share):
    with pytest.raises(ValueError, match='max_share'):
        CorruptImages(share)
