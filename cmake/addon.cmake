# The Node addon. Headers come from cmake-js (CMAKE_JS_INC) or, with plain CMake, are asked from node.
find_program(NODE_EXECUTABLE node REQUIRED)
if(NOT DEFINED CMAKE_JS_INC OR CMAKE_JS_INC STREQUAL "")
  execute_process(
    COMMAND ${NODE_EXECUTABLE} -p
      "require('node-api-headers').include_dir+';'+require('node-addon-api').include_dir.replace(/\\\\/g,'/')"
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    OUTPUT_VARIABLE CMAKE_JS_INC OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
endif()

file(GLOB POLYLM_BINDING_SOURCES CONFIGURE_DEPENDS csrc/binding/*.cc)
add_library(polylm SHARED ${POLYLM_BINDING_SOURCES} ${CMAKE_JS_SRC})
set_target_properties(polylm PROPERTIES PREFIX "" SUFFIX ".node" CXX_SCAN_FOR_MODULES OFF)
target_include_directories(polylm SYSTEM PRIVATE ${CMAKE_JS_INC})
target_compile_definitions(polylm PRIVATE
  NAPI_VERSION=8 NODE_ADDON_API_CPP_EXCEPTIONS_ALL NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS BUILDING_NODE_EXTENSION)
target_link_libraries(polylm PRIVATE polylm_core ${CMAKE_JS_LIB})
polylm_warnings(polylm)

if(UNIX AND NOT APPLE)
  target_link_options(polylm PRIVATE -Wl,--exclude-libs,ALL -Wl,--gc-sections -Wl,-z,noexecstack
    -Wl,-z,relro -Wl,-z,now "-Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/csrc/addon.map")
  set_target_properties(polylm PROPERTIES LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/csrc/addon.map)
  if(POLYLM_PORTABLE)
    polylm_link_portable(polylm)
  elseif(NOT POLYLM_SANITIZE)
    target_link_options(polylm PRIVATE -static-libstdc++)
  endif()
elseif(APPLE)
  target_link_options(polylm PRIVATE -undefined dynamic_lookup)
elseif(MINGW)
  include(cmake/windows.cmake)
  polylm_link_windows(polylm)
endif()
