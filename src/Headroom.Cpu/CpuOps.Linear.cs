using Headroom.Core;

namespace Headroom.Cpu;

internal sealed unsafe partial class CpuOps
{
    /// <inheritdoc cref="IOps.Linear"/>
    public void Linear(Tensor x, in LinearWeight w, Tensor y)
    {
        using var _ = OpTimer.Op("linear");
        if (x.Rows <= RowProduct.MaxRows) RowProduct.Run(_pool, x, w, y);
        else
            Gemm.Run(
                this, Operand.RowMajor(x, w.In), new Operand { Kind = OperandKind.WeightTransposed, W = w }, x.Rows,
                w.Out, w.In, 1, false, y.F, w.Out);
        if (!w.Bias.IsNone) BiasKernels.Add(_pool, w.Bias, y);
    }

    /// <inheritdoc cref="IOps.LinearBackwardInput"/>
    public void LinearBackwardInput(Tensor dy, in LinearWeight w, bool accumulate, Tensor dx)
    {
        using var _ = OpTimer.Op("linear_backward_input");
        Gemm.Run(
            this, Operand.RowMajor(dy, w.Out), new Operand { Kind = OperandKind.Weight, W = w }, dy.Rows, w.In, w.Out,
            1, accumulate, dx.F, w.In);
    }

    /// <inheritdoc cref="IOps.LinearBackwardWeight"/>
    public void LinearBackwardWeight(Tensor x, Tensor dy, Tensor dW, Tensor dBias)
    {
        using var _ = OpTimer.Op("linear_backward_weight");
        int outs = dy.Columns, ins = x.Columns;
        Gemm.Run(this, Operand.Transposed(dy, outs), Operand.RowMajor(x, ins), outs, ins, x.Rows, 1, true, dW.F, ins);
        if (!dBias.IsNone) BiasKernels.Backward(dy, dBias);
    }

    /// <inheritdoc cref="IOps.LoraForward"/>
    public void LoraForward(Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor y)
    {
        using var _ = OpTimer.Op("lora");
        int r = b.Columns, outs = y.Columns;
        if (!a.IsNone) LoraInput(x, a, dropout, xa);
        Gemm.Run(this, Operand.RowMajor(xa, r), Operand.Transposed(b, r), x.Rows, outs, r, scaling, true, y.F, outs);
    }

    /// <summary>The first half of <see cref="LoraForward"/>.</summary>
    internal void LoraInput(Tensor x, Tensor a, in Dropout dropout, Tensor xa) =>
        Gemm.Run(
            this, Dropped(x, dropout), Operand.Transposed(a, x.Columns), x.Rows, a.Rows, x.Columns, 1, false, xa.F,
            a.Rows);

    /// <inheritdoc cref="IOps.LoraBackward"/>
    public void LoraBackward(
        Tensor x, Tensor a, Tensor b, float scaling, in Dropout dropout, Tensor xa, Tensor dy, Tensor dxa, Tensor dA,
        Tensor dB, Tensor dx)
    {
        using var _ = OpTimer.Op("lora_backward");
        int r = a.Rows, outs = dy.Columns, rows = dy.Rows;
        Gemm.Run(this, Operand.RowMajor(dy, outs), Operand.RowMajor(b, r), rows, r, outs, scaling, false, dxa.F, r);
        LoraGradients.Run(this, x, a, scaling, dropout, xa, dy, dxa, dA, dB, dx);
    }

    /// <inheritdoc cref="IOps.LoraLinear"/>
    public void LoraLinear(Tensor x, in AdaptedLinear p)
    {
        using var _ = OpTimer.Op("linear");
        int r = p.B.IsNone ? 0 : p.B.Columns;
        if (r == 0 || r > Gemm.MaxExtra || x.Rows <= RowProduct.MaxRows)
        {
            Linear(x, p.W, p.Y);
            if (r > 0) LoraForward(x, p.A, p.B, p.Scaling, p.Dropout, p.Xa, p.Y);
            if (!p.Residual.IsNone) Add(p.Residual, p.Y);
            return;
        }
        // y = [x, xa] [W, scaling * B]^T in one product: y is written once.
        if (!p.A.IsNone) LoraInput(x, p.A, p.Dropout, p.Xa);
        Gemm.Run(
            this,
            Operand.RowMajor(x, p.W.In),
            new Operand { Kind = OperandKind.WeightTransposed, W = p.W },
            x.Rows,
            p.W.Out,
            p.W.In,
            1,
            false,
            p.Y.F,
            p.W.Out,
            new Gemm.Extra { A = p.Xa.F, B = p.B.F, Count = r, Scale = p.Scaling });
        if (!p.W.Bias.IsNone) BiasKernels.Add(_pool, p.W.Bias, p.Y);
        if (!p.Residual.IsNone) Add(p.Residual, p.Y);
    }

    /// <inheritdoc cref="IOps.LoraBackwardA"/>
    public void LoraBackwardA(Tensor x, in Dropout dropout, Tensor dxa, Tensor dA)
    {
        using var _ = OpTimer.Op("lora_backward");
        LoraGradients.RunA(this, x, dropout, dxa, dA);
    }

    /// <inheritdoc cref="IOps.Drop"/>
    public void Drop(Tensor x, in Dropout dropout, bool rest, bool accumulate, Tensor y)
    {
        using var _ = OpTimer.Op("dropout");
        DoraKernels.Drop(this, x, dropout, rest, accumulate, y);
    }
    /// <inheritdoc cref="IOps.DoraScale"/>
    public void DoraScale(
        in LinearWeight w, Tensor a, Tensor b, float scaling, Tensor magnitude, Tensor norm, Tensor scale)
    {
        using var _ = OpTimer.Op("dora_scale");
        DoraKernels.Scale(this, w, a, b, scaling, magnitude, norm, scale);
    }
    /// <inheritdoc cref="IOps.DoraForward"/>
    public void DoraForward(Tensor u, Tensor scale, Tensor bias, bool accumulate, Tensor y)
    {
        using var _ = OpTimer.Op("dora");
        DoraKernels.Forward(_pool, u, scale, bias, accumulate, y);
    }
    /// <inheritdoc cref="IOps.DoraBackward"/>
    public void DoraBackward(Tensor dy, Tensor u, Tensor scale, Tensor norm, Tensor du, Tensor dMagnitude)
    {
        using var _ = OpTimer.Op("dora_backward");
        DoraKernels.Backward(_pool, dy, u, scale, norm, du, dMagnitude);
    }

    /// <inheritdoc cref="IOps.LinearCrossEntropy"/>
    public void LinearCrossEntropy(
        Tensor hidden, in LinearWeight head, Tensor labels, float gradScale, Tensor logits, Tensor losses,
        Tensor dHidden, Tensor dHead, Tensor weights = default, float labelSmoothing = 0)
    {
        using var _ = OpTimer.Op("linear_cross_entropy");
        for (int row = 0; row < hidden.Rows; row += logits.Rows)
        {
            int n = Math.Min(logits.Rows, hidden.Rows - row);
            Tensor h = hidden.Slice(row, n), z = logits.Head(n);
            Linear(h, head, z);
            bool gradient = !dHidden.IsNone || !dHead.IsNone;
            SoftmaxRows.CrossEntropy(
                _pool, z, labels.Slice(row, n), weights.IsNone ? default : weights.Slice(row, n), gradScale,
                labelSmoothing, losses.Slice(row, n), gradient);
            if (!dHead.IsNone) LinearBackwardWeight(h, z, dHead, default); // before dHidden, which may be hidden
            if (!dHidden.IsNone) LinearBackwardInput(z, head, false, dHidden.Slice(row, n));
        }
    }

    /// <inheritdoc cref="IOps.CandidateScores"/>
    public void CandidateScores(
        Tensor hidden, in LinearWeight head, Tensor candidates, Tensor logits, Tensor scores, Tensor lse)
    {
        using var _ = OpTimer.Op("candidate_scores");
        for (int row = 0; row < hidden.Rows; row += logits.Rows)
        {
            int n = Math.Min(logits.Rows, hidden.Rows - row);
            var z = logits.Head(n);
            Linear(hidden.Slice(row, n), head, z);
            SoftmaxRows.Pick(_pool, z, candidates, scores.Slice(row, n), lse.Slice(row, n));
        }
    }

    /// <inheritdoc cref="IOps.Quantize"/>
    public void Quantize(Tensor src, in LinearWeight dst)
    {
        using var _ = OpTimer.Op("quantize");
        WeightWriter.Quantize(_pool, src, dst);
    }

    /// <inheritdoc cref="IOps.Dequantize"/>
    public void Dequantize(in LinearWeight src, Tensor dst)
    {
        using var _ = OpTimer.Op("dequantize");
        WeightWriter.Dequantize(_pool, src, dst);
    }

    private static Operand Dropped(Tensor x, in Dropout dropout)
    {
        var operand = Operand.RowMajor(x, x.Columns);
        if (dropout.P <= 0) return operand;
        operand.Kind = OperandKind.Dropped;
        operand.Dropout = dropout;
        return operand;
    }
}
