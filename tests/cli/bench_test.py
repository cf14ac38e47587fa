"""bench: what it measures is named, complete and in the contract's form. No time is asserted."""
import csv
import io

from harness import MODELS, Case

FIELDS = ["name", "shape", "dtype", "isa", "backend", "threads", "median_ms", "min_ms", "max_ms",
          "runs", "gflops", "gbps", "peak_gflops", "peak_gbps", "share",
          "target_ms"]
CONFIG = MODELS / "pali3" / "config.json"


class Bench(Case):
    def rows(self, *arguments):
        rows = self.ok("bench", *arguments, "-t", "2", "-q", "--json").json()
        self.assertEqual(list(rows[-1]), ["name", "bytes"])
        self.assertEqual(rows[-1]["name"], "peak_rss")
        self.assertGreater(rows[-1]["bytes"], 0)
        for row in rows[:-1]:
            self.assertEqual(list(row), FIELDS)
            self.assertLessEqual(row["min_ms"], row["median_ms"])
            self.assertLessEqual(row["median_ms"], row["max_ms"])
            self.assertGreater(row["min_ms"], 0)
            self.assertGreaterEqual(row["share"], 0)
        return rows[:-1]

    def test_takes_the_options_of_the_others(self):
        config = MODELS / "ul2" / "config.json"
        rows = self.ok("bench", "decode", "--config", config, "--runs", "1", "--tokens", "1",
                       "--prompt_tokens", "2", "--isa", "scalar", "-t", "1", "-q", "--json").json()
        self.assertEqual([row["name"] for row in rows], ["decode_step", "peak_rss"])
        self.assertEqual((rows[0]["isa"], rows[0]["threads"]), ("scalar", 1))
        self.usage("bench", "--isa", "sse9", says="none of")
        self.usage("bench", "--dtype", "3", says="none of")
        for wrong in ["010", "00", "-", "1x"]:  # 010: eight to some, ten to others
            self.usage("bench", f"--runs={wrong}", says="no whole number")
        self.usage("bench", "nosuch", says="none of model, vision")
        self.fails(1, "bench", "--config", "nosuch", says="pali3-5b")

    def test_stages_of_a_model_in_every_type(self):
        for dtype in ["bf16", "int4"]:
            rows = self.rows("--config", CONFIG, "--runs", "2", "--tokens", "2", "--beams", "2",
                             "--dtype", dtype)
            self.assertEqual([row["name"] for row in rows],
                             ["vision", "encode", "prefill", "decode_step", "total"])
            self.assertEqual({row["dtype"] for row in rows}, {dtype})
            self.assertEqual([row["runs"] for row in rows], [2, 2, 2, 4, 2])
            self.assertEqual([row["target_ms"] > 0 for row in rows],
                             [True, True, True, False, False])
        for stage, names in [("vision", ["vision"]), ("encode", ["encode", "prefill"])]:
            rows = self.rows(stage, "--config", CONFIG, "--runs", "1", "--tokens", "1")
            self.assertEqual([row["name"] for row in rows], names)

    def test_a_backend_that_declines_is_told_of(self):
        words = ["bench", "vision", "--config", CONFIG, "--runs", "1", "--dtype", "int4",
                 "--matmul"]
        self.assertIn("native kernels multiply", self.ok(*words, "onednn").err)
        self.assertNotIn("native kernels multiply", self.ok(*words, "native").err)

    def test_products(self):
        rows = self.rows("matmul", "--shape", "9x33x40", "--shape", "2x33x40", "--runs", "1",
                         "--matmul", "native")
        self.assertEqual({row["shape"] for row in rows}, {"9x33x40", "2x33x40"})
        self.assertEqual({row["backend"] for row in rows}, {"native"})
        for shape in ["9x33x40", "2x33x40"]:
            self.assertEqual([row["dtype"] for row in rows if row["shape"] == shape],
                             ["f32", "bf16", "int8", "int4"])
        for row in rows:
            self.assertEqual(row["name"] == "gemv", row["shape"] == "2x33x40", row)
            self.assertGreater(row["peak_gflops"], 0)
            self.assertGreater(row["peak_gbps"], 0)
        rows = self.rows("matmul", "--shape", "9x33x40", "--runs", "1", "--dtype", "f32")
        self.assertIn("auto", [row["backend"] for row in rows])

    def test_attention(self):
        rows = self.rows("attention", "--shape", "33x2x8", "--runs", "3")
        self.assertEqual([(row["name"], row["shape"], row["runs"]) for row in rows],
                         [("attention", "33x2x8", 3)])

    def test_roofline(self):
        rows = self.rows("roofline", "--runs", "1")
        self.assertEqual({row["name"] for row in rows}, {"peak", "read", "read_huge", "fork_join"})
        self.assertEqual({row["threads"] for row in rows}, {1, 2})
        text = self.ok("bench", "roofline", "--runs", "1", "-t", "1").out
        self.assertIn("fork-join", text)

    def test_csv_has_the_same_fields(self):
        out = self.ok("bench", "attention", "--shape", "5x1x8", "--runs", "1", "--csv").out
        table = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual(list(table[0]), FIELDS + ["bytes"])
        self.assertEqual([row["name"] for row in table], ["attention", "peak_rss"])

    def test_shapes_that_are_none(self):
        self.usage("bench", "matmul", "--shape", "12x13", says="three whole numbers")
        self.usage("bench", "attention", "--shape", "0x1x8", says="three whole numbers")

    def test_a_stage_that_the_model_lacks(self):
        self.fails(1, "bench", "decode", "--config", MODELS / "siglip_vision" / "config.json", says="has no stage decode")

    def test_options_of_another_stage(self):
        for stage in ("model", "vision", "roofline"):
            self.usage("bench", stage, "--shape", "1x2x3", says="--shape with " + stage)
        for stage in ("matmul", "attention", "roofline"):
            self.usage("bench", stage, "--beams", "2", says="--beams with " + stage)
            self.usage("bench", stage, "--config", "x", says="--config with " + stage)
