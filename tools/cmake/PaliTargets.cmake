# Two shapes of target: a layer of the library, and a test program.
include(GoogleTest)
set(PALI_LAYERS "" CACHE INTERNAL "")

# pali_layer(NAME SOURCES ... [DEPENDS layers...] [LINK libraries...])
# A layer is a static archive of its own, so that tests link the layers they test, hidden symbols
# included; libpali is made of the same objects.
function(pali_layer name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPENDS;LINK" ${ARGN})
  add_library(pali_${name} STATIC ${arg_SOURCES})
  target_include_directories(pali_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src
                             ${PROJECT_SOURCE_DIR}/include ${PROJECT_BINARY_DIR}/include)
  target_compile_definitions(pali_${name} PRIVATE PALI_BUILDING)
  target_link_libraries(pali_${name} PRIVATE pali_flags)
  foreach(dependency ${arg_DEPENDS})
    target_link_libraries(pali_${name} PUBLIC pali_${dependency})
  endforeach()
  target_link_libraries(pali_${name} PUBLIC ${arg_LINK})
  set(PALI_LAYERS ${PALI_LAYERS} ${name} CACHE INTERNAL "")
endfunction()

# pali_test(NAME SOURCES ... LAYERS ... [LABELS ...] [LINK ...])
# Every GoogleTest case becomes a CTest test named NAME.Suite.Case.
function(pali_test name)
  cmake_parse_arguments(arg "" "" "SOURCES;LAYERS;LABELS;LINK" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  foreach(layer ${arg_LAYERS})
    target_link_libraries(${name} PRIVATE pali_${layer})
  endforeach()
  target_link_libraries(${name} PRIVATE pali_test_paths pali_flags GTest::gtest_main ${arg_LINK})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  if(NOT arg_LABELS)
    set(arg_LABELS fast)
  endif()
  gtest_discover_tests(${name} TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 600)
endfunction()
