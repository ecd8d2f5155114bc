"""All calibrators: what can be fitted by name, and what a parameter file may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import isabstract
from typing import Any

from calibcli.calibrators.affine import (
    BiasCorrectedTemperatureMap,
    DirichletMap,
    MatrixMap,
    MatrixScaling,
    StructuredMatrixMap,
    StructuredVectorMap,
    VectorMap,
    VectorScaling,
)
from calibcli.calibrators.base import Calibrator, Family
from calibcli.calibrators.binary import Beta, BetaMap, Platt, PlattMap, Quadratic, QuadraticMap
from calibcli.calibrators.binning import BbqMap, HistogramMap, ScalingBinningMap
from calibcli.calibrators.class_temperature import ClassTemperature, ClassTemperatureMap
from calibcli.calibrators.curved import (
    CurvedMatrix,
    CurvedMatrixMap,
    CurvedVector,
    CurvedVectorMap,
)
from calibcli.calibrators.curves import OneVsRest
from calibcli.calibrators.ensemble_temperature import EnsembleTemperature, EnsembleTemperatureMap
from calibcli.calibrators.gap_temperature import GapTemperature, GapTemperatureMap
from calibcli.calibrators.groups import Groups
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.isotonic import CenteredIsotonicMap, IsotonicMap
from calibcli.calibrators.laplace import LaplaceMap, LaplaceMixture
from calibcli.calibrators.links import Link
from calibcli.calibrators.log_linear import LogLinear
from calibcli.calibrators.monotone import Monotone, MonotoneMap
from calibcli.calibrators.parameterized_temperature import (
    ParameterizedTemperature,
    ParameterizedTemperatureMap,
)
from calibcli.calibrators.parameters import Parameters
from calibcli.calibrators.spline import SplineCurves, SplineMap
from calibcli.calibrators.temperature import Temperature, TemperatureMap
from calibcli.calibrators.top import Top
from calibcli.calibrators.venn_abers import VennAbers, VennAbersMap
from calibcli.errors import ParamsError, UsageError
from calibcli.registry import Registry

_BUILT_IN: dict[str, type[Calibrator]] = {
    calibrator.kind: calibrator
    for calibrator in (
        Identity,
        Temperature,
        VectorScaling,
        MatrixScaling,
        EnsembleTemperature,
        ParameterizedTemperature,
        ClassTemperature,
        LaplaceMixture,
        Monotone,
        CurvedVector,
        CurvedMatrix,
        GapTemperature,
        Platt,
        Beta,
        Quadratic,
        OneVsRest,
        SplineCurves,
        Link,
        LogLinear,
        Groups,
        Top,
        VennAbers,
    )
}


def _check_stage(family: type[Family]) -> None:
    """Refuse a plugin's method whose stages a parameter file could not name."""
    stage = family.stage
    if stage is None:
        return
    if not (isinstance(stage, type) and issubclass(stage, Calibrator)) or isabstract(stage):
        raise UsageError(f"its stage {stage!r} is not a complete Calibrator")
    if stage.kind != family.name:
        raise UsageError(f"the kind of its stage is {stage.kind!r}; it must be the method's name")


MAPS: Registry[type[Family]] = Registry(
    "method",
    Family,
    (
        TemperatureMap,
        EnsembleTemperatureMap,
        ParameterizedTemperatureMap,
        ClassTemperatureMap,
        VectorMap,
        MatrixMap,
        DirichletMap,
        LaplaceMap,
        StructuredVectorMap,
        StructuredMatrixMap,
        MonotoneMap,
        CurvedVectorMap,
        CurvedMatrixMap,
        GapTemperatureMap,
        BiasCorrectedTemperatureMap,
        PlattMap,
        BetaMap,
        QuadraticMap,
        SplineMap,
        IsotonicMap,
        CenteredIsotonicMap,
        HistogramMap,
        ScalingBinningMap,
        BbqMap,
        VennAbersMap,
    ),
    group="calibcli.methods",
    reserved=("auto", *_BUILT_IN),
    check=_check_stage,
)
"""Families that can be fitted, by name."""


class StageKinds(Mapping[str, type[Calibrator]]):
    """What the stages of a parameter file can be, by kind, the stages of plugins' methods too."""

    def __getitem__(self, kind: str) -> type[Calibrator]:
        if kind in _BUILT_IN:
            return _BUILT_IN[kind]
        stage = MAPS[kind].stage
        if stage is None:
            raise KeyError(kind)
        return stage

    def __iter__(self) -> Iterator[str]:
        yield from _BUILT_IN
        yield from (name for name, family in MAPS.items() if family.stage is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


CALIBRATORS = StageKinds()


def read_calibrator(kind: str, values: dict[str, Any], classes: int) -> Calibrator:
    """The calibrator for K classes that a stage of a parameter file describes.

    Raises
    ------
    ParamsError
        An unknown kind, or parameters that it can't have.
    """
    if kind not in CALIBRATORS:
        known = ", ".join(CALIBRATORS)
        raise ParamsError(f"unknown kind of stage {kind!r}; this version knows {known}")
    return CALIBRATORS[kind].from_parameters(Parameters(kind, values, CALIBRATORS), classes)
