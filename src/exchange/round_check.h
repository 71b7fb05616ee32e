// What a rank checks of the bytes that other ranks have written for a round before it uses them as
// counts, sizes and indices. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "exchange/layout.h"

namespace wideload::exchange {

// Ends the process unless `fault` is "": what another rank says in a round can be wrong only when
// one of the two is broken.
void RequireNone(const std::string& fault, int source, int64_t round);

// What is wrong with the counts [E] of one rank for a round; "" when nothing is.
std::string FaultOfCounts(const ExchangeShape& shape, std::span<const int32_t> counts);

// What is wrong with the header of a region, before its metas are looked at; "" when nothing is.
std::string FaultOfHeader(const ExchangeShape& shape, const DispatchHeader& header);

// Adds the rows of a region to those of the receiver's slots: rows_of_slot [slots_per_rank]. metas
// int32 [header.num_rows][1 + K] as ExchangeLayout::RegionMetas has them, with a header without
// fault. Returns what is wrong with them, "" when nothing is.
std::string CountRows(const ExchangeShape& shape, const DispatchHeader& header,
                      const int32_t* metas, std::span<int64_t> rows_of_slot);

}  // namespace wideload::exchange
