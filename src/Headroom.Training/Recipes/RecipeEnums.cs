using System.Text.Json.Serialization;
using Headroom.Core;

namespace Headroom.Training.Recipes;

/// <summary>Where a run runs.</summary>
[JsonConverter(typeof(SnakeCaseEnum<DeviceChoice>))]
public enum DeviceChoice : byte
{
    /// <summary>A GPU when there is one, else the CPU.</summary>
    Auto,
    /// <summary>The CPU.</summary>
    Cpu,
    /// <summary>An NVIDIA GPU.</summary>
    Cuda,
}

/// <summary>When something is done while training (transformers <c>IntervalStrategy</c>).</summary>
[JsonConverter(typeof(SnakeCaseEnum<IntervalStrategy>))]
public enum IntervalStrategy : byte
{
    /// <summary>Never.</summary>
    No,
    /// <summary>Every so many updates.</summary>
    Steps,
    /// <summary>After each epoch.</summary>
    Epoch,
}

/// <summary>Learning-rate schedules (transformers <c>SchedulerType</c>).</summary>
[JsonConverter(typeof(SnakeCaseEnum<SchedulerType>))]
public enum SchedulerType : byte
{
    /// <summary>Falls in a line to 0.</summary>
    Linear,
    /// <summary>Falls by half a cosine to 0.</summary>
    Cosine,
    /// <summary>Stays, without warm-up.</summary>
    Constant,
    /// <summary>Stays after the warm-up.</summary>
    ConstantWithWarmup,
    /// <summary>Cosines that begin anew.</summary>
    CosineWithRestarts,
    /// <summary>Falls by a power to an end value.</summary>
    Polynomial,
    /// <summary>Falls with the square root of the updates.</summary>
    InverseSqrt,
    /// <summary>Cosine to a minimum.</summary>
    CosineWithMinLr,
    /// <summary>The same, with a warm-up that does not begin at 0.</summary>
    CosineWarmupWithMinLr,
    /// <summary>Warm-up, stable part, decay.</summary>
    WarmupStableDecay,
}

/// <summary>Order of the training rows.</summary>
[JsonConverter(typeof(SnakeCaseEnum<SamplingStrategy>))]
public enum SamplingStrategy : byte
{
    /// <summary>Anew for each epoch, by the seed.</summary>
    Random,
    /// <summary>As they stand.</summary>
    Sequential,
    /// <summary>Rows of like length together.</summary>
    GroupByLength,
}

/// <summary>What happens to texts that two splits hold.</summary>
[JsonConverter(typeof(SnakeCaseEnum<DuplicateTexts>))]
public enum DuplicateTexts : byte
{
    /// <summary>They are refused.</summary>
    Error,
    /// <summary>They are dropped from training.</summary>
    Drop,
    /// <summary>They stay.</summary>
    Allow,
}

/// <summary>What happens to rows that cannot be read.</summary>
[JsonConverter(typeof(SnakeCaseEnum<BadRows>))]
public enum BadRows : byte
{
    /// <summary>The first is an error.</summary>
    Error,
    /// <summary>They are left out and counted.</summary>
    Skip,
}
