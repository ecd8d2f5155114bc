"""All calibrators: what can be fitted by name, and what a parameter file may hold."""

from __future__ import annotations

from calibcli.calibrators.affine import MatrixMap, MatrixScaling, VectorMap, VectorScaling
from calibcli.calibrators.base import Calibrator, SmoothMap
from calibcli.calibrators.beta import Beta, BetaMap
from calibcli.calibrators.bias_corrected import BiasCorrectedTemperatureMap
from calibcli.calibrators.class_temperature import ClassTemperature, ClassTemperatureMap
from calibcli.calibrators.ensemble_temperature import EnsembleTemperature, EnsembleTemperatureMap
from calibcli.calibrators.identity import Identity
from calibcli.calibrators.laplace import LaplaceMap, LaplaceMixture
from calibcli.calibrators.links import Link
from calibcli.calibrators.monotone import Monotone, MonotoneMap
from calibcli.calibrators.parameterized_temperature import (
    ParameterizedTemperature,
    ParameterizedTemperatureMap,
)
from calibcli.calibrators.platt import Platt, PlattMap
from calibcli.calibrators.quadratic import Quadratic, QuadraticMap
from calibcli.calibrators.structured import StructuredMatrixMap, StructuredVectorMap
from calibcli.calibrators.temperature import Temperature, TemperatureMap

MAPS: dict[str, type[SmoothMap]] = {
    family.name: family
    for family in (
        TemperatureMap,
        EnsembleTemperatureMap,
        ParameterizedTemperatureMap,
        ClassTemperatureMap,
        VectorMap,
        MatrixMap,
        LaplaceMap,
        StructuredVectorMap,
        StructuredMatrixMap,
        MonotoneMap,
        BiasCorrectedTemperatureMap,
        PlattMap,
        BetaMap,
        QuadraticMap,
    )
}
"""Families that a solver fits, by name."""

CALIBRATORS: dict[str, type[Calibrator]] = {
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
        Platt,
        Beta,
        Quadratic,
        Link,
    )
}
"""Stages of a parameter file, by kind."""
