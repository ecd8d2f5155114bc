"""Whole jobs on open data: fit, choose, measure, judge, apply. No files, no terminal.

What is fitted
    `plans` makes a plan of names: stages, loss, link, class shares. `fit_rows` has the rows as its
    fit sees them.
Fitting
    `fitted_plans` fits a plan to all rows, with what it leaves to cross-validation, and without
    each fold. `pooling` gives each group of rows a map of its own. `fitting` is the whole job: fit,
    then measure before and after on rows that the fit has not seen.
Choosing
    `stacking` mixes fitted plans, `choosing` ranks them by held-out loss and takes one, and
    `automatic` is the whole job behind ``-m auto``.
Measuring
    `measuring` folds metrics over what models make of the rows, with intervals.
    `diagnostics` and `refit` look closer: at parts of the rows, by tests, and at how much of a
    score is calibration.
Judging
    `conditions` reads conditions under which a job fails, `quantities` the numbers that they
    compare, and `gates` says whether they hold. `planning` finds how many rows they take.
Results
    `records` writes and reads parameter files, `applying` runs rows through calibrators.
"""
