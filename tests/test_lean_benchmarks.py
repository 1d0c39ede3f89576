"""The scripts that measure memory and time, on steps of a moment, and the committed figures."""

import json
import os
import sys
from dataclasses import asdict, replace

import pytest
import torch
from support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import cases
import lean_tables
import memory
import processes
import record
import speed
import tables
import trace_plan
from cases import ADAPTER, Case
from techniques import TECHNIQUES, Technique

from samfit.testing.held import held_bytes, peak_bytes

TINY = Case("sam-tiny", "medical-adapter", 64)
CAD = Case("sam-tiny", "cad", 64)
SAM = Case("sam-vit-b", "cad", 1024)
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("case", [TINY, CAD, Case(ADAPTER, "", 128)], ids=lambda case: case.name)
def test_a_lean_step_computes_what_a_plain_one_does_and_keeps_and_holds_less(case):
    losses, figures = {}, {}
    for plain in (False, True):
        one = replace(case, plain=plain)
        step = cases.step_of(one)
        with cases.modules_of(one):
            losses[plain] = float(step.forward().detach())
        figures[plain] = memory.memory_of(one)
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    for key in ("saved_mb", "live_after_forward_mb", "peak_mb"):
        assert 0 < figures[False][key] < figures[True][key], key


def test_the_figures_of_a_step_fit_each_other():
    found = memory.memory_of(TINY)
    model = cases.model_of(TINY)
    trained = sum(parameter.numel() for parameter in model.trained().values())
    assert found["adamw_state_mb"] == round(8 * trained / 1e6, 1)
    assert found["weights_mb"] == round(sum(tensor.nbytes for tensor in model.state_dict().values()) / 1e6, 1)
    assert found["saved_mb"] <= found["live_after_forward_mb"] + 0.1
    assert found["peak_mb"] > max(found["live_after_forward_mb"], 4 * trained / 1e6)


def test_counting_what_is_saved_does_not_hold_it_longer():
    case = Case("sam-tiny", "full", 64, checkpointing=False)
    step = cases.step_of(case)
    alone = peak_bytes(lambda: step.forward().backward())
    assert memory.memory_of(case)["peak_mb"] == pytest.approx(alone / 1e6, abs=0.1)


def test_what_several_calls_hold_is_counted_from_the_first():
    kept = []
    taken, given_back = held_bytes(
        lambda: kept.append(torch.ones(1000)), lambda: (torch.ones(500), kept.pop())
    )
    assert (taken.after, taken.peak) == (4000, 4000)
    assert (given_back.after, given_back.peak) == (0, 6000)


def test_a_case_is_named_by_what_is_not_as_usual():
    assert TINY.name == "sam-tiny medical-adapter 64 px"
    odd = replace(TINY, batch=4, classes=8, precision="bf16", checkpointing=False, attention="eager")
    assert odd.name == f"{TINY.name} batch 4 8 classes bf16 no checkpointing eager"
    assert replace(TINY, cached=True, whole=True).name == f"{TINY.name} cached whole layers"
    names = [case.name for case in memory.steps()]
    assert len(set(names)) == len(names)


def test_a_row_says_of_which_case_it_is():
    for case in memory.steps():
        assert cases.case_of(cases.words_of(case) | {"peak_mb": 1.0}) == case


def test_the_plan_is_held_to_the_measured_steps_that_a_training_takes(tmp_path):
    path, whole, cached = tmp_path / "memory.json", replace(CAD, whole=True), replace(CAD, cached=True)
    rows = record.Record(path, {}, "cpu")
    for case in (CAD, whole, cached):
        rows.keep(case.name, cases.words_of(case) | {"peak_mb": 1.0})
    rows.keep("samfit train", {"resident_mb": 2.0})
    measured = memory.measured(path)
    assert measured.keys() == {CAD, whole, cached}
    assert [case for case in measured if case.is_of_a_run] == [CAD, cached]
    assert cases.planned(cached, "gpu").cached
    assert memory.measured(tmp_path / "none") == {}


@pytest.fixture
def _estimates_read_anew():
    """Let later tests read the estimates that samfit comes with."""
    yield
    trace_plan.remembered.own_file.cache_clear()
    trace_plan.remembered.known.cache_clear()


@pytest.mark.usefixtures("_estimates_read_anew")
def test_the_plan_comes_with_the_measured_steps_of_both_devices(tmp_path, monkeypatch):
    eager = replace(TINY, attention="eager")
    monkeypatch.setattr(memory, "steps", lambda: [TINY, replace(TINY, whole=True), CAD])
    monkeypatch.setattr(memory, "RESULT", tmp_path / "none")
    monkeypatch.setattr(memory, "GPU_RESULT", tmp_path / "gpu.json")
    record.Record(tmp_path / "gpu.json", {}, "cpu").keep(eager.name, cases.words_of(eager) | {"peak_mb": 1})
    monkeypatch.setattr(trace_plan, "CARDS", ())
    monkeypatch.setattr(trace_plan, "lines", lambda _: [])
    monkeypatch.setattr(trace_plan.remembered, "training", (asked := []).append)
    trace_plan.main(
        ["--backbones", "sam-tiny", "--methods", "medical-adapter", "--result", str(tmp_path / "traced.json")]
    )
    assert asked == [
        cases.planned(TINY, "cpu"),
        cases.planned(TINY, "gpu"),
        cases.planned(eager, "gpu"),
    ]


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_a_technique_is_all_that_two_steps_differ_in(technique: Technique):
    of_both = asdict(technique.lean).items() ^ asdict(technique.without).items()
    assert len({key for key, _ in of_both}) == 1
    assert {technique.lean, technique.without} <= set(memory.steps())
    assert technique.speed in speed.rows()


def test_whole_layers_keep_what_lies_inside_them():
    kept = replace(TINY, checkpointing=False)
    lean, whole = memory.memory_of(kept), memory.memory_of(replace(kept, whole=True))
    assert 1.2 * lean["saved_mb"] < whole["saved_mb"]


def test_with_the_embedding_at_hand_the_encoder_is_not_on_the_device():
    whole, cached = memory.memory_of(CAD), memory.memory_of(replace(CAD, cached=True))
    encoder = cases.model_of(CAD).backbone.get_submodule("image_encoder").state_dict().values()
    held = sum(tensor.nbytes for tensor in encoder) / 1e6
    assert whole["weights_mb"] - cached["weights_mb"] == pytest.approx(held, abs=0.2)


@pytest.fixture
def tiny_rows(monkeypatch):
    """Let the scripts measure small steps only, and no command."""
    monkeypatch.setattr(memory, "steps", lambda: [TINY, CAD])
    monkeypatch.setattr(memory, "COMMANDS", ())
    monkeypatch.setattr(speed, "STEPS", (TINY,))
    eager = replace(TINY, attention="eager")
    monkeypatch.setattr(speed, "TECHNIQUES", [Technique("attention", "", TINY, eager, "tiny attention")])
    monkeypatch.setattr(speed, "in_a_process", lambda function, *given: speed.of_step(*given))


def test_a_row_is_written_with_its_commit(tiny_rows, tmp_path, capsys):
    result = tmp_path / "memory.json"
    memory.main(["--rows", "*medical*", "--result", str(result)])
    first = json.loads(result.read_text())
    assert {"protocol", "definitions", "device", "versions", "rows"} <= first.keys()
    [row] = first["rows"]
    assert row["name"] == TINY.name
    assert len(row["commit"]) == 40
    assert row["peak_mb"] > 0
    assert "peak" in capsys.readouterr().out


def test_each_part_of_a_row_is_measured_in_a_process_of_its_own(monkeypatch):
    assert processes.in_a_process("os.getpid") != os.getpid()
    asked = []
    monkeypatch.setattr(memory, "in_a_process", lambda *given: asked.append(given) or {given[0]: 1})
    assert memory._figures(TINY, "cpu", resident=True).keys() == {"memory.memory_of", "memory.resident_of"}
    assert asked == [("memory.memory_of", TINY, "cpu"), ("memory.resident_of", TINY, "cpu")]


def test_flags_change_every_step_and_measure_each_once(tiny_rows, tmp_path, monkeypatch):
    result = tmp_path / "memory.json"
    monkeypatch.setattr(memory, "steps", lambda: [TINY, replace(TINY, attention="eager")])
    monkeypatch.setattr(memory, "in_a_process", lambda *_: {"peak_mb": 1.0})
    memory.main(["--attention", "eager", "--no-checkpointing", "--result", str(result)])
    eager = replace(TINY, attention="eager", checkpointing=False)
    assert memory.measured(result).keys() == {eager}
    memory.main(["--result", str(result)])
    assert memory.measured(result).keys() == {eager, TINY, replace(TINY, attention="eager")}


def test_rows_stay_until_another_machine_measures(tmp_path):
    path = tmp_path / "memory.json"
    record.Record(path, {"protocol": "one"}, "cpu").keep("b", {"peak_mb": 1})
    record.Record(path, {"protocol": "one"}, "cpu").keep("a", {"peak_mb": 2})
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == ["a", "b"]
    assert record.Record(path, {"protocol": "one"}, "cpu").rows.keys() == {"a", "b"}
    assert record.Record(path, {"protocol": "another"}, "cpu").rows == {}
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"device": "another"}))
    assert record.Record(path, {"protocol": "one"}, "cpu").rows == {}


def test_a_row_stands_beside_the_published_figures_and_the_promise(tmp_path):
    path = tmp_path / "memory.json"
    rows = record.Record(path, {}, "cpu")
    rows.keep("sam-vit-b cad 1024 px", {"peak_mb": 1})
    rows.keep("cached step of cad", {"cpu_ratio": 1, "seconds": 2})
    cached, cad = json.loads(path.read_text())["rows"]
    assert (cad["published"], cad["at_most"]) == ({"peak_mb": 3955.2}, {"peak_mb": 300})
    assert "published" not in cached
    assert cached["at_most"] == {"cpu_ratio": 0.36}


def test_figures_of_a_gpu_have_none_of_a_cpu_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "device_words", lambda device: f"a card at {device}")
    path = tmp_path / "memory_gpu.json"
    record.Record(path, {}, "cuda").keep("sam-vit-b cad 1024 px", {"peak_mb": 1})
    [row] = json.loads(path.read_text())["rows"]
    assert row.keys() == {"name", "peak_mb", "commit", "changed_since"}


@pytest.mark.parametrize("script", [memory, speed], ids=["memory", "speed"])
def test_a_gpu_has_a_result_file_of_its_own(script, tiny_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "device_words", lambda device: f"a card at {device}")
    monkeypatch.setattr(script, "in_a_process", lambda *_: {"peak_mb": 1.0, "cpu_ratio": 0.5})
    monkeypatch.setattr(script, "RESULT", tmp_path / "cpu.json")
    monkeypatch.setattr(script, "GPU_RESULT", tmp_path / "gpu.json")
    script.main(["--device", "cuda", "--rows", TINY.name])
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]
    assert json.loads((tmp_path / "gpu.json").read_text())["device"] == "a card at cuda"


@pytest.mark.slow
def test_a_command_is_measured_as_a_whole_process_of_its_own():
    asked = memory.Command("version", "--version")
    command = memory.Command(
        "train", f"{memory._TINY} --image-size 64 --epochs 1 --validation-fraction 0.5", training=2
    )
    without_torch = memory.resident_of_command(asked)
    assert 10 < without_torch < 100  # this process, with torch, holds more
    assert memory.resident_of_command(command) > without_torch + 100


def test_what_is_resident_is_the_most_that_a_process_held():
    program = (
        "from resident import resident_mb; before = resident_mb(); block = bytearray(10**8); "
        "del block; print(resident_mb() - before)"
    )
    assert float(processes.output_of(["-c", program])) == pytest.approx(100, abs=5)


def test_speed_compares_two_ways_in_turn(tiny_rows, tmp_path):
    result = tmp_path / "speed.json"
    speed.main(["--rows", "sam-tiny*", "--rounds", "2", "--result", str(result)])
    [row] = json.loads(result.read_text())["rows"]
    assert row["name"] == TINY.name
    assert row["rounds"] == 2
    low, high = row["cpu_ratio_from_to"]
    assert 0 < low <= row["cpu_ratio"] <= high


def test_rows_of_speed_are_named_by_what_is_not_as_usual(tiny_rows, tmp_path, monkeypatch):
    asked, result = {}, tmp_path / "speed.json"
    monkeypatch.setattr(
        speed, "in_a_process", lambda function, *given: asked.update({function: given}) or {"cpu_ratio": 1}
    )
    flags = ["--precision", "bf16", "--attention", "folded", "--rounds", "1", "--result", str(result)]
    speed.main([*flags, "--rows", "*tiny*", "inference"])
    # Attention that is the same on both sides is not compared.
    names = [row["name"] for row in json.loads(result.read_text())["rows"]]
    assert names == ["inference bf16 folded", f"{TINY.name} bf16 folded"]
    ours, plain, rounds, device = asked["speed.of_step"]
    assert ours == replace(TINY, precision="bf16", attention="folded")
    assert plain == replace(ours, plain=True)
    assert (rounds, device) == (1, "cpu")


def test_a_gpu_is_warm_before_rounds_count(monkeypatch):
    taken = []
    seconds = iter([100.0, 1.0] * 2 + [1.0, 2.0] * 3)
    monkeypatch.setattr(speed, "_seconds", lambda way, device: taken.append(way) or next(seconds))
    found = speed._compare(len, max, 3, "cuda")
    assert taken == [len, max] * 5
    assert found["cpu_ratio_from_to"] == [0.5, 0.5]


def test_a_cached_step_does_not_encode(monkeypatch):
    encoded = []
    original = cases.AdaptedModel.encode
    monkeypatch.setattr(
        cases.AdaptedModel, "encode", lambda self, frame: encoded.append(1) or original(self, frame)
    )
    step = cases.step_of(replace(CAD, cached=True))
    assert encoded == [1]
    step.forward().backward()
    assert encoded == [1]


def test_inference_is_compared_with_a_model_that_gives_the_same_masks(monkeypatch):
    found = speed.of_inference(Case("sam-tiny", "decoder", 64), rounds=1)
    assert found["peak_mb"] > 0
    assert found["images_per_second"] > 0
    original = speed.transformers_sam

    def other(*arguments):
        sam = original(*arguments)
        torch.nn.init.zeros_(sam.mask_decoder.upscale_conv1.weight)
        return sam

    monkeypatch.setattr(speed, "transformers_sam", other)
    with pytest.raises(SystemExit, match="do not compute the same"):
        speed.of_inference(Case("sam-tiny", "decoder", 64), rounds=1)


@pytest.fixture
def drawn(tmp_path):
    """Return a function from the name of a table to its lines, of result files with a few rows."""
    figures = {"saved_mb": 40.0, "live_after_forward_mb": 41.0, "adamw_state_mb": 47.0, "weights_mb": 380.0}
    adapter = Case("sam-vit-b", "sam-adapter", 1024)
    half, four = replace(SAM, precision="bf16"), replace(SAM, batch=4)
    cached, eager = replace(SAM, cached=True), replace(SAM, attention="eager")
    peaks = {SAM: 200.0, half: 160.0, four: 500.0, cached: 190.0, eager: 1000.0, adapter: 400.0}
    rows = record.Record(tmp_path / "memory.json", {}, "cpu")
    for case, peak in peaks.items():
        rows.keep(case.name, cases.words_of(case) | figures | {"peak_mb": peak})
    for command, resident in (("predict, 1000 images", 1234.5), ("predict, 10 images", 1230.0)):
        rows.keep(f"samfit {command}", {"resident_mb": resident})
    rows.keep("samfit train sam-vit-b cad", {"resident_mb": 2414.2})
    ratios = {"cpu_ratio": 0.5, "cpu_ratio_from_to": [0.45, 0.6], "rounds": 3, "other_seconds": 4.0}
    of_images = {"images_per_second": 0.5, "peak_mb": 90.0, "their_peak_mb": 1700.0}
    times = record.Record(tmp_path / "speed.json", {}, "cpu")
    times.keep(SAM.name, ratios)
    times.keep("inference", ratios | of_images)

    def lines(name: str) -> list[str]:
        page = tables.render(f"<!-- table: {name} -->old<!-- end -->", tmp_path)
        return [line for line in page.splitlines() if line.startswith("| ")][2:]

    return lines


def test_the_tables_show_ours_the_published_and_their_ratio(drawn):
    assert drawn("step-memory")[0] == (
        "| sam-vit-b | `cad` | 1024 px | 40 [1,532, 38.3 ×] | 41 [1,531, 37.3 ×] | 200 [3,955, 19.8 ×] | 47 |"
    )
    assert drawn("batch-memory") == [
        "| sam-vit-b | `cad` | 1024 px | 4 images | 40 [40] | 500 [200] | 2.50 × |"
    ]
    assert [line.split(" | ")[1] for line in drawn("resident-memory")] == [
        "1,230 |",
        "1,234 |",
        "2,414 [4,828, 2.0 ×] |",
    ]


def test_the_share_of_bf16_stands_beside_why_it_is_more_than_promised(drawn):
    why = record.REFERENCE["exceptions"]["sam-vit-b cad 1024 px bf16"]["because"]
    assert drawn("bf16-memory") == [f"| sam-vit-b | `cad` | 1024 px | 380 [380] | 160 [200] | 0.80 | {why} |"]


def test_the_order_of_the_methods_is_that_of_their_peaks_beside_the_published_one(drawn):
    total, base = 3955.2 + 380 + 47, 6998.8 + 380 + 47
    assert drawn("memory-order") == [
        "| `cad`, embeddings at hand | 1.00 | 0.47 | 0.75 | 617 |",
        f"| `cad` | 1.00 [0.29] | 0.50 [0.57] | 0.76 [{total / base:.2f}] | 627 [{total:,.0f}] |",
        f"| `sam-adapter` | 1.00 [1.00] | 1.00 [1.00] | 1.00 [1.00] | 827 [{base:,.0f}] |",
    ]


def test_time_stands_beside_its_range_and_inference_beside_that_of_transformers(drawn):
    assert drawn("speed")[1] == "| sam-vit-b cad 1024 px | 0.50 | 0.45 to 0.60 | 3 |"
    assert drawn("inference") == ["| samfit | 0.500 | 90 |", "| `SamModel` of transformers | 0.250 | 1,700 |"]


def test_a_technique_is_shown_with_what_the_same_step_takes_without(drawn, monkeypatch):
    eager = replace(SAM, attention="eager")
    unmeasured = replace(SAM, checkpointing=False)
    monkeypatch.setattr(
        lean_tables,
        "TECHNIQUES",
        [
            Technique("no maps", "always", SAM, eager, SAM.name),
            Technique("checkpoints", "sometimes", SAM, unmeasured, SAM.name),
        ],
    )
    assert drawn("techniques") == [
        "| no maps | always | sam-vit-b `cad` | 380 [380] | 40 [40] | 200 [1,000] | 0.50 | nothing |"
    ]


def committed() -> dict[str, dict]:
    """Return the rows of the committed results by name; a step has memory and time."""
    rows: dict[str, dict] = {}
    for name in ("memory", "speed"):
        for row in json.loads((RESULTS / f"{name}.json").read_text())["rows"]:
            rows.setdefault(row["name"], {}).update(row)
    return rows


NOT_MEASURED = "not measured yet: make bench"


@pytest.mark.parametrize("name", record.REFERENCE["at_most"])
def test_committed_figures_are_at_most_what_is_promised(name):
    row, promised = committed().get(name, {}), record.REFERENCE["at_most"][name]
    assert promised.keys() <= row.keys(), NOT_MEASURED
    assert {key: row[key] for key, most in promised.items() if row[key] > most} == {}


@pytest.mark.parametrize("name", record.REFERENCE["times_at_most"])
def test_committed_figures_grow_at_most_as_promised(name):
    rows, promise = committed(), dict(record.REFERENCE["times_at_most"][name])
    of = promise.pop("of")
    excused = record.REFERENCE["exceptions"].get(name, {})
    assert {name, of} <= rows.keys(), NOT_MEASURED
    for key, most in promise.items():
        times = rows[name][key] / rows[of][key]
        assert times <= excused.get(key, most), key
        assert key not in excused or times > most, "this exception is not needed"


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda technique: technique.name)
def test_every_technique_has_committed_figures(technique: Technique):
    assert {technique.lean.name, technique.without.name, technique.speed} <= committed().keys(), NOT_MEASURED


def test_nothing_that_is_allocated_hides_from_what_autograd_is_seen_to_keep():
    for name, row in committed().items():
        if "saved_mb" in row:
            assert row["live_after_forward_mb"] <= row["saved_mb"] + 10, name


def test_an_exception_names_a_promise_and_a_reason():
    reference = record.REFERENCE
    for name, excused in reference["exceptions"].items():
        assert excused.keys() - {"because"} <= reference["times_at_most"][name].keys()
        assert len(excused["because"]) > 20
