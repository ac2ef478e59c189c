# Kernels are compiled once per instruction set; which of them runs is decided on the user's machine. Adds them to a
# target; `ARGN` are options after those they are shipped with.
function(add_cpu_kernels target)
  set(source ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/src)
  set(instruction_sets plain)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(APPEND instruction_sets avx2 avx512 avx512_bf16)
  endif()
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl)
  set(flags_avx512_bf16 ${flags_avx512} -mavx512bf16 -mavx512vnni)
  foreach(isa ${instruction_sets})
    add_library(kernels_${isa} OBJECT
      ${source}/cpu/attention_kernels.cpp
      ${source}/cpu/block_kernels.cpp
      ${source}/cpu/gradient_kernels.cpp
      ${source}/cpu/product_kernels.cpp
      ${source}/cpu/recurrence_kernels.cpp
      ${source}/cpu/row_kernels.cpp
      ${source}/cpu/scan_kernels.cpp)
    target_include_directories(kernels_${isa} PRIVATE ${source})
    target_compile_definitions(kernels_${isa} PRIVATE MLXLM_ISA=${isa})
    # Kernels pass vectors between inlined functions only, so no caller disagrees about their ABI.
    target_compile_options(kernels_${isa} PRIVATE -O3 -ffp-contract=fast -Wno-psabi ${flags_${isa}} ${ARGN})
    set_target_properties(kernels_${isa} PROPERTIES POSITION_INDEPENDENT_CODE ON)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:kernels_${isa}>)
  endforeach()
endfunction()
