// Arbitrary bytes as a file of torch.save, as its pickle alone, as .npz and as .npy.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "formats/document.h"
#include "formats/npy.h"
#include "formats/pickle.h"
#include "formats/read_recording.h"
#include "formats/sglang_dump.h"
#include "formats/testing.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
  using namespace wideload::formats;  // NOLINT(google-build-using-namespace)
  const auto bytes = std::as_bytes(std::span(data, size));
  const std::string text(reinterpret_cast<const char*>(data), size);
  RefusalOf([&] { ParsePickle(bytes, "fuzz"); });
  RefusalOf([&] {
    const std::string archive = ZipMaker().Add("a/data.pkl", text).Add("a/data/0", text).Archive();
    const NamedDocument dump{"fuzz", ParseTorchDocument(BytesOf(archive), "fuzz")};
    SglangPlacement(dump);
    RecordingOfSglang({&dump, 1}, "fuzz");
  });
  RefusalOf([&] { ParseTorchDocument(bytes, "fuzz"); });
  RefusalOf([&] { ParseNpz(bytes, "fuzz"); });
  return 0;
}
