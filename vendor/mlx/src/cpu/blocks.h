// ggml's blocks by their type.
#pragma once

#include "cpu/grid_blocks.h"
#include "cpu/plain_blocks.h"

namespace mlxlm::cpu::MLXLM_ISA {

// Calls `body` with the type's struct.
template <class Body>
inline void with_blocks(BlockType type, Body&& body) {
  switch (type) {
    case BlockType::q4_0:
      return body(Simple<4, false>());
    case BlockType::q4_1:
      return body(Simple<4, true>());
    case BlockType::q5_0:
      return body(Simple<5, false>());
    case BlockType::q5_1:
      return body(Simple<5, true>());
    case BlockType::q8_0:
      return body(Q8_0());
    case BlockType::q2_k:
      return body(Q2K());
    case BlockType::q3_k:
      return body(Q3K());
    case BlockType::q4_k:
      return body(Q4K());
    case BlockType::q5_k:
      return body(Q5K());
    case BlockType::q6_k:
      return body(Q6K());
    case BlockType::q8_k:
      return body(Q8K());
    case BlockType::iq2_xxs:
      return body(IQ2XXS());
    case BlockType::iq2_xs:
      return body(IQ2XS());
    case BlockType::iq3_xxs:
      return body(IQ3XXS());
    case BlockType::iq1_s:
      return body(IQ1S());
    case BlockType::iq4_nl:
      return body(IQ4NL());
    case BlockType::iq3_s:
      return body(IQ3S());
    case BlockType::iq2_s:
      return body(IQ2S());
    case BlockType::iq4_xs:
      return body(IQ4XS());
    case BlockType::iq1_m:
      return body(IQ1M());
    case BlockType::tq1_0:
      return body(TQ1());
    case BlockType::tq2_0:
      return body(TQ2());
    case BlockType::mxfp4:
      return body(Mxfp4Block());
    case BlockType::nvfp4:
      return body(Nvfp4Block());
    case BlockType::q1_0:
      return body(Q1_0());
    case BlockType::q2_0:
      return body(Q2_0());
  }
}

} // namespace mlxlm::cpu::MLXLM_ISA
