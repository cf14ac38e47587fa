# Run by CTest: install, configure the consumer with find_package(pali), build, run.
function(step)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGN}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${SCRATCH})
step(${CMAKE_COMMAND} --install ${BUILD} --prefix ${SCRATCH}/prefix)
step(${CMAKE_COMMAND} -S ${SOURCE}/tests/install/consumer -B ${SCRATCH}/build -G ${GENERATOR}
     -D CMAKE_PREFIX_PATH=${SCRATCH}/prefix -D CMAKE_BUILD_TYPE=Release)
step(${CMAKE_COMMAND} --build ${SCRATCH}/build)
# Moved away from where it was built, the installation still finds its own model.
file(RENAME ${SCRATCH}/prefix ${SCRATCH}/moved)
file(GLOB picture ${SOURCE}/models/pali-mini/examples/*.png)
list(GET picture 0 picture)
step(${CMAKE_COMMAND} -E env LD_LIBRARY_PATH=${SCRATCH}/moved/lib:${SCRATCH}/moved/lib64
     ${SCRATCH}/build/caption ${SCRATCH}/moved/share/pali/models/pali-mini ${picture})
string(STRIP "${output}" consumer)
if(consumer STREQUAL "")
  message(FATAL_ERROR "the consumer printed no caption")
endif()
step(${SCRATCH}/moved/bin/pali caption ${picture})
string(STRIP "${output}" program)
if(NOT program STREQUAL consumer)
  message(FATAL_ERROR "the installed program says '${program}', the consumer '${consumer}'")
endif()
message(STATUS "caption: ${consumer}")
