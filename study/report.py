"""``docs/study.md``: what came of the papers' claims, with figures."""

import os
import platform
import statistics
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pfdet.atomic_write import replace_when_done
from pfdet.evaluation.class_groups import training_images
from pfdet.openimages.index import AnnotationIndex
from pfdet.report.comparison import compare
from pfdet.report.comparison_text import markdown, signed
from pfdet.subprocesses import commit
from pfdet.training.table_runs import Rows
from study.by_class import experts_table, parts_table, relatives_table, views_table
from study.claims import Finding, findings, part_classes, thirds
from study.expert_ensembles import RANKS
from study.fit import fit_table
from study.plots import claims_figure, frequency_figure, lambda_figure
from study.reasons import REASONS, REMARKS

_THIRDS = 'the rarest third', 'the middle third', 'the most frequent third'


def write_report(rows: Rows, out: Path, command: str) -> None:
    """Write the page and its figures from the runs there are.

    Args:
        rows (Rows): The runs.
        out (path): A Markdown file; figures go to a folder of its name beside it.
        command (str): What made the runs.
    """
    index = AnnotationIndex.open(rows.train_index)
    counts = training_images(index)
    found = findings(rows, counts)
    runs = rows.finished()
    figures = out.with_suffix('')
    figures.mkdir(parents=True, exist_ok=True)
    shown = {
        'claims.png': claims_figure(found, figures / 'claims.png'),
        'lambda.png': lambda_figure(runs, figures / 'lambda.png'),
        'frequency.png': frequency_figure(runs, counts, index.classes, figures / 'frequency.png'),
    }
    text = '\n'.join(
        [
            _head(figures, index, found, len(runs), command),
            *(
                [_image(figures, 'claims.png', 'Differences in the papers and here')]
                if shown['claims.png']
                else []
            ),
            *_claims(found),
            _without(found),
            '## Losses, a closer look\n',
            *_told(
                "PFDet's Table 3, AP of parts and possessions without and with co-occurrence loss:",
                parts_table(runs, index.classes, part_classes()),
            ),
            *_told(
                'Losses by the place of classes in the hierarchy, against softmax in training and '
                'testing:',
                relatives_table(runs, index.classes, index.hierarchy),
            ),
            '## Sampling, a closer look\n',
            *_told(
                'How many classes an image shows that training is given, on average, parents '
                'counted, by how images are sampled:',
                views_table(index, dict(zip(_THIRDS, thirds(counts), strict=True))),
            ),
            *(
                [_image(figures, 'lambda.png', 'Validation mAP while training, by lambda')]
                if shown['lambda.png']
                else []
            ),
            *(
                [_image(figures, 'frequency.png', 'AP against class frequency')]
                if shown['frequency.png']
                else []
            ),
            *_told(
                "## Steps to a single model, a closer look\n\nPFDet's Table 1, mAP on the images "
                'that a row was trained on, and on others:',
                fit_table(runs),
            ),
            *_told(
                '## Experts, a closer look\n\nMean AP of the classes that have experts, by their '
                'number of training images:',
                experts_table(runs, dict(zip(_THIRDS, thirds(counts, *RANKS), strict=True))),
            ),
            '## All tables\n',
            markdown(compare(runs, counts), level=3),
        ]
    )
    with replace_when_done(out) as path:
        path.write_text(text.rstrip() + '\n', encoding='utf-8')


def _head(
    figures: Path, index: AnnotationIndex, found: Sequence[Finding], n_run: int, command: str
) -> str:
    verdicts = Counter(f.verdict.partition(':')[0].partition(',')[0] for f in found)
    said = ', '.join(f'{n} {verdict}' for verdict, n in verdicts.most_common())
    noise = next((f.noise for f in found if f.noise is not None and f.claim.of == 'mAP'), None)
    noise_said = f' ({noise:.1f} points of mAP)' if noise else ''
    verdict = textwrap.fill(
        f'Of {len(found)} claims: {said}. A claim counts as reproduced when the difference has the '
        f"paper's sign with every seed. With one seed it must also be larger than the noise of "
        f'seeds, that is, twice the standard deviation of a difference between two '
        f'runs{noise_said}. Where the paper says that nothing is lost, a loss within the noise is '
        f'none.',
        100,
        break_on_hyphens=False,
    )
    made = textwrap.fill(
        f'Made by `{command}` at commit {commit()} on {platform.machine()}, {os.cpu_count()} '
        f'cores, from {n_run} scored runs. Run again, it goes on where it was ended. The scores of '
        f'all runs and the commit of each are in `{figures}/results.jsonl`. To run only what is '
        f'not there yet, or one row of a table, in minutes:',
        100,
        break_on_hyphens=False,
    )
    return f"""# The papers' claims in the small

Each row of both papers' tables, with a network and images small enough for two CPU cores, on
MiniOpenImages: {len(index):,} made training images with Open Images' classes and troubles. The
switches of a row are the paper's; its scale is not. So what can be reproduced is the direction of a
difference, and hardly its size.

{verdict}

{made}

    make study STUDY_FLAGS='--given {figures}/results.jsonl --backbone {figures}/backbone.npz'
    make row ROW=cs-table1-concurrent-balanced

What stands for what:

- *Open Images*: {len(index):,} training images and a fourth as many to validate, of the same
  classes in other frequencies. Training images say of few classes whether they are there,
  validation images of all. Parts and possessions are verified in three in ten of the training
  images that show their subject, and four in five of these are the ones with the largest parts, as
  a classifier suggests to annotators what to look for. Tried first with any one in ten, the
  co-occurrence loss did not gain (-1.0 points on its classes, one seed): ranking within a class
  hardly minds labels that are missing by chance. The images of the second source are all verified,
  as COCO's are.
- *A backbone trained on ImageNet*: that of a detector trained for twelve epochs on 1,000 other made
  images, of all classes about as many, all verified. Rows that the papers train from scratch begin
  with random weights.
- *An epoch*: the same number of them. An update sees 8 images.
- *Experts*: the paper does not say how long they are trained. Here each sees 4,000 images, as many
  as there are in four epochs, however few its own are. In a first try by four epochs of their own
  images, those of the rarest ten classes had 141 iterations and those of forty 500: experts of ten
  gained 2.3 points on the rarest third, and those of forty 3.0 (one seed).
- *The network*: a ResNeXt of four stages with squeeze and excitation, 0.7 million weights, images
  of 128 to 211 pixels. Rows that differ in the backbone alone are one run.
"""


def _claims(found: Sequence[Finding]) -> list[str]:
    """A table a topic."""
    parts = []
    for topic in dict.fromkeys(f.claim.topic for f in found):
        parts.append(f'## {topic}\n')
        parts.append('| claim | measure | paper | here | seeds | verdict |')
        parts.append('| --- | --- | --- | --- | --- | --- |')
        for f in found:
            if f.claim.topic == topic:
                paper = '' if f.claim.paper is None else signed(f.claim.paper, 2) + ', '
                here = '' if f.mean is None else f'**{signed(f.mean, 1)}** ' + _figures(f)
                seeds = ', '.join(signed(d, 1) for d in f.differences)
                parts.append(
                    f'| {f.claim.text} | {f.claim.of} | {paper}{f.claim.where} | {here} '
                    f'| {seeds} | {f.verdict} |'
                )
        parts.append('')
    return parts


def _figures(f: Finding) -> str:
    row, against = (statistics.fmean(side) for side in zip(*f.values, strict=True))
    return f'({against:.1f} to {row:.1f})'


def _without(found: Sequence[Finding]) -> str:
    """What did not come out, with the reasons sought."""
    parts = ['## What did not come out\n']
    for f in found:
        if f.values and not f.verdict.startswith('reproduced'):
            parts.append(
                f'- *{f.claim.text}* ({f.verdict}; {signed(f.mean, 1)} points). '
                + (REASONS.get(_key(f)) or _no_reason(f))
            )
    if len(parts) == 1:
        parts.append('Everything that was run came out.')
    minded = [
        f'- *{f.claim.text}* ({signed(f.mean, 1)} points). {REMARKS[_key(f)]}'
        for f in found
        if f.verdict.startswith('reproduced') and _key(f) in REMARKS
    ]
    if minded:
        parts += [
            '\nWhat came out, but not for certain for the reason that the papers give:\n',
            *minded,
        ]
    missing = sum(not f.values for f in found)
    if missing:
        parts.append(f'\n{missing} claims, "not run" in the tables above, are still to be tried.')
    parts.append(
        '\nNot testable at this scale: what depends on ImageNet itself, on SENet-154 and '
        'ResNeXt-152, on the hidden test sets of Kaggle, and on 512 GPUs.\n'
    )
    return '\n'.join(parts)


def _no_reason(f: Finding) -> str:
    if len(f.values) == 1:
        return 'Other seeds would tell.'
    if f.verdict.startswith('undecided') and f.noise is not None and abs(f.mean) <= f.noise:
        return 'On average it is within the noise of seeds.'
    return 'Why is not known.'


def _key(f: Finding) -> tuple[str, str, str]:
    return f.claim.row, f.claim.against, f.claim.of


def _told(text: str, table: str | None) -> list[str]:
    return [] if table is None else [text + '\n', table]


def _image(figures: Path, name: str, caption: str) -> str:
    return f'![{caption}]({figures.name}/{name})\n'
