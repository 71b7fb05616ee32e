// Tables of loads in the forms that `wideload eplb convert` goes through. Thread-safe.
#pragma once

#include <string>

#include "formats/number_array.h"
#include "formats/recording.h"
#include "statistics/expert_statistics.h"
#include "statistics/load_files.h"

namespace wideload::apps {

// Statistics whose ranks are summed, as a recording whose batches are the iterations.
formats::Recording RecordingOf(const statistics::ExpertStatistics& recorded);

// Row i is layer i; layers that are not there are rows of zeros. [layers, experts], or with
// keep_steps [steps, layers, experts] where the table has batches. Errors: as CheckFilledTable.
formats::NumberArray ArrayOf(const statistics::LoadTable& table, bool keep_steps);

// One tensor named load: int64 where the table holds counts, else float64. Errors: kIo.
void WriteTensor(const std::string& path, const formats::NumberArray& array,
                 const statistics::LoadTable& table);

}  // namespace wideload::apps
