// Scratch: aligned, several at once, and no new memory once it has run.
#include "exec/scratch.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <thread>

namespace pali {
namespace {

TEST(Scratch, AlignedAndApart) {
  const Scratch a(100), b(0), c(1 << 20), d(int64_t{9} << 20), e(300000), f(5);
  for (const Scratch* scratch : {&a, &b, &c, &d, &e, &f}) {
    EXPECT_NE(scratch->as<char>(), nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(scratch->as<char>()) % 64, 0u);
  }
  std::memset(a.as<char>(), 1, 100);
  std::memset(c.as<char>(), 2, 1 << 20);
  std::memset(d.as<char>(), 3, size_t{9} << 20);
  EXPECT_EQ(a.as<char>()[99], 1);
  EXPECT_EQ(c.as<char>()[(1 << 20) - 1], 2);
}

TEST(Scratch, TheSameBlocksServeTheNextCall) {
  std::thread([] {  // a thread of its own: its stock is empty
    const auto call = [](char** first, char** second) {
      const Scratch a(1 << 20);
      const Scratch b(1 << 10);
      *first = a.as<char>();
      *second = b.as<char>();
    };
    char *a1, *b1, *a2, *b2;
    call(&a1, &b1);
    for (int round = 0; round < 3; ++round) {
      call(&a2, &b2);
      EXPECT_EQ(a1, a2);
      EXPECT_EQ(b1, b2);
    }
  })
      .join();
}

TEST(Scratch, TheLargerBlockIsKept) {
  std::thread([] {
    for (int i = 1; i <= 8; ++i) Scratch(i * 100000);
    char* large;
    {
      const Scratch a(800000);
      large = a.as<char>();
    }
    const Scratch again(800000);
    EXPECT_EQ(again.as<char>(), large);
  }).join();
}

}  // namespace
}  // namespace pali
