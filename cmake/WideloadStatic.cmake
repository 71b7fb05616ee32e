# Programs that are carried to other machines and need nothing there but the C library: with WIDELOAD_STATIC, before libraries are
# searched. Debian has no archives of fmt and spdlog, whose header-only forms these are.
add_library(fmt::fmt INTERFACE IMPORTED)
target_compile_definitions(fmt::fmt INTERFACE FMT_HEADER_ONLY)
add_library(spdlog::spdlog INTERFACE IMPORTED)
target_compile_definitions(spdlog::spdlog INTERFACE SPDLOG_FMT_EXTERNAL)
target_link_libraries(spdlog::spdlog INTERFACE fmt::fmt)
set(OPENSSL_USE_STATIC_LIBS ON)
foreach(library OPENSSL_SSL_LIBRARY OPENSSL_CRYPTO_LIBRARY)
  if(NOT ${library} MATCHES "\\.a$")
    unset(${library} CACHE)  # found before this was asked for
  endif()
endforeach()
find_package(yaml-cpp REQUIRED)
find_library(YAML_CPP_ARCHIVE libyaml-cpp.a REQUIRED)
set_target_properties(yaml-cpp PROPERTIES IMPORTED_LOCATION_NONE ${YAML_CPP_ARCHIVE} IMPORTED_LOCATION_RELEASE ${YAML_CPP_ARCHIVE})
add_link_options(-static-libstdc++ -static-libgcc)
