"""The front door: help of every command, errors of every kind and their exit statuses."""

import errno
import logging
import subprocess
import sys
from types import ModuleType

import click
import pytest

import samfit
from samfit import cli, errors
from samfit.cli import COMMANDS, main
from samfit.cli.options import SettingOption, SettingsCommand
from samfit.declare import flag
from samfit.methods import METHODS


@pytest.fixture
def failing(monkeypatch):
    """Return a function that makes `samfit demo` raise an error."""

    def fail_with(error: BaseException) -> None:
        def run_demo(output, *, overwrite):
            raise error

        module = ModuleType("samfit.demo")
        module.__dict__["run_demo"] = run_demo
        monkeypatch.setitem(sys.modules, "samfit.demo", module)

    return fail_with


def test_help_lists_every_command_with_its_summary(capsys):
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    for row in COMMANDS.values():
        assert row.name in out
        assert row.summary in out
    assert err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_shows_every_parameter(name, capsys):
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: samfit {name} ")
    parameters = cli.group.get_command(click.Context(cli.group), name).params
    assert parameters
    for parameter in parameters:
        assert (parameter.metavar if isinstance(parameter, click.Argument) else parameter.opts[0]) in out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_what_every_setting_is(name, capsys):
    command = cli.group.get_command(click.Context(cli.group), name)
    if not isinstance(command, SettingsCommand):
        return
    main([name, "--help"])
    words = " ".join(capsys.readouterr().out.split())
    for option in command.params:
        if isinstance(option, SettingOption):
            declared = option.model.model_fields[option.field]
            assert declared.description.split()[0] in words
            if declared.default == 0 and not option.is_flag:
                assert "[default: 0]" in words
            assert f"{flag(option.field)}" in words


def test_options_of_methods_stand_in_a_section_that_says_whose_they_are(capsys):
    main(["train", "--help"])
    sections = capsys.readouterr().out.split("\n\n")
    [section] = [section for section in sections if section.startswith("Method:")]
    shown = {f"--{words.split()[0]}": " ".join(words.split()) for words in section.split("  --")[1:]}
    everyones = {field for row in METHODS.values() for field in row.options.model_fields}
    assert shown.keys() == set(map(flag, everyones))
    assert "(lora) [at least 1 and at most 512] [default: 4]" in shown["--rank"]
    assert "(lora) [some of qkv, q, k, v, proj, mlp] [default: qkv,proj]" in shown["--targets"]
    having = [name for name, row in METHODS.items() if "late_blocks" in row.options.model_fields]
    assert f"({', '.join(having)}) [at least 1]" in shown["--late-blocks"].replace("medical- ", "medical-")
    assert "default" not in shown["--dora"]


def test_version_goes_to_stdout(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"samfit {samfit.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["--versoin"], "there is no flag --versoin; did you mean '--version'?"),
        (["train", "--epocs", "3"], "there is no flag --epocs; did you mean '--epochs'?"),
        (["train", "--epochs"], "Option '--epochs' requires an argument"),
        (["train", "images"], "Got unexpected extra argument (images)"),
        (["evaluate"], "Missing argument 'RUN'"),
        (["predict", "run"], "Missing argument 'IMAGE...'"),
        (["list"], "Missing argument 'backbones|methods|datasets|losses|metrics|protocols|recipes'"),
        (["list", "method"], "unknown list 'method'; did you mean 'methods'?"),
        (["--quiet", "--verbose", "list", "methods"], "--quiet and --verbose: take one of them"),
        (["doctor"], "--data is needed: folder of the data set"),
        (["doctor", "--data", "x", "--dataset", "isic2015"], "did you mean 'isic2016'?"),
        (["predict", "run", "a.jpg"], "--output is needed: folder for the masks"),
        (["evaluate", "run", "--split", "tset"], "--split tset: expected one of train, validation, test"),
        (["train", "--config", "none.yaml"], "--config none.yaml: there is no such file"),
        (
            ["train", "--data", "x", "--output", "y", "--rank", "8"],
            "--rank 8: an option of --method lora; cad has no options",
        ),
        (
            ["train", "--data", "x", "--output", "y", "--method", "lora", "--late-blocks", "13"],
            "--late-blocks 13: sam-vit-b has 12 blocks",
        ),
        (
            ["train", "--data", "x", "--output", "y", "--method", "lora", "--targets", "q,prjo"],
            "some of qkv, q, k, v, proj, mlp; did you mean 'proj'?",
        ),
    ],
)
def test_a_users_mistake_ends_with_status_2_and_a_message(arguments, message, capsys):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("samfit: error: ")
    assert message in err
    assert "Traceback" not in err


def test_no_command_shows_the_help(capsys):
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (errors.SettingError("--epochs 0: no"), 2, "samfit: error: --epochs 0: no\n"),
        (
            errors.DataError(["a.png: cut off", "b.png: empty"]),
            2,
            "samfit: error: a.png: cut off\nb.png: empty\n",
        ),
        (errors.WeightsError("w.pth: no"), 2, "samfit: error: w.pth: no\n"),
        (errors.RunError("run: no"), 2, "samfit: error: run: no\n"),
        (errors.StorageError("cannot write"), 1, "samfit: error: cannot write\n"),
        (errors.DownloadError("no network"), 1, "samfit: error: no network\n"),
        (errors.Interrupted("stopped"), 130, "samfit: error: stopped\n"),
        (errors.Interrupted("stopped", 143), 143, "samfit: error: stopped\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/log.txt"),
            1,
            "samfit: error: the disk is full while writing run/log.txt; "
            "free some space and run the command again\n",
        ),
    ],
)
def test_an_error_becomes_its_message_and_status(failing, capsys, error, status, message):
    failing(error)
    assert main(["demo"]) == status
    assert capsys.readouterr() == ("", message)


def test_ctrl_c_ends_with_status_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["demo"]) == 130
    assert capsys.readouterr().err.strip() == "samfit: error: interrupted"


def test_an_unexpected_error_shows_its_traceback_and_asks_for_a_report(failing, capsys):
    failing(ZeroDivisionError("by nought"))
    assert main(["demo"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: by nought" in err
    assert err.splitlines()[-1].startswith("samfit: error: this is a fault of samfit itself")


def test_of_very_many_faults_only_the_first_are_shown(failing, capsys):
    failing(errors.DataError(f"{number}.png: empty" for number in range(100)))
    assert main(["demo"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "… and 80 more; samfit doctor lists them all"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--quiet"], ["samfit: warning: careful"]),
        ([], ["samfit: going on", "samfit: warning: careful"]),
        (["--verbose"], ["samfit: debug: detail", "samfit: going on", "samfit: warning: careful"]),
    ],
)
def test_quiet_and_verbose_set_how_much_is_said(monkeypatch, capsys, flags, said):
    def run_demo(output, *, overwrite):
        log = logging.getLogger("samfit.demo")
        log.debug("detail")
        log.info("going on")
        log.warning("careful")
        return {"images": 0, "rows": []}

    module = ModuleType("samfit.demo")
    module.__dict__["run_demo"] = run_demo
    monkeypatch.setitem(sys.modules, "samfit.demo", module)
    assert main([*flags, "demo"]) == 0
    out, err = capsys.readouterr()
    assert "samfit:" not in out
    assert sorted(err.splitlines()) == sorted(said)


def run_in_shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command.replace('samfit', f'{sys.executable} -m samfit')}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_reader_that_goes_away_is_no_fault():
    process = run_in_shell("samfit list losses --json | true")
    assert process.stderr == ""


def test_a_full_disk_behind_stdout_ends_with_status_1():
    process = run_in_shell("samfit list losses > /dev/full")
    assert process.returncode == 1
    assert process.stderr == "samfit: error: the disk is full; free some space and run the command again\n"


def test_a_full_disk_is_noticed_when_what_was_printed_leaves_the_buffer():
    code = (
        "import sys, types; from samfit.cli import main; demo = types.ModuleType('samfit.demo'); "
        "demo.run_demo = lambda output, overwrite: {'images': 0, 'rows': []}; "
        "sys.modules['samfit.demo'] = demo; "
        "sys.exit(main(['demo']))"
    )
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert process.returncode == 1
    assert process.stderr.startswith("samfit: error: the disk is full;")


def test_the_installed_program_and_the_module_are_the_same():
    assert run_in_shell("samfit --version").stdout == f"samfit {samfit.__version__}\n"
