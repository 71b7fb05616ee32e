#include "jinja/template.h"

#include "base/error.h"
#include "jinja/ast.h"
#include "jinja/interpreter.h"

namespace wideload::jinja {

Template::Template(std::string_view text, std::string source)
    : source_(std::move(source)), text_(text) {
  if (text.size() > kMaxBytes)
    Throw(ErrorKind::kUnsupported, "{}: the template has {} bytes; at most {} are supported",
          source_, text.size(), kMaxBytes);
  program_ = std::make_shared<const Program>(ParseTemplate(text, source_));
}

MarkedText Template::Render(const std::vector<std::pair<std::string, Value>>& variables,
                            const RenderOptions& options) const {
  return Interpreter(*program_, source_, options).Run(variables);
}

}  // namespace wideload::jinja
