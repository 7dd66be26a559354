"""The rules by which a rank has stopped, with heartbeats at given times."""

import re

import pytest

from pfdet.training.watchdog_rules import Heartbeat, Monitor

TIMEOUT, INTERVAL = 60, 3


class Job:
    """Ranks whose heartbeats a monitor gets; ``does`` maps a rank to a function of the time."""

    def __init__(self, n_rank=4):
        self.now = 0.0
        self.monitor = Monitor(
            {rank: f'node{rank // 2}' for rank in range(n_rank)}, TIMEOUT, INTERVAL, self.now
        )

    def run(self, seconds, does):
        """Exchange heartbeats for a time; return the first problem and its time."""
        end = self.now + seconds
        while self.now < end:
            self.now += INTERVAL
            for rank, beat in does.items():
                beat = beat(self.now) if callable(beat) else beat
                if beat is not None:
                    self.monitor.heard(rank, beat, self.now)
            problem = self.monitor.problem(self.now)
            if problem is not None:
                return problem, self.now
        return None, self.now


def computes(now):
    return Heartbeat(7, 'iteration 7', '', True)


def reports(now):
    return Heartbeat(int(now), 'validation', '', False)


def waits(now):
    # MPI polls.
    return Heartbeat(9, 'iteration 8', 'Allreduce', True)


def hangs(now):
    return Heartbeat(8, 'the snapshot after iteration 7', '', False)


ANSWERS = 'has not answered'
PROGRESS = 'has made no progress'
CASES = {
    # What each of four ranks does, the ranks that have stopped, and what is said.
    'all compute': ([computes] * 4, None, ''),
    'all report': ([reports] * 4, None, ''),
    'all wait for one that computes': ([waits, waits, waits, computes], None, ''),
    'all wait for one that reports': ([reports, waits, waits, waits], None, ''),
    'one is silent': (
        [computes, computes, None, computes],
        (2,),
        f'rank 2 on node node1 {ANSWERS}',
    ),
    'one is silent, the others wait': ([waits, waits, None, waits], (2,), f'rank 2 .* {ANSWERS}'),
    'one is silent, the others seem to hang': ([hangs, hangs, None, hangs], (2,), ANSWERS),
    'a node is silent': (
        [waits, waits, None, None],
        (2, 3),
        f'rank 2 on node node1 {ANSWERS} .*; likewise rank 3 on node node1',
    ),
    'all others are silent': ([waits, None, None, None], (1, 2, 3), 'likewise 2 more ranks'),
    'one hangs, the others wait': (
        [waits, hangs, waits, waits],
        (1,),
        f'rank 1 on node node0 {PROGRESS} .*last phase: the snapshot after iteration 7',
    ),
    'one hangs, the others compute': ([computes, computes, computes, hangs], (3,), PROGRESS),
    'all wait': ([waits] * 4, (0, 1, 2, 3), 'waited for other ranks, as all do, .*, in Allreduce'),
}


@pytest.mark.parametrize('case', CASES)
def test_rules(case):
    does, ranks, words = CASES[case]
    job = Job()
    does = {rank: beat for rank, beat in enumerate(does) if beat is not None}
    problem, time = job.run(10 * TIMEOUT, does)
    if ranks is None:
        assert problem is None
        return
    assert problem.ranks == ranks
    assert problem.line.count('\n') == 0 and f'for {TIMEOUT} seconds' in problem.line
    assert re.search(words, problem.line), problem.line
    assert TIMEOUT < time <= TIMEOUT + 3 * INTERVAL


def test_the_rank_that_is_furthest_behind_is_named_first():
    job = Job(2)
    problem, _ = job.run(
        10 * TIMEOUT,
        {0: Heartbeat(12, 'iteration 3', '', False), 1: Heartbeat(11, 'iteration 3', '', False)},
    )
    assert problem.ranks == (1, 0)


def test_ranks_that_wait_for_a_silent_one_are_not_taken_for_it():
    """On GPUs a rank waits without a mark, and has made its last progress earlier."""
    job = Job()
    assert job.run(4 * INTERVAL, {0: hangs, 1: hangs, 2: reports, 3: hangs})[0] is None
    problem, time = job.run(10 * TIMEOUT, {0: hangs, 1: hangs, 3: hangs})
    assert problem.ranks == (2,) and ANSWERS in problem.line
    assert time > 4 * INTERVAL + TIMEOUT


def test_a_silent_rank_that_answers_again_has_not_stopped():
    job = Job(2)
    assert job.run(TIMEOUT - INTERVAL, {0: waits})[0] is None
    assert job.run(INTERVAL, {0: waits, 1: computes})[0] is None
    assert job.run(TIMEOUT - INTERVAL, {0: waits})[0] is None
    assert job.run(2 * INTERVAL, {0: waits})[0].ranks == (1,)


def test_the_observer_was_stopped_itself():
    """A job that is suspended for an hour goes on afterwards."""
    job = Job(2)
    assert job.run(TIMEOUT / 2, {0: computes, 1: computes})[0] is None
    job.now += 3600
    job.monitor.restart(job.now)
    assert job.run(TIMEOUT, {0: computes, 1: computes})[0] is None


def test_a_finished_rank_is_not_watched():
    job = Job(2)
    job.monitor.finished(1)
    job.monitor.lost(1)
    assert job.run(10 * TIMEOUT, {0: computes, 1: None})[0] is None
    # Nor one that was never there, whatever sends its heartbeats.
    job.monitor.heard(9, Heartbeat(), job.now)
    assert job.run(10 * TIMEOUT, {0: computes})[0] is None


def test_a_lost_connection_is_mentioned():
    job = Job(2)
    job.monitor.lost(1)
    problem, _ = job.run(10 * TIMEOUT, {0: waits})
    assert 'rank 1 on node node0 has lost its connection and has not answered' in problem.line
    # A rank that connects again is as good as before.
    job = Job(2)
    job.monitor.lost(1)
    job.monitor.joined(1, 'node0', job.now)
    problem, _ = job.run(10 * TIMEOUT, {0: waits})
    assert 'lost' not in problem.line
