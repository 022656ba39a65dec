# The link of the addon on Windows with MinGW-w64: compiler libraries inside, and N-API from whatever program loads it,
# through a delay-loaded import library made from the definition files of node-api-headers.
function(polylm_link_windows target)
  execute_process(
    COMMAND ${NODE_EXECUTABLE} -p "require('node-api-headers').def_paths.node_api_def+';'+require('node-api-headers').def_paths.js_native_api_def"
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    OUTPUT_VARIABLE definitions OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(text "")
  foreach(file ${definitions})
    file(READ ${file} part)
    string(REGEX REPLACE "^NAME NODE.EXE\r?\nEXPORTS\r?\n" "" part "${part}")
    string(APPEND text "${part}\n")
  endforeach()
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/node_api.def "NAME node.exe\nEXPORTS\n${text}")
  find_program(POLYLM_DLLTOOL NAMES ${CMAKE_DLLTOOL} dlltool REQUIRED)
  execute_process(
    COMMAND ${POLYLM_DLLTOOL} -d node_api.def -D node.exe --output-delaylib libnode_delayed.a
    WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR} COMMAND_ERROR_IS_FATAL ANY)
  target_link_options(${target} PRIVATE -static -Wl,--exclude-all-symbols)
  target_link_libraries(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/libnode_delayed.a delayimp)
endfunction()
