"""Goals of the benchmarks are ratios, and small runs of the benchmarks pass through."""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))

import timing  # noqa: E402


def test_ways_take_turns_and_the_order_alternates():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or name.upper() for name in 'abc'}
    results, seconds = timing.take_turns(ways, 3, warm_up=False)
    assert ''.join(calls) == 'abc' + 'cba' + 'abc'
    assert results == {'a': 'A', 'b': 'B', 'c': 'C'}
    assert all(len(seconds[name]) == 3 for name in 'abc')


def test_waiting_is_not_counted():
    def compute():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    _, seconds = timing.take_turns(
        {'wait': lambda: time.sleep(0.1), 'compute': compute}, 1, warm_up=False
    )
    assert seconds['wait'][0] < 0.04 < seconds['compute'][0]


def test_children_are_counted():
    code = 'import time\nwhile time.process_time() < 0.3: pass'
    command = [sys.executable, '-c', code]
    start = timing.processor_seconds()
    costs = timing.costs_in_turns({'one': command, 'other': [sys.executable, '-c', '']}, 2)
    assert timing.processor_seconds() - start >= 0.6
    assert min(costs['one'].processor) >= 0.3
    # An interpreter takes megabytes, and no gigabyte.
    assert all(1 < memory < 1000 for cost in costs.values() for memory in cost.memory)
    assert len(costs['other'].wall) == 2


def test_a_command_that_fails_ends_the_benchmark():
    with pytest.raises(SystemExit, match='ended with status 3'):
        timing.costs_in_turns({'a': [sys.executable, '-c', 'raise SystemExit(3)']}, 1)


# Ten times slower in one round: the machine was busy, for both of them.
OWN, REFERENCE = [1.0, 10.0, 1.0], [4.0, 40.0, 4.2]


@pytest.mark.parametrize(
    'kind, own, goal, verdict, ratio',
    [
        ('faster', OWN, 4, 'reached', '4 x'),
        ('faster', OWN, 4.1, 'MISSED', '4 x'),
        ('share', OWN, 0.25, 'reached', '0.25'),
        ('share', OWN, 0.24, 'MISSED', '0.25'),
        ('share', OWN, None, '', '0.25'),
        # One bad round does not decide.
        ('share', [1.0, 50.0, 1.0], 0.25, 'reached', '0.25'),
    ],
)
def test_the_median_of_the_ratios_decides(kind, own, goal, verdict, ratio, capsys):
    table = timing.Table()
    capsys.readouterr()
    getattr(table, kind)('the name', own, REFERENCE, 'the reference', goal)
    line = capsys.readouterr().out
    assert table.missed == (verdict == 'MISSED')
    assert line.startswith('the name ') and f' {ratio} ' in line
    assert re.search(r'(reached|MISSED)?$', line.rstrip())[0] == verdict


@pytest.mark.parametrize('missed, flags, status', [(0, ['--check'], 0), (2, ['--check'], 1)])
def test_missed_goals_are_the_status_only_on_request(missed, flags, status):
    parser = argparse.ArgumentParser()
    timing.add_check(parser)
    assert timing.status(missed, parser.parse_args(flags).check) == status
    assert timing.status(missed, parser.parse_args([]).check) == 0


@pytest.mark.parametrize(
    'number, text',
    [(1.5234, '1.52 s'), (0.31, '310 ms'), (12.3e-6, '12.3 us'), (4567.2, '4567 s')],
)
def test_seconds_have_three_digits(number, text):
    assert timing.seconds_text(number) == text


SMALL = {
    'decoding.py': ['--images', '1', '--rounds', '1'],
    'index.py': ['--scale', '0.0002', '--files', '5', '--processes', '1', '--rounds', '1'],
    'losses.py': ['--images', '1', '--regions', '32', '--rounds', '1'],
    'postprocessing.py': ['--regions', '200', '--classes', '60', '--rounds', '1'],
    'samplers.py': ['--scale', '0.0005', '--draws', '500', '--rounds', '1'],
    'scoring.py': ['--images', '60', '--detections', '9', '--share', '20', '--rounds', '1'],
    'submission.py': ['--detections', '3000', '--rounds', '1', '--shuffle'],
}


@pytest.mark.parametrize('script', SMALL)
def test_a_small_run_prints_its_ratios(script):
    """Whether it reaches its goals at this size is not asked."""
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks' / script, *SMALL[script]],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r' (?:reached|MISSED)$', done.stdout, re.MULTILINE)) >= 3, done.stdout
