"""Widgets: the workflow, and looking into its results, by mouse and keyboard, in a notebook.

They choose among steps and charts; every figure comes from a step, or from `qnb.quant`. Each shows the ``%qnn`` line that
does the same, and leaves a table and a picture in the saved notebook.
"""

from __future__ import annotations

from qnb.widgets.dashboard import BackendDashboard
from qnb.widgets.explorer import CalibrationExplorer
from qnb.widgets.report_card import ReportCard
from qnb.widgets.workbench import Workbench

__all__ = ["BackendDashboard", "CalibrationExplorer", "ReportCard", "Workbench"]
