# The link of a release binary on Linux with glibc (POLYLM_PORTABLE=ON): against stub libraries that stand for an old
# glibc, with the compiler's own libstdc++.a inside. libgcc_s stays shared: every glibc system has it, Node needs it,
# and the static one of GCC 12 wants glibc 2.35. scripts/check-binary.mjs checks what comes out.
# On by default in the repository, so that what is developed and tested is what is shipped; the published package has no
# stubs script, and a user's own build serves the user's own system.
set(POLYLM_PORTABLE_DEFAULT OFF)
if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT POLYLM_SANITIZE
    AND EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/scripts/glibc-stubs.mjs)
  execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=libc_nonshared.a
    OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(IS_ABSOLUTE "${path}")       # a bare name is what the compiler answers without glibc
    set(POLYLM_PORTABLE_DEFAULT ON)
  endif()
endif()
option(POLYLM_PORTABLE "Link the addon so that it loads on old distributions (Linux with glibc)"
  ${POLYLM_PORTABLE_DEFAULT})
set(POLYLM_GLIBC_FLOOR "2.17" CACHE STRING "Oldest glibc that a portable link serves")

function(polylm_link_portable target)
  set(stubs ${CMAKE_CURRENT_BINARY_DIR}/glibc-stubs)
  execute_process(
    COMMAND ${NODE_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/scripts/glibc-stubs.mjs
      ${CMAKE_C_COMPILER} ${POLYLM_GLIBC_FLOOR} ${stubs}
    COMMAND_ERROR_IS_FATAL ANY)
  foreach(name libstdc++.a libc_nonshared.a)
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=${name}
      OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
    list(APPEND archives ${path})
  endforeach()
  target_sources(${target} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/cmake/glibc_floor.c)
  target_link_options(${target} PRIVATE -L${stubs} -nodefaultlibs)
  string(REPLACE ";" " " archives "${archives}")
  target_link_libraries(${target} PRIVATE
    "-Wl,--start-group ${archives} -lgcc -Wl,--end-group -Wl,--as-needed -lm -lgcc_s -lrt -Wl,--no-as-needed -lloader -lc -lpthread -ldl")
endfunction()
