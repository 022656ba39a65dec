# Each file csrc/cpu/isa_<name>.cc is compiled with its own instruction set; what runs is chosen at
# run time (csrc/cpu/dispatch.cc). Files that this compiler or processor family cannot build are left out.
# No file may contract a*b+c on its own: the main loop and the tail of a kernel must give the same bits.
include(CheckCXXCompilerFlag)
set(POLYLM_ISA_SELECTED ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu/isa_scalar.cc)
set(POLYLM_ISA_DEFINITIONS "")
# None throws, so none has the tables of exceptions, whose symbols would be shared with the rest of the program.
set(POLYLM_ISA_COMMON -ffp-contract=off -fno-exceptions)
if(MINGW)
  # The stack of Windows is aligned to 16 bytes, GCC assumes 32 and 64 for vectors: the assembler takes
  # moves that need no alignment. Unwind tables of Windows cannot name the registers xmm16 to xmm31.
  list(APPEND POLYLM_ISA_COMMON -Wa,-muse-unaligned-vector-move -fno-asynchronous-unwind-tables)
  set_source_files_properties(csrc/model/weight_stream.cc PROPERTIES COMPILE_OPTIONS  # platform/wide.h
    -Wa,-muse-unaligned-vector-move)
endif()
set_source_files_properties(${POLYLM_ISA_SELECTED} PROPERTIES COMPILE_OPTIONS "${POLYLM_ISA_COMMON}"
  SKIP_UNITY_BUILD_INCLUSION ON SKIP_PRECOMPILE_HEADERS ON)

function(polylm_isa name)
  set(file ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cpu/isa_${name}.cc)
  if(NOT EXISTS ${file})
    return()
  endif()
  string(TOUPPER POLYLM_ISA_${name} definition)
  if(ARGN)
    string(JOIN " " CMAKE_REQUIRED_FLAGS ${ARGN})
    check_cxx_compiler_flag("${CMAKE_REQUIRED_FLAGS}" ${definition}_FLAGS)
  else()
    set(${definition}_FLAGS ON)
  endif()
  if(${definition}_FLAGS)
    set_source_files_properties(${file} PROPERTIES COMPILE_OPTIONS "${ARGN};${POLYLM_ISA_COMMON}"
      SKIP_UNITY_BUILD_INCLUSION ON SKIP_PRECOMPILE_HEADERS ON)
    set(POLYLM_ISA_SELECTED ${POLYLM_ISA_SELECTED} ${file} PARENT_SCOPE)
    set(POLYLM_ISA_DEFINITIONS ${POLYLM_ISA_DEFINITIONS} ${definition}=1 PARENT_SCOPE)
  endif()
endfunction()

string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" POLYLM_PROCESSOR)
if(NODE_ARCH)
  string(TOLOWER "${NODE_ARCH}" POLYLM_PROCESSOR)
endif()
if(POLYLM_PROCESSOR MATCHES "x64|x86_64|amd64")
  polylm_isa(avx2 -mavx2 -mfma -mf16c)
  polylm_isa(avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma)
  polylm_isa(avx512bf16 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma)
  polylm_isa(amx -mamx-tile -mamx-bf16 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma)
elseif(POLYLM_PROCESSOR MATCHES "arm64|aarch64")
  polylm_isa(neon)
  polylm_isa(neonbf16 -march=armv8.2-a+bf16)
endif()
