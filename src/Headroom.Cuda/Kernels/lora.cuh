// What the LoRA kernels share: operands, the mask of eight elements.
#define NT (RANK / 8)
#define KS (RANK / 16)

// One adapted projection's operands in a launch that serves several (q, k and v, or gate and up): fewer and fuller launches.
// ldx: elements from one row of x (in up: of y) to the next. tail: column of x that also takes y, or -1.
struct Part { T* x; const float* m; const T* z; T* y; float* out; int n, transposed; float scale; int drop, ldx, tail; Mask mask; };
// Parameters are picked by a number known at run time: __grid_constant__ keeps them in constant memory, where a plain parameter would be
// copied to every thread's own memory first.
struct Parts { Part part[6]; };

// Clears the dropped ones of eight packed elements; 1 / (1 - p) goes into the product's scale.
DEV void drop8(V4& v, u64 index, const Mask& mask)
{
    u32 k[4];
    mask_words(mask, index >> 3, k);
    v.x &= k[0]; v.y &= k[1]; v.z &= k[2]; v.w &= k[3];
}
