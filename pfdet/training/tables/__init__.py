"""The tables of both papers: their rows are trained, predicted, merged and scored."""
