"""Help, versions, and command lines that cannot be understood."""
from harness import Case, MODELS, PHOTO, pali

VERBS = ["caption", "vqa", "ocr", "detect", "segment", "run", "score", "classify", "embed", "batch",
         "convert", "inspect", "bench", "doctor"]


class Usage(Case):
    def test_help_names_every_verb(self):
        done = self.ok("--help")
        self.assertEqual(done.err, "")
        for verb in VERBS:
            self.assertIn(f"  {verb} ", done.out)

    def test_every_verb_has_help_with_an_example(self):
        for verb in VERBS:
            done = self.ok(verb, "--help")
            self.assertIn("Example", done.out)
            self.assertIn(f"pali {verb}", done.out)
            self.assertEqual(done.err, "")

    def test_help_shows_short_names_too(self):
        help = self.ok("vqa", "--help").out
        for names in ["-h,--help", "-m,--model", "-n,--max-tokens", "-t,--threads", "-o,--output",
                      "IMAGE QUESTION "]:
            self.assertIn("  " + names, help)
        self.assertNotIn("_QUESTION", help)
        self.assertNotIn("\n\n\n", help)

    def test_version_is_one_line(self):
        self.assertRegex(self.ok("--version").out, r"^pali \d+\.\d+\.\d+\n$")

    def test_no_verb(self):
        self.usage(says="no verb")

    def test_wrong_verbs_and_what_was_meant(self):
        self.usage("captoin", PHOTO, says="did you mean 'caption'")
        self.usage("detekt", PHOTO, says="did you mean 'detect'")
        self.usage("xyzzy", says="unknown verb 'xyzzy'")

    def test_wrong_options_and_what_was_meant(self):
        self.usage("caption", PHOTO, "--beam", "4", says="did you mean --beams")
        self.usage("caption", PHOTO, "--xyzzy", says="unknown option --xyzzy")
        self.usage("batch", "in.jsonl", "--resume", says="--resume without -o")
        for shard in ["2/2", "0", "0/0", "-1/2", "1/2x", "a/b", "", "0/"]:
            self.usage("batch", "in.jsonl", "--shard", shard, says="--shard")
        self.usage("convert", "x", "-o", "y", "--resolution", "84", says="without --vision")
        self.usage("convert", "x", "-o", "y", "--seed", "0", says="without --vision")

    def test_names_of_other_programs(self):
        for given, ours in [("--temperature", "--temp"), ("--num_beams", "--beams"),
                            ("--max-new-tokens", "--max-tokens"), ("--n-predict", "--max-tokens")]:
            self.usage("caption", PHOTO, given, "1", says=f"did you mean {ours}?")
        self.usage("caption", PHOTO, "--draw", "x.png", says="it belongs to 'pali detect'")
        self.usage("vqa", PHOTO, "-p", "what?", says="it belongs to 'pali run'")

    def test_empty_values(self):
        for option in ["-m", "-o", "--tokenizer"]:
            self.usage("caption", PHOTO, option, "", says="variable of the shell")
        self.usage("detect", PHOTO, "cat", "--draw", "", says="--draw")
        self.usage("segment", PHOTO, "cat", "--mask", "", says="--mask")

    def test_the_question_before_the_image(self):
        self.usage("vqa", "what is it?", PHOTO, says="the image stands before the question")
        self.usage("detect", "cat", PHOTO, says="the image stands before")

    def test_options_of_everywhere(self):
        machine = ("-t", "2", "--isa", "scalar", "--matmul", "native", "--compute", "f32", "-q", "-v")
        self.ok("inspect", *machine, "--dtype", "f32", MODELS / "ul2")
        self.ok("doctor", *machine, "--dtype", "f32")
        self.ok("convert", *machine, "--dtype", "f32", MODELS / "ul2", "-o", self.folder / "t5.safetensors")
        self.usage("inspect", "-t", "0", MODELS / "ul2", says="--threads")

    def test_options_before_the_verb(self):
        self.usage("--verison", says="--verison before the verb")
        self.usage("-m", "model", "caption", PHOTO, says="-m before the verb")

    def test_help_as_a_verb(self):
        self.assertEqual(self.ok("help").out, self.ok("--help").out)
        self.assertEqual(self.ok("help", "vqa").out, self.ok("vqa", "--help").out)

    def test_values_that_make_no_sense(self):
        for option, value in [
                ("--temp", "nan"), ("--temp", "-1"), ("--temp", "inf"), ("--temp", "warm"),
                ("--top-p", "2"), ("--top-p", "0"), ("--top-p", "nan"), ("--top-k", "-1"),
                ("--top-k", "1.5"), ("--beams", "0"), ("--beams", "-2"), ("--beams", "1e9"),
                ("--n-best", "0"), ("-t", "0"), ("-t", "two"), ("--threads", "100000"),
                ("-n", "0"), ("-n", "99999999999999999999"), ("--length-penalty", "nan"),
                ("--seed", "-1"), ("--isa", "sse9"), ("--dtype", "f8"), ("--compute", "f64"),
                ("--matmul", "blas"), ("--max-pixels", "0"), ("--background", "blue"),
                ("--resolution", "0")]:
            with self.subTest(option=option, value=value):
                self.usage("caption", PHOTO, option, value)

    def test_options_that_contradict(self):
        self.usage("caption", PHOTO, "--beams", "4", "--temp", "0.5", says="--beams and --temp")
        self.usage("caption", PHOTO, "--n-best", "2", says="--n-best is larger")
        self.usage("caption", PHOTO, "--stream", "--json", says="--stream and --json")
        self.usage("inspect", PHOTO, "-m", PHOTO)
        self.usage("embed", PHOTO, "--text", "a cat")
        self.usage("convert", "a", "--vision", "b", "-o", "c")
        self.usage("convert", "--vision", "b", "-o", "c", says="without --language")

    def test_missing_arguments(self):
        self.usage("caption", says="no image")
        self.usage("ocr", says="no image")
        self.usage("vqa", says="no image and no question")
        self.usage("vqa", PHOTO, says="no question")
        self.usage("vqa", "--image", PHOTO, says="no question")
        self.usage("detect", PHOTO, says="no objects")
        self.usage("score", PHOTO, says="no text")
        self.usage("classify", PHOTO, says="no labels")
        self.usage("embed")
        self.usage("batch")
        self.usage("convert", "src", says="--output")
        self.usage("caption", PHOTO, "-m")

    def test_unquoted_questions_are_noticed(self):
        self.usage("vqa", PHOTO, "what", "is", "it", says=["'is'", "question into quotes"])

    def test_dashes_or_underscores(self):
        dashes = self.ok("caption", PHOTO, "--max-tokens", "3", "--length-penalty", "2").out
        self.assertEqual(dashes, self.ok("caption", PHOTO, "--max_tokens=3",
                                         "--length_penalty", "2").out)
        self.assertEqual(dashes, self.ok("caption", PHOTO, "-n3").out)

    def test_two_dashes_end_the_options(self):
        done = self.ok("vqa", "--json", "-n", "2", PHOTO, "--", "--why_so?")
        self.assertIn("--why_so?", done.json()["prompt"])

    def test_doctor(self):
        text = self.ok("doctor").out
        report = self.ok("doctor", "--json").json()
        names = [tier["name"] for tier in report["tiers"]]
        self.assertEqual(names[0], "scalar")
        for tier in report["tiers"]:
            self.assertIn(tier["name"], text)
            self.assertEqual(tier["available"], tier["reason"] == "", tier)
        self.assertGreaterEqual(report["default_threads"], 1)
        self.assertEqual(pali("doctor", "--json", model="nowhere").json()["model"]["path"], None)

    def test_packing_at_load_changes_no_answer(self):
        command = ("caption", PHOTO, "--json", "-n", "8", "--isa", "scalar")
        answers = [self.ok(*command, *flag).json() for flag in ((), ("--prepack",))]
        self.assertEqual(*[(answer["tokens"], answer["logprob"]) for answer in answers])

    def test_tiers_that_doctor_names_answer_alike(self):
        tiers = {t["name"]: t["available"] for t in self.ok("doctor", "--json").json()["tiers"]}
        expected = self.ok("caption", PHOTO, "--isa", "scalar", "-n", "8").out
        for name, available in tiers.items():
            if available:
                self.assertEqual(self.ok("caption", PHOTO, "--isa", name, "-n", "8").out, expected)
            else:
                self.fails(1, "caption", PHOTO, "--isa", name, says=name)
