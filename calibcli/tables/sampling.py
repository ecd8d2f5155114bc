"""Scores from a few places of all files, and what their values show: before the rows are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from calibcli.arrays import InputKind, NumpyArray
from calibcli.errors import DataError
from calibcli.tables.formats.base import Batch, DataFile, locating_rows
from calibcli.tables.kinds import decide_kind, refuse_mixture
from calibcli.tables.read_options import ReadOptions

SAMPLED_PLACES = 8
SAMPLED_ROWS = 4096
SAMPLED_VALUES = 1 << 21
"""How much is looked at to see whether the values agree with the name."""


@dataclass(frozen=True)
class ScoreSample:
    """Some scores of all files, from up to `SAMPLED_PLACES` places.

    Attributes
    ----------
    blocks : tuple of (str, array (n, C))
        Rows that follow one another, and the name of their file; at least one.
    """

    blocks: tuple[tuple[str, NumpyArray], ...]

    @classmethod
    def read(
        cls,
        files: Sequence[DataFile],
        counts: Sequence[int],
        names: Sequence[str],
        scores: Callable[[Batch], NumpyArray],
        values: int,
        most_rows: int = SAMPLED_ROWS,
    ) -> ScoreSample:
        """The first rows behind some of the places at which reading may begin.

        Parameters
        ----------
        files : sequence of DataFile
        counts : sequence of int
            The rows of each.
        names : sequence of str
            The fields of the scores.
        scores : callable
            The scores (n, C) of a batch.
        values : int
            In each row of a batch.
        most_rows : int
            That are read at a place.

        Raises
        ------
        DataError
            There are no rows, or a score is missing.
        """
        places = [
            (file, begin)
            for file, count in zip(files, counts, strict=True)
            if count
            for begin in file.splits(count)
        ]
        if not places:
            raise DataError(f"{files[0].location.name}: there are no rows")
        chosen = np.linspace(0, len(places) - 1, SAMPLED_PLACES).astype(int)
        rows = max(2, min(most_rows, SAMPLED_VALUES // SAMPLED_PLACES // max(values, 1)))
        blocks = []
        for file, begin in (places[index] for index in sorted(set(chosen))):
            batch = file.head(names, begin, rows)
            if batch is not None:
                with locating_rows(file, begin):
                    blocks.append((file.location.name, scores(batch)[:rows]))
        return cls(tuple(blocks))

    def by_member(self, members: int) -> ScoreSample:
        """The same where the rows of so many members take turns, with each member by itself."""
        return ScoreSample(
            tuple(
                (f"member {member} of {name}", rows[member::members])
                for name, rows in self.blocks
                for member in range(members)
            )
        )

    @property
    def rows(self) -> NumpyArray:
        """All of them (n, C)."""
        rows: NumpyArray = np.concatenate([rows for _, rows in self.blocks])
        return rows

    def kind(self, options: ReadOptions, hint: str, where: str) -> tuple[InputKind, str]:
        """What the scores are, and how it was decided.

        Parameters
        ----------
        options : ReadOptions
        hint : str
            The name of the scores.
        where : str
            File and field, for messages.

        Raises
        ------
        UsageError
            Two kinds are possible, or those of some rows are of another kind than others.
        DataError
            The values cannot be of the kind that was asked for.
        """
        origin = None if options.like is None else options.like.origin
        kind, words = decide_kind(
            options.input,
            hint,
            self.rows,
            where,
            renormalise=options.renormalise,
            origin="its metadata" if options.noted else origin,
            by="as the file says" if options.noted else "as asked",
        )
        if options.input == "auto" and kind == "logits":
            refuse_mixture(self.blocks, where)
        return kind, words


def score_width(files: Sequence[DataFile], counts: Sequence[int], names: Sequence[str]) -> int:
    """The number of score columns, from the first row there is.

    Raises
    ------
    DataError
        There are no rows.
    """
    for file, count in zip(files, counts, strict=True):
        batch = file.head(names, 0, 1) if count else None
        with locating_rows(file, 0):
            if batch is not None and len(row := batch.matrix(names, None)):
                return int(row.shape[1])
    raise DataError(f"{files[0].location.name}: there are no rows")
