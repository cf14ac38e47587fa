# The packages the engine stands on; Debian's own serve (apt names in README.md).
find_package(Threads REQUIRED)
# No version in the call: 5.0 follows 3.4, and Eigen's own file then refuses the older number.
find_package(Eigen3 REQUIRED NO_MODULE)
if(Eigen3_VERSION VERSION_LESS 3.4)
  message(FATAL_ERROR "Eigen ${Eigen3_VERSION} found, 3.4 or later needed")
endif()
find_package(nlohmann_json 3.11 REQUIRED)
find_package(ZLIB 1.2.9 REQUIRED)  # crc32_z

find_path(SENTENCEPIECE_INCLUDE_DIR sentencepiece_processor.h REQUIRED)
find_library(SENTENCEPIECE_LIBRARY sentencepiece REQUIRED)
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(SENTENCEPIECE QUIET sentencepiece)  # for its version only
endif()
add_library(pali_sentencepiece INTERFACE)
target_include_directories(pali_sentencepiece SYSTEM INTERFACE ${SENTENCEPIECE_INCLUDE_DIR})
target_link_libraries(pali_sentencepiece INTERFACE ${SENTENCEPIECE_LIBRARY})
# From 0.2.1 on its status is Abseil's, whose destructor is inline in whoever includes the header.
file(STRINGS ${SENTENCEPIECE_INCLUDE_DIR}/sentencepiece_processor.h SENTENCEPIECE_USES_ABSEIL
     REGEX "#include <absl/" LIMIT_COUNT 1)
if(SENTENCEPIECE_USES_ABSEIL)
  find_package(absl REQUIRED)
  target_link_libraries(pali_sentencepiece INTERFACE absl::status)
endif()

find_path(STB_INCLUDE_DIR stb_image.h PATH_SUFFIXES stb REQUIRED)
add_library(pali_stb INTERFACE)
target_include_directories(pali_stb SYSTEM INTERFACE ${STB_INCLUDE_DIR})

# By path, not by dnnl-config.cmake: Debian's asks for OpenCL, which a CPU engine has no use for.
set(PALI_HAVE_ONEDNN OFF)
if(PALI_WITH_ONEDNN)
  find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp)
  find_library(DNNL_LIBRARY dnnl)
  # The OpenMP that Debian's oneDNN runs on: we hold it at one thread inside of our workers.
  find_library(DNNL_OPENMP_LIBRARY NAMES gomp libgomp.so.1
               HINTS ${CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES})
  if(DNNL_INCLUDE_DIR AND DNNL_LIBRARY)
    set(PALI_HAVE_ONEDNN ON)
    add_library(pali_onednn INTERFACE)
    target_include_directories(pali_onednn SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})
    set(DNNL_LIBRARIES ${DNNL_LIBRARY})
    if(DNNL_OPENMP_LIBRARY)
      list(APPEND DNNL_LIBRARIES ${DNNL_OPENMP_LIBRARY})
    endif()
    target_link_libraries(pali_onednn INTERFACE ${DNNL_LIBRARIES})
  else()
    message(STATUS "oneDNN not found: building without it (libdnnl-dev on Debian)")
  endif()
endif()

if(PALI_BUILD_TOOLS)
  find_package(CLI11 REQUIRED)
endif()
if(PALI_BUILD_TESTS)
  find_package(GTest REQUIRED)
endif()
