"""Metrics: proper scores and calibration errors, each a fold over blocks of rows.

The contract is in `base`: a `Statistic` is folded over the rows, and a `Metric` reads a number off
it. `registry` names them all; `panel` evaluates several in one pass.

Statistics
    `row_mean` (means over rows), `binned` (15 bins of the confidence), `confidence` (rows in order
    of their confidence), `class_wise` and `one_vs_rest` (every class's probability), `diagrams`
    (what diagrams are drawn from). `lattice` keeps sums where rows would be too many.
Metrics
    `accuracy`, `ranking`, `proper_scores`; `decomposition` (CORP, by `isotonic`); calibration
    errors: `binned`, `equal_mass`, `smooth`, `cumulative`, `class_wise`, `top_label`.
Uncertainty
    `resampling` (the bootstrap), `bag_sums` (its folds), `residual_norms`, `error_intervals` and
    `shrinkage` (of calibration errors, which chance makes larger). `uncertainty` has all of it.
Looking closer
    `slices` (parts of the rows), `hypothesis_tests` and `kernel_calibration` (p-values),
    `consistency`
    (bands of a calibrated model's diagram).
"""
