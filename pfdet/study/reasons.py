"""Why claims did not come out at mini scale, as far as it was found out."""

# By the runs compared and the measure.
REASONS: dict[tuple[str, str, str], str] = {
    ('cs-table1-concurrent-balanced', 'cs-table1-softmax-balanced', 'mAP'):
        'It is the test that loses, not the training: the same weights tested by concurrent '
        'softmax beat softmax. Trained so, a class and its parent never push each other down, '
        'whereas softmax with several labels holds them at equal scores. Plain softmax then lets '
        "the parent take a share of the leaf's score that differs from box to box, which "
        "scrambles the order of the leaf's boxes. By place in the hierarchy (below) it is the "
        'leaves with a parent that lose, and concurrent softmax in testing gives back what they '
        "lost. In the challenge 301 of 500 classes are such leaves, so the paper's gain by "
        'training alone is not explained by there being fewer.',
    ('mini', 'mini-without-cooccurrence', 'mAP'):
        'Five of 41 classes are parts, so an eighth of what they gain is in the mean of all: less '
        'than what a seed changes. PFDet has 47 of 500, with 9.2 points.',
}
