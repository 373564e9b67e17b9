using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Cuda;

/// <summary>What lies at the address that a field holds, as the kernels call it.</summary>
[AttributeUsage(AttributeTargets.Field)]
internal sealed class PointerAttribute(string type) : Attribute
{
    /// <summary>A type of the kernels.</summary>
    public string Type => type;
}

/// <summary>
/// Constants of a dropout site; the threshold in both halves. Seed and step are no part of it: see
/// <see cref="DropoutState"/>.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Mask(in Dropout d)
{
    public uint Site = d.Site, Threshold = d.Threshold * 0x10001;
    public float Keep = d.Keep;
}

/// <summary>
/// One adapted projection's operands in a launch that serves several (q, k and v, or gate and up): fewer and fuller
/// launches. Ldx: elements from one row of x (in lora_up: of y) to the next. Tail: column of x that also takes y (in
/// lora_backward: of y, where z is found), or -1.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal struct Part
{
    [Pointer("T")] public nint X;
    [Pointer("const float")] public nint M;
    [Pointer("const T")] public nint Z;
    [Pointer("T")] public nint Y;
    [Pointer("float")] public nint Out;
    public int N, Transposed;
    public float Scale;
    public int Drop, Ldx, Tail;
    public Mask Mask;
}

/// <summary>The parts of a launch.</summary>
[InlineArray(6)]
internal struct Parts
{
    private Part _part;
}

/// <summary>
/// Further columns after each row of an expanded weight: scale * b of an adapter [rows, rank] at one place, zeros
/// beside it. An octet's row is umulhi(octet, magic) >> shift.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal struct ColumnsBehind
{
    [Pointer("const float")] public nint B;
    public uint Magic;
    public int Shift, Pad, Rank, Column, Octets, Rows;
    public float Scale;
}

/// <summary>
/// Where rows of a weight are read from: float32, or NF4 codes from element First on, of blocks of 2^Shift.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal struct StoredRows
{
    [Pointer("const float")] public nint W;
    [Pointer("const u8")] public nint Codes;
    [Pointer("const void")] public nint Absmax;
    [Pointer("const float")] public nint Nested, Offset, Tables;
    public long First;
    public int Shift;
}

/// <summary>A tensor whose norm is taken, or that is cleared.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NormEntry
{
    [Pointer("const float")] public nint X;
    public long Count;
}

/// <summary>
/// A parameter that AdamW updates; Decay = 1 - its learning rate * weight decay, Size = that rate / (1 - beta1^t).
/// </summary>
[StructLayout(LayoutKind.Sequential)]
internal struct AdamEntry
{
    [Pointer("float")] public nint W, G, M, V;
    public long Count;
    public float Decay, Size;
}

/// <summary>What an update of AdamW has in common.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct AdamConstants
{
    public float Scale, OneMinusBeta1, Beta2, OneMinusBeta2, Root, Eps;
}
