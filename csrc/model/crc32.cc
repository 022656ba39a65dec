// crc32.cc: CRC-32 by tables, eight bytes at a time (slicing-by-8, Kounavis and Berry 2005), or 64
// bytes at a time by carry-less multiplication where the processor has it (Gopal et al., 2009); and
// how two are combined, by multiplication with x^(8n) modulo the polynomial: pieces can be summed
// in parallel. Trap: numbers are reflected, so bit 31 of a remainder is x^0.
#include <array>
#include <cstring>

#include "model/weights.h"
#include "platform/cpu_features.h"

namespace polylm {
namespace {

constexpr uint32_t kPolynomial = 0xEDB88320u;
using Table = std::array<std::array<uint32_t, 256>, 8>;

constexpr Table make_table() {
  Table t{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1u) != 0 ? kPolynomial ^ (c >> 1) : c >> 1;
    t[0][i] = c;
  }
  for (size_t slice = 1; slice < 8; ++slice) {
    for (size_t i = 0; i < 256; ++i) {
      const uint32_t c = t[slice - 1][i];
      t[slice][i] = t[0][c & 255u] ^ (c >> 8);
    }
  }
  return t;
}
constexpr Table kTable = make_table();

// a * b modulo the polynomial; bit 31 is x^0 (reflected).
constexpr uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    if ((a & bit) != 0) product ^= b;
    b = (b & 1u) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

#if defined(__x86_64__)
// x^n modulo the polynomial, as a factor of a carry-less product: those of reflected numbers come
// out one bit too low.
constexpr uint64_t factor(int64_t n) {
  uint32_t power = 0x40000000u;  // x
  uint32_t f = 0x80000000u;      // 1
  for (; n > 0; n >>= 1) {
    if ((n & 1) != 0) f = multiply(f, power);
    power = multiply(power, power);
  }
  return static_cast<uint64_t>(f) << 1;
}

using Halves = uint64_t __attribute__((vector_size(16)));

// Products of the low halves, or of the high halves. Assembly, so that only a processor that was
// asked for it ever meets the instruction.
inline Halves multiply_low(Halves x, Halves by) {
  asm("pclmulqdq $0x00, %1, %0" : "+x"(x) : "x"(by));
  return x;
}
inline Halves multiply_high(Halves x, Halves by) {
  asm("pclmulqdq $0x11, %1, %0" : "+x"(x) : "x"(by));
  return x;
}

// x times x^Bits, plus next.
template <int64_t Bits>
inline Halves fold(Halves x, Halves next) {
  constexpr uint64_t kLow = factor(Bits + 32);
  constexpr uint64_t kHigh = factor(Bits - 32);
  const Halves by = {kLow, kHigh};
  return multiply_low(x, by) ^ multiply_high(x, by) ^ next;
}

inline Halves load_halves(const unsigned char* p) {
  Halves x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

// Sixteen bytes whose remainder is that of c and of `blocks` > 0 blocks of 64 bytes.
Halves fold_blocks(uint32_t c, const unsigned char* p, size_t blocks) {
  Halves x0 = load_halves(p) ^ Halves{c, 0};
  Halves x1 = load_halves(p + 16);
  Halves x2 = load_halves(p + 32);
  Halves x3 = load_halves(p + 48);
  for (size_t i = 1; i < blocks; ++i) {
    p += 64;
    x0 = fold<512>(x0, load_halves(p));
    x1 = fold<512>(x1, load_halves(p + 16));
    x2 = fold<512>(x2, load_halves(p + 32));
    x3 = fold<512>(x3, load_halves(p + 48));
  }
  return fold<128>(fold<128>(fold<128>(x0, x1), x2), x3);
}
#endif

uint32_t by_tables(uint32_t c, const unsigned char* p, size_t bytes) {
  for (; bytes >= 8; bytes -= 8, p += 8) {
    uint32_t lo;
    uint32_t hi;
    std::memcpy(&lo, p, 4);
    std::memcpy(&hi, p + 4, 4);
    lo ^= c;
    c = kTable[7][lo & 255u] ^ kTable[6][(lo >> 8) & 255u] ^ kTable[5][(lo >> 16) & 255u] ^
        kTable[4][lo >> 24] ^ kTable[3][hi & 255u] ^ kTable[2][(hi >> 8) & 255u] ^
        kTable[1][(hi >> 16) & 255u] ^ kTable[0][hi >> 24];
  }
  for (; bytes > 0; --bytes, ++p) c = kTable[0][(c ^ *p) & 255u] ^ (c >> 8);
  return c;
}

}  // namespace

uint32_t crc32_update(uint32_t crc, const void* data, size_t bytes) {
  const auto* p = static_cast<const unsigned char*>(data);
  uint32_t c = ~crc;
#if defined(__x86_64__)
  const size_t folded = bytes / 64 * 64;
  if (folded > 0 && cpu_features().clmul) {
    const Halves rest = fold_blocks(c, p, folded / 64);
    unsigned char bytes_of_rest[sizeof rest];
    std::memcpy(bytes_of_rest, &rest, sizeof rest);
    c = by_tables(0, bytes_of_rest, sizeof rest);
    p += folded;
    bytes -= folded;
  }
#endif
  return ~by_tables(c, p, bytes);
}

uint32_t crc32_combine(uint32_t crc_a, uint32_t crc_b, int64_t bytes_b) {
  uint32_t power = 0x00800000u;  // x^8: one byte of zeros
  uint32_t factor = 0x80000000u;  // x^0
  for (int64_t n = bytes_b; n > 0; n >>= 1) {
    if ((n & 1) != 0) factor = multiply(factor, power);
    power = multiply(power, power);
  }
  return multiply(factor, crc_a) ^ crc_b;
}

}  // namespace polylm
