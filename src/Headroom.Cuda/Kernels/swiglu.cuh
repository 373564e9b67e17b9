// SwiGLU and its gradient at one element. A result of 16 bits needs no more of 1 / (1 + e^-g) than the approximate reciprocal gives.
DEV float sigmoid(float g)
{
    float d = 1.f + EXP(-g);
#if ACT == KIND_F32
    return 1.f / d;
#else
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(d));
    return r;
#endif
}
DEV float silu(float g) { return g * sigmoid(g); }

// From the gradient d of silu(g) * u: those of g and u, and the value itself again.
DEV void swiglu_grad(float g, float u, float d, float& dg, float& du, float& y)
{
    float s = sigmoid(g), t = g * s;
    y = t * u;
    du = d * t;
    dg = d * u * (s + t * (1.f - s));
}
