# `cmake --install`: library, headers, command line, built-in model, licence and notices, and
# find_package(pali).
include(CMakePackageConfigHelpers)

set(pali_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/pali)
install(TARGETS pali EXPORT paliTargets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/pali DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp")
install(FILES ${PROJECT_BINARY_DIR}/include/pali/version.hpp
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/pali)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/pali/models)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/models/NOTICES.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(PALI_BUILD_TOOLS)
  install(TARGETS pali_cli)
endif()

install(EXPORT paliTargets NAMESPACE pali:: DESTINATION ${pali_cmake_dir})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/paliConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/paliConfig.cmake
                              INSTALL_DESTINATION ${pali_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/paliConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/paliConfig.cmake ${PROJECT_BINARY_DIR}/paliConfigVersion.cmake
        DESTINATION ${pali_cmake_dir})
