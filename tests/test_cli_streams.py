"""What the command line does with poor encodings, closed streams, Ctrl-C and too little memory."""

from __future__ import annotations

import codecs
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from vaelab.cli import streams
from vaelab.cli.main import _told

VAELAB = [sys.executable, "-m", "vaelab"]


def written(encoding: str, text: str) -> bytes:
    """Return what arrives of text that is written in an encoding."""
    codecs.register_error("vaelab", streams._plain)
    raw = io.BytesIO()
    stream = streams._Stream(io.TextIOWrapper(raw, encoding=encoding), every_error=False)
    stream.write(text)
    stream.flush()
    return raw.getvalue()


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("ascii", "β = −4 ± 1", b"beta = -4 +/- 1"),
        ("cp1252", "ELBO −97.5 ± 0.2, σ → 0…", "ELBO -97.5 ± 0.2, sigma -> 0…".encode("cp1252")),
        ("latin-1", "½ ≤ x", "½ <= x".encode("latin-1")),
        ("ascii", "Bär 猫 −", rb"B\xe4r \u732b -"),
        ("utf-8", "猫 − β", "猫 − β".encode()),
        ("utf-8", "a\udcff.png", rb"a\udcff.png"),  # a file name that is not UTF-8
    ],
)
def test_what_an_encoding_lacks_is_written_plainly(
    encoding: str, text: str, expected: bytes
) -> None:
    assert written(encoding, text) == expected


def test_where_nobody_reads_the_work_goes_on() -> None:
    reader, writer = os.pipe()
    stream = streams._Stream(os.fdopen(writer, "w", encoding="utf-8"), every_error=False)
    stream.write("first\n")
    stream.flush()
    assert os.read(reader, 100) == b"first\n"
    os.close(reader)
    for _ in range(3):
        stream.write("more\n" * 10_000)
        stream.flush()
    stream.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_for_results_alone() -> None:
    with pytest.raises(OSError, match="No space left"):  # noqa: PT012
        stream = streams._Stream(open("/dev/full", "w", encoding="utf-8"), every_error=False)
        stream.write("result\n")
        stream.flush()
    stream.close()
    stream = streams._Stream(open("/dev/full", "w", encoding="utf-8"), every_error=True)
    stream.write("progress\n")
    stream.flush()
    stream.close()


def test_a_command_runs_with_closed_streams_and_a_poor_encoding(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.close(2); os.close(1) if sys.argv[1] == 'both' else None;"
        "os.execv(sys.executable, [sys.executable, '-m', 'vaelab', 'recipes'])"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    for closed, expected in (("both", b""), ("stderr", b"beta-VAE (Higgins et al., 2017)")):
        done = subprocess.run(
            [sys.executable, "-c", code, closed], env=environment, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert expected in done.stdout


def test_ctrl_c_while_importing_says_nothing(tmp_path: Path) -> None:
    """A slow import of torch that turns an interruption into an error of its own."""
    slow = tmp_path / "torch"
    slow.mkdir()
    begun = tmp_path / "begun"
    (slow / "__init__.py").write_text(
        f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\n"
        "try:\n    time.sleep(60)\nexcept BaseException:\n    raise ImportError('half a torch')\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}/src"}
    command = [*VAELAB, "recipes"]
    worker = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # not ignored, as by nohup
    )
    while not begun.exists():
        assert worker.poll() is None, worker.communicate()
        time.sleep(0.02)
    worker.send_signal(signal.SIGINT)
    assert worker.communicate(timeout=30) == (b"", b"")
    assert worker.returncode == 130


def test_too_little_memory_is_said_in_words() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**55)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**55)
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has …")
    for error in (of_torch.value, of_numpy.value, cuda):
        assert _told(error).startswith("out of memory: more was needed")
        assert "--batch-size" in _told(error)
        assert "--limit" in _told(error)
    assert "unexpected RuntimeError" in _told(RuntimeError("shapes differ"))
