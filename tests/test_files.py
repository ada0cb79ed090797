"""Files: tables that no spreadsheet runs, and what is opened, written and left behind."""

from __future__ import annotations

import csv
import io

import pytest

from vaelab import files


def test_text_that_would_be_a_formula_is_quoted_and_numbers_stay() -> None:
    rows = [
        ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1"),
        ("-1.5", "+2", "-inf", "a=b", "-", "x-1", "'", ""),
        (-1.5, 7, None, float("nan"), True, "1e-3", "a,b", 'say "a"'),
    ]
    first, second, third = csv.reader(io.StringIO(files.csv_text(rows), newline=""))
    assert first == [f"'{text}" for text in rows[0]]
    assert second == ["-1.5", "+2", "-inf", "a=b", "'-", "x-1", "'", ""]
    assert third == ["-1.5", "7", "", "nan", "True", "1e-3", "a,b", 'say "a"']


def test_a_name_that_is_no_text_is_written_all_the_same() -> None:
    assert files.csv_text([["caf\udce9.png"]]) == "caf\\udce9.png\n"


@pytest.mark.parametrize("name", ["=a.png", "@b.png"])
def test_tables_quote_names(name: str) -> None:
    import torch

    from vaelab.evaluation.ranked import Ranking

    scores = {"error": torch.tensor([1.0])}
    table = Ranking((name,), scores, {"error": torch.zeros(60)}, "error", "60 images").table()
    assert next(csv.DictReader(io.StringIO(table)))["name"] == f"'{name}"
