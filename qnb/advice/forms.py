"""The nearest form that the NPU takes, for ops that it refuses.

Seen by asking the real compiler (QAIRT 2.47): the tests build each op and its form, and have both placed. Where `exact`,
the form computes the same.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORMS", "Form", "nearest"]


@dataclass(frozen=True)
class Form:
    """What to write instead of an op.

    Attributes
    ----------
    op_type : str
        The op that is refused; ``*`` for any.
    when : str
        Part of the reason that the runtime gives, where the op is refused for that alone.
    instead : str
        What to write.
    exact : bool
        Whether it computes the same.
    """

    op_type: str
    when: str
    instead: str
    exact: bool = True


FORMS: tuple[Form, ...] = (
    Form("Erf", "", "Gelu (opset 20) where it is part of one; else erf(x) ≈ tanh(1.1283792·x + 0.1009119·x³)", exact=False),
    Form("Softsign", "", "Div(x, Add(1, Abs(x)))"),
    Form("Selu", "", "Mul(gamma, Elu(x, alpha)): gamma and alpha are those of the Selu"),
    Form("Celu", "", "Mul(alpha, Elu(Div(x, alpha), 1))"),
    Form("Sinh", "", "Mul(0.5, Sub(Exp(x), Exp(Neg(x))))"),
    Form("Cosh", "", "Mul(0.5, Add(Exp(x), Exp(Neg(x))))"),
    Form("Asinh", "", "Mul(Sign(x), Log(Add(a, Sqrt(Add(Mul(a, a), 1))))) with a = Abs(x)"),
    Form("Hardmax", "", "ArgMax, and compare it with the constant 0, 1, 2 … (Equal, Cast)"),
    Form("LpPool", "", "Sqrt(Mul(n, AveragePool(Mul(x, x)))) for p = 2 over n values"),
    Form("GlobalLpPool", "", "ReduceL2 over the spatial axes for p = 2"),
    Form("MaxPool", "dilations 1", "a MaxPool without dilation over the same span", exact=False),
    Form("AveragePool", "dilations 1", "a depthwise Conv with the dilation, all weights 1/n"),
    Form(
        "MaxPool", "PoolMax3d",
        "two MaxPools of rank 4: Reshape to (N, C·D, H, W) and pool over H and W, then to (N, C, D, H·W) and pool over D",
    ),
    Form("ConvTranspose", "dilation", "a ConvTranspose without dilation, zeros put between the weights"),
    Form("Einsum", "at least 2 inputs", "Transpose (or ReduceSum, where a letter goes)"),
    Form("Mod", "fmod == 0", "Sub(x, Mul(y, Floor(Div(x, y)))) where x and y have the same sign"),
    Form("Sum", "exactly 2 inputs", "a chain of Adds"),
    Form("ReduceProd", "", "Split and a chain of Muls for a short axis; Exp(ReduceSum(Log(x))) for positive values"),
    Form("ReduceL1", "", "ReduceSum(Abs(x))"),
    Form("ReduceLogSum", "", "Log(ReduceSum(x))"),
    Form("ReduceLogSumExp", "", "Log(ReduceSum(Exp(x)))"),
    Form("ReduceSumSquare", "", "ReduceSum(Mul(x, x))"),
    Form("Resize", "anti-aliasing", "an AveragePool for whole factors, or Resize with antialias=0", exact=False),
    Form("GridSample", "cubic", 'GridSample with mode="linear"', exact=False),
    Form("Pad", "Pad mode", "Concat of Slices of the tensor itself, one axis after the other"),
    Form("Trilu", "", "Mul by a constant mask of 0 and 1"),
    Form("GRU", "", "its steps written out (MatMul, Add, Sigmoid, Tanh, Mul), or an LSTM, which the NPU takes"),
    Form("RNN", "", "its steps written out (MatMul, Add, Tanh)"),
    Form("ReverseSequence", "", "Slice with step -1, where all lengths are the whole axis"),
    Form("Shrink", "", "Add(Relu(x - lambd), Neg(Relu(-x - lambd))), where bias = lambd (soft shrink)"),
    Form(
        "*", "Failed to add node",
        "at most four dimensions: merge neighbouring axes before it, split them after it (Reshape)",
    ),
)  # fmt: skip


def nearest(op_type: str, reason: str) -> Form | None:
    """Find the form for an op that was refused for that reason."""
    for form in FORMS:
        if form.op_type in (op_type, "*") and form.when in reason:
            return form
    return None
