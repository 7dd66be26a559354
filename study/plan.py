"""The plan of the study: which rows are run with which seeds, and the settings they share."""

from pathlib import Path

from pfdet import recipes
from pfdet.training.tables.rows import Rows

# Parts of the plan that are not single rows.
PARTS = EXPERTS, TESTING, FIT = (
    'experts and ensembles',
    'ways of testing',
    'fit to the training images',
)
# Rows and their seeds in the order in which they are run: first the rows that most claims rest on,
# then the others. A row that shares another's training takes a minute.
PLAN = (
    # Losses: co-occurrence, concurrent softmax in training and in testing; sampling
    *(
        (name, seed)
        for seed in range(3)
        for name in (
            'mini',
            'mini-without-cooccurrence',
            'cs-table1-softmax-balanced',
            'cs-table1-concurrent-balanced',
        )
    ),
    *((name, seed) for seed in range(2) for name in ('cs-table1-softmax', 'cs-table3-soft-0.7')),
    *(
        (name, seed)
        for seed in range(3)
        for name in (
            'cs-table2-softmax-softmax',
            'cs-table2-softmax-concurrent',
            'cs-table2-concurrent-softmax',
            'cs-table2-concurrent-concurrent',
            'cs-table3-class-aware',
            'cs-table4-class-aware-7',
        )
    ),
    *(
        (name, seed)
        for seed in range(2)
        for name in ('cs-table3-non-balance', 'cs-table4-non-balance-7')
    ),
    ('cs-table1-bce', 0),
    ('cs-table1-co-bce', 0),
    *((TESTING, seed) for seed in range(3)),
    # Experts and schedules. Rows that others start from come first, so that none waits for another.
    ('cs-table4-scratch-20', 0),
    (EXPERTS, 0),
    ('cs-table4-hybrid-s20', 0),
    ('cs-table4-soft-balance', 0),
    ('cs-table4-soft-balance-concurrent', 0),
    # The rest of Tables 1 and 3 of Peng et al. (2020)
    ('cs-table1-concurrent', 0),
    ('cs-table1-focal', 0),
    ('cs-table1-dist-ce', 0),
    ('cs-table3-effective-number', 0),
    ('cs-table3-soft-1.5', 0),
    ('cs-table3-soft-0.3', 0),
    ('cs-table3-soft-0.5', 0),
    ('cs-table3-soft-1.0', 0),
    # Longer schedules
    ('cs-table4-non-balance-14', 0),
    ('cs-table4-class-aware-14', 0),
    # PFDet's Table 1, step by step
    *(
        (f'table1-{row}', 0)
        for row in (
            'baseline',
            'multiscale',
            'psp',
            'cosine',
            'scale',
            'cooccurrence',
            'epochs',
            'context',
            'senet154',
        )
    ),
    (FIT, 0),
    ('table3-baseline', 0),
    ('table3-cooccurrence', 0),
    ('cs-table4-hybrid-i14', 0),
    # Further seeds, and the rest of Table 4
    ('cs-table1-bce', 1),
    ('cs-table1-co-bce', 1),
    ('cs-table1-concurrent', 1),
    *(
        (name, 2)
        for name in (
            'cs-table1-softmax',
            'cs-table3-soft-0.7',
            'cs-table3-non-balance',
            'cs-table4-non-balance-7',
        )
    ),
    (EXPERTS, 1),
    (EXPERTS, 2),
    *(
        (f'cs-table4-{row}', 1)
        for row in (
            'scratch-20',
            'non-balance-14',
            'class-aware-14',
            'hybrid-s20',
            'soft-balance',
            'soft-balance-concurrent',
            'hybrid-i14',
        )
    ),
    *(
        (name, 1)
        for name in (
            'cs-table3-soft-0.3',
            'cs-table3-soft-1.5',
            'cs-table1-focal',
            'cs-table1-dist-ce',
            'cs-table3-effective-number',
        )
    ),
    *(
        (f'table1-{row}', 1)
        for row in ('psp', 'cosine', 'scale', 'cooccurrence', 'baseline', 'multiscale')
    ),
    ('cs-table4-non-balance-11', 0),
    ('cs-table4-non-balance-16', 0),
    *((name, 2) for name in ('cs-table1-concurrent', 'cs-table1-bce', 'cs-table1-co-bce')),
)
# Rows that are validated during training, for Figure 4 of Peng et al. (2020).
CURVES = tuple({name: 0 for name, _ in PLAN if name.startswith('cs-table3-')})
# Images per update, over all ranks.
BATCH = 8


def mini_rows(
    out: Path,
    train_index: Path,
    val_index: Path,
    backbone: Path | None = None,
    ranks: int = 1,
    validations: int = 4,
) -> Rows:
    """The rows of the papers' tables as the study runs them.

    Args:
        out (path): Directory of the runs.
        train_index, val_index (paths): Annotation indexes.
        backbone (path): Weights that replace those of ImageNet.
        ranks (int): MPI ranks of a training or prediction.
        validations (int): Validations during the training of a row of :data:`CURVES`.
    """
    settings = (f'batch_size={BATCH // ranks}',)
    backbones = {} if backbone is None else {recipes.find('mini').backbone: backbone}
    return Rows(
        out, train_index, val_index, 'mini', ranks, settings, validations, CURVES, backbones
    )
