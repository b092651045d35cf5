"""A loss written as one expression in x and y: what torch, a page and a formula need of it.

The text is read by Python's `ast`, checked node by node, and built up in sympy, from which value,
gradient and Hessian come, in torch and in JavaScript. Nothing of it is ever evaluated as code.
"""

import ast
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

NAMES = ("x", "y", "r", "pi", "e")
OF_ONE = ("sqrt", "exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh", "atan", "abs")
FUNCTIONS = {**dict.fromkeys(OF_ONE, 1), "logaddexp": 2}  # how many values each takes
LONGEST, DEEPEST, HIGHEST, LARGEST = 200, 6, 20, 1e100  # characters; levels; exponent; number
ALLOWED = (
    f"numbers, {', '.join(NAMES)} (r is the distance from the origin), + - * /, "
    f"** with a number up to {HIGHEST}, and {', '.join(FUNCTIONS)}"
)
OPERATIONS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: operator.pow, ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}  # fmt: skip
HELPERS = (
    "const sigmoid = (u) => 1 / (1 + Math.exp(-u)), "
    "logaddexp = (a, b) => Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));"
)


@dataclass(frozen=True)
class Formulas:
    """What an expression is in torch and as text; see `ToyLoss`. `value` is (…, 1)."""

    value: Callable[[Tensor], Tensor]
    gradient: Callable[[Tensor], Tensor]
    hessian: Callable[[Tensor], Tensor]
    latex: str
    javascript: str


def check_expression(text: object) -> ast.expr:
    """The tree of `text`; ValueError, with the place and what is allowed, where it isn't one."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST:
        raise ValueError(f"expression must be a text of 1 to {LONGEST} characters, got {text!r}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise _wrong(text, getattr(error, "offset", None) or 1, "it can't be read") from error
    for node, problem in _problems(tree):
        raise _wrong(text, node.col_offset + 1, problem)
    return tree


def _wrong(text: str, place: int, problem: str) -> ValueError:
    return ValueError(
        f"expression must be made of {ALLOWED}; got {text!r}, where at character {place} {problem}"
    )


def _problems(node: ast.expr, level: int = 0) -> Iterator[tuple[ast.expr, str]]:
    """Nodes that aren't allowed, and why, the outermost first."""
    match node:
        case ast.Constant(value=value):
            if abs(_number(node)) > LARGEST or 0 < abs(_number(node)) < 1 / LARGEST:
                yield node, f"{value!r} is no real number of {1 / LARGEST:g} to {LARGEST:g}"
        case ast.Name(id=name):
            if name not in NAMES:
                yield node, f"{name!r} is none of the names"
        case ast.BinOp(op=ast.Pow(), right=right) if abs(_number(right)) > HIGHEST:
            yield right, f"the exponent is no number from -{HIGHEST} to {HIGHEST}"
        case ast.UnaryOp(op=op) | ast.BinOp(op=op) if type(op) in OPERATIONS:
            pass
        case ast.BinOp(op=ast.BitXor(), right=right):
            yield right, "^ stands, where a power is written **"
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]):
            level += 1
            if FUNCTIONS.get(name) != len(given):
                yield node, f"{name}, given {len(given)} values, is none of the functions"
            elif level > DEEPEST:
                yield node, f"more than {DEEPEST} functions stand inside each other"
        case _:
            yield node, f"{type(node).__name__} is not allowed"
    inner = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    for one in [each for each in inner if isinstance(each, ast.expr)]:
        yield from _problems(one, level)


def _number(node: ast.expr) -> float:
    """The value of a number with its sign, inf for anything else."""
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_number(inner)
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
    return math.inf


@lru_cache(maxsize=64)
def formulas(text: str) -> Formulas:
    """All that is made of an expression. Raises ValueError where it is wrong or not real."""
    import sympy

    written = _built(check_expression(text))
    if written.has(sympy.I, sympy.zoo, sympy.oo, sympy.nan):
        raise ValueError(f"expression must be a real number at most points, got {text!r}")
    x, y, r = sympy.symbols("x y r")
    loss = written.subs(r, sympy.sqrt(x**2 + y**2 + sympy.Float(1e-24)))  # 0 has a slope too
    slope = [sympy.diff(loss, v) for v in (x, y)]
    bend = [sympy.diff(slope[0], x), sympy.diff(slope[0], y), sympy.diff(slope[1], y)]
    parts = {"loss": [loss], "gradient": slope, "hessian": bend}
    value, gradient, hessian = map(_in_torch, parts.values())
    return Formulas(value, gradient, hessian, sympy.latex(written), _in_javascript(parts))


def _built(node: ast.expr) -> Any:
    """The tree in sympy. A power of a number is a number at once, so that none grows on and on."""
    import sympy

    match node:
        case ast.Constant(value=value):
            return sympy.Rational(repr(value))
        case ast.Name(id=name):
            return {"pi": sympy.pi, "e": sympy.E}.get(name, sympy.Symbol(name))
        case ast.UnaryOp(op=op, operand=inner):
            return OPERATIONS[type(op)](_built(inner))
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _built(left), _built(right)
            if isinstance(op, ast.Pow) and not a.free_symbols:
                return sympy.Rational(repr(_power(a, b)))
            return OPERATIONS[type(op)](a, b)
        case ast.Call(func=ast.Name(id=name), args=given):
            function = _own_functions().get(name) or getattr(sympy, name)
            return function(*map(_built, given))
    raise AssertionError(node)


def _power(base: Any, power: Any) -> float:
    with suppress(TypeError, ValueError, OverflowError):  # complex, or 0 ** -1
        value = math.pow(base, power)
        if abs(value) <= LARGEST:
            return value
    raise ValueError(f"expression must have powers up to {LARGEST:g}, got {base}**{power}")


@lru_cache(maxsize=1)
def _own_functions() -> dict[str, Any]:
    """What sympy lacks, or differentiates into what overflows or is no function; torch's names."""
    import sympy

    def made(name: str, *slopes: Callable[..., Any], latex: str = "") -> Any:
        def fdiff(self: Any, argindex: int = 1) -> Any:
            return slopes[argindex - 1](*self.args)

        def _latex(self: Any, printer: Any, exp: str = "") -> str:
            text = latex.format(*map(printer.doprint, self.args))
            return rf"\left({text}\right)^{{{exp}}}" if exp else text

        return type(name, (sympy.Function,), {"fdiff": fdiff, "_latex": _latex})

    sign = made("sgn", lambda u: sympy.Integer(0))  # of one number lambdify makes what is "sign"
    sigmoid = made("sigmoid", lambda u: sigmoid(u) * sigmoid(-u))
    slopes = (lambda a, b: sigmoid(a - b)), (lambda a, b: sigmoid(b - a))
    logaddexp = made("logaddexp", *slopes, latex=r"\log\left(e^{{{}}} + e^{{{}}}\right)")
    return {"abs": made("absolute", sign, latex=r"\left|{}\right|"), "logaddexp": logaddexp}


def _in_torch(parts: Sequence[Any]) -> Callable[[Tensor], Tensor]:
    """The expressions as one function of points (…, 2): (…, number of them)."""
    import sympy

    names = (*FUNCTIONS, "absolute", "sgn", "sigmoid")
    known: dict[str, Any] = {name: partial(_applied, getattr(torch, name)) for name in names}
    known |= {"pi": math.pi, "e": math.e}
    function = sympy.lambdify(sympy.symbols("x y"), parts, [known], cse=True)

    def of(w: Tensor) -> Tensor:
        x, y = w.unbind(-1)
        found = (v if isinstance(v, Tensor) else x.new_full((), v) for v in function(x, y))
        return torch.stack([v.expand(x.shape) for v in found], -1)

    return of


def _applied(function: Callable[..., Tensor], *values: Any) -> Tensor:
    """Of tensors, and of numbers as well: sqrt(2) x."""
    exact = [torch.as_tensor(v, dtype=getattr(v, "dtype", torch.float64)) for v in values]
    return function(*exact)


def _in_javascript(groups: dict[str, list[Any]]) -> str:
    """An object of arrow functions of x and y, each with its common parts taken out."""
    import sympy

    own = {"absolute": "Math.abs", "sgn": "Math.sign"} | {n: n for n in ("sigmoid", "logaddexp")}
    js = partial(sympy.jscode, user_functions=own)
    functions = []
    for name, parts in groups.items():
        shared, left = sympy.cse(parts, sympy.numbered_symbols("t"))
        constants = [f"const {symbol} = {js(value)};" for symbol, value in shared]
        values = ", ".join(map(js, left))
        body = " ".join([*constants, f"return {values if name == 'loss' else f'[{values}]'};"])
        functions.append(f"{name}: (x, y) => {{ {body} }}")
    return f"(() => {{ {HELPERS} return {{ {', '.join(functions)} }}; }})()"
