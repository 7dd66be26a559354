"""Tests of which changes are allowed when a run is resumed."""

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.column_file import map_columns, write_columns
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import recipe as recipes
from pfdet.training import checkpoints, resume
from pfdet.training.run_options import RunOptions, options_that

OPTIONS = {field.name for field in dataclasses.fields(RunOptions)}
PATH = Path('out/snapshots/iter_00000005.npz')


@pytest.fixture
def run(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')

    def run(n_rank=2, index=index, classes=index.classes, weights=None, **fields):
        options = {key: fields.pop(key) for key in list(fields) if key in OPTIONS}
        recipe = dataclasses.replace(recipes.Recipe(), **fields)
        return resume.run_identity(
            recipe,
            RunOptions(**options),
            index,
            classes,
            n_rank,
            n_rank * recipe.batch_size,
            weights,
        )

    return run


def assert_rejected(before, now, *words):
    with pytest.raises(InputError) as error:
        resume.check_same_run(before, now, PATH)
    for word in words:
        assert word in str(error.value)
    assert str(PATH) in str(error.value) and '\n' not in str(error.value)


def test_ranks_batch_size_and_length_may_change(run):
    before = run()
    for now in (
        run(),
        run(n_rank=5),
        run(batch_size=3),
        run(epochs=3.0),
        run(suppression_iou=0.3),
        run(name='other', about='words'),
    ):
        resume.check_same_run(before, now, PATH)
    # Snapshots of older versions without an identity, or without a field.
    assert resume.check_same_run({}, before, PATH) == []
    for key in before:
        older = {k: v for k, v in before.items() if k != key}
        assert resume.check_same_run(older, before, PATH) == []
    older = {**before, 'recipe': {k: v for k, v in before['recipe'].items() if k != 'psp'}}
    resume.check_same_run(older, before, PATH)


@pytest.mark.faults('resuming with other settings')
def test_error_names_the_changed_field(run, small_world):
    before = run()
    assert_rejected(before, run(seed=4), 'seed=0', 'seed=4')
    assert_rejected(before, run(psp=True), 'psp=False', 'psp=True')
    assert_rejected(before, run(base_lr=0.5), 'base_lr=0.01', 'base_lr=0.5')
    assert_rejected(before, run(steps=(0.5,)), 'steps=[0.66')
    other = AnnotationIndex.open(small_world / 'validation.index')
    assert_rejected(before, run(index=other), 'images=24', 'images=8')
    classes = other.classes.pick([1, 2])
    assert_rejected(before, run(classes=classes), 'classes', '2 different')
    assert_rejected({**before, 'image_ids': 0}, before, 'other images')


def test_field_that_an_older_version_lacks_has_its_default(run):
    before = run()
    older = {**before, 'recipe': {k: v for k, v in before['recipe'].items() if k != 'psp'}}
    assert_rejected(older, run(psp=True), 'psp=False', 'psp=True')
    newer = {**before, 'recipe': {**before['recipe'], 'invented': 1}}
    assert_rejected(newer, before, 'invented')


# Another value of each run option.
OTHER_OPTIONS = {
    'iterations': 7,
    'threads': 3,
    'corrupt': 'skip',
    'max_corrupt_share': 0.5,
    'accumulate': 4,
    'bn_group_size': 1,
    'communicator': 'naive',
    'allreduce_dtype': 'float16',
    'double_buffering': True,
    'tf32': True,
    'log_interval': 3,
    'val_interval': 0.5,
    'snapshot_interval': 9,
    'keep_snapshots': 5,
    'keep_best': True,
    'tensorboard': True,
    'rank_timeout': 5.0,
}
REFUSED = {'seed', 'bn_group_size', 'allreduce_dtype', 'double_buffering', 'init'}


def test_every_option_is_listed():
    assert OTHER_OPTIONS.keys() | {'seed', 'init', 'random_weights', 'resume'} == OPTIONS
    assert set(options_that(on_resume=False)) == REFUSED
    assert resume.OPTIONS_THAT_MAY_CHANGE == OPTIONS - REFUSED
    assert {f.name for f in dataclasses.fields(recipes.Recipe)} >= resume.MAY_CHANGE


def test_documentation_lists_the_refused_options():
    text = (Path(__file__).resolve().parents[2] / 'docs' / 'reproducibility.md').read_text()
    section = text.partition('## Resuming')[2].partition('may change.')[0]
    named = {word.replace('-', '_') for word in re.findall(r'`--([a-z-]+)`', section)}
    # --backbone is another name of --init, which --random-weights contradicts.
    assert named - {'resume', 'backbone', 'random_weights'} == REFUSED


@pytest.mark.faults('resuming with other settings')
@pytest.mark.parametrize('name', OTHER_OPTIONS)
def test_other_options_are_refused_or_named(run, name):
    before, now = run(), run(**{name: OTHER_OPTIONS[name]})
    flag = '--' + name.replace('_', '-')
    old = before['options'][name]
    assert resume.check_same_run(now, now, PATH) == []
    if name in REFUSED:
        assert_rejected(before, now, f'{flag}={old}', f'{flag}={OTHER_OPTIONS[name]}')
        assert_rejected(now, before, f'{flag}={old}')
    else:
        changes = resume.check_same_run(before, now, PATH)
        assert changes == [f'{flag}={old} to {OTHER_OPTIONS[name]}']


def test_allowed_changes_are_named(run):
    before = run(n_rank=2, batch_size=3)
    now = run(n_rank=4, batch_size=1, epochs=3.0, keep_snapshots=1)
    assert resume.check_same_run(before, now, PATH) == [
        'batch_size=3 to 1',
        f'epochs={recipes.Recipe.epochs} to 3.0',
        '--keep-snapshots=3 to 1',
        'ranks=2 to 4',
        'global_batch_size=6 to 4',
    ]


@pytest.mark.parametrize(
    'before, now, same',
    [
        # (ranks, --bn-group-size): the number of ranks that share statistics stays the same.
        ((8, 0), (16, 8), True),
        ((16, 8), (8, 0), True),
        ((8, 4), (16, 4), True),
        ((8, 0), (8, 8), True),
        # All ranks, as before.
        ((8, 0), (4, 0), True),
        ((8, 0), (16, 4), False),
        ((8, 4), (8, 0), False),
        ((8, 4), (4, 2), False),
    ],
)
def test_groups_of_ranks(run, before, now, same):
    before, now = (run(n_rank=n, bn_group_size=size) for n, size in (before, now))
    if same:
        resume.check_same_run(before, now, PATH)
    else:
        assert_rejected(before, now, '--bn-group-size=')


def test_default_type_of_the_allreduce_is_float32(run):
    assert resume.check_same_run(run(), run(allreduce_dtype='float32'), PATH) == []


A, B = ({'random_weights': False, 'init': f'{n}.npz', 'init_sha256': n * 64} for n in 'ab')
RANDOM = {'random_weights': True, 'init': None}


@pytest.mark.parametrize(
    'before, now, random_weights, words',
    [
        (A, A, False, ()),
        (A, {**A, 'init': 'moved.npz'}, False, ()),
        # None are needed to resume.
        (A, RANDOM, False, ()),
        (RANDOM, RANDOM, False, ()),
        (RANDOM, RANDOM, True, ()),
        # Older versions.
        (None, B, False, ()),
        (A, B, False, ('a.npz', 'b.npz')),
        (A, {**B, 'init': 'a.npz'}, False, ('a.npz',)),
        (RANDOM, B, False, ('random weights', 'b.npz')),
        (A, RANDOM, True, ('a.npz', '--random-weights')),
    ],
)
def test_initial_weights(run, before, now, random_weights, words):
    before = run(weights=before)
    now = run(weights=now, random_weights=random_weights)
    if words:
        assert_rejected(before, now, 'started from', *words)
    else:
        assert resume.check_same_run(before, now, PATH) == []


def half_of_the_boxes(columns, header):
    keep = len(columns['bbox']) // 2
    n_label = int(columns['label_offsets'][keep])
    columns['bbox'], columns['flags'] = columns['bbox'][:keep], columns['flags'][:keep]
    columns['label_offsets'] = columns['label_offsets'][: keep + 1]
    columns['object_offsets'] = np.minimum(columns['object_offsets'], keep)
    for name in 'label', 'order', 'n_row':
        if name in columns:
            columns[name] = columns[name][:n_label]


def first_of(name):
    def change(columns, header):
        columns[name][:1] ^= 1

    return change


def other_box(columns, header):
    columns['bbox'][0, 0] /= 2


def other_hierarchy(columns, header):
    header['ancestors'] = header['ancestors'][1:]


def other_classes(columns, header):
    header['mids'][0] = '/m/other'


@pytest.mark.faults('resuming with other settings')
@pytest.mark.parametrize(
    'change, words',
    [
        (half_of_the_boxes, ('annotations', 'bbox', 'label')),
        (other_box, ('annotations', '(columns bbox)')),
        (first_of('flags'), ('annotations', '(columns flags)')),
        (first_of('label'), ('annotations', '(columns label)')),
        (first_of('positive'), ('annotations', '(columns positive)')),
        (first_of('negative'), ('annotations', '(columns negative)')),
        (first_of('image_size'), ('annotations', '(columns image_size)')),
        (first_of('id_bytes'), ('other images',)),
        (other_hierarchy, ('hierarchy',)),
        (other_classes, ('classes',)),
        # Where the files of the images are is not what is in them.
        (lambda columns, header: header.update(suffixes=['.png']), None),
        (first_of('image_suffix'), None),
        (lambda columns, header: header.update(names=['x'] * len(header['names'])), None),
    ],
)
def test_an_index_of_other_content_is_refused(run, small_world, tmp_path, change, words):
    columns, header = map_columns(small_world / 'train.index', 'annotation index')
    columns = {name: array.copy() for name, array in columns.items()}
    change(columns, header)
    write_columns(tmp_path / 'other.index', 'annotation index', columns, header)
    other = AnnotationIndex.open(tmp_path / 'other.index')
    before, now = run(), run(index=other)
    if words is None:
        assert resume.check_same_run(before, now, PATH) == []
    else:
        assert_rejected(before, now, '--train-index', *words)


@pytest.mark.faults('resuming with other settings')
def test_other_pairs_in_the_same_file_are_refused(run, small_world, tmp_path):
    mids = AnnotationIndex.open(small_world / 'train.index').classes.mids
    path = tmp_path / 'pairs.csv'
    identities = []
    for part in mids[1], mids[2]:
        path.write_text(f'SubjectMID,PartMID\n{mids[0]},{part}\n')
        identities.append(run(cooccurrence=True, cooccurrence_pairs=str(path)))
    assert_rejected(*identities, 'cooccurrence_pairs', 'same file')
    assert resume.check_same_run(identities[1], identities[1], PATH) == []


def test_new_run_in_a_directory_with_snapshots_is_rejected(tmp_path):
    comm = SimpleNamespace(rank=0, mpi_comm=SimpleNamespace(bcast=lambda value: value))
    resume.refuse_existing_snapshots(tmp_path / 'absent', comm)
    (tmp_path / 'iter_00000003.npz').write_bytes(b'')
    with pytest.raises(InputError, match=r'iter_00000003\.npz.*--resume'):
        resume.refuse_existing_snapshots(tmp_path, comm)


@pytest.mark.faults('resuming with other settings')
@pytest.mark.parametrize(
    'before, message',
    [
        ({'recipe': [1]}, 'recipe'),
        ({'recipe': None}, 'recipe'),
        ({'classes': 7}, 'classes'),
        ({'seed': ['x' * 10**6]}, 'seed'),
        ({'images': {}}, 'images'),
        ({'options': [1]}, 'options'),
        ({'annotations': [1]}, 'annotations'),
        ({'hierarchy': {'a': 'b'}}, 'hierarchy'),
        ({'initial_weights': 'words'}, 'initial_weights'),
    ],
)
def test_description_of_any_content_is_one_line(run, tmp_path, before, message):
    now = run()
    checkpoints.write(tmp_path / 'iter_00000005.npz', {}, {**now, **before})
    comm = SimpleNamespace(rank=0, mpi_comm=SimpleNamespace(bcast=lambda value: value))
    snapshot = checkpoints.Snapshot(tmp_path, now)
    with pytest.raises(InputError, match=r'iter_00000005\.npz: ') as e:
        resume.resume_from_newest(None, snapshot, comm)
    assert '\n' not in str(e.value) and len(str(e.value)) < 600


def test_changes_are_printed(run, tmp_path, monkeypatch, capsys):
    checkpoints.write(tmp_path / 'iter_00000005.npz', {}, run(n_rank=4))
    monkeypatch.setattr(checkpoints, 'load', lambda trainer, path: None)
    trainer = SimpleNamespace(updater=SimpleNamespace(iteration=5, epoch_detail=0.5))
    comm = SimpleNamespace(rank=0, mpi_comm=SimpleNamespace(bcast=lambda value: value))
    for now, changed in (
        (run(n_rank=4), None),
        (run(n_rank=2, accumulate=2), '--accumulate=1 to 2, ranks=4 to 2'),
    ):
        resume.resume_from_newest(trainer, checkpoints.Snapshot(tmp_path, now), comm)
        first, *rest = capsys.readouterr().out.splitlines()
        assert first.startswith('resuming from') and first.endswith('written by 4 ranks')
        if changed is None:
            assert rest == []
        else:
            (line,) = rest
            assert line.startswith('changed since then: ') and changed in line
