# wideload_library(NAME SOURCES a.cc ... [TESTS a_test.cc ...] [DEPS module ...] [LIBS target ...] [TEST_LIBS target ...] [SELDOM])
#
# One module of the architecture: library wideload_NAME from SOURCES, and, when TESTS are given, the program NAME_test
# registered with ctest under the label `unit`. DEPS is the only statement of which modules it may include; the ctest
# `repo.layers` reads it. LIBS are third-party targets. SELDOM: nothing of it runs for every token.

# Options every first-party target is compiled with: a target, not global flags.
add_library(wideload_options INTERFACE)
target_compile_options(wideload_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wconversion;-Werror;-Wno-missing-field-initializers;-ffp-contract=off>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(wideload_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wno-unused-command-line-argument;-Wno-sign-conversion>")
endif()
get_filename_component(WIDELOAD_ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)  # python/ is a project of its own
target_include_directories(wideload_options INTERFACE ${WIDELOAD_ROOT}/src ${WIDELOAD_ROOT}/include)

# The headers that most files parse, parsed once: a third of the time of a build. One that few files use costs more than it saves
# (nlohmann/json half a second a file, in which its templates are made again): only programs have that. A file with instruction
# set or optimisation flags of its own cannot use them and says SKIP_PRECOMPILE_HEADERS. The preset fuzz builds without, so that a
# file which forgets an include is found.
option(WIDELOAD_PRECOMPILE "Parse common headers once for all files" ON)
set(WIDELOAD_COMMON_HEADERS <algorithm> <array> <chrono> <cstdint> <filesystem> <functional> <map> <memory> <optional> <span>
  <string> <string_view> <unordered_map> <utility> <variant> <vector> <fmt/format.h>)

# A module's files, and its tests, compiled several at a time, which takes two thirds of the time for all of them and more after a
# change of one. Names of unnamed namespaces are then not a file's own. clang-tidy looks at files one by one (./dev tidy).
option(WIDELOAD_UNITY "Compile the files of a library several at a time" OFF)

# Has TARGET use the headers precompiled for targets of its KIND: library, program or test. The first of a kind makes them.
function(wideload_precompile TARGET KIND)
  get_target_property(own ${TARGET} PRECOMPILE_HEADERS)
  get_target_property(reused ${TARGET} PRECOMPILE_HEADERS_REUSE_FROM)
  if(NOT WIDELOAD_PRECOMPILE OR NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR own OR reused)
    return()
  endif()
  get_property(first GLOBAL PROPERTY wideload_precompiled_${KIND})
  if(first)
    target_precompile_headers(${TARGET} REUSE_FROM ${first})
    return()
  endif()
  set(headers ${WIDELOAD_COMMON_HEADERS})
  if(KIND STREQUAL "test")
    list(APPEND headers <gtest/gtest.h> <gmock/gmock.h>)
  elseif(KIND STREQUAL "program")
    list(APPEND headers <nlohmann/json.hpp>)
  endif()
  target_precompile_headers(${TARGET} PRIVATE ${headers})
  set_property(GLOBAL PROPERTY wideload_precompiled_${KIND} ${TARGET})
endfunction()

function(wideload_library NAME)
  cmake_parse_arguments(ARG "SELDOM" "" "SOURCES;TESTS;DEPS;LIBS;TEST_LIBS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "wideload_library(${NAME}): unknown arguments ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  add_library(wideload_${NAME} STATIC ${ARG_SOURCES})
  target_link_libraries(wideload_${NAME} PUBLIC wideload_options ${ARG_LIBS})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(wideload_${NAME} PUBLIC wideload_${dep})
  endforeach()
  set_target_properties(wideload_${NAME} PROPERTIES UNITY_BUILD ${WIDELOAD_UNITY} UNITY_BUILD_BATCH_SIZE 9)
  if(ARG_SELDOM)
    wideload_seldom(wideload_${NAME})
  endif()
  if("base" IN_LIST ARG_DEPS OR NAME STREQUAL "base")
    wideload_precompile(wideload_${NAME} library)
  endif()
  if(ARG_TESTS AND TARGET GTest::gtest_main)  # the Python module is built without tests
    add_executable(${NAME}_test ${ARG_TESTS})
    target_link_libraries(${NAME}_test PRIVATE wideload_${NAME} ${ARG_TEST_LIBS} GTest::gmock GTest::gtest_main)
    set_target_properties(${NAME}_test PROPERTIES UNITY_BUILD ${WIDELOAD_UNITY} UNITY_BUILD_BATCH_SIZE 8)
    wideload_test(${NAME}_test LABEL unit)
  endif()
endfunction()

# Registers a test program with ctest under one of the labels of CONTRIBUTING.md as LABEL.TARGET. Tests find testdata/ and
# models/ by WIDELOAD_SOURCE_DIR. One program may be registered several times with other ARGS under another NAME.
function(wideload_test TARGET)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT;NAME" "ARGS" ${ARGN})
  if(NOT ARG_LABEL OR ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "wideload_test(${TARGET}): needs LABEL; unknown arguments: ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  math(EXPR timeout "${ARG_TIMEOUT} * ${WIDELOAD_TEST_TIMEOUT_FACTOR}")
  if(NOT ARG_NAME)
    set(ARG_NAME ${TARGET})
  endif()
  add_test(NAME ${ARG_LABEL}.${ARG_NAME} COMMAND ${TARGET} ${ARG_ARGS})
  set_tests_properties(${ARG_LABEL}.${ARG_NAME} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${timeout}
    ENVIRONMENT "WIDELOAD_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
  wideload_light_optimization(${TARGET})
endfunction()

# Registers a program of tests that need a GPU under the label `gpu`. Where there is none, each of them must say why by GTEST_SKIP
# with this beginning (a single test that is skipped hides no failure then), and ctest shows the program as skipped.
function(wideload_gpu_test TARGET)
  wideload_test(${TARGET} LABEL gpu ${ARGN})
  set_tests_properties(gpu.${TARGET} PROPERTIES SKIP_REGULAR_EXPRESSION "not run on a GPU: ")
  install(TARGETS ${TARGET} RUNTIME DESTINATION bin COMPONENT gpu_bundle EXCLUDE_FROM_ALL)
endfunction()

# What does not run for every token is compiled with -O1 in a release build, which takes a quarter to a third less time than -O2.
function(wideload_seldom TARGET)
  target_compile_options(${TARGET} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()

# What a test adds to the modules is compiled with -Og in a release build, which takes a third less time than -O2.
function(wideload_light_optimization TARGET)
  target_compile_options(${TARGET} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-Og>)
  get_target_property(type ${TARGET} TYPE)
  if(type STREQUAL "EXECUTABLE")
    wideload_precompile(${TARGET} test)
  endif()
endfunction()

# Registers TARGET, started as RANKS processes by mpirun, with ctest under the label `ranks`. More processes than cores are
# fine, root included. With HOSTS the processes take each other for those of so many hosts: TARGET must then understand
# `--hosts N` (tests/support/mpi_ranks.h). Only where find_package(MPI) has found MPI.
function(wideload_mpi_test TARGET)
  cmake_parse_arguments(ARG "" "RANKS;HOSTS" "ARGS" ${ARGN})
  set(name ranks.${TARGET}_${ARG_RANKS})
  if(ARG_HOSTS)
    string(APPEND name "_on_${ARG_HOSTS}_hosts")
    list(PREPEND ARG_ARGS --hosts ${ARG_HOSTS})
  endif()
  add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ARG_RANKS} $<TARGET_FILE:${TARGET}> ${ARG_ARGS})
  math(EXPR timeout "120 * ${WIDELOAD_TEST_TIMEOUT_FACTOR}")
  set_tests_properties(${name} PROPERTIES LABELS ranks TIMEOUT ${timeout} ENVIRONMENT
    "WIDELOAD_SOURCE_DIR=${CMAKE_SOURCE_DIR};OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_rmaps_base_oversubscribe=1;OMPI_MCA_hwloc_base_binding_policy=none;OMPI_MCA_mpi_yield_when_idle=1")
  wideload_light_optimization(${TARGET})
endfunction()

# A program of this repository that is neither the product nor a test: PREFIX_NAME from SOURCES, linked with the modules
# DEPS and the third-party targets LIBS.
function(wideload_program PREFIX NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS OR NOT ARG_SOURCES)
    message(FATAL_ERROR "wideload_${PREFIX}(${NAME}): needs SOURCES; unknown arguments: ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  list(TRANSFORM ARG_DEPS PREPEND wideload_)
  add_executable(${PREFIX}_${NAME} ${ARG_SOURCES})
  target_link_libraries(${PREFIX}_${NAME} PRIVATE wideload_options ${ARG_DEPS} ${ARG_LIBS})
endfunction()

# wideload_bench(NAME SOURCES ... DEPS module ... LIBS target ...): the benchmark that `./dev bench NAME` runs. Only called
# from bench/, which is part of the build with -DWIDELOAD_BENCH=ON.
macro(wideload_bench NAME)
  wideload_program(bench ${NAME} ${ARGN})
endmacro()

# wideload_soak(NAME SOURCES ... DEPS module ... LIBS target ...): the long randomised run that `./dev soak NAME` starts.
macro(wideload_soak NAME)
  wideload_program(soak ${NAME} ${ARGN})
endmacro()

# wideload_fuzzer(NAME SOURCES ... DEPS module ...): with -DWIDELOAD_FUZZ=ON (clang) a libFuzzer target `fuzz_NAME`;
# `./dev fuzz NAME` runs it. With -DWIDELOAD_BENCH=ON a program that gives the files of its command line to the same function,
# so that a change which breaks a fuzzer is found by every compiler.
function(wideload_fuzzer NAME)
  if(WIDELOAD_FUZZ)
    wideload_program(fuzz ${NAME} ${ARGN})
    target_link_options(fuzz_${NAME} PRIVATE -fsanitize=fuzzer)
  elseif(WIDELOAD_BENCH)
    wideload_program(fuzz ${NAME} ${ARGN})
    target_sources(fuzz_${NAME} PRIVATE ${WIDELOAD_ROOT}/tests/support/replay_inputs.cc)
    target_compile_options(fuzz_${NAME} PRIVATE $<$<CONFIG:Release>:-O0>)
  endif()
endfunction()
