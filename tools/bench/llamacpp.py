"""The language model in llama.cpp (https://github.com/ggml-org/llama.cpp) by llama-cpp-python's bindings
to its C interface: a T5 of the shapes' weights in a GGUF file. Types: bf16, int8 as Q8_0, int4 as Q4_0
(groups of 32, our int4's layout); it multiplies both with activations in int8. Each of its steps computes
the cross-attention's keys and values anew."""
import ctypes
import os
import time

from shared import LANGUAGE, PROMPT_TOKENS, THREADS, Skip, cache_folder, config_of, need

BLOCK = 32
SCALE = b"\x00\x10"  # 2^-11 in f16, so that nothing overflows
BLOCK_BYTES = {"int8": 34, "int4": 18}  # a scale and 32 values


def write_matrix(gguf, numpy, writer, name, shape, dtype):
    """Random weights, some megabytes of them over and over."""
    rows, cols = shape
    random = numpy.random.default_rng(1)
    if dtype == "bf16":
        some = (random.random(1 << 20, numpy.float32) * 0.04 - 0.02).view(numpy.uint32) >> 16
        data = numpy.resize(some.astype(numpy.uint16), rows * cols).view(numpy.uint8)
        data = data.reshape(rows, cols * 2)
        kind = gguf.GGMLQuantizationType.BF16
    else:
        size = BLOCK_BYTES[dtype]
        some = random.integers(0, 256, (1 << 15, size), numpy.uint8)
        some[:, :2] = numpy.frombuffer(SCALE, numpy.uint8)
        data = numpy.resize(some, (rows * cols // BLOCK, size)).reshape(rows, cols // BLOCK * size)
        kind = getattr(gguf.GGMLQuantizationType, "Q8_0" if dtype == "int8" else "Q4_0")
    writer.add_tensor(name, data, raw_dtype=kind)


def model_file(dtype):
    gguf, numpy = need("gguf"), need("numpy")
    path = os.path.join(cache_folder(), f"{LANGUAGE}-{dtype}.gguf")
    if os.path.exists(path):
        return path
    config = config_of(LANGUAGE)
    width, inner = config["d_model"], config["num_heads"] * config["d_kv"]
    os.makedirs(cache_folder(), exist_ok=True)
    # Tensors wait in a file of their own: they are more than some machines' memory.
    writer = gguf.GGUFWriter(path + ".part", "t5", use_temp_file=True)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_block_count(config["num_layers"])
    writer.add_head_count(config["num_heads"])
    writer.add_key_length(config["d_kv"])
    writer.add_value_length(config["d_kv"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_relative_attn_buckets_count(config["relative_attention_num_buckets"])
    writer.add_decoder_start_token_id(config["decoder_start_token_id"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")

    def vector(name):
        writer.add_tensor(name, numpy.ones(width, numpy.float32))

    def matrix(name, out, into):
        write_matrix(gguf, numpy, writer, name, (out, into), dtype)

    def attention(block, kind):
        vector(f"{block}.{kind}_norm.weight")
        for part in "qkv":
            matrix(f"{block}.{kind}_{part}.weight", inner, width)
        matrix(f"{block}.{kind}_o.weight", width, inner)

    matrix("token_embd.weight", config["vocab_size"], width)
    matrix("output.weight", config["vocab_size"], width)
    for stack in ("enc", "dec"):
        vector(f"{stack}.output_norm.weight")
        writer.add_tensor(f"{stack}.blk.0.attn_rel_b.weight", numpy.zeros(
            (config["relative_attention_num_buckets"], config["num_heads"]), numpy.float32))
        for i in range(config["num_layers"]):
            block = f"{stack}.blk.{i}"
            attention(block, "attn")
            if stack == "dec":
                attention(block, "cross_attn")
            vector(f"{block}.ffn_norm.weight")
            matrix(f"{block}.ffn_gate.weight", config["d_ff"], width)
            matrix(f"{block}.ffn_up.weight", config["d_ff"], width)
            matrix(f"{block}.ffn_down.weight", width, config["d_ff"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.rename(path + ".part", path)
    return path


class Run:
    """A loaded model that encodes once and then decodes step by step, `beams` sequences at a time."""

    def __init__(self, path, beams):
        self.lib = need("llama_cpp")
        self.beams = beams
        quiet = self.lib.llama_log_callback(lambda level, text, data: None)
        self.lib.llama_log_set(quiet, ctypes.c_void_p(0))
        self.quiet = quiet  # the library keeps a pointer
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(path.encode(),
                                                         self.lib.llama_model_default_params())
        if not self.model:
            raise Skip("llama.cpp does not read its model")
        options = self.lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = 512 * beams, 512, 512
        options.n_seq_max, options.kv_unified = beams, True
        options.n_threads = options.n_threads_batch = THREADS
        self.context = self.lib.llama_init_from_model(self.model, options)
        if not self.context:
            raise Skip("llama.cpp makes no context")
        self.batch = self.lib.llama_batch_init(512, 0, beams)

    def fill(self, tokens, of_all):
        """`of_all`: each token belongs to all sequences; else the i-th to sequence i."""
        self.batch.n_tokens = len(tokens)
        for i, (token, position) in enumerate(tokens):
            self.batch.token[i], self.batch.pos[i] = token, position
            sequences = range(self.beams) if of_all else [i]
            self.batch.n_seq_id[i] = len(sequences)
            for j, sequence in enumerate(sequences):
                self.batch.seq_id[i][j] = sequence
            self.batch.logits[i] = True

    def encode(self):
        self.fill([(i + 3, i) for i in range(PROMPT_TOKENS)], of_all=True)
        if self.lib.llama_encode(self.context, self.batch) != 0:
            raise Skip("llama.cpp does not encode")
        self.lib.llama_synchronize(self.context)

    def step(self, position):
        self.fill([(3 + i, position) for i in range(self.beams)], of_all=False)
        if self.lib.llama_decode(self.context, self.batch) != 0:
            raise Skip("llama.cpp does not decode")
        self.lib.llama_synchronize(self.context)
        for i in range(self.beams):
            if not self.lib.llama_get_logits_ith(self.context, i):
                raise Skip("llama.cpp gives no logits")


def language(work, dtype, runs):
    if dtype not in ("bf16", *BLOCK_BYTES):
        raise Skip("run in bf16, int8 and int4 only")
    run = Run(model_file(dtype), 4 if work == "beams4" else 1)

    def milliseconds(call, *arguments):
        start = time.perf_counter()
        call(*arguments)
        return (time.perf_counter() - start) * 1e3

    run.encode()
    if work == "encode":
        return [milliseconds(run.encode) for _ in range(runs)]
    run.step(0)
    # As of the others: the mean of eight tokens.
    return [sum(milliseconds(run.step, 1 + 8 * r + t) for t in range(8)) / 8 for r in range(runs)]
