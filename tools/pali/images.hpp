// Images named on a command line.
#pragma once

#include <string>
#include <vector>

#include "pali/image.hpp"

namespace pali::cli {

// A file, or '-': the whole of stdin, once. Throws Error.
Image load_image(const std::string& path, const ImageOptions& options);
std::vector<Image> load_images(const std::vector<std::string>& paths, const ImageOptions& options);

// True for '-', for a name that ends as images' do, and for a file that begins as one.
bool names_an_image(const std::string& argument);

}  // namespace pali::cli
