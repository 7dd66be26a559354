"""Signals and frozen ranks in every phase of training, of experts and of prediction.

The whole matrix takes about half an hour: ``pytest -m soak tests/training/test_signals.py``. A part
of it is always run.
"""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from pfdet.training.startup_guard import STATUS as FROZEN

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / 'train' / 'train_multi.py'
EXPERTS = ROOT / 'train' / 'train_experts.py'
PREDICT = ROOT / 'evaluate' / 'predict.py'

# Run a script that waits in a phase, until a file exists. Every rank that waits says so.
HELD = """
import importlib
import os
import runpy
import sys
import time
from pathlib import Path

import pfdet.compat

phase, go, *sys.argv = sys.argv[1:]

def hold():
    global hold
    hold = lambda: None
    os.write(1, b'held\\n')
    while not Path(go).exists():
        time.sleep(0.01)

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == 'chainer':
            hold()

def hold_before(owner, name, when=lambda *args: True):
    function = getattr(owner, name)

    def held(*args, **kwargs):
        if when(*args):
            hold()
        return function(*args, **kwargs)

    setattr(owner, name, held)

# By phase: the module, the class or '', the function that begins it, and the calls that do.
PLACES = {
    'index': ('pfdet.openimages.index', 'AnnotationIndex', 'open'),
    'set-up': ('pfdet.training.train', '', 'network_to_train'),
    'training': (
        'pfdet.training.updater',
        'Updater',
        'update_core',
        lambda updater: updater.iteration == 1,
    ),
    'validation': ('pfdet.training.evaluator', '', 'evaluate'),
    'snapshot': ('pfdet.training.checkpoints', '', 'write'),
    'results': ('pfdet.training.run_output', '', 'write_results'),
    'planning': ('pfdet.training.train_experts', '', 'plan_experts'),
    'prediction': ('pfdet.inference.predict', '', '_outputs'),
    'part': ('pfdet.inference.resumable', '', '_write_part'),
    'merging': ('pfdet.inference.resumable', '', '_merge'),
}

if phase == 'import':
    sys.meta_path.insert(0, AtImport())
else:
    module, owner, name, *when = PLACES[phase]
    module = importlib.import_module(module)
    hold_before(getattr(module, owner) if owner else module, name, *when)
runpy.run_path(sys.argv[0], run_name='__main__')
"""

SETTINGS = ['min_size=(64,64)', 'n_anchor=32', 'n_roi=16', 'batch_size=2']
# Phases of training before there is anything to save, while there is, and when all is done.
BEFORE = 'import', 'index', 'set-up'
DURING = 'training', 'validation', 'snapshot'
AFTER = ('results',)
# In these the first rank works alone.
ALONE = 'snapshot', 'results', 'merging'
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1
SAVED = {signal.SIGINT: 130, signal.SIGHUP: 129, signal.SIGTERM: 75, signal.SIGUSR1: 75}
ENDED = {
    signal.SIGINT: (130, 'interrupted\n'),
    signal.SIGHUP: (129, 'interrupted by SIGHUP\n'),
    signal.SIGTERM: (143, 'interrupted by SIGTERM\n'),
    signal.SIGUSR1: (138, 'interrupted by SIGUSR1\n'),
}


def training(world, out, snapshot_interval=100):
    return [
        TRAIN,
        '--recipe',
        'mini',
        '--random-weights',
        '--train-index',
        world / 'train.index',
        '--val-index',
        world / 'validation.index',
        '--out',
        out,
        '--log-interval',
        1,
        '--snapshot-interval',
        snapshot_interval,
        # Validation follows the first iteration.
        '--val-interval',
        0.01,
        '--set',
        *SETTINGS,
        'epochs=0.6',
    ]


class HeldRun:
    """A job that waits in a phase."""

    def __init__(self, launch, tmp_path, phase, n_rank, command, *more):
        script, *arguments = command
        self.phase, self.n_rank = phase, n_rank
        self.go = tmp_path / 'go'
        program = tmp_path / f'held-{phase}.py'
        program.write_text(HELD)
        self.run = launch(n_rank, phase, self.go, script, *arguments, *more, script=program)
        self.ranks = self.run.ranks(n_rank)
        n_held = 1 if phase in ALONE else n_rank
        deadline = time.monotonic() + 600
        # The line of one rank may come into the midst of another's.
        while sum(line.endswith('held\n') for line in self.run.lines) < n_held:
            assert self.run.process.poll() is None, self.run.output()
            assert time.monotonic() < deadline, self.run.output()
            time.sleep(0.01)

    def signal(self, number, target):
        """Send a signal to ``'launcher'``, its ``'group'`` as a terminal does, or ``'rank N'``."""
        if target == 'group':
            os.killpg(self.run.process.pid, number)
        elif target == 'launcher':
            self.run.send(number)
        else:
            self.run.send(number, self.ranks[int(target[-1])])

    def let_go(self):
        self.go.touch()

    def wait(self):
        status = self.run.wait(600)
        assert self.run.remaining() == []
        assert 'Traceback' not in self.run.output(), self.run.output()
        return status

    def errors(self):
        """Standard error without notes."""
        return ''.join(line for line in self.run.errors if not line.startswith('note: '))


def snapshots(out):
    return sorted(os.listdir(out / 'snapshots')) if (out / 'snapshots').exists() else []


# MPICH's launcher dies of SIGHUP, and its ranks with it.
TARGETS = {
    2: [
        (number, target)
        for target in ('launcher', 'group', 'rank 0', 'rank 1')
        for number in SIGNALS
        if number != signal.SIGHUP or target.startswith('rank')
    ],
    1: [(number, 'rank 0') for number in SIGNALS],
}
MATRIX = [
    (phase, n_rank, number, target)
    for phase in (*BEFORE, *DURING, *AFTER)
    for n_rank in (1, 2)
    for number, target in TARGETS[n_rank]
]
# The cases that are always run.
QUICK = {
    ('import', 2, signal.SIGINT, 'launcher'),
    ('set-up', 2, signal.SIGINT, 'rank 1'),
    ('index', 1, signal.SIGTERM, 'rank 0'),
    ('training', 2, signal.SIGINT, 'group'),
    ('training', 2, signal.SIGHUP, 'rank 1'),
    ('validation', 1, signal.SIGINT, 'rank 0'),
    ('snapshot', 2, signal.SIGTERM, 'launcher'),
}


def parameters(cases, quick):
    """Mark the cases that are not always run."""
    assert set(quick) <= set(cases)
    return [
        pytest.param(
            *case,
            marks=[] if case in quick else [pytest.mark.soak],
            id=' '.join(c.name if isinstance(c, signal.Signals) else str(c) for c in case),
        )
        for case in cases
    ]


@pytest.mark.faults('signals')
@pytest.mark.parametrize('phase, n_rank, number, target', parameters(MATRIX, QUICK))
def test_a_signal_to_a_training_run(phase, n_rank, number, target, small_world, tmp_path, launch):
    out = tmp_path / 'out'
    interval = 1 if phase == 'snapshot' else 100
    held = HeldRun(launch, tmp_path, phase, n_rank, training(small_world, out, interval))
    held.signal(number, target)
    user = number in (signal.SIGINT, signal.SIGHUP)
    if phase in BEFORE and user:
        assert (held.wait(), held.errors()) == ENDED[number]
        assert snapshots(out) == []
        return
    held.let_go()
    status = held.wait()
    assert held.errors() == ''
    if phase in AFTER:
        assert status == 0 and (out / 'model.npz').exists()
        return
    assert status == SAVED[number], held.run.output()
    # A signal during a snapshot is noticed after the next iteration.
    last = {'training': 2, 'snapshot': 2}.get(phase, 1)
    assert held.run.logged_iterations()[-1] == last
    first = 1 if phase == 'snapshot' else last
    assert snapshots(out) == [f'iter_{n:08d}.npz' for n in range(first, last + 1)]
    assert f'stopped by {number.name} after iteration {last}' in held.run.lines[-1]
    assert not (out / 'model.npz').exists()


# A run that is frozen in a phase, with what is said about the phase.
FREEZING = [(phase, rank) for phase in (*BEFORE, *DURING, *AFTER) for rank in (0, 1)]
PHASES = {
    'import': 'in the start-up',
    'index': 'reading the index',
    'set-up': 'set-up',
    'training': 'iteration 2',
    'validation': 'validation after iteration 1',
    'snapshot': r'the snapshot after iteration \d+|iteration 2|end',
    'results': r'writing the results|end',
    'planning': 'planning the experts',
    'prediction': 'prediction',
    'merging': 'merging the parts of the prediction|end',
}
LIMIT = 5


def check_frozen(held, rank):
    """Freeze a rank and check how the job ends."""
    # Some heartbeats with this phase
    time.sleep(1)
    held.signal(signal.SIGSTOP, f'rank {rank}')
    held.let_go()
    assert held.wait() == FROZEN, held.run.output()
    match = re.fullmatch(
        rf'error: rank {rank} on node \S+ (.*) {LIMIT} seconds \(--rank-timeout\)(.*); '
        r'the job ends\n',
        held.errors(),
    )
    assert match, held.errors()
    assert re.search(PHASES[held.phase], match[1] + match[2]), held.errors()


@pytest.mark.faults('frozen ranks')
@pytest.mark.parametrize('phase, rank', parameters(FREEZING, {('training', 1)}))
def test_a_frozen_rank_of_a_training_run(phase, rank, small_world, tmp_path, launch):
    command = training(small_world, tmp_path / 'out')
    check_frozen(
        HeldRun(
            launch, tmp_path, phase, 2, [*command[:-6], '--rank-timeout', LIMIT, *command[-6:]]
        ),
        rank,
    )


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory, mpiexec):
    """A model of one iteration."""
    out = tmp_path_factory.mktemp('model')
    script, *arguments = training(small_world, out)
    mpiexec(1, script, *arguments[:-6], '--iterations', 1, *arguments[-6:])
    return out


def prediction(model, world, out):
    return [
        PREDICT,
        '--model',
        model,
        '--index',
        world / 'train.index',
        '--out',
        out,
        '--rank-timeout',
        LIMIT,
    ]


PREDICTING = [
    (phase, n_rank, number, target)
    for phase in ('import', 'prediction', 'part', 'merging')
    for n_rank in (1, 2)
    for number, target in TARGETS[n_rank]
]


@pytest.mark.faults('signals')
@pytest.mark.parametrize(
    'phase, n_rank, number, target',
    parameters(
        PREDICTING,
        {('prediction', 2, signal.SIGINT, 'launcher'), ('part', 1, signal.SIGHUP, 'rank 0')},
    ),
)
def test_a_signal_to_a_prediction(
    phase, n_rank, number, target, model, small_world, tmp_path, launch, mpiexec
):
    out = tmp_path / 'detections.csv'
    command = prediction(model, small_world, out)
    held = HeldRun(launch, tmp_path, phase, n_rank, command)
    held.signal(number, target)
    if (phase, target) == ('merging', 'rank 1'):
        # It waits for the first rank in MPI, and handles the signal when all is done.
        held.let_go()
        assert held.wait() in (0, ENDED[number][0]) and out.exists()
        return
    assert (held.wait(), held.errors()) == ENDED[number]
    assert not out.exists()
    # Only finished parts are left, and the same command goes on from there.
    left = sorted(p.suffix for p in tmp_path.glob('detections.csv.parts/*'))
    assert set(left) <= {'.json', '.part'}
    script, *arguments = command
    done = mpiexec(n_rank, script, *arguments)
    assert 'detections in 24 images' in done.stdout
    assert (' of them from before' in done.stdout) == (phase == 'merging')


@pytest.mark.faults('frozen ranks')
@pytest.mark.parametrize(
    'phase, rank',
    parameters(
        [(phase, rank) for phase in ('import', 'prediction', 'merging') for rank in (0, 1)],
        {('prediction', 1)},
    ),
)
def test_a_frozen_rank_of_a_prediction(phase, rank, model, small_world, tmp_path, launch):
    command = prediction(model, small_world, tmp_path / 'detections.csv')
    check_frozen(HeldRun(launch, tmp_path, phase, 2, command), rank)


def experts(model, world, out):
    return [
        EXPERTS,
        '--init',
        model / 'model.npz',
        '--train-index',
        world / 'train.index',
        '--out',
        out,
        '--log-interval',
        1,
        '--iterations',
        4,
        '--class-range',
        '1-20',
        '--rank-timeout',
        LIMIT,
        '--set',
        *SETTINGS,
    ]


EXPERT_PHASES = 'import', 'planning', 'set-up', 'training'


@pytest.mark.faults('signals')
@pytest.mark.parametrize(
    'phase, number, target',
    parameters(
        [(phase, number, target) for phase in EXPERT_PHASES for number, target in TARGETS[2]],
        {('training', signal.SIGINT, 'launcher')},
    ),
)
def test_a_signal_to_experts(phase, number, target, model, small_world, tmp_path, launch):
    out = tmp_path / 'experts'
    held = HeldRun(launch, tmp_path, phase, 2, experts(model, small_world, out))
    held.signal(number, target)
    if phase != 'training' and number in (signal.SIGINT, signal.SIGHUP):
        assert (held.wait(), held.errors()) == ENDED[number]
        return
    held.let_go()
    if target.startswith('rank'):
        # Each rank trains experts of its own: the other one finishes its own first.
        assert held.wait() == SAVED[number] and held.errors() == ''
        return
    assert held.wait() == SAVED[number], held.run.output()
    assert held.errors() == '' and len(list(out.glob('*/snapshots/iter_*.npz'))) == 2
    assert not list(out.glob('*/model.npz'))


@pytest.mark.faults('frozen ranks')
@pytest.mark.parametrize(
    'phase, rank',
    parameters([(phase, rank) for phase in EXPERT_PHASES for rank in (0, 1)], {}),
)
def test_a_frozen_rank_of_experts(phase, rank, model, small_world, tmp_path, launch):
    command = experts(model, small_world, tmp_path / 'experts')
    check_frozen(HeldRun(launch, tmp_path, phase, 2, command), rank)
