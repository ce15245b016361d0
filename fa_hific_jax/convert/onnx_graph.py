"""Converts a JAX function of one image into an ONNX model that takes images of many sizes.

The function is traced at a few sizes. All traces have the same operations, and each number in them,
such as the limit of a slice, is an affine function of height and width, which the traces determine.
The ONNX model computes these numbers from the shape of its first input. It holds the operations
that the networks have after tracing, about two dozen (`_added`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from fa_hific_jax.errors import UserError

OPSET, IR_VERSION = 17, 8  # read by ONNX Runtime 1.12 and later

_SIZES = ((2, 2), (3, 2), (2, 3), (5, 4))  # heights and widths, in units; the last one is a check
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # keys of an operation that calls a function
# Operations that take the same inputs in ONNX and no attributes.
_SAME = "abs add asinh div exp floor max min mul neg sub tanh".split()

Value = np.ndarray | str  # a constant, or the name of what an ONNX operation returns
Equation = Any  # an operation in a trace; the types of JAX omit shape and dtype


def onnx_model(
    function: Callable[..., Mapping[str, jax.Array]],
    specs: Mapping[str, jax.ShapeDtypeStruct],
    metadata: Mapping[str, str],
) -> bytes:
    """Returns the ONNX model of a function, as the content of a file.

    Args:
      function: takes the inputs, and returns the outputs, by name.
      specs: shapes and types of the inputs by name. The first one is NHWC with the height and width
        of one unit; the model takes any multiples of these.
      metadata: entries that the model carries.

    Raises:
      UserError: the function has an operation that is not among these.
    """
    from onnx import checker, helper

    first, *others = specs.values()

    def positional(*arrays):
        return function(**dict(zip(specs, arrays, strict=True)))

    def trace(height: int, width: int) -> ClosedJaxpr:
        shape = np.multiply(first.shape, (1, height, width, 1)).tolist()
        return jax.make_jaxpr(positional)(jax.ShapeDtypeStruct(shape, first.dtype), *others)

    def described(name: str, spec: Any) -> Any:
        shape = list(spec.shape)
        if len(shape) == 4:  # images of any height and width
            shape[1:3] = None, None
        return helper.make_tensor_value_info(name, _type(spec.dtype), shape)

    traces = [trace(*size) for size in _SIZES]
    names = sorted(jax.eval_shape(positional, *specs.values()))  # the order of JAX
    graph = _Graph(next(iter(specs)), first.shape[1])
    for name, value in zip(names, _run(graph, traces, list(specs)), strict=True):
        graph.nodes.append(helper.make_node("Identity", [graph.name(value)], [name]))
    given = [described(*each) for each in specs.items()]
    returned = [described(*each) for each in zip(names, traces[0].out_avals, strict=True)]
    needed, nodes = set(names), []  # without the operations on which no output depends
    for node in reversed(graph.nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.insert(0, node)
    constants = [constant for constant in graph.constants if constant.name in needed]
    content = helper.make_graph(nodes, "fa_hific", given, returned, constants)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION)
    helper.set_model_props(model, dict(metadata))
    checker.check_model(model)
    return model.SerializeToString()


class _Graph:
    """Operations and constants of an ONNX graph, whose first input has sides of many `unit`s."""

    def __init__(self, first: str, unit: int):
        self.nodes, self.constants = [], []
        sides = self.add("Shape", first, start=1, end=3)
        units = self.add("Div", sides, np.asarray([unit]))
        self._units = self.add("Concat", np.asarray([1]), units, axis=0)

    def add(self, operation: str, *inputs: Value, **attributes: Any) -> str:
        """Adds an operation and returns the name of its output."""
        from onnx import helper

        output, names = f"value{len(self.nodes)}", [self.name(value) for value in inputs]
        self.nodes.append(helper.make_node(operation, names, [output], **attributes))
        return output

    def name(self, value: Value) -> str:
        """Returns the name of a value, which is stored if it is a constant."""
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def numbers(self, traced: Sequence[Any]) -> Value:
        """Returns a vector of integers from its values in the traces."""
        base, taller, wider, check = (np.asarray(values, np.int64) for values in traced)
        slopes = np.stack([taller - base, wider - base], axis=-1)
        start = base - slopes @ _SIZES[0]
        if not np.array_equal(start + slopes @ _SIZES[-1], check):
            raise ValueError("a number of the function is not affine in height and width")
        if not slopes.any():
            return start
        return self.add("MatMul", np.concatenate([start[:, None], slopes], axis=1), self._units)


def _run(graph: _Graph, traces: Sequence[ClosedJaxpr], arguments: Sequence[Value]) -> list[Value]:
    """Adds the operations of a function, given in each trace, and returns its outputs."""
    jaxpr = traces[0].jaxpr
    values: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
    values |= {v: np.asarray(c) for v, c in zip(jaxpr.constvars, traces[0].consts, strict=True)}

    def read(atom: Any) -> Value:
        if not isinstance(atom, Literal):
            return values[atom]
        return np.asarray(atom.val, np.dtype(getattr(atom.aval, "dtype", None)))

    for equations in zip(*(trace.jaxpr.eqns for trace in traces), strict=True):
        inputs = [read(atom) for atom in equations[0].invars]
        values.update(zip(equations[0].outvars, _outputs(graph, equations, inputs), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _outputs(graph: _Graph, equations: Sequence[Equation], inputs: list[Value]) -> list[Value]:
    """Returns the outputs of an equation, given in each trace: computed, or added to the graph."""
    primitive, params = equations[0].primitive, equations[0].params
    if primitive.name == "platform_index":
        return [np.asarray(len(params["platforms"]) - 1, np.int32)]  # the one for any platform
    if primitive.name == "cond":
        branch = int(inputs[0])
        return _run(graph, [e.params["branches"][branch] for e in equations], inputs[1:])
    if inner := [key for key in _INNER if key in params]:
        return _run(graph, [e.params[inner[0]] for e in equations], inputs)
    shapes = {tuple(e.outvars[0].aval.shape) for e in equations}
    if len(shapes) == 1 and all(isinstance(value, np.ndarray) for value in inputs):
        made = primitive.bind(*inputs, **params)
        return [np.asarray(each) for each in (made if primitive.multiple_results else [made])]
    return [_added(graph, equations, inputs)]


def _added(graph: _Graph, equations: Sequence[Equation], inputs: list[Value]) -> str:
    """Adds the operation of an equation and returns the name of its output."""
    name, params = equations[0].primitive.name, equations[0].params
    x, *others = inputs
    shape = [e.outvars[0].aval.shape for e in equations]
    match name:
        case _ if name in _SAME:
            return graph.add(name.capitalize(), *inputs)
        case "concatenate":
            return graph.add("Concat", *inputs, axis=params["dimension"])
        case "convert_element_type":
            return graph.add("Cast", x, to=_type(params["new_dtype"]))
        case "transpose":
            return graph.add("Transpose", x, perm=params["permutation"])
        case "square":
            return graph.add("Mul", x, x)
        case "rsqrt":
            return graph.add("Reciprocal", graph.add("Sqrt", x))
        case "reduce_sum":
            return graph.add("ReduceSum", x, np.asarray(params["axes"]), keepdims=0)
        case "reshape" | "squeeze" | "expand_dims":
            return graph.add("Reshape", x, graph.numbers(shape))
        case "broadcast_in_dim":
            with_ones = [np.ones_like(each) for each in shape]
            for ones, e in zip(with_ones, equations, strict=True):
                ones[list(e.params["broadcast_dimensions"])] = e.invars[0].aval.shape
            x = graph.add("Reshape", x, graph.numbers(with_ones))
            return graph.add("Expand", x, graph.numbers(shape))
        case "slice":
            start, stop = (
                graph.numbers([e.params[f"{key}_indices"] for e in equations])
                for key in ("start", "limit")
            )
            steps = np.asarray(params["strides"] or [1] * len(shape[0]))
            return graph.add("Slice", x, start, stop, np.arange(len(steps)), steps)
        case "rev":
            axes = np.asarray(params["dimensions"])
            last, beyond = 0 * axes - 1, 0 * axes + np.iinfo(np.int64).min
            return graph.add("Slice", x, last, beyond, axes, last)
        case "pad" if not any(inner for *_, inner in params["padding_config"]):
            low, high, _ = zip(*params["padding_config"], strict=True)
            return graph.add("Pad", x, np.asarray(low + high), *others)
        case "dot_general" if params["dimension_numbers"][1] == ((), ()):
            ((i,), (j,)), _ = params["dimension_numbers"]
            left = "abcdef"[: len(equations[0].invars[0].aval.shape)]
            right = f"{left[i]}z" if j == 0 else f"z{left[i]}"  # a matrix
            equation = f"{left},{right}->{left.replace(left[i], '')}z"
            return graph.add("Einsum", x, *others, equation=equation)
        case "conv_general_dilated":
            numbers, (low, high) = params["dimension_numbers"], zip(*params["padding"], strict=True)
            x = graph.add("Transpose", x, perm=numbers.lhs_spec)
            # A kernel is a constant, as it depends on parameters alone.
            kernel = np.transpose(np.asarray(others[0]), numbers.rhs_spec)
            steps = {"strides": params["window_strides"], "dilations": params["rhs_dilation"]}
            y = graph.add("Conv", x, kernel, pads=low + high, **steps)
            return graph.add("Transpose", y, perm=np.argsort(numbers.out_spec).tolist())
    raise UserError(
        f"the networks use JAX's operation {name!r} in a way that ONNX export does not know: "
        "use the release of JAX that requirements.txt pins"
    )


def _type(dtype: Any) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
