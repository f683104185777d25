"""The bar shows steps and values; hidden, it prints nothing."""

from contextlib import closing

import jax

from wsm_jax.runtime.progress import ProgressBar


def test_the_bar_shows_time_left_and_the_loss(capsys, monkeypatch):
    with closing(ProgressBar("flow", 10, 4, show=True)) as bar:
        for _ in range(6):
            bar.update({"loss": 0.123456})
    shown = capsys.readouterr().err
    assert "flow" in shown
    assert "10/10" in shown
    with closing(ProgressBar("flow", 10, 0, show=False)) as bar:
        bar.update({"loss": 1.0})
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with closing(ProgressBar("flow", 10, 0, show=True)) as bar:
        bar.update({"loss": 1.0})
    assert capsys.readouterr().err == ""
