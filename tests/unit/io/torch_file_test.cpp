// pytorch_model.bin: tensors in place, and pickles that want to be more than tensors.
#include "io/torch_file.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "unit/io/pickle_bytes.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::global;
using test::little;
using test::pickled_dict;
using test::pickled_number;
using test::pickled_tensor;
using test::pickled_text;

const std::string kSix = test::floats({0, 1, 2, 3, 4, 5});

std::vector<StoredTensor> read(const std::string& file) {
  return read_torch_file(std::as_bytes(std::span(file.data(), file.size())), "w.bin");
}

void refuse(const std::string& pickle, std::initializer_list<std::string_view> parts,
            ErrorCode code = ErrorCode::corrupt_file) {
  SCOPED_TRACE(*parts.begin());
  const std::string file = test::torch_file(pickle, kSix);
  expect_error(code, {"w.bin"}, [&] { read(file); });
  expect_error(code, parts, [&] { read(file); });
}

TEST(TorchFile, ATensorInPlace) {
  const std::string file = test::torch_file(pickled_dict(pickled_tensor({2, 3}, {3, 1})), kSix);
  const std::vector<StoredTensor> tensors = read(file);
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].name, "w");
  EXPECT_EQ(tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(tensors[0].bytes, 24);
  ASSERT_TRUE(tensors[0].plain());
  EXPECT_EQ(load_weight(tensors[0].data, DType::f32, 5), 5.0f);
}

TEST(TorchFile, TurnedPartOfAStorageAndAParameter) {
  const std::string turned = pickled_tensor({2, 2}, {1, 3}, 1);
  const std::string parameter = global("torch._utils", "_rebuild_parameter") + "(" + turned +
                                "\x88" + global("collections", "OrderedDict") + ")RtR";
  for (const std::string& each : {turned, parameter}) {
    const std::string file = test::torch_file(pickled_dict(each), kSix);
    const std::vector<StoredTensor> tensors = read(file);
    ASSERT_EQ(tensors.size(), 1u);
    EXPECT_EQ(tensors[0].strides, (std::vector<int64_t>{1, 3}));
    EXPECT_EQ(load_weight(tensors[0].data, DType::f32, 0 * 1 + 1 * 3), 4.0f);
  }
}

TEST(TorchFile, Types) {
  const std::pair<const char*, DType> types[] = {
      {"FloatStorage", DType::f32},  {"HalfStorage", DType::f16},
      {"DoubleStorage", DType::f64}, {"BFloat16Storage", DType::bf16},
      {"LongStorage", DType::i64},   {"BoolStorage", DType::boolean}};
  for (const auto& [name, type] : types) {
    const int64_t elements = 24 / dtype_bytes(type);
    const std::string file =
        test::torch_file(pickled_dict(pickled_tensor({elements}, {1}, 0, elements, name)), kSix);
    EXPECT_EQ(read(file)[0].dtype, type);
  }
}

TEST(TorchFile, TensorsThatLie) {
  const auto tensor = [](auto... arguments) { return pickled_dict(pickled_tensor(arguments...)); };
  using Sizes = std::initializer_list<int64_t>;
  constexpr int64_t kHuge = int64_t{1} << 62;
  refuse(tensor(Sizes{2, 3}, Sizes{4, 1}), {"'w' reaches beyond its storage of 6"});
  refuse(tensor(Sizes{2, 3}, Sizes{3, 1}, int64_t{1}), {"'w' reaches beyond"});
  refuse(tensor(Sizes{7}, Sizes{1}), {"'w' reaches beyond"});
  refuse(tensor(Sizes{kHuge, kHuge}, Sizes{kHuge, kHuge}), {"'w' reaches beyond"});
  refuse(tensor(Sizes{2}, Sizes{kHuge}, kHuge), {"'w' reaches beyond"});
  refuse(tensor(Sizes{0}, Sizes{1}, int64_t{7}), {"'w' reaches beyond"});
  refuse(tensor(Sizes{5, 5}, Sizes{1, 1}), {"'w' reaches beyond"});
  refuse(tensor(Sizes{3, 3}, Sizes{1, 1}), {"several times", "contiguous"}, ErrorCode::unsupported);
  refuse(tensor(Sizes{1000000, 6}, Sizes{0, 1}), {"several times"}, ErrorCode::unsupported);
  refuse(tensor(Sizes{-2, 3}, Sizes{3, 1}), {"negative size"});
  refuse(tensor(Sizes{2, 3}, Sizes{-3, 1}), {"negative size or stride"});
  refuse(tensor(Sizes{2, 3}, Sizes{3, 1}, int64_t{-1}), {"negative offset"});
  refuse(tensor(Sizes{2, 3}, Sizes{1}), {"not of its shape"});
  refuse(tensor(Sizes{2, 3}, Sizes{3, 1}, int64_t{0}, int64_t{7}),
         {"expected a storage of 7 f32, found 24 bytes"});
  refuse(tensor(Sizes{2, 3}, Sizes{3, 1}, int64_t{0}, kHuge), {"found 24 bytes"});
  refuse(tensor(Sizes{2, 3}, Sizes{3, 1}, int64_t{0}, int64_t{6}, "FloatStorage", "9"),
         {"storage '9' is not in the file"});
  refuse(tensor(Sizes{2, 3}, Sizes{3, 1}, int64_t{0}, int64_t{6}, "FloatStorage",
                std::string(257, '0')),
         {"the key of a storage is too long"});
}

// A few bytes for each, of arguments that stand in the file once.
TEST(TorchFile, ManyTensorsOfFewBytes) {
  const std::string call = global("torch._utils", "_rebuild_tensor_v2");
  const std::string tensor = pickled_tensor({2, 3}, {3, 1});
  std::string pickle = "\x80\x02" + call + "q" + test::little(0, 1);
  pickle += tensor.substr(call.size(), tensor.size() - call.size() - 1) + "q" + test::little(1, 1);
  for (int i = 0; i < 65537; ++i) {
    pickle += "h" + test::little(0, 1) + "h" + test::little(1, 1) + "R";
  }
  refuse(pickle + ".", {"too many tensors"});
}

TEST(TorchFile, PicklesThatWantMore) {
  const auto wants = [](const std::string& pickle, std::string_view part) {
    refuse(pickle, {part, "never run"}, ErrorCode::unsupported);
  };
  wants(std::string("\x80\x02") + global("os", "system") + "(" + pickled_text("true") + "tR.",
        "'os.system'");
  wants(pickled_dict(global("builtins", "eval") + "(" + pickled_text("1") + "tR"),
        "'builtins.eval'");
  wants(pickled_dict(global("torch", "load") + "(tR"), "'torch.load'");
  wants(pickled_dict(global("torch.nn.modules", "FloatStorage")), "FloatStorage'");
  wants(pickled_dict(global("collections", "OrderedDict") + "(]tR"), "made of something");
  wants(std::string("\x80\x02(i") + "os\nsystem\n.", "opcode 105");  // INST
  wants(std::string("\x80\x04") + pickled_text("os") + pickled_text("system") + "\x93.",
        "opcode 147");                                      // STACK_GLOBAL
  wants(std::string("\x80\x02\x82\x01."), "opcode 130");    // EXT1
  wants(std::string("\x80\x02") + "}\x81.", "opcode 129");  // NEWOBJ
  wants(std::string("\x80\x02") + pickled_tensor({2, 3}, {3, 1}) + "}b.", "an object with a state");
  wants(std::string("\x80\x02K\x01."), "no dictionary at all");
  wants(pickled_dict(pickled_text("epoch")), "'w', which is no tensor");
  wants(pickled_dict("}"), "'w', which is no tensor");
  wants(std::string("\x80\x02}K\x01K\x02s."), "a key that is no text");
  wants(std::string("\x80\x09}."), "an unknown protocol");
}

TEST(TorchFile, DamagedPickles) {
  const std::string good = pickled_dict(pickled_tensor({2, 3}, {3, 1}));
  for (size_t length = 0; length + 1 < good.size(); ++length) {
    expect_error(ErrorCode::corrupt_file, {"w.bin"},
                 [&] { read(test::torch_file(good.substr(0, length), kSix)); });
  }
  refuse(good + "x", {"behind the end"});
  refuse("N0.", {"opcode 48"}, ErrorCode::unsupported);
  refuse("NN.", {"found 2"});
  refuse("R.", {"too little on the stack"});
  refuse("N(R.", {"too little on the stack"});
  refuse("t.", {"no mark"});
  refuse("h\x07.", {"a reference to nothing"});
  refuse("Ns.", {"too little on the stack"});
  refuse("}(Nu.", {"a key without a value"});
  refuse("N(NNu.", {"no dictionary"});
  refuse("}Na.", {"no list"});
  refuse("NQ.", {"a storage of five parts"});
  refuse("N)R.", {"a call of what is no function"});
  refuse("NNR.", {"a call without arguments"});
  refuse("X\xff\xff\xff\xff.", {"cut short"});
  refuse("cos", {"a line without an end"});
  const std::string one = pickled_tensor({2, 3}, {3, 1});
  refuse("}(" + pickled_text("w") + one + pickled_text("w") + one + "u.", {"'w' stands twice"});
  // As deep as it is long, and as wide as references make it: neither stack nor memory runs out.
  refuse("}" + std::string(900'000, '\x85') + ".", {"no dictionary at all"},
         ErrorCode::unsupported);
  refuse(std::string(2'000'000, '}') + ".", {"too many values"});
  std::string laughs = "]q" + little(0, 1);
  for (int i = 0; i < 1000; ++i) laughs += "(" + std::string("h\0h\0h\0h\0h\0h\0h\0h\0", 16) + "e";
  refuse(laughs + ".", {"no dictionary at all"}, ErrorCode::unsupported);
}

TEST(TorchFile, Archives) {
  const std::string pickle = pickled_dict(pickled_tensor({2, 3}, {3, 1}));
  const auto expect = [&](const std::string& file, ErrorCode code, std::string_view part) {
    expect_error(code, {part, "w.bin"}, [&] { read(file); });
  };
  expect("PK", ErrorCode::corrupt_file, "no end of a zip directory");
  expect(test::zip_bytes({{.name = "m/version", .content = "3"}}), ErrorCode::corrupt_file,
         "data.pkl");
  expect(test::torch_file(pickle, kSix, "big"), ErrorCode::unsupported, "byteorder 'big'");
  expect(test::zip_bytes({{.name = "m/data.pkl", .content = pickle, .deflate = true}}),
         ErrorCode::unsupported, "deflated");
  EXPECT_FALSE(is_torch_zip(std::as_bytes(std::span("\x80\x02\x8a\x0a", 4))));
}

}  // namespace
}  // namespace pali
