"""The small faults that `make mutants` builds into a module.

Each is one edit of its text.

Some places get no fault, because no test should pin them: docstrings, annotations, assertions, texts of exceptions, the
inner parts of f-strings, the options of `dataclass`, and code that only a type checker reads.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

COMPARED: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}
"""Each comparison operator, and its replacement."""
CALCULATED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
OPTIONAL_LAST = {"get", "getattr", "next", "pop"}
"""Calls with a last argument that may be left out.

Other calls without an argument raise a TypeError, which any test notices.
"""
NOT_TESTED = {"TypeVar", "cast", "dataclass", "NewType"}
"""Calls for a type checker, or for a reader."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One edit of a file. `old` and `new` are the lines that differ, without surrounding space."""

    path: str
    line: int
    kind: str
    old: str
    new: str
    source: str

    @property
    def name(self) -> str:
        """Return the place and the change, for people."""
        return f"{self.path}:{self.line}: {self.kind}"


Edit = tuple[int, int, str]
"""The start and end of the old text, in bytes of the source, and the new text."""


def mutants_of(path: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    return list(_unique(_Module(path, source).mutants()))


def _unique(mutants: Iterator[Mutant]) -> Iterator[Mutant]:
    seen = set()
    for mutant in sorted(mutants, key=lambda mutant: mutant.line):
        if mutant.source not in seen:
            seen.add(mutant.source)
            yield mutant


class _Module:
    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._octets = source.encode()
        self._tree = ast.parse(source)
        self._starts = [0]
        for line in self._octets.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def mutants(self) -> Iterator[Mutant]:
        """Yield mutants. Some are yielded twice."""
        for kind, (begin, end, text) in self._visit(self._tree):
            changed = self._octets[:begin] + text.encode() + self._octets[end:]
            if changed != self._octets:
                yield self._mutant(kind, begin, end, changed)

    def _mutant(self, kind: str, begin: int, end: int, changed: bytes) -> Mutant:
        first = self._octets.rfind(b"\n", 0, begin) + 1
        after = len(self._octets) - (self._octets + b"\n").find(b"\n", end)
        old, new = (self._lines(octets[first : len(octets) - after]) for octets in (self._octets, changed))
        line = self._octets.count(b"\n", 0, begin) + 1
        while len(old) > 1 and len(new) > 1 and old[0] == new[0]:
            del old[0], new[0]
            line += 1
        while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
            del old[-1], new[-1]
        return Mutant(
            path=self._path, line=line, kind=kind, old="\n".join(old), new="\n".join(new), source=changed.decode()
        )

    @staticmethod
    def _lines(octets: bytes) -> list[str]:
        return [line.strip() for line in octets.decode().splitlines()] or [""]

    # Walking

    def _visit(self, node: ast.AST, *, in_raise: bool = False) -> Iterator[tuple[str, Edit]]:
        if _is_left_out(node) or (in_raise and isinstance(node, ast.JoinedStr)):
            return
        in_raise = in_raise or isinstance(node, ast.Raise)
        if not (in_raise and isinstance(node, ast.Constant) and isinstance(node.value, str)):
            for operator in OPERATORS.get(type(node), ()):
                yield from operator(self, node)
        if not isinstance(node, ast.JoinedStr):  # their parts have no places before Python 3.12
            for children in self._children(node):
                for child in children:
                    yield from self._visit(child, in_raise=in_raise)
        for block in _blocks(node):
            yield from self._block(block, is_function=not isinstance(node, ast.Module | ast.ClassDef))

    def _children(self, node: ast.AST) -> Iterator[list[ast.AST]]:
        for name, value in ast.iter_fields(node):
            children = value if isinstance(value, list) else [value]
            is_of_type = name in ("annotation", "returns") or (name == "slice" and isinstance(value, ast.Tuple))
            if not is_of_type and name != "ctx":
                yield [child for child in children if isinstance(child, ast.AST) and not _is_docstring(child)]

    # Text

    def _span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self._starts[node.lineno - 1] + node.col_offset,
            self._starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        begin, end = self._span(node)
        return self._octets[begin:end].decode()

    def _replaced(self, node: ast.AST, other: ast.AST | str) -> Edit:
        text = other if isinstance(other, str) else ast.unparse(ast.fix_missing_locations(copy.deepcopy(other)))
        return (*self._span(node), text)

    # Operators: each yields edits of one kind of node

    def comparison(self, node: ast.Compare) -> Iterator[tuple[str, Edit]]:
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            begin, end = self._span(left)[1], self._span(right)[0]
            between = self._octets[begin:end].decode()
            sign, new = COMPARED[type(operator)]
            at = between.find(sign)
            yield "comparison", (begin, end, between[:at] + new + between[at + len(sign) :])
            left = right

    def boolean(self, node: ast.BoolOp) -> Iterator[tuple[str, Edit]]:
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "boolean", self._replaced(node, f"({ast.unparse(ast.BoolOp(other, node.values))})")
        for number in range(len(node.values)):
            rest = node.values[:number] + node.values[number + 1 :]
            left = rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            yield "removed condition", self._replaced(node, f"({ast.unparse(left)})")

    def negation(self, node: ast.UnaryOp) -> Iterator[tuple[str, Edit]]:
        if isinstance(node.op, ast.Not):
            yield "boolean", self._replaced(node, f"({self._text(node.operand)})")

    def calculation(self, node: ast.BinOp) -> Iterator[tuple[str, Edit]]:
        if other := CALCULATED.get(type(node.op)):
            yield "calculation", self._replaced(node, f"({ast.unparse(ast.BinOp(node.left, other(), node.right))})")

    def condition(self, node: ast.If | ast.IfExp | ast.While) -> Iterator[tuple[str, Edit]]:
        for always in ("False",) if isinstance(node, ast.While) else ("True", "False"):
            yield "condition", self._replaced(node.test, always)

    def filtered(self, node: ast.comprehension) -> Iterator[tuple[str, Edit]]:
        for condition in node.ifs:
            yield "removed condition", self._replaced(condition, "True")

    def constant(self, node: ast.Constant) -> Iterator[tuple[str, Edit]]:
        match node.value:
            case bool():
                yield "constant", self._replaced(node, str(not node.value))
            case int() | float():
                yield "constant", self._replaced(node, repr(node.value + 1))
            case str() | bytes():
                more = "~" if isinstance(node.value, str) else b"~"
                yield "text", self._replaced(node, repr(node.value + more))

    def text(self, node: ast.JoinedStr) -> Iterator[tuple[str, Edit]]:
        yield "text", self._replaced(node, ast.JoinedStr([*node.values, ast.Constant("~")]))

    def call(self, node: ast.Call) -> Iterator[tuple[str, Edit]]:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        for number, keyword in enumerate(node.keywords):
            others = [*node.keywords[:number], *node.keywords[number + 1 :]]
            what = "removed argument" if keyword.arg else "removed arguments"
            yield what, self._replaced(node, ast.Call(node.func, node.args, others))
        if name == "suppress":
            for number in range(len(node.args)):
                others = [*node.args[:number], *node.args[number + 1 :]]
                yield "except", self._replaced(node, ast.Call(node.func, others, node.keywords))
            if self._text(node) != "suppress(Exception)":
                yield "except", self._replaced(node, "suppress(Exception)")
        elif name in OPTIONAL_LAST and len(node.args) > 1:
            yield "removed argument", self._replaced(node, ast.Call(node.func, node.args[:-1], node.keywords))

    def elements(self, node: ast.Tuple | ast.List | ast.Set) -> Iterator[tuple[str, Edit]]:
        if len(node.elts) > 1 and not isinstance(getattr(node, "ctx", None), ast.Store):
            for number in range(len(node.elts)):
                others = [*node.elts[:number], *node.elts[number + 1 :]]
                new = ast.Set(others) if isinstance(node, ast.Set) else type(node)(others, node.ctx)
                yield "removed element", self._replaced(node, new)

    def entries(self, node: ast.Dict) -> Iterator[tuple[str, Edit]]:
        for number in range(len(node.keys)):
            others = [part[:number] + part[number + 1 :] for part in (node.keys, node.values)]
            yield "removed element", self._replaced(node, ast.Dict(*others))

    def decorators(self, node: ast.FunctionDef | ast.ClassDef) -> Iterator[tuple[str, Edit]]:
        for decorator in node.decorator_list:
            if not _is_left_out(decorator):
                begin, end = self._span(decorator)
                yield "removed decorator", (begin - 1, end, "")

    def handler(self, node: ast.ExceptHandler) -> Iterator[tuple[str, Edit]]:
        if node.type is None:
            return
        if self._text(node.type) not in ("Exception", "BaseException"):
            yield "except", self._replaced(node.type, "Exception")
        if not isinstance(node.type, ast.Tuple):  # otherwise the elements of the tuple are left out, one at a time
            yield "except", self._replaced(node.type, "()")

    def _block(self, statements: list[ast.stmt], *, is_function: bool) -> Iterator[tuple[str, Edit]]:
        for statement in statements:
            match statement:
                case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Continue() | ast.Break() | ast.Delete():
                    if not isinstance(getattr(statement, "value", None), ast.Yield | ast.YieldFrom):
                        yield "removed statement", self._replaced(statement, "pass")
                case ast.Return(value=ast.expr() as value) if self._text(value) != "None":
                    yield "return", self._replaced(value, "None")
        for first, second in pairwise(statements):
            if is_function and _may_swap(first, second):
                begin, end = self._span(first)[0], self._span(second)[1]
                indent = "\n" + " " * first.col_offset
                yield "swapped statements", (begin, end, self._text(second) + indent + self._text(first))


SIMPLE = ast.Expr | ast.Assign | ast.AugAssign | ast.AnnAssign | ast.Delete

OPERATORS: dict[type[ast.AST], tuple[Callable[..., Iterator[tuple[str, Edit]]], ...]] = {
    ast.Compare: (_Module.comparison,),
    ast.BoolOp: (_Module.boolean,),
    ast.UnaryOp: (_Module.negation,),
    ast.BinOp: (_Module.calculation,),
    ast.If: (_Module.condition,),
    ast.IfExp: (_Module.condition,),
    ast.While: (_Module.condition,),
    ast.comprehension: (_Module.filtered,),
    ast.Constant: (_Module.constant,),
    ast.JoinedStr: (_Module.text,),
    ast.Call: (_Module.call,),
    ast.Tuple: (_Module.elements,),
    ast.List: (_Module.elements,),
    ast.Set: (_Module.elements,),
    ast.Dict: (_Module.entries,),
    ast.FunctionDef: (_Module.decorators,),
    ast.ClassDef: (_Module.decorators,),
    ast.ExceptHandler: (_Module.handler,),
}


def _is_left_out(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in NOT_TESTED
    return False


def _may_swap(first: ast.stmt, second: ast.stmt) -> bool:
    """Return whether the order of two statements may matter: one is only a call, or one uses what the other sets."""
    if not (isinstance(first, SIMPLE) and isinstance(second, SIMPLE)) or first.lineno == second.lineno:
        return False
    if isinstance(first, ast.Expr) or isinstance(second, ast.Expr):
        return True
    names = [node for one in (first, second) for node in ast.walk(one) if isinstance(node, ast.Name)]
    return bool(
        {node.id for node in names if isinstance(node.ctx, ast.Store)}
        & {node.id for node in names if isinstance(node.ctx, ast.Load)}
    )


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the lists of statements that a statement holds."""
    for name in ("body", "orelse", "finalbody"):
        statements = getattr(node, name, None)
        if isinstance(statements, list):
            yield [one for one in statements if not _is_docstring(one) and not _is_left_out(one)]
