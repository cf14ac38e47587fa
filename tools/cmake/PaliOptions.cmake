# What a user may choose, and the flags of our own code (never inherited by consumers).
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo" FORCE)
endif()

if(CMAKE_SOURCE_DIR STREQUAL PROJECT_SOURCE_DIR)
  set(pali_top_level ON)
else()
  set(pali_top_level OFF)
endif()

option(BUILD_SHARED_LIBS "Build libpali as a shared library" ON)
option(PALI_BUILD_TOOLS "Build the command line" ${pali_top_level})
option(PALI_BUILD_TESTS "Build the tests" ${pali_top_level})
option(PALI_WITH_ONEDNN "Use oneDNN where it is installed" ON)
option(PALI_FUZZ "Build the libFuzzer targets of tests/fuzz/targets (clang)" OFF)
option(PALI_WERROR "Treat warnings of our own code as errors" OFF)
set(PALI_SANITIZE "" CACHE STRING "Sanitizers of our own code: address,undefined or thread")
set(PALI_KERNEL_TIERS "avx2;avx_vnni;avx512;avx512_vnni;avx512_bf16;amx" CACHE STRING
    "Kernel tiers to build, beside scalar, where the compiler can; each stands on those below it")
set(PALI_ISA_EMULATOR "" CACHE STRING
    "Command that runs a program on an emulated CPU; kernel tests of tiers this CPU lacks use it")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(PALI_CCACHE ccache)
if(PALI_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PALI_CCACHE})
endif()

add_library(pali_flags INTERFACE)
target_compile_options(pali_flags INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor
                       $<$<BOOL:${PALI_WERROR}>:-Werror> -fno-fast-math -ffp-contract=off
                       -fvisibility=hidden)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # gcc 12 sees overlapping copies inside std::string's operator+ (its bug 105329).
  target_compile_options(pali_flags INTERFACE -Wno-restrict)
endif()
if(PALI_SANITIZE)
  target_compile_options(pali_flags INTERFACE -fsanitize=${PALI_SANITIZE} -fno-omit-frame-pointer
                         -fno-sanitize-recover=all)
  target_link_options(pali_flags INTERFACE -fsanitize=${PALI_SANITIZE})
endif()
