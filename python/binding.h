// The parts of the module wideload_eplb._core that have a file of their own. Called once, when the
// module is imported.
#pragma once

#include <nanobind/nanobind.h>

namespace wideload::python {

void BindSimulate(nanobind::module_& m);
void BindRepair(nanobind::module_& m);

}  // namespace wideload::python
