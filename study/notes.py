"""Notes on the study's findings, each included in the page only with the results it is about.

A note is a Markdown file in ``docs/study/notes/`` that begins with a header::

    ---
    claim: softmax-bce
    also: concurrent-both cs-table4-class-aware-14/score
    results: 0123456789ab
    ---

    Softmax learns more slowly: ...

``claim`` is a key of ``claims.json``. ``also`` is optional and names further results that the note
uses: claims, or scores of runs as ``RUN/SCORE``. ``results`` is the digest of all these results
(:func:`results_digest`). To write or renew a note, check its text against the results, and copy the
digest that ``python -m study --notes`` prints for it.
"""

import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from study.claims import Claim, claims
from study.findings import RunScores
from study.plan import mini_rows
from study.results import read_results, restore_results, shortened

NOTES = Path('docs/study/notes')
_FIELDS = frozenset({'claim', 'also', 'results'})
_N_DIGIT = 12


@dataclass(frozen=True)
class Note:
    """A note on a claim.

    Attributes:
        path (path): Its file.
        claim (str): Key of the claim.
        also (tuple of str): Further results that it uses: keys of claims, or ``RUN/SCORE``.
        results (str): Digest of the results that it is about; empty in a new note.
        text (str): Markdown.
    """

    path: Path
    claim: str
    also: tuple[str, ...]
    results: str
    text: str


def read_notes(directory: Path) -> list[Note]:
    """Read all notes of a directory, in the order of their file names.

    Args:
        directory (path): Of Markdown files; no notes if it does not exist.

    Raises:
        InputError: A file has no valid header.
    """
    return [read_note(path) for path in sorted(directory.glob('*.md'))]


def read_note(path: Path) -> Note:
    """Read a note.

    Args:
        path (path): A Markdown file.

    Raises:
        InputError: The file has no valid header.
    """
    first, *lines = path.read_text(encoding='utf-8').splitlines() or ['']
    if first != '---' or '---' not in lines:
        raise InputError(f'{path}, line 1: no header; expected lines between two lines of "---"')
    end = lines.index('---')
    header = {}
    for number, line in enumerate(lines[:end], 2):
        name, colon, value = line.partition(':')
        if not colon or name not in _FIELDS:
            raise InputError(f'{path}, line {number}: expected claim:, also: or results:')
        header[name] = value.strip()
    if not header.get('claim'):
        raise InputError(f'{path}, line 1: the header names no claim')
    return Note(
        path,
        header['claim'],
        tuple(header.get('also', '').split()),
        header.get('results', ''),
        '\n'.join(lines[end + 1 :]).strip(),
    )


def matching_notes(directory: Path, scores: RunScores) -> dict[str, list[Note]]:
    """The notes that are about the given results.

    For every other note, one line is printed.

    Args:
        directory (path): Of the notes.
        scores (RunScores): The results.

    Returns:
        dict: Notes by the claim's key.

    Raises:
        InputError: A note has no valid header or names unknown results.
    """
    matching = defaultdict(list)
    for note, digest in _with_digests(read_notes(directory), scores):
        if note.results == digest:
            matching[note.claim].append(note)
        else:
            print(
                f'{note.path}: omitted, since it is about other results '
                f'({note.results or "no digest"}) than these ({digest})',
                flush=True,
            )
    return dict(matching)


def results_digest(claim: Claim, scores: RunScores, also: Iterable[str] = ()) -> str:
    """Hash of the results that a claim's verdict rests on.

    These are the scores of both runs with every seed that both have, and, where the verdict
    depends on the noise of seeds, the scores that the noise is estimated from. Scores are hashed as
    ``results.jsonl`` stores them, with five decimals: a run on other hardware has another hash.

    Args:
        claim (Claim): The claim.
        scores (RunScores): The scores of the runs.
        also (iterable of str): Further results: keys of claims, or ``RUN/SCORE``.

    Raises:
        InputError: ``also`` has a name that is neither.
    """
    by_key = _by_key()
    hashed = _scores_of_claim(claim, scores)
    if claim.uses_noise(len(_common_seeds(claim, scores))):
        for name in scores.trainings:
            if len(scores.of(name)) > 1:
                hashed.update(_scores_of_run(name, 'score', scores))
    for name in also:
        run, slash, file = name.rpartition('/')
        if slash:
            hashed.update(_scores_of_run(run, file, scores))
        elif name in by_key:
            hashed.update(_scores_of_claim(by_key[name], scores))
        else:
            raise InputError(f'{name}: no such claim; expected {", ".join(by_key)}, or RUN/SCORE')
    text = json.dumps(hashed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_N_DIGIT]


def list_notes(results: Path, directory: Path, keys: Sequence[str] = ()) -> None:
    """Print for each note whether it is about the given results, and their digest.

    Args:
        results (path): A file of results, see :mod:`study.results`.
        directory (path): Of the notes.
        keys (sequence of str): Claims to print the digest of, with or without notes.

    Raises:
        InputError: A file cannot be read, or there is no such claim.
    """
    by_key = _by_key()
    for key in keys:
        if key not in by_key:
            raise InputError(f'--notes {key}: no such claim; expected {", ".join(by_key)}')
    with tempfile.TemporaryDirectory() as temporary:
        rows = mini_rows(Path(temporary), Path('train.index'), Path('validation.index'))
        n = restore_results(rows, read_results(results)[0], results, changed=True)
        print(f'{n} runs of {results}')
        scores = RunScores(rows)
        for note, digest in _with_digests(read_notes(directory), scores):
            state = 'matches' if note.results == digest else 'does not match'
            also = ''.join(f' + {name}' for name in note.also)
            print(f'{note.path}: {state}; results of {note.claim}{also}: {digest}')
        for key in keys:
            print(f'{key}: {results_digest(by_key[key], scores)}')


def _with_digests(notes: Iterable[Note], scores: RunScores) -> list[tuple[Note, str]]:
    by_key, digests = _by_key(), []
    for note in notes:
        if note.claim not in by_key:
            raise InputError(f'{note.path}: {note.claim}: no such claim of study/claims.json')
        try:
            digest = results_digest(by_key[note.claim], scores, note.also)
        except InputError as e:
            raise InputError(f'{note.path}: also: {e}') from None
        digests.append((note, digest))
    return digests


def _by_key() -> Mapping[str, Claim]:
    # Only the measures depend on the number of training images, and no digest on the measures.
    return {claim.key: claim for claim in claims({})}


def _common_seeds(claim: Claim, scores: RunScores) -> set[int]:
    of_row = scores.of(claim.row, claim.file)
    return of_row.keys() & scores.of(claim.against, claim.against_file).keys()


def _scores_of_claim(claim: Claim, scores: RunScores) -> dict[str, Any]:
    seeds = _common_seeds(claim, scores)
    return {
        **_scores_of_run(claim.row, claim.file, scores, seeds),
        **_scores_of_run(claim.against, claim.against_file, scores, seeds),
    }


def _scores_of_run(
    name: str, file: str, scores: RunScores, seeds: Iterable[int] | None = None
) -> dict[str, Any]:
    by_seed = scores.of(name, file)
    return {
        f'{name}/seed{seed}/{file}': shortened(by_seed[seed])
        for seed in (by_seed if seeds is None else seeds)
    }
