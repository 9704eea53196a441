"""Checking an app's entrypoint without running a line of it: the module is there, parses, and defines the callable."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

from rayline.app_spec import AppSpec, Call, ModelSwap
from rayline.errors import ManifestError
from rayline.yaml_lines import suggestion

ENTRYPOINT_PATTERN: Final = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


def as_module(written: str) -> str | None:
    """`package.feature:extract` for `package/feature.py:extract`, and the like; None for what does not name a file."""
    path, _, name = written.strip().replace("\\", "/").rpartition(":")
    parts = path.removesuffix(".py").removeprefix("./").split("/")
    # A file elsewhere: what is below the folder of app.yaml cannot be told.
    module = parts[-1] if parts[0] in ("", "..", "~") else ".".join(parts)
    right = f"{module}:{name}"
    return right if right != written.strip() and re.match(ENTRYPOINT_PATTERN, right) else None


def check_entrypoint(spec: AppSpec) -> None:
    """Raise ManifestError (file, line, what would be right) when `spec.entrypoint` cannot be what it says."""
    module, _, name = spec.entrypoint.partition(":")
    source = _module_file(Path(spec.root), module, as_module(spec.entrypoint))
    try:
        tree = ast.parse(source.read_bytes(), filename=str(source))
    except SyntaxError as error:
        raise ManifestError(
            f"{source}:{error.lineno or 1}: {error.msg}; the entrypoint {spec.entrypoint} cannot be imported"
        ) from error
    defined = _defined(tree)
    if name not in defined and "*" not in defined:
        callables = [name for name, node in defined.items() if isinstance(node, _CALLABLE)]
        raise ManifestError(
            f"{source}: no `{name}` at its top level{suggestion(name, defined)}; `entrypoint` is {spec.entrypoint!r}, "
            f"callable there: {', '.join(callables) or 'nothing'}"
        )
    node = defined.get(name)
    if spec.constructor and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        raise ManifestError(
            f"{source}:{node.lineno}: `{name}` is a function, but the manifest has `constructor:`, which is for a class"
        )
    if spec.model_swap is ModelSwap.INSTANCE and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        raise ManifestError(
            f"{source}:{node.lineno}: `{name}` is a function, but `model_swap: instance` needs a class, of which a second "
            "instance is made with each new model; make it a class, or drop `model_swap`"
        )
    if isinstance(node, ast.ClassDef) and not node.bases and not any(_is_method(item, "__call__") for item in node.body):
        raise ManifestError(f"{source}:{node.lineno}: class `{name}` has no `__call__`, which takes {_what(spec.call)}")


_CALLABLE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _what(call: Call) -> str:
    return "a batch" if call is Call.BATCH else "a payload"


def _module_file(root: Path, module: str, right: str | None) -> Path:
    base = root.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    if right is not None:
        raise ManifestError(f"{root}: `entrypoint` names a file, {module}; right would be {right}, the module without `.py`")
    modules = [path.stem for path in root.glob("*.py")]
    raise ManifestError(
        f"{root}: no module `{module}` ({base.name}.py or {base.name}/__init__.py){suggestion(module, modules)}; "
        f"`entrypoint` is module:callable below the folder of app.yaml"
    )


def _is_method(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name


def _defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """Names that the module binds at its top level (also inside `if` and `try`), with what binds them."""
    found: dict[str, ast.stmt] = {}
    pending = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, _CALLABLE):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name.partition(".")[0]): node for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {leaf.id: node for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}
        elif isinstance(node, ast.If | ast.Try | ast.With):
            pending += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
            pending += [statement for handler in getattr(node, "handlers", []) for statement in handler.body]
    return found
