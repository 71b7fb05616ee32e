#include <algorithm>

#include "compute/dispatch.h"
#include "compute/ops.h"
#include "compute/weight_format.h"

namespace wideload::compute {
namespace {

// How one product [rows, k] x [k, groups of columns] is cut into tasks. No cut changes a bit,
// since every dot product stays whole.
struct GemmCut {
  int64_t rows_per_task = 0;
  int64_t groups_per_task = 0;
  int64_t row_tasks = 0;
  int64_t group_tasks = 0;
  int64_t num_tasks() const { return row_tasks * group_tasks; }
};

// How many tasks the threads want, so that those that are done first find more.
int64_t WantedTasks(const Exec& exec) {
  constexpr int64_t kPerThread = 4;
  return kPerThread * (exec.pool != nullptr ? exec.pool->num_threads() : 1);
}

// Tasks are small enough that even one row's product feeds several threads, and whole steps of the
// widest micro-kernel. Those of many rows are wider where tasks stay as many as wanted: a kernel
// brings rows into its own form once for all columns of a task.
GemmCut CutGemm(const Kernels& kernels, int64_t rows, int64_t groups, int64_t group_bytes,
                int64_t wanted_tasks) {
  constexpr int64_t kTaskWeightBytes = int64_t{64} << 10;
  constexpr int64_t kGroupStep = 8;
  constexpr int64_t kManyRows = 8;
  const auto round_up = [](int64_t n) { return CeilDiv(n, kGroupStep) * kGroupStep; };
  GemmCut cut;
  cut.rows_per_task = kTaskRows;
  cut.row_tasks = CeilDiv(rows, cut.rows_per_task);
  int64_t most_groups = std::max(kGroupStep, kTaskWeightBytes / group_bytes);
  if (rows >= kManyRows) {
    const int64_t wanted_groups = groups / CeilDiv(wanted_tasks, cut.row_tasks);
    most_groups = std::max(most_groups, std::min(kernels.wide_task_groups, wanted_groups));
  }
  cut.groups_per_task = round_up(CeilDiv(groups, CeilDiv(groups, most_groups)));
  cut.group_tasks = CeilDiv(groups, cut.groups_per_task);
  return cut;
}

// Row blocks of the same columns follow each other, so that weights are read from memory once.
GemmTile TileOf(const GemmCut& cut, int64_t task, int64_t rows, int64_t groups) {
  const int64_t row_task = task % cut.row_tasks;
  const int64_t group_task = task / cut.row_tasks;
  return {.row_begin = row_task * cut.rows_per_task,
          .row_end = std::min(rows, (row_task + 1) * cut.rows_per_task),
          .group_begin = group_task * cut.groups_per_task,
          .group_end = std::min(groups, (group_task + 1) * cut.groups_per_task),
          .next = nullptr};
}

// The task that the thread of `task` does next, if all take equally long.
int64_t TaskAfter(const Exec& exec, int64_t task) {
  return task + (exec.pool != nullptr ? exec.pool->num_threads() : 1);
}

static_assert(kNumGemms == kNumWeightFormats && static_cast<int>(WeightFormat::kF32) == kF32Gemm &&
              static_cast<int>(WeightFormat::kBF16) == kBf16Gemm &&
              static_cast<int>(WeightFormat::kFp8) == kFp8Gemm &&
              static_cast<int>(WeightFormat::kInt4) == kInt4Gemm &&
              static_cast<int>(WeightFormat::kMxfp4) == kMxfp4Gemm);

// Bytes of the weights behind one group of y's columns.
int64_t YGroupBytes(const PackedShape& w) {
  return GroupBytes(w.format, w.k) * (w.gate_up ? 2 : 1);
}

auto GemmOf(const PackedShape& w) {
  return KernelsOf(w.kernels).gemm[static_cast<size_t>(w.format)];
}

// The product of a device's set for weights of this format.
auto DeviceGemmOf(const Exec& exec, const char* op, WeightFormat format) {
  WIDELOAD_CHECK(!IsBlockScaled(format), "{}: {} weights are not among what {} multiplies", op,
                 WeightFormatName(format), KernelSetName(exec.kernels));
  return OnDevice(
      exec, op,
      format == WeightFormat::kF32 ? &cuda::Kernels::gemm_f32 : &cuda::Kernels::gemm_bf16);
}

cuda::GemmShape ShapeOf(const GemmArgs& args) {
  return {.group_bytes = args.group_bytes,
          .n = args.n,
          .k = args.k,
          .epilogue = args.epilogue,
          .activation = args.activation};
}

cuda::GemmProduct ProductOf(const GemmArgs& args, int64_t rows) {
  return {.x = args.x, .y = args.y, .weights = args.weights, .bias = args.bias, .rows = rows};
}

void RunGemm(const Exec& exec, const char* op, const PackedMatrix& w, int64_t rows,
             const GemmArgs& args) {
  if (rows == 0) return;
  if (IsOnDevice(exec.kernels)) {
    const cuda::GemmProduct product = ProductOf(args, rows);
    return DeviceGemmOf(exec, op, w.format())(*exec.stream,
                                              {.shape = ShapeOf(args), .products = {&product, 1}});
  }
  const auto gemm = GemmOf(w.shape());
  const int64_t groups = CeilDiv(args.n, kGroupColumns);
  const GemmCut cut =
      CutGemm(KernelsOf(w.kernels()), rows, groups, YGroupBytes(w.shape()), WantedTasks(exec));
  const int64_t y_group_bytes = YGroupBytes(w.shape());
  RunTasks(exec, cut.num_tasks(), rows * w.n() * w.k(), [&](int64_t task, int) {
    GemmTile tile = TileOf(cut, task, rows, groups);
    const int64_t after = TaskAfter(exec, task);
    if (after < cut.num_tasks())
      tile.next = args.weights + TileOf(cut, after, rows, groups).group_begin * y_group_bytes;
    gemm(args, tile);
  });
}

void CheckKernels(const char* op, const Exec& exec, const PackedMatrix& w) {
  WIDELOAD_CHECK(w.kernels() == exec.kernels, "{}: weights are packed for {}, kernels are {}", op,
                 KernelSetName(w.kernels()), KernelSetName(exec.kernels));
}

void CheckInput(const char* op, const Exec& exec, const TensorView& x, const PackedMatrix& w) {
  CheckKernels(op, exec, w);
  CheckMatrix(op, "x", x, InputDType(exec.kernels, w.format()), {x.dim(0), w.k()});
}

GemmEpilogue StoreAs(DType dtype, const Exec& exec, bool accumulate) {
  if (accumulate) return GemmEpilogue::kAdd;
  const bool rounds = dtype == exec.precision().activations;
  return rounds ? GemmEpilogue::kRound : GemmEpilogue::kStore;
}

// One expert's rows.
struct GroupRows {
  const ExpertGroup* group = nullptr;
  int64_t first_row = 0;  // in the scratch of activations
  int64_t rows = 0;
};

// And where its tasks begin in each of the two products.
struct BusyGroup {
  GroupRows of;
  GemmCut cut;
  int64_t first_task = 0;
};

const BusyGroup& GroupOfTask(std::span<const BusyGroup> busy, int64_t task) {
  const auto after =
      std::upper_bound(busy.begin(), busy.end(), task,
                       [](int64_t t, const BusyGroup& group) { return t < group.first_task; });
  return *(after - 1);
}

// Cuts every busy group's product and returns the number of tasks.
int64_t CutGroups(const Exec& exec, std::span<BusyGroup> busy, int64_t groups,
                  int64_t group_bytes) {
  const Kernels& kernels = KernelsOf(exec.kernels);
  const int64_t wanted_of_each = CeilDiv(WantedTasks(exec), std::ssize(busy));
  int64_t num_tasks = 0;
  for (BusyGroup& b : busy) {
    b.cut = CutGemm(kernels, b.of.rows, groups, group_bytes, wanted_of_each);
    b.first_task = num_tasks;
    num_tasks += b.cut.num_tasks();
  }
  return num_tasks;
}

void CheckGroup(const Exec& exec, const ExpertGroup& group, const ExpertShape& first) {
  WIDELOAD_CHECK(group.weights != nullptr && group.y_rows.size() == group.x_rows.size(),
                 "ExpertMlp: {} rows in, {} rows out, weights {}", group.x_rows.size(),
                 group.y_rows.size(), group.weights != nullptr ? "given" : "missing");
  const ExpertShape& shape = group.weights->shape();
  WIDELOAD_CHECK(shape == first && shape.kernels == exec.kernels && shape.hidden > 0,
                 "ExpertMlp: {} expert [{}, {}] for {} among experts {} [{}, {}]",
                 WeightFormatName(shape.format), shape.inner, shape.hidden,
                 KernelSetName(shape.kernels), WeightFormatName(first.format), first.inner,
                 first.hidden);
}

// What groups have together.
struct Experts {
  int64_t num_rows = 0;
  int64_t num_busy = 0;  // groups with rows
  ExpertShape shape;
};

Experts CheckGroups(const Exec& exec, std::span<const ExpertGroup> groups) {
  Experts experts;
  for (const ExpertGroup& group : groups) {
    if (group.x_rows.empty()) continue;
    if (experts.num_busy++ == 0 && group.weights != nullptr) experts.shape = group.weights->shape();
    CheckGroup(exec, group, experts.shape);
    experts.num_rows += std::ssize(group.x_rows);
  }
  return experts;
}

// Calls visit(GroupRows) for each group that has rows.
template <class Visit>
void ForEachBusy(std::span<const ExpertGroup> groups, Visit visit) {
  GroupRows at;
  for (const ExpertGroup& group : groups) {
    if (group.x_rows.empty()) continue;
    at = {.group = &group, .first_row = at.first_row + at.rows, .rows = std::ssize(group.x_rows)};
    visit(at);
  }
}

// The product of a group's rows, `x_rows`, with gate and up.
GemmArgs GateUpArgs(const GroupRows& of, const std::byte* const* x_rows,
                    const GatedActivation& activation, const TensorView& gated) {
  const PackedMatrix& w = of.group->weights->gate_up();
  return {.x = {.pointers = x_rows},
          .y = WriteRows(gated.Rows(of.first_row, of.rows)),
          .weights = w.data(),
          .group_bytes = GroupBytes(w.format(), w.k()),
          .bias = w.bias(),
          .n = w.n() / 2,
          .k = w.k(),
          .epilogue = GemmEpilogue::kGated,
          .activation = activation};
}

// That of its activations with down, to `y_rows`.
GemmArgs DownArgs(const GroupRows& of, std::byte* const* y_rows, const TensorView& gated) {
  const PackedMatrix& w = of.group->weights->down();
  return {.x = ReadRows(gated.Rows(of.first_row, of.rows)),
          .y = {.pointers = y_rows},
          .weights = w.data(),
          .group_bytes = GroupBytes(w.format(), w.k()),
          .bias = w.bias(),
          .n = w.n(),
          .k = w.k(),
          .epilogue = GemmEpilogue::kRound,
          .activation = {}};
}

// One of the two products of all groups, to `columns` of each row.
template <class ArgsOf>
void RunExperts(const Exec& exec, const Experts& experts, std::span<const ExpertGroup> groups,
                Workspace& workspace, const PackedShape& matrix, ArgsOf args_of) {
  const std::span<BusyGroup> busy = workspace.Take<BusyGroup>(experts.num_busy);
  size_t num_busy = 0;
  ForEachBusy(groups, [&](const GroupRows& of) {
    busy[num_busy++] = {.of = of, .cut = {}, .first_task = 0};
  });
  const int64_t columns = matrix.gate_up ? matrix.n / 2 : matrix.n;
  const auto gemm = GemmOf(matrix);
  const int64_t column_groups = CeilDiv(columns, kGroupColumns);
  const int64_t num_tasks = CutGroups(exec, busy, column_groups, YGroupBytes(matrix));
  RunTasks(exec, num_tasks, experts.num_rows * columns * matrix.k, [&](int64_t task, int) {
    const auto tile_of = [&](const BusyGroup& b, int64_t t) {
      return TileOf(b.cut, t - b.first_task, b.of.rows, column_groups);
    };
    const BusyGroup& b = GroupOfTask(busy, task);
    GemmTile tile = tile_of(b, task);
    const int64_t after = TaskAfter(exec, task);
    if (after < num_tasks) {
      const BusyGroup& next = GroupOfTask(busy, after);
      tile.next = args_of(next.of).weights + tile_of(next, after).group_begin * YGroupBytes(matrix);
    }
    gemm(args_of(b.of), tile);
  });
}

// The same on a device. Pointers are those of rows_of(group), of which args_of gets the device's
// copy.
template <class Pointer, class RowsOf, class ArgsOf>
void RunExpertsOnDevice(const Exec& exec, const Experts& experts,
                        std::span<const ExpertGroup> groups, RowsOf rows_of, ArgsOf args_of) {
  const auto gemm = DeviceGemmOf(exec, "ExpertMlp", experts.shape.format);
  const auto pointers = exec.stream->Stage<Pointer>(experts.num_rows);
  const auto products = exec.stream->Stage<cuda::GemmProduct>(experts.num_busy);
  size_t num_busy = 0;
  GemmArgs args;
  ForEachBusy(groups, [&](const GroupRows& of) {
    std::ranges::copy(rows_of(*of.group), pointers.host.data() + of.first_row);
    args = args_of(of, pointers.device + of.first_row);
    products.host[num_busy++] = ProductOf(args, of.rows);
  });
  exec.stream->Send(pointers);
  exec.stream->Send(products);
  gemm(*exec.stream,
       {.shape = ShapeOf(args), .products = products.host, .device_products = products.device});
}

}  // namespace

void MatMul(const Exec& exec, const TensorView& x, const PackedMatrix& w, const TensorView& y,
            bool accumulate) {
  CheckInput("MatMul", exec, x, w);
  WIDELOAD_CHECK(!w.gate_up(), "MatMul: gate and up weights go to MatMulGated");
  CheckOutput("MatMul", exec, y, {x.dim(0), w.n()});
  WIDELOAD_CHECK(!accumulate || y.dtype() == DType::kF32, "MatMul: adding to {}",
                 DTypeName(y.dtype()));
  RunGemm(exec, "MatMul", w, x.dim(0),
          {.x = ReadRows(x),
           .y = WriteRows(y),
           .weights = w.data(),
           .group_bytes = GroupBytes(w.format(), w.k()),
           .bias = w.bias(),
           .n = w.n(),
           .k = w.k(),
           .epilogue = StoreAs(y.dtype(), exec, accumulate),
           .activation = {}});
}

void MatMulHeads(const Exec& exec, const HeadPart& x, std::span<const PackedMatrix> w,
                 const HeadPart& y) {
  const HeadRuns from = CheckHeads("MatMulHeads", x);
  const HeadRuns to = CheckHeads("MatMulHeads", y);
  const auto heads = static_cast<int64_t>(w.size());
  WIDELOAD_CHECK(heads == from.heads && heads == to.heads && heads > 0,
                 "MatMulHeads: {} matrices for {} heads to {}", heads, from.heads, to.heads);
  const PackedShape& shape = w[0].shape();
  for (const PackedMatrix& head : w) {
    CheckKernels("MatMulHeads", exec, head);
    WIDELOAD_CHECK(
        head.shape() == shape && !shape.gate_up && shape.k == from.width && shape.n == to.width,
        "MatMulHeads: [{}, {}] for heads of {} to {}", head.n(), head.k(), from.width, to.width);
  }
  const int64_t rows = x.rows.dim(0);
  CheckMatrix("MatMulHeads", "x", x.rows, InputDType(exec.kernels, shape.format), x.rows.shape());
  CheckOutput("MatMulHeads", exec, y.rows, {rows, y.rows.dim(1)});
  if (rows == 0) return;
  const auto args_of = [&](int64_t h) {
    InRows head_x = ReadHeads(x);
    OutRows head_y = WriteHeads(y);
    head_x.base += h * from.stride * DTypeBytes(x.rows.dtype());
    head_y.base += h * to.stride * DTypeBytes(y.rows.dtype());
    const PackedMatrix& matrix = w[static_cast<size_t>(h)];
    return GemmArgs{.x = head_x,
                    .y = head_y,
                    .weights = matrix.data(),
                    .group_bytes = GroupBytes(shape.format, shape.k),
                    .bias = matrix.bias(),
                    .n = shape.n,
                    .k = shape.k,
                    .epilogue = StoreAs(y.rows.dtype(), exec, false),
                    .activation = {}};
  };
  if (IsOnDevice(exec.kernels)) {
    const auto device_gemm = DeviceGemmOf(exec, "MatMulHeads", shape.format);
    const auto products = exec.stream->Stage<cuda::GemmProduct>(heads);
    for (int64_t h = 0; h < heads; ++h)
      products.host[static_cast<size_t>(h)] = ProductOf(args_of(h), rows);
    exec.stream->Send(products);
    return device_gemm(*exec.stream, {.shape = ShapeOf(args_of(0)),
                                      .products = products.host,
                                      .device_products = products.device});
  }
  const auto gemm = GemmOf(shape);
  const int64_t groups = CeilDiv(shape.n, kGroupColumns);
  const GemmCut cut = CutGemm(KernelsOf(shape.kernels), rows, groups, YGroupBytes(shape),
                              CeilDiv(WantedTasks(exec), heads));
  RunTasks(exec, heads * cut.num_tasks(), heads * rows * shape.n * shape.k, [&](int64_t task, int) {
    gemm(args_of(task / cut.num_tasks()), TileOf(cut, task % cut.num_tasks(), rows, groups));
  });
}

void MatMulGated(const Exec& exec, const TensorView& x, const PackedMatrix& w,
                 const GatedActivation& activation, const TensorView& y) {
  CheckInput("MatMulGated", exec, x, w);
  WIDELOAD_CHECK(w.gate_up(), "MatMulGated: weights are not gate and up");
  CheckMatrix("MatMulGated", "y", y, exec.precision().activations, {x.dim(0), w.n() / 2});
  RunGemm(exec, "MatMulGated", w, x.dim(0),
          {.x = ReadRows(x),
           .y = WriteRows(y),
           .weights = w.data(),
           .group_bytes = GroupBytes(w.format(), w.k()),
           .bias = w.bias(),
           .n = w.n() / 2,
           .k = w.k(),
           .epilogue = GemmEpilogue::kGated,
           .activation = activation});
}

void ExpertGateUp(const Exec& exec, std::span<const ExpertGroup> groups,
                  const GatedActivation& activation, Workspace& workspace,
                  const TensorView& gated) {
  const Experts experts = CheckGroups(exec, groups);
  if (experts.num_rows == 0) return;
  const ExpertShape& shape = experts.shape;
  WIDELOAD_CHECK(InputDType(shape.kernels, shape.format) == exec.precision().activations,
                 "ExpertGateUp: experts in {}", WeightFormatName(shape.format));
  CheckMatrix("ExpertGateUp", "gated", gated, exec.precision().activations,
              {experts.num_rows, shape.own_inner()});
  if (IsOnDevice(exec.kernels)) {
    return RunExpertsOnDevice<const std::byte*>(
        exec, experts, groups, [](const ExpertGroup& group) { return group.x_rows; },
        [&](const GroupRows& of, const std::byte* const* x_rows) {
          return GateUpArgs(of, x_rows, activation, gated);
        });
  }
  RunExperts(exec, experts, groups, workspace, shape.gate_up(), [&](const GroupRows& of) {
    return GateUpArgs(of, of.group->x_rows.data(), activation, gated);
  });
}

void ExpertDown(const Exec& exec, std::span<const ExpertGroup> groups, Workspace& workspace,
                const TensorView& gated) {
  const Experts experts = CheckGroups(exec, groups);
  if (experts.num_rows == 0) return;
  const ExpertShape& shape = experts.shape;
  CheckMatrix("ExpertDown", "gated", gated, exec.precision().activations,
              {experts.num_rows, shape.inner});
  if (IsOnDevice(exec.kernels)) {
    return RunExpertsOnDevice<std::byte*>(
        exec, experts, groups, [](const ExpertGroup& group) { return group.y_rows; },
        [&](const GroupRows& of, std::byte* const* y_rows) { return DownArgs(of, y_rows, gated); });
  }
  RunExperts(exec, experts, groups, workspace, shape.down(),
             [&](const GroupRows& of) { return DownArgs(of, of.group->y_rows.data(), gated); });
}

void ExpertMlp(const Exec& exec, std::span<const ExpertGroup> groups,
               const GatedActivation& activation, Workspace& workspace) {
  int64_t rows = 0;
  const ExpertWeights* weights = nullptr;
  for (const ExpertGroup& group : groups) {
    rows += std::ssize(group.x_rows);
    if (!group.x_rows.empty()) weights = group.weights;
  }
  if (rows == 0) return;
  WIDELOAD_CHECK(weights != nullptr && weights->shape().own_inner() == weights->shape().inner &&
                     weights->shape().own_hidden() == weights->shape().hidden,
                 "ExpertMlp: {} rows for parts of experts, or for none", rows);
  const TensorView gated =
      workspace.TakeTensor(exec.precision().activations, {rows, weights->shape().inner});
  ExpertGateUp(exec, groups, activation, workspace, gated);
  ExpertDown(exec, groups, workspace, gated);
}

}  // namespace wideload::compute
