namespace Headroom.Core;

/// <summary>A device whose ops do not take every model, or take some of them a slower way.</summary>
internal interface IDeviceLimits
{
    /// <summary>
    /// Largest rank of an adapter of a matrix whose wider side has so many elements, in a type of activations.
    /// </summary>
    int LargestRank(int widest, DType compute);
    /// <summary>Largest head_dim that attention takes.</summary>
    int LargestHead => int.MaxValue;
    /// <summary>
    /// A line for the user where attention of this size and type takes a slower way than the device has for others;
    /// null = it does not.
    /// </summary>
    string? AttentionNotice(int headDim, DType compute) => null;
}
