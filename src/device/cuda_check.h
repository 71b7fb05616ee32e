// Errors of the CUDA runtime as errors of this program.
#pragma once

namespace wideload::device {

// Throws Error(kRunFailed) naming `call` and the runtime's text unless `result`, a cudaError_t, is
// cudaSuccess.
void CheckCuda(int result, const char* call);

}  // namespace wideload::device
