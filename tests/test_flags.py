"""Parsers of commands: domains of numbers and paths, suggestions, errors of one line."""

from pathlib import Path

import pytest

from pfdet import flags
from pfdet.errors import InputError


def parser() -> flags.Parser:
    result = flags.Parser(prog='pfdet command')
    add = result.add_argument
    add('--out', type=Path)
    add('--file', type=flags.path_text)
    add('--count', '-c', type=flags.integer(1, 1000))
    add('--rate', type=flags.number(0, 1, above=True))
    add('--seeds', type=flags.SEED, nargs='+')
    add('--format', choices=('parquet', 'csv'))
    add('--train-index')
    add('--val-index')
    add('--flip', action='store_true')
    add('--set', nargs='*')
    add('rest', nargs='*')
    return result


def refusal(*arguments) -> str:
    with pytest.raises(InputError) as refused:
        parser().parse_args(list(arguments))
    message = str(refused.value)
    assert '\n' not in message and len(message) < 300
    return message


@pytest.mark.parametrize(
    'arguments, name, value',
    [
        (['--count', '1'], 'count', 1),
        (['--count=1000'], 'count', 1000),
        (['-c', '+7'], 'count', 7),
        (['--rate', '1'], 'rate', 1.0),
        (['--rate', '2.5e-3'], 'rate', 0.0025),
        (['--rate', '.5'], 'rate', 0.5),
        (['--seeds', '0', '4294967295'], 'seeds', [0, 2**32 - 1]),
        (['--out', 'a b/ü'], 'out', Path('a b/ü')),
        (['--file', 'x/'], 'file', 'x/'),
        (['--out', 'n' * 255], 'out', Path('n' * 255)),
        (['--form', 'csv'], 'format', 'csv'),
        (['--', '--unknown'], 'rest', ['--unknown']),
    ],
)
def test_values_that_are_taken(arguments, name, value):
    taken = getattr(parser().parse_args(arguments), name)
    assert taken == value and type(taken) is type(value)


@pytest.mark.parametrize(
    'text',
    ['0', '-1', '1001', '1.0', '1e2', '', ' ', ' 1', '1_0', '٣', '²', '0x1', 'one', '9' * 5000],
)
def test_integers_outside_of_the_domain(text):
    message = refusal('--count', text)
    assert message.startswith('--count ')
    assert message.endswith(': expected an integer from 1 to 1,000')


@pytest.mark.parametrize(
    'text', ['0', '1.0001', '-0.5', 'nan', 'inf', '1e400', '', '1_0', '٠٫٥', '0x1p-1', '1,5', '1.']
)
def test_numbers_outside_of_the_domain(text):
    if text == '1.':
        assert parser().parse_args(['--rate', text]).rate == 1
        return
    assert refusal('--rate', text).endswith(': expected a number above 0 and to 1')


@pytest.mark.parametrize('flag', ['--out', '--file'])
@pytest.mark.parametrize(
    'text, expected',
    [
        ('', "'': expected a path, not an empty one"),
        ('  ', "'  ': expected a path, not an empty one"),
        ('a/' + 'n' * 256, 'names of at most 255 bytes'),
        # Two bytes each in UTF-8
        ('ü' * 128, 'names of at most 255 bytes'),
        ('a/' * 2001, 'at most 4000 bytes'),
    ],
)
def test_paths_that_no_file_can_have(flag, text, expected):
    assert expected in refusal(flag, text)


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (['--trian-index', 'x'], '--trian-index: no such flag of pfdet command; did you mean '),
        (['--trian-index', 'x'], '--train-index'),
        (['--flips'], 'did you mean --flip?'),
        (['--quite-another'], '--quite-another: no such flag of pfdet command; see pfdet command '),
        # Fields of recipes, under their own names and those that other programs have.
        (['--batch-size', '4'], '--set batch_size=4'),
        (['--batch_size=4'], '--set batch_size=4'),
        (['--lr', '0.1'], '--set base_lr=0.1'),
        (['--lr'], '--set base_lr=VALUE'),
        (['--lr', '--flip'], '--set base_lr=VALUE'),
        (['--learning-rate', '1'], '--set base_lr=1'),
        (['--epochs', '3'], '--set epochs=3'),
        (['--gpu', '0'], 'CUDA_VISIBLE_DEVICES'),
        (['--format', 'parqet'], '--format parqet: did you mean parquet?'),
        (['--format', 'x'], '--format x: expected one of parquet, csv'),
        (['--count'], '--count: expected one argument'),
        (['--set', '-x'], 'pfdet command: unexpected argument -x; see pfdet command --help'),
        (['--' + 'x' * 500], 'xxx...: no such flag'),
    ],
)
def test_slips(arguments, expected):
    assert expected in refusal(*arguments)


def test_an_unknown_flag_is_named_before_missing_ones():
    own = flags.Parser(prog='pfdet command')
    own.add_argument('--model', required=True)
    with pytest.raises(InputError, match='--modle: no such flag .* did you mean --model'):
        own.parse_args(['--modle', 'x'])
    with pytest.raises(InputError, match='pfdet command: the following arguments are required'):
        own.parse_args([])
    # Without --set, no flag is a field of a recipe.
    with pytest.raises(InputError, match='--batch-size: no such flag of pfdet command; see'):
        own.parse_args(['--batch-size', '3'])
