// Arbitrary bytes as a .npy file, and as raw DEFLATE data; what is read is written and read back.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "formats/inflate.h"
#include "formats/npy.h"
#include "formats/recording.h"
#include "formats/testing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
  using namespace wideload::formats;  // NOLINT(google-build-using-namespace)
  const auto bytes = std::as_bytes(std::span(data, size));
  RefusalOf([&] { Inflate(bytes, size < 4 ? 0 : size_t{data[0]} * 16, "fuzz"); });
  NumberArray array;
  if (RefusalOf([&] { array = ParseNpy(bytes, "fuzz"); }) != "accepted") return 0;
  RefusalOf([&] { TableOfArray(array, "fuzz"); });
  const NumberArray again = ParseNpy(BytesOf(FormatNpy(array)), "written");
  const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  WIDELOAD_CHECK(again.shape == array.shape && std::equal(again.values.begin(), again.values.end(),
                                                          array.values.begin(), same),
                 "an array {} changed", ShapeText(array.shape));
  return 0;
}
