"""Which command trains a recipe, and what ``pfdet train`` refuses before it starts."""

import shlex
import sys

import pfdet.compat  # noqa: F401

import pytest

from pfdet import recipes
from pfdet.cli import train, train_experts
from pfdet.errors import InputError
from pfdet.links.backbones import BACKBONES
from pfdet.links.se_resnext import MiniSEResNeXt
from pfdet.recipes.initial_weights import check_initial_weights

EXPERTS = [name for name, recipe in recipes.RECIPES.items() if recipe.expert_size]
FULL_MODELS = [name for name, recipe in recipes.RECIPES.items() if not recipe.expert_size]


@pytest.fixture(autouse=True)
def _no_default_indexes(monkeypatch):
    for name in 'PFDET_TRAIN_INDEX', 'PFDET_VAL_INDEX':
        monkeypatch.delenv(name, raising=False)


def refusal(monkeypatch, module, *arguments) -> str:
    """The message with which a command refuses its arguments."""
    monkeypatch.setattr(sys, 'argv', ['pfdet', *map(str, arguments)])
    with pytest.raises(InputError) as refused:
        module.main()
    assert '\n' not in str(refused.value)
    return str(refused.value)


def named_command(message: str, module) -> dict:
    """The arguments of the command line in a message, as that command's parser reads them."""
    line = message.partition('all classes: ')[2].partition(' (without')[0].partition(';')[0]
    name = {train: 'train', train_experts: 'train-experts'}[module]
    program, command, *arguments = shlex.split(line)
    assert (program, command) == ('pfdet', name), message
    return vars(module.make_parser().parse_args(arguments))


def test_the_recipes_of_experts():
    assert EXPERTS == ['expert-class10', 'expert-class20', 'expert-class40', 'expert-coco']


@pytest.mark.parametrize('name', EXPERTS)
@pytest.mark.parametrize('size', ['full', 'mini'])
def test_train_names_the_command_for_every_recipe_of_experts(name, size, monkeypatch, tmp_path):
    out = tmp_path / 'the results'
    message = refusal(
        monkeypatch,
        train,
        *('--recipe', name, '--scale', size, '--init', 'full model.npz', '--out', out),
        *('--train-index', 'a.index', '--set', 'min_size=(64, 64)', 'epochs=3', '--seed', 4),
    )
    named = named_command(message, train_experts)
    assert (named['recipe'], named['scale'], named['seed']) == (name, size, 4)
    assert [str(named[key]) for key in ('init', 'train_index', 'out')] == [
        'full model.npz',
        'a.index',
        str(out),
    ]
    assert named['set'] == ['min_size=(64, 64)', 'epochs=3']
    assert not out.exists()


@pytest.mark.parametrize(
    'arguments',
    [
        ['--recipe', 'mini', '--set', 'expert_size=10'],
        ['--recipe', 'mini', '--set', 'epochs=2', 'expert_size=1', '--resume'],
        ['--set', 'expert_size=601'],
        ['--recipe', 'table1-psp', '--set', 'expert_size=20', '--iterations', '0'],
        ['--recipe', 'cs-table4-scratch-20', '--set', 'expert_size=20', '--random-weights'],
        ['--recipe', 'cs-table4-hybrid-s20', '--set', 'expert_size=20', '--init', 'm.npz'],
        ['--recipe', 'expert-coco', '--set', 'name=my-experts'],
        ['--recipe', 'expert-class10', '--dry-run'],
        ['--recipe', 'expert-class10', '--dry-run', '512'],
        ['--recipe', 'expert-class10', '--backbone', 'b.npz'],
    ],
)
def test_train_decides_by_the_recipes_fields(arguments, monkeypatch, tmp_path):
    message = refusal(monkeypatch, train, *arguments)
    named = named_command(message, train_experts)
    given = vars(train.make_parser().parse_args(arguments))
    for key in 'recipe', 'set', 'iterations', 'dry_run':
        assert named[key] == given[key]
    # What is missing is named; a dry run needs only the training set.
    assert named['train_index'] is not None
    assert (named['out'] is None) == ('--dry-run' in arguments)
    # What the other command does not have is named, too.
    others = '--resume', '--random-weights', '--backbone'
    left_out = [flag for flag in others if flag in arguments]
    assert message.endswith(f'(without {", ".join(left_out)})') == bool(left_out)


def test_experts_are_shown_with_their_command(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, 'argv', ['pfdet', '--recipe', 'expert-class10', '--scale', 'mini', '--show']
    )
    assert train.main() is None
    assert 'experts of 10 classes each, trained by pfdet train-experts' in capsys.readouterr().out


@pytest.mark.parametrize('name', FULL_MODELS)
def test_train_experts_names_the_command_for_a_model_of_all_classes(name, monkeypatch, tmp_path):
    message = refusal(
        monkeypatch,
        train_experts,
        *('--recipe', name, '--init', 'm.npz', '--out', tmp_path / 'x', '--threads', 2),
        *('--range', '1-30', '--images-seen', 100),
    )
    named = named_command(message, train)
    assert (named['recipe'], str(named['init']), named['threads']) == (name, 'm.npz', 2)
    assert '(without --class-range, --images-seen)' in message
    assert message.count('expert-class10') == 1 and not (tmp_path / 'x').exists()


def test_train_experts_takes_any_recipe_with_an_expert_size(monkeypatch):
    arguments = ['--recipe', 'table1-psp', '--set', 'expert_size=10', '--train-index', 'x']
    # The next thing that is missing
    assert 'give --init' in refusal(monkeypatch, train_experts, *arguments)
    without = ['--recipe', 'expert-class10', '--set', 'expert_size=0', '--train-index', 'x']
    assert 'trains one model of all classes' in refusal(monkeypatch, train_experts, *without)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'give --train-index'),
        (['--train-index', 'x'], 'give --init MODEL.npz'),
        (['--train-index', 'x', '--init', 'm.npz'], 'give --out DIR'),
        (
            ['--train-index', 'x', '--epochs-of-own-images', '--images-seen', '3']
            + ['--init', 'm.npz', '--out', 'y'],
            '--epochs-of-own-images: contradicts --images-seen 3',
        ),
        (['--train-index', 'x', '--dry-run', '-3'], '--dry-run -3: expected an integer'),
        (['--train-index', 'x', '--dry-run', '--range', '7'], '--class-range 7: expected'),
    ],
)
def test_bad_arguments_of_train_experts(arguments, message, monkeypatch):
    assert message in refusal(monkeypatch, train_experts, *arguments)


@pytest.mark.parametrize('name', FULL_MODELS)
def test_a_full_size_recipe_needs_the_weights_that_it_starts_from(name, monkeypatch, tmp_path):
    recipe = recipes.find(name)
    arguments = ['--recipe', name, '--train-index', 'x', '--out', tmp_path / 'run', '--resume']
    if recipe.init == 'scratch' or recipe.size == 'mini':
        check_initial_weights(recipe, None, False)
        return
    message = refusal(monkeypatch, train, *arguments)
    if recipe.init == 'imagenet':
        assert 'starts from a backbone trained on ImageNet: give --init BACKBONE.npz' in message
        assert f'pfdet convert --arch {recipe.backbone} --weights FILE' in message
    else:
        assert f'starts from the weights of {recipe.init}: give --init with the mod' in message
    assert '--random-weights' in message and not (tmp_path / 'run').exists()
    # Weights of any kind, and random weights if asked for.
    check_initial_weights(recipe, tmp_path / 'x.npz', False)
    check_initial_weights(recipe, None, True)


@pytest.mark.parametrize(
    'name, settings, refused',
    [
        ('table1-baseline', [], False),
        ('cs-table4-scratch-20', [], False),
        # Weights of its first stage exist as soon as that is trained.
        ('cs-table4-hybrid-s20', [], True),
        # Public weights exist for this backbone, at any size.
        ('table1-baseline', ['backbone=resnet50'], True),
        ('mini', ['init=table1-psp'], True),
        ('mini', ['init=scratch'], False),
        # A backbone of an extension
        ('mini', ['backbone=mine'], False),
    ],
)
def test_mini_size_starts_from_random_weights_where_no_public_ones_exist(
    name, settings, refused, monkeypatch
):
    monkeypatch.setitem(BACKBONES, 'mine', MiniSEResNeXt)
    recipe = recipes.override(recipes.find(name, 'mini'), settings)
    if not refused:
        check_initial_weights(recipe, None, False)
        return
    with pytest.raises(InputError, match='give --init'):
        check_initial_weights(recipe, None, False)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--set', 'init=imagnet'], 'init=imagnet: expected imagenet, scratch or the name of a'),
        (['--init', 'a.npz', '--random-weights'], '--random-weights: contradicts the initial'),
        (['--backbone', 'a.npz', '--random-weights'], '--random-weights: contradicts the initial'),
        (['--backbone', 'a.npz', '--init', 'b.npz'], '--backbone a.npz: contradicts --init b.npz'),
    ],
)
def test_contradictory_initial_weights(arguments, message, monkeypatch, tmp_path):
    given = ['--recipe', 'mini', '--train-index', 'x', '--out', tmp_path / 'run', *arguments]
    assert message in refusal(monkeypatch, train, *given)


@pytest.mark.parametrize('name', [recipes.DEFAULT, 'cs-table4-hybrid-s20'])
@pytest.mark.parametrize('flag', ['--list', '--show'])
def test_looking_at_a_recipe_needs_no_weights(name, flag, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['pfdet', '--recipe', name, '--scale', 'mini', flag])
    assert train.main() is None
    assert capsys.readouterr().out
