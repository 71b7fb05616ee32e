// Where the model that comes with the program lies.
#pragma once

#include <string>

namespace wideload::apps {

// The folder of the embedded model wideload-14m: beside an installed program, else in the source
// folder of the build. Errors: kNotFound, naming the places tried.
std::string EmbeddedModelFolder();

}  // namespace wideload::apps
