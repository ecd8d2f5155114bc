"""Metrics: proper scores and calibration errors, each a fold over blocks of rows.

The contract is in `base`: a `Statistic` is folded over the rows' `view`, a `Metric` reads a number
off it, and its `Resampling` says what chance makes of the number. `registry` names them all;
`panel` evaluates several in one pass, with intervals.

Statistics
    `row_mean` (means over rows), `bins` (15 bins of the confidence), `confidence` (rows in order of
    their confidence), `class_errors` (every class's probability), `diagrams`
    (what diagrams are drawn from). `lattice` keeps sums where rows would be too many.
Metrics
    `accuracy` (and ranking), `proper_scores`; `decomposition` (CORP, by `corp`); calibration
    errors: `ece` (ECE and MCE), `equal_mass`, `smooth`, `cumulative`, `class_errors`; what
    decisions cost (`costs`; by threshold and rule, `decisions`).
Uncertainty
    `resampling` (the bootstrap and its bags), `residual_cells` (sums of residuals by bag and cell),
    `error_intervals` (of calibration errors, which chance makes larger). The kinds of resampling
    stand with their statistics: `row_mean`, `confidence_cells`, `class_norms` (these with
    `drawn_labels`).
Looking closer
    `slices` (parts of the rows), `periods` (control limits),
    `hypothesis_tests` and `kernel_calibration` (p-values),
    `consistency` (bands of a calibrated model's diagram).
"""
