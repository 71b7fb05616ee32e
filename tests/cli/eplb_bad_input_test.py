#!/usr/bin/env python3
"""`wideload eplb` refuses bad input: exit code 2, nothing written, a message with file, key, found and allowed."""
import json
import pathlib
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from cli_support import EMBEDDED, SOURCE, CliTest, run, write_safetensors  # noqa: E402

SMALL = SOURCE / "testdata/statistics/small"  # 4 ranks, 32 experts, layers 3, 4 and 7, iterations 100 to 105
FORMATS = {"I64": "q", "I32": "i", "U8": "B", "F32": "f", "F64": "d"}
LARGEST = 2 ** 63 - 1


def tensors(path, contents):
    """contents: name -> (dtype, shape, flat values)"""
    header, data = {}, b""
    for name, (dtype, shape, values) in contents.items():
        raw = struct.pack(f"<{len(values)}{FORMATS[dtype]}", *values)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    write_safetensors(path, header, data)
    return path


class Statistics(CliTest):
    """4 experts on 2 ranks, layers 3 and 4, iterations 10 to 12, wrong in one place."""

    def statistics(self, rank1=None, meta=None, drop=()):
        folder = self.folder / "statistics"
        folder.mkdir(exist_ok=True)
        (folder / "meta_info.json").write_text(meta or '{"num_experts": 4, "num_experts_per_token": 2}')
        for rank in range(2):
            counts = {f"{i}_{layer}": ("I64", [4], [1 + i, 2, 3, 4 + layer]) for i in (10, 11, 12) for layer in (3, 4)}
            if rank == 1:
                counts.update(rank1 or {})
                for key in drop:
                    del counts[key]
            tensors(folder / f"rank{rank}.safetensors", counts)
        return folder

    def commands(self, folder):
        source = ["--expert_statistic_path", folder]
        return [["eplb", "report", *source],
                ["eplb", "plan", *source, "--output_path", self.folder / "plan.yaml"],
                ["eplb", "diagnose", *source],
                ["eplb", "simulate", *source, "--ep_size", 2, "--num_slots", 6],
                ["eplb", "convert", folder, self.folder / "loads.csv"]]

    def refuse(self, folder, *found):
        for command in self.commands(folder):
            with self.subTest(command[1]):
                self.refused(command, *found)

    def test_the_good_folder_is_good(self):
        for command in self.commands(self.statistics()):
            with self.subTest(command[1]):
                self.good(*command)

    def test_another_expert_count(self):
        self.refuse(self.statistics({"11_3": ("I64", [5], [1] * 5)}), r"rank1\.safetensors", "11_3", r"\b5\b", r"\b4\b")
        self.refuse(self.statistics(meta='{"num_experts": 5, "num_experts_per_token": 2}'), r"rank0\.safetensors",
                    "10_3", r"\b4\b", r"\b5\b")

    def test_other_layers_than_rank_0(self):
        self.refuse(self.statistics({f"{i}_5": ("I64", [4], [1] * 4) for i in (10, 11, 12)}), r"rank1\.safetensors",
                    "8 tensors|10_5")

    def test_a_pair_is_missing(self):
        self.refuse(self.statistics(drop=["11_4"]), r"rank1\.safetensors", "11_4|5 tensors")

    def test_a_gap_in_the_iterations(self):
        folder = self.statistics()
        for rank in range(2):
            tensors(folder / f"rank{rank}.safetensors", {f"{i}_3": ("I64", [4], [1] * 4) for i in (10, 12)})
        self.refuse(folder, r"rank0\.safetensors", "11", "iteration")

    def test_a_negative_count(self):
        self.refuse(self.statistics({"12_4": ("I64", [4], [1, -7, 1, 1])}), r"rank1\.safetensors", "12_4", "-7", "0")

    def test_counts_that_overflow(self):
        self.refuse(self.statistics({"10_3": ("I64", [4], [LARGEST, 0, 0, 0])}), "10_3|iteration 10|layer 3",
                    "expert 0", r"2\^63 - 1")

    def test_another_dtype(self):
        for dtype in ("F32", "F64"):
            self.refuse(self.statistics({"12_4": (dtype, [4], [1] * 4)}), r"rank1\.safetensors", "12_4", dtype, "I64")

    def test_a_name_that_is_none(self):
        for name in ("12", "12_", "12_4_5", "-1_3", "x_y", "99999999999999999999_3"):
            self.refuse(self.statistics({name: ("I64", [4], [1] * 4)}), r"rank1\.safetensors", name)

    def test_a_window_outside(self):
        self.refused(["eplb", "report", "--expert_statistic_path", self.statistics(), "--iter_start", 9], "9", "10", "13")
        self.refused(["eplb", "report", "--expert_statistic_path", self.statistics(), "--iter_start", 12, "--iter_stop", 12],
                     "12")

    def test_files_that_are_missing_or_broken(self):
        folder = self.statistics()
        (folder / "rank1.safetensors").rename(folder / "rank2.safetensors")
        self.refuse(folder, "rank1")
        folder = self.statistics(meta='{"num_experts": "4"}')
        self.refuse(folder, "meta_info.json", "num_experts")
        (folder / "meta_info.json").unlink()
        self.refuse(folder, "meta_info.json")


class Placements(CliTest):
    def yaml(self, text):
        return self.path("plan.yaml", text)

    def of_layers(self, slots, layers=(3, 4, 7), num_slots=32, more=""):
        return self.yaml(f"{more}initial_global_assignments:\n" + "".join(f"  {layer}: {list(slots)}\n" for layer in layers) +
                         f"layer_updates_per_iter: 0\nnum_slots: {num_slots}\n")

    def refuse(self, path, *found):
        source = ["--expert_statistic_path", SMALL, "--ep_size", 4]
        for command in (["eplb", "report", *source, "--projection_eplb_config_path", path],
                        ["eplb", "repair", *source, "--from", path, "--output_path", self.folder / "new.yaml"]):
            with self.subTest(command[1]):
                self.refused(command, "plan.yaml", *found)

    def test_the_good_file_is_good(self):
        path = self.of_layers(range(32))
        self.good("eplb", "report", "--expert_statistic_path", SMALL, "--projection_eplb_config_path", path)

    def test_an_expert_is_missing(self):
        self.refuse(self.of_layers([0, *range(31)]), r"places 31 experts|expert 31", "32")
        self.refuse(self.of_layers([*range(5), 4, *range(6, 32)]), r"initial_global_assignments\.3", "no slot for expert 5",
                    "0 to 31")

    def test_an_expert_is_out_of_range(self):
        self.refuse(self.of_layers([*range(31), 99]), "expert 31|99")
        self.refuse(self.of_layers([*range(31), -1]), "plan.yaml:2", '"-1"', "integer in")
        self.refuse(self.of_layers([*range(31), "x"]), "plan.yaml:2")

    def test_keys(self):
        self.refuse(self.of_layers(range(32), layers=(3, 4, 7, 3)), "plan.yaml:5", r"duplicate key initial_global_assignments\.3")
        self.refuse(self.of_layers(range(32), more="num_slots: 32\n"), "duplicate key", "num_slots")
        self.refuse(self.of_layers(range(32), more="slots: 32\n"), "plan.yaml:1", 'unknown key "slots"', "allowed.*num_slots")
        self.refuse(self.yaml("layer_updates_per_iter: 0\n"), "num_slots is missing")

    def test_lists_of_another_length(self):
        self.refuse(self.of_layers([*range(32), 1]), r"initial_global_assignments\.3 has 33 entries", "32")

    def test_layers_of_another_model(self):
        self.refuse(self.of_layers(range(32), layers=(3, 4)), "no layer 7")

    def test_slots_that_ranks_do_not_divide(self):
        self.refuse(self.of_layers([*range(32), 1], num_slots=33), "33", "multiple of 4")
        for command in (["eplb", "plan", "--expert_statistic_path", SMALL, "--output_path", self.folder / "new.yaml"],
                        ["eplb", "diagnose", "--expert_statistic_path", SMALL],
                        ["eplb", "simulate", "--expert_statistic_path", SMALL, "--ep_size", 4]):
            for slots, found in ((41, "multiple of 4"), (28, "at least 32"), (0, "num.slots"), (-4, "num.slots")):
                with self.subTest(command=command[1], slots=slots):
                    self.refused([*command, f"--num_slots={slots}"], str(slots), found)

    def test_check_against_a_model(self):
        path = self.of_layers(range(32))
        self.refused(["eplb", "check", path, "--model", EMBEDDED], "plan.yaml", "32", "64")
        path = self.of_layers([*range(64)], layers=(0, 1, 2, 3), num_slots=64)
        self.refused(["eplb", "check", path, "--model", EMBEDDED], "plan.yaml", "no layer 4")
        path = self.of_layers([*range(64)], layers=range(6), num_slots=64)
        self.refused(["eplb", "check", path, "--model", EMBEDDED], "plan.yaml", r"\.5 is no MoE layer", "0, 1, 2, 3, 4")
        self.refused(["eplb", "check", path, "--model", self.folder], "config.json")


class Loads(CliTest):
    def refuse(self, loads, *found):
        for command in ("plan", "diagnose", "simulate", "repair"):
            more = {"plan": ["--output_path", self.folder / "new.yaml"], "diagnose": [],
                    "simulate": ["--num_slots", 4],
                    "repair": ["--from", self.placement, "--output_path", self.folder / "new.yaml"]}[command]
            with self.subTest(command):
                self.refused(["eplb", command, "--loads", loads, "--ep_size", 2, *more], *found)

    def setUp(self):
        super().setUp()
        self.placement = self.path("old.yaml", "num_slots: 4\ninitial_global_assignments:\n  0: [0, 1, 2, 0]\n")

    def test_csv(self):
        for text, *found in [("1,2,3\n4,5\n", "loads.csv:2", r"\b2\b", r"\b3\b"), ("1,-2,3\n", "loads.csv:1", "-2"),
                             ("1,nan,3\n", "loads.csv:1", "nan"), ("1,x,3\n", "loads.csv:1", "x"), ("1,1e400,3\n", "1e400"),
                             ("1,1e300,3\n", "loads.csv:1", r"1e\+300", r"1e\+30"),
                             ("layer,0,1\n3,1,2\n3,4,5\n", "loads.csv:3", "3"), ("layer,0,1\nx,1,2\n", "loads.csv:2", "x"),
                             ("", "loads.csv")]:
            with self.subTest(text):
                self.refuse(self.path("loads.csv", text), *found)

    def test_tensors(self):
        path = tensors(self.folder / "loads.safetensors", {
            "good": ("F32", [1, 3], [1, 2, 3]), "flat": ("F32", [3], [1, 2, 3]), "deep": ("F32", [1, 1, 1, 3], [1, 2, 3]),
            "nan": ("F64", [1, 3], [1, float("nan"), 3]), "negative": ("I64", [1, 3], [1, -2, 3]),
            "endless": ("F64", [1, 3], [1, float("inf"), 3]), "none": ("F32", [1, 0], [])})
        for name, *found in [("lost", "good"), ("flat", r"\[3\]"), ("deep", r"\[1, 1, 1, 3\]"), ("nan", "nan"),
                             ("negative", "-2"), ("endless", "inf"), ("none", r"\[1, 0\]|0 experts|no experts")]:
            with self.subTest(name):
                self.refuse(f"{path}:{name}", "loads.safetensors", name, *found)
        self.refuse(path, "loads.safetensors")  # which tensor?
        self.refuse(f"{self.folder}/none.safetensors:load", "none.safetensors", "no such file")

    def test_json_of_sglang(self):
        for value, *found in [([1], "loads.json"), ({}, "logical_count"), ({"logical_count": [[1, "x"]]}, "logical_count"),
                              ({"logical_count": [[1, 2], [3]]}, "logical_count"), ({"logical_count": [[1, -2]]}, "-2"),
                              ({"physical_to_logical_map": [[0, 1]]}, "logical_count")]:
            with self.subTest(str(value)):
                self.refuse(self.path("loads.json", value), "loads.json", *found)
        self.refuse(self.path("loads.json", "{"), "loads.json")

    def test_a_table_without_any_load(self):
        loads = self.path("zero.csv", "0,0,0\n0,0,0\n")
        for command in (["diagnose"], ["simulate", "--num_slots", 4],
                        ["repair", "--from", self.placement, "--output_path", self.folder / "new.yaml"]):
            with self.subTest(command[0]):
                self.refused(["eplb", *command, "--loads", loads, "--ep_size", 2], "no layer")

    def test_layers_of_a_table(self):
        loads = self.path("loads.csv", "1,2\n3,4\n5,6\n")
        plan = ["eplb", "plan", "--loads", loads, "--ep_size", 2, "--output_path", self.folder / "new.yaml", "--layers"]
        for text in ("x", "3-", "2,1", "1,1", "", "4-2", "0-99999", "1,", "-1"):
            with self.subTest(text):
                self.refused([*plan[:-1], f"--layers={text}"], "--layers")
        self.refused([*plan, "0,3"], "names layer 3", "0 to 2")


class Routing(CliTest):
    def routing(self, contents):
        return tensors(self.folder / "routing.safetensors", contents)

    def refuse(self, path, *found, flags=()):
        for command in (["plan", "--ep_size", 2, "--output_path", self.folder / "new.yaml"], ["diagnose", "--ep_size", 2],
                        ["simulate", "--ep_size", 2, "--num_slots", 8]):
            with self.subTest(command[0]):
                self.refused(["eplb", *command, "--routing", path, *flags], "routing.safetensors", *found)

    def test_ids_out_of_range(self):
        ids = ("U8", [4, 1, 2], [0, 1, 2, 3, 0, 1, 2, 7])
        path = self.routing({"expert_ids": ids, "answer_tokens": ("I64", [1], [4])})
        self.refuse(path, "expert_ids", r"\b7\b", "3|4", flags=["--num_experts", 4])
        path = self.routing({"expert_ids": ("I64", [1, 1, 2], [0, -1]), "answer_tokens": ("I64", [1], [1])})
        self.refuse(path, "expert_ids", "-1")
        path = self.routing({"expert_ids": ("I64", [1, 1, 2], [0, 1 << 20]), "answer_tokens": ("I64", [1], [1])})
        self.refuse(path, "expert_ids", str(1 << 20))

    def test_dtypes_and_shapes(self):
        lengths = ("I64", [1], [2])
        for contents, *found in [
                ({"expert_ids": ("F32", [2, 1, 1], [0, 1]), "answer_tokens": lengths}, "expert_ids", "F32"),
                ({"expert_ids": ("U8", [2, 1], [0, 1]), "answer_tokens": lengths}, "expert_ids", r"\[2, 1\]"),
                ({"expert_ids": ("U8", [2, 1, 1], [0, 1]), "answer_tokens": ("I64", [1], [3])}, "answer_tokens", "2"),
                ({"expert_ids": ("U8", [2, 1, 1], [0, 1]), "answer_tokens": ("I64", [2], [1, -1])}, "answer_tokens", "-1"),
                ({"expert_ids": ("U8", [2, 1, 1], [0, 1])}, "answer_tokens"),
                ({"law": ("U8", [2, 1, 1], [0, 1]), "law_document_tokens": lengths,
                  "intent": ("U8", [2, 2, 1], [0, 1, 0, 1]), "intent_document_tokens": lengths}, "law|intent", "layers|shape|k")]:
            with self.subTest(str(contents)[:60]):
                self.refuse(self.routing(contents), *found)


class Options(CliTest):
    def test_exactly_one_source(self):
        loads = self.path("loads.csv", "1,2,3,4\n")
        for command in (["plan", "--output_path", self.folder / "new.yaml"], ["diagnose"],
                        ["simulate", "--ep_size", 2, "--num_slots", 4]):
            with self.subTest(command[0]):
                self.refused(["eplb", *command], "found 0", "--expert_statistic_path", "exactly one")
                self.refused(["eplb", *command, "--loads", loads, "--expert_statistic_path", SMALL], "found 2")

    def test_options_of_another_source(self):
        loads = ["--loads", self.path("loads.csv", "1,2,3,4\n"), "--ep_size", 2]
        folder = ["--expert_statistic_path", SMALL]
        for command, *found in [
                (["plan", *loads, "--output_path", "x", "--iter_start", 3], "--iter_start", "--expert_statistic_path"),
                (["plan", *loads, "--output_path", "x", "--num_experts", 9], "--num_experts", "--routing"),
                (["diagnose", *folder, "--wobble", 0.1], "--wobble", "recorded"),
                (["diagnose", *folder, "--top_k", 4], "--top_k", "--loads"),
                (["diagnose", *loads, "--tokens_per_iteration", 9], "--tokens_per_iteration", "--routing"),
                (["simulate", *loads, "--num_slots", 4, "--iterations", "tokens:1"], "--iterations", "--routing"),
                (["simulate", *folder, "--ep_size", 4, "--num_slots", 40, "--wobble", 0.2], "--wobble", "--loads"),
                (["simulate", *folder, "--ep_size", 4, "--num_slots", 40, "--top_k", 3], "--top_k is 3"),
                (["simulate", *folder, "--ep_size", 4, "--num_slots", 40, "--splits", "round_robin"], "round_robin"),
                (["simulate", *loads, "--num_slots", 4, "--top_k", 4], "top_k is 4", "1 to 3"),
                (["convert", SMALL, self.folder / "a.csv", "--num_experts", 4], "--num_experts", "routing"),
                (["convert", SMALL, self.folder / "a.csv", "--replace"], "--replace", "folder"),
                (["convert", SMALL, "-"], "standard output", "ending"),
                (["convert", SMALL, self.folder / "loads.txt"], "loads.txt", "unknown output", "FILE.csv")]:
            with self.subTest(str(command)):
                self.refused(["eplb", *command], *found)

    def test_words_that_simulate_does_not_know(self):
        ids = [(7 * t + k) % 64 for t in range(2000) for k in range(2)]
        routing = tensors(self.folder / "routing.safetensors", {
            "expert_ids": ("U8", [2000, 1, 2], ids), "answer_tokens": ("I64", [4], [500] * 4)})
        simulate = ["eplb", "simulate", "--routing", routing, "--ep_size", 8, "--num_slots", 80]
        for flag, value, *found in [
                ("--policies", "best", "best", "contiguous, tensorrt_llm"), ("--splits", "fair", "fair", "even, round_robin"),
                ("--iterations", "tokens", "--iterations", "tokens:N"), ("--iterations", "tokens:0", "tokens is 0"),
                ("--iterations", "decode:4", "--iterations", "decode:STEP:LENGTH"),
                ("--iterations", "decode:1:999999", "0 to record"),
                ("--iterations", "tokens:99999999", "0 to record"),
                ("--answer_order", "random", "--answer_order", "stride:N"),
                ("--answer_order", "stride:0", "stride 0"), ("--record", "all", "--record", "half_per_task"),
                ("--nodes", "3", "--nodes"), ("--dead_ranks", "8", "dead rank 8", "0 to 7"),
                ("--dead_ranks", "1,1", "distinct"), ("--shared_expert_cost", "-1", "--shared"),
                ("--repair_slots_per_layer", "-1", "--repair")]:
            with self.subTest(flag=flag, value=value):
                self.refused([*simulate, f"{flag}={value}"], *found)
        self.good(*simulate, "--iterations", "tokens:500")

    def test_nodes_need_a_policy_that_looks_at_them(self):
        plan = ["eplb", "plan", "--expert_statistic_path", SMALL, "--output_path", self.folder / "new.yaml", "--nodes", 2]
        self.refused([*plan, "--policy", "tensorrt_llm"], "--nodes 2", "tensorrt_llm", "deepseek")
        self.good(*plan, "--policy", "deepseek", "--num_groups", 4)
        self.refused([*plan, "--policy", "scenario", "--num_groups", 3], "num_groups is 3", "must divide 32")
        self.refused([*plan, "--policy", "deepseek", "--cross_node_slots", 1], "--cross_node_slots 1", "deepseek", "scenario")
        self.refused([*plan[:-2], "--policy", "scenario", "--cross_node_slots", 1], "--cross_node_slots 1", "--nodes 1")
        self.good(*plan, "--policy", "scenario", "--num_groups", 4, "--cross_node_slots", 1)
        simulate = ["eplb", "simulate", "--expert_statistic_path", SMALL, "--ep_size", 4, "--num_slots", 32, "--num_groups", 4]
        self.refused([*simulate, "--policies", "contiguous,tensorrt_llm"], "--num_groups 4",
                     "--policies contiguous,tensorrt_llm", "deepseek")
        self.good(*simulate, "--policies", "contiguous,deepseek")
        self.refused([*simulate, "--policies", "scenario", "--nodes", 2, "--repair_slots_per_layer", 1, "--dead_ranks", "1,2"],
                     "--repair_slots_per_layer 1 --nodes 2 --dead_ranks 1,2", "two of the three")

    def test_repair_over_nodes(self):
        repair = ["eplb", "repair", "--from", SMALL / "expected_eplb_8x40.yaml", "--expert_statistic_path", SMALL, "--ep_size", 8,
                  "--output_path", self.folder / "new.yaml"]
        for more, *found in [(["--cross_node_slots", 1], "--cross_node_slots 1", "--nodes 1", "several nodes"),
                             (["--nodes", 3], "num_nodes is 3", "divide 8"), (["--num_groups", 4], "num_groups is 4", "several nodes"),
                             (["--nodes", 2, "--num_groups", 3], "num_groups is 3", "divide 32"),
                             (["--nodes", 2, "--cross_node_slots", 1], "expected_eplb_8x40.yaml: layer 4: 4 slots", "--cross_node_slots is 1"),
                             (["--nodes", 2, "--cross_node_slots=-1"], "--cross")]:
            with self.subTest(more=more):
                self.refused([*repair, *more], *found)
        flat = "more than 2 slots with experts of other nodes"
        self.assertIn(f"3 of 3 layers held {flat}", self.good(*repair, "--nodes", 2, "--num_groups", 4).stderr)
        self.assertNotIn(flat, self.good(*repair, "--nodes", 2, "--cross_node_slots", 9).stderr)

    def test_more_slots_than_hold_every_expert_on_every_rank(self):
        loads = ["--loads", self.path("loads.csv", "1,2,3,4\n"), "--ep_size", 4]
        for command in (["plan", *loads, "--policy", "scenario", "--output_path", self.folder / "new.yaml"],
                        ["simulate", *loads, "--top_k", 2], ["diagnose", *loads, "--top_k", 2]):
            for slots, allowed in ((20, 16), (1000, 16)):
                with self.subTest(command[0], slots=slots):
                    self.refused(["eplb", *command, "--num_slots", slots], rf"num_slots is {slots}; at most {allowed} are allowed")
            self.good("eplb", *command, "--num_slots", 16)

    def test_more_ranks_than_any_engine_has(self):
        loads = ["--loads", self.path("loads.csv", "1,2,3,4\n"), "--ep_size", 2048]
        plan = self.path("plan.yaml", "num_slots: 2048\ninitial_global_assignments:\n  0: [" + "0, 1, 2, 3, " * 511 + "0, 1, 2, 3]\n")
        out = ["--output_path", self.folder / "new.yaml"]
        for command in (["plan", *loads, "--num_slots", 2048, "--policy", "even", *out],
                        ["simulate", *loads, "--num_slots", 2048, "--top_k", 2], ["diagnose", *loads],
                        ["repair", *loads, "--from", plan, *out]):
            with self.subTest(command[0]):
                self.refused(["eplb", *command], "ep_size is 2048; placements are planned for at most 1024 ranks")

    def test_fetch_price(self):
        layout = ["--eplb_config", self.folder / "layout.yaml"]
        self.good("eplb", "plan", "--expert_statistic_path", SMALL, "--output_path", layout[1])
        plan = ["eplb", "plan", "--expert_statistic_path", SMALL, "--output_path", self.folder / "new.yaml"]
        for more, *found in [
                (["--fetch_price", 1e-3, *layout], "--fetch_price 0.001 with --policy tensorrt_llm; allowed: even, scenario"),
                (["--fetch_price", 0, "--policy", "scenario"], "--fetch_price 0 needs --eplb_config"),
                (["--fetch_price", 1, "--policy", "scenario", *layout, "--num_slots", 36], "32 slots on 4 ranks", "--num_slots is 36"),
                (["--fetch_price", 1, "--policy", "scenario", *layout, "--ep_size", 8], "32 slots on 4 ranks", "--ep_size 8"),
                *[([f"--fetch_price={value}", "--policy", "scenario", *layout], rf"--fetch-price is {value}", "0 or more")
                  for value in ("-1", "nan", "inf")]]:
            with self.subTest(more=more):
                self.refused([*plan, *more], *found)
        self.good(*plan, "--fetch_price", 1, "--policy", "scenario", *layout)

    def test_repair(self):
        plan = self.path("plan.yaml", "num_slots: 40\n")
        repair = ["eplb", "repair", "--from", plan, "--output_path", self.folder / "new.yaml"]
        source = ["--expert_statistic_path", SMALL, "--ep_size", 8]
        for more, *found in [([*source, "--until=-1"], "--until", "-1"), ([*source, "--max_fetched_slots=-1"], "fetched"),
                             ([*source, "--dead_ranks", "8"], "rank 8", "0 to 7"),
                             ([*source, "--dead_ranks", "0,1"], "30 slots", "32 experts"),
                             (["--expert_statistic_path", SMALL, "--ep_size", 7], "plan.yaml", "40", "multiple of 7")]:
            with self.subTest(str(more)):
                self.refused([*repair, *more], *found)
        self.refused([*repair, "--loads", self.path("loads.csv", ",".join("1" * 32) + "\n")], "--ep_size is missing")

    def test_numbers_that_are_none_or_out_of_range(self):
        loads = ["--loads", self.path("loads.csv", "1,2,3,4\n"), "--ep_size", 2]
        plan = ["plan", *loads, "--output_path", self.folder / "new.yaml"]
        simulate = ["simulate", *loads, "--num_slots", 4, "--top_k", 2]
        repair = ["repair", *loads, "--from", self.path("plan.yaml", "num_slots: 4\n"), "--output_path", self.folder / "new.yaml"]
        for command, flag, value, allowed in [
                (plan, "--num_slots", "0", "1 to 2147483647"), (plan, "--num_slots", "-2", "1 to 2147483647"),
                (plan, "--num_slots", "4294967296", "1 to 2147483647"), (plan, "--num_slots", "many", "1 to 2147483647"),
                (plan, "--seed", "-1", "0 to 18446744073709551615"),
                (plan, "--layer_updates_per_iter", "-1", "0 to 8192"), (plan, "--layer_updates_per_iter", "8193", "0 to 8192"), (simulate, "--wobble", "nan", "0 or more"),
                (simulate, "--wobble", "inf", "0 or more"), (simulate, "--shared_expert_cost", "nan", "0 or more"),
                (repair, "--until", "nan", "0 or more"), (repair, "--until", "1e999", "0 or more")]:
            with self.subTest(flag=flag, value=value):
                dashed = flag.replace("_", "-")
                self.refused(["eplb", *command, f"{flag}={value}"], rf"{dashed} is {value}; allowed: {allowed}",
                             f"Run wideload eplb {command[0]} --help")

    def test_one_document_on_standard_output(self):
        for command in (["plan", "--expert_statistic_path", SMALL],
                        ["repair", "--expert_statistic_path", SMALL, "--from", self.path("plan.yaml", "num_slots: 40\n"),
                         "--ep_size", 8]):
            self.refused(["eplb", *command, "--output_path", "-", "--json"], "--json", "only one")


class LayersWithoutLoad(CliTest):
    """Are placed as for equal loads: the first num_slots mod experts experts get one slot more."""

    def test_plan_says_so(self):
        loads, plan = self.path("loads.csv", "layer,0,1,2\n3,5,1,1\n4,0,0,0\n"), self.folder / "plan.yaml"
        command = ["eplb", "plan", "--loads", loads, "--ep_size", 2, "--num_slots", 4, "--output_path", plan]
        for policy in ("contiguous", "tensorrt_llm", "deepseek", "scenario"):
            with self.subTest(policy):
                done = self.good(*command, "--policy", policy)
                rows = {line.split()[0]: line for line in done.stdout.splitlines()}
                self.assertIn("no load recorded: placed as for equal loads", rows["4"])
                self.assertNotIn("no load", rows["3"])
                self.assertIn("no load was recorded for layers 4:", done.stderr)
                found = json.loads(self.good(*command, "--policy", policy, "--json").stdout)
                self.assertEqual([row["has_load"] for row in found["layers"]], [True, False])
                self.assertEqual(found["layers"][1]["placed_as_for"], "equal loads")
        self.good(*command)
        self.assertIn("  4: [0, 0, 1, 2]\n", plan.read_text())

    def test_the_mean_of_a_plan_is_over_layers_with_load(self):
        rows, means = ["layer,0,1,2", "3,5,1,1", "4,0,0,0", "5,1,7,2"], []
        for text in (rows, rows[:2] + rows[3:]):
            loads = self.path("loads.csv", "\n".join(text) + "\n")
            found = json.loads(self.good("eplb", "plan", "--loads", loads, "--ep_size", 2, "--num_slots", 4, "--output_path",
                                         self.folder / "plan.yaml", "--json").stdout)
            means.append([found["imbalance_now"], found["imbalance_planned"], found["num_components"]])
        self.assertEqual(*means)

    def test_rows_of_zeros_that_a_table_begins_with_are_dense_layers(self):
        counts = [[0] * 4, [0] * 4, [4, 3, 2, 1], [0] * 4, [1, 2, 3, 4]]
        tensor = tensors(self.folder / "loads.safetensors", {"load": ("I64", [5, 4], sum(counts, []))})
        plan = self.folder / "plan.yaml"
        for loads in (f"{tensor}:load", self.path("loads.json", {"logical_count": counts})):
            command = ["eplb", "plan", "--loads", loads, "--ep_size", 2, "--output_path", plan, "--json"]
            for more, left_out, layers in (([], [0, 1], [2, 3, 4]), (["--layers", "0-4"], [], [0, 1, 2, 3, 4])):
                with self.subTest(loads=str(loads), more=more):
                    done = self.good(*command, *more)
                    found = json.loads(done.stdout)
                    self.assertEqual((found["layers_left_out"], [row["layer"] for row in found["layers"]]), (left_out, layers))
                    self.assertEqual([int(line.split(":")[0]) for line in plan.read_text().splitlines() if "[" in line], layers)
                    self.assertEqual("layers 0, 1 have no load: taken for dense layers" in done.stderr, bool(left_out))
        none = tensors(self.folder / "none.safetensors", {"load": ("I64", [2, 4], [0] * 8)})
        found = json.loads(self.good("eplb", "plan", "--loads", f"{none}:load", "--ep_size", 2, "--output_path", plan,
                                     "--json").stdout)
        self.assertEqual([row["has_load"] for row in found["layers"]], [False, False])

    def test_repair_leaves_them(self):
        plan = self.path("old.yaml", "num_slots: 4\ninitial_global_assignments:\n  3: [0, 1, 2, 0]\n  4: [2, 1, 0, 0]\n")
        loads, output = self.path("loads.csv", "layer,0,1,2\n3,5,1,1\n4,0,0,0\n5,0,0,0\n"), self.folder / "new.yaml"
        done = self.good("eplb", "repair", "--from", plan, "--loads", loads, "--ep_size", 2, "--output_path", output)
        self.assertIn("no load recorded: left as it is", done.stdout)
        self.assertIn("  4: [2, 1, 0, 0]\n", output.read_text())
        self.assertNotIn("  5: ", output.read_text())

    def test_simulate_leaves_them_out(self):
        loads = self.path("loads.csv", "0,0,0,0\n5,1,1,1\n")
        done = self.good("eplb", "simulate", "--loads", loads, "--ep_size", 2, "--num_slots", 4, "--top_k", 2, "--json")
        self.assertEqual(json.loads(done.stdout)["layers_without_load"], [0])
        self.assertIn("layers 0 have no load", done.stderr)


if __name__ == "__main__":
    unittest.main()
