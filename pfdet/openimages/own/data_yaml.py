"""The ``data.yaml`` of a YOLO data set, and lists of class names.

Only the tree of the YAML file is read, so no type of YAML is constructed. A class of the name
``no`` stays text. Aliases are refused: a few lines of them can stand for gigabytes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from pfdet.errors import InputError
from pfdet.files.json_file import shortened
from pfdet.files.reading import reading
from pfdet.openimages.identifiers import normal_mid, normal_name
from pfdet.openimages.text_files import open_utf8, text_lines

_MAX_SIZE = 1 << 20
_EMPTY = ('', '~', 'null', 'Null', 'NULL')
_EXPECTED = 'a data.yaml with names, train and val'


class Entry(NamedTuple):
    """A text of the file, and its line, 1-based."""

    text: str
    line: int


class DataYaml(NamedTuple):
    """The content of a ``data.yaml``.

    Attributes:
        path (path): The file.
        names (tuple of str): The classes.
        root (Entry): ``path``, the directory of the data set; :obj:`None` if it is not given.
        splits (dict): By name, the directories and lists of images of ``train``, ``val``, ``test``
            and others.
        n_keypoint_field (int): The number of fields after the box, of data sets with keypoints.
    """

    path: Path
    names: tuple[str, ...]
    root: Entry | None = None
    splits: dict[str, list[Entry]] = {}  # noqa: RUF012
    n_keypoint_field: int = 0


def read_data_yaml(path: str | os.PathLike) -> DataYaml:
    """Read a ``data.yaml``.

    Args:
        path (path): The file. ``names`` is a list, or an object with the numbers from 0 as keys.
            ``nc``, the number of classes, may be missing.

    Returns:
        DataYaml: Its content. Keys that do not describe images or classes are ignored.

    Raises:
        InputError: If the file cannot be read, is not such a YAML file, or ``nc`` is not the number
            of names. The message names the file and the line.
    """
    try:
        # Only data sets of YOLO need it, and ranks of a training do not.
        import yaml
    except ImportError as e:
        # As in an environment of an earlier version of pfdet.
        raise InputError(f'{path}: PyYAML is not installed; expected: pip install pyyaml') from e

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                line = self.peek_event().start_mark.line + 1
                raise InputError(f'{path}, line {line}: an alias; expected {_EXPECTED}')
            return super().compose_node(parent, index)

    with open_utf8(path, 'data.yaml', _MAX_SIZE) as (_, stream):
        data = stream.read()
    with reading(path, _EXPECTED):
        try:
            root = Loader(data.decode()).get_single_node()
        except yaml.MarkedYAMLError as e:
            mark = e.problem_mark or e.context_mark
            where = f'{path}, line {mark.line + 1}' if mark else path
            raise InputError(f'{where}: {e.problem or e.context}; expected {_EXPECTED}') from e
    return _Tree(Path(path), yaml).data(root)


class _Tree:
    """Takes texts out of the nodes of a YAML file."""

    def __init__(self, path: Path, yaml: Any) -> None:
        self.path = path
        self.yaml = yaml

    def fail(self, node: Any, what: str) -> NoReturn:
        raise InputError(f'{self.path}, line {node.start_mark.line + 1}: {what}')

    def entry(self, node: Any, key: str) -> Entry:
        if not isinstance(node, self.yaml.ScalarNode):
            self.fail(node, f'{key} is no text; expected {_EXPECTED}')
        return Entry(node.value, node.start_mark.line + 1)

    def mapping(self, node: Any, what: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = self.entry(key, 'a key').text
            if name in found:
                self.fail(key, f'{what} has the key {shortened(name)} twice; expected each once')
            found[name] = value
        return found

    def data(self, root: Any) -> DataYaml:
        if not isinstance(root, self.yaml.MappingNode):
            raise InputError(f'{self.path}: no keys; expected {_EXPECTED}')
        top = self.mapping(root, 'the file')
        if 'names' not in top:
            raise InputError(f'{self.path}: no names; expected {_EXPECTED}')
        names = self.names(top['names'])
        if 'nc' in top:
            nc = self.number(top['nc'], 'nc')
            if nc != len(names):
                self.fail(top['nc'], f'nc is {nc}, but there are {len(names)} names')
        return DataYaml(
            self.path,
            checked_names(self.path, names),
            self.optional(top.get('path')),
            {
                key: self.entries(node, key)
                for key, node in top.items()
                if key in ('train', 'val', 'valid', 'test', 'minival')
                and (not isinstance(node, self.yaml.ScalarNode) or node.value not in _EMPTY)
            },
            self.keypoints(top.get('kpt_shape')),
        )

    def names(self, node: Any) -> list[Entry]:
        if isinstance(node, self.yaml.SequenceNode):
            return [self.entry(item, 'a name') for item in node.value]
        if not isinstance(node, self.yaml.MappingNode):
            self.fail(node, 'names are no list; expected a list of the classes')
        by_number: dict[int, Entry] = {}
        for key, value in node.value:
            number = self.number(key, 'the number of a class')
            if number in by_number:
                self.fail(key, f'class {number} repeats line {by_number[number].line}')
            by_number[number] = self.entry(value, 'a name')
        for number, expected in zip(sorted(by_number), range(len(by_number))):
            if number != expected:
                self.fail(
                    node,
                    f'no name of class {expected}; expected the numbers from 0 to '
                    f'{len(by_number) - 1}',
                )
        return [by_number[number] for number in range(len(by_number))]

    def number(self, node: Any, what: str) -> int:
        text = self.entry(node, what).text
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            self.fail(node, f'{what} is {shortened(text)}; expected a whole number')
        return int(text)

    def optional(self, node: Any) -> Entry | None:
        if node is None:
            return None
        found = self.entry(node, 'path')
        return None if found.text in _EMPTY else found

    def entries(self, node: Any, key: str) -> list[Entry]:
        if isinstance(node, self.yaml.SequenceNode):
            return [self.entry(item, key) for item in node.value]
        return [self.entry(node, key)]

    def keypoints(self, node: Any) -> int:
        if node is None:
            return 0
        if not isinstance(node, self.yaml.SequenceNode) or len(node.value) != 2:
            self.fail(node, 'kpt_shape is not two numbers; expected such as [17, 3]')
        n_point, n_value = (self.number(item, 'kpt_shape') for item in node.value)
        return n_point * n_value


def read_names(path: str | os.PathLike) -> DataYaml:
    """Read the names of classes, one per line, as in ``classes.txt`` and ``obj.names``.

    Args:
        path (path): The file.

    Returns:
        DataYaml: With the names alone.

    Raises:
        InputError: If the file cannot be read, a name is repeated, or a line between names is
            empty.
    """
    lines: list[Entry] = []
    with open_utf8(path, 'list of class names', _MAX_SIZE) as (_, stream):
        for number, line in enumerate(text_lines(stream), 1):
            lines.append(Entry(line.strip('\r\n'), number))
    while lines and not lines[-1].text.strip():
        lines.pop()
    return DataYaml(Path(path), checked_names(path, lines))


def checked_names(path: str | os.PathLike, names: Sequence[Entry]) -> tuple[str, ...]:
    """Return names of classes in normal form.

    Args:
        path (path): Their file, for messages.
        names (sequence of Entry): Texts and lines.

    Raises:
        InputError: If there are none, or one is not a name or is repeated.
    """
    if not names:
        raise InputError(f'{path}: no names; expected one or more classes')
    lines: dict[str, int] = {}
    for text, line in names:
        name = normal_name(text)
        # It is also the id of the class, so that files of detections have it.
        if name is None or normal_mid(name) is None:
            raise InputError(
                f'{path}, line {line}: {shortened(text)}; expected the name of a class, without '
                'invisible characters'
            )
        if name in lines:
            raise InputError(
                f'{path}, line {line}: class {shortened(name)} repeats line {lines[name]}; '
                'expected each name once'
            )
        lines[name] = line
    return tuple(lines)
