// A program of somebody else: captions an image that it holds in memory.
#include <fstream>
#include <iostream>
#include <iterator>
#include <pali/pali.hpp>
#include <vector>

static_assert(PALI_VERSION_MAJOR + PALI_VERSION_MINOR + PALI_VERSION_PATCH > 0);

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  const pali::Engine engine = pali::Engine::open(argv[1]);
  pali::Request request;
  request.images = {pali::Image::from_memory(std::as_bytes(std::span(bytes)))};
  request.task = pali::Task::caption;
  std::cout << engine.run(request).text << '\n';
} catch (const pali::Error& error) {
  std::cerr << pali::to_string(error.code()) << ": " << error.what() << '\n';
  return 1;
}
