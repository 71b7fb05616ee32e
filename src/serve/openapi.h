// The OpenAPI 3.1 description of the server, made from the table of fields. Pure.
#pragma once

#include <string>

#include "base/json.h"

namespace wideload::serve {

// `version` of the program.
Json OpenApiDocument(const std::string& version);

}  // namespace wideload::serve
