// Arbitrary bytes as the texts that engines write: SGLang's JSON, vLLM's JSONL, an expert_map, a
// CSV of pairs; placements that are read are written and read back.
#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "formats/document.h"
#include "formats/placement_file.h"
#include "formats/read_recording.h"
#include "formats/sglang_dump.h"
#include "formats/testing.h"
#include "formats/vllm_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace wideload;           // NOLINT(google-build-using-namespace): a program of one file
  using namespace wideload::formats;  // NOLINT(google-build-using-namespace)
  const std::string text(reinterpret_cast<const char*>(data), size);
  RefusalOf([&] { ParseCsvRecording(text, "fuzz"); });
  RefusalOf([&] {
    const VllmFile file = ParseVllmJsonl(text, "fuzz");
    if (file.recording) StatisticsOf(*file.recording, file.recording->loads);
    if (!file.mapping) return;
    const VllmFile again = ParseVllmJsonl(FormatVllmMapping(*file.mapping), "written");
    WIDELOAD_CHECK(again.mapping->layers.size() == file.mapping->layers.size(), "layers changed");
  });
  RefusalOf([&] {
    const NamedDocument dump{"fuzz", ParseJsonDocument(text, "fuzz")};
    RefusalOf([&] { SglangPlacement(dump); });
    RefusalOf([&] {
      Recording recording = RecordingOfSglang({&dump, 1}, "fuzz");
      DropEmptyBatches(recording);
    });
    const PlacementFile file = AscendPlacement(dump.content, "fuzz");
    const std::string written = FormatAscendMap(file.config, *file.config.planned_ep_size);
    const PlacementFile again = AscendPlacement(ParseJsonDocument(written, "written"), "written");
    WIDELOAD_CHECK(again.config.layers.size() == file.config.layers.size(), "layers changed");
  });
  return 0;
}
