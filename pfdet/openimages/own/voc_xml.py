"""Read one XML file of Pascal VOC.

Expat is told to refuse document types, and with them entities and references to other files. The
file is not built as a tree, and its size and depth are limited.
"""

import math
import os
from typing import Any, NamedTuple, NoReturn
from xml.parsers import expat

from pfdet.errors import InputError
from pfdet.files.json_file import shortened
from pfdet.files.reading import reading
from pfdet.files.regular import read_bytes
from pfdet.openimages.box_flags import OCCLUDED, TRUNCATED
from pfdet.openimages.identifiers import normal_mid, normal_name

_MAX_SIZE = 1 << 24
_MAX_DEPTH = 64
_EXPECTED = 'an annotation file of Pascal VOC'
_OBJECT = ('annotation', 'object')
_SIZE = ('annotation', 'size')
_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')
_TEXTS = frozenset(
    [
        *((*_SIZE, name) for name in ('width', 'height')),
        *((*_OBJECT, name) for name in ('name', 'difficult', 'truncated', 'occluded')),
        *((*_OBJECT, 'bndbox', name) for name in _CORNERS),
    ]
)
_TRUE = ('1', 'true', 'True')
# VOC 2007 has Unspecified for what was not annotated.
_FALSE = ('', '0', 'false', 'False', 'Unspecified')


class VocObject(NamedTuple):
    """An object.

    Attributes:
        name (str): Its class.
        x_min (float): As in the file, and so are the other three.
        y_min (float): Upper edge.
        x_max (float): Right edge.
        y_max (float): Lower edge.
        flags (int): The sum of :data:`~pfdet.openimages.box_flags.OCCLUDED` and
            :data:`~pfdet.openimages.box_flags.TRUNCATED`.
        difficult (bool): Whether it is difficult to recognize.
        line (int): The line of its start tag.
    """

    name: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    flags: int
    difficult: bool
    line: int


class VocXml(NamedTuple):
    """The content of a file.

    Attributes:
        path (str): The file.
        size (tuple of int): Height and width in pixels; 0, 0 if the file does not have them.
        line_of_size (int): The line of the size.
        objects (list of VocObject): The objects, in the order of the file.
    """

    path: str
    size: tuple[int, int]
    line_of_size: int
    objects: list[VocObject]


class _Text(NamedTuple):
    text: str
    line: int


def read_voc_xml(path: str | os.PathLike) -> VocXml:
    """Read an XML file of Pascal VOC.

    Args:
        path (path): The file, of at most 16 MB.

    Returns:
        VocXml: Its objects and the size of the image.

    Raises:
        InputError: If the file cannot be read, is not XML, has a document type, or lacks a box or a
            name. The message names the file and the line.
    """
    with reading(path, _EXPECTED):
        data = read_bytes(path, max_size=_MAX_SIZE)
    reader = _Reader(os.fspath(path))
    with reading(path, _EXPECTED):
        try:
            reader.parser.Parse(data, True)
        except expat.ExpatError as e:
            raise InputError(
                f'{path}, line {e.lineno}: {expat.ErrorString(e.code)}; expected {_EXPECTED}'
            ) from e
    return reader.result()


class _Reader:
    """Collects the texts that are needed; :attr:`parser` calls the methods."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.open: tuple[str, ...] = ()
        self.text: list[str] | None = None
        self.line = 0
        self.fields: dict[tuple[str, ...], _Text] = {}
        self.line_of_object = 0
        self.size: dict[str, _Text] = {}
        self.objects: list[VocObject] = []
        self.parser: Any = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self.doctype
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters

    def fail(self, line: int, what: str) -> NoReturn:
        raise InputError(f'{self.path}, line {line}: {what}')

    def doctype(self, *_: Any) -> None:
        self.fail(self.parser.CurrentLineNumber, f'a document type; expected {_EXPECTED} without')

    def start(self, name: str, _: Any) -> None:
        line = self.parser.CurrentLineNumber
        if not self.open and name != 'annotation':
            self.fail(line, f'the element {shortened(name)}; expected {_EXPECTED}: annotation')
        if len(self.open) == _MAX_DEPTH:
            self.fail(line, f'more than {_MAX_DEPTH} elements in each other; expected {_EXPECTED}')
        self.open = (*self.open, name)
        if self.open == _OBJECT:
            self.fields, self.line_of_object = {}, line
        elif self.open in _TEXTS:
            self.text, self.line = [], line

    def characters(self, text: str) -> None:
        if self.text is not None and self.open in _TEXTS:
            self.text.append(text)

    def end(self, name: str) -> None:
        path, self.open = self.open, self.open[:-1]
        if path in _TEXTS and self.text is not None:
            found = _Text(''.join(self.text).strip(), self.line)
            self.text = None
            into: dict = self.size if path[:2] == _SIZE else self.fields
            key = path[-1] if path[:2] == _SIZE else path
            if key in into:
                self.fail(found.line, f'{name} for the second time; expected it once')
            into[key] = found
        elif path == _OBJECT:
            self.objects.append(self.object())

    def object(self) -> VocObject:
        line = self.line_of_object
        found = self.fields.get((*_OBJECT, 'name'))
        if found is None:
            self.fail(line, 'an object without a name; expected a class')
        name = normal_name(found.text)
        # It is also the id of the class, so that files of detections have it.
        if name is None or normal_mid(name) is None:
            self.fail(
                found.line,
                f'name {shortened(found.text)}; expected a class, without invisible characters',
            )
        corners = []
        for key in _CORNERS:
            value = self.fields.get((*_OBJECT, 'bndbox', key))
            if value is None:
                self.fail(
                    line, f'an object without {key}; expected bndbox with {", ".join(_CORNERS)}'
                )
            corners.append(self.number(value, key))
        x_min, y_min, x_max, y_max = corners
        if x_min > x_max or y_min > y_max:
            self.fail(
                line,
                f'a box from x {x_min:g} to {x_max:g} and y {y_min:g} to {y_max:g}; expected xmin '
                '<= xmax and ymin <= ymax',
            )
        flags = OCCLUDED * self.flag('occluded') + TRUNCATED * self.flag('truncated')
        return VocObject(name, x_min, y_min, x_max, y_max, flags, self.flag('difficult'), line)

    def flag(self, key: str) -> bool:
        value = self.fields.get((*_OBJECT, key))
        if value is None or value.text in _FALSE:
            return False
        if value.text not in _TRUE:
            self.fail(value.line, f'{key} is {shortened(value.text)}; expected 0 or 1')
        return True

    def number(self, value: _Text, key: str) -> float:
        try:
            found = float(value.text) if '_' not in value.text else math.nan
        except ValueError:
            found = math.nan
        if not abs(found) < 2**31:
            self.fail(value.line, f'{key} is {shortened(value.text)}; expected a number of pixels')
        return found

    def result(self) -> VocXml:
        size = []
        for key in 'height', 'width':
            value = self.size.get(key, _Text('0', 1))
            number = self.number(value, key)
            if number < 0 or number % 1:
                self.fail(value.line, f'{key} is {value.text}; expected a whole number of pixels')
            size.append(int(number))
        height, width = size if min(size) else (0, 0)
        line = self.size['width'].line if 'width' in self.size else 1
        return VocXml(self.path, (height, width), line, self.objects)
