// The device of a program that tests engines on one: one of two files of the program says which.
#pragma once

#include <string>

namespace wideload::testing_support {

// Opens it, for TheDevice() of test_engine.h, unless it is open. Returns why there is none, or "".
std::string OpenTestDevice();

}  // namespace wideload::testing_support
