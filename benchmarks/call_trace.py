"""How far a reader is sent who follows one training from `fit` to its first step.

The spine of the walk are the functions that are on the stack when the first step is taken, from `fit` down. A reader
reads each of them and looks up what it calls in lambent, one call deep. Counted are the files that this walk enters, in
the order of the calls, and its returns: how often a call leads into a file that the walk had entered before and left.

    python benchmarks/call_trace.py                 # this tree
    PYTHONPATH=OTHER/src python benchmarks/call_trace.py
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from types import FrameType
from typing import Any

STEPS = ("step", "_step")


class Trace:
    """Calls between functions of lambent, until a training loop takes its first step."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.calls: list[tuple[int, int, str, str]] = []  # caller's call, own call, file, function
        self.open: dict[FrameType, int] = {}
        self.spine: list[int] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """What `sys.setprofile` calls."""
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(self.root) or code.co_name.startswith("<"):
            return
        file = str(Path(code.co_filename).relative_to(self.root))
        number = len(self.calls)
        caller = frame.f_back
        while caller is not None and caller not in self.open:
            caller = caller.f_back
        self.calls.append((-1 if caller is None else self.open[caller], number, file, code.co_name))
        self.open[frame] = number
        if code.co_name in STEPS and file.endswith("training/loop.py"):
            while number >= 0:
                self.spine.insert(0, number)
                number = self.calls[number][0]
            sys.setprofile(None)

    def walk(self) -> list[tuple[str, str]]:
        """(file, function) of the spine and of what it calls, in the order of the calls."""
        spine = set(self.spine)
        return [(file, name) for caller, own, file, name in self.calls if own in spine or caller in spine]


def counted(walk: list[tuple[str, str]]) -> tuple[int, int]:
    """The files that a walk enters, and its returns to files that it had left.

    >>> counted([("a", "f"), ("b", "g"), ("b", "h"), ("a", "i"), ("b", "g")])
    (2, 2)
    """
    files = [file for file, _ in walk]
    entered = [file for i, file in enumerate(files) if i == 0 or file != files[i - 1]]
    return len(set(entered)), len(entered) - len(set(entered))


def traced(recipe: str) -> Trace:
    """The calls of one small training."""
    import lambent

    silent: dict[str, Any] = {"quiet": True}
    if importlib.util.find_spec("lambent.runs") is None:  # builds before there was fit(..., quiet=True)
        from lambent.training.console import Console

        silent = {"console": Console(quiet=True)}
    lambent.fit(recipe, "digits", epochs=0, **silent)  # imports are done before
    trace = Trace(Path(lambent.__file__).parent)
    sys.setprofile(trace)
    try:
        lambent.fit(recipe, "digits", steps=1, **silent)
    finally:
        sys.setprofile(None)
    return trace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="vae")
    parser.add_argument("--walk", action="store_true", help="print each file and function of the walk")
    arguments = parser.parse_args()
    trace = traced(arguments.recipe)
    walk = trace.walk()
    if arguments.walk:
        spine = {(trace.calls[i][2], trace.calls[i][3]) for i in trace.spine}
        for file, name in walk:
            print(f"{'*' if (file, name) in spine else ' '} {file}: {name}")
    files, returns = counted(walk)
    print(f"{files} files, {returns} returns; {len(walk)} calls on the walk, {len(trace.calls)} in all")


if __name__ == "__main__":
    main()
