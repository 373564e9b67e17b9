// What the LoRA kernels share: operands, tensor-core products of 16 x 8 x 16, the mask of eight elements.
#define NT (RANK / 8)
#define KS (RANK / 16)

// One adapted projection's operands in a launch that serves several (q, k and v, or gate and up): fewer and fuller launches.
// ldx: elements from one row of x (in up: of y) to the next. tail: column of x that also takes y, or -1.
struct Part { T* x; const float* m; const T* z; T* y; float* out; int n, transposed; float scale; int drop, ldx, tail; Mask mask; };
// Parameters are picked by a number known at run time: __grid_constant__ keeps them in constant memory, where a plain parameter would be
// copied to every thread's own memory first.
struct Parts { Part part[6]; };

DEV void mma16816(float* c, const u32* a, u32 b0, u32 b1)
{
#if ACT == 1
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
#endif
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

DEV u32 pair(float lo, float hi)
{
    u32 r;
#if ACT == 1
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
#endif
    return r;
}

// Clears the dropped ones of eight packed elements; 1 / (1 - p) goes into the product's scale.
DEV void drop8(V4& v, u64 index, const Mask& mask)
{
    u32 k[4];
    mask_words(mask, index >> 3, k);
    v.x &= k[0]; v.y &= k[1]; v.z &= k[2]; v.w &= k[3];
}
