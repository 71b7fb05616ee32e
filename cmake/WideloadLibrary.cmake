# wideload_library(NAME SOURCES a.cc ... [TESTS a_test.cc ...] [DEPS module ...] [LIBS target ...] [TEST_LIBS target ...])
#
# One module of the architecture: library wideload_NAME from SOURCES, and, when TESTS are given, the program NAME_test
# registered with ctest under the label `unit`. DEPS is the only statement of which modules it may include; the ctest
# `repo.layers` reads it. LIBS are third-party targets.

# Options every first-party target is compiled with: a target, not global flags.
add_library(wideload_options INTERFACE)
target_compile_options(wideload_options INTERFACE -Wall -Wextra -Wshadow -Wconversion -Werror
  -Wno-missing-field-initializers -ffp-contract=off)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(wideload_options INTERFACE -Wno-unused-command-line-argument -Wno-sign-conversion)
endif()
target_include_directories(wideload_options INTERFACE ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)

function(wideload_library NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;TESTS;DEPS;LIBS;TEST_LIBS" ${ARGN})
  if(ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "wideload_library(${NAME}): unknown arguments ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  add_library(wideload_${NAME} STATIC ${ARG_SOURCES})
  target_link_libraries(wideload_${NAME} PUBLIC wideload_options ${ARG_LIBS})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(wideload_${NAME} PUBLIC wideload_${dep})
  endforeach()
  if(ARG_TESTS)
    add_executable(${NAME}_test ${ARG_TESTS})
    target_link_libraries(${NAME}_test PRIVATE wideload_${NAME} ${ARG_TEST_LIBS} GTest::gmock GTest::gtest_main)
    wideload_test(${NAME}_test LABEL unit)
  endif()
endfunction()

# Registers a test program with ctest under one of the labels of CONTRIBUTING.md. Tests find testdata/ and models/ by
# WIDELOAD_SOURCE_DIR.
function(wideload_test TARGET)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "ARGS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_test(NAME ${ARG_LABEL}.${TARGET} COMMAND ${TARGET} ${ARG_ARGS})
  set_tests_properties(${ARG_LABEL}.${TARGET} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "WIDELOAD_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
endfunction()

# A libFuzzer target `fuzz_NAME`, built only with -DWIDELOAD_FUZZ=ON (clang).
function(wideload_fuzzer NAME)
  if(NOT WIDELOAD_FUZZ)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(fuzz_${NAME} ${ARG_SOURCES})
  target_link_options(fuzz_${NAME} PRIVATE -fsanitize=fuzzer)
  foreach(dep ${ARG_DEPS})
    target_link_libraries(fuzz_${NAME} PRIVATE wideload_${dep})
  endforeach()
endfunction()
