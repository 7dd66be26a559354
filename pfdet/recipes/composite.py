"""Rows of a table that are not a single training: groups of experts, and ensembles of models."""

from dataclasses import dataclass
from typing import NamedTuple

from pfdet.recipes.recipe import Recipe

# Stand for models that are chosen when a table is run: the model of all classes that experts are
# fine-tuned from, and further models of all classes.
FULL, OTHERS = 'full', 'others'


@dataclass(frozen=True)
class Composite:
    """A row whose detections are those of several models, merged.

    ``pfdet train-table`` runs it.

    Attributes:
        name (str): How to ask for it.
        about (str): What it is, in the table's words.
        models (tuple of str): Names of recipes, :data:`FULL` or :data:`OTHERS`. The recipe of
            experts stands for all experts of that size.
        sizes (tuple of int): Lengths of the shorter edge at full size, whose outputs are joined;
            empty for those of each model's recipe.
        flip (bool): Also predict the horizontally flipped images. Only with ``sizes``.
        alone (bool): Whether each model's detections are suppressed by themselves before they are
            merged, as when experts are tested alone. Otherwise suppression runs once, on all.
        class_weights (bool): Multiply scores by a weight for each model and class (PFDet,
            section 2.4).
    """

    name: str
    about: str
    models: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    flip: bool = False
    alone: bool = False
    class_weights: bool = False


class Table(NamedTuple):
    """A table of a paper: its title and its rows, each a recipe or a composite."""

    title: str
    rows: tuple[Recipe | Composite, ...]

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The rows that are a single training."""
        return tuple(row for row in self.rows if isinstance(row, Recipe))

    @property
    def composites(self) -> tuple[Composite, ...]:
        """The other rows."""
        return tuple(row for row in self.rows if isinstance(row, Composite))
