"""Answers of the verbs that read images and write text, against the reference's goldens."""
import json
import math
import os
import subprocess

import harness
from harness import Case, IMAGES, MODELS, PHOTO, SETTINGS, golden, pali

GENERATED = ["image", "prompt", "text", "tokens", "logprob", "finish_reason"]


class Answers(Case):
    def test_run_says_what_the_reference_says(self):
        for case in golden("pali3")["cases"]:
            images = [IMAGES / name for name in case["images"]]
            expected = case["greedy"]
            done = self.ok("run", *images, "-p", case["prompt"], "-n", "12", "--json",
                           "--dtype", "f32").json()
            tokens = [t for t in expected["tokens"] if t != 1]
            self.assertEqual(done["tokens"], tokens)
            self.assertEqual(done["text"], expected["text"])
            self.assertAlmostEqual(done["logprob"], expected["logprob"], delta=1e-3)
            self.assertEqual(done["finish_reason"], expected["finish_reason"])
            self.assertEqual(done["prompt"], case["prompt"])
            paths = [str(p) for p in images]
            self.assertEqual(done["image"], paths[0] if len(paths) == 1 else paths)
            text = self.ok("run", *images, "-p", case["prompt"], "-n", "12").out
            self.assertEqual(text, expected["text"] + "\n")

    def test_beams_say_what_the_reference_says(self):
        case = golden("pali3")["cases"][0]
        images = [IMAGES / name for name in case["images"]]
        for beams in case["beams"]:
            n = len(beams["candidates"])
            done = self.ok("run", *images, "-p", case["prompt"], "-n", "12", "--json", "--beams",
                           beams["num_beams"], "--n-best", n, "--length-penalty",
                           beams["length_penalty"], "--dtype", "f32").json()
            self.assertEqual(len(done["candidates"]), n)
            for found, expected in zip(done["candidates"], beams["candidates"]):
                self.assertEqual(list(found), ["text", "tokens", "logprob", "score"])
                self.assertEqual(found["tokens"], [t for t in expected["tokens"] if t != 1])
                self.assertAlmostEqual(found["score"], expected["score"], delta=1e-4)
            self.assertEqual(done["text"], done["candidates"][0]["text"])

    def test_json_fields_in_order(self):
        for verb, extra in [("caption", []), ("ocr", []), ("vqa", ["what?"])]:
            done = self.ok(verb, PHOTO, *extra, "--json", "-n", "3")
            found = done.json()
            self.assertEqual(list(found)[:6], GENERATED)
            self.assertNotIn("candidates", found)
            self.assertEqual(list(found["timing"]), ["load_ms", "vision_ms", "prefill_ms",
                                                     "decode_ms", "tokens_per_s"])
            self.assertEqual(found["dtype"], "f32")
            self.assertEqual(done.err, "")

    def test_several_images_are_several_lines(self):
        other = IMAGES / "gray.png"
        for verb in ["caption", "ocr"]:
            one = self.ok(verb, PHOTO, "-n", "5").out
            two = self.ok(verb, other, "-n", "5").out
            both = self.ok(verb, PHOTO, other, "-n", "5").out
            self.assertEqual(both, f"{PHOTO}\t{one}{other}\t{two}")
            lines = self.ok(verb, PHOTO, other, "-n", "5", "--json").lines()
            self.assertEqual([line["image"] for line in lines], [str(PHOTO), str(other)])

    def test_stream_is_the_answer(self):
        for arguments in [["-n", "12"], ["-n", "12", "--temp", "0.8", "--seed", "3"],
                          ["-n", "6", "--beams", "3"]]:
            self.assertEqual(self.ok("caption", PHOTO, "--stream", *arguments).raw,
                             self.ok("caption", PHOTO, *arguments).raw)

    def test_sampling_depends_on_the_seed_alone(self):
        def drawn(seed):
            return self.ok("caption", PHOTO, "--temp", "1.5", "-s", seed, "-n", "20").out
        self.assertEqual(drawn(1), drawn(1))
        self.assertGreater(len({drawn(seed) for seed in range(4)}), 1)
        greedy = self.ok("caption", PHOTO, "-n", "20").out
        self.assertEqual(self.ok("caption", PHOTO, "-n", "20", "--temp", "2", "--top-k", "1").out,
                         greedy)

    def test_length(self):
        found = self.ok("caption", PHOTO, "-n", "4", "--json").json()
        self.assertEqual(len(found["tokens"]), 4)
        self.assertEqual(found["finish_reason"], "length")

    def test_threads_change_no_bit(self):
        def logprobs(n):
            found = self.ok("caption", PHOTO, "--json", "-t", n).json()
            del found["timing"]
            return found
        self.assertEqual(logprobs(1), logprobs(2))

    def test_text_only(self):
        for model in ["t5_v1_1", "umt5", "ul2"]:
            case = golden(model)["cases"][0]
            found = self.ok("run", "-p", case["prompt"], "-n", "12", "--json", "--dtype", "f32",
                            model=model).json()
            self.assertEqual(found["tokens"], [t for t in case["greedy"]["tokens"] if t != 1])
            self.assertEqual(found["image"], None)

    def test_language_goes_into_the_prompt(self):
        found = self.ok("caption", PHOTO, "--lang", "xq", "--json", "-n", "2").json()
        self.assertIn("xq", found["prompt"].lower())

    def test_verbose_and_quiet(self):
        done = self.ok("caption", PHOTO, "-n", "2", "-v")
        self.assertIn("decode", done.err)
        self.assertEqual(done.out, self.ok("caption", PHOTO, "-n", "2", "-q").out)


class Images(Case):
    def test_stdin(self):
        expected = self.ok("caption", PHOTO, "-n", "6").out
        for name in ["-"]:
            self.assertEqual(self.ok("caption", name, "-n", "6", stdin=PHOTO.read_bytes()).out,
                             expected)
        found = self.ok("caption", "-", "-n", "6", "--json", stdin=PHOTO.read_bytes()).json()
        self.assertEqual(found["image"], "-")

    def test_stdin_serves_once(self):
        self.usage("run", "-", "-", "-p", "x", says="one image only", stdin=PHOTO.read_bytes())
        self.usage("caption", "-", "-", says="one image only", stdin=PHOTO.read_bytes())

    def test_stdin_that_is_empty_or_no_image(self):
        self.fails(1, "caption", "-", says="stdin")
        self.fails(1, "caption", "-", says="stdin", stdin=b"hello, this is text")

    def test_named_images(self):
        expected = self.ok("vqa", PHOTO, "why?", "-n", "4").out
        self.assertEqual(self.ok("vqa", "--image", PHOTO, "why?", "-n", "4").out, expected)
        two = self.ok("run", PHOTO, PHOTO, "-p", "x", "-n", "4").out
        self.assertEqual(self.ok("run", "--image", PHOTO, "--image", PHOTO, "-p", "x",
                                 "-n", "4").out, two)

    def test_names_with_spaces_and_utf8_from_another_folder(self):
        name = "a photo – naïve café 图.png"
        (self.folder / name).write_bytes(PHOTO.read_bytes())
        expected = self.ok("caption", PHOTO, "-n", "6").out
        self.assertEqual(self.ok("caption", name, "-n", "6", cwd=self.folder).out, expected)
        found = self.ok("caption", name, "-n", "6", "--json", cwd=self.folder).json()
        self.assertEqual(found["image"], name)

    def test_names_that_are_no_utf8_still_make_json(self):
        name = b"caf\xe9.png"
        (self.folder / os.fsdecode(name)).write_bytes(PHOTO.read_bytes())
        done = subprocess.run([harness.PALI.encode(), b"caption", name, b"--json", b"-n", b"2"],
                              cwd=self.folder, env=harness.environment("pali3"),
                              capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout.decode("utf-8"))["image"], "caf�.png")

    def test_every_format_is_read(self):
        for name in ["rgb.bmp", "rgb.ppm", "rgb444.jpg", "progressive.jpg", "two_frames.gif",
                     "gray16.png", "one_pixel.png", "cmyk.jpg", "palette.png", "exif6.jpg"]:
            with self.subTest(name=name):
                self.ok("caption", IMAGES / name, "-n", "2")

    def test_background(self):
        name = IMAGES / "rgba.png"
        plain = self.ok("caption", name, "-n", "4", "--json").json()["logprob"]
        white = self.ok("caption", name, "-n", "4", "--json", "--background", "white").json()
        self.assertNotEqual(plain, white["logprob"])

    def test_max_pixels(self):
        self.fails(1, "caption", PHOTO, "--max-pixels", 37 * 53 - 1, says="pixels")
        self.ok("caption", PHOTO, "--max-pixels", 37 * 53, "-n", "2")


class Words(Case):
    def test_utf8_prompts(self):
        found = self.ok("run", PHOTO, "-p", "naïve 图 🐈", "-n", "2", "--json").json()
        self.assertEqual(found["prompt"], "naïve 图 🐈")

    def test_empty_prompt(self):
        self.assertEqual(self.ok("run", PHOTO, "-n", "2", "--json").json()["prompt"], "")

    def test_broken_utf8_prompts(self):
        done = subprocess.run([harness.PALI.encode(), b"run", b"-p", b"caf\xe9 \xff", b"--json",
                               b"-n", b"3"], env=harness.environment("pali3"),
                              capture_output=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        done.stdout.decode("utf-8")

    def test_empty_questions_are_refused(self):
        self.fails(1, "vqa", PHOTO, "  ")
        self.fails(1, "detect", PHOTO, " ; ")

    def test_prompt_of_a_megabyte(self):
        # Longer than one argument may be on Linux, so through batch.
        line = b'{"image": "%s", "prompt": "%s"}' % (str(PHOTO).encode(), b"cat " * (1 << 18))
        done = pali("batch", "-", stdin=line + b"\n")
        self.assertEqual(done.status, 1)
        self.assertIn("prompt of", done.json()["error"]["message"])


class Score(Case):
    def test_texts_score_as_the_reference_says(self):
        case = golden("pali3")["cases"][0]
        images = [IMAGES / name for name in case["images"]]
        texts = [s["text"] for s in case["scores"]]
        named = [part for image in images for part in ("--image", image)]
        found = self.ok("score", *named, "-p", case["prompt"], "--json", "--dtype", "f32", "--",
                        *texts).json()
        self.assertEqual(list(found), ["image", "prompt", "candidates", *SETTINGS])
        for candidate, expected in zip(found["candidates"], case["scores"]):
            self.assertEqual(list(candidate), ["text", "tokens", "token_logprobs", "logprob"])
            self.assertEqual(candidate["text"], expected["text"])
            self.assertEqual(candidate["tokens"], expected["tokens"])
            self.assertEqual(len(candidate["token_logprobs"]), len(candidate["tokens"]))
            self.assertAlmostEqual(candidate["logprob"], expected["logprob"], delta=2e-3)

    def test_texts_have_a_limit(self):
        self.fails(1, "score", "xq " * 20000, says="at most 16383")

    def test_best_first_on_stdout(self):
        out = self.ok("score", PHOTO, "-p", "x", "a cat", "b", "a dog on a mat").out.splitlines()
        values = [float(line.split("\t")[0]) for line in out]
        self.assertEqual(values, sorted(values, reverse=True))
        self.assertEqual(sorted(line.split("\t")[1] for line in out),
                         ["a cat", "a dog on a mat", "b"])

    def test_no_eos(self):
        whole = self.ok("score", "a cat", "--json").json()["candidates"][0]
        part = self.ok("score", "a cat", "--json", "--no-eos").json()["candidates"][0]
        self.assertEqual(part["tokens"], whole["tokens"][:-1])
        self.assertEqual(part["token_logprobs"], whole["token_logprobs"][:-1])

    def test_the_image_may_stand_first(self):
        one = self.ok("score", PHOTO, "-p", "x", "a cat", "--json").json()
        two = self.ok("score", "--image", PHOTO, "-p", "x", "a cat", "--json").json()
        self.assertEqual(one, two)
        self.assertEqual(self.ok("score", "just text", "b", "--json").json()["image"], None)
        self.fails(1, "score", "missing.png", "a cat", says="missing.png")

    def tasks(self, *lines):
        file = self.folder / "tasks.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return file

    def drift(self, *arguments, **how):
        lines = [{"image": str(PHOTO), "task": "caption", "max_tokens": 6},
                 {"image": str(PHOTO), "task": "vqa", "question": "what?", "max_tokens": 6},
                 {"prompt": "a cat", "max_tokens": 6, "beams": 3}]
        return self.ok("score", "--drift-from", MODELS / "pali3", "--tasks", self.tasks(*lines),
                       *arguments, **how)

    def test_a_model_in_f32_does_not_drift_from_itself(self):
        done = self.drift("--dtype", "f32", "--json").json()
        tasks = done.pop("tasks")
        self.assertEqual(sorted(tasks), ["caption", "run", "vqa"])
        for drift in [done, *tasks.values()]:
            self.assertEqual(list(drift), ["requests", "same_answers", "steps", "agreeing",
                                           "top1_agreement", "kl_mean", "kl_max"])
            self.assertEqual(drift["same_answers"], drift["requests"])
            self.assertEqual((drift["top1_agreement"], drift["kl_mean"], drift["kl_max"]), (1, 0, 0))
        self.assertEqual(done["requests"], 3)
        self.assertEqual(done["steps"], sum(drift["steps"] for drift in tasks.values()))

    def test_fewer_bits_drift_further(self):
        found = {dtype: self.drift("--dtype", dtype, "--json").json() for dtype in ("int8", "int4")}
        self.assertGreater(found["int8"]["kl_mean"], 0)
        self.assertGreater(found["int4"]["kl_mean"], 2 * found["int8"]["kl_mean"])
        self.assertGreaterEqual(found["int4"]["kl_max"], found["int4"]["kl_mean"])
        rounded = {dtype: self.drift("--dtype", dtype, "--compute", "int8", "--json").json()["kl_mean"]
                   for dtype in found}
        for dtype, kl in rounded.items():
            self.assertNotEqual(kl, found[dtype]["kl_mean"], dtype)
        self.assertLess(rounded["int8"], found["int4"]["kl_mean"])
        # int16 loses next to nothing beside the weights' own rounding.
        for dtype in found:
            exact, wide = (self.drift("--dtype", dtype, "--compute", compute, "--json").json()["kl_mean"]
                           for compute in ("f32", "int16"))
            self.assertNotEqual(wide, exact)
            self.assertLess(abs(wide - exact), 0.02 * exact, dtype)
        text = self.drift("--dtype", "int4").out.splitlines()
        self.assertEqual([line.split()[0] for line in text], ["task", "caption", "run", "vqa", "all"])
        self.assertEqual(text[-1].split()[1], "3")

    def test_drift_refuses_what_it_cannot_compare(self):
        good = {"prompt": "a cat", "max_tokens": 3}
        file, drift = self.tasks(good, {"task": "fly"}), ["score", "--drift-from", MODELS / "pali3"]
        self.fails(1, *drift, "--tasks", file, says=["fly", "line 2"])
        self.fails(1, *drift, "--tasks", self.folder / "nowhere", says="nowhere")
        self.fails(1, *drift, "--tasks", self.tasks(), says="no requests")
        self.fails(1, *drift, "--tasks", self.tasks(good), model="t5gemma2",
                   says=["different vocabularies", "line 1"])
        self.usage(*drift, says="without --tasks")
        self.usage("score", "--tasks", file, says="without --drift-from")
        self.usage(*drift, "--tasks", file, "a text", says="--drift-from with")

    def test_classify_by_two_towers(self):
        reference = golden("siglip_two_tower")
        texts = [t["text"] for t in reference["texts"]]
        # Labels are given without what the template adds; these have none.
        for i, name in enumerate(reference["images"]):
            found = self.ok("classify", IMAGES / name, "--json", "--dtype", "f32", "--", *texts,
                            model="siglip_two_tower").json()
            self.assertEqual(list(found), ["image", "labels", *SETTINGS])
            self.assertEqual([found["dtype"], found["compute"]], ["f32", "f32"])
            self.assertEqual([label["label"] for label in found["labels"]], texts)
            for j, label in enumerate(found["labels"]):
                self.assertEqual(list(label), ["label", "probability", "logit"])
                self.assertAlmostEqual(label["logit"], reference["logits_per_image"][i][j],
                                       delta=2e-3)
                self.assertAlmostEqual(label["probability"], reference["probabilities"][i][j],
                                       delta=1e-3)

    def test_classify_by_language_model(self):
        found = self.ok("classify", PHOTO, "cat", "dog", "--json").json()
        self.assertAlmostEqual(sum(x["probability"] for x in found["labels"]), 1, delta=1e-9)
        best = self.ok("classify", PHOTO, "cat", "dog").out.splitlines()[0].split("\t")[1]
        self.assertEqual(best, max(found["labels"], key=lambda x: x["probability"])["label"])

    def test_template(self):
        wrapped = self.ok("classify", PHOTO, "cat", "--template", "a photo of {}", "--json").json()
        plain = self.ok("classify", PHOTO, "a photo of cat", "--json").json()
        self.assertEqual(wrapped["labels"][0]["label"], "cat")
        self.assertEqual(wrapped["labels"][0]["logit"], plain["labels"][0]["logit"])
        self.usage("classify", PHOTO, "cat", "--template", "a photo", says="{}")
        twice = self.ok("classify", PHOTO, "cat", "--template", "{} and {}", "--json").json()
        plain = self.ok("classify", PHOTO, "cat and cat", "--json").json()
        self.assertEqual(twice["labels"][0]["logit"], plain["labels"][0]["logit"])


class Detect(Case):
    # A tiny model with random weights writes no boxes; lines with boxes are tested on the
    # built-in model (Builtin) and in tests/unit/tasks.
    def test_fields(self):
        found = self.ok("detect", PHOTO, "cat ; dog", "--json", "-n", "20").json()
        self.assertEqual(list(found)[:10],
                         GENERATED + ["width", "height", "boxes", "invalid"])
        self.assertEqual((found["width"], found["height"]), (37, 53))
        self.assertIn("cat ; dog", found["prompt"])

    def test_size_is_of_the_image_as_shown(self):
        upright = self.ok("detect", IMAGES / "exif1.jpg", "cat", "--json", "-n", "2").json()
        turned = self.ok("detect", IMAGES / "exif6.jpg", "cat", "--json", "-n", "2").json()
        self.assertEqual((upright["width"], upright["height"]), (23, 14))
        self.assertEqual((turned["width"], turned["height"]), (14, 23))

    def test_draw_writes_a_png(self):
        target = self.folder / "found it – é.png"
        self.ok("detect", PHOTO, "cat", "--draw", target, "-n", "4")
        self.assertTrue(target.read_bytes().startswith(b"\x89PNG\r\n"))
        self.assertEqual(self.files(), [target.name])

    def test_draw_writes_files_only(self):
        self.usage("detect", PHOTO, "cat", "--draw", "-", says="not standard output")
        target = self.folder / "x"
        for place in (target, self.folder / "y" / ".." / "x", "./x", "x"):
            self.usage("detect", PHOTO, "cat", "--draw", place, "-o", target, cwd=self.folder,
                       says="the same file")
        self.assertEqual(self.files(), [])

    def test_coco(self):
        found = self.ok("detect", PHOTO, "cat", "--coco", "-n", "2").json()
        self.assertEqual(list(found), ["images", "categories", "annotations"])
        self.assertEqual(found["images"], [{"id": 1, "file_name": str(PHOTO), "width": 37, "height": 53}])
        self.usage("detect", PHOTO, "cat", "--coco", "--json", says="together")

    def test_what_this_model_cannot_do(self):
        self.fails(1, "segment", PHOTO, "cat", says="no prompt for the task segment")
        self.fails(1, "detect", PHOTO, "cat", "--constrain", says="<loc>")
        self.usage("detect", PHOTO, "cat", "--constrain", "--temp", "1", says="--constrain")
        self.fails(1, "vqa", PHOTO, "what?", "--choices", "a ; b", says="no place for choices")
        self.fails(1, "caption", PHOTO, "--box", "1,2,3,4", says="widgetcap")
        self.fails(1, "caption", PHOTO, "--task-style", "mix", says="one set of prompts")
        self.fails(1, "inspect", "--task-style", "mix", says="one set of prompts")
        self.fails(1, "caption", PHOTO, "--mask-decoder", self.folder / "no.npz", says="no.npz")
        for box in ["1,2,3", "1,2,3,4,5", "1,2,3,x", "1;2;3;4"]:
            self.usage("caption", PHOTO, "--box", box, says="not four numbers")
        self.usage("segment", PHOTO, says="no objects")
        target = self.folder / "x.png"
        self.usage("segment", PHOTO, "cat", "--mask", target, "--draw", target, says="the same file")
        self.usage("segment", PHOTO, "cat", "--mask", "-", says="not standard output")

    def test_draw_where_nothing_can_be_written(self):
        self.fails(1, "detect", PHOTO, "cat", "--draw", self.folder / "no" / "such.png", "-n", "2")


class Builtin(Case):
    """The shipped model, through its examples."""

    def setUp(self):
        super().setUp()
        self.model = harness.ROOT / "models" / "pali-mini"
        if not any(self.model.glob("*.safetensors")):
            self.skipTest("models/pali-mini is not there")
        self.examples = sorted((self.model / "examples").glob("*.png"))

    def builtin(self, *arguments):
        return self.ok(*arguments, model=None)

    def test_answers_from_any_folder(self):
        found = self.ok("caption", self.examples[0], "--json", model=None, cwd=self.folder).json()
        self.assertGreater(len(found["text"]), 0)
        self.assertEqual(found["finish_reason"], "stop")
        self.assertTrue(math.isfinite(found["logprob"]))

    def test_answers_are_those_of_transformers(self):
        golden = json.loads((harness.DATA / "pali_mini.json").read_text())
        self.assertGreater(len(golden["cases"]), 5)
        for case in golden["cases"]:
            found = self.builtin(case["verb"], self.model / "examples" / case["image"],
                                 *case["words"], "--dtype", "f32", "--json").json()
            self.assertEqual(found["prompt"], case["prompt"])
            self.assertEqual(found["text"], case["text"])
            self.assertEqual(found["tokens"] + [1], case["tokens"])  # </s> is left out there
            self.assertAlmostEqual(found["logprob"], case["logprob"], delta=1e-4)

    def test_every_verb_answers(self):
        image = self.examples[0]
        self.builtin("vqa", image, "what is in the image?")
        self.builtin("ocr", image)
        self.builtin("score", image, "a cat", "a dog")
        self.builtin("inspect")
        found = self.builtin("detect", image, "cat ; dog", "--json").json()
        for box in found["boxes"]:
            x0, y0, x1, y1 = box["box"]
            self.assertTrue(0 <= x0 <= x1 <= found["width"])
            self.assertTrue(0 <= y0 <= y1 <= found["height"])
            self.assertTrue(0 <= box["score"] <= 1)
