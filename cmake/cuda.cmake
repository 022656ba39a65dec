# CUDA is an optional language: without nvcc, or with POLYLM_CUDA=OFF, the build is CPU only. The
# result needs no NVIDIA library: the runtime is linked statically and finds the driver when asked.
# POLYLM_CUDA_ARCHS (option or environment) is "dev" (80 and 90a, quick to build), "release", or a
# list such as "86;89" in CMake's own form.
set(POLYLM_CUDA_SOURCES "")
set(POLYLM_HAVE_CUDA OFF)
file(GLOB POLYLM_CUDA_FILES CONFIGURE_DEPENDS csrc/cuda/*.cu)
if(DEFINED ENV{POLYLM_CUDA_ARCHS})
  set(POLYLM_CUDA_ARCHS_DEFAULT "$ENV{POLYLM_CUDA_ARCHS}")
else()
  set(POLYLM_CUDA_ARCHS_DEFAULT dev)
endif()
set(POLYLM_CUDA_ARCHS "${POLYLM_CUDA_ARCHS_DEFAULT}" CACHE STRING
  "CUDA architectures: dev, release, or a list")
if(POLYLM_CUDA AND POLYLM_CUDA_FILES)
  if(POLYLM_CUDA_ARCHS STREQUAL "dev")
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
  elseif(POLYLM_CUDA_ARCHS STREQUAL "release")
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 120-real 80-virtual)
  else()
    set(CMAKE_CUDA_ARCHITECTURES ${POLYLM_CUDA_ARCHS})
  endif()
  include(CheckLanguage)   # the architectures are set before enable_language, which caches them
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)   # CMake 3.25 knows no C++20 for nvcc >= 12
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    set_source_files_properties(${POLYLM_CUDA_FILES} PROPERTIES
      COMPILE_OPTIONS "-Xfatbin=-compress-all;-Xcompiler=-Wall,-Wextra,-fvisibility=hidden")
    set(POLYLM_CUDA_SOURCES ${POLYLM_CUDA_FILES})
    set(POLYLM_HAVE_CUDA ON)
  endif()
endif()
