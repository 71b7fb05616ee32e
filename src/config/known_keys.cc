#include "config/known_keys.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace wideload::config {
namespace {

constexpr KeyClass kNo = KeyClass::kNoEffect;
constexpr KeyClass kNotYet = KeyClass::kUnsupported;

// Sources: TensorRT-LLM's LLM-API options and what published recipes set.
constexpr KnownKey kKeys[] = {
    // parallelism
    {"moe_cluster_parallel_size", kNotYet, "tokens travel to the ranks of their experts alone",
     "1,-1"},
    {"cp_config", kNo, "the bits are those of one rank whatever is sent; blocks have 32 tokens", "",
     "cp_type,tokens_per_block,use_nccl_for_alltoall,fifo_version,cp_anchor_size,block_size"},
    {"gpus_per_node", kNo, "which ranks share a host is seen when they start"},
    {"enable_lm_head_tp_in_adp", kNotYet, "each rank computes the logits of its own requests",
     "false"},
    {"allreduce_strategy", kNo, "sums of ranks are made in a fixed order"},
    {"nvfp4_gemm_config", kNo, "chooses among kernels of GPUs; see --kernels", "",
     "allowed_backends"},
    // mixture of experts
    {"moe_config.backend", kNo, "chooses among kernels of GPUs; see --kernels"},
    {"moe_config.disable_finalize_fusion", kNo, "sums of experts are made in a fixed order"},
    {"moe_config.use_low_precision_moe_combine", kNotYet,
     "results of experts come back in the precision of the kernels", "false"},
    {"moe_config.load_balancer.initial_global_assignments", kNotYet,
     "the placement is contiguous; name the file with these keys as load_balancer instead", "",
     "*"},
    {"moe_config.load_balancer.mode", kNotYet, "plans are made from iterations before their own",
     "standard"},
    {"moe_config.load_balancer.auxiliary_sms", kNo, "there are no multiprocessors to set aside"},
    // KV cache
    {"kv_cache_config.dtype", kNotYet, "keys and values have the precision of the kernels", "auto"},
    {"kv_cache_config.enable_partial_reuse", kNotYet, "whole blocks of 32 tokens are reused",
     "false"},
    {"kv_cache_config.copy_on_partial_reuse", kNo,
     "whole blocks are shared, and nobody writes them"},
    {"kv_cache_config.event_buffer_max_size", kNotYet, "no events of the cache are kept", "0"},
    {"kv_cache_config.host_cache_size", kNo, "the cache lies in host memory"},
    {"kv_cache_config.max_tokens", kNotYet, "free_gpu_memory_fraction bounds the cache"},
    {"kv_cache_config.max_gpu_total_bytes", kNotYet, "free_gpu_memory_fraction bounds the cache",
     "0"},
    {"kv_cache_config.max_attention_window", kNotYet, "the model's own windows are used"},
    {"kv_cache_config.tokens_per_block", kNotYet, "blocks have a fixed size"},
    // how iterations run
    {"cuda_graph_config", kNo, "there are no CUDA graphs", "",
     "batch_sizes,max_batch_size,enable_padding"},
    {"torch_compile_config", kNo, "nothing is compiled at the start", "",
     "enable_fullgraph,enable_inductor,enable_piecewise_cuda_graph,capture_num_tokens,enable_"
     "userbuffers,max_num_streams"},
    {"attn_backend", kNo, "chooses among kernels of GPUs; see --kernels"},
    {"backend", kNo, "there is one engine"},
    {"disable_overlap_scheduler", kNo, "no device waits for the scheduler"},
    {"enable_chunked_prefill", kNo, "a prompt longer than max_num_tokens is computed in pieces"},
    {"enable_autotuner", kNo, "kernels are not tuned at the start"},
    {"enable_min_latency", kNo, "chooses among kernels of GPUs; see --kernels"},
    {"enable_layerwise_nvtx_marker", kNo, "marks ranges for a profiler of GPUs"},
    {"garbage_collection_gen0_threshold", kNo, "no memory is collected"},
    {"scheduler_config", kNotYet, "requests run in the order they came", "",
     "capacity_scheduler_policy,context_chunking_policy,dynamic_batch_config,waiting_queue_policy"},
    {"speculative_config", kNotYet, "one token per request and iteration", "",
     "decoding_type,max_draft_len,speculative_model_dir,speculative_model,num_nextn_predict_layers,"
     "use_relaxed_acceptance_for_thinking,relaxed_topk,relaxed_delta,use_mtp_vanilla,eagle3_one_"
     "model,max_concurrency,max_matching_ngram_size,max_window_size,max_verification_set_size,is_"
     "keep_all,is_use_oldest,is_public_pool"},
    {"max_beam_width", kNotYet, "one continuation per request", "1"},
    {"max_input_len", kNotYet, "max_seq_len bounds prompt and answer together"},
    {"batch_wait_timeout_ms", kNotYet, "no iteration waits for more requests", "0"},
    {"sampler_type", kNo, "there is one sampler"},
    {"disable_flashinfer_sampling", kNo, "there is one sampler"},
    {"guided_decoding_backend", kNo, "there is one way to hold an answer to a form"},
    {"cache_transceiver_config", kNo,
     "no keys and values travel here; between the sides of serve disaggregated they do", "",
     "backend,max_tokens_in_buffer,kv_transfer_timeout_ms,kv_transfer_sender_future_timeout_ms"},
    {"kv_connector_config", kNotYet, "no keys and values travel", "",
     "connector_module,connector_scheduler_class,connector_worker_class"},
    // the model
    {"tokenizer", kNotYet, "the tokenizer of the model's folder is used"},
    {"tokenizer_mode", kNotYet, "the tokenizer of the model's folder is used", "auto"},
    {"skip_tokenizer_init", kNotYet, "the tokenizer of the model's folder is used", "false"},
    {"dtype", kNotYet, "numbers have the precision of the kernels", "auto"},
    {"revision", kNotYet, "the model's folder is used as it is"},
    {"trust_remote_code", kNo, "no code of a checkpoint is ever run"},
    {"load_format", kNotYet, "the safetensors files of the folder are read", "auto,AUTO"},
    {"quant_config", kNotYet, "weights are used as the checkpoint has them", "",
     "quant_algo,kv_cache_quant_algo,group_size,smoothquant_val,clamp_val,use_meta_recipe,has_zero_"
     "point,pre_quant_scale,exclude_modules"},
    {"enable_lora", kNotYet, "no adapters are applied", "false"},
    {"lora_config", kNotYet, "no adapters are applied", "",
     "lora_dir,lora_ckpt_source,max_lora_rank,lora_target_modules,trtllm_modules_to_hf_modules,max_"
     "loras,max_cpu_loras"},
    {"peft_cache_config", kNotYet, "no adapters are applied", "",
     "num_host_module_layer,num_device_module_layer,optimal_adapter_size,max_adapter_size,num_put_"
     "workers,num_ensure_workers,num_copy_streams,max_pages_per_block_host,max_pages_per_block_"
     "device,device_cache_percent,host_cache_size"},
    // what is told and served
    {"enable_iter_perf_stats", kNotYet, "no statistics of iterations are kept", "false"},
    {"enable_iter_req_stats", kNotYet, "no statistics of iterations are kept", "false"},
    {"iter_stats_max_iterations", kNo, "no statistics of iterations are kept"},
    {"request_stats_max_iterations", kNo, "no statistics of iterations are kept"},
    {"return_perf_metrics", kNotYet, "no metrics of single requests are kept", "false"},
    {"perf_metrics_max_requests", kNotYet, "no metrics of single requests are kept", "0"},
    {"num_postprocess_workers", kNo, "rank 0 turns tokens into text"},
    {"postprocess_tokenizer_dir", kNo, "rank 0 turns tokens into text"},
    {"stream_interval", kNo, "text is shown token by token"},
    {"reasoning_parser", kNotYet, "text is shown as the model writes it"},
    {"otlp_traces_endpoint", kNotYet, "no traces are sent"},
};

struct OldSpelling {
  std::string_view old_key, key;
};
constexpr OldSpelling kOldSpellings[] = {
    {"moe_max_num_tokens", "moe_config.max_num_tokens"},
    {"moe_load_balancer", "moe_config.load_balancer"},
    {"moe_backend", "moe_config.backend"},
    {"use_cuda_graph", "cuda_graph_config"},
    {"cuda_graph_batch_sizes", "cuda_graph_config.batch_sizes"},
    {"cuda_graph_max_batch_size", "cuda_graph_config.max_batch_size"},
    {"cuda_graph_padding_enabled", "cuda_graph_config.enable_padding"},
    {"kv_cache_dtype", "kv_cache_config.dtype"},
    {"moe_cluster_size", "moe_cluster_parallel_size"},
};
constexpr std::string_view kOldSection = "pytorch_backend_config.";

// The part behind the last dot.
std::string_view Leaf(std::string_view key) { return key.substr(key.rfind('.') + 1); }

// Every key that a file can set, whole.
const std::vector<std::string>& AllKeys() {
  static const std::vector<std::string> keys = [] {
    std::vector<std::string> all;
    for (const OptionRow& row : OptionTable())
      if (std::string key = KeyOf(row); !key.empty()) all.push_back(std::move(key));
    for (const KnownKey& known : kKeys) {
      all.emplace_back(known.key);
      for (const std::string_view below : CommaWords(known.below))
        if (below != "*") all.push_back(fmt::format("{}.{}", known.key, below));
    }
    return all;
  }();
  return keys;
}

bool Covers(const KnownKey& known, std::string_view key) {
  if (key == known.key) return true;
  if (!key.starts_with(known.key) || key[known.key.size()] != '.') return false;
  const std::string_view below = key.substr(known.key.size() + 1);
  const std::vector<std::string_view> words = CommaWords(known.below);
  return std::ranges::any_of(words, [&](auto word) { return word == "*" || word == below; });
}

}  // namespace

std::span<const KnownKey> KnownKeys() { return kKeys; }

std::string KeyOf(const OptionRow& row) {
  if (row.is_flag_only) return "";
  if (!row.trtllm_key.empty()) return std::string(row.trtllm_key);
  std::string key(LongName(row).substr(2));
  std::ranges::replace(key, '-', '_');
  return key;
}

const OptionRow* FindOptionOfKey(std::string_view key) {
  for (const OptionRow& row : OptionTable())
    if (!row.is_flag_only && KeyOf(row) == key) return &row;
  return nullptr;
}

const KnownKey* FindKnownKey(std::string_view key) {
  const auto* const found =
      std::ranges::find_if(kKeys, [&](const KnownKey& known) { return Covers(known, key); });
  return found == std::end(kKeys) ? nullptr : found;
}

bool IsSectionOfKeys(std::string_view key) {
  return std::ranges::any_of(AllKeys(), [&](const std::string& known) {
    return known.starts_with(key) && known.size() > key.size() && known[key.size()] == '.';
  });
}

std::string KeyOfOldSpelling(std::string_view key) {
  const bool is_in_section = key.starts_with(kOldSection);
  const std::string_view inner = is_in_section ? key.substr(kOldSection.size()) : key;
  for (const OldSpelling& old : kOldSpellings)
    if (inner == old.old_key) return std::string(old.key);
  return is_in_section ? std::string(inner) : "";
}

int EditDistance(std::string_view a, std::string_view b, int limit) {
  // between the first i letters of a and the first j of b, for the last three i
  std::vector<int> before_last(b.size() + 1), last(b.size() + 1), now(b.size() + 1);
  std::iota(last.begin(), last.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    now[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      now[j] =
          std::min({last[j] + 1, now[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = std::min(now[j], before_last[j - 2] + 1);
    }
    // what two rows have reached no later row goes below: a swap looks two back
    if (std::min(std::ranges::min(last), std::ranges::min(now)) >= limit) return limit;
    before_last.swap(last);
    last.swap(now);
  }
  return last[b.size()];
}

namespace {

// The key of the option that the command line calls so, dashed or not; "" when there is none.
std::string KeyOfFlag(std::string_view word) {
  std::string flag = "--" + std::string(word);
  std::ranges::replace(flag, '_', '-');
  for (const OptionRow& row : OptionTable())
    if (std::ranges::count(Spellings(row), flag) > 0) return KeyOf(row);
  return "";
}

}  // namespace

std::string NearestKey(std::string_view key) {
  constexpr size_t kMaxLetters = 100;  // longer ones are nobody's slip
  constexpr int kMisplaced = 2;        // a wrong level counts more than one letter
  const std::string_view word = key.substr(0, kMaxLetters);
  if (std::string known = KeyOfFlag(word); !known.empty()) return known;
  std::string nearest;
  int least = std::numeric_limits<int>::max();
  const auto distance_below = [](std::string_view a, std::string_view b, int limit) {
    const size_t more = std::max(a.size(), b.size()) - std::min(a.size(), b.size());
    return static_cast<int>(more) < limit ? EditDistance(a, b, limit) : limit;
  };
  for (const std::string& known : AllKeys()) {
    const int leaf = kMisplaced + distance_below(Leaf(word), Leaf(known), least - kMisplaced);
    const int distance = distance_below(word, known, std::min(leaf, least));
    if (distance >= least) continue;
    nearest = known;
    least = distance;
  }
  return nearest;
}

}  // namespace wideload::config
