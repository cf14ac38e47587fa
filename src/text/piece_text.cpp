#include "text/piece_text.hpp"

#include <algorithm>
#include <cstdint>

#include "text/lower_case.hpp"

namespace pali {

void settle_bytes(PieceText& decoded, bool at_end) {
  size_t position = 0;
  while (position < decoded.bytes.size()) {
    const size_t start = position;
    if (next_code_point(decoded.bytes, position) != kInvalid) {
      decoded.text.append(decoded.bytes, start, position - start);
      continue;
    }
    // Up to three bytes may still be the beginning of a character.
    const auto lead = static_cast<uint8_t>(decoded.bytes[start]);
    const size_t wanted = lead >= 0xf0 && lead <= 0xf4 ? 4
                          : lead >= 0xe0               ? 3
                          : lead >= 0xc2               ? 2
                                                       : 1;
    const size_t have = decoded.bytes.size() - start;
    const bool may_grow =
        lead <= 0xf4 && have < wanted &&
        std::all_of(decoded.bytes.begin() + static_cast<std::ptrdiff_t>(start) + 1,
                    decoded.bytes.end(), [](char c) { return (c & 0xc0) == 0x80; });
    if (may_grow && !at_end) {
      decoded.bytes.erase(0, start);
      return;
    }
    decoded.text += "\xef\xbf\xbd";
    position = start + 1;
  }
  decoded.bytes.clear();
}

}  // namespace pali
