// embed: images or texts as vectors, in JSON Lines or as a NumPy file.
#include <bit>
#include <cstring>
#include <memory>

#include "answers.hpp"
#include "arguments.hpp"
#include "images.hpp"
#include "interrupt.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "npy files are written as '<f4'");

struct Arguments {
  std::vector<std::string> positional, texts;
  bool tokens = false, projected = false;
  ModelArguments model;
  ImageArguments images;
  OutputArguments output;
};

// Version 1.0 of the format: magic, version, length of the header, header padded to 64 bytes.
std::string npy_header(const std::vector<int64_t>& shape) {
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) header += std::to_string(size) + ", ";
  header += "), }";
  constexpr size_t kPreamble = 10;
  header.append(63 - (kPreamble + header.size()) % 64, ' ');
  header += '\n';
  std::string out = "\x93NUMPY";
  out += {'\x01', '\x00', static_cast<char>(header.size() & 0xff),
          static_cast<char>(header.size() >> 8)};
  return out + header;
}

// All vectors of one run: JSON Lines as they come, a NumPy file at the end.
class Sink {
 public:
  Sink(const std::string& path, const ModelInfo& info)
      : output_(path), npy_(path.ends_with(".npy")), info_(info) {}

  void add(const char* kind, const std::string& name, std::vector<float> values,
           const std::vector<int64_t>& shape) {
    if (npy_) {
      shape_ = shape;
      values_.insert(values_.end(), values.begin(), values.end());
      ++count_;
      return;
    }
    Json object = {{kind, name}};
    if (shape.size() == 1) {
      object["embedding"] = shortest(values);
    } else {
      object["shape"] = shape;
      object["tokens_embedding"] = shortest(values);
    }
    echo_settings(object, info_);
    output_.write(to_line(object));
    output_.flush();
  }

  // Vectors: [n, d]; the tokens of one image: [N, D], of several: [n, N, D].
  void finish() {
    if (npy_) {
      if (shape_.size() == 1 || count_ > 1) shape_.insert(shape_.begin(), count_);
      output_.write(npy_header(shape_));
      output_.write({reinterpret_cast<const char*>(values_.data()), values_.size() * 4});
    }
    output_.finish();
  }

 private:
  Output output_;
  bool npy_;
  const ModelInfo& info_;
  std::vector<int64_t> shape_;
  std::vector<float> values_;
  int64_t count_ = 0;
};

void run(Arguments& arguments) {
  std::vector<std::string> paths = arguments.images.named;
  paths.insert(paths.end(), arguments.positional.begin(), arguments.positional.end());
  if (paths.empty() == arguments.texts.empty()) {
    throw UsageError(paths.empty() ? "no image and no --text" : "images and --text together");
  }
  const bool tokens = arguments.tokens || arguments.projected;
  if (tokens && paths.empty()) throw UsageError("--tokens and --projected are for images");
  const Engine engine = open_engine(arguments.model, arguments.output);
  Sink sink(arguments.output.path, engine.info());
  for (const std::string& text : arguments.texts) {
    std::vector<float> values = engine.embed(text);
    const int64_t size = static_cast<int64_t>(values.size());
    sink.add("text", text, std::move(values), {size});
    if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  }
  for (const std::string& path : paths) {
    const Image image = load_image(path, arguments.images.options);
    if (tokens) {
      TokenEmbeddings found = engine.embed_tokens(image, arguments.projected);
      sink.add("image", path, std::move(found.values), {found.rows, found.columns});
    } else {
      std::vector<float> values = engine.embed(image);
      const int64_t size = static_cast<int64_t>(values.size());
      sink.add("image", path, std::move(values), {size});
    }
    if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
  }
  sink.finish();
}

}  // namespace

void add_embed(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App& verb = *app.add_subcommand("embed", "Images or texts as vectors");
  verb.add_option("[IMAGE...]", arguments->positional, "Image files, '-' for stdin")->type_name("");
  verb.add_option("--text", arguments->texts, "Texts instead of images")->type_name("TEXT");
  verb.add_flag("--tokens", arguments->tokens, "The visual tokens before pooling");
  verb.add_flag("--projected", arguments->projected, "The visual tokens after the projector");
  add_image_options(verb, arguments->images);
  add_model_options(verb, arguments->model);
  add_output_options(verb, arguments->output, "FILE.npy");
  verb.footer(
      "Examples:\n  pali embed -m siglip-folder *.jpg -o photos.npy\n"
      "  pali embed -m siglip-folder --text \"a cat\" \"a dog\"\n"
      "A JSON object a line; -o F.npy writes one float32 array [n, d].");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
