"""Everything that must pass, as one command: `python -m tests`. Arguments go to pytest.

Lint, format, types (strict), import direction, tests. All of them run, whatever fails; the exit code tells.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "imports": ["lint-imports"],
    "tests": ["python", "-m", "pytest", "-n", "2", *sys.argv[1:]],
}


def main() -> int:
    failed = []
    # Test processes share the cores: a library's threads must not spin while they wait for one another.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name, (program, *arguments) in STEPS.items():
        start = time.perf_counter()
        print(f"== {name}: {' '.join([program, *arguments])}", flush=True)
        if subprocess.run([find(program), *arguments], cwd=ROOT, check=False).returncode != 0:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"== failed: {', '.join(failed)}" if failed else "== all passed")
    return 1 if failed else 0


def find(program: str) -> str:
    """The program beside this Python, else on the PATH."""
    beside = Path(sys.executable).with_name(program)
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        sys.exit(f"{program} is not installed: pip install '.[test,dnnl]'")
    return found


if __name__ == "__main__":
    sys.exit(main())
