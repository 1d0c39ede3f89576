"""Settings: every bad value is named with its flag, and files, flags and Python mean the same."""

from pathlib import Path

import pytest

from samfit.config import parse, read_config, write_config
from samfit.declare import Settings, bounds_of, choices_of, flag, value_kind, words_of
from samfit.defaults import in_words
from samfit.errors import SettingError
from samfit.settings import EvaluateSettings, PredictSettings, TrainSettings

TABLES = {
    "backbones": ("sam-vit-b", "sam-tiny"),
    "methods": ("decoder", "cad", "lora"),
    "datasets": ("folder", "isic2016"),
    "losses": ("bce-iou", "dice-ce"),
    "protocols": ("default", "cad"),
}
NEEDED = {
    TrainSettings: {"data": "images", "output": "run"},
    EvaluateSettings: {"run": "run"},
    PredictSettings: {"run": "run", "images": ("a.jpg",), "output": "masks"},
}
AT_LEAST_ONE = {"images", "targets", "protocol"}
"""Fields of several words that may not be empty, which the message need not say."""
JUST_OUTSIDE = {
    "ge": lambda limit: limit - 1,
    "gt": lambda limit: limit,
    "le": lambda limit: limit + 1,
    "lt": lambda limit: limit,
}


def bad_values(model: type[Settings], field: str) -> list[tuple[str, list[str]]]:
    """Values that a field must refuse, each with words that the message must hold."""
    cases: list[tuple[str, list[str]]] = []
    if value_kind(model, field) in (int, float):
        limits = bounds_of(model, field)
        named = [f"{limit}" for limit in limits.values()]
        cases += [
            (str(JUST_OUTSIDE[bound](limit)), named)
            for bound, limit in limits.items()
            if bound in JUST_OUTSIDE
        ]
        cases += [("ten", ["number"]), ("nan", ["number"]), ("inf", ["number"]), ("", ["number"])]
    words = words_of(model, field)
    table = choices_of(model, field)
    for choices in filter(None, (words, TABLES[table] if table else ())):
        cases.append((choices[0] + "x", [f"did you mean '{choices[0]}'?", *choices]))
    return cases


CASES = [
    pytest.param(model, field, value, named, id=f"{model.__name__}-{field}-{value}")
    for model in NEEDED
    for field in model.model_fields
    for value, named in bad_values(model, field)
]


def test_the_table_of_bad_values_covers_the_bounded_and_worded_fields():
    covered = {case.values[1] for case in CASES}
    assert {"epochs", "learning_rate", "image_size", "prompt", "backbone", "loss", "precision"} <= covered
    assert len(CASES) > 100


@pytest.mark.parametrize(("model", "field", "value", "named"), CASES)
def test_a_bad_value_is_named_with_its_flag_and_what_was_expected(model, field, value, named):
    with pytest.raises(SettingError) as caught:
        parse(model, NEEDED[model] | {field: value}, TABLES)
    message = str(caught.value)
    assert message.startswith(f"{flag(field)} {value}: ")
    assert [word for word in named if word not in message] == []


@pytest.mark.parametrize("model", list(NEEDED))
def test_every_declared_bound_is_one_that_messages_know(model):
    for field in model.model_fields:
        rules = model.model_fields[field].metadata
        assert len(rules) == len(bounds_of(model, field)) + (field in AT_LEAST_ONE), field


@pytest.mark.parametrize("field", ["data", "output", "weights"])
def test_an_empty_word_is_refused(field):
    with pytest.raises(SettingError, match=f"{flag(field)} : expected a (path|word)"):
        parse(TrainSettings, NEEDED[TrainSettings] | {field: ""}, TABLES)


def test_all_faults_are_listed_at_once_with_the_place_they_come_from():
    values = {"data": "images", "epochs": 0, "fit": "pda", "bach_size": 4, "method": "card"}
    with pytest.raises(SettingError) as caught:
        parse(TrainSettings, values, TABLES, {"epochs": "run.yaml", "bach_size": "run.yaml"})
    assert str(caught.value).splitlines() == [
        "5 settings are wrong:",
        "  --bach-size 4 (in run.yaml): there is no such setting; did you mean '--batch-size'?",
        "  --output is needed: folder of the run; must not hold one yet",
        "  --fit pda: expected one of pad, squeeze; did you mean 'pad'?",
        "  --epochs 0 (in run.yaml): expected a whole number, at least 1",
        "  --method card: unknown method 'card'; did you mean 'cad'? (known: decoder, cad, lora)",
    ]


def test_a_fault_of_a_file_names_the_file():
    with pytest.raises(SettingError, match=r"^--epochs 0 \(in run/config.yaml\): expected"):
        parse(TrainSettings, NEEDED[TrainSettings] | {"epochs": 0}, TABLES, "run/config.yaml")


def config_file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def from_yaml(folder: Path, text: str) -> TrainSettings:
    return parse(TrainSettings, NEEDED[TrainSettings] | read_config(config_file(folder, text)), TABLES)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("learning-rate: 1e-4", "learning_rate", 1e-4),  # a word to PyYAML, for want of a dot
        ("learning_rate: 0.0001", "learning_rate", 1e-4),
        ("precision: 32", "precision", "32"),
        ("data: 2016", "data", Path("2016")),
        ("prompt: none", "prompt", "none"),
        ("epochs: null", "epochs", None),
        ("classes: disc, cup", "classes", ("disc", "cup")),
        ("classes: [disc, cup]", "classes", ("disc", "cup")),
        ("classes: [1, 2]", "classes", ("1", "2")),
        ("mask-values: cytoplasm=128, nucleus=255", "mask_values", {"cytoplasm": 128, "nucleus": 255}),
        ("mask-values: {cytoplasm: 128, nucleus: 255}", "mask_values", {"cytoplasm": 128, "nucleus": 255}),
        ("prompt-class: 1", "prompt_class", "1"),
        (r"group: ^(patient\d+)_", "group", r"^(patient\d+)_"),
        ("group: tables/patients.CSV", "group", "tables/patients.CSV"),
        ("targets: q", "targets", ("q",)),
        ("targets: q, v", "targets", ("q", "v")),
        ("targets: [qkv, mlp]", "targets", ("qkv", "mlp")),
        ("dora: yes", "dora", True),
    ],
)
def test_a_yaml_value_means_what_the_same_words_mean_as_a_flag(tmp_path, text, field, value):
    assert getattr(from_yaml(tmp_path, text), field) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: yes", "--epochs True: expected a whole number, at least 1"),
        ("seed: null", "--seed None: expected a whole number, at least 0"),
        ("classes: 'disc,,cup'", "'' is no name of a class"),
        ("classes: 'disc,disc'", "'disc' is named twice"),
        ("classes: '../disc'", "'../disc' is no name of a class"),
        ("classes: []", "expected names, comma-separated"),
        ("classes: 7", "expected names, comma-separated"),
        ("group: patient", "expected one pair of parentheses around what names the group"),
        ("group: (a)(b)", "found 2"),
        ("group: (a", "neither a file that ends in .csv nor a regular expression"),
        ("mask-values: cup", "the grey value of 'cup' is ''"),
        ("mask-values: cup=bright", "the grey value of 'cup' is 'bright'"),
        ("mask-values: cup=65536", "from 1 to 65535"),
        ("mask-values: {cup: -1}", "the grey value of 'cup' is '-1'"),
        ("mask-values: 'cup=1,disc=1'", "two classes have the same grey value"),
        ("mask-values: 'cup=1,cup=2'", "'cup' is named twice"),
        ("mask-values: {}", "expected names"),
        ("mask-values: [1]", "expected name=value,name=value"),
        ("targets: [q, prj]", "some of qkv, q, k, v, proj, mlp; did you mean 'proj'?"),
        ("targets: 'q,prj'", "some of qkv, q, k, v, proj, mlp; did you mean 'proj'?"),
        ("targets: []", "expected names, comma-separated, some of qkv"),
        ("targets: 7", "expected names, comma-separated, some of qkv"),
        ("targets: 'qkv,q'", "qkv is q, k and v in one"),
        ("dora: 2", "--dora 2: expected true or false"),
    ],
)
def test_a_yaml_value_that_means_nothing_is_refused(tmp_path, text, message):
    with pytest.raises(SettingError) as caught:
        from_yaml(tmp_path, text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines of 'setting: value', found ''"),
        ("- epochs", "expected lines of 'setting: value', found '- epochs'"),
        ("epochs: [1", "not a YAML file"),
        ("!!python/object/apply:os.system [true]", "not a YAML file"),
        ("epochs: 1\nepochs: 2", "given twice: epochs"),
        ("image-size: 64\nimage_size: 128", "given twice: image_size"),
    ],
)
def test_a_config_file_that_is_none_is_named(tmp_path, text, message):
    path = config_file(tmp_path, text)
    with pytest.raises(SettingError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"--config {path}: ")
    assert message in str(caught.value)


def test_a_missing_a_binary_and_a_folder_as_config_file_are_named(tmp_path):
    binary = tmp_path / "weights.pth"
    binary.write_bytes(b"\x80\x02\xff\xfe")
    for path, message in [
        (tmp_path / "none.yaml", "there is no such file"),
        (binary, "not a text file"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(SettingError, match=message):
            read_config(path)


def test_written_settings_read_back_as_the_same_settings(tmp_path):
    settings = TrainSettings(
        data=Path("images"),
        output=Path("run"),
        classes=("disc", "cup"),
        mask_values={"disc": 128, "cup": 255},
        learning_rate=1e-5,
        prompt="box",
        prompt_class="disc",
        method="lora",
        late_blocks=3,
        targets=("q", "v"),
        rslora=True,
    )
    path = tmp_path / "config.yaml"
    write_config(path, in_words(settings))
    assert parse(TrainSettings, read_config(path), TABLES) == settings
    assert set(read_config(path)) == set(TrainSettings.model_fields)


def test_names_of_a_table_may_be_several_words_or_a_list():
    for value in ("default,cad", "default, cad", ["default", "cad"], ("default", "cad")):
        settings = parse(EvaluateSettings, {"run": "run", "protocol": value}, TABLES)
        assert settings.protocol == ("default", "cad")
    for value, words in {
        "default,dac": "unknown protocol 'dac'",
        ("cad", "cad"): "'cad' is named twice",
        (): "--protocol",
    }.items():
        with pytest.raises(SettingError, match=words):
            parse(EvaluateSettings, {"run": "run", "protocol": value}, TABLES)


@pytest.mark.parametrize(
    ("value", "pair"),
    [("0.5", (0.5, 0.5)), ("0.5,2", (0.5, 2.0)), (0.25, (0.25, 0.25)), ([1, 2], (1.0, 2.0)), (None, None)],
)
def test_a_spacing_is_of_rows_and_of_columns(value, pair):
    settings = parse(EvaluateSettings, {"run": "run", "spacing": value}, TABLES)
    assert settings.spacing == pair


@pytest.mark.parametrize("value", ["", "a", "0", "-1,1", "1,2,3", "inf", [], {"x": 1}])
def test_what_is_no_spacing_is_refused(value):
    with pytest.raises(SettingError, match=r"--spacing.*expected one distance above 0, or two"):
        parse(EvaluateSettings, {"run": "run", "spacing": value}, TABLES)
