namespace Headroom.Core;

/// <summary>
/// Inverted dropout without a stored mask: element (row, column) of site <paramref name="Site"/> is kept when
/// Philox4x32-10 with key = seed and counter = (index / 8, site, step) gives a 15-bit number &gt;=
/// <see cref="Threshold"/>, index = row * columns + column. A block of four words serves eight elements: word (index %
/// 8) / 2, the lower 15 bits of its low half for even indices and of its high half for odd ones (numbers that a GPU
/// compares two at a time, as halves of a float pair). Kept elements are multiplied by 1 / (1 - p).
/// </summary>
/// <param name="P">Probability of dropping, 0 = off.</param>
/// <param name="Seed">64-bit key.</param>
/// <param name="Step">Counter word: micro-step number.</param>
/// <param name="Site">Counter word: layer and projection.</param>
internal readonly record struct Dropout(float P, ulong Seed, uint Step, uint Site)
{
    /// <summary>Largest p: above it the compared numbers would be NaN.</summary>
    public const float MaxP = 0.96875f;
    /// <summary>p in steps of 2^-15, rounded up: a p of 0.1 drops 0.100006 of the elements.</summary>
    public uint Threshold => (uint)Math.Ceiling(Math.Min(P, MaxP) * 32768.0);
    /// <summary>Factor of a kept element, 1 / (1 - p).</summary>
    public float Keep => 1f / (1f - P);
}

/// <summary>
/// NEFTune (Jain et al., 2023, arXiv 2310.05914): uniform noise on the embeddings of a training pass, without a stored
/// copy. Element (row, column) gets u * alpha / sqrt(L * H), L tokens of the row's own sequence and H columns; u in
/// [-1, 1) is the upper 24 bits of word column % 4 of Philox4x32-10 with key = seed and counter = (column / 4, row,
/// <see cref="Site"/>, step). transformers (<c>neftune_post_forward_hook</c>) takes L of the padded batch; here nothing
/// is padded.
/// </summary>
/// <param name="Alpha">neftune_noise_alpha, 0 = off.</param>
/// <param name="Seed">64-bit key.</param>
/// <param name="Step">Counter word: micro-step number.</param>
internal readonly record struct EmbeddingNoise(float Alpha, ulong Seed, uint Step)
{
    /// <summary>Counter word, apart from those of dropout's sites.</summary>
    public const uint Site = uint.MaxValue;
    /// <summary>Largest noise in a sequence of so many tokens.</summary>
    public float Magnitude(int tokens, int columns) => Alpha / MathF.Sqrt((float)tokens * columns);
}

/// <summary>Shape of grouped-query attention.</summary>
/// <param name="NumHeads">num_attention_heads.</param>
/// <param name="NumKeyValueHeads">num_key_value_heads; query head h reads key/value head h / (heads / kv
/// heads).</param>
/// <param name="HeadDim">head_dim.</param>
/// <param name="SlidingWindow">Positions visible including the current one; 0 = all.</param>
internal readonly record struct AttentionShape(int NumHeads, int NumKeyValueHeads, int HeadDim, int SlidingWindow)
{
    /// <summary>Softmax scale, head_dim^-0.5.</summary>
    public float Scale => 1f / MathF.Sqrt(HeadDim);
}

/// <summary>
/// One projection of a group that shares its input (q, k and v, or gate and up). Tensors of the direction at hand are
/// set, the others none.
/// </summary>
/// <param name="W">The base weight.</param>
/// <param name="A">lora_A [r, in]; none when the projection is not adapted, and forward also when <paramref name="Xa"/>
/// is known already.</param>
/// <param name="B">lora_B [out, r], or none when the projection is not adapted.</param>
/// <param name="Scaling">LoRA scaling.</param>
/// <param name="Dropout">This projection's dropout.</param>
/// <param name="Xa">dropout(x) A^T [T, r].</param>
/// <param name="Y">Output [T, out], or its gradient in the backward direction.</param>
/// <param name="Dxa">Backward: scratch [T, r].</param>
/// <param name="DA">Backward: gradient of A, or none when it is left to <see cref="IOps.LoraBackwardA"/>.</param>
/// <param name="DB">Backward: gradient of B, or none when
/// <see cref="GroupedOps.SwiGluGroupBackward"/> has added it.</param>
/// <param name="Residual">Forward: what the output is added to, [T, out] and another tensor than <paramref name="Y"/>;
/// none = nothing.</param>
internal readonly record struct AdaptedLinear(
    LinearWeight W, Tensor A, Tensor B, float Scaling, Dropout Dropout, Tensor Xa, Tensor Y, Tensor Dxa = default,
    Tensor DA = default, Tensor DB = default, Tensor Residual = default);

/// <summary>One trained tensor with its gradient and AdamW moments, all F32 of one shape.</summary>
/// <param name="Weight">What is trained.</param>
/// <param name="Grad">Its gradient.</param>
/// <param name="M">First moment.</param>
/// <param name="V">Second moment.</param>
/// <param name="WeightDecay">Decoupled; times the learning rate of this tensor.</param>
/// <param name="RateRatio">The learning rate of this tensor over that of the update.</param>
internal readonly record struct ParameterSlot(
    Tensor Weight, Tensor Grad, Tensor M, Tensor V, float WeightDecay, double RateRatio = 1);

/// <summary>AdamW's constants for one update (torch <c>optim/adamw.py</c>).</summary>
/// <param name="LearningRate">Learning rate of this update.</param>
/// <param name="Beta1">Decay of the first moment.</param>
/// <param name="Beta2">Decay of the second moment.</param>
/// <param name="Epsilon">Added to the denominator after bias correction.</param>
/// <param name="Step">Update number t, from 1.</param>
/// <param name="GradScale">Gradients are multiplied by this first (clip coefficient and loss scale).</param>
internal readonly record struct AdamWStep(
    double LearningRate, double Beta1, double Beta2, double Epsilon, int Step, float GradScale);

/// <summary>
/// The op contract: one method per op and direction; inputs, then parameters, then outputs. The caller owns every
/// output. Gradients of parameters are accumulated (+=); gradients of activations are assigned unless the method says
/// "+=". Matrices are row-major; T is the number of tokens of a variable-length micro-batch. Activations are F32 on
/// CPU; a GPU also takes BF16 or F16, with statistics, losses, logits and gradients of parameters in F32.
/// Shapes are checked by the planning implementation only; the others compute. It says too which operands may have rows
/// that lie apart (<see cref="Tensor.Gap"/>), in 16-bit compute only; what lies between is neither read nor written.
/// What some ops do together is asked for through <see cref="IFusedProjections"/>.
/// </summary>
internal interface IOps
{
    /// <summary>x = 0.</summary>
    void Zero(Tensor x);
    /// <summary>dst = src (same shape and dtype).</summary>
    void Copy(Tensor src, Tensor dst);
    /// <summary>y += x.</summary>
    void Add(Tensor x, Tensor y);
    /// <summary>Every tensor (F32) = 0.</summary>
    void ZeroAll(ReadOnlySpan<Tensor> tensors);
    /// <summary>y[i] = x[rows[i]]; x [T, n], rows I32 [N], y [N, n].</summary>
    void GatherRows(Tensor x, Tensor rows, Tensor y);
    /// <summary>
    /// x = 0, then x[rows[i]] = y[i]; y [N, n], x [T, n]. Row numbers are distinct, but for those whose y is zero.
    /// </summary>
    void ScatterRows(Tensor y, Tensor rows, Tensor x);

    /// <summary>
    /// y[t] = table[ids[t]], dequantized; ids I32 [T], table [V, H] in any storage but NF4, y [T, H].
    /// </summary>
    void Embedding(Tensor ids, in LinearWeight table, Tensor y);
    /// <summary>y += <paramref name="noise"/>; offsets I32 [S + 1] of the packed sequences, y [T, H].</summary>
    void AddNoise(Tensor offsets, in EmbeddingNoise noise, Tensor y);
    /// <summary>dTable[ids[t]] += dy[t], in token order.</summary>
    void EmbeddingBackward(Tensor ids, Tensor dy, Tensor dTable);

    /// <summary>
    /// RMSNorm (transformers <c>modeling_llama.py</c>): rstd = (mean(x^2) + eps)^-1/2, y = x * rstd * weight. x and y
    /// [T, H], rstd F32 [T]. y may be x itself. A norm of each head by itself is this one over [T * heads, d].
    /// </summary>
    void RmsNorm(Tensor x, Tensor weight, float eps, Tensor y, Tensor rstd);
    /// <summary>Fused residual add: sum = x + branch, then RMSNorm of sum. sum may be x itself.</summary>
    void AddRmsNorm(Tensor x, Tensor branch, Tensor weight, float eps, Tensor sum, Tensor y, Tensor rstd);
    /// <summary>
    /// dx += gradient of RMSNorm; dWeight += sum over tokens (skipped when none). x is the norm's input; dy [T, H].
    /// </summary>
    void RmsNormBackward(Tensor x, Tensor weight, Tensor rstd, Tensor dy, Tensor dx, Tensor dWeight);

    /// <summary>y = x W^T + bias. x [T, in], y [T, out].</summary>
    void Linear(Tensor x, in LinearWeight w, Tensor y);
    /// <summary>dx = dy W, or dx += dy W when <paramref name="accumulate"/>. dy [T, out], dx [T, in].</summary>
    void LinearBackwardInput(Tensor dy, in LinearWeight w, bool accumulate, Tensor dx);
    /// <summary>dW += dy^T x; dW F32 [out, in]. dBias += column sums of dy (skipped when none).</summary>
    void LinearBackwardWeight(Tensor x, Tensor dy, Tensor dW, Tensor dBias);

    /// <summary>
    /// LoRA (PEFT <c>lora/layer.py</c>): xa = dropout(x) A^T, y += scaling * xa B^T. x [T, in], a [r, in], b [out,
    /// r], xa [T, r]. Without a, xa is read instead: a recomputed layer has it from its first forward pass.
    /// </summary>
    void LoraForward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor y);
    /// <summary>
    /// dxa = scaling * dy B (scratch [T, r]); dB += scaling * dy^T xa; dA += dxa^T dropout(x); dx += mask * dxa A / (1
    /// - p). Without dA, x is not read: <see cref="LoraBackwardA"/> can follow when x exists. x and dx [T, in].
    /// </summary>
    void LoraBackward(
        Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA,
        Tensor dB, Tensor dx);

    /// <summary>The part of <see cref="LoraBackward"/> that needs x: dA += dxa^T dropout(x). x [T, in].</summary>
    void LoraBackwardA(Tensor x, in Dropout dropout, Tensor dxa, Tensor dA);

    /// <summary>
    /// A linear layer with its adapter (PEFT <c>lora/layer.py</c>, Linear): p.Y = x W^T + bias, plus scaling * p.Xa B^T
    /// as <see cref="LoraForward"/> gives it where there is a B, plus the residual where there is one. x [T, in].
    /// </summary>
    void LoraLinear(Tensor x, in AdaptedLinear p);

    /// <summary>
    /// Dropout of an activation as a tensor: y = drop(x), or with <paramref name="rest"/> what it takes away, x -
    /// drop(x); += when <paramref name="accumulate"/>. x and y [T, n]; y may be x.
    /// </summary>
    void Drop(Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y);

    /// <summary>
    /// DoRA (Liu et al., 2024; PEFT <c>lora/dora.py</c>): norm[o] = L2 norm of row o of W + scaling * B A, in float32
    /// from the dequantized W, piece by piece; or 1 for a row of zeros; scale = magnitude / norm. a [r, in], b [out,
    /// r]; magnitude, norm and scale F32 [out]. The bias has no part in it.
    /// </summary>
    void DoraScale(in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale);
    /// <summary>
    /// y = scale * u + bias by columns, += when <paramref name="accumulate"/>. u [T, out] = (W + scaling * B A) x;
    /// scale F32 [out]; bias F32 [out] or none; y may be u.
    /// </summary>
    void DoraForward(Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y);
    /// <summary>
    /// Gradient of <see cref="DoraForward"/> with norm held constant: dMagnitude += column sums of dy * u / norm; du =
    /// scale * dy. du may be dy.
    /// </summary>
    void DoraBackward(Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude);

    /// <summary>
    /// cos, sin [T, d/2] of position * invFreq, times attentionFactor. positions I32 [T], invFreq F32 [d/2].
    /// </summary>
    void RopeTable(Tensor positions, Tensor invFreq, float attentionFactor, Tensor cos, Tensor sin);
    /// <summary>
    /// In place, half-split rotation (transformers layout) of x [T, heads * d]; <paramref name="inverse"/> rotates back
    /// (the gradient).
    /// </summary>
    void Rope(Tensor x, Tensor cos, Tensor sin, int headDim, bool inverse);

    /// <summary>
    /// Flash-style causal attention over packed sequences: offsets I32 [S + 1], q, o [T, heads * d], k, v [T, kv * d],
    /// lse F32 [T, heads] (log-sum-exp of the scaled scores). Sequences never see each other. Dao et al., 2022/2023.
    /// </summary>
    void Attention(Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor o, Tensor lse);
    /// <summary>
    /// Gradient of <see cref="Attention"/>; rows of dO lie as those of o, delta F32 [T, heads] is scratch (rowsum(dO *
    /// O)). With the tables of <see cref="RopeTable"/>, dq and dk are the gradients before the rotation of q and k (see
    /// <see cref="Rope"/>).
    /// </summary>
    void AttentionBackward(
        Tensor q,
        Tensor k,
        Tensor v,
        Tensor o,
        Tensor lse,
        Tensor dO,
        Tensor offsets,
        in AttentionShape shape,
        Tensor delta,
        Tensor dq,
        Tensor dk,
        Tensor dv,
        Tensor cos = default, Tensor sin = default);
    /// <summary>
    /// Plain attention that materialises the scores of one sequence and head at a time, for comparison; same result as
    /// <see cref="Attention"/>. scores F32 [longest, longest] is scratch.
    /// </summary>
    void AttentionMaterialized(
        Tensor q, Tensor k, Tensor v, Tensor offsets, in AttentionShape shape, Tensor scores, Tensor o);
    /// <summary>
    /// Attention of N new rows of one sequence over a cache: kCache, vCache [capacity, kv * d] already hold rows 0 ..
    /// past + N - 1; q, o [N, heads * d].
    /// </summary>
    void CachedAttention(Tensor q, Tensor kCache, Tensor vCache, int past, in AttentionShape shape, Tensor o);

    /// <summary>y = silu(gate) * up, all [T, I]. y may be gate.</summary>
    void SwiGlu(Tensor gate, Tensor up, Tensor y);
    /// <summary>
    /// dGate, dUp from dy, and y = silu(gate) * up again (skipped when none). dGate may be gate, dUp up, and y dy,
    /// whose rows lie as those of y.
    /// </summary>
    void SwiGluBackward(Tensor gate, Tensor up, Tensor dy, Tensor dGate, Tensor dUp, Tensor y = default);

    /// <summary>
    /// Linear head + cross-entropy over chunks of rows; full logits never exist. hidden [N, H], labels I32 [N] (already
    /// shifted; a negative one does not count: its row's loss and gradient are zero), logits scratch [chunk, V]. losses
    /// F32 [N] = -log softmax(hidden W^T)[label]; dHidden [N, H] = gradScale * gradient (skipped when none; it may be
    /// hidden); dHead F32 [V, H] += gradScale * gradient of the weight (skipped when none). Both are gradients of
    /// sum(weights * losses), weights F32 [N] or none = 1; the losses themselves are without weights. With
    /// labelSmoothing e, a loss is (1 - e) of that above and e of the mean of -log softmax over the vocabulary
    /// (Szegedy et al., 2016; transformers <c>trainer_pt_utils.py</c>, LabelSmoother).
    /// </summary>
    void LinearCrossEntropy(
        Tensor hidden, in LinearWeight head, Tensor labels, float gradScale, Tensor logits, Tensor losses,
        Tensor dHidden, Tensor dHead, Tensor weights = default, float labelSmoothing = 0);
    /// <summary>
    /// Scores of candidate tokens: hidden [N, H], candidates I32 [C], scores F32 [N, C] (logits), lse F32 [N] over the
    /// whole vocabulary; logits scratch [chunk, V].
    /// </summary>
    void CandidateScores(
        Tensor hidden, in LinearWeight head, Tensor candidates, Tensor logits, Tensor scores, Tensor lse);

    /// <summary>L2 norm over all tensors (double accumulation, fixed order); NaN or Inf come through.</summary>
    double GlobalNorm(ReadOnlySpan<Tensor> tensors);
    /// <summary>One AdamW update of every slot.</summary>
    void AdamW(ReadOnlySpan<ParameterSlot> slots, in AdamWStep step);
    /// <summary>True when every element is finite.</summary>
    bool AllFinite(Tensor x);

    /// <summary>
    /// Quantizes or rounds src (F32, BF16 or F16; [out, in]) into the storage of dst, bit-identical to bitsandbytes for
    /// NF4.
    /// </summary>
    void Quantize(Tensor src, in LinearWeight dst);
    /// <summary>dst F32 [out, in] = the stored weight's values.</summary>
    void Dequantize(in LinearWeight src, Tensor dst);
}
