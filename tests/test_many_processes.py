"""Two processes of two devices each, on the loopback interface: derivatives of global arrays, and plans in common."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "tests" / "processes"
PAGE = ROOT / "docs" / "how-to" / "run-on-many-processes.md"
LIMIT = 400.0  # seconds, on a busy machine


def run_twice(script: Path, folder: Path) -> list[str]:
    """What the two processes print that run a script; it is given the coordinator's address, 2, and 0 or 1."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    outputs = [folder / f"out{k}.txt" for k in range(2)]
    started = []
    for k, output in enumerate(outputs):
        flags = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
        own = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(k)}
        own |= {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo", "ADMODES_CACHE": str(folder / f"cache{k}")}
        with output.open("w") as out:
            command = [sys.executable, str(script), address, "2", str(k)]
            started.append(subprocess.Popen(command, env=os.environ | own, stdout=out, stderr=subprocess.STDOUT))
    end = time.monotonic() + LIMIT
    try:  # one that has failed lets the other wait for ever
        while any(p.poll() is None for p in started) and not any(p.poll() for p in started) and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        codes = [p.poll() for p in started]
        for p in started:
            p.kill()
            p.wait()
    texts = [output.read_text() for output in outputs]
    assert codes == [0, 0], f"exit codes {codes} (None: killed)\n" + "\n----\n".join(t[-4000:] for t in texts)
    return texts


def test_derivatives_of_global_arrays(tmp_path):
    run_twice(SCRIPTS / "derivatives.py", tmp_path)


def test_processes_come_to_one_plan(tmp_path):
    first, second = (json.loads(text.splitlines()[-1]) for text in run_twice(SCRIPTS / "plans.py", tmp_path))
    assert first == second


def test_the_script_of_the_page(tmp_path):
    (code,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    script = tmp_path / "newton.py"
    script.write_text(code, encoding="utf-8")
    texts = run_twice(script, tmp_path)
    assert "residual" in texts[0]
