"""Fits of calibrators to data that can be folded over, and the solvers behind them.

`fit` fits stages one after the other, `stages` is what comes
of it. `crossing`, `averaging` and `tuning` fit again without each fold: to judge, to average, to
choose penalties. `problem` is a fit as a function of parameters, `adaptive` steers objectives that
change on the way, and `curves` fits one-vs-rest curves, which minimise nothing of the whole.

`solvers` says which solver suits what: `scale` (one number), `newton`, `lbfgs`, `nonnegative`,
`mixture` (ensemble temperature), `equations` and `reweighting` (losses that hold their weights
fixed). Each gives a `solution` with its certificate.
"""
