# `cmake --install`: library, headers, command line, built-in model, and find_package(pali).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS pali EXPORT paliTargets)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/pali DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp")
install(FILES ${PROJECT_BINARY_DIR}/include/pali/version.hpp
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/pali)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/pali/models)
if(PALI_BUILD_TOOLS)
  install(TARGETS pali_cli)
endif()
