"""Fits of calibrators to data that can be folded over, and the solvers behind them.

`stages` fits stages one after the other; what comes of it is in `results`. `cross_fitting` and
`tuning` fit again without each fold: to judge, to average, to choose penalties. `problem` is a fit
as a function of parameters, `rounds` steers objectives that change on the way, and `class_curves`
fits one-vs-rest curves, which minimise no loss of all classes together.

The solvers are `scale` (one number), `newton` (convex, bounded or not), `lbfgs` (anything smooth),
`saddle_free` (few parameters, not convex) and `estimating` (losses that hold their weights fixed).
Each gives a `Solution` with its certificate.
"""
