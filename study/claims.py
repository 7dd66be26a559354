"""What the papers claim, as differences between runs that can be measured at any scale."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pfdet import recipes
from pfdet.evaluation.class_groups import class_groups
from pfdet.openimages.classes import challenge_classes
from pfdet.training.table_runs import Rows
from study.expert_ensembles import RANKS

Measure = Callable[[Mapping[str, Any]], float | None]
# An AP counts as points of percent.
_POINTS = 100.0


@dataclass(frozen=True)
class Claim:
    """A difference between two runs that the papers report.

    Attributes:
        topic (str): The section it is shown under.
        text (str): In words.
        row, against (str): Names of the runs compared.
        paper (float): The paper's difference in points of AP, or :obj:`None` where it gives none.
        where (str): The table or section of the paper.
        file, against_file (str): Which of a run's scores.
        measure (callable): From a score to the figure, in [0, 1].
        of (str): What the measure is, in words.
        no_loss (bool): The claim is that nothing is lost, not that something is gained.
        sign (int): -1 where the paper finds the row worse.
    """

    topic: str
    text: str
    row: str
    against: str
    paper: float | None
    where: str
    file: str = 'score'
    against_file: str = 'score'
    measure: Measure = field(default=lambda score: score['mAP'])
    of: str = 'mAP'
    no_loss: bool = False
    sign: int = 1


@dataclass(frozen=True)
class Finding:
    """What came of a claim.

    Attributes:
        claim (Claim): Which.
        values (tuple of pairs): The figures of both runs for each seed, in points.
        noise (float): How much one run differs from the same with another seed, in points: twice
            the standard deviation of a difference; :obj:`None` where it is not known.
    """

    claim: Claim
    values: tuple[tuple[float, float], ...]
    noise: float | None

    @property
    def differences(self) -> list[float]:
        """Of each seed, in points."""
        return [row - against for row, against in self.values]

    @property
    def mean(self) -> float | None:
        """Of the differences, in points."""
        return statistics.fmean(self.differences) if self.values else None

    @property
    def verdict(self) -> str:
        """``'reproduced'``, ``'not reproduced'``, ``'undecided'`` with the reason, or
        ``'not run'``."""
        if not self.values:
            return 'not run'
        # What is shown as 0.0 has no sign.
        signed = [self.claim.sign * round(d, 1) for d in self.differences]
        mean = statistics.fmean(signed)
        if self.claim.no_loss:
            allowed = self.noise or 0.0
            if mean >= 0 or (len(signed) > 1 and max(signed) > 0 and mean > -allowed):
                return 'reproduced' if len(signed) > 1 else 'reproduced, one seed'
            return 'not reproduced' if mean < -allowed else 'undecided: within the noise of seeds'
        if len(signed) > 1:
            if min(signed) > 0:
                return 'reproduced'
            if max(signed) < 0:
                return 'not reproduced'
            return 'undecided: seeds disagree'
        if self.noise is not None and abs(mean) <= self.noise:
            return 'undecided: one seed, within the noise of seeds'
        return ('reproduced' if mean > 0 else 'not reproduced') + ', one seed'


def part_classes() -> set[str]:
    """Machine ids of the parts and possessions of PFDet's 47 pairs."""
    classes = challenge_classes()
    return {classes.mids[c] for c in class_groups(classes)['parts']}


def mean_over(mids: set[str]) -> Measure:
    """The mean AP of some classes, of those that have ground truth."""

    def measure(score: Mapping[str, Any]) -> float | None:
        found = [ap for mid, ap in score['AP'].items() if mid in mids and ap is not None]
        return statistics.fmean(found) if found else None

    return measure


def thirds(counts: Mapping[str, int], first: int = 1, last: int | None = None) -> list[set[str]]:
    """Classes in three parts by their number of training images, rarest first.

    Args:
        counts (mapping): Training images of each class by machine id; classes of none are left
            out.
        first, last (int): Ranks of the rarest and of the most frequent class to look at.
    """
    mids = sorted((mid for mid, n in counts.items() if n > 0), key=counts.__getitem__)
    mids = mids[first - 1 : last]
    cut = [round(k * len(mids) / 3) for k in range(4)]
    return [set(mids[a:b]) for a, b in zip(cut, cut[1:], strict=False)]


def claims(counts: Mapping[str, int]) -> list[Claim]:
    """All claims of both papers that the study measures.

    Args:
        counts (mapping): Training images of each class by machine id.
    """
    parts = mean_over(part_classes())
    rare, middle, frequent = map(mean_over, thirds(counts))
    # The third of those classes that have experts.
    expert_rare, expert_middle, expert_frequent = map(mean_over, thirds(counts, *RANKS))
    loss, sampling, schedule = 'Losses', 'Sampling', 'Schedules'
    steps, expert, together = 'Steps to a single model', 'Experts', 'Ensembles and testing'
    table1 = (
        ('multiscale', 'baseline', 'multi-scale training', 0.3),
        ('psp', 'multiscale', 'PSP and BN in the head', 0.1),
        ('cosine', 'psp', 'cosine annealing', 3.0),
        ('scale', 'cosine', 'a fifth FPN scale', 1.1),
        ('cooccurrence', 'scale', 'co-occurrence loss', 0.7),
        ('epochs', 'cooccurrence', '16 epochs instead of 12', 0.6),
        ('context', 'epochs', 'the context head', 0.2),
        ('senet154', 'context', 'additional anchors (and at full scale SENet-154)', 1.5),
    )
    cs1, cs2, cs3, cs4 = (f'cs-table{k}-' for k in (1, 2, 3, 4))
    return [
        Claim(
            loss,
            'Co-occurrence loss raises the AP of parts and possessions',
            'mini',
            'mini-without-cooccurrence',
            9.2,
            'PFDet, Table 3',
            measure=parts,
            of='mean AP of part classes',
        ),
        Claim(
            loss,
            'Co-occurrence loss raises the mAP of all classes',
            'mini',
            'mini-without-cooccurrence',
            0.7,
            'PFDet, Table 1',
        ),
        Claim(
            loss,
            'Concurrent softmax beats softmax, without balance',
            cs1 + 'concurrent',
            cs1 + 'softmax',
            0.98,
            'Peng et al., Table 1',
        ),
        Claim(
            loss,
            'Concurrent softmax beats softmax, with class-aware sampling',
            cs1 + 'concurrent-balanced',
            cs1 + 'softmax-balanced',
            1.13,
            'Peng et al., Table 1',
        ),
        Claim(
            loss,
            'Concurrent softmax in testing too does not lose',
            cs2 + 'concurrent-concurrent',
            cs2 + 'concurrent-softmax',
            0.37,
            'Peng et al., Table 2',
            no_loss=True,
        ),
        Claim(
            loss,
            'Concurrent softmax in testing alone gains',
            cs2 + 'softmax-concurrent',
            cs2 + 'softmax-softmax',
            0.32,
            'Peng et al., Table 2',
        ),
        Claim(
            loss,
            'Concurrent softmax in training and testing beats softmax in both',
            cs2 + 'concurrent-concurrent',
            cs2 + 'softmax-softmax',
            1.5,
            'Peng et al., Table 2',
        ),
        Claim(
            loss,
            'Softmax beats binary cross entropy',
            cs1 + 'softmax-balanced',
            cs1 + 'bce',
            1.16,
            'Peng et al., Table 1',
        ),
        Claim(loss, 'Co-BCE beats BCE', cs1 + 'co-bce', cs1 + 'bce', 1.45, 'Peng et al., Table 1'),
        Claim(
            loss, 'BCE beats focal loss', cs1 + 'bce', cs1 + 'focal', 4.11, 'Peng et al., Table 1'
        ),
        Claim(
            loss,
            'Concurrent softmax beats dist-CE',
            cs1 + 'concurrent-balanced',
            cs1 + 'dist-ce',
            0.68,
            'Peng et al., Table 1',
        ),
        Claim(
            sampling,
            'Soft-balance at 0.7 beats no balance',
            cs3 + 'soft-0.7',
            cs3 + 'non-balance',
            18.88,
            'Peng et al., Table 3',
        ),
        Claim(
            sampling,
            'Soft-balance at 0.7 does not lose to class-aware sampling',
            cs3 + 'soft-0.7',
            cs3 + 'class-aware',
            1.59,
            'Peng et al., Table 3',
            no_loss=True,
        ),
        Claim(
            sampling,
            'Class-aware sampling beats no balance',
            cs3 + 'class-aware',
            cs3 + 'non-balance',
            17.29,
            'Peng et al., Table 3',
        ),
        Claim(
            sampling,
            'Class-aware sampling helps the rarest third of the classes',
            cs3 + 'class-aware',
            cs3 + 'non-balance',
            None,
            'Peng et al., Figure 5a',
            measure=rare,
            of='mean AP of the rarest third',
        ),
        Claim(
            sampling,
            'Class-aware sampling costs the most frequent third',
            cs3 + 'class-aware',
            cs3 + 'non-balance',
            None,
            'Peng et al., Figure 5a',
            measure=frequent,
            of='mean AP of the most frequent third',
            sign=-1,
        ),
        Claim(
            sampling,
            'Weights by effective number beat no balance',
            cs3 + 'effective-number',
            cs3 + 'non-balance',
            7.56,
            'Peng et al., Table 3',
        ),
        Claim(
            sampling,
            'Class-aware sampling beats weights by effective number',
            cs3 + 'class-aware',
            cs3 + 'effective-number',
            9.73,
            'Peng et al., Table 3',
        ),
        Claim(
            sampling,
            'Lambda 1.5 is worse than 0.7',
            cs3 + 'soft-1.5',
            cs3 + 'soft-0.7',
            -4.63,
            'Peng et al., Table 3',
            sign=-1,
        ),
        Claim(
            sampling,
            'Lambda 0.3 is worse than 0.7',
            cs3 + 'soft-0.3',
            cs3 + 'soft-0.7',
            -6.35,
            'Peng et al., Table 3',
            sign=-1,
        ),
        Claim(
            schedule,
            'The hybrid schedule beats a single stage',
            cs4 + 'hybrid-s20',
            cs4 + 'class-aware-7',
            1.24,
            'Peng et al., Table 4',
        ),
        Claim(
            schedule,
            'The hybrid schedule beats a single stage twice as long',
            cs4 + 'hybrid-i14',
            cs4 + 'class-aware-14',
            2.75,
            'Peng et al., Table 4',
        ),
        Claim(
            schedule,
            'Soft-balance in the second stage gains',
            cs4 + 'soft-balance',
            cs4 + 'hybrid-s20',
            1.17,
            'Peng et al., Table 4',
        ),
        Claim(
            schedule,
            'Concurrent softmax in the second stage gains',
            cs4 + 'soft-balance-concurrent',
            cs4 + 'soft-balance',
            1.14,
            'Peng et al., Table 4',
        ),
        Claim(
            schedule,
            'Without balance, longer is better',
            cs4 + 'non-balance-14',
            cs4 + 'non-balance-7',
            3.79,
            'Peng et al., Table 4',
        ),
        Claim(
            schedule,
            'With class-aware sampling, longer is worse',
            cs4 + 'class-aware-14',
            cs4 + 'class-aware-7',
            -1.83,
            'Peng et al., Table 4',
            sign=-1,
        ),
        *(
            Claim(steps, f'+ {text}', f'table1-{row}', f'table1-{against}', paper, 'PFDet, Table 1')
            for row, against, text, paper in table1
        ),
        Claim(
            expert,
            'Experts of 10 classes raise the rarest third',
            'table4-class10',
            'mini',
            13.7,
            'PFDet, Table 4',
            measure=expert_rare,
            of='mean AP of the rarest third',
        ),
        Claim(
            expert,
            'Experts of 10 classes, the middle third',
            'table4-class10',
            'mini',
            2.6,
            'PFDet, Table 4',
            measure=expert_middle,
            of='mean AP of the middle third',
        ),
        Claim(
            expert,
            'Experts of 10 classes cost the most frequent third',
            'table4-class10',
            'mini',
            -4.6,
            'PFDet, Table 4',
            measure=expert_frequent,
            of='mean AP of the most frequent third',
            sign=-1,
        ),
        Claim(
            expert,
            'Smaller subsets do better on the rarest third',
            'table4-class10',
            'table4-class40',
            4.6,
            'PFDet, Table 4',
            measure=expert_rare,
            of='mean AP of the rarest third',
        ),
        Claim(
            together,
            'Experts of 20 classes raise the ensemble',
            'table2-class20-experts',
            'table2-single',
            1.78,
            'PFDet, Table 2',
        ),
        Claim(
            together,
            'Experts of 10 classes raise it more',
            'table2-class10-experts',
            'table2-class20-experts',
            0.6,
            'PFDet, Table 2',
        ),
        Claim(
            together,
            'All the other models raise it',
            'table2-all',
            'table2-class10-experts',
            1.65,
            'PFDet, Table 2',
        ),
        Claim(
            together,
            'A second source raises it',
            'table2-coco',
            'table2-all',
            0.09,
            'PFDet, Table 2',
        ),
        Claim(
            together,
            'The ensemble beats the single model',
            'table2-coco',
            'table2-single',
            4.12,
            'PFDet, Table 2',
        ),
        Claim(
            together,
            'Class weights do not lose to equal ones, on other images',
            'table2-class-weight',
            'table2-coco',
            0.54,
            'PFDet, Table 2, public LB',
            'score-test',
            'score-test',
            no_loss=True,
        ),
        Claim(
            together,
            'Test-time augmentation gains',
            'mini',
            'mini',
            None,
            'PFDet, section 3',
            'score-tta',
        ),
        Claim(
            together,
            'NMW beats NMS',
            'mini',
            'mini',
            None,
            'PFDet, section 2.1',
            against_file='score-nms',
        ),
        Claim(
            together,
            'NMW beats NMS with augmentation',
            'mini',
            'mini',
            None,
            'PFDet, section 2.1',
            'score-tta',
            'score-tta-nms',
        ),
        Claim(
            together,
            'NMW beats NMS where boxes must fit better',
            'mini',
            'mini',
            None,
            'PFDet, section 2.1',
            'score-iou75',
            'score-nms-iou75',
            of='mAP at IoU 0.75',
        ),
        Claim(
            together,
            'NMW beats NMS with augmentation, where boxes must fit better',
            'mini',
            'mini',
            None,
            'PFDet, section 2.1',
            'score-tta-iou75',
            'score-tta-nms-iou75',
            of='mAP at IoU 0.75',
        ),
    ]


def findings(
    rows: Rows, counts: Mapping[str, int], seeds: Sequence[int] = range(10)
) -> list[Finding]:
    """Look up every claim in what was run.

    Args:
        rows (Rows): The runs.
        counts (mapping): Training images of each class.
        seeds (sequence of int): To look for.
    """

    @cache
    def scores(name: str, file: str) -> dict[int, Mapping[str, Any]]:
        paths = {seed: rows.directory(name, seed) / f'{file}.json' for seed in seeds}
        return {
            seed: json.loads(path.read_text(encoding='utf-8'))
            for seed, path in paths.items()
            if path.exists() and path.with_name('done').exists()
        }

    def values(name: str, file: str, measure: Measure) -> dict[int, float]:
        each = {seed: measure(score) for seed, score in scores(name, file).items()}
        return {seed: _POINTS * x for seed, x in each.items() if x is not None}

    # Each training once: tested in several ways it is no other.
    trained = [
        name
        for name in recipes.RECIPES
        if rows.directory(name, 0).exists() and rows.same_training(name) == name
    ]
    found = []
    for claim in claims(counts):
        row = values(claim.row, claim.file, claim.measure)
        against = values(claim.against, claim.against_file, claim.measure)
        found.append(
            Finding(
                claim,
                tuple((row[seed], against[seed]) for seed in row if seed in against),
                _noise([values(name, 'score', claim.measure) for name in trained]),
            )
        )
    return found


def _noise(runs: Sequence[Mapping[int, float]]) -> float | None:
    """Twice the standard deviation of a difference of two runs, from seeds of all recipes."""
    several = [list(r.values()) for r in runs if len(r) > 1]
    if not several:
        return None
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return 2 * (2 * squares / sum(len(values) - 1 for values in several)) ** 0.5
