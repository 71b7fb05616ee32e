// Character data written by tools/unicode_tables.py, as text; unicode_properties.h reads it.
// Constants.
#pragma once

namespace wideload::tokenizer {

// Runs of equal values over all code points from 0, each a symbol and its length (none: 1).
extern const char kGeneralCategoryRuns[];  // A is Lu; the order is that of GeneralCategory
extern const char kScriptRuns[];           // A is Han; the order is that of kScriptNames; . others
// "CLASS*LENGTH ..." likewise.
extern const char kCombiningClassRuns[];
// "CODE=FIRST+SECOND ..." in hexadecimal digits, without +SECOND where one character is the
// mapping; ! after a pair that does not compose again.
extern const char kCanonicalDecompositions[];

}  // namespace wideload::tokenizer
