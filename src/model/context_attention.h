// Attention over caches that each have a part of the context: the ranks of a context-parallel group
// divide the blocks of their sequences and the rows of the batch. The bits are those of one rank.
// Stateless, so thread-safe.
#pragma once

#include "model/model.h"

namespace wideload::model {

// What this rank has projected of its rows [T]: q [T, q_heads * key_dim], k [T, kv_heads * key_dim]
// and v [T, kv_heads * value_dim], or empty where values are the beginning of their keys. F32; rows
// may be strided.
struct ProjectedRows {
  TensorView q;
  TensorView k;
  TensorView v;
};

// Stores keys and values in layer `layer` of the caches that they belong to, then y = attention of
// q. y [T, q_heads * value_dim] activations (rows may be strided). Collective over rank.context.
// Errors: comm::PeerLost.
void Attend(const RankContext& rank, const Batch& batch, int64_t layer,
            const compute::AttentionShape& shape, const ProjectedRows& rows, const TensorView& y);

}  // namespace wideload::model
