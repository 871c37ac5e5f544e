import contextlib
import json
import os
import re
import subprocess
import sys

import pytest
from stores import write_cells
from synthetic import LRS, WIDTHS, frames, grid

from runner import __version__
from runner.analysis.columns import records
from runner.cli import COMMANDS, main
from runner.views.summary import print_launch_summary


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("outputs") / "digits"
    write_cells(path, grid(width=WIDTHS, lr=LRS, parameterization=("ntk", "mup"), seed=(0, 1)))
    return path


def _run(capsys, *words):
    """Return exit code, stdout and stderr."""
    with contextlib.suppress(AttributeError):
        capsys.readouterr()
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_overview_names_every_command(capsys):
    for words in ([], ["--help"], ["-h"]):
        code, out, _ = _run(capsys, *words)
        assert code == 0
        assert all(f"  {name} " in out for name in COMMANDS)
    assert _run(capsys, "--version")[1] == f"runner {__version__}\n"


@pytest.mark.parametrize("word", ["sweep", "fit"])
def test_an_interrupt_before_anything_began_is_no_traceback(word, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("runner.cli.main_of", interrupted)
    assert main([word, "width=8"]) == 130


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "sweep"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"runner {command}" in capsys.readouterr().out.split("examples:")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["phse"],
            "command must be one of boundary, check, claims, curves, ensemble, export, fit, limit, phase, "
            "profile, report, reproduce, schema, status, sweep, theory, transfer, verify, got 'phse'; "
            "did you mean 'phase'?",
        ),
        (["phase", "--colour", "x"], "unrecognized arguments: --colour; did you mean --color?"),
        (["phase", "STORE", "--out", "a.jpg"], "--out suffix must be one of .pdf, .png, .svg, got '.jpg'"),
        (["phase", "STORE", "--x", "widht"], "--x must be a column or a group key of the cells, got 'widht'"),
        (["phase", "STORE", "--regime", "deflt"], "regime must be one of"),
        (
            ["phase", "STORE", "--facet", "none"],
            "parameterization varies (mup, ntk); choose one with --where",
        ),
        (
            ["phase", "STORE", "--where", "width=3"],
            "--where width must be one of 32, 64, 128, 256, 512, got 3",
        ),
        (["fit", "STORE"], "lr varies (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30); choose one with --where lr=0.01"),
        (["fit", "STORE", "--metric", "ntk", "--where", "lr=1"], "--metric must be one of"),
        (
            ["schema", "cell"],
            "TABLE must be one of cells, derived, layers, outputs, trace, got 'cell'; did you mean 'cells'?",
        ),
        (["status", "/nowhere"], "STORE must be a folder written by `runner sweep`, got /nowhere"),
        (["phase", "/nowhere"], "STORE must be a folder written by `runner sweep`, got /nowhere"),
    ],
)
def test_mistakes_are_one_line_and_code_2(capsys, store, words, message):
    code, out, err = _run(capsys, *(store if word == "STORE" else word for word in words))
    assert code == 2
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_traceback_under_debug(capsys, store):
    code, _, err = _run(capsys, "phase", store, "--x", "widht", "--debug")
    assert code == 2
    assert "Traceback" in err


def test_phase_prints_and_draws(capsys, store, tmp_path):
    code, out, _ = _run(capsys, "phase", store, "--out", tmp_path / "phase.svg")
    assert code == 0
    assert "L  lazy" in out
    assert (tmp_path / "phase.svg").read_text().startswith("<svg")
    caption = (tmp_path / "phase.caption.txt").read_text()
    assert "digits, mlp of depth 2, sgd, mse, 200 steps" in caption
    assert f"{tmp_path}/phase.caption.txt" in out.replace("\n", "")


def test_phase_json(capsys, store):
    code, out, _ = _run(capsys, "phase", store, "--json", "--where", "parameterization=ntk")
    found = json.loads(out)
    assert code == 0
    assert (found["x"], found["y"], found["facets"], found["color"]) == (
        "width",
        "lr",
        ["parameterization"],
        "regime",
    )
    assert len(found["rows"]) == len(WIDTHS) * len(LRS)
    assert found["rows"][0] | {"critical": 0} == {
        "parameterization": "ntk", "width": 32, "lr": 0.01, "regime": "untrained", "share": 1.0,
        "second": None, "seeds": 2, "failed": 0, "value": None, "critical": 0, "critical_sharpness": 2.0,
        "catapult": 0.0, "controlled_divergence": 0.0,
    }  # fmt: skip
    assert {*found["boundary"][0]} == {"parameterization", "x", "y", "x2", "y2"}


def test_regimes_are_judged_anew(capsys, store, tmp_path):
    thresholds = tmp_path / "mine.yaml"
    thresholds.write_text("{untrained: 0.999, lazy: 0.0001, rich: 0.0002, catapult: 1.5}")
    _, out, _ = _run(capsys, "phase", store, "--json", "--regime", thresholds)
    assert {row["regime"] for row in json.loads(out)["rows"]} == {"rich", "diverged"}


def test_fit_prints_and_json(capsys, store):
    code, out, _ = _run(capsys, "fit", store, "--where", "lr=1", "--metric", "ntk_change,lambda_max_init")
    assert code == 0
    assert "95% interval" in out
    _, out, _ = _run(
        capsys, "fit", store, "--where", "lr=1", "--metric", "ntk_change", "--metric", "cka", "--json"
    )
    _, out, _ = _run(capsys, "fit", store, "--where", "lr=1", "--metric", "ntk_change", "--json")
    rows = json.loads(out)["rows"]
    assert [(row["parameterization"], row["theory"], row["layer"]) for row in rows] == [
        ("mup", 0.0, None),
        ("ntk", -1.0, None),
    ]
    assert rows[1]["slope"] == pytest.approx(-1, abs=0.1)


def test_newest_launch_unless_all(capsys, tmp_path):
    store = tmp_path / "digits"
    write_cells(store, grid(width=(32, 64), lr=(0.1, 1.0)), "a")
    write_cells(store, grid(width=(32, 64), lr=(1.0, 3.0)), "b")  # shares lr=1 with the first

    def lrs(*words):
        rows = json.loads(_run(capsys, "phase", store, "--json", *words)[1])["rows"]
        return sorted({row["lr"] for row in rows})

    assert lrs() == [1.0, 3.0]
    assert lrs("--all") == [0.1, 1.0, 3.0]


def test_default_facets_come_from_the_launch(capsys, tmp_path):
    store = tmp_path / "digits"
    write_cells(store, grid(width=(32, 64), lr=(0.1, 1.0), depth=(1, 2)), facet=("parameterization", "depth"))
    found = json.loads(_run(capsys, "phase", store, "--json")[1])
    assert found["facets"] == ["parameterization", "depth"]
    found = json.loads(_run(capsys, "phase", store, "--json", "--y", "depth", "--where", "lr=1")[1])
    assert found["facets"] == ["parameterization"]


def test_store_is_the_newest(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = _run(capsys, "phase")
    assert code == 2
    assert err.startswith("error: STORE must be given")
    write_cells(tmp_path / "outputs/one", grid(width=(32, 64), lr=0.1))
    assert _run(capsys, "phase")[0] == 0


def test_status(capsys, tmp_path):
    cells = grid(width=(32, 64), lr=(0.1, 1.0, 30.0))
    write_cells(tmp_path / "digits", cells[:-1], planned=cells)
    code, out, _ = _run(capsys, "status", tmp_path / "digits", "--failures")
    assert code == 0
    assert "5 of 6 cells done, 1 diverged, 1 missing" in out
    found = json.loads(_run(capsys, "status", tmp_path / "digits", "--json")[1])
    assert found["newest"] == {"planned": 6, "ok": 4, "diverged": 1, "failed": 0, "missing": 1}


def test_schema(capsys):
    _, out, _ = _run(capsys, "schema")
    assert all(f"{table}: one row per" in out for table in ("cells", "trace", "layers"))
    assert max(map(len, out.splitlines())) <= 100
    found = json.loads(_run(capsys, "schema", "layers", "--json")[1])
    assert found["tables"]["layers"][0]["name"] == "cell_id"


# -- the summary of a sweep --------------------------------------------------------------------------


def test_summary_of_a_grid(capsys, tmp_path):
    cells = grid(width=WIDTHS, lr=LRS, seed=(0, 1))
    launch = write_cells(tmp_path, cells[:-1], planned=cells)
    print_launch_summary(tmp_path, launch)
    out = capsys.readouterr().out
    assert "L  lazy" in out
    assert "79 cells: " in out
    assert "1 missing; regimes: " in out
    assert f"{tmp_path}/figures/phase.svg" in out.replace("\n", "")
    assert (tmp_path / "figures/phase.svg").is_file()
    assert "runner fit" in out
    assert "--where lr=3" in out


def test_summary_of_one_point(capsys, tmp_path):
    print_launch_summary(tmp_path, write_cells(tmp_path, grid(width=64, lr=0.1, seed=(0, 1), depth=(1, 2))))
    out = capsys.readouterr().out
    assert "depth" in out
    assert "train_loss" in out
    assert not (tmp_path / "figures").exists()


def test_summary_where_other_keys_vary(capsys, tmp_path):
    launch = write_cells(tmp_path, grid(width=(32, 64), lr=(0.1, 1.0), model__activation=("relu", "tanh")))
    print_launch_summary(tmp_path, launch)
    out = capsys.readouterr().out.replace("\n", " ")
    assert "no phase diagram: model.activation varied too" in out
    assert "--facet model.activation,parameterization" in out


def test_summary_never_raises(capsys, tmp_path, monkeypatch):
    launch = write_cells(tmp_path, grid(width=(32, 64), lr=(0.1, 1.0)))
    monkeypatch.setattr("runner.views.phase.terminal.phase_legend", lambda *_: 1 / 0)
    print_launch_summary(tmp_path, launch)
    assert "summary cut short: ZeroDivisionError" in capsys.readouterr().out
    print_launch_summary(tmp_path / "nothing", "x")
    assert "no results to show: STORE must be" in capsys.readouterr().out


def test_summary_of_nothing_finished(capsys, tmp_path):
    launch = write_cells(tmp_path, grid(width=32, lr=0.1), planned=grid(width=64, lr=0.1))
    print_launch_summary(tmp_path, launch)
    assert "no results to show: STORE must hold finished cells" in capsys.readouterr().out


# -- the process -------------------------------------------------------------------------------------


def _process(*words, pipe="", **environment):
    command = f"{sys.executable} -m runner {' '.join(map(str, words))} {pipe}"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def test_closed_pipe_of_a_forecast_is_quiet():
    # What it is piped to reads nothing at all.
    done = _process("sweep", "width=8", "lr=0.1", "--dry-run", pipe="| python -c 'pass'")
    assert "Traceback" not in done.stderr


def test_closed_pipe_is_quiet(store):
    done = _process("phase", store, "--json", pipe="| head -n 1")
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_no_color_when_asked(store):
    colored, plain = (_process("phase", store, FORCE_COLOR="1", **extra) for extra in ({}, {"NO_COLOR": "1"}))
    assert "\x1b[" in colored.stdout
    # Colours of letters and of what is behind them; an underline is no colour.
    assert not re.search(r"\x1b\[(\d;)*[349]\d", plain.stdout)
    assert re.search(r"\x1b\[(\d;)*[349]\d", colored.stdout)


@pytest.mark.parametrize("words", [["--help"], ["schema"], ["status", "STORE"]])
def test_light_start(store, words):
    words = [str(store) if word == "STORE" else word for word in words]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "runner", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "pandas", "hydra", "omegaconf", "altair", "sklearn", "rich", "scipy"}


def test_a_typo_in_a_sweep_waits_for_no_torch():
    code = "import sys; from runner import cli; print(cli.main(['sweep', 'widht=3']), *sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "did you mean width?" in found.stderr
    exit_code, *loaded = found.stdout.split()
    assert exit_code == "2"
    assert not set(loaded) & {"torch", "pandas", "altair"}


def test_records_have_plain_keys():
    assert all(isinstance(key, str) for key in records(frames(grid(width=32))[0])[0])


def test_a_sweep_loads_neither_charts_nor_compilers_before_it_trains(tmp_path):
    """Half a second of every sweep, and two for torch's own compiler."""
    line = [
        "sweep",
        "model=mlp,cnn",
        "data=digits",
        "width=4",
        "lr=0.1",
        "parameterization=ntk",
        "--dry-run",
    ]
    code = (
        f"import sys; from runner import cli; assert cli.main({line}) == 0\n"
        "import runner.views.summary; print(*sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert not set(found.stdout.split()) & {"altair", "scipy", "sklearn", "sympy", "torch._dynamo"}
