"""Pascal VOC: where files are, and malformed and hostile XML."""

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.own.command import main
from pfdet.openimages.own.voc_xml import read_voc_xml

GOOD = """<annotation>
  <size><width>40</width><height>20</height><depth>3</depth></size>
  <object>
    <name>cat</name>
    <difficult>0</difficult>
    <bndbox>
      <xmin>5</xmin><ymin>3</ymin>
      <xmax>20.5</xmax>
      <ymax>10</ymax>
    </bndbox>
  </object>
</annotation>
"""
LAUGHS = '<!DOCTYPE a [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;">]>\n'
OUTSIDE = '<!DOCTYPE annotation [<!ENTITY a SYSTEM "file:///etc/passwd">]>\n'


def read(tmp_path, text):
    path = tmp_path / 'x.xml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_voc_xml(path)


def test_a_file_is_read(tmp_path):
    found = read(tmp_path, GOOD)
    assert found.size == (20, 40) and found.line_of_size == 2
    [one] = found.objects
    assert one == ('cat', 5, 3, 20.5, 10, 0, False, 3)


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'latin-1'])
def test_encodings(tmp_path, encoding):
    head = '<?xml version="1.0" encoding="iso-8859-1"?>\n' if encoding == 'latin-1' else ''
    text = (head + GOOD.replace('cat', 'Kätzchen')).encode(encoding)
    assert read(tmp_path, text).objects[0].name == 'Kätzchen'


def replaced(old, new):
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    'text, message',
    [
        ('', r'line 1: no element found; expected an annotation file of Pascal VOC'),
        ('no xml', r'line 1: syntax error'),
        (replaced('</bndbox>', ''), r'line 11: mismatched tag'),
        (GOOD[:60], r'line 2: '),
        ('<svg></svg>', r"line 1: the element 'svg'; expected"),
        (LAUGHS + replaced('cat', '&b;'), r'line 1: a document type; expected'),
        (OUTSIDE + replaced('cat', '&a;'), r'line 1: a document type; expected'),
        (replaced('cat', '&b;'), r'line 4: undefined entity'),
        (replaced('<name>cat</name>', ''), r'line 3: an object without a name'),
        (replaced('cat', ''), r"line 4: name ''; expected a class"),
        (replaced('cat', 'c\u200bat'), r'line 4: name .*; expected a class'),
        (replaced('cat', 'c\tat'), r'line 4: name .*; expected a class'),
        (replaced('<name>', '<name>dog</name><name>'), r'line 4: name for the second time'),
        (replaced('<xmax>20.5</xmax>', ''), r'line 3: an object without xmax; expected bndbox'),
        (replaced('bndbox', 'robndbox'), r'line 3: an object without xmin; expected bndbox'),
        (replaced('20.5', 'nan'), r"line 8: xmax is 'nan'; expected a number of pixels"),
        (replaced('20.5', '1e99'), r"line 8: xmax is '1e99'; expected a number of pixels"),
        (replaced('20.5', '2_0'), r"line 8: xmax is '2_0'; expected a number of pixels"),
        (replaced('20.5', ''), r"line 8: xmax is ''; expected a number of pixels"),
        (
            replaced('20.5', '4'),
            r'line 3: a box from x 5 to 4 and y 3 to 10; expected xmin <= xmax',
        ),
        (replaced('<difficult>0', '<difficult>2'), r"line 5: difficult is '2'; expected 0 or 1"),
        (replaced('<width>40', '<width>40.5'), r'line 2: width is 40.5; expected a whole number'),
        (replaced('<width>40', '<width>-1'), r'line 2: width is -1; expected a whole number'),
        ('<annotation>' + '<a>' * 70, r'line 1: more than 64 elements in each other'),
        (b'<annotation>' + b' ' * (1 << 24), r'has 16,777,228 bytes, more than 16,777,216'),
        ('<?xml version="1.0" encoding="klingon"?>' + GOOD, r'unknown encoding'),
    ],
)
def test_malformed_files_are_refused_with_the_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as e:
        read(tmp_path, text)
    assert str(e.value).startswith(str(tmp_path / 'x.xml')) and '\n' not in str(e.value)


def test_damaged_files_are_read_or_refused(tmp_path, helpers):
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        try:
            read(tmp_path, helpers.mutate(rng, GOOD.encode(), b'<>/&"0-. '))
        except InputError as e:
            refused += 1
            assert 'x.xml' in str(e) and '\n' not in str(e)
    assert 150 < refused < 395


def build(tmp_path, annotations, *flags):
    out = tmp_path / 'voc.index'
    flags = ['--format', 'voc', '--annotations', annotations, '--out', out, *flags]
    main(list(map(str, flags)))
    return AnnotationIndex.open(out)


BOXES = [('cat', 4, 2, 20, 10)]


def test_xml_beside_the_images(tmp_path, own):
    """As LabelImg and Roboflow write it."""
    images = own.write_images(tmp_path / 'train', [('a', 40, 20, [])])
    (images / 'a.xml').write_text(own.voc_text(40, 20, BOXES))
    index = build(tmp_path, images)
    assert index.image_path(0) == images / 'a.jpg' and len(index.annotation(0).bbox) == 1


def test_a_directory_of_voc(tmp_path, own):
    root = own.write_voc(tmp_path / 'VOC', [('a', 40, 20, BOXES), ('b', 40, 20, [])])
    images = own.write_images(root / 'JPEGImages', [(n, 40, 20, []) for n in 'ab'])
    for annotations in root, root / 'Annotations':
        index = build(tmp_path, annotations)
        assert [index.image_path(i) for i in range(2)] == [images / 'a.jpg', images / 'b.jpg']
        assert index.suffixes == ['.jpg']


def test_files_in_folders(tmp_path, own):
    """Folders are part of the id only where names repeat."""
    for folder, name in ('x', 'a'), ('y', 'a'), ('y', 'b'):
        path = tmp_path / 'Annotations' / folder / f'{name}.xml'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(own.voc_text(40, 20, BOXES))
    for folder, names in ('x', 'a'), ('y', 'ab'):
        own.write_images(tmp_path / 'images' / folder, [(name, 40, 20, []) for name in names])
    index = build(tmp_path, tmp_path / 'Annotations', '--images', tmp_path / 'images')
    assert [index.image_id(i) for i in range(3)] == ['b', 'x/a', 'y/a']
    assert all(index.image_path(i).exists() for i in range(3))


def test_sizes(tmp_path, own):
    images = own.write_images(tmp_path / 'train', [(n, 40, 20, []) for n in 'abc'])
    (images / 'a.xml').write_text(own.voc_text(80, 40, [('cat', 8, 4, 40, 20)]))
    # Without a size, that of the file is taken.
    (images / 'b.xml').write_text(own.voc_text(0, 0, BOXES))
    (images / 'c.xml').write_text(GOOD.replace(GOOD.splitlines()[1], '').replace('20.5', '20'))
    index = build(tmp_path, images)
    assert index.counts['resized'] == 1 and index.counts['without_size'] == 2
    for i in range(3):
        np.testing.assert_allclose(index.annotation(i).bbox, [[0.1, 0.1, 0.5, 0.5]])
    (images / 'a.xml').write_text(own.voc_text(20, 40, BOXES))
    with pytest.raises(
        InputError, match=r'a\.jpg: 40 x 20 pixels, but 20 x 40 in .*a\.xml, line 4, as of 1'
    ):
        build(tmp_path, images)
    (images / 'a.xml').unlink()
    (images / 'b.jpg').unlink()
    assert len(build(tmp_path, images)) == 1
    with pytest.raises(
        InputError, match=r"b\.xml, line 8: a box in pixels, but neither a size .*'b'"
    ):
        build(tmp_path, images, '--keep-missing')


def test_a_box_outside_of_the_image(tmp_path, own):
    images = own.write_images(tmp_path / 'train', [('a', 40, 20, [])])
    (images / 'a.xml').write_text(own.voc_text(40, 20, [*BOXES, ('dog', 41, 2, 50, 10)]))
    with pytest.raises(
        InputError, match=r'a\.xml, line \d+: the box from x 41 to 50 and y 2 to 10 is outside'
    ) as e:
        build(tmp_path, images)
    line = int(str(e.value).split('line ')[1].split(':')[0])
    assert (images / 'a.xml').read_text().splitlines()[line - 1].strip() == '<object>'


def test_directories_without_xml(tmp_path, own):
    with pytest.raises(InputError, match='none: no such directory; expected the one of the XML'):
        build(tmp_path, tmp_path / 'none')
    images = own.write_images(tmp_path / 'train', [('a', 40, 20, [])])
    with pytest.raises(InputError, match='train: no XML file; expected one per image'):
        build(tmp_path, images)
    for name in 'a.xml', 'a.XML':
        (images / name).write_text(own.voc_text(40, 20, []))
    with pytest.raises(InputError, match=r'the same image as a\.(xml|XML)|.*expected one XML'):
        build(tmp_path, images)
    (images / 'a.XML').unlink()
    (images / 'a.xml').rename(images / 'b\u200bc.xml')
    with pytest.raises(InputError, match=r"b\\u200bc\.xml': expected its name to be an image id"):
        build(tmp_path, images)


def test_coordinates_that_are_not_counted_from_one(tmp_path, own, capsys):
    images = own.write_images(tmp_path / 'train', [('a', 40, 20, [])])
    boxes = [('cat', 0, 2, 20, 10), ('cat', 4, 0, 20, 10), *BOXES]
    (images / 'a.xml').write_text(own.voc_text(40, 20, boxes, first=0))
    index = build(tmp_path, images)
    assert 'so that the coordinates may be those of edges (--coordinates edges): 2' in (
        capsys.readouterr().out
    )
    assert index.counts['clipped'] == 2
    index = build(tmp_path, images, '--coordinates', 'edges')
    assert 'edges' not in capsys.readouterr().out and index.counts['clipped'] == 0
    np.testing.assert_allclose(index.annotation(0).bbox[0], [0, 0.1, 0.5, 0.5], atol=1e-7)
