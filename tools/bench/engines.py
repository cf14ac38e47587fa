"""One engine, one piece of work, in a process of its own: prints {"times_ms": [...]} or
{"skipped": WHY} as its last line. `peers.py` starts these one at a time, so that only one model is in
memory. Random weights; every engine gets the same shapes, threads and batch size 1."""
import gc
import json
import os
import sys
import time

import llamacpp
from shared import (LANGUAGE, PALIGEMMA, PROMPT_TOKENS, THREADS, VISION, Skip, cache_folder, config_of,
                    need, timed)

def torch_module():
    torch = need("torch")
    torch.set_num_threads(THREADS)
    torch.set_grad_enabled(False)
    return torch


def randomise(torch, model, dtype):
    """Fills a module made on the meta device, at the speed of memory."""
    model = model.to(dtype).to_empty(device="cpu")
    some = (torch.rand(1 << 20) * 0.04 - 0.02).to(dtype)
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for at in range(0, flat.numel(), some.numel()):
            part = flat[at:at + some.numel()]
            part.copy_(some[:part.numel()])
    for buffer in model.buffers():
        if buffer.dtype == torch.int64:
            buffer.copy_(torch.arange(buffer.numel()).view(buffer.shape))
        else:
            buffer.fill_(1)
    return model.eval()


def torch_dtype(torch, dtype):
    kinds = {"f32": torch.float32, "bf16": torch.bfloat16}
    if dtype not in kinds:
        raise Skip("run in f32 and bf16 only")
    return kinds[dtype]


# Products: weights from memory, as a layer finds them, so copies of them take turns.
def copies_of(count, bytes_each):
    return max(1, min(count, (1 << 30) // bytes_each))


def torch_matmul(work, dtype, runs):
    torch = torch_module()
    kind = torch_dtype(torch, dtype)
    m, n, k = map(int, work.split("x"))
    x = torch.rand(m, k).sub(0.5).to(kind)
    first = torch.rand(n, k).sub(0.5).mul(0.02).to(kind)
    weights = [first.clone() for _ in range(copies_of(64, first.numel() * first.element_size()))]
    turn = iter(range(10**9))
    return timed(lambda: torch.nn.functional.linear(x, weights[next(turn) % len(weights)]), runs)


def openblas_matmul(work, dtype, runs):
    if dtype != "f32":
        raise Skip("run in f32 only")
    os.environ["OPENBLAS_NUM_THREADS"] = str(THREADS)
    numpy = need("numpy")
    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    if "openblas" not in blas["name"]:
        raise Skip(f"numpy is built with {blas['name']}")
    m, n, k = map(int, work.split("x"))
    random = numpy.random.default_rng(1)
    x = random.random((m, k), numpy.float32) - 0.5
    first = random.random((n, k), numpy.float32) * 0.04 - 0.02
    weights = [first.copy() for _ in range(copies_of(64, first.nbytes))]
    turn = iter(range(10**9))
    return timed(lambda: x @ weights[next(turn) % len(weights)].T, runs)


# Attention of every token to all, from rows of all heads side by side, as projections leave them.
def torch_attention(work, dtype, runs):
    torch = torch_module()
    kind = torch_dtype(torch, dtype)
    tokens, heads, width = map(int, work.split("x"))
    q, k, v = (torch.rand(1, tokens, heads, width).mul(2).sub(1).to(kind).transpose(1, 2) for _ in range(3))
    return timed(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.1), runs)


# Vision towers, up to the last LayerNorm.
def siglip(torch, work):
    transformers = need("transformers")
    name, side = work.split("@")
    fields = config_of(VISION[name])
    fields = fields.get("vision_config", fields)
    fields.update(image_size=int(side), vision_use_head=False)
    config = transformers.SiglipVisionConfig(**fields)
    with torch.device("meta"):
        return transformers.SiglipVisionModel(config), int(side)


def torch_vision(work, dtype, runs):
    torch = torch_module()
    kind = torch_dtype(torch, dtype)
    model, side = siglip(torch, work)
    model = randomise(torch, model, kind)
    pixels = torch.rand(1, 3, side, side).mul(2).sub(1).to(kind)
    return timed(lambda: model(pixel_values=pixels), runs)


def openvino_vision(work, dtype, runs):
    """bf16: the f32 graph with INFERENCE_PRECISION_HINT bf16. int8: weights compressed to int8, which
    OpenVINO multiplies with dynamically quantised activations."""
    openvino = need("openvino")
    cache = os.path.join(cache_folder(), f"{work}.xml")
    core = openvino.Core()
    if not os.path.exists(cache):
        torch = torch_module()
        model, side = siglip(torch, work)
        model = randomise(torch, model, torch.float32)
        graph = openvino.convert_model(model, example_input={
            "pixel_values": torch.rand(1, 3, side, side)}, input=[1, 3, side, side])
        os.makedirs(os.path.dirname(cache), exist_ok=True)
        openvino.save_model(graph, cache, compress_to_fp16=True)
        del model, graph
        gc.collect()
    graph = core.read_model(cache)
    options = {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY",
               "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT":
               "f32" if dtype == "f32" else "bf16"}
    if dtype == "int8":
        graph = need("nncf").compress_weights(graph, mode=need("nncf").CompressWeightsMode.INT8_SYM)
    compiled = core.compile_model(graph, "CPU", options)
    numpy = need("numpy")
    shape = list(compiled.input(0).shape)
    pixels = (numpy.random.default_rng(1).random(shape, numpy.float32) * 2 - 1)
    request = compiled.create_infer_request()
    return timed(lambda: request.infer({0: pixels}), runs)


# The language model: encode 272 embeddings; a greedy token; a step of 4 beams. Of the half that is
# not asked for, no more is made than must be.
def torch_language(work, dtype, runs):
    torch = torch_module()
    kind = torch_dtype(torch, dtype)
    transformers = need("transformers")
    from transformers.modeling_outputs import BaseModelOutput
    config = transformers.T5Config(**config_of(LANGUAGE))
    prefix = torch.rand(1, PROMPT_TOKENS, config.d_model).sub(0.5).to(kind)
    if work == "encode":
        config.vocab_size = 32
        with torch.device("meta"):
            encoder = transformers.T5EncoderModel(config)
        encoder = randomise(torch, encoder, kind)
        return timed(lambda: encoder(inputs_embeds=prefix), runs)
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    del model.encoder.block[1:]
    model = randomise(torch, model, kind)
    model.tie_weights()
    beams = 4 if work == "beams4" else 1

    def generate(tokens):
        start = time.perf_counter()
        model.generate(encoder_outputs=BaseModelOutput(last_hidden_state=prefix.clone()),
                       max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
                       num_beams=beams)
        return (time.perf_counter() - start) * 1e3

    generate(2)
    # A step: what eight further tokens cost.
    return [(generate(9) - generate(1)) / 8 for _ in range(runs)]


# The same weights' shapes in CTranslate2, all in int8 with activations quantised by row. It has no
# encoder of its own for T5: "encode" is the encoder and the first token.
def ctranslate2_folder(quantization):
    ctranslate2 = need("ctranslate2")
    folder = os.path.join(cache_folder(), f"{LANGUAGE}-{quantization}")
    if os.path.exists(os.path.join(folder, "model.bin")):
        return folder
    torch, transformers = torch_module(), need("transformers")
    from ctranslate2.converters.transformers import T5Loader
    config = transformers.T5Config(**config_of(LANGUAGE))
    with torch.device("meta"):
        model = transformers.T5ForConditionalGeneration(config)
    model = randomise(torch, model, torch.bfloat16)
    model.tie_weights()
    spec = T5Loader().get_model_spec(model)
    words = ["<pad>", "</s>", "<unk>"] + [f"w{i}" for i in range(3, config.vocab_size)]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    for field, word in (("bos", 0), ("eos", 1), ("unk", 2), ("decoder_start", 0)):
        setattr(spec.config, f"{field}_token", words[word])
    spec.validate()
    spec.optimize(quantization=quantization)
    os.makedirs(folder, exist_ok=True)
    spec.save(folder)
    return folder


def ctranslate2_language(work, dtype, runs):
    if dtype != "int8":
        raise Skip("run in int8 only")
    ctranslate2 = need("ctranslate2")
    translator = ctranslate2.Translator(ctranslate2_folder("int8"), compute_type="int8",
                                        intra_threads=THREADS)
    source = [[f"w{i + 3}" for i in range(PROMPT_TOKENS - 1)] + ["</s>"]]

    def generate(tokens):
        start = time.perf_counter()
        translator.translate_batch(source, beam_size=4 if work == "beams4" else 1,
                                   max_decoding_length=tokens, min_decoding_length=tokens)
        return (time.perf_counter() - start) * 1e3

    generate(1)
    if work == "encode":
        return [generate(1) for _ in range(runs)]
    return [(generate(9) - generate(1)) / 8 for _ in range(runs)]


# A whole PaliGemma 3B: "first", the first token about one image and a prompt of 16; "token", each further one.
def torch_paligemma(work, dtype, runs):
    torch = torch_module()
    kind = torch_dtype(torch, dtype)
    transformers = need("transformers")
    config = transformers.PaliGemmaConfig(**config_of(PALIGEMMA))
    with torch.device("meta"):
        model = transformers.PaliGemmaForConditionalGeneration(config)
    model = randomise(torch, model, kind)
    model.tie_weights()
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    text = [2] + [5] * 14 + [108]  # BOS, a prompt, "\n"
    ids = torch.tensor([[config.image_token_index] * (side // patch) ** 2 + text])
    pixels = torch.rand(1, 3, side, side).mul(2).sub(1).to(kind)

    def generate(tokens):
        start = time.perf_counter()
        model.generate(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids),
                       token_type_ids=torch.zeros_like(ids), max_new_tokens=tokens,
                       min_new_tokens=tokens, do_sample=False)
        return (time.perf_counter() - start) * 1e3

    generate(1)
    if work == "first":
        return [generate(1) for _ in range(runs)]
    return [(generate(9) - generate(1)) / 8 for _ in range(runs)]


KINDS = {"matmul": {"torch": torch_matmul, "openblas": openblas_matmul},
         "attention": {"torch": torch_attention},
         "vision": {"torch": torch_vision, "openvino": openvino_vision},
         "language": {"torch": torch_language, "ctranslate2": ctranslate2_language,
                      "llama_cpp": llamacpp.language},
         "paligemma": {"torch": torch_paligemma}}


def version(engine):
    module = {"openblas": "numpy"}.get(engine, engine)
    return getattr(sys.modules.get(module), "__version__", "")


def main():
    engine, kind, work, dtype, runs = sys.argv[1:6]
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    try:
        times = KINDS[kind][engine](work, dtype, int(runs))
        print(json.dumps({"times_ms": times, "version": version(engine)}))
    except Skip as reason:
        print(json.dumps({"skipped": str(reason)}))


if __name__ == "__main__":
    main()
