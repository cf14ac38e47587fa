// config.json of every family, with what stands in the other small files: all four are the same
// text, so that their fields meet wherever they are looked for.
#include "fuzz/targets/target.hpp"
#include "model/configs/family.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    pali::ConfigFiles files;
    files.where = "fuzz";
    files.config_text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    files.config = pali::parse_json(files.config_text, files.where);
    files.preprocessor = files.generation = files.tokenizer = files.config;
    pali::read_family(files);
  });
}
