"""Tests of the command-line flags of run options."""

import argparse
import dataclasses
from pathlib import Path

import pytest

from pfdet.errors import InputError
from pfdet.flags import Parser
from pfdet.training.run_options import RunOptions, add_options, options_of


def parse(*arguments, names=()):
    parser = Parser()
    add_options(parser, *names)
    return options_of(parser.parse_args(list(map(str, arguments))))


def test_no_flag_gives_the_defaults():
    assert parse() == RunOptions()


@pytest.mark.parametrize(
    'flag, text, name, value',
    [
        ('--init', 'm.npz', 'init', Path('m.npz')),
        ('--random-weights', None, 'random_weights', True),
        ('--resume', None, 'resume', True),
        ('--seed', '5', 'seed', 5),
        ('--iterations', '0', 'iterations', 0),
        ('--threads', '3', 'threads', 3),
        ('--corrupt', 'skip', 'corrupt', 'skip'),
        ('--max-corrupt-share', '0.5', 'max_corrupt_share', 0.5),
        ('--accumulate', '4', 'accumulate', 4),
        ('--bn-group-size', '8', 'bn_group_size', 8),
        ('--communicator', 'naive', 'communicator', 'naive'),
        ('--allreduce-dtype', 'float16', 'allreduce_dtype', 'float16'),
        ('--double-buffering', None, 'double_buffering', True),
        ('--log-interval', '1', 'log_interval', 1),
        ('--val-interval', '0.5', 'val_interval', 0.5),
        ('--snapshot-interval', '7', 'snapshot_interval', 7),
        ('--keep-snapshots', '2', 'keep_snapshots', 2),
        ('--keep-best', None, 'keep_best', True),
        ('--tensorboard', None, 'tensorboard', True),
    ],
)
def test_flag_sets_its_option(flag, text, name, value):
    arguments = [flag] if text is None else [flag, text]
    assert parse(*arguments) == dataclasses.replace(RunOptions(), **{name: value})


def test_every_option_is_a_flag():
    parser = argparse.ArgumentParser()
    add_options(parser)
    flags = {action.dest for action in parser._actions} - {'help'}
    assert flags == {field.name for field in dataclasses.fields(RunOptions)}
    assert all(action.help for action in parser._actions)


def test_subset_of_flags():
    assert parse('--seed', 3, names=('seed', 'threads')) == RunOptions(seed=3)
    with pytest.raises(InputError, match='--resume: no such flag'):
        parse('--resume', names=('seed', 'threads'))


@pytest.mark.parametrize(
    'flag, text, expected',
    [
        ('--seed', '-1', 'an integer from 0 to'),
        ('--seed', str(2**70), 'an integer from 0 to 4,294,967,295'),
        ('--iterations', '-1', 'an integer from 0 to 1,000,000,000'),
        ('--threads', '0', 'an integer from 1 to 256'),
        ('--accumulate', '0', 'an integer from 1 to 1,024'),
        ('--accumulate', '1000000', 'an integer from 1 to 1,024'),
        ('--bn-group-size', '-1', 'an integer from 0 to 65,536'),
        ('--log-interval', '0', 'an integer from 1 to'),
        ('--val-interval', '0', 'a number above 0'),
        ('--val-interval', 'inf', 'a number above 0'),
        ('--snapshot-interval', '0', 'an integer from 1 to'),
        ('--keep-snapshots', '0', 'an integer from 1 to'),
        ('--max-corrupt-share', '1.5', 'a number from 0 to 1'),
        ('--max-corrupt-share', '-0.1', 'a number from 0 to 1'),
        ('--max-corrupt-share', 'nan', 'a number from 0 to 1'),
        ('--rank-timeout', '-1', 'a number from 0 to'),
    ],
)
def test_value_out_of_range_is_rejected(flag, text, expected):
    """On the command line, and from Python."""
    with pytest.raises(InputError, match=f'{flag} .*: expected {expected}'):
        parse(flag, text)
    name = flag.lstrip('-').replace('-', '_')
    value = float(text) if 'a number' in expected else int(text)
    with pytest.raises(InputError, match=f'{flag} .*: expected {expected}'):
        RunOptions(**{name: value})


def test_every_counter_of_corrupt_images_is_new():
    assert RunOptions().corrupt_images is None
    options = RunOptions(corrupt='skip', max_corrupt_share=0.2)
    one, other = options.corrupt_images, options.corrupt_images
    assert one is not other and one.max_share == 0.2
