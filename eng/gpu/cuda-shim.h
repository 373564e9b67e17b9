// What the run-time compiler predefines, for clang without CUDA headers (compile check only).
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __host__ __attribute__((host))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
struct ShimUint3 { unsigned x, y, z; };
__device__ inline ShimUint3 shim_tid() { return { (unsigned)__nvvm_read_ptx_sreg_tid_x(), (unsigned)__nvvm_read_ptx_sreg_tid_y(), (unsigned)__nvvm_read_ptx_sreg_tid_z() }; }
__device__ inline ShimUint3 shim_cta() { return { (unsigned)__nvvm_read_ptx_sreg_ctaid_x(), (unsigned)__nvvm_read_ptx_sreg_ctaid_y(), (unsigned)__nvvm_read_ptx_sreg_ctaid_z() }; }
__device__ inline ShimUint3 shim_ntid() { return { (unsigned)__nvvm_read_ptx_sreg_ntid_x(), (unsigned)__nvvm_read_ptx_sreg_ntid_y(), (unsigned)__nvvm_read_ptx_sreg_ntid_z() }; }
__device__ inline ShimUint3 shim_ncta() { return { (unsigned)__nvvm_read_ptx_sreg_nctaid_x(), (unsigned)__nvvm_read_ptx_sreg_nctaid_y(), (unsigned)__nvvm_read_ptx_sreg_nctaid_z() }; }
#define threadIdx shim_tid()
#define blockIdx shim_cta()
#define blockDim shim_ntid()
#define gridDim shim_ncta()
#define __syncthreads_or(x) __nvvm_bar0_or(x)
#define __syncwarp() __nvvm_bar_warp_sync(0xFFFFFFFFu)
__device__ inline float __shfl_xor_sync(unsigned m, float x, int d) { return __nvvm_shfl_sync_bfly_f32(m, x, d, 31); }
__device__ inline unsigned __shfl_sync(unsigned m, unsigned x, int from) { return (unsigned)__nvvm_shfl_sync_idx_i32(m, (int)x, from, 31); }
__device__ inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((unsigned long long)a * b) >> 32); }
__device__ inline void __threadfence() { __nvvm_membar_gl(); }
__device__ inline unsigned atomicInc(unsigned* p, unsigned most) { return __nvvm_atom_inc_gen_ui(p, most); }
__device__ inline float __uint_as_float(unsigned u) { return __builtin_bit_cast(float, u); }
__device__ inline unsigned __float_as_uint(float f) { return __builtin_bit_cast(unsigned, f); }
extern "C" {
__device__ float expf(float); __device__ float __expf(float); __device__ float logf(float); __device__ float sqrtf(float);
__device__ float exp2f(float); __device__ float fmaxf(float, float); __device__ float fminf(float, float); __device__ float fabsf(float);
__device__ float rintf(float); __device__ double sqrt(double); __device__ void sincos(double, double*, double*);
__device__ float __fmul_rn(float, float); __device__ float __fadd_rn(float, float); __device__ float __fsub_rn(float, float);
__device__ float __fdiv_rn(float, float); __device__ float __fsqrt_rn(float); __device__ float __fmaf_rn(float, float, float);
}
