"""The mutants of a source file: one operator, condition, number or statement changed. By the operators of cosmic-ray.

Left out by rule, and not counted:

- strings, docstrings and annotations. Tests compare messages where they matter;
- `strict=` of zip, and `frozen=` and `eq=` of a dataclass: they guard against mistakes in the code itself, and change
  nothing for an input that arrives;
- `stacklevel=` of a warning: it says which line is shown with it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import parso
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword

SOURCES = Path(__file__).parents[1] / "src" / "weightlora"
UNCHANGED = ("strict", "frozen", "eq", "stacklevel")
SWAPS = {
    "BinaryOperator": "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Mod_FloorDiv Pow_Mul BitOr_BitAnd BitAnd_BitOr",
    "ComparisonOperator": "Eq_NotEq NotEq_Eq Is_IsNot IsNot_Is "
    "Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt",
    "UnaryOperator": "Delete_Not Delete_USub Delete_Invert",
    "AndWith": "Or",
    "OrWith": "And",
    "TrueWith": "False",
    "FalseWith": "True",
    "BreakWith": "Continue",
    "ContinueWith": "Break",
}


class Swap(Operator):
    """What the operators of cosmic-ray that are defined here have in common: one position in a node."""

    def mutation_positions(self, node):
        if self.fits(node):
            yield node.start_pos, node.end_pos

    @classmethod
    def examples(cls):
        return ()


class RemoveStatement(Swap):
    """`pass` for a call whose value nobody takes, for `del`, and for an assignment to an attribute or an item."""

    def fits(self, node):
        if node.type != "simple_stmt":
            return False
        first = node.children[0]
        target = first.children[0] if first.type == "expr_stmt" else first
        return target.type in ("atom_expr", "del_stmt") or (first.type == "expr_stmt" and _is_augmented(first))

    def mutate(self, node, index):
        first = node.children[0].get_first_leaf()
        node.children[0] = Keyword("pass", first.start_pos, first.prefix)
        return node


class NegateFilter(Swap):
    """`not` before the condition of a comprehension."""

    def fits(self, node):
        return node.type == "comp_if"

    def mutate(self, node, index):
        node.children[1] = parso.parse(f" not ({node.children[1].get_code().strip()})")
        return node


class NegateIn(Swap):
    """`not in` for `in`, and the reverse."""

    def fits(self, node):
        return node.type == "comparison" and node.children[1].get_code().split() in (["in"], ["not", "in"])

    def mutate(self, node, index):
        node.children[1] = parso.parse(" in" if "not" in node.children[1].get_code() else " not in")
        return node


def _is_augmented(node):
    return node.children[1].type == "operator" and node.children[1].value != "="


def operators() -> list[Operator]:
    names = [
        f"Replace{kind}{'_' if kind.endswith('Operator') else ''}{swap}"
        for kind in SWAPS
        for swap in SWAPS[kind].split()
    ]
    names += ["AddNot", "ExceptionReplacer", "NumberReplacer", "RemoveDecorator", "ZeroIterationForLoop"]
    return [*(get_operator(f"core/{name}")() for name in names), RemoveStatement(), NegateFilter(), NegateIn()]


@dataclass(frozen=True)
class Mutant:
    """A changed source, and where it differs: the function, the first line and the code before and after."""

    file: str
    text: str
    function: str
    lines: range
    before: str
    after: str

    @property
    def key(self) -> tuple[str, ...]:
        return self.file, self.function, self.before, self.after


def mutants_of(file: str) -> Iterator[Mutant]:
    """All mutants of a source file that mean something else than it."""
    source = (SOURCES / file).read_text(encoding="utf-8")
    seen = {meaning(source), None}
    for operator in operators():
        occurrence = 0
        while (text := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            if (changed := meaning(text)) not in seen:
                seen.add(changed)
                yield _compare(file, source, text)


def meaning(source: str) -> str | None:
    """The program without what is left out by rule; None if it is no program."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = ast.Constant(None)
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in UNCHANGED]
    return ast.dump(tree)


def _compare(file: str, source: str, text: str) -> Mutant:
    old, new = source.splitlines(), text.splitlines()
    start, end = _alike(old, new), _alike(old[::-1], new[::-1])
    end = min(end, len(old) - start, len(new) - start)
    before, after = old[start : len(old) - end], new[start : len(new) - end]
    function, lines = _place(ast.parse(source), range(start + 1, len(old) - end + 1))
    one, other = (" ".join(map(str.strip, part)).strip() for part in (before, after))
    return Mutant(file, text, function, lines, one, other)


def _alike(old: list[str], new: list[str]) -> int:
    """How many lines are the same at the beginning."""
    return next(
        (i for i, (one, other) in enumerate(zip(old, new, strict=False)) if one != other), min(len(old), len(new))
    )


def _place(tree: ast.Module, lines: range) -> tuple[str, range]:
    """The function around the lines, and all lines of the smallest statement with them (of a compound one, its head).

    Outside of functions the range is empty: every test reaches what runs at the import.
    """
    names, statement, inside = [], None, False
    node: ast.AST = tree
    while True:
        within = [
            child
            for child in ast.walk(node)
            if isinstance(child, ast.stmt)
            and child is not node
            and child.lineno <= lines[0] <= (child.end_lineno or 0)
        ]
        if not within:
            break
        node = statement = max(within, key=lambda child: (child.end_lineno or 0) - child.lineno)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
            inside = inside or isinstance(node, ast.FunctionDef)
    if not inside or statement is None or isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return ".".join(names), range(0)
    body = getattr(statement, "body", None)
    end = body[0].lineno - 1 if body else statement.end_lineno or statement.lineno
    return ".".join(names), range(statement.lineno, max(end, lines[0]) + 1)
